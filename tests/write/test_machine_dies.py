"""A machine that dies takes along what its system had not written yet: what a disk holds at such a moment is enough."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from pyproj import CRS
from support.batches import SLOW_SITE, manifest_of, pixels_of, wait_for, write_items

from eosr.write.store import to_zarr


class DyingDisk:
    """A file system in a file; a copy of the file is what a disk holds when its machine dies."""

    def __init__(self, folder: Path) -> None:
        self.image, self.place = folder / "disk", folder / "mounted"
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(100 * 2**20)

    def mount(self) -> bool:
        # Names are written every second; contents, as anywhere, when the system has time, or somebody insists.
        command = ["mount", "-o", "loop,commit=1", self.image, self.place]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def dies(self, *processes: subprocess.Popen) -> None:
        """Let the machine die with everything that runs on it, and start it again."""
        after = self.image.with_name("after")
        subprocess.run(["cp", "--sparse=always", self.image, after], check=True)
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.unmount()
        after.replace(self.image)
        assert self.mount()

    def unmount(self) -> None:
        for _ in range(100):  # what was killed may take a moment
            if subprocess.run(["umount", self.place], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)


@pytest.fixture
def disk(tmp_path):
    disk = DyingDisk(tmp_path)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("there is no mkfs.ext4 here")
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", disk.image], check=True)
    if not disk.mount():
        pytest.skip("mounting a file system is not permitted here")
    yield disk
    with suppress(OSError):
        disk.unmount()


def scene(seconds=0.0):
    """Sixteen blocks that differ, each made in some seconds."""

    def block(block_info=None):
        time.sleep(seconds)
        place = block_info[None]["array-location"]
        rng = np.random.default_rng([start for start, _ in place])
        return rng.integers(1, 3000, [stop - start for start, stop in place]).astype("uint16")

    pixels = da.map_blocks(block, chunks=((60,) * 4, (60,) * 4), dtype="uint16", name="blocks")
    coords = {"y10": 5e6 - 10 * np.arange(240), "x10": 5e5 + 10.0 * np.arange(240)}
    coords["spatial_ref10"] = ((), 0, CRS.from_epsg(32632).to_cf())
    return xr.Dataset({"B02": (("y10", "x10"), pixels)}, coords, {"level": "L2A", "radiometric_offset": 0})


def test_a_store_goes_on_after_the_machine_died_and_no_marked_block_is_lost(disk):
    store, done = disk.place / "x.zarr", disk.place / "x.zarr.part.done"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.Popen([sys.executable, __file__, store], env=environment, start_new_session=True)
    wait_for(lambda: len(list(done.glob("[0-9]*"))) >= 10)
    disk.dies(run)
    assert list(done.glob("[0-9]*")), "the disk has heard of some of them"
    to_zarr(scene(), store)
    np.testing.assert_array_equal(xr.open_zarr(store).B02, scene().B02)


@pytest.mark.long
def test_a_batch_goes_on_after_the_machine_died_and_ends_in_the_same_bytes(disk, tmp_path):
    (tmp_path / "items.json").write_text(json.dumps(write_items(tmp_path, 2)))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_SITE)

    def batch(out, **variables):
        return subprocess.Popen(
            [
                Path(sys.executable).with_name("eosr"), "batch", tmp_path / "items.json", out, "--method", "bicubic",
                "--bands", "B05,B11", "--chunks", "96", "--format", "both", "--workers", "1",
            ],
            env=os.environ | variables, start_new_session=True,
        )  # fmt: skip

    assert batch(tmp_path / "undisturbed").wait() == 0
    out = disk.place / "out"
    running = batch(out, SLOW="2", PYTHONPATH=str(tmp_path / "site"))
    wait_for(lambda: (out / "manifest.jsonl").exists() and len(manifest_of(out)) >= 2)
    wait_for(lambda: list(out.glob("scenes/*/sharpened.zarr.part.done/[0-9]*")))
    time.sleep(2)
    disk.dies(running)
    assert len(manifest_of(out)) >= 2, "fsync"
    assert batch(out).wait() == 0
    assert pixels_of(out) == pixels_of(tmp_path / "undisturbed")
    assert {line["state"] for line in manifest_of(out)} == {"done"}


if __name__ == "__main__":
    to_zarr(scene(0.5), sys.argv[1])
