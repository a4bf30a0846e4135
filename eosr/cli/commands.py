"""What `eosr` and `eosr-train` share: a parser that helps, Ctrl-C during imports, what they print, how they end."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any, Final, NoReturn, TextIO

from eosr.errors import printable

#: Module of a command -> its name.
_MODULES: Final = {"eosr.cli": "eosr", "eosr.cli.train": "eosr-train"}
#: What nearly every command needs and takes long to import.
_NEEDED: Final = ("eosr.accessor", "eosr.open.stac", "eosr.score.evaluation", "eosr.write.delivery")
#: What a shell calls the status of a command whose reader is gone (SIGPIPE), as in ``eosr info s2sr-20m | head -1``.
_READER_GONE: Final = 141


class _NotPrintedError(Exception):
    """Standard output did not take what was printed; the cause says why."""


def started_as() -> str:
    """Name of the command that this process is; empty in a program that imports eosr."""
    name = os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else ""
    if name in _MODULES.values():
        return name
    words = sys.orig_argv
    return _MODULES.get(words[words.index("-m") + 1], "") if "-m" in words[:-1] else ""


def _end_quietly_until_run() -> None:
    """Let Ctrl-C end a command that is still being imported without a traceback; other programs keep their own way."""
    ours = started_as() and threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: FrameType | None) -> Any:
    # No exception: libraries that are being imported turn it into others.
    os.write(2, f"{started_as()}: interrupted before it began.\n".encode())
    os._exit(130)


def say(text: object, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print, without the escape sequences that names from outside may hold."""
    stream = file or sys.stdout
    if stream is None:  # closed by who started the command
        return
    try:
        stream.write(printable(str(text)) + end)
    except OSError as error:
        if stream is not sys.stderr:
            raise _NotPrintedError from error


class Parser(argparse.ArgumentParser):
    """No abbreviations; a mistyped option or choice is answered with the nearest one there is."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def options(self) -> list[str]:
        """Every option of this parser, e.g. ``--bbox``."""
        return [text for action in self._actions for text in action.option_strings]

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message, end="", file=file)  # argparse's own hides that standard output is full

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            message += nearest(wrong[1], re.findall(r"[\w.-]+", wrong[2]))
        super().error(message)


def nearest(word: str, known: Sequence[str]) -> str:
    """Propose the nearest word that is known; empty where none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def begin() -> None:
    """Import what nearly every command needs; Ctrl-C ends the process quietly until then, and is an exception after."""
    for module in _NEEDED:
        import_module(module)
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_command(name: str, command: Callable[[], int], resume: str) -> int:
    """Run a command and return its exit status: 130 after Ctrl-C, 1 where standard output is full.

    Parameters
    ----------
    name : str
    command : callable
        Returns the status of what went as it should, and of errors that it has printed.
    resume : str
        Sentence that says how an interrupted command goes on.
    """
    try:
        try:
            return command()
        except KeyboardInterrupt:
            say(f"{name}: interrupted. {resume}", file=sys.stderr)
            return 130
        finally:
            _flush()
    except _NotPrintedError as error:
        # What is left in the buffer goes nowhere, or Python would stumble over it once more.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error.__cause__, BrokenPipeError):
            return _READER_GONE
        why = getattr(error.__cause__, "strerror", "") or error.__cause__
        say(f"{name}: standard output does not take what is printed ({why}). Send it elsewhere.", file=sys.stderr)
        return 1


def _flush() -> None:
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        raise _NotPrintedError from error


_end_quietly_until_run()
