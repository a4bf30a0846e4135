"""An evaluation as one row per band and method: the view for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import xarray as xr

from eosr.errors import MetricError

_COLUMNS: Final = {
    "rmse": ("RMSE [DN]", 2), "sre": ("SRE [dB]", 2), "sam": ("SAM [deg]", 3), "ergas": ("ERGAS", 3),
    "ssim": ("SSIM", 4), "psnr": ("PSNR [dB]", 2), "bpsnr": ("bPSNR [dB]", 2),
}  # fmt: skip
#: Columns that are pooled over pixels and bands in the rows over all bands; the others are means over bands.
_POOLED: Final = ("rmse", "sre", "psnr", "sam", "ergas")


def by_band(table: xr.Dataset, *, projection: dict[str, str] | str = "both") -> str:
    """Show the main columns of an evaluation as Markdown, a row per band and method, means over scenes.

    Parameters
    ----------
    table : Dataset
        From `eosr.evaluate`.
    projection : {"both", "before", "after"}, or mapping of method to one of them
        Which stages of a method are shown; for those a mapping leaves out, both.

    Returns
    -------
    str
        A table per property and operator. In the rows over all bands of one pixel size RMSE, SRE and PSNR are pooled
        over pixels and bands, SSIM and bPSNR are means over bands. A line below says in which convention; the last
        line, what rows are whose label does not tell: options, and weights by their checksum.

    Raises
    ------
    MetricError
        If ``projection`` names something else.
    """
    for asked in (projection,) if isinstance(projection, str) else projection.values():
        if asked not in ("both", "before", "after"):
            raise MetricError(f"projection={asked!r} is unknown. Use 'both', 'before' or 'after'.")
    parts = []
    for kind in table.property.values:
        for operator in table.degradation.values:
            one = table.loc[{"property": kind, "degradation": operator}]
            parts.append("\n".join(_lines(one, projection)) + "\n\n" + _about(one, str(kind), str(operator)))
    told = row_note(table)
    return "\n".join([*parts, f"{told}\n"] if told else parts)


def row_note(table: xr.Dataset, labels: Iterable[str] | None = None) -> str:
    """Say what rows are whose label does not tell: options that are not the defaults, and weights.

    Parameters
    ----------
    table : Dataset
        From `eosr.evaluate`.
    labels : iterable of str, optional
        Rows that are shown. Default: all.

    Returns
    -------
    str
        One sentence, weights with the first 12 digits of their SHA-256; empty where the labels say it all.
    """
    if not {"described", "weights_sha256"} <= set(table.coords):
        return ""
    shown = set(map(str, table.method.values if labels is None else labels))
    told = []
    for label, what, sums in zip(table.method.values, table.described.values, table.weights_sha256.values, strict=True):
        weights = ", ".join(one[:12] for one in str(sums).split())
        if str(label) in shown and (weights or str(what) != str(label)):
            told.append(f"{label} is {what}" + (f" (SHA-256 {weights})" if weights else ""))
    return f"Rows: {'; '.join(told)}." if told else ""


def _lines(table: xr.Dataset, projection: dict[str, str] | str) -> Iterator[str]:
    heads = [head if table.attrs["units"] == "DN" else head.replace("[DN]", "[1]") for head, _ in _COLUMNS.values()]
    yield "| band | method | " + " | ".join(heads) + " |"
    yield "|---|---|" + "---:|" * len(heads)
    for gsd in table.gsd.values:
        names = [str(name) for name in table.band.values[table.native_gsd.values == gsd]]
        for name in names:
            for label, at in _rows(table, projection):
                cells = table.summary.loc[{**at, "band": name, "average": "mean"}]
                if not bool(cells.loc[{"metric": "rmse"}].isnull()):
                    yield _row(name, label, cells, ())
        for label, at in _rows(table, projection):
            cells = table.summary_overall.loc[{**at, "gsd": gsd}]
            if not bool(cells.loc[{"metric": "rmse", "average": "mean"}].isnull()):
                pooled = cells.loc[{"average": "pooled"}]
                yield _row(f"all {gsd} m", label, cells.loc[{"average": "mean"}], _POOLED, pooled)


def _rows(table: xr.Dataset, projection: dict[str, str] | str) -> Iterator[tuple[str, dict[str, Any]]]:
    for method in map(str, table.method.values):
        shown = projection if isinstance(projection, str) else projection.get(method, "both")
        for stage in map(str, table.projection.values):
            if shown not in ("both", stage):
                continue
            alone = shown != "both"
            label = method if alone or stage == "before" else f"{method} + projection"
            yield label, {"method": method, "projection": stage}


def _row(band: str, label: str, cells: xr.DataArray, pooled: tuple[str, ...], instead: Any = None) -> str:
    texts = []
    for name, (_, digits) in _COLUMNS.items():
        value = float((instead if name in pooled else cells).loc[{"metric": name}])
        if name == "rmse" and abs(value) < 0.1:
            digits = 4
        texts.append("" if np.isnan(value) else f"{value:.{digits}f}")
    return f"| {band} | {label} | " + " | ".join(texts) + " |"


def _about(table: xr.Dataset, kind: str, operator: str) -> str:
    said = table.attrs
    peak = said["peak"] if isinstance(said["peak"], str) else f"{said['peak']:g} DN"
    count = table.sizes["scene"]
    return (
        f"{kind.capitalize()}, degradation `{operator}`, border {said['border']}, "
        f"{count} scene{'s' if count > 1 else ''}; convention {said['convention']}: peak {peak}, data range "
        f"{said['data_range']:g} DN, SRE as in DSen2, ERGAS {said['ergas_convention']}. Rows over all bands: RMSE, SRE "
        "and PSNR of all pixels and bands together, SSIM and bPSNR means over bands.\n"
    )
