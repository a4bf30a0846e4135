"""Classical methods one way and the other: whole scenes in memory, tiles that count, and what the names refuse."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M, SHARP_BANDS
from eosr.cube.degradation import blur_sigma
from eosr.errors import BandError, MethodError, WeightsError
from eosr.sharpen.classical.passes import Tile, sharpen_whole, whole_scene_tile, with_halo
from eosr.sharpen.methods import CLASSICAL, Choice, Method, choose_methods, method_facts, options_of
from eosr.sharpen.superresolution import superresolve
from eosr.sharpen.tile import FILL_REACH, CountTask, Found, TileTask, add_sums, fill_gaps, solve_pass
from eosr.testing import chunked, random_weights, synthetic_scene

#: Few steps: what is tested is how tiles are laid, not how far the solver gets.
OPTIONS = {"supreme": {"iterations": 4}}


def arrays_of(ds, method):
    """Bands of one method as float32 with gaps filled, and which coarse pixels are measured; by numpy alone."""
    filled, there = [], []
    for names in (method.fine_bands or ("B02",), method.middle_bands, method.targets):
        if not names:
            filled.append(None)
            continue
        raw = np.stack([ds[name].values for name in names]).astype(np.float32)
        # Gaps are filled in the scene beside its mirror image, which is how a tile at the edge sees them.
        raw = np.pad(raw, [(0, 0), (FILL_REACH, FILL_REACH), (FILL_REACH, FILL_REACH)], "symmetric")
        valid = (raw != 0) & (raw != 65535) & np.isfinite(raw)
        inside = np.s_[:, FILL_REACH:-FILL_REACH, FILL_REACH:-FILL_REACH]
        filled.append(fill_gaps(np.where(valid, raw, np.nan).astype(np.float32), valid)[inside])
        there.append(valid[inside].all(axis=0))
    rows, columns = there[-1].shape
    measured = np.ones((rows, columns), bool)
    for one in there:
        step = one.shape[0] // rows
        measured &= one.reshape(rows, step, columns, step).all(axis=(1, 3))
    return filled, measured


def whole_answer(ds, name, bands, operator="study", **options):
    """Answer of one method in memory, by band."""
    (method,) = (m for m in methods_of(name, ds, bands, **options) if bands[0] in m.delivers)
    (fine, middle, coarse), measured = arrays_of(ds, method)
    sigma = [blur_sigma(b, method.factor_of(b), operator) for b in method.delivers]
    sharp = sharpen_whole(method.baseline, whole_scene_tile(fine, middle, coarse, tuple(sigma), measured))
    return dict(zip(method.delivers, sharp, strict=True))


def methods_of(name, ds, bands, **options):
    available = [band for band in SHARP_BANDS if band in ds.data_vars]
    return choose_methods(Choice(method=name, options={**OPTIONS.get(name, {}), **options}), bands, available)


@pytest.fixture(scope="module")
def scene():
    return synthetic_scene(22, 25, level="L2A")


@pytest.fixture(scope="module")
def torn():
    """A scene with a strip of nodata in all bands, a hole in one, and two saturated pixels."""
    gaps = {band: [(slice(0, 96), slice(0, 24))] for band in BANDS_10M}
    gaps |= {band: [(slice(0, 48), slice(0, 12))] for band in BANDS_20M}
    gaps |= {band: [(slice(0, 16), slice(0, 4))] for band in BANDS_60M}
    gaps["B05"] = [*gaps["B05"], (slice(40, 43), slice(50, 52))]
    scene = synthetic_scene(22, 25, level="L2A", gaps=gaps)
    scene["B04"].values[30, 100] = 65535
    scene["B12"].values[60, 30] = 65535
    return scene


@pytest.mark.parametrize("band", ["B05", "B01"])
@pytest.mark.parametrize("name", list(CLASSICAL))
def test_lazy_tiles_and_the_whole_scene_in_memory_give_the_same(scene, monkeypatch, name, band):
    monkeypatch.setattr("eosr.sharpen.tiling.MIN_HALOS", 1)
    told = {"method": name, "options": OPTIONS.get(name), "dtype": "float32"}
    lazy = superresolve(chunked(scene, 60), bands=[band], consistency=False, **told)
    expected = whole_answer(scene, name, [band])[band]
    # SupReME alone depends on the tiling: by less than 0.05 DN, as its docstring says.
    bound = 0.05 if name == "supreme" else 2e-3
    np.testing.assert_allclose(lazy[band].compute(scheduler="sync").values, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["detail_injection", "atprk", "supreme"])
def test_gaps_and_saturated_pixels_are_counted_in_no_sum(torn, monkeypatch, name):
    monkeypatch.setattr("eosr.sharpen.tiling.MIN_HALOS", 1)
    told = {"method": name, "options": OPTIONS.get(name), "dtype": "float32", "consistency": False}
    # Without the 60 m bands SupReME solves the 20 m bands alone.
    ds, bands = torn.drop_vars(BANDS_60M), ["B05", "B06", "B12"]
    sharp = superresolve(chunked(ds, 60), bands=bands, **told).compute(scheduler="sync")
    expected = whole_answer(ds, name, bands)
    for band in bands:
        found = sharp[band].values
        missing = np.isnan(found)
        # The strip is missing, and a hole in B05 is none of the other bands: 3 x 2 pixels of 20 m are 6 x 4.
        assert missing[:96, :24].all()
        assert missing.sum() == 96 * 24 + (24 if band == "B05" else 0)
        known = ~missing & (found != 65535)
        assert (~known & ~missing).sum() == (4 if band == "B12" else 0)
        bound = 0.1 if name == "supreme" else 2e-3
        np.testing.assert_allclose(found[known], expected[band][known], rtol=0, atol=bound)
    # Counted, the gaps would change the parameters, and so pixels far from them.
    (method,) = methods_of(name, ds, bands)
    (fine, middle, coarse), _ = arrays_of(ds, method)
    wrong = sharpen_whole(method.baseline, whole_scene_tile(fine, middle, coarse, (0.5,) * len(coarse)))
    far = np.s_[:, 100:, 100:]
    assert np.abs(wrong - np.stack([expected[b] for b in method.delivers]))[far].max() > 0.5


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A method that is easy to check: the mean of the scene everywhere, from a pass that tells its own mask."""

    factor: int = 2
    reach: int = 0
    passes: tuple[int, ...] = (10, 4)
    targets: tuple[str, ...] = ("B05",)

    @property
    def delivers(self):
        return self.targets

    def count(self, index, tile, found):
        assert len(found) == index
        sums = {"total": np.asarray(tile.coarse[0][tile.own].sum()), "pixels": np.asarray(float(tile.own.sum()))}
        return {**sums, "scene": np.asarray(float(tile.scene.sum())), "corner": np.asarray(tile.origin)}

    def solve(self, index, total):
        return float(total["total"] / total["pixels"])

    def sharpen(self, tile, found):
        return np.full((1, *tile.fine.shape[1:]), found[0] + found[1], np.float32)


