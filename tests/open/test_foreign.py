"""`eosr.from_xarray`: what odc-stac, stackstac, cubo and rioxarray open is what `open_stac` opens, or is refused."""

import json
from datetime import datetime

import numpy as np
import pytest
import rioxarray
import stackstac
import xarray as xr
from support.foreign_cubes import named, plane
from support.scenes import write_scene

import eosr
from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.errors import BandError, GridError, RadiometryError

ALL = [*BANDS_10M, *BANDS_20M, *BANDS_60M]
L2A = {"level": "L2A", "offset": -1000}


@pytest.fixture(scope="module")
def item(written):
    return written.item(ident="S2A_32TQM_20230601_0_L2A", base=str(written.folder))


@pytest.fixture(scope="module")
def expected(item):
    return eosr.open_stac([item]).load()


def same_pixels(ds, expected):
    for name in expected.data_vars:
        xr.testing.assert_equal(ds[name].drop_vars("time", errors="ignore"), expected[name].drop_vars("time"))
    assert (ds.attrs["level"], ds.attrs["radiometric_offset"]) == ("L2A", -1000)
    assert eosr.cube.grid.crs_of(ds) == eosr.cube.grid.crs_of(expected)


def odc_load(item, bands, resolution, epsg=32632, **options):
    odc = pytest.importorskip("odc.stac")
    from pystac import Item

    plain = json.loads(json.dumps(item))
    plain["stac_extensions"] = ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"]
    plain["properties"].setdefault("proj:epsg", 32632)
    given = {"crs": f"EPSG:{epsg}", "chunks": {}, **options}
    return odc.load([Item.from_dict(plain)], bands=bands, resolution=resolution, **given)


def stacked(item, bands=ALL, resolution=10, **options):
    """As cubo calls it: floats with NaN."""
    given = {"rescale": False, "epsg": 32632, "snap_bounds": True, **options}
    plain = json.loads(json.dumps(item))
    plain["properties"].setdefault("proj:epsg", 32632)
    return stackstac.stack([plain], assets=list(bands), resolution=resolution, **given)


def test_three_loads_of_odc_stac(item, expected):
    loads = (odc_load(item, list(bands), size) for bands, size in ((BANDS_60M, 60), (BANDS_10M, 10), (BANDS_20M, 20)))
    same_pixels(eosr.from_xarray(*loads, **L2A), expected)


def test_one_load_of_odc_stac_at_10_m_and_the_accessor(item, expected):
    ds = odc_load(item, ALL, 10)
    with pytest.raises(RadiometryError, match=r"nothing tells the processing level\. Say it: level='L2A'"):
        ds.s2sr.superresolve(method="bicubic")
    ds.attrs = {"level": "L2A"}
    with pytest.raises(RadiometryError, match=r"nothing tells the radiometric offset\. Say it: offset=-1000"):
        ds.s2sr.superresolve(method="bicubic")
    ds.attrs["radiometric_offset"] = -1000
    sharp, right = ds.s2sr.superresolve(method="bicubic"), expected.s2sr.superresolve(method="bicubic")
    for name in right.data_vars:
        np.testing.assert_array_equal(sharp[name].values, right[name].values)


@pytest.mark.parametrize("where", ["topleft", "center"])
def test_a_cube_of_stackstac_with_floats_and_corners_for_coordinates(item, expected, where):
    same_pixels(eosr.from_xarray(stacked(item, xy_coords=where), **L2A), expected)


@pytest.mark.parametrize("as_dataset", [False, True])
def test_a_cube_as_cubo_leaves_it(item, expected, as_dataset):
    """Attributes and coordinates of cubo 2026.10; its window lies on whole pixels of 10 m, not of 60 m."""
    left, _, _, top = (float(expected.x10[0]) - 5, 0, 0, float(expected.y10[0]) + 5)
    bounds = (left + 70, top - 2010, left + 2090, top - 130)
    cube = stacked(item, bounds=bounds, snap_bounds=False, xy_coords="topleft")
    cube.attrs = {"collection": "sentinel-2-l2a", "epsg": 32632, "resolution": 10, "edge_size": cube.sizes["x"]}
    cube = cube.drop_vars([name for name in cube.coords if name not in ("time", "band", "y", "x")])
    cube = cube.assign_coords({"cubo:distance_from_center": (("y", "x"), np.zeros((cube.sizes["y"], cube.sizes["x"])))})
    cube.name = "sentinel-2-l2a"
    ds = eosr.from_xarray(cube.to_dataset("band") if as_dataset else cube, **L2A)
    # Whole 60 m pixels inside: from 120 m right of the corner to 2040, from 180 m below it to 1980.
    assert (ds.sizes["x60"], ds.sizes["y60"]) == (32, 30)
    same_pixels(ds, expected.isel(
        x10=slice(12, 204), y10=slice(18, 198), x20=slice(6, 102), y20=slice(9, 99), x60=slice(2, 34), y60=slice(3, 33)
    ))  # fmt: skip


