"""The ADMM of SupReME in the cosine domain, on one tile continued symmetrically.

A symmetric blur, the box mean over coarse pixels and forward differences act on the cosines of a symmetrically
continued scene one by one: the cosine transform is the Fourier transform of the scene beside its mirror image, at a
quarter of the memory and without circular wrap. Coarse pixels see a fine cosine as the coarse cosine it is aliased to,
so ``A`` is a multiplication followed by a fold, and ``A A^T`` is a multiplication on the coarse grid.

References
----------
[1] Lanaras, Bioucas-Dias, Baltsavias, Schindler, "Super-resolution of multispectral multiresolution images from a
    single sensor", CVPR Workshops, 2017: the problem and its splitting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn, idctn

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Sight:
    """How bands of one pixel size see a fine grid: ``A`` on the cosines of a symmetrically continued tile.

    Parameters
    ----------
    factor : int
        Pixel-size ratio; 1 for bands that are measured on the fine grid.
    shape : tuple of int
        Rows and columns of the fine grid, multiples of ``factor``.
    taps : tuple of arrays
        Per band one symmetric row of length ``factor + 2 * radius``.
    dtype : numpy dtype
        Precision of the gains, float32 or float64.
    """

    factor: int
    shape: tuple[int, int]
    taps: tuple[npt.NDArray[np.float64], ...]
    dtype: Any = np.float32

    @property
    def sharp(self) -> bool:
        """Whether ``A`` is the identity."""
        return self.factor == 1 and all(len(t) == 1 for t in self.taps)

    @cached_property
    def gains(self) -> tuple[Floats, Floats]:
        """(bands, H) and (bands, W): what each fine cosine gives to the coarse one it is aliased to."""
        rows, columns = (np.stack([_gain(t, size, self.factor) for t in self.taps]) for size in self.shape)
        return rows.astype(self.dtype), columns.astype(self.dtype)

    @cached_property
    def gram(self) -> Floats:
        """``A A^T`` on the cosines of the coarse grid (bands, h, w)."""
        rows, columns = (_fold(g**2, self.factor, 1) for g in self.gains)
        return rows[:, :, None] * columns[:, None, :]

    def look(self, fine: Floats) -> Floats:
        """``A``: cosines of the fine grid (bands, H, W) to those of the coarse grid (bands, h, w)."""
        if self.sharp:
            return fine
        rows = _fold(fine * self.gains[0][:, :, None], self.factor, 1)
        rows *= self.gains[1][:, None, :]
        return _fold(rows, self.factor, 2)

    def spread(self, coarse: Floats) -> Floats:
        """``A^T``: the transpose of `look`."""
        if self.sharp:
            return coarse
        columns = _unfold(coarse, self.factor, 2)
        columns *= self.gains[1][:, None, :]
        fine = _unfold(columns, self.factor, 1)
        fine *= self.gains[0][:, :, None]
        return fine

    def published_damping(self, penalty: float) -> Floats:
        """``|F|^2 * tile(1 / (d^2 + fold|F|^2 / mu)) / mu`` on every fine frequency (bands, H, W).

        The published update multiplies by this where the exact one folds, multiplies and tiles.
        """
        (power_y, fold_y), (power_x, fold_x) = (
            (
                np.stack([_power(t, size, self.factor)[0] for t in self.taps]),
                np.stack([_power(t, size, self.factor)[1] for t in self.taps]),
            )
            for size in self.shape
        )
        power = power_y[:, :, None] * power_x[:, None, :]
        folded = fold_y[:, :, None] * fold_x[:, None, :]
        return (power / (penalty * self.factor**2 + folded)).astype(self.dtype)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Bands of one pixel size: their measurement, and their rows of the subspace."""

    sight: Sight
    #: (bands, p).
    loadings: Floats
    #: (bands, h, w), normalised.
    values: Floats


def solve_exactly(sight: Sight, nu: Floats, values: Floats, penalty: float) -> Floats:
    """Minimise ``|A v - y|^2 + mu |v - nu|^2`` over ``v``; all on cosines, ``nu`` (bands, H, W), ``y`` (bands, h, w).

    ``v = nu + A^T (mu + A A^T)^-1 (y - A nu)``: the folded Woodbury form.
    """
    return nu + sight.spread((values - sight.look(nu)) / (penalty + sight.gram))


