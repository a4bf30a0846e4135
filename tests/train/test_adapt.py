"""Adaptation: it learns from the scene alone, keeps what is better on the part held out, and reads what it must."""

import json
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import torch

import eosr
from eosr.cli import main
from eosr.errors import DegradationError, GridError, OutputError, RadiometryError, WeightsError
from eosr.nn.weights import load_weights, save_weights
from eosr.testing import synthetic_scene
from eosr.train.adaptation import _places_of, adapt

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def scene():
    """432 x 480 pixels of 10 m."""
    return synthetic_scene(72, 80, level="L2A", radiometric_offset=-1000)


@pytest.fixture(scope="module")
def adapted(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    return adapt(scene, "s2sr-20m", out=folder, steps=2, windows=12), folder


def test_the_adapted_weights_are_better_on_the_part_held_out_and_say_what_they_are(adapted, scene):
    found, folder = adapted
    assert found.paths == [folder / "s2sr-20m-adapted.safetensors"]
    assert found.after["s2sr-20m"] < found.before["s2sr-20m"]
    assert found.kept == {"s2sr-20m": True}
    weights, shipped = load_weights(found.paths[0]), load_weights("s2sr-20m")
    assert weights.name == "s2sr-20m-adapted"
    assert f"adapted from s2sr-20m ({shipped.checksum[:12]}) on synthetic" in weights.provenance.software
    assert weights.provenance.scores == {
        "study/held out, before": round(found.before["s2sr-20m"], 3),
        "study/held out, after": round(found.after["s2sr-20m"], 3),
    }
    assert weights.provenance.steps == shipped.provenance.steps + 2
    assert weights.provenance.data["s2sr-20m"] == shipped.checksum
    assert len(weights.provenance.data["places of synthetic"]) == 64
    moved = [
        not torch.equal(a, b)
        for a, b in zip(weights.generator.parameters(), shipped.generator.parameters(), strict=True)
    ]
    assert any(moved)
    sharp = scene.s2sr.superresolve(weights=found.paths, bands=["B05"])
    assert sharp["B05"].shape == (432, 480)


def test_the_same_seed_gives_the_same_weights(adapted, scene, tmp_path):
    again = adapt(scene, "s2sr-20m", out=tmp_path, steps=2, windows=12)
    assert again.paths[0].read_bytes() == adapted[0].paths[0].read_bytes()


def test_weights_that_do_not_get_better_stay_what_they_were(scene, tmp_path):
    found = adapt(scene, "s2sr-20m", out=tmp_path, steps=1, windows=8, learning_rate=0.5)
    assert found.kept == {"s2sr-20m": False}
    weights, shipped = load_weights(found.paths[0]), load_weights("s2sr-20m")
    assert "not bettered from s2sr-20m" in weights.provenance.software
    for name, tensor in shipped.generator.state_dict().items():
        assert torch.equal(weights.generator.state_dict()[name], tensor)


@pytest.mark.parametrize("seed", range(4))
def test_the_strip_held_out_is_never_learnt_from(scene, seed):
    """No column of a place to learn from is one of a place to be judged on."""
    places = _places_of(scene, 2, count=40, seed=seed)
    learnt, held = (
        [(int(one.name.split(",")[1]), one.fine.shape[2]) for one in part] for part in (places.learnt, places.held_out)
    )
    assert len(learnt) > 20
    assert held
    for start, width in learnt:
        for other, wide in held:
            assert start + width <= other or other + wide <= start


def test_the_pixels_of_a_place_are_those_of_the_scene_without_offset(scene):
    for place in _places_of(scene, 2, count=6, seed=1).learnt:
        top, left = map(int, place.name.split(","))
        height, width = place.fine.shape[1:]
        fine = scene["B03"].values[top : top + height, left : left + width].astype(np.float32) - 1000
        coarse = scene["B11"].values[top // 2 : (top + height) // 2, left // 2 : (left + width) // 2]
        np.testing.assert_array_equal(place.fine[1], fine)
        np.testing.assert_array_equal(place.middle[4], coarse.astype(np.float32) - 1000)


def test_of_a_large_lazy_scene_only_the_places_are_read():
    """A scene of 100 chunks; places of 192 pixels in two of five strips' worth of draws touch few of them."""
    read = set()
    plain = synthetic_scene(200, 200, level="L2A").drop_vars(["B01", "B09", "y60", "x60"])

    def noted(block, block_info=None):
        read.add((block.shape, tuple(block_info[0]["chunk-location"])))
        return block

    lazy = plain.copy()
    for name in plain.data_vars:
        side = 120 if name in ("B02", "B03", "B04", "B08") else 60
        lazy[name] = (
            plain[name].dims,
            da.from_array(plain[name].values, chunks=side).map_blocks(noted, dtype="uint16"),
        )
        lazy[name].encoding = plain[name].encoding
    _places_of(lazy, 2, count=4, seed=0)
    fine = {place for shape, place in read if shape == (120, 120)}
    assert 4 <= len(fine) < 80, "of 100"


@pytest.mark.parametrize("value", [0, 65535])
def test_places_with_gaps_or_saturated_pixels_are_left_out(tmp_path, value):
    scene = synthetic_scene(72, 80, level="L2A")
    scene["B05"][:] = value
    with pytest.raises(GridError, match=r"no place without gaps to be judged on\. Take a clearer part"):
        adapt(scene, "s2sr-20m", out=tmp_path, steps=1)


def test_a_scene_of_which_half_is_empty_is_adapted_on_the_other_half():
    """As at the edge of an orbit: whichever strip is drawn first, one with pixels is held out."""
    scene = synthetic_scene(72, 80, level="L2A", gaps={"B05": [(slice(0, 216), slice(0, 120))]})
    for seed in range(6):
        places = _places_of(scene, 2, count=40, seed=seed)
        assert all(int(place.name.split(",")[1]) >= 240 for place in (*places.learnt, *places.held_out))


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"steps": 0}, WeightsError, r"steps=0 and windows=256 must be 1 or more\. Give e\.g\. steps=300"),
        ({"learning_rate": -1.0}, WeightsError, r"learning_rate=-1\.0 is no number above 0"),
        ({"degradation": "sigma=0.5"}, DegradationError, r"adapt learns to invert study, .*, not 'sigma=0\.5'"),
        ({"attrs": {"quantity": "reflectance"}}, RadiometryError, "holds reflectance; adapt works on digital numbers"),
        ({"attrs": {"level": "L3A"}}, RadiometryError, "level is 'L3A', and L1C and L2A are known"),
        ({"weights": ["s2sr-20m", "s2sr-20m"]}, WeightsError, "two of the weights are called s2sr-20m"),
        ({"weights": "nothing"}, WeightsError, "neither a weights file nor the name"),
        (
            {"weights": "s2sr-60m", "size": 30},
            GridError,
            r"180 x 180 pixels of 10 m, an adaptation for factor 6 takes 432",
        ),
        ({"size": 12}, GridError, r"72 x 72 pixels of 10 m, an adaptation for factor 2 takes 96 at least"),
        ({"drop": ["B8A"]}, GridError, r"s2sr-20m is adapted on B8A too, which the Dataset lacks"),
        ({"times": ["2024-01-01", "2024-02-01"]}, GridError, r"adapt takes one time, the Dataset holds 2\. Choose one"),
    ],
)
def test_what_cannot_be_adapted_is_refused(change, kind, said, tmp_path):
    size = change.pop("size", 30)
    scene = synthetic_scene(size, size, level="L2A", times=change.pop("times", None))
    scene = scene.drop_vars(change.pop("drop", [])).assign_attrs(change.pop("attrs", {}))
    with pytest.raises(kind, match=said):
        adapt(scene, **({"weights": "s2sr-20m", "out": tmp_path} | change))
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_sharpened_scene_is_refused(scene, tmp_path):
    sharp = scene.s2sr.superresolve(method="bicubic")
    with pytest.raises(GridError, match="B05 has the dimensions y10, x10, adapt takes y20, x20"):
        adapt(sharp, "s2sr-20m", out=tmp_path)