def method_with(baseline):
    return Method(
        name="mean", factor=2, targets=("B05",), fine_bands=BANDS_10M, middle_bands=(), reach=0, baseline=baseline
    )  # fmt: skip


def task_of(**told):
    usual = {"sigma": (0.5,), "depth": 0, "margin": 0, "consistency": False, "dtype": "float32"}
    return TileTask(method=method_with(Mean()), **{**usual, **told})


def test_a_tile_counts_its_own_measured_pixels_and_no_mirror_image():
    # Tiles of 24 x 24 fine pixels with a halo of 12, cut out of a scene of 2 x 2 of them; one coarse pixel is nodata,
    # one guide pixel saturated, so two of the 24 x 24 coarse pixels are not counted.
    rng = np.random.default_rng(0)
    fine = rng.integers(500, 2000, (1, 4, 48, 48)).astype(np.uint16)
    coarse = rng.integers(500, 2000, (1, 1, 24, 24)).astype(np.uint16)
    coarse[0, 0, 3, 5] = 0
    fine[0, 2, 40, 41] = 65535
    counted = np.ones((24, 24), bool)
    counted[3, 5] = counted[20, 20] = False
    around = [np.pad(a, ((0, 0), (0, 0), (rim, rim), (rim, rim)), "symmetric") for a, rim in ((fine, 12), (coarse, 6))]
    count = CountTask(task=task_of(), index=0, depth=12, starts=((0, 12), (0, 12)))
    assert count.halo == 12
    parts = {}
    for row in (0, 1):
        for column in (0, 1):
            cut = [
                a[:, :, row * step : row * step + 2 * step, column * step : column * step + 2 * step]
                for a, step in ((around[0], 24), (around[1], 12))
            ]
            part = count(*cut, block_id=(0, 0, row, column))
            assert part.shape == (1, 1, 1, 1)
            parts[row, column] = part.item()
    np.testing.assert_array_equal(parts[0, 0]["corner"], [-6, -6])
    np.testing.assert_array_equal(parts[0, 1]["corner"], [-6, 6])
    # A corner tile of 12 x 12 coarse pixels sees 6 more on the two sides that lie in the scene: 18 x 18, less gaps.
    assert parts[0, 1]["scene"] == 18 * 18
    assert parts[0, 0]["scene"] == 18 * 18 - 1
    total = add_sums(list(parts.values()))
    assert total["pixels"] == 24 * 24 - 2
    assert total["total"] == coarse[0, 0][counted].sum()
    assert total["seconds"] > 0
    found = solve_pass(method_with(Mean()), 0, {**total, "seconds": np.asarray(7.0)})
    assert found.value == pytest.approx(coarse[0, 0][counted].mean())
    assert found.seconds >= 7.0


