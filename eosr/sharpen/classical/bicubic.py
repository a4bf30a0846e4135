"""Bicubic interpolation with half-pixel centres, as MATLAB's ``imresize`` and the reference study use it.

References
----------
[1] Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981; a = -0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.sharpen.classical.passes import Floats, Sums, Tile

#: Coarse pixels on each side that one fine pixel is interpolated from.
SUPPORT = 2


def _keys(distance: npt.NDArray[Any]) -> npt.NDArray[Any]:
    d = np.abs(distance)
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def bicubic_tile(coarse: npt.NDArray[Any], factor: int) -> npt.NDArray[Any]:
    """Interpolate (..., h, w) to (..., h * factor, w * factor), continued symmetrically at the borders."""
    fine = coarse
    for axis in (coarse.ndim - 2, coarse.ndim - 1):
        fine = _along(fine, factor, axis)
    return fine


def _along(coarse: npt.NDArray[Any], factor: int, axis: int) -> npt.NDArray[Any]:
    count = coarse.shape[axis]
    width = [(SUPPORT, SUPPORT) if i == axis else (0, 0) for i in range(coarse.ndim)]
    padded = np.pad(coarse, width, mode="symmetric")
    shape = list(coarse.shape)
    shape[axis] = count * factor
    fine = np.empty(shape, np.result_type(coarse.dtype, np.float32))
    source: list[Any] = [slice(None)] * coarse.ndim
    target: list[Any] = [slice(None)] * coarse.ndim
    for phase in range(factor):
        # The centre of fine pixel factor * i + phase lies at i + shift in coarse pixels.
        shift = (phase + 0.5) / factor - 0.5
        offsets = np.arange(-SUPPORT, SUPPORT + 1, dtype=np.float64)
        taps = _keys(offsets - shift)
        total: Any = 0.0
        for offset, tap in zip(range(-SUPPORT, SUPPORT + 1), taps.tolist(), strict=True):
            if tap:
                source[axis] = slice(SUPPORT + offset, SUPPORT + offset + count)
                total = total + np.asarray(tap, fine.dtype) * padded[tuple(source)]
        target[axis] = slice(phase, None, factor)
        fine[tuple(target)] = total
    return fine


@dataclass(frozen=True, kw_only=True)
class Bicubic:
    """Interpolation of every band by itself."""

    factor: int
    targets: tuple[str, ...] = ()

    @property
    def delivers(self) -> tuple[str, ...]:
        """Bands in the order of the answer."""
        return self.targets or (BANDS_20M if self.factor == 2 else BANDS_60M)

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one pixel of the answer."""
        return self.factor * (SUPPORT + 1)

    @property
    def passes(self) -> tuple[int, ...]:
        """None: every tile stands for itself."""
        return ()

    def count(self, index: int, tile: Tile, found: tuple[Any, ...]) -> Sums:
        """Nothing is counted."""
        return {}

    def solve(self, index: int, total: Sums) -> Any:
        """Nothing is solved."""

    def sharpen(self, tile: Tile, found: tuple[Any, ...]) -> Floats:
        """Interpolate (C, h, w) to (C, H, W) [DN]."""
        return bicubic_tile(tile.coarse, self.factor)
