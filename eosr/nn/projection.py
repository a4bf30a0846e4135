"""The projection onto the measurement as a layer: exact, differentiable, for windows that fit in memory.

The operator is separable, ``A x = R x C^T`` with one matrix per axis, so ``A A^T`` is the Kronecker product of two
small matrices and its inverse that of their inverses: ``P x = x + R^T (R R^T)^-1 (y - R x C^T) (C C^T)^-1 C``. Whole
scenes are projected by `eosr.consistency`, tile by tile.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def project(estimate: Tensor, coarse: Tensor, taps: Tensor, factor: int) -> Tensor:
    """Return the nearest image to an estimate whose degradation is the measurement.

    Parameters
    ----------
    estimate : Tensor, shape (B, C, H, W)
    coarse : Tensor, shape (B, C, H / factor, W / factor)
        The measurement.
    taps : Tensor, shape (B, C, K)
        Blur and box of every sample and band, from `eosr.nn.operator.taps_for`.
    factor : int
        Pixel-size ratio.

    Returns
    -------
    Tensor, shape (B, C, H, W)
        Edge pixels are mirrored outwards, as everywhere in eosr.
    """
    rows, columns = (axis_matrix(taps, factor, size) for size in estimate.shape[-2:])
    residual = coarse - rows @ estimate @ columns.transpose(-1, -2)
    left = torch.linalg.solve(rows @ rows.transpose(-1, -2), residual)
    both = torch.linalg.solve(columns @ columns.transpose(-1, -2), left.transpose(-1, -2)).transpose(-1, -2)
    return estimate + rows.transpose(-1, -2) @ both @ columns


def axis_matrix(taps: Tensor, factor: int, size: int) -> Tensor:
    """Matrices of the degradation along one axis, shape (B, C, size / factor, size)."""
    places = torch.from_numpy(_places(taps.shape[-1], factor, size)).to(taps)
    return torch.einsum("bck,kij->bcij", taps, places)


@lru_cache(maxsize=8)
def _places(count: int, factor: int, size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Which fine pixel each tap of each coarse pixel falls on, mirrored at the edges; shape (count, size / s, size)."""
    radius = (count - factor) // 2
    places = np.zeros((count, size // factor, size))
    for tap in range(count):
        for coarse in range(size // factor):
            fine = factor * coarse - radius + tap
            fine = fine % (2 * size)  # mirror images of the axis, edge pixels repeated, have period 2 * size
            places[tap, coarse, min(fine, 2 * size - 1 - fine)] = 1
    return places
