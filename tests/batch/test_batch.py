"""Batches on real workers: once, again, with broken scenes, with anybody killed at any time; the same bytes always."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.batches import QUICK, SLOW_SITE, cluster, manifest_of, pixels_of, wait_for, write_items
from support.disks import small_disk
from support.patience import PATIENCE

import eosr
from eosr.batch import BatchConfig, run
from eosr.batch.crew import Crew
from eosr.batch.manifest import read_lines
from eosr.batch.scene import SceneTask, run_scene
from eosr.errors import BatchError, OutputError
from eosr.write.collection import write_collection


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("scenes"), 4)


@pytest.fixture(scope="module")
def client():
    with cluster(2) as client:
        yield client


@pytest.fixture(scope="module")
def undisturbed(items, client, tmp_path_factory):
    """Pixels of a batch that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    report = run(items, client, out, config=QUICK)
    assert report.complete
    return out


def test_every_scene_and_band_has_a_file_a_line_and_a_place_in_the_collection(items, undisturbed):
    lines = manifest_of(undisturbed)
    assert {(line["scene"], line["band"]) for line in lines} == {
        (item["id"], band) for item in items for band in ("B05", "B11")
    }
    for line in lines:
        path = undisturbed / line["path"]
        assert (line["state"], line["error"], line["size"]) == ("done", "", path.stat().st_size)
        assert line["checksum"] == pixels_of(undisturbed)[line["path"]]
        assert line["worker"].startswith("tcp://")
        assert line["seconds"] > 0
    collection = json.loads((undisturbed / "collection.json").read_text())
    assert len([link for link in collection["links"] if link["rel"] == "item"]) == 4
    assert collection["extent"]["temporal"]["interval"][0] == ["2023-06-01T10:15:00Z", "2023-06-04T10:15:00Z"]
    report = json.loads((undisturbed / "report.json").read_text())
    assert (len(report["done"]), report["failed"], report["area"]) == (4, {}, pytest.approx(13.0, abs=0.1))
    assert report["memory"] > 1e8


def test_the_results_are_those_of_superresolve_and_open_as_a_collection(items, undisturbed):
    opened = eosr.open_stac(undisturbed / "collection.json", datetime="2023-06-03")
    expected = eosr.superresolve(eosr.open_stac(items[2]), method="bicubic", bands=["B05", "B11"])
    np.testing.assert_array_equal(opened.B11.values, expected.B11.values)


def test_the_same_again_does_nothing_and_one_more_scene_is_all_that_is_made(items, client, tmp_path):
    out = tmp_path / "out"
    assert run(items[:1], client, out, config=QUICK).made == (items[0]["id"],)
    before = {path: path.stat().st_mtime_ns for path in (out / "scenes").rglob("*")}
    again = run(items[:1], client, out, config=QUICK)
    assert (again.made, again.done, again.complete) == ((), (items[0]["id"],), True)
    more = run(items[:2], client, out, config=QUICK)
    assert more.made == (items[1]["id"],)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items() if path.suffix == ".tif")


def links_of(out):
    return [
        link["href"].split("/")[2]
        for link in json.loads((out / "collection.json").read_text())["links"]
        if link["rel"] == "item"
    ]


def test_the_collection_keeps_the_whole_scenes_of_earlier_lists(items, client, undisturbed, tmp_path):
    out, ids = tmp_path / "out", [item["id"] for item in items]
    shutil.copytree(undisturbed, out)
    next((out / "scenes" / ids[3]).glob("*.tif")).unlink()
    assert run(items[:1], client, out, config=QUICK).done == (ids[0],)
    assert links_of(out) == ids[:3], "all but the one that is damaged"
    # Another piece of the first day has come: both make one scene, which takes the place of the earlier one.
    piece = json.loads(json.dumps(items[0])) | {"id": ids[0].replace("_0_L2A", "_1_L2A")}
    piece["properties"]["datetime"] = "2023-06-01T10:15:20Z"
    (made,) = run([items[0], piece], client, out, config=QUICK).made
    assert links_of(out) == [*ids[1:3], made]


