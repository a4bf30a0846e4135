"""Fine -> coarse: known kernels, a second implementation, chunks, gaps, grids, errors."""

import math
import re
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from eosr.cube.bands import BANDS_20M, BANDS_60M, mtf_at_nyquist
from eosr.cube.degradation import DEGRADATIONS, blur_sigma, degrade, kernel_taps, merge_chunks, radius_of
from eosr.cube.grid import at, check_nested
from eosr.errors import BandError, DegradationError, GridError
from eosr.testing import chunked, nothing_computed, synthetic_scene

RNG = np.random.default_rng(5)


def image(rows, columns, name="B05", dtype=np.float64, chunks=None):
    data = RNG.uniform(100, 9000, (rows, columns)).astype(dtype)
    return xr.DataArray(data if chunks is None else da.from_array(data, chunks), dims=("y", "x"), name=name)


def by_scipy(data, factor, sigma):
    """The second implementation: scipy's filter at every pixel, then block means."""
    blurred = gaussian_filter(data, sigma, mode="reflect") if sigma else data
    rows, columns = data.shape
    return blurred.reshape(rows // factor, factor, columns // factor, factor).mean(axis=(1, 3))


def test_study_kernel_at_two_is_the_one_worked_out_by_hand():
    # science.md 10.1: Gaussian of half a pixel, sampled at -2 .. 2, then the mean of two pixels.
    g = np.array([2.64e-4, 0.10645, 0.78657, 0.10645, 2.64e-4])
    by_hand = np.outer(np.convolve(g, [0.5, 0.5]), np.convolve(g, [0.5, 0.5]))
    # A delta at each of the fine pixels around coarse pixel (4, 4) reads the kernel off, one weight at a time.
    seen = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            fine = np.zeros((20, 20))
            fine[8 - 2 + i, 8 - 2 + j] = 1
            seen[i, j] = degrade(xr.DataArray(fine, dims=("y", "x"), name="B05"), 2).values[4, 4]
    np.testing.assert_allclose(seen, by_hand, atol=1e-5)
    assert seen.sum() == pytest.approx(1, abs=1e-12)


def test_study_kernel_at_six_is_a_box():
    fine = image(36, 48, "B01")
    np.testing.assert_allclose(degrade(fine, 6), degrade(fine, 6, degradation="box"), rtol=1e-7)
    np.testing.assert_allclose(degrade(fine, 6, degradation="box"), by_scipy(fine.values, 6, 0), rtol=1e-12)


@pytest.mark.parametrize("band", ["B05", "B8A", "B11"])
@pytest.mark.parametrize("platform", ["sentinel-2a", "sentinel-2b"])
def test_the_gaussian_of_mtf_leaves_the_bands_own_mtf_at_the_coarse_nyquist(band, platform):
    m = mtf_at_nyquist(band, platform)
    for factor in (2, 6):
        nyquist = 1 / (2 * factor)  # cycles per fine pixel
        whole = blur_sigma(band, factor, "mtf", platform)
        assert math.exp(-2 * (math.pi * whole * nyquist) ** 2) == pytest.approx(m, rel=1e-12)
        # The difference kernel adds what the fine image lacks: variances of Gaussians add up.
        missing = blur_sigma(band, factor, "mtf_diff", platform)
        assert missing**2 + (whole / factor) ** 2 == pytest.approx(whole**2, rel=1e-12)


def test_difference_kernels_have_the_published_widths():
    wanted = {
        ("B05", 2): 0.77,
        ("B06", 2): 0.81,
        ("B8A", 2): 0.82,
        ("B11", 2): 0.96,
        ("B01", 6): 2.84,
        ("B09", 6): 3.09,
    }
    for (band, factor), sigma in wanted.items():
        assert blur_sigma(band, factor, "mtf_diff") == pytest.approx(sigma, abs=0.006)


def passed(band, factor, degradation):
    """What an operator leaves of a wave at the Nyquist frequency of the coarse pixels, its crests in their centres."""
    centres = (np.arange(40 * factor) + 0.5) / factor  # in coarse pixels: crests at 0.5, 2.5, ..., troughs between
    wave = xr.DataArray(np.cos(np.pi * (centres - 0.5)) + np.zeros((4 * factor, 1)), dims=("y", "x"), name=band)
    coarse = degrade(wave, factor, degradation=degradation).values[:, 10:-10]
    assert np.ptp(np.abs(coarse)) < 1e-12
    return float(coarse[0, 0])


def spread(band, factor, degradation):
    """Standard deviation of what all coarse pixels together see of the fine ones [fine pixels]."""
    size = 20 * factor
    middle = slice(10 * factor, 11 * factor)
    weights = [
        degrade(xr.DataArray(np.eye(size)[i] + np.zeros((factor, 1)), dims=("y", "x"), name=band), factor,
                degradation=degradation).values[0, 10] for i in range(size)
    ]  # fmt: skip
    return float(np.sqrt(np.sum(weights * (np.arange(size) - np.mean(np.arange(size)[middle])) ** 2)))


def test_the_page_on_degradation_says_what_the_mtf_operators_really_come_to():
    page = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "degradation.md").read_text()
    rows = re.findall(r"^\| (B\w+) \| (0\.\d{3} \| .*) \|$", page, re.MULTILINE)
    assert [band for band, _ in rows] == [*BANDS_20M, *BANDS_60M]
    for band, figures in rows:
        factor = 2 if band in BANDS_20M else 6
        m = mtf_at_nyquist(band)
        wanted = {"mtf": m, "mtf_diff": m ** (1 - 1 / factor**2)}
        mtf = [f"{value:.3f}" for name, own in wanted.items() for value in (own, passed(band, factor, name))]
        sigma = [f"{s:.2f}" for n in wanted for s in (blur_sigma(band, factor, n), spread(band, factor, n))]
        assert figures.split(" | ") == [*mtf, *sigma], band
        # The mean over two or six pixels alone: cos(pi / 4) or 1 / (6 sin(pi / 12)), of what is wanted.
        box = {2: 0.7071, 6: 0.6440}[factor]
        assert passed(band, factor, "box") == pytest.approx(box, abs=1e-4)
        for name, own in wanted.items():
            assert passed(band, factor, name) == pytest.approx(box * own, rel=0.01)


