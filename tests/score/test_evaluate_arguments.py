"""What `eosr.evaluate` may be given, and the sentence that answers everything else."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from eosr.cube.bands import SHARP_BANDS
from eosr.cube.radiometry import to_digital_numbers, to_reflectance
from eosr.errors import MethodError, MetricError, RadiometryError
from eosr.metrics.conventions import CONVENTIONS, EOSR_CONVENTION, Convention
from eosr.score.arguments import (
    check_draws,
    check_mask,
    checked_border,
    checked_units,
    choices,
    chosen_convention,
    file_labels,
    kind_of,
    mirrored,
    named_scenes,
    several,
)
from eosr.sharpen.methods import Choice, choose_methods
from eosr.testing import random_weights, synthetic_scene

TIMES = np.array(["2023-06-01", "2023-06-11"], dtype="datetime64[ns]")


@pytest.fixture(scope="module")
def scene():
    return synthetic_scene(2, 2)


@pytest.fixture(scope="module")
def series():
    told = [str(time)[:26] for time in TIMES.astype("datetime64[us]")]
    return synthetic_scene(2, 2, times=TIMES, item_ids=["first", "second"], item_times=told).assign_attrs(times=told)


def named(name, scene):
    return scene.assign_attrs(item_ids=[name] if name else [])


# Scenes


def test_a_scene_is_called_after_its_item_or_scene(scene):
    assert list(named_scenes(named("S2A_T32", scene))) == ["S2A_T32"]
    assert list(named_scenes(named("", scene))) == ["scene"]


def test_keys_of_a_mapping_are_names(scene):
    found = named_scenes({"here": scene, "there": named("S2B", scene)})
    assert list(found) == ["here", "there"]
    assert found["there"].attrs["item_ids"] == ["S2B"]


def test_a_list_is_called_after_the_items_and_numbered_where_they_are_the_same(scene):
    given = [named("a", scene), named("b", scene), named("a", scene), named("a", scene), named("", scene)]
    assert list(named_scenes(given)) == ["a", "b", "a (2)", "a (3)", "scene"]
    assert list(named_scenes(tuple(given[:2]))) == ["a", "b"]


def test_every_time_is_a_scene_of_its_own(series):
    found = named_scenes(series)
    assert list(found) == ["first", "second"]
    for k, one in enumerate(found.values()):
        assert "time" not in one.dims
        np.testing.assert_array_equal(one["B05"], series["B05"][k])


def test_times_of_one_name_are_told_apart_by_their_day():
    bare = synthetic_scene(2, 2, times=TIMES, item_ids=[])
    assert list(named_scenes({"Ebro": bare})) == ["Ebro 2023-06-01", "Ebro 2023-06-11"]
    assert list(named_scenes({"Ebro": bare.isel(time=[1])})) == ["Ebro"]
    assert list(named_scenes([bare])) == ["scene 2023-06-01", "scene 2023-06-11"]
    one_id = bare.assign_attrs(item_ids=["mosaic"])
    assert list(named_scenes(one_id)) == ["mosaic 2023-06-01", "mosaic 2023-06-11"]


def test_the_same_scene_twice_in_a_list_is_no_series():
    """A date would tell nothing apart."""
    one = synthetic_scene(2, 2, times=TIMES[:1], item_ids=[])
    assert list(named_scenes([one, one])) == ["scene", "scene (2)"]
    twice = synthetic_scene(2, 2, times=TIMES[[0, 0]], item_ids=[])
    assert list(named_scenes(twice)) == ["scene 2023-06-01", "scene 2023-06-01 (2)"]


def test_reflectance_is_refused_with_the_way_back(scene):
    with pytest.raises(RadiometryError) as told:
        named_scenes({"here": to_reflectance(scene)})
    assert str(told.value) == (
        "the Dataset holds reflectance; evaluate works on digital numbers. Give it the Dataset of open_stac, or "
        "eosr.cube.to_digital_numbers(ds), and for RMSE and bias in reflectance units='reflectance'."
    )
    assert list(named_scenes(to_digital_numbers(to_reflectance(scene)))) == ["synthetic"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (np.zeros((4, 4)), "evaluate needs a Dataset of bands, not a ndarray. Open one with eosr.open_stac."),
        ({"one": "item.json"}, "evaluate needs a Dataset of bands, not a str. Open one with eosr.open_stac."),
        ([None], "evaluate needs a Dataset of bands, not a NoneType. Open one with eosr.open_stac."),
        ([], "there is no scene to score. Pass a Dataset, or a mapping of name to Dataset."),
        ({}, "there is no scene to score. Pass a Dataset, or a mapping of name to Dataset."),
    ],
)
def test_what_is_no_scene_is_refused(given, text):
    with pytest.raises(MetricError) as told:
        named_scenes(given)
    assert str(told.value) == text


# Methods


@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (None, {"eosr": Choice(method="eosr")}),
        ("atprk", {"atprk": Choice(method="atprk")}),
        ("superres", {"superres_like": Choice(method="superres")}),
        (["atprk", "supreme"], {"atprk": Choice(method="atprk"), "supreme": Choice(method="supreme")}),
        (("atprk", "atprk"), {"atprk": Choice(method="atprk")}),
        ("bicubic", {}),
        ("s2sr-20m", {"s2sr-20m": Choice(weights="s2sr-20m")}),
        ("runs/best.safetensors", {"best": Choice(weights="runs/best.safetensors")}),
        (Path("runs/best.safetensors"), {"best": Choice(weights=Path("runs/best.safetensors"))}),
        (["eosr", Path("best.pt")], {"eosr": Choice(method="eosr"), "best": Choice(weights=Path("best.pt"))}),
        ({"mine": "atprk"}, {"mine": Choice(method="atprk")}),
        ({"mine": ["a.pt", "b.pt"]}, {"mine": Choice(weights=["a.pt", "b.pt"])}),
        ({"psf": {"method": "atprk", "options": {"psf": "published"}}},
         {"psf": Choice(method="atprk", options={"psf": "published"})}),
        ({"net": {"method": "dsen2", "weights": ["a.pt"], "device": "cpu"}},
         {"net": Choice(method="dsen2", weights=["a.pt"], device="cpu")}),
    ],
)  # fmt: skip
def test_methods_may_be_named_in_many_ways_and_bicubic_is_always_first(methods, expected):
    found = choices(methods, "auto")
    assert next(iter(found)) == "bicubic"
    assert found == {"bicubic": Choice(method="bicubic"), **expected}


def test_the_device_is_that_of_all_but_those_that_name_one():
    found = choices({"one": "eosr", "two": {"method": "eosr", "device": "cuda:1"}, "three": "s2sr-20m"}, "cpu")
    assert [choice.device for choice in found.values()] == ["cpu", "cpu", "cuda:1", "cpu"]


def test_weights_of_one_name_in_two_folders_are_two_rows():
    found = choices(["a/best.safetensors", Path("b/best.safetensors"), "other.pt"], "auto")
    assert list(found) == ["bicubic", "a/best.safetensors", "b/best.safetensors", "other"]


def test_a_file_that_is_called_like_a_method_is_no_row_of_that_name():
    """What it holds is told by the file, not by its name."""
    given = ["runs/s2x.safetensors", "a/bicubic.pt", "b/bicubic.pt", "eosr"]
    assert list(choices(given, "auto")) == ["bicubic", "s2x.safetensors", "a/bicubic.pt", "b/bicubic.pt", "eosr"]
    assert file_labels([["a/20.pt", "a/60.pt"], ["a/20.pt"]]) == ["20+60", "20"]
    assert file_labels([["a/dsen2.pt"], ["a/dsen2.hdf5"]]) == ["dsen2.pt", "dsen2.hdf5"]
    assert file_labels([["a/best"], ["best"]]) == ["a/best", "best"]


def kind(label, **how):
    choice = Choice(**how)
    return kind_of(label, choice, choose_methods(choice, None, SHARP_BANDS))


def test_the_kind_of_a_row_is_what_it_is_and_not_what_it_is_called(tmp_path):
    assert kind("mine", method="superres") == "superres_like"
    assert kind("mine", method="eosr") == kind("mine") == kind("mine", weights="s2sr-20m") == "eosr"
    for name, made, factor in (("s2x", "study", 2), ("s6x", "study", 6), ("dsen2", "dsen2", 6)):
        path = random_weights(tmp_path / f"{name}.safetensors", kind=made, factor=factor)
        assert kind("mine", weights=path) == kind(name, weights=path) == kind("mine", method=name, weights=path) == name
    both = [tmp_path / "s2x.safetensors", tmp_path / "s6x.safetensors"]
    assert kind("mine", weights=both) == ""
    assert kind("mine", weights=random_weights(tmp_path / "a.safetensors", kind="srcnn")) == ""
    on_l2a = random_weights(tmp_path / "b.safetensors", kind="dsen2", levels=("L2A",))
    assert kind("dsen2", weights=on_l2a) == "dsen2_l2a"
    # The published 20 m network is one for both levels, those of 60 m are not.
    for_both = random_weights(tmp_path / "c.safetensors", kind="dsen2", factor=6)
    pair = [random_weights(tmp_path / "d.safetensors", kind="dsen2", factor=2, levels=("L2A",)), for_both]
    assert kind("dsen2", method="dsen2", weights=pair) == "dsen2"


def test_weights_cannot_stand_under_the_name_of_another_method(tmp_path):
    ours = str(random_weights(tmp_path / "s2x.safetensors"))
    with pytest.raises(MethodError) as told:
        kind("S2x", weights=ours)
    assert str(told.value) == (
        f"the label 'S2x' cannot stand for {ours!r}, which is eosr. Choose another label for it."
    )
    with pytest.raises(MethodError, match="which is no method of that name"):
        kind("eosr", weights=random_weights(tmp_path / "a.safetensors", kind="srcnn"))


def test_an_unknown_word_is_taken_for_a_method_and_refused_as_one():
    """A typo shall be answered by the list of methods, not by a missing weights file."""
    assert choices("atprc", "auto")["atprc"] == Choice(method="atprc")


@pytest.mark.parametrize(
    ("methods", "text"),
    [
        (7, "methods=7 names no methods. Use names, e.g. methods=['atprk', 'eosr']."),
        (["atprk", 7], "methods=['atprk', 7] names no methods. Use names, e.g. methods=['atprk', 'eosr']."),
        ({"atprk"}, "methods={'atprk'} names no methods. Use names, e.g. methods=['atprk', 'eosr']."),
        ([], "methods is empty. Use names, e.g. methods=['atprk', 'eosr']; bicubic always stands beside."),
        ({}, "methods is empty. Use names, e.g. methods=['atprk', 'eosr']; bicubic always stands beside."),
        ({"mine": {"metod": "atprk", "psf": 1}},
         "mine: unknown argument metod, psf. Known: method, weights, options, device."),
        ({"bicubic": "atprk"}, "the label 'bicubic' cannot stand for 'atprk'. Choose another label for it."),
        ({"supreme": "bicubic"}, "the label 'supreme' cannot stand for 'bicubic'. Choose another label for it."),
        ({"SupReME": {"method": "eosr"}},
         "the label 'SupReME' cannot stand for {'method': 'eosr'}. Choose another label for it."),
        ({"superres": "atprk"}, "the label 'superres' cannot stand for 'atprk'. Choose another label for it."),
        ({"atprk": "mine.pt"}, "the label 'atprk' cannot stand for 'mine.pt'. Choose another label for it."),
    ],
)  # fmt: skip
def test_what_names_no_method_is_refused(methods, text):
    with pytest.raises(MethodError) as told:
        choices(methods, "auto")
    assert str(told.value) == text


# The rest


def test_names_are_one_or_several_or_all_without_repetition():
    known = ("study", "box", "mtf")
    assert several("box", known, "degradation") == ("box",)
    assert several("all", known, "degradation") == known
    assert several(["mtf", "study", "mtf"], known, "degradation") == ("mtf", "study")
    assert several(("box",), known, "degradation") == ("box",)
    assert several("both", ("a", "b"), "property") == several("all", ("a", "b"), "property") == ("a", "b")


@pytest.mark.parametrize(
    ("given", "known", "text"),
    [
        ("mft", ("study", "box", "mtf"), "degradation='mft' is unknown. Use 'study', 'box', 'mtf', or 'all'."),
        (["box", "x"], ("study", "box", "mtf"), "degradation='x' is unknown. Use 'study', 'box', 'mtf', or 'all'."),
        ("both", ("a", "b", "c"), "degradation='both' is unknown. Use 'a', 'b', 'c', or 'all'."),
        ("wald", ("a", "b"), "degradation='wald' is unknown. Use 'a' or 'b', or 'both'."),
        ([], ("a", "b"), "degradation=[] is unknown. Use 'a' or 'b', or 'both'."),
        (None, ("a", "b"), "degradation=None is unknown. Use 'a' or 'b', or 'both'."),
        ([["a"]], ("a", "b"), "degradation=['a'] is unknown. Use 'a' or 'b', or 'both'."),
    ],
)
def test_an_unknown_name_is_answered_with_those_there_are(given, known, text):
    with pytest.raises(MetricError) as told:
        several(given, known, "degradation")
    assert str(told.value) == text


def test_a_border_is_a_number_of_pixels():
    assert checked_border(None) is None
    assert [checked_border(value) for value in (0, 4, np.int64(3))] == [0, 4, 3]
    for wrong in (True, 2.0, "4"):
        with pytest.raises(MetricError, match=r"^border=.* is no number of pixels. Use e.g. border=4.$"):
            checked_border(wrong)
    with pytest.raises(MetricError) as told:
        checked_border(-2)
    assert str(told.value) == (
        "border=-2 pixels cannot be left out. Use 0 or more; without it, two coarse pixels are."
    )  # fmt: skip


def test_a_mask_is_a_dataarray():
    check_mask(None)
    check_mask(xr.DataArray(np.ones((2, 2), bool), dims=("y10", "x10")))
    with pytest.raises(MetricError) as told:
        check_mask(np.ones((2, 2), bool))
    assert str(told.value) == (
        "mask is a ndarray, not a DataArray. Wrap it: xarray.DataArray(mask, dims=('y10', 'x10'))."
    )


def test_a_convention_is_a_name_or_one_of_ones_own():
    assert chosen_convention("eosr") is EOSR_CONVENTION
    assert chosen_convention("zhang2020") is CONVENTIONS["zhang2020"]
    own = Convention(name="own", peak=8000.0, data_range=8000.0, ergas="wald")
    assert chosen_convention(own) is own
    for wrong in ("zhang", ["eosr"], {"eosr": 1}, None):
        with pytest.raises(MetricError) as told:
            chosen_convention(wrong)
        assert str(told.value) == (
            f"convention={wrong!r} is unknown. Use 'eosr', 'zhang2020', or a Convention of your own."
        )


@pytest.mark.parametrize(
    ("check", "good", "wrong", "text"),
    [
        (checked_units, ["DN", "reflectance"], "percent", "units='percent' is unknown. Use 'DN' or 'reflectance'."),
        (mirrored, ["refuse", "mirror"], "crop", "small='crop' is unknown. Use 'refuse' or 'mirror'."),
        (lambda value: check_draws(value, 0), [0, 1000, np.int32(5)], -1,
         "resamples=-1 is no whole number from 0 on. Use e.g. resamples=1000."),
        (lambda value: check_draws(1, value), [0, 17], 2.5,
         "seed=2.5 is no whole number from 0 on. Use e.g. seed=0."),
    ],
)  # fmt: skip
def test_small_choices_are_checked(check, good, wrong, text):
    for value in good:
        check(value)
    with pytest.raises(MetricError) as told:
        check(wrong)
    assert str(told.value) == text
