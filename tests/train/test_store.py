"""Patch stores: the pixels of the scenes, read by anybody at once, in little memory; damage is told."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import dask
import numpy as np
import pytest
import xarray as xr
import zarr

from eosr.cube.degradation import degrade
from eosr.errors import TrainingError
from eosr.host.memory import PeakMemory
from eosr.testing import never_compute
from eosr.train.data.material import Patches
from eosr.train.data.windows import WindowConfig
from eosr.train.prepare.run import prepare
from eosr.train.prepare.shards import FORMAT, HOLE, ShardWriter, new_arrays, write_attributes
from eosr.train.prepare.store import PatchStore, SceneRecord
from train.prepared import OFFSET, write_config, write_cubes


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    return write_cubes(tmp_path_factory.mktemp("cubes"))


@pytest.fixture(scope="module")
def store(cubes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return PatchStore(prepare(write_config(folder / "c.toml", cubes), folder))


@pytest.fixture
def copy(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "copy.zarr")
    return tmp_path / "copy.zarr"


def test_patches_are_the_pixels_of_the_scene_with_its_offset(store, cubes):
    for index in (0, len(store) // 2, len(store) - 1):
        scene = store.scene(index)
        number, row, column = store.table[index]
        record = store.scenes[number]
        assert scene.name == f"{record.name}@{row},{column}"
        ds = xr.open_zarr(cubes / f"{record.name.split('-')[1]}.zarr", mask_and_scale=False)
        for names, images, step in (
            (("B02", "B03", "B04", "B08"), scene.fine, 1),
            (("B05", "B06", "B07", "B8A", "B11", "B12"), scene.middle, 2),
            (("B01", "B09"), scene.coarse, 6),
        ):
            top, left, side = (row - 36) // step, (column - 36) // step, 144 // step
            for name, image in zip(names, images, strict=True):
                expected = ds[name].values[top : top + side, left : left + side].astype(float) + OFFSET
                np.testing.assert_array_equal(image, expected)
        assert scene.usable.all()
        assert not scene.kept_out


def test_there_is_no_patch_below_the_first_nor_after_the_last(store):
    for index in (-1, len(store)):
        with pytest.raises(IndexError, match=rf"has {len(store)} patches, none of number {index}"):
            store.scene(index)


def test_patches_are_degraded_lazily_as_the_scene_would_be(store, cubes):
    """Inside, the degraded pixels of a patch are those of the degraded scene: the phase rule."""
    with dask.config.set(scheduler=never_compute):
        lazy = store.degraded([3, 0], 2, "mtf")
    assert lazy["patch"].values.tolist() == [3, 0]
    assert lazy.attrs["degradation"] == "mtf"
    found = lazy.compute(scheduler="synchronous")
    number, row, column = store.table[3]
    ds = xr.open_zarr(cubes / f"{store.scenes[number].name[-1]}.zarr", mask_and_scale=False, decode_coords="all")
    whole = degrade(ds.compute(), 2, degradation="mtf")
    for name, step in (("B02", 1), ("B05", 2), ("B01", 6)):
        top, left, side = (row - 36) // step // 2, (column - 36) // step // 2, 144 // step // 2
        mine = found[name].isel(patch=0).values
        theirs = whole[name].values[top : top + side, left : left + side] + OFFSET
        rim = min(6, side // 2 - 1)
        np.testing.assert_allclose(mine[rim:-rim, rim:-rim], theirs[rim:-rim, rim:-rim], atol=0.01)


def test_holes_are_nan_one_scale_down_and_unusable(tmp_path):
    path = written_store(tmp_path, patches=2, side=36, hole=(slice(0, 2), slice(0, 2)))
    store = PatchStore(path)
    scene = store.scene(1)
    assert not scene.usable[:2, :2].any()
    assert scene.usable[2:, 2:].all()
    assert (scene.fine[:, 0, 0] == 0).all()
    degraded = store.degraded(1, 2, "box")["B02"].values[0]
    assert np.isnan(degraded[0, 0])
    assert np.isfinite(degraded[1:, 1:]).all()


def test_the_store_is_verified_and_a_changed_pixel_is_found(store, copy):
    store.verify()
    zarr.open_group(copy / "scenes" / "00000", mode="a")["x20"][3, 2, 5, 5] += 1
    with pytest.raises(TrainingError, match=r"the patches of .*-\d in .*copy\.zarr are not those that were written"):
        PatchStore(copy).verify()


@pytest.mark.parametrize("name", ["x10", "x60", "usable", "place"])
def test_a_file_that_was_purged_is_told_and_not_read_as_zeros(name, copy):
    (file,) = [one for one in (copy / "scenes" / "00000" / name / "c").rglob("*") if one.is_file()]
    file.unlink()
    store = PatchStore(copy)
    with pytest.raises(
        TrainingError, match=rf"1 files of .* are missing in .*, e\.g\. scenes/00000/{name}/c/0.*purged"
    ):
        store.scene(0)
    with pytest.raises(TrainingError, match="are missing in"):
        store.verify()


def test_a_damaged_file_is_told(copy):
    (file,) = [one for one in (copy / "scenes" / "00000" / "x10" / "c").rglob("*") if one.is_file()]
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(
        TrainingError, match=r"the patches of .* cannot be read \(.*\)\. Copy the store again, or remove"
    ):
        PatchStore(copy).scene(0)


def test_an_unfinished_store_and_none_and_one_of_another_format_are_refused(copy, tmp_path):
    with pytest.raises(TrainingError, match=r"there is no store .*x\.zarr\. Make one with eosr-train prepare"):
        PatchStore(tmp_path / "x.zarr")
    (tmp_path / "y.zarr").mkdir()
    with pytest.raises(TrainingError, match=r"y\.zarr is not finished, or is none of eosr's\. Run the same"):
        PatchStore(tmp_path / "y.zarr")
    about = json.loads((copy / "zarr.json").read_text())
    about["attributes"]["eosr"]["format"] = 99
    (copy / "zarr.json").write_text(json.dumps(about))
    with pytest.raises(TrainingError, match=rf"has format 99, this eosr reads {FORMAT}\. Prepare it again"):
        PatchStore(copy)


def test_the_checksum_is_that_of_the_pixels_and_not_of_the_name(cubes, store, tmp_path):
    other = write_config(tmp_path / "c.toml", cubes, **{'name__"made"': 'name = "other"'})
    assert PatchStore(prepare(other, tmp_path)).checksum() == store.checksum()
    more = write_config(tmp_path / "d.toml", cubes, per_scene__20="per_scene = 21")
    assert PatchStore(prepare(more, tmp_path)).checksum() != store.checksum()


def written_store(folder, *, patches, side, scenes=1, hole=None):
    """A store of scenes that are all links to the first one."""
    rng = np.random.default_rng(0)
    (folder / "s.zarr" / "scenes").mkdir(parents=True)
    first = folder / "s.zarr" / "scenes" / "00000"
    writer = ShardWriter(group=new_arrays(first, patches, (side, side), has_60m=True))
    images = {f"x{gsd}": rng.integers(1, 3000, (n, 10 * side // gsd, 10 * side // gsd), dtype=np.int16)
              for gsd, n in ((10, 4), (20, 6), (60, 2))}  # fmt: skip
    usable = np.ones((side, side), bool)
    if hole is not None:
        images["x10"][(slice(None), *hole)] = HOLE
        usable[hole] = False
    for k in range(patches):
        writer.add(images | {"usable": usable, "place": np.array((6 * k, 0))})
    record = SceneRecord(
        name="s", level="L2A", platform="sentinel-2a", tile="", item_ids=(), offset=0, patches=patches, drawn=patches,
        rejected={}, checksum=writer.finish(),
    )  # fmt: skip
    for number in range(1, scenes):
        (first.parent / f"{number:05d}").symlink_to(first, target_is_directory=True)
    write_attributes(
        folder / "s.zarr",
        {
            "format": FORMAT, "settings": {"patch": side, "margin": 0}, "checksum": "",
            "scenes": [asdict(record)] * scenes, "validation": [],
        },
    )  # fmt: skip
    return folder / "s.zarr"


@pytest.mark.long
def test_a_million_and_a_half_patches_are_read_at_random_in_little_memory(tmp_path):
    """3000 scenes of 500 patches, 120 GB if they lay in memory; three readers that also draw the order of a pass."""
    path = written_store(tmp_path, patches=500, side=84, scenes=3000)
    patch = 84 * 84 * 10
    with PeakMemory() as memory:
        store = PatchStore(path)
        assert len(store) == 1_500_000
        assert len(store) * patch > 100e9
        source = Patches(store, WindowConfig(factor=2, size=24, rim=4))
        with ThreadPoolExecutor(3) as readers:
            windows = list(readers.map(lambda k: source.sample(k, 7).target.shape, range(300)))
        assert store.scene(1_499_999).name.startswith("s@2994,")
    assert set(windows) == {(6, 24, 24)}
    # Measured: 90 MB, of which the order of 1.5 M patches is 12 MB; 256 open scenes are the most of the rest.
    assert memory.grown < 300e6


def test_processes_read_the_same_store_at_once(store):
    program = """
import sys
from eosr.train.prepare.store import PatchStore
store = PatchStore(sys.argv[1])
print(sum(float(store.scene(k).fine.sum()) for k in range(len(store))))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", program, store.path], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    told = {process.communicate()[0] for process in running}
    assert all(process.returncode == 0 for process in running)
    mine = sum(float(store.scene(k).fine.sum()) for k in range(len(store)))
    assert told == {f"{mine}\n"}
