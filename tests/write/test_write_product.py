"""The STAC item of a product: it describes the files as they are, and other programs can read it."""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
import stackstac
import xarray as xr
from affine import Affine
from pyproj import Transformer
from support.scenes import write_scene

import eosr
from eosr.batch.checks import folder_of
from eosr.errors import GridError, OutputError, RadiometryError, SourceError
from eosr.open.catalogue.conditions import box_of
from eosr.open.catalogue.search import find_items
from eosr.open.stac import open_stac
from eosr.write import deliver, to_cog, to_stac_item, to_stac_items, to_zarr
from eosr.write.collection import write_collection
from write.test_write_zarr import scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """COGs and the item of a sharpened scene."""
    path = tmp_path_factory.mktemp("product")
    ds = scene(sharpened=True).assign_attrs(weights=["s2sr-20m sha256:0123"], method="s2x")
    paths = to_cog(ds, path)
    to_stac_item(ds, paths, derived_from=["https://example.org/S2B_T32_0.json"])
    return path


@pytest.fixture
def item(folder):
    return json.loads((folder / "S2B_T32_0_eosr.json").read_text())


def test_every_asset_says_what_its_file_says(folder, item):
    assert list(item["assets"]) == ["B01", "B02", "B05", "B08", "B8A"]
    for name, asset in item["assets"].items():
        with rasterio.open(folder / asset["href"]) as file:
            assert asset["proj:shape"] == list(file.shape)
            assert Affine(*asset["proj:transform"]) == file.transform
            assert asset["proj:code"] == f"EPSG:{file.crs.to_epsg()}"
            assert (asset["raster:scale"], asset["raster:offset"]) == (file.scales[0], file.offsets[0]) == (1e-4, -0.1)
            assert (asset["data_type"], asset["nodata"]) == (file.dtypes[0], file.nodata) == ("uint16", 0)
        assert asset["bands"][0]["name"] == name
    assert item["assets"]["B8A"]["bands"][0] == {
        "name": "B8A", "eo:common_name": "nir08", "eo:center_wavelength": 0.8647, "eo:full_width_half_max": 0.021,
    }  # fmt: skip


def test_properties_tell_what_made_it_from_what(item):
    properties = item["properties"]
    assert properties["datetime"] == "2023-06-06T10:00:00Z"
    assert properties["platform"] == "sentinel-2b"
    assert properties["s2:processing_baseline"] == "05.09"
    assert (properties["s2:product_type"], properties["processing:level"]) == ("S2MSI2A", "L2A")
    assert properties["processing:software"] == {"eosr": eosr.__version__}
    assert properties["processing:lineage"] == (
        f'S2B_T32_0 sharpened to 10 m by eosr {eosr.__version__} (method: "s2x"; weights: ["s2sr-20m sha256:0123"]).'
    )
    assert properties["eosr:sharpened"] is True
    assert properties["eosr:derived_from"] == ["S2B_T32_0"]
    assert properties["eosr:provenance"]["weights"] == ["s2sr-20m sha256:0123"]
    assert [link["href"] for link in item["links"]] == ["https://example.org/S2B_T32_0.json"]


def test_the_footprint_is_where_proj_says(item):
    # UTM 32N, easting 500040 m: 40 m east of the meridian 9 E; 5200020 m north / 110.7 km a degree is near 46.95 N.
    left, bottom, right, top = item["bbox"]
    assert left == pytest.approx(9 + 40 / 76_000, abs=1e-4)
    assert right - left == pytest.approx(3600 / 76_000, rel=0.02)
    assert top - bottom == pytest.approx(2400 / 111_170, rel=0.02)
    assert 46.9 < bottom < 47
    ring = np.array(item["geometry"]["coordinates"][0])
    np.testing.assert_allclose([*ring.min(axis=0), *ring.max(axis=0)], item["bbox"], atol=2e-5)