def test_a_ramp_stays_a_ramp_without_a_shift():
    rows, columns = np.mgrid[0:72, 0:60].astype(float)
    ramp = xr.DataArray(3 * rows - 2 * columns, dims=("y", "x"), name="B09")
    for factor in (2, 6):
        for name in DEGRADATIONS:
            coarse = degrade(ramp, factor, degradation=name).values
            # The centre of coarse pixel i lies at factor * (i + 1/2) - 1/2 fine pixels.
            centre_y, centre_x = (factor * (np.arange(n) + 0.5) - 0.5 for n in coarse.shape)
            expected = np.add.outer(3 * centre_y, -2 * centre_x)
            rim = 3 * 6 // factor  # the ramp is folded over at the border
            inner = (slice(rim, -rim), slice(rim, -rim))
            np.testing.assert_allclose(coarse[inner], expected[inner], atol=1e-9)


def test_box_undoes_nearest_neighbour_enlargement():
    coarse = RNG.uniform(0, 5000, (7, 9))
    for factor in (2, 3, 6):
        fine = xr.DataArray(coarse.repeat(factor, 0).repeat(factor, 1), dims=("y", "x"))
        np.testing.assert_allclose(degrade(fine, factor, degradation="box"), coarse, rtol=1e-13)


def test_a_constant_scene_stays_constant_up_to_its_borders():
    for name in DEGRADATIONS:
        fine = xr.DataArray(np.full((24, 36), 1234.5), dims=("y", "x"), name="B01")
        np.testing.assert_allclose(degrade(fine, 6, degradation=name), 1234.5, rtol=1e-13)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize(
    ("band", "factor"), [("B05", 2), ("B11", 2), ("B12", 2), ("B01", 6), ("B09", 6), ("B02", 2), ("B08", 6), ("B06", 3)]
)
@pytest.mark.parametrize("platform", ["sentinel-2a", "sentinel-2b", "sentinel-2c"])
def test_scipy_filter_and_block_mean_give_the_same(name, band, factor, platform):
    fine = image(36, 54, band)
    expected = by_scipy(fine.values, factor, blur_sigma(band, factor, name, platform))
    coarse = degrade(fine, factor, degradation=name, platform=platform)
    np.testing.assert_allclose(coarse, expected, rtol=1e-10)
    lazy = degrade(fine.chunk({"y": 18, "x": 18}), factor, degradation=name, platform=platform)
    np.testing.assert_allclose(lazy, expected, rtol=1e-10)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_scene_narrower_than_the_blur_is_mirrored_as_often_as_needed(lazy):
    fine = image(6, 12, "B09")
    assert radius_of(kernel_taps(6, blur_sigma("B09", 6, "mtf")), 6) > 12
    coarse = degrade(fine.chunk() if lazy else fine, 6, degradation="mtf")
    np.testing.assert_allclose(coarse, by_scipy(fine.values, 6, blur_sigma("B09", 6, "mtf")), rtol=1e-10)


