"""The Dataset of an evaluation -> rows of tables and series of bars, one set per setting.

A setting is a property, a degradation, a side of the projection and a way to average; the page shows one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.errors import MetricError
from eosr.score.report.page.figures import DASH, figure, rounded

Floats = npt.NDArray[np.float64]

#: What one setting fixes, in the order of its key.
SETTING: Final = ("property", "degradation", "projection", "average")
#: Variable -> dimensions, in the order they are read.
_LAYOUT: Final = {
    "score_overall": (*SETTING, "scene", "method", "gsd", "metric"),
    "summary": (*SETTING, "method", "band", "metric"),
    "summary_overall": (*SETTING, "method", "gsd", "metric"),
}
_INTERVAL: Final = ("summary_low", "summary_high")
_COSTS: Final = ("seconds", "peak_memory")

_MEANING: Final = {
    "property": {
        "synthesis": "Synthesis (the scene degraded, sharpened, and compared with what was measured)",
        "consistency": "Consistency (the sharpened scene degraded, and compared with what was measured)",
    },
    "projection": {"before": "before the final projection", "after": "after the final projection"},
    "average": {"mean": "mean of the scores", "pooled": "pooled over pixels"},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell: what is shown (columns sort by it), the interval beside it, and whether it is the best of its kind."""

    text: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Heading:
    """One column: its name, its unit, which way is better, and how it sorts."""

    text: str
    unit: str = ""
    better: str = ""
    numeric: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the page."""

    kind: str
    caption: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One table Dataset, read once."""

    table: xr.Dataset
    values: Mapping[str, Floats] = field(repr=False)

    @classmethod
    def read(cls, table: xr.Dataset) -> Scores:
        """Bring every variable into a known order.

        Raises
        ------
        MetricError
            If a variable of an evaluation is missing.
        """
        missing = [name for name in _LAYOUT if name not in table]
        if missing:
            raise MetricError(
                f"the table lacks {', '.join(missing)}, so it is not an evaluation. Give what eosr.evaluate returns."
            )
        layout = dict(_LAYOUT)
        layout |= {name: _LAYOUT["summary"] for name in _INTERVAL if name in table}
        layout |= {name: ("property", "degradation", "scene", "method") for name in _COSTS if name in table}
        layout |= {"pixels": ("scene",)} if "pixels" in table else {}
        return cls(table=table, values={name: _ordered(table[name], dims) for name, dims in layout.items()})

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the entries of a coordinate as text."""
        return tuple(str(label) for label in np.atleast_1d(self.table[name].values))

    def rows_explained(self) -> list[tuple[str, str, str]]:
        """Label, what it stands for, and the checksums of its weights, of every row whose label does not say it all."""
        if not {"described", "weights_sha256"} <= set(self.table.coords):
            return []
        told = zip(*(self.labels(name) for name in ("method", "described", "weights_sha256")), strict=True)
        return [one for one in told if one[1] != one[0] or one[2]]

    def settings(self) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
        """Places and names of every setting that has a score; what is delivered, after the projection, comes first."""
        names = [self.labels(name) for name in SETTING]
        side = SETTING.index("projection")
        places = product(*(range(len(entries)) for entries in names))
        for place in sorted(places, key=lambda place: names[side][place[side]] != "after"):
            if any(np.isfinite(self.values[name][place]).any() for name in _LAYOUT):
                yield place, tuple(entries[i] for entries, i in zip(names, place, strict=True))

    def metrics(self) -> tuple[Heading, ...]:
        """Return one column per metric."""
        units, better = (self._along_metric(name) for name in ("unit", "better"))
        return tuple(Heading(text=m, unit=units[i], better=better[i]) for i, m in enumerate(self.labels("metric")))

    def _along_metric(self, name: str) -> tuple[str, ...]:
        return self.labels(name) if name in self.table.coords else ("",) * self.table.sizes["metric"]


def tables_of(scores: Scores, place: tuple[int, ...], names: tuple[str, ...]) -> tuple[Table, ...]:
    """Return the tables of one setting: all bands, band by band, scene by scene, and what it cost."""
    title = caption_of(names)
    found = (_overall(scores, place, title), _bands(scores, place, title), _scenes(scores, place, title))
    return tuple(table for table in (*found, _costs(scores, place, names)) if table.rows)


def caption_of(names: tuple[str, ...]) -> str:
    """Say in words what a setting is; the operator and the property are part of it."""
    said = dict(zip(SETTING, names, strict=True))
    words = {name: _MEANING.get(name, {}).get(value, value) for name, value in said.items()}
    return f"{words['property']}; operator {words['degradation']}; {words['projection']}; {words['average']}"


def bars_of(scores: Scores, place: tuple[int, ...]) -> list[list[list[list[float | None]]]]:
    """Return ``[metric][method][band] -> [value, low, high]``, None where there is none."""
    parts = [scores.values[name][place] for name in ("summary", *_INTERVAL) if name in scores.values]
    while len(parts) < 3:
        parts.append(np.full_like(parts[0], np.nan))
    stacked = np.stack(parts, axis=-1).transpose(2, 0, 1, 3)
    return [[[[rounded(v) for v in cell] for cell in row] for row in metric] for metric in stacked.tolist()]


def _overall(scores: Scores, place: tuple[int, ...], title: str) -> Table:
    gsds = scores.labels("gsd")
    keys = [(method, gsd) for method in scores.labels("method") for gsd in gsds]
    values = scores.values["summary_overall"][place].reshape(len(keys), -1)
    return _table(
        "overall", f"All bands of one pixel size together. {title}.", scores,
        (Heading(text="Method", numeric=False), Heading(text="Bands of", unit="m")),
        [(_label(method), _size(gsd)) for method, gsd in keys], values, groups=[gsd for _, gsd in keys],
    )  # fmt: skip


def _bands(scores: Scores, place: tuple[int, ...], title: str) -> Table:
    bands, methods = scores.labels("band"), scores.labels("method")
    sizes = scores.labels("native_gsd") if "native_gsd" in scores.table.coords else ("",) * len(bands)
    keys = [(m, b) for b in range(len(bands)) for m in range(len(methods))]
    at = tuple(np.array(keys, int).reshape(-1, 2).T)
    intervals = None
    if all(name in scores.values for name in _INTERVAL):
        intervals = np.stack([scores.values[name][place][at] for name in _INTERVAL], axis=-1)
    return _table(
        "bands", f"Band by band. {title}.", scores,
        (Heading(text="Band", numeric=False), Heading(text="Measured at", unit="m"),
         Heading(text="Method", numeric=False)),
        [(_label(bands[b]), _size(sizes[b]), _label(methods[m])) for m, b in keys],
        scores.values["summary"][place][at], groups=[bands[b] for _, b in keys], intervals=intervals,
    )  # fmt: skip


def _scenes(scores: Scores, place: tuple[int, ...], title: str) -> Table:
    names = [scores.labels(name) for name in ("scene", "method", "gsd")]
    keys = list(product(*names))
    values = scores.values["score_overall"][place].reshape(len(keys), -1)
    return _table(
        "scenes", f"Scene by scene, all bands of one pixel size together. {title}.", scores,
        (Heading(text="Scene", numeric=False), Heading(text="Method", numeric=False),
         Heading(text="Bands of", unit="m")),
        [(_label(scene), _label(method), _size(gsd)) for scene, method, gsd in keys], values,
        groups=[f"{scene}\n{gsd}" for scene, _, gsd in keys],
    )  # fmt: skip


def _costs(scores: Scores, place: tuple[int, ...], names: tuple[str, ...]) -> Table:
    methods = scores.labels("method")
    unknown = np.full((len(scores.labels("scene")), len(methods)), np.nan)
    seconds, memory = (scores.values[name][place[:2]] if name in scores.values else unknown for name in _COSTS)
    pixels = scores.values.get("pixels", unknown[:, 0])
    rows = []
    for index, method in enumerate(methods):
        ran = np.isfinite(seconds[:, index])
        total = float(seconds[ran, index].sum()) if ran.any() else float("nan")
        speed = float(pixels[ran].sum()) / total / 1e6 if total > 0 else float("nan")
        most = float(memory[:, index][np.isfinite(memory[:, index])].max(initial=-np.inf)) / 2**20
        if np.isfinite([total, speed, most]).any():
            rows.append((_label(method), *(Cell(text=figure(value)) for value in (total, speed, most))))
    headings = (
        Heading(text="Method", numeric=False), Heading(text="Time, all scenes", unit="s", better="lower"),
        Heading(text="Speed", unit="Mpx/s", better="higher"),
        Heading(text="Peak memory, worst scene", unit="MiB", better="lower"),
    )  # fmt: skip
    words = _MEANING["property"].get(names[0], names[0]).split(" (")[0]
    caption = f"What each method cost. {words}; operator {names[1]}; this machine, in one run."
    return Table(kind="costs", caption=caption, headings=headings, rows=tuple(rows))


def _table(
    kind: str, caption: str, scores: Scores, front: tuple[Heading, ...], keys: Sequence[tuple[Cell, ...]],
    values: Floats, *, groups: Sequence[str], intervals: Floats | None = None,
) -> Table:  # fmt: skip
    """Lay out keys and scores; rows and columns without any number are left out, the best of each group is marked."""
    columns = np.flatnonzero(np.isfinite(values).any(axis=0))
    metrics = [scores.metrics()[column] for column in columns]
    best = np.stack(
        [_best(values[:, column], metric.better, groups) for column, metric in zip(columns, metrics, strict=True)]
        or [np.zeros(len(values), bool)],
        axis=1,
    )
    rows = []
    for row in np.flatnonzero(np.isfinite(values).any(axis=1)).tolist():
        cells = [
            Cell(
                text=figure(values[row, column]),
                interval="" if intervals is None else _interval(intervals[row, column]),
                best=bool(best[row, place]),
            )
            for place, column in enumerate(columns)
        ]
        rows.append((*keys[row], *cells))
    return Table(kind=kind, caption=caption, headings=(*front, *metrics), rows=tuple(rows))


def _best(column: Floats, better: str, groups: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Rows that win their group; nobody wins alone, nor where no direction is known."""
    marked = np.zeros(len(column), bool)
    sign = {"higher": 1.0, "lower": -1.0}.get(better)
    if sign is None:
        return marked
    merit = np.where(np.isfinite(column), sign * column, -np.inf)
    for group in dict.fromkeys(groups):
        among = np.array([name == group for name in groups]) & np.isfinite(merit)
        if among.sum() > 1:
            marked |= among & (merit == merit[among].max())
    return marked


def _interval(ends: Floats) -> str:
    low, high = ends.tolist()
    return f"[{figure(low)}, {figure(high)}]" if np.isfinite([low, high]).all() else ""


def _label(text: str) -> Cell:
    return Cell(text=text)


def _size(text: str) -> Cell:
    """A pixel size without digits that say nothing."""
    try:
        return Cell(text=f"{float(text):g}")
    except ValueError:
        return Cell(text=text or DASH)


def _ordered(array: xr.DataArray, dims: tuple[str, ...]) -> Floats:
    """Values in the order of ``dims``; one that was selected to a single entry counts as a dimension of length 1."""
    absent = [dim for dim in dims if dim not in array.dims]
    return np.asarray(array.expand_dims(absent).transpose(*dims).values, np.float64)
