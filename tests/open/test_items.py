"""Items of every dialect: the 41 real ones against a table read off them by hand, and what is refused."""

import copy
import json

import dask
import pytest
from support.scenes import shared_path

from eosr.cube.bands import BANDS, bands_of
from eosr.errors import BandError, GridError, RadiometryError, SourceError
from eosr.open.catalogue.search import find_items
from eosr.open.items import band_of, read_item, tile_of
from eosr.open.stac import open_stac

C1 = "pystac-client_recorded/earth-search__sentinel-2-c1-l2a__S2B_T{}_20250731T{}_L2A.json"
L1C = "pystac-client_recorded/earth-search__sentinel-2-l1c__S2B_{}_20250731_0_L1C.json"
L2A = "pystac-client_recorded/earth-search__sentinel-2-l2a__S2B_{}_20250731_0_L2A.json"
PC = "pystac-client_recorded/planetarycomputer__sentinel-2-l2a__S2A_MSIL2A_20190101T000001_R116_T{}_{}.json"
ODC = "odc-stac/{}.json"
GEO = "stac-geoparquet/{}.json"
TOOLS = "stactools-sentinel2/{}.expected_output.json"
ALASKA = "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531"
VIENNA = "S2C_MSIL2A_20250330T100051_N0511_R122_T33UWP_20250330T145914_cdse_stac_v110"
NIUE = "S2A_MSIL1C_20200717T221941_R029_T01LAC_20200717T234135"
ASSAM = "S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248"
BERING = "S2A_MSIL2A_20230625T234621_N0509_R073_T01WCP_20230626T022157"
SVALBARD = "S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126"

