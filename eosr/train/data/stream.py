"""Numbered windows -> the batches of one rank, drawn by threads beside the training.

Window ``i`` of a run is the same whoever draws it: step ``t`` of ``k`` ranks with batch ``n`` takes the windows
``t * k * n`` to ``(t + 1) * k * n - 1``, rank ``r`` the ``r``-th part of them. So two ranks with batch ``n`` see what
one with ``2 * n`` sees, and a resumed run goes on with the windows it would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from eosr.train.data.windows import Batch, Window, collate


class Source(Protocol):
    """Whatever windows can be drawn from."""

    def sample(self, index: int, seed: int) -> Window:
        """Draw the window of this number [network units]; the same for the same seed, whoever draws it."""
        ...


class Stream:
    """The batches of one rank."""

    def __init__(
        self, source: Source, pool: ThreadPoolExecutor, *, seed: int, batch: int, place: tuple[int, int]
    ) -> None:
        self._source, self._pool, self._seed, self._size = source, pool, seed, batch
        self._rank, self._ranks = place
        self._ahead: dict[int, list[Future[Window]]] = {}

    def batch(self, number: int) -> Batch:
        """Return this rank's part of a batch, and let the next one be drawn meanwhile.

        Raises
        ------
        TrainingError
            If the source has no window to give.
        """
        drawn = self._ahead.pop(number, None) or self._start(number)
        self._ahead = {number + 1: self._start(number + 1)}
        return collate([one.result() for one in drawn])

    def _start(self, number: int) -> list[Future[Window]]:
        first = (number * self._ranks + self._rank) * self._size
        return [self._pool.submit(self._source.sample, first + k, self._seed) for k in range(self._size)]


@contextmanager
def stream(source: Source, *, seed: int, batch: int, place: tuple[int, int], readers: int) -> Iterator[Stream]:
    """Open the stream of a rank; its threads end with the block.

    Parameters
    ----------
    source : Source
    seed, batch : int
        Of the run; windows per step and rank.
    place : tuple of int
        Rank, number of ranks.
    readers : int
        Threads that draw.
    """
    pool = ThreadPoolExecutor(readers, "eosr-windows")
    try:
        yield Stream(source, pool, seed=seed, batch=batch, place=place)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