def test_a_result_that_is_damaged_or_of_other_items_is_made_again(items, client, undisturbed, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    first, second = (sorted((out / "scenes" / items[k]["id"]).glob("*.tif"))[0] for k in (0, 1))
    first.write_bytes(first.read_bytes()[:1000])
    second.unlink()
    reprocessed = json.loads(json.dumps(items[2]))
    for asset in reprocessed["assets"].values():
        asset["href"] = asset["href"].replace("scene-2", "scene-3")
    reprocessed["id"] = items[2]["id"]
    record = out / "scenes" / items[2]["id"] / ".eosr-scene.json"
    record.write_text(record.read_text().replace('_0_L2A"]', '_older_L2A"]'))
    report = run([items[0], items[1], reprocessed, items[3]], client, out, config=QUICK)
    assert report.made == tuple(item["id"] for item in items[:3])
    ours, theirs = pixels_of(out), pixels_of(undisturbed)
    changed = {Path(name).parts[1] for name in theirs if ours.get(name) != theirs[name]}
    assert changed == {items[2]["id"]}


def test_a_scene_that_fails_is_tried_again_set_aside_with_its_reason_and_made_when_it_is_mended(
    items, client, tmp_path
):
    broken = json.loads(json.dumps(items[1]))
    hidden, there = tmp_path / "B05.tif", Path(broken["assets"]["B05"]["href"])
    broken["assets"]["B05"]["href"] = str(hidden)
    out, news = tmp_path / "out", []
    report = run(
        [items[0], broken], client, out, config=QUICK, attempts=2, backoff=0.1,
        progress=lambda status: news.append(status.news),
    )  # fmt: skip
    assert not report.complete
    assert report.done == (items[0]["id"],)
    assert list(report.failed) == [broken["id"]]
    assert str(hidden) in report.failed[broken["id"]]
    assert str(report).splitlines()[1].startswith(f"failed   {broken['id']}: ")
    states = {(line["scene"], line["state"], line["attempts"]) for line in manifest_of(out)}
    assert states == {(items[0]["id"], "done", 1), (broken["id"], "failed", 2)}
    assert sum("it is tried again" in one for one in news) == 1
    assert not list((out / "scenes" / broken["id"]).glob("*.tif")), "nothing unfinished looks finished"

    shutil.copy(there, hidden)
    mended = run([items[0], broken], client, out, config=QUICK)
    assert mended.complete
    assert mended.made == (broken["id"],)


def test_an_item_of_which_nothing_can_be_made_leaves_the_batch_incomplete_and_is_named(items, client, tmp_path):
    out, odd = tmp_path / "out", json.loads(json.dumps(items[1]))
    del odd["assets"]["B11"]
    (out / "logs").mkdir(parents=True)
    (out / "logs" / f".{items[0]['id']}.1.2.json").write_text("{}")  # of a worker that was killed
    report = run([odd, items[0]], client, out, config=QUICK)
    assert (report.made, list(report.failed), report.complete) == ((items[0]["id"],), [odd["id"]], False)
    assert f"failed   {odd['id']}: item {odd['id']} has no asset with B11" in str(report)
    assert not list((out / "logs").glob(".*.json"))


DRIVER = """
import json, os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from support.batches import QUICK, cluster
from eosr.batch import run

if __name__ == "__main__":
    with cluster(2) as client:
        print("workers", *client.run(os.getpid).values(), flush=True)
        report = run(json.loads(Path({items!r}).read_text()), client, {out!r}, config=QUICK, backoff=0.1,
                     progress=lambda status: print(status.news, flush=True))
        sys.exit(not report.complete)
"""


@pytest.fixture
def driver(items, tmp_path):
    """Start a driver with two workers in processes of their own; ``slow`` seconds pass between blocks."""
    (tmp_path / "items.json").write_text(json.dumps(items))
    (tmp_path / "site").mkdir()
    started = []

    def start(slow="", **variables):
        (tmp_path / "driver.py").write_text(
            DRIVER.format(
                tests=str(Path(__file__).parents[1]), items=str(tmp_path / "items.json"), out=str(tmp_path / "out")
            )
        )
        environ = os.environ | {"SLOW": slow} | variables
        if slow:
            (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_SITE)
            environ["PYTHONPATH"] = str(tmp_path / "site")
        started.append(
            subprocess.Popen(
                [sys.executable, tmp_path / "driver.py"], env=environ, stdout=subprocess.PIPE, text=True,
                start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for one in started:
        if one.poll() is None:
            os.killpg(one.pid, signal.SIGKILL)
        one.stdout.close()
        one.wait()


def blocks(out):
    return list(out.glob("scenes/*/sharpened.zarr.part.done/[0-9]*"))


def of_scenes(out):
    """Processes at work on the scenes of a folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if (
                b"eosr.batch.scene" in (process / "cmdline").read_bytes()
                and str(out).encode() in (process / "environ").read_bytes()
            ):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.long
def test_after_a_kill_of_driver_workers_and_scenes_the_same_command_ends_in_the_same_bytes(
    driver, undisturbed, tmp_path
):
    out = tmp_path / "out"
    first = driver(slow="3")  # no scene ends, and its marks go, before they are seen
    wait_for(lambda: len(blocks(out)) >= 2)
    os.killpg(first.pid, signal.SIGKILL)  # the driver, its workers, and what they started
    first.wait()
    left = {path: path.stat().st_mtime_ns for path in blocks(out)}
    again = driver()
    assert again.wait(PATIENCE) == 0
    assert pixels_of(out) == pixels_of(undisturbed)
    assert len(left) >= 2
    assert {line["state"] for line in manifest_of(out)} == {"done"}
    assert len(manifest_of(out)) == 8


@pytest.mark.long
def test_when_the_driver_alone_is_killed_nobody_goes_on_writing_beside_the_next_one(driver, undisturbed, tmp_path):
    out = tmp_path / "out"
    first = driver(slow="0.5")
    wait_for(lambda: len(of_scenes(out)) == 2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert driver().wait(PATIENCE) == 0
    assert pixels_of(out) == pixels_of(undisturbed)


@pytest.mark.long
def test_a_killed_scene_and_a_killed_worker_are_made_up_for(driver, undisturbed, tmp_path):
    out = tmp_path / "out"
    running = driver(slow="1")
    workers = [int(text) for text in running.stdout.readline().split()[1:]]
    wait_for(lambda: len(of_scenes(out)) == 2)
    os.kill(of_scenes(out)[0], signal.SIGKILL)
    wait_for(lambda: blocks(out))
    os.kill(workers[1], signal.SIGKILL)
    told = running.stdout.read()
    assert running.wait(PATIENCE) == 0
    assert "its process was killed by SIGKILL" in told
    assert "is gone; it is tried again in 0 s" in told
    assert pixels_of(out) == pixels_of(undisturbed)


@pytest.mark.long
def test_a_full_disk_stops_the_batch_with_a_sentence_and_room_lets_it_go_on(items, client, undisturbed, tmp_path):
    with small_disk(tmp_path / "out", "400k") as out:
        with pytest.raises(BatchError, match=r"has .* left, and 4 scenes take about .*\. Make room"):
            run(items, client, out, config=QUICK)
        subprocess.run(["mount", "-o", "remount,size=1100k", out], check=True)
        (out / "ballast").write_bytes(bytes(20_000))
        news = []

        def eat(status):
            news.append(status.news)
            free = shutil.disk_usage(out).free
            if status.done == 1 and free > 60_000:
                (out / "more-ballast").write_bytes(bytes(free - 50_000))

        try:  # it is met by a scene or by the driver, whoever writes first
            report = run(items, client, out, config=QUICK, backoff=0.1, progress=eat)
        except OutputError as error:
            said = str(error)
            assert "cannot be written: No space left on device. Make room" in said
        else:
            assert report.stopped.startswith(f"no room is left for {out}. Make some")
            assert not report.failed
        assert "failed" not in {line.state for line in read_lines(out / "manifest.jsonl")}
        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        report = run(items, client, out, config=QUICK, backoff=0.1)
        assert report.complete, [path.read_text()[-3000:] for path in (out / "logs").glob("*.log")]
        assert pixels_of(out) == pixels_of(undisturbed)


def test_what_cannot_end_well_is_refused_before_the_first_scene(items, client, undisturbed, tmp_path, monkeypatch):
    with pytest.raises(BatchError, match=r"a batch of other settings: bands .* there, .* now\. Give the same ones"):
        run(items, client, undisturbed, config=replace(QUICK, bands=("B05",)))
    monkeypatch.setattr("eosr.batch.running.LARGE", 1000)
    with pytest.raises(BatchError, match=r"this takes about .*\. Say that it may: --yes \(large=True\)"):
        run(items, client, tmp_path / "large", config=QUICK)
    assert not (tmp_path / "large").exists()
    with pytest.raises(BatchError, match=r"attempts=0 must be 1 or more\. Give e\.g\. attempts=3\."):
        run(items, client, tmp_path / "none", config=QUICK, attempts=0)


def test_a_worker_with_another_version_other_weights_or_another_folder_is_found_at_once(items, client, tmp_path):
    def other_version():
        import eosr._version

        eosr._version.__version__ = "9.9"

    def own_version():
        import eosr._version

        eosr._version.__version__ = version

    version = eosr.__version__
    worker = next(iter(client.scheduler_info()["workers"]))
    client.run(other_version, workers=[worker])
    try:
        with pytest.raises(BatchError, match=rf"worker {worker} has eosr 9\.9\. Give every worker what the driver has"):
            run(items, client, tmp_path / "version", config=QUICK)
    finally:
        client.run(own_version, workers=[worker])
    assert not list((tmp_path / "version").glob("scenes/*"))
    from eosr.batch.crew import look_around

    (tmp_path / ".eosr-batch-token").write_text("token")
    assert look_around(version, str(tmp_path), "token", {}) == ""
    assert look_around(version, str(tmp_path), "other", {}) == f"has another folder {tmp_path}"
    assert look_around(version, str(tmp_path / "no"), "token", {}).startswith(f"does not see {tmp_path / 'no'}")
    assert look_around(version, str(tmp_path), "token", {"/no/w.safetensors": "ab"}).startswith(
        "does not see the weights /no"
    )
    assert look_around(version, str(tmp_path), "token", {"s2sr-20m": "ab"}).startswith(
        "has other weights s2sr-20m (SHA-256"
    )


def test_workers_without_a_card_are_found_at_once(items, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    on_cards = replace(QUICK, device="cuda")
    with (
        cluster(1) as client,
        pytest.raises(BatchError, match=r"none of 1 workers has a card for device='cuda'\. Start"),
    ):
        run(items, client, tmp_path / "out", config=on_cards)
    with (
        cluster(1, resources={"GPU": 1}) as client,
        pytest.raises(BatchError, match=r"finds no CUDA card, which device='cuda' asks for \(CUDA_VISIBLE_DEVICES: "),
    ):
        run(items, client, tmp_path / "out", config=on_cards)
    assert not (tmp_path / "out" / "scenes").exists()


def test_without_a_worker_it_ends_with_what_to_look_at(items, tmp_path):
    with cluster(0) as client, pytest.raises(BatchError, match=r"no worker came within 1 s, .* Look at what workers"):
        run(items, client, tmp_path / "out", config=QUICK, worker_timeout=1)


def test_the_time_that_jobs_wait_in_a_queue_does_not_count_and_is_told(items, tmp_path):
    """The worker comes after 3 s, where 1 s is allowed."""
    news, until = [], time.monotonic() + 3
    with cluster(0) as client:

        def keep(left):
            client.cluster.scale(int(time.monotonic() > until))
            return "" if client.cluster.scheduler_info["workers"] else "1 job waits in the queue: Priority"

        told = {"keep": keep, "progress": lambda status: news.append(status.news)}
        report = run(items[:1], client, tmp_path / "out", config=QUICK, worker_timeout=1, **told)
    assert report.complete
    assert news.count("1 job waits in the queue: Priority") == 1


def test_a_scene_that_takes_too_long_is_stopped(items, tmp_path):
    task = SceneTask(
        name="one", items=(items[0],), bands=("B05", "B11"), folder=str(tmp_path), config=QUICK, timeout=0.2
    )
    result = run_scene(task)
    assert (result.state, result.error) == ("failed", "it took more than 0 s. Give a larger scene_timeout.")


def test_a_scene_that_another_process_has_is_left_to_it(items, tmp_path):
    import fcntl

    task = SceneTask(name="one", items=(items[0],), bands=("B05", "B11"), folder=str(tmp_path), config=QUICK)
    task.target.mkdir(parents=True)
    with (task.target / ".eosr-scene.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_scene(task).state == "busy"
    assert run_scene(task).state == "done"


def test_zarr_alone_has_the_checksum_of_its_pixels(items, tmp_path):
    import hashlib

    task = SceneTask(
        name="one", items=(items[0],), bands=("B05",), folder=str(tmp_path),
        config=BatchConfig(method="bicubic", bands=("B05",), format="zarr", chunks=96),
    )  # fmt: skip
    result = run_scene(task)
    expected = eosr.superresolve(eosr.open_stac(items[0]), method="bicubic", bands=["B05"]).B05.values
    assert result.bands["B05"][:2] == (
        "scenes/one/sharpened.zarr", hashlib.sha256(np.ascontiguousarray(expected).tobytes()).hexdigest()
    )  # fmt: skip
    assert result.item == f"scenes/one/{items[0]['id']}_eosr.json"
    collection = write_collection(tmp_path / "collection.json", [tmp_path / result.item])
    assert collection.extent.to_dict()["temporal"]["interval"] == [["2023-06-01T10:15:00Z", "2023-06-01T10:15:00Z"]]


def test_a_scene_stays_with_its_worker_while_the_client_asks_the_scheduler_for_itself(tmp_path):
    """As it does every 2 s, here all the time: a long batch lost scenes by it that were well."""
    stop = threading.Event()
    with cluster(1) as client, Crew(client, tmp_path, {}, gpu=False) as crew:
        (worker,) = wait_for(crew.look)

        def ask():
            while not stop.is_set():
                client.sync(client._update_scheduler_info, n_workers=0)

        task = SceneTask(name="s", items=(), bands=(), folder=str(tmp_path), config=QUICK)
        crew._given[worker] = (client.submit(time.sleep, 30), None, task)
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            for _ in range(300):
                crew.look()
                assert crew.running == {"s": worker}
        finally:
            stop.set()
            asking.join()