# file, position in it, tile, level, satellite, baseline, offset, EPSG, left, top
REAL = [
    (ODC.format("S2A_28QCH_20200714_0_L2A"), 0, "28QCH", "L2A", "2a", "02.14", 0, 32628, 300000, 2300040),
    (ODC.format(ALASKA), 0, "06VVN", "L2A", "2b", "02.12", 0, 32606, 399960, 6800040),
    (ODC.format(ALASKA + "_raster_ext"), 0, "06VVN", "L2A", "2b", "02.12", 0, 32606, 399960, 6800040),
    (ODC.format(VIENNA), 0, "33UWP", "L2A", "2c", "05.11", -1000, 32633, 499980, 5400000),
    (C1.format("20EPT", "131905"), 0, "20EPT", "L2A", "2b", "05.11", -1000, 32720, 600000, 3300040),
    (C1.format("24MUA", "130245"), 0, "24MUA", "L2A", "2b", "05.11", -1000, 32724, 300000, 9600040),
    (C1.format("24MUV", "130245"), 0, "24MUV", "L2A", "2b", "05.11", -1000, 32724, 300000, 9500020),
    (C1.format("24MVV", "130245"), 0, "24MVV", "L2A", "2b", "05.11", -1000, 32724, 399960, 9500020),
    (C1.format("24MWV", "130245"), 0, "24MWV", "L2A", "2b", "05.11", -1000, 32724, 499980, 9500020),
    (C1.format("24MXV", "130245"), 0, "24MXV", "L2A", "2b", "05.11", -1000, 32724, 600000, 9500020),
    (L1C.format("20EPT"), 0, "20EPT", "L1C", "2b", "05.11", -1000, 32720, 600000, 3300040),
    (L1C.format("24MUV"), 0, "24MUV", "L1C", "2b", "05.11", -1000, 32724, 300000, 9500020),
    (L1C.format("24MVV"), 0, "24MVV", "L1C", "2b", "05.11", -1000, 32724, 399960, 9500020),
    (L1C.format("24MWV"), 0, "24MWV", "L1C", "2b", "05.11", -1000, 32724, 499980, 9500020),
    (L1C.format("24MXV"), 0, "24MXV", "L1C", "2b", "05.11", -1000, 32724, 600000, 9500020),
    (L2A.format("20EPT"), 0, "20EPT", "L2A", "2b", "05.11", 0, 32720, 600000, 3300040),
    (L2A.format("24MUA"), 0, "24MUA", "L2A", "2b", "05.11", 0, 32724, 300000, 9600040),
    (L2A.format("24MUV"), 0, "24MUV", "L2A", "2b", "05.11", 0, 32724, 300000, 9500020),
    (L2A.format("24MVV"), 0, "24MVV", "L2A", "2b", "05.11", 0, 32724, 399960, 9500020),
    (L2A.format("24MWV"), 0, "24MWV", "L2A", "2b", "05.11", 0, 32724, 499980, 9500020),
    (L2A.format("24MXV"), 0, "24MXV", "L2A", "2b", "05.11", 0, 32724, 600000, 9500020),
    (L2A.replace("S2B_{}_20250731", "S2A_13TDE_20231008"), 0, "13TDE", "L2A", "2a", "05.09", 0, 32613, 399960, 4500000),
    (L2A.format("20EPT").replace("2-l2a", "s2-l2a-cogs"), 0, "20EPT", "L2A", "2b", "05.11", 0, 32720, 600000, 3300040),
    (PC.format("59VND", "20201007T214702"), 0, "59VND", "L2A", "2a", "02.12", 0, 32659, 499980, 6400020),
    (PC.format("59VNE", "20201007T214705"), 0, "59VNE", "L2A", "2a", "02.12", 0, 32659, 499980, 6500040),
    (PC.format("59VNF", "20201007T214654"), 0, "59VNF", "L2A", "2a", "02.12", 0, 32659, 499980, 6600000),
    (PC.format("59VPC", "20201007T214653"), 0, "59VPC", "L2A", "2a", "02.12", 0, 32659, 600000, 6300000),
    (PC.format("59VPD", "20201007T214657"), 0, "59VPD", "L2A", "2a", "02.12", 0, 32659, 600000, 6400020),
    (PC.format("59VPE", "20201007T214658"), 0, "59VPE", "L2A", "2a", "02.12", 0, 32659, 600000, 6500040),
    (PC.format("60VUJ", "20201007T214652"), 0, "60VUJ", "L2A", "2a", "02.12", 0, 32660, 300000, 6400020),
    (PC.format("60VUK", "20201007T214652"), 0, "60VUK", "L2A", "2a", "02.12", 0, 32660, 300000, 6500040),
    (GEO.format("sentinel-2-item"), 0, "24XWR", "L2A", "2b", "04.00", -1000, 32624, 499980, 9100020),
    (GEO.format("sentinel-2-l2a-pc"), 0, "47XML", "L2A", "2b", "05.10", -1000, 32647, 399960, 9100020),
    (GEO.format("sentinel-2-l2a-pc"), 1, "47XMJ", "L2A", "2b", "05.10", -1000, 32647, 399960, 8900040),
    (GEO.format("sentinel-2-l2a-pc"), 2, "46XES", "L2A", "2b", "05.10", -1000, 32646, 499980, 9200040),
    (GEO.format("sentinel-2-l2a-pc"), 3, "46XER", "L2A", "2b", "05.10", -1000, 32646, 499980, 9100020),
    (GEO.format("record_sentinel2_l2a"), 0, "35XQA", "L2A", "2a", "02.12", 0, 32635, 699960, 8100000),
    (TOOLS.format(NIUE), 0, "01LAC", "L1C", "2a", "02.09", 0, 32701, 99960, 8300020),
    (TOOLS.format(ASSAM), 0, "46RER", "L1C", "2a", "03.01", 0, 32646, 499980, 3100020),
    (TOOLS.format(BERING), 0, "01WCP", "L2A", "2a", "05.09", -1000, 32601, 300000, 7400040),
    (TOOLS.format(SVALBARD), 0, "33XWJ", "L2A", "2b", "04.00", -1000, 32633, 499980, 8900040),
]
NO_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST", "AWS_SHARED_CREDENTIALS_FILE", "HOME")


def real_item(file, position=0):
    """One real item; the record of a database dump is joined with its base, as the database does."""
    document = json.loads(shared_path("data", "stac_items", file).read_text())
    if "record_" in file:
        base = json.loads(shared_path("data", "stac_items", GEO.format("base_sentinel2_l2a")).read_text())
        properties = document[5]["properties"] | {"datetime": document[3]}
        assets = {key: {**asset, **document[5]["assets"].get(key, {})} for key, asset in base["assets"].items()}
        return {**base, **document[5], "id": document[0], "properties": properties, "assets": assets}
    return document[position] if isinstance(document, list) else document