def test_sigma_overrides_the_operator_for_every_band():
    scene = synthetic_scene(4, 6, level="L2A")
    coarse = degrade(scene, 2, sigma=0.8)
    for band in ("B02", "B05", "B01"):
        np.testing.assert_allclose(coarse[band], by_scipy(scene[band].values.astype(float), 2, 0.8), rtol=1e-5)
    assert coarse.attrs["degradation"] == "sigma=0.8"


def test_operator_and_its_transpose_are_adjoint():
    # <A x, v> == <x, A^T v>, with A^T written down as a matrix, one fine pixel at a time.
    for name, factor in (("study", 2), ("mtf", 2), ("mtf_diff", 3)):
        eye = xr.DataArray(np.eye(12 * 6).reshape(72, 12, 6), dims=("n", "y", "x"), name="B05")
        columns = degrade(eye, factor, degradation=name).values.reshape(72, -1)
        x, v = RNG.standard_normal((12, 6)), RNG.standard_normal(columns.shape[1])
        coarse = degrade(xr.DataArray(x, dims=("y", "x"), name="B05"), factor, degradation=name).values.ravel()
        assert coarse @ v == pytest.approx(x.ravel() @ (columns @ v), rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12), columns=st.integers(1, 12), factor=st.sampled_from([2, 3, 6]),
    name=st.sampled_from(DEGRADATIONS), chunk_y=st.integers(1, 80), chunk_x=st.integers(1, 80),
)  # fmt: skip
def test_answer_does_not_depend_on_chunks(rows, columns, factor, name, chunk_y, chunk_x):
    fine = image(rows * factor, columns * factor, "B09", np.float32)
    whole = degrade(fine, factor, degradation=name)
    lazy = degrade(fine.chunk({"y": chunk_y, "x": chunk_x}), factor, degradation=name)
    assert lazy.dtype == np.float32
    assert lazy.data.blocks[-1, -1].compute().shape == tuple(sizes[-1] for sizes in lazy.data.chunks)
    np.testing.assert_allclose(lazy, whole, rtol=2e-6)


def test_time_and_order_of_dimensions_do_not_matter():
    scene = synthetic_scene(4, 6, level="L2A", times=np.array(["2023-06-01", "2023-07-01"], "datetime64[ns]"))
    band = scene["B05"]
    both = degrade(band, 2, degradation="mtf")
    assert both.dims == band.dims
    xr.testing.assert_identical(both.isel(time=1), degrade(band.isel(time=1), 2, degradation="mtf"))
    turned = degrade(band.transpose("x20", "time", "y20"), 2, degradation="mtf")
    assert turned.dims == ("x20", "time", "y20")
    xr.testing.assert_identical(turned.transpose(*band.dims), both)


def test_nothing_is_computed_until_asked():
    scene = synthetic_scene(12, 12, level="L2A", chunks=36)
    with nothing_computed():
        coarse = degrade(scene, 6, degradation="mtf")
    assert all(coarse[name].chunks is not None for name in coarse.data_vars)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_gap_spreads_to_every_pixel_that_sees_it_and_no_further(name, factor, lazy):
    fine = image(20 * factor, 22 * factor, "B11", np.float32)
    row, column = 9 * factor + 1, 11 * factor
    fine[row, column] = np.nan
    chunks = 4 * factor
    coarse = degrade(fine.chunk({"y": chunks, "x": chunks}) if lazy else fine, factor, degradation=name).values
    radius = radius_of(kernel_taps(factor, blur_sigma("B11", factor, name)), factor)
    sees = [
        (factor * np.arange(n) - radius <= pixel) & (pixel <= factor * np.arange(n) + factor - 1 + radius)
        for n, pixel in ((20, row), (22, column))
    ]
    np.testing.assert_array_equal(np.isnan(coarse), np.logical_and.outer(*sees))


def test_zero_is_nodata_in_integers_and_a_number_in_floats():
    digital = np.full((6, 6), 2000, np.uint16)
    digital[0, 0] = 0
    coarse = degrade(xr.DataArray(digital, dims=("y", "x")), 2, degradation="box")
    assert coarse.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(coarse), [[True, False, False]] + [[False] * 3] * 2)
    floats = degrade(xr.DataArray(digital.astype(np.float32), dims=("y", "x")), 2, degradation="box")
    assert float(floats[0, 0]) == 1500


def test_negatives_and_saturation_survive():
    fine = xr.DataArray(np.full((4, 4), -250.0, np.float32), dims=("y", "x"))
    np.testing.assert_allclose(degrade(fine, 2), -250, atol=1e-3)
    saturated = xr.DataArray(np.full((4, 4), 65535, np.uint16), dims=("y", "x"))
    np.testing.assert_allclose(degrade(saturated, 2, sigma=1.0), 65535, atol=0.02)


