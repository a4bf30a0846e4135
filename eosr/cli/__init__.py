"""The commands `eosr` and `eosr-train`."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eosr` with ``argv`` (default: the command line's) and return the exit status; see `eosr.cli.entry`."""
    from eosr.cli.entry import main as run

    return run(argv)
