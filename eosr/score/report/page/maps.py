"""Bands -> pictures: composites with a shared stretch, and error maps with a shared scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eosr.score.report.page.png import Bytes

Pixels = npt.NDArray[Any]

#: Percentiles of the reference image that a composite stretches to black and full colour.
STRETCH: Final = (2.0, 98.0)
#: Shades of a channel of a composite. 256 take half as many bytes again, and noise hides what they add.
LEVELS: Final = 64
#: Percentile of |error| at which the scale of an error map ends, that of the worst method.
CLIP: Final = 99.0
#: Shades on each side of zero. Finer ones are not told apart by eye, and cost bytes: errors are noise to a compressor.
SHADES: Final = 31

#: Too low, exact, too high: blue and vermilion of Okabe and Ito ("Color Universal Design", 2008), which colour-blind
#: readers tell apart, each continued to a dark end.
_ANCHORS: Final = (
    (0, 45, 90),
    (0, 114, 178),
    (138, 190, 222),
    (247, 247, 247),
    (240, 178, 138),
    (213, 94, 0),
    (98, 36, 0),
)


@dataclass(frozen=True, kw_only=True)
class Composite:
    """Bands shown as red, green and blue, or one band as grey."""

    name: str
    bands: tuple[str, ...]
    note: str = ""


COMPOSITES: Final = (
    Composite(name="Short-wave infrared", bands=("B12", "B8A", "B04")),
    Composite(
        name="Natural colour", bands=("B04", "B03", "B02"),
        note="10 m bands: they are delivered as they were measured, so both sides are the same.",
    ),
    Composite(name="Red edge", bands=("B07", "B06", "B05")),
    Composite(name="Coastal aerosol", bands=("B04", "B03", "B01"), note="Only the blue channel, B01, was sharpened."),
    Composite(name="Coastal aerosol alone", bands=("B01",)),
    Composite(name="Water vapour", bands=("B09",)),
)  # fmt: skip


def limits_of(image: Pixels) -> tuple[float, float]:
    """Return the values [DN] that become black and full colour; (0, 1) of an image without pixels."""
    valid = image[np.isfinite(image)]
    if not valid.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(valid, STRETCH))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def compose(channels: Sequence[Pixels], limits: Sequence[tuple[float, float]]) -> Bytes:
    """Return (h, w, 3), or (h, w) of one channel, from 3 to 255 in `LEVELS` steps; 0 where a channel is nodata."""
    levels = []
    for image, (low, high) in zip(channels, limits, strict=True):
        share = (np.asarray(image, np.float64) - low) / (high - low)
        levels.append(3 + 4 * np.rint((LEVELS - 1) * np.clip(np.nan_to_num(share), 0, 1)))
    gap = ~np.all([np.isfinite(image) for image in channels], axis=0)
    stacked = np.where(gap[..., None], 0, np.stack(levels, axis=-1)).astype(np.uint8)
    return stacked if len(channels) > 1 else stacked[..., 0]


def error_limit(errors: Mapping[str, Pixels]) -> float:
    """End of the scale [DN] that all methods of a band share, two digits; 1 without any error."""
    worst = [np.percentile(np.abs(error[np.isfinite(error)]), CLIP) for error in errors.values() if _any(error)]
    limit = max((float(value) for value in worst), default=0.0)
    if limit <= 0:
        return 1.0
    unit = 10.0 ** (np.floor(np.log10(limit)) - 1)
    return float(f"{np.ceil(limit / unit - 1e-9) * unit:.6g}")


def error_shades(error: Pixels, limit: float) -> Bytes:
    """Indices into `palette`: 1 for -limit, ``SHADES + 1`` for 0, ``2 SHADES + 1`` for +limit; 0 is nodata."""
    share = np.clip(np.nan_to_num(np.asarray(error, np.float64) / limit), -1, 1)
    shades = np.rint(share * SHADES) + SHADES + 1
    return np.where(np.isfinite(error), shades, 0).astype(np.uint8)


def palette() -> Bytes:
    """Colours of `error_shades`, shape (2 SHADES + 2, 3)."""
    anchors = np.asarray(_ANCHORS, np.float64)
    places = np.linspace(0, len(anchors) - 1, 2 * SHADES + 1)
    colours = [np.interp(places, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.concatenate([np.zeros((1, 3)), np.stack(colours, axis=1)]).round().astype(np.uint8)


def _any(image: Pixels) -> bool:
    return bool(np.isfinite(image).any())
