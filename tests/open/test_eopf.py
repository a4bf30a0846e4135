"""EOPF Zarr products open as their STAC items would: native bands, offset, time and place; or one sentence."""

import pickle
import shutil
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
import zarr
from fsspec.registry import _registry
from support.range_server import serve

from eosr.cube.bands import BANDS, bands_of
from eosr.cube.grid import check_chunks, check_nested, crs_of
from eosr.errors import BandError, GridError, MissingExtraError, RadiometryError, SourceError
from eosr.open.eopf import store as eopf_store
from eosr.open.eopf.product import open_eopf
from eosr.open.safe.metadata import item_of
from eosr.open.stac import open_stac
from eosr.testing import never_compute

LEFT, TOP, SIZE = 699960, 5000040, 144
NAME = "S2B_MSI{level}_20230601T101559_N{baseline}_R065_T32TQM_20230601T121212"
R = "measurements/reflectance"


@dataclass
class Written:
    """A product on disk, the pixels it holds, and the keyword arguments it was written with."""

    path: Path
    pixels: dict[str, np.ndarray]
    facts: dict = field(default_factory=dict)

    def group(self, path=""):
        return zarr.open_group(self.path, path=path, mode="r+", use_consolidated=False)


def write_eopf(folder, *, level="L2A", version=3, baseline="05.09", offset=-0.1, nested=None, seed=0) -> Written:
    """Write a small product: native bands, coarser copies with other pixels, masks, and text that zarr warns of.

    ``offset`` is ``add_offset``, None for no CF attributes at all; ``nested`` puts them into ``_eopf_attrs`` and the
    grid into ``proj:*``, as EOPF-CPM 2 does; v3 stores state the CRS in ``stac_discovery`` alone.
    """
    nested = version == 2 if nested is None else nested
    name = NAME.format(level=level, baseline=baseline.replace(".", ""))
    path = Path(folder) / f"{name}.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.open_group(path, mode="w", zarr_format=version)
        properties = {
            "datetime": "2023-06-01T10:15:59.024000Z", "platform": "Sentinel-2B", "created": "2023-06-01T12:12:12Z",
            "product:type": f"S02MSI{level}", "processing:level": level, "processing:version": "1.0.0",
            "eopf:datatake_id": f"GS2B_20230601T101559_032574_N{baseline}",
            "eopf:datastrip_id": f"S2B_OPER_MSI_{level}_DS_2BPS_20230601T121212_S20230601T101604_N{baseline}",
        }  # fmt: skip
        properties |= {} if nested else {"proj:code": "EPSG:32632"}
        root.attrs["stac_discovery"] = {
            "type": "Feature", "id": f"{name}.SAFE" if nested else f"S02MSI{level}_20230601T101559_00000_B0065_T8BB",
            "properties": properties,
        }  # fmt: skip
        root.attrs["other_metadata"] = {
            "eopf_category": "eoproduct", "mean_sensing_time": "2023-06-01T10:16:04.698247Z", "ozone_value": 355.2,
            "horizontal_CRS_code" if nested else "horizontal_crs_code": "EPSG:32632",
        }  # fmt: skip
        put(root, "conditions/geometry/band", np.array([b"b01", b"b02"], "S3"), 2, {})
        pixels = {}
        for index, band in enumerate(bands_of(level)):
            for gsd in (10, 20, 60) if level == "L2A" else (BANDS[band].gsd,):
                if gsd < BANDS[band].gsd:
                    continue
                rng = np.random.default_rng([seed, index, gsd])
                image = rng.integers(1001, 9000, (SIZE * 10 // gsd,) * 2).astype(np.uint16)
                image[:2, :3] = 0
                stated = {} if offset is None else {"scale_factor": 0.0001, "add_offset": offset, "fill_value": 0}
                attrs = {"_eopf_attrs": stated, **stated, **projection(gsd)} if nested else stated
                put(root, f"{R}/r{gsd}m/{band.lower()}", image, 15 if gsd == 60 else 35, {"units": "DN", **attrs})
                if gsd == BANDS[band].gsd:
                    pixels[band] = image
        classes = np.random.default_rng(seed).integers(0, 12, (SIZE // 2,) * 2).astype(np.uint8)
        clouds = np.random.default_rng(seed).choice([0, 1, 2, 4, 128], (SIZE // 6,) * 2).astype(np.uint8)
        meanings = ["opaque", "cirrus", "snow_ice", "novalue"]
        if level == "L2A":
            put(root, "conditions/mask/l2a_classification/r20m/scl", classes, 30, {"scale_factor": 1, "add_offset": 0})
        put(
            root, "conditions/mask/l1c_classification/r60m/b00", clouds, 9,
            {"flag_masks": [1, 2, 4, 128], "flag_meanings": " ".join(meanings).upper() if nested else meanings},
        )  # fmt: skip
        coordinates(root, np.int64 if nested else np.float32)
        zarr.consolidate_metadata(path)
    pixels["SCL"] = classes
    pixels["cloud_mask"] = (
        np.isin(classes, [3, 8, 9, 10]) if level == "L2A" else np.isin(clouds, [1, 2]).repeat(3, 0).repeat(3, 1)
    )
    return Written(path, pixels, {"level": level, "baseline": baseline, "offset": offset})


def projection(gsd) -> dict:
    transform = [float(gsd), 0.0, float(LEFT), 0.0, -float(gsd), float(TOP), 0.0, 0.0, 1.0]
    return {"proj:epsg": 32632, "proj:transform": transform, "proj:shape": [SIZE * 10 // gsd] * 2}


def put(root, path, image, chunk, attrs) -> None:
    """An array with the names of its dimensions where its version of Zarr has them."""
    dims = ["y", "x"][-image.ndim :] if image.ndim == 2 else [path.rpartition("/")[2]]
    extra = {"dimension_names": dims} if root.metadata.zarr_format == 3 else {}
    array = root.create_array(path, shape=image.shape, dtype=image.dtype, chunks=(chunk,) * image.ndim, **extra)
    array[...] = image
    array.attrs.update(attrs if extra else {**attrs, "_ARRAY_DIMENSIONS": dims})


def coordinates(root, dtype, gsds=(10, 20, 60), shift=0) -> None:
    for gsd in gsds:
        steps = (np.arange(SIZE * 10 // gsd) + 0.5) * gsd
        for axis, values in (("x", LEFT + steps + shift), ("y", TOP - steps)):
            path = f"{R}/r{gsd}m/{axis}"
            if path in root:
                del root[path]
            put(root, path, values.astype(dtype), values.size, {})


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eopf")
    return {
        f"{level} v{version} {'old' if old else 'new'}": write_eopf(
            folder / f"{level}{version}{old}", level=level, version=version, baseline="02.14" if old else "05.09",
            offset=0 if old else -0.1,
        )
        for level in ("L1C", "L2A") for version in (2, 3) for old in (False, True)
    }  # fmt: skip


KINDS = [f"{level} v{version} {age}" for level in ("L1C", "L2A") for version in (2, 3) for age in ("new", "old")]


@pytest.fixture
def product(tmp_path):
    """A product that a test may damage; unconsolidated, so that what is changed counts."""
    written = write_eopf(tmp_path)
    unconsolidate(written.path)
    return written


def unconsolidate(path) -> None:
    (path / ".zmetadata").unlink(missing_ok=True)
    if (path / "zarr.json").exists():
        import json

        text = json.loads((path / "zarr.json").read_text())
        text.pop("consolidated_metadata", None)
        (path / "zarr.json").write_text(json.dumps(text))


def zipped(written, folder, *, inside=True) -> str:
    """Archive with the product's folder in it, or with its content at the top."""
    root, base = (written.path.parent, written.path.name) if inside else (written.path, None)
    return shutil.make_archive(str(folder / f"{written.path.name}"), "zip", root, base)


@pytest.mark.parametrize("kind", KINDS)
def test_native_bands_are_read_with_place_time_and_offset(kind, products):
    written = products[kind]
    with dask.config.set(scheduler=never_compute):
        ds = open_eopf(written.path)
    level, old = kind[:3], kind.endswith("old")
    assert list(ds.data_vars) == list(bands_of(level))
    for band in ds.data_vars:
        assert ds[band].dtype == np.uint16
        np.testing.assert_array_equal(ds[band].isel(time=0).values, written.pixels[band])
    assert (ds.attrs["level"], ds.attrs["platform"], ds.attrs["tile"]) == (level, "sentinel-2b", "32TQM")
    assert (ds.attrs["radiometric_offset"], ds.attrs["offset_policy"]) == (0 if old else -1000, "auto")
    assert ds.attrs["processing_baseline"] == ("02.14" if old else "05.09")
    assert str(ds.time.values[0])[:19] == "2023-06-01T10:16:04"
    assert (float(ds.x10[0]), float(ds.y10[0]), float(ds.x60[0])) == (LEFT + 5, TOP - 5, LEFT + 30)
    assert crs_of(ds).to_epsg() == 32632
    assert ds.attrs["item_ids"] == [written.path.stem]
    check_nested(ds)
    check_chunks(ds)


def test_the_dataset_is_the_one_that_the_item_of_the_product_gives(products):
    from eosr.open.eopf.product import _open, _read_product

    path = products["L2A v3 new"].path
    ours = open_eopf(path, chunks=72, offset=-1000)
    theirs = open_stac(item_of(_read_product(_open(path))[0]), chunks=72, offset=-1000)
    assert open_eopf(path).attrs["offset_source"] == "add_offset of the bands"
    assert (ours.attrs, dict(ours.sizes), list(ours.data_vars)) == (
        theirs.attrs, dict(theirs.sizes), list(theirs.data_vars)
    )  # fmt: skip
    xr.testing.assert_identical(ours.coords.to_dataset(), theirs.coords.to_dataset())
    for band in theirs.data_vars:
        assert (ours[band].chunks, ours[band].attrs) == (theirs[band].chunks, theirs[band].attrs)
        assert (ours[band].dims, ours[band].encoding) == (theirs[band].dims, theirs[band].encoding)


def test_it_equals_the_safe_product_of_the_same_pixels(tmp_path):
    from support.safe_product import write_safe

    from eosr.open.safe.product import open_safe

    path, pixels = write_safe(tmp_path, size=SIZE)
    safe = open_safe(path)
    written = write_eopf(tmp_path / "zarr")
    for band in safe.data_vars:
        written.group(f"{R}/r{BANDS[band].gsd}m")[band.lower()][...] = pixels[band]
    eopf = open_eopf(written.path)
    assert set(eopf.attrs) == set(safe.attrs)
    assert eopf.attrs["times"][0][:19] == safe.attrs["times"][0][:19]
    for band in safe.data_vars:
        assert (eopf[band].dims, eopf[band].dtype, eopf[band].attrs) == (
            safe[band].dims, safe[band].dtype, safe[band].attrs
        )  # fmt: skip
        np.testing.assert_array_equal(eopf[band].values, safe[band].values)


def test_it_sharpens_like_any_other(products):
    sharp = open_eopf(products["L2A v2 new"].path, masks=True).s2sr.superresolve(method="bicubic")
    assert sharp["B05"].shape == (1, SIZE, SIZE)
    assert sharp["B05"].isel(time=0).values.max() > 1000


@pytest.mark.parametrize("inside", [True, False], ids=["folder inside", "content at the top"])
@pytest.mark.parametrize("kind", ["L2A v2 new", "L1C v3 new"])
def test_a_zip_archive_is_read_without_being_unpacked(kind, inside, products, tmp_path):
    ds = open_eopf(zipped(products[kind], tmp_path, inside=inside), masks=True)
    np.testing.assert_array_equal(ds["B05"].isel(time=0).values, products[kind].pixels["B05"])
    np.testing.assert_array_equal(ds["cloud_mask"].isel(time=0).values, products[kind].pixels["cloud_mask"])
    assert ds.attrs["item_ids"] == [products[kind].path.stem]


@pytest.mark.parametrize("kind", ["L2A v2 new", "L1C v3 new"])
def test_an_address_is_read_over_http(kind, products):
    pytest.importorskip("aiohttp")
    written = products[kind]
    with serve(written.path.parent) as server:
        ds = open_eopf(f"{server.url}/ok/{written.path.name}/", bands=["B02", "B05"], masks=True)
        for band in ("B02", "B05", "cloud_mask"):
            np.testing.assert_array_equal(ds[band].isel(time=0).values, written.pixels[band])
        with pytest.raises(
            SourceError, match=r"is no Zarr store that can be read \(.*\)\. Name the root of an EOPF pr"
        ):
            open_eopf(f"{server.url}/404/{written.path.name}")


def test_a_remote_block_is_asked_for_again(products):
    pytest.importorskip("aiohttp")
    written = products["L2A v3 new"]
    with serve(written.path.parent) as server:
        ds = open_eopf(f"{server.url}/ok/{written.path.name}", bands=["B02"])
        opened = len(server.requests)
        server.mode = "500-once"
        np.testing.assert_array_equal(ds["B02"].isel(time=0).values, written.pixels["B02"])
        assert len(server.requests) - opened > 25


@pytest.mark.parametrize(
    ("address", "lacking", "said"),
    [
        ("http://127.0.0.1:9/x.zarr", "aiohttp", r"Run: pip install 'eosr\[eopf\]'$"),
        ("s3://bucket/x.zarr", "s3fs", r"Run: pip install s3fs$"),
    ],
)
def test_without_its_package_an_address_says_what_to_install(address, lacking, said, monkeypatch):
    monkeypatch.setitem(sys.modules, lacking, None)
    monkeypatch.delitem(_registry, address.partition(":")[0], raising=False)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    with pytest.raises(MissingExtraError, match=said):
        open_eopf(address)


# ---------------------------------------------------------------------------------------------------------- laziness


@pytest.mark.parametrize("chunks", [6, 36, 66, None])
def test_pixels_do_not_depend_on_the_chunks(chunks, products):
    written = products["L1C v3 new"]
    ds = open_eopf(written.path, chunks=chunks, masks=True)
    check_chunks(ds)
    if chunks:
        assert [ds[band].chunks[-1][0] for band in ("B02", "B05", "B09")] == [chunks, chunks // 2, chunks // 6]
    assert ds["cloud_mask"].chunks == ds["B05"].chunks
    for name in ds.data_vars:
        np.testing.assert_array_equal(ds[name].isel(time=0).values, written.pixels[name])


def test_every_chunk_of_the_store_is_read_once_in_a_computation(products, monkeypatch):
    windows, real = [], eopf_store.read

    def seen(array, window, *rest):
        windows.append((array.basename, *((one.start, one.stop) for one in window)))
        return real(array, window, *rest)

    monkeypatch.setattr(eopf_store, "read", seen)
    monkeypatch.setattr(eopf_store, "BLOCK", 35)
    ds = open_eopf(products["L2A v3 new"].path, bands=["B02"], chunks=66)
    windows.clear()
    ds.compute()
    assert sorted(windows) == sorted(set(windows))
    assert len(windows) == 25
    assert {edge for _, rows, _ in windows for edge in rows} <= {0, 35, 70, 105, 140, SIZE}


def test_sharded_bands_are_read_by_their_inner_chunks(product, monkeypatch):
    root = product.group()
    del root[f"{R}/r10m/b02"]
    image = product.pixels["B02"]
    array = root.create_array(f"{R}/r10m/b02", shape=image.shape, dtype="uint16", chunks=(48, 48), shards=(144, 144))
    array[...] = image
    monkeypatch.setattr(eopf_store, "BLOCK", 48)
    ds = open_eopf(product.path, bands=["B02"], chunks=36)
    np.testing.assert_array_equal(ds["B02"].isel(time=0).values, image)
    assert ds.attrs["offset_source"] == "processing baseline 05.09"


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_the_dataset_can_be_sent_to_another_process(archive, products, tmp_path):
    written = products["L2A v3 new"]
    path = zipped(written, tmp_path) if archive else written.path
    there = pickle.loads(pickle.dumps(open_eopf(path, bands=["B09"], masks=True)))
    np.testing.assert_array_equal(there["B09"].isel(time=0).values, written.pixels["B09"])


def test_opening_warns_of_nothing(products):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", PendingDeprecationWarning)  # stackstac and affine 3
        for kind in KINDS:
            open_eopf(products[kind].path, masks=True)


def test_the_graph_is_named_after_the_product_alone(products):
    path = products["L2A v3 new"].path
    first, second = open_eopf(path)["B02"], open_eopf(path)["B02"]
    assert first.data.name == second.data.name
    assert first.data.name != open_eopf(products["L2A v2 new"].path)["B02"].data.name


def test_a_window_is_that_of_open_stac(products):
    from eosr.open.eopf.product import _open, _read_product

    written = products["L2A v3 new"]
    box = {"bbox": (LEFT + 130, TOP - 900, LEFT + 700, TOP - 310), "bbox_crs": "item"}
    ds = open_eopf(written.path, chunks=36, masks=True, **box)
    theirs = open_stac(item_of(_read_product(_open(written.path))[0]), chunks=36, **box)
    assert ds["B05"].chunks == theirs["B05"].chunks == ds["SCL"].chunks
    xr.testing.assert_identical(ds["x60"], theirs["x60"])
    for name, step in (("B02", 6), ("B05", 3), ("SCL", 3), ("B09", 1)):
        expected = written.pixels[name][5 * step : 15 * step, 2 * step : 12 * step]
        np.testing.assert_array_equal(ds[name].isel(time=0).values, expected)
    with pytest.raises(GridError, match=r"lies outside the scene S2B_MSIL2A_.*Choose a bbox within"):
        open_eopf(written.path, bbox=(0, 0, 1, 1))


def test_a_window_may_be_given_in_degrees(products):
    from pyproj import Transformer

    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    box = to_degrees.transform_bounds(LEFT + 300, TOP - 900, LEFT + 600, TOP - 600)
    assert 5 <= open_eopf(products["L2A v3 new"].path, bbox=box).sizes["x60"] <= 8


# ------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("kind", KINDS)
def test_masks_lie_on_the_20_m_grid(kind, products):
    written = products[kind]
    ds = open_eopf(written.path, bands=["B02"], masks=True)
    assert set(ds.data_vars) == {"B02", "cloud_mask"} | ({"SCL"} if kind.startswith("L2A") else set())
    for name in set(ds.data_vars) - {"B02"}:
        assert ds[name].dims == ("time", "y20", "x20")
        assert ds[name].encoding["grid_mapping"] == "spatial_ref20"
        np.testing.assert_array_equal(ds[name].isel(time=0).values, written.pixels[name])
    assert ds["cloud_mask"].dtype == bool
    assert 0 < written.pixels["cloud_mask"].sum() < written.pixels["cloud_mask"].size


def test_a_mask_that_is_named_must_be_there_and_cover_the_bands(products, product):
    with pytest.raises(SourceError, match=r"\(L1C\) has no pixels for the mask SCL\. Use masks=True"):
        open_eopf(products["L1C v3 new"].path, masks="SCL")
    with pytest.raises(BandError, match="'clouds' is no mask eosr knows"):
        open_eopf(product.path, masks=["clouds"])
    root = product.group()
    del root["conditions/mask/l2a_classification/r20m/scl"]
    put(root, "conditions/mask/l2a_classification/r20m/scl", np.zeros((24, 24), np.uint8), 12, {})
    with pytest.raises(GridError, match=r"scl of .* does not cover the 20 m bands\. Open it without masks"):
        open_eopf(product.path, masks=True)


# ------------------------------------------------------------------------------------------------------------ offset


def test_the_offset_can_be_overruled_and_bands_chosen(products):
    ds = open_eopf(products["L2A v3 new"].path, bands=["B05", "B02"], offset=0)
    assert (list(ds.data_vars), ds.attrs["radiometric_offset"]) == (["B05", "B02"], 0)
    assert open_eopf(products["L2A v3 new"].path, offset="none").attrs["offset_policy"] == "none"


def test_an_offset_that_is_not_minus_1000_is_that_of_the_bands(tmp_path):
    ds = open_eopf(write_eopf(tmp_path, offset=-0.09).path)
    assert (ds.attrs["radiometric_offset"], ds.attrs["offset_source"]) == (-900, "add_offset of the bands")


@pytest.mark.parametrize(("baseline", "offset"), [("05.11", -1000), ("02.14", 0)])
def test_where_bands_state_no_offset_the_baseline_tells(baseline, offset, tmp_path):
    ds = open_eopf(write_eopf(tmp_path, baseline=baseline, offset=None).path)
    assert (ds.attrs["radiometric_offset"], ds.attrs["offset_source"]) == (offset, f"processing baseline {baseline}")


@pytest.mark.parametrize(
    ("baseline", "stated", "said"),
    [
        ("05.11", 0, r"B01 of .* states an offset of 0 DN, and processing baseline 05\.11 means -1000\. Look at dark"),
        (
            "02.14",
            -0.1,
            r"states an offset of -1000 DN, and processing baseline 02\.14 means 0\. .* offset=-1000 or off",
        ),
    ],
)
def test_a_baseline_that_contradicts_the_bands_is_an_error(baseline, stated, said, tmp_path):
    path = write_eopf(tmp_path, baseline=baseline, offset=stated).path
    with pytest.raises(RadiometryError, match=said):
        open_eopf(path)
    assert open_eopf(path, offset=-1000).attrs["radiometric_offset"] == -1000


@pytest.mark.parametrize("stated", [-900, "-900", [-900, -900], 0])
def test_other_metadata_that_contradict_the_bands_are_an_error(stated, product):
    root = product.group()
    other = {**root.attrs["other_metadata"], "product": {"BOA_ADD_OFFSET": stated, "band_id": 3}}
    root.attrs["other_metadata"] = other
    with pytest.raises(
        RadiometryError, match=r"states an offset of -1000 DN, and other_metadata state (-900|0)\. Look"
    ):
        open_eopf(product.path)
    root.attrs["other_metadata"] = {**other, "product": {"RADIO_ADD_OFFSET": [-1000, "-1000"]}}
    assert open_eopf(product.path).attrs["radiometric_offset"] == -1000


def test_bands_that_contradict_each_other_or_themselves_are_an_error(product):
    band = product.group(f"{R}/r20m")["b05"]
    band.attrs["add_offset"] = 0.0
    with pytest.raises(RadiometryError, match=r"B05 of .* states an offset of 0 DN, and processing baseline"):
        open_eopf(product.path)
    assert open_eopf(product.path, bands=["B02"]).attrs["radiometric_offset"] == -1000
    band.attrs["_eopf_attrs"] = {"add_offset": -0.1}
    with pytest.raises(
        RadiometryError, match=r"B05 of .* states an offset of -1000 DN, and its other add_offset is 0\.0\. Look"
    ):
        open_eopf(product.path)
    assert open_eopf(product.path, offset=-1000).attrs["radiometric_offset"] == -1000
    band.attrs.update({"add_offset": -0.09, "_eopf_attrs": {}})
    with pytest.raises(RadiometryError, match=r"declare different offsets: .*-900 DN \(B05\)"):
        open_eopf(product.path)


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        ({"scale_factor": 0.001}, r"b02 of .* has scale_factor 0\.001; eosr knows 1 / 10000\. Get the"),
        ({"fill_value": 65535}, r"b02 of .* marks nodata by 65535; eosr knows 0\. Get the product again"),
    ],
)
def test_numbers_that_mean_something_else_are_an_error(attrs, said, product):
    product.group(f"{R}/r10m")["b02"].attrs.update(attrs)
    with pytest.raises(RadiometryError, match=said):
        open_eopf(product.path)


def test_reflectance_is_not_taken_for_digital_numbers(product):
    root = product.group()
    del root[f"{R}/r10m/b02"]
    put(root, f"{R}/r10m/b02", np.full((SIZE, SIZE), 0.3, np.float32), 35, {})
    with pytest.raises(
        RadiometryError, match=r"holds float32 pixels, not digital numbers \(uint16\)\. Use the original"
    ):
        open_eopf(product.path)


# ------------------------------------------------------------------------------------------------------------ errors


def test_what_is_no_store_is_an_error(tmp_path, product):
    with pytest.raises(SourceError, match=r"there is no .*nowhere\.zarr\. Name the \.zarr folder of an EOPF product"):
        open_eopf(tmp_path / "nowhere.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty is no Zarr store that can be read .* the folder that ends in \.zarr"):
        open_eopf(tmp_path / "empty")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(
        SourceError, match=r"text\.zip is neither a folder nor a whole zip archive\. Get the product ag"
    ):
        open_eopf(tmp_path / "text.zip")
    with pytest.raises(
        SourceError, match=r"r10m is a Zarr store without stac_discovery, so it is no EOPF product\. Na"
    ):
        open_eopf(product.path / R / "r10m")


def test_a_store_that_eosr_wrote_is_pointed_elsewhere(products, tmp_path):
    store = open_eopf(products["L2A v3 new"].path, bands=["B02"]).s2sr.to_zarr(tmp_path / "out.zarr")
    with pytest.raises(SourceError, match=r"no EOPF product\. .* use xr\.open_zarr\(path, decode_coords='all'\)"):
        open_eopf(store)


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        (
            {"product:type": "S03OLCEFR"},
            r"is of type 'S03OLCEFR'; eosr reads S02MSIL1C \(L1C\) and S02MSIL2A \(L2A\)\. G",
        ),
        ({"product:type": "null", "processing:level": "L1B"}, r"is of type 'L1B'; eosr reads"),
        ({"product:type": None, "processing:level": None}, r"is of type 'unknown'; eosr reads"),
        ({"proj:code": "EPSG:32633"}, r"says that it lies in EPSG:32632 \(other_metadata\) and EPSG:32633 \(stac_disc"),
        ({"proj:code": "UTM"}, r"states a CRS that is none: .*\. Get the product again"),
        ({"datetime": None, "other": {"mean_sensing_time": "null"}}, "has no datetime"),
        (
            {"proj:code": None, "other": {"horizontal_crs_code": None}},
            r"states no proj:code, proj:epsg or horizontal_c",
        ),
    ],
)
def test_attributes_that_do_not_tell_are_an_error(properties, said, product):
    root = product.group()
    other = properties.pop("other", {})
    stac = root.attrs["stac_discovery"]
    root.attrs["stac_discovery"] = {**stac, "properties": {**stac["properties"], **properties}}
    root.attrs["other_metadata"] = {**root.attrs["other_metadata"], **other}
    with pytest.raises(SourceError, match=said):
        open_eopf(product.path)


def test_the_crs_may_stand_in_the_grid_mapping_alone(product):
    from pyproj import CRS

    root = product.group()
    root.attrs["other_metadata"] = {}
    stac = root.attrs["stac_discovery"]
    del stac["properties"]["proj:code"]
    root.attrs["stac_discovery"] = stac
    array = root.create_array(f"{R}/r10m/spatial_ref", shape=(), dtype="int64")
    array.attrs["crs_wkt"] = CRS.from_epsg(32632).to_wkt()
    ds = open_eopf(product.path)
    assert crs_of(ds).to_epsg() == 32632
    assert str(ds.time.values[0])[:19] == "2023-06-01T10:15:59"


def test_a_renamed_store_keeps_its_baseline_and_loses_its_tile(product):
    moved = product.path.rename(product.path.with_name("scene.zarr"))
    ds = open_eopf(moved)
    assert (ds.attrs["processing_baseline"], ds.attrs["tile"]) == ("05.09", "")
    assert ds.attrs["item_ids"] == ["S02MSIL2A_20230601T101559_00000_B0065_T8BB"]


def test_a_band_or_a_group_that_is_missing_is_an_error(product):
    root = product.group()
    del root[f"{R}/r20m/b05"]
    with pytest.raises(BandError, match=r"B05 at its native pixel size\. It has B01, .*; to go without: bands=\["):
        open_eopf(product.path)
    assert "B05" not in open_eopf(product.path, bands=["B02", "B06"])
    del root[f"{R}/r20m"]
    with pytest.raises(BandError, match="B05, B06, B07, B8A, B11, B12"):
        open_eopf(product.path)
    assert set(open_eopf(product.path, bands=["B02", "B01"]).sizes) == {"time", "y10", "x10", "y60", "x60"}
    with pytest.raises(BandError, match="B10"):
        open_eopf(product.path, bands=["B10"])
    del root[R]
    with pytest.raises(SourceError, match=r"holds no band where an EOPF product does, e\.g\. measurements/reflecta"):
        open_eopf(product.path)


def test_grids_that_do_not_nest_or_are_not_as_stated_are_errors(product):
    root = product.group()
    coordinates(root, np.int64, gsds=(20,), shift=10)
    with pytest.raises(
        GridError, match=r"r20m/x of .* starts at 699980, which is no centre of a 20 m pixel, so its grid does not nest"
    ):
        open_eopf(product.path)
    coordinates(root, np.int64, gsds=(20,))
    coordinates(root, np.int64, gsds=(10,), shift=-5)  # corners, not centres
    with pytest.raises(GridError, match=r"r10m/x of .* starts at 699960, which is no centre of a 10 m pixel"):
        open_eopf(product.path)
    coordinates(root, np.int64, gsds=(10,))
    root[f"{R}/r10m/b02"].attrs["proj:transform"] = [10.0, 0.0, LEFT + 10.0, 0.0, -10.0, float(TOP)]
    with pytest.raises(
        GridError, match=r"b02 of .* starts at \(699970, 5000040\) by its proj:transform, and at \(699960"
    ):
        open_eopf(product.path)
    root[f"{R}/r10m/b02"].attrs["proj:transform"] = None
    root[f"{R}/r60m/x"][3] = 0
    with pytest.raises(GridError, match=r"r60m/x of .* is not spaced by 60 m, as its group says"):
        open_eopf(product.path)
    del root[f"{R}/r60m/x"]
    with pytest.raises(
        SourceError, match=r"has no coordinates measurements/reflectance/r60m/x\. Get the product again"
    ):
        open_eopf(product.path)


def test_an_array_that_is_smaller_than_its_grid_is_an_error(product):
    root = product.group()
    del root[f"{R}/r10m/b02"]
    put(root, f"{R}/r10m/b02", np.ones((SIZE, SIZE - 6), np.uint16), 35, {})
    with pytest.raises(GridError, match=r"b02 of .* has the shape \(144, 138\), its coordinates say \(144, 144\)"):
        open_eopf(product.path)


def test_a_damaged_chunk_is_an_error_that_names_the_band(product):
    ds = open_eopf(product.path)
    (product.path / R / "r10m" / "b03" / "c" / "1" / "1").write_bytes(b"\x28\xb5\x2f\xfd damaged")
    with pytest.raises(
        SourceError, match=r"cannot read .*/measurements/reflectance/r10m/b03: .*Check that the product"
    ):
        ds["B03"].compute()
    np.testing.assert_array_equal(ds["B02"].isel(time=0).values, product.pixels["B02"])


def test_chunks_must_be_a_multiple_of_6(product):
    with pytest.raises(GridError, match="chunks=100 is not a multiple of 6"):
        open_eopf(product.path, chunks=100)
