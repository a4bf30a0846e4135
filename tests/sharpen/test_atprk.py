"""ATPRK: every step against a second implementation, independence of tiling, coherence, and scenes that hold little."""

import pickle
from dataclasses import asdict, replace
from fractions import Fraction

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.windows import Window, from_bounds
from scipy.ndimage import gaussian_filter

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import degrade, kernel_taps
from eosr.errors import DegradationError, MethodError
from eosr.open.sample import sample_folder
from eosr.sharpen.classical.atprk import Atprk, Kriging
from eosr.sharpen.classical.atprk_variogram import (
    RANGES,
    SILLS,
    deconvolve,
    fit_exponential,
    kriging_weights,
    used_lags,
)
from eosr.sharpen.classical.bicubic import bicubic_tile
from eosr.sharpen.classical.passes import Tile, sharpen_whole, whole_scene_tile, with_halo
from eosr.sharpen.superresolution import superresolve
from eosr.testing import synthetic_scene
from eosr.train.data.scenes import SAMPLE_WINDOW, VALIDATION_BLOCK


def seen(fine, factor, sigma):
    """Degraded through the public function, by xarray."""
    bands = xr.DataArray(fine, dims=("band", "y", "x"))
    return degrade(bands, factor, sigma=sigma).values


def scene(factor, sigma, coarse_size=(26, 32), seed=5):
    """Four guides, and targets that the guides explain in part; (fine, coarse, truth)."""
    rng = np.random.default_rng(seed)
    rows, columns = (size * factor for size in coarse_size)
    smooth = [gaussian_filter(rng.normal(size=(rows, columns)), s) * s for s in (1.0, 1.5, 3.0, 5.0)]
    mix = rng.normal(size=(4, 4))
    fine = 2000 + 400 * np.tensordot(mix, np.stack(smooth), 1)
    own = [gaussian_filter(rng.normal(size=(rows, columns)), 2.0 * factor) * 2.0 * factor for _ in sigma]
    weights = rng.normal(size=(len(sigma), 4)) * 0.5
    truth = 1500 + np.tensordot(weights, fine, 1) + 150 * np.stack(own)
    coarse = np.stack([seen(t[None], factor, s)[0] for t, s in zip(truth, sigma, strict=True)])
    return fine, coarse, truth


def solved(method, tile):
    """Parameters of both passes of a scene in memory."""
    found = ()
    for index, halo in enumerate(method.passes):
        found = (*found, method.solve(index, method.count(index, with_halo(tile, halo, method.factor), found)))
    return found


def rms(image):
    return float(np.sqrt(np.mean(np.square(image))))


def points_of(taps, factor, pixel):
    """(row, column, weight) of all points that a coarse pixel (row, column) sees, in fine pixels from pixel (0, 0)."""
    around = np.arange(len(taps)) - (len(taps) - 1) / 2
    return [
        (factor * pixel[0] + a, factor * pixel[1] + b, taps[i] * taps[j])
        for i, a in enumerate(around)
        for j, b in enumerate(around)
    ]


