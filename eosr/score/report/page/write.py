"""An evaluation -> one HTML file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from markupsafe import Markup

from eosr.errors import OutputError
from eosr.score.report.page.beside import Laid, checked_sheets
from eosr.score.report.page.bundle import fingerprint, inline, libraries, own, own_script
from eosr.score.report.page.exhibit import Exhibit
from eosr.score.report.page.maps import palette
from eosr.score.report.page.show import GIVEN, MEASURED, Album, show
from eosr.score.report.page.tables import SETTING, Scores, bars_of, caption_of, tables_of


def write_report(
    table: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    exhibits: Iterable[Exhibit] = (),
    sheets: Iterable[Laid] = (),
    title: str = "Evaluation of sharpened Sentinel-2 bands",
    overwrite: bool = False,
) -> Path:
    """Write an evaluation as one HTML file that needs nothing else, and return its path.

    Parameters
    ----------
    table : Dataset
        As `eosr.evaluate` returns it.
    path : path
        The file, ending in ``.html``; its folder exists.
    exhibits : iterable of Exhibit
        Windows to show, in this order. 200 x 200 pixels are plenty: they are part of the file.
    sheets : iterable of Sheet
        Tables to stand beside, e.g. ``eosr.score.report.formats.to_sheets(paper_tables(table))``: those of the
        reference study with the measured rows, marks and footnotes.
    title : str
        Heading of the page.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    Path
        The file; it appears whole or not at all.

    Raises
    ------
    OutputError
        If the name does not end in ``.html``, the folder is missing, or the file is there and ``overwrite`` is False.
    MetricError
        If the table is not an evaluation, or a sheet is none.
    """
    target = _checked(Path(path), overwrite=overwrite)
    page = render(Scores.read(table), tuple(exhibits), title, checked_sheets(sheets))
    unfinished = target.with_name(f".{target.name}-{os.getpid()}.part")
    try:
        try:
            unfinished.write_text(page, "utf-8", newline="\n")
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}. Name another place.") from error
    return target


def render(scores: Scores, exhibits: Sequence[Exhibit], title: str, sheets: Sequence[Laid] = ()) -> str:
    """Return the page as text."""
    found = list(scores.settings())
    settings = [
        {
            "key": "|".join(str(i) for i in place),
            "caption": caption_of(names),
            "tables": tables_of(scores, place, names),
        }
        for place, names in found
    ]
    carried = libraries()
    script = inline(own_script())
    scripts = [text for library in carried for text in library.scripts] + [script]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(own("page.html")).render(
        title=title,
        facts=_facts(scores),
        settings=settings,
        choices=[{"name": name, "labels": scores.labels(name)} for name in SETTING],
        rows=_rows(scores),
        sheets=sheets,
        exhibits=exhibits,
        content=Markup(_json(_drawn(scores, [place for place, _ in found], exhibits))),
        styles=[Markup(text) for library in carried for text in library.styles] + [Markup(inline(own("page.css")))],
        scripts=[Markup(text) for text in scripts],
        allowed=" ".join(fingerprint(text) for text in scripts),
        libraries=carried,
    )


def _checked(target: Path, *, overwrite: bool) -> Path:
    if target.suffix.lower() != ".html":
        raise OutputError(f"{target} does not end in .html. Name a page, e.g. {target.with_suffix('.html')}.")
    if not target.parent.is_dir():
        raise OutputError(
            f"the folder {target.parent} of {target.name} is missing. Make it, e.g. mkdir -p {target.parent}."
        )
    if target.is_dir():
        raise OutputError(f"{target} is a folder. Name a file in it, e.g. {target / 'report.html'}.")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} is already there. Add overwrite=True to replace it, or name another file.")
    return target


def _facts(scores: Scores) -> list[tuple[str, str]]:
    """What was compared, what the rows are, and every attribute of the table."""
    facts = [("methods", ", ".join(scores.labels("method"))), ("scenes", ", ".join(scores.labels("scene")))]
    if "pixels" in scores.values and np.isfinite(scores.values["pixels"]).all():
        facts.append(("pixels", f"{int(scores.values['pixels'].sum())}"))
    facts += [(f"row {label}", told + (f"; weights of SHA-256 {sums}" if sums else ""))
              for label, told, sums in scores.rows_explained()]  # fmt: skip
    return facts + [(str(name).replace("_", " "), str(value)) for name, value in scores.table.attrs.items()]


def _rows(scores: Scores) -> str:
    """What rows are whose label does not tell, in one sentence; their checksums stand among the facts."""
    told = [f"{label} is {what}" for label, what, _ in scores.rows_explained() if what != label]
    return f"Rows: {'; '.join(told)}." if told else ""


def _drawn(scores: Scores, places: Sequence[tuple[int, ...]], exhibits: Sequence[Exhibit]) -> dict[str, Any]:
    """Everything that the script draws."""
    album = Album()
    shown = [show(exhibit, album) for exhibit in exhibits]
    methods = dict.fromkeys((*scores.labels("method"), *(name for exhibit in exhibits for name in exhibit.after)))
    return {
        "given": GIVEN,
        "measured": MEASURED,
        "methods": list(methods),
        "bars": {
            "methods": scores.labels("method"),
            "bands": scores.labels("band"),
            "metrics": [{"name": m.text, "unit": m.unit, "better": m.better} for m in scores.metrics()],
            "settings": {"|".join(str(i) for i in place): bars_of(scores, place) for place in places},
        },
        "colours": palette()[1:].tolist(),
        "exhibits": shown,
        "pictures": album.pictures,
    }


def _json(content: Any) -> str:
    """JSON that can stand inside a script element: no character that HTML or JavaScript would read as its own."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
