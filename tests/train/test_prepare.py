"""`eosr-train prepare`, the journey: no run lost, no store overwritten, the same bytes however it came about."""

import json
import os
import signal
import subprocess
import sys

import dask
import pytest
import xarray as xr

from eosr.cli.train import main
from eosr.errors import OutputError, TrainingError
from eosr.train.prepare.config import load_prepare_config
from eosr.train.prepare.run import prepare
from eosr.train.prepare.store import PatchStore
from train.prepared import CONFIG, OFFSET, files_of, placed_scene, write_config, write_cubes


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    return write_cubes(tmp_path_factory.mktemp("cubes"))


@pytest.fixture
def config(tmp_path, cubes):
    return lambda **changes: write_config(tmp_path / "prepare.toml", cubes, **changes)


@pytest.fixture(scope="module")
def store(cubes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    return PatchStore(prepare(write_config(folder / "c.toml", cubes), folder))


def test_the_store_says_what_it_was_made_of(store):
    settings = json.loads((store.path / "zarr.json").read_text())["attributes"]["eosr"]["settings"]
    assert (settings["seed"], settings["patch"], settings["filter"]["constant"]) == (5, 72, True)
    assert settings["scenes"] == ["31AAA-0", "32BBB-1", "33CCC-2", "33CCC-3"]
    assert store.levels == ("L2A",)
    assert all((one.offset, one.platform, len(one.checksum)) == (OFFSET, "sentinel-2a", 64) for one in store.scenes)
    assert all(one.item_ids == (one.name,) for one in store.scenes)
    assert sum(one.patches for one in store.scenes) == len(store) > 20


def test_holes_are_left_out_and_told(cubes, config, tmp_path):
    store = PatchStore(prepare(config(**{"validation__0.3": 'names = ["31AAA"]'}), tmp_path))
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


def test_the_store_is_one_zarr_hierarchy_that_others_can_open(store):
    import zarr

    group = zarr.open_group(store.path, mode="r")
    assert sorted(group.group_keys()) == ["scenes", "validation"]
    assert group["scenes/00000/x10"].shape[1:] == (4, 144, 144)


def test_the_same_configuration_again_does_nothing_and_another_one_is_refused(config, tmp_path):
    first = prepare(config(), tmp_path)
    before = files_of(first)
    assert prepare(config(), tmp_path) == first
    assert files_of(first) == before
    with pytest.raises(
        TrainingError, match=r"made\.zarr was begun with another configuration .* \(seed = 5 there, 6 here\)"
    ):
        prepare(config(seed__5="seed = 6"), tmp_path)
    with pytest.raises(TrainingError, match=r"or other scenes.*only there: 32BBB-1, 33CCC-2, 33CCC-3\. Use another"):
        prepare(config(**{"*.zarr": "0.zarr", "validation__0.3": "validation = 0.0"}), tmp_path)


def test_the_store_does_not_depend_on_who_reads(config, store, tmp_path):
    from distributed import Client

    with dask.config.set(scheduler="synchronous"):
        one = prepare(config(), tmp_path / "one")
    with Client(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None):
        two = prepare(config(), tmp_path / "two")
    assert files_of(one) == files_of(two) == files_of(store.path)


#: Forks one process per moment, which is killed at its n-th touch of a file below the folder; then one that goes on.
KILLED = """
import os, signal, sys
from pathlib import Path
from eosr.train.prepare import scene, sources, store  # before the fork, once
from eosr.train.prepare.run import prepare
from eosr.train.prepare.config import load_prepare_config
config = load_prepare_config(Path(sys.argv[1]))
def run(out, last):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1], None
    touched = 0
    def count(event, arguments):
        nonlocal touched
        if event in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
            if str(arguments[0]).startswith(str(out)):
                touched += 1
                if touched == last:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    prepare(config, out)
    Path(f"{out}.count").write_text(str(touched))
    os._exit(0)
base = Path(sys.argv[2])
assert run(base / "whole", None)[0] == 0
total = int((base / "whole.count").read_text())
# In the first scene, between scenes, and at each of the last touches: attributes, the name, taking away.
for moment in [3, total // 3, *range(total - 22, total + 1, 5)]:
    out = base / str(moment)
    killed = run(out, moment)[0]
    assert os.WIFSIGNALED(killed) and os.WTERMSIG(killed) == signal.SIGKILL, (moment, killed)
    assert run(out, None)[0] == 0, moment
print(total)
"""


def test_a_run_killed_at_any_moment_goes_on_and_ends_in_the_same_bytes(config, store, tmp_path):
    config(**{"*.zarr": "[01].zarr", "per_scene__20": "per_scene = 3"})
    program = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "prepare.toml", tmp_path / "runs"], capture_output=True, text=True,
        env=os.environ | {"DASK_SCHEDULER": "synchronous"},
    )  # fmt: skip
    assert program.returncode == 0, program.stderr
    whole = files_of(tmp_path / "runs" / "whole" / "made.zarr")
    assert len(whole) > 20
    moments = [path for path in (tmp_path / "runs").iterdir() if path.name.isdigit()]
    assert len(moments) == 7
    for path in moments:
        assert files_of(path / "made.zarr") == whole, path.name
        assert [one.name for one in path.iterdir()] == ["made.zarr"], path.name


