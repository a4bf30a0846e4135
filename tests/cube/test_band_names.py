"""By which names bands are known, and that none which only nearly has one is left out in silence."""

import re

import numpy as np
import pytest
import rioxarray
import xarray as xr
from rasterio import open as open_raster

import eosr
from eosr.cube.band_names import band_named, nearly_band
from eosr.cube.bands import BANDS, BANDS_10M, BANDS_20M
from eosr.errors import BandError
from eosr.testing import synthetic_scene

#: Names of data cubes in the order of B02, B03, B04, B08, B05, B06, B07, B8A, B11, B12.
AFRICA = ["blue", "green", "red", "nir_1", "red_edge_1", "red_edge_2", "red_edge_3", "nir_2", "swir_1", "swir_2"]
L2A = {"level": "L2A", "offset": 0}


def cube(names=(*BANDS_10M, *BANDS_20M), side=24):
    rng = np.random.default_rng(1)
    x, y = 600005 + 10.0 * np.arange(side), 5000035 - 10.0 * np.arange(side)
    pixels = {}
    for name, band in zip(names, (*BANDS_10M, *BANDS_20M), strict=True):
        step = BANDS[band].gsd // 10
        image = rng.integers(100, 4000, (side // step, side // step), np.uint16)
        pixels[name] = (("y", "x"), image.repeat(step, 0).repeat(step, 1))
    return xr.Dataset(pixels, {"y": y, "x": x}, {"crs": "EPSG:32632"})


@pytest.mark.parametrize(
    "write",
    [str.lower, lambda b: b.replace("B0", "B"), lambda b: f"{b}_{BANDS[b].gsd}m", lambda b: b.replace("B", "b_")],
)
def test_a_band_is_known_however_its_number_is_written(write):
    assert [band_named(write(band)) for band in BANDS] == list(BANDS)
    got = eosr.from_xarray(cube([write(band) for band in (*BANDS_10M, *BANDS_20M)]), **L2A)
    assert got.equals(eosr.from_xarray(cube(), **L2A))


@pytest.mark.parametrize(
    "text", ["SCL", "AOT", "WVP", "TCI_R", "QA60", "MSK_CLDPRB", "cloud_mask", "ndvi", "1", "time"]
)
def test_what_is_no_band_is_none_nearly_either(text):
    assert (band_named(text), nearly_band(text)) == (None, None)


@pytest.mark.parametrize(
    "text",
    ["swir_1", "nbart_swir_2", "B13", "B4_median", "band_7", "s2_B04", "rededge", "nir_wide", "water_vapour", "B00"],
)
def test_what_is_nearly_a_band_is_refused_with_lines_that_help(text):
    ds = cube()[["B02", "B8A", "B11"]].rename(B11=text)
    with pytest.raises(BandError, match=f"{text} is nearly the name of a band") as refusal:
        eosr.from_xarray(ds, **L2A)
    _, drop = re.findall(r"ds\.[a-z_]+\(.*?\)(?=[,.])", str(refusal.value))
    assert set(eosr.from_xarray(eval(drop, {"ds": ds}), **L2A)) == {"B02", "B8A"}
    stacked = ds.to_dataarray("band")
    with pytest.raises(BandError, match=f"{text} is nearly the name of a band") as refusal:
        eosr.from_xarray(stacked, **L2A)
    _, drop = re.findall(r"ds\.[a-z_]+\(.*?\)(?=[,.] or|\.$)", str(refusal.value))
    assert set(eosr.from_xarray(eval(drop, {"ds": stacked}), **L2A)) == {"B02", "B8A"}


def test_names_of_a_cube_of_africa_are_taken_once_the_two_that_are_uncertain_are_said():
    ds = cube(AFRICA)
    for name in ("swir_1", "swir_2"):
        with pytest.raises(BandError, match=f"{name} is nearly") as refusal:
            eosr.from_xarray(ds, **L2A)
        ds = eval(re.search(r"ds\.rename\(.*?\)", str(refusal.value))[0], {"ds": ds})
    assert eosr.from_xarray(ds, **L2A).equals(eosr.from_xarray(cube(), **L2A))


def test_a_dataset_whose_bands_nearly_have_a_name_is_not_sharpened_by_half():
    ds = synthetic_scene(12, 12, level="L2A").rename(B05="B05_mean")
    with pytest.raises(BandError, match=r"B05_mean is nearly .* ds.rename\({'B05_mean': 'B05'}\)"):
        eosr.superresolve(ds, method="bicubic")


def test_names_that_a_file_gives_its_bands_are_read(tmp_path):
    """One GeoTIFF of many bands: rioxarray numbers them and keeps their descriptions as ``long_name``."""
    bands = (*BANDS_10M, *BANDS_20M)
    stacked = cube().to_dataarray("band")
    path = tmp_path / "stack.tif"
    stacked.assign_coords(band=np.arange(1, len(bands) + 1)).rio.write_crs(32632).rio.to_raster(path)
    with open_raster(path, "r+") as file:
        file.descriptions = bands
    want = eosr.from_xarray(cube(), **L2A)
    with rioxarray.open_rasterio(path) as opened:
        assert eosr.from_xarray(opened, **L2A).equals(want)
    with rioxarray.open_rasterio(path, band_as_variable=True) as opened:
        assert eosr.from_xarray(opened, **L2A).equals(want)


def test_bands_without_a_name_are_refused_with_the_line_that_names_them():
    stacked = cube().to_dataarray("band").assign_coords(band=np.arange(1, 11))
    with pytest.raises(BandError, match=r"no band of Sentinel-2 among .*: ds.assign_coords\(band=\['B02', 'B05', "):
        eosr.from_xarray(stacked, **L2A)
