"""Choosing what sharpens: which weights for which bands, and what is refused before anything is read."""

import pickle
from itertools import product

import pytest

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M, PLATFORMS, SHARP_BANDS
from eosr.cube.degradation import DEGRADATIONS, blur_sigma
from eosr.errors import BandError, DegradationError, MethodError, RadiometryError, WeightsError
from eosr.sharpen.classical.passes import LimitsBlur
from eosr.sharpen.methods import CLASSICAL, GENERATORS, METHODS, Choice, choose_methods, method_facts
from eosr.sharpen.superresolution import superresolve
from eosr.testing import random_weights, synthetic_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights")
    random_weights(path / "two.safetensors", factor=2)
    random_weights(path / "six.safetensors", factor=6)
    random_weights(path / "study-only.safetensors", factor=2, degradations=["study"], levels=["L2A"])
    return path


def test_shipped_weights_serve_every_band_both_levels_and_all_four_operators():
    twenty, sixty = choose_methods(Choice(), None, SHARP_BANDS)
    assert (twenty.factor, twenty.targets, twenty.middle_bands) == (2, BANDS_20M, ())
    assert (sixty.factor, sixty.targets, sixty.middle_bands) == (6, BANDS_60M, BANDS_20M)
    for method in (twenty, sixty):
        assert method.fine_bands == BANDS_10M
        for level in ("L1C", "L2A", ""):
            for operator in ("study", "box", "mtf", "mtf_diff", "sigma=0.8"):
                method.check(level=level, degradation=operator)
        assert len(method.checksum) == 64


@pytest.mark.parametrize("name", CLASSICAL)
def test_no_named_operator_is_too_wide_for_a_classical_method(name):
    """So `Method.check`, which does not know the satellite, has to look at ``sigma=`` only."""
    for method in choose_methods(Choice(method=name), None, SHARP_BANDS):
        if isinstance(method.baseline, LimitsBlur):
            for band, operator, platform in product(method.delivers, DEGRADATIONS, PLATFORMS):
                method.baseline.check_blur(blur_sigma(band, method.factor_of(band), operator, platform))
    assert isinstance(method.baseline, LimitsBlur) == (name in ("atprk", "detail_injection"))


def test_only_what_is_needed_is_chosen(folder):
    files = [folder / "two.safetensors", folder / "six.safetensors"]
    names = [[m.factor for m in choose_methods(Choice(weights=files), bands, SHARP_BANDS)] for bands in (
        None, ["B05"], ["B01", "B02"], ["B02"], ["B09", "B12"],
    )]  # fmt: skip
    assert names == [[2, 6], [2], [6], [], [2, 6]]
    no_sixty = [*BANDS_10M, *BANDS_20M]
    assert [m.factor for m in choose_methods(Choice(weights=files), None, no_sixty)] == [2]
    assert [m.factor for m in choose_methods(Choice(weights=str(files[1])), None, SHARP_BANDS)] == [6]


def test_bicubic_needs_no_guides_and_no_weights():
    twenty, sixty = choose_methods(Choice(method="bicubic"), None, ["B02", "B05", "B01"])
    assert (twenty.targets, sixty.targets) == (("B05",), ("B01",))
    assert (twenty.path, sixty.path) == ("", "")
    assert (twenty.fine_bands, sixty.middle_bands) == ((), ())
    sharp = superresolve(synthetic_scene(20, 20)[["B02", "B05"]], method="bicubic")
    assert list(sharp.data_vars) == ["B02", "B05"]
    assert sharp["B05"].shape == (120, 120)
    with pytest.raises(BandError, match=r"bicubic needs B05, B11; the Dataset lacks B11\. Open it with all bands"):
        choose_methods(Choice(method="bicubic"), ["B05", "B11"], ["B02", "B05", "B01"])


def test_an_option_of_the_60_m_bands_leaves_the_20_m_bands_as_they_are():
    scene = synthetic_scene(14, 14)
    told = {"method": "superres_like", "options": {"through_20m": True}}
    plain, through = superresolve(scene, method="superres_like"), superresolve(scene, **told)
    assert through.attrs["sharpening_methods"] == ["superres_like", "superres_like(through_20m=True)"]
    for band in BANDS_20M:
        assert plain[band].identical(through[band])
    for band in BANDS_60M:
        assert (plain[band] != through[band]).any()
        # Whichever bands are asked for.
        assert superresolve(scene, **told, bands=[band])[band].identical(through[band])
    assert superresolve(scene, **told, bands=["B05"]).attrs["sharpening_methods"] == ["superres_like"]


@pytest.mark.parametrize("band", ["B05", "B01"])
@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_wrong_value_of_an_option_of_the_60_m_bands_is_refused_whatever_is_asked_for(band, value):
    with pytest.raises(MethodError, match=rf"^superres_like got through_20m={value!r}\. Use True or False\.$"):
        choose_methods(Choice(method="superres_like", options={"through_20m": value}), [band], SHARP_BANDS)


def facts_of(name):
    """Facts that a user of the method's weights would find true, without the words on where they come from."""
    told = ("sharpens", "guided by", "factor", "reach [10 m pixels]", "needs the whole scene")
    return [tuple(facts[key] for key in told) for facts in method_facts(name)]


