"""Coarse -> fine at any size: overlap, sharpen, project onto the measurement, trim.

One lazy `map_overlap` per group of bands. Its halo is everything that can change a pixel (reach of the network, of the
projection and of the gap filling), so the answer does not depend on the chunks; at the edges of the scene the halo is
its mirror image, as in training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr import __version__
from eosr.bands import BANDS_10M, NODATA, PLATFORMS, SHARP_BANDS
from eosr.consistency import project_tile, projection_reach
from eosr.degrade import as_float_with_nan, blur_sigma, merge_chunks
from eosr.errors import BandError, GridError, RadiometryError
from eosr.gaps import FILL_REACH, fill_gaps
from eosr.grid import check_chunks, check_nested
from eosr.methods import Method, choose_methods
from eosr.radiometry import for_its_times, offsets

#: Output types.
DTYPES: Final = ("uint16", "float32")
#: Fine pixels of the halo are a multiple of the 60 m pixel.
STEP: Final = 6
#: A tile is at least this many halos wide; smaller chunks are computed together and cut again.
MIN_HALOS: Final = 4


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
        with_nan = [as_float_with_nan(array[0]) + np.float32(self.offset) for array in arrays]
        filled = [_cut(fill_gaps(a, np.isfinite(a)), self.margin // k) for a, k in zip(with_nan, scales, strict=True)]
        fine, *middle, coarse = (_cut(a, self.margin // k) for a, k in zip(with_nan, scales, strict=True))
        whole = [_whole_steps(a, fine.shape, k) for a, k in zip(filled, scales, strict=True)]
        sharp = self.method(whole[0], whole[1] if middle else None, whole[-1], self.sigma)
        sharp = np.ascontiguousarray(sharp[:, : fine.shape[1], : fine.shape[2]])
        if self.consistency:
            self._mirror_edges(sharp, block_id)
            for i, sigma in enumerate(self.sigma):
                sharp[i] = project_tile(sharp[i], coarse[i], s, sigma)
        valid = np.isfinite(fine).all(axis=0) & _enlarged(np.isfinite(coarse), s)
        if middle:
            valid &= _enlarged(np.isfinite(middle[0]).all(axis=0), 2)
        sharp = _cut(sharp, self.depth) - np.float32(self.offset)
        return _as_dtype(sharp, _cut(valid, self.depth), self.dtype)[None]

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
    network sees it, so it changes pixels within the reach of the method at most, and none further away.
    """
    _check_arguments(ds, dtype=dtype, chunks=chunks)
    ds = for_its_times(ds)
    available = [name for name in SHARP_BANDS if name in ds.data_vars]
    methods = choose_methods(weights, method, bands, available, device)
    needed = sorted({*BANDS_10M, *(b for m in methods for b in (*m.targets, *m.middle_bands))} & {*available})
    check_nested(ds[needed])
    check_chunks(ds[needed])
    operator = _operator(ds, degradation)
    if consistency is None:
        consistency = method is None
    level = str(ds.attrs.get("level", ""))
    results: dict[str, xr.DataArray] = {}
    for each in methods:
        each.check(level=level, degradation=operator)
        tasks = _tasks(ds, each, operator, consistency=consistency, dtype=dtype)
        results |= _sharpen_group(ds, tasks, [b for b in each.targets if bands is None or b in bands], chunks)
    for name in available:
        if name in BANDS_10M and (bands is None or name in bands):
            results[name] = _native(ds[name], dtype, chunks)
    mapping = ds[_first_fine(ds)].encoding.get("grid_mapping", "spatial_ref10")
    others = [name for name in ds.coords if str(name).startswith("spatial_ref") and name != mapping]
    sharp = xr.Dataset({name: results[name] for name in SHARP_BANDS if name in results}, attrs=ds.attrs)
    sharp = sharp.drop_vars(others, errors="ignore")
    for band in sharp.data_vars.values():
        band.encoding = {"grid_mapping": mapping}
    return sharp.assign_attrs(_provenance(methods, operator, consistency=consistency))


