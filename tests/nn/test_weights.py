"""A weights file comes back bit for bit, or is refused in one sentence; no pickle is ever read."""

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.patience import PATIENCE

from eosr.errors import WeightsError
from eosr.nn.kinds import build_generator
from eosr.nn.options.study import StudyConfig, StudyGenerator
from eosr.nn.weights import SHIPPED, file_checksum, load_weights, save_weights
from nn.made import inputs_of, scatter, small_generator, small_weights

torch.set_num_threads(1)


@pytest.fixture
def path(tmp_path):
    return save_weights(small_weights(), tmp_path / "tiny.safetensors")


def rewritten(path, change_about=None, change_tensors=None):
    """The same file with its record or its tensors changed in place."""
    header = struct.unpack("<Q", path.read_bytes()[:8])[0]
    about = json.loads(json.loads(path.read_bytes()[8 : 8 + header])["__metadata__"]["eosr"])
    tensors = load_file(path)
    if change_about:
        about = change_about(about) or about
    if change_tensors:
        change_tensors(tensors)
    save_file(tensors, path, metadata={"eosr": json.dumps(about)})
    return path


def refusal(source) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(source)
    text = str(caught.value)
    assert "\n" not in text, "one line"
    assert text.endswith("."), "a sentence"
    return text


@pytest.mark.parametrize(
    "generator",
    [small_generator(), small_generator(6), scatter(StudyGenerator(StudyConfig(features=8, blocks=1)))],
    ids=["20 m", "60 m", "study"],
)
def test_a_generator_comes_back_bit_for_bit_with_its_history(generator, tmp_path):
    weights = small_weights(generator)
    path = save_weights(weights, tmp_path / "tiny.safetensors")
    back = load_weights(path)
    for name, tensor in generator.state_dict().items():
        assert torch.equal(back.generator.state_dict()[name], tensor), name
    assert back.generator.config == generator.config
    assert back.normalization == weights.normalization
    assert back.provenance == weights.provenance
    assert (back.name, back.levels, back.degradations) == (weights.name, weights.levels, weights.degradations)
    assert back.checksum == file_checksum(path)
    assert (back.factor, back.parameters) == (generator.config.factor, weights.parameters)
    inputs = inputs_of(generator, 48)
    with torch.no_grad():
        assert torch.equal(back.generator(**inputs), generator(**inputs))
    assert not back.generator.training
    assert not any(p.requires_grad for p in back.generator.parameters())


def test_weights_that_were_never_measured_in_bfloat16_stay_unmeasured(tmp_path):
    path = save_weights(small_weights(bfloat16_error=float("inf")), tmp_path / "a.safetensors")
    assert load_weights(path).provenance.bfloat16_error == float("inf")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_load_by_name(name):
    weights = load_weights(name)
    assert weights.name == name
    assert weights.factor == {"s2sr-20m": 2, "s2sr-60m": 6}[name]
    assert weights.levels == ("L1C", "L2A")
    assert all(len(checksum) == 64 for checksum in weights.provenance.data.values())
    assert weights.provenance.data
    assert weights.provenance.scores


