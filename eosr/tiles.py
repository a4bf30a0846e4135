"""What a worker does with one tile: fill gaps, sharpen, project, cut, mark nodata and saturation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eosr.bands import NODATA, SATURATED
from eosr.consistency import project_tile
from eosr.degrade import as_float_with_nan
from eosr.gaps import fill_gaps
from eosr.methods import Method

#: Fine pixels of the halo are a multiple of the 60 m pixel.
STEP: Final = 6


@dataclass(frozen=True, kw_only=True)
class TileTask:
    """Everything a worker needs besides the pixels of one group of bands."""

    method: Method
    #: Blur per target [fine pixels].
    sigma: tuple[float, ...]
    #: Halo around a tile that the method and the projection need [fine pixels].
    depth: int
    #: More halo, that only the filling of gaps needs [fine pixels].
    margin: int
    consistency: bool
    dtype: str
    #: Added to digital numbers to get 1e4 x reflectance [DN].
    offset: float = 0.0
    #: Number of tiles along y and x, to know which edges of a tile are edges of the scene.
    tiles: tuple[int, int] = (1, 1)

    @property
    def halo(self) -> int:
        """Fine pixels on each side of a tile that are read."""
        return self.depth + self.margin

    def __call__(self, *arrays: npt.NDArray[Any], block_id: tuple[int, ...] = (0, 0, 0, 0)) -> npt.NDArray[Any]:
        """Sharpen (1, bands, H, W) of 10 m, [20 m,] coarse with halo to (1, targets, ...) without."""
        s = self.method.factor
        scales = (1, 2, s) if len(arrays) == 3 else (1, s)
        saturated = [array[0] == SATURATED for array in arrays]
        with_nan = [as_float_with_nan(array[0]) + np.float32(self.offset) for array in arrays]
        # A saturated pixel says "at least": taken at its word, it would pull its neighbours below zero.
        usable = [_without(lost, a) for lost, a in zip(saturated, with_nan, strict=True)]
        filled = [_cut(fill_gaps(a, np.isfinite(a)), self.margin // k) for a, k in zip(usable, scales, strict=True)]
        fine, *middle, coarse = (_cut(a, self.margin // k) for a, k in zip(with_nan, scales, strict=True))
        whole = [_whole_steps(a, fine.shape, k) for a, k in zip(filled, scales, strict=True)]
        sharp = self.method(whole[0], whole[1] if middle else None, whole[-1], self.sigma)
        sharp = np.ascontiguousarray(sharp[:, : fine.shape[1], : fine.shape[2]])
        if self.consistency:
            self._mirror_edges(sharp, block_id)
            conditions = _cut(usable[-1], self.margin // s)
            for i, sigma in enumerate(self.sigma):
                sharp[i] = project_tile(sharp[i], conditions[i], s, sigma)
        valid = np.isfinite(fine).all(axis=0) & _enlarged(np.isfinite(coarse), s)
        if middle:
            valid &= _enlarged(np.isfinite(middle[0]).all(axis=0), 2)
        sharp = _cut(sharp, self.depth) - np.float32(self.offset)
        answer = as_dtype(sharp, _cut(valid, self.depth), self.dtype)
        lost = _enlarged(_cut(saturated[-1], self.halo // s), s)
        return np.where(lost & _cut(valid, self.depth), answer.dtype.type(SATURATED), answer)[None]

    def _mirror_edges(self, sharp: npt.NDArray[np.float32], block_id: tuple[int, ...]) -> None:
        """Beyond the edge of the scene put the mirror image of the answer; in place.

        There the network has seen mirrored input, but its answer is no mirror image, and `eosr.degrade` continues the
        answer symmetrically: without this the edge pixels would miss the measurement by a few digital numbers.
        """
        d = self.depth
        for axis, index, count in zip((1, 2), block_id[-2:], self.tiles, strict=True):
            lines = np.moveaxis(sharp, axis, 0)
            if index == 0:
                lines[:d] = lines[d : 2 * d][::-1]
            if index == count - 1:
                lines[-d:] = lines[-2 * d : -d][::-1]


def _without(lost: npt.NDArray[np.bool_], bands: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.where(lost, np.float32(np.nan), bands) if lost.any() else bands


def _cut(array: npt.NDArray[Any], rim: int) -> npt.NDArray[Any]:
    return array[..., rim : array.shape[-2] - rim, rim : array.shape[-1] - rim]


def _enlarged(valid: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.bool_]:
    return valid.repeat(factor, axis=-2).repeat(factor, axis=-1)


def as_dtype(bands: npt.NDArray[Any], valid: npt.NDArray[np.bool_], dtype: str) -> npt.NDArray[Any]:
    """Digital numbers as ``"float32"`` (NaN is nodata) or ``"uint16"`` (0 is nodata, valid ones at least 1)."""
    if dtype == "float32":
        return np.where(valid, bands, np.float32(np.nan)).astype(np.float32)
    # A valid pixel must not become nodata by rounding, nor wrap around.
    digital = np.clip(np.rint(np.where(valid, bands, 0)), 1, np.iinfo(np.uint16).max)
    return np.where(valid, digital, NODATA).astype(np.uint16)


def _whole_steps(array: npt.NDArray[Any], shape: tuple[int, ...], scale: int) -> npt.NDArray[Any]:
    """Repeat the last row and column until the tile holds whole 60 m pixels, as attention needs; beyond the halo."""
    rows, columns = (-size % STEP // scale for size in shape[-2:])
    return np.pad(array, ((0, 0), (0, rows), (0, columns)), mode="edge") if rows or columns else array