def test_weights_with_other_inputs_than_eosr_trains_are_refused(scene, tmp_path):
    """As DSen2's are: red before blue."""
    shipped = load_weights("s2sr-20m")
    bands = replace(shipped.normalization, fine_bands=("B04", "B03", "B02", "B08"))
    path = save_weights(replace(shipped, name="red first", normalization=bands), tmp_path / "red.safetensors")
    with pytest.raises(WeightsError, match=r"red first takes B04, B03, B02, B08 per 2000 DN .* eosr cannot train\."):
        adapt(scene, path, out=tmp_path / "out")


def test_a_folder_that_cannot_be_made_or_written_to_is_refused_before_the_training(scene, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "x", "/proc"):
        with pytest.raises(OutputError, match=r"no weights can be written to .* Name another folder, out="):
            adapt(scene, "s2sr-20m", out=folder)


def test_the_accessor_adapts_and_progress_is_told(scene, tmp_path):
    told = []
    scene.s2sr.adapt(
        "s2sr-20m", out=tmp_path, steps=1, windows=4, progress=lambda done, total: told.append((done, total))
    )
    assert told[0] == (0, 1)
    assert told[-1] == (1, 1)
    assert eosr.adapt is adapt


def test_the_command_writes_weights_that_superresolve_takes(written, tmp_path, capsys):
    (tmp_path / "item.json").write_text(json.dumps(written.item()))
    command = ["adapt", str(tmp_path / "item.json"), "--out", str(tmp_path / "w"), "--weights", "s2sr-20m", "--quiet"]
    assert main([*command, "--steps", "1", "--windows", "4"]) == 0
    told = capsys.readouterr().out
    assert f"{tmp_path}/w/s2sr-20m-adapted.safetensors: " in told
    assert "DN on the part held out" in told
    assert load_weights(tmp_path / "w" / "s2sr-20m-adapted.safetensors").name == "s2sr-20m-adapted"
    assert main([*command, "--steps", "0"]) == 1
    assert "eosr: --steps 0 and --windows 256 must be 1 or more" in capsys.readouterr().err


def test_both_resolutions_are_adapted_where_both_are_there(tmp_path):
    scene = synthetic_scene(90, 90, level="L2A")
    found = adapt(scene, out=tmp_path, steps=1, windows=4)
    assert [path.name for path in found.paths] == ["s2sr-20m-adapted.safetensors", "s2sr-60m-adapted.safetensors"]
    assert set(found.before) == set(found.after) == {"s2sr-20m", "s2sr-60m"}
    assert all(np.isfinite(value) for value in found.after.values())
