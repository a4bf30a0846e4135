"""A few points of a window whose spectra are worth a look, the same ones on every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import minimum_filter, uniform_filter

from eosr.score.report.page.exhibit import Exhibit

Pixels = npt.NDArray[Any]

#: Normalised difference of infrared and red above which a pixel counts as vegetation.
VEGETATION: Final = 0.4
#: Pixels left out along the edge, where methods extrapolate, in pixels the method was given.
MARGIN: Final = 4


@dataclass(frozen=True, kw_only=True)
class Point:
    """One pixel, and why it was chosen."""

    label: str
    row: int
    column: int


def choose_points(exhibit: Exhibit) -> tuple[Point, ...]:
    """Return the centre, the strongest local contrast, and the brightest and darkest vegetation (or ground).

    A point that was chosen before is left out; ties go to the first pixel in reading order. Empty without valid pixels.
    """
    image = exhibit.truth or exhibit.before
    rows, columns = exhibit.shape
    valid = np.all([np.isfinite(band) for band in image.values()], axis=0) & _inside(exhibit)
    if not valid.any():
        return ()
    mean = np.mean([_relative(band) for band in image.values()], axis=0)
    away = np.hypot(*np.ogrid[-(rows // 2) : rows - rows // 2, -(columns // 2) : columns - columns // 2])
    ground, name = _vegetation({**exhibit.before, **exhibit.truth}, valid)
    wanted = (
        ("centre", -away, valid),
        ("strongest contrast", _contrast(mean), valid),
        (f"brightest {name}", mean, ground),
        (f"darkest {name}", -mean, ground),
    )
    found: list[Point] = []
    for label, merit, among in wanted:
        index = int(np.where(among, np.nan_to_num(merit, nan=-np.inf), -np.inf).argmax())
        row, column = divmod(index, columns)
        if all((row, column) != (point.row, point.column) for point in found):
            found.append(Point(label=label, row=row, column=column))
    return tuple(found)


def _inside(exhibit: Exhibit) -> npt.NDArray[np.bool_]:
    rows, columns = exhibit.shape
    margin = min(MARGIN * exhibit.factor, (min(rows, columns) - 1) // 4)
    inside = np.zeros((rows, columns), bool)
    inside[margin : rows - margin, margin : columns - margin] = True
    return inside


def _relative(band: Pixels) -> Pixels:
    """A band over its mean, so that bright bands do not outvote dark ones."""
    valid = band[np.isfinite(band)]
    level = float(np.mean(valid, dtype=np.float64)) if valid.size else 1.0
    return np.asarray(band, np.float64) / (level or 1.0)


def _contrast(image: Pixels) -> Pixels:
    """Standard deviation in 3 x 3 pixels; NaN where one of them is nodata."""
    valid = np.isfinite(image)
    # A running sum carries a NaN on to the end of its line, so gaps are filled first and their neighbours struck after.
    filled = np.where(valid, image, 1.0)
    mean = uniform_filter(filled, 3, mode="nearest")
    spread = np.sqrt(np.maximum(uniform_filter(filled**2, 3, mode="nearest") - mean**2, 0))
    return np.where(minimum_filter(valid, 3, mode="nearest"), spread, np.nan)


def _vegetation(bands: Mapping[str, Pixels], valid: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], str]:
    infrared = bands.get("B8A", bands.get("B08", bands.get("B07")))
    red = bands.get("B04", bands.get("B05"))
    if infrared is None or red is None:
        return valid, "ground"
    total = np.asarray(infrared, np.float64) + red
    with np.errstate(invalid="ignore", divide="ignore"):
        green = valid & ((infrared - red) / total > VEGETATION)
    return (green, "vegetation") if green.any() else (valid, "ground")
