"""Averages over scenes against the pixels of all scenes in one heap, and the bootstrap against scipy's."""

import warnings
from functools import cache

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from eosr.metrics import score_table
from eosr.metrics.conventions import CONVENTIONS, EOSR_CONVENTION
from eosr.score.summary import AVERAGES, JOINT, METRICS, MOMENTS, PER_BAND, Pool, averaged, bootstrap

#: Bands by the group of their pixel size, and their places in the arrays.
GROUPS = {20: ("B05", "B8A", "B11"), 60: ("B01", "B09")}
PLACES = {20: (0, 1, 2), 60: (3, 4)}
NAMES = list(METRICS)
ZHANG = CONVENTIONS["zhang2020"]


def image(rng, bands, rows, columns, level):
    ramp = np.linspace(0.6, 1.4, rows * columns).reshape(rows, columns)
    return level * ramp * rng.uniform(0.7, 1.3, (bands, rows, columns))


def made_pairs(seed=0):
    """Estimate and reference (band, y, x) of three scenes of different size and brightness, by group; gaps are NaN."""
    rng = np.random.default_rng(seed)
    scenes = []
    for rows, columns, level in ((24, 30, 900.0), (40, 22, 2500.0), (18, 16, 4100.0)):
        groups = {}
        for gsd, names in GROUPS.items():
            reference = image(rng, len(names), rows, columns, level)
            shift = np.array([30.0, -55.0, 12.0])[: len(names), None, None]
            estimate = reference + shift + rng.normal(0, 0.03 * level, reference.shape)
            reference[:, : rows // 4, : columns // 3] = np.nan
            estimate[:, -3:, -2:] = np.nan
            groups[gsd] = (estimate, reference)
        scenes.append(groups)
    return scenes


def table_of(estimate, reference, gsd, how):
    coords = {f"y{gsd}": np.arange(reference.shape[1]), f"x{gsd}": np.arange(reference.shape[2])}
    both = [
        xr.Dataset(
            {name: ((f"y{gsd}", f"x{gsd}"), part[k]) for k, name in enumerate(GROUPS[gsd])},
            coords=coords,
            attrs={"radiometric_offset": 0},
        )
        for part in (estimate, reference)
    ]
    return score_table(
        *both, fine_gsd=gsd, coarse_gsd=gsd * {20: 2, 60: 6}[gsd], peak=how.peak, data_range=how.data_range,
        ergas_convention=how.ergas, conventions=(), moments=True,
    )  # fmt: skip


@cache
def pool_of(how=EOSR_CONVENTION, count=3):
    """The scores of every scene by itself, laid out as `eosr.evaluate` does."""
    scenes = made_pairs()[:count]
    arrays = {name: np.full((len(scenes), 5), np.nan) for name in (*PER_BAND, *MOMENTS)}
    arrays |= {name: np.full((len(scenes), 2), np.nan) for name in JOINT}
    for place, groups in enumerate(scenes):
        for k, (gsd, (estimate, reference)) in enumerate(groups.items()):
            table = table_of(estimate, reference, gsd, how)
            for name in (*PER_BAND, *MOMENTS):
                arrays[name][place, list(PLACES[gsd])] = table[name]
            for name in JOINT:
                arrays[name][place, k] = table[name]
    return Pool(arrays, PLACES, how)


def many(count, seed=0):
    """A pool of so many scenes with two bands of 20 m and one of 60 m, of scores alone."""
    rng = np.random.default_rng(seed)
    rmse, bias = rng.uniform(20, 90, (count, 3)), rng.normal(0, 8, (count, 3))
    signal = rng.uniform(900, 4000, (count, 3))
    arrays = {
        "rmse": rmse, "bias": bias, "signal": signal, "energy": signal**2 * 1.1, "highest": signal * 3,
        "pixels": rng.integers(500, 900, (count, 3)).astype(float), "coverage": np.full((count, 3), 0.5),
        "ssim": rng.uniform(0.5, 1, (count, 3)), "sam": rng.uniform(0, 2, (count, 2)),
        "ergas": rng.uniform(1, 3, (count, 2)), "sre": 20 * np.log10(signal / rmse),
        "sre_supreme": 10 * np.log10(1.1 * signal**2 / rmse**2), "psnr": 20 * np.log10(1e4 / rmse),
        "bpsnr": 10 * np.log10(1e8 / (rmse**2 - bias**2)),
    }  # fmt: skip
    return Pool(arrays, {20: (0, 1), 60: (2,)}, EOSR_CONVENTION)


def without(pool, places):
    """The same scores without the bands at some (scene, band)."""
    scores = {name: values.copy() for name, values in pool.scores.items()}
    for name in (*PER_BAND, *MOMENTS):
        for place in places:
            scores[name][place] = np.nan
    return Pool(scores, pool.groups, pool.convention)


def of_pixels(estimate, reference, how):
    """Scores of flat arrays without gaps, from the definitions; the peak is that of these pixels."""
    error = estimate - reference
    mse, bias = np.mean(error**2), np.mean(error)
    peak = reference.max() if how.peak == "reference_max" else how.peak
    return {
        "rmse": np.sqrt(mse), "bias": bias, "sre": 20 * np.log10(reference.mean() / np.sqrt(mse)),
        "sre_supreme": 10 * np.log10(np.sum(reference**2) / np.sum(error**2)),
        "psnr": 20 * np.log10(peak / np.sqrt(mse)), "bpsnr": 10 * np.log10(peak**2 / np.var(error)),
    }  # fmt: skip


def heap(scenes, gsd):
    """All pixels of all scenes: estimate and reference (band, pixel), without those that are missing anywhere."""
    estimate, reference = (
        np.concatenate([groups[gsd][part].reshape(len(GROUPS[gsd]), -1) for groups in scenes], axis=1)
        for part in (0, 1)
    )
    there = ~np.isnan(estimate + reference).any(0)
    return estimate[:, there], reference[:, there], there.mean()


@pytest.mark.parametrize("how", [EOSR_CONVENTION, ZHANG], ids=lambda how: how.name)
def test_pooled_scores_are_those_of_all_pixels_in_one_heap(how):
    scenes = made_pairs()
    pooled = pool_of(how).pooled(np.ones(3))
    assert pooled.shape == (5, len(NAMES))
    for gsd, places in PLACES.items():
        estimate, reference, coverage = heap(scenes, gsd)
        for k, place in enumerate(places):
            expected = {**of_pixels(estimate[k], reference[k], how), "coverage": coverage}
            for name, value in expected.items():
                assert pooled[place, NAMES.index(name)] == pytest.approx(value, rel=1e-10), (name, place)
            assert np.isnan(pooled[place, [NAMES.index(name) for name in JOINT]]).all()


@pytest.mark.parametrize("how", [EOSR_CONVENTION, ZHANG], ids=lambda how: how.name)
def test_pooled_scores_over_bands_are_those_of_all_pixels_and_bands_in_one_heap(how):
    scenes = made_pairs()
    pooled = pool_of(how).pooled_over_bands(np.ones(3))
    assert pooled.shape == (2, len(NAMES))
    for k, gsd in enumerate(GROUPS):
        estimate, reference, coverage = heap(scenes, gsd)
        cosine = np.sum(estimate * reference, 0) / np.linalg.norm(estimate, axis=0) / np.linalg.norm(reference, axis=0)
        relative = np.sqrt(np.mean((estimate - reference) ** 2, axis=1)) / reference.mean(1)
        ratio = 100 / 2 if how is ZHANG or gsd == 20 else 100 / 6
        expected = {
            **of_pixels(estimate.ravel(), reference.ravel(), how),
            "coverage": coverage,
            "sam": np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean(),
            "ergas": ratio * np.sqrt(np.mean(relative**2)),
        }
        for name, value in expected.items():
            assert pooled[k, NAMES.index(name)] == pytest.approx(value, rel=1e-9), (name, gsd)


def test_the_pooled_score_of_one_scene_is_its_score():
    pool = pool_of(count=1)
    for name in PER_BAND:
        np.testing.assert_allclose(pool.pooled(np.ones(1))[:, NAMES.index(name)], pool.scores[name][0], rtol=1e-9)
    for name in JOINT:
        np.testing.assert_allclose(
            pool.pooled_over_bands(np.ones(1))[:, NAMES.index(name)], pool.scores[name][0], rtol=1e-9
        )


def test_the_mean_is_that_of_the_scores_of_scenes_and_bands():
    pool = pool_of()
    mean, over = pool.mean(np.ones(3)), pool.mean_over_bands(np.ones(3))
    for name in PER_BAND:
        values = pool.scores[name]
        np.testing.assert_allclose(mean[:, NAMES.index(name)], (values[0] + values[1] + values[2]) / 3)
        np.testing.assert_allclose(over[:, NAMES.index(name)], [values[:, :3].mean(), values[:, 3:].mean()])
    for name in JOINT:
        assert np.isnan(mean[:, NAMES.index(name)]).all()
        np.testing.assert_allclose(over[:, NAMES.index(name)], pool.scores[name].mean(0))


def test_the_mean_of_rmse_is_below_the_pooled_one_where_scenes_of_one_size_differ():
    pool = many(6)
    pool.count[:] = 700
    bands, groups = averaged(pool, np.ones(6))
    assert list(AVERAGES) == ["mean", "pooled"]
    for part in (bands, groups):
        assert (part[..., 0, NAMES.index("rmse")] < part[..., 1, NAMES.index("rmse")] - 0.5).all()


@pytest.mark.parametrize("how", [EOSR_CONVENTION, ZHANG], ids=lambda how: how.name)
def test_a_weight_of_two_is_the_scene_twice_and_of_zero_none(how):
    pool = Pool(many(4).scores, {20: (0, 1), 60: (2,)}, how)
    pool.scores["highest"][2] = 20000  # of the scene without a weight
    twice = [0, 1, 1, 3, 3, 3]
    repeated = Pool({name: values[twice] for name, values in pool.scores.items()}, pool.groups, pool.convention)
    for one, other in zip(averaged(pool, np.array([1.0, 2, 0, 3])), averaged(repeated, np.ones(6)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_many_draws_at_once_are_those_one_by_one():
    weights = np.array([[1.0, 1, 1, 1], [2, 0, 0, 2], [0, 0, 4, 0]])
    pool = Pool(many(4).scores, {20: (0, 1), 60: (2,)}, ZHANG)
    for together, *alone in zip(averaged(pool, weights), *(averaged(pool, one) for one in weights), strict=True):
        np.testing.assert_allclose(together, np.stack(alone), rtol=1e-12)


@pytest.mark.parametrize("how", [EOSR_CONVENTION, ZHANG], ids=lambda how: how.name)
def test_psnr_never_exceeds_brightness_equalised_psnr(how):
    """The mean error is part of the error: MSE - bias^2 <= MSE. The reference study prints seven that say otherwise."""
    for part in averaged(pool_of(how), np.ones(3)):
        assert (part[..., NAMES.index("bpsnr")] >= part[..., NAMES.index("psnr")]).all()
        assert (part[..., NAMES.index("bpsnr")] > part[..., NAMES.index("psnr")]).any()


def test_a_scene_too_small_for_the_window_of_ssim_does_not_count_as_zero():
    pool = many(3)
    scores = {name: values.copy() for name, values in pool.scores.items()}
    scores["ssim"][1] = np.nan
    scores["ssim"][:, 2] = np.nan
    small = Pool(scores, pool.groups, pool.convention)
    left = np.average(pool.scores["ssim"][[0, 2], 0], weights=pool.scores["pixels"][[0, 2], 0])
    place = NAMES.index("ssim")
    assert small.pooled(np.ones(3))[0, place] == pytest.approx(left)
    assert np.isnan(small.pooled(np.ones(3))[2, place])
    both = np.average(pool.scores["ssim"][[0, 2], :2], weights=pool.scores["pixels"][[0, 2], :2])
    assert small.pooled_over_bands(np.ones(3))[0, place] == pytest.approx(both)
    assert np.isnan(small.pooled_over_bands(np.ones(3))[1, place])


def test_bands_that_a_method_does_not_make_are_nan_and_spoil_nothing():
    pool = many(5)
    partly = without(pool, [(slice(None), 1), (slice(None), 2)])
    partly.scores["sam"][:, 1] = partly.scores["ergas"][:, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bands, groups = averaged(partly, np.ones(5))
        (low, high), (low_all, high_all) = bootstrap(partly, 5, resamples=20, seed=0)
    full = averaged(pool, np.ones(5))[0]
    np.testing.assert_allclose(bands[0], full[0])
    np.testing.assert_allclose(groups[0, :, : len(PER_BAND)][..., :7], bands[0][..., :7])  # one band is all bands
    for part in (bands, low, high):
        assert np.isnan(part[1:]).all()
    for part in (groups, low_all, high_all):
        assert np.isnan(part[1]).all()
        assert np.isfinite(part[0]).all()


def test_perfect_scores_stay_infinite_and_so_do_their_intervals():
    pool = many(6)
    perfect = {name: values.copy() for name, values in pool.scores.items()}
    for name in ("rmse", "bias", "sam", "ergas"):
        perfect[name][:] = 0
    for name in ("sre", "sre_supreme", "psnr", "bpsnr"):
        perfect[name][:] = np.inf
    pool = Pool(perfect, pool.groups, pool.convention)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = averaged(pool, np.ones(6))
        ends = bootstrap(pool, 6, resamples=50, seed=0)
    for part, (low, high) in zip(parts, ends, strict=True):
        for values in (part, low, high):
            for name in ("sre", "sre_supreme", "psnr", "bpsnr"):
                assert (values[..., NAMES.index(name)] == np.inf).all(), name
            assert (values[..., NAMES.index("rmse")] == 0).all()


def test_one_perfect_scene_makes_the_mean_of_decibels_infinite_but_not_the_pooled_figure():
    pool = many(4)
    scores = {name: values.copy() for name, values in pool.scores.items()}
    for name, value in (("rmse", 0), ("bias", 0), ("sre", np.inf), ("psnr", np.inf)):
        scores[name][2] = value
    bands, _ = averaged(Pool(scores, pool.groups, pool.convention), np.ones(4))
    for name in ("sre", "psnr"):
        assert (bands[:, 0, NAMES.index(name)] == np.inf).all()
        assert np.isfinite(bands[:, 1, NAMES.index(name)]).all()


def test_the_interval_is_the_same_for_the_same_seed_only():
    first, again, other = (bootstrap(many(8), 8, resamples=200, seed=seed) for seed in (3, 3, 4))
    for one, same, another in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one[0], another[0], equal_nan=True)


def test_the_interval_holds_the_value_and_shrinks_with_more_scenes():
    widths = []
    for count in (8, 200):
        pool = many(count)
        parts = averaged(pool, np.ones(count))
        for part, (low, high) in zip(parts, bootstrap(pool, count, resamples=300, seed=1), strict=True):
            known = ~np.isnan(part)
            assert (low[known] <= part[known]).all()
            assert (part[known] <= high[known]).all()
            np.testing.assert_array_equal(np.isnan(low), np.isnan(part))
        widths.append((high - low)[..., [NAMES.index(name) for name in ("rmse", "sre", "sam")]])
    # The spread of a mean falls with the root of the number of scenes: 1 / 5 from 8 to 200.
    ratio = widths[1] / widths[0]
    assert ((ratio > 0.1) & (ratio < 0.4)).all()


@pytest.mark.parametrize("metric", ["rmse", "psnr", "ssim"])
def test_the_interval_of_a_mean_is_scipys_percentile_interval(metric):
    """Within the resampling error: an end of 4000 draws lies within a tenth of the width of that of other draws."""
    pool = many(25)
    (low, high), _ = bootstrap(pool, 25, resamples=4000, seed=0)
    values = pool.scores[metric][:, 0]
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", confidence_level=0.95, random_state=1
    ).confidence_interval
    width = expected.high - expected.low
    assert low[0, 0, NAMES.index(metric)] == pytest.approx(expected.low, abs=0.06 * width)
    assert high[0, 0, NAMES.index(metric)] == pytest.approx(expected.high, abs=0.06 * width)


def test_the_interval_of_a_pooled_score_is_scipys_of_the_statistic():
    pool = many(25)
    (low, high), _ = bootstrap(pool, 25, resamples=4000, seed=0)

    def pooled(rmse, pixels, axis):
        return np.sqrt((rmse**2 * pixels).sum(axis) / pixels.sum(axis))

    data = (pool.scores["rmse"][:, 0], pool.scores["pixels"][:, 0])
    expected = scipy.stats.bootstrap(
        data, pooled, paired=True, n_resamples=4000, method="percentile", vectorized=True, random_state=1
    ).confidence_interval
    width = expected.high - expected.low
    assert low[0, 1, 0] == pytest.approx(expected.low, abs=0.06 * width)
    assert high[0, 1, 0] == pytest.approx(expected.high, abs=0.06 * width)


def test_one_scene_has_no_interval():
    for low, high in bootstrap(many(1), 1, resamples=100, seed=0):
        assert np.isnan(low).all()
        assert np.isnan(high).all()
    for low, _ in bootstrap(many(9), 9, resamples=0, seed=0):
        assert np.isnan(low).all()


def test_a_band_that_one_scene_alone_has_has_no_interval_either():
    """Drawn with replacement, one value is always the same: a width of zero would claim what nobody knows."""
    pool = without(many(6), [(slice(1, None), 1), (slice(1, None), 2)])
    (low, high), (low_all, high_all) = bootstrap(pool, 6, resamples=100, seed=0)
    assert np.isfinite(averaged(pool, np.ones(6))[0][1, :, 0]).all()
    for part in (low, high):
        assert np.isnan(part[1:]).all()
        assert np.isfinite(part[0, :, 0]).all()
    for part in (low_all, high_all):
        assert np.isfinite(part[0, :, 0]).all()
        assert np.isnan(part[1, :, 0]).all()


def test_the_directions_and_units_of_the_metrics_are_told():
    assert set(PER_BAND) | set(JOINT) == set(METRICS)
    assert {about[1] for about in METRICS.values()} <= {"lower", "higher", "zero", ""}
    assert METRICS["sam"][0] == "degree"
    assert METRICS["rmse"][0] == METRICS["bias"][0] == "DN"
