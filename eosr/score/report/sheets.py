"""Tables to be read: what stands in each cell, for evaluations and for the study's tables, as Markdown and as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.score.report.by_band import row_note
from eosr.score.report.study import PaperRow, PaperTable, figure_text, metric_name
from eosr.score.report.study_figures import ALL, METRICS, Column
from eosr.score.report.study_flags import MEANINGS, Flag

Floats: TypeAlias = npt.NDArray[Any]

#: Units in the heads of columns; a metric that is not here has none.
UNITS: Final = {"rmse": "DN", "sre": "dB", "sam": "deg", "psnr": "dB", "bpsnr": "dB"}
#: Direction, where the table of an evaluation does not tell.
BETTER: Final = {"sre": "higher", "ssim": "higher", "psnr": "higher", "bpsnr": "higher"}
_MARKS: Final = "abcdefghijklmnopqrstuvwxyz"
_ESCAPED: Final = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
}  # fmt: skip
#: A table wider than the text is made as wide as the text; pdflatex would let it run off the page, with a warning.
_FIT: Final = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"
_BYTES_PER_MIB: Final = 2**20


@dataclass(frozen=True)
class Cell:
    """Text of one cell; ``marks`` are the letters of footnotes."""

    text: str
    bold: bool = False
    marks: str = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table to be read; the first ``words`` columns hold words, the others figures."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: int = 1
    notes: tuple[str, ...] = ()


def markdown(sheets: Sequence[Sheet]) -> str:
    """Return sheets as Markdown: a title, a table and its notes each."""
    return "\n".join("\n".join(_markdown_lines(sheet)) for sheet in sheets)


def latex(sheets: Sequence[Sheet]) -> str:
    """Return sheets as LaTeX; a ``table`` each, for a document that uses the packages booktabs and graphicx."""
    body = ["\n".join(_latex_lines(sheet)) for sheet in sheets]
    return "\n".join(["% Needs \\usepackage{booktabs,graphicx} in the preamble.", *body]) + "\n"


def escape_latex(text: str) -> str:
    r"""Return plain text so that LaTeX prints it.

    Examples
    --------
    >>> print(escape_latex("mtf_diff & 5 %"))
    mtf\_diff \& 5 \%
    """
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def evaluation_sheets(table: xr.Dataset) -> list[Sheet]:
    """Return a sheet per property, operator and pixel size of an evaluation: RMSE per band, then what is over all."""
    return [
        sheet
        for about in table["property"].values
        for operator in table["degradation"].values
        for gsd in table["gsd"].values
        if (sheet := _evaluation_sheet(table, str(about), str(operator), int(gsd))).rows
    ]


def paper_sheets(paper: PaperTable) -> list[Sheet]:
    """Return the figures of a table of the study and, where bicubic is known, the same as seen from bicubic."""
    printed = paper.printed
    marks = {code: _MARKS[i] for i, code in enumerate(dict.fromkeys(flag.code for flag in paper.flags))}
    rows = [row for row in paper.rows if row.average != "pooled"]
    of = f"Table {printed.number}, {printed.level}, {printed.gsd} m bands, {printed.property}"
    setup = ("GPUs", "batch", "hours") if printed.kind == "distributed" else ()
    operator = f"; measured with degradation {paper.degradation}" if paper.degradation else ""
    figures = Sheet(
        title=f"{of}: printed{' and measured' if paper.degradation else ''} figures{operator}",
        heads=("method", "from", *setup, *(_head(column) for column in paper.columns)),
        rows=tuple((*_who(row, marks, setup), *_figures(row, marks)) for row in rows),
        words=2 + len(setup),
        notes=(f"The study's caption: {printed.caption}", *_footnotes(paper.flags, marks), *paper.notes),
    )
    if not any(cell.to_bicubic is not None for row in rows for cell in row.cells):
        return [figures]
    seen = Sheet(
        title=f"{of}: as seen from bicubic{operator}",
        heads=("method", "from", *setup, *(_head_to_bicubic(column) for column in paper.columns)),
        rows=tuple((*_who(row, marks, setup), *_seen(row, paper.columns, marks)) for row in rows),
        words=2 + len(setup),
        notes=("RMSE, SAM, ERGAS: the figure divided by bicubic's; SRE, PSNR, bPSNR: minus bicubic's; 1-SSIM: what is "
               "missing to 1, divided by bicubic's. Marks as above.",),
    )  # fmt: skip
    return [figures, seen]


def _markdown_lines(sheet: Sheet) -> Iterator[str]:
    yield from (f"### {sheet.title}", "")
    yield "| " + " | ".join(_pipes(head) for head in sheet.heads) + " |"
    yield "|" + "---|" * sheet.words + "---:|" * (len(sheet.heads) - sheet.words)
    for row in sheet.rows:
        yield "| " + " | ".join(_markdown_cell(cell) for cell in row) + " |"
    yield ""
    for note in sheet.notes:
        yield from (f"- {note}",)
    if sheet.notes:
        yield ""


def _markdown_cell(cell: Cell) -> str:
    text = _pipes(cell.text)
    return (f"**{text}**" if cell.bold else text) + (f"<sup>{cell.marks}</sup>" if cell.marks else "")


def _pipes(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def _latex_lines(sheet: Sheet) -> Iterator[str]:
    yield from (r"\begin{table}[htbp]", r"\centering\scriptsize\setlength{\tabcolsep}{3pt}")
    yield rf"\caption{{{escape_latex(sheet.title)}}}"
    yield _FIT + rf"\begin{{tabular}}{{{'l' * sheet.words}{'r' * (len(sheet.heads) - sheet.words)}}}"
    yield from (r"\toprule", *_latex_heads(sheet.heads), r"\midrule")
    for row in sheet.rows:
        yield _latex_row([_latex_cell(cell) for cell in row])
    yield from (r"\bottomrule", r"\end{tabular}}")
    if sheet.notes:
        yield r"\begin{flushleft}"
        yield from (f"{escape_latex(note)}\\par" for note in sheet.notes)
        yield r"\end{flushleft}"
    yield from (r"\end{table}", "")


def _latex_heads(heads: Sequence[str]) -> Iterator[str]:
    """One row per word, the last at the bottom: a head on one line would be much wider than its figures."""
    split = [head.split() for head in heads]
    for left in range(max(map(len, split)), 0, -1):
        yield _latex_row([escape_latex(words[-left]) if len(words) >= left else "" for words in split])


def _latex_row(cells: Sequence[str]) -> str:
    # The rule or row above would take a bracket or a star for its own argument.
    return ("{}" if cells[0].startswith(("[", "*")) else "") + " & ".join(cells) + r" \\"


def _latex_cell(cell: Cell) -> str:
    if cell.text in ("inf", "-inf"):
        text = cell.text.replace("inf", r"$\infty$").replace("-", "$-$")
    else:
        # A hyphen in front of digits is a minus, which LaTeX sets wider; one alone stands for "no figure".
        text = re.sub(r"^-(?=\d)", "$-$", escape_latex(cell.text))
        text = "--" if text == "-" else text
    return (rf"\textbf{{{text}}}" if cell.bold else text) + (rf"\textsuperscript{{{cell.marks}}}" if cell.marks else "")


def _head(column: Column) -> str:
    metric, band = column
    unit = f" [{UNITS[metric]}]" if metric in UNITS else ""
    return f"{metric_name(metric)} {band}{unit}" if band != ALL else f"{metric_name(metric)}{unit}"


def _head_to_bicubic(column: Column) -> str:
    metric, band = column
    name = "1-SSIM" if metric == "ssim" else metric_name(metric)
    name = name if band == ALL else f"{name} {band}"
    return f"{name} [+dB]" if UNITS.get(metric) == "dB" else f"{name} ratio"


def _who(row: PaperRow, marks: dict[str, str], setup: tuple[str, ...]) -> tuple[Cell, ...]:
    trained = (row.gpus, row.batch, row.hours) if setup else ()
    said = [Cell("-" if one is None else str(one)) for one in trained]
    source = "study" if row.source == "printed" else "eosr"
    return Cell(row.name, marks="".join(marks[code] for code in row.flags)), Cell(source), *said


def _figures(row: PaperRow, marks: dict[str, str]) -> Iterator[Cell]:
    for cell in row.cells:
        yield Cell(cell.text, marks="" if cell.value is None else "".join(marks[code] for code in cell.flags))


def _seen(row: PaperRow, columns: Sequence[Column], marks: dict[str, str]) -> Iterator[Cell]:
    for (metric, _), cell in zip(columns, row.cells, strict=True):
        if cell.to_bicubic is None:
            yield Cell("-")
        else:
            text = f"{cell.to_bicubic:+.2f}" if UNITS.get(metric) == "dB" else f"{cell.to_bicubic:.3f}"
            yield Cell(text.removeprefix("+"), marks="".join(marks[code] for code in cell.flags))


def _footnotes(told: Sequence[Flag], marks: dict[str, str]) -> Iterator[str]:
    for code, mark in marks.items():
        cases = dict.fromkeys(f"{flag.row}: {flag.detail}" for flag in told if flag.code == code)
        yield f"({mark}) {MEANINGS[code]}. {'; '.join(cases)}."


def _evaluation_sheet(table: xr.Dataset, about: str, operator: str, gsd: int) -> Sheet:
    averages = [str(name) for name in table["average"].values]
    here = table.sel({"property": about, "degradation": operator, "average": _average_shown(averages)})
    columns, figures = _evaluation_figures(here, gsd)
    low, high = (_overall_rmse(here, f"summary_overall_{end}", gsd) for end in ("low", "high"))
    write = partial(figure_text, reflectance=table.attrs.get("units") == "reflectance")
    best = [_best(column, figures[..., i], table) for i, column in enumerate(columns)]
    rows, labels = [], []
    for i, j in product(range(here.sizes["method"]), range(here.sizes["projection"])):
        if np.isnan(figures[i, j]).all():
            continue  # a method that does not make these bands, or has no projection
        between = (
            "" if np.isnan(low[i, j] + high[i, j]) else f"{write('rmse', low[i, j])} to {write('rmse', high[i, j])}"
        )
        labels.append(str(here["method"].values[i]))
        cells = [Cell(_row_name(here, i, j))]
        for column, value, winner in zip(columns, figures[i, j], best, strict=True):
            text = write(column[0], value)
            shown = f"{text} ({between})" if between and column == ("rmse", ALL) else text
            cells.append(Cell(shown, bold=text == write(column[0], winner) != "-"))
        rows.append((*cells, *_costs(here.isel({"method": i}))))
    unit = "1" if table.attrs.get("units") == "reflectance" else "DN"
    heads = [band or _head((metric, band)).replace("[DN]", f"[{unit}]") for metric, band in columns]
    intervals = () if np.isnan(low + high).all() else ("In brackets the interval of the bootstrap over scenes.",)
    told = row_note(table, labels)
    return Sheet(
        title=f"{about.capitalize()}, {gsd} m bands, degradation {operator}",
        heads=("method", *heads, "time [s]", "memory [MiB]"),
        rows=tuple(rows),
        notes=(_conditions(table, operator, _average_shown(averages)), *intervals, *([told] if told else [])),
    )


def _average_shown(averages: Sequence[str]) -> str:
    return "mean" if "mean" in averages else averages[0]


def _row_name(here: xr.Dataset, method: int, projection: int) -> str:
    name = str(here["method"].values[method])
    return f"{name}, projected" if here["projection"].values[projection] == "after" else name


def _evaluation_figures(here: xr.Dataset, gsd: int) -> tuple[list[Column], Floats]:
    """Columns of a sheet, and their figures (method, projection, column)."""
    metrics = [name for name in METRICS if name in here["metric"].values]
    bands = [str(name) for name in here["band"].values[here["native_gsd"].values == gsd]] if "rmse" in metrics else []
    columns: list[Column] = [*(("rmse", band) for band in bands), *((metric, ALL) for metric in metrics)]
    overall = here["summary_overall"].sel({"gsd": gsd, "metric": metrics}).transpose("method", "projection", "metric")
    if not bands:
        return columns, overall.values
    errors = here["summary"].sel({"metric": "rmse", "band": bands}).transpose("method", "projection", "band")
    return columns, np.concatenate([errors.values, overall.values], axis=-1)


def _overall_rmse(here: xr.Dataset, name: str, gsd: int) -> Floats:
    """RMSE over all bands from one variable (method, projection); NaN where the evaluation has none."""
    if name not in here or "rmse" not in here["metric"].values:
        return np.full((here.sizes["method"], here.sizes["projection"]), np.nan)
    found: Floats = here[name].sel({"gsd": gsd, "metric": "rmse"}).transpose("method", "projection").values
    return found


def _conditions(table: xr.Dataset, operator: str, average: str) -> str:
    scenes, unit = table.sizes["scene"], "1" if table.attrs.get("units") == "reflectance" else "DN"
    return (
        f"Degradation {operator}, convention {table.attrs.get('convention', 'unknown')}, border "
        f"{table.attrs.get('border', 'unknown')}, {scenes} scene{'s' * (scenes != 1)}, average: {average}. Columns "
        f"named after a band: RMSE [{unit}]. Bold: the best. Time: for all bands, mean of the scenes; memory: peak of "
        "all."
    )


def _costs(row: xr.Dataset) -> tuple[Cell, Cell]:
    seconds = float(row["seconds"].mean()) if "seconds" in row else math.nan
    memory = float(row["peak_memory"].max()) if "peak_memory" in row else math.nan
    if "peak_memory" in row and row["peak_memory"].attrs.get("units", "B") in ("B", "byte", "bytes"):
        memory /= _BYTES_PER_MIB
    return Cell(figure_text("seconds", seconds)), Cell("-" if math.isnan(memory) else f"{memory:.0f}")


def _best(column: Column, values: Floats, table: xr.Dataset) -> float:
    """Best figure of a column; NaN where a single row has nothing to beat."""
    metric = column[0]
    known = values[~np.isnan(values)]
    if known.size < 2:
        return math.nan
    better = table["better"].values if "better" in table.coords else ()
    told = dict(zip(table["metric"].values, better, strict=True)) if len(better) else BETTER
    return float(known.max() if told.get(metric) == "higher" else known.min())
