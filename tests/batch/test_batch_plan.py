"""The plan of a batch: which scenes, how large, and what cannot work, before a pixel is read."""

import hashlib
import json
import math
from dataclasses import replace

import numpy as np
import pystac
import pytest
from support.batches import QUICK, write_items
from support.scenes import write_scene

from eosr.batch import BatchConfig, plan, run
from eosr.batch.planning import open_scene, readable, signer
from eosr.errors import BandError, BatchError, GridError, OutputError, ReachError, SourceError, WeightsError


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("scenes"), 2)


def test_every_satellite_tile_and_day_is_a_scene_with_its_size(items, tmp_path):
    other = write_scene(tmp_path / "east", size=120, left=799980.0).item(
        ident="east", **{"s2:mgrs_tile": "32TRM"}, datetime="2023-06-01T10:15:00Z"
    )
    planned = plan([*items, other], QUICK)
    assert [(one.name, one.tile, one.rows, one.columns) for one in planned.scenes] == [
        ("S2A_32TQM_20230601_0_L2A", "32TQM", 180, 180), ("S2A_32TQM_20230602_0_L2A", "32TQM", 180, 180),
        ("east", "32TRM", 120, 120),
    ]  # fmt: skip
    assert planned.scenes[0].bands == ("B05", "B11")
    # Two bands of two bytes, and 1.65 of it for Zarr and COG together.
    assert planned.scenes[0].size == int(180 * 180 * 2 * 2 * 1.65)
    assert planned.area == pytest.approx(2 * 3.24 + 1.44)
    assert str(planned).startswith("3 scenes of 2 tiles, 8 km2, 6 bands at 10 m; about ")


def test_pieces_of_one_datatake_are_one_scene(items):
    second = json.loads(json.dumps(items[0])) | {"id": "S2A_32TQM_20230601_1_L2A"}
    second["properties"]["datetime"] = "2023-06-01T10:15:20Z"
    (scene,) = plan([items[0], second], QUICK).scenes
    assert scene.name == "sentinel-2a_32TQM_20230601T101500_L2A"
    assert scene.item_ids == ["S2A_32TQM_20230601_0_L2A", "S2A_32TQM_20230601_1_L2A"]


def test_the_whole_default_has_twelve_bands_and_a_time(items):
    (scene, _) = plan(items, BatchConfig()).scenes
    assert len(scene.bands) == 12
    assert scene.cpu == pytest.approx(0.0324 * 15.5)


