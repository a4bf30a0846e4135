"""The degradation, its adjoint, and the projection onto the measurement, on tensors.

The degradation and its adjoint on tensors, as the generators use them between their stages.

The projection onto the measurement as a layer: exact, differentiable, for windows that fit in memory.

The operator is separable, ``A x = R x C^T`` with one matrix per axis, so ``A A^T`` is the Kronecker product of two
small matrices and its inverse that of their inverses: ``P x = x + R^T (R R^T)^-1 (y - R x C^T) (C C^T)^-1 C``. Whole
scenes are projected by `eosr.cube.consistency`, tile by tile.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from eosr.cube.degradation import correlate_strided, kernel_taps


def taps_for(factor: int, sigma: Tensor, radius: int) -> Tensor:
    """Taps of Gaussian and box for every sample and band, shape (B, C, factor + 2 * radius).

    Parameters
    ----------
    factor : int
        Pixel-size ratio.
    sigma : Tensor, shape (B, C)
        Standard deviation of the blur [fine pixels].
    radius : int
        Where the Gaussian is cut [fine pixels]; the taps sum to 1 all the same.
    """
    rows = [kernel_taps(factor, float(value), radius=radius) for value in sigma.flatten().tolist()]
    return torch.from_numpy(np.stack(rows)).to(sigma.device, sigma.dtype).reshape(*sigma.shape, -1)


def degrade(fine: Tensor, taps: Tensor, factor: int) -> Tensor:
    """Fine (B, C, H, W) -> coarse (B, C, H / factor, W / factor); edge pixels are repeated outwards."""
    radius = (taps.shape[-1] - factor) // 2
    padded = functional.pad(fine, (radius,) * 4, mode="replicate") if radius else fine
    weights = taps[:, :, None, None, :]
    return correlate_strided(correlate_strided(padded, weights, factor, 2), weights, factor, 3)


def adjoint(coarse: Tensor, taps: Tensor, factor: int) -> Tensor:
    """Coarse (B, C, h, w) -> fine (B, C, h * factor, w * factor): the transpose of the blur and box, border cut off.

    Multiplied by ``factor**2`` it keeps a constant image constant (inside the border).
    """
    return _spread(_spread(coarse, taps, factor, 2), taps, factor, 3)


def _spread(coarse: Tensor, taps: Tensor, factor: int, axis: int) -> Tensor:
    radius = (taps.shape[-1] - factor) // 2
    margin = -(-radius // factor)
    pad = (0, 0, margin, margin) if axis == 2 else (margin, margin, 0, 0)
    padded = functional.pad(coarse, pad, mode="replicate") if margin else coarse
    count = coarse.shape[axis]
    phases = []
    for phase in range(factor):
        # Fine pixel factor * i + phase gets tap k of coarse pixel j where factor * j - radius + k equals it.
        total: Tensor | None = None
        for shift in range(-margin, margin + 1):
            k = phase + radius + factor * shift
            if 0 <= k < taps.shape[-1]:
                source = padded.narrow(axis, margin - shift, count)
                term = taps[:, :, k, None, None] * source
                total = term if total is None else total + term
        phases.append(total)
    stacked = torch.stack([phase for phase in phases if phase is not None], dim=axis + 1)
    return stacked.flatten(axis, axis + 1)


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
