"""The degradation inside the generators is the one of eosr.degrade, and its adjoint is its transpose."""

import numpy as np
import pytest
import torch
import xarray as xr

import eosr
from eosr.nn.operator import adjoint, degrade, taps_for

torch.set_num_threads(1)
#: Factor and blur per band [fine pixels]: study, none, wide.
CASES = [(2, (0.5, 0.0, 1.1)), (6, (1 / 6, 0.0, 3.0))]


def operator(factor, sigmas, size=48):
    sigma = torch.tensor([sigmas])
    radius = int(4 * max(sigmas) + 0.5)
    rng = torch.Generator().manual_seed(1)
    fine = torch.rand(1, len(sigmas), size, size, generator=rng)
    coarse = torch.rand(1, len(sigmas), size // factor, size // factor, generator=rng)
    return fine, coarse, taps_for(factor, sigma, radius), -(-radius // factor)


@pytest.mark.parametrize(("factor", "sigmas"), CASES)
def test_degrade_is_eosr_degrade_inside_the_border(factor, sigmas):
    size, rim = 96, 24 // factor
    fine = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for band, sigma in enumerate(sigmas):
        # The same cut of the Gaussian as eosr.degrade, one band at a time.
        taps = taps_for(factor, torch.tensor([[sigma]]), int(4 * sigma + 0.5))
        ours = degrade(fine[:, band : band + 1], taps, factor)[0, 0].numpy()
        array = xr.DataArray(fine[0, band].numpy(), dims=("y", "x"), name="B05")
        theirs = eosr.degrade(array, factor, sigma=sigma).values
        assert ours.shape == theirs.shape == (size // factor,) * 2
        inside = (slice(rim, -rim),) * 2
        np.testing.assert_allclose(ours[inside], theirs[inside], atol=2e-6)


def test_every_sample_and_band_has_its_own_blur():
    sigma = torch.tensor([[0.0, 0.5], [1.0, 2.0]])
    taps = taps_for(2, sigma, 3)
    assert taps.shape == (2, 2, 8)
    torch.testing.assert_close(taps[0, 0], torch.tensor([0.0, 0, 0, 0.5, 0.5, 0, 0, 0]))
    assert (taps[1, 1, 3:5] < taps[1, 0, 3:5]).all()
    torch.testing.assert_close(taps.sum(-1), torch.ones(2, 2))


@pytest.mark.parametrize(("factor", "sigmas"), CASES)
def test_adjoint_identity_holds_inside_the_border(factor, sigmas):
    """<A x, v> = <x, A^T v> for every v that is zero near the border, where A repeats edge pixels."""
    fine, coarse, taps, margin = operator(factor, sigmas, size=96)
    inner = torch.zeros_like(coarse)
    keep = (..., slice(margin, -margin), slice(margin, -margin))
    inner[keep] = coarse[keep]
    left = (degrade(fine, taps, factor).double() * inner).sum()
    right = (fine.double() * adjoint(inner, taps, factor)).sum()
    assert abs(left - right) < 1e-5 * abs(left)
    assert left > 1


@pytest.mark.parametrize(("factor", "sigmas"), CASES)
def test_adjoint_is_what_autograd_finds_for_the_transpose(factor, sigmas):
    fine, coarse, taps, margin = operator(factor, sigmas, size=96)
    fine.requires_grad_()
    (degrade(fine, taps, factor) * coarse).sum().backward()
    inside = (..., *([slice(2 * margin * factor, 96 - 2 * margin * factor)] * 2))
    torch.testing.assert_close(adjoint(coarse, taps, factor)[inside], fine.grad[inside], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("factor", "sigmas"), CASES)
def test_a_constant_image_stays_the_same_constant_in_both_directions(factor, sigmas):
    fine, coarse, taps, _ = operator(factor, sigmas)
    torch.testing.assert_close(degrade(torch.full_like(fine, 3.0), taps, factor), torch.full_like(coarse, 3.0))
    back = factor**2 * adjoint(torch.full_like(coarse, 3.0), taps, factor)
    torch.testing.assert_close(back, torch.full_like(fine, 3.0))


def test_without_blur_the_adjoint_spreads_a_pixel_evenly_over_its_footprint():
    """factor 2, no blur: every fine pixel gets a quarter of its coarse pixel."""
    coarse = torch.arange(4.0).reshape(1, 1, 2, 2)
    taps = taps_for(2, torch.zeros(1, 1), 0)
    expected = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]) / 4
    torch.testing.assert_close(adjoint(coarse, taps, 2)[0, 0], expected)
