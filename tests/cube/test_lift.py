"""uint16 holds nothing below 1: the answer is the nearest image that stays above and still meets the measurement."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import lsq_linear

import eosr
from eosr.cube.consistency import lift_tile, project_tile
from eosr.cube.degradation import DEGRADATIONS, blur_sigma, degrade_tile, kernel_taps, radius_of
from eosr.cube.grid import from_arrays
from eosr.testing import chunked

PLACE = {"transform": (10, 0, 699960, 0, -10, 5000040), "crs": 32632, "level": "L2A", "platform": "sentinel-2a"}


def degraded(image, factor, sigma):
    taps = kernel_taps(factor, sigma)
    return degrade_tile(np.pad(image, radius_of(taps, factor), mode="symmetric"), taps, factor)


def dark_and_bright(side, bright, seed=3):
    """Water of 20 DN beside fields, with borders between pixels: what a blur makes of it cannot be undone by a clip."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.normal(size=(side, side)), 4) > 0
    return np.rint(20 + fields * (bright + gaussian_filter(rng.uniform(0, 400, (side, side)), 1)))


def test_a_pixel_that_is_lifted_takes_from_those_it_shares_a_coarse_pixel_with():
    # Mean 20. -10 becomes 1; the 11 come in equal parts from the three others: 20 - 11 / 3 and so on.
    lifted = lift_tile(np.array([[-10.0, 20.0], [30.0, 40.0]]), 2, 0.0, 1.0)
    np.testing.assert_allclose(lifted, [[1, 20 - 11 / 3], [30 - 11 / 3, 40 - 11 / 3]], atol=1e-5)


def test_a_pixel_that_would_fall_below_gives_only_what_it_has():
    # -10 needs 11, 2 can give 1; the other two share the remaining 10.
    lifted = lift_tile(np.array([[-10.0, 2.0], [30.0, 40.0]]), 2, 0.0, 1.0)
    np.testing.assert_allclose(lifted, [[1, 1], [25, 35]], atol=1e-5)


@pytest.mark.parametrize(("factor", "operator"), [(2, "study"), (2, "mtf_diff"), (6, "mtf"), (6, "box")])
def test_it_is_the_nearest_image_that_a_general_solver_finds(factor, operator):
    sigma = blur_sigma("B05" if factor == 2 else "B09", factor, operator)
    side = 12 if factor == 2 else 18
    truth = dark_and_bright(60, 900)[20 : 20 + side, 20 : 20 + side]
    wanted = degraded(truth, factor, sigma)
    start = project_tile(gaussian_filter(truth, 1.0), wanted, factor, sigma)
    assert start.min() < -10
    rows = np.stack([degraded(one.reshape(side, side), factor, sigma).ravel() for one in np.eye(side**2)], axis=1)
    heavy = 1e4
    found = lsq_linear(
        np.vstack([np.eye(side**2), heavy * rows]), np.concatenate([start.ravel(), heavy * wanted.ravel()]),
        bounds=(1, np.inf), method="bvls", tol=1e-12,
    )  # fmt: skip
    lifted = lift_tile(start, factor, sigma, 1.0)
    np.testing.assert_allclose(degraded(lifted, factor, sigma), wanted, atol=0.05)
    np.testing.assert_allclose(lifted, found.x.reshape(side, side), atol=0.5)


def test_an_image_that_stays_above_is_left_alone_and_what_is_far_from_a_low_pixel_too():
    image = np.random.default_rng(0).uniform(5, 4000, (120, 120)).astype(np.float32)
    assert lift_tile(image, 2, 0.5, 1.0) is image
    image[60, 60] = -50
    lifted = lift_tile(image, 2, 0.5, 1.0)
    changed = np.argwhere(lifted != image)
    assert np.abs(changed - 60).max() < 40
    assert lifted.min() >= 1


@pytest.mark.parametrize("operator", DEGRADATIONS)
def test_every_pixel_of_a_dark_contrasty_scene_meets_its_measurement_in_uint16_whatever_the_chunks(operator):
    side, steps = 252, {"B02": 1, "B03": 1, "B04": 1, "B08": 1, "B05": 2, "B11": 2, "B01": 6, "B09": 6}
    bands = {}
    for index, (band, step) in enumerate(steps.items()):
        truth = dark_and_bright(side, 1500 + 150 * index)
        seen = degraded(truth, step, blur_sigma(band, step, operator)) if step > 1 else truth
        bands[band] = np.rint(seen).astype(np.uint16)
    ds = from_arrays(bands, radiometric_offset=0, **PLACE)
    given = {"method": "bicubic", "consistency": True, "degradation": operator}
    plain = eosr.superresolve(ds, dtype="float32", **given)
    sharp = eosr.superresolve(chunked(ds, None), **given).compute()
    again = eosr.superresolve(chunked(ds, 96), **given).compute()
    for band, step in steps.items():
        if step > 1:
            assert float(plain[band].min()) < -100  # without the bound it would be left by far
            assert int(sharp[band].min()) >= 1
            back = degraded(sharp[band].values.astype(float), step, blur_sigma(band, step, operator))
            assert np.abs(back - bands[band]).max() < 1.5  # the measurement is rounded, and so is the answer
            np.testing.assert_array_equal(again[band].values, sharp[band].values)