def mean_semivariance(some, others, reach):
    a, b = np.array(some), np.array(others)
    apart = np.sqrt((a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2)
    return a[:, 2] @ (1 - np.exp(-apart / reach)) @ b[:, 2]


@pytest.mark.parametrize(
    ("factor", "taps", "reach"),
    [
        (2, kernel_taps(2, 0.5), 3.0),
        (2, Atprk(factor=2, psf="published")._taps(0.5), 0.4),
        (6, kernel_taps(6, 0.0), 20),
    ],
)
def test_kriging_weights_solve_the_system_written_point_by_point(factor, taps, reach):
    pixels = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    points = [points_of(taps, factor, pixel) for pixel in pixels]
    system = np.zeros((10, 10))
    system[:9, 9] = system[9, :9] = 1
    system[:9, :9] = [[mean_semivariance(a, b, reach) for b in points] for a in points]
    expected = []
    for row in range(factor):
        for column in range(factor):
            at = [(row - (factor - 1) / 2, column - (factor - 1) / 2, 1.0)]
            right = [mean_semivariance(at, b, reach) for b in points]
            expected.append(np.linalg.solve(system, [*right, 1])[:9])
    weights = kriging_weights(reach, taps, factor)
    np.testing.assert_allclose(weights, expected, atol=1e-10)
    np.testing.assert_allclose(weights.sum(axis=1), 1)


def test_weights_of_a_box_average_to_the_pixel_itself():
    # The mean of the right-hand sides over the sub-pixels is the middle column of the system: its solution is a delta.
    for factor in (2, 6):
        mean = kriging_weights(1.5 * factor, kernel_taps(factor, 0.0), factor).mean(axis=0)
        np.testing.assert_allclose(mean, np.eye(9)[4], atol=1e-12)


def test_an_exponential_curve_gives_back_its_sill_and_range():
    lags = 2.0 * np.arange(1, 21)
    assert fit_exponential(lags, 700 * (1 - np.exp(-lags / 9.5))) == pytest.approx((700, 9.5), rel=1e-9)
    # Flat from the first lag on: the mean, with as short a range as is allowed. Straight: as long as is allowed.
    assert fit_exponential(lags, np.full(20, 3.0)) == pytest.approx((3.0, 0.1))
    assert fit_exponential(lags, lags)[1] == pytest.approx(200.0)


@pytest.mark.parametrize(("factor", "sigma"), [(2, 0.5), (2, 0.0), (6, 0.0)])
def test_the_deconvolution_tries_every_pair_of_the_published_grid(factor, sigma):
    taps = kernel_taps(factor, sigma)
    lags = factor * np.arange(1.0, 21.0)
    rng = np.random.default_rng(1)
    gamma = 500 * (1 - np.exp(-lags / (2.5 * factor))) + rng.uniform(0, 20, 20)
    sill, reach = fit_exponential(lags, gamma)
    fitted = sill * (1 - np.exp(-lags / reach))
    here = points_of(taps, factor, (0, 0))
    there = [points_of(taps, factor, (0, lag)) for lag in range(1, 21)]
    best = (np.inf, 0.0, 0.0)
    for j in range(1, 21):
        wide = (0.5 + 0.1 * j) * reach
        within = mean_semivariance(here, here, wide)
        model = np.array([mean_semivariance(here, b, wide) - within for b in there])
        for i in range(1, 21):
            high = (1 + 0.1 * i) * sill
            best = min(best, (float(np.sum((high * model - fitted) ** 2)), high, wide))
    found = deconvolve(gamma, np.full(20, 100.0), taps, factor)
    assert (found.areal_sill, found.areal_range) == pytest.approx((sill, reach))
    assert (found.sill, found.range) == pytest.approx(best[1:])


def test_the_grid_of_the_deconvolution_is_the_published_one():
    for shares, ends in ((SILLS, (1.1, 3.0)), (RANGES, (0.6, 2.5))):
        assert len(shares) == 20
        np.testing.assert_allclose(shares[[0, -1]], ends)


@pytest.mark.parametrize("factor", [2, 6])
def test_every_sub_pixel_takes_its_own_weights_of_its_nine_neighbours(factor):
    rng = np.random.default_rng(8)
    coarse, weights = rng.normal(size=(1, 4, 5)), rng.normal(size=(1, factor**2, 9))
    tile = whole_scene_tile(np.zeros((4, 4 * factor, 5 * factor)), None, coarse, (0.5,))
    sharp = Atprk(factor=factor).sharpen(tile, (np.zeros((1, 5)), Kriging(weights=weights, variograms=())))
    padded = np.pad(coarse[0], 1, mode="edge")
    for row in range(4 * factor):
        for column in range(5 * factor):
            (i, a), (j, b) = divmod(row, factor), divmod(column, factor)
            expected = weights[0, a * factor + b] @ padded[i : i + 3, j : j + 3].ravel()
            assert sharp[0, row, column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("psf", "pixel"),
    [("matched", kernel_taps(2, 0.96)), ("published", kernel_taps(2, 0.0)), (0.75, kernel_taps(2, 0.0))],
)
def test_the_semivariogram_of_points_belongs_to_the_function_taken_and_to_half_the_squared_differences(psf, pixel):
    lags = np.arange(1, 21)
    gamma = 400 * (1 - np.exp(-lags / 3.0))
    pairs = np.full(20, 50.0)
    total = {
        "squares": 2 * (gamma * pairs)[None],
        "pairs": pairs,
        "sigma": np.array([3 * 0.96]),
        "tiles": np.full(1, 3),
    }
    method = Atprk(factor=2, psf=psf)
    kriging = method.solve(1, total)
    assert asdict(kriging.variograms[0]) == pytest.approx(asdict(deconvolve(gamma, pairs, pixel, 2)))
    assert kriging.variograms[0].areal_sill == pytest.approx(400)
    assert kriging.variograms[0].areal_range == pytest.approx(6)
    np.testing.assert_allclose(
        kriging.weights[0], kriging_weights(kriging.variograms[0].range, method._taps(0.96), 2), atol=1e-9
    )


def test_small_scenes_use_the_lags_up_to_half_their_side():
    def pairs(side):
        return np.array([2.0 * side * max(side - lag, 0) for lag in range(1, 21)])

    # (side - lag) / (side - 1) >= 1/2, so lag <= (side + 1) / 2.
    assert [used_lags(pairs(side)) for side in (1, 2, 3, 10, 21, 39, 500)] == [0, 1, 2, 5, 11, 20, 20]
    # Gaps all over the scene thin out every lag alike.
    assert used_lags(0.3 * pairs(500)) == 20


def test_the_semivariogram_of_a_ramp_is_a_parabola():
    # (R_i - R_i+h)^2 / 2 = h^2 / 2 for the pairs along a row, 0 along a column; as many of each: h^2 / 4.
    ramp = np.tile(np.arange(24.0), (24, 1))[None]
    method = Atprk(factor=2)
    tile = with_halo(whole_scene_tile(np.zeros((4, 48, 48)), None, ramp, (0.5,)), method.passes[1], 2)
    sums = method.count(1, tile, (np.zeros((1, 5)),))
    lags = np.arange(1, 21)
    np.testing.assert_allclose(sums["squares"][0] / (2 * sums["pairs"]), lags**2 / 4)
    np.testing.assert_array_equal(sums["pairs"], 2 * 24 * (24 - lags))


def test_pairs_are_those_of_measured_pixels_once_each():
    rng = np.random.default_rng(2)
    coarse = rng.normal(size=(2, 9, 13))
    measured = rng.uniform(size=(9, 13)) > 0.2
    squares, pairs = np.zeros((2, 20)), np.zeros(20)
    places = np.argwhere(measured)
    for a in places:
        for b in places:
            step = b - a
            if step.min() == 0 and 0 < step.max() <= 20:
                squares[:, step.max() - 1] += (coarse[:, a[0], a[1]] - coarse[:, b[0], b[1]]) ** 2
                pairs[step.max() - 1] += 1
    method = Atprk(factor=2)
    tile = with_halo(whole_scene_tile(np.zeros((4, 18, 26)), None, coarse, (0.5, 0.5), measured), method.passes[1], 2)
    sums = method.count(1, tile, (np.zeros((2, 5)),))
    np.testing.assert_array_equal(sums["pairs"], pairs)
    np.testing.assert_allclose(sums["squares"], squares, atol=1e-12)


def test_the_regression_is_the_least_squares_line_over_the_measured_pixels():
    sigma = (0.5, 0.96)
    fine, coarse, _ = scene(2, sigma)
    measured = np.random.default_rng(3).uniform(size=coarse.shape[1:]) > 0.3
    lines = solved(Atprk(factor=2), whole_scene_tile(fine, None, coarse, sigma, measured))[0]
    for k, s in enumerate(sigma):
        guides = seen(fine, 2, s)[:, measured]
        design = np.stack([np.ones(measured.sum()), *guides], axis=1)
        expected = np.linalg.lstsq(design, coarse[k][measured], rcond=None)[0]
        np.testing.assert_allclose(lines[k], expected, rtol=1e-5)


def test_the_selected_scheme_takes_the_guide_of_largest_correlation_be_it_negative():
    sigma = (0.5,)
    rng = np.random.default_rng(4)
    fine = 2000 + 400 * gaussian_filter(rng.normal(size=(4, 52, 64)), (0, 2, 2))
    coarse = seen(500 - 0.7 * fine[[2]] + 0.2 * fine[[0]], 2, 0.5) + rng.normal(size=(1, 26, 32))
    tile = whole_scene_tile(fine, None, coarse, sigma)
    line = solved(Atprk(factor=2, scheme="selected"), tile)[0][0]
    guides = seen(fine, 2, 0.5)
    correlations = [np.corrcoef(guide.ravel(), coarse.ravel())[0, 1] for guide in guides]
    chosen = int(np.argmax(np.abs(correlations)))
    assert correlations[chosen] < 0
    slope, intercept = np.polyfit(guides[chosen].ravel(), coarse.ravel(), 1)
    expected = np.zeros(5)
    expected[[0, 1 + chosen]] = intercept, slope
    np.testing.assert_allclose(line, expected, rtol=1e-6)


@pytest.mark.parametrize(("factor", "sigma"), [(2, 0.5), (6, 1 / 6), (6, 2.84)])
@pytest.mark.parametrize("psf", ["matched", "published", 0.75])
def test_a_band_that_the_guides_explain_is_recovered(factor, sigma, psf):
    fine, _, _ = scene(factor, (sigma,), (8, 9))
    truth = 300 + np.tensordot([0.5, -0.2, 0.1, 0.7], fine, 1)
    method = Atprk(factor=factor, psf=psf)
    coarse = method._upscaled(truth, sigma)[None]
    sharp = sharpen_whole(method, whole_scene_tile(fine, None, coarse, (sigma,)))[0]
    np.testing.assert_allclose(sharp, truth, atol=0.01)


@pytest.mark.parametrize(
    ("factor", "sigma", "share"),
    # A function that ends at the pixel's border is met exactly; beyond it the 3 x 3 window leaves a few percent.
    [(2, 0.0, 1e-5), (6, 1 / 6, 1e-5), (2, 0.5, 0.03), (2, 0.8, 0.06), (6, 2.84, 0.06)],
)
def test_the_answer_degrades_to_the_measurement(factor, sigma, share):
    fine, coarse, _ = scene(factor, (sigma,))
    method = Atprk(factor=factor)
    tile = whole_scene_tile(fine, None, coarse, (sigma,))
    line = solved(method, tile)[0][0]
    missed = coarse - line[0] - seen(np.tensordot(line[None, 1:], fine, 1), factor, sigma)
    off = seen(sharpen_whole(method, tile), factor, sigma) - coarse
    assert rms(missed) > 20
    assert rms(off[:, 3:-3, 3:-3]) < max(share * rms(missed), 1e-3)


def test_a_wrong_point_spread_function_costs_more_than_it_saves():
    sigma = (0.5, 0.5)
    fine, coarse, truth = scene(2, sigma, (40, 40))
    tile = whole_scene_tile(fine, None, coarse, sigma)
    errors = {psf: rms(sharpen_whole(Atprk(factor=2, psf=psf), tile) - truth) for psf in ("matched", 0.75, "published")}
    assert errors["matched"] < errors["published"]
    assert errors["matched"] < 0.5 * rms(bicubic_tile(coarse, 2) - truth)


def cut(whole, rows, columns, halo, factor):
    """One tile of a scene, with halo, as a driver would cut it; rows and columns are slices of coarse pixels."""
    padded = with_halo(whole, halo, factor)
    rim = -(-halo // 6) * 6 // factor
    around = [slice(side.start, side.stop + 2 * rim) for side in (rows, columns)]
    fine = [slice(side.start * factor, side.stop * factor) for side in around]
    own = np.zeros_like(padded.own)
    inside = tuple(slice(side.start + rim, side.stop + rim) for side in (rows, columns))
    own[inside] = padded.own[inside]
    return replace(
        padded,
        fine=padded.fine[:, fine[0], fine[1]],
        coarse=padded.coarse[:, around[0], around[1]],
        own=own[around[0], around[1]],
        scene=padded.scene[around[0], around[1]],
        origin=(rows.start - rim, columns.start - rim),
    )


@pytest.mark.parametrize(
    ("factor", "sigma", "options"),
    [
        (2, (0.5, 0.96), {}),
        (2, (0.5, 0.5), {"psf": "published", "scheme": "selected"}),
        (6, (1 / 6, 2.84), {}),
    ],
)
def test_the_answer_does_not_depend_on_the_tiling(factor, sigma, options):
    fine, coarse, _ = scene(factor, sigma, (30, 36))
    measured = np.random.default_rng(6).uniform(size=(30, 36)) > 0.1
    whole = whole_scene_tile(fine.astype(np.float32), None, coarse.astype(np.float32), sigma, measured)
    method = Atprk(factor=factor, **options)
    tiles = [(slice(*r), slice(*c)) for r in ((0, 12), (12, 30)) for c in ((0, 6), (6, 21), (21, 36))]
    found = ()
    for index, halo in enumerate(method.passes):
        total = {}
        for rows, columns in tiles:
            for name, value in method.count(index, cut(whole, rows, columns, halo, factor), found).items():
                total[name] = total.get(name, 0) + value
        found = (*found, method.solve(index, total))
    at_once = solved(method, whole)
    np.testing.assert_allclose(found[0], at_once[0], rtol=1e-7)
    np.testing.assert_allclose(found[1].weights, at_once[1].weights, atol=1e-9)
    expected = sharpen_whole(method, whole)
    rim = -(-method.reach // 6) * 6
    for rows, columns in tiles:
        sharp = method.sharpen(cut(whole, rows, columns, method.reach, factor), found)[:, rim:-rim, rim:-rim]
        here = tuple(slice(side.start * factor, side.stop * factor) for side in (rows, columns))
        np.testing.assert_allclose(sharp, expected[:, here[0], here[1]], rtol=3e-7)


@pytest.mark.parametrize("factor", [2, 6])
def test_reach_is_how_far_one_pixel_of_the_guides_changes_the_answer(factor):
    fine, coarse, _ = scene(factor, (0.5,), (12, 12))
    tile = whole_scene_tile(fine, None, coarse, (0.5,))
    method = Atprk(factor=factor, psf="published")
    found = solved(method, tile)
    before = method.sharpen(tile, found)
    furthest = 0
    for phase in range(factor):
        at = 6 * factor + phase
        moved = fine.copy()
        moved[:, at, at] += 1e5
        changed = np.argwhere(np.abs(method.sharpen(replace(tile, fine=moved), found) - before)[0] > 1e-2)
        furthest = max(furthest, int(np.abs(changed - at).max()))
    assert furthest == method.reach == 3 * factor - 1
    assert Atprk(factor=factor).reach >= 2 * factor - 1 + 4 * factor


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("psf", ["matched", "published"])
@pytest.mark.parametrize("scheme", ["synthesised", "selected"])
def test_scenes_that_hold_little_get_a_finite_answer(factor, psf, scheme):
    fine, coarse, _ = scene(factor, (0.5,), (6, 6))
    method = Atprk(factor=factor, psf=psf, scheme=scheme)
    flat = np.full_like(coarse, 1234.0)
    np.testing.assert_allclose(sharpen_whole(method, whole_scene_tile(fine, None, flat, (0.5,))), 1234, atol=1e-3)
    # Nothing to regress on: what remains is kriging alone.
    alone = sharpen_whole(method, whole_scene_tile(np.full_like(fine, 777.7), None, coarse, (0.5,)))
    assert coarse.min() - 500 < alone.min()
    assert alone.max() < coarse.max() + 500
    for size in (1, 2, 3):
        tile = whole_scene_tile(fine[:, : size * factor, : size * factor], None, coarse[:, :size, :size], (0.5,))
        assert np.isfinite(sharpen_whole(method, tile)).all()
    nowhere = whole_scene_tile(fine, None, coarse, (0.5,), np.zeros((6, 6), bool))
    assert np.isfinite(sharpen_whole(method, nowhere)).all()


def test_guides_that_are_equal_share_their_weight():
    fine, coarse, _ = scene(2, (0.5,))
    fine[1] = fine[0]
    line = solved(Atprk(factor=2), whole_scene_tile(fine, None, coarse, (0.5,)))[0][0]
    assert line[1] == pytest.approx(line[2], rel=1e-4)


def test_it_delivers_its_group_or_the_bands_it_is_told_and_travels_in_a_graph():
    assert Atprk(factor=2).delivers == BANDS_20M
    assert Atprk(factor=6).delivers == BANDS_60M
    method = Atprk(factor=2, targets=("B11",), psf=0.75)
    assert method.delivers == ("B11",)
    assert pickle.loads(pickle.dumps(method)) == method
    assert Atprk(factor=2).passes == (8, 48)
    assert Atprk(factor=6, psf="published").passes == (6, 126)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 3}, r"factor of 3\. Use 2 \(20 m\) or 6 \(60 m bands\)"),
        ({"factor": 2, "scheme": "best"}, r"no scheme 'best'\. Use one of 'synthesised', 'selected'"),
        ({"factor": 2, "psf": "wide"}, r"psf='wide'\. Use 'matched' or 'published', or .* e\.g\. psf=0\.75"),
        ({"factor": 2, "psf": 0.0}, r"psf=0\.0\. Use 'matched'"),
        ({"factor": 2, "psf": float("nan")}, "psf=nan"),
        ({"factor": 2, "psf": True}, "psf=True"),
        ({"factor": 2, "psf": None}, "psf=None"),
        ({"factor": 2, "psf": [0.75]}, r"psf=\[0\.75\]"),
        ({"factor": 2, "psf": 10**400}, "psf=1000"),
        # Its samples half a pixel from the centre would all be 0, and their shares NaN.
        ({"factor": 2, "psf": 0.01}, r"psf=0\.01\. .* \[10 m pixels\] from 0\.02 on, e\.g\. psf=0\.75"),
        ({"factor": 2, "scheme": True}, "no scheme True"),
        ({"factor": 2, "scheme": ["selected"]}, r"no scheme \['selected'\]"),
        ({"factor": 2, "scheme": np.array(["selected", "best"])}, "no scheme array"),
    ],
)
def test_an_option_without_meaning_is_refused_with_the_remedy(options, message):
    with pytest.raises(MethodError, match=message):
        Atprk(**options)


