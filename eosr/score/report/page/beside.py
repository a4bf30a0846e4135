"""Tables that somebody else laid out, such as those of the reference study, as the page takes them over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from eosr.errors import MetricError


class Words(Protocol):
    """One cell: its text, the letters of its footnotes, and whether it is set in bold."""

    @property
    def text(self) -> str:
        """What stands there."""

    @property
    def marks(self) -> str:
        """Letters of footnotes; empty for none."""

    @property
    def bold(self) -> bool:
        """Whether it is set in bold."""


class Laid(Protocol):
    """One table with its notes, as `eosr.score.report.formats.to_sheets` lays it out."""

    @property
    def title(self) -> str:
        """What it shows."""

    @property
    def heads(self) -> Sequence[str]:
        """One per column."""

    @property
    def rows(self) -> Sequence[Sequence[Words]]:
        """Cells, row by row."""

    @property
    def words(self) -> int:
        """Number of columns, from the left, that hold words."""

    @property
    def notes(self) -> Sequence[str]:
        """Footnotes and conditions."""


def checked_sheets(sheets: Iterable[Laid]) -> tuple[Laid, ...]:
    """Return the tables, all of them laid out.

    Raises
    ------
    MetricError
        If one is not.
    """
    found = tuple(sheets)
    for one in found:
        if not all(hasattr(one, name) for name in ("title", "heads", "rows", "words", "notes")):
            raise MetricError(
                f"sheets holds a {type(one).__name__}, which is no table to be read. Pass "
                "sheets=eosr.score.report.formats.to_sheets(...) of it."
            )
    return found
