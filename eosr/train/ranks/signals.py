"""Signals that ask a run to stop: noticed, and acted on when the step is done."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar, Final

#: SIGTERM: `scancel`, `kill`, pre-emption. SIGUSR1: Slurm's warning before the time limit (`--signal=USR1@120`).
STOPPING: Final = (signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """Within the ``with`` block a signal of `STOPPING` only sets ``received``; before and after it does what it did.

    Blocks may be nested: the inner one knows what the outer one has received.
    """

    _outer: ClassVar[list[StopSignals]] = []

    def __init__(self) -> None:
        #: Name of the first signal, e.g. ``"SIGUSR1"``; empty without any.
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python lets the main thread alone set handlers; a run inside another one's thread goes without.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._notice) for number in STOPPING}
            self.received = next((one.received for one in self._outer if one.received), "")
            self._outer.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self in self._outer:
            self._outer.remove(self)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name
