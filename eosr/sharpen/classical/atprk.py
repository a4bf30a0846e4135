"""ATPRK: area-to-point regression kriging, a regression on the 10 m bands plus the kriged residual of the regression.

The 10 m bands are upscaled to the coarse grid, the coarse band is regressed on them over the whole scene, and the same
equation predicts it from the 10 m bands on the fine grid. What the prediction misses is known per coarse pixel only.
Area-to-point kriging spreads it: every sub-pixel is a weighted mean of the residuals of 3 x 3 coarse pixels, with
weights that follow from the semivariogram of points and from the point-spread function of a coarse pixel.

References
----------
[1] Wang, Shi, Atkinson, Zhao, "Downscaling MODIS images with area-to-point regression kriging", Remote Sensing of
    Environment 166, 2015.
[2] Wang, Shi, Li, Atkinson, "Fusion of Sentinel-2 images", Remote Sensing of Environment 187, 2016: the two schemes.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Final

import numpy as np

from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.cube.degradation import degrade_tile, kernel_taps, radius_of
from eosr.errors import MethodError
from eosr.sharpen.classical.atprk_variogram import LAGS, WINDOW, Array, Variogram, deconvolve, kriging_weights
from eosr.sharpen.classical.passes import Floats, Sums, Tile

SCHEMES: Final = ("synthesised", "selected")
PSFS: Final = ("matched", "published")

#: Ridge of the normal equations, as a share of the mean variance of the guides: it only decides between equal guides.
RIDGE = 1e-9
#: Rounding left of a variance, as a share of the mean square: a guide that varies less than that is constant.
ROUNDING = 1e-12
#: Least width of a Gaussian [fine pixels]. Its samples lie half a pixel from the centre and on; below 0.013 all are 0.
NARROWEST = 0.02
#: Coarse pixels that a matched blur may reach over. The widest MTF blur (B12, 1.1 / 3.3 fine pixels) reaches 2.5.
WIDEST = 4


@dataclass(frozen=True, kw_only=True)
class Kriging:
    """What the residuals of a scene say about how to spread them."""

    #: (bands, factor ** 2 sub-pixels, 9 coarse pixels).
    weights: Array
    variograms: tuple[Variogram, ...]


@dataclass(frozen=True, kw_only=True)
class Atprk:
    """Regression on the 10 m bands plus area-to-point kriging of its residual; 60 m goes to 10 m in one step.

    Parameters
    ----------
    factor : int
        2 for the 20 m bands, 6 for the 60 m bands.
    targets : tuple of str
        Bands delivered. Default: all of the factor's group.
    scheme : str
        ``"synthesised"``: regression on all four 10 m bands. ``"selected"``: on the one whose correlation with the
        band has the largest magnitude.
    psf : str or float
        Point-spread function of a coarse pixel. ``"matched"``: the degradation itself, Gaussian of the tile's sigma and
        box mean. ``"published"``: a Gaussian of factor / 2 on 3 x 3 coarse pixels. A number: that Gaussian instead
        [fine pixels], from 0.02 on, where it is a mean over the four pixels around the centre.

    Raises
    ------
    MethodError
        If an option has no meaning, or (from `check_blur`) a matched blur reaches further than four coarse pixels.

    Notes
    -----
    Published parameters throughout: 20 lags, a 3 x 3 window, deconvolution on 20 sills (1.1 ... 3 times the areal one)
    x 20 ranges (0.6 ... 2.5 times). Of a small scene, the lags are used that have half as many pairs as the first: up
    to half of its side. The published deconvolution takes a coarse pixel as the mean of its points whatever the
    point-spread function of the kriging; ``"matched"`` takes the degradation in both places.

    The answer does not depend on the tiling, to rounding. Coherence: degraded by the same point-spread function, the
    answer is the measurement exactly if the function ends at the pixel's border (``box``; ``study`` at factor 6), else
    as far as the 3 x 3 window allows: of the regression's residual, 1.1 to 2.4 % (``study`` at 20 m) and 3.7 to 12 %
    (``mtf``) were left on a real scene.
    """

    factor: int
    targets: tuple[str, ...] = ()
    scheme: str = "synthesised"
    psf: str | float = "matched"

    def __post_init__(self) -> None:
        """Stop at an option that has no meaning."""
        if self.factor not in (2, 6):
            raise MethodError(f"ATPRK cannot sharpen by a factor of {self.factor}. Use 2 (20 m) or 6 (60 m bands).")
        if not (isinstance(self.scheme, str) and self.scheme in SCHEMES):
            raise MethodError(f"ATPRK has no scheme {self.scheme!r}. Use one of {', '.join(map(repr, SCHEMES))}.")
        known = self.psf in PSFS if isinstance(self.psf, str) else _is_width(self.psf)
        if not known:
            raise MethodError(
                f"ATPRK has no point-spread function psf={self.psf!r}. Use {' or '.join(map(repr, PSFS))}, or the "
                f"standard deviation of a Gaussian [10 m pixels] from {NARROWEST} on, e.g. psf=0.75."
            )

    @property
    def delivers(self) -> tuple[str, ...]:
        """Bands in the order of the answer."""
        return self.targets or (BANDS_20M if self.factor == 2 else BANDS_60M)

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one pixel of the answer, the parameters apart."""
        return (WINDOW + 1) * self.factor - 1 + self._rim

    @property
    def passes(self) -> tuple[int, ...]:
        """Two passes: the regression sees the point-spread function, the semivariogram 20 coarse pixels more."""
        return (self._rim, self._rim + LAGS * self.factor)

    @property
    def _rim(self) -> int:
        return self.factor * (WIDEST if self.psf == "matched" else WINDOW)

    def check_blur(self, sigma: float) -> None:
        """Refuse a blur that a matched point-spread function would follow over more than four coarse pixels.

        Parameters
        ----------
        sigma : float
            Standard deviation of the Gaussian [fine pixels].

        Raises
        ------
        MethodError
        DegradationError
            If it is no standard deviation.
        """
        if self.psf == "matched" and radius_of(kernel_taps(self.factor, round(sigma, 9)), self.factor) > self._rim:
            raise MethodError(
                f"a blur of sigma={sigma:g} fine pixels reaches over more than {WIDEST} coarse pixels, too far for "
                f"ATPRK's 3 x 3. Use a sigma of at most {(self._rim + 0.49) / 4:.2f}, or psf='published'."
            )

    def count(self, index: int, tile: Tile, found: tuple[Any, ...]) -> Sums:
        """Sum the normal equations (pass 0) or the squared differences of residuals (pass 1) of the own pixels."""
        if index == 0:
            return self._count_moments(tile)
        missed = [
            self._missed(_predicted(line, tile), band, sigma)
            for line, band, sigma in zip(found[0], tile.coarse, tile.sigma, strict=True)
        ]
        sums = _count_pairs(np.stack(missed), tile)
        return {**sums, "sigma": np.asarray(tile.sigma, np.float64), "tiles": np.ones(1)}

    def solve(self, index: int, total: Sums) -> Any:
        """Intercept and slopes (bands, 5) of pass 0; `Kriging` of pass 1."""
        if index == 0:
            return np.stack([_regression(moments, self.scheme) for moments in total["moments"]])
        pairs = total["pairs"]
        gammas = total["squares"] / (2 * np.maximum(pairs, 1))
        weights, variograms = [], []
        for gamma, sigma in zip(gammas, total["sigma"] / total["tiles"], strict=True):
            taps = self._taps(float(sigma))
            pixel = taps if self.psf == "matched" else kernel_taps(self.factor, 0.0)
            variograms.append(deconvolve(gamma, pairs, pixel, self.factor))
            weights.append(kriging_weights(variograms[-1].range, taps, self.factor))
        return Kriging(weights=np.stack(weights), variograms=tuple(variograms))

    def sharpen(self, tile: Tile, found: tuple[Any, ...]) -> Floats:
        """Predict from the 10 m bands, and add the kriged residual."""
        lines, kriging = found
        sharp = np.empty((len(tile.coarse), *tile.fine.shape[1:]), np.float32)
        for k, (line, weights) in enumerate(zip(lines, kriging.weights, strict=True)):
            predicted = _predicted(line, tile)
            missed = self._missed(predicted, tile.coarse[k], tile.sigma[k])
            sharp[k] = predicted + _kriged(missed, weights, self.factor)
        return sharp

    def _taps(self, sigma: float) -> Array:
        """One row of the separable point-spread function of a coarse pixel."""
        if self.psf != "matched":
            size = (2 * WINDOW + 1) * self.factor
            width = self.factor / 2 if isinstance(self.psf, str) else float(self.psf)
            gauss = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / width) ** 2)
            return np.asarray(gauss / gauss.sum())
        self.check_blur(sigma)
        # Rounded, because the second pass recovers the sigma as a mean over tiles.
        return kernel_taps(self.factor, round(sigma, 9))

    def _upscaled(self, fine: Floats, sigma: float) -> Floats:
        """Images (..., H, W) as seen through the point-spread function, (..., h, w)."""
        taps = self._taps(float(sigma))
        rim = radius_of(taps, self.factor)
        width = [(0, 0)] * (fine.ndim - 2) + [(rim, rim)] * 2
        return degrade_tile(np.pad(fine.astype(np.float64), width, mode="symmetric"), taps, self.factor)

    def _missed(self, predicted: Array, band: Floats, sigma: float) -> Array:
        """What the regression misses of a band (h, w)."""
        return np.asarray(band - self._upscaled(predicted, sigma))

    def _count_moments(self, tile: Tile) -> Sums:
        seen = {sigma: self._upscaled(tile.fine, sigma)[:, tile.own] for sigma in set(tile.sigma)}
        moments = []
        for band, sigma in zip(tile.coarse, tile.sigma, strict=True):
            rows = np.stack([np.ones(int(tile.own.sum())), *seen[sigma], band[tile.own].astype(np.float64)])
            moments.append(rows @ rows.T)
        return {"moments": np.stack(moments)}


