"""Evaluations, and the study's tables with them, as Markdown, CSV, JSON and LaTeX.

Markdown and LaTeX are for reading: compact, the mean over scenes, digits worth showing. CSV and JSON hold every figure
with every digit, one row each, both averages and every scene.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Final, TypeAlias

import numpy as np
import xarray as xr

from eosr.errors import MetricError
from eosr.score.report.sheets import Sheet, evaluation_sheets, latex, markdown, paper_sheets
from eosr.score.report.study import PaperTable
from eosr.score.report.study_figures import ALL
from eosr.score.report.study_flags import MEANINGS

#: What can be formatted: the Dataset of `eosr.evaluate`, or the list of `eosr.score.paper_tables`.
Evaluated: TypeAlias = xr.Dataset | Sequence[PaperTable]

#: Columns of an evaluation in CSV and JSON. ``scene`` is "all" in summaries, ``band`` e.g. "all 20 m" over bands.
EVALUATION_COLUMNS: Final = (
    "scene", "method", "property", "degradation", "projection", "band", "average", "metric", "value", "unit", "better",
    "low", "high", "seconds", "peak_memory", "pixels", "kind", "described", "weights_sha256",
)  # fmt: skip
#: Columns of the study's tables in CSV.
PAPER_COLUMNS: Final = (
    "table", "level", "gsd", "property", "source", "method", "label", "projection", "average", "metric", "band",
    "value", "text", "to_bicubic", "flags", "gpus", "batch", "hours", "degradation", "convention", "scenes",
    "described", "weights_sha256",
)  # fmt: skip
#: Variables of an evaluation that hold scores.
_SCORES: Final = ("summary_overall", "summary", "score_overall", "score")
#: What a row is: coordinates of ``method``; empty where an evaluation does not say.
_IDENTITY: Final = ("kind", "described", "weights_sha256")
#: What time and memory are told for.
_COSTED: Final = ("scene", "method", "property", "degradation")
_NEEDED: Final = ("scene", "method", "property", "degradation", "projection", "band", "metric", "gsd", "native_gsd")


def to_markdown(table: Evaluated) -> str:
    """Show an evaluation, or the study's tables, as Markdown.

    Parameters
    ----------
    table : Dataset or sequence of PaperTable
        From `eosr.evaluate` or `eosr.score.paper_tables`.

    Returns
    -------
    str
        Of an evaluation a table per property, operator and pixel size: RMSE of each band, scores over all bands, time
        and memory, the best of each column bold. Of the study's tables the figures with footnotes, then the same as
        seen from bicubic.

    Raises
    ------
    MetricError
        If ``table`` is neither.
    """
    return markdown(to_sheets(table))


def to_latex(table: Evaluated) -> str:
    """Show an evaluation, or the study's tables, as LaTeX tables; see `to_markdown`. Needs booktabs and graphicx."""
    return latex(to_sheets(table))


def to_csv(table: Evaluated) -> str:
    """Return every figure of an evaluation, or of the study's tables, as CSV (RFC 4180) with a header.

    Parameters
    ----------
    table : Dataset or sequence of PaperTable
        As in `to_markdown`.

    Returns
    -------
    str
        One figure per row, columns `EVALUATION_COLUMNS` or `PAPER_COLUMNS`, all digits. An empty field is "no figure";
        an error of 0 has an SRE of ``inf``. ``described`` tells options, ``weights_sha256`` the weights of a row.

    Raises
    ------
    MetricError
        If ``table`` is neither.
    """
    columns, rows = _kind(table)
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_field(row[name]) for name in columns)
    return file.getvalue()


