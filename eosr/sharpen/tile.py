"""What a worker does with one tile: fill gaps, count or sharpen, project, cut, mark nodata and saturation."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eosr.cube.bands import LARGEST, NODATA, SATURATED
from eosr.cube.consistency import lift_tile, project_tile
from eosr.cube.degradation import as_float_with_nan
from eosr.host.memory import give_back
from eosr.sharpen.classical.passes import Sums, Tile
from eosr.sharpen.gaps import fill_gaps
from eosr.sharpen.methods import Method

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

#: Fine pixels of the halo are a multiple of the 60 m pixel.
STEP: Final = 6


@dataclass(frozen=True, kw_only=True)
class Found:
    """Parameters that a pass over the whole scene found, and the seconds of work it took."""

    value: Any
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TileTask:
    """Everything a worker needs besides the pixels of one group of bands."""

    method: Method
    #: Blur per delivered band [fine pixels].
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
    #: Parameters of the passes over the whole scene, where they are known already.
    found: tuple[Found, ...] = ()
    #: For evaluation: the bands before the projection, those after it, and a plane whose sum is the seconds of work.
    stages: bool = False

    @property
    def halo(self) -> int:
        """Fine pixels on each side of a tile that are read."""
        return self.depth + self.margin

    @property
    def planes(self) -> int:
        """Number of planes of the answer."""
        count = len(self.method.delivers)
        return 2 * count + 1 if self.stages else count

    def __call__(self, *arrays: Array, found: Any = (), block_id: tuple[int, ...] = (0, 0, 0, 0)) -> Array:
        """Sharpen (1, bands, H, W) of 10 m, [20 m,] coarse with halo to (1, delivered bands, ...) without."""
        given = Given.of(arrays, self.method.factor, self.offset, self.margin)
        began = time.perf_counter()
        sharp = self._sharpen(given, self.found or found)
        seconds = time.perf_counter() - began
        before = sharp.copy() if self.stages else sharp
        if self.consistency or self.stages:
            self._mirror_edges(sharp, block_id)
            for i, (sigma, (values, factor)) in enumerate(zip(self.sigma, self._measured(given), strict=True)):
                sharp[i] = project_tile(sharp[i], values, factor, sigma)
                if self.dtype == "uint16":
                    sharp[i] = lift_tile(sharp[i], factor, sigma, 1 + self.offset)
        answer = self._deliver(sharp, given)
        if not self.stages:
            return answer[None]
        if not any(block_id[-2:]):
            seconds += sum(one.seconds for one in found)
        clock = np.full((1, *answer.shape[1:]), seconds / answer[0].size, np.float32)
        return np.concatenate([self._deliver(before, given), answer, clock])[None]

    def _sharpen(self, given: Given, found: Any) -> npt.NDArray[np.float32]:
        fine, middle, coarse = given.whole()
        if self.method.baseline is None:
            sharp = self.method.run_network(fine, middle, coarse, self.sigma)
        else:
            tile = Tile(
                fine=fine, middle=middle, coarse=coarse, sigma=self.sigma,
                own=np.zeros(coarse.shape[1:], bool), scene=np.ones(coarse.shape[1:], bool),
            )  # fmt: skip
            sharp = self.method.baseline.sharpen(tile, tuple(one.value for one in found))
        give_back()
        rows, columns = given.shape
        return np.ascontiguousarray(sharp[:, :rows, :columns], dtype=np.float32)

    def _measured(self, given: Given) -> list[tuple[Array, int]]:
        """Return what was measured, NaN where it was not, with its factor, for every delivered band."""
        coarse = [(band, self.method.factor) for band in given.usable[-1]]
        extra = len(self.method.delivers) - len(coarse)
        return [*((band, 2) for band in given.usable[1][:extra]), *coarse] if extra > 0 else coarse

    def _deliver(self, sharp: npt.NDArray[np.float32], given: Given) -> Array:
        # Band by band: what lies between the steps is a plane then, not a stack of them.
        answer = np.empty((len(sharp), *_cut(sharp[0], self.depth).shape), self.dtype)
        for band, (values, valid, lost) in enumerate(zip(sharp, *given.marks(self.method), strict=True)):
            valid = _cut(valid, self.depth)
            answer[band] = as_dtype(_cut(values, self.depth) - np.float32(self.offset), valid, self.dtype)
            if lost is not None:
                answer[band][_cut(lost, self.depth) & valid] = SATURATED
        return answer

    def _mirror_edges(self, sharp: npt.NDArray[np.float32], block_id: tuple[int, ...]) -> None:
        """Beyond the edge of the scene put the mirror image of the answer; in place.

        There the network has seen mirrored input, but its answer is no mirror image, and `eosr.degrade` continues the
        answer symmetrically: without this the edge pixels would miss the measurement by a few digital numbers.
        """
        d = self.depth
        for axis, index, count in zip((1, 2), block_id[-2:], self.tiles, strict=True):
            lines = np.moveaxis(sharp, axis, 0)
            if count == 1:  # the whole scene, which may be smaller than its halo
                lines[...] = np.pad(lines[d:-d], ((d, d), (0, 0), (0, 0)), mode="symmetric") if d else lines
                continue
            if index == 0:
                lines[:d] = lines[d : 2 * d][::-1]
            if index == count - 1:
                lines[-d:] = lines[-2 * d : -d][::-1]


@dataclass(frozen=True, kw_only=True)
class CountTask:
    """What a worker counts of one tile in one pass over the whole scene."""

    task: TileTask
    index: int
    #: Halo that the pass needs, filling of gaps apart [fine pixels].
    depth: int
    #: First row and column of every tile in the scene [coarse pixels].
    starts: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def halo(self) -> int:
        """Fine pixels on each side of a tile that are read."""
        return self.depth + self.task.margin

    def __call__(self, *arrays: Array, found: Any = (), block_id: tuple[int, ...] = (0, 0, 0, 0)) -> Array:
        """Sums of one tile, as the one element of an array of objects."""
        method = self.task.method
        if method.baseline is None:
            raise TypeError(f"{method.name} counts nothing")
        given = Given.of(arrays, method.factor, self.task.offset, self.task.margin)
        began = time.perf_counter()
        rim = self.depth // method.factor
        inside: Bools = np.ones(given.with_nan[-1].shape[1:], bool)
        own = np.zeros_like(inside)
        own[rim : own.shape[0] - rim, rim : own.shape[1] - rim] = True
        for axis, place, starts in zip((0, 1), block_id[-2:], self.starts, strict=True):
            lines = np.moveaxis(inside, axis, 0)
            if place == 0:
                lines[:rim] = False
            if place == len(starts) - 1:
                lines[lines.shape[0] - rim :] = False
        measured = given.measured(method.factor) & inside
        tile = Tile(
            fine=given.filled[0], middle=given.filled[1] if len(arrays) == 3 else None, coarse=given.filled[-1],
            sigma=self.task.sigma, own=own & measured, scene=measured,
            origin=(self.starts[0][block_id[-2]] - rim, self.starts[1][block_id[-1]] - rim),
        )  # fmt: skip
        known = tuple(one.value for one in self.task.found or found)
        sums: Sums = dict(method.baseline.count(self.index, tile, known))
        sums["seconds"] = np.asarray(time.perf_counter() - began)
        holder = np.empty((1, 1, 1, 1), object)
        holder[0, 0, 0, 0] = sums
        return holder


def add_sums(parts: list[Any]) -> Sums:
    """Add the sums of tiles."""
    sums = [part.item() if isinstance(part, np.ndarray) else part for part in parts]
    return {key: np.sum([one[key] for one in sums], axis=0) for key in sums[0]}


def solve_pass(method: Method, index: int, total: Sums) -> Found:
    """Parameters of one pass, with the seconds of work of all its tiles."""
    if method.baseline is None:
        raise TypeError(f"{method.name} solves nothing")
    began = time.perf_counter()
    seconds = float(total["seconds"])
    value = method.baseline.solve(index, {key: sums for key, sums in total.items() if key != "seconds"})
    return Found(value=value, seconds=seconds + time.perf_counter() - began)


@dataclass(frozen=True, kw_only=True)
class Given:
    """The arrays of a tile in every state that is needed; finest first, one entry per grid."""

    #: Float, NaN in gaps, offset added; the margin for filling is cut off.
    with_nan: list[Array]
    #: The same with NaN where the sensor was saturated.
    usable: list[Array]
    #: Without NaN.
    filled: list[Array]
    saturated: list[Bools]

    @classmethod
    def of(cls, arrays: tuple[Array, ...], factor: int, offset: float, margin: int) -> Given:
        """Fill the gaps of (1, bands, H, W) arrays of 10 m, [20 m,] coarse, and cut the margin off."""
        scales = (1, 2, factor) if len(arrays) == 3 else (1, factor)
        saturated = [array[0] == SATURATED for array in arrays]
        with_nan = [_shifted(array[0], np.float32(offset)) for array in arrays]
        # A saturated pixel says "at least": taken at its word, it would pull its neighbours below zero.
        usable = [_without(lost, a) for lost, a in zip(saturated, with_nan, strict=True)]
        filled = [fill_gaps(a, np.isfinite(a)) for a in usable]
        parts = [[_cut(a, margin // k) for a, k in zip(group, scales, strict=True)]
                 for group in (with_nan, usable, filled, saturated)]  # fmt: skip
        return cls(with_nan=parts[0], usable=parts[1], filled=parts[2], saturated=parts[3])

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of 10 m."""
        return tuple(self.with_nan[0].shape[-2:])

    def whole(self) -> tuple[Array, Array | None, Array]:
        """Fine, middle and coarse without gaps, in whole 60 m pixels."""
        scales = [self.shape[0] // a.shape[-2] for a in self.filled]
        fine, *middle, coarse = (_whole_steps(a, self.shape, k) for a, k in zip(self.filled, scales, strict=True))
        return fine, middle[0] if middle else None, coarse

    def marks(self, method: Method) -> tuple[Iterator[Bools], Iterator[Bools | None]]:
        """Valid and saturated pixels (H, W) of every delivered band, one band at a time; None where none is saturated.

        A pixel is valid where its own coarse pixel is, and one 10 m band that guides it: a guide that is missing beside
        others, as the infrared over a lake whose dark pixels were clipped to 0, was filled.
        """
        guided: Bools = np.ones(self.shape, bool)
        if method.fine_bands:
            guided = np.asarray(np.isfinite(self.with_nan[0]).any(axis=0))
        # Bands of the middle grid are delivered too by some, and stand first.
        extra = len(method.delivers) - len(self.with_nan[-1])
        if extra:  # one problem for both grids
            guided &= _enlarged(np.asarray(np.isfinite(self.with_nan[1]).all(axis=0)), 2)
        whole = np.asarray(np.isfinite(self.with_nan[-1]).all(axis=0))
        own = [*[whole] * extra, *np.isfinite(self.with_nan[-1])]
        lost = [*[(band, 2) for band in self.saturated[1][:extra]], *[(b, method.factor) for b in self.saturated[-1]]]
        valid = (guided if band.all() else guided & _enlarged(band, method.factor) for band in own)
        return valid, (_enlarged(band, factor) if band.any() else None for band, factor in lost)

    def measured(self, factor: int) -> Bools:
        """(h, w): coarse pixels under which everything is measured and nothing saturated."""
        measured: Bools = np.asarray(np.isfinite(self.usable[-1]).all(axis=0))
        for bands in self.usable[:-1]:
            there: Bools = np.asarray(np.isfinite(bands).all(axis=0))
            step = there.shape[0] // measured.shape[0]
            measured &= there.reshape(measured.shape[0], step, measured.shape[1], step).all(axis=(1, 3))
        return measured


def _shifted(digital: Array, offset: np.float32) -> Array:
    """Float, NaN for nodata and for what no digital number is, offset added."""
    digital = without_wrapped(digital, np.nan if digital.dtype.kind == "f" else NODATA)
    values = as_float_with_nan(digital)
    return np.add(values, offset, out=None if values is digital else values) if offset else values


def without_wrapped(digital: Array, gap: float) -> Array:
    """The same array, or a copy with ``gap`` where it holds what no digital number of Sentinel-2 is, and a warning."""
    wrapped = (digital > LARGEST) & (digital != SATURATED)
    if not wrapped.any():
        return digital
    odd = float(digital[wrapped].flat[0])
    warnings.warn(
        f"the scene holds {odd:g} DN, and all from {LARGEST + 1} to {SATURATED - 1} are none of Sentinel-2: where an "
        "offset is taken off in uint16, negative numbers wrap around. These pixels count as nodata. Open the original, "
        "whose offset is still there: offset=-1000.",
        stacklevel=2,
    )
    return np.where(wrapped, np.asarray(gap, digital.dtype), digital)


def _without(lost: Bools, bands: Array) -> Array:
    return np.where(lost, np.float32(np.nan), bands) if lost.any() else bands


def _cut(array: Array, rim: int) -> Array:
    return array[..., rim : array.shape[-2] - rim, rim : array.shape[-1] - rim]


def _enlarged(valid: Bools, factor: int) -> Bools:
    return valid.repeat(factor, axis=-2).repeat(factor, axis=-1)


def as_dtype(bands: Array, valid: Bools, dtype: str) -> Array:
    """Digital numbers as ``"float32"`` (NaN is nodata) or ``"uint16"`` (0 is nodata, valid ones at least 1)."""
    if dtype == "float32":
        return np.where(valid, bands, np.float32(np.nan)).astype(np.float32)
    everywhere = bool(valid.all())
    digital = np.rint(bands if everywhere else np.where(valid, bands, 0))
    # A valid pixel must not become nodata by rounding, nor wrap around.
    digital = np.clip(digital, 1, np.iinfo(np.uint16).max, out=digital).astype(np.uint16)
    return digital if everywhere else np.where(valid, digital, np.uint16(NODATA))


def _whole_steps(array: Array, shape: tuple[int, ...], scale: int) -> Array:
    """Repeat the last row and column until the tile holds whole 60 m pixels, as attention needs; beyond the halo."""
    rows, columns = (-size % STEP // scale for size in shape[-2:])
    return np.pad(array, ((0, 0), (0, rows), (0, columns)), mode="edge") if rows or columns else array


#: Every pass grows the valid area by this many pixels.
RADIUS: Final = 2
PASSES: Final = 3
#: Pixels of its own grid around a gap that its filling is made from.
FILL_REACH: Final = RADIUS * PASSES
#: What stands deeper inside a gap than `FILL_REACH` [DN without offset]: a dull land surface.
DEEP: Final = 1500.0