def test_files_that_rioxarray_opened(written, expected):
    opened = {name: rioxarray.open_rasterio(written.folder / f"{name}.tif", chunks={}) for name in ALL}
    ds = eosr.from_xarray(*(image.rename(name) for name, image in opened.items()), **L2A)
    same_pixels(ds, expected.isel(time=0))


def test_rows_that_rise_are_turned(item, expected):
    cube = stacked(item)
    same_pixels(eosr.from_xarray(cube.isel(y=slice(None, None, -1)), **L2A), expected)


def test_60_m_pixels_of_the_south_begin_where_those_of_its_tiles_do(tmp_path):
    scene = write_scene(tmp_path, left=600000, top=6200020, epsg=32755, size=180)
    opened = [rioxarray.open_rasterio(tmp_path / f"{name}.tif", chunks={}).rename(name) for name in ("B02", "B01")]
    fine = opened[1].isel(band=0, drop=True).reindex_like(opened[0].isel(band=0), method="nearest", tolerance=30)
    ds = eosr.from_xarray(opened[0], fine, **L2A)
    np.testing.assert_array_equal(ds.B01.values, scene.pixels["B01"])


def test_odc_stac_puts_60_m_pixels_of_the_south_where_its_tiles_do_with_an_anchor_only(tmp_path):
    scene = write_scene(tmp_path, left=600000, top=6200020, epsg=32755, size=180)
    item = scene.item(ident="S2A_55HFA_20230601_0_L2A")
    ten, twenty = odc_load(item, list(BANDS_10M), 10, 32755), odc_load(item, ["B05", "B11"], 20, 32755)
    with pytest.raises(GridError, match=r"B01 starts at y=6200010.* resampled\. .* anchor=odc\.geo\.xy_\(0, 2 / 3\)"):
        eosr.from_xarray(ten, twenty, odc_load(item, ["B01", "B09"], 60, 32755), **L2A)
    sixty = odc_load(item, ["B01", "B09"], 60, 32755, anchor=pytest.importorskip("odc.geo").xy_(0, 2 / 3))
    ds = eosr.from_xarray(ten, twenty, sixty, **L2A)
    xr.testing.assert_equal(ds, eosr.open_stac([item], bands=list(ds.data_vars)).transpose(*ds.dims))


def test_stackstac_does_so_without_snapping_only(tmp_path):
    scene = write_scene(tmp_path, left=600000, top=6200020, epsg=32755, size=180)
    ten, snapped = (stacked(scene.item(), [name], size, epsg=32755) for name, size in (("B02", 10), ("B01", 60)))
    with pytest.raises(GridError, match=r"B01 starts at y=6200040.* resampled\. .* or snap_bounds=False \(stackstac\)"):
        eosr.from_xarray(ten, snapped, **L2A)
    ds = eosr.from_xarray(ten, stacked(scene.item(), ["B01"], 60, epsg=32755, snap_bounds=False), **L2A)
    np.testing.assert_array_equal(ds.B01.values[0], scene.pixels["B01"])


def test_60_m_bands_on_two_grids_are_refused():
    bands = named(B02=plane(10), B01=plane(60), B09=plane(60, 600020, 5000020))
    with pytest.raises(GridError, match=r"B09 starts at x=600050, neither centre nor corner .*: it was resampled"):
        eosr.from_xarray(*bands, crs=32632, **L2A)


def test_centres_that_look_like_corners_beside_other_centres_are_refused():
    """A 20 m grid that is off by half a pixel has its centres where corners should be."""
    with pytest.raises(
        GridError, match=r"of B02 are centres of pixels, those of B05 corners: one was res.*\(x=ds\.x \+ 10, y=ds"
    ):
        eosr.from_xarray(*named(B02=plane(10), B05=plane(20, 600010, 5000050)), crs=32632, **L2A)
    with pytest.raises(GridError, match=r"of B05 are corners of pixels along x, centres along y: it was resampled\."):
        eosr.from_xarray(*named(B02=plane(10), B05=plane(20, 600010)), crs=32632, **L2A)