def test_pystac_reads_it_and_finds_the_files(folder):
    item = pystac.Item.from_file(str(folder / "S2B_T32_0_eosr.json"))
    for asset in item.assets.values():
        with rasterio.open(asset.get_absolute_href()) as file:
            assert file.count == 1
    assert item.datetime.isoformat() == "2023-06-06T10:00:00+00:00"


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_open_stac_reads_a_sharpened_product_back_bit_for_bit(tmp_path, dtype):
    ds = scene(dtype=dtype, sharpened=True, times=2)
    items = to_stac_items(ds, to_cog(ds, tmp_path))
    back = open_stac(items)
    assert set(back.data_vars) == set(ds.data_vars)
    for name, band in ds.data_vars.items():
        assert back[name].dims == band.dims
        assert back[name].dtype == band.dtype
        np.testing.assert_array_equal(back[name].values.view("u1"), band.values.view("u1"))
    np.testing.assert_array_equal(back.time.values, ds.time.values)
    np.testing.assert_array_equal(back.x10.values, ds.x10.values)
    kept = ("level", "platform", "processing_baseline", "radiometric_offset", "nodata", "quantification")
    assert {key: back.attrs[key] for key in kept} == {key: ds.attrs[key] for key in kept}
    one = open_stac(str(tmp_path / f"{items[1].id}.json"), bands=["B05"])
    np.testing.assert_array_equal(one["B05"].values[0], ds["B05"].values[1])


def test_a_scene_on_its_native_grids_is_not_called_sharpened(tmp_path):
    ds = scene()
    store = to_zarr(ds, tmp_path / "x.zarr")
    item = to_stac_item(ds, to_cog(store, tmp_path / "cog"), id="mine", zarr=store).to_dict()
    assert item["properties"]["eosr:sharpened"] is False
    assert [item["assets"][band]["proj:transform"][0] for band in ("B02", "B05", "B01")] == [10, 20, 60]
    raw = json.loads((tmp_path / "cog" / "mine.json").read_text())
    assert raw["assets"]["zarr"]["href"] == "../x.zarr"


def test_zarr_alone_has_an_item_that_names_the_store_and_its_bands(tmp_path):
    ds = scene(sharpened=True, times=2)
    made = deliver(ds, tmp_path / "out", format="zarr")
    assert [path.name for path in made.items] == ["S2B_T32_0_eosr.json", "S2B_T32_1_eosr.json"]
    both = deliver(ds, tmp_path / "both")
    for alone, beside in zip(made.items, both.items, strict=True):
        one, other = json.loads(alone.read_text()), json.loads(beside.read_text())
        bands = one["assets"]["zarr"].pop("bands")
        assert [band["name"] for band in bands] == ["B01", "B02", "B05", "B08", "B8A"]
        assert one["assets"] == {"zarr": other["assets"]["zarr"]}
        # The schemas of extensions lie in the network; that of STAC 1.1 comes with pystac.
        pystac.validation.validate_dict(one | {"stac_extensions": []})
        for facts in (one["properties"], other["properties"]):
            del facts["created"]
        assert {key: one[key] for key in ("id", "bbox", "geometry", "properties")} == {
            key: other[key] for key in ("id", "bbox", "geometry", "properties")
        }
    store = pystac.Item.from_file(str(made.items[0])).assets["zarr"].get_absolute_href()
    assert set(xr.open_zarr(store).data_vars) >= set(ds.data_vars)
    with pytest.raises(OutputError, match="already there"):
        deliver(ds, tmp_path / "out", format="zarr")
    single = deliver(ds[["B05"]].isel(time=[0]), tmp_path / "single", format="zarr")
    with pytest.raises(
        SourceError,
        match=r"holds one Zarr store of eosr, and no images\. Open it: xr\.open_zarr\('.*sharpened\.zarr', decode",
    ):
        open_stac(single.items[0])
    # What an item could not say is written without one, as before.
    degraded = deliver(ds.assign_attrs(degradation_factor=2), tmp_path / "degraded", format="zarr")
    assert (degraded.items, [path.name for path in degraded.folder.iterdir()]) == ((), ["sharpened.zarr"])