@pytest.fixture(autouse=True)
def without_aws_credentials(monkeypatch, tmp_path):
    for name in NO_CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def refuse_to_compute(*args, **kwargs):
    raise AssertionError("something was computed while opening")


@pytest.mark.parametrize("row", REAL, ids=lambda row: f"{row[0].split('/')[1][:40]}-{row[2]}")
def test_real_item_opens_lazily_with_its_bands_grid_baseline_and_offset(row, monkeypatch):
    file, position, tile, level, satellite, baseline, offset, epsg, left, top = row
    item = real_item(file, position)
    # stactools writes hrefs relative to the file, so such an item is opened by its path.
    source = shared_path("data", "stac_items", file) if file.startswith("stactools") else item
    with dask.config.set(scheduler=refuse_to_compute):
        ds = open_stac(source)
    assert tuple(ds.data_vars) == bands_of(level)
    assert all(ds[name].dtype == "uint16" and ds[name].chunks for name in ds.data_vars)
    assert {name: ds[name].shape for name in ds.data_vars} == {
        name: (1, 109800 // BANDS[name].gsd, 109800 // BANDS[name].gsd) for name in ds.data_vars
    }
    assert ds["B04"].chunksizes["y10"][0] == 6 * ds["B01"].chunksizes["y60"][0] == 1536
    assert ds.spatial_ref20.attrs["GeoTransform"] == f"{left}.0 20.0 0.0 {top}.0 0.0 -20.0"
    assert f'ID["EPSG",{epsg}]]' in ds.spatial_ref60.attrs["crs_wkt"]
    assert (float(ds.x60[0]), float(ds.y60[0])) == (left + 30, top - 30)
    assert ds.attrs["level"] == level
    assert ds.attrs["tile"] == tile
    assert ds.attrs["platform"] == f"sentinel-{satellite}"
    assert ds.attrs["processing_baseline"] == baseline
    assert ds.attrs["radiometric_offset"] == offset
    assert ds.attrs["item_ids"] == [item["id"]]
    assert str(ds.time.values[0])[:19] == item["properties"]["datetime"][:19]


@pytest.mark.parametrize("row", REAL, ids=lambda row: f"{row[0].split('/')[1][:40]}-{row[2]}")
def test_real_item_gives_each_band_the_file_that_carries_its_name_at_its_own_size(row):
    scene = read_item(real_item(row[0], row[1]), prefer="https")
    for name, asset in scene.assets.items():
        file = asset.href.rsplit("/", 1)[-1] if "zipper" not in asset.href else asset.href.split("Nodes(")[-1]
        assert name in file
        assert not any(f"_{size}m" in file for size in {10, 20, 60} - {BANDS[name].gsd})
        assert asset.href.startswith(("https://", "./", "s3://sentinel-s2-l1c/"))


def test_there_are_41_real_items_in_the_table():
    assert len({row[:2] for row in REAL}) == len(REAL) == 41


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (ODC.format("sentinel-2-l2a.collection"), "is served by the API .* no window or time is given"),
        (GEO.format("base_sentinel2_l2a"), "has no id, so it is a fragment of an item. Fetch the whole item"),
        (GEO.format("record_sentinel2_l2a"), "is no STAC: it holds 'str'"),
        ("pystac-client_recorded/_index.json", "is no STAC: it holds 'str'"),
    ],
)
def test_file_that_is_no_whole_item_is_refused_by_a_sentence(file, message):
    with pytest.raises(SourceError, match=message):
        open_stac(shared_path("data", "stac_items", file))


def test_a_file_with_a_list_of_real_items_of_several_tiles_is_refused_with_the_remedy():
    with pytest.raises(
        SourceError, match=r"4 tiles \(46XER, 46XES, 47XMJ, 47XML\) in EPSG \[32646, 32647\].*tile='46XER'"
    ):
        open_stac(shared_path("data", "stac_items", GEO.format("sentinel-2-l2a-pc")))
    ds = open_stac(shared_path("data", "stac_items", GEO.format("sentinel-2-l2a-pc")), tile="T47XMJ")
    assert ds.attrs["tile"] == "47XMJ"


def test_relative_hrefs_are_resolved_against_the_file_of_the_item():
    path = shared_path("data", "stac_items", TOOLS.format(BERING))
    (item,) = find_items(path)
    assert item["assets"]["red"]["href"].startswith(str(path.parent / "GRANULE"))