def solve_as_published(sight: Sight, nu: Floats, values: Floats, penalty: float) -> Floats:
    """The published approximation of `solve_exactly`: the alias coupling of the inverse is dropped."""
    known = sight.spread(values) / penalty + nu
    return known - sight.published_damping(penalty) * known


class _Exact:
    """Data step of one group. The dual lies in the range of ``A^T``, so only its coarse image ``w`` is kept."""

    def __init__(self, measured: Measured, penalty: float) -> None:
        self._m = measured
        self._values = cosines(measured.values)
        gram = np.ones((), measured.values.dtype) if measured.sight.sharp else measured.sight.gram
        self._gram = gram
        self._scale = 1 / (penalty + gram)
        self._w = np.zeros_like(self._values)

    def step(self, subspace: Floats) -> Floats:
        """``U^T (v + d - U Z)`` for the cosines of Z, after the update of v and d."""
        new = self._gram * self._w
        new += self._values
        new -= self._m.sight.look(_mix(self._m.loadings, subspace))
        new *= self._scale
        # v + d - U Z = 2 d_new - d_old.
        self._w *= -1
        self._w += 2 * new
        answer = _mix(self._m.loadings.T, self._m.sight.spread(self._w))
        self._w = new
        return answer


class _Published:
    """Data step of one group with the published update; the dual is kept on the fine grid."""

    def __init__(self, measured: Measured, penalty: float) -> None:
        self._m = measured
        self._known = measured.sight.spread(cosines(measured.values)) / penalty
        self._damping = measured.sight.published_damping(penalty)
        self._dual = np.zeros_like(self._known)

    def step(self, subspace: Floats) -> Floats:
        """``U^T (v + d - U Z)`` for the cosines of Z, after the update of v and d."""
        seen = _mix(self._m.loadings, subspace)
        nu = seen - self._dual
        known = self._known + nu
        v = known - self._damping * known
        self._dual = v - nu
        return _mix(self._m.loadings.T, v + self._dual - seen)


class _Smooth:
    """Both difference steps of every subspace image: ``v = mu (D z - d) / (mu + lambda q w)``."""

    def __init__(self, strength: Floats, penalty: float) -> None:
        #: d_new = (v - nu) = shrink * nu.
        self._shrink = -strength / (penalty + strength)
        self._dual = [np.zeros_like(strength), np.zeros_like(strength)]

    def step(self, images: Floats) -> Floats:
        """``D^T (v + d)`` over both directions for the images (p, H, W)."""
        answer = np.zeros_like(images)
        for i, image in enumerate(images):
            for axis in (0, 1):
                dual = self._dual[axis][i]
                ahead = _cut(axis, 1, None)
                behind = _cut(axis, None, -1)
                nu = image[ahead] - image[behind]
                nu -= dual[behind]
                dual = dual[behind]
                np.multiply(nu, self._shrink[i][behind], out=dual)
                # v + d = nu + 2 (v - nu).
                nu += dual
                nu += dual
                answer[i][ahead] += nu
                answer[i][behind] -= nu
        return answer


def minimise(
    groups: list[Measured], start: Floats, strength: Floats, *, penalty: float, iterations: int, exact: bool
) -> Floats:
    """Subspace images Z (p, H, W) after a fixed number of iterations of ADMM.

    Parameters
    ----------
    groups : list of Measured
        Bands by pixel size; the union of their loadings has orthonormal columns.
    start : ndarray (p, H, W)
        First guess.
    strength : ndarray (p, H, W)
        ``lambda q_j w``: weight of the squared forward differences.
    penalty : float
        ``mu``.
    iterations : int
        Steps; the number is fixed, so that a tile is not stopped by what it holds.
    exact : bool
        Solve the data step exactly, or by the published approximation.
    """
    data = [(_Exact if exact else _Published)(group, penalty) for group in groups]
    smooth = _Smooth(strength, penalty)
    denominator = _denominator(start.shape[1:], start.dtype)
    images, spectrum = start, cosines(start)
    for _ in range(iterations):
        spectrum = sum((step.step(spectrum) for step in data), spectrum)
        spectrum += dctn(smooth.step(images), axes=(1, 2), norm="ortho", overwrite_x=True, workers=1)
        spectrum /= denominator
        images = idctn(spectrum, axes=(1, 2), norm="ortho", workers=1)
    return images