@pytest.mark.parametrize("psf", [np.float32(0.75), np.float64(0.75), Fraction(3, 4)])
def test_a_width_may_be_any_real_number(psf):
    fine, coarse, _ = scene(2, (0.5,), (6, 6))
    tile = whole_scene_tile(fine, None, coarse, (0.5,))
    plain = sharpen_whole(Atprk(factor=2, psf=0.75), tile)
    np.testing.assert_array_equal(sharpen_whole(Atprk(factor=2, psf=psf), tile), plain)


def test_a_blur_too_wide_for_the_window_is_refused():
    tile = Tile(
        fine=np.ones((4, 60, 60)), middle=None, coarse=np.ones((1, 30, 30)), sigma=(2.2,), own=np.ones((30, 30), bool),
        scene=np.ones((30, 30), bool),
    )  # fmt: skip
    with pytest.raises(
        MethodError, match=r"sigma=2\.2 fine pixels reaches over more than 4 .* at most 2\.12, or psf='p"
    ):
        sharpen_whole(Atprk(factor=2), tile)
    narrower = sharpen_whole(Atprk(factor=2), replace(tile, sigma=(2.12,)))
    np.testing.assert_allclose(narrower, 1.0)


def test_a_blur_too_wide_for_the_window_is_refused_when_it_is_asked_for():
    whole = synthetic_scene(24, 24, level="L2A")
    told = {
        "B05": r"sigma=9 fine pixels reaches over more than 4 .* at most 2\.12, or psf='p",
        "B01": r"sigma=9 fine pixels .* at most 6\.12",
    }
    for band, text in told.items():
        with pytest.raises(MethodError, match=text):
            superresolve(whole, method="atprk", bands=[band], degradation="sigma=9")
    # A point-spread function of its own does not follow the blur.
    superresolve(whole, method="atprk", bands=["B05"], degradation="sigma=9", options={"psf": "published"})


