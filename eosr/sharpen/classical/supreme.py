"""SupReME: all bands at once as a few images shared by them, found from every measurement and smooth but at edges.

``X = U Z``: the bands X lie in a subspace U of the scene; the images Z minimise
``1/2 sum_b |A_b (U Z)_b - y_b|^2 + lambda/2 sum_j q_j |W^(1/2) D z_j|^2``, with D the forward differences and W lower
where the 10 m bands have edges.

As published, U spans the bands' values and q is a fixed list. But the penalty speaks of differences: it is the prior
that they are Gaussian with covariance ``U diag(1 / q) U^T``. So by default U and q are those of the differences of the
scene itself, one scale down, where all bands are known at equal blur, and the bands are centred.

References
----------
[1] Lanaras, Bioucas-Dias, Baltsavias, Schindler, "Super-resolution of multispectral multiresolution images from a
    single sensor", CVPR Workshops, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter1d

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M, check_bands
from eosr.cube.degradation import blur_sigma, degrade_tile, kernel_taps, radius_of
from eosr.errors import MethodError
from eosr.sharpen.classical.bicubic import SUPPORT, bicubic_tile
from eosr.sharpen.classical.passes import Floats, Sums, Tile
from eosr.sharpen.classical.supreme_solver import Measured, Sight, minimise

#: Names of the data step (``update``) and of the blur (``psf``).
UPDATES, PSFS = ("exact", "published"), ("matched", "mtf")
#: Names of the origin of U, q and the weights of edges (``prior``).
PRIORS = ("scene", "published")
#: By prior: images that all bands share, ``lambda``, quantile of the scene's gradients that counts as an edge, and what
#: no weight falls below. Those of "published" are [1]'s. Those of "scene", and the two constants below, were chosen on
#: the training part of the sample scene and on training patches, under all four operators at 20 m and 60 m.
DIMENSION = {"scene": 8, "published": 7}
REGULARISATION = {"scene": 0.002, "published": 0.005}
EDGE_QUANTILE = {"scene": 0.5, "published": 0.95}
LEAST_WEIGHT = {"scene": 0.35, "published": 0.5}
#: Weight ``q`` of the differences of each subspace image, the strongest image first; the last one repeats [1].
SMOOTHING = (1.0, 1.5, 4.0, 8.0, 15.0, 15.0, 20.0)
#: ``q = (v_1 / v_j)^TEMPER`` for the variance ``v_j`` of the differences of image j. With 1 it would be the prior in
#: full, which trusts that the coarse scale tells the finer one. No variance is taken for less than FAINT of the first.
TEMPER, FAINT = 0.6, 1e-5
#: Taps of the published kernels, whatever their width: a Gaussian sampled half a pixel off its centre, without box.
PUBLISHED_TAPS = 12
#: Bounds of the histogram of gradients, 1 % apart [share of the root mean square of a band].
GRADIENTS = np.geomspace(1e-6, 1e3, 2083)


class Subspace(NamedTuple):
    """What the first pass finds."""

    #: (bands,): root mean square of every band on its own grid [DN].
    norm: npt.NDArray[np.float64]
    #: (bands,): what is taken off every band first [DN]: its mean, which no difference knows of; 0 as published.
    mean: npt.NDArray[np.float64]
    #: (bands, p): orthonormal columns, the strongest first.
    loadings: npt.NDArray[np.float64]
    #: (p,): weight ``q`` of the differences of each image [1].
    smoothing: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Supreme:
    """One inverse problem for all bands of a scene, solved tile by tile by ADMM.

    Parameters
    ----------
    factor : int
        2: the 20 m bands. 6: the 60 m bands, together with those of ``middle``.
    targets : tuple of str
        Bands of ``tile.coarse``; default all of the factor.
    middle : tuple of str
        20 m bands of ``tile.middle`` that are sharpened beside 60 m targets; () leaves them out of the problem.
    prior : str
        ``"scene"``: U and q from the differences of the scene one scale down. ``"published"``: U from the bands' values
        and the published q, p, lambda and weights of edges.
    dimension : int, optional
        Images that all bands share; where there are fewer bands, their number. Default: 8, with the published prior 7.
    regularisation : float, optional
        ``lambda``. Default: 0.002, with the published prior 0.005.
    penalty, iterations
        ``mu`` and the number of steps of ADMM. The number is fixed: the published stop (residual below 1e-3) would
        depend on what else is in the tile.
    update : str
        ``"exact"`` solves the data step. ``"published"`` drops the coupling of aliases in its inverse, as the
        published code does; it is a stand-in for the published rows only.
    psf : str
        ``"matched"``: blur of ``tile.sigma`` and box, the operator of `eosr.degrade`. ``"mtf"``: the published
        kernels, a Gaussian from each band's MTF (Sentinel-2A) without box.
    fine_sigma : float, optional
        Gaussian blur of the 10 m bands themselves [fine pixels]; 0, as published, takes them for sharp. Default: as
        much of their pixel as the coarse bands are blurred of theirs (0.25 under ``study``, about 0.5 under ``mtf``),
        for one instrument takes both, and Wald's protocol degrades both; 0 with ``psf="mtf"``, as published.

    Raises
    ------
    MethodError
        If an option has no meaning.

    Notes
    -----
    ``tile.sigma`` holds one entry per delivered band, those of ``middle`` first [fine pixels].

    The subspace is that of the bands at equal blur, or of their differences. For ``psf="matched"`` all are degraded to
    the coarse grid by the operator itself; for ``"mtf"`` they are interpolated and blurred on the fine grid, as
    published.

    In principle every pixel changes every other. On the kept-out block of the sample scene cut into tiles of 432 px the
    largest (root mean square) difference from the whole scene was 0.013 (0.0014) DN at 20 m and 0.005 (0.0007) DN at
    60 m, solved together, and 0.021 (0.002) DN at 20 m without 60 m bands.
    """

    factor: int
    targets: tuple[str, ...] = ()
    middle: tuple[str, ...] = ()
    prior: str = "scene"
    dimension: int | None = None
    regularisation: float | None = None
    penalty: float = 0.2
    iterations: int = 100
    update: str = "exact"
    psf: str = "matched"
    fine_sigma: float | None = None

    def __post_init__(self) -> None:
        if self.factor not in (2, 6):
            raise MethodError(f"factor={self.factor} is none of supreme's. Use 2 for the 20 m bands, 6 for the 60 m.")
        for name, known in (("prior", PRIORS), ("update", UPDATES), ("psf", PSFS)):
            if getattr(self, name) not in known:
                raise MethodError(
                    f"{name}={getattr(self, name)!r} is no option of supreme. Use one of {', '.join(map(repr, known))}."
                )
        most = len((*BANDS_10M, *BANDS_20M, *BANDS_60M))
        for name, ends in (("dimension", f"from 1 to {most}, the number of bands"), ("iterations", "from 1 on")):
            value = getattr(self, name)
            if value is None and name == "dimension":
                continue
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not whole or value < 1 or (name == "dimension" and value > most):
                raise MethodError(f"{name}={value!r} of supreme counts things. Use a whole number {ends}.")
        for name in ("penalty", "regularisation", "fine_sigma"):
            value = getattr(self, name)
            if value is None and name != "penalty":
                continue
            least, sign = (math.ulp(0.0), "positive") if name == "penalty" else (0.0, "positive or zero")
            number = isinstance(value, Real) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= least):
                raise MethodError(
                    f"{name}={value!r} of supreme must be a number, {sign}. Leave it out for the default."
                )
        self._check_bands()

    def _check_bands(self) -> None:
        check_bands(self.middle + self.targets)
        own = BANDS_20M if self.factor == 2 else BANDS_60M
        beside = BANDS_20M if self.factor == 6 else ()
        for name, bands, known in (("targets", self.targets, own), ("middle", self.middle, beside)):
            wrong = [band for band in bands if band not in known]
            if wrong:
                raise MethodError(
                    f"supreme at factor={self.factor} cannot have {', '.join(wrong)} in {name}. Use {name}={known!r}"
                    + (" or some of them." if known else ".")
                )

    @property
    def delivers(self) -> tuple[str, ...]:
        """Bands in the order of the answer: those of ``middle``, then the targets."""
        return self.middle + (self.targets or (BANDS_20M if self.factor == 2 else BANDS_60M))

    @property
    def reach(self) -> int:
        """Fine pixels of halo; beyond it the scene changes the answer by as little as the class says."""
        return 24 if self.factor == 2 else 36

    @property
    def passes(self) -> tuple[int, ...]:
        """Two: norms and subspace (interpolation or blur), then the gradient of an edge (the next pixel)."""
        return (self.factor * (SUPPORT + 4), 6)

    def count(self, index: int, tile: Tile, found: tuple[Any, ...]) -> Sums:
        """Second moments of the bands at equal blur, or of their differences; then the histogram of the gradients."""
        own = _enlarged(tile.own, self.factor)
        if index == 0:
            return self._count_moments(tile, own)
        gradient = _gradient(tile.fine / found[0].norm[: len(BANDS_10M), None, None])[own]
        counts = np.bincount(np.searchsorted(GRADIENTS, gradient), minlength=len(GRADIENTS) + 1)
        return {"histogram": counts.astype(np.float64)}

    def solve(self, index: int, total: Sums) -> Any:
        """A `Subspace`; then the gradient that counts as an edge.

        Raises
        ------
        MethodError
            If no pixel of the scene is measured.
        """
        if index == 1:
            share = np.cumsum(total["histogram"]) / total["histogram"].sum()
            place = int(np.searchsorted(share, EDGE_QUANTILE[self.prior]))
            return float(GRADIENTS[min(place, len(GRADIENTS) - 1)])
        if total["pixels"] == 0:
            raise MethodError("supreme finds no measured pixel to learn from. Choose a scene with pixels free of gaps.")
        norm = np.sqrt(total["squares"] / total["pixels"])
        norm = np.where(norm > 0, norm, 1.0)
        values, vectors = np.linalg.eigh(total["gram"] / np.outer(norm, norm))
        images = DIMENSION[self.prior] if self.dimension is None else self.dimension
        loadings = vectors[:, ::-1][:, :images]
        mean = total["sums"] / total["pixels"] if self.prior == "scene" else np.zeros_like(norm)
        return Subspace(norm, mean, loadings, self._smoothing(values[::-1][: loadings.shape[1]]))

    def _smoothing(self, variances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``q`` of every image, the strongest first, from the variances of their differences."""
        if self.prior == "published":
            return np.array([SMOOTHING[min(j, len(SMOOTHING) - 1)] for j in range(len(variances))])
        if variances[0] <= 0:  # nothing differs anywhere
            return np.ones(len(variances))
        return np.asarray((1 / np.maximum(variances / variances[0], FAINT)) ** TEMPER)

    def sharpen(self, tile: Tile, found: tuple[Any, ...]) -> Floats:
        """Solve the tile, continued symmetrically, for all bands, and return those that are coarse."""
        (norm, mean, loadings, smoothing), edge = found
        loadings = loadings.astype(np.float32)
        height, width = tile.fine.shape[1:]
        # The transform is fast at products of small primes, and the pixels of all groups must nest.
        whole = (6 * next_fast_len(-(-height // 6), real=True), 6 * next_fast_len(-(-width // 6), real=True))
        groups, first = [], []
        for factor, part, values in self._groups(tile):
            rim = [(0, 0), (0, (whole[0] - height) // factor), (0, (whole[1] - width) // factor)]
            centred = values - mean[part, None, None]
            scaled = np.pad((centred / norm[part, None, None]).astype(np.float32), rim, mode="symmetric")
            taps = tuple(self._taps(tile.sigma, i) for i in range(part.start, part.stop))
            sight = Sight(factor=factor, shape=whole, taps=taps)
            groups.append(Measured(sight=sight, loadings=loadings[part], values=scaled))
            first.append(np.tensordot(loadings[part].T, _upsampled(scaled, factor), 1))
        edges = np.exp(-0.5 * (_gradient(groups[0].values) / np.float32(edge)) ** 2)
        strictness = REGULARISATION[self.prior] if self.regularisation is None else self.regularisation
        weights = np.float32(strictness) * smoothing.astype(np.float32)
        strength = weights[:, None, None] * np.maximum(edges, np.float32(LEAST_WEIGHT[self.prior]))
        images = minimise(
            groups, sum(first[1:], first[0]), strength, penalty=self.penalty, iterations=self.iterations,
            exact=self.update == "exact",
        )  # fmt: skip
        coarse = slice(len(BANDS_10M), None)
        sharp = np.tensordot((loadings[coarse] * norm[coarse, None]).astype(np.float32), images, 1)
        return sharp[:, :height, :width] + mean[coarse, None, None].astype(np.float32)

    def _groups(self, tile: Tile) -> Iterator[tuple[int, slice, Floats]]:
        """Factor, place among all bands, and values of every group of bands."""
        groups = [(1, tile.fine)]
        if self.middle:
            if tile.middle is None:
                raise MethodError("supreme was given no 20 m bands to solve beside the 60 m ones. Use middle=().")
            groups.append((2, tile.middle))
        first = 0
        for factor, values in [*groups, (self.factor, tile.coarse)]:
            yield factor, slice(first, first + len(values)), values
            first += len(values)

    def _sigma(self, sigma: tuple[float, ...], index: int) -> tuple[int, float]:
        """Pixel-size ratio and Gaussian [fine pixels] of one of all bands."""
        delivered = index - len(BANDS_10M)
        if delivered < 0:
            return 1, self._fine_blur(sigma)
        factor = 2 if delivered < len(self.middle) else self.factor
        if self.psf == "matched":
            return factor, sigma[delivered]
        return factor, blur_sigma(self.delivers[delivered], factor, "mtf")

    def _fine_blur(self, sigma: tuple[float, ...]) -> float:
        """Gaussian of the 10 m bands [fine pixels]."""
        if self.fine_sigma is not None:
            return self.fine_sigma
        if self.psf == "mtf":
            return 0.0
        factors = [2] * len(self.middle) + [self.factor] * (len(sigma) - len(self.middle))
        return sum(width / factor for width, factor in zip(sigma, factors, strict=True)) / len(sigma)

    def _taps(self, sigma: tuple[float, ...], index: int) -> npt.NDArray[np.float64]:
        factor, width = self._sigma(sigma, index)
        if factor == 1 or self.psf == "matched":
            return kernel_taps(factor, width)
        return published_taps(self.delivers[index - len(BANDS_10M)], factor)

    def _count_moments(self, tile: Tile, own: npt.NDArray[np.bool_]) -> Sums:
        groups = list(self._groups(tile))
        widest = max(self._sigma(tile.sigma, i)[1] for i in range(groups[-1][1].stop))
        equal, sums, squares = [], [], []
        for factor, part, values in groups:
            measured = _enlarged(tile.own, self.factor // factor)
            for index, band in enumerate(values.astype(np.float64), part.start):
                missing = math.sqrt(widest**2 - self._sigma(tile.sigma, index)[1] ** 2)
                if self.psf == "matched":
                    equal.append(_degraded(band, self.factor // factor, missing / factor))
                else:
                    equal.append(_blurred(_upsampled(band, factor), missing))
                sums.append(factor**2 * np.sum(band[measured]))
                squares.append(factor**2 * np.sum(band[measured] ** 2))
        stack = np.stack(equal)
        mine, there = (tile.own, tile.scene) if self.psf == "matched" else (own, _enlarged(tile.scene, self.factor))
        gram = _gram_of_values(stack, mine) if self.prior == "published" else _gram_of_differences(stack, mine, there)
        found = {"gram": gram, "sums": np.array(sums), "squares": np.array(squares)}
        return {**found, "pixels": np.array(float(own.sum()))}


def _gram_of_values(stack: Floats, own: npt.NDArray[np.bool_]) -> Floats:
    values = stack[:, own]
    return values @ values.T


def _gram_of_differences(stack: Floats, own: npt.NDArray[np.bool_], there: npt.NDArray[np.bool_]) -> Floats:
    """Sum over own pixels and both directions; the next pixel may be another tile's, but must be measured."""
    gram = np.zeros((len(stack), len(stack)))
    for axis in (1, 2):
        lines = np.moveaxis(stack, axis, 1)
        count = np.moveaxis(own, axis - 1, 0)[:-1] & np.moveaxis(there, axis - 1, 0)[1:]
        steps = (lines[:, 1:] - lines[:, :-1])[:, count]
        gram += steps @ steps.T
    return gram


def published_taps(band: str, factor: int) -> npt.NDArray[np.float64]:
    """One row of the published kernel of a band: 12 taps of the Gaussian of its MTF (Sentinel-2A), without box [1].

    Parameters
    ----------
    band : str
        Band name.
    factor : int
        Pixel-size ratio. For an even one the centre of a coarse pixel lies between two fine ones, and so does this.

    Raises
    ------
    BandError, DegradationError
        If the band has no MTF, or the factor is no whole number from 1 on.
    """
    offsets = np.arange(PUBLISHED_TAPS) - (PUBLISHED_TAPS - 1) / 2
    taps = np.exp(-0.5 * (offsets / blur_sigma(band, factor, "mtf")) ** 2)
    return taps / taps.sum()


def _degraded(band: Floats, factor: int, sigma: float) -> Floats:
    taps = kernel_taps(factor, sigma)
    return degrade_tile(np.pad(band, radius_of(taps, factor), mode="symmetric"), taps, factor)


def _blurred(band: Floats, sigma: float) -> Floats:
    return gaussian_filter1d(gaussian_filter1d(band, sigma, axis=0), sigma, axis=1) if sigma else band


def _enlarged(mask: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.bool_]:
    return mask.repeat(factor, 0).repeat(factor, 1)


def _upsampled(bands: Floats, factor: int) -> Floats:
    return bands if factor == 1 else bicubic_tile(bands, factor)


def _gradient(fine: Floats) -> Floats:
    """Largest gradient of all bands (H, W), by forward differences that are zero at the end."""
    rows = np.diff(fine, axis=1, append=fine[:, -1:])
    columns = np.diff(fine, axis=2, append=fine[:, :, -1:])
    return np.sqrt(np.max(rows**2 + columns**2, axis=0))
