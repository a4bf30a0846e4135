"""Bicubic interpolation: phase, polynomials, borders, and a second implementation."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from eosr.sharpen.classical.bicubic import SUPPORT, bicubic_tile
from eosr.sharpen.superresolution import superresolve
from eosr.testing import chunked, synthetic_scene

RNG = np.random.default_rng(3)


def keys(distance, a=-0.5):
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def one_pixel(coarse, factor, row, column):
    """The second implementation: the sixteen neighbours of one fine pixel, found by their coordinates."""
    total = 0.0
    v, u = (row + 0.5) / factor - 0.5, (column + 0.5) / factor - 0.5
    for i in range(int(np.floor(v)) - 1, int(np.floor(v)) + 3):
        for j in range(int(np.floor(u)) - 1, int(np.floor(u)) + 3):
            at = [
                k if 0 <= k < n else (-1 - k if k < 0 else 2 * n - 1 - k)
                for k, n in zip((i, j), coarse.shape, strict=True)
            ]
            total += keys(v - i) * keys(u - j) * coarse[at[0], at[1]]
    return total


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_every_pixel_is_the_weighted_sum_of_its_sixteen_neighbours(factor):
    coarse = RNG.uniform(0, 9000, (5, 7))
    fine = bicubic_tile(coarse, factor)
    expected = [[one_pixel(coarse, factor, r, c) for c in range(7 * factor)] for r in range(5 * factor)]
    np.testing.assert_allclose(fine, expected, rtol=1e-10)


@pytest.mark.parametrize("factor", [2, 6])
def test_torch_gives_the_same_but_for_its_kernel(factor):
    # torch interpolates with a = -0.75: where the image is linear, both kernels are exact and the phase shows.
    rows, columns = np.mgrid[0:12, 0:10].astype(np.float32)
    ramp = 100 + 7 * rows - 3 * columns
    theirs = functional.interpolate(
        torch.from_numpy(ramp)[None, None], scale_factor=factor, mode="bilinear", align_corners=False
    )[0, 0].numpy()
    inner = slice(3 * factor, -3 * factor)
    np.testing.assert_allclose(bicubic_tile(ramp, factor)[inner, inner], theirs[inner, inner], rtol=1e-5)


@pytest.mark.parametrize("factor", [2, 6])
def test_parabolas_are_exact_at_the_centres_of_the_fine_pixels(factor):
    coarse = np.arange(14.0)[:, None] ** 2 + np.arange(9.0)
    y, x = ((np.arange(n * factor) + 0.5) / factor - 0.5 for n in (14, 9))
    inner = slice(3 * factor, -3 * factor)
    np.testing.assert_allclose(
        bicubic_tile(coarse, factor)[inner, inner], (y[:, None] ** 2 + x)[inner, inner], atol=1e-9
    )


def test_type_and_leading_dimensions_are_kept():
    coarse = RNG.uniform(0, 9000, (3, 2, 4, 5)).astype(np.float32)
    fine = bicubic_tile(coarse, 2)
    assert (fine.shape, fine.dtype) == ((3, 2, 8, 10), np.float32)
    np.testing.assert_array_equal(fine[2, 1], bicubic_tile(coarse[2, 1], 2))
    assert bicubic_tile(np.full((2, 2), 7, np.uint16), 2).dtype.kind == "f"


def test_nothing_beyond_its_support_changes_a_pixel():
    coarse = RNG.uniform(0, 9000, (15, 15))
    other = coarse.copy()
    other[7, 7] += 1000
    rows, columns = np.nonzero(bicubic_tile(other, 6) - bicubic_tile(coarse, 6))
    assert rows.min() >= (7 - SUPPORT) * 6
    assert rows.max() < (8 + SUPPORT) * 6
    assert len(set(rows)) == len(set(columns)) > 6


def test_method_bicubic_sharpens_a_scene_without_weights_in_any_chunks():
    scene = synthetic_scene(40, 35, level="L2A", seed=2)
    whole = superresolve(scene, method="bicubic", dtype="float32")
    np.testing.assert_allclose(whole["B05"], bicubic_tile(scene["B05"].values.astype(np.float32), 2), rtol=1e-6)
    np.testing.assert_allclose(whole["B01"], bicubic_tile(scene["B01"].values.astype(np.float32), 6), rtol=1e-6)
    tiled = superresolve(chunked(scene, 60), method="bicubic", dtype="float32").compute()
    for name in whole.data_vars:
        np.testing.assert_array_equal(tiled[name], whole[name])
    assert whole.attrs["consistency"] == "none"
    assert whole.attrs["sharpening_methods"] == ["bicubic", "bicubic"]
