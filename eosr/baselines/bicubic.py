"""Bicubic interpolation with half-pixel centres, as MATLAB's ``imresize`` and the reference study use it.

References
----------
[1] Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981; a = -0.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
