"""Measured rows beside the printed ones of the reference study, table by table, with ratios to bicubic.

A figure of one scene says nothing beside a figure of another. What can be compared is how far a method gets from
bicubic on the same pixels: `to_bicubic` of the print stands next to that of the measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.cube.bands import QUANTIFICATION
from eosr.errors import MetricError
from eosr.score.arguments import named_scenes
from eosr.score.report.by_band import row_note
from eosr.score.report.study_figures import ALL, BANDS_OF, TABLES, Column, PrintedRow, PrintedTable
from eosr.score.report.study_flags import Flag, flags

#: What a measured method is (`kind` of an evaluation) -> how the study prints it. What is not here gets its own row.
PRINTED_NAME: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bicubic": "Bicubic", "atprk": "ATPRK", "supreme": "SupReME", "superres_like": "Superres", "dsen2": "DSen2",
        "dsen2_l2a": "DSen2-L2A", "s2x": "S2x", "s6x": "S6x",
    }
)  # fmt: skip
#: What has to be said beside a name, because the row is not what the study calls so.
REMARKS: Final[Mapping[str, str]] = MappingProxyType(
    {"superres_like": "superres_like is a reconstruction from the abstract of Brodu 2017, not the original Superres."}
)
#: Convention of `eosr.evaluate` whose every column is that of the study.
_CONVENTION: Final = "zhang2020"
#: Operator the study degrades with, in both properties.
_OPERATOR: Final = "study"
_LEVELS: Final = ("L1C", "L2A")
#: Columns that another convention than the study's changes; at 60 m ERGAS as well.
_BY_CONVENTION: Final = ("ssim", "psnr", "bpsnr")
#: Coordinates of an evaluation that say what a row is.
_IDENTITY: Final = ("kind", "described", "weights_sha256")
_DECIBELS: Final = ("sre", "psnr", "bpsnr")
_DIGITS: Final[Mapping[str, int]] = MappingProxyType({"ssim": 4, "sam": 3, "ergas": 3})


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One figure of a table."""

    #: None where there is none.
    value: float | None
    #: As printed by the study, or with the digits worth showing.
    text: str
    #: See `to_bicubic`; None for want of one of the two figures.
    to_bicubic: float | None
    #: Codes of `eosr.score.report.study_flags.MEANINGS`.
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """One row: printed or measured."""

    #: ``"printed"`` or ``"measured"``.
    source: str
    #: As the study prints it; of a method the study has not, its label.
    method: str
    #: Label of a measured method; empty in the print.
    label: str
    #: ``"before"`` or ``"after"`` the projection onto the measurement; empty in the print.
    projection: str
    #: Over scenes: ``"mean"`` or ``"pooled"``; ``"printed"`` in the print.
    average: str
    #: One per column of the table.
    cells: tuple[PaperCell, ...]
    #: Codes that concern the whole row.
    flags: tuple[str, ...] = ()
    #: What a measured row is: `kind`, `described` and `weights_sha256` of the evaluation; empty in the print.
    kind: str = ""
    described: str = ""
    weights_sha256: str = ""
    gpus: int | None = None
    batch: int | None = None
    hours: int | None = None

    @property
    def name(self) -> str:
        """What to call the row in a table."""
        if self.source == "printed":
            return self.method
        return f"{self.label}, projected" if self.projection == "after" else self.label


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of the study with the measured rows that belong there."""

    printed: PrintedTable
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]
    #: What is wrong with printed figures.
    flags: tuple[Flag, ...]
    #: Sentences on what was measured, and how far it can be compared.
    notes: tuple[str, ...]
    #: Of the measured rows; empty without any.
    degradation: str
    convention: str
    scenes: tuple[str, ...]


def paper_tables(table: xr.Dataset | None, *, level: str | None = None) -> list[PaperTable]:
    """Return the study's tables that an evaluation can stand beside, in the order of the study.

    Parameters
    ----------
    table : Dataset or None
        From `eosr.evaluate`. None gives the printed rows alone.
    level : {"L1C", "L2A"}, optional
        Processing level of the scenes; default ``table.attrs["level"]``, and without a table both.

    Returns
    -------
    list of PaperTable
        Those of the level, and of the pixel sizes and properties that were evaluated. Measured are the rows under the
        operator ``"study"``: over the scenes as mean (of per-scene, per-band values) and pooled, before and after the
        projection. The tables on distributed training get none, those on adversarial losses only methods that the
        study does not print in its other tables, and S2x. RMSE is in DN, whatever the evaluation has.

    Raises
    ------
    MetricError
        If the level is not known, or ``table`` is no evaluation.

    Notes
    -----
    Which printed row a measured one belongs to is told by its ``kind``, never by its label.
    """
    if table is None:
        levels = _LEVELS if level is None else (_checked(level),)
        return [_paper_table(printed, None) for printed in TABLES.values() if printed.level in levels]
    missing = {"summary", "summary_overall"} - set(table.data_vars)
    if missing:
        raise MetricError(
            f"the table has no {' and no '.join(sorted(missing))}, so it is no evaluation. Pass what eosr.evaluate "
            "returned."
        )
    if "kind" not in table.coords:
        raise MetricError(
            "the table has no coordinate 'kind', which says what each row is: another eosr made it. Evaluate again, or "
            "say it, e.g. table.assign_coords(kind=('method', ['bicubic', 'eosr']))."
        )
    wanted = _checked(table.attrs.get("level") if level is None else level)
    gsds, properties = {int(gsd) for gsd in table["gsd"].values}, {str(name) for name in table["property"].values}
    return [
        _paper_table(printed, table)
        for printed in TABLES.values()
        if printed.level == wanted and printed.gsd in gsds and printed.property in properties
    ]


def to_bicubic(metric: str, value: float, bicubic: float) -> float:
    """Return a figure as seen from bicubic on the same pixels; comparable between scenes.

    Parameters
    ----------
    metric : str
        ``rmse``, ``sam``, ``ergas``: the ratio [1]. ``sre``, ``psnr``, ``bpsnr``: the difference [dB]. ``ssim``: the
        ratio of what is missing to 1 [1].
    value, bicubic : float
        The figure and that of bicubic.

    Returns
    -------
    float
        NaN where both are perfect.

    Examples
    --------
    >>> to_bicubic("rmse", 34.0, 136.0), to_bicubic("sre", 36.0, 25.5), round(to_bicubic("ssim", 0.95, 0.8), 2)
    (0.25, 10.5, 0.25)
    """
    if metric in _DECIBELS:
        return value - bicubic
    if metric == "ssim":
        value, bicubic = 1 - value, 1 - bicubic
    return value / bicubic if bicubic else math.nan


def figure_text(metric: str, value: float, *, reflectance: bool = False) -> str:
    """Return a score with the digits worth showing: DN and decibels 2, angles and ERGAS 3, SSIM 4, reflectance 6."""
    digits = 6 if reflectance and metric in ("rmse", "bias") else _DIGITS.get(metric, 2)
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def check_levels(ds: Any) -> None:
    """Refuse scenes that the study has no tables for, before they are evaluated.

    Parameters
    ----------
    ds : Dataset, or sequence or mapping of them
        As in `eosr.evaluate`.

    Raises
    ------
    MetricError
        If they are of several levels, or of none that the study has.
    """
    levels = {name: str(scene.attrs.get("level", "")) for name, scene in named_scenes(ds).items()}
    for name, level in levels.items():
        if level not in _LEVELS:
            raise MetricError(
                f"{name} has level={level!r}, which the study has no tables for. Set ds.attrs['level'] to 'L1C' or "
                "'L2A'; or, on the command line, type --property both --convention zhang2020 instead of --preset "
                "zhang2020."
            )
    if len(set(levels.values())) > 1:
        raise MetricError(
            "the scenes are of L1C and of L2A, which the study has in different tables. Judge them apart."
        )


def _checked(level: object) -> str:
    if level not in _LEVELS:
        raise MetricError(
            f"level={level!r} is none that the study has tables for. Use level='L1C' or level='L2A', that of the "
            "products which were evaluated."
        )
    return str(level)


def _paper_table(printed: PrintedTable, table: xr.Dataset | None) -> PaperTable:
    told = flags(printed.number)
    rows = [_printed_row(printed, row, told) for row in printed.rows]
    measured = [] if table is None or printed.kind == "distributed" else _measured_rows(printed, table)
    ordered: list[PaperRow] = []
    for row in rows:
        ordered += [row, *(one for one in measured if one.kind in PRINTED_NAME and one.method == row.method)]
    printed_names = {row.method for row in rows}
    ordered += [one for one in measured if one.kind not in PRINTED_NAME or one.method not in printed_names]
    here = table is not None and bool(measured)
    return PaperTable(
        printed=printed,
        columns=printed.columns,
        rows=tuple(ordered),
        flags=told,
        notes=tuple(_notes(printed, table, measured)),
        degradation=_OPERATOR if here else "",
        convention=str(table.attrs.get("convention", "")) if table is not None and here else "",
        scenes=tuple(str(name) for name in table["scene"].values) if table is not None and here else (),
    )


def _printed_row(printed: PrintedTable, row: PrintedRow, told: Iterable[Flag]) -> PaperRow:
    own = [flag for flag in told if flag.row == row.label]
    right, bicubic = row.exchanged(), _printed_bicubic(printed)
    cells = []
    for metric, band in printed.columns:
        figure, value = row.figures.get((metric, band)), right.value(metric, band)
        reference = None if bicubic is None else bicubic.value(metric, band)
        cells.append(
            PaperCell(
                value=None if figure is None else figure.value,
                text="-" if figure is None else figure.text,
                to_bicubic=None if value is None or reference is None else to_bicubic(metric, value, reference),
                flags=tuple(flag.code for flag in own if (metric, band) in flag.columns),
            )
        )
    return PaperRow(
        source="printed", method=row.method, label="", projection="", average="printed", cells=tuple(cells),
        flags=tuple(flag.code for flag in own if not flag.columns), gpus=row.gpus, batch=row.batch, hours=row.hours,
    )  # fmt: skip


def _printed_bicubic(printed: PrintedTable) -> PrintedRow | None:
    """Find bicubic in the table itself or, for the adversarial losses, in the average table of the same pixels."""
    same = (printed.level, printed.gsd, printed.property, "average")
    averages = [one for one in TABLES.values() if (one.level, one.gsd, one.property, one.kind) == same]
    rows = [row for one in (printed, *averages) for row in one.rows if row.method == "Bicubic"]
    return rows[0].exchanged() if rows else None


def _measured_rows(printed: PrintedTable, table: xr.Dataset) -> list[PaperRow]:
    if _OPERATOR not in table["degradation"].values:
        return []
    labels, projections, averages, kinds = (
        [str(name) for name in table[dim].values] for dim in ("method", "projection", "average", "kind")
    )
    figures = np.stack([_column(table, printed, column) for column in printed.columns], axis=-1)
    none = np.full(len(printed.columns), np.nan)
    rows = []
    for (i, label), (k, average) in product(enumerate(labels), enumerate(averages)):
        method = _method_in(printed, label, kinds[i])
        compares = {"bicubic", "before"} <= {*labels, *projections}
        bicubic = figures[labels.index("bicubic"), projections.index("before"), k] if compares else none
        about = {name: str(table[name].values[i]) for name in _IDENTITY if name in table.coords}
        for j, projection in enumerate(projections):
            if method and not np.isnan(figures[i, j, k]).all():
                who = {"method": method, "label": label, "projection": projection, "average": average, **about}
                rows.append(_measured_row(printed, figures[i, j, k].tolist(), bicubic.tolist(), who))
    return rows


def _column(table: xr.Dataset, printed: PrintedTable, column: Column) -> npt.NDArray[np.float64]:
    """Read one column (method, projection, average); NaN where the evaluation has none."""
    metric, band = column
    at: dict[str, Any] = {"property": printed.property, "degradation": _OPERATOR, "metric": metric}
    at |= {"gsd": printed.gsd} if band == ALL else {"band": band}
    dims = ("method", "projection", "average")
    if any(value not in table[dim].values for dim, value in at.items()):
        return np.full([table.sizes[dim] for dim in dims], np.nan)
    name = "summary_overall" if band == ALL else "summary"
    figures: npt.NDArray[np.float64] = table[name].sel(at).transpose(*dims).to_numpy()
    in_reflectance = metric == "rmse" and table.attrs.get("units") == "reflectance"
    return figures * QUANTIFICATION if in_reflectance else figures


def _method_in(printed: PrintedTable, label: str, kind: str) -> str:
    """Return the name of a measured method in a table; empty if it does not belong there."""
    # S2x makes no 60 m band and S6x no 20 m band, so that they cannot stray into each other's tables.
    if printed.kind != "adversarial":
        return PRINTED_NAME.get(kind, label)
    return "pre-trained S2x" if kind == "s2x" else "" if kind in PRINTED_NAME else label


def _measured_row(printed: PrintedTable, values: list[float], bicubic: list[float], who: dict[str, Any]) -> PaperRow:
    cells = []
    for (metric, _), value, reference in zip(printed.columns, values, bicubic, strict=True):
        seen = to_bicubic(metric, value, reference)
        known = not math.isnan(value)
        cells.append(
            PaperCell(
                value=value if known else None,
                text=figure_text(metric, value),
                to_bicubic=None if math.isnan(seen) else seen,
            )
        )
    return PaperRow(source="measured", cells=tuple(cells), **who)


def _notes(printed: PrintedTable, table: xr.Dataset | None, measured: list[PaperRow]) -> list[str]:
    if table is None or printed.kind == "distributed":
        return []
    if _OPERATOR not in table["degradation"].values:
        return [f"The evaluation has no scores under the operator {_OPERATOR!r}, so no measured row can stand here."]
    if not measured:
        return []
    scenes, convention = [str(name) for name in table["scene"].values], table.attrs.get("convention")
    shown = ", ".join(scenes[:4]) + (f" and {len(scenes) - 4} more" if len(scenes) > 4 else "")
    notes = [
        f"Measured by eosr on {len(scenes)} scene{'s' * (len(scenes) != 1)} ({shown}), not on the study's tiles: "
        f"compare what is said to bicubic, not the figures. Degradation {_OPERATOR!r}, convention {convention!r}, "
        f"border {table.attrs.get('border', 'unknown')}.",
        "'projected' is the same output after the projection onto the measurement, which the study does not have.",
    ]
    told = row_note(table, (row.label for row in measured))
    notes += [told] if told else []
    lacking = [name for name in BANDS_OF[printed.gsd] if name not in table["band"].values]
    if lacking and printed.kind != "bands":
        notes.append(f"Measured without {', '.join(lacking)}, which the printed averages hold.")
    if convention != _CONVENTION:
        changed = [name for name, band in printed.columns if name in _BY_CONVENTION and band == ALL]
        changed += ["ergas"] if printed.gsd == 60 and ("ergas", ALL) in printed.columns else []
        if changed:
            names = ", ".join(metric_name(name) for name in changed)
            # A peak, and ERGAS's ratio of pixel sizes, cancel against bicubic's; the constants of SSIM do not.
            notes.append(
                f"Another convention than the study's: {names} cannot be compared with the print. As seen from bicubic "
                "all but SSIM can."
            )
    if not any(row.label == "bicubic" for row in measured) and "bicubic" not in table["method"].values:
        notes.append("Bicubic was not measured, so the measured rows have no ratio to it.")
    return notes + [REMARKS[kind] for kind in dict.fromkeys(row.kind for row in measured) if kind in REMARKS]


def metric_name(metric: str) -> str:
    """Return a metric as papers print it: ``RMSE``, ``bPSNR``."""
    return {"bpsnr": "bPSNR", "bias": "bias", "coverage": "coverage"}.get(metric, metric.replace("_", " ").upper())