@pytest.mark.parametrize("name", ["a%20b", "a'b", "{a}", "[a]", "a:b", "~a", " ü日 ", "\x1b[2J", "a.zarr"])
def test_a_folder_of_any_other_name_is_written_and_read(tmp_path, name):
    ds = eosr.open_stac(write_scene(tmp_path / "source", size=36).item(), bands=["B02"])
    made = deliver(ds, tmp_path / name)
    np.testing.assert_array_equal(open_stac(made.items[0])["B02"], ds["B02"])


@pytest.mark.parametrize("name", [os.fsdecode(b"a\xffb"), "a\0b"])
def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(tmp_path, name):
    ds = scene(sharpened=True)
    for write in (deliver, to_cog, to_zarr, folder_of):
        with pytest.raises(OutputError, match=r"is a name that is not UTF-8, which GDAL and STAC need. Name another"):
            write(tmp_path / name) if write is folder_of else write(ds, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_readers_would_not_find_is_refused(tmp_path):
    ds = scene(sharpened=True)
    for name in ("a?b", "a#b", "a\\b", "a\nb"):
        paths = to_cog(ds, tmp_path / name)
        with pytest.raises(OutputError, match=r"(?s)a.b has a '.{1,2}' in its name, and STAC readers cut a path off"):
            to_stac_item(ds, paths)


def test_float_nodata_is_valid_json(tmp_path):
    to_stac_item(None, to_cog(scene(dtype="float32"), tmp_path))
    text = (tmp_path / "S2B_T32_0_eosr.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["assets"]["B05"]["nodata"] == "nan"


def test_several_times_give_several_items(tmp_path):
    ds = scene(times=2).assign_attrs(radiometric_offset=[-1000, 0])
    paths = to_cog(ds, tmp_path)
    with pytest.raises(OutputError, match=r"the files hold 2 times \(S2B_T32_0, S2B_T32_1, ...\)"):
        to_stac_item(ds, tmp_path)
    items = to_stac_items(ds, paths)
    assert [item.id for item in items] == ["S2B_T32_0_eosr", "S2B_T32_1_eosr"]
    assert [item.assets["B05"].to_dict()["raster:offset"] for item in items] == [-0.1, 0.0]
    assert [item.properties["eosr:provenance"]["radiometric_offset"] for item in items] == [-1000, 0]


def test_an_existing_item_is_kept_unless_overwrite(folder):
    before = (folder / "S2B_T32_0_eosr.json").read_text()
    with pytest.raises(OutputError, match=r"S2B_T32_0_eosr.json is already there and was kept"):
        to_stac_item(None, folder)
    assert (folder / "S2B_T32_0_eosr.json").read_text() == before
    to_stac_item(None, folder, id="S2B_T32_0_eosr", overwrite=True)


def test_what_cannot_be_described_is_refused(folder, tmp_path):
    with pytest.raises(OutputError, match=r"holds no \*.tif to describe"):
        to_stac_item(None, tmp_path)
    with pytest.raises(OutputError, match="there is no file to describe"):
        to_stac_item(None, [])
    (tmp_path / "text.tif").write_text("text")
    with pytest.raises(OutputError, match=r"text.tif cannot be read"):
        to_stac_item(None, tmp_path)
    with pytest.raises(OutputError, match="the files lie in several folders"):
        to_stac_item(None, [*folder.glob("*B05*.tif"), *to_cog(scene()[["B08"]], tmp_path / "other")])
    profile = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8", "transform": Affine.scale(10)}
    with rasterio.open(tmp_path / "text.tif", "w", **profile) as file:
        file.write(np.zeros((1, 1, 1), "uint8"))
    with pytest.raises(OutputError, match="has no tag EOSR_ATTRS"):
        to_stac_item(None, tmp_path)
    with pytest.raises(OutputError, match="holds bands B8A, which the Dataset does not"):
        to_stac_item(scene(sharpened=True).drop_vars("B8A"), folder, id="x")
    timeless = to_cog(scene()[["B05"]].isel(time=0, drop=True), tmp_path / "timeless")
    with pytest.raises(OutputError, match=r"has no time, which a STAC item needs. Say it: time="):
        to_stac_item(None, timeless)
    assert to_stac_item(None, timeless, time="2023-06-06").datetime.isoformat() == "2023-06-06T00:00:00+00:00"
    with pytest.raises(OutputError, match=r"time=.noon. is not a time. Write it as ISO 8601"):
        to_stac_item(None, timeless, id="x", time="noon")


@pytest.mark.parametrize("select", [[1, 0], [1], 1])
def test_names_tags_and_items_follow_the_image_however_the_times_are_selected(tmp_path, select):
    whole = scene(times=2)[["B05"]].assign_attrs(radiometric_offset=[0, -1000])
    part = whole.isel(time=select)
    paths = to_cog(part, tmp_path)
    assert paths[0].name == "S2B_T32_1_B05_20m.tif"
    with rasterio.open(paths[0]) as file:
        assert file.tags()["EOSR_TIME"] == "2023-06-16T10:00:00"
        np.testing.assert_array_equal(file.read(1), whole["B05"].values[1])
    for item in to_stac_items(part, paths):
        number = 1 if "_1_" in item.id else 0
        assert item.properties["eosr:derived_from"] == [f"S2B_T32_{number}"]
        assert item.properties["eosr:provenance"]["radiometric_offset"] == [0, -1000][number]
        assert item.datetime.day == [6, 16][number]


def test_reflectance_read_back_is_reflectance_and_is_not_mixed_with_digital_numbers(tmp_path):
    ds = scene(sharpened=True).assign_attrs(sharpened_by="eosr", weights_sha256=["0123"], consistency="exact")
    made = eosr.to_reflectance(ds)
    item = to_stac_item(made, to_cog(made, tmp_path / "a"))
    back = open_stac(item)
    assert (back.attrs["quantity"], back["B05"].attrs["units"]) == ("reflectance", "1")
    assert (back.attrs["weights_sha256"], back.attrs["consistency"]) == (["0123"], "exact")
    np.testing.assert_array_equal(back["B05"].values, made["B05"].values)
    with pytest.raises(RadiometryError, match="holds reflectance already"):
        eosr.to_reflectance(back)
    numbers = scene(dtype="float32", sharpened=True, times=2).isel(time=[1])
    other = to_stac_item(numbers, to_cog(numbers, tmp_path / "b"))
    with pytest.raises(RadiometryError, match=r"has quantity 'reflectance' and item .* has 'digital numbers'"):
        open_stac([item, other])


def test_a_degraded_dataset_is_not_described_as_an_image_of_sentinel_2(tmp_path):
    ds = scene()[["B05"]].assign_attrs(degradation="study", degradation_factor=2)
    paths = to_cog(ds, tmp_path)
    for given in (ds, None):
        with pytest.raises(
            OutputError, match=r"the Dataset was degraded by 2, so its pixels are not those of Sentinel-2"
        ):
            to_stac_item(given, paths)


def test_what_is_no_dataset_or_no_folder_is_refused(tmp_path):
    ds = scene()[["B05"]]
    with pytest.raises(GridError, match=r"to_cog needs a Dataset .* not a NoneType"):
        to_cog(None, tmp_path)
    with pytest.raises(GridError, match=r"to_cog needs a Dataset .* not a DataArray"):
        to_cog(ds["B05"], tmp_path)
    with pytest.raises(
        OutputError, match=r"x.tif names a file, and to_cog writes one file per band into a folder. Give"
    ):
        to_cog(ds, tmp_path / "x.tif")
    with pytest.raises(GridError, match=r"to_stac_item needs a Dataset .* not a DataArray"):
        to_stac_item(ds["B05"], tmp_path)
    with pytest.raises(OutputError, match=r"paths is a NoneType. Give what eosr.to_cog returned"):
        to_stac_item(ds, None)


@pytest.mark.parametrize(("epsg", "longitude"), [(32701, 180.0), (32660, 180.0), (32601, 180.0)])
def test_an_item_on_both_sides_of_180_degrees_is_two_polygons_and_is_found_on_both(tmp_path, epsg, longitude):
    """RFC 7946: cut at the antimeridian; west > east (sections 3.1.9 and 5.2)."""
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(longitude, -20.8 if epsg > 32700 else 66.8)
    left, top = x // 60 * 60 - 600, y // 60 * 60
    source = write_scene(tmp_path / "source", size=144, left=left, top=top, epsg=epsg).item(**{"s2:mgrs_tile": "01KAB"})
    made = deliver(eosr.open_stac(source, bands=["B02"]), tmp_path / "out", format="cog")
    item = json.loads(made.items[0].read_text())
    write_collection(tmp_path / "out" / "collection.json", made.items)
    west, south, east, north = item["bbox"]
    assert (179.9 < west < 180, -180 < east < -179.9, item["geometry"]["type"]) == (True, True, "MultiPolygon")
    (one,), (other,) = item["geometry"]["coordinates"]
    assert {max(lon for lon, _ in one), min(lon for lon, _ in other)} == {180, -180}
    for ring in (one, other):
        assert ring[0] == ring[-1]
        edges = itertools.pairwise(ring)
        assert sum(a[0] * b[1] - b[0] * a[1] for a, b in edges) > 0  # counterclockwise
    corners = Transformer.from_crs(epsg, 4326, always_xy=True).transform([left, left + 1440], [top, top])
    assert [(round(lon, 7), round(lat, 7)) in map(tuple, one + other) for lon, lat in zip(*corners, strict=True)] == [
        True
    ] * 2
    # Cut, and yet the ground it was: the parts together cover what the scene does.
    assert sum(area(ring, epsg) for ring in (one, other)) == pytest.approx(1440**2, rel=1e-3)
    for box in (
        (179.9, south, 179.9999, north),
        (-179.9999, south, -179.9, north),
        (179, south, -179, north),
        (179.5, south, 180.5, north),
        item["bbox"],
    ):
        assert [one["id"] for one in find_items(tmp_path / "out", bbox=box)] == [item["id"]], box
        assert eosr.open_stac(tmp_path / "out", bbox=box).sizes["x10"] >= 6
    for box in ((178, south, 179, north), (-179, south, -178, north), (-170, south, 170, north)):
        with pytest.raises(SourceError, match="no item found"):
            find_items(tmp_path / "out", bbox=box)
    assert find_items(tmp_path / "out", intersects=item["geometry"])
    assert list(box_of(item["geometry"])) == item["bbox"]
    projected = eosr.open_stac(tmp_path / "out", bbox=(left, top - 600, left + 1440, top), bbox_crs=f"EPSG:{epsg}")
    assert projected.sizes["x10"] == 144
    collection = json.loads((tmp_path / "out" / "collection.json").read_text())
    assert collection["extent"]["spatial"]["bbox"] == [item["bbox"]]


def area(ring, epsg):
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(*zip(*ring, strict=True))
    return abs(sum(a * d - c * b for a, b, c, d in zip(x, y, x[1:], y[1:], strict=False))) / 2


def test_stackstac_opens_the_item_as_json_has_it_without_being_told_the_crs(folder, item):
    for asset in item["assets"].values():
        asset["href"] = str(folder / asset["href"])
    cube = stackstac.stack([item], assets=["B05", "B8A"], dtype="float64", fill_value=np.nan, xy_coords=False)
    with rasterio.open(item["assets"]["B05"]["href"]) as file:
        assert (int(cube.epsg), cube.shape[2:]) == (file.crs.to_epsg(), file.shape)
        want = np.where(file.read(1) == 0, np.nan, file.read(1))
    np.testing.assert_array_equal(cube.sel(band="B05").values[0], want)
    with pytest.raises(OutputError, match=r"time='11\.06\.2023' is not a time"):
        to_stac_item(None, folder, time="11.06.2023", overwrite=True)
