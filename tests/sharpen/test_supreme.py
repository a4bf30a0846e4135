"""SupReME: the data step and its residual, the phase of the operator, the subspace, tiles, and what it recovers."""

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.windows import from_bounds
from scipy.fft import idctn
from scipy.sparse.linalg import LinearOperator, cg

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.consistency import project_tile
from eosr.cube.degradation import degrade_tile, kernel_taps, radius_of
from eosr.cube.grid import from_arrays
from eosr.errors import BandError, MethodError
from eosr.open.sample import sample_folder
from eosr.score.evaluation import evaluate
from eosr.sharpen.classical.bicubic import bicubic_tile
from eosr.sharpen.classical.detail_injection import DetailInjection
from eosr.sharpen.classical.passes import sharpen_whole, whole_scene_tile, with_halo
from eosr.sharpen.classical.supreme import (
    DIMENSION,
    EDGE_QUANTILE,
    FAINT,
    GRADIENTS,
    LEAST_WEIGHT,
    REGULARISATION,
    SMOOTHING,
    Supreme,
    published_taps,
)
from eosr.sharpen.classical.supreme_solver import Measured, Sight, cosines, minimise, solve_as_published, solve_exactly
from eosr.train.data.scenes import SAMPLE_WINDOW, VALIDATION_BLOCK, sample_scene

RNG = np.random.default_rng(5)
OPERATORS = [(2, 0.0), (2, 0.5), (2, 1.1), (6, 1 / 6), (6, 3.1), (3, 0.8)]


def degraded(image, factor, sigma):
    taps = kernel_taps(factor, sigma)
    rim = radius_of(taps, factor)
    return degrade_tile(np.pad(image, [(0, 0), (rim, rim), (rim, rim)], mode="symmetric"), taps, factor)


