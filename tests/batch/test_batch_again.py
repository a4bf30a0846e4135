"""The same batch again: what counts as there, what is made anew; and scenes whose worker or whose room is gone."""

import copy
import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.batches import QUICK, SLOW_SITE, cluster, pixels_of, wait_for, write_items
from support.disks import small_disk
from support.patience import PATIENCE

from batch.test_batch import of_scenes
from eosr.batch import run
from eosr.batch.scene import RECORD, SceneTask, is_whole, read_record, run_scene

BOTH = replace(QUICK, format="both")


@pytest.fixture(scope="module")
def item(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("scenes"), 1)[0]


@pytest.fixture(scope="module")
def made(item, tmp_path_factory):
    """A scene, COGs beside Zarr, as a task and its result."""
    task = task_of(item, tmp_path_factory.mktemp("made"))
    result = run_scene(task)
    assert result.state == "done"
    return task, result


def task_of(item, folder, config=BOTH):
    return SceneTask(name="one", items=(item,), bands=("B05", "B11"), folder=str(folder), config=config, threads=1)


@contextmanager
def changed(path, content):
    """A file with other bytes, or none, for a while."""
    before = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_a_whole_result_is_whole(made):
    task, result = made
    assert read_record(task.target, task.made_of) == replace(result, seconds=0.0, memory=0, cpu=0.0)
    assert is_whole(Path(task.folder), result, sums=False)
    assert is_whole(Path(task.folder), result, sums=True)


def test_whatever_is_gone_or_of_another_size_is_found_without_reading_pixels(made):
    task, result = made
    cog = Path(task.folder) / result.bands["B05"][0]
    chunk = next(path for path in (task.target / "sharpened.zarr" / "B11" / "c").rglob("*") if path.is_file())
    item = Path(task.folder) / result.item
    for path, content in [
        (cog, None), (cog, cog.read_bytes()[:-1]), (chunk, None), (chunk, chunk.read_bytes()[:-1]), (item, None),
        (item, b"{"), (item, b"\xff"),
    ]:  # fmt: skip
        with changed(path, content):
            assert not is_whole(Path(task.folder), result, sums=False), (path, content and len(content))
    assert is_whole(Path(task.folder), result, sums=True)


def test_a_flipped_bit_is_found_by_its_sum(made):
    task, result = made
    cog = Path(task.folder) / result.bands["B05"][0]
    content = bytearray(cog.read_bytes())
    content[len(content) // 2] ^= 1
    with changed(cog, bytes(content)):
        assert is_whole(Path(task.folder), result, sums=False), "sizes say nothing of it"
        assert not is_whole(Path(task.folder), result, sums=True)


@pytest.mark.parametrize("key", ["s2:processing_baseline", "s2:product_uri", "s2:generation_time"])
def test_a_result_of_an_item_that_kept_its_id_when_it_was_processed_again_does_not_count(made, key):
    task, _ = made
    again = copy.deepcopy(task.items[0])
    again["properties"][key] = "05.11"
    assert read_record(task.target, replace(task, items=(again,)).made_of) is None
    again = copy.deepcopy(task.items[0])
    again["assets"]["B05"]["href"] += "?sig=of-today"
    assert read_record(task.target, replace(task, items=(again,)).made_of) is not None


def test_what_verify_finds_is_made_again(item, tmp_path):
    out = tmp_path / "out"
    with cluster(1) as client:
        assert run([item], client, out, config=QUICK).made == (item["id"],)
        whole = pixels_of(out)
        cog = next(out.glob("scenes/*/*_B05_10m.tif"))
        content = bytearray(cog.read_bytes())
        content[len(content) // 2] ^= 1
        cog.write_bytes(content)
        assert run([item], client, out, config=QUICK).made == ()
        assert run([item], client, out, config=QUICK, verify=True).made == (item["id"],)
        assert pixels_of(out) == whole
        assert run([item], client, out, config=QUICK, verify=True).made == ()


def test_a_scene_that_another_process_has_for_long_is_waited_for(item, tmp_path, monkeypatch):
    monkeypatch.setattr("eosr.batch.running._PAUSE", 0.1)
    news = []
    folder = tmp_path / "out" / "scenes" / item["id"]
    folder.mkdir(parents=True)
    with (folder / ".eosr-scene.lock").open("w") as lock, cluster(1) as client:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def follow(status):
            news.append(status.news)
            if sum("another process is at work" in one for one in news) == 15:
                lock.close()

        assert run([item], client, tmp_path / "out", config=QUICK, progress=follow).complete


def test_a_process_whose_worker_dies_in_its_first_moment_ends_without_a_result(item, tmp_path):
    """It is still importing then, and was never told of a worker by the time that it could look for one."""
    task = task_of(item, tmp_path)
    code = (
        "import json, sys\nfrom dataclasses import replace\nfrom batch.test_batch_again import task_of\n"
        "from eosr.batch.scene import run_scene\nrun_scene(task_of(json.load(open(sys.argv[1])), sys.argv[2]))\n"
    )
    (tmp_path / "item.json").write_text(json.dumps(item))
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    worker = subprocess.Popen([sys.executable, "-c", code, tmp_path / "item.json", tmp_path], env=paths)
    (scene,) = wait_for(lambda: of_scenes(tmp_path))
    worker.kill()
    worker.wait()
    try:
        wait_for(lambda: not of_scenes(tmp_path))
        assert not (task.target / RECORD).exists()
    finally:
        with suppress(ProcessLookupError):
            os.kill(scene, signal.SIGKILL)


def test_a_driver_that_is_told_to_end_writes_down_what_is_missing(item, tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(item))
    (tmp_path / "sitecustomize.py").write_text(SLOW_SITE)
    out = tmp_path / "out"
    command = [Path(sys.executable).with_name("eosr"), "batch", tmp_path / "item.json", out, "--method", "bicubic"]
    command += ["--bands", "B05,B11", "--chunks", "96"]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "SLOW": "5"}
    driver = subprocess.Popen(command, env=paths, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: of_scenes(out))
    driver.terminate()
    _, told = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130
    assert "interrupted. The same command goes on" in told
    assert json.loads((out / "report.json").read_text())["pending"] == [item["id"]]
    wait_for(lambda: not of_scenes(out))


@pytest.mark.parametrize("size", ["150k", "450k"])
def test_a_scene_that_finds_no_room_says_so_whoever_notices(item, tmp_path, size):
    """The check before its first block, the store, or GDAL in the middle of a file."""
    with small_disk(tmp_path / "out", size) as out:
        result = run_scene(task_of(item, out, replace(QUICK, format="cog")))
        assert result.state == "full", result
        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        assert run_scene(task_of(item, out, replace(QUICK, format="cog"))).state == "done"


def test_a_limit_of_the_size_of_files_is_no_room_either(item, tmp_path):
    task = task_of(item, tmp_path, replace(QUICK, format="cog"))
    code = (
        "import json, resource, signal, sys\nfrom dataclasses import asdict, replace\nfrom eosr.batch import scene\n"
        "from batch.test_batch_again import QUICK, task_of\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        "item, folder = json.load(open(sys.argv[1])), sys.argv[2]\n"
        "print(scene.make_scene(task_of(item, folder, replace(QUICK, format='cog'))).state)\n"
    )
    (tmp_path / "item.json").write_text(json.dumps(item))
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", code, tmp_path / "item.json", task.folder]
    done = subprocess.run(command, env=paths, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "full", done.stderr[-2000:]
