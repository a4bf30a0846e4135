"""Fine + measured coarse -> the nearest fine image whose degradation is exactly the measurement.

The projection onto ``{x : A x = y}`` is ``P(x) = x + A^T (A A^T)^-1 (y - A x)``. Every operator of `eosr.degrade` is
separable and the scene is continued symmetrically, so ``A A^T`` is a separable convolution on the coarse grid and so
is its inverse: a short row of taps that decays exponentially. The projection is therefore local: it needs no solver,
no transform of the whole scene, and gives the same answer for every chunking.

References
----------
[1] The projection never moves an image away from any image that has the measured degradation, the truth among them
    (orthogonal projection onto a convex set): Boyd, Vandenberghe, "Convex Optimization", 2004, section 8.1.
[2] The dual of the same with ``x >= least``, by the same authors, sections 5.2 and 9.3; in the metric of ``A A^T`` its
    gradient has the Lipschitz constant 1. Momentum as Beck, Teboulle, "A fast iterative shrinkage-thresholding
    algorithm", 2009, but bounded.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import solveh_banded
from scipy.ndimage import correlate1d, find_objects, label, maximum_filter

from eosr.cube.bands import PLATFORMS
from eosr.cube.degradation import as_float_with_nan, blur_sigma, kernel_taps, radius_of, spatial_dims
from eosr.errors import DegradationError, GridError

Floats = npt.NDArray[np.float64]

#: Taps of the inverse below this share of the largest one are cut. A residual of 1000 DN then leaves 1e-4 DN.
CUT = 1e-7
#: Coarse rows that a projection works on at a time.
ROWS = 32
#: Coarse pixels within which low pixels are lifted together: many small windows would take longer than a large one.
APART = 16
#: Steps of `lift_tile`, the largest share of a step that the next one takes along, and the step that ends it [DN].
STEPS = 120
MOMENTUM = 0.9
MET = 1e-6
#: Elements of a matrix that OpenBLAS multiplies with a vector in the calling thread. For more it wakes threads of its
#: own, which serve one caller at a time, and tiles run side by side already.
ALONE = 9000


@lru_cache(maxsize=512)
def _inverse_gram(factor: int, sigma: float) -> Floats:
    taps = kernel_taps(factor, sigma)
    lags = range(0, len(taps), factor)
    gram = np.array([np.dot(taps[lag:], taps[: len(taps) - lag]) for lag in lags])
    # One row of the inverse of the banded Toeplitz matrix, far from its ends: the impulse response of the inverse.
    # 257 coarse pixels on each side are plenty: the widest MTF blur (0.6 coarse pixels) has decayed to 1e-12 by 90.
    half = 256
    banded = np.repeat(gram[:, None], 2 * half + 1, axis=1)
    impulse = np.zeros(2 * half + 1)
    impulse[half] = 1.0
    response = solveh_banded(banded, impulse, lower=True)
    keep = int(np.nonzero(np.abs(response) > CUT * np.abs(response).max())[0].max()) - half
    return response[half - keep : half + keep + 1]


def inverse_gram_taps(factor: int, sigma: float) -> Floats:
    """One row of ``(A A^T)^-1`` on the coarse grid, for a Gaussian of ``sigma`` fine pixels and a box of ``factor``.

    Examples
    --------
    >>> inverse_gram_taps(2, 0.0)  # a box alone: A A^T is 1 / factor along each axis
    array([2.])
    """
    return _inverse_gram(factor, round(float(sigma), 9)).copy()


def projection_reach(factor: int, sigma: float) -> int:
    """Fine pixels on each side that can change one projected pixel."""
    radius = radius_of(kernel_taps(factor, sigma), factor)
    inverse = len(_inverse_gram(factor, round(float(sigma), 9))) // 2
    adjoint = -(-radius // factor)
    return (adjoint + inverse) * factor + factor - 1 + radius


def project_tile(fine: npt.NDArray[Any], coarse: npt.NDArray[Any], factor: int, sigma: float) -> npt.NDArray[Any]:
    """Project one tile (..., H, W) onto the measurement (..., H / factor, W / factor), continued symmetrically.

    A coarse pixel that is NaN, or whose footprint holds NaN, sets no condition. Everything is float64 inside.
    """
    taps = kernel_taps(factor, sigma)
    residual = coarse - _degraded(fine, taps, factor)
    residual[~np.isfinite(residual)] = 0.0
    return _spread_onto(fine, _inverted(residual, factor, sigma), taps, factor)


def lift_tile(fine: npt.NDArray[Any], factor: int, sigma: float, least: float) -> npt.NDArray[Any]:
    """Return the image nearest to one tile (H, W) with the same degradation and no pixel below ``least``.

    Where there is none, as noise can have it, the degradation is met as nearly as the steps bring it. What is farther
    from every pixel below ``least`` than the inverse reaches stays as it is; without such pixels all does.
    """
    if fine.min() >= least:
        return fine
    cells = (fine < least).reshape(fine.shape[0] // factor, factor, fine.shape[1] // factor, factor).any(axis=(1, 3))
    taps = kernel_taps(factor, sigma)
    ring = -(-radius_of(taps, factor) // factor)
    reach = max(len(_inverse_gram(factor, round(float(sigma), 9))) // 2 + 2 * ring, APART)
    near, _ = label(maximum_filter(cells, 2 * reach + 1), structure=np.ones((3, 3)))
    answer = fine.copy()
    for number, places in enumerate(find_objects(near), 1):
        rows, columns = (slice(max(0, one.start - ring), one.stop + ring) for one in places)
        window = tuple(slice(one.start * factor, one.stop * factor) for one in (rows, columns))
        own = (near[rows, columns] == number).repeat(factor, axis=0).repeat(factor, axis=1)
        answer[window][own] = _lifted(fine[window].astype(np.float64), taps, factor, sigma, least)[own]
    return answer


def _lifted(start: Floats, taps: Floats, factor: int, sigma: float, least: float) -> Floats:
    """Accelerated gradient ascent of the dual problem [2]: one multiplier per coarse pixel."""
    wanted = _degraded(start, taps, factor)
    multiplier = ahead = np.zeros_like(wanted)
    pace = 1.0
    for _ in range(STEPS):
        image = np.maximum(_spread_onto(start, ahead, taps, factor), least)
        step = _inverted(wanted - _degraded(image, taps, factor), factor, sigma)
        if np.abs(step).max() < MET:
            break
        new, next_pace = ahead + step, (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + min((pace - 1) / next_pace, MOMENTUM) * (new - multiplier)
        multiplier, pace = new, next_pace
    return np.maximum(_spread_onto(start, multiplier, taps, factor), least)


def _degraded(fine: npt.NDArray[Any], taps: Floats, factor: int) -> Floats:
    """Blur and box of (..., H, W), continued symmetrically."""
    radius = radius_of(taps, factor)
    padded = _symmetric(fine, radius)
    answer = np.empty((*fine.shape[:-2], fine.shape[-2] // factor, fine.shape[-1] // factor))
    for rows in _strips(answer):
        seen = padded[..., rows.start * factor : rows.stop * factor + 2 * radius, :].astype(np.float64)
        answer[..., rows, :] = _turned(_gathered(_turned(_gathered(seen, taps, factor)), taps, factor))
    return answer


def _inverted(residual: Floats, factor: int, sigma: float) -> Floats:
    """``(A A^T)^-1`` of (..., h, w)."""
    inverse = _inverse_gram(factor, round(float(sigma), 9))
    for axis in (residual.ndim - 2, residual.ndim - 1):
        residual = _correlate(residual, inverse, axis)
    return residual


def _spread_onto(fine: npt.NDArray[Any], coarse: Floats, taps: Floats, factor: int) -> npt.NDArray[Any]:
    """``fine + A^T coarse``, of the type of ``fine``."""
    margin = -(-radius_of(taps, factor) // factor)
    padded = _symmetric(coarse, margin)
    answer = np.empty_like(fine)
    back = _spreading(taps, factor)
    for rows in _strips(coarse):
        # Across first: there are fewer rows yet.
        change = _turned(_spread(_turned(padded[..., rows.start : rows.stop + 2 * margin, :]), back))
        inside = slice(rows.start * factor, rows.stop * factor)
        answer[..., inside, :] = fine[..., inside, :] + _spread(change, back)
    return answer


def _strips(coarse: Floats) -> list[slice]:
    # Some rows at a time: what lies between the steps then stays in the cache of a core.
    rows = coarse.shape[-2]
    return [slice(top, min(top + ROWS, rows)) for top in range(0, rows, ROWS)]


def project(
    estimate: xr.DataArray,
    measured: xr.DataArray,
    factor: int,
    *,
    degradation: str = "study",
    platform: str | None = None,
    sigma: float | None = None,
    strength: float = 1.0,
) -> xr.DataArray:
    """Return the image nearest to ``estimate`` whose degradation is ``measured`` [unit of the input].

    Parameters
    ----------
    estimate : DataArray, dims (..., y, x)
        Fine image, float; NaN is nodata. Numpy or dask; dask stays lazy.
    measured : DataArray, dims (..., y, x)
        The coarse band, ``factor`` times smaller, nested from the same corner. In integer arrays 0 is nodata.
    factor : int
        Pixel-size ratio.
    degradation, platform, sigma
        The operator, as in `eosr.degrade`; the band is the name of ``measured``.
    strength : float
        1 meets the measurement exactly; between 0 and 1 goes that share of the way (noisy measurements).

    Returns
    -------
    DataArray
        Like ``estimate``. ``degrade(result)`` equals ``measured`` wherever neither holds nodata within the kernel.

    Raises
    ------
    GridError
        If the sizes are not in the ratio ``factor``.
    DegradationError
        If the operator is unknown.

    Notes
    -----
    The projection meets noise and a wrongly modelled blur as exactly as it meets the scene: the wider the blur that is
    undone, the more it amplifies (see ``docs/explanation/consistency.md``).
    """
    if not isinstance(estimate, xr.DataArray) or not isinstance(measured, xr.DataArray):
        raise GridError(
            f"project needs two DataArrays, not {type(estimate).__name__} and {type(measured).__name__}. "
            "Wrap images, e.g. xarray.DataArray(image, dims=('y', 'x'), name='B05')."
        )
    if not 0 <= strength <= 1:
        raise DegradationError(f"strength={strength} is no share of the way. Use 0 to 1; 1 meets the measurement.")
    if sigma is None:
        sigma = blur_sigma(str(measured.name), factor, degradation, platform or PLATFORMS[0])
    (y, x), (coarse_y, coarse_x) = spatial_dims(estimate), spatial_dims(measured)
    for fine_dim, coarse_dim in ((y, coarse_y), (x, coarse_x)):
        if estimate.sizes[fine_dim] != factor * measured.sizes[coarse_dim]:
            raise GridError(
                f"the estimate has {estimate.sizes[fine_dim]} pixels along {fine_dim!r} and the measurement "
                f"{measured.sizes[coarse_dim]} along {coarse_dim!r}; {factor} to 1 is needed. Crop both to one extent."
            )
    leading = [dim for dim in estimate.dims if dim not in (y, x)]
    fine = estimate.transpose(*leading, y, x)
    coarse = measured.transpose(*leading, coarse_y, coarse_x)
    data = _project_data(as_float_with_nan(fine.data), as_float_with_nan(coarse.data), factor, sigma)
    result = fine.copy(data=data if strength == 1.0 else fine.data + strength * (data - fine.data))
    return result.transpose(*estimate.dims)


def _project_data(fine: Any, coarse: Any, factor: int, sigma: float) -> Any:
    if not isinstance(fine, da.Array) and not isinstance(coarse, da.Array):
        return project_tile(fine, coarse, factor, sigma)
    fine, coarse = da.asarray(fine), da.asarray(coarse)
    depth = -(-projection_reach(factor, sigma) // factor)
    spatial = (fine.ndim - 2, fine.ndim - 1)
    coarse = coarse.rechunk(dict(enumerate(fine.chunks[:-2])))
    # A symmetric halo cannot be wider than the scene; one chunk needs none, project_tile continues it itself.
    for axis in spatial:
        sizes = tuple(size // factor for size in fine.chunks[axis]) if _divides(fine.chunks[axis], factor) else ()
        if not sizes or min(sizes) < depth:
            sizes = _at_least(coarse.shape[axis], max(depth, 256))
        coarse = coarse.rechunk({axis: sizes})
        fine = fine.rechunk({axis: tuple(size * factor for size in sizes)})
    depths = [{axis: depth * scale if len(fine.chunks[axis]) > 1 else 0 for axis in spatial} for scale in (factor, 1)]

    def block(fine_block: npt.NDArray[Any], coarse_block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        cut: Any = (..., *(slice(depths[0][axis], fine_block.shape[axis] - depths[0][axis]) for axis in spatial))
        return project_tile(fine_block, coarse_block, factor, sigma)[cut]

    return da.map_overlap(
        block, fine, coarse, depth=depths, boundary=["reflect", "reflect"], trim=False, align_arrays=False,
        allow_rechunk=False, dtype=fine.dtype, chunks=fine.chunks, meta=np.empty((0,) * fine.ndim, fine.dtype),
    )  # fmt: skip


def _divides(sizes: tuple[int, ...], factor: int) -> bool:
    return all(size % factor == 0 for size in sizes)


def _at_least(total: int, size: int) -> tuple[int, ...]:
    count = max(1, total // size)
    return tuple(size if i < count - 1 else total - size * (count - 1) for i in range(count))


def _symmetric(array: Floats, pad: int) -> Floats:
    return np.pad(array, [(0, 0)] * (array.ndim - 2) + [(pad, pad)] * 2, mode="symmetric")


def _correlate(array: Floats, taps: Floats, axis: int) -> Floats:
    """Symmetric taps, symmetric continuation (as often as needed: numpy continues a short scene over and over)."""
    # scipy's "reflect" is numpy's "symmetric".
    return array * taps[0] if len(taps) == 1 else correlate1d(array, taps, axis=axis, mode="reflect")


def _turned(array: Floats) -> Floats:
    return np.ascontiguousarray(array.swapaxes(-1, -2))


def _gathered(padded: Floats, taps: Floats, factor: int) -> Floats:
    """Blur and box along the rows: (..., n * factor + 2 * radius, W) -> (..., n, W), in one product of matrices."""
    windows = sliding_window_view(padded, len(taps), axis=-2)[..., ::factor, :, :].swapaxes(-1, -2)
    answer = np.empty((*windows.shape[:-2], windows.shape[-1]))
    step = ALONE // len(taps)
    for left in range(0, answer.shape[-1], step):
        columns = slice(left, left + step)
        np.matmul(taps, windows[..., columns], out=answer[..., columns])
    return answer


def _spreading(taps: Floats, factor: int) -> Floats:
    """The transpose of blur and box: what (factor) fine rows get of the coarse row they lie in and those around it."""
    radius = radius_of(taps, factor)
    margin = -(-radius // factor)
    matrix = np.zeros((factor, 2 * margin + 1))
    for phase in range(factor):
        for shift in range(-margin, margin + 1):
            k = phase + radius + factor * shift
            if 0 <= k < len(taps):
                matrix[phase, margin - shift] = taps[k]
    return matrix


def _spread(padded: Floats, matrix: Floats) -> Floats:
    """Coarse rows, with those beyond the edge that are seen, to fine rows: (..., n + 2 * margin, W) -> (..., N, W)."""
    windows = sliding_window_view(padded, matrix.shape[1], axis=-2)
    fine = np.matmul(matrix, windows.swapaxes(-1, -2))
    return fine.reshape(*fine.shape[:-3], -1, fine.shape[-1])
