"""Nodata of foreign cubes: 0 wherever and however it was declared."""

import numpy as np
import pytest
import rioxarray
import xarray as xr
from affine import Affine
from support.foreign_cubes import plane
from support.scenes import write_cog

import eosr
from eosr.errors import RadiometryError

L2A = {"level": "L2A", "offset": -1000}


@pytest.fixture(scope="module")
def gappy(tmp_path_factory):
    """A folder with one band in several formats, whose nodata is 65535."""
    folder = tmp_path_factory.mktemp("gappy")
    pixels = np.full((96, 96), 500, "uint16")
    pixels[0, 0] = 65535
    write_cog(folder / "B02.tif", pixels, Affine(10, 0, 600000, 0, -10, 5000040), nodata=65535)
    band = plane(10).copy(data=pixels)
    band.encoding = {"_FillValue": 65535}
    band.to_dataset(name="B02").to_zarr(folder / "B02.zarr", consolidated=False)
    return folder


def opened_zarr(folder, **options):
    return xr.open_zarr(folder / "B02.zarr", consolidated=False, **options).assign_attrs(crs="EPSG:32632")


def opened_tif(folder, **options):
    return rioxarray.open_rasterio(folder / "B02.tif", chunks={}, **options).isel(band=0, drop=True).rename("B02")


@pytest.mark.parametrize(
    "opened",
    [
        opened_tif,
        lambda folder: opened_tif(folder, masked=True),
        opened_zarr,
        lambda folder: opened_zarr(folder, mask_and_scale=False),
        # rio.write_nodata leaves it in the attributes of the array.
        lambda folder: opened_tif(folder, masked=True).fillna(-9999).astype("int16").rio.write_nodata(-9999),
        # to_dataset moves the attributes of an array with bands to the Dataset.
        lambda folder: opened_tif(folder).expand_dims(band=["B02"]).to_dataset("band"),
        lambda folder: opened_tif(folder).assign_attrs(_FillValue=None, missing_value=np.array([65535], "uint16")),
    ],
)
def test_nodata_is_0_wherever_it_is_declared(gappy, opened):
    ds = eosr.from_xarray(opened(gappy), **L2A)
    assert ds.B02.values[0].tolist() == [0, *[500] * 95]
    assert ds.attrs["nodata"] == 0


def test_nodata_can_be_said(gappy):
    bare = opened_zarr(gappy, mask_and_scale=False)
    bare.B02.attrs = {}
    assert eosr.from_xarray(bare, **L2A).B02.values[0, 0] == 65535
    ds = eosr.from_xarray(bare, nodata=65535, **L2A)
    assert (ds.B02.values[0, 0], ds.attrs["nodata"]) == (0, 0)
    with pytest.raises(RadiometryError, match=r"nodata is 'none', which is no number\. Say .*: nodata=0"):
        eosr.from_xarray(bare, nodata="none", **L2A)
    with pytest.raises(
        RadiometryError, match=r"B02 holds -9999, no digital number\. If it is nodata, say nodata=-9999\."
    ):
        eosr.from_xarray(bare.astype("int32").where(bare != 65535, -9999), **L2A).load()


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (
            {"nodata": 0, "_FillValue": 65535},
            r"B02 declares nodata=0 and _FillValue=65535\. Say which is nodata: nodata",
        ),
        ({"nodata": "x"}, r"nodata of B02 is 'x', which is no number\. Say what stands for no measurement: nodata=0"),
    ],
)
def test_nodata_that_cannot_be_told_is_refused_at_once(gappy, declared, said):
    cube = opened_zarr(gappy, mask_and_scale=False)
    cube.B02.attrs = declared
    with pytest.raises(RadiometryError, match=said):
        eosr.from_xarray(cube, **L2A)
    assert eosr.from_xarray(cube, nodata=65535, **L2A).B02.values[0, 0] == 0