def cosines(images: Floats) -> Floats:
    """Orthonormal DCT-II over the last two axes."""
    return dctn(images, axes=(-2, -1), norm="ortho", workers=1)


def _denominator(shape: tuple[int, ...], dtype: Any) -> Floats:
    """``1 + |F_h|^2 + |F_v|^2`` of forward differences that end at the border."""
    rows, columns = (2 - 2 * np.cos(np.pi * np.arange(size) / size) for size in shape)
    return (1 + rows[:, None] + columns[None, :]).astype(dtype)


def _cut(axis: int, start: int | None, stop: int | None) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if i == axis else slice(None) for i in range(2))


def _mix(matrix: Floats, planes: Floats) -> Floats:
    return (matrix @ planes.reshape(len(planes), -1)).reshape(len(matrix), *planes.shape[1:])


def _response(taps: Floats, frequency: Floats) -> Floats:
    """Transfer function of symmetric taps at ``frequency`` [cycles per fine pixel]."""
    offsets = np.arange(len(taps)) - (len(taps) - 1) / 2
    return np.cos(2 * np.pi * np.outer(frequency, offsets)) @ taps


def _gain(taps: Floats, size: int, factor: int) -> Floats:
    k = np.arange(size)
    coarse = size // factor
    nearest = (k + coarse) // (2 * coarse)
    alias = np.abs(k - 2 * coarse * nearest)
    sign = np.where(nearest % 2, -1.0, 1.0)
    # An orthonormal cosine is sqrt(2 / size) high, the constant sqrt(1 / size).
    height = np.where((alias == 0) & (k > 0), np.sqrt(2.0), 1.0) / np.sqrt(factor)
    # The cosine at the coarse Nyquist frequency is zero at every coarse pixel.
    seen = (alias < coarse) | (factor == 1)
    return np.where(seen, sign * height * _response(taps, k / (2 * size)), 0.0)


def _power(taps: Floats, size: int, factor: int) -> tuple[Floats, Floats]:
    """Power of every fine frequency, and its sum over the aliases of the Fourier transform."""
    frequency = np.arange(size) / (2 * size)
    power = [_response(taps, frequency + i / factor) ** 2 for i in range(factor)]
    return power[0], np.sum(power, axis=0)


def _fold(fine: Floats, factor: int, axis: int) -> Floats:
    """Sum the fine cosines that are one coarse cosine: they run to the coarse Nyquist frequency, back, and on."""
    count = fine.shape[axis] // factor
    there, back, beyond = (_along(fine.ndim, axis, s) for s in _runs(count))
    coarse = fine[there].copy()
    for segment in range(1, factor):
        part = fine[_along(fine.ndim, axis, slice(segment * count, (segment + 1) * count))]
        if segment % 2:
            coarse[beyond] += part[back]
        else:
            coarse += part
    return coarse


def _unfold(coarse: Floats, factor: int, axis: int) -> Floats:
    """The transpose of `_fold`."""
    count = coarse.shape[axis]
    shape = list(coarse.shape)
    shape[axis] = count * factor
    fine = np.zeros(shape, coarse.dtype)
    _, back, beyond = (_along(coarse.ndim, axis, s) for s in _runs(count))
    for segment in range(factor):
        part = fine[_along(coarse.ndim, axis, slice(segment * count, (segment + 1) * count))]
        if segment % 2:
            part[back] = coarse[beyond]
        else:
            part[...] = coarse
    return fine


def _runs(count: int) -> tuple[slice, slice, slice]:
    return slice(0, count), slice(count - 1, 0, -1), slice(1, count)


def _along(ndim: int, axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if i == axis else slice(None) for i in range(ndim))