def test_loading_never_unpickles(path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert load_weights(path).name == "tiny"


def test_a_pickle_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "old.pt"
    torch.save(small_generator().state_dict(), path)
    monkeypatch.setattr(pickle, "Unpickler", None)
    assert "old.pt is no weights file of eosr, or is damaged" in refusal(path)


def test_an_unknown_name_is_refused_with_the_shipped_ones():
    text = refusal("s2sr-30m")
    assert text == (
        "'s2sr-30m' is neither a weights file nor the name of shipped weights. Shipped: 's2sr-20m', 's2sr-60m'."
    )


def test_a_folder_is_no_weights_file(tmp_path):
    assert "neither a weights file" in refusal(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"these are the weights\n" * 20, b"\xff" * 100], ids=["empty", "text", "junk"]
)
def test_a_file_of_something_else_is_refused(content, tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert "w.safetensors is no weights file of eosr, or is damaged" in refusal(path)


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share, path):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "is no weights file of eosr, or is damaged" in refusal(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"eosr": "{no json"}])
def test_a_safetensors_file_of_somebody_else_is_refused(metadata, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    assert "is a safetensors file, but not one of eosr: it lacks the 'eosr' record" in refusal(path)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_format_is_refused(version, path):
    text = refusal(rewritten(path, lambda about: about.update(format=version)))
    assert f"has format {version!r}; this eosr reads format 1. Upgrade eosr, or retrain." in text


@pytest.mark.parametrize(
    "config",
    [
        {"features": 20_000}, {"features": 2**70}, {"stages": 1_000_000}, {"blocks": 1_000_000}, {"blocks": -1},
        {"stages": 90, "blocks": 90}, {"features": 1e300}, {"features": "64"}, {"features": True}, {"expansion": 99},
        {"fine_guides": 10**9}, {"factor": 0}, {"factor": 3}, {"factor": 6}, {"factor": 10**9}, {"factor": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_the_tensors_cannot_have_is_refused_before_memory_is_taken(path, config, monkeypatch):
    """On the device of torch that holds no numbers: made in earnest, 20,000 features are 8.8 GB."""
    built = []

    def seen(*told):
        built.append(torch.empty(0).device.type)
        return build_generator(*told)

    monkeypatch.setattr("eosr.nn.weights.build_generator", seen)
    text = refusal(rewritten(path, lambda about: about["config"].update(config)))
    assert "contradicts itself" in text
    assert config == {"factor": 6} or "cpu" not in built


def test_a_record_nested_without_end_is_refused(path):
    save_file(load_file(path), path, metadata={"eosr": "[" * 100_000})
    assert "not one of eosr: it lacks the 'eosr' record" in refusal(path)


def test_a_torchscript_archive_with_gigabytes_of_code_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/code/a.py", b" " * 20_000_000)
    assert "unpacks to 20 MB, which DSen2 does not have" in refusal(tmp_path / "bomb.pt")


def test_a_record_that_is_no_table_is_refused(path):
    assert "has format None" in refusal(rewritten(path, lambda _: [1, 2]))


def test_a_missing_tensor_is_refused(path):
    text = refusal(rewritten(path, change_tensors=lambda t: t.pop("stages.1.leave.bias")))
    assert "contradicts itself" in text
    assert 'Missing key(s) in state_dict: "stages.1.leave.bias"' in text


def test_an_extra_tensor_is_refused(path):
    text = refusal(rewritten(path, change_tensors=lambda t: t.update(extra=torch.zeros(2))))
    assert 'Unexpected key(s) in state_dict: "extra"' in text


def test_a_tensor_of_another_shape_is_refused(path):
    text = refusal(rewritten(path, change_tensors=lambda t: t.update({"stages.0.leave.bias": torch.zeros(7)})))
    assert "size mismatch for stages.0.leave.bias" in text


def test_a_tensor_of_another_type_is_refused_rather_than_converted(path):
    half = {"stages.0.leave.bias": torch.zeros(24, dtype=torch.float16)}
    text = refusal(rewritten(path, change_tensors=lambda t: t.update(half)))
    assert "tensor stages.0.leave.bias is torch.float16, not torch.float32" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_with_values_that_are_no_numbers_is_refused(value, path):
    text = refusal(rewritten(path, change_tensors=lambda t: t["stages.0.enter.bias"].fill_(value)))
    assert "tensor stages.0.enter.bias holds values that are no numbers" in text


def test_an_unknown_kind_is_refused_with_the_known_ones(path):
    text = refusal(rewritten(path, lambda about: about.update(kind="gan")))
    assert "unknown kind of generator 'gan'; this eosr knows back_projection, study" in text


def test_an_unknown_setting_is_refused(path):
    assert "'colour'" in refusal(rewritten(path, lambda about: about["config"].update(colour=3)))


@pytest.mark.parametrize("key", ["kind", "config", "normalization", "provenance", "levels", "name"])
def test_a_record_that_lacks_something_is_refused_by_its_name(key, path):
    assert f"its record lacks '{key}'" in refusal(rewritten(path, lambda about: about.pop(key) and None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target_bands": ["B01", "B09"]}, "2 target bands are named, its generator takes 6"),
        ({"fine_bands": ["B02", "B03", "B04", "B4"]}, "'B4' is not a band of Sentinel-2"),
        ({"middle_bands": ["B05"]}, "1 middle bands are named, its generator takes 0"),
        ({"scale": 0}, "scale 0 is no positive number"),
        ({"scale": float("nan")}, "scale nan is no positive number"),
    ],
)
def test_a_normalisation_that_does_not_fit_its_generator_is_refused(change, said, path):
    assert said in refusal(rewritten(path, lambda about: about["normalization"].update(change)))


def test_a_folder_that_is_not_there_cannot_be_written(tmp_path):
    with pytest.raises(WeightsError, match=r"w\.safetensors cannot be written: .*Name a folder you may write to\."):
        save_weights(small_weights(), tmp_path / "nowhere" / "w.safetensors")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(small_weights(), tmp_path / "w.safetensors")


def test_a_full_disk_leaves_the_old_file_and_no_half_one(path):
    """A limit on the size of files stands in for the full disk: the operating system refuses the write itself."""
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(WeightsError, match="cannot be written"):
            save_weights(replace(small_weights(), name="newer"), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_fork_of_a_process_that_used_torch_computes_the_same():
    """OpenMP's threads, dask's and those of a client do not survive a fork (pytorch/pytorch#17199)."""
    script = (
        "import multiprocessing, torch\n"
        "from distributed import Client\n"
        "from eosr.testing import synthetic_scene\n"
        "def work(seed):\n"
        "    torch.ones(1000, 1000).exp().sum()\n"
        "    ds = synthetic_scene(60, 60, level='L2A', seed=seed).s2sr.superresolve(bands=['B05'])\n"
        "    return float(ds.B05.astype('f8').mean())\n"
        "def forked():\n"
        "    with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "        return pool.map(work, [1])\n"
        "if __name__ == '__main__':\n"
        "    torch.set_num_threads(2)\n"
        "    want = [work(1)]\n"
        "    after_threads = forked()\n"
        "    with Client(n_workers=1, processes=False, dashboard_address=None):\n"
        "        after_client = forked()\n"
        "    print(after_threads == want, after_client == want)\n"
    )
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.stdout.split() == ["True", "True"], run.stderr
