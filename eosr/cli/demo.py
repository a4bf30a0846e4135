"""The demonstration: the real sample scene from its STAC item to every band at 10 m on disk, scored, with a picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.cube.degradation import degrade
from eosr.cube.grid import STEPS
from eosr.errors import MissingExtraError
from eosr.host.files import put_text
from eosr.host.progress import Progress
from eosr.metrics import rmse
from eosr.open.sample import ACQUIRED_BETWEEN, write_catalog
from eosr.open.stac import open_stac
from eosr.score.evaluation import evaluate
from eosr.score.report.by_band import by_band
from eosr.score.report.formats import to_json
from eosr.sharpen.superresolution import superresolve
from eosr.train.data.scenes import SAMPLE_WINDOW, VALIDATION_BLOCK
from eosr.write import Delivery, deliver
from eosr.write.layout import local_path

#: Rows and columns [10 m pixels of the common window] that are sharpened: 10.8 x 13.0 km around the validation block.
#: Multiples of 36; the scores at 60 m need context around the block, which alone is smaller than the generator's reach.
DEMO_WINDOW: Final = (slice(360, 1440), slice(0, 1296))
#: Rows and columns of the picture, within the validation block and whole 60 m pixels.
PICTURE: Final = (slice(1188, 1332), slice(258, 402))
#: Short-wave infrared, narrow near infrared, red edge as red, green, blue: all measured at 20 m.
COMPOSITE: Final = ("B12", "B8A", "B05")
OPERATOR: Final = "study"

Tell = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What the demonstration made, and where it is."""

    catalog: Path
    delivery: Delivery
    picture: Path
    #: Markdown and JSON files of the scores.
    scores: tuple[Path, Path]
    #: The scores as aligned Markdown.
    table: str


def run_demo(
    out: str | Path, *, method: str | None = None, progress: Progress = None, tell: Tell = lambda text: None
) -> Demo:
    """Sharpen 10.8 x 13.0 km of the sample scene, write, score and draw it; what an earlier run left is replaced.

    Parameters
    ----------
    out : path
        Folder for everything: ``catalogue``, ``sharpened``, ``scores.md``, ``scores.json``, ``before-after.png``.
    method : str, optional
        See `eosr.superresolve`. Default: the shipped weights.
    progress : callable or bool, optional
        See `eosr.to_zarr`.
    tell : callable
        Called with a line of text when a step begins.

    Raises
    ------
    MissingExtraError
        If the sample scene or matplotlib is not installed.
    OutputError
        If the folder cannot be written.
    """
    _figure_class()  # before five steps of work
    local_path(out)  # refuses a URL
    folder = Path(out)
    tell("1/5  describing the sample scene as a static STAC catalogue")
    catalog = write_catalog(folder / "catalogue")
    tell("2/5  opening 10.8 x 13.0 km of it with eosr.open_stac")
    measured = open_stac(catalog, bbox=_bounds(DEMO_WINDOW), bbox_crs="item")
    tell("3/5  sharpening to 10 m; writing Zarr, COGs and a STAC item")
    delivery = deliver(superresolve(measured, method=method), folder / "sharpened", overwrite=True, progress=progress)
    for item in delivery.items:
        _without_date(item)
    tell("4/5  scoring by Wald's protocol, on a block of the image that was trained on, another part of it")
    measured = measured.load()
    table = evaluate(measured, method or "eosr", degradation=OPERATOR, mask=_block_mask(measured))
    shown = {"bicubic": "before", "eosr": "after"}
    sharp = open_stac(delivery.items[0]).load()
    consistency = {
        "bicubic": consistency_rmse(superresolve(measured, method="bicubic", dtype="float32"), measured),
        **({} if method == "bicubic" else {method or "eosr": consistency_rmse(sharp, measured)}),
    }
    text = aligned(_with_consistency(by_band(table, projection=shown), consistency))
    scores = folder / "scores.md", folder / "scores.json"
    scores[0].write_text(text)
    scores[1].write_text(json.dumps({**json.loads(to_json(table)), "consistency_rmse": consistency}, indent=2) + "\n")
    tell("5/5  drawing the picture")
    picture = draw(_cut(measured), _cut(sharp), folder / "before-after.png")
    return Demo(catalog=catalog, delivery=delivery, picture=picture, scores=scores, table=text)


def consistency_rmse(sharp: xr.Dataset, measured: xr.Dataset) -> dict[str, float]:
    """RMSE between a sharpened scene, degraded, and the measurement, by band [DN]; lower is better.

    Parameters
    ----------
    sharp : Dataset, dims (time, y10, x10)
        As `eosr.superresolve` returns it, or as read from the files.
    measured : Dataset
        The multi-resolution Dataset it was made from.
    """
    scores = {}
    for group, bands in ((20, BANDS_20M), (60, BANDS_60M)):
        names = [band for band in bands if band in sharp.data_vars]
        coarse = degrade(sharp[names], STEPS[group], degradation=OPERATOR)
        bare = coarse.drop_vars([name for name in coarse.coords if str(name).startswith("spatial_ref")])
        bare = bare.rename(y10=f"y{group}", x10=f"x{group}")
        for name in names:
            reference = measured[name].astype("float64").drop_vars(f"spatial_ref{group}", errors="ignore")
            scores[name] = float(rmse(bare[name].astype("float64"), reference, mask=reference > 0).mean())
    return scores