def test_coordinates_are_the_centres_of_the_larger_pixels_and_rioxarray_agrees():
    scene = synthetic_scene(12, 18)
    coarse = degrade(scene, 2)
    np.testing.assert_array_equal(coarse.x10[:2], [699970.0, 699990.0])
    np.testing.assert_array_equal(coarse.y10[:2], [5000030.0, 5000010.0])
    np.testing.assert_array_equal(coarse.x60[:1], [700020.0])
    check_nested(coarse)
    for group, pixel in ((10, 20.0), (20, 40.0), (60, 120.0)):
        plain, fine = at(coarse, group), at(scene, group)
        assert plain.rio.transform()[:6] == (pixel, 0, 699960.0, 0, -pixel, 5000040.0)
        assert plain.rio.crs == fine.rio.crs
        assert plain.rio.bounds() == fine.rio.bounds()
        for name in plain.data_vars:
            one = coarse[name]
            assert one.encoding["grid_mapping"] == f"spatial_ref{group}"
    left, step, _, top, _, step_y = map(float, coarse.spatial_ref10.attrs["GeoTransform"].split())
    assert (left, step, top, step_y) == (699960.0, 20.0, 5000040.0, -20.0)


def test_a_dataset_records_what_was_done_and_keeps_the_rest():
    times = np.array(["2023-06-01"], "datetime64[ns]")
    scene = synthetic_scene(6, 6, level="L2A", times=times, radiometric_offset=-1000)
    coarse = degrade(scene, 2, degradation="mtf_diff")
    assert coarse.attrs == {**scene.attrs, "degradation": "mtf_diff", "degradation_factor": 2}
    assert "degradation" not in scene.attrs
    assert list(coarse.data_vars) == list(scene.data_vars)
    np.testing.assert_array_equal(coarse.time, times)
    assert chunked(coarse, None)["B05"].dims == ("time", "y20", "x20")


def test_a_dataset_uses_the_mtf_of_its_own_satellite():
    scene = synthetic_scene(6, 6, level="L2A", platform="sentinel-2b")
    expected = degrade(scene["B05"], 2, degradation="mtf", platform="sentinel-2b")
    np.testing.assert_array_equal(degrade(scene, 2, degradation="mtf")["B05"], expected)
    assert abs(expected - degrade(scene["B05"], 2, degradation="mtf")).max() > 1


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    multiple=st.sampled_from([1, 2, 3, 6]),
    minimum=st.integers(1, 90),
)
def test_merged_chunks_keep_the_total_and_obey_both_limits(sizes, multiple, minimum):
    merged = merge_chunks(tuple(sizes), multiple, minimum)
    assert sum(merged) == sum(sizes)
    assert all(size % multiple == 0 for size in merged[:-1])
    assert len(merged) == 1 or min(merged) >= minimum


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda a: degrade(a, 4), GridError, r"10 pixels of B05 along 'y' are no multiple of 4.*\.isel\(y=slice\(0, 8"),
        (lambda a: degrade(a[:0], 2), GridError, "0 pixels of B05 along 'y'"),
        (lambda a: degrade(a, 2, degradation="dsen2"), DegradationError, "'dsen2' is not a .*Use one of 'study', "),
        (lambda a: degrade(a, 2, sigma=-1.0), DegradationError, "sigma=-1.0 is no standard deviation"),
        (lambda a: degrade(a, 2, sigma=math.nan), DegradationError, "sigma=nan is no standard deviation"),
        (lambda a: degrade(a, 0, degradation="box"), DegradationError, "a degradation by a factor of 0 has no meaning"),
        (lambda a: degrade(a, 0), DegradationError, "a degradation by a factor of 0 has no meaning"),
        (lambda a: degrade(a, -2), DegradationError, "a degradation by a factor of -2 has no meaning"),
        (lambda a: degrade(a, 2.5), DegradationError, "a degradation by a factor of 2.5 has no meaning"),
        (lambda a: degrade(a.rename("B10"), 2, degradation="mtf"), BandError, "B10 has no published.*Leave B10 out"),
        (lambda a: degrade(a, 2, degradation="mtf", platform="spot-5"), BandError, "satellite 'spot-5'"),
        (lambda a: degrade(a.rename(y="lat"), 2), GridError, r"dimensions \('lat', 'x'\).*rename\(lat='y'"),
        (lambda a: degrade(xr.Dataset({"ndvi": a}), 2), DegradationError, "no Sentinel-2 band to degrade"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_remedy(call, kind, text):
    with pytest.raises(kind, match=text):
        call(image(10, 12))