def to_json(table: Evaluated) -> str:
    """Return every figure of an evaluation, or of the study's tables, as strict JSON.

    Parameters
    ----------
    table : Dataset or sequence of PaperTable
        As in `to_markdown`.

    Returns
    -------
    str
        An object with ``rows``, which are those of `to_csv`; beside them ``attrs`` of an evaluation, or ``tables`` with
        caption, notes and flags. JSON has neither NaN nor infinity: NaN is null, infinity is ``"inf"`` or ``"-inf"``.

    Raises
    ------
    MetricError
        If ``table`` is neither.
    """
    _, rows = _kind(table)
    if isinstance(table, xr.Dataset):
        about: dict[str, Any] = {"attrs": _strict(table.attrs)}
    else:
        about = {"tables": [_about(paper) for paper in table]}
    listed = ",\n".join(json.dumps(_strict(row), allow_nan=False, ensure_ascii=False) for row in rows)
    head = json.dumps(about, allow_nan=False, ensure_ascii=False, indent=1)
    return f'{head[:-2]},\n "rows": [\n{listed}\n ]\n}}\n'


def to_sheets(table: Evaluated) -> list[Sheet]:
    """Return what `to_markdown` and `to_latex` set, table by table; e.g. for `eosr.score.write_report`.

    Raises
    ------
    MetricError
        If ``table`` is neither.
    """
    _kind(table)
    if isinstance(table, xr.Dataset):
        return evaluation_sheets(table)
    return [sheet for paper in table for sheet in paper_sheets(paper)]


def _kind(table: Evaluated) -> tuple[tuple[str, ...], Iterator[dict[str, Any]]]:
    """Tell an evaluation from tables of the study: the columns and the rows of one or the other."""
    if isinstance(table, xr.Dataset):
        missing = [name for name in (*_NEEDED, "summary", "summary_overall") if name not in table.variables]
        if missing:
            raise MetricError(
                f"the table has no {', '.join(missing)}, so it is no evaluation. Pass what eosr.evaluate returned."
            )
        return EVALUATION_COLUMNS, _evaluation_rows(table)
    if isinstance(table, Sequence) and not isinstance(table, str) and all(isinstance(one, PaperTable) for one in table):
        return PAPER_COLUMNS, _paper_rows(table)
    raise MetricError(
        f"a {type(table).__name__} cannot be formatted. Pass the Dataset of eosr.evaluate, or the list of "
        "eosr.score.paper_tables."
    )


def _evaluation_rows(table: xr.Dataset) -> Iterator[dict[str, Any]]:
    units, better = (_by_metric(table, name) for name in ("unit", "better"))
    costs = {name: _costs(table, name) for name in ("seconds", "peak_memory", "pixels")}
    identity = _identities(table)
    for variable in _SCORES:
        if variable not in table:
            continue
        scores = table[variable].transpose(..., "metric")
        low, high = (_like(table, f"{variable}_{end}", scores) for end in ("low", "high"))
        dims = [str(dim) for dim in scores.dims[:-1]]
        # SAM and ERGAS compare all bands, so that their per-band columns hold nothing.
        metrics = [(i, str(name)) for i, name in enumerate(scores["metric"].values) if scores[..., i].notnull().any()]
        values, places = scores.values, [scores[dim].values.tolist() for dim in dims]
        for index in np.ndindex(values.shape[:-1]):
            figures = values[index]
            if np.isnan(figures).all():
                continue  # a method that does not make the band, or has no projection
            at = {dim: place[i] for dim, place, i in zip(dims, places, index, strict=True)}
            key = tuple(at.get(dim, ALL) for dim in _COSTED)
            shared = {**_place(at), **{name: told.get(key, math.nan) for name, told in costs.items()},
                      **identity[at["method"]]}  # fmt: skip
            for i, metric in metrics:
                yield {
                    **shared, "metric": metric, "value": float(figures[i]), "unit": units.get(metric, ""),
                    "better": better.get(metric, ""), "low": float(low[index][i]), "high": float(high[index][i]),
                }  # fmt: skip


