"""The one interface of classical methods: passes over the scene that count, then a function of one tile.

What a method estimates from the whole scene (a regression, a variogram, a subspace) is held as sums: each tile counts
its own pixels, the sums are added, and the total is solved for the parameters. So a scene of any size is read tile by
tile, and the parameters do not depend on the tiling. What remains is a function of one tile and those parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Sums = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What a method sees of a scene: bands with halo, gaps already filled [DN, offset applied]."""

    #: (4, H, W): B02 B03 B04 B08.
    fine: Floats
    #: (M, H / 2, W / 2): the 20 m bands beside 60 m targets; None where the targets are the 20 m bands.
    middle: Floats | None
    #: (C, H / factor, W / factor): the bands to sharpen.
    coarse: Floats
    #: Blur between the answer and the measurement, per delivered band [fine pixels].
    sigma: tuple[float, ...]
    #: (h, w) pixels of ``coarse`` that this tile counts: measured in every band, in no halo, in no other tile.
    own: npt.NDArray[np.bool_]
    #: (h, w) pixels of ``coarse`` that are measured: False in gaps, and in a halo that mirrors the scene at its edge.
    scene: npt.NDArray[np.bool_]
    #: Row and column in the scene of the first pixel of ``coarse``; negative in the halo before the scene.
    origin: tuple[int, int] = (0, 0)


class Baseline(Protocol):
    """A classical method for one group of bands: a frozen dataclass of plain values, so that it travels in a graph."""

    #: Pixel-size ratio between the targets and 10 m.
    factor: int

    @property
    def delivers(self) -> tuple[str, ...]:
        """Bands in the order of the answer."""

    @property
    def reach(self) -> int:
        """Fine pixels on each side that can change one pixel of the answer, the parameters apart."""

    @property
    def passes(self) -> tuple[int, ...]:
        """Halo that each counting pass needs [fine pixels]; empty for a method that needs no whole scene."""

    def count(self, index: int, tile: Tile, found: tuple[Any, ...]) -> Sums:
        """Sums over the tile's own pixels for pass ``index``, given the parameters of the passes before."""

    def solve(self, index: int, total: Sums) -> Any:
        """Parameters of pass ``index`` from the sums over the whole scene."""

    def sharpen(self, tile: Tile, found: tuple[Any, ...]) -> Floats:
        """Sharpen one tile, (bands delivered, H, W) [DN], given the parameters of all passes."""


@runtime_checkable
class LimitsBlur(Protocol):
    """What a classical method has besides if it cannot take a blur of any width; asked before anything is computed."""

    def check_blur(self, sigma: float) -> None:
        """Refuse, with a `MethodError`, a blur that reaches further than the method looks [fine pixels]."""


def whole_scene_tile(
    fine: Floats, middle: Floats | None, coarse: Floats, sigma: tuple[float, ...], measured: Any = None
) -> Tile:
    """Return the whole scene as one tile without halo; ``measured`` (h, w) is False in gaps."""
    shape = coarse.shape[-2:]
    there = np.ones(shape, bool) if measured is None else np.asarray(measured, bool)
    return Tile(fine=fine, middle=middle, coarse=coarse, sigma=tuple(sigma), own=there, scene=there)


def sharpen_whole(baseline: Baseline, tile: Tile) -> Floats:
    """Run every pass and sharpen a scene that fits in memory, continued symmetrically by the method's reach."""
    found: tuple[Any, ...] = ()
    for index, halo in enumerate(baseline.passes):
        padded = with_halo(tile, halo, baseline.factor)
        found = (*found, baseline.solve(index, baseline.count(index, padded, found)))
    halo = -(-baseline.reach // 6) * 6
    sharp = baseline.sharpen(with_halo(tile, halo, baseline.factor), found)
    return sharp[:, halo : sharp.shape[1] - halo, halo : sharp.shape[2] - halo]


def with_halo(tile: Tile, halo: int, factor: int) -> Tile:
    """Continue a whole scene symmetrically by ``halo`` fine pixels, rounded up to whole 60 m pixels."""
    halo = -(-halo // 6) * 6

    def grown(bands: Floats, scale: int) -> Floats:
        rim = halo // scale
        return np.pad(bands, ((0, 0), (rim, rim), (rim, rim)), mode="symmetric")

    rim = halo // factor
    own, scene = (np.pad(there, rim, constant_values=False) for there in (tile.own, tile.scene))
    middle = None if tile.middle is None else grown(tile.middle, 2)
    return replace(
        tile, fine=grown(tile.fine, 1), middle=middle, coarse=grown(tile.coarse, factor),
        origin=(tile.origin[0] - rim, tile.origin[1] - rim), own=own, scene=scene,
    )  # fmt: skip
