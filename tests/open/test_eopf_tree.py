"""A DataTree or a Zarr group of an EOPF product gives the Dataset that its path gives."""

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from eosr.errors import GridError, RadiometryError, SourceError
from eosr.open.eopf.product import open_eopf
from eosr.open.eopf.tree import _undone
from eosr.testing import never_compute
from open.test_eopf import R, write_eopf, zipped

pytestmark = pytest.mark.filterwarnings("ignore:The data type:FutureWarning", "ignore:.*Zarr V3 specification")


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    return {
        (level, version): write_eopf(tmp_path_factory.mktemp("trees"), level=level, version=version)
        for level in ("L1C", "L2A") for version in (2, 3)
    }  # fmt: skip


def tree_of(path, **options) -> xr.DataTree:
    return xr.open_datatree(path, engine="zarr", **{"chunks": {}, **options})


@pytest.mark.parametrize("options", [{}, {"chunks": None}, {"mask_and_scale": False}, {"decode_cf": False}], ids=str)
@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_a_tree_gives_what_its_path_gives(level, version, options, products):
    path = products[level, version].path
    expected = open_eopf(path, masks=True)
    with dask.config.set(scheduler=never_compute):
        ds = open_eopf(tree_of(path, **options), masks=True)
    xr.testing.assert_identical(ds, expected)
    assert {name: ds[name].chunks for name in ds} == {name: expected[name].chunks for name in expected}
    assert {name: ds[name].dtype for name in ds} == {name: expected[name].dtype for name in expected}
    assert {name: ds[name].encoding for name in ds} == {name: expected[name].encoding for name in expected}


def test_numbers_that_decoding_masks_come_back(products):
    """Zarr v2: 0 is NaN in the tree. All pixels of a band: the first ones are nodata."""
    written = products["L2A", 2]
    tree = tree_of(written.path)
    assert np.isnan(tree[f"{R}/r10m/b02"].values[0, 0])
    assert written.pixels["B02"][0, 0] == 0
    np.testing.assert_array_equal(open_eopf(tree)["B02"].isel(time=0).values, written.pixels["B02"])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [-0.1, 0.0])
@pytest.mark.parametrize("fill", [None, 0])
def test_every_number_of_16_bits_survives_decoding(kind, offset, fill):
    """By xarray's own decoding, in both of its kinds of float."""
    numbers = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    attrs = {"scale_factor": kind(0.0001), "add_offset": kind(offset)} | ({} if fill is None else {"_FillValue": fill})
    decoded = xr.decode_cf(xr.Dataset({"a": (("y", "x"), numbers, attrs)}))["a"]
    assert decoded.dtype == kind
    assert bool(np.isnan(decoded[0, 0])) == (fill is not None)
    undone = _undone(
        decoded.values, to=numbers.dtype, scale=float(attrs["scale_factor"]), offset=float(attrs["add_offset"]),
        fill=fill, what="a",
    )  # fmt: skip
    np.testing.assert_array_equal(undone, numbers)


def test_a_window_and_a_choice_of_bands_are_those_of_the_path(products):
    path = products["L2A", 3].path
    asked = {"bands": ["B05", "B02"], "bbox": (700090, 4999140, 700660, 4999730), "bbox_crs": "item", "chunks": 36}
    xr.testing.assert_identical(open_eopf(tree_of(path), **asked), open_eopf(path, **asked))


def test_the_graph_of_a_tree_is_named_the_same_when_it_is_opened_again(products):
    path = products["L2A", 3].path
    names = {open_eopf(tree_of(path))["B02"].data.name for _ in range(2)}
    assert len(names) == 1


def test_a_tree_from_memory_needs_no_source(products):
    """As made by hand, or by another reader: no encoding of the root."""
    written = products["L2A", 3]
    tree = xr.DataTree.from_dict({
        path: node.to_dataset().load() for path, node in tree_of(written.path, mask_and_scale=False).subtree_with_keys
    })  # fmt: skip
    tree.encoding = {}
    ds = open_eopf(tree)
    assert ds.attrs["item_ids"] == ["S02MSIL2A_20230601T101559_00000_B0065_T8BB"]
    np.testing.assert_array_equal(ds["B05"].isel(time=0).values, written.pixels["B05"])


def test_pixels_that_were_changed_in_the_tree_are_an_error(products):
    tree = tree_of(products["L2A", 3].path)
    node = tree[f"{R}/r10m"]
    node["b02"] = node["b02"].copy(data=node["b02"].data + 0.00003)
    ds = open_eopf(tree)
    with pytest.raises(RadiometryError, match=r"r10m/b02 of .* holds 0\.\d+, which is no digital number times 0\.0001"):
        ds["B02"].compute()
    node["b02"] = node["b02"] * 2
    with pytest.raises(RadiometryError, match=r"b02 of .* has lost how they were encoded.*mask_and_scale=False\)\.$"):
        open_eopf(tree)


def test_a_tree_that_was_cut_says_to_cut_by_bbox(products):
    with pytest.raises(GridError, match=r"by its coordinates\. Hand the tree over as xarray opened it; bbox= cuts a"):
        open_eopf(tree_of(products["L2A", 2].path).isel(x=slice(6, 24), y=slice(6, 24)))


def test_a_branch_of_a_tree_is_no_product(products):
    with pytest.raises(SourceError, match=r"without stac_discovery, so it is no EOPF product\. Name the root"):
        open_eopf(tree_of(products["L2A", 3].path)["measurements"])


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_a_group_gives_what_its_path_gives(archive, products, tmp_path):
    path = products["L2A", 3].path
    group = zarr.open_group(path, mode="r")
    if archive:
        group = zarr.open_group(zarr.storage.ZipStore(zipped(products["L2A", 3], tmp_path)), path=path.name, mode="r")
    xr.testing.assert_identical(open_eopf(group, masks=True), open_eopf(path, masks=True))


def test_trees_and_groups_over_http(products):
    pytest.importorskip("aiohttp")
    from support.range_server import serve

    written = products["L2A", 3]
    with serve(written.path.parent) as server:
        url = f"{server.url}/ok/{written.path.name}"
        for source in (tree_of(url), zarr.open_group(url, mode="r")):
            ds = open_eopf(source, bands=["B02"])
            np.testing.assert_array_equal(ds["B02"].isel(time=0).values, written.pixels["B02"])
            assert ds.attrs["item_ids"] == [written.path.stem]
        server.mode = "500-once"
        np.testing.assert_array_equal(ds["B02"].isel(time=0).values, written.pixels["B02"])
        server.mode = "500"
        with pytest.raises(SourceError, match=r"^cannot read http.*r10m/b02: HTTP status 500"):
            ds["B02"].compute()


@pytest.mark.parametrize("source", [None, 3, xr.Dataset(), b"x.zarr"], ids=lambda one: type(one).__name__)
def test_anything_else_is_an_error(source):
    with pytest.raises(
        SourceError, match=r"source is of type \w+, which is no EOPF product\. Give the path or address"
    ):
        open_eopf(source)