def _predicted(line: Array, tile: Tile) -> Array:
    return np.asarray(line[0] + np.tensordot(line[1:], tile.fine, 1))


def _is_width(psf: Any) -> bool:
    real = isinstance(psf, Real) and not isinstance(psf, bool)
    # Some upper bound: whole numbers go on where floats end. Such a Gaussian is flat.
    return real and bool(NARROWEST <= psf <= 1e4)


def _regression(moments: Array, scheme: str) -> Array:
    """Intercept and slopes from the sums of products of (1, guides, band)."""
    count = max(moments[0, 0], 1.0)
    means = moments[0, 1:] / count
    spread = moments[1:, 1:] / count - np.outer(means, means)
    squares = np.diag(moments)[1:] / count
    variances = np.diag(spread)
    variances = np.where(variances > ROUNDING * squares, variances, 0.0)
    chosen = np.flatnonzero(variances[:-1])
    if scheme == "selected" and len(chosen):
        strength = spread[chosen, -1] ** 2 / variances[chosen]
        chosen = chosen[[int(np.argmax(strength))]]
    line = np.zeros(len(moments) - 1)
    if len(chosen):
        gram = spread[np.ix_(chosen, chosen)] + RIDGE * variances[chosen].mean() * np.eye(len(chosen))
        line[1 + chosen] = np.linalg.solve(gram, spread[chosen, -1])
    line[0] = means[-1] - line[1:] @ means[:-1]
    return line