def test_a_blur_that_is_none_is_refused_when_it_is_asked_for():
    with pytest.raises(DegradationError, match=r"sigma=-1\.0 is no standard deviation"):
        superresolve(synthetic_scene(24, 24), method="atprk", bands=["B05"], degradation="sigma=-1")


def real_block(names, gsd):
    """Bands of the part of the sample scene that is kept out of training."""
    bands = []
    rows, columns = (slice(side.start * 10 // gsd, side.stop * 10 // gsd) for side in VALIDATION_BLOCK)
    for name in names:
        with rasterio.open(sample_folder() / f"s2_{name}.jp2") as file:
            whole = from_bounds(*SAMPLE_WINDOW, file.transform)
            window = Window(
                round(whole.col_off) + columns.start, round(whole.row_off) + rows.start,
                columns.stop - columns.start, rows.stop - rows.start,
            )  # fmt: skip
            bands.append(file.read(1, window=window))
    return np.stack(bands).astype(np.float32)


def test_on_a_real_scene_the_matched_function_leaves_less_than_half_of_what_the_published_one_does():
    # Measured on this block at 20 m: 47.4, 105.1 and 114.5 DN (bicubic); at 60 m: 39.3, 110.7 and 146.3 DN.
    guides = real_block(BANDS_10M, 10)
    for factor, truth, expected in [
        (2, real_block(BANDS_20M, 20), {"matched": 0.414, "published": 0.918}),
        (6, real_block(BANDS_60M, 60), {"matched": 0.269, "published": 0.756}),
    ]:
        fine, coarse = (seen(bands, factor, 1 / factor) for bands in (guides, truth))
        tile = whole_scene_tile(fine, None, coarse, (1 / factor,) * len(truth))

        def error(estimate, truth=truth):
            return np.sqrt(((estimate - truth) ** 2).mean(axis=(1, 2))).mean()

        bicubic = error(bicubic_tile(coarse, factor))
        for psf, ratio in expected.items():
            assert error(sharpen_whole(Atprk(factor=factor, psf=psf), tile)) / bicubic == pytest.approx(ratio, abs=5e-3)
