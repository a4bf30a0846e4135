"""What 0 means, what cannot be a digital number, and what becomes of the other bands there."""

import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr

import eosr
from eosr.cube.bands import BANDS_10M, BANDS_20M
from eosr.cube.grid import at, from_arrays
from eosr.errors import RadiometryError
from eosr.testing import random_weights, synthetic_scene

LAKE = (slice(30, 60), slice(36, 66))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_weights(tmp_path_factory.mktemp("weights") / "small.safetensors", size=0.1)


def with_lake(band="B08", value=0, dtype="uint16"):
    ds = synthetic_scene(16, 16, level="L2A", radiometric_offset=-1000)
    ds[band] = ds[band].astype(dtype)
    ds[band][LAKE] = value
    return ds


@pytest.mark.parametrize("how", ["weights", "detail_injection", "bicubic"])
@pytest.mark.parametrize("band", ["B08", "B02"])
def test_zeros_of_one_guide_leave_no_hole_in_other_bands_and_their_measurement_stays(how, band, weights):
    """L2A before baseline 04.00 clips what is below 0, in the infrared of lakes first."""
    ds = with_lake(band)
    given = {"weights": weights} if how == "weights" else {"method": how, "consistency": True}
    sharp = eosr.superresolve(ds, bands=[*BANDS_10M, "B05", "B11"], dtype="float32", **given)
    assert np.isnan(sharp[band].values).sum() == 30 * 30
    for name in ("B05", "B11"):
        assert np.isfinite(sharp[name].values).all()
        np.testing.assert_allclose(eosr.degrade(sharp[name], 2).values, ds[name].values, atol=0.02)


def test_where_no_guide_was_measured_there_is_nothing_to_sharpen_by(weights):
    ds = with_lake()
    for band in BANDS_10M:
        ds[band][LAKE] = 0
    sharp = eosr.superresolve(ds, bands=["B05"], weights=weights)
    hole = np.zeros((96, 96), bool)
    hole[LAKE] = True
    np.testing.assert_array_equal(sharp.B05.values == 0, hole)


def test_zeros_that_were_measured_are_1_once_that_is_said():
    pixels = np.array([[0, 7], [5, 0]], np.uint16).repeat(6, 0).repeat(6, 1)
    place = {"transform": (10, 0, 600000, 0, -10, 5000040), "crs": 32632, "level": "L2A"}
    said = from_arrays({"B02": pixels}, nodata=None, **place)
    assert (said.B02.values.min(), said.attrs["nodata"]) == (1, 0)
    assert from_arrays({"B02": pixels}, **place).B02.values.min() == 0
    assert said.B02.equals(from_arrays({"B02": pixels}, **place).clip(min=1, keep_attrs=True).B02)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32"])
def test_zeros_of_a_cube_of_another_library_are_measured_where_nodata_is_none(dtype):
    pixels = np.array([[0, 7], [5, 0]], dtype).repeat(6, 0).repeat(6, 1)
    x, y = 600005 + 10.0 * np.arange(12), 5000035 - 10.0 * np.arange(12)
    cube = xr.Dataset({"B02": (("y", "x"), pixels)}, {"y": y, "x": x}, {"crs": "EPSG:32632"})
    told = {"level": "L2A", "offset": 0}
    assert set(np.unique(eosr.from_xarray(cube, nodata=None, **told).B02)) == {1, 5, 7}
    assert set(np.unique(eosr.from_xarray(cube, **told).B02)) == {0, 5, 7}


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("chunks", [None, 48])
@pytest.mark.filterwarnings("always:the scene holds:UserWarning")
def test_numbers_that_wrapped_around_are_nodata_with_a_warning_and_do_not_ring(dtype, chunks, weights):
    """-1000 in uint16 is 64536: nodata from which an offset was taken off."""
    clean, wrapped = with_lake("B11"), with_lake("B11", 64536, dtype)
    for ds in (clean, wrapped):
        ds["B11"][:] = np.where(ds["B11"] == ds["B11"][30, 36], ds["B11"], 1500)
    for ds, value in ((clean, 0), (wrapped, 65000)):
        ds["B02"][:6, :6] = value
    if chunks:
        wrapped = wrapped.chunk(dict.fromkeys(("y10", "x10"), 48) | dict.fromkeys(("y20", "x20"), 24))
        wrapped = wrapped.chunk(dict.fromkeys(("y60", "x60"), 8))
    expected = eosr.superresolve(clean, bands=["B02", "B05", "B11"], weights=weights).compute()
    with pytest.warns(UserWarning, match=r"the scene holds 6\d{4} DN, .* count as nodata. Open the original"):
        sharp = eosr.superresolve(wrapped, bands=["B02", "B05", "B11"], weights=weights).compute()
    for name in expected.data_vars:
        np.testing.assert_array_equal(sharp[name].values, expected[name].values)


def test_a_saturated_pixel_is_no_wrapped_one(weights):
    sharp = eosr.superresolve(with_lake("B11", 65535), bands=["B11"], weights=weights)
    assert (sharp.B11.values == 65535).any()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_an_8_bit_picture_is_refused(dtype):
    ds = synthetic_scene(12, 12, level="L2A")
    ds["B04"] = (ds["B04"] // 256).astype(dtype)
    with pytest.raises(RadiometryError, match=rf"B04 holds {dtype}, an 8-bit picture, not digital numbers"):
        eosr.superresolve(ds, method="bicubic", bands=["B04", "B05"])
    plain = at(ds, 10).drop_attrs(deep=False)
    with pytest.raises(RadiometryError, match=rf"B04 holds {dtype}, an 8-bit picture, no digital numbers"):
        eosr.from_xarray(plain, level="L2A", offset=0)


def test_values_below_0_of_a_harmonised_cube_are_measurements_and_the_line_that_is_told_keeps_them():
    ds = xr.Dataset(
        {"B12": (("y", "x"), np.array([[-23, 0], [500, 40]], "int16"))},
        {"y": [5000030.0, 5000010.0], "x": [600010.0, 600030.0]}, {"crs": "EPSG:32632"},
    )  # fmt: skip
    with pytest.raises(RadiometryError, match="B12 holds -23, which was measured") as refusal:
        eosr.from_xarray(ds, level="L2A", offset=0).compute()
    line = str(refusal.value).split("Put it back, ds = ")[1].split(", and give")[0]
    got = eosr.from_xarray(eval(line, {"ds": ds}).assign_attrs(ds.attrs), level="L2A", offset=-1000)
    assert got.B12.values.tolist() == [[977, 0], [1500, 1040]]
    assert float(eosr.to_reflectance(got).B12[0, 0]) == pytest.approx(-0.0023)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_rioxarray_knows_nodata(dtype):
    sharp = eosr.superresolve(synthetic_scene(12, 12, level="L2A"), method="bicubic", bands=BANDS_20M, dtype=dtype)
    nodata = at(sharp, 10).B05.rio.nodata
    assert np.isnan(nodata) if dtype == "float32" else nodata == 0