def test_sums_are_added_whatever_the_tree():
    rng = np.random.default_rng(1)
    parts = [{"gram": rng.normal(size=(2, 3, 3)), "n": np.asarray(float(i))} for i in range(7)]
    once = add_sums(parts)
    twice = add_sums([add_sums(parts[:3]), add_sums(parts[3:])])
    np.testing.assert_allclose(once["gram"], sum(part["gram"] for part in parts))
    np.testing.assert_allclose(once["gram"], twice["gram"], rtol=1e-12)
    assert once["n"] == twice["n"] == 21


def test_the_offset_is_applied_before_anything_is_counted():
    fine, coarse = np.full((1, 4, 24, 24), 3000, np.uint16), np.full((1, 1, 12, 12), 2500, np.uint16)
    count = CountTask(task=task_of(offset=-1000.0), index=0, depth=0, starts=((0,), (0,)))
    sums = count(fine, coarse).item()
    assert sums["total"] / sums["pixels"] == 1500
    # And taken off again: the answer of 5 + 6 with offset applied is 1011 in the digital numbers of the scene.
    told = (Found(value=5.0, seconds=0), Found(value=6.0, seconds=0))
    np.testing.assert_array_equal(task_of(offset=-1000.0)(fine, coarse, found=told), np.full((1, 1, 24, 24), 1011.0))


def test_seconds_of_all_tiles_add_up_and_those_of_the_passes_stand_in_one_tile():
    fine, coarse = np.full((1, 4, 48, 48), 3000, np.uint16), np.full((1, 1, 24, 24), 2500, np.uint16)
    told = (Found(value=5.0, seconds=100.0), Found(value=6.0, seconds=20.0))
    task = task_of(stages=True, depth=12, tiles=(2, 2))
    first = task(fine, coarse, found=told, block_id=(0, 0, 0, 0))
    other = task(fine, coarse, found=told, block_id=(0, 0, 1, 0))
    assert first.shape == (1, task.planes, 24, 24) == (1, 3, 24, 24)
    assert 120 < first[0, -1].sum() < 121
    assert 0 < other[0, -1].sum() < 1


