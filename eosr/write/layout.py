"""What lies where in a Dataset about to be written: grids, times, names, and attributes that fit into JSON."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError

from eosr.cube.bands import BANDS
from eosr.cube.grid import transform_of, with_grid_mappings
from eosr.cube.radiometry import PER_TIME, for_its_times, listed
from eosr.errors import GridError, NoRoomError, OutputError
from eosr.host.files import name_for
from eosr.host.proj import check_proj

#: Numbers that eosr writes: digital numbers with 0 = nodata, or float32 with NaN = nodata.
DTYPES = ("uint16", "float32")
#: System errors that mean "the disk, the quota or the largest file is full".
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One resolution group of a Dataset: the bands on ``y<group>, x<group>`` and where their pixels lie."""

    group: int
    names: tuple[str, ...]
    #: Rows and columns.
    shape: tuple[int, int]
    #: Top-left corner of the top-left pixel and pixel size [m].
    transform: Affine
    crs: CRS

    @property
    def gsd(self) -> float:
        """True pixel size [m]; differs from ``group`` after degradation."""
        return float(self.transform.a)

    @property
    def geotransform(self) -> str:
        """Six numbers of GDAL, as rioxarray keeps them in the grid mapping."""
        return " ".join(str(float(value)) for value in self.transform.to_gdal())


def layers_of(ds: xr.Dataset) -> dict[int, Layer]:
    """Resolution groups of a Dataset, finest first, once every variable lies on one of them.

    Parameters
    ----------
    ds : Dataset
        Variables on ``([time,] y<g>, x<g>)`` with coordinates ``y<g>, x<g>, spatial_ref<g>``; uint16 or float32.

    Raises
    ------
    GridError
        If a variable lies elsewhere, or a grid has no coordinates, no regular spacing or no CRS.
    OutputError
        If there is no variable, or one has another data type.
    """
    ds = with_grid_mappings(ds)
    if not ds.data_vars:
        raise OutputError("the Dataset holds no band, so there is nothing to write. Check how it was selected.")
    names: dict[int, list[str]] = {}
    for name, variable in ds.data_vars.items():
        match = re.fullmatch(r"(?:time,)?y(\d+),x(\d+)", ",".join(str(dim) for dim in variable.dims))
        if match is None or match[1] != match[2]:
            raise GridError(
                f"{name} has the dimensions {tuple(variable.dims)}, not ([time,] y10, x10), y20, x20 or y60, x60. "
                f"Transpose it, or leave it out: ds.drop_vars({name!r})."
            )
        if variable.dtype.name not in DTYPES:
            measured = "ds" if variable.dtype.kind == "f" else "ds.where(ds != 0)"
            raise OutputError(
                f"{name} is {variable.dtype}; eosr writes {' (0 = nodata) or '.join(DTYPES)} (NaN = nodata). "
                f"Convert, {measured}.astype('float32'), or leave it out, ds.drop_vars({name!r})."
            )
        names.setdefault(int(match[1]), []).append(str(name))
    timeless = [name for group in names.values() for name in group if "time" not in ds[name].dims]
    if timeless and "time" in ds.dims:
        raise GridError(
            "some bands have a time dimension and some have none. Give all of them one: "
            f"for name in {timeless}: ds[name] = ds[name].expand_dims(time=ds.time)"
        )
    return {group: _layer(ds, group, tuple(names[group])) for group in sorted(names)}


def _layer(ds: xr.Dataset, group: int, names: tuple[str, ...]) -> Layer:
    y, x, mapping = f"y{group}", f"x{group}", f"spatial_ref{group}"
    attrs = ds[mapping].attrs if mapping in ds.coords else {}
    try:
        check_proj()
        crs = CRS.from_wkt(attrs.get("crs_wkt") or attrs.get("spatial_ref") or "")
    except CRSError as error:
        raise GridError(
            f"the {group} m bands ({', '.join(names)}) have no CRS: the coordinate {mapping} is missing or holds no "
            "crs_wkt. Build the Dataset with eosr.open_stac or eosr.cube.from_arrays."
        ) from error
    shape = (ds.sizes[y], ds.sizes[x])
    if 0 in shape:
        raise GridError(
            f"the {group} m bands have no pixel: {y} x {x} = {shape[0]} x {shape[1]}. Choose a larger window."
        )
    return Layer(group=group, names=names, shape=shape, crs=crs, transform=transform_of(ds, group))


def spectral(names: Iterable[Any]) -> list[str]:
    """Names of variables, the bands of Sentinel-2 in spectral order first: a Zarr store does not keep an order."""
    order = {band: index for index, band in enumerate(BANDS)}
    return sorted(map(str, names), key=lambda name: (order.get(name, len(order)), name))


def times_of(ds: xr.Dataset) -> list[pd.Timestamp | None]:
    """Acquisition times along ``time``; one entry, possibly None, where there is no such dimension."""
    if "time" not in ds.coords:
        return [None] * ds.sizes.get("time", 1)
    return [None if pd.isna(value) else pd.Timestamp(value) for value in np.atleast_1d(ds["time"].values)]


