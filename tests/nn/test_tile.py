"""A tile goes through the generator of a file: loaded once per process, checked, on the right device and precision."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from eosr.errors import WeightsError
from eosr.nn import tile
from eosr.nn.weights import file_checksum, load_weights, save_weights
from nn.made import scatter, small_generator, small_weights

torch.set_num_threads(1)


@pytest.fixture
def path(tmp_path):
    tile._load.cache_clear()
    yield save_weights(small_weights(scatter(small_generator(), 0.1)), tmp_path / "tiny.safetensors")
    tile._load.cache_clear()


def arrays(size=24, factor=2, targets=6):
    rng = np.random.default_rng(0)
    fine = rng.uniform(0, 5000, (4, size, size)).astype(np.float32)
    return fine, None, rng.uniform(0, 5000, (targets, size // factor, size // factor)).astype(np.float32)


def sharpened(path, **options):
    return tile.sharpen(str(path), file_checksum(path), *arrays(), (0.5,) * 6, device="cpu", **options)


def test_a_tile_is_scaled_sent_through_the_generator_and_scaled_back(path):
    fine, _, coarse = (None if a is None else torch.from_numpy(a)[None] / 2000 for a in arrays())
    expected = load_weights(path).generator(fine, coarse, torch.full((1, 6), 0.5))[0] * 2000
    answer = sharpened(path)
    assert answer.dtype == np.float32
    # Another layout sums in another order.
    np.testing.assert_allclose(answer, expected.numpy(), rtol=0, atol=0.1)


@pytest.mark.parametrize("damage", ["scale", "tensors", "bias"])
def test_an_answer_that_is_no_number_or_far_outside_of_its_inputs_is_an_error_that_names_the_weights(damage, tmp_path):
    weights = small_weights(scatter(small_generator(), 0.1))
    if damage == "scale":
        weights = replace(weights, normalization=replace(weights.normalization, scale=1e308))
    elif damage == "tensors":
        for tensor in weights.generator.parameters():
            tensor.data.mul_(1e30)
    else:
        weights.generator.stages[-1].leave.bias.data.add_(50)  # in units of 2000 DN
    said = r"values from .* to .* DN" if damage == "bias" else "values that are no numbers"
    with pytest.raises(
        WeightsError, match=rf"tiny \(.*broken.safetensors\) answers with {said} where all its inputs lie"
    ):
        sharpened(save_weights(weights, tmp_path / "broken.safetensors"))


@pytest.mark.parametrize(
    "changed", [lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_device("meta")]
)
def test_defaults_of_torch_that_others_changed_change_no_answer(changed, path):
    expected = sharpened(path)
    tile._load.cache_clear()
    try:
        changed()
        np.testing.assert_array_equal(sharpened(path), expected)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


def test_a_60_m_tile_gets_its_20_m_guides(tmp_path):
    path = save_weights(small_weights(small_generator(6)), tmp_path / "sixty.safetensors")
    fine, _, coarse = arrays(factor=6, targets=2)
    middle = np.full((6, 12, 12), 1000, np.float32)
    dark, bright = (
        tile.sharpen(str(path), file_checksum(path), fine, m, coarse, (1.0, 1.0), device="cpu")
        for m in (middle, 3 * middle)
    )
    assert dark.shape == (2, 24, 24)
    assert np.abs(dark - bright).max() > 10


def test_many_threads_load_the_model_once_and_agree(path, monkeypatch):
    loads, together = [], threading.Barrier(8)

    def slowly(source):
        loads.append(source)
        time.sleep(0.05)  # a model of a real size takes this long, and the others come meanwhile
        return load_weights(source)

    monkeypatch.setattr(tile, "shared_weights", slowly)

    def run(_):
        together.wait()
        return sharpened(path)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(run, range(8)))
    assert loads == [str(path)]
    assert all(np.array_equal(answers[0], other) for other in answers)


def test_a_file_that_changed_since_the_graph_was_built_is_refused(path):
    checksum = file_checksum(path)
    save_weights(small_weights(small_generator(seed=9)), path)
    with pytest.raises(WeightsError, match=rf"have changed since the graph was built .* {checksum[:12]}\)\. Build"):
        tile.sharpen(str(path), checksum, *arrays(), (0.5,) * 6, device="cpu")


def test_a_file_that_a_worker_does_not_see_is_named(path):
    checksum = file_checksum(path)
    path.unlink()
    with pytest.raises(WeightsError, match=r"are not visible from this worker\. Put them on a shared filesystem\."):
        tile.sharpen(str(path), checksum, *arrays(), (0.5,) * 6, device="cpu")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none_is_refused(device, path):
    said = f"device '{device}' is not available here. Use device='auto' or device='cpu'."
    with pytest.raises(WeightsError, match=said):
        tile.sharpen(str(path), file_checksum(path), *arrays(), (0.5,) * 6, device=device)


on_a_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")


@on_a_card
def test_tiles_of_many_threads_come_back_from_a_card_as_each_would_alone(tmp_path):
    path = save_weights(small_weights(bfloat16_error=float("inf")), tmp_path / "exact.safetensors")
    checksum, rng = file_checksum(path), np.random.default_rng(1)
    sizes = [24, 48, 96, 240] * 8  # tensors of all sizes are freed and taken again while others are on their way
    given = [
        (rng.uniform(0, 5000, (4, n, n)).astype(np.float32), None,
         rng.uniform(0, 5000, (6, n // 2, n // 2)).astype(np.float32))
        for n in sizes
    ]  # fmt: skip

    def run(inputs, device="cuda"):
        return tile.sharpen(str(path), checksum, *inputs, (0.5,) * 6, device=device)

    alone = [run(inputs) for inputs in given]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(run, given))
    for inputs, one, other in zip(given, alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
        # Random weights make values of 30000.
        np.testing.assert_allclose(one, run(inputs, "cpu"), rtol=0, atol=1.0)


@on_a_card
def test_a_card_that_is_too_small_is_told_with_what_to_type(path, monkeypatch):
    def too_large(*_):
        torch.empty(2**50, dtype=torch.uint8, device="cuda")

    monkeypatch.setattr(tile, "_run", too_large)
    for _ in range(5):  # whoever fails makes way for the next
        with pytest.raises(WeightsError, match=r"cuda has too little memory for a tile of 24 x 24 .*chunks=768"):
            tile.sharpen(str(path), file_checksum(path), *arrays(), (0.5,) * 6, device="cuda")


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(WeightsError, match="device 'gpu' is not available here"):
        tile.resolve_device("gpu")


def test_auto_is_cuda_where_there_is_one_and_else_the_cpu():
    assert tile.resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("device", "error", "allowed"),
    [
        ("cuda", 0.0, True),
        ("cuda:1", 2.0, True),
        ("cuda", 2.01, False),
        ("cuda", float("inf"), False),
        ("cuda", float("nan"), False),
        ("cpu", 0.0, False),
    ],
)
def test_bfloat16_is_used_on_cuda_only_where_it_moves_no_pixel_by_more_than_2_dn(device, error, allowed):
    weights = small_weights()
    weights = replace(weights, provenance=replace(weights.provenance, bfloat16_error=error))
    assert tile.uses_bfloat16(weights, device) is allowed


def test_denormals_are_flushed_in_every_worker_thread_while_it_runs_and_not_after(path):
    """The setting belongs to a thread: set while loading, it would serve the first worker only."""
    smallest = np.float32(1e-38)
    sharpened(path)
    generator = tile._load(str(path), file_checksum(path), "cpu").generator
    during, after = [], []
    generator.register_forward_hook(lambda *_: during.append(float(smallest * np.float32(0.01))))

    def run(_):
        sharpened(path)
        after.append(float(smallest * np.float32(0.01)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(4)))
    assert during == [0.0] * 4
    assert all(value > 0 for value in after)
