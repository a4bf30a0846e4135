"""Lazy overlap: which tiles a group of bands is cut into, how far each sees, and what is counted over all of them.

One `map_overlap` per group of bands. Its halo is everything that can change a pixel (reach of the method, of the
projection and of the gap filling), so the answer does not depend on the chunks; at the edges of the scene the halo is
its mirror image, as in training. A method that estimates something from the whole scene reads it once more per pass:
sums of tiles, added in a tree, solved once, handed to every tile. All of it is one graph; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from typing import Any, Final, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from eosr.cube.bands import BANDS_60M, PLATFORMS
from eosr.cube.consistency import projection_reach
from eosr.cube.degradation import blur_sigma, merge_chunks
from eosr.cube.radiometry import offsets
from eosr.errors import RadiometryError, ReachError
from eosr.sharpen.classical.passes import Sums
from eosr.sharpen.methods import Method
from eosr.sharpen.tile import FILL_REACH, STEP, CountTask, Found, TileTask, add_sums, solve_pass

#: A tile is at least this many halos wide; smaller chunks are computed together and cut again.
MIN_HALOS: Final = 4
#: Sums of tiles that one task adds.
FAN_IN: Final = 16
#: Rows and columns of a window of a pass that is computed by itself, at least [fine pixels].
WINDOW: Final = (1024, 4096)


def plan_tasks(
    ds: xr.Dataset, method: Method, operator: str, *, consistency: bool, dtype: str, stages: bool = False
) -> list[TileTask]:
    """One task for all times, or one per time where the satellites or the offsets differ.

    Raises
    ------
    RadiometryError
        If the satellites or offsets recorded are not one per time.
    """
    offset = offsets(ds)
    platform = ds.attrs.get("platform") or PLATFORMS[0]
    several = isinstance(offset, xr.DataArray) or not isinstance(platform, str)
    # What is estimated from a scene is estimated from each image by itself.
    count = ds.sizes.get("time", 1) if several or method.passes else 1
    shifts = offset.values.tolist() if isinstance(offset, xr.DataArray) else [offset] * count
    platforms = [platform] * count if isinstance(platform, str) else list(platform)
    if len(platforms) != count:
        raise RadiometryError(
            f"the attribute platform names {len(platforms)} satellites for {count} times. Give one, or one per time."
        )
    task = partial(_task, method, operator, consistency=consistency, dtype=dtype)
    return [
        replace(task(name), offset=float(shift), stages=stages)
        for name, shift in zip(platforms, shifts, strict=True)
    ]  # fmt: skip


def _task(method: Method, operator: str, platform: str, *, consistency: bool, dtype: str) -> TileTask:
    factors = [method.factor_of(band) for band in method.delivers]
    if operator.startswith("sigma="):
        sigma = (float(operator.removeprefix("sigma=")),) * len(factors)
    else:
        pairs = zip(method.delivers, factors, strict=True)
        sigma = tuple(blur_sigma(band, factor, operator, platform) for band, factor in pairs)
    reach = method.reach
    if consistency:
        reach += max(projection_reach(factor, value) for factor, value in zip(factors, sigma, strict=True))
    return TileTask(
        method=method, sigma=sigma, depth=_up(reach), margin=_up(FILL_REACH * method.factor), consistency=consistency,
        dtype=dtype,
    )  # fmt: skip


def _up(pixels: int) -> int:
    return -(-pixels // STEP) * STEP


def check_size(ds: xr.Dataset, tasks: Sequence[TileTask]) -> None:
    """Refuse a scene smaller than the widest halo.

    Raises
    ------
    ReachError
    """
    if not tasks:
        return
    # A pass over the whole scene may have a wider halo still: there a scene is continued by its mirror images.
    widest = max(tasks, key=lambda task: task.halo)
    least = widest.halo
    sizes = {dim: ds.sizes[dim] for dim in ("y10", "x10")}
    if min(sizes.values()) < least:
        raise ReachError(
            f"{sizes['y10']} x {sizes['x10']} pixels of 10 m are fewer than the reach of {widest.method.name}, "
            f"{least} pixels around each. Open a window of at least {least} x {least} pixels of 10 m"
            + _without_60m(widest.method, [task for task in tasks if task.halo <= min(sizes.values())]),
            least,
        )


def _without_60m(method: Method, fitting: Sequence[TileTask]) -> str:
    if method.factor != STEP:
        return "."
    if method.delivers != method.targets:  # one problem for both grids
        return f", or leave the 60 m bands out of the Dataset, ds.drop_vars({list(BANDS_60M)}, errors='ignore')."
    rest = list(dict.fromkeys(b for task in fitting for b in task.method.delivers))
    return f", or leave the 60 m bands out: bands={rest}." if rest else "."


def sharpen_group(
    ds: xr.Dataset, tasks: Sequence[TileTask], template: xr.DataArray, chunks: int | None
) -> tuple[da.Array, bool]:
    """Planes (time, plane, y10, x10) of one group of bands, lazily, and whether there is a dimension ``time``."""
    method, has_time = tasks[0].method, "time" in template.dims
    stacks = _stacks(ds, method, template)
    halo = max(task.halo for task in tasks)
    tile_chunks = _tile_chunks(stacks[-1], method.factor, halo)
    if len(tasks) == 1:
        sharp = _map(tasks[0], stacks, tile_chunks)
    else:
        parts = [_map(task, [s[t : t + 1] for s in stacks], tile_chunks) for t, task in enumerate(tasks)]
        sharp = da.concatenate(parts, axis=0)
    out = template.chunks[-2:] if template.chunks else sharp.chunks[2:]
    return sharp.rechunk({2: chunks or out[0], 3: chunks or out[1]}), has_time


def find_passes(ds: xr.Dataset, task: TileTask, template: xr.DataArray) -> tuple[Found, ...]:
    """Parameters of every pass of a method over one image of any size; () for a method without. Computes.

    Window by window: in one graph dask would be free to read the whole image before the first tile is counted.
    """
    found: list[Found] = []
    for index in range(len(task.method.passes)):
        total: list[Sums] = []
        for sums in _pass_windows(ds, task, template, index, found):
            total = [add_sums([*total, *sums.compute().ravel()])]
        found.append(solve_pass(task.method, index, total[0]))
    return tuple(found)


def count_windows(ds: xr.Dataset, task: TileTask, template: xr.DataArray) -> int:
    """Number of graphs that `find_passes` computes."""
    unknown = [Found(value=None, seconds=0.0)] * len(task.method.passes)
    return sum(
        len(list(_pass_windows(ds, task, template, index, unknown[:index])))
        for index in range(len(task.method.passes))
    )  # fmt: skip


def _pass_windows(
    ds: xr.Dataset, task: TileTask, template: xr.DataArray, index: int, found: Sequence[Found]
) -> Iterator[da.Array]:
    """Sums of every tile in one pass, as arrays of objects, each of the tiles of one window."""
    stacks = _stacks(ds, task.method, template)
    task = replace(task, found=tuple(found))
    rim = _up(task.method.passes[index])
    halo = rim + task.margin
    chunks = _merged(_tile_chunks(stacks[-1], task.method.factor, task.halo), task.method.factor, halo, halo)
    ranges = [_ranges(sizes, task.method.factor, least) for sizes, least in zip(chunks, WINDOW, strict=True)]
    for rows, columns in product(*ranges):
        axes = [
            _around(sizes, part, halo // task.method.factor)
            for sizes, part in zip(chunks, (rows, columns), strict=True)
        ]
        cut = [_cut_out(stack, task.method.factor, stacks[-1], axes) for stack in stacks]
        sums = _counted(task, cut, [axis.sizes for axis in axes], index, [], starts=tuple(axis.starts for axis in axes))
        yield sums[:, :, axes[0].own, axes[1].own]


class _Around(NamedTuple):
    """Tiles of a window along one axis, with a narrow one on each side that has a neighbour [coarse pixels]."""

    sizes: tuple[int, ...]
    #: First pixel of every tile in the scene.
    starts: tuple[int, ...]
    #: Those that are the window's own.
    own: slice


def _around(sizes: tuple[int, ...], part: range, halo: int) -> _Around:
    edges = np.cumsum([0, *sizes]).tolist()
    before, after = ([halo] if there else [] for there in (part.start > 0, part.stop < len(sizes)))
    inner = sizes[part.start : part.stop]
    first = edges[part.start] - sum(before)
    tiles = (*before, *inner, *after)
    starts = tuple(first + offset for offset in np.cumsum([0, *tiles[:-1]]).tolist())
    return _Around(tiles, starts, slice(len(before), len(before) + len(inner)))


def _ranges(sizes: tuple[int, ...], factor: int, least: int) -> list[range]:
    """Tiles that are counted in one window: at least so many fine pixels."""
    starts, width = [0], 0
    for place, size in enumerate(sizes[:-1], 1):
        width += size * factor
        if width >= least:
            starts, width = [*starts, place], 0
    return [range(*ends) for ends in pairwise([*starts, len(sizes)])]


def _cut_out(stack: da.Array, factor: int, coarse: da.Array, axes: Sequence[_Around]) -> da.Array:
    """The pixels of a window of one grid."""
    scale = coarse.shape[2] * factor // stack.shape[2]
    slices = [
        slice(axis.starts[0] * factor // scale, (axis.starts[0] + sum(axis.sizes)) * factor // scale) for axis in axes
    ]
    return stack[:, :, slices[0], slices[1]]


def _stacks(ds: xr.Dataset, method: Method, template: xr.DataArray) -> list[da.Array]:
    """What a method is given, one array per grid, finest first; the template stands in where it needs no 10 m band."""
    fine = method.fine_bands or (str(template.name),)
    parts = (fine, method.middle_bands, method.targets)
    return [_stack(ds, names, "time" in template.dims) for names in parts if names]


def _stack(ds: xr.Dataset, names: Sequence[str], has_time: bool) -> da.Array:
    """Bands of one grid as one array (time, band, y, x), one chunk along band and one image per chunk."""
    arrays = [da.asarray(ds[name].transpose(..., *ds[name].dims[-2:]).data) for name in names]
    if not has_time:
        arrays = [array[None] for array in arrays]
    return da.stack(arrays, axis=1).rechunk({0: 1, 1: -1})


def _tile_chunks(coarse: da.Array, factor: int, halo: int) -> list[tuple[int, ...]]:
    """Chunks of the tiles in coarse pixels along y and x: those of the input, merged where a halo would not fit."""
    return _merged(coarse.chunks[2:], factor, halo, MIN_HALOS * halo)


def _merged(chunks: Sequence[tuple[int, ...]], factor: int, halo: int, minimum: int) -> list[tuple[int, ...]]:
    """Chunks in coarse pixels, at least ``minimum`` fine pixels wide; one tile if the scene is narrower than a halo."""
    totals = [sum(sizes) for sizes in chunks]
    if min(totals) * factor < halo:
        return [(total,) for total in totals]
    step, least = max(1, STEP // factor), _up(minimum) // factor
    return [merge_chunks(sizes, step, min(least, total)) for sizes, total in zip(chunks, totals, strict=True)]


def _map(task: TileTask, stacks: Sequence[da.Array], tile_chunks: Sequence[tuple[int, ...]]) -> da.Array:
    task = replace(task, tiles=(len(tile_chunks[0]), len(tile_chunks[1])))
    arrays = _tiled(task.method, stacks, tile_chunks)
    factor = task.method.factor
    y, x = (tuple(size * factor for size in sizes) for sizes in tile_chunks)
    chunks = (arrays[0].chunks[0], (task.planes,), y, x)
    kind = np.empty((0, 0, 0, 0), task.dtype)
    found = None if task.found else _found(task, arrays, tile_chunks)
    return _overlapped(task, arrays, task.halo, chunks, kind, {} if found is None else {"found": found})


def _tiled(method: Method, stacks: Sequence[da.Array], tile_chunks: Sequence[tuple[int, ...]]) -> list[da.Array]:
    """The stacks in the chunks of the tiles, each grid in its own pixels."""
    scales = [1, method.factor] if len(stacks) == 2 else [1, 2, method.factor]
    arrays = []
    for stack, scale in zip(stacks, scales, strict=True):
        y, x = (tuple(size * method.factor // scale for size in sizes) for sizes in tile_chunks)
        arrays.append(stack.rechunk({2: y, 3: x}))
    return arrays


def _overlapped(
    function: Any, arrays: Sequence[da.Array], halo: int, chunks: Any, kind: Any, kwargs: dict[str, Any]
) -> da.Array:
    factors = [arrays[0].shape[2] // array.shape[2] for array in arrays]
    if any(size < halo for size in arrays[0].shape[2:]):
        return _mirrored(function, arrays, [halo // scale for scale in factors], chunks, kind, kwargs)
    depths = [{0: 0, 1: 0, 2: halo // scale, 3: halo // scale} for scale in factors]
    return da.map_overlap(
        function, *arrays, depth=depths, boundary=["reflect"] * len(arrays), trim=False, align_arrays=False,
        allow_rechunk=False, dtype=kind.dtype, meta=kind, chunks=chunks, name=None, **kwargs,
    )  # fmt: skip


def _mirrored(
    function: Any, arrays: Sequence[da.Array], rims: Sequence[int], chunks: Any, kind: Any, kwargs: dict[str, Any]
) -> da.Array:
    """The same for a scene smaller than its halo, which is mirrored over and over: one tile."""
    padded = []
    for array, rim in zip(arrays, rims, strict=True):
        whole = array.rechunk({2: -1, 3: -1})
        grown = (*whole.chunks[:2], (whole.shape[2] + 2 * rim,), (whole.shape[3] + 2 * rim,))
        padded.append(whole.map_blocks(_pad, rim, dtype=whole.dtype, chunks=grown, meta=whole._meta))
    return da.map_blocks(function, *padded, dtype=kind.dtype, meta=kind, chunks=chunks, **kwargs)


def _pad(block: Any, rim: int) -> Any:
    return np.pad(block, ((0, 0), (0, 0), (rim, rim), (rim, rim)), mode="symmetric")


def _found(task: TileTask, arrays: Sequence[da.Array], tile_chunks: Sequence[tuple[int, ...]]) -> Any:
    """Parameters of all passes, as one lazy tuple; None for a method without."""
    found: list[Any] = []
    for index in range(len(task.method.passes)):
        found.append(_pass(task, arrays, tile_chunks, index, found))
    return _as_tuple(found) if found else None


def _pass(
    task: TileTask, arrays: Sequence[da.Array], tile_chunks: Sequence[tuple[int, ...]], index: int, found: list[Any]
) -> Any:
    """Parameters of one pass, lazily, given those of the passes before."""
    rim = _up(task.method.passes[index])
    chunks = _merged(tile_chunks, task.method.factor, rim + task.margin, rim + task.margin)
    starts = tuple(tuple(np.cumsum([0, *sizes[:-1]]).tolist()) for sizes in chunks)
    sums = _counted(task, arrays, chunks, index, found, starts)
    parts = list(sums.to_delayed(optimize_graph=False).ravel())
    while len(parts) > 1:
        parts = [delayed(add_sums)(parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
    return delayed(solve_pass)(task.method, index, delayed(add_sums)(parts[:1]))


def _counted(
    task: TileTask, arrays: Sequence[da.Array], chunks: Sequence[tuple[int, ...]], index: int, found: list[Any],
    starts: tuple[tuple[int, ...], ...],
) -> da.Array:  # fmt: skip
    """Sums of every tile in one pass, as an array of objects; chunks and starts of the tiles in coarse pixels."""
    count = CountTask(task=task, index=index, depth=_up(task.method.passes[index]), starts=(starts[0], starts[1]))
    ones = tuple((1,) * len(sizes) for sizes in chunks)
    kwargs = {"found": _as_tuple(found)} if found else {}
    kind = np.empty((0, 0, 0, 0), object)
    tiled = _tiled(task.method, arrays, chunks)
    return _overlapped(count, tiled, count.halo, ((1,), (1,), *ones), kind, kwargs)


def _as_tuple(found: list[Any]) -> Any:
    return delayed(tuple)(list(found))