def attrs_at(attrs: Mapping[str, Any], index: int, count: int) -> dict[str, Any]:
    """Dataset attributes of one time: lists with one value per time give theirs, all else stays.

    ``attrs`` must be those of `eosr.cube.radiometry.for_its_times`, so that ``times`` is in the order of the images.
    """
    chosen = dict(attrs)
    for key in (*PER_TIME, "times"):
        value = chosen.get(key)
        if isinstance(value, list | tuple | np.ndarray) and len(value) == count and count > 1:
            chosen[key] = [value[index]] if key == "times" else value[index]
    ids, moments = listed(chosen.get("item_ids")), listed(chosen.get("item_times"))
    if count > 1 and len(ids) == len(moments):
        mine = [item for item, time in zip(ids, moments, strict=True) if [time] == chosen.get("times")]
        chosen |= {"item_ids": mine, "item_times": chosen.get("times", []) * len(mine)}
    return chosen


def labels_of(ds: xr.Dataset) -> list[str]:
    """File-name prefix of each time: the item's id where it has one of its own, else the date, else ``scene``."""
    ds, times = for_its_times(ds), times_of(ds)
    each = [listed(attrs_at(ds.attrs, index, len(times)).get("item_ids")) for index in range(len(times))]
    names = [name_for(str(items[0])) for items in each if len(items) == 1]
    # Some file systems take "a" and "A" for one name.
    if len(names) == len(times) == len({name.casefold() for name in names}):
        return names
    for pattern in ("%Y%m%d", "%Y%m%dT%H%M%S", "%Y%m%dT%H%M%S%f"):
        labels = [
            time.strftime(pattern) if time is not None else f"scene{index or ''}" for index, time in enumerate(times)
        ]
        if len(set(labels)) == len(labels):
            return labels
    raise OutputError(
        "the Dataset holds the same time twice, so file names would collide. Mosaic, or take one of each: "
        "ds.drop_duplicates('time')."
    )


def jsonable(value: Any, where: str = "attrs") -> Any:
    """Return attributes as plain JSON values; numpy scalars, arrays, paths and times are converted.

    Raises
    ------
    OutputError
        If a value has no JSON form; the message names the attribute.
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry, f"{where}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, np.ndarray | list | tuple | set | frozenset):
        entries = sorted(value) if isinstance(value, set | frozenset) else list(value)
        return [jsonable(entry, f"{where}[{index}]") for index, entry in enumerate(entries)]
    if isinstance(value, np.datetime64 | pd.Timestamp):
        return pd.Timestamp(value).isoformat()
    if isinstance(value, np.generic):
        return jsonable(value.item(), where)
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise OutputError(
        f"{where} is a {type(value).__name__}, which has no place in JSON. Store a string or a number instead."
    )


def as_json(value: Any) -> str:
    """Compact JSON with sorted keys: the same text for the same content."""
    return json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"))


def local_path(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path on a local or shared disk; a URL is refused, also one that became a `Path`."""
    if not isinstance(path, str | os.PathLike):
        raise OutputError(f"{path!r} is a {type(path).__name__} where a path is meant. Give e.g. 'scene'.")
    if "://" in str(path) or re.match(r"[A-Za-z][\w+.-]+:/", str(path)):
        raise OutputError(
            f"{path} is a URL; eosr writes to disks only. Write to a folder, then copy it, e.g. with rclone."
        )
    name = os.fspath(path)
    try:
        if "\0" in name:
            raise UnicodeError
        str(Path(name).absolute()).encode()
    except (TypeError, UnicodeError):
        raise OutputError(
            f"{name!r} is a name that is not UTF-8, which GDAL and STAC need. Name another folder."
        ) from None
    return Path(path).expanduser().absolute()


def check_linkable(folder: Path) -> None:
    """Refuse a folder that STAC readers would not find: they take what follows for a part of a URL, and cut it off.

    Raises
    ------
    OutputError
        With the sign.
    """
    for sign in "#?\\\t\n\r":
        if sign in str(folder):
            raise OutputError(
                f"{folder} has a {sign!r} in its name, and STAC readers cut a path off there. Name another folder."
            )


def check_not_degraded(attrs: Mapping[str, Any]) -> None:
    """Refuse to describe a degraded image as one of Sentinel-2.

    Raises
    ------
    OutputError
        With the factor.
    """
    factor = attrs.get("degradation_factor")
    if factor is not None:
        raise OutputError(
            f"the Dataset was degraded by {factor}, so its pixels are not those of Sentinel-2, and a STAC item would "
            "be opened as if they were. Write it without an item: eosr.to_zarr or eosr.to_cog."
        )


def check_folder(folder: Path, needed: int) -> None:
    """Make the folder and refuse one that is not writable or has fewer free bytes than ``needed``.

    Raises
    ------
    OutputError
        With the number of bytes that are missing, or what the system said.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {error.strerror}. Choose another folder or change its rights."
        ) from error
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NoRoomError(
            f"{folder} has {free / 1e6:,.1f} MB free, and about {needed / 1e6:,.1f} MB are needed. "
            "Free some space, or write to another disk."
        )


def is_full(error: BaseException) -> bool:
    """Whether an error, or what led to it, says that there is no room."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, NoRoomError) or (isinstance(seen, OSError) and seen.errno in FULL):
            return True
        if any(os.strerror(number) in str(seen) for number in FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def has_room(folder: Path, size: int) -> bool:
    """Whether one more file of ``size`` bytes finds room: on the disk, in the quota, below the limit of the process."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        return error.errno not in FULL
    return True


def check_absent(paths: Sequence[Path]) -> None:
    """Refuse to touch what is already there.

    Raises
    ------
    OutputError
        With the first of the existing paths.
    """
    existing = [path for path in paths if path.exists() or path.is_symlink()]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(
            f"{existing[0]} is already there{more} and was kept. Pass overwrite=True, or write elsewhere."
        )
