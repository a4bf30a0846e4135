"""Coarse -> fine at any size: overlap, sharpen, project onto the measurement, trim.

One lazy `map_overlap` per group of bands. Its halo is everything that can change a pixel (reach of the network, of the
projection and of the gap filling), so the answer does not depend on the chunks; at the edges of the scene the halo is
its mirror image, as in training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr import __version__
from eosr.bands import BANDS, BANDS_10M, NODATA, PLATFORMS, SHARP_BANDS, check_bands
from eosr.consistency import projection_reach
from eosr.degrade import DEGRADATIONS, as_float_with_nan, blur_sigma, merge_chunks
from eosr.errors import BandError, DegradationError, GridError, RadiometryError, ReachError
from eosr.gaps import FILL_REACH
from eosr.grid import check_chunks, check_nested, group_of, with_grid_mappings
from eosr.methods import Method, choose_methods
from eosr.radiometry import for_its_times, offsets
from eosr.tiles import STEP, TileTask, as_dtype

#: Output types.
DTYPES: Final = ("uint16", "float32")
#: A tile is at least this many halos wide; smaller chunks are computed together and cut again.
MIN_HALOS: Final = 4


def superresolve(
    ds: xr.Dataset,
    *,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    method: str | None = None,
    bands: Sequence[str] | None = None,
    consistency: bool | None = None,
    degradation: str = "auto",
    device: str = "auto",
    dtype: str = "uint16",
    chunks: int | None = None,
) -> xr.Dataset:
    """Every band at the pixel size of the finest ones [DN], lazily.

    Parameters
    ----------
    ds : Dataset
        Multi-resolution Dataset as `eosr.open_stac` returns it: dims ``([time,] y10, x10)``, ``([time,] y20, x20)``,
        ``([time,] y60, x60)``; integer digital numbers with 0 as nodata, or float with NaN. Numpy or dask.
    weights : str, path or sequence of them, optional
        Names of shipped weights or weights files. Default: ``("s2sr-20m", "s2sr-60m")``.
    method : str, optional
        ``"bicubic"``: interpolation instead of a generator.
    bands : sequence of str, optional
        Bands to return. Default: all that are there, without B10 (cirrus), which no 10 m band can guide.
    consistency : bool, optional
        Project the answer onto the measurement: degraded, it then equals what the satellite measured (within the
        rounding of ``dtype``). Default: yes for generators, no for methods.
    degradation : str
        The operator between the answer and the measurement, as in `eosr.degrade`. ``"auto"``: the one recorded by
        `eosr.degrade` in ``ds.attrs["degradation"]``, else ``"study"``.
    device : str
        ``"auto"`` (CUDA on workers that have it), ``"cpu"``, ``"cuda"``.
    dtype : str
        ``"uint16"`` (rounded, 0 is nodata, valid values at least 1) or ``"float32"`` (NaN is nodata, nothing clipped).
    chunks : int, optional
        Chunk of the output along ``y10`` and ``x10``. Default: the chunks of the 10 m bands.

    Returns
    -------
    Dataset, dims ([time,] y10, x10)
        Bands in spectral order; the native 10 m bands as they came (converted to ``dtype``). Coordinates, grid mapping,
        offset and other attributes are kept; ``sharpened_by``, ``weights_sha256``, ``consistency`` and ``degradation``
        say what was done.

    Raises
    ------
    BandError
        Unknown or missing bands; nothing to sharpen.
    GridError
        Grids that do not nest, chunks not 6:3:1, a scene smaller than the reach of the method.
    WeightsError, DegradationError, RadiometryError
        Weights that cannot be used, or were made for another level or operator.

    Notes
    -----
    A sharpened pixel is nodata where its own coarse pixel or any guide is. A gap is filled from its rim before the
    network sees it, so it changes pixels within the reach of the method at most, and none further away. Where the own
    coarse pixel is saturated (65535) the answer is too; its neighbours are sharpened as beside a gap.
    Bands that no weights given deliver are left out, unless ``bands`` asks for them.
    """
    dtype = _check_arguments(ds, dtype=dtype, chunks=chunks, consistency=consistency)
    if bands is not None:
        bands = check_bands(bands)
        if not bands:
            raise BandError("bands is empty, so there is nothing to return. Leave it out for all bands.")
    ds = with_grid_mappings(for_its_times(ds))
    available = [name for name in SHARP_BANDS if name in ds.data_vars]
    methods = choose_methods(weights, method, bands, available, device)
    needed = sorted({*BANDS_10M, *(b for m in methods for b in (*m.targets, *m.middle_bands))} & {*available})
    _check_grids(ds, needed)
    check_nested(ds[needed])
    check_chunks(ds[needed])
    operator = _operator(ds, degradation)
    if consistency is None:
        consistency = method is None
    level = str(ds.attrs.get("level", ""))
    for each in methods:
        each.check(level=level, degradation=operator)
    planned = [_tasks(ds, each, operator, consistency=consistency, dtype=dtype) for each in methods]
    _check_size(ds, [task for tasks in planned for task in tasks])
    results: dict[str, xr.DataArray] = {}
    for each, tasks in zip(methods, planned, strict=True):
        results |= _sharpen_group(ds, tasks, [b for b in each.targets if bands is None or b in bands], chunks)
    for name in available:
        if name in BANDS_10M and (bands is None or name in bands):
            results[name] = _like(_native(ds[name], dtype, chunks), results)
    mapping = ds[_first_fine(ds)].encoding.get("grid_mapping", "spatial_ref10")
    others = [name for name in ds.coords if str(name).startswith("spatial_ref") and name != mapping]
    sharp = xr.Dataset({name: results[name] for name in SHARP_BANDS if name in results}, attrs=ds.attrs)
    sharp = sharp.drop_vars(others, errors="ignore")
    for band in sharp.data_vars.values():
        band.encoding = {"grid_mapping": mapping}
    return sharp.assign_attrs(_provenance(methods, operator, consistency=consistency))


def _check_arguments(ds: xr.Dataset, *, dtype: Any, chunks: Any, consistency: Any) -> str:
    if not isinstance(ds, xr.Dataset):
        raise GridError(
            f"superresolve needs a Dataset with one variable per band, not a {type(ds).__name__}. "
            "Open one with eosr.open_stac, or build it with eosr.grid.from_arrays."
        )
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    if name not in DTYPES:
        raise RadiometryError(f"dtype {name!r} is not offered. Use one of {', '.join(map(repr, DTYPES))}.")
    whole = isinstance(chunks, int | np.integer) and not isinstance(chunks, bool)
    if chunks is not None and (not whole or chunks < STEP or chunks % STEP):
        near = max(1, int(chunks) // STEP) * STEP if whole else 1536
        raise GridError(f"chunks={chunks!r} is no multiple of {STEP} above 0. Use e.g. chunks={near}.")
    if consistency is not None and not isinstance(consistency, bool | np.bool_):
        raise DegradationError(f"consistency={consistency!r} is neither True, False nor None. Use consistency=False.")
    if ds.attrs.get("quantity") == "reflectance":
        raise RadiometryError(
            "the Dataset holds reflectance; superresolve works on digital numbers. Give it the Dataset of open_stac, "
            "or eosr.radiometry.to_digital_numbers(ds), and convert the answer."
        )
    _first_fine(ds)
    return name


def _check_grids(ds: xr.Dataset, names: Sequence[str]) -> None:
    """Every band on its native grid, over time at most."""
    for name in names:
        group, band = group_of(ds[name]), ds[name]
        if group != BANDS[name].gsd:
            by = ds.attrs.get("sharpened_by", "something else")
            raise GridError(
                f"{name} is on the {group} m grid already, sharpened by {by}. Give the Dataset of open_stac instead."
            )
        if not {*band.dims[:-2]} <= {"time"}:
            extra = ", ".join(str(dim) for dim in band.dims[:-2] if dim != "time")
            raise GridError(
                f"{name} has a dimension {extra} besides time, y{group}, x{group}. Take one, e.g. ds.isel({extra}=0)."
            )
        if band.dtype.kind not in "uif":
            raise RadiometryError(f"{name} holds {band.dtype}, not digital numbers. Convert it to uint16 or float32.")


def _check_size(ds: xr.Dataset, tasks: Sequence[TileTask]) -> None:
    """The scene must be at least as large as the widest halo."""
    if not tasks:
        return
    widest = max(tasks, key=lambda task: task.halo)
    sizes = {dim: ds.sizes[dim] for dim in ("y10", "x10")}
    if min(sizes.values()) < widest.halo:
        raise ReachError(
            f"{sizes['y10']} x {sizes['x10']} pixels of 10 m are fewer than the reach of {widest.method.name}, "
            f"{widest.halo} pixels around each. Open a window of at least {widest.halo} x {widest.halo} pixels of 10 m"
            + (", or leave the 60 m bands out with bands=..." if widest.method.factor == STEP else "."),
            widest.halo,
        )


def _first_fine(ds: xr.Dataset) -> str:
    for name in BANDS_10M:
        if name in ds.data_vars:
            return name
    held = ", ".join(str(name) for name in ds.data_vars) or "no variables"
    raise BandError(
        f"the Dataset holds {held}, but none of the 10 m bands {', '.join(BANDS_10M)} that guide the sharpening. "
        "Open them too, e.g. eosr.open_stac(source) without bands=..."
    )


def _operator(ds: xr.Dataset, degradation: str) -> str:
    """Name of the operator: given, recorded or the default; ``sigma=...`` for a blur of that many fine pixels."""
    # A sharpened product records what it was sharpened for; only a degraded one tells what made it.
    recorded = str(ds.attrs.get("degradation", "study"))
    operator = recorded if isinstance(degradation, str) and degradation == "auto" else degradation
    if operator in DEGRADATIONS:
        return operator
    try:
        float(str(operator).removeprefix("sigma=") if str(operator).startswith("sigma=") else "none")
    except ValueError:
        raise DegradationError(
            f"degradation={operator!r} is not one eosr knows. Use 'auto', {', '.join(map(repr, DEGRADATIONS))}."
        ) from None
    return operator


def _tasks(ds: xr.Dataset, method: Method, operator: str, *, consistency: bool, dtype: str) -> list[TileTask]:
    """One task for all times, or one per time where the satellites or the offsets differ."""
    offset = offsets(ds) if "radiometric_offset" in ds.attrs else 0
    platform = ds.attrs.get("platform") or PLATFORMS[0]
    count = ds.sizes.get("time", 1) if isinstance(offset, xr.DataArray) or not isinstance(platform, str) else 1
    shifts = offset.values.tolist() if isinstance(offset, xr.DataArray) else [offset] * count
    platforms = [platform] * count if isinstance(platform, str) else list(platform)
    if len(platforms) != count:
        raise RadiometryError(
            f"the attribute platform names {len(platforms)} satellites for {count} times. Give one, or one per time."
        )
    task = partial(_task, method, operator, consistency=consistency, dtype=dtype)
    return [replace(task(name), offset=float(shift)) for name, shift in zip(platforms, shifts, strict=True)]


def _task(method: Method, operator: str, platform: str, *, consistency: bool, dtype: str) -> TileTask:
    if operator.startswith("sigma="):
        sigma = (float(operator.removeprefix("sigma=")),) * len(method.targets)
    else:
        sigma = tuple(blur_sigma(band, method.factor, operator, platform) for band in method.targets)
    reach = method.reach
    if consistency:
        reach += max(projection_reach(method.factor, value) for value in sigma)
    return TileTask(
        method=method, sigma=sigma, depth=_up(reach), margin=_up(FILL_REACH * method.factor), consistency=consistency,
        dtype=dtype,
    )  # fmt: skip


def _up(pixels: int) -> int:
    return -(-pixels // STEP) * STEP


def _sharpen_group(
    ds: xr.Dataset, tasks: Sequence[TileTask], wanted: Sequence[str], chunks: int | None
) -> dict[str, xr.DataArray]:
    method, halo = tasks[0].method, max(task.halo for task in tasks)
    template = ds[_first_fine(ds)]
    has_time = "time" in template.dims
    fine = method.fine_bands or (str(template.name),)
    stacks = [_stack(ds, names, has_time) for names in (fine, method.middle_bands, method.targets) if names]
    tile_chunks = _tile_chunks(stacks[-1], method.factor, halo)
    if len(tasks) == 1:
        sharp = _map(tasks[0], stacks, tile_chunks)
    else:
        parts = [_map(task, [s[t : t + 1] for s in stacks], tile_chunks) for t, task in enumerate(tasks)]
        sharp = da.concatenate(parts, axis=0)
    out = template.chunks[-2:] if template.chunks else sharp.chunks[2:]
    sharp = sharp.rechunk({2: chunks or out[0], 3: chunks or out[1]})
    results = {}
    for i, name in enumerate(method.targets):
        if name in wanted:
            data = sharp[:, i] if has_time else sharp[0, i]
            results[name] = xr.DataArray(data, template.coords, template.dims, name=name, attrs=ds[name].attrs)
    return results


def _stack(ds: xr.Dataset, names: Sequence[str], has_time: bool) -> da.Array:
    """Bands of one grid as one array (time, band, y, x), one chunk along band and one image per chunk."""
    arrays = [da.asarray(ds[name].transpose(..., *ds[name].dims[-2:]).data) for name in names]
    if not has_time:
        arrays = [array[None] for array in arrays]
    return da.stack(arrays, axis=1).rechunk({0: 1, 1: -1})


def _tile_chunks(coarse: da.Array, factor: int, depth: int) -> list[tuple[int, ...]]:
    """Chunks of the tiles in coarse pixels along y and x: those of the input, merged where a halo would not fit."""
    step = max(1, STEP // factor)
    least = -(-MIN_HALOS * depth // STEP) * STEP // factor
    chunks = []
    for sizes in coarse.chunks[2:]:
        total = sum(sizes)
        chunks.append(merge_chunks(sizes, step, min(least, total)))
    return chunks


def _map(task: TileTask, stacks: Sequence[da.Array], tile_chunks: Sequence[tuple[int, ...]]) -> da.Array:
    factor = task.method.factor
    task = replace(task, tiles=(len(tile_chunks[0]), len(tile_chunks[1])))
    scales = [1, factor] if len(stacks) == 2 else [1, 2, factor]
    arrays, depths = [], []
    for stack, scale in zip(stacks, scales, strict=True):
        y, x = (tuple(size * factor // scale for size in sizes) for sizes in tile_chunks)
        arrays.append(stack.rechunk({2: y, 3: x}))
        depths.append({0: 0, 1: 0, 2: task.halo // scale, 3: task.halo // scale})
    y, x = (tuple(size * factor for size in sizes) for sizes in tile_chunks)
    return da.map_overlap(
        task, *arrays, depth=depths, boundary=["reflect"] * len(arrays), trim=False, align_arrays=False,
        allow_rechunk=False, dtype=task.dtype, meta=np.empty((0, 0, 0, 0), task.dtype),
        chunks=(arrays[0].chunks[0], (len(task.method.targets),), y, x), name=None,
    )  # fmt: skip


def _native(band: xr.DataArray, dtype: str, chunks: int | None) -> xr.DataArray:
    if band.dtype != np.dtype(dtype):
        if dtype == "float32":
            band = band.copy(data=as_float_with_nan(band.data).astype(np.float32))
        else:
            data = da.asarray(band.data).map_blocks(_native_digital, dtype=np.uint16)
            band = band.copy(data=data)
    return band.chunk({"y10": chunks, "x10": chunks}) if chunks else band


def _like(band: xr.DataArray, sharp: dict[str, xr.DataArray]) -> xr.DataArray:
    """Give a native band the chunks of the sharpened ones, so that blocks of all bands can be written side by side."""
    first = next(iter(sharp.values()), None)
    return band if first is None or first.chunks is None else band.chunk(dict(first.chunksizes))


def _native_digital(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    valid = np.isfinite(block) if block.dtype.kind == "f" else block != NODATA
    return as_dtype(block, valid, "uint16")


def _provenance(methods: Sequence[Method], operator: str, *, consistency: bool) -> dict[str, Any]:
    return {
        "sharpened_by": f"eosr {__version__}",
        "sharpening_methods": [method.name for method in methods],
        "weights_sha256": [method.checksum for method in methods],
        "consistency": "exact" if consistency else "none",
        "degradation": operator,
    }
