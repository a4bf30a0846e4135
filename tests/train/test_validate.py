"""Scores on kept-out scenes: the inputs are those of eosr.degrade, the numbers known by hand."""

import numpy as np
import pytest
import torch
import xarray as xr

import eosr
from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.train.outcome.validate import as_method, degraded_inputs, mean_rmse, rmse_per_scene
from train.made import made_scene


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("operator", ["study", "mtf"])
def test_inputs_are_the_scene_degraded_by_the_public_function(factor, operator):
    scene = made_scene(size=144)
    fine, middle, coarse, sigma, truth = degraded_inputs(scene, factor, operator)
    groups = [(fine, scene.fine, BANDS_10M)]
    if factor == 2:
        assert middle is None
        groups += [(coarse, scene.middle, BANDS_20M)]
    else:
        groups += [(middle, scene.middle, BANDS_20M), (coarse, scene.coarse, BANDS_60M)]
    for ours, bands, names in groups:
        for i, name in enumerate(names):
            array = xr.DataArray(bands[i], dims=("y", "x"), name=name)
            theirs = eosr.degrade(array, factor, degradation=operator).values
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-5)
    assert truth.shape[1] == coarse.shape[1] * factor == fine.shape[1]
    assert sigma.shape == (len(coarse),)


def test_an_error_of_3_dn_everywhere_has_an_rmse_of_3():
    scenes = [made_scene("one"), made_scene("two", seed=1)]
    truths = iter([s.middle for s in scenes])
    scores = rmse_per_scene(lambda *_: next(truths) + np.float32(3), scenes, 2, "study")
    assert list(scores) == ["one", "two"]
    np.testing.assert_allclose(list(scores.values()), 3, rtol=1e-3)


def test_the_mean_counts_every_scene_the_same():
    assert mean_rmse({"a": [1.0, 3.0], "b": [10.0, 10.0]}) == (2 + 10) / 2


def test_scenes_without_60_m_bands_are_no_scenes_of_the_60_m_generator():
    scenes = [made_scene("with", size=144), made_scene("without", with_60m=False)]
    scores = rmse_per_scene(lambda f, m, c, s: c.repeat(6, 1).repeat(6, 2), scenes, 6, "box")
    assert list(scores) == ["with"]


@pytest.mark.parametrize("factor", [2, 6])
def test_as_method_pads_scales_and_cuts_in_phase(factor):
    """A generator that repeats coarse pixels gives back every pixel where it was."""

    class Nearest(torch.nn.Module):
        def forward(self, fine, coarse, sigma, middle=None):
            assert fine.shape[-1] == coarse.shape[-1] * factor
            assert middle is None or middle.shape[-1] * 2 == fine.shape[-1]
            return torch.nn.functional.interpolate(coarse, scale_factor=factor)

    fine, middle, coarse, sigma, _ = degraded_inputs(made_scene(size=144), factor, "study")
    answer = as_method(Nearest(), factor)(fine, middle, coarse, sigma)
    np.testing.assert_allclose(answer, coarse.repeat(factor, 1).repeat(factor, 2), rtol=1e-6)
