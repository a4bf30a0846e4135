"""One scene into arrays: every pixel read once, whatever the strips; the pixels of use marked; the clearest window."""

from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from eosr.errors import TrainingError
from eosr.train.prepare import scene as prepare_scene
from eosr.train.prepare.config import PrepareConfig, SplitConfig
from eosr.train.prepare.patches import PatchFilter
from eosr.train.prepare.plan import Job, plan
from eosr.train.prepare.scene import stored, write_scene
from eosr.train.prepare.shards import HOLE, open_arrays, patch_of
from eosr.train.prepare.sources import find_scenes
from eosr.write import to_zarr
from train.prepared import OFFSET, placed_scene, write_config


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene of 480 x 216 pixels of 10 m, 40 % of the top under cloud."""
    folder = tmp_path_factory.mktemp("cube")
    ds = placed_scene(rows60=80, item_ids=["s"], tile="31AAA")
    classes = np.full((240, 108), 4, np.uint8)
    classes[:96] = 9
    ds["SCL"] = (("y20", "x20"), classes)
    ds.to_zarr(folder / "s.zarr", consolidated=False)
    config = write_config(folder / "c.toml", folder, **{"validation__0.3": "validation = 0.0"})
    (found,) = find_scenes(config)
    return found


CONFIG = PrepareConfig(name="x", patch=36, margin=36, per_scene=60, filter=PatchFilter(cloud=0.5))


def written(scene, config, folder):
    (job,) = plan([scene], replace(config, split=SplitConfig(validation=0.0)))
    looked = []
    record = write_scene(job, config, folder, step=looked.append)
    assert sum(looked) == job.steps
    import zarr

    arrays = open_arrays(zarr.open_group(folder, mode="r"))
    return record, [patch_of(arrays, k) for k in range(record.patches)]


@pytest.mark.parametrize("strip", [72, 108, 150, 1536])
def test_patches_do_not_depend_on_the_strips_and_every_pixel_is_read_once(strip, scene, tmp_path, monkeypatch):
    whole = written(scene, CONFIG, tmp_path / "whole")
    monkeypatch.setattr(prepare_scene, "STRIP", strip)
    read = np.zeros((480, 216), int)

    def seen(block, block_info=None):
        (rows, columns) = block_info[None]["array-location"]
        read[rows[0] : rows[1], columns[0] : columns[1]] += 1
        return block

    image = da.from_array(np.asarray(scene.ds["B02"].values), chunks=(6, 216))
    watched = image.map_blocks(seen, dtype=image.dtype, meta=np.empty((0, 0), image.dtype))
    ds = scene.ds.assign(B02=xr.Variable(scene.ds["B02"].dims, watched, scene.ds["B02"].attrs))
    with dask.config.set(scheduler="synchronous"):
        found = written(replace(scene, ds=ds), CONFIG, tmp_path / "found")
    assert found[0] == whole[0]
    for one, other in zip(found[1], whole[1], strict=True):
        for name, image in one.items():
            np.testing.assert_array_equal(image, other[name])
    assert read.max() == 1


def test_cloudy_patches_are_left_out_and_clouds_in_the_others_are_not_of_use(scene, tmp_path):
    record, patches = written(scene, CONFIG, tmp_path / "s")
    assert record.rejected["cloud"] == record.drawn - record.patches > 0
    mixed = 0
    for patch in patches:
        top = patch["place"][0] - 36
        cloudy = np.arange(top, top + 108) < 192
        np.testing.assert_array_equal(patch["usable"], np.broadcast_to(~cloudy[:, None], (108, 108)))
        assert cloudy.mean() <= 0.5
        mixed += cloudy.any()
    assert mixed > 0


def test_int16_loses_nothing_and_holes_of_any_band_are_not_of_use():
    """Reflectance from -1000 to 32767 comes back; 0 and 65535 are holes, as is what is brighter than int16."""
    bands = {name: np.full((12, 12), 3000, np.uint16) for name in ("B02", "B03", "B04", "B08")}
    bands |= {name: np.full((6, 6), 3000, np.uint16) for name in ("B05", "B06", "B07", "B8A", "B11", "B12")}
    bands |= {name: np.full((2, 2), 3000, np.uint16) for name in ("B01", "B09")}
    bands["B02"][0, :4] = 1, 33767, 33768, 65535
    bands["B8A"][5, 5] = 0
    bands["B09"][0, 1] = 65535
    patch = stored(bands, None, OFFSET, (6, 12))
    assert patch["x10"][0, 0, :5].tolist() == [-999, 32767, HOLE, HOLE, 2000]
    assert patch["x20"][3, 5, 5] == HOLE
    assert patch["x60"][1].tolist() == [[2000, HOLE], [2000, 2000]]
    expected = np.ones((12, 12), bool)
    expected[0, 2:4] = False
    expected[10:, 10:] = False
    expected[:6, 6:] = False
    np.testing.assert_array_equal(patch["usable"], expected)
    assert patch["place"].tolist() == [6, 12]


def kept_out(scene, size, folder):
    config = replace(CONFIG, split=SplitConfig(size=size))
    job = Job(scene=scene, kind="validation", number=0, places=np.empty((0, 2), np.int64), drawn=1)
    import zarr

    record = write_scene(job, config, folder, step=lambda _: None)
    return record, patch_of(open_arrays(zarr.open_group(folder, mode="r")), 0)


def test_of_a_scene_kept_out_the_clearest_window_is_taken(scene, tmp_path):
    """Cloud above row 192: of the windows in phase the one nearest to the middle that begins below it."""
    record, patch = kept_out(scene, 144, tmp_path / "s")
    assert record.patches == 1
    assert patch["usable"].shape == (144, 144)
    assert patch["usable"].all()
    assert patch["place"].tolist() == [288, 36]
    clear = replace(scene, cloudy=None)
    assert kept_out(clear, 144, tmp_path / "m")[1]["place"].tolist() == [168, 36], "the middle, where all is clear"


@pytest.mark.parametrize("step", [1, 6])
def test_clouds_may_lie_on_any_grid(step, scene, tmp_path):
    mask = np.zeros((480 // step, 216 // step), bool)
    mask[: 192 // step] = True
    group = 10 * step
    other = replace(scene, cloudy=xr.DataArray(mask, dims=(f"y{group}", f"x{group}")).chunk())
    assert kept_out(other, 144, tmp_path / "v")[1]["place"].tolist() == [288, 36]
    found, expected = (written(one, CONFIG, tmp_path / "p") for one in (other, scene))
    assert found[0] == expected[0]


def test_a_scene_kept_out_of_which_nothing_is_of_use_is_refused(scene, tmp_path):
    dark = replace(scene, cloudy=xr.ones_like(scene.cloudy))
    with pytest.raises(TrainingError, match=r"nothing of s, which is kept out for validation, is of use: .* Name"):
        kept_out(dark, 144, tmp_path / "s")


def test_pixels_that_cannot_be_read_are_told_with_their_scene(tmp_path):
    to_zarr(placed_scene(item_ids=["s"], tile="31AAA"), tmp_path / "s.zarr")
    config = write_config(tmp_path / "c.toml", tmp_path, **{"validation__0.3": "validation = 0.0"})
    (found,) = find_scenes(config)
    for file in (tmp_path / "s.zarr" / "B11" / "c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"the pixels of s cannot be read \(.+\)\. Mend the file or leave"):
        written(found, config, tmp_path / "out")
