"""Cores and memory: how many a process may use, how far it grows, and what it keeps of what is freed."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from types import TracebackType
from typing import Final

import psutil

# mallopt of glibc, malloc.h.
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_KEPT: Final = 2**31 - 1
#: Free memory that a process keeps for its next tensors [byte]. Giving back takes long, and all threads wait for it.
SPARE: Final = 1_500_000_000

#: Seconds between two looks at the size of the process.
_INTERVAL: Final = 0.01

_keeps = False


def keep_freed_memory() -> bool:
    """Keep what is freed for the next tensor of this process, instead of giving it back to the system at once.

    Call it before threads are started, and only in a process that sharpens and then ends; `give_back` must follow each
    tile (docs/decisions/memory-given-back.md).

    Returns
    -------
    bool
        Whether the C library is glibc and took it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Threads share one arena: those of their own are cut into 64 MB, and a larger tensor is given back at once.
    settings = {_ARENA_MAX: 1, _MMAP_THRESHOLD: _KEPT, _TRIM_THRESHOLD: _KEPT}
    global _keeps
    _keeps = all([mallopt(name, value) for name, value in settings.items()])
    return _keeps


class _Mallinfo(ctypes.Structure):
    """What glibc tells of its memory, malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def give_back(spare: int = SPARE) -> None:
    """Give what is free back to the system, if `keep_freed_memory` has kept it and there is more than ``spare`` of it.

    Parameters
    ----------
    spare : int
        [byte]
    """
    if not _keeps:
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallinfo2"):  # glibc 2.33
        library.mallinfo2.restype = _Mallinfo
        if library.mallinfo2().fordblks <= spare:
            return
    library.malloc_trim(0)


def cores() -> int:
    """Cores that this process may run on: of a job its share, not all of the node."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


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