def _count_pairs(residuals: Array, tile: Tile) -> Sums:
    """Squared differences (bands, lags) over pairs along rows and columns; a pair is counted by its first pixel."""
    squares = np.zeros((len(residuals), LAGS))
    pairs = np.zeros(LAGS)
    for turned in (False, True):
        images = residuals.transpose(0, 2, 1) if turned else residuals
        own, scene = (mask.T if turned else mask for mask in (tile.own, tile.scene))
        for lag in range(1, min(LAGS, images.shape[1] - 1) + 1):
            both = own[:-lag] & scene[lag:]
            pairs[lag - 1] += both.sum()
            apart = images[:, lag:] - images[:, :-lag]
            squares[:, lag - 1] += np.einsum("bij,bij,ij->b", apart, apart, both.astype(np.float64))
    return {"squares": squares, "pairs": pairs}


def _kriged(residual: Array, weights: Array, factor: int) -> Array:
    """Spread (h, w) over (h * factor, w * factor); the scene is continued symmetrically."""
    size = 2 * WINDOW + 1
    padded = np.pad(residual, WINDOW, mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    fine = np.tensordot(weights.reshape(factor, factor, size, size), windows, ((2, 3), (2, 3)))
    rows, columns = residual.shape
    return np.asarray(fine.transpose(2, 0, 3, 1).reshape(rows * factor, columns * factor))