def test_every_method_declares_bands_factor_reach_and_whether_it_needs_the_whole_scene():
    for name in METHODS:
        for (sharpens, guides, factor, reach, whole), facts in zip(facts_of(name), method_facts(name), strict=True):
            assert facts["name"] == name
            assert sharpens in [list(BANDS_20M), list(BANDS_60M), [*BANDS_20M, *BANDS_60M]]
            assert (set(BANDS_10M) <= set(guides)) == (name != "bicubic")
            assert factor in (2, 6)
            assert reach > 0
            assert whole == (name in ("detail_injection", "atprk", "supreme"))
            assert ("weights" in facts) == (name in GENERATORS)


def test_the_facts_of_eosr_are_those_of_its_shipped_files():
    chosen = choose_methods(Choice(), None, SHARP_BANDS)
    assert facts_of("eosr") == [
        (list(one.targets), [*one.fine_bands, *one.middle_bands], one.factor, one.reach, False) for one in chosen
    ]
    assert [facts["weights"] for facts in method_facts("eosr")] == ["s2sr-20m, shipped", "s2sr-60m, shipped"]


@pytest.mark.parametrize(
    ("name", "kind", "factors"), [("dsen2", "dsen2", [2, 6]), ("s2x", "study", [2]), ("s6x", "study", [6])]
)
def test_the_facts_of_a_network_without_weights_are_those_of_its_default_configuration(tmp_path, name, kind, factors):
    sizes = {"features": 8, "blocks": 6}  # neither how far it sees nor its bands depend on the features
    files = [random_weights(tmp_path / f"{f}.safetensors", factor=f, kind=kind, **sizes) for f in factors]
    chosen = choose_methods(Choice(method=name, weights=files), None, SHARP_BANDS)
    for (sharpens, guides, factor, reach, whole), method in zip(facts_of(name), chosen, strict=True):
        assert (tuple(sharpens), factor, reach, whole) == (method.targets, method.factor, method.reach, False)
        assert sorted(guides) == sorted([*method.fine_bands, *method.middle_bands])
    where = {"dsen2": "remote-sensing-processor", "s2x": "factor = 2", "s6x": "factor = 6"}[name]
    assert all(where in facts["weights"] for facts in method_facts(name))


@pytest.mark.parametrize("name", ["lanczos", "s2sr-20m", 7, ["eosr"]])
def test_facts_of_what_is_no_method_are_refused(name):
    with pytest.raises(MethodError, match=r"is not a method eosr knows\. Use one of 'bicubic', .*, 's6x'"):
        method_facts(name)


def test_a_method_is_small_enough_for_every_task_of_a_graph(folder):
    (method,) = choose_methods(Choice(weights=folder / "two.safetensors"), None, SHARP_BANDS)
    assert pickle.loads(pickle.dumps(method)) == method
    assert len(pickle.dumps(method)) < 1500


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"method": "lanczos"}, MethodError,
         "'lanczos' is not a method .* Use one of 'bicubic', 'detail_injection', 'atprk', 'supreme', 'superres_like', "
         "'eosr', 'dsen2', 's2x', 's6x'; weights are named with weights='lanczos'"),
        ({"method": "atprk", "options": "psf"}, MethodError, "options='psf' is no mapping. Use e.g. options="),
        ({"method": "bicubic", "weights": "s2sr-20m"}, WeightsError, "exclude each other. Give one of them"),
        ({"weights": "s2sr-30m"}, WeightsError, "'s2sr-30m' is neither a weights file .* Shipped: 's2sr-20m'"),
        ({"weights": ["two", "two"]}, WeightsError, "both sharpen B05, B06, B07, B11, B12, B8A. Give one of them"),
        ({"weights": "two", "bands": ["B01"]}, BandError, "B01 cannot be sharpened by random-2. They deliver B05"),
        ({"weights": "six", "bands": ["B05"]}, BandError, "B05 cannot be sharpened by random-6. They deliver B01, B09"),
        ({"weights": "study-only", "degradation": "mtf"}, DegradationError,
         "random-2 was trained to invert study, not 'mtf'. Use degradation='study', or other weights"),
        ({"weights": "text"}, WeightsError, "text.safetensors is no weights file of eosr, or is damaged"),
    ],
)  # fmt: skip
def test_bad_choices_are_refused_with_the_remedy(folder, options, kind, text):
    (folder / "text.safetensors").write_text("dear reader, these are no weights")

    def named(name):
        return folder / f"{name}.safetensors" if (folder / f"{name}.safetensors").exists() else name

    given = options.get("weights")
    if given is not None:
        options = {**options, "weights": [named(w) for w in given] if isinstance(given, list) else named(given)}
    with pytest.raises(kind, match=text):
        superresolve(synthetic_scene(25, 25, level="L2A"), **options)


def test_weights_for_another_level_are_refused(folder):
    scene = synthetic_scene(25, 25, level="L1C")
    with pytest.raises(
        RadiometryError, match=r"random-2 serves L2A, the Dataset is 'L1C'. Choose other weights, or if"
    ):
        superresolve(scene, weights=folder / "study-only.safetensors")


def test_weights_for_other_bands_name_what_the_dataset_lacks(folder):
    scene = synthetic_scene(25, 25, level="L2A").drop_vars(["B06", "B12"])
    with pytest.raises(BandError, match=r"random-2 needs B02, .* the Dataset lacks B06, B12. Open it with all bands"):
        superresolve(scene, weights=folder / "two.safetensors")
    with pytest.raises(BandError, match=r"random-6 needs B02, .* the Dataset lacks B06, B12"):
        superresolve(scene, weights=folder / "six.safetensors")
