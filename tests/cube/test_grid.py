"""Pixel arithmetic: centres, nesting, chunks, and what rioxarray makes of each group."""

import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401  # registers .rio
import xarray as xr
from affine import Affine

from eosr.cube import grid
from eosr.errors import BandError, GridError

GRID = {"transform": (10, 0, 600000, 0, -10, 5000040), "crs": "EPSG:32632", "level": "L2A"}


def scene(rows=12, columns=24, chunk=None, **changes):
    bands = {}
    for name, step in (("B02", 1), ("B05", 2), ("B01", 6)):
        array = np.arange(rows * columns // step**2, dtype=np.uint16).reshape(rows // step, columns // step)
        bands[name] = da.from_array(array, chunks=chunk // step) if chunk else array
    return grid.from_arrays(bands | changes, **GRID)


def test_coordinates_are_centres_from_the_same_corner():
    ds = scene()
    # left edge 600000: 10 m centre at +5, 20 m at +10, 60 m at +30; top edge 5000040 likewise downwards
    assert [float(ds[name][0]) for name in ("x10", "x20", "x60")] == [600005, 600010, 600030]
    assert [float(ds[name][-1]) for name in ("y10", "y20", "y60")] == [4999925, 4999930, 4999950]


@pytest.mark.parametrize(("band", "step"), [("B02", 10), ("B05", 20), ("B01", 60)])
def test_rioxarray_is_right_on_every_group_of_the_dataset(band, step):
    ds = scene()
    assert ds[band].rio.crs.to_epsg() == 32632
    assert ds[band].rio.transform() == Affine(step, 0, 600000, 0, -step, 5000040)
    assert ds[band].rio.transform(recalc=True) == Affine(step, 0, 600000, 0, -step, 5000040)
    assert ds[band].rio.bounds() == (600000, 4999920, 600240, 5000040)


@pytest.mark.parametrize(("group", "band"), [(10, "B02"), (20, "B05"), (60, "B01")])
def test_one_group_is_an_ordinary_dataset(group, band):
    plain = grid.at(scene(), group)
    assert set(plain.coords) == {"y", "x", "spatial_ref"}
    assert plain[band].dims == ("y", "x")
    assert plain.rio.crs.to_epsg() == 32632
    assert plain[band].rio.transform() == Affine(group, 0, 600000, 0, -group, 5000040)


def test_a_window_of_one_group_has_the_corner_of_the_window():
    part = scene().isel(y20=slice(2, None), x20=slice(3, None))
    assert grid.at(part, 20)["B05"].rio.transform() == Affine(20, 0, 600060, 0, -20, 5000000)


def test_warping_one_group_puts_a_pixel_where_it_was(tmp_path):
    """An independent reader (GDAL, through a file) finds the same value under the same coordinate."""
    import rasterio

    plain = grid.at(scene(), 20)
    plain["B05"].rio.to_raster(tmp_path / "b05.tif")
    with rasterio.open(tmp_path / "b05.tif") as file:
        assert file.crs.to_epsg() == 32632
        ((value,),) = file.sample([(float(plain.x[3]), float(plain.y[4]))])
    assert value == plain["B05"].values[4, 3]


def test_group_that_is_absent_is_named():
    with pytest.raises(BandError, match=r"no band in the 60 m group; it has \[10, 20\]"):
        grid.at(scene().drop_vars("B01"), 60)


def test_pixel_size_of_a_degraded_dataset_is_told_by_its_coordinates():
    ds = scene()
    assert [grid.gsd_of(ds, group) for group in grid.GROUPS] == [10, 20, 60]
    degraded = ds.coarsen(y10=2, x10=2, y20=2, x20=2, y60=2, x60=2).mean()
    assert [grid.gsd_of(degraded, group) for group in grid.GROUPS] == [20, 40, 120]
    grid.check_nested(degraded)


def test_a_single_pixel_takes_its_size_from_the_grid_mapping():
    assert grid.gsd_of(scene(rows=6, columns=6), 60) == 60


def test_crs_is_read_back():
    assert grid.crs_of(scene()).to_epsg() == 32632


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"y20": slice(1, None)}, r"the 20 m grid starts at \(600000, 5.00002e\+06\)|20 m grid starts at"),
        ({"y20": slice(0, 5)}, "12 pixels along y10 are not 2 times the 5 along y20. Crop first: eosr.cube.crop"),
        ({"x60": slice(0, 3)}, "24 pixels along x10 are not 6 times the 3 along x60"),
        ({"x60": slice(1, None)}, "the 60 m grid starts at"),
        ({"y10": slice(None, None, 2), "x10": slice(None, None, 2)}, "pixels of the 20 m group are 20 m, not 2 times"),
        ({"y10": slice(None, None, -1)}, r"y falling, are needed. Sort with .sortby\('y10', ascending=False\)"),
    ],
)
def test_grids_that_do_not_nest_are_refused(select, message):
    with pytest.raises(GridError, match=message):
        grid.check_nested(scene().isel(select))