def aligned(markdown: str) -> str:
    r"""Markdown tables with their columns padded, so that they read well on a terminal too.

    Examples
    --------
    >>> print(aligned("| a | b |\n|---|---:|\n| long | 1 |"), end="")
    | a    |    b |
    |------|-----:|
    | long |    1 |
    """
    lines = markdown.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else [] for line in lines]
    width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    right = {i for row in rows for i, cell in enumerate(row) if cell.startswith("-") and cell.endswith(":")}
    padded = []
    for line, row in zip(lines, rows, strict=True):
        cells = []
        for i, cell in enumerate(row):
            if set(cell) <= {"-", ":"} and cell:
                cells.append("-" * (width[i] + 1) + (":" if i in right else "-"))
            else:
                cells.append(f" {cell:>{width[i]}} " if i in right else f" {cell:<{width[i]}} ")
        padded.append(f"|{'|'.join(cells)}|" if row else line)
    return "\n".join(padded) + "\n"


def draw(measured: xr.Dataset, sharp: xr.Dataset, path: str | Path) -> Path:
    """Save a PNG: on the left what was measured, pixels as they are, on the right the same ground at 10 m.

    Parameters
    ----------
    measured, sharp : Dataset
        One time, the same ground: bands `COMPOSITE` and B01; digital numbers.
    path : path
        The PNG.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    figure = _figure_class()(figsize=(9.2, 9.6), layout="constrained")
    panels = figure.subplots(2, 2)
    before, after = ([ds[band].values.astype(float) for band in COMPOSITE] for ds in (measured, sharp))
    limits = [np.percentile(band, (1, 99)) for band in before]
    single = np.percentile(measured["B01"].values, (1, 99))
    for panel, bands in zip(panels[0], (before, after), strict=True):
        panel.imshow(_colours(bands, limits), interpolation="nearest")
    for panel, ds in zip(panels[1], (measured, sharp), strict=True):
        panel.imshow(ds["B01"].values, cmap="viridis", vmin=single[0], vmax=single[1], interpolation="nearest")
    names = ", ".join(COMPOSITE)
    titles = (f"measured: {names} at 20 m", f"eosr: {names} at 10 m", "measured: B01 at 60 m", "eosr: B01 at 10 m")
    for panel, title in zip(panels.flat, titles, strict=True):
        panel.set_title(title, fontsize=11)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.savefig(path, dpi=100)
    return Path(path)


def _colours(bands: list[npt.NDArray[np.float64]], limits: list[Any]) -> npt.NDArray[np.float64]:
    stretched = [(band - low) / (high - low) for band, (low, high) in zip(bands, limits, strict=True)]
    return np.clip(np.stack(stretched, axis=-1), 0, 1)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the demonstration draws with matplotlib. Type: pip install 'eosr[demo]'") from None
    return Figure


def _bounds(window: tuple[slice, slice]) -> tuple[float, float, float, float]:
    """Left, bottom, right, top [m] of rows and columns of the common window."""
    rows, columns = window
    left, _, _, top = SAMPLE_WINDOW
    return left + 10 * columns.start, top - 10 * rows.stop, left + 10 * columns.stop, top - 10 * rows.start


def _block_mask(measured: xr.Dataset) -> xr.DataArray:
    """True on the validation block, dims (y10, x10)."""
    left, bottom, right, top = _bounds(VALIDATION_BLOCK)
    y, x = measured["y10"], measured["x10"]
    return (y > bottom) & (y < top) & (x > left) & (x < right)


def _cut(ds: xr.Dataset) -> xr.Dataset:
    """The ground of the picture, first time."""
    left, bottom, right, top = _bounds(PICTURE)
    edges = {"y": slice(top, bottom), "x": slice(left, right)}
    groups = [group for group in STEPS if f"y{group}" in ds.dims]
    return ds.isel(time=0).sel({f"{axis}{group}": limits for group in groups for axis, limits in edges.items()})


def _without_date(item: Path) -> None:
    """Say in a STAC item what the source says: the day is not known, only an interval."""
    content = json.loads(item.read_text())
    content["properties"] |= {
        "datetime": None,
        "start_datetime": ACQUIRED_BETWEEN[0],
        "end_datetime": ACQUIRED_BETWEEN[1],
    }
    put_text(item, json.dumps(content, indent=2) + "\n")


def _with_consistency(markdown: str, consistency: dict[str, dict[str, float]]) -> str:
    """The table of `by_band` with one more column."""
    lines = []
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| band"):
            line += " consistency [DN] |"
        elif line.startswith("|---"):
            line += "---:|"
        elif line.startswith("|"):
            score = consistency.get(cells[1], {}).get(cells[0])
            line += f" {score:.2f} |" if score is not None else "  |"
        lines.append(line)
    rows, columns = VALIDATION_BLOCK
    lines += [
        f"Scored on the {(rows.stop - rows.start) / 100:.1f} x {(columns.stop - columns.start) / 100:.1f} km of the "
        "image that was trained on, another part of it: unseen places score worse.",
        "SAM and ERGAS compare all bands of one pixel size.",
        "Consistency: RMSE between the files that were written, degraded, and the measurement, over the whole window.",
    ]
    return "\n".join(lines) + "\n"
