"""What a computation costs: how far the process grows, and how much of a graph is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import psutil
from dask.callbacks import Callback

from eosr.write_blocks import reporting
from eosr.write_layout import Progress

#: Seconds between two looks at the size of the process.
_INTERVAL: Final = 0.01


class PeakMemory:
    """How far this process grew above its size at the start of a ``with`` block [bytes], looked at 100 times a second.

    Work in other processes (a dask cluster) is not seen.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._highest = self._start = 0

    @property
    def grown(self) -> int:
        """Highest resident size so far, less that at the start [bytes]."""
        return max(0, self._highest - self._start)

    def __enter__(self) -> PeakMemory:
        self._stop.clear()
        self._start = self._highest = self._process.memory_info().rss
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._watcher.join()
        self._look()

    def _look(self) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL):
            self._look()


class _Tasks(Callback):
    """How much is done of all the computations of a run together."""

    def __init__(self, whole: int) -> None:
        self.whole, self.behind, self.count, self.total = whole, 0, 0, 1
        self.told = 0

    def _start_state(self, dsk: Any, state: Any) -> None:
        # Not the length of the graph: it holds the input too, which is no task.
        self.count, self.total = 0, max(1, len(state["ready"]) + len(state["waiting"]))

    def _posttask(self, *_: Any) -> None:
        self.count += 1

    def _finish(self, dsk: Any, state: Any, errored: bool) -> None:
        self.count = 0
        self.behind += 1

    def finish(self) -> None:
        """Tell that all is done: a dask cluster runs its tasks where nobody counts them."""
        self.behind = self.whole

    def done(self) -> int:
        """Thousandths of the run; never fewer than before."""
        part = (self.behind + min(1.0, self.count / self.total)) / self.whole
        self.told = max(self.told, min(1000, int(1000 * part)))
        return self.told


@contextmanager
def reporting_tasks(progress: Progress, computations: int, what: str) -> Iterator[None]:
    """Tell how much of so many computations is done, in thousandths; under a dask cluster only that all is done."""
    if not progress:
        yield
        return
    tasks = _Tasks(max(1, computations))
    with tasks, reporting(progress, tasks.done, 1000, what):
        yield
        tasks.finish()
