"""Scores of the window around each pixel: structural similarity (SSIM) and the universal image quality index (UIQ)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from scipy.ndimage import correlate1d

from eosr.errors import MetricError
from eosr.metrics.pairs import Dims, pair, spatial_dims

#: Side of the Gaussian window of SSIM [pixels], its standard deviation [pixels], and the two constants of the paper.
SSIM_WINDOW: Final = 11
SSIM_SIGMA: Final = 1.5
SSIM_K: Final = (0.01, 0.03)
#: Side of the square window of UIQ [pixels], as in its paper.
UIQ_WINDOW: Final = 8

_Window = Callable[[np.ndarray, np.ndarray], np.ndarray]


def ssim_map(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    data_range: float,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
) -> xr.DataArray:
    """Structural similarity of the window around each pixel [1], -1 to 1; higher is better.

    Parameters
    ----------
    estimate, reference : DataArray, dims (..., y, x)
        Any real dtype.
    data_range : float
        The L of the constants C1 = (0.01 L)^2 and C2 = (0.03 L)^2 [units of the input]. It has no default, because the
        score hangs on it: 10000 for DN on the scale of reflectance x 10000, 1 for reflectance.
    dim : str or sequence of str, optional
        Names of the two spatial dimensions, only needed when they are not ``y``/``x`` (or ``y10`` ...).
    mask : DataArray of bool, optional
        True = use.

    Returns
    -------
    DataArray, float64
        NaN where the 11 x 11 window (Gaussian, sigma 1.5) leaves the image or touches a pixel that is not measured in
        both images or is masked: only whole windows count. Lazy if the input is; the result does not depend on chunks.

    Raises
    ------
    MetricError
        If the two are not on one grid, ``data_range`` is not positive, or the image is smaller than the window.

    References
    ----------
    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), 2004.
    """
    both = pair(estimate, reference, dim=dim, mask=mask)
    return ssim_of_windows(both.estimate, both.reference, window_dims(both.dim), data_range)


def uiq_map(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    window: int = UIQ_WINDOW,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
) -> xr.DataArray:
    """Universal image quality index of the window around each pixel [1], -1 to 1; higher is better.

    Parameters
    ----------
    estimate, reference, dim, mask
        As in `ssim_map`.
    window : int, default 8
        Side of the square window [pixels], at least 2.

    Returns
    -------
    DataArray, float64
        NaN as in `ssim_map`. A window that is constant in both images has no structure to compare: its brightness term
        alone is given, as in the authors' program.

    Raises
    ------
    MetricError
        If the two are not on one grid, or the image is smaller than the window.

    References
    ----------
    Wang and Bovik, "A universal image quality index", IEEE Signal Processing Letters 9(3), 2002.
    """
    both = pair(estimate, reference, dim=dim, mask=mask)
    return uiq_of_windows(both.estimate, both.reference, window_dims(both.dim), window)


def ssim_of_windows(
    estimate: xr.DataArray, reference: xr.DataArray, dims: tuple[str, str], data_range: float
) -> xr.DataArray:
    """Compute `ssim_map` of two float arrays that are already checked."""
    if isinstance(data_range, str) or not data_range > 0:
        raise MetricError(f"data_range={data_range!r} is not a positive number. Use e.g. data_range=10000 for DN.")
    return _slide(partial(ssim_of_arrays, data_range=float(data_range)), estimate, reference, dims, SSIM_WINDOW)


def uiq_of_windows(
    estimate: xr.DataArray, reference: xr.DataArray, dims: tuple[str, str], window: int = UIQ_WINDOW
) -> xr.DataArray:
    """Compute `uiq_map` of two float arrays that are already checked."""
    if window < 2:
        raise MetricError(f"window={window}: one pixel has no variance. Use a window of 2 pixels or more, e.g. 8.")
    return _slide(partial(_uiq, window=window), estimate, reference, dims, window)


def window_dims(dim: tuple[str, ...]) -> tuple[str, str]:
    """Find the two dimensions a window extends over among those a score averages over."""
    found = spatial_dims(dim)
    if len(found) != 2:
        found = dim
    if len(found) != 2:
        raise MetricError(f"a window needs two spatial dimensions, but dim={dim}. Name them, e.g. dim=('lat', 'lon').")
    return found[0], found[1]


def _slide(
    window_score: _Window, estimate: xr.DataArray, reference: xr.DataArray, dims: tuple[str, str], size: int
) -> xr.DataArray:
    small = {dim: estimate.sizes[dim] for dim in dims if estimate.sizes[dim] < size}
    if small:
        raise MetricError(
            f"the image is {small} pixels, smaller than the window of {size} x {size}. Score a larger window, or leave "
            "this score out."
        )
    result: xr.DataArray = xr.apply_ufunc(
        partial(_slide_array, window_score, size),
        estimate,
        reference,
        input_core_dims=[dims, dims],
        output_core_dims=[dims],
        dask="allowed",
    )
    return result.transpose(*estimate.dims)


def _slide_array(window_score: _Window, size: int, estimate: Any, reference: Any) -> Any:
    """Slide over the last two axes of numpy or dask arrays; outside the image is NaN, as any other gap."""
    if not isinstance(estimate, da.Array) and not isinstance(reference, da.Array):
        return window_score(estimate, reference)
    chunks = estimate.chunks if isinstance(estimate, da.Array) else reference.chunks
    pair_of_arrays = [a if isinstance(a, da.Array) else da.from_array(a, chunks=chunks) for a in (estimate, reference)]
    axes = (estimate.ndim - 2, estimate.ndim - 1)
    return da.map_overlap(
        window_score,
        *pair_of_arrays,
        depth={axis: size // 2 for axis in axes},
        boundary=dict.fromkeys(axes, np.nan),
        dtype="float64",
        meta=np.empty((0,) * estimate.ndim),
    )


def _filter(image: np.ndarray, taps: np.ndarray) -> np.ndarray:
    # A direct sum, not a running one: NaN must spread to the windows that hold it, and not beyond them.
    for axis in (-2, -1):
        image = correlate1d(image, taps, axis=axis, mode="constant", cval=np.nan)
    return image


def ssim_of_arrays(estimate: np.ndarray, reference: np.ndarray, data_range: float) -> np.ndarray:
    """Compute `ssim_map` of the last two axes of float arrays; NaN where the window leaves them or holds NaN."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    taps = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    taps /= taps.sum()
    c1, c2 = ((k * data_range) ** 2 for k in SSIM_K)
    mean_e, mean_r = _filter(estimate, taps), _filter(reference, taps)
    variances = _filter(estimate**2, taps) - mean_e**2 + _filter(reference**2, taps) - mean_r**2
    covariance = _filter(estimate * reference, taps) - mean_e * mean_r
    brightness = (2 * mean_e * mean_r + c1) / (mean_e**2 + mean_r**2 + c1)
    return brightness * (2 * covariance + c2) / (variances + c2)


def _uiq(estimate: np.ndarray, reference: np.ndarray, window: int) -> np.ndarray:
    # Sums, not means: with whole numbers (DN) they are exact, so a constant window has a variance of exactly 0.
    taps, count = np.ones(window), window * window
    sum_e, sum_r = _filter(estimate, taps), _filter(reference, taps)
    product, squares = sum_e * sum_r, sum_e**2 + sum_r**2
    covariance = count * _filter(estimate * reference, taps) - product
    variances = count * (_filter(estimate**2, taps) + _filter(reference**2, taps)) - squares
    with np.errstate(divide="ignore", invalid="ignore"):
        brightness = np.where(squares == 0, 1.0, 2 * product / squares)
        structure = np.where(variances == 0, 1.0, 2 * covariance / variances)
    return brightness * structure