def test_relative_hrefs_of_an_item_without_a_place_are_refused():
    with pytest.raises(SourceError, match=r"'\./GRANULE/.*jp2' is relative.*Open the item by its path or URL"):
        open_stac(real_item(TOOLS.format(BERING)))


def test_cdse_files_are_read_over_https_unless_s3_is_asked_for_or_possible(monkeypatch):
    item = real_item(ODC.format(VIENNA))
    assert read_item(item, prefer=None).assets["B04"].href.startswith("s3://eodata/")
    assert read_item(item, prefer="https").assets["B04"].href.startswith("https://zipper.")
    assert read_item(item, prefer="s3").assets["B04"].href.startswith("s3://eodata/")


def test_the_same_granule_in_four_collections_has_one_grid_and_the_offset_of_each():
    files = [C1.format("20EPT", "131905"), L2A.format("20EPT"), L2A.format("20EPT").replace("2-l2a", "s2-l2a-cogs")]
    scenes = [read_item(real_item(file)) for file in [*files, L1C.format("20EPT")]]
    assert len({scene.bounds for scene in scenes}) == 1
    assert {scene.datatake for scene in scenes} == {"20250731T131909"}
    assert [scene.offset.value for scene in scenes] == [-1000, 0, 0, -1000]


# --- what an item can lack -------------------------------------------------------------------------------------------


def changed(item, **properties):
    """A copy with properties set, or removed where None."""
    new = copy.deepcopy(item)
    for name, value in properties.items():
        new["properties"].pop(name, None)
        if value is not None:
            new["properties"][name] = value
    return new


@pytest.mark.parametrize("dialect", ["legacy", "code", "v11"])
def test_three_dialects_of_one_scene_say_the_same(written, dialect):
    one, other = read_item(written.item("legacy")), read_item(written.item(dialect))
    assert {n: (a.href, a.gsd, a.left, a.top, a.rows) for n, a in one.assets.items()} == {
        n: (a.href, a.gsd, a.left, a.top, a.rows) for n, a in other.assets.items()
    }
    assert (one.epsg, one.offset, one.level, one.tile) == (other.epsg, other.offset, other.level, other.tile)


def test_item_without_projection_is_refused(written):
    item = changed(written.item(), **{"proj:epsg": None})
    with pytest.raises(
        SourceError, match=r"neither proj:code nor proj:epsg, so its grid is unknown.*'proj:epsg'\] = 32632"
    ):
        read_item(item)


def test_item_with_a_code_that_is_no_epsg_is_refused(written):
    with pytest.raises(SourceError, match="'IAU_2015:30100'; only EPSG codes"):
        read_item(changed(written.item(), **{"proj:epsg": "IAU_2015:30100"}))


@pytest.mark.parametrize("key", ["proj:shape", "proj:transform"])
def test_item_without_shape_or_transform_is_refused(written, key):
    item = written.item()
    del item["assets"]["B05"][key]
    with pytest.raises(SourceError, match=r"asset 'B05' .* has no proj:shape or no proj:transform"):
        read_item(item)


def test_missing_asset_is_named_with_a_line_that_goes_without_it(written):
    item = written.item()
    del item["assets"]["B11"]
    with pytest.raises(BandError, match=r"no asset with B11 at its native pixel size.*bands=\['B01', 'B02'"):
        read_item(item)
    assert "B11" not in read_item(item, bands=["B02", "B12"]).assets


def test_resampled_file_never_stands_in_for_a_native_one(written):
    item = written.item("v11")
    item["assets"]["B04_20m"] = copy.deepcopy(item["assets"].pop("B04_10m"))
    item["assets"]["B04_20m"] |= {"proj:shape": [180, 180], "proj:transform": [20, 0, 699960, 0, -20, 5000040]}
    with pytest.raises(BandError, match="no asset with B04 at its native pixel size"):
        read_item(item)


def test_b10_of_l2a_and_unknown_bands_are_refused(written):
    with pytest.raises(BandError, match="B10 does not exist in L2A"):
        read_item(written.item(), bands=["B10"])
    with pytest.raises(BandError, match="'B99' is not a band"):
        read_item(written.item(), bands=["B99"])


def test_item_without_level_is_refused(written):
    item = changed(written.item(ident="scene"), **{"s2:product_type": None})
    item["collection"] = "mine"
    with pytest.raises(SourceError, match="does not say whether it is L1C or L2A"):
        read_item(item)