def test_a_halo_is_the_mirror_image_and_nothing_of_it_is_counted():
    fine, coarse = np.arange(4 * 36.0).reshape(4, 6, 6), np.arange(9.0).reshape(1, 3, 3)
    tile = with_halo(whole_scene_tile(fine, None, coarse, (0.5,)), 4, 2)
    # 4 is rounded up to a whole 60 m pixel: 6 fine, 3 coarse.
    assert tile.fine.shape == (4, 18, 18)
    assert tile.origin == (-3, -3)
    np.testing.assert_array_equal(tile.coarse[0, 3, :6], [2, 1, 0, 0, 1, 2])
    np.testing.assert_array_equal(tile.own, tile.scene)
    assert tile.own.sum() == 9
    assert tile.own[3:6, 3:6].all()


def test_the_second_pass_is_told_what_the_first_found():
    coarse = np.full((1, 6, 6), 40.0)
    sharp = sharpen_whole(Mean(), whole_scene_tile(np.zeros((4, 12, 12)), None, coarse, (0.5,)))
    np.testing.assert_array_equal(sharp, np.full((1, 12, 12), 80.0))
    assert isinstance(whole_scene_tile(np.zeros((4, 12, 12)), None, coarse, (0.5,)), Tile)


@pytest.mark.parametrize("name", list(CLASSICAL))
def test_a_classical_method_travels_in_every_task_of_a_graph(name):
    for method in choose_methods(Choice(method=name), None, SHARP_BANDS):
        assert pickle.loads(pickle.dumps(method)) == method
        assert hash(method) == hash(pickle.loads(pickle.dumps(method)))
        assert len(pickle.dumps(method)) < 1500
        assert (method.path, method.checksum) == ("", "")
        assert method.described() == name


@pytest.mark.parametrize("name", [name for name in CLASSICAL if name != "bicubic"])
def test_a_band_does_not_depend_on_which_others_are_asked_for(scene, name):
    told = {"method": name, "options": OPTIONS.get(name), "dtype": "float32"}
    every = superresolve(scene, **told).compute(scheduler="sync")
    for bands in (["B11"], ["B09", "B02"]):
        alone = superresolve(scene, bands=bands, **told).compute(scheduler="sync")
        assert list(alone.data_vars) == [band for band in SHARP_BANDS if band in bands]
        for band in bands:
            np.testing.assert_array_equal(alone[band].values, every[band].values, err_msg=band)


def test_supreme_solves_both_groups_together_where_both_are_there():
    (joint,) = choose_methods(Choice(method="supreme"), ["B05"], SHARP_BANDS)
    assert (joint.factor, joint.delivers) == (6, (*BANDS_20M, *BANDS_60M))
    assert (joint.factor_of("B05"), joint.factor_of("B01")) == (2, 6)
    no_sixty = [*BANDS_10M, *BANDS_20M]
    (alone,) = choose_methods(Choice(method="supreme"), ["B05"], no_sixty)
    assert (alone.factor, alone.delivers) == (2, BANDS_20M)
    with pytest.raises(BandError, match=r"supreme needs B02, B03, B04, B08, B05, B06, .* the Dataset lacks B11\. Open"):
        choose_methods(Choice(method="supreme"), ["B05"], [band for band in no_sixty if band != "B11"])