STOPPED = """
import os, signal, sys
from pathlib import Path
from eosr.train.prepare import run as prepare
from eosr.train.prepare.config import load_prepare_config
write = prepare.write_scene
def dying(job, *arguments, **how):
    if job.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(job, *arguments, **how)
prepare.write_scene = dying
prepare.prepare(load_prepare_config(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_a_killed_run_does_only_what_is_missing_and_another_configuration_may_not_go_on(tmp_path):
    """The pixels of the scene that is done are destroyed, so reading them again would fail."""
    cubes = write_cubes(tmp_path / "cubes")
    write_config(tmp_path / "c.toml", cubes)
    command = [sys.executable, "-c", STOPPED, tmp_path / "c.toml", tmp_path]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    with pytest.raises(TrainingError, match="there is no store"):
        PatchStore(tmp_path / "made.zarr")
    (told,) = (tmp_path / "made.zarr.part").glob("scenes-*.json")
    done = json.loads(told.read_text())["name"]
    for file in (cubes / f"{done[-1]}.zarr" / "B02" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"gone")
    with pytest.raises(TrainingError, match=r"was begun with another configuration or other scenes \(seed = 5 there"):
        prepare(write_config(tmp_path / "d.toml", cubes, seed__5="seed = 6"), tmp_path)
    store = PatchStore(prepare(load_prepare_config(tmp_path / "c.toml"), tmp_path))
    store.verify()
    with pytest.raises(TrainingError, match=rf"the pixels of {done} cannot be read \(.*\)\. Mend the file or leave"):
        prepare(load_prepare_config(tmp_path / "c.toml"), tmp_path / "anew")


def test_two_at_once_do_not_write_one_store(config, tmp_path):
    import fcntl

    (tmp_path / "made.zarr.part").mkdir()
    with (tmp_path / "made.zarr.part" / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match=r"another process is preparing .*made\.zarr\. Let it finish"):
            prepare(config(), tmp_path)
    assert prepare(config(), tmp_path).is_dir()


def test_progress_counts_patches_and_ends_at_all_of_them(config, tmp_path):
    told = []
    prepare(config(), tmp_path, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    (total,) = {total for _, total in told}
    assert told[-1][0] == total > 40


def test_the_command_writes_the_store_and_says_what_is_in_it(cubes, tmp_path, capsys):
    (tmp_path / "c.toml").write_text(CONFIG.format(cubes=cubes))
    assert main(["prepare", str(tmp_path / "c.toml"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'made.zarr'}\n"
    assert "scenes; " in printed.err
    assert "kept out for validation" in printed.err


def test_the_command_tells_an_error_in_one_line(cubes, tmp_path, capsys):
    (tmp_path / "c.toml").write_text(CONFIG.format(cubes=cubes).replace("*.zarr", "none*"))
    assert main(["prepare", str(tmp_path / "c.toml"), "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("eosr-train: [[source]] 1 (")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"*.zarr": "2.zarr", "validation__0.3": "validation = 0.0", "patch__72": "patch = 144"},
            r"none of \d+ patches passes the filter \(nodata 100 %\), 1 are wanted\. Under another name choose"),
        ({"seed__5": "seed = 5\nleast = 1000"},
            r"only \d\d of \d\d patches pass the filter.*, 1000 are wanted\. .*; or lower least\."),
    ],
)  # fmt: skip
def test_too_few_patches_are_an_error_that_says_what_took_them(change, said, config, tmp_path):
    with pytest.raises(TrainingError, match=said):
        prepare(config(**change), tmp_path)
    assert not (tmp_path / "made.zarr").exists()


def test_a_lower_least_goes_on_with_what_is_there(config, store, tmp_path):
    with pytest.raises(TrainingError, match="1000 are wanted"):
        prepare(config(seed__5="seed = 5\nleast = 1000"), tmp_path)
    assert files_of(prepare(config(), tmp_path)) == files_of(store.path)


def test_a_folder_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"made\.zarr cannot be written: .* it goes on where it stopped"):
        prepare(config(), tmp_path / "file")


def test_a_training_runs_on_a_store_and_its_windows_are_those_of_its_patches(store, tmp_path):
    import torch

    from eosr.train.data.material import open_material
    from eosr.train.loop import train
    from eosr.train.ranks.communicator import Alone
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
    assert outcome.scores["study"] > 0
    with pytest.raises(
        TrainingError, match=r"hold 72 of 20 m, a window has size = 96\. Give 72 or less below \[window\]"
    ):
        open_material(store.path, tiny_config(window={"size": 96}))
    with pytest.raises(TrainingError, match=r"\[shares\] divides the scenes of training packs"):
        open_material(store.path, tiny_config(shares={"a": 0.5}))


def test_scenes_without_60_m_bands_become_a_store_for_20_m(config, tmp_path):
    for number, tile in enumerate(("41AAA", "42BBB")):
        ds = placed_scene(30 * number, tile=tile).drop_vars(["B01", "B09"])
        # scipy writes NetCDF 3, which holds no lists of text.
        ds.attrs["item_ids"] = tile
        ds.to_netcdf(tmp_path / f"{tile}.nc")
    store = PatchStore(prepare(write_config(tmp_path / "c.toml", tmp_path, **{"*.zarr": "*.nc"}), tmp_path))
    scene = store.scene(0)
    assert scene.coarse is None
    ds = xr.open_dataset(tmp_path / f"{scene.name.split('@')[0]}.nc", mask_and_scale=False)
    row, column = (int(n) - 36 for n in scene.name.split("@")[1].split(","))
    window = ds["B02"].values[row : row + 144, column : column + 144]
    assert (scene.fine[0] == window.astype(float) + OFFSET).all()