def test_item_without_baseline_or_offset_is_refused_until_the_offset_is_said(written):
    item = changed(written.item(), **{"s2:processing_baseline": None})
    for asset in item["assets"].values():
        del asset["raster:bands"]
    with pytest.raises(RadiometryError, match=r"neither a processing baseline nor an offset.*offset=-1000"):
        read_item(item)
    assert read_item(item, offset=-1000).offset.value == -1000


def test_offset_beside_a_scale_of_one_is_no_statement(written):
    item = changed(written.item(), **{"s2:processing_baseline": "05.09"})
    for asset in item["assets"].values():
        asset["raster:bands"] = [{"data_type": "uint16", "scale": 1.0, "offset": 0.0}]
    assert read_item(item).offset.value == -1000


def test_offset_of_minus_a_tenth_on_an_old_baseline_is_not_believed(written):
    assert read_item(changed(written.item(), **{"s2:processing_baseline": "02.09"})).offset.value == 0


@pytest.mark.parametrize(
    ("flag", "offset"),
    [
        (False, -1000),
        ("false", -1000),
        ("False", -1000),
        (0, -1000),
        ("0", -1000),
        (None, -1000),
        (True, 0),
        ("true", 0),
    ],
)
def test_a_flag_that_went_through_a_table_means_what_it_meant(flag, offset, written):
    stated = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": flag}
    assert read_item(changed(written.item(), **stated)).offset.value == offset


def test_a_flag_that_is_neither_true_nor_false_or_contradicts_another_is_refused_until_the_offset_is_said(written):
    unclear = changed(written.item(), **{"earthsearch:boa_offset_applied": "nein"})
    with pytest.raises(RadiometryError, match=r"boa_offset_applied is 'nein', .* offset=-1000 .* offset=0"):
        read_item(unclear)
    assert read_item(unclear, offset=-1000).offset.value == -1000
    both = {"earthsearch:boa_offset_applied": "true", "sentinel:boa_offset_applied": "false"}
    with pytest.raises(RadiometryError, match=r"contradict each other. Say one: offset=-1000 or offset=0"):
        read_item(changed(written.item(), **both))


def test_scale_and_offset_that_went_through_a_table_are_numbers_again(written):
    item = changed(written.item(), **{"s2:processing_baseline": None})
    for asset in item["assets"].values():
        asset["raster:bands"] = [{"data_type": "uint16", "scale": "0.0001", "offset": "-0.1"}]
    assert read_item(item).offset.value == -1000
    item["assets"]["B02"]["raster:bands"][0]["offset"] = "none"
    with pytest.raises(
        RadiometryError, match=r"B02 of item .* offset 'none', which are no numbers. Say what holds: off"
    ):
        read_item(item)


@pytest.mark.parametrize("numbers", [[3], [3, 2, 1], "red", {"name": "red"}])
def test_bands_that_are_described_by_numbers_or_text_go_by_the_key_of_their_asset(numbers, written):
    item = written.item()
    for asset in item["assets"].values():
        asset["eo:bands"] = numbers if numbers != [3, 2, 1] else [3]
    item["assets"]["tki"] = {"href": "TKI.jp2", "eo:bands": numbers}
    assert set(read_item(item).assets) == set(read_item(written.item()).assets)


def test_bands_that_declare_different_offsets_are_refused(written):
    item = written.item()
    item["assets"]["B02"]["raster:bands"][0]["offset"] = 0
    with pytest.raises(RadiometryError, match="different offsets"):
        read_item(item)


def test_grids_that_do_not_nest_are_refused(written):
    item = written.item()
    item["assets"]["B02"]["proj:transform"][2] += 5
    with pytest.raises(GridError, match=r"the grids of B02 .* and B01 .* do not nest"):
        read_item(item)


def test_bands_of_unequal_extent_are_cut_to_the_60_m_pixels_they_share(written):
    # 10 m: 7 columns off at the left, so 70 m; the next 60 m edge is 120 m in. At the bottom 5 rows are missing: 60 m.
    item = written.item()
    item["assets"]["B02"] |= {"proj:transform": [10, 0, 700030, 0, -10, 5000040], "proj:shape": [355, 353]}
    assert read_item(item).bounds == (699960 + 120, 5000040 - 3540, 699960 + 3600, 5000040)