@pytest.mark.parametrize(
    ("choice", "kind", "text"),
    [
        ({"method": "atprk", "options": {"point_spread": 1}}, MethodError,
         r"^atprk has no option point_spread\. Its options: scheme, psf\.$"),
        ({"method": "bicubic", "options": {"scheme": 1, "psf": 2}}, MethodError,
         r"^bicubic has no option scheme, psf\. Its options: none\.$"),
        ({"method": "detail_injection", "options": {"factor": 3}}, MethodError,
         r"^detail_injection has no option factor\. Its options: none\.$"),
        ({"method": "supreme", "options": {"middle": ("B05",)}}, MethodError,
         r"^supreme has no option middle\. Its options: prior, dimension, regularisation, .*psf"),
        ({"method": "eosr", "options": {"psf": 1}}, MethodError, r"^eosr takes no options, but was given psf\. Leave"),
        ({"method": "atprk", "weights": "s2sr-20m"}, WeightsError,
         r"^method='atprk' and weights='s2sr-20m' exclude each other\. Give one of them\.$"),
        ({"method": "superres", "weights": "s2sr-20m"}, WeightsError, r"^method='superres' and .* exclude each other"),
        ({"method": "dsen2"}, WeightsError,
         r"^method 'dsen2' has no weights in eosr\. .* under GPL-3; pass their files, e\.g\. weights=\['L1C20M\.pt'"),
        ({"method": "s2x"}, WeightsError, r"^method 's2x' has no weights in eosr\. Train it with eosr-train, .*= 2,"),
        ({"method": "s6x"}, WeightsError, r"^method 's6x' has no weights in eosr\. Train it with eosr-train, .*= 6,"),
        ({"method": "superres", "options": {"window": 5}}, MethodError, r"window=5, .* Use window=6\.$"),
        ({"method": 7}, MethodError, r"^7 is not a method eosr knows\. Use one of 'bicubic', "),
    ],
)  # fmt: skip
def test_bad_choices_of_a_classical_method_are_refused_in_a_sentence(scene, choice, kind, text):
    with pytest.raises(kind, match=text):
        superresolve(scene, **choice)


def test_weights_of_another_kind_than_the_method_are_refused(tmp_path, scene):
    file = random_weights(tmp_path / "small.safetensors", factor=2, kind="back_projection")
    for method in ("s2x", "dsen2", "s6x"):
        with pytest.raises(
            WeightsError,
            match=rf"holds a generator of kind 'back_projection' and factor 2, which is not {method}\. Leave",
        ):
            superresolve(scene, method=method, weights=file)
    study = random_weights(tmp_path / "study.safetensors", factor=2, kind="study")
    with pytest.raises(WeightsError, match="kind 'study' and factor 2, which is not s6x"):
        superresolve(scene, method="s6x", weights=study)
    assert [m.factor for m in choose_methods(Choice(method="s2x", weights=study), None, SHARP_BANDS)] == [2]


@pytest.mark.parametrize("name", list(CLASSICAL))
def test_bands_a_method_cannot_make_are_refused(scene, name):
    with pytest.raises(
        BandError, match=rf"^B10 cannot be sharpened by {name}\. It delivers B01, B05, B06, .*, B8A: name some of these"
    ):
        superresolve(synthetic_scene(22, 22, level="L1C"), method=name, bands=["B05", "B10"])
    with pytest.raises(BandError, match=r"lacks B06\. Open it with all bands"):
        superresolve(scene.drop_vars("B06"), method=name, bands=["B06"])
    if name != "bicubic":
        with pytest.raises(BandError, match=rf"{name} needs B02, B03, B04, B08, .*; the Dataset lacks B08\. Open"):
            superresolve(scene.drop_vars("B08"), method=name, bands=["B05"])


def test_the_answer_says_what_made_it(scene):
    told = {"bands": ["B05", "B01"], "method": "atprk"}
    plain = superresolve(scene, **told)
    assert plain.attrs["sharpening_methods"] == ["atprk", "atprk"]
    assert plain.attrs["consistency"] == "none"
    options = {"psf": "published", "scheme": "synthesised"}
    other = superresolve(scene, **told, options=options, consistency=True)
    assert other.attrs["sharpening_methods"] == ["atprk(psf='published')"] * 2
    assert other.attrs["consistency"] == "exact"
    assert other.attrs["weights_sha256"] == ["", ""]
    assert superresolve(scene, method="superres", bands=["B05"]).attrs["sharpening_methods"] == ["superres_like"]
    assert options_of("atprk") == ["scheme", "psf"]


def test_the_facts_of_a_method_are_those_it_runs_with():
    for name in CLASSICAL:
        for facts, method in zip(
            method_facts(name), choose_methods(Choice(method=name), None, SHARP_BANDS), strict=True
        ):
            assert facts["reach [10 m pixels]"] == method.reach
            assert facts["needs the whole scene"] == bool(method.baseline.passes)
            assert tuple(facts["sharpens"]) == method.delivers
            told = set(facts["options"])
            assert told == set(options_of(name)) - ({"through_20m"} if method.factor == 2 else set())