def natural(bands, height, width, *, shared=2, seed=3):
    """Bands that share a few images with edges; digital numbers."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(shared):
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) + 0.02
        smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency**1.5).real
        images.append(smooth / smooth.std() + 2 * (smooth > 0.5 * smooth.std()))
    return 2500 + 300 * np.tensordot(rng.normal(size=(bands, shared)), np.stack(images), 1)


def scene(factor, height=48, width=72, *, operator=None, middle=False, shared=2):
    """Truth (bands delivered) and the tile that was seen of it."""
    truth = natural(12 if middle else 6 if factor == 6 else 10, height, width, shared=shared)
    coarse = truth[4:] if not middle else truth[10:]
    width_of = {2: 0.5, 6: 1 / 6} if operator is None else operator
    seen = degraded(coarse, factor, width_of[factor])
    between = degraded(truth[4:10], 2, width_of[2]) if middle else None
    sigma = (*[width_of[2]] * (6 if middle else 0), *[width_of[factor]] * len(coarse))
    return truth[4:], whole_scene_tile(truth[:4], between, seen, sigma)


def parameters(method, tile):
    found = ()
    for index, halo in enumerate(method.passes):
        padded = with_halo(tile, halo, method.factor)
        found = (*found, method.solve(index, method.count(index, padded, found)))
    return found


def rmse(estimate, truth):
    return np.sqrt(np.mean((estimate - truth) ** 2))


@pytest.mark.parametrize(("factor", "sigma"), OPERATORS)
def test_the_measurement_in_cosines_is_that_of_degrade_to_rounding(factor, sigma):
    image = RNG.normal(size=(1, factor * 12, factor * 10))
    sight = Sight(factor=factor, shape=image.shape[1:], taps=(kernel_taps(factor, sigma),), dtype=np.float64)
    np.testing.assert_allclose(sight.look(cosines(image)), cosines(degraded(image, factor, sigma)), atol=1e-12)


@pytest.mark.parametrize(("factor", "sigma"), OPERATORS)
def test_spread_is_the_transpose_of_look_and_gram_their_product(factor, sigma):
    sight = Sight(factor=factor, shape=(factor * 8, factor * 6), taps=(kernel_taps(factor, sigma),), dtype=np.float64)
    fine, coarse = RNG.normal(size=(1, factor * 8, factor * 6)), RNG.normal(size=(1, 8, 6))
    assert np.sum(sight.look(fine) * coarse) == pytest.approx(np.sum(fine * sight.spread(coarse)), rel=1e-12)
    np.testing.assert_allclose(sight.look(sight.spread(coarse)), sight.gram * coarse, atol=1e-12)


def residual(sight, v, nu, values, penalty):
    """Relative residual of ``(A^T A + mu) v = A^T y + mu nu``."""
    right = sight.spread(values) + penalty * nu
    return np.linalg.norm(sight.spread(sight.look(v)) + penalty * v - right) / np.linalg.norm(right)


@pytest.mark.parametrize(("factor", "sigma"), OPERATORS)
def test_the_exact_data_step_leaves_no_residual_and_the_published_one_does(factor, sigma):
    truth = natural(2, 72, 72)
    taps = (kernel_taps(factor, sigma), kernel_taps(factor, sigma))
    sight = Sight(factor=factor, shape=(72, 72), taps=taps, dtype=np.float64)
    values, nu = cosines(degraded(truth, factor, sigma)), cosines(truth + RNG.normal(0, 50, truth.shape))
    assert residual(sight, solve_exactly(sight, nu, values, 0.2), nu, values, 0.2) < 1e-10
    assert residual(sight, solve_as_published(sight, nu, values, 0.2), nu, values, 0.2) > 1e-5


def test_the_published_step_is_pointwise_in_the_fourier_domain_of_the_mirrored_scene():
    # Second implementation: the FFT of the scene beside its mirror image, the formula as it is published:
    # v = c/mu - IFFT[|F|^2 tile(1 / (d^2 + fold|F|^2 / mu)) FFT c] / mu^2 with c = B^T M^T y + mu nu.
    factor, sigma, mu, height, width = 2, 0.9, 0.2, 24, 20
    taps = kernel_taps(factor, sigma)
    nu, values = RNG.normal(size=(1, height, width)), RNG.normal(size=(1, height // 2, width // 2))
    sight = Sight(factor=factor, shape=(height, width), taps=(taps,), dtype=np.float64)
    mine = solve_as_published(sight, cosines(nu), cosines(values), mu)
    spread = sight.spread(cosines(values))
    known = np.fft.fft2(mirrored(inverse(spread + mu * cosines(nu))[0]))
    kernel = np.zeros((2 * height, 2 * width))
    kernel[: len(taps), : len(taps)] = np.outer(taps, taps)
    power = np.abs(np.fft.fft2(kernel)) ** 2
    fold = power.reshape(2, height, 2, width).sum(axis=(0, 2))
    divided = np.tile(1 / (factor**2 + fold / mu), (2, 2))
    theirs = np.fft.ifft2(known / mu - power * divided * known / mu**2).real[:height, :width]
    np.testing.assert_allclose(inverse(mine)[0], theirs, atol=1e-10)


def mirrored(image):
    image = np.concatenate([image, image[::-1]])
    return np.concatenate([image, image[:, ::-1]], axis=1)


def inverse(spectrum):
    return idctn(spectrum, axes=(-2, -1), norm="ortho")


@pytest.mark.parametrize(("band", "factor", "mtf"), [("B05", 2, 0.38), ("B11", 2, 0.22), ("B09", 6, 0.26)])
def test_the_published_kernels_are_gaussians_of_the_mtf_centred_on_the_coarse_pixel(band, factor, mtf):
    taps = published_taps(band, factor)
    assert len(taps) == 12
    assert taps.sum() == pytest.approx(1)
    np.testing.assert_allclose(taps, taps[::-1])
    # Neighbours at 0.5 and 1.5 fine pixels: exp((1.5^2 - 0.5^2) / (2 sd^2)) = exp(1 / sd^2), and
    # sd = d sqrt(-2 ln m) / pi.
    assert np.log(taps[5] / taps[4]) == pytest.approx(np.pi**2 / (-2 * factor**2 * np.log(mtf)))
    image = RNG.normal(size=(1, factor * 12, factor * 10))
    rim = radius_of(taps, factor)
    # Rows -5 .. 6 for a factor of 2 and -3 .. 8 for 6, around the first pixel of each coarse one.
    assert rim == {2: 5, 6: 3}[factor]
    seen = degrade_tile(np.pad(image, [(0, 0), (rim, rim), (rim, rim)], mode="symmetric"), taps, factor)
    sight = Sight(factor=factor, shape=image.shape[1:], taps=(taps,), dtype=np.float64)
    np.testing.assert_allclose(sight.look(cosines(image)), cosines(seen), atol=1e-12)


def test_admm_ends_at_the_minimum_that_conjugate_gradients_find_with_spatial_operators():
    bands, factor, sigma, height, width = 3, 2, 0.5, 12, 16
    loadings = np.linalg.qr(RNG.normal(size=(bands, bands)))[0][:, :2]
    fine, seen = RNG.normal(size=(2, height, width)), RNG.normal(size=(1, height // 2, width // 2))
    strength = RNG.uniform(0.05, 0.3, (2, height, width))
    one = Sight(factor=1, shape=(height, width), taps=(np.ones(1),) * 2, dtype=np.float64)
    two = Sight(factor=factor, shape=(height, width), taps=(kernel_taps(factor, sigma),), dtype=np.float64)
    groups = [
        Measured(sight=one, loadings=loadings[:2], values=fine),
        Measured(sight=two, loadings=loadings[2:], values=seen),
    ]
    found = minimise(groups, np.zeros((2, height, width)), strength, penalty=0.2, iterations=400, exact=True)

    # A as a matrix, column by column, by the spatial degradation.
    unit = np.eye(height * width).reshape(-1, height, width)
    matrix = degraded(unit, factor, sigma).reshape(height * width, -1).T

    def normal(z):
        z = z.reshape(2, -1)
        answer = loadings[:2].T @ (loadings[:2] @ z) + loadings[2:].T @ (matrix.T @ (matrix @ (loadings[2:] @ z).T)).T
        images = z.reshape(2, height, width)
        rough = np.zeros_like(images)
        for axis in (1, 2):
            for i, j in pairs(height, width, axis):
                step = strength[(slice(None), *i)] * (images[(slice(None), *j)] - images[(slice(None), *i)])
                rough[(slice(None), *j)] += step
                rough[(slice(None), *i)] -= step
        return (answer + rough.reshape(2, -1)).ravel()

    right = loadings[:2].T @ fine.reshape(2, -1) + loadings[2:].T @ (matrix.T @ seen.reshape(-1))[None]
    best, failed = cg(LinearOperator((right.size,) * 2, normal, dtype=float), right.ravel(), rtol=1e-12)
    assert not failed
    np.testing.assert_allclose(found, best.reshape(found.shape), atol=1e-6)


def pairs(height, width, axis):
    """Each pixel and the next one along an axis."""
    for row, column in itertools.product(range(height - (axis == 1)), range(width - (axis == 2))):
        yield (row, column), (row + (axis == 1), column + (axis == 2))


@pytest.mark.parametrize(("factor", "middle"), [(2, ()), (6, BANDS_20M)])
def test_the_answer_degrades_to_the_measurement_and_moved_by_one_pixel_it_does_not(factor, middle):
    _, tile = scene(factor, middle=bool(middle))
    sharp = sharpen_whole(Supreme(factor=factor, middle=middle, dimension=3, iterations=40), tile)[-len(tile.coarse) :]

    def forward(image):
        return rmse(degraded(image, factor, tile.sigma[-1]), tile.coarse)

    for shift, axis in itertools.product((-1, 1), (1, 2)):
        assert forward(np.roll(sharp, shift, axis)) > 2.5 * forward(sharp)


def test_blur_of_the_fine_bands_is_undone_once_it_is_known():
    truth, tile = scene(2)
    taps = kernel_taps(1, 0.6)
    rim = radius_of(taps, 1)
    soft = degrade_tile(np.pad(tile.fine, [(0, 0), (rim, rim), (rim, rim)], mode="symmetric"), taps, 1)
    score = {
        sigma: rmse(
            sharpen_whole(Supreme(factor=2, dimension=3, fine_sigma=sigma, iterations=40), replace(tile, fine=soft)),
            truth,
        )
        for sigma in (0.0, 0.6)
    }
    assert score[0.6] < 0.8 * score[0.0]


def test_every_band_is_seen_through_its_own_blur():
    truth, tile = scene(2)
    blurs = (0.0, 0.0, 0.5, 0.5, 1.1, 1.1)
    coarse = np.concatenate([degraded(t[None], 2, sigma) for t, sigma in zip(truth, blurs, strict=True)])
    method = Supreme(factor=2, dimension=3, iterations=40)

    def score(sigma):
        return rmse(sharpen_whole(method, replace(tile, coarse=coarse, sigma=sigma)), truth)

    assert score(blurs) < 0.9 * min(score((sigma,) * 6) for sigma in (0.0, 0.5, 1.1))


@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (-1, 0)])
def test_fine_bands_that_lie_one_pixel_off_make_the_answer_worse(shift):
    truth, tile = scene(2)
    off = replace(tile, fine=np.roll(tile.fine, shift, (1, 2)))
    inner = (slice(None), slice(6, -6), slice(6, -6))
    right, wrong = (sharpen_whole(Supreme(factor=2, dimension=3, iterations=40), t)[inner] for t in (tile, off))
    assert rmse(wrong, truth[inner]) > 1.5 * rmse(right, truth[inner])


@pytest.mark.parametrize(("factor", "middle"), [(2, ()), (6, BANDS_20M)])
@pytest.mark.parametrize("operator", [{2: 0.5, 6: 1 / 6}, {2: 0.0, 6: 0.0}, {2: 1.0, 6: 2.9}])
def test_bands_that_share_few_images_are_recovered_far_better_than_by_interpolation(factor, middle, operator):
    truth, tile = scene(factor, operator=operator, middle=bool(middle))
    sharp = sharpen_whole(Supreme(factor=factor, middle=middle, dimension=3, iterations=40, fine_sigma=0.0), tile)
    assert sharp.shape == truth.shape
    targets = slice(-len(tile.coarse), None)
    assert rmse(sharp[targets], truth[targets]) < 0.3 * rmse(bicubic_tile(tile.coarse, factor), truth[targets])


def test_the_exact_step_beats_the_published_one_and_the_matched_blur_the_published_kernels():
    truth, tile = scene(2)
    options = {"exact": {}, "published": {"update": "published"}, "both": {"update": "published", "psf": "mtf"}}
    score = {
        name: rmse(sharpen_whole(Supreme(factor=2, iterations=25, fine_sigma=0.0, **how), tile), truth)
        for name, how in options.items()
    }
    assert score["exact"] < 0.7 * min(score["published"], score["both"])


@pytest.fixture(scope="module")
def real_block():
    """The middle of the block that is kept out of training, 20 m bands seen at 40 m: 108 x 108 pixels of truth."""
    folder = sample_folder()
    west, _, _, north = SAMPLE_WINDOW
    west, north = west + 10 * 540, north - 10 * (VALIDATION_BLOCK[0].start + 216)

    def read(names):
        bands = []
        for name in names:
            with rasterio.open(folder / f"s2_{name}.jp2") as file:
                window = from_bounds(west, north - 2160, west + 2160, north, file.transform)
                bands.append(file.read(1, window=window).astype(np.float64))
        return np.stack(bands)

    truth = read(BANDS_20M)
    return truth, whole_scene_tile(degraded(read(BANDS_10M), 2, 0.5), None, degraded(truth, 2, 0.5), (0.5,) * 6)


def test_after_projection_it_beats_detail_injection_on_a_real_scene(real_block):
    truth, tile = real_block

    def projected(method):
        triples = zip(sharpen_whole(method, tile), tile.coarse, tile.sigma, strict=True)
        return rmse(np.stack([project_tile(s, y, 2, sigma) for s, y, sigma in triples]), truth)

    exact = projected(Supreme(factor=2, dimension=5, iterations=40))
    assert exact < 0.5 * rmse(bicubic_tile(tile.coarse, 2), truth)
    assert exact < projected(DetailInjection(factor=2))


def parts(tile, method, halo, size):
    """Cut a scene into tiles with halo; each fine pixel is owned by one."""
    whole = with_halo(tile, halo, method.factor)
    height, width = tile.fine.shape[1:]

    def cut(bands, scale, row, column):
        rows, columns = min(size, height - row), min(size, width - column)
        return bands[
            ...,
            row // scale : (row + rows + 2 * halo) // scale,
            column // scale : (column + columns + 2 * halo) // scale,
        ]

    for row, column in itertools.product(range(0, height, size), range(0, width, size)):
        own = cut(whole.own, method.factor, row, column).copy()
        rim = halo // method.factor
        outside = np.ones(own.shape, bool)
        outside[rim : own.shape[0] - rim, rim : own.shape[1] - rim] = False
        own[outside] = False
        yield row, column, replace(
            whole, fine=cut(whole.fine, 1, row, column), coarse=cut(whole.coarse, method.factor, row, column), own=own,
            middle=None if whole.middle is None else cut(whole.middle, 2, row, column),
            scene=cut(whole.scene, method.factor, row, column),
        )  # fmt: skip


@pytest.mark.parametrize(("factor", "middle"), [(2, ()), (6, BANDS_20M)])
def test_the_sums_of_tiles_are_the_sums_of_the_scene(factor, middle):
    method = Supreme(factor=factor, middle=middle)
    _, tile = scene(factor, middle=bool(middle))
    found = ()
    for index, reach in enumerate(method.passes):
        halo = -(-reach // 6) * 6
        whole = method.count(index, with_halo(tile, halo, factor), found)
        summed = [method.count(index, part, found) for _, _, part in parts(tile, method, halo, 36)]
        for name, value in whole.items():
            np.testing.assert_allclose(sum(part[name] for part in summed), value, rtol=1e-10)
        found = (*found, method.solve(index, whole))


def test_tiles_with_halo_give_the_scene_but_for_a_seam_below_a_digital_number():
    method = Supreme(factor=2, dimension=5, iterations=40)
    _, tile = scene(2, 72, 96)
    found = parameters(method, tile)
    whole = sharpen_whole(method, tile)
    halo = -(-method.reach // 6) * 6
    for row, column, part in parts(tile, method, halo, 48):
        sharp = method.sharpen(part, found)[:, halo:-halo, halo:-halo]
        difference = sharp - whole[:, row : row + 48, column : column + 48]
        assert np.abs(difference).max() < 1.0


def test_pixels_in_gaps_are_not_counted():
    method = Supreme(factor=2)
    _, tile = scene(2)
    hole = (slice(10, 20), slice(12, 30))
    there = tile.own.copy()
    there[hole] = False
    sums = method.count(0, replace(tile, own=there), ())
    squares = np.sum(tile.coarse[0][there] ** 2) * 4
    assert sums["pixels"] == 4 * there.sum()
    assert sums["squares"][4] == pytest.approx(squares)
    # Loud nonsense far inside the hole, out of reach of the blur, changes no second moment.
    loud = tile.fine.copy()
    loud[:, 28:34, 36:48] = 1e5
    other = method.count(0, replace(tile, own=there, fine=loud), ())
    np.testing.assert_allclose(other["gram"], sums["gram"], rtol=1e-5)


@pytest.mark.parametrize(("prior", "images"), [("scene", 8), ("published", 7)])
def test_norm_subspace_and_edge_are_what_numpy_finds_on_the_whole_scene(prior, images):
    method = Supreme(factor=2, psf="mtf", prior=prior)
    _, tile = scene(2, 48, 60)
    subspace, edge = parameters(method, tile)
    np.testing.assert_allclose(subspace.norm[:4], np.sqrt((tile.fine**2).mean((1, 2))), rtol=1e-6)
    np.testing.assert_allclose(subspace.norm[4:], np.sqrt((tile.coarse**2).mean((1, 2))), rtol=1e-6)
    means = np.concatenate([tile.fine.mean((1, 2)), tile.coarse.mean((1, 2))])
    np.testing.assert_allclose(subspace.mean, means if prior == "scene" else 0, rtol=1e-6)
    np.testing.assert_allclose(subspace.loadings.T @ subspace.loadings, np.eye(images), atol=1e-12)
    scaled = tile.fine / subspace.norm[:4, None, None]
    steps = np.pad(scaled, ((0, 0), (0, 1), (0, 1)), mode="edge")
    down, right = steps[:, 1:, :-1] - scaled, steps[:, :-1, 1:] - scaled
    expected = np.quantile(np.hypot(down, right).max(0), EDGE_QUANTILE[prior])
    assert edge == pytest.approx(expected, rel=0.03)
    assert GRADIENTS[1] / GRADIENTS[0] == pytest.approx(1.01, abs=1e-3)


def test_prior_of_the_scene_is_the_covariance_of_its_differences_one_scale_down():
    # Without blur (box) bands at equal blur are the coarse bands beside the means of 2 x 2 fine pixels.
    _, tile = scene(2, 48, 60, operator={2: 0.0})
    method = Supreme(factor=2, fine_sigma=0.0, dimension=10)
    subspace, _ = parameters(method, tile)
    fine = tile.fine.reshape(4, 24, 2, 30, 2).mean((2, 4))
    scaled = np.concatenate([fine, tile.coarse]) / subspace.norm[:, None, None]
    steps = np.concatenate([np.diff(scaled, axis=axis).reshape(10, -1) for axis in (1, 2)], axis=1)
    variances = np.linalg.svd(steps, compute_uv=False) ** 2
    # Image j differs from pixel to pixel with variance v_j, and no two images differ together.
    images = subspace.loadings.T @ steps
    np.testing.assert_allclose((images**2).sum(1), variances, rtol=1e-6, atol=1e-6 * variances[0])
    expected = np.maximum(variances / variances[0], FAINT) ** -0.6
    np.testing.assert_allclose(subspace.smoothing, expected, rtol=1e-4)
    published = parameters(Supreme(factor=2, prior="published"), tile)[0]
    assert published.smoothing.tolist() == list(SMOOTHING)


def test_level_of_a_band_does_not_change_its_detail():
    # Differences know no level, so it must not be lost with what lies outside the subspace.
    _, tile = scene(2, 48, 60)
    brighter = tile.coarse.copy()
    brighter[3] += 1000
    methods = Supreme(factor=2, dimension=3)
    before, after = (sharpen_whole(methods, replace(tile, coarse=coarse)) for coarse in (tile.coarse, brighter))
    # The level enters the norm of the band, which weighs it a little differently.
    assert np.abs(after[3] - before[3] - 1000).max() < 30
    assert abs((after[3] - before[3]).mean() - 1000) < 1


@pytest.mark.parametrize("prior", ["scene", "published"])
def test_the_subspace_holds_bands_that_share_few_images(prior):
    # 10 bands of 2 images and a mean lie in three dimensions: nothing of them is left outside the first three.
    method = Supreme(factor=2, dimension=3, prior=prior)
    truth, tile = scene(2)
    subspace, _ = parameters(method, tile)
    scaled = np.concatenate([tile.fine, truth])[:, ::2, ::2].reshape(10, -1)
    scaled = (scaled - subspace.mean[:, None]) / subspace.norm[:, None]
    outside = scaled - subspace.loadings @ (subspace.loadings.T @ scaled)
    assert np.linalg.norm(outside) < 0.02 * np.linalg.norm(scaled)


def test_sixty_metre_bands_alone_and_beside_the_middle_ones_come_in_order():
    _, tile = scene(6, middle=True)
    beside = Supreme(factor=6, middle=BANDS_20M, iterations=5)
    alone = Supreme(factor=6, iterations=5)
    assert beside.delivers == (*BANDS_20M, *BANDS_60M)
    assert alone.delivers == BANDS_60M
    assert sharpen_whole(beside, tile).shape == (8, *tile.fine.shape[1:])
    without = replace(tile, middle=None, sigma=tile.sigma[6:])
    assert sharpen_whole(alone, without).shape == (2, *tile.fine.shape[1:])


def test_a_constant_scene_stays_constant():
    tile = whole_scene_tile(np.full((4, 36, 36), 800.0), None, np.full((6, 18, 18), 1200.0), (0.5,) * 6)
    np.testing.assert_allclose(sharpen_whole(Supreme(factor=2), tile), 1200.0, rtol=1e-4)


def test_a_band_that_is_zero_everywhere_stays_zero():
    _, tile = scene(2, 36, 36)
    tile.coarse[2] = 0
    sharp = sharpen_whole(Supreme(factor=2, iterations=20), tile)
    assert np.isfinite(sharp).all()
    assert np.abs(sharp[2]).max() < 5


def test_sides_with_large_prime_factors_are_continued_not_cropped():
    _, tile = scene(2, 74, 94)
    sharp = sharpen_whole(Supreme(factor=2, iterations=20), tile)
    assert sharp.shape == (6, 74, 94)


def test_the_published_figures_are_kept_by_name_and_a_method_travels_in_a_graph():
    method = Supreme(factor=2, prior="published")
    assert (DIMENSION["published"], REGULARISATION["published"]) == (7, 0.005)
    assert (method.penalty, method.iterations) == (0.2, 100)
    _, tile = scene(2)
    for prior, given in (("published", (7, 0.005)), ("scene", (8, 0.002))):
        by_default = Supreme(factor=2, prior=prior, iterations=3)
        told = replace(by_default, dimension=given[0], regularisation=given[1])
        np.testing.assert_array_equal(sharpen_whole(by_default, tile), sharpen_whole(told, tile))
    assert SMOOTHING == (1, 1.5, 4, 8, 15, 15, 20)
    assert (EDGE_QUANTILE["published"], LEAST_WEIGHT["published"]) == (0.95, 0.5)
    assert pickle.loads(pickle.dumps(method)) == method


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"factor": 3}, "factor=3 is none of supreme's. Use 2 for the 20 m bands, 6 for the 60 m."),
        ({"update": "fast"}, "update='fast' is no option of supreme. Use one of 'exact', 'published'."),
        ({"psf": "box"}, "psf='box' is no option of supreme. Use one of 'matched', 'mtf'."),
        ({"prior": "flat"}, "prior='flat' is no option of supreme. Use one of 'scene', 'published'."),
        (
            {"dimension": 0},
            "dimension=0 of supreme counts things. Use a whole number from 1 to 12, the number of bands.",
        ),
        ({"dimension": 99}, "dimension=99 of supreme counts things. Use a whole number from 1 to 12"),
        ({"dimension": True}, "dimension=True of supreme counts things."),
        ({"penalty": "abc"}, "penalty='abc' of supreme must be a number, positive. Leave it out for the default."),
        ({"fine_sigma": "x"}, "fine_sigma='x' of supreme must be a number, positive or zero."),
        ({"iterations": 2.5}, "iterations=2.5 of supreme counts things."),
        ({"penalty": 0.0}, "penalty=0.0 of supreme must be a number, positive."),
        ({"regularisation": -1.0}, "regularisation=-1.0 of supreme must be a number, positive or zero."),
        ({"fine_sigma": float("nan")}, "fine_sigma=nan of supreme must be a number, positive or zero."),
        ({"targets": ("B01",)}, "supreme at factor=2 cannot have B01 in targets. Use targets=('B05', 'B06',"),
        ({"middle": ("B05",)}, "supreme at factor=2 cannot have B05 in middle. Use middle=()."),
    ],
)
def test_options_without_meaning_are_refused(options, text):
    with pytest.raises(MethodError) as caught:
        Supreme(**{"factor": 2, **options})
    assert text in str(caught.value)


def test_unknown_bands_and_missing_bands_and_scenes_of_gaps_are_refused():
    with pytest.raises(BandError, match="'B20' is not a band of Sentinel-2"):
        Supreme(factor=2, targets=("B20",))
    _, tile = scene(6)
    with pytest.raises(MethodError, match=r"no 20 m bands .* Use middle=\(\)\."):
        sharpen_whole(Supreme(factor=6, middle=BANDS_20M), tile)
    with pytest.raises(MethodError, match="no measured pixel"):
        sharpen_whole(Supreme(factor=6), replace(tile, own=np.zeros_like(tile.own)))


@pytest.mark.parametrize("operator", ["study", pytest.param("mtf", marks=pytest.mark.long)])
def test_on_kept_out_pixels_it_is_the_strongest_method_without_weights(operator):
    block = next(one for one in sample_scene(sample_folder()) if one.kept_out)
    parts = [(BANDS_10M, block.fine, 324), (BANDS_20M, block.middle, 162), (BANDS_60M, block.coarse, 54)]
    bands = {name: band[:rows] for names, group, rows in parts for name, band in zip(names, group, strict=True)}
    scene = from_arrays(
        {name: image.astype(np.uint16) for name, image in bands.items()}, transform=(10, 0, 600000, 0, -10, 5000040),
        crs=32632, level="L1C",
    )  # fmt: skip
    others = ["detail_injection", "atprk", "superres_like"]
    table = evaluate(scene, [*others, "supreme"], degradation=operator, small="mirror", border=0)
    found = table.summary_overall.sel(metric="rmse", average="mean", projection="after").squeeze()
    for gsd in (20, 60):
        ranked = found.sel(gsd=gsd)
        assert all(ranked.loc[{"method": "supreme"}] < ranked.loc[{"method": name}] for name in ["bicubic", *others])
