"""Odd items, of tables, of other programs, damaged: the right Dataset, or a sentence."""

import contextlib
import copy
import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest
from support.scenes import write_scene

from eosr.cube.times import moment
from eosr.errors import EosrError, EosrWarning, SourceError
from eosr.open.catalogue.search import find_items
from eosr.open.items import read_item
from eosr.open.stac import of_tile, open_stac

ODD = [None, "text", "", 5, -1.5, float("nan"), True, [], [5], [None], {}, {"a": 1}, {"a": None}, np.ones(2), object()]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("odd"), size=36)


@pytest.mark.parametrize(
    ("stated", "time"),
    [
        ("2022-09-03T10:32:02.517000Z", "2022-09-03T10:32:02.517"),
        ("2022-09-03T10:32:02.5Z", "2022-09-03T10:32:02.5"),
        ("2022-09-03T12:32:02.517123456+02:00", "2022-09-03T10:32:02.517123"),
        ("2023-06-01T10:20:05", "2023-06-01T10:20:05"),
        ("2023-06-01 10:20:05+00:00", "2023-06-01T10:20:05"),
        ("2023-06-01t10:20:05z", "2023-06-01T10:20:05"),
        ("2023-06-01T10:20Z", "2023-06-01T10:20"),
        ("2023-06-01T10Z", "2023-06-01T10"),
        ("2023-06-06", "2023-06-06"),
        ("2023-06-06Z", "2023-06-06"),
        ("20230601T102000Z", "2023-06-01T10:20"),
        (dt.datetime(2023, 6, 1, 12, 20, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2023-06-01T10:20"),
        (pd.Timestamp("2023-06-01T10:20Z"), "2023-06-01T10:20"),
        (np.datetime64("2023-06-01T10:20"), "2023-06-01T10:20"),
    ],
)
def test_a_time_of_any_form_of_iso_8601_is_the_same(small, stated, time):
    other = small.item(ident="other", datetime="2021-06-01T10:20:05.25Z")
    ds = open_stac([small.item(datetime=stated), other], bands=["B01"])
    assert list(ds.time.values) == [np.datetime64("2021-06-01T10:20:05.25"), np.datetime64(time)]
    np.testing.assert_array_equal(ds["B01"].values[1], small.pixels["B01"])


@pytest.mark.parametrize(
    "stated",
    [
        "11.06.2023", "06/11/2023", "Thu Jun 01 2023", "2023-13-01", "2023-02-30", "2023", "2023-06", "1685614800",
        1685614800, "2023-06-01T25:00Z", "20230601102000", "0001-01-01", "9999-12-31T23:59:59Z",
        "2023-06-01/2023-06-02",
        "last summer", ["2023-06-01"], {"a": 1},
    ],
)  # fmt: skip
def test_what_is_not_a_time_is_a_sentence_that_names_the_item(small, stated):
    item = small.item(ident="strange", datetime=stated)
    with pytest.raises(SourceError, match=r"item strange has datetime .*(not ISO 8601. Write it so|one value)"):
        open_stac(item)
    if isinstance(stated, str | int):
        with pytest.raises(ValueError, match=r"not (ISO|of a time)|range|month|hour|format"):
            moment(stated)


def test_an_item_of_a_table_is_read_as_the_one_of_json(small):
    """Geoparquet by way of pandas: lists are numpy arrays, what an item lacks is null, integers are floats."""
    item = small.item()
    table = copy.deepcopy(item)
    table["properties"] |= {"proj:epsg": float(small.epsg), "start_datetime": pd.NaT, "s2:product_uri": np.nan}
    table["bbox"], table["links"] = np.array(item["bbox"]), np.array([])
    table["assets"]["preview"] = None
    for asset in table["assets"].values():
        if asset is not None:
            asset["proj:shape"], asset["proj:transform"] = map(np.array, (asset["proj:shape"], asset["proj:transform"]))
            asset["roles"] = np.array(asset["roles"])
            lists = {key: np.array(asset[key], dtype=object) for key in ("eo:bands", "raster:bands") if key in asset}
            asset |= {"alternate": None, "bands": np.nan} | lists
    assert read_item(table) == read_item(item)
    assert open_stac(table).identical(open_stac(item))


def test_an_asset_that_is_null_is_none_and_the_band_is_missed_where_it_is_one(small):
    item = small.item()
    item["assets"]["preview"] = None
    assert set(open_stac(item).data_vars) == set(small.pixels)
    item["assets"]["B05"] = None
    with pytest.raises(EosrError, match=r"S2A_32TQM_20230601_0_L2A has no asset with B05"):
        open_stac(item)
    item["assets"]["B05"] = "B05.tif"
    with pytest.raises(SourceError, match=r"B05 'B05.tif', where STAC has an object. Correct the item"):
        open_stac(item)


def places(value, path=()):
    """Path of every value within an item."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def put(item, path, value):
    """Copy of an item with another value at a place."""
    if not path:
        return value
    odd = copy.deepcopy(item)
    part = odd
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return odd


@pytest.mark.parametrize("dialect", ["legacy", "v11"])
def test_whatever_one_value_of_an_item_is_it_is_read_or_refused_in_a_sentence(small, dialect):
    item = small.item(dialect)
    item["assets"] = {key: one for key, one in item["assets"].items() if key[:3] in ("B02", "B05")}
    next(iter(item["assets"].values()))["alternate"] = {"s3": {"href": "s3://bucket/B02.tif"}}
    item["properties"]["s2:datatake_id"] = "GS2A_20239999T999999_041500_N05.09"
    box = {"bbox": (-180, -90, 180, 90), "datetime": "2023", "query": ["eo:cloud_cover<90"]}
    for path in places(item):
        for value in ODD:
            odd = put(item, path, value)
            try:
                found = read_item(odd, bands=["B02"], prefer="s3")
            except EosrError:
                found = None
            assert found is None or found.assets["B02"].gsd == 10, (path, value)
            if path[:1] != ("assets",):
                with contextlib.suppress(EosrError):
                    find_items(odd, **box)


def test_a_search_says_which_items_it_could_not_compare(small):
    good, odd = small.item(ident="good"), small.item(ident="odd") | {"bbox": ["west", None]}
    with pytest.warns(EosrWarning, match=r"1 of 2 items were left out, because they cannot be searched: item odd"):
        found = find_items(
            {"type": "FeatureCollection", "features": [good, odd]},
            datetime="2023",
            intersects={"type": "Point", "coordinates": good["bbox"][:2]},
        )
    assert [item["id"] for item in found] == ["good"]


def test_items_that_cannot_be_read_stay_with_those_of_the_tile(small):
    good, odd = small.item(ident="good"), small.item(ident="odd") | {"assets": None}
    assert [item["id"] for item in of_tile([odd, good, small.item(**{"s2:mgrs_tile": "32TPM"})], "32TQM")] == [
        "odd",
        "good",
    ]
    json.dumps(find_items([good]))
