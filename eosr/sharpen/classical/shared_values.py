"""Pixels as convex mixtures of values that they share with their neighbours on the pixel corners.

A pixel has four corners and each corner touches four pixels. The value of a pixel is the weighted mean of the values on
its corners; the weights are at least 0, sum to 1 and are the same in every band: they are the geometry of the scene.
Arrays of corners hold one row and one column more than the pixels: corner ``(i, j)`` is the upper left one of pixel
``(i, j)``. Weights have the corners upper left, upper right, lower left, lower right along their first axis.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from eosr.sharpen.classical.passes import Floats

#: Where the corners of all pixels lie in an array of corners, in the order of the weights.
CORNERS: tuple[tuple[Any, ...], ...] = tuple(
    (..., rows, columns) for rows in (slice(-1), slice(1, None)) for columns in (slice(-1), slice(1, None))
)
#: Passes over the six pairs of corners each time that the weights are fitted.
SWEEPS = 2


def on_corners(pixels: Floats) -> Floats:
    """Mean of the pixels that touch each corner: (..., H, W) to (..., H + 1, W + 1), edge pixels repeated."""
    total = np.pad(pixels, [(0, 0)] * (pixels.ndim - 2) + [(1, 1)] * 2, mode="edge")
    total = total[..., :-1, :] + total[..., 1:, :]
    return (total[..., :-1] + total[..., 1:]) / total.dtype.type(4)


def mixed(weights: Floats, corners: Floats) -> Floats:
    """Pixels (..., H, W) from weights (4, H, W) and shared values (..., H + 1, W + 1)."""
    total = weights[0] * corners[CORNERS[0]]
    for weight, place in zip(weights[1:], CORNERS[1:], strict=True):
        total += weight * corners[place]
    return total


def shared_residual(weights: Floats, residual: Floats) -> Floats:
    """Mean of the residuals (..., H, W) around each corner, weighted by the share of each pixel in that corner.

    It is the step of a simultaneous (Jacobi-like) reconstruction: added to the shared values, it lowers the residuals
    of all pixels at once. One step carries information over one pixel and no further.
    """
    total = np.zeros((*residual.shape[:-2], residual.shape[-2] + 1, residual.shape[-1] + 1), residual.dtype)
    share = np.zeros(total.shape[-2:], weights.dtype)
    for weight, place in zip(weights, CORNERS, strict=True):
        total[place] += weight * residual
        share[place] += weight
    # The weights of a corner may all be zero. The floor is far below the 1 that four uniform weights add up to.
    return total / (share + share.dtype.type(1e-3))


def fit_weights(weights: Floats, corners: Floats, bands: Floats, sweeps: int = SWEEPS) -> None:
    """Improve weights (4, H, W) in place so that mixtures of ``corners`` come nearer to ``bands`` (K, H, W).

    Least squares on the simplex, two corners at a time: what one corner gains the other loses, the best amount is known
    in closed form and cut where a weight would leave 0 ... 1. No step increases the residual; the sum stays 1.
    """
    residual = bands - mixed(weights, corners)
    tiny = np.finfo(residual.dtype).tiny
    for first, second in list(combinations(range(4), 2)) * sweeps:
        difference = corners[CORNERS[first]] - corners[CORNERS[second]]
        power = np.einsum("kij,kij->ij", difference, difference)
        gain = np.einsum("kij,kij->ij", residual, difference)
        gain = np.clip(gain / np.maximum(power, tiny), -weights[first], weights[second])
        weights[first] += gain
        weights[second] -= gain
        difference *= gain
        residual -= difference


def fit_geometry(bands: Floats, rounds: int, updates: int) -> tuple[Floats, Floats]:
    """Weights (4, H, W) and shared values (K, H + 1, W + 1) of ``bands`` (K, H, W), fitted in turns.

    The shared values start as the mean of the pixels around each corner, the weights as 1/4. A round fits the weights,
    then moves the shared values ``updates`` times; the weights are fitted once more at the end. Not iterated until
    nothing changes, so a pixel depends on the pixels within ``geometry_reach`` and on no others.
    """
    weights = np.full((4, *bands.shape[-2:]), 0.25, bands.dtype)
    corners = on_corners(bands)
    for _ in range(rounds):
        fit_weights(weights, corners, bands)
        for _ in range(updates):
            corners += shared_residual(weights, bands - mixed(weights, corners))
    fit_weights(weights, corners, bands)
    return weights, corners


def geometry_reach(rounds: int, updates: int) -> int:
    """Pixels on each side that can change the weights of one pixel."""
    return 1 + rounds * updates


def refined(corners: Floats, factor: int) -> Floats:
    """Corners of coarse pixels (..., h + 1, w + 1), made bilinearly those of ``factor`` times smaller pixels."""
    for axis in (corners.ndim - 2, corners.ndim - 1):
        last = corners.shape[axis] - 1
        shape = list(corners.shape)
        shape[axis] = last * factor + 1
        finer = np.empty(shape, corners.dtype)
        before, after = np.take(corners, range(last), axis), np.take(corners, range(1, last + 1), axis)
        for step in range(factor):
            place: list[Any] = [slice(None)] * corners.ndim
            place[axis] = slice(step, last * factor, factor)
            share = corners.dtype.type(step / factor)
            finer[tuple(place)] = before + share * (after - before)
        place[axis] = slice(last * factor, None)
        finer[tuple(place)] = np.take(corners, [last], axis)
        corners = finer
    return corners


def block_weights(weights: Floats, factor: int) -> Floats:
    """Weights of the coarse corners in each coarse pixel (4, h, w): those of its fine pixels, aggregated.

    A fine corner is a bilinear mixture of the four corners of its coarse pixel, a fine pixel a mixture of fine corners,
    and the mean over the block a mixture of fine pixels; so the coarse pixel is a convex mixture of its four corners.
    """
    rows, columns = (size // factor for size in weights.shape[-2:])
    at = np.arange(factor + 1) / factor
    aggregated = np.zeros((4, rows, columns), weights.dtype)
    blocks = weights.reshape(4, rows, factor, columns, factor)
    for corner, (down, right) in enumerate((a, b) for a in (1 - at, at) for b in (1 - at, at)):
        share = np.outer(down, right).astype(weights.dtype)
        for weight, place in zip(blocks, CORNERS, strict=True):
            aggregated[corner] += np.einsum("ipjq,pq->ij", weight, share[place[1:]])
    return aggregated / weights.dtype.type(factor**2)
