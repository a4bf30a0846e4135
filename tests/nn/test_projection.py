"""The layer is the projection: it lands on the measurement, moves nothing twice, and never away from the truth."""

import numpy as np
import pytest
import torch
import xarray as xr

import eosr
from eosr.nn.operator import axis_matrix, degrade, project, taps_for

torch.set_num_threads(1)


def made(factor, sigma, size=24, bands=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    truth = torch.rand(3, bands, size, size, generator=draw, dtype=torch.float64)
    taps = taps_for(factor, torch.full((3, bands), sigma), 3 * factor).double()
    return truth, taps


@pytest.mark.parametrize(("factor", "sigma"), [(2, 0.0), (2, 0.5), (2, 0.96), (6, 0.17), (6, 2.84)])
def test_the_answer_degrades_to_the_measurement_and_is_nearer_to_the_truth(factor, sigma):
    truth, taps = made(factor, sigma)
    rows, columns = axis_matrix(taps, factor, 24), axis_matrix(taps, factor, 24)
    coarse = rows @ truth @ columns.transpose(-1, -2)
    estimate = truth + 0.3 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    answer = project(estimate, coarse, taps, factor)
    torch.testing.assert_close(rows @ answer @ columns.transpose(-1, -2), coarse, rtol=0, atol=1e-8)
    torch.testing.assert_close(project(answer, coarse, taps, factor), answer, rtol=0, atol=1e-8)
    before, after = ((one - truth).flatten(1).norm(dim=1) for one in (estimate, answer))
    assert (after < before).all()


@pytest.mark.parametrize(("factor", "sigma"), [(2, 0.5), (6, 2.84)])
def test_the_matrices_are_the_degradation_of_eosr(factor, sigma):
    truth, taps = made(factor, sigma)
    rows = axis_matrix(taps, factor, 24)
    image = xr.DataArray(truth[0, 0].numpy(), dims=("y", "x"))
    expected = eosr.degrade(image, factor, sigma=sigma).values
    # eosr cuts the blur at 4 sigma.
    np.testing.assert_allclose((rows @ truth @ rows.transpose(-1, -2))[0, 0].numpy(), expected, rtol=2e-3)
    inside = slice(9 // factor + 1, -(9 // factor + 1))
    by_layer = degrade(truth, taps, factor)[0, 0].numpy()
    if factor == 2:
        np.testing.assert_allclose(by_layer[inside, inside], expected[inside, inside], rtol=2e-3)


def test_every_sample_and_band_has_its_own_operator():
    truth, _ = made(2, 0.5)
    sigma = torch.tensor([[0.0, 0.9], [0.5, 0.2], [0.9, 0.0]])
    taps = taps_for(2, sigma, 6).double()
    rows = axis_matrix(taps, 2, 24)
    coarse = rows @ truth @ rows.transpose(-1, -2)
    answer = project(torch.zeros_like(truth), coarse, taps, 2)
    one = project(torch.zeros_like(truth[:1, 1:]), coarse[:1, 1:], taps[:1, 1:], 2)
    torch.testing.assert_close(answer[:1, 1:], one)


def test_gradients_pass_what_the_measurement_leaves_free_and_nothing_else():
    """The derivative of a projection is the projection onto the null space: R of the gradient is 0."""
    truth, taps = made(2, 0.5)
    rows = axis_matrix(taps, 2, 24)
    estimate = truth.clone().requires_grad_()
    project(estimate, truth[..., ::2, ::2], taps, 2).square().sum().backward()
    assert estimate.grad.abs().max() > 0.01
    torch.testing.assert_close(
        rows @ estimate.grad @ rows.transpose(-1, -2), torch.zeros(3, 2, 12, 12).double(), rtol=0, atol=1e-9
    )
