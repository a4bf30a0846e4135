"""Reconstruction losses by hand, and that halves of a batch average to the whole."""

import pytest
import torch

from eosr.nn.losses import charbonnier, l1

ONE = torch.ones(1, 1, 1, 2)


def errors(*values):
    return torch.tensor(values).expand(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)


def test_l1_is_the_mean_over_pixels_and_bands():
    """(1 + 3) / 2 in each of two bands."""
    assert l1(*errors(1.0, -3.0), ONE).item() == 2


def test_charbonnier_is_square_for_small_errors_and_absolute_for_large_ones_where_it_counts():
    weight = torch.tensor([[[[1.0, 0.0]]]])

    def loss(error):
        return charbonnier(*errors(error, 99.0), weight, 0.1).item()

    assert loss(0.0) == 0
    assert loss(0.001) == pytest.approx(0.001**2 / 0.2, rel=1e-2)
    assert loss(10.0) == pytest.approx(10 - 0.1, rel=1e-3)


def test_every_sample_counts_the_same_however_few_of_its_pixels_count():
    """|1| in one of two pixels, |5| in both: (1 + 5) / 2 = 3; over all pixels that count it would be 11 / 3."""
    estimate = torch.tensor([[1.0, 99.0], [5.0, 5.0]]).reshape(2, 1, 1, 2)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).reshape(2, 1, 1, 2)
    assert l1(estimate, torch.zeros(2, 1, 1, 2), weight).item() == 3


def test_charbonnier_by_hand():
    """sqrt(3^2 + 4^2) - 4 = 1 where the error is 3, eps 4; sqrt(0 + 16) - 4 = 0 where it is 0: 0.5 on average."""
    assert charbonnier(*errors(3.0, 0.0), ONE, 4.0).item() == 0.5


@pytest.mark.parametrize("loss", [l1, lambda *tensors: charbonnier(*tensors, 0.02)], ids=["l1", "charbonnier"])
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_halves_whatever_counts_in_them(loss):
    draw = torch.Generator().manual_seed(0)
    estimate, target = (torch.rand(4, 3, 5, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    weight = (torch.rand(4, 1, 5, 5, generator=draw) < torch.tensor([0.9, 0.5, 0.2, 1.0])[:, None, None, None]).double()
    whole = loss(estimate, target, weight)
    halves = [loss(estimate[part], target[part], weight[part]) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(sum(halves) / 2, whole)
    estimate.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), estimate)
