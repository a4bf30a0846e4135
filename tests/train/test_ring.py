"""The ring model: its formula, that the fit finds what it was made with, and what it says of many ranks."""

import numpy as np
import pytest

from eosr.train.ranks.scaling import Measured, Ring, efficiency, fit_ring, project_steps

RING = Ring(alpha=20e-6, beta=2e9, misfit=0.0)
SIZES = (1024, 65536, 1 << 20, 1 << 24)


def measured(ranks, ring=RING, noise=None, **changes):
    reduces = {} if ranks == 1 else {size: ring.reduce(ranks, size) for size in SIZES}
    if noise is not None:
        reduces = {size: time * noise.uniform(0.9, 1.1) for size, time in reduces.items()}
    values = {"ranks": ranks, "batch": 16, "compute": 0.1, "step": 0.1 + ring.reduce(ranks, 1 << 20), "buffer": 1 << 20}
    return Measured(**(values | changes), reduces=reduces)


def test_four_ranks_send_six_messages_of_a_quarter():
    """6 * 20 us + 6 * (4 MB / 4) / (2 GB/s) = 0.12 ms + 3 ms."""
    assert RING.reduce(4, 4_000_000) == pytest.approx(0.00312)
    assert RING.reduce(1, 4_000_000) == 0


def test_the_fit_finds_latency_and_bandwidth_again():
    found = fit_ring([measured(1), measured(2), measured(4)])
    assert (found.alpha, found.beta) == (pytest.approx(20e-6), pytest.approx(2e9))
    assert found.misfit < 1e-9


def test_with_noise_of_ten_percent_the_fit_is_near_and_says_how_far_off_it_is():
    found = fit_ring([measured(k, noise=np.random.default_rng(k)) for k in (1, 2, 4, 8)])
    assert found.alpha == pytest.approx(20e-6, rel=0.15)
    assert found.beta == pytest.approx(2e9, rel=0.15)
    assert 0.01 < found.misfit < 0.1


def test_neither_latency_nor_bandwidth_comes_out_below_zero():
    """Times that fall with size, as noise may have it."""
    odd = Measured(ranks=2, batch=1, compute=1.0, step=1.0, buffer=1, reduces={1024: 2e-3, 1 << 24: 1e-3})
    found = fit_ring([odd])
    assert found.alpha > 0
    assert found.beta == float("inf")


def test_one_rank_alone_tells_nothing_of_links():
    assert fit_ring([measured(1)]) is None


def test_many_ranks_add_latency_and_never_more_than_twice_the_buffer():
    steps = project_steps(measured(1), RING, (1, 2, 512))
    assert steps[1] == 0.1
    assert steps[2] == pytest.approx(0.1 + 2 * 20e-6 + (1 << 20) / 2e9)
    assert steps[512] == pytest.approx(0.1 + 2 * 511 * 20e-6 + 2 * 511 / 512 * (1 << 20) / 2e9)


def test_efficiency_is_throughput_per_rank_against_one():
    assert efficiency(measured(1), measured(4, step=0.125)) == pytest.approx(0.1 / 0.125)