def _identities(table: xr.Dataset) -> dict[str, dict[str, str]]:
    none = [""] * table.sizes["method"]
    columns = [table[name].values if name in table.coords else none for name in _IDENTITY]
    told = zip(*columns, strict=True)
    return {str(label): dict(zip(_IDENTITY, map(str, one), strict=True))
            for label, one in zip(table["method"].values, told, strict=True)}  # fmt: skip


def _by_metric(table: xr.Dataset, name: str) -> dict[str, str]:
    if name not in table.coords:
        return {}
    return {str(key): str(value) for key, value in zip(table["metric"].values, table[name].values, strict=True)}


def _like(table: xr.Dataset, name: str, scores: xr.DataArray) -> Any:
    """Return the values of a variable in the order of another one; NaN where the table has none."""
    return table[name].transpose(*scores.dims).values if name in table else np.full(scores.shape, np.nan)


def _place(at: dict[str, Any]) -> dict[str, Any]:
    """Name what a score is of; a summary is of all scenes, an overall score of all bands of a pixel size."""
    band = at["band"] if "band" in at else f"all {at['gsd']} m"
    told = {name: at[name] for name in ("method", "property", "degradation", "projection")}
    return {"scene": at.get("scene", "all"), **told, "band": band, "average": at.get("average", "")}


def _costs(table: xr.Dataset, name: str) -> dict[tuple[str, ...], float]:
    """Seconds, memory or pixels by `_COSTED`; of `ALL` scenes it is their sum, of memory their maximum."""
    if name not in table:
        return {}
    per_scene = table[name].broadcast_like(table[list(_COSTED)]).transpose(*_COSTED)
    over = per_scene.max("scene") if name == "peak_memory" else per_scene.sum("scene", min_count=1)
    keys = [[str(value) for value in table[dim].values] for dim in _COSTED]
    found = {key: float(value) for key, value in zip(product(*keys), per_scene.values.ravel(), strict=True)}
    return found | {
        (ALL, *key): float(value) for key, value in zip(product(*keys[1:]), over.values.ravel(), strict=True)
    }


def _paper_rows(papers: Sequence[PaperTable]) -> Iterator[dict[str, Any]]:
    for paper in papers:
        printed = paper.printed
        for row in paper.rows:
            measured = row.source == "measured"
            shared = {
                "table": printed.number, "level": printed.level, "gsd": printed.gsd, "property": printed.property,
                "source": row.source, "method": row.method, "label": row.label, "projection": row.projection,
                "average": row.average, "gpus": row.gpus, "batch": row.batch, "hours": row.hours,
                "degradation": paper.degradation if measured else "",
                "convention": paper.convention if measured else "",
                "scenes": list(paper.scenes) if measured else [], "described": row.described,
                "weights_sha256": row.weights_sha256,
            }  # fmt: skip
            for (metric, band), cell in zip(paper.columns, row.cells, strict=True):
                if cell.value is not None:
                    yield {
                        **shared, "metric": metric, "band": band or f"all {printed.gsd} m", "value": cell.value,
                        "text": cell.text, "to_bicubic": cell.to_bicubic, "flags": [*cell.flags, *row.flags],
                    }  # fmt: skip


def _about(paper: PaperTable) -> dict[str, Any]:
    told = [
        {"code": flag.code, "row": flag.row, "metrics": [metric for metric, _ in flag.columns], "detail": flag.detail,
         "meaning": MEANINGS[flag.code]}
        for flag in paper.flags
    ]  # fmt: skip
    printed = paper.printed
    return {"table": printed.number, "kind": printed.kind, "caption": printed.caption, "notes": list(paper.notes),
            "flags": told}  # fmt: skip


def _field(value: object) -> object:
    if isinstance(value, list):
        return ";".join(str(one) for one in value)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _strict(value: Any) -> Any:
    """Return a value as JSON has it: plain types, no NaN, no infinity."""
    if isinstance(value, dict):
        return {str(key): _strict(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _strict(value.tolist())
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
