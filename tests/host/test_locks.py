"""The lock on a file: one process has it, and it is free again when that one is gone."""

import re
import subprocess
import sys
from threading import Thread

import numpy as np
import pytest
import rasterio
import xarray as xr

import eosr
from eosr.errors import OutputError
from eosr.host.files import held, take
from eosr.testing import synthetic_scene

#: Writes a scene whose every pixel is the last argument, and stands still in its first block until it is killed.
STANDING = """
import sys, time, dask.array as da, numpy as np, eosr
from eosr.testing import synthetic_scene
from eosr.write.delivery import deliver
ds = synthetic_scene(6, 6, times=[np.datetime64("2023-06-01T10:20:00", "ns")])
def wait(block):
    print("at work", flush=True)
    time.sleep(600)
pixels = da.asarray(ds.B02.data)
ds["B02"] = ds.B02.copy(data=da.map_blocks(wait, pixels, dtype="uint16", meta=pixels._meta))
how, out = sys.argv[1:]
{"deliver": deliver, "to_zarr": eosr.to_zarr, "to_cog": eosr.to_cog}[how](ds, out)
"""


def test_one_process_has_it_and_it_is_free_when_that_one_was_killed(tmp_path):
    path = tmp_path / "lock"
    program = (
        "import sys, time; from eosr.host.files import take\n"
        "file = open(sys.argv[1], 'w'); print(take(file), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with path.open("w") as file:
            assert not take(file)
        other.kill()
        other.wait()
    with path.open("w") as file:
        assert take(file)


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (tmp_path / "lock").open("w") as file:
        assert take(file)


@pytest.mark.parametrize("how", ["deliver", "to_zarr", "to_cog"])
def test_a_second_run_into_one_output_is_refused_by_the_name_of_the_first_and_free_when_that_was_killed(how, tmp_path):
    from eosr.write.delivery import deliver

    out = tmp_path / "out"
    ds = synthetic_scene(6, 6, times=[np.datetime64("2023-06-01T10:20:00", "ns")])
    write = {"deliver": deliver, "to_zarr": eosr.to_zarr, "to_cog": eosr.to_cog}[how]
    with subprocess.Popen([sys.executable, "-c", STANDING, how, out], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "at work\n"
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(
            OutputError, match=rf"{re.escape(str(out))}\S* is being written by process {first.pid} on .*Wait"
        ):
            write(ds, out)
        assert sorted(tmp_path.rglob("*")) == before, "nothing of the first is touched"
        first.kill()
        first.wait()
    # What was killed is an unfinished run of another input, or gives way.
    written = write(ds, out, overwrite=True) if how == "deliver" else write(ds, tmp_path / "again")
    assert not list(tmp_path.rglob("again*.lock"))
    if how == "to_zarr":
        np.testing.assert_array_equal(xr.open_zarr(written).B05, ds.B05)
    elif how == "to_cog":
        with rasterio.open(next(path for path in written if "_B05_" in path.name)) as file:
            np.testing.assert_array_equal(file.read(1), np.squeeze(ds.B05.values))


def test_cogs_of_different_scenes_are_written_into_one_folder_at_the_same_time(tmp_path):
    scenes = [synthetic_scene(6, 6, item_ids=[name]) for name in ("one", "two", "three")]
    threads = [Thread(target=eosr.to_cog, args=(ds, tmp_path)) for ds in scenes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.glob("*.tif"))) == 3 * len(scenes[0].data_vars)
    assert not list(tmp_path.glob(".*"))


def test_of_many_who_want_it_at_once_one_has_it_at_a_time(tmp_path):
    inside, most, refused = [], [], []

    def want():
        for _ in range(50):
            try:
                with held([tmp_path / "lock"], tmp_path):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except OutputError:
                refused.append(1)

    threads = [Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 200
    assert not (tmp_path / "lock").exists()