def test_corners_of_one_library_go_with_centres_of_another_once_they_are_centres_too(item, written, expected):
    cube = stacked(item, BANDS_10M).isel(time=0)
    rest = [rioxarray.open_rasterio(written.folder / f"{name}.tif", chunks={}).rename(name) for name in ("B05", "B01")]
    with pytest.raises(GridError, match=r"of B01 are centres .* B02 corners.*\(x=ds\.x \+ 5, y=ds\.y - 5\)"):
        eosr.from_xarray(cube, *rest, **L2A)
    ds = eosr.from_xarray(cube.assign_coords(x=cube.x + 5, y=cube.y - 5), *rest, **L2A)
    same_pixels(ds, expected[list(ds.data_vars)].isel(time=0))


@pytest.mark.parametrize("epsg", [32632, 32632.0, "EPSG:32632"])
def test_the_crs_may_be_a_coordinate(epsg):
    (band,) = named(B02=plane(10))
    assert eosr.cube.grid.crs_of(eosr.from_xarray(band.assign_coords(epsg=epsg), **L2A)).to_epsg() == 32632
    with pytest.raises(GridError, match=r"'EPSG:nan' is no coordinate reference system pyproj knows"):
        eosr.from_xarray(band.assign_coords(epsg=np.nan), **L2A)


def test_another_projection_than_utm_is_refused(item):
    with pytest.raises(GridError, match=r"in EPSG:3857, so they were resampled: .* in UTM\. .* crs='EPSG:32632'"):
        eosr.from_xarray(odc_load(item, ALL, 10, 3857), **L2A)


def dated(*times, dim=True):
    bands = (image.expand_dims("time") if dim else image for image in named(B02=plane(10), B05=plane(20)))
    return [image.assign_coords(time=list(times) if dim else times[0]) for image in bands]


@pytest.mark.parametrize(
    "time", ["2023-06-01T10:15:00Z", datetime(2023, 6, 1, 10, 15), np.datetime64("2023-06-01T10:15")]
)
def test_dates_may_be_text(time):
    ds = eosr.from_xarray(*dated(time), crs=32632, **L2A)
    assert ds.time.values == np.array(["2023-06-01T10:15"], "datetime64[ns]")


def test_one_image_of_a_series_keeps_its_date(item, expected):
    ds = eosr.from_xarray(odc_load(item, ALL, 10).isel(time=0), **L2A, item_ids=["a"])
    right = expected.isel(time=0)
    assert ds.time.values == right.time.values
    assert (ds.attrs["times"], ds.attrs["item_times"]) == (right.attrs["times"], right.attrs["item_times"])
    assert ds.B05.dims == ("y20", "x20")
    np.testing.assert_array_equal(ds.B05.values, right.B05.values)
    undated = named(B05=ds.B05.rename(y20="y", x20="x").drop_vars(["time", "spatial_ref20"]))
    ten = odc_load(item, list(BANDS_10M), 10).isel(time=0)
    assert eosr.from_xarray(ten, *undated, **L2A).time.values == right.time.values


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (
            [plane(10).rename("B02").expand_dims(time=2)],
            r"times of B02 are no dates: 0, 1\. Give dates, e\.g\. ds\.assign_coo",
        ),
        (dated(7), r"times of B02 are no dates: 7\."),
        (dated(7, dim=False), r"times of B02 are no dates: 7\. .* ds\.isel\(time=0, drop=True\)"),
        (dated("June"), r"times of B02 are no dates: June\."),
        (dated(np.datetime64("NaT", "ns")), r"times of B02 are no dates: NaT\."),
        ([dated("2023-06-01", dim=False)[0], dated("2023-06-02", dim=False)[1]], r"B05 has other times than B02"),
        ([dated("2023-06-01")[0], dated("2023-06-01", dim=False)[1]], r"B05 has other times than B02"),
    ],
)
def test_times_that_are_no_dates_or_differ_are_refused(sources, said):
    with pytest.raises(GridError, match=said):
        eosr.from_xarray(*sources, crs=32632, **L2A)


def test_offsets_are_one_per_time():
    ten, twenty = dated("2023-06-01", dim=True)
    with pytest.raises(RadiometryError, match=r"offset holds 2 numbers for 1 times\. Give one number, or one per time"):
        eosr.from_xarray(ten, twenty, crs=32632, level="L2A", offset=[0, -1000])
    with pytest.raises(RadiometryError, match=r"offset holds 2 numbers for no times"):
        eosr.from_xarray(*named(B02=plane(10)), crs=32632, level="L2A", offset=[0, -1000])


