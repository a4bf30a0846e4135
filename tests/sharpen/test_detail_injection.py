"""Detail injection: weights that are known, a second implementation by dense matrices, and how far it looks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from eosr.cube.bands import BANDS_20M, BANDS_60M, PLATFORMS
from eosr.cube.degradation import blur_sigma, degrade, kernel_taps, radius_of
from eosr.errors import MethodError
from eosr.sharpen.classical.bicubic import bicubic_tile
from eosr.sharpen.classical.detail_injection import WIDEST, DetailInjection
from eosr.sharpen.classical.passes import sharpen_whole, whole_scene_tile, with_halo
from eosr.sharpen.superresolution import superresolve
from eosr.testing import chunked, synthetic_bands, synthetic_scene

GUIDES = ("B02", "B03", "B04", "B08")


def down_matrix(size, factor, sigma):
    """Blur and box mean along one axis, (size / factor, size), by scipy on the columns of the identity."""
    blurred = gaussian_filter1d(np.eye(size), sigma, axis=0, mode="reflect") if sigma else np.eye(size)
    return blurred.reshape(size // factor, factor, size).mean(axis=1)


def up_matrix(size, factor):
    """Cubic convolution, (size * factor, size): the formula of Keys at every distance, mirrored at the edges."""
    matrix = np.zeros((size * factor, size))
    for i in range(size * factor):
        centre = (i + 0.5) / factor - 0.5
        for j in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - j)
            tap = 1.5 * d**3 - 2.5 * d**2 + 1 if d <= 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            matrix[i, min(max(j, -1 - j), 2 * size - 1 - j)] += tap
    return matrix


def applied(rows, image, columns):
    return rows @ image @ columns.T


def lost_by_matrices(image, factor, sigma):
    rows, columns = (up_matrix(n // factor, factor) @ down_matrix(n, factor, sigma) for n in image.shape)
    return image - applied(rows, image, columns)


def guides(rows60, columns60, seed=0):
    bands = synthetic_bands(rows60, columns60, seed=seed)
    return np.stack([bands[name] for name in GUIDES]).astype(np.float64)


def degraded(image, factor, sigma):
    return applied(*[down_matrix(image.shape[0], factor, sigma), image, down_matrix(image.shape[1], factor, sigma)])


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("operator", ["study", "mtf"])
def test_a_band_made_of_the_guides_is_found_exactly(factor, operator):
    # band = 0.3 B02 - 0.2 B03 + 0.5 B04 + 0.9 B08 + 40: what it lost one scale down is the same mixture of what they
    # lost, so the weights are those, and bicubic(band) + mixture of (guide - bicubic(guide)) is the mixture itself.
    fine = guides(12, 18)
    mixture = np.array([0.3, -0.2, 0.5, 0.9])
    truth = np.tensordot(mixture, fine, 1) + 40
    name = "B12" if factor == 2 else "B09"
    sigma = blur_sigma(name, factor, operator)
    tile = whole_scene_tile(fine, None, degraded(truth, factor, sigma)[None], (sigma,))
    method = DetailInjection(factor=factor, targets=(name,))
    padded = with_halo(tile, method.passes[0], factor)
    weights = method.solve(0, method.count(0, padded, ()))
    np.testing.assert_allclose(weights, [mixture], rtol=1e-5)
    sharp = sharpen_whole(method, tile)
    assert np.abs(bicubic_tile(tile.coarse, factor)[0] - truth).max() > 100
    np.testing.assert_allclose(sharp[0], truth, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("factor", "sigma"), [(2, 0.5), (2, 1.1), (6, 1 / 6), (6, 3.1)])
def test_dense_matrices_and_least_squares_give_the_same(factor, sigma):
    fine = guides(12, 18, seed=3)
    rng = np.random.default_rng(0)
    shape = (fine.shape[1] // factor, fine.shape[2] // factor)
    band = degraded(fine[3] - 0.4 * fine[0], factor, sigma) + rng.normal(0, 200, shape)
    sharp = sharpen_whole(
        DetailInjection(factor=factor, targets=("B05",)), whole_scene_tile(fine, None, band[None], (sigma,))
    )
    lost = [lost_by_matrices(degraded(guide, factor, sigma), factor, sigma).ravel() for guide in fine]
    weights = np.linalg.lstsq(np.stack(lost, 1), lost_by_matrices(band, factor, sigma).ravel(), rcond=None)[0]
    up = [up_matrix(size, factor) for size in shape]
    expected = applied(up[0], band, up[1])
    for weight, guide in zip(weights, fine, strict=True):
        expected += weight * lost_by_matrices(guide, factor, sigma)
    np.testing.assert_allclose(sharp[0], expected, rtol=0, atol=2e-3)


def window_of(tile, rows, columns, factor, halo):
    """One tile of a scene whose halo is laid around it already; rows and columns in coarse pixels of the scene."""
    rim = halo // factor
    own = np.zeros(tile.own.shape, bool)
    own[rows.start + rim : rows.stop + rim, columns.start + rim : columns.stop + rim] = True
    around = (slice(rows.start, rows.stop + 2 * rim), slice(columns.start, columns.stop + 2 * rim))
    fine = tuple(slice(part.start * factor, part.stop * factor) for part in around)
    return replace(
        tile, fine=tile.fine[:, *fine], coarse=tile.coarse[:, *around], own=(own & tile.own)[around],
        scene=tile.scene[around], origin=(rows.start - rim, columns.start - rim),
    )  # fmt: skip


@pytest.mark.parametrize("factor", [2, 6])
def test_tiles_that_begin_anywhere_count_what_the_whole_scene_counts(factor):
    # The widest blur of all: B11 of Sentinel-2B at 20 m reaches 5 fine pixels, B09 at 60 m 13. Tiles begin at odd
    # pixels of the coarse grid, which the next coarser grid cuts through.
    name = "B11" if factor == 2 else "B09"
    sigma = blur_sigma(name, factor, "mtf", "sentinel-2b")
    fine = guides(12, 22, seed=5)
    size = (fine.shape[1] // factor, fine.shape[2] // factor)
    band = np.random.default_rng(1).uniform(500, 3000, size)
    method = DetailInjection(factor=factor, targets=(name,))
    halo = -(-method.passes[0] // 6) * 6
    scene = with_halo(whole_scene_tile(fine, None, band[None], (sigma,)), halo, factor)
    whole = method.count(0, scene, ())
    cuts = [[slice(0, 3), slice(3, 8), slice(8, n)] for n in size]

    def summed(scene, halo):
        parts = [method.count(0, window_of(scene, r, c, factor, halo), ()) for r in cuts[0] for c in cuts[1]]
        return {key: sum(part[key] for part in parts) for key in whole}

    for key, value in summed(scene, halo).items():
        np.testing.assert_allclose(value, whole[key], rtol=1e-9, err_msg=key)
    # A narrower halo counts something else, so the halo is no wider than it must be.
    least = (2 * factor + (factor - 1) // 2 + radius_of(kernel_taps(factor, sigma), factor)) * factor
    narrow = (least - factor) // 6 * 6
    scene = with_halo(whole_scene_tile(fine, None, band[None], (sigma,)), narrow, factor)
    assert not np.allclose(summed(scene, narrow)["product"], whole["product"], rtol=1e-9)


@pytest.mark.parametrize(("factor", "sigma"), [(2, 0.5), (2, 1.142), (6, 1 / 6), (6, 3.18), (2, 1.37), (6, 4.62)])
def test_one_pixel_changes_the_answer_within_the_reach_and_no_further(factor, sigma):
    method = DetailInjection(factor=factor, targets=("B05",))
    rng = np.random.default_rng(2)
    size = 6 * 18
    fine = rng.uniform(500, 3000, (4, size, size))
    coarse = rng.uniform(500, 3000, (1, size // factor, size // factor))
    tile = whole_scene_tile(fine, None, coarse, (sigma,))
    weights = (np.array([[0.5, -0.5, 0.7, 1.0]]),)
    before = method.sharpen(tile, weights)
    radius = radius_of(kernel_taps(factor, sigma), factor)
    exact = 2 * factor + (factor - 1) // 2 + radius
    assert exact <= method.reach
    farthest = 0
    for row in range(54, 54 + factor):  # every place inside a coarse pixel
        changed = fine.copy()
        changed[:, row, 54] += 1e6
        after = method.sharpen(replace(tile, fine=changed), weights)
        farthest = max(farthest, int(np.abs(np.argwhere(after[0] != before[0]) - (row, 54)).max()))
    assert exact - factor <= farthest <= exact
    changed = coarse.copy()
    changed[0, 54 // factor, 54 // factor] += 1e6
    after = method.sharpen(replace(tile, coarse=changed), weights)
    moved = np.argwhere(after[0] != before[0])
    # Cubic convolution: two coarse pixels on each side, less the half pixel whose weights are zero.
    assert moved.min() >= 54 - 2 * factor
    assert moved.max() < 54 + 3 * factor


def test_the_reach_holds_the_widest_blur_of_every_band_and_satellite():
    for factor, bands in ((2, BANDS_20M), (6, BANDS_60M)):
        widths = [blur_sigma(band, factor, "mtf", platform) for band in bands for platform in PLATFORMS]
        radius = max(radius_of(kernel_taps(factor, width), factor) for width in widths)
        assert radius == {2: 5, 6: 13}[factor]
        assert radius <= WIDEST[factor]


def test_a_blur_that_reaches_further_than_the_halo_is_refused():
    scene = synthetic_scene(20, 20, level="L2A")
    told = r"sigma=3 fine pixels reaches further than the 5 .* at most 1\.37, or method="
    with pytest.raises(MethodError, match=told):
        superresolve(scene, method="detail_injection", bands=["B05"], degradation="sigma=3")
    # What a scene was degraded by is known when `superresolve` is called, too.
    with pytest.raises(MethodError, match=told):
        superresolve(degrade(scene, 2, sigma=3.0), method="detail_injection", bands=["B05"])
    with pytest.raises(MethodError, match=told):
        sharpen_whole(DetailInjection(factor=2), whole_scene_tile(np.ones((4, 8, 8)), None, np.ones((1, 4, 4)), (3.0,)))
    # The largest sigma that the sentence names is accepted.
    superresolve(scene, method="detail_injection", bands=["B05"], degradation="sigma=1.37").compute(scheduler="sync")
    with pytest.raises(MethodError, match=r"cannot sharpen by a factor of 3\. Use 2 \(20 m\) or 6 \(60 m bands\)"):
        DetailInjection(factor=3)


@pytest.mark.parametrize("chunk", [None, 60])
def test_the_widest_blur_leaves_no_seam(monkeypatch, chunk):
    monkeypatch.setattr("eosr.sharpen.tiling.MIN_HALOS", 1)
    scene = synthetic_scene(21, 25, level="L2A", platform="sentinel-2b")
    how = {"method": "detail_injection", "bands": ["B11"], "degradation": "mtf", "dtype": "float32"}
    lazy = superresolve(chunked(scene, chunk), **how)["B11"]
    fine = np.stack([scene[name].values for name in GUIDES]).astype(np.float32)
    coarse = scene["B11"].values[None].astype(np.float32)
    sigma = blur_sigma("B11", 2, "mtf", "sentinel-2b")
    expected = sharpen_whole(
        DetailInjection(factor=2, targets=("B11",)), whole_scene_tile(fine, None, coarse, (sigma,))
    )
    np.testing.assert_allclose(lazy.compute(scheduler="sync").values, expected[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 6])
def test_guides_without_details_leave_the_interpolation(factor):
    # 1234.56 and the others are no sums of powers of two: blurred and interpolated they are themselves to rounding
    # only, and a regression on that rounding would find weights of any size.
    rng = np.random.default_rng(3)
    coarse = rng.uniform(500, 3000, (1, 24, 24)).astype(np.float32)
    fine = np.empty((4, 24 * factor, 24 * factor), np.float32)
    fine[:] = np.array([1234.56, 777.7, 0.1, 2999.9])[:, None, None]
    method = DetailInjection(factor=factor, targets=("B05",))
    tile = whole_scene_tile(fine, None, coarse, (1 / factor,))
    weights = method.solve(0, method.count(0, with_halo(tile, method.passes[0], factor), ()))
    assert np.abs(weights).max() < 0.1
    np.testing.assert_allclose(sharpen_whole(method, tile), bicubic_tile(coarse, factor), rtol=0, atol=1e-2)


def test_two_equal_guides_share_one_weight():
    fine = guides(6, 7)
    fine[1] = fine[0]
    fine[2:] = 100.0
    band = degraded(0.8 * fine[0], 2, 0.5)
    method = DetailInjection(factor=2, targets=("B05",))
    tile = with_halo(whole_scene_tile(fine, None, band[None], (0.5,)), method.passes[0], 2)
    weights = method.solve(0, method.count(0, tile, ()))
    np.testing.assert_allclose(weights, [[0.4, 0.4, 0, 0]], atol=1e-6)


def test_a_scene_without_a_measured_pixel_gets_no_weights_and_no_nan():
    fine = guides(6, 7)
    tile = whole_scene_tile(fine, None, fine[:1, ::2, ::2], (0.5,), measured=np.zeros((18, 21), bool))
    np.testing.assert_array_equal(
        sharpen_whole(DetailInjection(factor=2, targets=("B05",)), tile),
        bicubic_tile(tile.coarse, 2).astype(np.float32),
    )


def test_bands_without_a_name_are_those_of_the_group():
    assert DetailInjection(factor=2).delivers == BANDS_20M
    assert DetailInjection(factor=6).delivers == BANDS_60M
    assert DetailInjection(factor=2, targets=("B12",)).delivers == ("B12",)
