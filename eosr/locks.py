"""Who works here: a lock on a file, which the system forgets when the process that has it is gone."""

from __future__ import annotations

import fcntl
from typing import IO


def take(file: IO[str]) -> bool:
    """Whether nobody else has the file locked; it is locked by this process then, until it is closed.

    On a file system without locks everybody is let in.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
