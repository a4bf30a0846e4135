"""Writing Zarr: what is written is what was computed, and what is unfinished never looks finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from dask.callbacks import Callback
from pyproj import CRS
from support.disks import small_disk
from support.scenes import write_scene

import eosr
from eosr.cube import grid
from eosr.errors import GridError, OutputError
from eosr.write.store import to_zarr

BANDS = {10: ("B02", "B08"), 20: ("B05", "B8A"), 60: ("B01",)}
TIMES = np.array(["2023-06-06T10:00:00", "2023-06-16T10:00:00"], "datetime64[ns]")


def scene(
    *, dtype="uint16", times=1, sharpened=False, chunks=(96, 48, 16), delay=0.0, log=None, seed=0, shape60=(40, 60)
):
    """A multi-resolution Dataset of random numbers with a nodata corner; 3 x 4 blocks, the last ones smaller."""
    data, coords, corner = {}, {}, (500_040.0, 5_200_020.0)
    for (group, names), side in zip(BANDS.items(), chunks, strict=True):
        size = 10 if sharpened else group
        rows, columns = (length * 60 // size for length in shape60)
        side = chunks[0] if sharpened else side
        for index, name in enumerate(names):
            values = np.random.default_rng([seed, group, index]).integers(1, 12_000, (times, rows, columns))
            values[:, : 360 // size, : 360 // size] = 0
            array = da.from_array(values.astype("uint16"), chunks=(1, side, side))
            if dtype == "float32":
                array = da.where(array == 0, np.float32("nan"), array.astype("float32") / 3)
            if log is not None:
                array = array.map_blocks(slow, delay=delay, log=str(log), band=name, dtype=dtype)
            data[name] = (("time", f"y{size}", f"x{size}"), array)
        crs = CRS.from_epsg(32632)
        coords[f"y{size}"] = corner[1] - size * (np.arange(rows) + 0.5)
        coords[f"x{size}"] = corner[0] + size * (np.arange(columns) + 0.5)
        transform = Affine(size, 0, corner[0], 0, -size, corner[1])
        geotransform = " ".join(str(float(value)) for value in transform.to_gdal())
        coords[f"spatial_ref{size}"] = ((), 0, crs.to_cf() | {"GeoTransform": geotransform})
    attrs = {
        "level": "L2A", "platform": "sentinel-2b", "processing_baseline": "05.09", "radiometric_offset": -1000,
        "offset_policy": "auto", "nodata": 0, "quantification": 10000,
        "item_ids": [f"S2B_T32_{n}" for n in range(times)],
        "times": [str(time.astype("datetime64[us]")) for time in TIMES[:times]],
        "item_times": [str(time.astype("datetime64[us]")) for time in TIMES[:times]],
    }  # fmt: skip
    ds = xr.Dataset(data, coords | {"time": TIMES[:times]}, attrs)
    for name, band in ds.data_vars.items():
        ds[name].encoding["grid_mapping"] = f"spatial_ref{str(band.dims[-1])[1:]}"
    return ds


def slow(block, *, delay, log, band, block_info=None):
    """Tell that a block was computed, and take some time for it."""
    if block.size:
        time.sleep(delay)
        where = ".".join(map(str, block_info[0]["chunk-location"])) if block_info else "x"
        with Path(log, f"{band}_{where}").open("a") as file:
            file.write("computed\n")
    return block


def reopened(path):
    return xr.open_zarr(path, decode_coords="all")


def assert_same(path, ds):
    """Bit for bit, type for type, with coordinates, attributes, CRS and transforms."""
    back = reopened(path)
    assert back.attrs == ds.attrs
    np.testing.assert_array_equal(back.time.values, ds.time.values)
    for name, band in ds.data_vars.items():
        assert back[name].dtype == band.dtype
        np.testing.assert_array_equal(back[name].values.view("u1"), band.values.view("u1"))
        y, x = band.dims[-2:]
        size = int(y[1:])
        np.testing.assert_array_equal(back[x].values, ds[x].values)
        rio = back[name].rio.set_spatial_dims(x, y).rio
        assert rio.crs.to_epsg() == 32632
        assert rio.transform() == Affine(size, 0, 500_040, 0, -size, 5_200_020)
        assert rio.transform(recalc=True) == rio.transform()


def neighbours(path):
    return sorted(entry.name for entry in Path(path).parent.iterdir())


@pytest.mark.parametrize("sharpened", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_store_reopens_as_the_same_dataset(tmp_path, dtype, sharpened):
    ds = scene(dtype=dtype, sharpened=sharpened, times=2)
    path = to_zarr(ds, tmp_path / "x.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reopened(path)
    assert_same(path, ds)
    assert neighbours(path) == ["x.zarr"]
    assert (reopened(path)["B05"].attrs.get("nodata") == 0) is (dtype == "uint16")


def test_the_store_is_zarr_v3_with_one_file_per_block_and_no_shards(tmp_path):
    path = to_zarr(scene(), tmp_path / "x.zarr")
    meta = json.loads((path / "B05" / "zarr.json").read_text())
    assert meta["zarr_format"] == 3
    assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [1, 48, 48]
    assert [codec["name"] for codec in meta["codecs"]] == ["bytes", "blosc"]
    assert len([file for file in (path / "B05" / "c").rglob("*") if file.is_file()]) == 12


def test_times_are_int64_seconds_and_fractions_of_a_second_survive(tmp_path):
    ds = scene(times=2)
    path = to_zarr(ds, tmp_path / "whole.zarr")
    meta = json.loads((path / "time" / "zarr.json").read_text())
    assert (meta["data_type"], meta["attributes"]["units"]) == ("int64", "seconds since 1970-01-01")
    fractions = ds.assign_coords(time=TIMES + np.timedelta64(24, "ms"))
    told = [str(time) for time in fractions.time.values.astype("datetime64[us]")]
    fractions = fractions.assign_attrs(times=told, item_times=told)
    assert_same(to_zarr(fractions, tmp_path / "fractions.zarr"), fractions)


def test_a_scene_without_time_and_one_with_a_scalar_time_are_written(tmp_path):
    one = scene().isel(time=0)
    assert_same(to_zarr(one, tmp_path / "scalar.zarr"), one)
    none = one.drop_vars("time")
    back = reopened(to_zarr(none, tmp_path / "none.zarr"))
    assert back["B05"].dims == ("y20", "x20")
    np.testing.assert_array_equal(back["B05"], none["B05"])


def test_a_window_gets_the_transform_of_its_own_corner(tmp_path):
    window = scene(sharpened=True).isel(y10=slice(96, 240), x10=slice(192, 360))
    band = reopened(to_zarr(window, tmp_path / "x.zarr"))["B05"]
    transform = band.rio.set_spatial_dims("x10", "y10").rio.transform()
    assert transform == Affine(10, 0, 500_040 + 1920, 0, -10, 5_200_020 - 960)
    assert band.spatial_ref10.attrs["GeoTransform"] == "501960.0 10.0 0.0 5199060.0 0.0 -10.0"


def test_numpy_data_get_the_default_blocks(tmp_path):
    ds = scene().load()
    path = to_zarr(ds, tmp_path / "x.zarr")
    assert_same(path, ds)


def test_numpy_scalars_and_paths_in_attributes_become_json(tmp_path):
    ds = scene().assign_attrs(score=np.float32(0.5), ids=np.array([1, 2]), weights=Path("a/b"))
    back = reopened(to_zarr(ds, tmp_path / "x.zarr"))
    assert (back.attrs["score"], back.attrs["ids"], back.attrs["weights"]) == (0.5, [1, 2], "a/b")
    with pytest.raises(OutputError, match=r"attrs\['model'\] is a object, which has no place in JSON"):
        to_zarr(ds.assign_attrs(model=object()), tmp_path / "y.zarr")


def test_a_distributed_cluster_writes_the_same_store(tmp_path):
    distributed = pytest.importorskip("distributed")
    ds = scene(times=2)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        path = to_zarr(ds, tmp_path / "x.zarr")
        with pytest.raises(OutputError, match=r"float64 with"):
            to_zarr(lying(ds), tmp_path / "y.zarr")
    assert_same(path, ds)
    assert not (tmp_path / "y.zarr").exists()


def test_progress_tells_every_block_once_and_ends_at_all(tmp_path):
    told = []
    to_zarr(scene(), tmp_path / "x.zarr", progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 12)
    assert told[-1] == (12, 12)
    assert told == sorted(set(told))


def test_what_two_blocks_share_is_computed_once(tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    ds = scene(sharpened=True, log=log)
    blurred = ds["B05"].data.map_overlap(lambda a: a, depth=(0, 4, 4), boundary="reflect", dtype="uint16")
    to_zarr(ds[["B05"]].assign(B05=ds["B05"].copy(data=blurred)), tmp_path / "x.zarr")
    assert [file.read_text().count("computed") for file in log.iterdir()] == [1] * 12


# A killed run -------------------------------------------------------------------------------------------------------


def run_slowly(folder, delay):
    """What the killed process does: the same Dataset, one block at a time."""
    with dask.config.set(scheduler="synchronous"):
        to_zarr(scene(delay=float(delay), log=Path(folder) / "log"), Path(folder) / "x.zarr")


def computed(folder):
    return sum(file.read_text().count("computed") for file in (folder / "log").iterdir())


@pytest.fixture
def killed(tmp_path):
    """A folder in which a run was killed (SIGKILL) after at least 4 of 12 blocks; the markers left behind."""
    (tmp_path / "log").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    run = subprocess.Popen([sys.executable, __file__, str(tmp_path), "0.05"], env=environment)
    done = tmp_path / "x.zarr.part.done"
    while run.poll() is None and len(list(done.glob("[0-9]*"))) < 4:
        assert not (tmp_path / "x.zarr").exists()
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert not (tmp_path / "x.zarr").exists()
    return tmp_path


def test_a_killed_run_resumes_and_computes_only_the_rest(killed):
    done = len(list((killed / "x.zarr.part.done").glob("[0-9]*")))
    assert 4 <= done < 12
    before = computed(killed)
    seen = []
    ds = scene(delay=0.05, log=killed / "log")
    path = to_zarr(ds, killed / "x.zarr", progress=lambda *_: seen.append((killed / "x.zarr").exists()))
    assert computed(killed) - before == 5 * (12 - done)
    assert seen
    assert not any(seen)
    assert_same(path, scene())
    assert neighbours(path) == ["log", "x.zarr"]


def test_resume_refuses_another_input_and_names_what_differs(killed):
    ds = scene(delay=0.05, log=killed / "log")
    for other, what in (
        (ds.assign_attrs(level="L1C"), r"\(different: attributes\)"),
        (ds.drop_vars("B01"), "different: bands, shapes"),
        (ds.assign_coords(x10=ds.x10 + 60), "different: coordinates"),
        (scene(delay=0.05, log=killed / "log", seed=1), r'\(different: dask names\). .*try resume="verify"'),
    ):
        with pytest.raises(OutputError, match=f"(?s)x.zarr.part holds an unfinished run of another input.*{what}"):
            to_zarr(other, killed / "x.zarr")
    with pytest.raises(OutputError, match=r"computed again, differs.*resume=False"):
        to_zarr(scene(seed=1), killed / "x.zarr", resume="verify")
    other = scene(seed=1)
    assert_same(to_zarr(other, killed / "x.zarr", resume=False), other)


def test_resume_verify_accepts_the_same_numbers_under_other_dask_names(killed):
    before = computed(killed)
    assert_same(to_zarr(scene(), killed / "x.zarr", resume="verify"), scene())
    assert computed(killed) == before


# Bad input ----------------------------------------------------------------------------------------------------------


def lying(ds):
    """Declared uint16, computed float64 with NaN."""
    bad = ds["B05"].data.map_blocks(lambda a: np.where(a == 0, np.nan, a), dtype="uint16", meta=np.empty(0, "uint16"))
    return ds.assign(B05=ds["B05"].copy(data=bad))


def test_float_with_nan_is_never_cast_into_uint16(tmp_path):
    with pytest.raises(
        OutputError, match=r"block \(0, \d, \d\) of B05 is float64 with \d+ NaN, but uint16 was declared"
    ):
        to_zarr(lying(scene()), tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()


def test_an_existing_store_is_kept_unless_overwrite(tmp_path):
    first, second = scene(), scene(seed=1)
    path = to_zarr(first, tmp_path / "x.zarr")
    with pytest.raises(OutputError, match=r"x.zarr is already there and was kept. Pass overwrite=True"):
        to_zarr(second, path)
    assert_same(path, first)
    assert_same(to_zarr(second, path, overwrite=True), second)
    assert neighbours(path) == ["x.zarr"]


def test_overwrite_keeps_the_old_store_while_the_new_one_fails_and_never_deletes_a_folder(tmp_path):
    path = to_zarr(scene(), tmp_path / "x.zarr")
    with pytest.raises(OutputError, match=r"float64"):
        to_zarr(lying(scene()), path, overwrite=True)
    assert_same(path, scene())
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="mine is there and is no Zarr store"):
        to_zarr(scene(), tmp_path / "mine", overwrite=True)
    (tmp_path / "y.zarr.part").mkdir()
    with pytest.raises(OutputError, match=r"y.zarr.part is there and is no unfinished run of eosr"):
        to_zarr(scene(), tmp_path / "y.zarr", resume=False)


@pytest.mark.parametrize(
    "chunk", [{"x20": (48, 60, 72)}, {"x20": 60}, {"y60": 40}, {"time": 2}, {"x10": 100, "x20": 100, "x60": 100}]
)
def test_chunks_that_are_not_aligned_are_made_so(tmp_path, chunk):
    ds = scene(times=2).chunk(chunk)
    path = to_zarr(ds, tmp_path / "x.zarr")
    assert_same(path, ds)
    chunks = {name: band.encoding["chunks"] for name, band in reopened(path).data_vars.items()}
    assert [chunks["B02"][axis] for axis in (1, 2)] == [6 * chunks["B01"][axis] for axis in (1, 2)]
    assert chunks["B02"][1] == 2 * chunks["B05"][1]


def test_a_window_cut_across_chunks_is_written_in_chunks_of_the_old_size(tmp_path):
    window = {f"{axis}{group}": slice(5 * 60 // group, 33 * 60 // group) for group in BANDS for axis in "yx"}
    part = scene().isel(window)
    assert part["B02"].chunksizes["y10"] == (66, 96, 6)
    back = reopened(to_zarr(part, tmp_path / "x.zarr"))
    assert back["B02"].encoding["chunks"] == (1, 96, 96)
    for name, band in part.data_vars.items():
        np.testing.assert_array_equal(back[name].values, band.values)


def test_groups_on_different_ground_cannot_be_rechunked_and_are_refused(tmp_path):
    with pytest.raises(GridError, match=r"along y, the chunks of .* Crop the groups to the same ground first: ds ="):
        to_zarr(scene().isel(y20=slice(0, 119)), tmp_path / "x.zarr")
    assert neighbours(tmp_path / "x.zarr") == []


def test_a_store_opened_without_decoding_its_coordinates_is_the_same_dataset(tmp_path):
    plain = xr.open_zarr(to_zarr(scene(), tmp_path / "x.zarr"))
    assert "spatial_ref20" in plain.data_vars
    assert grid.crs_of(plain).to_epsg() == 32632
    assert grid.at(plain, 20)["B05"].rio.transform() == Affine(20, 0, 500_040, 0, -20, 5_200_020)
    whole = grid.with_grid_mappings(plain)
    assert set(whole.data_vars) == set(scene().data_vars)
    assert whole["B05"].encoding["grid_mapping"] == "spatial_ref20"
    assert_same(to_zarr(plain, tmp_path / "y.zarr"), scene())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "to_zarr needs a Dataset with one variable per band, not a NoneType. Open one with eosr.open_stac"),
        ("x.zarr", r"not a str. Open the store first: xr.open_zarr\('x.zarr', decode_coords='all'\)"),
        (scene()["B02"], r"not a DataArray. Keep the Dataset when selecting: ds\[\['B02'\]\]"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, given, text):
    with pytest.raises(GridError, match=text):
        to_zarr(given, tmp_path / "x.zarr")
    with pytest.raises(OutputError, match="None is a NoneType where a path is meant"):
        to_zarr(scene(), None)


def test_what_cannot_be_laid_out_is_refused(tmp_path):
    ds = scene()
    for bad, kind, text in (
        (ds.drop_vars("spatial_ref20"), GridError, r"the 20 m bands \(B05, B8A\) have no CRS"),
        (ds.drop_vars("x20"), GridError, "the Dataset has no coordinates y20 and x20"),
        (ds.isel(x20=[0, 1, 5]), GridError, "coordinate x20 is not equally spaced"),
        (ds.transpose("x20", ...), GridError, r"B05 has the dimensions \('x20', 'time', 'y20'\)"),
        (ds.astype("float64"), OutputError, "B02 is float64; eosr writes uint16"),
        (ds.assign(B05=ds.B05.isel(time=0, drop=True)), GridError, "some bands have a time dimension"),
        (ds.isel(x20=slice(0)), GridError, "the 20 m bands have no pixel"),
        (ds[[]], OutputError, "holds no band"),
    ):
        with pytest.raises(kind, match=text):
            to_zarr(bad, tmp_path / "x.zarr")
    with pytest.raises(OutputError, match=r"s3://bucket/x.zarr is a URL"):
        to_zarr(ds, "s3://bucket/x.zarr")
    with pytest.raises(OutputError, match="resume='yes' is not known"):
        to_zarr(ds, tmp_path / "x.zarr", resume="yes")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write into .*file: File exists. Choose another folder"):
        to_zarr(scene(), tmp_path / "file" / "x.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"cannot write into .*Permission denied"):
        to_zarr(scene(), tmp_path / "x.zarr")


def test_a_read_only_disk_is_refused(tiny_disk):
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    with pytest.raises(OutputError, match=r"cannot write into .*tiny: Read-only file system. Choose another folder"):
        to_zarr(scene(), tiny_disk / "x.zarr")


def test_too_little_free_space_is_told_before_anything_is_written(tmp_path):
    # 10**6 x 10**6 pixels that exist only as a graph of one block: 2 TB.
    side = 1_000_000
    coords = {"y10": 5e6 - 10 * np.arange(side), "x10": 5e5 + 10.0 * np.arange(side)}
    huge = da.zeros((side, side), chunks=side, dtype="uint16")
    ds = xr.Dataset({"B02": (("y10", "x10"), huge)}, coords | {"spatial_ref10": ((), 0, CRS.from_epsg(32632).to_cf())})
    ds.attrs = {"level": "L2A", "radiometric_offset": 0}
    with pytest.raises(OutputError, match=r"MB free, and about 1,400,000.0 MB are needed. Free some space"):
        to_zarr(ds, tmp_path / "x.zarr")
    assert neighbours(tmp_path / "x.zarr") == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 256 kB."""
    with small_disk(tmp_path / "tiny", "256k") as folder:
        yield folder


