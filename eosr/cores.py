"""How many cores a process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may run on: of a job its share, not all of the node."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