def test_whole_tiles_come_in_larger_chunks_for_a_smaller_halo(tmp_path):
    (item,) = [write_scene(tmp_path / "wide", size=2760).item(ident="wide")]
    left, top = 699960.0, 5000040.0
    window = {"bbox": (left, top - 27600, left + 27600, top), "bbox_crs": "item"}
    for settings, rows in (
        ({}, (2748, 12)), ({"chunks": 1200}, (1200, 1200, 360)), ({"method": "bicubic"}, (1536, 1224)),
        (window, (1536, 1224)),
    ):  # fmt: skip
        opened = open_scene([item], BatchConfig(**settings))
        assert opened.chunksizes["y10"] == rows, settings
        assert opened.chunksizes["y60"] == tuple(size // 6 for size in rows)


def test_a_window_cuts_the_scenes_and_leaves_out_those_it_misses(items, tmp_path):
    far = write_scene(tmp_path / "far", size=120, left=799980.0).item(ident="far", **{"s2:mgrs_tile": "32TRM"})
    left, top = 699960.0, 5000040.0
    config = replace(QUICK, bbox=(left, top - 1200, left + 600, top), bbox_crs="item")
    planned = plan([*items, far], config)
    assert [(one.rows, one.columns) for one in planned.scenes] == [(120, 60), (120, 60)]
    assert planned.outside == ("far",)
    with pytest.raises(BatchError, match=r"none of 1 scenes lies in bbox=.*\. Correct it, or leave it away"):
        plan([far], config)


def test_what_cannot_work_is_told_before_anything_runs(items):
    with pytest.raises(BatchError, match=r"there is no item to sharpen\. Widen the search"):
        plan([], QUICK)
    top = json.loads(json.dumps(items[1]))
    top["properties"]["s2:product_type"] = "S2MSI1C"
    with pytest.raises(BatchError, match=r"of two levels, 1 of L1C and 1 of L2A.*Search one collection"):
        plan([items[0], top], QUICK)
    moved = json.loads(json.dumps(items[0]))
    moved["properties"]["datetime"] = "2023-07-01T10:15:00Z"
    with pytest.raises(BatchError, match=r"two scenes would be written to S2A_32TQM_20230601_0_L2A"):
        plan([items[0], moved], QUICK)
    with pytest.raises(WeightsError, match="nosuch"):
        plan(items, BatchConfig(weights=("nosuch",)))
    with pytest.raises(BandError, match="B99"):
        plan(items, replace(QUICK, bands=("B99",)))
    with pytest.raises(GridError, match="chunks=7"):
        plan(items, replace(QUICK, chunks=7))
    bare = json.loads(json.dumps(items[0]))
    del bare["properties"]["proj:epsg"]
    with pytest.raises(SourceError, match="S2A_32TQM_20230601_0_L2A"):
        plan([bare], QUICK)


def test_one_odd_item_is_set_aside_with_its_reason(items, tmp_path):
    bare, dateless = (json.loads(json.dumps(items[0])) | {"id": name} for name in ("bare", "dateless"))
    del bare["assets"]["B11"]
    dateless["properties"]["datetime"] = None
    planned = plan([bare, dateless, *items], QUICK)
    assert [one.name for one in planned.scenes] == [item["id"] for item in items]
    assert list(planned.odd) == ["bare", "dateless"]
    assert planned.odd["bare"].startswith("item bare has no asset with B11")
    assert str(planned).endswith("; 2 more cannot be made")
    with pytest.raises(BandError, match="item bare has no asset with B11"):
        plan([bare, dateless], QUICK)
    # A sliver cannot be sharpened by the weights; whether the others can is told by the first that is large enough.
    sliver = write_scene(tmp_path / "sliver", size=6).item(ident="sliver", datetime="2023-06-09T10:15:00Z")
    with pytest.raises(ReachError):
        plan([sliver], BatchConfig())
    assert len(plan([sliver, items[0]], BatchConfig()).scenes) == 2


@pytest.mark.parametrize(
    ("ident", "name"),
    [
        ("..", "_"),
        ("S2A T32TQM 1", "S2A_T32TQM_1"),
        ("x" * 300, "x" * 167 + "-" + hashlib.sha256(b"x" * 300).hexdigest()[:12]),
    ],
)
def test_an_id_that_can_be_no_name_of_a_folder_is_made_one(items, ident, name):
    (scene,) = plan([json.loads(json.dumps(items[0])) | {"id": ident}], QUICK).scenes
    assert scene.name == name


@pytest.mark.parametrize("other", ["S2A_T32TQM_1", "s2a t32tqm 1"])
def test_two_ids_that_become_one_name_are_refused_by_both(items, other):
    both = [
        json.loads(json.dumps(item)) | {"id": ident}
        for item, ident in zip(items, ("S2A T32TQM 1", other), strict=False)
    ]
    with pytest.raises(BatchError, match=r"would be written to .*: items '.*', '.*', of other days") as told:
        plan(both, QUICK)
    assert all(repr(item["id"]) in str(told.value) for item in both)


def test_an_item_that_is_there_twice_counts_once(items):
    copy = json.loads(json.dumps(dict(reversed(items[0].items()))))
    planned = plan([items[0], items[1], copy], QUICK)
    assert [one.item_ids for one in planned.scenes] == [[item["id"]] for item in items]


def test_items_come_in_every_form_that_find_items_takes(items, tmp_path):
    path = tmp_path / "items.json"
    path.write_text(json.dumps(items))
    lines = tmp_path / "items.ndjson"
    lines.write_text("".join(json.dumps(item) + "\n" for item in items))
    objects = [pystac.Item.from_dict(item) for item in items]
    names = [item["id"] for item in items]
    for source in (
        path, str(path), lines, objects, pystac.ItemCollection(objects), (item for item in items),
        {"type": "FeatureCollection", "features": items},
    ):  # fmt: skip
        assert [one.name for one in plan(source, QUICK).scenes] == names
    assert [one.name for one in plan(objects[0], QUICK).scenes] == names[:1]
    lines.write_text(json.dumps(items[0]) + '\n{"type": ')
    with pytest.raises(SourceError, match=r"items\.ndjson is no JSON \(Extra data: line 2"):
        plan(lines, QUICK)


def test_settings_that_no_worker_could_be_told_are_refused():
    for settings, said in (
        ({"format": "tiff"}, r"format='tiff' is not known\. Use one of 'both', 'cog', 'zarr'\."),
        ({"dtype": np.uint16}, r"dtype=.*uint16.* has no place in JSON.*dtype='uint16'"),
        ({"bands": "B05"}, r"bands='B05' is one text where several names are meant\. Give bands=\('B05',\)\."),
    ):  # fmt: skip
        with pytest.raises(BatchError, match=said):
            BatchConfig(**settings)


def test_numbers_plans_and_folders_are_checked_before_anything_runs(items, tmp_path):
    for numbers, said in (
        ({"attempts": 1.5}, r"attempts=1\.5 is no whole number\. Give e\.g\. attempts=3\."),
        ({"attempts": "3"}, r"attempts='3' is no whole number"), ({"threads": 1.5}, r"threads=1\.5 is no whole number"),
        ({"backoff": math.nan}, r"backoff=nan is no number of seconds"),
        ({"scene_timeout": -1}, r"scene_timeout=-1 must be 0 or more\. Give e\.g\. scene_timeout=3600\."),
        ({"worker_timeout": "a"}, r"worker_timeout='a' is no number of seconds"),
    ):  # fmt: skip
        with pytest.raises(BatchError, match=said):
            run(items, None, tmp_path / "out", config=QUICK, **numbers)
    planned = plan(items, QUICK)
    with pytest.raises(
        BatchError, match=r"the plan was made with other settings: bands \('B05', 'B11'\) there, \('B06',"
    ):
        run(planned, None, tmp_path / "out", config=replace(QUICK, bands=("B06",)))
    for out, said in (("s3://b/x", "s3://b/x is a URL"), (tmp_path / "a#b", "STAC readers cut a path off there")):
        with pytest.raises(OutputError, match=said):
            run(planned, None, out, config=QUICK)
    assert not list(tmp_path.iterdir())


def test_settings_of_the_runs_before_that_cannot_be_read_are_told(items, tmp_path):
    for text, said in (('{"a"', "Expecting"), ("[]", "it holds 'list'"), ("\xff", "can't decode")):
        (tmp_path / "batch.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(
            BatchError, match=rf"batch\.json, the settings of the runs before, cannot be read: .*{said}"
        ):
            run(items, None, tmp_path, config=QUICK)
    (tmp_path / "batch.json").unlink()
    (tmp_path / "batch.json").mkdir()
    with pytest.raises(BatchError, match=r"cannot be read: Is a directory\. Delete it if you are sure"):
        run(items, None, tmp_path, config=QUICK)


def test_hrefs_are_signed_by_the_function_that_is_named(items, monkeypatch):
    monkeypatch.setattr("posixpath.normcase", lambda href: href + "?signed")
    assert signer("posixpath:normcase")("a.tif") == "a.tif?signed"
    for name in ("nosuch:sign", "json:nosuch", "json"):
        with pytest.raises(BatchError, match=r"names no function here .*sign='planetary_computer:sign'"):
            signer(name)


def test_sizes_are_readable():
    assert [readable(size) for size in (0, 999, 1234, 5.6e9, 1.234e14)] == [
        "0 B",
        "999 B",
        "1.23 kB",
        "5.6 GB",
        "123 TB",
    ]
