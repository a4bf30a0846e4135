"""The manifest of a batch: whole lines only, the last one counts, one driver at a time."""

import json
import subprocess
import sys

import pytest

from eosr.batch.manifest import Line, Manifest, read_lines
from eosr.errors import BatchError


def line(band="B05", **facts):
    return Line(scene="one", band=band, **facts)


def test_what_was_recorded_is_there_again_one_line_per_scene_and_band(tmp_path):
    with Manifest(tmp_path).open() as manifest:
        manifest.record([line(state="running"), line("B11", state="running")])
        manifest.record([line(state="done", checksum="abc", size=3, seconds=2.5, worker="tcp://w")])
        assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 3, "it only grows while a batch runs"
    lines = {one.band: one for one in read_lines(tmp_path / "manifest.jsonl")}
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 2
    assert (lines["B05"].state, lines["B05"].checksum, lines["B05"].worker) == ("done", "abc", "tcp://w")
    assert lines["B11"].state == "running"
    assert lines["B05"].time.endswith("Z")
    with Manifest(tmp_path).open() as manifest:
        assert [one.band for one in manifest.lines("one")] == ["B05", "B11"]
        assert manifest.state("another") == "pending"


def test_a_line_that_a_kill_cut_off_does_not_count_and_is_gone_afterwards(tmp_path):
    whole = json.dumps({"scene": "one", "band": "B05", "state": "done"})
    for tail in (whole[:20].encode(), b"\xff\xfe\x00", b"\0" * 4096):  # a machine that dies leaves any bytes
        (tmp_path / "manifest.jsonl").write_bytes(whole.encode() + b"\n" + tail)
        with Manifest(tmp_path).open() as manifest:
            assert [one.state for one in manifest.lines()] == ["done"]
            manifest.record([line("B11", state="done")])
        assert [one.band for one in read_lines(tmp_path / "manifest.jsonl")] == ["B05", "B11"]


def test_a_damaged_line_in_the_middle_is_told(tmp_path):
    whole = json.dumps({"scene": "one", "band": "B05"})
    cut = '{"scene": "one", "band": "B05", '
    for damaged in (
        "{", '{"scene": "one"}', cut + '"colour": 3}', cut + '"size": "3"}', cut + '"path": null}', "\xff", "\0", "[]"
    ):  # fmt: skip
        (tmp_path / "manifest.jsonl").write_bytes(f"{whole}\n{damaged}\n{whole}\n".encode("latin-1"))
        with pytest.raises(BatchError, match=r"line 2 of .*manifest\.jsonl is no line of a manifest\. Take it out"):
            read_lines(tmp_path / "manifest.jsonl")


def test_a_manifest_that_is_none_is_told(tmp_path):
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(
        BatchError, match=r"manifest\.jsonl cannot be read: Is a directory\. Correct its rights, or move"
    ):
        read_lines(tmp_path / "manifest.jsonl")


def test_a_second_driver_is_refused_until_the_first_is_gone_however_it_went(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from eosr.batch.manifest import Manifest\n"
        "with Manifest(Path(sys.argv[1])).open():\n    print('open', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(BatchError, match=r"another eosr batch is at work in .*\. Let it finish, or end it"),
            Manifest(tmp_path).open(),
        ):
            pass
        other.kill()
    with Manifest(tmp_path).open() as manifest:
        manifest.record([line()])
