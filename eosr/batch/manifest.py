"""What a batch has done, on disk: one line of JSON per scene and band, and no kill can take a finished one away.

``manifest.jsonl`` grows by whole lines while a batch runs, the last line of a scene and band being what counts; when it
is opened, and at the end, it is brought down to one line each. Only the driver writes it, one driver at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Literal

from eosr.errors import BatchError, OutputError
from eosr.host.files import put, take

State = Literal["pending", "running", "done", "failed"]
NAME: Final = "manifest.jsonl"
_LOCK: Final = ".eosr-batch.lock"
#: Types of what is no text in a `Line`.
_KINDS: Final = {"size": (int,), "attempts": (int,), "seconds": (int, float)}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One band of one scene."""

    scene: str
    band: str
    state: State = "pending"
    #: File of the band, relative to the folder of the batch: the COG, or the Zarr store where no COGs are written.
    path: str = ""
    #: SHA-256 of that file, or of the band's pixels in the store.
    checksum: str = ""
    #: Size of that file [byte]; 0 for a store.
    size: int = 0
    #: Wall time of the whole scene, the attempts before not counted [s].
    seconds: float = 0.0
    worker: str = ""
    #: Attempts so far.
    attempts: int = 0
    error: str = ""
    #: When this line was written, UTC.
    time: str = ""


class Manifest:
    """The lines of a batch in memory and on disk. Use it in a ``with`` block: it keeps other drivers out.

    Parameters
    ----------
    folder : Path
        Of the batch; must exist.

    Raises
    ------
    BatchError
        If another driver has it, or a line in the middle cannot be read.
    OutputError
        If it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._folder = folder
        self._lines: dict[tuple[str, str], Line] = {}
        self._file: IO[str] | None = None

    @contextmanager
    def open(self) -> Iterator[Manifest]:
        """Lock, read what is there, and give it back tidied."""
        with (self._folder / _LOCK).open("w") as lock:
            if not take(lock):
                raise BatchError(
                    f"another eosr batch is at work in {self._folder}. Let it finish, or end it, then type the same "
                    "command again."
                )
            self._lines = {(line.scene, line.band): line for line in read_lines(self.path)}
            self._tidy()
            with self.path.open("a") as self._file:
                yield self
            self._file = None
            self._tidy()  # not after an error: what is there is whole

    def lines(self, scene: str | None = None) -> list[Line]:
        """Lines of a scene, or all."""
        return [line for line in self._lines.values() if scene in (None, line.scene)]

    def state(self, scene: str) -> State:
        """State of a scene: that of its bands, which go together."""
        lines = self.lines(scene)
        return lines[0].state if lines else "pending"

    def record(self, lines: Iterable[Line]) -> None:
        """Write lines, and see to it that they outlive the machine."""
        if self._file is None:
            raise ValueError("the manifest is not open")
        with self._failures_told():
            self._write(self._file, lines)

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"the manifest {self.path} cannot be written: {error.strerror}. Make room, or correct the rights, and "
                "type the same command again; it goes on where it stopped."
            ) from error

    def _write(self, file: IO[str], lines: Iterable[Line]) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        for line in lines:
            stamped = replace(line, time=now)
            self._lines[line.scene, line.band] = stamped
            file.write(json.dumps(asdict(stamped)) + "\n")
        file.flush()
        os.fsync(file.fileno())

    def _tidy(self) -> None:
        """Bring the file down to one line per scene and band."""
        part = self.path.with_suffix(".part")
        with self._failures_told():
            with part.open("w") as file:
                file.writelines(json.dumps(asdict(line)) + "\n" for line in self._lines.values())
            put(part, self.path)


def read_lines(path: Path) -> list[Line]:
    """Lines of a manifest in the order they were written; a last line that a kill cut off does not count.

    Raises
    ------
    BatchError
        If another line cannot be read, or the file.
    """
    try:
        texts = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BatchError(
            f"{path} cannot be read: {error.strerror}. Correct its rights, or move away what lies there, and type the "
            "same command again: what is whole is found by what lies beside it, or made anew."
        ) from error
    lines = []
    for number, text in enumerate(texts, start=1):
        if not text:
            continue
        try:
            lines.append(line_of(json.loads(text)))  # bytes that are no text: UnicodeDecodeError, a ValueError
        except (ValueError, TypeError):
            if number == len(texts):  # no newline behind it
                break
            raise BatchError(
                f"line {number} of {path} is no line of a manifest. Take it out, and type the same command again: the "
                "scene of that line is made anew."
            ) from None
    return lines


def line_of(told: Mapping[str, Any]) -> Line:
    """Return a line from its JSON; TypeError where that is something else."""
    line = Line(**told)
    for name, value in asdict(line).items():
        kinds = _KINDS.get(name, (str,))
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r}")
    return line
