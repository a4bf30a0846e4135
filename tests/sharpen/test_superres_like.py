"""Shared values and geometry: the two exact properties, a brute-force fit, locality, and what is refused."""

import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.errors import MethodError
from eosr.sharpen.classical import superres_like
from eosr.sharpen.classical.bicubic import bicubic_tile
from eosr.sharpen.classical.passes import sharpen_whole, whole_scene_tile
from eosr.sharpen.classical.shared_values import (
    block_weights,
    fit_geometry,
    fit_weights,
    mixed,
    on_corners,
    refined,
    shared_residual,
)
from eosr.sharpen.classical.superres_like import SuperresLike

METHODS = [SuperresLike(factor=2), SuperresLike(factor=6), SuperresLike(factor=6, through_20m=True)]
WAYS = ["20m", "60m", "60m through 20m"]


def box(fine, factor):
    """The second implementation of the box mean: block by block."""
    rows, columns = (size // factor for size in fine.shape[-2:])
    blocks = [
        fine[..., r * factor : (r + 1) * factor, c * factor : (c + 1) * factor].mean(axis=(-2, -1))
        for r, c in product(range(rows), range(columns))
    ]
    return np.stack(blocks, axis=-1).reshape(*fine.shape[:-2], rows, columns)


def noise(*shape, seed=0):
    """The hardest scene: neighbours have nothing in common, and most pixels lie outside the hull of their corners."""
    return np.random.default_rng(seed).uniform(1, 9000, shape)


def noise_tile(method, rows=36, columns=48, seed=0):
    middle = noise(6, rows // 2, columns // 2, seed=seed + 2) if method.factor == 6 else None
    coarse = noise(2, rows // method.factor, columns // method.factor, seed=seed + 1)
    return whole_scene_tile(noise(4, rows, columns, seed=seed), middle, coarse, (0.0, 0.0))


def uniform_weights(*shape):
    weights = np.random.default_rng(4).exponential(size=(4, *shape))
    return weights / weights.sum(axis=0)


@pytest.mark.parametrize("method", METHODS, ids=WAYS)
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_the_mean_over_every_coarse_pixel_is_the_measurement(method, kind):
    tile = noise_tile(method)
    tile = replace(tile, fine=tile.fine.astype(kind), coarse=tile.coarse.astype(kind))
    answer = sharpen_whole(method, tile)
    assert answer.dtype == kind
    assert answer.shape == (2, 36, 48)
    # Rounding of a mean over 36 numbers of 1e4: a few 1e4 * eps, with edges and corners of the scene included.
    np.testing.assert_allclose(box(answer, method.factor), tile.coarse, rtol=0, atol=1e5 * np.finfo(kind).eps)


@pytest.mark.parametrize("method", METHODS, ids=WAYS)
@pytest.mark.parametrize(("kind", "rounding"), [(np.float64, 1e-8), (np.float32, 0.05)])
def test_multiples_of_one_10_m_band_are_recovered_exactly(method, kind, rounding):
    # Of 27000 DN; variances of guides that are multiples are divided by their ridge of 0.01, so a few hundred eps.
    band = noise(24, 30, seed=9)
    fine = np.stack([share * band for share in (1.0, 0.3, 2.0, 0.01)]).astype(kind)
    truth = np.stack([0.7 * band, 3.0 * band])
    middle = np.stack([share * box(band, 2) for share in (1, 2, 0.1, 0.4, 5, 6)]).astype(kind)
    tile = whole_scene_tile(fine, middle, box(truth, method.factor).astype(kind), (0.0, 0.0))
    answer = sharpen_whole(method, tile)
    np.testing.assert_allclose(answer, truth, rtol=0, atol=rounding)
    # Interpolation, or the block means alone, are nowhere near.
    assert np.abs(bicubic_tile(tile.coarse, method.factor) - truth).mean() > 1000


@pytest.mark.parametrize("method", METHODS, ids=WAYS)
def test_the_answer_does_not_depend_on_the_tiling(method):
    tile = noise_tile(method, 42, 36)
    whole = sharpen_whole(method, tile)
    halo = -(-method.reach // 6) * 6

    def cut(bands, scale, rows, columns):
        wide = np.pad(bands, ((0, 0), (halo // scale,) * 2, (halo // scale,) * 2), mode="symmetric")
        size = 2 * halo
        return wide[:, rows.start // scale : (rows.stop + size) // scale,
                    columns.start // scale : (columns.stop + size) // scale]  # fmt: skip

    for rows, columns in product((slice(0, 18), slice(18, 42)), (slice(0, 30), slice(30, 36))):
        parts = {"fine": cut(tile.fine, 1, rows, columns), "coarse": cut(tile.coarse, method.factor, rows, columns)}
        if tile.middle is not None:
            parts["middle"] = cut(tile.middle, 2, rows, columns)
        part = method.sharpen(replace(tile, **parts), ())[:, halo:-halo, halo:-halo]
        np.testing.assert_allclose(part, whole[:, rows, columns], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "method",
    [*METHODS[:2], SuperresLike(factor=2, rounds=3, updates=4), SuperresLike(factor=2, refinements=3, window=2)],
    ids=["20m", "60m", "geometry", "refinements"],
)
def test_reach_is_as_far_as_a_pixel_is_seen_and_no_further(method):
    size = (2 * method.reach // 6 + 3) * 6
    tile = noise_tile(method, size, 24)
    before = method.sharpen(tile, ())
    seen = 0
    for column in range(6):
        fine = tile.fine.copy()
        fine[:, size // 2 + column % method.factor, 12 + column] += 500
        rows = np.nonzero(np.abs(method.sharpen(replace(tile, fine=fine), ()) - before).max(axis=(0, 2)) > 1e-9)[0]
        seen = max(seen, *np.abs(rows - (size // 2 + column % method.factor)))
    coarse = tile.coarse.copy()
    coarse[:, size // 2 // method.factor] += 500
    rows = np.nonzero(np.abs(method.sharpen(replace(tile, coarse=coarse), ()) - before).max(axis=(0, 2)) > 1e-9)[0]
    top = size // 2 // method.factor * method.factor
    seen = max(seen, rows.max() - top, top + method.factor - 1 - rows.min())
    assert method.reach - 2 * method.factor <= seen <= method.reach


def test_reach_is_counted_by_hand():
    # Own block 1, one refinement over a block of 2, half a window of 3 blocks of 2, against a geometry of 1 + 2 * 3.
    assert SuperresLike(factor=2).reach == 1 + 2 + max(6, 7) == 10
    assert SuperresLike(factor=6).reach == 5 + 6 + max(18, 7) == 29
    # 20 m pixels count twice: 2 + 3 + max(9, 7) = 14 of them behind the 10 of the second half.
    assert SuperresLike(factor=6, through_20m=True).reach == 10 + 2 * 14


def test_weights_are_those_of_a_search_over_the_simplex():
    corners, bands = noise(4, 4, 5, seed=1), noise(4, 3, 4, seed=2)
    weights = np.full((4, 3, 4), 0.25)
    fit_weights(weights, corners, bands, sweeps=200)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-12)
    assert weights.min() >= -1e-12
    left = ((bands - mixed(weights, corners)) ** 2).sum(axis=0)
    steps = 16
    grid = [np.array(w) / steps for w in product(range(steps + 1), repeat=4) if sum(w) == steps]
    best = np.min([((bands - mixed(w[:, None, None], corners)) ** 2).sum(axis=0) for w in grid], axis=0)
    assert np.all(left <= best * (1 + 1e-9))  # no point of the grid is better


def test_each_step_of_the_fit_lowers_the_residual_and_stays_convex():
    bands = noise(4, 40, 40, seed=5)
    left = []
    for rounds in range(5):
        weights, corners = fit_geometry(bands, rounds, 2)
        np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-9)
        assert weights.min() >= -1e-9
        left.append(np.square(bands - mixed(weights, corners)).mean())
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.8 * left[0]


def test_corners_are_shared_by_the_pixels_around_them():
    pixels = np.array([[1.0, 2.0], [3.0, 10.0]])
    # The middle corner touches all four: 16 / 4; the upper middle one 1 and 2 twice each, the outer one only 1.
    np.testing.assert_array_equal(on_corners(pixels), [[1, 1.5, 2], [2, 4, 6], [3, 6.5, 10]])
    one = np.zeros((4, 2, 2))
    one[3, 0, 0] = one[0, 1, 1] = 1.0
    shared = np.zeros((3, 3))
    shared[1, 1] = 8.0
    np.testing.assert_array_equal(mixed(one, shared), [[8, 0], [0, 8]])
    # The mean residual of those two pixels, (4 + 6) / 2, up to the floor of 1e-3 on the two shares.
    assert shared_residual(one, np.array([[4.0, 9.0], [9.0, 6.0]]))[1, 1] == pytest.approx(10 / 2.001)


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_aggregated_weights_give_the_block_mean_of_the_mixture(factor):
    corners = noise(1, 5, 6, seed=7)
    weights = uniform_weights(4 * factor, 5 * factor)
    shares = block_weights(weights, factor)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-12)
    np.testing.assert_allclose(
        mixed(shares, corners), box(mixed(weights, refined(corners, factor)), factor), rtol=1e-12
    )
    rows, columns = np.mgrid[0:5, 0:6] * 1.0  # a plane stays a plane
    fine_rows, fine_columns = np.mgrid[0 : 4 * factor + 1, 0 : 5 * factor + 1] / factor
    np.testing.assert_allclose(refined(3 * rows - columns, factor), 3 * fine_rows - fine_columns, atol=1e-12)


def test_a_field_edge_stays_sharp_in_a_band_of_another_contrast():
    # Two fields with an edge inside a 20 m pixel; the coarse band is bright where red is dark.
    left = np.zeros((24, 24))
    left[:, :11] = 1.0
    fine = np.stack([400 + 100 * left, 600 + 200 * left, 500 + 900 * left, 3000 - 1500 * left])
    truth = (2500 - 1800 * left)[None]
    tile = whole_scene_tile(fine, None, box(truth, 2), (0.0,))
    inside = (slice(None), slice(6, -6), slice(6, -6))
    error = np.abs(sharpen_whole(SuperresLike(factor=2), tile) - truth)[inside].max()
    assert error < 0.1 * np.abs(bicubic_tile(tile.coarse, 2) - truth)[inside].max()


@pytest.mark.parametrize("method", METHODS, ids=WAYS)
def test_constant_guides_leave_a_smooth_answer_without_nan(method):
    tile = noise_tile(method)
    for level in (0.0, 5000.0):
        middle = None if tile.middle is None else np.full_like(tile.middle, level)
        flat = replace(tile, fine=np.full_like(tile.fine, level), middle=middle)
        answer = sharpen_whole(method, flat)
        assert np.isfinite(answer).all()
        assert tile.coarse.min() - 9000 < answer.min() < answer.max() < tile.coarse.max() + 9000


def test_each_band_is_sharpened_on_its_own_and_scales_with_its_unit():
    method = METHODS[0]
    tile = noise_tile(method)
    answer = sharpen_whole(method, tile)
    swapped = sharpen_whole(method, replace(tile, coarse=3 * tile.coarse[::-1]))
    np.testing.assert_allclose(swapped, 3 * answer[::-1], rtol=0, atol=1e-6)
    turned = sharpen_whole(
        method, replace(tile, **{name: getattr(tile, name)[:, ::-1, ::-1] for name in ("fine", "coarse")})
    )
    # The pairs of corners are visited in one order, so a turned scene is fitted a little differently.
    assert np.sqrt(np.mean((turned[:, ::-1, ::-1] - answer) ** 2)) < 0.1 * answer.std()


def test_it_needs_no_pass_over_the_scene_and_travels():
    method = pickle.loads(pickle.dumps(METHODS[1]))
    assert method == METHODS[1]
    assert method.passes == ()
    assert (METHODS[0].delivers, method.delivers) == (BANDS_20M, BANDS_60M)
    assert SuperresLike(factor=2, targets=("B05",)).delivers == ("B05",)


def test_nobody_takes_it_for_the_original():
    assert "NOT BRODU'S SUPERRES" in superres_like.__doc__
    assert "not the original" in SuperresLike.__doc__
    assert not hasattr(superres_like, "Superres")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"factor": 3}, "superres_like cannot sharpen by a factor of 3. Use factor=2 or factor=6."),
        ({"rounds": -1}, "superres_like got rounds=-1. Use a whole number from 0 on."),
        ({"updates": 0}, "superres_like got updates=0. Use a whole number from 1 on."),
        ({"refinements": 1.5}, "superres_like got refinements=1.5. Use a whole number from 0 on."),
        ({"rounds": True}, "superres_like got rounds=True. Use a whole number from 0 on."),
        ({"window": 5}, "superres_like got window=5, and a window around a corner has an even number of pixels. "
                        "Use window=6."),
        ({"ridge": 0.0}, "superres_like got ridge=0.0. Use a small positive share, e.g. ridge=0.01."),
        ({"ridge": float("nan")}, "superres_like got ridge=nan. Use a small positive share, e.g. ridge=0.01."),
        ({"ridge": "x"}, "superres_like got ridge='x'. Use a small positive share, e.g. ridge=0.01."),
        ({"ridge": None}, "superres_like got ridge=None. Use a small positive share, e.g. ridge=0.01."),
        ({"ridge": True}, "superres_like got ridge=True. Use a small positive share, e.g. ridge=0.01."),
        ({"ridge": 10**400}, f"superres_like got ridge={10**400}. Use a small positive share, e.g. ridge=0.01."),
        ({"rounds": "x"}, "superres_like got rounds='x'. Use a whole number from 0 on."),
        ({"window": None}, "superres_like got window=None. Use a whole number from 2 on."),
        ({"window": True}, "superres_like got window=True. Use a whole number from 2 on."),
        ({"through_20m": "yes"}, "superres_like got through_20m='yes'. Use True or False."),
        ({"through_20m": 1, "factor": 6}, "superres_like got through_20m=1. Use True or False."),
        ({"through_20m": True}, "superres_like got through_20m=True with factor=2, but only the 60 m bands (factor=6) "
                                "go through 20 m. Use through_20m=False."),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_in_a_sentence(options, text):
    with pytest.raises(MethodError) as error:
        SuperresLike(**{"factor": 2, **options})
    assert str(error.value) == text


def test_numbers_of_numpy_are_numbers():
    method = SuperresLike(factor=2, ridge=np.float32(0.5), rounds=np.int64(1))
    tile = noise_tile(method)
    plain = SuperresLike(factor=2, ridge=0.5, rounds=1)
    np.testing.assert_array_equal(sharpen_whole(method, tile), sharpen_whole(plain, tile))
