"""`eosr evaluate`: which methods, judged how, shown in which form."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from eosr.cli.commands import Parser, nearest
from eosr.cli.options import (
    DEGRADATIONS,
    METHODS,
    check_degradation,
    device,
    method_name,
    names,
    open_source,
    pairs,
    source_options,
)
from eosr.errors import EosrError, MethodError, OutputError

#: What ``--method all`` means: every method that needs no weights but the shipped ones.
_ALL: Final = ("detail_injection", "atprk", "supreme", "superres_like", "eosr")
#: Methods whose weights are others'.
_OTHERS: Final = ("dsen2", "s2x", "s6x")
_PROPERTIES: Final = ("synthesis", "consistency", "both", "all")
_FORMATS: Final = ("table", "markdown", "csv", "json", "latex")


def add_options(command: Parser) -> None:
    """Options of `eosr evaluate`."""
    source_options(command)
    group = command.add_argument_group("what is judged")
    group.add_argument(
        "--method", action="append", type=names, metavar="NAME,NAME",
        help=f"default: eosr; bicubic always stands beside. Known: {', '.join(METHODS)}; all: every one that needs no "
        "weights of others",
    )  # fmt: skip
    group.add_argument(
        "--weights", action="append", type=names, metavar="FILE,FILE",
        help="weights as a row of their own, or METHOD=FILE,FILE for the weights of a method, e.g. "
        "dsen2=L1C20M.pt,L1C60M.pt, which is one row; may be repeated, every time for another row",
    )  # fmt: skip
    group.add_argument(
        "--option", action="append", default=[], metavar="METHOD.KEY=VALUE", help="e.g. atprk.psf=published"
    )
    group.add_argument("--bands", type=names, metavar="B05,B11", help="default: all 20 m and 60 m bands")
    group.add_argument("--no-consistency", action="store_true", help="show answers before the projection only")
    group.add_argument(
        "--device", default="auto", type=device, metavar="NAME", help="auto (default), cpu, cuda or cuda:N"
    )
    group = command.add_argument_group("how it is judged")
    group.add_argument("--property", default=None, choices=_PROPERTIES, help="default: synthesis; all is both")
    group.add_argument(
        "--degradation", type=names, metavar="NAME,NAME",
        help="blur of Wald's protocol: study (default), box, mtf, mtf_diff, or all",
    )  # fmt: skip
    group.add_argument("--border", type=int, metavar="PIXELS", help="left out along the rim")
    group.add_argument("--convention", metavar="NAME", help="of PSNR, SSIM and ERGAS: eosr (default) or zhang2020")
    group.add_argument("--units", default="DN", choices=["DN", "reflectance"], help="of RMSE and bias; default: DN")
    group.add_argument(
        "--small", default="refuse", choices=["refuse", "mirror"],
        help="a scene smaller than the reach of a method: refuse (default), or continue it by its mirror images",
    )  # fmt: skip
    group.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap; default: 1000")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap; default: 0")
    group.add_argument(
        "--preset", choices=["zhang2020"],
        help="both properties, operator study, the study's conventions, our rows beside its printed tables",
    )  # fmt: skip
    group = command.add_argument_group("what is shown")
    group.add_argument("--format", default="table", choices=_FORMATS, help="default: table, a row per band and method")
    group.add_argument("--json", action="store_const", dest="format", const="json", help="as --format json")
    group.add_argument("--markdown", action="store_const", dest="format", const="markdown", help="as --format markdown")
    group.add_argument("--out", type=Path, metavar="FILE", help="write it there instead of printing")
    group.add_argument("--html", type=Path, metavar="FILE.html", help="write a page with tables, maps and spectra too")
    group.add_argument("--overwrite", action="store_true", help="replace FILE and FILE.html if they are there")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


# The library is imported in the command: `eosr --help` answers at once.


def judged(options: argparse.Namespace) -> tuple[str, list[Path]]:
    """Open, judge, write what is to be written; return the text to print and the files written."""
    from eosr.score.evaluation import evaluate

    preset = options.preset == "zhang2020"
    operators = options.degradation or ["study"]
    for name in operators:
        check_degradation(name, *DEGRADATIONS, "all")
    if preset and operators != ["study"]:
        raise EosrError(f"--preset zhang2020 judges by study, not {', '.join(operators)}. Leave --degradation out.")
    for path in (options.out, options.html):
        _check_free(path, overwrite=options.overwrite)
    if options.out is not None and options.html is not None and options.out.absolute() == options.html.absolute():
        raise OutputError(f"--out and --html are both {options.out}. Give each a file of its own.")
    if options.html is not None and options.html.suffix != ".html":
        raise OutputError(f"{options.html} is no name of a page. End it in .html, e.g. --html report.html.")
    methods = _methods(options)
    ds = open_source(options)
    if preset:
        from eosr.score.report.study import check_levels

        check_levels(ds)
    if options.device != "auto":
        from eosr.nn.tile import resolve_device

        resolve_device(options.device)
    kinds = options.property or ("both" if preset else "synthesis")
    table = evaluate(
        ds, methods, property=kinds,  # type: ignore[arg-type]
        degradation="all" if "all" in operators else operators, bands=options.bands, border=options.border,
        convention=options.convention or ("zhang2020" if preset else "eosr"), units=options.units, small=options.small,
        resamples=options.resamples, seed=options.seed, device=options.device,
        progress=None if options.quiet or not sys.stderr.isatty() else True,
    )  # fmt: skip
    papers = _papers(table, options) if preset else None
    text = _text(table, papers, options)
    if options.out is not None:
        _write(options.out, text)
        text = ""
    if options.html is not None:
        from eosr.score import write_report
        from eosr.score.report.exhibits import exhibits
        from eosr.score.report.formats import to_sheets

        shown = exhibits(
            ds, methods, degradation=str(table.degradation.values[0]), bands=options.bands, small=options.small,
            device=options.device,
        )  # fmt: skip
        sheets = [] if papers is None else to_sheets(papers)
        write_report(_stages(table, options), options.html, exhibits=shown, sheets=sheets, overwrite=options.overwrite)
    return text, [path for path in (options.out, options.html) if path is not None]


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    part = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        try:
            part.write_text(text, "utf-8", newline="")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}. Name another place.") from error


def _check_free(path: Path | None, *, overwrite: bool) -> None:
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise OutputError(f"the folder of {path} does not exist. Make it, or name another place.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OutputError(f"{path} is there already. Name another file, or add --overwrite.")


def _methods(options: argparse.Namespace) -> dict[str, Any]:
    """Label -> arguments of the method, as `eosr.evaluate` takes them."""
    asked = [name for group in options.method or ([] if options.weights else [["eosr"]]) for name in group]
    rows: dict[str, Any] = {}
    for name in map(method_name, asked):
        rows |= {one: {"method": one} for one in (_ALL if name == "all" else (name,))}
    _add_weights(rows, options.weights or [])
    example = "atprk.psf=published"
    for target, value in pairs("--option", options.option, example).items():
        method, dot, key = target.partition(".")
        if not (dot and method and key):
            raise MethodError(f"--option {target}={value} is no METHOD.KEY=VALUE. Use e.g. --option {example}.")
        name = method_name(method)
        meant = [row for label, row in rows.items() if name in (label, row.get("method"))]
        if not meant:
            raise MethodError(f"--option {target}={value}: {method} is not judged. Add --method {method}.")
        for row in meant:
            row.setdefault("options", {})[key] = value
    return rows


def _add_weights(rows: dict[str, Any], given: Sequence[list[str]]) -> None:
    """Add a row per ``--weights``; several of one method are told apart by their files."""
    from eosr.score.arguments import file_labels

    of_method: dict[str, list[list[str]]] = {}
    for files in given:
        method, names_ = _of_method(files)
        sets = of_method.setdefault(method, [])
        if names_ not in sets:
            sets.append(names_)
    own = of_method.pop("", [])
    for method, sets in of_method.items():
        if len(sets) == 1:
            rows.setdefault(method, {"method": method})["weights"] = sets[0]
            continue
        rows.pop(method, None)
        for label, files in zip(file_labels(sets), sets, strict=True):
            rows[f"{method} ({label})"] = {"method": method, "weights": files}
    bare = next((name for name in rows if name in _OTHERS and "weights" not in rows[name]), None)
    if bare and own:
        raise MethodError(
            f"--method {bare} has no weights: --weights {','.join(own[0])} is a row of its own. Type "
            f"--weights {bare}={','.join(own[0])}."
        )
    rows |= {label: {"weights": files} for label, files in zip(file_labels(own), own, strict=True)}


def _of_method(files: list[str]) -> tuple[str, list[str]]:
    """Method of ``METHOD=FILE,FILE``, empty for files alone; and the files."""
    heads = [method_name(one.partition("=")[0]) if "=" in one else "" for one in files]
    if any(head in METHODS for head in heads[1:]):
        raise MethodError(
            f"--weights {','.join(files)} names a method after a comma. Type it once for files that belong together, "
            "e.g. --weights dsen2=L1C20M.pt,L1C60M.pt, and --weights again for another row."
        )
    if heads[0] in METHODS:
        return heads[0], [files[0].partition("=")[2], *files[1:]]
    hint = nearest(heads[0], METHODS) if heads[0] else ""
    if hint and not Path(files[0]).exists():
        raise MethodError(f"--weights {','.join(files)}: there is no such file, and no method {heads[0]}{hint}")
    return "", files


def _papers(table: Any, options: argparse.Namespace) -> Any:
    from eosr.score.report.study import paper_tables

    return paper_tables(_stages(table, options))


def _stages(table: Any, options: argparse.Namespace) -> Any:
    return table.loc[{"projection": ["before"]}] if options.no_consistency else table


def _text(table: Any, papers: Any, options: argparse.Namespace) -> str:
    from eosr.cli.demo import aligned
    from eosr.score.report import formats as evaluate_formats
    from eosr.score.report.by_band import by_band

    table = _stages(table, options)
    if papers is None and options.format == "table":
        return aligned(by_band(table, projection="before" if options.no_consistency else "both"))
    form = {"table": "markdown"}.get(options.format, options.format)
    return str(getattr(evaluate_formats, f"to_{form}")(table if papers is None else papers))