def test_asset_named_after_one_band_that_says_it_holds_another_is_refused():
    with pytest.raises(SourceError, match="named after B04 but says it holds B08"):
        band_of("red", {"eo:bands": [{"name": "B08"}]})


@pytest.mark.parametrize(
    ("key", "asset", "band"),
    [
        ("B04", {}, "B04"),
        ("b8a", {}, "B8A"),
        ("B04_10m", {}, "B04"),
        ("rededge2", {}, "B06"),
        ("nir08-jp2", {}, "B8A"),
        ("anything", {"bands": [{"name": "B12"}]}, "B12"),
        ("SCL_20m", {}, None),
        ("visual", {"eo:bands": [{"name": "B04"}, {"name": "B03"}]}, None),
        ("B04", {"roles": ["overview"]}, None),
    ],
)
def test_band_of_an_asset(key, asset, band):
    assert band_of(key, asset) == band


def test_tile_is_found_wherever_it_is_stated(written):
    item = written.item(ident="anything")
    assert tile_of(item) == "32TQM"
    assert tile_of(changed(item, **{"s2:mgrs_tile": None, "grid:code": "MGRS-1WCP"})) == "01WCP"
    assert tile_of(changed(item, **{"s2:mgrs_tile": None})) == ""


def test_item_made_by_eosr_may_hold_sharpened_bands_at_10_m(written):
    item = changed(written.item(), **{"processing:software": {"eosr": "0.1.0"}, "eosr:sharpened": True})
    item["assets"]["B05"] |= {"proj:shape": [360, 360], "proj:transform": [10, 0, 699960, 0, -10, 5000040]}
    del item["assets"]["B01"]
    ds = open_stac(item)
    assert ds["B05"].dims == ("time", "y10", "x10")
    assert "B01" not in ds
    with pytest.raises(BandError, match="no asset with B01, B05"):
        read_item(changed(item, **{"processing:software": None}))


def test_item_made_by_eosr_keeps_the_native_grids_of_what_was_not_sharpened(written):
    item = changed(written.item(), **{"processing:software": {"eosr": "0.1.0"}, "eosr:sharpened": False})
    ds = open_stac(item)
    assert ds["B05"].dims == ("time", "y20", "x20")
    assert ds["B01"].dims == ("time", "y60", "x60")


def test_offset_recorded_in_a_product_of_eosr_overrules_the_baseline(written):
    """The user forced it when the product was made."""
    made = {"processing:software": {"eosr": "0.1.0"}, "eosr:provenance": {"radiometric_offset": -1000}}
    assert read_item(changed(written.item(**{"s2:processing_baseline": "02.12"}), **made)).offset.value == -1000
    assert read_item(written.item(**{"s2:processing_baseline": "02.12"})).offset.value == 0


@pytest.mark.parametrize("shape", [[10**7, 10**7], [1e300, 1e300], [0, 5], [-1, 5], [5.5, 6]])
def test_more_pixels_than_a_tile_can_have_are_refused_before_anything_is_made_of_them(written, shape):
    item = written.item()
    item["assets"]["B05"]["proj:shape"] = shape
    with pytest.raises(GridError, match=r"asset 'B05' of item .* pixels of 20 m \(proj:shape\); a tile .* 5490 x 5490"):
        open_stac(item)


@pytest.mark.parametrize("key", ["proj:shape", "proj:transform"])
@pytest.mark.parametrize("value", ["abc", 5, [1], {"a": 1}, [None] * 6, ["x"] * 6, [float("nan")] * 6, [1e999] * 6])
def test_what_is_no_grid_is_refused(written, key, value):
    item = written.item()
    item["assets"]["B05"][key] = value
    with pytest.raises(GridError, match=rf"asset 'B05' of item .* has {key} .*, which is not [26] numbers"):
        open_stac(item)


def test_an_item_of_an_eopf_product_says_how_to_open_it(written):
    item, store = written.item(), "https://objects.example.org/S2B.zarr"
    kind = "application/vnd+zarr"
    item["assets"] = {
        "B02_10m": {"href": f"{store}/measurements/b02", "type": kind},
        "product": {"href": store, "type": kind},
    }
    with pytest.raises(SourceError, match=r"Open the store itself: eosr\.open_eopf\('https.*/S2B\.zarr'\)"):
        open_stac(item)
