"""`eosr-train prepare` from cubes and STAC items: the pixels of the scenes, whole places kept out, no run lost."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import eosr
from eosr.degrade import degrade
from eosr.errors import OutputError, TrainingError
from eosr.testing import synthetic_scene
from eosr.train.cli import main
from eosr.train.prepare import prepare
from eosr.train.prepare_config import load_prepare_config
from eosr.train.store import PatchStore
from eosr.write import to_zarr

CONFIG = """
name = "made"
seed = 5
patch = 72
margin = 36
per_scene = 20
[filter]
cloud = 1.0
[split]
validation = 0.3
size = 144
[[source]]
kind = "cube"
paths = ["{cubes}/*.zarr"]
"""
OFFSET = -1000


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    """Three tiles of 240 x 216 pixels of 10 m; the last two are images of one tile, the first of these has a hole."""
    folder = tmp_path_factory.mktemp("cubes")
    for number, tile in enumerate(("31AAA", "32BBB", "33CCC", "33CCC")):
        gaps = {"B05": [(slice(0, 40), slice(0, 40))]} if number == 2 else None
        ds = synthetic_scene(
            40,
            36,
            level="L2A",
            seed=number,
            radiometric_offset=OFFSET,
            item_ids=[f"{tile}-{number}"],
            tile=tile,
            gaps=gaps,
        )
        to_zarr(ds, folder / f"{number}.zarr")
    return folder


@pytest.fixture
def config(tmp_path, cubes):
    def written(**changes):
        text = CONFIG.format(cubes=cubes)
        for before, after in changes.items():
            old = before.replace("__", " = ")
            assert old in text
            text = text.replace(old, after)
        path = tmp_path / "prepare.toml"
        path.write_text(text)
        return load_prepare_config(path)

    return written


@pytest.fixture(scope="module")
def store(cubes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    (folder / "c.toml").write_text(CONFIG.format(cubes=cubes))
    return PatchStore(prepare(load_prepare_config(folder / "c.toml"), folder))


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


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


def test_holes_are_left_out_and_told(store):
    first = next(one for one in store.scenes if one.name == "33CCC-2")
    assert first.rejected["nodata"] > 0
    assert first.patches == first.drawn - first.rejected["nodata"]
    assert all(store.scene(k).usable.all() for k in range(len(store)))


def test_whole_tiles_are_kept_out(store):
    """Three tiles, 30 %: one of them, with all of its images."""
    kept_in, kept_out = ({one.tile for one in part} for part in (store.scenes, store.validation_scenes))
    assert (len(kept_in), len(kept_out)) == (2, 1)
    assert not kept_in & kept_out
    (first, *_) = store.validation()
    assert first.kept_out
    assert first.fine.shape == (4, 144, 144)
    assert first.coarse.shape == (2, 24, 24)


def test_the_store_says_what_it_was_made_of(store):
    settings = json.loads((store.path / "zarr.json").read_text())["attributes"]["eosr"]["settings"]
    assert (settings["seed"], settings["patch"], settings["filter"]["constant"]) == (5, 72, True)
    assert store.levels == ("L2A",)
    assert all((one.offset, one.level, len(one.checksum)) == (OFFSET, "L2A", 64) for one in store.scenes)
    assert sum(one.patches for one in store.scenes) == len(store) > 20


def test_the_store_is_verified_and_a_changed_pixel_is_found(store, tmp_path):
    import shutil

    import zarr

    store.verify()
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    zarr.open_group(copy / "scenes" / "00000", mode="a")["x20"][3, 2, 5, 5] += 1
    with pytest.raises(TrainingError, match=r"the patches of .*-\d in .*copy\.zarr are not those that were written"):
        PatchStore(copy).verify()


def test_a_patch_is_degraded_lazily_as_the_scene_would_be(store):
    import dask

    from eosr.testing import never_compute

    with dask.config.set(scheduler=never_compute):
        lazy = store.degraded(3, 2, "mtf")
    scene = store.scene(3)
    own = xr.DataArray(scene.middle[0], dims=("y", "x"))
    expected = degrade(own, 2, sigma=eosr.degrade.__globals__["blur_sigma"]("B05", 2, "mtf"))
    np.testing.assert_allclose(lazy["B05"].values.astype(float), expected.values, atol=1.01)


def test_the_same_configuration_again_does_nothing_and_another_one_is_refused(config, tmp_path):
    first = prepare(config(), tmp_path)
    before = files_of(first)
    assert prepare(config(), tmp_path) == first
    assert files_of(first) == before
    with pytest.raises(
        TrainingError, match=r"made\.zarr was begun with another configuration .* \(seed = 5 there, 6 here\)"
    ):
        prepare(config(seed__5="seed = 6"), tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from eosr.train import prepare, store
from eosr.train.prepare_config import load_prepare_config
put, count = store.put, 0
def dying(*arguments):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    put(*arguments)
prepare.put = dying
prepare.prepare(load_prepare_config(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("moment", [1, 3])
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(moment, config, store, tmp_path):
    settings = config()
    command = [sys.executable, "-c", KILLED, tmp_path / "prepare.toml", tmp_path, str(moment)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    with pytest.raises(TrainingError, match="there is no store"):
        PatchStore(tmp_path / "made.zarr")
    done = len(list((tmp_path / "made.zarr.part").glob("*/*.json")))
    assert done >= moment - 1
    with pytest.raises(TrainingError, match=r"was begun with another configuration or other scenes \(seed"):
        prepare(config(seed__5="seed = 6"), tmp_path)
    path = prepare(settings, tmp_path)
    assert files_of(path) == files_of(store.path)


def test_the_command_writes_the_store_and_says_what_is_in_it(cubes, tmp_path, capsys):
    (tmp_path / "c.toml").write_text(CONFIG.format(cubes=cubes))
    assert main(["prepare", str(tmp_path / "c.toml"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'made.zarr'}\n"
    assert "scenes; " in printed.err
    assert "kept out for validation" in printed.err


def test_stac_items_become_patches_without_their_clouds(written, tmp_path):
    """An L2A item with its scene classification: the left half is cloud."""
    from affine import Affine
    from conftest import write_cog

    classes = np.full((180, 180), 4, np.uint8)
    classes[:, :90] = 9
    write_cog(tmp_path / "SCL.tif", classes, Affine(20, 0, written.left, 0, -20, written.top))
    item = written.item()
    item["assets"]["scl"] = {"href": str(tmp_path / "SCL.tif"), "type": "image/tiff"}
    (tmp_path / "item.json").write_text(json.dumps(item))
    text = CONFIG.replace("cloud = 1.0", "cloud = 0.0").replace("validation = 0.3", "validation = 0.0")
    text = text.replace('kind = "cube"', 'kind = "stac"').replace("{cubes}/*.zarr", str(tmp_path / "item.json"))
    (tmp_path / "c.toml").write_text(text)
    store = PatchStore(prepare(load_prepare_config(tmp_path / "c.toml"), tmp_path))
    assert 0 < len(store) < 20
    assert (store.table["column"] - 36 >= 180).all()
    assert store.scenes[0].rejected["cloud"] == 20 - len(store)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch__72": "patch = 70"}, r"patch = 70 is no multiple of 36 pixels .* Give 72\."),
        ({"margin__36": "margin = 6"}, r"margin = 6 is no multiple of 36"),
        ({"cloud__1.0": "cloud = 2.0"}, r"\[filter\] cloud = 2\.0 is no share"),
        (
            {"cloud__1.0": "clouds = 1.0"},
            r"\[filter\]: unknown key clouds\. Known keys: nodata, saturated, cloud, constant",
        ),
        ({"seed__5": "sed = 5"}, r"unknown key sed\. Known keys: name, seed, patch"),
        (
            {'kind__"cube"': 'kind = "tiff"'},
            r"\[\[source\]\] 1: kind = 'tiff' is unknown\. Give 'stac', 'safe' or 'cube'",
        ),
        ({"validation__0.3": 'by = "tile"'}, r"by = 'tile' is unknown\. Give 'scene' or 'geography'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, said, config):
    with pytest.raises(TrainingError, match=said):
        config(**change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"*.zarr": "none*.zarr"}, r"\[\[source\]\] 1 \(.*none\*\.zarr\) matches no scene\. Correct its paths\."),
        ({"cloud__1.0": "cloud = 0.1"}, r"nothing tells the clouds of 31AAA-0: it has no SCL\."),
        ({"patch__72": "patch = 252"}, r"has 240 x 216 pixels of 10 m, a patch with its margin 324"),
        ({"validation__0.3": "validation = 1.0"}, r"all 4 scenes are kept out for validation"),
        ({"validation__0.3": 'names = ["34"]'}, r"\[split\] names 34, which no scene is called"),
        ({"*.zarr": "2.zarr", "validation__0.3": "validation = 0.0", "patch__72": "patch = 144"},
            r"none of \d+ patches passes the filter \(nodata 100 %\)\. Choose clearer scenes"),
    ],
)  # fmt: skip
def test_scenes_that_cannot_be_used_are_refused(change, said, config, tmp_path):
    with pytest.raises(TrainingError, match=said):
        prepare(config(**change), tmp_path)
    assert not (tmp_path / "made.zarr").exists()


def test_named_scenes_are_kept_out_with_all_images_of_their_tile(config, tmp_path):
    store = PatchStore(prepare(config(**{"validation__0.3": 'names = ["33CCC-2"]'}), tmp_path))
    assert [one.name for one in store.validation_scenes] == ["33CCC-2", "33CCC-3"]


def test_mixed_levels_are_refused_unless_allowed(config, cubes, tmp_path):
    to_zarr(synthetic_scene(40, 36, level="L1C", item_ids=["top"], tile="40XXX"), tmp_path / "top.zarr")
    both = f'paths = ["{cubes}/*.zarr", "{tmp_path}/top.zarr"]'
    change = {f'paths__["{cubes}/*.zarr"]': both}
    with pytest.raises(TrainingError, match="the sources mix L1C and L2A"):
        prepare(config(**change), tmp_path)
    store = PatchStore(prepare(config(**change, seed__5="seed = 5\nmixed_levels = true"), tmp_path))
    assert store.levels == ("L1C", "L2A")


def test_a_folder_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"made\.zarr cannot be written: .* it goes on where it stopped"):
        prepare(config(), tmp_path / "file")


def test_an_unfinished_store_and_none_are_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"there is no store .*x\.zarr\. Make one with eosr-train prepare"):
        PatchStore(tmp_path / "x.zarr")
    (tmp_path / "y.zarr").mkdir()
    with pytest.raises(TrainingError, match=r"y\.zarr is not finished, or is none of eosr's\. Run the same"):
        PatchStore(tmp_path / "y.zarr")


def test_a_training_runs_on_a_store_and_its_windows_are_those_of_its_patches(store, tmp_path):
    import torch

    from eosr.train.communicator import Alone
    from eosr.train.loop import train
    from eosr.train.material import open_material
    from train.made import tiny_config

    config = tiny_config(steps=2, window={"operators": (1.0, 0.0, 0.0, 0.0)})
    material = open_material(store.path, config)
    assert material.checksums == {"made.zarr": store.checksum()}
    windows = [material.source.sample(k, 0).target * 2000 for k in range(3)]
    assert all(window.shape == (6, 24, 24) for window in windows)
    order = {material.source._patch(k, 0) for k in range(len(store))}
    assert order == set(range(len(store))), "every patch once in a pass"
    outcome = train(config, material, tmp_path, communicator=Alone(), device=torch.device("cpu"))
    assert outcome.finished
    assert outcome.scores["study/rest"] > 0
    with pytest.raises(
        TrainingError, match=r"hold 72 of 20 m, a window has size = 96\. Give 72 or less below \[window\]"
    ):
        open_material(store.path, tiny_config(window={"size": 96}))
    with pytest.raises(TrainingError, match=r"\[shares\] divides the scenes of training packs"):
        open_material(store.path, tiny_config(shares={"a": 0.5}))


def test_many_patches_take_little_memory(store):
    """Reading 200 patches one after the other keeps none of them."""
    from eosr.cost import PeakMemory

    with PeakMemory() as memory:
        for k in range(200):
            store.scene(k % len(store))
    one = sum(getattr(store.scene(0), name).nbytes for name in ("fine", "middle", "coarse"))
    assert memory.grown < 60 * one


def test_processes_read_the_same_store_at_once(store):
    program = """
