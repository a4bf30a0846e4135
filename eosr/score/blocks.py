"""Scenes in windows, and scores of their blocks.

Scores of scenes too large for memory: window by window, every block counted by itself, and the sums added.

The same numbers as `eosr.metrics.score_table` gives (a test holds them equal), by another way: one task per block reads
both stages and the reference once and returns a handful of sums. Windows of SSIM that lie in no block are counted from
the lines along its edges, which are all that is kept of it. One graph for the whole scene would not do: dask is free to
read most of it before the first block is done, and an overlap keeps whole blocks, since its margins are views of them.

A scene in windows: pairs of a few chunks, each computed from its own pixels and the halo around them alone.

So memory does not grow with the scene, whatever dask reads first. What a method estimates from the whole scene is
computed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, NamedTuple

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from eosr.cube.bands import PLATFORMS, SHARP_BANDS
from eosr.cube.degradation import blur_sigma, kernel_taps, merge_chunks, radius_of
from eosr.cube.grid import STEPS, groups_of
from eosr.metrics.conventions import offset_of, stack_bands
from eosr.metrics.maps import angle_between
from eosr.metrics.pairs import same_grid
from eosr.metrics.windows import SSIM_WINDOW, ssim_of_arrays
from eosr.score.protocol import (
    Ask,
    Pairs,
    Protocol,
    Span,
    Window,
    Work,
    coarse_mask,
    given_of,
    inner_of,
    make_work,
    nested_of,
    sizes_of,
)
from eosr.sharpen.methods import Method, choose_methods
from eosr.sharpen.superresolution import count_graphs, find_parameters
from eosr.sharpen.tiling import plan_tasks

Sums = dict[str, npt.NDArray[np.float64]]

_RIM: Final = SSIM_WINDOW // 2
#: Lines along an edge that windows across it need.
_DEEP: Final = 2 * _RIM
#: Blocks narrower than this are merged before they are scored [pixels].
_LEAST: Final = 256


def score_windows(
    whole: Work, windows: Iterable[list[Work]], protocol: Protocol, mask: xr.DataArray | None
) -> tuple[dict[int, xr.Dataset], float]:
    """Scores and moments of both stages by group, dims (projection, band), and seconds of work. Computes.

    Parameters
    ----------
    whole : Work
        Pairs of the whole scene, which are not computed: they tell what is compared.
    windows : iterable of lists of Work
        The same in windows, as many as memory asks for: rows of them from top to bottom, each from left to right.
    protocol, mask
        As for `eosr.score.protocol.score_pairs`.

    Raises
    ------
    GridError
        If the border leaves nothing.
    """
    tallies = {group: Tally.of(pairs, group, protocol, mask) for group, pairs in whole.pairs.items()}
    seconds = 0.0
    for row in windows:
        for window in row:
            blocks = [tally.blocks(window.pairs[group]) for group, tally in tallies.items()]
            *computed, work = compute(*blocks, sum(plane.sum() for plane in window.seconds))
            seconds += float(work)
            for tally, holders in zip(tallies.values(), computed, strict=True):
                tally.take([list(one) for one in holders[0]])
        for tally in tallies.values():
            tally.close_row()
    return {group: tally.table(whole.pairs[group]) for group, tally in tallies.items()}, seconds


@dataclass(kw_only=True)
class Tally:
    """The sums of one group of bands so far."""

    names: list[str]
    group: int
    protocol: Protocol
    #: Pixels that count (y, x): not in the border, and in the mask.
    counts: npt.NDArray[np.bool_]
    #: Pixels within the border.
    pixels: int
    #: First pixel of the window that comes next (y, x).
    place: tuple[int, int] = (0, 0)
    #: Rows of blocks of the row of windows that is coming, and the last row above it, whose lower seam is still open.
    coming: list[list[Block]] = field(default_factory=list)
    above: list[Block] = field(default_factory=list)
    total: Sums = field(default_factory=dict)

    @classmethod
    def of(cls, pairs: Pairs, group: int, protocol: Protocol, mask: xr.DataArray | None) -> Tally:
        """Nothing yet, of such pairs."""
        inner = inner_of(pairs, group, protocol)
        return cls(
            names=[str(name) for name in pairs.reference.data_vars], group=group, protocol=protocol,
            counts=_counted(pairs, inner, group, mask),
            pixels=int(np.prod([part.stop - part.start for part in inner.values()])),
        )  # fmt: skip

    def blocks(self, pairs: Pairs) -> da.Array:
        """The next window as lazy blocks, an array (1, block, block) of objects."""
        parts = (pairs.before, pairs.after, pairs.reference)
        before, after, reference = (_stack(part, self.names, pairs) for part in parts)
        sizes = [merge_chunks(chunks, 1, min(_LEAST, sum(chunks))) for chunks in before.chunks[1:]]
        (y, x), (height, width) = self.place, (sum(chunks) for chunks in sizes)
        counts = da.from_array(self.counts[None, y : y + height, x : x + width], chunks=-1)
        right = x + width
        self.place = (y, right) if right < self.counts.shape[1] else (y + height, 0)
        return da.map_blocks(
            count_block, *(a.rechunk({0: -1, 1: sizes[0], 2: sizes[1]}) for a in (before, after, reference, counts)),
            data_range=self.protocol.convention.data_range, dtype=object, meta=np.empty((0, 0, 0), object),
            chunks=((1,), *((1,) * len(chunks) for chunks in sizes)),
        )  # fmt: skip

    def take(self, rows: list[list[Block]]) -> None:
        """Put the blocks of a window to the right of those that came."""
        self.coming = [[*left, *right] for left, right in zip(self.coming, rows, strict=True)] if self.coming else rows

    def close_row(self) -> None:
        """Add a whole row of windows, with the seams within it and above it."""
        data_range = self.protocol.convention.data_range
        seams = pairwise([self.above, *self.coming] if self.above else self.coming)
        parts = [*([self.total] if self.total else []), *(count_row(blocks, data_range) for blocks in self.coming)]
        self.total = add_blocks([*parts, *(count_seam(*two, data_range) for two in seams)])
        self.above, self.coming = self.coming[-1], []

    def table(self, pairs: Pairs) -> xr.Dataset:
        """Scores and moments."""
        sizes = sizes_of(pairs, self.group, self.protocol)
        return _table(self.total, self.names, self.protocol, sizes, self.pixels)


def _counted(pairs: Pairs, inner: dict[str, slice], group: int, mask: xr.DataArray | None) -> npt.NDArray[np.bool_]:
    """Pixels that count (y, x): not in the border, and in the mask."""
    reference = pairs.reference[next(iter(pairs.reference.data_vars))]
    counts = xr.DataArray(np.zeros(reference.shape, bool), dims=reference.dims)
    counts[inner] = True
    if mask is not None:
        allowed = same_grid(coarse_mask(mask, pairs.reference, group), reference, "mask")
        counts = counts & allowed.drop_vars(list(allowed.coords)).compute()
    return np.asarray(counts.transpose(f"y{group}", f"x{group}").values)


def _stack(part: xr.Dataset, names: list[str], pairs: Pairs) -> da.Array:
    """Bands as one array (band, y, x), nodata NaN, zero at reflectance 0."""
    offset = offset_of(part, pairs.reference)
    stacked = stack_bands(part, names, offset, "estimate")
    return da.asarray(stacked.transpose("band", ...).data)


def count_block(before: Any, after: Any, reference: Any, counts: Any, data_range: float) -> npt.NDArray[Any]:
    """Sums and edges of one block (band, y, x), as the one element of an array of objects."""
    used = counts.astype(bool)
    valid = [np.isfinite(estimate) & np.isfinite(reference) & used for estimate in (before, after)]
    # (stage, estimate or reference, band, y, x), NaN where a pixel does not count.
    both = np.stack([
        np.stack([np.where(there, estimate, np.nan), np.where(there, reference, np.nan)])
        for there, estimate in zip(valid, (before, after), strict=True)
    ])  # fmt: skip
    stages = [_count_stage(estimate, truth) for estimate, truth in both]
    sums = {key: np.stack([stage[key] for stage in stages]) for key in stages[0]}
    holder = np.empty((1, 1, 1), object)
    holder[0, 0, 0] = Block(sums | _windows(both, data_range), Edges.of(both))
    return holder


class Edges(NamedTuple):
    """Lines of a block that the windows across its seams need, (stage, estimate or reference, band, y, x)."""

    top: Any
    bottom: Any
    left: Any
    right: Any

    @classmethod
    def of(cls, both: Any) -> Edges:
        """Copies: a view would hold the whole block."""
        lines = (np.s_[..., :_DEEP, :], np.s_[..., -_DEEP:, :], np.s_[..., :_DEEP], np.s_[..., -_DEEP:])
        return cls(*(both[line].copy() for line in lines))


class Block(NamedTuple):
    """What is left of a block once it is counted."""

    sums: Sums
    edges: Edges


def count_row(blocks: list[Block], data_range: float) -> Sums:
    """Sums of a row of blocks, with the windows across the seams between them."""
    parts = [block.sums for block in blocks]
    for west, east in pairwise(blocks):
        seam = np.concatenate([west.edges.right, east.edges.left], axis=-1)
        # Windows near the upper and lower edge belong to the seams between rows.
        parts.append(_windows(seam, data_range))
    return add_blocks(parts)


def count_seam(above: list[Block], below: list[Block], data_range: float) -> Sums:
    """Windows across the seam between two rows of blocks."""
    lines = [
        np.concatenate([getattr(block.edges, side) for block in row], axis=-1)
        for row, side in ((above, "bottom"), (below, "top"))
    ]
    return _windows(np.concatenate(lines, axis=-2), data_range)


def _windows(both: Any, data_range: float) -> Sums:
    """Number and sum of SSIM of the windows that lie in an array (stage, estimate or reference, band, y, x)."""
    inner = (..., slice(_RIM, both.shape[-2] - _RIM), slice(_RIM, both.shape[-1] - _RIM))
    count, total = [], []
    for estimate, truth in both:
        windows = ssim_of_arrays(estimate, truth, data_range)[inner]
        count.append(np.isfinite(windows).sum((1, 2)).astype(float))
        total.append(np.nansum(windows, (1, 2)))
    return {"windows": np.stack(count), "ssim": np.stack(total)}


def _count_stage(e: Any, r: Any) -> Sums:
    """Sums over the pixels (band, y, x) that are not NaN."""
    over, valid = (1, 2), np.isfinite(e)
    error = e - r
    joint = valid.all(axis=0)
    here, there = (xr.DataArray(a[:, joint], dims=("band", "pixel")) for a in (e, r))
    angle = angle_between(here, there, "band").values
    return {
        "pixels": valid.sum(over).astype(float),
        "squares": np.nansum(error**2, over),
        "errors": np.nansum(error, over),
        "signal": np.nansum(r, over),
        "energy": np.nansum(r**2, over),
        "highest": np.where(valid, r, -np.inf).max(over),
        "joint": np.asarray(float(joint.sum())),
        "joint_squares": (error[:, joint] ** 2).sum(1),
        "joint_signal": r[:, joint].sum(1),
        "angles": np.asarray(float(np.isfinite(angle).sum())),
        "angle": np.asarray(float(np.nansum(angle))),
    }


def add_blocks(parts: list[Sums]) -> Sums:
    """Add sums, each where it is there; of the largest value, take the larger."""
    how: dict[str, Any] = {key: np.max if key == "highest" else np.sum for part in parts for key in part}
    return {key: add([part[key] for part in parts if key in part], axis=0) for key, add in how.items()}


def _table(total: Sums, names: list[str], protocol: Protocol, sizes: tuple[float, float], pixels: int) -> xr.Dataset:
    """The columns of `eosr.metrics.score_table` that an evaluation needs, from sums (projection, band)."""
    how = protocol.convention
    with np.errstate(divide="ignore", invalid="ignore"):
        n = total["pixels"]
        mse, bias = total["squares"] / n, total["errors"] / n
        signal, energy = total["signal"] / n, total["energy"] / n
        peak = total["highest"] if how.peak == "reference_max" else np.full_like(mse, float(how.peak))
        joint = total["joint"][:, None]
        relative = total["joint_squares"] / joint / (total["joint_signal"] / joint) ** 2
        ratio = 50.0 if how.ergas == "zhang2020" else 100.0 * sizes[0] / sizes[1]
        band = {
            "rmse": np.sqrt(mse), "bias": bias, "sre": 10 * np.log10(signal**2 / mse),
            "sre_supreme": 10 * np.log10(energy / mse), "ssim": total["ssim"] / total["windows"],
            "psnr": 10 * np.log10(peak**2 / mse), "bpsnr": 10 * np.log10(peak**2 / np.clip(mse - bias**2, 0, None)),
            "coverage": n / pixels, "pixels": n, "signal": signal, "energy": energy, "highest": total["highest"],
        }  # fmt: skip
        overall = {"sam": total["angle"] / total["angles"], "ergas": ratio * np.sqrt(relative.mean(1))}
    table: dict[str, Any] = {name: (("projection", "band"), values) for name, values in band.items()}
    table |= {name: ("projection", values) for name, values in overall.items()}
    return xr.Dataset(table, coords={"band": names})


#: Rows and columns of a window, at least [10 m pixels]; few rows, so that what is read of a chunk is used.
LEAST: Final = (1024, 4096)
#: Rows and columns of the chunks that are assumed for a scene in memory [10 m pixels].
CHUNK: Final = 1536
#: A pixel of 60 m in pixels of 10 m, whether there are 60 m bands or not.
WHOLE: Final = max(STEPS.values())


def make_windows(ask: Ask) -> Iterator[list[Work]]:
    """The pairs of `eosr.score.protocol.make_work`, window by window: rows of windows from top to bottom.

    Computes what the methods estimate from the whole scene; the pairs themselves are lazy.
    """
    nested, factor = nested_of(ask)
    given, told = given_of(nested, factor, ask.protocol)
    parameters = find_parameters(given, ask.choice, bands=ask.bands, degradation=told)
    # They took their time once, whatever the number of windows.
    spent = sum(found.seconds for method in parameters for found in method)
    parameters = [tuple(replace(found, seconds=0.0) for found in method) for method in parameters]
    halo = _halo(ask, nested, factor)
    rows, columns = (_spans(nested, axis, factor, halo) for axis in "yx")
    for row in rows:
        works = [make_work(ask, Window(rows=row, columns=column, parameters=parameters)) for column in columns]
        if not row.start:
            works[0] = replace(works[0], seconds=[*works[0].seconds, da.asarray(np.array([spent]))])
        yield works


def computations(ask: Ask) -> int:
    """Number of graphs that windows take: those of the passes over the whole scene, and their own."""
    nested, factor = nested_of(ask)
    given, told = given_of(nested, factor, ask.protocol)
    count = len(_spans(nested, "y", factor, 0)) * len(_spans(nested, "x", factor, 0))
    return count + count_graphs(given, ask.choice, bands=ask.bands, degradation=told)


def _spans(nested: xr.Dataset, axis: str, factor: int, halo: int) -> list[Span]:
    """Rows (``"y"``) or columns of the windows: those of the chunks, merged where they are small.

    What is sharpened starts on whole 60 m pixels as every tile does, even where there are no 60 m bands: networks with
    attention cut it into blocks of that size.
    """
    finest, names = next(iter(groups_of(nested).items()))
    step, dim = STEPS[finest], f"{axis}{finest}"
    length = nested.sizes[dim] * step
    # Of one band: those of another may differ, and a Dataset has no chunks then.
    chunks = nested[names[0]].chunksizes.get(dim)
    sizes = [size * step for size in chunks] if chunks else [min(CHUNK, length - i) for i in range(0, length, CHUNK)]
    least = min(LEAST["yx".index(axis)], length)
    ends = np.cumsum(merge_chunks(tuple(sizes), factor * WHOLE, least)).tolist()
    return [
        Span(start=start, stop=stop, first=max(0, start - halo), last=min(length, stop + halo))
        for start, stop in pairwise([0, *ends])
    ]


def _methods(ask: Ask, ds: xr.Dataset) -> list[Method]:
    return list(choose_methods(ask.choice, ask.bands, [name for name in SHARP_BANDS if name in ds.data_vars]))


def _halo(ask: Ask, nested: xr.Dataset, factor: int) -> int:
    """Pixels around a window that can change it [10 m]: all that a tile sees, and the blur of the degradation."""
    told = ask.protocol.degradation
    tasks = [
        task
        for method in _methods(ask, nested)
        for task in plan_tasks(nested, method, told, consistency=True, dtype="float32")
    ]
    step = max(STEPS[group] for group in groups_of(nested))
    # Before it is sharpened every band is degraded on its own grid, by the same factor; afterwards on the fine grid.
    platform = nested.attrs.get("platform") or PLATFORMS[0]
    satellites = [platform] if isinstance(platform, str) else list(platform)
    bands = [name for name in SHARP_BANDS if name in nested.data_vars] if factor > 1 else []
    sigmas = [blur_sigma(name, factor, told, satellite) for name in bands for satellite in satellites]
    before = max((_reach(sigma, factor) for sigma in sigmas), default=0) * step
    after = max(_reach(sigma, max(task.method.factor, 2)) for task in tasks for sigma in task.sigma)
    pixels = before + factor * (max(task.halo for task in tasks) + (after if factor == 1 else 0))
    whole = factor * WHOLE
    return -(-pixels // whole) * whole


def _reach(sigma: float, factor: int) -> int:
    return radius_of(kernel_taps(factor, sigma), factor) + factor
