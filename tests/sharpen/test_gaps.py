"""Filling of nodata: valid pixels untouched, from the rim inwards, within a declared reach."""

import numpy as np
import pytest

from eosr.sharpen.tile import DEEP, FILL_REACH, fill_gaps

RNG = np.random.default_rng(4)


def bands_with_hole(hole, size=40):
    bands = RNG.uniform(500, 9000, (2, size, size)).astype(np.float32)
    valid = np.ones(bands.shape, bool)
    valid[0][hole] = False
    return np.where(valid, bands, np.float32(np.nan)), valid


def test_valid_pixels_and_other_bands_are_untouched():
    bands, valid = bands_with_hole((slice(10, 30), slice(5, 12)))
    filled = fill_gaps(bands, valid)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[valid], bands[valid])
    assert np.isnan(bands[~valid]).all()  # the input is not written to


def test_without_a_gap_nothing_is_done():
    bands = RNG.uniform(size=(3, 5, 5)).astype(np.float32)
    assert fill_gaps(bands, np.ones(bands.shape, bool)) is bands


def test_one_missing_pixel_becomes_the_mean_of_its_twenty_four_neighbours():
    bands, valid = bands_with_hole((20, 20))
    around = bands[0, 18:23, 18:23]
    assert fill_gaps(bands, valid)[0, 20, 20] == pytest.approx(np.nanmean(around), rel=1e-6)


def test_a_constant_scene_is_continued_into_the_rim_and_dull_deep_inside():
    bands, valid = bands_with_hole((slice(8, 32), slice(8, 32)))
    bands[0][valid[0]] = 4000
    filled = fill_gaps(bands, valid)[0]
    depth = np.minimum.outer(np.minimum(np.arange(24), np.arange(24)[::-1]), np.full(24, 99))
    depth = np.minimum(depth, depth.T) + 1  # pixels from the rim, the first one 1
    inside = filled[8:32, 8:32]
    np.testing.assert_allclose(inside[depth <= FILL_REACH], 4000, rtol=1e-6)
    np.testing.assert_array_equal(inside[depth > FILL_REACH], DEEP)


def test_filling_depends_on_nothing_beyond_its_reach():
    bands, valid = bands_with_hole((slice(10, 30), slice(10, 30)))
    other = bands.copy()
    other[0, 5, 15] += 1000
    changed = np.nonzero(fill_gaps(other, valid)[0] != fill_gaps(bands, valid)[0])
    inside = [(r, c) for r, c in zip(*changed, strict=True) if not valid[0, r, c]]
    assert all(abs(r - 5) <= FILL_REACH and abs(c - 15) <= FILL_REACH for r, c in inside)
    other = bands.copy()
    other[0, 9, 15] += 1000
    changed = np.nonzero((fill_gaps(other, valid)[0] != fill_gaps(bands, valid)[0]) & ~valid[0])
    assert changed[0].max() == 9 + FILL_REACH  # and it does reach that far


def test_a_scene_without_any_data_is_dull():
    nothing = np.full((1, 6, 6), np.nan, np.float32)
    np.testing.assert_array_equal(fill_gaps(nothing, np.isfinite(nothing)), DEEP)
