"""The pixels of one window that the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eosr.cube.bands import BANDS, check_bands
from eosr.errors import GridError

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Pixels of one window that the page shows [DN, offset applied].

    Every array has the shape (h, w) of one grid; NaN is nodata.

    Raises
    ------
    BandError
        If a name is no band of Sentinel-2.
    GridError
        If an array has another shape than the rest, there is none at all, or the pixel sizes are not positive.
    """

    #: Name of the scene, as in the table.
    scene: str
    #: What is shown, e.g. ``"synthesis, study, 20 m bands"``.
    title: str
    #: Pixel size of these pixels [m].
    gsd: float
    #: Ratio to the pixels the method was given; at native scale that of the coarsest band.
    factor: int
    #: Measured bands on this grid; empty at native scale, where nobody knows the truth.
    truth: Mapping[str, Pixels]
    #: What the methods were given, each band repeated to this grid; 10 m bands as they are.
    before: Mapping[str, Pixels]
    #: Method -> band -> what it made.
    after: Mapping[str, Mapping[str, Pixels]]

    def __post_init__(self) -> None:
        where = f"the exhibit {self.title!r} of {self.scene!r}"
        if not self.gsd > 0 or self.factor < 1:
            raise GridError(
                f"{where} has gsd={self.gsd} and factor={self.factor}. Give metres, e.g. gsd=10.0, and a ratio of 1 "
                "or more, e.g. factor=2."
            )
        shape: tuple[int, ...] | None = None
        for layer, name, pixels in self._layers():
            check_bands([name])
            found = np.shape(pixels)
            shape = found if shape is None else shape
            if len(found) != 2 or found != shape or 0 in found:
                raise GridError(
                    f"{layer}[{name!r}] of {where} has the shape {found} where {shape} or another two lengths above 0 "
                    "are needed. Put every band on one grid (h, w), coarse ones by repeating their pixels."
                )
        if shape is None:
            raise GridError(f"{where} holds no pixels. Give at least before={{'B02': array of (h, w)}}.")

    def _layers(self) -> Iterator[tuple[str, str, Pixels]]:
        for name, pixels in self.truth.items():
            yield "truth", name, pixels
        for name, pixels in self.before.items():
            yield "before", name, pixels
        for method, bands in self.after.items():
            for name, pixels in bands.items():
                yield f"after[{method!r}]", name, pixels

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every array."""
        _, _, pixels = next(self._layers())
        rows, columns = np.shape(pixels)
        return rows, columns

    def given_gsd(self, band: str) -> float:
        """Pixel size at which the methods were given a band they sharpen [m]."""
        # A native exhibit holds bands of 20 m and 60 m side by side, so one factor cannot speak for both.
        return self.gsd * self.factor if self.truth else float(BANDS[band].gsd)

    @property
    def made(self) -> tuple[str, ...]:
        """Bands that at least one method made, in spectral order."""
        found = {name for bands in self.after.values() for name in bands}
        return tuple(name for name in BANDS if name in found)
