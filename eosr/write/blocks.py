"""Blocks of a Dataset, and the order in which dask reads and writes them.

A Dataset cut into blocks that any dask scheduler can write side by side, each with a marker when it is done.

A graph in which dask reads a block when it is needed, not all blocks of a scene before the first one is written.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask._task_spec import DataNode, convert_legacy_graph
from dask.base import get_scheduler, tokenize
from dask.local import get_sync
from dask.optimization import cull

from eosr._version import __version__
from eosr.cube.grid import with_grid_mappings
from eosr.cube.radiometry import for_its_times
from eosr.errors import GridError, OutputError
from eosr.host.files import settle
from eosr.write.layout import Layer, as_json, jsonable

#: Pixels of a block along one side, by resolution group, for Datasets that are not chunked: 6:3:1.
DEFAULT_BLOCK = {10: 1536, 20: 768, 60: 256}
#: Index of a block along each dimension.
Block = tuple[int, ...]


def prepared(ds: xr.Dataset, layers: dict[int, Layer]) -> xr.Dataset:
    """Chunk what is not chunked or chunked otherwise, and make attributes and encodings what the file shall hold."""
    ds = for_its_times(with_grid_mappings(ds)).copy()
    ds.attrs = jsonable(ds.attrs)
    for group, layer in layers.items():
        side = DEFAULT_BLOCK.get(group, 1536)
        for name in layer.names:
            band = ds[name] if ds[name].chunks else ds[name].chunk({f"y{group}": side, f"x{group}": side})
            band = band if "time" not in band.dims or ds[name].chunks else band.chunk(time=1)
            nodata = 0 if band.dtype == "uint16" else None
            band.attrs = jsonable(
                {key: v for key, v in band.attrs.items() if key not in ("grid_mapping", "_FillValue")}
            )
            band.attrs |= {} if nodata is None else {"nodata": nodata}
            band.encoding = {"grid_mapping": f"spatial_ref{group}"}
            ds[name] = band
        # A window taken with .isel keeps the GeoTransform of the whole; the coordinates tell the truth.
        mapping = ds[f"spatial_ref{group}"]
        ds = ds.assign_coords({f"spatial_ref{group}": mapping.assign_attrs(GeoTransform=layer.geotransform)})
    return ds if _misaligned(ds, layers) is None else _rechunked(ds, layers)


def _rechunked(ds: xr.Dataset, layers: dict[int, Layer]) -> xr.Dataset:
    """One time per chunk, and the ground of the largest chunk of the finest group, on whole pixels of every group."""
    finest, step = min(layers), math.lcm(*layers)
    chunks = [ds[name].data.chunks[-2:] for name in layers[finest].names]
    ground = -(-max(max(sizes) for both in chunks for sizes in both) * finest // step) * step
    for group, layer in layers.items():
        sizes = {f"{axis}{group}": ground // group for axis in "yx"}
        for name in layer.names:
            encoding = ds[name].encoding
            ds[name] = ds[name].chunk(sizes | ({"time": 1} if "time" in ds[name].dims else {}))
            ds[name].encoding = encoding
    return ds


def blocks_of(ds: xr.Dataset, layers: dict[int, Layer]) -> list[Block]:
    """Return the indices of all blocks of a prepared Dataset, once those of all groups cover the same ground.

    Raises
    ------
    GridError
        If they do not, because the groups themselves do not.
    """
    told = _misaligned(ds, layers)
    if told is not None:
        raise GridError(
            f"{told}, so blocks cannot be written side by side. Crop the groups to the same ground first: "
            "ds = eosr.cube.crop_to_multiple(ds)."
        )
    band = ds[next(iter(ds.data_vars))]
    return list(itertools.product(*(range(count) for count in band.data.numblocks)))


def _misaligned(ds: xr.Dataset, layers: dict[int, Layer]) -> str | None:
    """What is wrong with the chunks, or None if all are even and cover the same ground in every group."""
    reference: dict[str, tuple[tuple[int, ...], str]] = {}
    for group, layer in layers.items():
        for name in layer.names:
            for dim, chunks in zip(ds[name].dims, ds[name].data.chunks, strict=True):
                axis, unit = str(dim).rstrip("0123456789"), 1 if dim == "time" else group
                if any(chunk != chunks[0] for chunk in chunks[:-1]) or chunks[-1] > chunks[0]:
                    return f"the chunks of {name} along {dim} are uneven: {_short(chunks)}"
                lengths = tuple(chunk * unit for chunk in chunks)
                known, first = reference.setdefault(axis, (lengths, f"{name} {_short(chunks)}"))
                if known != lengths:
                    return (
                        f"along {axis}, the chunks of {first} and {name} {_short(chunks)} do not cover the same ground"
                    )
    return None


def _short(chunks: tuple[int, ...]) -> str:
    return str(chunks) if len(chunks) <= 4 else f"({chunks[0]}, {chunks[1]}, ..., {chunks[-1]})"


def fingerprint_of(ds: xr.Dataset) -> dict[str, Any]:
    """Return what tells one input from another, part by part, as plain JSON; data are known by their dask names."""

    def digest(*values: Any) -> str:
        return hashlib.sha256(as_json(values).encode()).hexdigest()[:16]

    def shape(variable: xr.DataArray) -> list[Any]:
        return [list(map(str, variable.dims)), list(variable.shape), str(variable.dtype), variable.chunks]

    coords = {str(name): tokenize(np.asarray(ds[name].values)) for name in ds.coords}
    return {
        "version of eosr": __version__,
        "bands, shapes, types or chunks": digest({str(name): shape(ds[name]) for name in ds.data_vars}),
        "coordinates": digest(coords, {str(name): ds[name].attrs for name in ds.coords}),
        "attributes": digest(ds.attrs, {str(name): ds[name].attrs for name in ds.data_vars}),
        "dask names": digest({str(name): tokenize(ds[name].data) for name in ds.data_vars}),
    }


def _write_block(*arrays: np.ndarray, part: Path, done: Path, names: tuple[str, ...], run: str, block_id: Block) -> Any:
    """Write one block of every band, then its marker; runs in a dask worker. ``run`` keeps dask names unique."""
    del run
    for name, array in zip(names, arrays, strict=True):
        target = _opened(part / name, array)
        if array.dtype != target.dtype:
            gaps = int(np.isnan(array).sum()) if array.dtype.kind == "f" else 0
            whole = ".fillna(0).round()" if target.dtype.kind == "u" else ""
            raise OutputError(
                f"block {block_id} of {name} is {array.dtype} with {gaps} NaN, but {target.dtype} was declared, and a "
                "cast would change it silently. Convert it: "
                f"ds['{name}'] = ds['{name}'].astype('float64'){whole}.astype('{target.dtype}')."
            )
        starts = tuple(index * chunk for index, chunk in zip(block_id, target.chunks, strict=True))
        stops = tuple(min(a + chunk, size) for a, chunk, size in zip(starts, target.chunks, target.shape, strict=True))
        expected = tuple(stop - start for start, stop in zip(starts, stops, strict=True))
        if array.shape != expected:
            raise OutputError(
                f"block {block_id} of {name} is {array.shape} and its chunk {expected}. Check chunks= of its function."
            )
        target[tuple(map(slice, starts, stops))] = array
        # A chunk of nodata alone is no file. Of a new file, Linux's file systems bring the name along.
        chunk = part / name / target.metadata.encode_chunk_key(block_id)
        if chunk.exists():
            settle(chunk)
    (done / ".".join(map(str, block_id))).touch()
    return np.ones((1,) * len(block_id), dtype="uint8")


_opening = threading.Lock()


def _opened(path: Path, block: np.ndarray) -> zarr.Array[Any]:
    """An array that a block will be written to.

    Zarr writes no chunk of nodata alone, and looks for it in the one thread that all writers of a process share. So the
    look is taken here, and Zarr told to write what holds anything.
    """
    fill = np.isnan if block.dtype.kind == "f" else np.logical_not
    empty = block.size == 0 or (bool(fill(block.flat[0])) and bool(fill(block).all()))
    with _opening, zarr.config.set({"array.write_empty_chunks": not empty}):
        return zarr.open_array(store=path, mode="r+")


def write_blocks(ds: xr.Dataset, part: Path, done: Path, missing: list[Block]) -> None:
    """Compute the missing blocks of every band into the store ``part``, with one marker each in the folder ``done``."""
    if not missing:
        return
    arrays = [ds[name].data for name in ds.data_vars]
    marks = da.map_blocks(
        _write_block, *arrays, part=part, done=done, names=tuple(map(str, ds.data_vars)), run=uuid.uuid4().hex,
        dtype="uint8", meta=np.empty((0,) * arrays[0].ndim, "uint8"),
        chunks=tuple((1,) * count for count in arrays[0].numblocks),
    )  # fmt: skip
    # One graph of the missing blocks only: what two blocks share (halos) is computed once, what none needs is culled.
    keys = [(marks.name, *block) for block in missing]
    get_scheduler(cls=da.Array)(with_own_readers(da.optimize(marks.__dask_graph__(), keys)), keys)


#: Tasks of stackstac that make the reader of a file; every block that is read of it depends on the same one.
_READERS: Final = "asset_table_to_reader_and_window"


def with_own_readers(graph: Mapping[Any, Any]) -> dict[Any, Any]:
    """Hand every block its reader as data, instead of one task that all blocks of a file wait for.

    Parameters
    ----------
    graph : mapping of key to task
        Optimised: what follows is not optimised again.

    Returns
    -------
    dict
        With the same keys and answers. Otherwise dask reads a whole scene first (docs/decisions/order-of-blocks.md).
    """
    tasks = dict(convert_legacy_graph(graph))
    readers = [key for key in tasks if _name(key) == _READERS]
    made = dict(zip(readers, get_sync(cull(tasks, readers)[0], readers), strict=True))
    for key, task in list(tasks.items()):
        shared = made.keys() & set(task.dependencies)
        if shared:
            own = {reader: (f"{_READERS}-own", key, reader) for reader in shared}
            tasks |= {new: DataNode(new, made[reader]) for reader, new in own.items()}
            tasks[key] = task.substitute(own)
    return {key: task for key, task in tasks.items() if key not in made}


def _name(key: Any) -> str:
    return str(key[0] if isinstance(key, tuple) else key).rsplit("-", 1)[0]
