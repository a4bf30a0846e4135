"""How much of a computation is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from dask.callbacks import Callback

from eosr.errors import printable

#: How progress is told: a function of (done, total), True for a bar on stderr, None or False for silence.
Progress = Callable[[int, int], object] | bool | None


@contextmanager
def reporting(progress: Progress, count: Callable[[], int], total: int, what: str = "writing blocks") -> Iterator[None]:
    """Tell (done, total) twice a second from what is on disk: it is the same under every dask scheduler."""
    if not progress:
        yield
        return
    with nullcontext(progress) if callable(progress) else bar(what) as tell:
        stop, told = threading.Event(), [-1]

        def look() -> None:
            now = count()
            if now != told[0]:
                told[0] = now
                tell(now, total)

        def watch() -> None:
            while not stop.wait(0.5):
                look()

        look()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()
            look()


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """Draw a bar on stderr; it takes ``(done, total, at="", news="")``: words behind the bar, and above it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(TextColumn(what), *columns, TextColumn("{task.fields[at]}"), console=Console(stderr=True)) as drawn:
        task = drawn.add_task(what, total=None, at="")

        def tell(done: int, total: int, at: str = "", news: str = "") -> None:
            drawn.update(task, completed=done, total=total, at=at)
            if news:
                drawn.console.print(printable(news), highlight=False, markup=False)

        yield tell


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
