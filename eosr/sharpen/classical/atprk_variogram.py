"""Semivariograms between pixels of different size: exponential fit, deconvolution, and kriging weights of a sub-pixel.

Everything is a sum of the point semivariogram over the displacements between two pixels, weighted by the correlation of
their point-spread functions. All coarse pixels have the same function, so a displacement decides everything, and one
set of weights serves the whole scene.

References
----------
[1] Kyriakidis, "A geostatistical framework for area-to-point spatial interpolation", Geographical Analysis 36(3), 2004.
[2] Wang, Shi, Atkinson, Zhao, "Downscaling MODIS images with area-to-point regression kriging", Remote Sensing of
    Environment 166, 2015: the deconvolution by a grid of sills and ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

Array = npt.NDArray[np.float64]

#: Lags of the areal semivariogram [coarse pixels], as the authors chose it (H).
LAGS: Final = 20
#: Coarse pixels on each side of the kriged one (w): a window of 3 x 3.
WINDOW: Final = 1
#: The grid of the deconvolution, as shares of the areal sill and range: Sill_min 1, Range_min .5, rate .1, 20 steps.
SILLS: Final = 1.0 + 0.1 * np.arange(1, 21)
RANGES: Final = 0.5 + 0.1 * np.arange(1, 21)
#: Ranges that a fit may have [lags]. A curve that is still straight at the last lag says only that it is longer.
SHORTEST, LONGEST = 0.05, 100.0


@dataclass(frozen=True, kw_only=True)
class Variogram:
    """The exponential model ``sill * (1 - exp(-distance / range))``, of points and as fitted to coarse pixels."""

    #: Of points [DN ** 2] and [fine pixels].
    sill: float
    range: float
    #: Of coarse pixels, to which that of points was fitted.
    areal_sill: float
    areal_range: float


def used_lags(pairs: Array) -> int:
    """Count the lags with at least half as many pairs as the first: up to half of a small scene, gaps or not."""
    enough = (pairs > 0) & (2 * pairs >= pairs[:1])
    return len(pairs) if enough.all() else int(np.argmin(enough))


def fit_exponential(lags: Array, gamma: Array) -> tuple[float, float]:
    """Sill and range [unit of ``lags``] that fit ``gamma`` best in the least-squares sense.

    The best sill of every range is known in closed form, so only the range is searched for: on a grid of logarithms,
    then where the derivative of the misfit vanishes. No starting values are needed, and rounding in ``gamma`` moves the
    answer by rounding, which a search by comparing misfits would not promise.
    """

    def fitted(logarithm: float) -> tuple[float, Array]:
        shape = -np.expm1(-lags / np.exp(logarithm))
        sill = float(gamma @ shape / (shape @ shape))
        return sill, gamma - sill * shape

    def slope(logarithm: float) -> float:
        scaled = lags / np.exp(logarithm)
        return float(fitted(logarithm)[1] @ (scaled * np.exp(-scaled)))

    grid = np.log(np.geomspace(SHORTEST * lags[0], LONGEST * lags[0], 60))
    best = int(np.argmin([np.sum(fitted(value)[1] ** 2) for value in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    answer = float(grid[best])
    if slope(around[0]) * slope(around[1]) < 0:
        answer = float(brentq(slope, *around, xtol=1e-13))
    return fitted(answer)[0], float(np.exp(answer))


def deconvolve(gamma: Array, pairs: Array, taps: Array, factor: int) -> Variogram:
    """Find the semivariogram of points whose mean over pixels is nearest to that of pixels.

    Parameters
    ----------
    gamma : array (lags,)
        Semivariance of coarse pixels 1, 2 ... apart [DN ** 2]; anything where ``pairs`` is 0.
    pairs : array (lags,)
        How many pairs each is the mean of.
    taps : array (n,)
        One row of the separable point-spread function of a coarse pixel [fine pixels], summing to 1.
    factor : int
        Fine pixels along one coarse pixel.

    Notes
    -----
    A constant residual has no range, and neither has a scene of fewer than two lags: one coarse pixel is taken.
    """
    count = used_lags(pairs)
    if count < 2 or not gamma[:count].any():
        sill = float(gamma[:count].sum())
        return Variogram(sill=sill, range=float(factor), areal_sill=sill, areal_range=float(factor))
    lags = factor * np.arange(1.0, count + 1)
    areal_sill, areal_range = fit_exponential(lags, gamma[:count])
    wanted = -areal_sill * np.expm1(-lags / areal_range)
    shapes = np.stack([_regularised(lags, share * areal_range, taps) for share in RANGES])
    misfit = np.sum((areal_sill * SILLS[:, None, None] * shapes - wanted) ** 2, axis=2)
    i, j = np.unravel_index(int(np.argmin(misfit)), misfit.shape)
    sill, reach = float(SILLS[i] * areal_sill), float(RANGES[j] * areal_range)
    return Variogram(sill=sill, range=reach, areal_sill=areal_sill, areal_range=areal_range)


def kriging_weights(reach: float, taps: Array, factor: int) -> Array:
    """Weights (factor ** 2 sub-pixels, 9 coarse pixels) of ordinary area-to-point kriging; they sum to 1 per sub-pixel.

    Parameters
    ----------
    reach : float
        Range of the semivariogram of points [fine pixels]. The weights do not depend on its sill.
    taps, factor
        As in `deconvolve`.
    """
    steps = factor * np.arange(-WINDOW, WINDOW + 1)
    rows, columns = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    between = _correlation(taps)
    among = _semivariance(rows[:, None] - rows, columns[:, None] - columns, between, reach)
    inner = np.arange(factor) - (factor - 1) / 2
    sub_rows, sub_columns = (axis.ravel() for axis in np.meshgrid(inner, inner, indexing="ij"))
    towards = _semivariance(rows[:, None] - sub_rows, columns[:, None] - sub_columns, taps, reach)
    size = len(rows)
    system = np.ones((size + 1, size + 1))
    system[:size, :size] = among
    system[size, size] = 0.0
    right = np.concatenate([towards, np.ones((1, towards.shape[1]))])
    return np.linalg.solve(system, right)[:size].T


def _regularised(lags: Array, reach: float, taps: Array) -> Array:
    between = _correlation(taps)
    apart = _semivariance(np.concatenate([[0.0], lags]), np.zeros(len(lags) + 1), between, reach)
    return apart[1:] - apart[0]


def _correlation(taps: Array) -> Array:
    """Weights of all displacements between a point of one pixel and a point of another one, less that of the pixels."""
    return np.convolve(taps, taps[::-1])


def _semivariance(rows: Any, columns: Any, weights: Array, reach: float) -> Array:
    """Mean of ``1 - exp(-distance / reach)`` about displacements (rows, columns), separable weights about each."""
    around = np.arange(len(weights)) - (len(weights) - 1) / 2
    down = (np.asarray(rows, float)[..., None] + around)[..., :, None]
    across = (np.asarray(columns, float)[..., None] + around)[..., None, :]
    near = -np.expm1(-np.hypot(down, across) / reach)
    return np.asarray(np.einsum("...ij,i,j->...", near, weights, weights))
