"""What arithmetic finds wrong with the printed tables of the reference study: nothing here is marked by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from eosr.score.report.study_figures import ALL, TABLES, Column, Figure, PrintedRow, PrintedTable, printed_table

#: What a flag means for who reads the table.
MEANINGS: Final = MappingProxyType(
    {
        "bpsnr_below_psnr": "impossible on the same pixels: taking the mean error off cannot raise the error, so PSNR "
        "and bPSNR were averaged in different ways",
        "swapped": "SSIM cannot exceed 1: SSIM and PSNR stand in each other's column; ratios use them exchanged",
        "ergas_60m": "ERGAS fits its SRE only with 100 h/l = 100/2, which is the ratio of the 20 m bands: three times "
        "Wald's value, which has 100/6",
        "ssim_range": "SSIM as low as this beside such an RMSE needs constants for a data range far below the 10000 DN "
        "of reflectance 1, such as the 255 of 8-bit images (bound for windows with a mean above 200 DN); all rows of a "
        "table share one convention",
        "psnr_peak": "the peak is not printed, and RMSE x 10^(PSNR/20) is another one in every row: it follows the "
        "images, or decibels were averaged over them; not comparable with a PSNR of fixed peak",
        "copied": "the averages are plain means of the per-band values, as in no row of the study's own: taken over "
        "from another paper, and not comparable with the other rows at the last digits",
        "no_mean": "the average is no plain mean of the per-band values, nor their root mean square",
        "outside": "the average lies outside the range of the per-band values: no average of them, weighted or not",
        "one_band": "the average repeats the figure of one band to the last digit: a slip, or chance",
        "batch": "the batch is no whole multiple of the batch per GPU of the other rows: a typing error",
    }
)

#: Largest reflectance that SSIM constants are usually made for [DN].
_REFLECTANCE_ONE: Final = 10000.0
#: The bound on SSIM's data range is from the RMSE of a row, a mean over tiles; the mean of squares is larger. Twice
#: the range is left as room, i.e. four times the mean square error.
_SSIM_ROOM: Final = 2.0
#: The second constant of SSIM, as a part of the data range.
_SSIM_K2: Final = 0.03


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Something that a printed figure cannot be, or that keeps it from being compared."""

    #: Key of `MEANINGS`.
    code: str
    #: Number of the table.
    table: str
    #: `PrintedRow.label`.
    row: str
    #: Columns it stands at.
    columns: tuple[Column, ...]
    #: The arithmetic, with the row's own figures.
    detail: str

    @property
    def sentence(self) -> str:
        """The arithmetic and what it means."""
        return f"{self.detail}: {MEANINGS[self.code]}."


@cache
def flags(number: str) -> tuple[Flag, ...]:
    """Return what arithmetic finds wrong with the figures of one table, row by row.

    Raises
    ------
    MetricError
        If the study prints no table of that number.
    """
    table = printed_table(number)
    found: list[Flag] = []
    for row in table.rows:
        found += [
            Flag(code=code, table=number, row=row.label, columns=columns, detail=detail)
            for check in (_brightness, _swap, _ergas, _ssim, _peak, _averages, _batch)
            for code, columns, detail in check(table, row)
        ]
    return tuple(found)


def implied_peak(row: PrintedRow) -> float | None:
    """Return the peak that RMSE and PSNR of a row imply [DN], ``RMSE x 10^(PSNR/20)``; None without either."""
    rmse, psnr = (row.exchanged().value(name) for name in ("rmse", "psnr"))
    return None if rmse is None or psnr is None else rmse * 10 ** (psnr / 20)


def ssim_range_bound(row: PrintedRow) -> float | None:
    """Return the largest data range that SSIM and RMSE of a row admit [DN]; None without either.

    Notes
    -----
    In every window ``1 - SSIM <= (squared bias + variance of the error) / C2`` with ``C2 = (0.03 L)^2``, as long as the
    window's mean exceeds 0.02 L, so that over the image ``1 - SSIM <= MSE / C2`` and ``L <= RMSE / (0.03 sqrt(1 -
    SSIM))``. The RMSE of a row is a mean over tiles, and the bound as exact as it equals their quadratic mean.
    """
    rmse, ssim = (row.exchanged().value(name) for name in ("rmse", "ssim"))
    return None if rmse is None or ssim is None or ssim >= 1 else rmse / (_SSIM_K2 * math.sqrt(1 - ssim))


Found = Iterator[tuple[str, tuple[Column, ...], str]]


def _brightness(_: PrintedTable, row: PrintedRow) -> Found:
    right = row.exchanged().figures
    psnr, bpsnr = right.get(("psnr", ALL)), right.get(("bpsnr", ALL))
    if psnr is not None and bpsnr is not None and bpsnr.value + bpsnr.half < psnr.value - psnr.half:
        yield "bpsnr_below_psnr", (("bpsnr", ALL),), f"bPSNR {bpsnr.text} is below PSNR {psnr.text}"


def _swap(_: PrintedTable, row: PrintedRow) -> Found:
    if row.is_exchanged:
        ssim, psnr = row.figures["ssim", ALL], row.figures["psnr", ALL]
        yield "swapped", (("ssim", ALL), ("psnr", ALL)), f"SSIM {ssim.text} and PSNR {psnr.text}"