@pytest.mark.parametrize("bands", [["B02", "B03", "B04", "B08", "B05"], ["B02"]])
def test_the_accessor_finds_bands_along_a_dimension_as_from_xarray_does(item, bands):
    cube = stacked(item, bands).to_dataset(name="s2").assign_attrs(level="L2A", radiometric_offset=-1000)
    assert list(eosr.from_xarray(cube).data_vars) == sorted(bands)
    xr.testing.assert_equal(cube.s2sr.to_reflectance(), eosr.from_xarray(cube).s2sr.to_reflectance())


def test_one_band_with_several_images_is_refused():
    (band,) = named(B02=plane(10))
    with pytest.raises(BandError, match=r"B02 has 2 images along band\. Select one: ds\.isel\(band=0\)"):
        eosr.from_xarray(xr.concat([band, band], "band"), crs=32632, **L2A)
    with pytest.raises(BandError, match=r"B02 has 2 images along band\. Select one: ds\.isel\(band=0\)"):
        eosr.from_xarray(xr.concat([band, band], "band").assign_coords(band=[1, 2]).to_dataset(), crs=32632, **L2A)


def test_nothing_is_computed(item):
    from eosr.testing import nothing_computed

    with nothing_computed():
        eosr.from_xarray(stacked(item), **L2A)


def test_bands_that_were_interpolated_are_refused_when_computed(item):
    ds = eosr.from_xarray(odc_load(item, ALL, 10, resampling="bilinear"), **L2A)
    ds.B02.load()
    with pytest.raises(GridError, match=r"B05 was brought to 10 m by interpolation, .* blocks of 2 x 2 equal ones"):
        ds.B05.load()


def test_reflectance_is_refused_when_computed(item):
    with pytest.raises(RadiometryError, match=r"B02 holds [\d.]+, which is no digital number\. Load it without scale"):
        eosr.from_xarray(stacked(item, rescale=True), **L2A).B02.load()


def shifted(item):
    cube = stacked(item)
    return cube.assign_coords(x=cube.x + 2.5)


def with_a_gap(item):
    return stacked(item).isel(x=[column for column in range(96) if column not in (20, 21)])


def with_a_row_twice(item):
    return stacked(item).isel(y=[0, 1, 1, 2, 3])


def twice(item):
    cube = stacked(item, ["B02", "B05"])
    return xr.concat([cube, cube], "band")


@pytest.mark.parametrize(
    ("made", "options", "error", "said"),
    [
        (shifted, L2A, GridError, r"starts at x=\d+\.5, neither centre nor corner of a pixel of Sentinel-2: it was re"),
        (lambda item: stacked(item, resolution=20), L2A, GridError, r"B02 has pixels of 20 by 20 m; its own are 10 m"),
        (with_a_gap, L2A, GridError, r"coordinate x of B02 is not equally spaced \(10 to 30\)\. Do not drop rows"),
        (with_a_row_twice, L2A, GridError, r"coordinate y of B02 is not equally spaced \(-10 to -?0\)"),
        (twice, L2A, BandError, r"B02 is there twice\. Leave it out of one"),
        (stacked, {"level": "L3", "offset": 0}, RadiometryError, r"level='L3' is unknown\. Say it: level='L2A'"),
        (stacked, {"level": "L2A"}, RadiometryError, r"nothing tells the radiometric offset"),
        (stacked, {**L2A, "crs": "EPSG:nowhere"}, GridError, r"'EPSG:nowhere' is no coordinate reference system"),
        (lambda item: stacked(item).drop_vars("band"), L2A, BandError, r"no band of Sentinel-2 among \['0', '1'"),
        (lambda item: stacked(item).isel(x=[0]), L2A, GridError, r"no coordinate x of two pixels or more"),
        (lambda item: stacked(item) > 0, L2A, RadiometryError, r"B01 holds bool, no digital numbers\. Load it as"),
        (lambda item: stacked(item).values, L2A, GridError, r"takes Datasets and DataArrays, not ndarray\."),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_at_once(item, made, options, error, said):
    with pytest.raises(error, match=said):
        eosr.from_xarray(made(item), **options)


def test_two_sources_must_be_of_one_time_and_one_zone(item):
    ten, twenty = stacked(item, BANDS_10M), stacked(item, BANDS_20M, 20)
    later = twenty.assign_coords(time=twenty.time + np.timedelta64(1, "D"))
    with pytest.raises(GridError, match=r"B05 has other times than B02"):
        eosr.from_xarray(ten, later, **L2A)
    with pytest.raises(GridError, match=r"the sources are in \['EPSG:32632', 'EPSG:32633'\]"):
        eosr.from_xarray(ten, twenty.assign_attrs(crs="EPSG:32633").assign_coords(epsg=32633), **L2A)
