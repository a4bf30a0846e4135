"""Offsets and reflectance: the order of the steps, and which statement is believed."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from eosr.cube.grid import from_arrays
from eosr.cube.radiometry import (
    check_not_empty,
    check_offset,
    for_its_times,
    offsets,
    to_digital_numbers,
    to_reflectance,
)
from eosr.errors import GridError, RadiometryError

GRID = {"transform": (10, 0, 600000, 0, -10, 5000040), "crs": 32632, "level": "L2A"}


def scene(values, offset=-1000, **bands):
    arrays = {"B02": np.asarray(values, np.uint16), **bands}
    return from_arrays(arrays, radiometric_offset=offset, **GRID)


def test_nodata_is_masked_before_the_offset_negatives_and_saturation_stay():
    # (0: nodata) (1000 - 1000) / 1e4 = 0; (900 - 1000) / 1e4 = -0.01; (65535 - 1000) / 1e4 = 6.4535
    reflectance = to_reflectance(scene([[0, 1000], [900, 65535]]))["B02"]
    assert reflectance.dtype == np.float32
    np.testing.assert_allclose(reflectance, [[np.nan, 0.0], [-0.01, 6.4535]], rtol=1e-6)
    assert reflectance.attrs["units"] == "1"
    assert reflectance.encoding["grid_mapping"] == "spatial_ref10"


def test_offsets_that_differ_in_time_are_applied_image_by_image():
    images = {"B02": np.full((2, 1, 1), 2000, np.uint16)}
    ds = from_arrays(images, time=["2021-01-01", "2023-01-01"], radiometric_offset=[0, -1000], **GRID)
    np.testing.assert_allclose(to_reflectance(ds)["B02"].values.ravel(), [0.2, 0.1], rtol=1e-6)
    assert to_reflectance(ds)["B02"].dims == ("time", "y10", "x10")


def test_reflectance_goes_back_to_the_same_digital_numbers():
    ds = scene(np.arange(60).reshape(6, 10) * 1000)
    xr.testing.assert_identical(to_digital_numbers(to_reflectance(ds)), ds)


def test_a_valid_pixel_never_becomes_nodata_on_the_way_back():
    reflectance = to_reflectance(scene([[1000, 1]]))
    reflectance["B02"][0, 0] = -0.2  # -2000 + 1000 DN: below what uint16 can hold
    assert to_digital_numbers(reflectance)["B02"].values.tolist() == [[1, 1]]


def test_floating_digital_numbers_keep_their_nan_and_their_zero():
    ds = scene([[0, 5]])
    ds["B02"] = ds["B02"].astype(np.float32).copy(data=np.array([[np.nan, 0.0]], np.float32))
    np.testing.assert_allclose(to_reflectance(ds)["B02"], [[np.nan, -0.1]])


def test_reflectance_stays_lazy():
    ds = scene(da.ones((6, 6), dtype=np.uint16, chunks=3))

    def refuse(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        lazy = to_reflectance(from_arrays({"B02": da.ones((6, 6), dtype=np.uint16)}, radiometric_offset=0, **GRID))
    assert lazy["B02"].chunks is not None
    assert ds is not None


def test_reflectance_is_not_converted_twice_and_needs_a_recorded_offset():
    ds = scene([[1]])
    with pytest.raises(RadiometryError, match="holds reflectance already"):
        to_reflectance(to_reflectance(ds))
    with pytest.raises(RadiometryError, match="does not hold reflectance"):
        to_digital_numbers(ds)
    del ds.attrs["radiometric_offset"]
    with pytest.raises(
        RadiometryError, match=r"no attribute radiometric_offset; .* ds.attrs \|= {'radiometric_offset': -1000}"
    ):
        to_reflectance(ds)
    ds.attrs["radiometric_offset"] = [0, -1000]
    with pytest.raises(RadiometryError, match="holds 2 numbers for no times"):
        offsets(ds)


def test_forgetting_the_offset_would_flatter_sre_by_three_decibels():
    # science.md 8.3: 20 log10((mu + 1000) / mu) at mu = 2300 is 3.1 dB
    assert 20 * np.log10((2300 + 1000) / 2300) == pytest.approx(3.1, abs=0.05)
    ds = scene([[3300]])
    assert float(to_reflectance(ds)["B02"][0, 0]) == pytest.approx(0.23)


def test_offset_that_the_pixels_contradict_is_found():
    dark = np.full((30, 30), 3000, np.uint16)
    dark[0, :5] = 200
    check_offset(scene(np.ones((60, 60)), offset=0, B12=dark))
    with pytest.raises(
        RadiometryError, match=r"permille of the pixels of B12 lies below .* Open the scene with offset=0"
    ):
        check_offset(scene(np.ones((60, 60)), offset=-1000, B12=dark))
    dark[0, :5] = 0  # nodata, not darkness
    check_offset(scene(np.ones((60, 60)), offset=-1000, B12=dark))


def test_a_window_without_a_single_valid_pixel_is_refused_by_name():
    with pytest.raises(RadiometryError, match=r"S2B_made_up: the window holds nothing but nodata .* another window"):
        check_not_empty(scene(np.zeros((6, 6))).assign_attrs(item_ids=["S2B_made_up"]))


def test_one_valid_pixel_is_enough_not_to_be_empty():
    pixels = np.zeros((6, 6))
    pixels[5, 5] = 1
    check_not_empty(scene(pixels).chunk(y10=3))


def series():
    """Two images of different baselines and satellites, as open_stac describes them."""
    times = np.array(["2021-06-01T10:15", "2023-06-01T10:15"], "datetime64[us]")
    ds = from_arrays({"B02": np.full((2, 6, 6), 2000, np.uint16)}, time=times, **GRID)
    return ds.assign_attrs(
        radiometric_offset=[0, -1000],
        platform=["sentinel-2a", "sentinel-2b"],
        times=[str(time) for time in times],
    )


def test_a_part_of_a_series_keeps_the_offset_of_its_own_images():
    ds = series()
    np.testing.assert_array_equal(to_reflectance(ds).B02[:, 0, 0], np.float32([0.2, 0.1]))
    for part in (ds.isel(time=1), ds.isel(time=[1]), ds.sel(time="2023")):
        assert offsets(part) == -1000
        assert for_its_times(part).attrs["platform"] == "sentinel-2b"
        assert to_reflectance(part).B02.values.flat[0] == np.float32(0.1)
    turned = for_its_times(ds.isel(time=[1, 0]))
    assert turned.attrs["radiometric_offset"] == [-1000, 0]
    assert turned.attrs["times"] == series().attrs["times"][::-1]


def test_items_follow_their_images_and_a_mosaicked_day_keeps_all_of_its():
    ds = series()
    first, second = ds.attrs["times"]
    ds = ds.assign_attrs(item_ids=["a1", "a2", "b"], item_times=[first, first, second])
    assert for_its_times(ds.isel(time=0)).attrs["item_ids"] == ["a1", "a2"]
    assert for_its_times(ds.isel(time=[1])).attrs["item_ids"] == ["b"]
    assert for_its_times(ds.isel(time=[1, 0])).attrs["item_ids"] == ["b", "a1", "a2"]


def test_an_image_of_a_time_that_was_not_recorded_is_never_given_the_offset_of_another():
    moved = series().assign_coords(time=np.array(["2021-06-01", "2023-06-01"], "datetime64[ns]"))
    with pytest.raises(
        RadiometryError,
        match=r"the time 2021-06-01T00:00:00.000000 is not among those that the attribute times records",
    ):
        to_reflectance(moved)


def test_a_band_alone_is_no_dataset():
    with pytest.raises(GridError, match=r"to_reflectance needs a Dataset .* not a DataArray. Keep the Dataset"):
        to_reflectance(series()["B02"])
