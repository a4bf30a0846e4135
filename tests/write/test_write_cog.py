"""Writing COGs: valid, bit-equal, in the right place on Earth, and never half a file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from rio_cogeo.cogeo import cog_info, cog_validate

import eosr.write.cog
from eosr.errors import OutputError, RadiometryError
from eosr.host.files import put
from eosr.write.cog import to_cog
from eosr.write.store import to_zarr
from write.test_write_zarr import scene, tiny_disk  # noqa: F401  # fixtures

LARGE = (180, 190)  # pixels of 60 m: 1080 x 1140 at 10 m, more than one tile and one window


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def assert_all_same(paths, ds):
    """One right file per band and time."""
    assert len(set(paths)) == len(paths) == ds.sizes["time"] * len(ds.data_vars)
    for number, path in enumerate(paths):
        assert_same(path, ds[band_in(path)], number // len(ds.data_vars))


def band_in(path):
    return path.name.split("_")[-2]


def assert_same(path, band, time_index=0):
    """Valid COG with the pixels, type, nodata, CRS and transform of one band."""
    valid, errors, warnings = cog_validate(path)
    assert (valid, errors, warnings) == (True, [], [])
    size = int(str(band.dims[-1])[1:])
    with rasterio.open(path) as file:
        assert file.dtypes == (band.dtype.name,)
        np.testing.assert_array_equal(file.read(1).view("u1"), band.isel(time=time_index).values.view("u1"))
        assert file.crs.to_epsg() == 32632
        assert file.transform == Affine(size, 0, 500_040, 0, -size, 5_200_020)
        assert np.isnan(file.nodata) if band.dtype.kind == "f" else file.nodata == 0
        assert file.descriptions == (band.name,)


@pytest.mark.parametrize("sharpened", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_band_is_a_valid_cog_on_its_own_grid(tmp_path, dtype, sharpened):
    ds = scene(dtype=dtype, sharpened=sharpened, chunks=(576, 288, 96), shape60=LARGE)
    paths = to_cog(ds, tmp_path)
    sizes = dict.fromkeys(ds.data_vars, 10) if sharpened else {"B01": 60, "B02": 10, "B05": 20, "B08": 10, "B8A": 20}
    expected = [f"S2B_T32_0_{band}_{sizes[band]}m.tif" for band in ("B01", "B02", "B05", "B08", "B8A")]
    assert [path.name for path in paths] == expected
    assert names(tmp_path) == sorted(expected)
    assert_all_same(paths, ds)


def test_deflate_predictor_tiles_and_overviews_are_as_documented(tmp_path):
    ds = scene(chunks=(576, 288, 96), shape60=LARGE)[["B02"]]
    (path,) = to_cog(ds, tmp_path)
    with rasterio.open(path) as file:
        assert file.profile["compress"] == "deflate"
        assert file.block_shapes == [(512, 512)]
        assert file.overviews(1) == [2, 4]
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        values = file.read(1, masked=True)
    with rasterio.open(path, overview_level=0) as file:
        overview = file.read(1, masked=True)
    means = values[: 2 * 540, : 2 * 570].reshape(540, 2, 570, 2).mean(axis=(1, 3))
    assert np.ma.abs(overview - means).max() <= 0.5
    assert (overview.mask == means.mask).all()
    assert cog_info(path).COG


def test_nearest_overviews_hold_no_new_values(tmp_path):
    ds = scene(chunks=(576, 288, 96), shape60=LARGE)[["B02"]]
    (path,) = to_cog(ds, tmp_path, overviews="nearest")
    with rasterio.open(path, overview_level=0) as file:
        values = file.read(1)
    with rasterio.open(path) as file:
        assert np.isin(values, file.read(1)).all()
    with pytest.raises(OutputError, match="overviews='cubic' is not known"):
        to_cog(ds, tmp_path, overviews="cubic")


def test_scale_and_offset_turn_the_numbers_into_reflectance(tmp_path):
    ds = scene(times=2).assign_attrs(radiometric_offset=[-1000, 0], processing_baseline=["05.09", "03.01"])
    for path in to_cog(ds, tmp_path):
        with rasterio.open(path) as file:
            first = "S2B_T32_0" in path.name
            assert file.scales == (0.0001,)
            assert file.offsets == ((-0.1,) if first else (0.0,))
            attrs = json.loads(file.tags()["EOSR_ATTRS"])
            assert attrs["processing_baseline"] == ("05.09" if first else "03.01")
            assert attrs["item_ids"] == [ds.attrs["item_ids"][0 if first else 1]]
    (path,) = to_cog(scene(dtype="float32")[["B02"]].assign_attrs(quantity="reflectance"), tmp_path / "reflectance")
    with rasterio.open(path) as file:
        assert (file.scales, file.offsets) == ((1.0,), (0.0,))
    unknown = ds.isel(time=[0])
    del unknown.attrs["times"]
    with pytest.raises(RadiometryError, match="radiometric_offset holds 2 numbers for 1 times"):
        to_cog(unknown, tmp_path / "selected")


def test_several_times_give_one_file_per_time_and_band(tmp_path):
    ds = scene(times=2)
    paths = to_cog(ds, tmp_path)
    assert [path.name[:9] for path in paths] == ["S2B_T32_0"] * 5 + ["S2B_T32_1"] * 5
    assert_all_same(paths, ds)


def test_names_begin_with_the_date_where_items_and_times_do_not_match(tmp_path):
    mosaic = scene()[["B05"]].assign_attrs(item_ids=["a", "b"])
    assert [path.name for path in to_cog(mosaic, tmp_path)] == ["20230606_B05_20m.tif"]
    none = mosaic.isel(time=0, drop=True)
    assert [path.name for path in to_cog(none, tmp_path)] == ["scene_B05_20m.tif"]
    assert [path.name for path in to_cog(none, tmp_path, prefix="farm")] == ["farm_B05_20m.tif"]
    twice = scene(times=2)[["B05"]]
    assert [path.name for path in to_cog(twice, tmp_path, prefix="farm")][1] == "farm_20230616_B05_20m.tif"
    with pytest.raises(OutputError, match=r"prefix='../x' cannot begin a file name"):
        to_cog(none, tmp_path, prefix="../x")


def test_a_zarr_is_read_in_place_and_gives_the_same_files(tmp_path):
    ds = scene()
    store = to_zarr(ds, tmp_path / "x.zarr")
    paths = to_cog(store, tmp_path / "cog")
    assert_all_same(paths, ds)
    assert names(tmp_path) == ["cog", "x.zarr"]
    with pytest.raises(OutputError, match=r"y.zarr is no finished Zarr store"):
        to_cog(tmp_path / "y.zarr", tmp_path)


def test_progress_ends_at_all_blocks_and_then_at_all_files(tmp_path):
    told = []
    to_cog(scene(), tmp_path, progress=lambda *both: told.append(both))
    assert (12, 12) in told
    assert told[-1] == (5, 5)


def test_existing_files_are_kept_unless_overwrite(tmp_path):
    first, second = scene(), scene(seed=1)
    paths = to_cog(first, tmp_path)
    before = [path.read_bytes() for path in paths]
    for again in (first, second):
        with pytest.raises(OutputError, match=r"_B01_60m.tif is already there \(and 4 more\) and was kept"):
            to_cog(again, tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert to_cog(second, tmp_path, overwrite=True) == paths
    assert_all_same(paths, second)
    assert len(names(tmp_path)) == 5


def write_slowly(folder):
    """What the killed process does: a pause before each file, so that the kill hits the middle."""
    import eosr.write.cog as module

    write = module._write
    module._write = lambda *arguments: (time.sleep(0.5), write(*arguments))
    with dask.config.set(num_workers=2):
        to_cog(scene(), folder)


def test_a_killed_run_goes_on_and_touches_no_finished_file(tmp_path):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    folder = tmp_path / "cog"
    run = subprocess.Popen([sys.executable, __file__, str(folder)], env=environment)
    while run.poll() is None and len(list(folder.glob("*.tif"))) < 2:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("*.tif")}
    assert 2 <= len(finished) < 5
    ds = scene()
    for path in finished:
        assert_same(path, ds[band_in(path)])
    paths = to_cog(ds, folder)
    assert names(folder) == sorted(path.name for path in paths)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert_all_same(paths, ds)


def test_a_kill_right_after_a_file_got_its_name_loses_nothing(tmp_path, monkeypatch):
    def put_and_die(part, path):
        put(part, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, dask.config.set(num_workers=1):
        killed.setattr("eosr.write.cog.put", put_and_die)
        with pytest.raises(KeyboardInterrupt):
            to_cog(scene(), tmp_path / "cog")
    (finished,) = (tmp_path / "cog").glob("*.tif")
    made = finished.stat().st_mtime_ns
    assert_all_same(to_cog(scene(), tmp_path / "cog"), scene())
    assert finished.stat().st_mtime_ns == made


def test_a_kill_while_the_pixels_are_deleted_leaves_no_half_of_them_to_go_on_with(tmp_path, monkeypatch):
    def delete_some_and_die(folder, **options):
        for chunk in sorted(path for path in folder.rglob("*") if path.is_file())[::2]:
            chunk.unlink()
        if folder.exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        # Not that of the whole program: an interrupt in zarr's own thread ends it, and who waits for it waits for ever.
        killed.setattr("eosr.host.files.shutil", SimpleNamespace(rmtree=delete_some_and_die))
        with pytest.raises(KeyboardInterrupt):
            to_cog(scene(), tmp_path / "cog")
    paths = to_cog(scene(), tmp_path / "cog", overwrite=True)
    assert_all_same(paths, scene())
    assert names(tmp_path / "cog") == sorted(path.name for path in paths)


def test_a_disk_that_fills_up_leaves_no_file_that_looks_finished(tmp_path, tiny_disk, monkeypatch):  # noqa: F811
    ds = scene(sharpened=True)
    store = to_zarr(ds, tmp_path / "x.zarr")
    with pytest.raises(OutputError, match=r"tiny has 0.\d MB free, and about \d.\d MB are needed"):
        to_cog(store, tiny_disk)
    monkeypatch.setattr("eosr.write.cog.check_folder", lambda *_: None)
    with pytest.raises(OutputError, match=r"could not be written|does not read back"):
        to_cog(store, tiny_disk)
    for path in tiny_disk.glob("*.tif"):
        assert_same(path, ds[band_in(path)])
    assert len(list(tiny_disk.glob("*.tif"))) < 5
    subprocess.run(["mount", "-o", "remount,size=16m", tiny_disk], check=True)
    assert_all_same(to_cog(store, tiny_disk), ds)


def test_files_that_are_made_side_by_side_have_the_bytes_of_those_made_one_by_one(tmp_path):
    made = []
    for threads in (1, 5):
        with dask.config.set(num_workers=threads):
            made.append(to_cog(scene(sharpened=True, shape60=LARGE), tmp_path / str(threads)))
    assert len(made[0]) == 5
    for one, other in zip(*made, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_where_room_is_short_fewer_files_are_made_at_the_same_time(tmp_path, tiny_disk, monkeypatch):  # noqa: F811
    at_work, most = [], []

    def counting(*arguments, write=eosr.write.cog._write):
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.2)
        write(*arguments)
        at_work.pop()

    monkeypatch.setattr("eosr.write.cog._write", counting)
    ds = scene(sharpened=True, shape60=LARGE).map(lambda band: band // 4000)  # noise would take more than is reckoned
    store = to_zarr(ds, tmp_path / "x.zarr")
    with dask.config.set(num_workers=5):
        to_cog(store, tmp_path / "roomy")
        assert max(most) == 5
        most.clear()
        subprocess.run(["mount", "-o", "remount,size=25m", tiny_disk], check=True)
        assert_all_same(to_cog(store, tiny_disk), ds)
    assert max(most) == 2


def test_after_a_failure_no_other_file_is_begun(tmp_path, monkeypatch):
    begun = []

    def failing(job, *_):
        begun.append(job.band)
        time.sleep(0.2)
        raise OSError(errno.EIO, "no such luck")

    monkeypatch.setattr("eosr.write.cog._write", failing)
    with dask.config.set(num_workers=2), pytest.raises(OutputError, match=r"could not be written: .*no such luck"):
        to_cog(scene(), tmp_path)
    assert len(begun) == 2


def test_a_damaged_copy_is_found_before_it_appears(tmp_path, monkeypatch):
    def damaging(source, target, **_):
        Path(target).write_bytes(Path(source).read_bytes())
        with rasterio.open(target, "r+") as file:
            file.write(np.full((1, 1), 7, "uint16"), 1, window=((20, 21), (30, 31)))

    monkeypatch.setattr("eosr.write.cog.rasterio.shutil.copy", damaging)
    with pytest.raises(OutputError, match=r"B01_60m.tif does not read back as it was written \(row 0 on\)"):
        to_cog(scene(), tmp_path)
    assert list(tmp_path.glob("*.tif")) == []


if __name__ == "__main__":
    write_slowly(sys.argv[1])


@pytest.mark.parametrize("kind", ["array", "damaged", "no dimensions", "two sizes", "time"])
def test_a_zarr_of_another_program_is_refused_in_a_sentence(tmp_path, kind):
    path = tmp_path / "foreign.zarr"
    if kind == "array":
        zarr.save_array(path, np.ones((6, 6), np.uint16), zarr_format=3)
    else:
        group = zarr.open_group(path, mode="w", zarr_format=3)
        named = None if kind == "no dimensions" else ["y20", "x20"]
        for band, side in {"B05": 6, "B06": 5 if kind == "two sizes" else 6}.items():
            group.create_array(band, shape=(side, 6), dtype="u2", dimension_names=named)
        if kind == "time":
            time = group.create_array("time", shape=(1,), dtype="i8", dimension_names=["time"])
            time.attrs["units"] = "days since yesterday"
        if kind == "damaged":
            (path / "zarr.json").write_text("{")
    with pytest.raises(
        OutputError, match=r"foreign\.zarr is no store that eosr wrote: .*Give the path that eosr\.to_zarr"
    ):
        to_cog(path, tmp_path / "out")
