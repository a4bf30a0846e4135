"""Where items come from: a real API server, static catalogues, files, pystac objects; and what is no source."""

import json

import numpy as np
import pystac
import pytest
from support.range_server import serve
from support.scenes import LEFT, TOP, lonlat_box, stac_api, write_scene

from eosr.errors import EosrWarning, SourceError
from eosr.open.catalogue.search import find_items
from eosr.open.stac import by_tile, open_stac


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Ten items (five days of two tiles, cloud cover 0..40 %) as dicts, item collection, static catalogue."""
    root = tmp_path_factory.mktemp("catalogue")
    scenes = [write_scene(root / "a", size=60), write_scene(root / "b", size=60, left=600000.0)]
    items = [
        scene.item(
            "v11", ident=f"{tile}_{day}", datetime=f"2023-06-{day:02}T10:15:00Z",
            **{"s2:mgrs_tile": tile, "eo:cloud_cover": float(day)},
        )
        for scene, tile in zip(scenes, ("32TQM", "32TPM"), strict=True)
        for day in (1, 11, 21, 30, 29)
    ]  # fmt: skip
    (root / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    extent = pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]]))
    top = pystac.Catalog("top", "a static catalogue")
    for name in ("sentinel-2-l2a", "other"):
        collection = pystac.Collection(name, name, extent, license="other")
        top.add_child(collection)
        if name == "sentinel-2-l2a":
            collection.add_items([pystac.Item.from_dict(item) for item in items])
    top.normalize_and_save(str(root / "static"), pystac.CatalogType.SELF_CONTAINED)
    return root


@pytest.fixture(scope="module")
def api(catalogue, tmp_path_factory):
    """A real API of the same items, whose images are served too."""
    path = tmp_path_factory.mktemp("served") / "items.json"
    with serve(catalogue) as server:
        path.write_text((catalogue / "items.json").read_text().replace(f'"{catalogue}', f'"{server.url}/ok'))
        with stac_api(path) as url:
            yield url


def sources(kind, catalogue, request):
    features = json.loads((catalogue / "items.json").read_text())["features"]
    return {
        "api": lambda: request.getfixturevalue("api"),
        "static": lambda: catalogue / "static" / "catalog.json",
        "file": lambda: str(catalogue / "items.json"),
        "dict": lambda: {"type": "FeatureCollection", "features": features},
        "list": lambda: features,
        "pystac items": lambda: [pystac.Item.from_dict(item) for item in features],
        "pystac collection": lambda: pystac.ItemCollection(features),
        "pystac catalogue": lambda: pystac.Catalog.from_file(str(catalogue / "static" / "catalog.json")),
    }[kind]()


KINDS = ["api", "static", "file", "dict", "list", "pystac items", "pystac collection", "pystac catalogue"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_opens_the_same_images(kind, catalogue, request):
    source = sources(kind, catalogue, request)
    ds = open_stac(
        source, collection="sentinel-2-l2a", datetime="2023-06-05/2023-06-29", max_cloud_cover=25,
        query={"s2:mgrs_tile": {"eq": "32TQM"}},
    )  # fmt: skip
    assert ds.attrs["item_ids"] == ["32TQM_11", "32TQM_21"]
    np.testing.assert_array_equal(ds["B02"].values[0], ds["B02"].values[1])
    assert int(ds["B02"].values.min()) > 0


@pytest.mark.parametrize("kind", ["api", "static"])
def test_bbox_searches_and_cuts(kind, catalogue, request):
    box = lonlat_box(LEFT + 100, TOP - 100, 20)
    ds = open_stac(sources(kind, catalogue, request), collection="sentinel-2-l2a", bbox=box, datetime="2023-06-01")
    assert ds.attrs["tile"] == "32TQM"
    assert ds.sizes["x60"] < 10


@pytest.mark.parametrize("kind", ["api", "static"])
def test_intersects_searches(kind, catalogue, request):
    west, south, east, north = lonlat_box(600100.0, TOP - 100, 20)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    found = find_items(
        sources(kind, catalogue, request),
        collection="sentinel-2-l2a",
        intersects={"type": "Polygon", "coordinates": [ring]},
    )
    assert list(by_tile(found)) == ["32TPM"]


@pytest.mark.parametrize("kind", ["api", "static", "list"])
def test_empty_search_says_what_was_searched(kind, catalogue, request):
    with pytest.raises(
        SourceError, match=r"no item found in .* with .*datetime='2020-01-01T.*'lte': 5.*Widen the search"
    ):
        open_stac(sources(kind, catalogue, request), collection="sentinel-2-l2a", datetime="2020-01", max_cloud_cover=5)


def test_cloud_cover_of_a_server_without_the_query_extension_is_filtered_here(api):
    found = find_items(api, collection="sentinel-2-l2a", max_cloud_cover=11)
    assert sorted(item["properties"]["eo:cloud_cover"] for item in found) == [1, 1, 11, 11]
    found = find_items(api, collection="sentinel-2-l2a", query=["eo:cloud_cover>20", "s2:mgrs_tile=32TPM"])
    assert sorted(item["id"] for item in found) == ["32TPM_21", "32TPM_29", "32TPM_30"]


def test_static_catalogue_over_http_with_relative_hrefs(catalogue):
    for path in (catalogue / "static").rglob("32T*.json"):
        item = json.loads(path.read_text())
        folder = "a" if "32TQM" in path.name else "b"
        for name, asset in item["assets"].items():
            asset["href"] = f"../../../{folder}/{name.split('_')[0]}.tif"
        path.write_text(json.dumps(item))
    with serve(catalogue) as server:
        ds = open_stac(f"{server.url}/ok/static/catalog.json", tile="32TPM", datetime="2023-06-11", bands=["B01"])
        assert int(ds["B01"].values.min()) > 0
        assert any(path == "/ok/b/B01.tif" for _, path, _ in server.requests)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "is no JSON .* so no STAC"),
        ('{"type": "Topology"}', "is no STAC: it holds 'Topology'"),
        ('{"type": "FeatureCollection", "features": []}', r"no item found in .* with no condition \(0 seen"),
        ('{"type": "Feature", "id": "x", "properties": {}, "assets": {}}', "item x has no properties"),
    ],
)
def test_file_that_is_no_stac_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        open_stac(path)


def test_source_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"cannot read .*nowhere.json.*Check the path or address"):
        open_stac(tmp_path / "nowhere.json")
    with pytest.raises(SourceError, match=r"cannot read http://127.0.0.1:9/.*Check the path or address"):
        open_stac("http://127.0.0.1:9/")
    with pytest.raises(SourceError, match=r"a int is no STAC source. Give a URL, a path"):
        open_stac(3)


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"datetime": "yesterday"}, "the search cannot be understood"),
        ({"max_cloud_cover": 140}, "max_cloud_cover=140 is no percentage"),
        ({"max_cloud_cover": "few"}, "max_cloud_cover='few' is no percentage. Use 0 to 100, e.g. 20"),
        ({"max_cloud_cover": True}, "max_cloud_cover=True is no percentage"),
        ({"query": ["cloudless"]}, r"query 'cloudless' is not NAME, one of .* Use e.g. 'eo:cloud_cover<10'"),
        ({"query": ["eo:cloud_cover<"]}, "query 'eo:cloud_cover<' is not NAME"),
        ({"query": ["eo:cloud_cover!=3"]}, "is not NAME, one of < <= > >= = <>, VALUE"),
        ({"query": 5}, "query=5 is neither a dict nor texts"),
        ({"query": {"eo:cloud_cover": 10}}, r"Use e.g. query=\{'eo:cloud_cover': \{'eq': 10\}\}"),
        ({"query": {"a": {"in": "x"}}}, "query operator 'in' of 'a' takes a list, not 'x'"),
        ({"query": {"a": {"startsWith": 3}}}, "takes a text, not 3"),
        ({"query": {"a": {"lt": [3]}}}, r"takes a number or a text, not \[3\]"),
        ({"query": ["proj:epsg<north"]}, "cannot be compared with 326.. *, which item"),
        ({"intersects": {"type": "GeometryCollection", "geometries": []}}, "Use one of Point, MultiPoint"),
        ({"intersects": {"type": "Polygon"}}, "intersects is a Polygon without coordinates. Use e.g. intersects="),
        ({"intersects": "here"}, "the search cannot be understood: intersects='here'.* Use e.g. intersects="),
        ({"bbox": (600000, 5100000, 601000, 5101000)}, r"metres .* say so: --bbox-crs item \(bbox_crs='item'\)"),
        ({"query": {"eo:cloud_cover": {"below": 3}}}, "query operator 'below' is unknown. Use one of eq, neq"),
    ],
)
def test_search_that_means_nothing_is_refused(written, search, message):
    with pytest.raises(SourceError, match=message):
        open_stac(written.item(), **search)


@pytest.mark.parametrize("bbox", ["here", "1,2,3", (1, 2, "x", 4), 7])
def test_a_bbox_that_is_not_four_numbers_is_refused(written, bbox):
    with pytest.raises(SourceError, match=r"is not four numbers: west, south, east, north \[degree\]. Use e.g. bbox="):
        find_items(written.item(), bbox=bbox)


def test_text_of_a_bbox_of_a_cloud_cover_and_of_one_query_is_read(catalogue):
    source = catalogue / "static" / "catalog.json"
    west, south, east, north = lonlat_box(600100.0, TOP - 100, 20)
    found = find_items(
        source, bbox=f"{west}, {south}, {east}, {north}", max_cloud_cover="11", query="eo:cloud_cover > 5"
    )
    assert [item["id"] for item in found] == ["32TPM_11"]


def test_an_item_with_an_odd_datetime_is_passed_over_and_named_where_it_is_the_only_one(written):
    odd, good = written.item(ident="odd"), written.item(ident="good")
    odd["properties"]["datetime"] = "last summer"
    year = good["properties"]["datetime"][:4]
    with pytest.warns(EosrWarning, match="1 of 2 items were left out, because they cannot be searched: item odd has"):
        assert [item["id"] for item in find_items([odd, good], datetime=year)] == ["good"]
    with pytest.raises(SourceError, match=r"item odd has datetime 'last summer', which is not ISO 8601"):
        find_items([odd], datetime=year)


def test_cloud_cover_that_no_item_states_is_said(written):
    item = written.item()
    item["properties"].pop("eo:cloud_cover", None)
    with pytest.raises(SourceError, match="None of them states eo:cloud_cover: leave max_cloud_cover away"):
        find_items(item, max_cloud_cover=100)


def test_a_folder_is_read_by_its_catalogue_or_asks_which_file(catalogue, tmp_path):
    assert find_items(catalogue / "static") == find_items(catalogue / "static" / "catalog.json")
    with pytest.raises(SourceError, match=r"holds no catalog.json. Name the file to open, e.g. .*items.json\."):
        find_items(catalogue)
    with pytest.raises(SourceError, match=r"holds no STAC: no .json"):
        find_items(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "S2A_MSIL2A_20230601T101031.SAFE",
            r"is a SAFE product, and no STAC\. Open it with eosr\.open_safe\('.*\.SAFE'\)",
        ),
        ("x/MTD_MSIL2A.xml", r"is a SAFE product, and no STAC\. Open it with eosr\.open_safe\('.*/MTD_MSIL2A\.xml'\)"),
        (
            "https://example.com/S2B.zarr",
            r"is an EOPF product, and no STAC\. Open it with eosr\.open_eopf\('https.*zarr'",
        ),
        ("sharpened.zarr", r"is a Zarr store, and no STAC\. Open one that eosr wrote with xr\.open_zarr\('.*sharpened"),
        ("B02.tif", r"B02.tif holds pixels, and no STAC. Give the .json of the STAC item that lists the file"),
        ("https://example.com/B02.jp2", "holds pixels"),
    ],
)
def test_an_image_or_a_product_as_source_is_answered_with_what_to_give(name, message):
    with pytest.raises(SourceError, match=message):
        open_stac(name)


def test_a_collection_of_an_api_is_searched_in_its_api(api):
    found = find_items(f"{api}/collections/sentinel-2-l2a", max_cloud_cover=11)
    assert sorted(item["id"] for item in found) == ["32TPM_1", "32TPM_11", "32TQM_1", "32TQM_11"]


def test_a_collection_that_does_not_say_where_its_api_is_asks_for_it():
    document = {"type": "Collection", "id": "s2", "links": [{"rel": "items", "href": "./items"}]}
    with pytest.raises(SourceError, match=r"collection 's2' does not hold its items.*collection='s2'"):
        find_items(document)