def _check_arguments(ds: xr.Dataset, *, dtype: str, chunks: int | None) -> None:
    if not isinstance(ds, xr.Dataset):
        raise GridError(
            f"superresolve needs a Dataset with one variable per band, not a {type(ds).__name__}. "
            "Open one with eosr.open_stac, or build it with eosr.grid.from_arrays."
        )
    if dtype not in DTYPES:
        raise RadiometryError(f"dtype {dtype!r} is not offered. Use one of {', '.join(map(repr, DTYPES))}.")
    if chunks is not None and (chunks < STEP or chunks % STEP):
        raise GridError(f"chunks={chunks} is no multiple of {STEP}. Use e.g. chunks={max(1, chunks // STEP) * STEP}.")
    if ds.attrs.get("quantity") == "reflectance":
        raise RadiometryError(
            "the Dataset holds reflectance; superresolve works on digital numbers. Give it the Dataset of open_stac, "
            "or eosr.radiometry.to_digital_numbers(ds), and convert the answer."
        )
    _first_fine(ds)


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
    if degradation == "auto":
        return str(ds.attrs.get("degradation", "study"))
    return degradation


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
    for dim in ("y10", "x10"):
        if template.sizes[dim] < halo:
            raise GridError(
                f"{template.sizes[dim]} pixels along {dim} are fewer than the reach of {method.name}, {halo} "
                f"pixels around each. Open a window of at least {halo} x {halo} pixels of 10 m."
            )
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


def _cut(array: npt.NDArray[Any], rim: int) -> npt.NDArray[Any]:
    return array[..., rim : array.shape[-2] - rim, rim : array.shape[-1] - rim]


def _whole_steps(array: npt.NDArray[Any], shape: tuple[int, ...], scale: int) -> npt.NDArray[Any]:
    """Repeat the last row and column until the tile holds whole 60 m pixels, as attention needs; beyond the halo."""
    rows, columns = (-size % STEP // scale for size in shape[-2:])
    return np.pad(array, ((0, 0), (0, rows), (0, columns)), mode="edge") if rows or columns else array


def _enlarged(valid: npt.NDArray[np.bool_], factor: int) -> npt.NDArray[np.bool_]:
    return valid.repeat(factor, axis=-2).repeat(factor, axis=-1)


def _as_dtype(bands: npt.NDArray[Any], valid: npt.NDArray[np.bool_], dtype: str) -> npt.NDArray[Any]:
    if dtype == "float32":
        return np.where(valid, bands, np.float32(np.nan)).astype(np.float32)
    # A valid pixel must not become nodata by rounding, nor wrap around.
    digital = np.clip(np.rint(np.where(valid, bands, 0)), 1, np.iinfo(np.uint16).max)
    return np.where(valid, digital, NODATA).astype(np.uint16)


def _native(band: xr.DataArray, dtype: str, chunks: int | None) -> xr.DataArray:
    if band.dtype != np.dtype(dtype):
        if dtype == "float32":
            band = band.copy(data=as_float_with_nan(band.data).astype(np.float32))
        else:
            data = da.asarray(band.data).map_blocks(_native_digital, dtype=np.uint16)
            band = band.copy(data=data)
    return band.chunk({"y10": chunks, "x10": chunks}) if chunks else band


def _native_digital(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    valid = np.isfinite(block) if block.dtype.kind == "f" else block != NODATA
    return _as_dtype(block, valid, "uint16")


def _provenance(methods: Sequence[Method], operator: str, *, consistency: bool) -> dict[str, Any]:
    return {
        "sharpened_by": f"eosr {__version__}",
        "sharpening_methods": [method.name for method in methods],
        "weights_sha256": [method.checksum for method in methods],
        "consistency": "exact" if consistency else "none",
        "degradation": operator,
    }
