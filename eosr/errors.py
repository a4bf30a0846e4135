"""What can go wrong, by kind; every message says what is wrong, where, and what to type instead."""

from __future__ import annotations

import re
import sys
import warnings
from typing import Final

#: An address in a text: scheme, user and password, host and path, and what follows, which may be a signature.
_ADDRESS: Final = re.compile(r"""(\w://)([^\s/'"?#<>]*@)?([^\s'"?#<>]*)([?#][^\s'"<>)]*(?<![.,;:]))?""")
#: Libraries also name an address without its host: ``/item.json?sig=...``.
_QUERY: Final = re.compile(r"""(?<=[\w/])\?[\w.~%+-]+=[^\s'"<>)]*(?<![.,;:])""")


def first_line(error: BaseException) -> str:
    """First line of what an error says, without the full stop; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def without_secrets(text: str) -> str:
    """Text without the passwords and signatures of the addresses in it.

    Examples
    --------
    >>> without_secrets("cannot read https://me:key@eo.example/item.json?sig=abc%3D: /item.json?sig=abc%3D is gone.")
    'cannot read https://eo.example/item.json: /item.json is gone.'
    """
    return _QUERY.sub("", _ADDRESS.sub(r"\1\3", text))


def printable(text: str) -> str:
    r"""Text whose characters are all seen on a terminal, or end a line; others as Python writes them.

    Names and addresses come from outside, and escape sequences among them would recolour or overwrite what is told.

    Examples
    --------
    >>> print(printable("item \x1b[2Jgone"))
    item \x1b[2Jgone
    """
    # "\r\n" ends a line of CSV; alone "\r" would let what follows overwrite it.
    lines = ("".join(one if one.isprintable() or one == "\t" else _escaped(one) for one in line.removesuffix("\r"))
             + "\r" * line.endswith("\r") for line in text.split("\n"))  # fmt: skip
    return "\n".join(lines)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class EosrWarning(UserWarning):
    """What eosr did otherwise than its caller may expect, though nothing is wrong."""


def warn(text: str) -> None:
    """Warn with an `EosrWarning` at the line outside of eosr from which it was called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "eosr":
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(without_secrets(text)), EosrWarning, stacklevel=level)


class EosrError(Exception):
    """Base of every error that eosr raises on purpose; the command line prints it as one line and exits 1.

    No text holds what `without_secrets` takes out: it ends up in logs. All of it is `printable`.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(without_secrets(message)))


class BandError(EosrError, ValueError):
    """A band is unknown, missing, or of no use for what was asked."""


class GridError(EosrError, ValueError):
    """Pixel grids do not nest, are too small, or are chunked in a way that cannot work."""


class ReachError(GridError):
    """A scene is smaller than what can change one pixel; ``needed`` is the least side [10 m pixels]."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


class SourceError(EosrError, ValueError):
    """A STAC item, catalogue, search or file cannot be read as Sentinel-2."""


class RadiometryError(EosrError, ValueError):
    """Units, offsets or processing levels are missing or contradict each other."""


class DegradationError(EosrError, ValueError):
    """A degradation operator is unknown, or is not the one a generator was made for."""


class MetricError(EosrError, ValueError):
    """A score was asked for with arguments that have no meaning."""


class WeightsError(EosrError, ValueError):
    """A weights file is missing, damaged, or made for something else."""


class MethodError(EosrError, ValueError):
    """A method is unknown, or was given an option it does not have or cannot use."""


class OutputError(EosrError, OSError):
    """An output cannot be written, or is already there."""


class NoRoomError(OutputError):
    """There is no room for an output, on a disk or in a quota."""


class TrainingError(EosrError, ValueError):
    """A training configuration or its data cannot work."""


class SharedError(TrainingError):
    """What stops a training on many processes, raised on every one of them alike."""


class RankLostError(TrainingError):
    """Another process of a training is gone, or does not answer."""


class BatchError(EosrError, RuntimeError):
    """A batch of scenes cannot begin, or is not complete; ``missing`` names the scenes without a result."""

    def __init__(self, message: str, missing: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.missing = missing


class MissingExtraError(EosrError, ImportError):
    """An optional package is needed; the message holds the line that installs it."""
