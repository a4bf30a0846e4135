"""Windows: the same for the same seed and step, in phase with the scene, consistently turned and lit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import eosr
from eosr.errors import TrainingError
from eosr.train.data.scenes import virtual_60m
from eosr.train.data.windows import PaddedScene, WindowConfig, Windows, collate, window
from train.made import made_scene

STUDY = (1.0, 0.0, 0.0, 0.0)


def settings(factor, **changes):
    return WindowConfig(**({"factor": factor, "size": 24, "rim": 4} | changes))


def degraded(bands, factor, sigmas):
    return np.stack(
        [
            eosr.degrade(xr.DataArray(band, dims=("y", "x")), factor, sigma=float(sigma)).values
            for band, sigma in zip(bands, sigmas, strict=True)
        ]
    )


def batch_of(windows, count, seed=0, first=0):
    return collate([windows.sample(first + k, seed) for k in range(count)])


def tensors(batch):
    return {name: value for name, value in vars(batch).items() if value is not None}


def test_the_same_seed_and_number_draw_the_same_window_and_others_draw_others():
    windows = Windows([made_scene(), made_scene(seed=1)], settings(2))
    first, again, later = (batch_of(windows, 3, 5, number) for number in (8, 8, 11))
    for name, tensor in tensors(first).items():
        assert torch.equal(tensor, getattr(again, name)), name
    assert not torch.equal(first.target, later.target)
    assert not torch.equal(first.target, batch_of(windows, 3, 6, 8).target)


@pytest.mark.parametrize("factor", [2, 6])
def test_without_augmentation_a_window_is_the_crop_of_the_degraded_scene(factor):
    """Phase: coarse pixel i of the window is coarse pixel i + row / factor of the scene, for every input."""
    size, n = (192, 24) if factor == 2 else (576, 24)
    scene = made_scene(size=size)
    config = settings(factor, operators=STUDY)
    padded = PaddedScene(scene, config)
    drawn = window(padded, padded.pad + 2 * factor, padded.pad + 4 * factor, config, np.random.default_rng(0))
    target = scene.middle if factor == 2 else scene.coarse
    sigma = 1 / factor
    rows, columns = slice(2 * factor, 2 * factor + n), slice(4 * factor, 4 * factor + n)
    np.testing.assert_array_equal(drawn.target, target[:, rows, columns])
    np.testing.assert_allclose(drawn.sigma, sigma, rtol=1e-6)
    expected = degraded(target, factor, [sigma] * len(target))[:, 2 : 2 + n // factor, 4 : 4 + n // factor]
    np.testing.assert_allclose(drawn.coarse, expected, rtol=1e-5)
    np.testing.assert_allclose(drawn.fine, degraded(scene.fine, factor, [sigma] * 4)[:, rows, columns], rtol=1e-5)
    if factor == 6:
        guides = degraded(scene.middle, 6, [sigma] * 6)[:, 6 : 6 + n // 2, 12 : 12 + n // 2]
        np.testing.assert_allclose(drawn.middle, guides, rtol=1e-5)


@pytest.mark.parametrize(("factor", "virtual"), [(2, False), (6, False), (6, True)])
def test_turned_and_lit_the_target_degraded_by_the_told_blur_is_still_the_coarse_input(factor, virtual):
    """So gains, turns and blurs are applied to target and coarse alike, band by band."""
    scene = made_scene(size=192 if factor == 2 or virtual else 432)
    windows = Windows([virtual_60m(scene) if virtual else scene], settings(factor, size=48))
    batch = batch_of(windows, 6, 1)
    rim = 4 if factor == 2 else 3  # coarse pixels whose blur leaves the window
    for target, coarse, sigma in zip(batch.target, batch.coarse, batch.sigma, strict=True):
        again = degraded(target.numpy(), factor, sigma)
        inside = (slice(None), slice(rim, -rim), slice(rim, -rim))
        np.testing.assert_allclose(again[inside], coarse.numpy()[inside], rtol=1e-4)
    assert batch.sigma.std() > 0.05, "several blurs were drawn"


@pytest.mark.parametrize("factor", [2, 6])
def test_a_target_of_another_contrast_keeps_its_level_and_its_coarse_pixels_are_those_of_it(factor):
    """In the middle of a window, away from what the blur sees of its outside."""
    scene, still = made_scene(size=192 if factor == 2 else 576), {"gain": 0.0, "band_gain": 0.0, "flips": False}
    plain, stretched = (
        Windows([scene], settings(factor, operators=STUDY, contrast=contrast, **still)).sample(3, 0)
        for contrast in (0.0, 0.4)
    )
    np.testing.assert_array_equal(plain.fine, stretched.fine)
    np.testing.assert_allclose(stretched.coarse.mean(axis=(1, 2)), plain.coarse.mean(axis=(1, 2)), rtol=1e-5)
    factors = np.log(stretched.target.std(axis=(1, 2)) / plain.target.std(axis=(1, 2)))
    assert 0.1 < np.abs(factors).mean() < 0.8, "0.4 was asked for"
    assert len(set(factors.round(4))) == len(factors), "every band has its own"
    made = degraded(stretched.target * 2000, factor, stretched.sigma)
    inside = (slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(made[inside], stretched.coarse[inside] * 2000, atol=0.05)


def test_gains_differ_by_window_and_band_and_keep_the_units_of_the_network():
    scene = made_scene()
    flat = replace(scene, fine=scene.fine * 0 + 2000, middle=scene.middle * 0 + 2000)
    lit = batch_of(Windows([flat], settings(2)), 40).target.mean(dim=(2, 3))
    plain = batch_of(Windows([flat], settings(2, gain=0.0, band_gain=0.0)), 2)
    torch.testing.assert_close(plain.target, torch.ones_like(plain.target))
    torch.testing.assert_close(plain.fine, torch.ones_like(plain.fine))
    assert 0.15 < lit.log().mean(dim=1).std() < 0.35, "0.25 was asked for"
    assert 0.05 < lit.log().std(dim=1).mean() < 0.11, "0.08 was asked for"


@pytest.mark.parametrize("rim", [0, 3])
def test_the_rim_and_unusable_pixels_do_not_count_and_all_others_do(rim):
    usable = np.ones((96, 96), bool)
    usable[40:44] = False  # rows 20 and 21 of the 20 m bands
    config = settings(2, rim=rim)
    padded = PaddedScene(made_scene(usable=usable), config)
    weight = window(padded, padded.pad, padded.pad, config, np.random.default_rng(0)).weight
    expected = np.zeros((24, 24))
    expected[rim : 24 - rim, rim : 24 - rim] = 1
    expected[20:22] = 0
    np.testing.assert_array_equal(weight, expected)


def test_a_scene_smaller_than_a_window_is_continued_by_its_mirror_image():
    scene = made_scene(size=36)
    batch = batch_of(Windows([scene], settings(2, size=24, gain=0.0, band_gain=0.0)), 8)
    assert batch.target.shape == (8, 6, 24, 24)
    values = np.sort(scene.middle.ravel())
    drawn = batch.target.numpy().ravel() * 2000
    place = np.searchsorted(values, drawn).clip(1, values.size - 1)
    nearest = np.minimum(abs(values[place] - drawn), abs(values[place - 1] - drawn))
    assert nearest.max() < 1e-2, "only pixels of the scene"


def test_shares_decide_how_often_the_scenes_of_a_name_are_drawn():
    scenes = [made_scene("a-1"), made_scene("a-2"), made_scene("b", size=192)]
    chances = Windows(scenes, settings(2), {"a": 0.9}).chances
    np.testing.assert_allclose(chances, [0.45, 0.45, 0.1])
    np.testing.assert_allclose(Windows(scenes, settings(2)).chances, [0.25, 0.25, 0.5])


def test_a_share_of_scenes_that_are_not_there_is_refused():
    with pytest.raises(TrainingError, match=r"starts with stestdta, named in \[shares\].*begin with made"):
        Windows([made_scene()], settings(2), {"stestdta": 0.4})


def test_scenes_without_a_usable_pixel_are_refused():
    with pytest.raises(TrainingError, match="no scene has a pixel that may be trained on"):
        Windows([made_scene(usable=np.zeros((96, 96), bool))], settings(2))


def test_a_stream_that_hardly_finds_a_usable_window_gives_up_instead_of_hanging():
    usable = np.zeros((96, 96), bool)
    usable[:4, :4] = True
    with pytest.raises(TrainingError, match=r"1000 windows of 24 pixels with a rim of 4 .* Make the window larger"):
        Windows([made_scene(usable=usable)], settings(2)).sample(0, 0)


def test_without_flips_windows_lie_as_the_scene_does():
    """A scene that brightens to the east: so do all of its windows, unless they are turned."""
    scene = made_scene()
    ramp = np.broadcast_to(np.linspace(1000, 3000, 48, dtype=np.float32), (6, 48, 48))
    scene = replace(scene, middle=ramp)

    def eastward(flips):
        windows = Windows([scene], settings(2, rim=0, flips=flips, gain=0.0, band_gain=0.0))
        # Not the mirrored margins.
        inner = [windows.sample(k, 0) for k in range(60)]
        slopes = [np.diff(w.target[0].mean(axis=0)) for w in inner]
        return [bool((slope > 0).all()) for slope in slopes if (slope > 0).all() or (slope < 0).all()]

    assert len(plain := eastward(False)) > 5
    assert all(plain)
    assert not all(eastward(True))


def test_jitter_spreads_the_blur_of_a_named_operator_around_its_own():
    config = settings(2, operators=STUDY, jitter=0.2)
    windows = Windows([made_scene()], config)
    sigmas = np.array([windows.sample(k, 0).sigma for k in range(80)])
    assert np.ptp(sigmas, axis=1).max() < 1e-6, "all bands of study have one blur"
    assert 0.15 < np.log(sigmas[:, 0] / 0.5).std() < 0.25
    assert (
        np.unique(
            np.array([Windows([made_scene()], settings(2, operators=STUDY)).sample(k, 0).sigma for k in range(5)])
        ).size
        == 1
    )
