"""The printed tables of the reference study, figure by figure as printed: ``zhang2020.toml``.

Nothing is corrected: the typing errors of the slides stand, and `eosr.score.report.study_flags` finds them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import Final

from eosr.errors import MetricError

#: Metrics of an average table, in the order of its columns.
METRICS: Final = ("rmse", "sre", "sam", "ergas", "ssim", "psnr", "bpsnr")
#: Stands for the band where a figure is over all bands of a pixel size.
ALL: Final = ""
#: (metric, band) of a figure; the band is `ALL` in the average tables.
Column = tuple[str, str]

#: Bands that the study sharpens, by pixel size [m].
BANDS_OF: Final = {20: ("B05", "B06", "B07", "B8A", "B11", "B12"), 60: ("B01", "B09")}


@dataclass(frozen=True)
class Figure:
    """One printed number."""

    #: As printed, with every digit.
    text: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)

    @property
    def half(self) -> float:
        """Half a unit of the last printed digit: what rounding may hide."""
        return 0.5 * 10.0 ** -len(self.text.partition(".")[2])


@dataclass(frozen=True, kw_only=True)
class PrintedRow:
    """One row of a printed table."""

    #: As printed, mathematics in plain letters: ``S2x``, ``+ hinge loss GAN``.
    method: str
    figures: Mapping[Column, Figure]
    #: Of the tables on distributed training only.
    gpus: int | None = None
    batch: int | None = None
    hours: int | None = None

    @property
    def gpu_hours(self) -> int | None:
        """GPUs times hours: what the training cost."""
        return None if self.gpus is None or self.hours is None else self.gpus * self.hours

    @property
    def label(self) -> str:
        """The method, with the number of GPUs where it tells rows apart."""
        return self.method if self.gpus is None else f"{self.method}, {self.gpus} GPU{'s' * (self.gpus > 1)}"

    def value(self, metric: str, band: str = ALL) -> float | None:
        """Return a printed number, None where there is none."""
        figure = self.figures.get((metric, band))
        return None if figure is None else figure.value

    @property
    def is_exchanged(self) -> bool:
        """Whether SSIM and PSNR stand in each other's column: SSIM cannot exceed 1, PSNR of any use does."""
        ssim, psnr = self.value("ssim"), self.value("psnr")
        return ssim is not None and psnr is not None and ssim > 1 >= psnr

    def exchanged(self) -> PrintedRow:
        """Return the row with SSIM and PSNR exchanged if they stand in each other's column, else as it is."""
        if not self.is_exchanged:
            return self
        ssim, psnr = self.figures["psnr", ALL], self.figures["ssim", ALL]
        return replace(self, figures={**self.figures, ("ssim", ALL): ssim, ("psnr", ALL): psnr})


@dataclass(frozen=True, kw_only=True)
class PrintedTable:
    """One printed table."""

    #: As in the study, e.g. ``"6.5"``.
    number: str
    #: Processing level, ``"L1C"`` or ``"L2A"``.
    level: str
    #: Pixel size of the bands [m]: 20 or 60.
    gsd: int
    #: ``"synthesis"`` or ``"consistency"``.
    property: str
    #: ``"average"``, ``"bands"``, ``"adversarial"`` or ``"distributed"``.
    kind: str
    caption: str
    rows: tuple[PrintedRow, ...] = field(repr=False)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns of figures, in the order of the print."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row.figures))

    def row(self, label: str) -> PrintedRow:
        """Return a row by its `PrintedRow.label`.

        Raises
        ------
        MetricError
            If the table has no such row.
        """
        for row in self.rows:
            if row.label == label:
                return row
        raise MetricError(
            f"table {self.number} has no row {label!r}. It has {', '.join(repr(row.label) for row in self.rows)}."
        )


def printed_table(number: str) -> PrintedTable:
    """Return one table of the study, e.g. ``"6.5"``.

    Raises
    ------
    MetricError
        If the study prints no table of that number.

    Examples
    --------
    >>> printed_table("6.5").row("S2x").value("rmse")
    34.99
    """
    if number not in TABLES:
        raise MetricError(f"the study prints no table {number!r}. Use one of {', '.join(TABLES)}.")
    return TABLES[number]


def _read() -> dict[str, PrintedTable]:
    found = {}
    for entry in tomllib.loads(resources.files(__package__).joinpath("zhang2020.toml").read_text("utf-8"))["table"]:
        rows = tuple(_row(line, entry["kind"], entry["gsd"]) for line in entry.pop("rows").strip().splitlines())
        found[entry["number"]] = PrintedTable(rows=rows, **entry)
    return found


def _row(line: str, kind: str, gsd: int) -> PrintedRow:
    method, *parts = line.split("|")
    texts = " ".join(parts).split()
    setup: dict[str, int | None] = {}
    columns = [(metric, ALL) for metric in METRICS]
    if kind == "bands":
        columns = [(metric, band) for metric in METRICS[:2] for band in BANDS_OF[gsd]]
    if kind == "distributed":
        setup = dict(zip(("gpus", "batch", "hours"), map(_whole, texts[:3]), strict=True))
        texts, columns = texts[3:], columns[:-1]
    figures = {column: Figure(text) for column, text in zip(columns, texts, strict=True) if text != "-"}
    return PrintedRow(method=method.strip(), figures=MappingProxyType(figures), **setup)


def _whole(text: str) -> int | None:
    return None if text == "-" else int(text.removesuffix("h"))


#: Number -> table, in the order of the study.
TABLES: Final[Mapping[str, PrintedTable]] = MappingProxyType(_read())
