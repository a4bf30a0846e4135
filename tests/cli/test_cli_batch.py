"""`eosr batch` as it is typed: plan, run, run again, what is missing, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from support.batches import SLOW_SITE, manifest_of, pixels_of, wait_for, write_items
from support.patience import PATIENCE
from support.range_server import serve
from support.scenes import stac_api

import eosr
from eosr.batch.cluster import workers_of
from eosr.batch.manifest import Manifest
from eosr.cli import main


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("scenes"), 2, size=120)


@pytest.fixture
def command(items, tmp_path):
    """The command line for a file of items, with more words."""

    def made(*more, of=items):
        (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": of}))
        return [
            "batch", str(tmp_path / "items.json"), str(tmp_path / "out"), "--method", "bicubic", "--bands", "B05", *more
        ]  # fmt: skip

    return made


def test_a_dry_run_says_what_would_be_done_and_does_nothing(command, tmp_path, capsys):
    assert main(command("--dry-run")) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("2 scenes of 1 tiles, 3 km2, 2 bands at 10 m; about ")
    assert told[1] == "  S2A_32TQM_20230601_0_L2A: B05, 120 x 120 pixels"
    assert not (tmp_path / "out").exists()


def test_an_item_of_which_nothing_can_be_made_is_told_and_left_out_of_the_plan(command, items, capsys):
    bare = json.loads(json.dumps(items[1]))
    del bare["assets"]["B11"], bare["assets"]["B12"]
    assert main(command("--dry-run", of=[bare, items[0]])) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1 scenes of 1 tiles")
    assert told[0].endswith("; 1 more cannot be made")
    assert told[1].startswith(f"set aside {bare['id']}: item {bare['id']} has no asset with B11, B12")
    assert told[2].startswith(f"  {items[0]['id']}: B05")
    assert main(command("--dry-run", of=[bare])) == 1
    assert capsys.readouterr().err.startswith(f"eosr: item {bare['id']} has no asset with B11, B12")


def test_a_batch_runs_tells_each_scene_and_a_second_time_there_is_nothing_to_do(command, tmp_path, capsys):
    assert main(command("--workers", "1")) == 0
    told = capsys.readouterr()
    assert f"2 of 2 scenes in {tmp_path / 'out'}, 2 of them now, 3 km2 in " in told.out
    assert "dashboard: http" in told.err
    assert "S2A_32TQM_20230602_0_L2A: done in " in told.err
    assert not list((tmp_path / "out").glob("scenes/*/*.zarr")), "COGs are the default"
    assert main(command("--quiet")) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == f"2 of 2 scenes in {tmp_path / 'out'}"
    assert told.err == ""


def test_what_is_missing_is_told_and_the_status_is_1(command, items, tmp_path, capsys):
    broken = json.loads(json.dumps(items[1]))
    broken["assets"]["B05"]["href"] = str(tmp_path / "gone.tif")
    assert main(command("--quiet", "--attempts", "1", of=[items[0], broken])) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"1 of 2 scenes in {tmp_path / 'out'}, 1 of them now")
    assert f"failed   {broken['id']}: cannot read {tmp_path / 'gone.tif'}: " in told
    assert {line["state"] for line in manifest_of(tmp_path / "out")} == {"done", "failed"}


def test_a_window_cuts_only_with_clip(command, capsys):
    box = ["--bbox", "699960", "4999440", "700560", "5000040", "--bbox-crs", "item"]
    assert main(command("--dry-run", *box)) == 0
    assert "120 x 120 pixels" in capsys.readouterr().out
    assert main(command("--dry-run", "--clip", *box)) == 0
    assert "60 x 60 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--cluster", "no.yaml"], "eosr: there is no site file no.yaml"),
        (["--workers", "0"], "eosr: --workers takes 1 or more, and only without --cluster."),
        (["--tile", "32TQX"], "eosr: no item of tile 32TQX among those found; there are 32TQM."),
        (["--attempts", "0"], "eosr: --attempts 0 must be 1 or more. Give e.g. --attempts 3."),
        (["--backoff", "-1"], "eosr: --backoff=-1.0 must be 0 or more. Give e.g. --backoff 10."),
        (["--backoff", "nan"], "eosr: backoff=nan is no number of seconds. Give e.g. --backoff 10."),
        (["--scene-timeout", "-1"], "eosr: --scene-timeout=-1.0 must be 0 or more. Give e.g. --scene-timeout 3600."),
        (["--worker-timeout", "-1"], "eosr: --worker-timeout=-1.0 must be 0 or more."),
        (["--clip"], "eosr: --clip cuts scenes at --bbox, and there is none. Give --bbox, or leave --clip away."),
        (["--sign", "nosuch:sign"], "eosr: --sign nosuch:sign names no function here"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(command, tmp_path, capsys, more, said):
    assert main(command(*more)) == 1
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith(said)
    assert not (tmp_path / "out" / "scenes").exists()


def test_more_than_100_gb_are_asked_for_and_refused_where_nobody_can_answer(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("eosr.batch.running.LARGE", 1000)
    assert main(command()) == 1
    assert "Say that it may: --yes." in capsys.readouterr().err
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "n")
    assert main(command()) == 1
    assert asked[0].endswith("Begin? [y/N] ")
    assert not (tmp_path / "out" / "scenes").exists()


def test_no_worker_starts_before_all_that_refuses_a_batch_is_checked_nor_where_nothing_is_missing(
    command, tmp_path, capsys, monkeypatch
):
    assert main(command("--quiet")) == 0
    monkeypatch.setattr("eosr.batch.cluster.workers_of", lambda *how: pytest.fail("workers were started"))
    assert main(command("--quiet")) == 0
    (tmp_path / "out" / "scenes" / "S2A_32TQM_20230601_0_L2A" / ".eosr-scene.json").unlink()
    refused = [
        (["--attempts", "0"], "--attempts 0 must be"),
        (["--dtype", "float32"], "holds a batch of other settings"),
    ]
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
        assert main(command()) == 1
        assert "Make room, or name another folder." in capsys.readouterr().err
    with monkeypatch.context() as large:
        large.setattr("eosr.batch.running.LARGE", 1000)
        assert main(command()) == 1
        assert "Say that it may: --yes." in capsys.readouterr().err
    with Manifest(tmp_path / "out").open():
        refused.append(([], "another eosr batch is at work in"))
        for more, said in refused:
            assert main(command(*more)) == 1
            assert said in capsys.readouterr().err


def processes_with(folder):
    """Running processes that were given a folder as an argument or in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("SLOW_UNTIL") == str(folder / "go"):
                found.append(process)
    return found


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_says_what_is_missing_and_nothing_else_and_workers_end_with_the_driver(command, tmp_path, end):
    """As a terminal sends it: to the driver, its workers and their scenes."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_SITE)
    paths = os.pathsep.join((str(tmp_path), str(Path(eosr.__file__).parents[1])))
    environ = os.environ | {"PYTHONPATH": paths, "SLOW": "600", "SLOW_UNTIL": str(tmp_path / "go")}
    words = [
        sys.executable,
        "-c",
        "import sys, eosr.cli; sys.exit(eosr.cli.main())",
        *command("--workers", "2"),
    ]
    with (tmp_path / "told").open("w") as told:
        driver = subprocess.Popen(words, env=environ, stdout=told, stderr=told, start_new_session=True)
    try:
        wait_for(lambda: list((tmp_path / "out").glob("logs/*.log")))
        if end == signal.SIGKILL:
            driver.kill()
        else:
            os.killpg(driver.pid, end)
        status = driver.wait(PATIENCE)
        wait_for(lambda: not processes_with(tmp_path))
    finally:
        for process in processes_with(tmp_path):
            process.kill()
        driver.wait()
    if end == signal.SIGKILL:
        return
    text = (tmp_path / "told").read_text()
    assert status == 130
    assert text.endswith(
        f"0 of 2 scenes in {tmp_path / 'out'}\nmissing  S2A_32TQM_20230601_0_L2A\nmissing  S2A_32TQM_20230602_0_L2A\n"
        "interrupted\neosr: interrupted. The same command goes on where it stopped.\n"
    )
    assert "Traceback" not in text
    assert "WARNING" not in text


def test_there_are_no_more_jobs_than_scenes_left(command, tmp_path, capsys, monkeypatch):
    assert main(command("--quiet")) == 0
    (tmp_path / "out" / "scenes" / "S2A_32TQM_20230601_0_L2A" / ".eosr-scene.json").unlink()
    told = []

    def workers(site, logs, left):
        told.append(left)
        return workers_of(site, logs, left)

    monkeypatch.setattr("eosr.batch.cluster.workers_of", workers)
    assert main(command("--quiet")) == 0
    assert told == [1]


def test_out_that_is_a_file_is_told_before_jobs_are_submitted(command, tmp_path, capsys):
    (tmp_path / "out").touch()
    (tmp_path / "site.yaml").write_text("kind: slurm\n")
    assert main(command("--cluster", str(tmp_path / "site.yaml"))) == 1
    assert "Name another folder." in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.long
def test_a_search_at_an_api_over_a_bad_line_ends_in_the_right_pixels_or_names_the_file(tmp_path, capsys):
    """A server that fails once, and one whose file is gone; when it is back, the same command makes what is missing."""
    items = write_items(tmp_path / "scenes", 3, size=120)
    modes = ("ok", "data-503-once", "404")
    with serve(tmp_path / "scenes") as server:
        served = json.loads(json.dumps(items))
        for number, (item, mode) in enumerate(zip(served, modes, strict=True)):
            for band, asset in item["assets"].items():
                asset["href"] = f"{server.url}/{mode}/scene-{number}/{band}.tif"
        (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": served}))
        settings = ["--method", "bicubic", "--bands", "B05,B11", "--attempts", "2", "--backoff", "0.1", "--quiet"]
        with stac_api(tmp_path / "items.json") as url:
            search = ["batch", url, str(tmp_path / "out"), "--collection", "sentinel-2-l2a", "--datetime", "2023-06"]
            assert main([*search, *settings, "--workers", "2"]) == 1
            told = capsys.readouterr().err
            assert f"failed   {items[2]['id']}: cannot read {server.url}/404/scene-2/B" in told
            states = {(line["scene"], line["state"]) for line in manifest_of(tmp_path / "out")}
            assert (items[1]["id"], "done") in states
            assert (items[2]["id"], "failed") in states
            server.mode = "ok"
            assert main([*search, *settings, "--workers", "2"]) == 0
        assert any(range_ and "data-503-once" in path for _, path, range_ in server.requests), "nothing was disturbed"
    (tmp_path / "local.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert main(["batch", str(tmp_path / "local.json"), str(tmp_path / "right"), *settings, "--workers", "1"]) == 0
    assert pixels_of(tmp_path / "out") == pixels_of(tmp_path / "right")