def test_a_disk_that_fills_up_leaves_nothing_that_looks_finished_and_the_run_goes_on_later(tiny_disk, monkeypatch):
    monkeypatch.setattr("eosr.write.store.COMPRESSED", 0.0)  # the check before the start would refuse
    with pytest.raises(
        OutputError, match=r"No space left on device after \d+ of 12 blocks, which are kept in .*x.zarr.part"
    ):
        to_zarr(scene(), tiny_disk / "x.zarr")
    assert not (tiny_disk / "x.zarr").exists()
    subprocess.run(["mount", "-o", "remount,size=8m", tiny_disk], check=True)
    assert_same(to_zarr(scene(), tiny_disk / "x.zarr"), scene())


def test_a_file_size_limit_in_the_middle_leaves_nothing_that_looks_finished(tmp_path):
    code = (
        "import resource, signal, sys\n"
        "from write.test_write_zarr import scene, to_zarr\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))\n"
        "to_zarr(scene(), sys.argv[1])\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.zarr")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NoRoomError: File too large after" in run.stderr
    assert not (tmp_path / "x.zarr").exists()
    assert_same(to_zarr(scene(), tmp_path / "x.zarr"), scene())


if __name__ == "__main__":
    # The killed process; the functions must carry the name of the module, as in pytest, for equal dask names.
    from write.test_write_zarr import run_slowly as run_in_module

    run_in_module(*sys.argv[1:])


def test_a_scene_is_not_read_as_a_whole_before_its_first_block_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("eosr.open.reading._READ", 128)
    scene = write_scene(tmp_path / "scene", size=1080)
    sharp = eosr.open_stac(scene.item(), chunks=120).s2sr.superresolve(method="bicubic")
    done = []
    with Callback(posttask=lambda key, *_: done.append(str(key))), dask.config.set(scheduler="sync"):
        eosr.to_zarr(sharp, tmp_path / "sharp.zarr")
    reads = [place for place, key in enumerate(done) if "fetch_raster_window" in key]
    writes = [place for place, key in enumerate(done) if "_write_block" in key]
    assert len(writes) == 81
    before = sum(place < writes[0] for place in reads)
    assert 0 < before < len(reads) / 3, f"{before} of {len(reads)} blocks were read before the first was written"
