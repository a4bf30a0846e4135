"""Detail injection: high-pass 10 m bands, weighted by least squares that are fitted one scale down.

The band is interpolated, and to it are added the details of the 10 m bands that interpolation would lose. Their weights
are found where the answer is known: the band itself and the degraded 10 m bands are degraded once more, and the details
lost by the band are regressed on those lost by the 10 m bands.

References
----------
[1] Vivone et al., "A critical comparison among pansharpening algorithms", IEEE TGRS 53(5), 2015: the family of
    multiresolution analysis with injection gains, of which this is the regression over several guides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.cube.degradation import degrade_tile, kernel_taps, radius_of
from eosr.errors import MethodError
from eosr.sharpen.classical.bicubic import SUPPORT, bicubic_tile
from eosr.sharpen.classical.passes import Floats, Sums, Tile

#: Ridge of the normal equations, as a share of their mean diagonal: it only decides between guides that are equal.
RIDGE = 1e-9
#: And where no guide has details [DN^2]: digital numbers are whole, so less than this in all pixels is rounding.
NOTHING = 1e-6
#: Fine pixels that a blur may reach, by factor. The widest MTF blur (B11 of Sentinel-2B, B09) reaches 5 and 13.
WIDEST = {2: 5, 6: 18}


@dataclass(frozen=True, kw_only=True)
class DetailInjection:
    """Interpolated band plus weighted details of the four 10 m bands.

    Parameters
    ----------
    factor : int
        2 for the 20 m bands, 6 for the 60 m bands.
    targets : tuple of str
        Bands delivered. Default: all of the factor's group.

    Raises
    ------
    MethodError
        If the factor is another, or (from `check_blur`) a blur reaches further than the halo of the pass.

    Notes
    -----
    The answer does not depend on the tiling, to rounding. Where no 10 m band has details, it is the interpolation.
    """

    factor: int
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.factor not in WIDEST:
            raise MethodError(
                f"detail_injection cannot sharpen by a factor of {self.factor}. Use 2 (20 m) or 6 (60 m bands)."
            )

    @property
    def delivers(self) -> tuple[str, ...]:
        """Bands in the order of the answer."""
        return self.targets or (BANDS_20M if self.factor == 2 else BANDS_60M)

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one pixel of the answer."""
        # Interpolation of degraded guides: the far side of the second coarse pixel, and the blur beyond it.
        return SUPPORT * self.factor + (self.factor - 1) // 2 + WIDEST[self.factor]

    @property
    def passes(self) -> tuple[int, ...]:
        """One pass: the normal equations, at the next coarser scale."""
        return (self.factor * self.reach + WIDEST[self.factor],)

    def check_blur(self, sigma: float) -> None:
        """Refuse a blur that reaches further than the halo of the pass.

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
        widest = WIDEST[self.factor]
        if radius_of(kernel_taps(self.factor, sigma), self.factor) > widest:
            raise MethodError(
                f"a blur of sigma={sigma:g} fine pixels reaches further than the {widest} that detail_injection looks "
                f"around a pixel at factor {self.factor}. Use a sigma of at most {(widest + 0.49) / 4:.2f}, or "
                "method='bicubic'."
            )

    def count(self, index: int, tile: Tile, found: tuple[Any, ...]) -> Sums:
        """Sum the normal equations, per target, over the tile's own pixels."""
        grams, products = [], []
        for band, sigma in zip(tile.coarse, tile.sigma, strict=True):
            self.check_blur(sigma)
            guides = _degraded(tile.fine, self.factor, sigma)
            details = np.stack([_lost(guide, self.factor, sigma, tile.origin)[tile.own] for guide in guides])
            lost = _lost(band, self.factor, sigma, tile.origin)[tile.own]
            grams.append(details @ details.T)
            products.append(details @ lost)
        return {"gram": np.stack(grams), "product": np.stack(products)}

    def solve(self, index: int, total: Sums) -> Any:
        """Weights (targets, guides)."""
        gram = total["gram"]
        ridge = RIDGE * np.trace(gram, axis1=1, axis2=2) / gram.shape[1] + NOTHING
        eye = np.eye(gram.shape[1])
        return np.linalg.solve(gram + ridge[:, None, None] * eye, total["product"][:, :, None])[:, :, 0]

    def sharpen(self, tile: Tile, found: tuple[Any, ...]) -> Floats:
        """Interpolate and add the details."""
        sharp = []
        for band, sigma, weights in zip(tile.coarse, tile.sigma, found[0], strict=True):
            details = np.stack([_lost(guide, self.factor, sigma) for guide in tile.fine])
            sharp.append(bicubic_tile(band, self.factor) + np.tensordot(weights, details, 1))
        return np.stack(sharp).astype(np.float32)


def _degraded(bands: Floats, factor: int, sigma: float) -> Floats:
    taps = kernel_taps(factor, sigma)
    rim = radius_of(taps, factor)
    width = [(0, 0)] * (bands.ndim - 2) + [(rim, rim)] * 2
    return degrade_tile(np.pad(bands.astype(np.float64), width, mode="symmetric"), taps, factor)


def _lost(band: Floats, factor: int, sigma: float, origin: tuple[int, int] = (0, 0)) -> Floats:
    """What a band loses when it is degraded and interpolated again; larger pixels start at multiples of the factor."""
    before = [start % factor for start in origin]
    width = [(start, -(start + size) % factor) for start, size in zip(before, band.shape, strict=True)]
    whole = np.pad(band, width, mode="symmetric")
    lost = whole - bicubic_tile(_degraded(whole, factor, sigma), factor)
    return lost[before[0] : before[0] + band.shape[0], before[1] : before[1] + band.shape[1]]