def test_coordinates_with_a_gap_are_refused():
    with pytest.raises(GridError, match="x10 is not equally spaced"):
        grid.check_nested(scene().isel(x10=[0, 1, 2, 5]))


def test_crop_makes_ragged_grids_nest():
    ds = scene(rows=24, columns=36).isel(y10=slice(0, 23), x20=slice(0, 16))
    cropped = grid.crop_to_multiple(ds)
    # 23 rows of 10 m hold 18 = 3 x 6; 16 columns of 20 m are 32 of 10 m and hold 30 = 5 x 6
    assert dict(cropped.sizes) == {"y10": 18, "x10": 30, "y20": 9, "x20": 15, "y60": 3, "x60": 5}
    grid.check_nested(cropped)


def test_crop_refuses_a_multiple_that_splits_pixels_and_a_scene_that_is_too_small():
    with pytest.raises(
        GridError, match=r"multiple=8 does not hold whole pixels of the 60 m group. Use a multiple of 6"
    ):
        grid.crop_to_multiple(scene(), 8)
    with pytest.raises(GridError, match="narrower along y than 36"):
        grid.crop_to_multiple(scene(), 36)


def test_chunks_must_cover_the_same_ground_block_by_block():
    grid.check_chunks(scene(chunk=12))
    # equal numbers of blocks, other ground
    uneven = scene(rows=24, columns=24, chunk=12).chunk(y20=(5, 7))
    with pytest.raises(GridError, match=r"chunks of B05 along y20 \(5, 7\).*6:3:1. Rechunk: ds = ds.chunk\(y10=1536"):
        grid.check_chunks(uneven)


def test_shapes_that_do_not_fit_are_refused_when_building():
    with pytest.raises(GridError, match="12 pixels along y10 are not 2 times the 5 along y20"):
        scene(B05=np.zeros((5, 12), np.uint16))
    with pytest.raises(GridError, match=r"B02 has 3 dimensions .* Give time="):
        scene(B02=np.zeros((1, 12, 24), np.uint16))
    with pytest.raises(GridError, match="differ in shape"):
        scene(B03=np.zeros((12, 23), np.uint16))


def test_transform_and_crs_that_mean_nothing_are_refused():
    bands = {"B02": np.zeros((6, 6), np.uint16)}
    with pytest.raises(GridError, match="not north-up with square pixels"):
        grid.from_arrays(bands, **{**GRID, "transform": (10, 0, 0, 0, 10, 0)})
    with pytest.raises(GridError, match="'EPSG:0' is no coordinate reference system"):
        grid.from_arrays(bands, **{**GRID, "crs": "EPSG:0"})
    with pytest.raises(BandError, match="'B99' is not a band"):
        grid.from_arrays({"B99": bands["B02"]}, **GRID)


def test_sharpened_bands_may_join_the_10_m_group():
    bands = {"B02": np.zeros((6, 6), np.uint16), "B05": np.ones((6, 6), np.uint16)}
    ds = grid.from_arrays(bands, gsd={"B05": 10}, **GRID)
    assert ds["B05"].dims == ("y10", "x10")
    assert ds["B05"].encoding["grid_mapping"] == "spatial_ref10"
    assert isinstance(ds, xr.Dataset)


@pytest.mark.parametrize("gsd", ["20", 15, True])
def test_what_is_no_group_is_refused_with_the_groups_there_are(gsd):
    with pytest.raises(BandError, match=rf"{gsd!r} is no group of bands. Use one of the numbers 10, 20, 60, e.g. eosr"):
        grid.at(scene(), gsd)


def test_a_series_records_its_times_and_which_item_is_whose():
    times = np.array(["2021-06-01T10:15", "2023-06-01T10:15:00.024"], "datetime64[ms]")
    bands = {"B02": np.ones((2, 6, 6), np.uint16)}
    ds = grid.from_arrays(bands, time=times, item_ids=["a", "b"], **GRID)
    assert ds.attrs["times"] == ["2021-06-01T10:15:00.000000", "2023-06-01T10:15:00.024000"]
    assert ds.attrs["item_times"] == ds.attrs["times"]
    assert "item_times" not in grid.from_arrays(bands, time=times, item_ids=["one for both"], **GRID).attrs
    assert "times" not in scene().attrs