import sys
from eosr.train.store import PatchStore
store = PatchStore(sys.argv[1])
print(sum(float(store.scene(k).fine.sum()) for k in range(len(store))))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", program, store.path], stdout=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    assert len({process.communicate()[0] for process in running}) == 1
    assert all(process.returncode == 0 for process in running)


def test_the_documentation_lists_every_key_with_its_default():
    from dataclasses import fields, is_dataclass

    from eosr.train.prepare_config import PrepareConfig, SourceConfig
    from train.test_config import toml_of

    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "prepare-training-data.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.splitlines() if line.startswith("| `")]
    told = {key.strip("`"): default for key, default in rows}
    plain = PrepareConfig(name="x")
    expected = {"name": "required"}
    for field in fields(PrepareConfig):
        part = getattr(plain, field.name)
        if is_dataclass(part):
            expected |= {f"[{field.name}] {one.name}": toml_of(getattr(part, one.name)) for one in fields(part)}
        elif field.name not in ("name", "source"):
            expected[field.name] = toml_of(part)
    source = SourceConfig(kind="x", paths=())
    for one in fields(SourceConfig):
        needed = one.name in ("kind", "paths")
        expected[f"[[source]] {one.name}"] = "required" if needed else toml_of(getattr(source, one.name))
    assert told == expected
