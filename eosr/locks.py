"""Who works here: a lock on a file, which the system forgets when the process that has it is gone."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from eosr.errors import OutputError


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


@contextmanager
def held(locks: Iterable[Path], output: Path) -> Iterator[None]:
    """Hold every one of the files of these names, which are gone afterwards: nobody else writes ``output`` meanwhile.

    Raises
    ------
    OutputError
        If another process, or another thread of this one, holds one of them; it names who does.
    """
    with ExitStack() as all_of_them:
        for path in locks:
            all_of_them.enter_context(_held(path, output))
        yield


@contextmanager
def _held(path: Path, output: Path) -> Iterator[None]:
    while True:
        with path.open("a+") as file:
            if not take(file):
                file.seek(0)
                who = file.read().strip() or "another process"
                raise OutputError(
                    f"{output} is being written by {who}. Wait until that has ended and repeat the command, or name "
                    "another output."
                )
            if not _is_there(file, path):
                continue  # its last holder took it away between our opening and our locking
            file.truncate(0)
            file.write(
                f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
            )
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_there(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