def _ergas(table: PrintedTable, row: PrintedRow) -> Found:
    ergas, sre = row.value("ergas"), row.value("sre")
    if ergas is None or sre is None or table.gsd != 60:
        return
    ratio = ergas / (100 * 10 ** (-sre / 20))
    if abs(math.log(ratio * 2)) < abs(math.log(ratio * 6)):
        told = f"ERGAS {row.figures['ergas', ALL].text} / (100 x relative RMSE of {row.figures['sre', ALL].text} dB)"
        yield "ergas_60m", (("ergas", ALL),), f"{told} = {ratio:.2f}, far from 1/6"


def _ssim(table: PrintedTable, row: PrintedRow) -> Found:
    bounds = {one.label: bound for one in table.rows if (bound := ssim_range_bound(one)) is not None}
    tightest = min(bounds, key=bounds.__getitem__, default="")
    if row.label not in bounds or _SSIM_ROOM * bounds[tightest] >= _REFLECTANCE_ONE:
        return
    # The constants are one choice per table, so that a row whose own bound says nothing shares them.
    alone = _SSIM_ROOM * bounds[row.label] < _REFLECTANCE_ONE
    whose = row.label if alone else tightest
    told = "" if alone else f" by {tightest}, and a table has one"
    yield "ssim_range", (("ssim", ALL),), f"data range below {bounds[whose]:.0f} DN{told}"


def _peak(table: PrintedTable, row: PrintedRow) -> Found:
    peak = implied_peak(row)
    if peak is not None and _has_no_common_peak(table.number):
        yield "psnr_peak", (("psnr", ALL), ("bpsnr", ALL)), f"implied peak {peak:.0f} DN"


@cache
def _has_no_common_peak(number: str) -> bool:
    """Whether rounding cannot explain that the rows of a table imply different peaks."""
    low, high = 0.0, math.inf
    for row in TABLES[number].rows:
        right = row.exchanged().figures
        if ("rmse", ALL) in right and ("psnr", ALL) in right:
            rmse, psnr = right["rmse", ALL], right["psnr", ALL]
            low = max(low, (rmse.value - rmse.half) * 10 ** ((psnr.value - psnr.half) / 20))
            high = min(high, (rmse.value + rmse.half) * 10 ** ((psnr.value + psnr.half) / 20))
    return low > high


def _averages(table: PrintedTable, row: PrintedRow) -> Found:
    """Compare an average with the per-band values of the sibling table."""
    whole = table if table.kind == "average" else _sibling(table, "average")
    bands = table if table.kind == "bands" else _sibling(table, "bands")
    if table.kind not in ("average", "bands") or whole is None or bands is None:
        return
    means = {one.label: _is_plain_mean(whole.row(one.label), one) for one in bands.rows}
    if means.get(row.label) and not all(means.values()):
        yield "copied", (), f"every average of {row.label} is the mean of its bands"
    elif table is whole and row.label in means:
        for metric in ("rmse", "sre"):
            yield from _one_average(metric, row.figures[metric, ALL], _parts(bands.row(row.label), metric))


def _one_average(metric: str, figure: Figure, parts: Mapping[str, Figure]) -> Found:
    values = [part.value for part in parts.values()]
    mean, room = sum(values) / len(values), figure.half + max(part.half for part in parts.values())
    square = math.sqrt(sum(value**2 for value in values) / len(values))
    where = ((metric, ALL),)
    if abs(figure.value - mean) > room and abs(figure.value - square) > room:
        yield "no_mean", where, f"{metric.upper()} {figure.text}, the mean of the bands is {mean:.2f}"
        for band, part in parts.items():
            if part.text == figure.text:
                yield "one_band", where, f"{metric.upper()} {figure.text} is that of {band}"
    if not min(values) - room <= figure.value <= max(values) + room:
        told = f"{metric.upper()} {figure.text}, the bands have {min(values):.2f} to {max(values):.2f}"
        yield "outside", where, told


def _is_plain_mean(whole: PrintedRow, bands: PrintedRow) -> bool:
    for metric in ("rmse", "sre"):
        figure, parts = whole.figures[metric, ALL], _parts(bands, metric)
        mean = sum(part.value for part in parts.values()) / len(parts)
        # 1e-9: a mean that ends in 5 exactly may be rounded either way.
        if abs(figure.value - mean) > figure.half + max(part.half for part in parts.values()) + 1e-9:
            return False
    return True


def _parts(bands: PrintedRow, metric: str) -> dict[str, Figure]:
    return {band: figure for (name, band), figure in bands.figures.items() if name == metric}


def _sibling(table: PrintedTable, kind: str) -> PrintedTable | None:
    same = (table.level, table.gsd, table.property, kind)
    return next((one for one in TABLES.values() if (one.level, one.gsd, one.property, one.kind) == same), None)


def _batch(table: PrintedTable, row: PrintedRow) -> Found:
    if row.gpus is None or row.batch is None:
        return
    shares = [one.batch / one.gpus for one in table.rows if one.method == row.method and one.batch and one.gpus]
    usual = Counter(shares).most_common(1)[0][0]
    if (row.batch / usual) % 1:
        meant = f"{usual:g} per GPU in the other rows, so {row.gpus * usual:g} was meant"
        yield "batch", (), f"batch {row.batch} on {row.gpus} GPUs is {row.batch / row.gpus:g} each, {meant}"
