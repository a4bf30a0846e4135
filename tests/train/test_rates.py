"""Learning rates: warm-up, cosine, plateau, and the study's rule with its property over epochs."""

from itertools import pairwise

import pytest

from eosr.train.optimisers import learning_rate
from train.made import tiny_config


def test_the_learning_rate_warms_up_and_ends_at_one_percent():
    config = tiny_config(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert max(rates) == rates[10] == 1
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_the_cosine_ends_at_its_floor():
    config = tiny_config(steps=100, warmup=0, learning_rate=2.0, floor=0.5)
    assert learning_rate(0, config) == 2
    assert learning_rate(50, config) == pytest.approx(2 * (0.5 + 0.5 * 0.5))
    assert learning_rate(99, config) == pytest.approx(1.0, abs=1e-3)


def test_the_modified_rule_is_as_written():
    """lr0 * k * 0.5 ** floor(t * k / n) with lr0 = 1e-4, k = 4, n = 1000: halved every 250 steps."""
    config = tiny_config(
        steps=10**6, warmup=0, learning_rate=1e-4, schedule="halving", halve_every=1000, scaling="modified", floor=0.0
    )
    told = {step: learning_rate(step, config, ranks=4) for step in (0, 249, 250, 499, 500, 1000)}
    expected = {0: 4e-4, 249: 4e-4, 250: 2e-4, 499: 2e-4, 500: 1e-4, 1000: 2.5e-5}
    assert told == pytest.approx(expected)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
def test_over_the_same_epochs_the_modified_rule_halves_as_often_whatever_the_number_of_ranks(ranks):
    """E epochs of D patches are E * D / (B * k) steps of k ranks with batch B: E * D / (B * n) halvings for every k."""
    epochs, patches, batch, n = 6, 128000, 128, 1000
    config = tiny_config(
        steps=10**6, warmup=0, learning_rate=1.0, schedule="halving", halve_every=n, scaling="modified", floor=0.0
    )
    last = epochs * patches // (batch * ranks)
    assert learning_rate(last, config, ranks=ranks) / ranks == 0.5 ** (epochs * patches // (batch * n)) == 0.5**6


def test_the_linear_rule_multiplies_and_keeps_the_schedule():
    alone, scaled = (tiny_config(steps=100, warmup=10, scaling=scaling) for scaling in ("none", "linear"))
    for step in (0, 5, 10, 60, 99):
        assert learning_rate(step, scaled, ranks=8) == pytest.approx(8 * learning_rate(step, alone, ranks=8))


def test_a_plateau_halves_and_a_constant_rate_does_not_and_none_falls_below_the_floor():
    plateau = tiny_config(warmup=0, learning_rate=1.0, schedule="plateau", floor=0.1)
    assert [learning_rate(3, plateau, halvings=h) for h in range(6)] == [1, 0.5, 0.25, 0.125, 0.1, 0.1]
    constant = tiny_config(warmup=0, learning_rate=1.0, schedule="constant")
    assert {learning_rate(step, constant, halvings=3) for step in range(6)} == {1.0}
