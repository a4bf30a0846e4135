"""Whole files, and who works on them.

What outlives the machine: the content of a file is on its disk before a name, a mark or a record says so.

A process that is killed loses nothing that it wrote. A machine that dies loses what its system still held in memory:
often the content of a file whose name is on the disk already, so that it is empty afterwards.

Who works here: a lock on a file, which the system forgets when the process that has it is gone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from eosr.errors import OutputError

#: Longest name made from an id [bytes]. A file system takes 255; bands, pixel sizes and the marks of unfinished files
#: are appended.
LONGEST: Final = 180


def name_for(id: str) -> str:
    """Name of a file after an id: its letters, digits, ``_``, ``-`` and inner ``.``; a long one ends in a hash."""
    name = re.sub(r"^\.+|[^\w.-]+", "_", id)
    if len(name.encode()) <= LONGEST:
        return name
    end = hashlib.sha256(id.encode()).hexdigest()[:12]
    return f"{name.encode()[: LONGEST - 13].decode(errors='ignore')}-{end}"


def settle(*paths: Path) -> None:
    """Return when the content of files is on their disk, and of folders the names in them.

    Raises
    ------
    OSError
        If a file cannot be written after all: a network file system may say only now that it is full.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            # Not every file system knows it for folders, and those order names by themselves.
            if not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def settle_all(folder: Path) -> None:
    """The same for a folder and everything below."""
    settle(*folder.rglob("*"), folder)


def put(part: Path, path: Path) -> None:
    """Give a complete file its name, replacing what bears it: whoever reads it reads the old or the new one, whole."""
    settle(part)
    os.replace(part, path)
    settle(path.parent)


def put_text(path: Path, text: str) -> None:
    """Write a file beside its place and `put` it there: nobody ever reads a part of it."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text)
        put(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


def discard(folder: Path) -> None:
    """Delete a folder under another name: a run that is killed meanwhile leaves no part that looks like the whole."""
    gone = folder.with_name(folder.name + ".gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)


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
