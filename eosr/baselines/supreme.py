"""SupReME: all bands at once as a few images shared by them, found from every measurement and smooth but at edges.

``X = U Z``: the bands X lie in a subspace U of the scene; the images Z minimise
``1/2 sum_b |A_b (U Z)_b - y_b|^2 + lambda/2 sum_j q_j |W^(1/2) D z_j|^2``, with D the forward differences and W lower
where the 10 m bands have edges.

References
----------
[1] Lanaras, Bioucas-Dias, Baltsavias, Schindler, "Super-resolution of multispectral multiresolution images from a
    single sensor", CVPR Workshops, 2017.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.ndimage import gaussian_filter1d

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M, check_bands
from eosr.baselines.bicubic import SUPPORT, bicubic_tile
from eosr.baselines.passes import Floats, Sums, Tile
from eosr.baselines.supreme_solver import Measured, Sight, minimise
from eosr.degrade import blur_sigma, degrade_tile, kernel_taps, radius_of
from eosr.errors import MethodError

#: Names of the data step (``update``) and of the blur (``psf``).
UPDATES, PSFS = ("exact", "published"), ("matched", "mtf")
#: Weight ``q`` of the differences of each subspace image, the strongest image first; the last one repeats [1].
SMOOTHING = (1.0, 1.5, 4.0, 8.0, 15.0, 15.0, 20.0)
#: Taps of the published kernels, whatever their width: a Gaussian sampled half a pixel off its centre, without box.
PUBLISHED_TAPS = 12
#: A gradient at this quantile of the scene's gradients is an edge; no weight falls below this [1].
EDGE_QUANTILE, LEAST_WEIGHT = 0.95, 0.5
#: Bounds of the histogram of gradients, 1 % apart [share of the root mean square of a band].
GRADIENTS = np.geomspace(1e-6, 1e3, 2083)


class Subspace(NamedTuple):
    """What the first pass finds."""

    #: (bands,): root mean square of every band on its own grid [DN].
    norm: npt.NDArray[np.float64]
    #: (bands, p): orthonormal columns, the strongest first.
    loadings: npt.NDArray[np.float64]


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
    dimension : int
        Images that all bands share; where there are fewer bands, their number.
    regularisation, penalty, iterations
        ``lambda``, ``mu`` and the number of steps of ADMM. The number is fixed: the published stop (residual below
        1e-3) would depend on what else is in the tile.
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

    The subspace is that of the bands at equal blur. For ``psf="matched"`` all are degraded to the coarse grid by the
    operator itself; for ``"mtf"`` they are interpolated and blurred on the fine grid, as published.

    In principle every pixel changes every other. On the kept-out block of the sample scene cut into six tiles,
    with 7 images, the largest (root mean square) difference from the whole scene was 2.4 (0.04), 0.025 (0.0009) and
    0.008 (0.0008) DN for a halo of 6, 12 and 24 pixels at 20 m, and 2.0 (0.03), 0.05 (0.0008) and 0.010 (0.0007) DN
    for 12, 24 and 36 pixels at 60 m with the middle bands; no larger after the projection.
    """

    factor: int
    targets: tuple[str, ...] = ()
    middle: tuple[str, ...] = ()
    dimension: int = 7
    regularisation: float = 0.005
    penalty: float = 0.2
    iterations: int = 100
    update: str = "exact"
    psf: str = "matched"
    fine_sigma: float | None = None

    def __post_init__(self) -> None:
        if self.factor not in (2, 6):
            raise MethodError(f"factor={self.factor} is none of supreme's. Use 2 for the 20 m bands, 6 for the 60 m.")
        for name, known in (("update", UPDATES), ("psf", PSFS)):
            if getattr(self, name) not in known:
                raise MethodError(
                    f"{name}={getattr(self, name)!r} is no option of supreme. Use one of {', '.join(map(repr, known))}."
                )
        for name in ("dimension", "iterations"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise MethodError(f"{name}={value!r} of supreme counts things. Use a whole number from 1 on.")
        for name in ("penalty", "regularisation", "fine_sigma"):
            value = getattr(self, name)
            if value is None and name == "fine_sigma":
                continue
            least, sign = (math.ulp(0.0), "positive") if name == "penalty" else (0.0, "positive or zero")
            if not (math.isfinite(value) and value >= least):
                raise MethodError(f"{name}={value!r} of supreme must be {sign}. The published value is the default.")
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
        """Second moments of the bands at equal blur; then the histogram of the gradients of the 10 m bands."""
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
            return float(GRADIENTS[min(int(np.searchsorted(share, EDGE_QUANTILE)), len(GRADIENTS) - 1)])
        if total["pixels"] == 0:
            raise MethodError("supreme finds no measured pixel to learn from. Choose a scene with pixels free of gaps.")
        norm = np.sqrt(total["squares"] / total["pixels"])
        norm = np.where(norm > 0, norm, 1.0)
        _, vectors = np.linalg.eigh(total["gram"] / np.outer(norm, norm))
        return Subspace(norm, vectors[:, ::-1][:, : self.dimension])

    def sharpen(self, tile: Tile, found: tuple[Any, ...]) -> Floats:
        """Solve the tile, continued symmetrically, for all bands, and return those that are coarse."""
        (norm, loadings), edge = found
        loadings = loadings.astype(np.float32)
        height, width = tile.fine.shape[1:]
        # The transform is fast at products of small primes, and the pixels of all groups must nest.
        whole = (6 * next_fast_len(-(-height // 6), real=True), 6 * next_fast_len(-(-width // 6), real=True))
        groups, first = [], []
        for factor, part, values in self._groups(tile):
            rim = [(0, 0), (0, (whole[0] - height) // factor), (0, (whole[1] - width) // factor)]
            scaled = np.pad((values / norm[part, None, None]).astype(np.float32), rim, mode="symmetric")
            taps = tuple(self._taps(tile.sigma, i) for i in range(part.start, part.stop))
            sight = Sight(factor=factor, shape=whole, taps=taps)
            groups.append(Measured(sight=sight, loadings=loadings[part], values=scaled))
            first.append(np.tensordot(loadings[part].T, _upsampled(scaled, factor), 1))
        edges = np.exp(-0.5 * (_gradient(groups[0].values) / np.float32(edge)) ** 2)
        smoothing = np.array([SMOOTHING[min(j, len(SMOOTHING) - 1)] for j in range(loadings.shape[1])], np.float32)
        strength = np.float32(self.regularisation) * smoothing[:, None, None] * np.maximum(edges, LEAST_WEIGHT)
        images = minimise(
            groups, sum(first[1:], first[0]), strength, penalty=self.penalty, iterations=self.iterations,
            exact=self.update == "exact",
        )  # fmt: skip
        coarse = slice(len(BANDS_10M), None)
        sharp = np.tensordot((loadings[coarse] * norm[coarse, None]).astype(np.float32), images, 1)
        return sharp[:, :height, :width]

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
        equal, squares = [], []
        for factor, part, values in groups:
            measured = _enlarged(tile.own, self.factor // factor)
            for index, band in enumerate(values.astype(np.float64), part.start):
                missing = math.sqrt(widest**2 - self._sigma(tile.sigma, index)[1] ** 2)
                if self.psf == "matched":
                    equal.append(_degraded(band, self.factor // factor, missing / factor)[tile.own])
                else:
                    equal.append(_blurred(_upsampled(band, factor), missing)[own])
                squares.append(factor**2 * np.sum(band[measured] ** 2))
        stack = np.stack(equal)
        return {"gram": stack @ stack.T, "squares": np.array(squares), "pixels": np.array(float(own.sum()))}


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
