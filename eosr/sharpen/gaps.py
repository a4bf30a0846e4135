"""Nodata inside a tile: fill it so that arithmetic is possible, and know which pixels to take out again."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

#: Every pass grows the valid area by this many pixels.
RADIUS: Final = 2
PASSES: Final = 3
#: Pixels of its own grid around a gap that its filling is made from.
FILL_REACH: Final = RADIUS * PASSES
#: What stands deeper inside a gap than `FILL_REACH` [DN without offset]: a dull land surface.
DEEP: Final = 1500.0


def fill_gaps(bands: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Fill what is not valid with the mean of its valid neighbours, growing inwards; deep inside with a constant.

    Parameters
    ----------
    bands : ndarray, shape (C, H, W)
    valid : ndarray of bool, same shape

    Returns
    -------
    ndarray
        Same shape, finite everywhere, valid pixels untouched. Every value depends on pixels within `FILL_REACH` only.
    """
    if valid.all():
        return bands
    filled = np.where(valid, bands, np.float32(0))
    for filled_band, known in zip(filled, valid.copy(), strict=True):
        for _ in range(PASSES):
            if known.all():
                break
            _grow(filled_band, known)
        filled_band[~known] = DEEP
    return filled


def _grow(band: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> None:
    """Give every unknown pixel that has known ones within `RADIUS` their mean; in place."""
    side = 2 * RADIUS + 1
    # float64: running sums of uniform_filter must not depend on what else the tile holds.
    share = uniform_filter(known.astype(np.float64), side, mode="constant")
    total = uniform_filter(np.where(known, band, 0).astype(np.float64), side, mode="constant")
    new = ~known & (share > 0.5 / side**2)
    band[new] = (total[new] / share[new]).astype(band.dtype)
    known |= new
