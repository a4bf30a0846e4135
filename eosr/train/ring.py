"""What synchronous data parallelism costs: the alpha-beta model of a ring all-reduce, fitted to what was measured.

A ring of ``k`` ranks averages a buffer of ``S`` bytes in ``2 (k - 1)`` messages of ``S / k`` bytes per rank [1]:

    time(k, S) = 2 (k - 1) alpha + 2 (k - 1) / k * S / beta

with the latency ``alpha`` [s] of a message and the bandwidth ``beta`` [bytes/s] of a link. A step takes
``compute + time(k, S)``; nothing is overlapped, because `Communicator.average` starts when the gradients are there.

References
----------
[1] Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH", 2005, section 4.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one number of ranks was measured to do."""

    ranks: int
    #: Windows per step and rank.
    batch: int
    #: Median over steps of the slowest rank's time without the all-reduce, and with it [s].
    compute: float
    step: float
    #: Bytes that a step averages.
    buffer: int
    #: Median time of an all-reduce alone [s] by size [bytes]; empty for one rank.
    reduces: dict[int, float]

    @property
    def throughput(self) -> float:
        """Windows per second of all ranks together."""
        return self.ranks * self.batch / self.step


@dataclass(frozen=True, kw_only=True)
class Ring:
    """Latency and bandwidth of the links."""

    #: Latency of a message [s].
    alpha: float
    #: Bandwidth of a link [bytes/s].
    beta: float
    #: Root mean square of (model / measured - 1) over the measurements it was fitted to.
    misfit: float

    def reduce(self, ranks: int, size: int) -> float:
        """Time of an all-reduce of ``size`` bytes [s]."""
        return 2 * (ranks - 1) * self.alpha + 2 * (ranks - 1) / ranks * size / self.beta


def fit_ring(measured: Sequence[Measured]) -> Ring | None:
    """Fit the model to all-reduces of several sizes, by least squares of relative errors; None without two ranks.

    Neither latency nor inverse bandwidth may come out below zero.
    """
    # Imported here: it takes a quarter of a second, and only this function needs it.
    from scipy.optimize import nnls

    points = [(one.ranks, size, time) for one in measured for size, time in one.reduces.items() if one.ranks > 1]
    if len(points) < 2:
        return None
    ranks, sizes, times = (np.array(column, float) for column in zip(*points, strict=True))
    columns = np.stack([2 * (ranks - 1), 2 * (ranks - 1) / ranks * sizes], axis=1)
    (alpha, inverse), _ = nnls(columns / times[:, None], np.ones(len(times)))
    model = columns @ np.array([alpha, inverse])
    return Ring(
        alpha=float(alpha), beta=float(1 / inverse) if inverse > 0 else float("inf"),
        misfit=float(np.sqrt(np.mean((model / times - 1) ** 2))),
    )  # fmt: skip


def project_steps(one: Measured, ring: Ring, ranks: Sequence[int]) -> dict[int, float]:
    """Time of a step [s] by number of ranks: the work of ``one`` rank, and the all-reduce of the model."""
    return {k: one.compute + ring.reduce(k, one.buffer) for k in ranks}


def efficiency(alone: Measured, other: Measured) -> float:
    """Throughput per rank, 1 being that of one rank: weak scaling."""
    return other.throughput / other.ranks / alone.throughput
