"""Pixel arithmetic of the multi-resolution Dataset: do the grids nest, where are the centres, one group as plain y/x.

A group is named by the native pixel size of its bands, 10, 20 or 60 [m], and so are its dimensions (``y20``, ``x20``)
and its grid mapping (``spatial_ref20``). The names stay when a Dataset is degraded; `gsd_of` tells the true pixel size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

from eosr.cube.bands import BANDS, NODATA, QUANTIFICATION, check_bands
from eosr.errors import BandError, GridError

#: Names of the three groups: native pixel sizes [m].
GROUPS: Final = (10, 20, 60)
#: 10 m pixels along one side of the pixel of each group.
STEPS: Final = {10: 1, 20: 2, 60: 6}
#: Two coordinates closer than this share of a pixel are the same.
TOLERANCE: Final = 1e-3


def group_of(array: xr.DataArray) -> int:
    """Group of a band in a multi-resolution Dataset, from the names of its dimensions.

    Raises
    ------
    GridError
        If the dimensions are not ``(..., y10, x10)``, ``(..., y20, x20)`` or ``(..., y60, x60)``.
    """
    for group in GROUPS:
        if array.dims[-2:] == (f"y{group}", f"x{group}"):
            return group
    raise GridError(
        f"{array.name or 'the array'} has dimensions {tuple(map(str, array.dims))}, not (..., 'y10', 'x10') or the "
        "like of 20 or 60. Open it with eosr.open_stac, or hand it to eosr.from_xarray."
    )


def groups_of(ds: xr.Dataset) -> dict[int, tuple[str, ...]]:
    """Bands of every group present, finest group first."""
    of = {str(name): group_of(ds[name]) for name in ds.data_vars if name in BANDS}
    return {group: tuple(name for name in of if of[name] == group) for group in sorted({*of.values()})}


def with_grid_mappings(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset with its ``spatial_ref*`` as coordinates.

    `xarray.open_zarr` without ``decode_coords="all"`` hands them over as data, and their names as attributes.
    """
    loose = [name for name in ds.data_vars if str(name).startswith("spatial_ref")]
    if not loose:
        return ds
    whole = ds.set_coords(loose)
    for name in whole.data_vars:
        band = whole[name].copy(deep=False)
        if "grid_mapping" in band.attrs:
            band.encoding = {**band.encoding, "grid_mapping": band.attrs["grid_mapping"]}
            band.attrs = {key: value for key, value in band.attrs.items() if key != "grid_mapping"}
            whole[name] = band
    return whole


def transform_of(ds: xr.Dataset, group: int) -> Affine:
    """Affine of the top-left corner of a group [unit of the CRS], from its pixel centres.

    Raises
    ------
    GridError
        If the group is absent, has no coordinates, or its pixels are neither square, equally spaced nor north-up.
    """
    ds = with_grid_mappings(ds)
    y, x = f"y{group}", f"x{group}"
    if y not in ds.coords or x not in ds.coords:
        raise GridError(f"the Dataset has no coordinates {y} and {x}. Groups present: {sorted(groups_of(ds))}.")
    step_x, step_y = (_spacing(ds, name, group) for name in (x, y))
    if not np.isclose(step_x, -step_y, rtol=0, atol=TOLERANCE * abs(step_x)) or step_x <= 0:
        raise GridError(
            f"pixels of the {group} m group are {step_x:g} by {step_y:g}; square pixels, x rising and y falling, are "
            f"needed. Sort with .sortby('{y}', ascending=False)."
        )
    left, top = float(ds[x][0]) - step_x / 2, float(ds[y][0]) - step_y / 2
    return Affine(step_x, 0.0, left, 0.0, step_y, top)


def _spacing(ds: xr.Dataset, name: str, group: int) -> float:
    centres = np.asarray(ds[name].values, np.float64)
    if centres.size == 0:
        raise GridError(f"coordinate {name} is empty. Select a window that holds at least one pixel of {group} m.")
    other = f"{'y' if name.startswith('x') else 'x'}{group}"
    if centres.size == 1 and ds.sizes[other] > 1:
        return -_spacing(ds, other, group)  # pixels are square, and y falls
    if centres.size == 1:
        mapping = ds.coords.get(f"spatial_ref{group}")
        if mapping is None or "GeoTransform" not in mapping.attrs:
            raise GridError(
                f"coordinate {name} has one value and spatial_ref{group} has no GeoTransform: no pixel size."
            )
        numbers = [float(value) for value in str(mapping.attrs["GeoTransform"]).split()]
        return numbers[1] if name.startswith("x") else numbers[5]
    steps = np.diff(centres)
    if np.ptp(steps) > TOLERANCE * abs(steps[0]):
        raise GridError(
            f"coordinate {name} is not equally spaced ({steps.min():g} to {steps.max():g}). Do not drop rows."
        )
    return float((centres[-1] - centres[0]) / (centres.size - 1))


def gsd_of(ds: xr.Dataset, group: int) -> float:
    """Pixel size of a group [m]: the group's name, times the factor if the Dataset was degraded.

    Raises
    ------
    GridError
        As `transform_of`.
    """
    return float(transform_of(ds, group).a)


def crs_of(ds: xr.Dataset) -> CRS:
    """Coordinate reference system of the Dataset, from its grid mappings.

    Raises
    ------
    GridError
        If there is no grid mapping, or two of them disagree.
    """
    ds = with_grid_mappings(ds)
    found: CRS | None = None
    for group in groups_of(ds):
        mapping = ds.coords.get(f"spatial_ref{group}")
        if mapping is None or "crs_wkt" not in mapping.attrs:
            raise GridError(f"the Dataset has no grid mapping spatial_ref{group}. Build it with eosr.cube.from_arrays.")
        crs = CRS.from_wkt(mapping.attrs["crs_wkt"])
        if found is not None and crs != found:
            raise GridError(f"the groups have two CRSs: {found.to_string()} and {crs.to_string()}. Warp one first.")
        found = crs
    if found is None:
        raise GridError("the Dataset holds no Sentinel-2 band. Name its variables B02, B05 ...")
    return found


def check_nested(ds: xr.Dataset) -> None:
    """Make sure that the groups share the top-left corner and cover the same ground with pixels of 1:2:6.

    Raises
    ------
    GridError
        Which group differs, in what, and how to crop it.
    """
    groups = groups_of(ds)
    if not groups:
        raise GridError("the Dataset holds no Sentinel-2 band. Name its variables B02, B05 ...")
    finest, *others = groups
    base = transform_of(ds, finest)
    for group in others:
        ratio = STEPS[group] // STEPS[finest]
        transform = transform_of(ds, group)
        close = TOLERANCE * base.a
        if abs(transform.a - ratio * base.a) > close:
            raise GridError(
                f"pixels of the {group} m group are {transform.a:g} m, not {ratio} times the {base.a:g} m of the "
                f"{finest} m group. Open all bands with one call of eosr.open_stac."
            )
        if abs(transform.c - base.c) > close or abs(transform.f - base.f) > close:
            raise GridError(
                f"the {group} m grid starts at ({transform.c:g}, {transform.f:g}), the {finest} m grid at "
                f"({base.c:g}, {base.f:g}); both must start at the same corner. Crop to a window on the 60 m grid, "
                "e.g. eosr.open_stac(source, bbox=..., bbox_crs='item')."
            )
        for axis in ("y", "x"):
            fine, coarse = ds.sizes[f"{axis}{finest}"], ds.sizes[f"{axis}{group}"]
            if fine != ratio * coarse:
                raise GridError(
                    f"{fine} pixels along {axis}{finest} are not {ratio} times the {coarse} along {axis}{group}. "
                    "Crop first: eosr.cube.crop_to_multiple(ds)."
                )


def check_chunks(ds: xr.Dataset) -> None:
    """Make sure that dask chunks of the groups cover the same ground, block by block.

    Equal numbers of blocks are not enough: 512/256/85 gives equal numbers and mismatched blocks.

    Raises
    ------
    GridError
        Which chunks do not match, and the line that rechunks.
    """
    groups = groups_of(ds)
    seen: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {}
    for group, names in groups.items():
        for name in names:
            if ds[name].chunks is None:
                continue
            chunks = ds[name].chunksizes
            for axis in ("y", "x"):
                scaled = tuple(size * STEPS[group] for size in chunks[f"{axis}{group}"])
                first, expected = seen.setdefault((axis, "10 m"), (name, scaled))
                if scaled != expected:
                    raise GridError(
                        f"chunks of {name} along {axis}{group} {chunks[f'{axis}{group}'][:3]} do not cover the ground "
                        f"of those of {first}; chunks must be in the ratio 6:3:1. {_rechunk_line(groups)}"
                    )


def _rechunk_line(groups: Iterable[int]) -> str:
    sizes = ", ".join(f"y{g}={1536 // STEPS[g]}, x{g}={1536 // STEPS[g]}" for g in groups)
    return f"Rechunk: ds = ds.chunk({sizes})."


def crop_to_multiple(ds: xr.Dataset, multiple: int = 6) -> xr.Dataset:
    """Drop rows at the bottom and columns at the right until the grids nest in blocks of ``multiple`` 10 m pixels.

    Parameters
    ----------
    ds : Dataset
        Multi-resolution; its groups must start at the same corner, their sizes may differ.
    multiple : int
        Pixels of the 10 m group. Must be a multiple of the steps of the groups present (6 where there are 60 m bands).

    Raises
    ------
    GridError
        If ``multiple`` cannot be held by a group, or nothing is left.
    """
    groups = groups_of(ds)
    needed = max(STEPS[group] for group in groups)
    if multiple < 1 or multiple % needed:
        said = f"multiple={multiple} does not hold whole pixels of the {max(groups)} m group"
        raise GridError(f"{said}. Use a multiple of {needed}.")
    keep: dict[str, slice] = {}
    for axis in ("y", "x"):
        fine = min(ds.sizes[f"{axis}{group}"] * STEPS[group] for group in groups) // multiple * multiple
        if fine == 0:
            raise GridError(f"the scene is narrower along {axis} than {multiple} pixels of 10 m. Open a larger window.")
        keep |= {f"{axis}{group}": slice(0, fine // STEPS[group]) for group in groups}
    return ds.isel(keep)


def at(ds: xr.Dataset, gsd: int) -> xr.Dataset:
    """Bands of one group on plain ``y``/``x`` with one ``spatial_ref``: an ordinary Dataset for rioxarray.

    Parameters
    ----------
    ds : Dataset
        Multi-resolution.
    gsd : int
        The group: 10, 20 or 60.

    Raises
    ------
    BandError
        If there is no such group, or the Dataset has no band in it.
    """
    if isinstance(gsd, bool) or gsd not in GROUPS:
        raise BandError(
            f"{gsd!r} is no group of bands. Use one of the numbers {', '.join(map(str, groups_of(ds)))}, "
            "e.g. eosr.cube.at(ds, 10)."
        )
    ds = with_grid_mappings(ds)
    groups = groups_of(ds)
    if gsd not in groups:
        raise BandError(
            f"the Dataset has no band in the {gsd} m group; it has {sorted(groups)}. Use eosr.cube.at(ds, 10)."
        )
    names = list(groups[gsd])
    plain = ds[names].drop_vars([f"spatial_ref{group}" for group in GROUPS if group != gsd], errors="ignore")
    plain = plain.rename({f"y{gsd}": "y", f"x{gsd}": "x", f"spatial_ref{gsd}": "spatial_ref"})
    # .isel keeps the old corner in GeoTransform, and rioxarray believes it over the coordinates.
    plain["spatial_ref"].attrs["GeoTransform"] = _gdal_text(transform_of(ds, gsd))
    for name in names:
        plain[name].encoding = {**plain[name].encoding, "grid_mapping": "spatial_ref"}
        plain[name].attrs["nodata"] = np.nan if plain[name].dtype.kind == "f" else NODATA  # rioxarray looks there
    return plain


def _gdal_text(transform: Affine) -> str:
    return " ".join(repr(float(value)) for value in transform.to_gdal())


def from_arrays(
    bands: Mapping[str, Any],
    *,
    transform: Affine | Sequence[float],
    crs: Any,
    level: str,
    time: Any = None,
    gsd: Mapping[str, int] | None = None,
    **attrs: Any,
) -> xr.Dataset:
    """Multi-resolution Dataset from arrays of digital numbers.

    Parameters
    ----------
    bands : mapping of band name to array, (y, x) or (time, y, x)
        Numpy or dask; all groups must cover the same ground.
    transform : Affine or its six numbers
        Of the 10 m grid [unit of the CRS]: ``(pixel size, 0, left, 0, -pixel size, top)``.
    crs : anything pyproj reads, e.g. ``"EPSG:32632"`` or ``32632``
    level : str
        ``"L1C"`` or ``"L2A"``.
    time : sequence of datetime64, optional
        One per first index of three-dimensional arrays.
    gsd : mapping of band name to group, optional
        Only for bands that are not on their native grid, e.g. sharpened ones: ``{"B05": 10}``.
    **attrs
        Further attributes, e.g. ``platform``, ``processing_baseline``, ``radiometric_offset``, ``item_ids``. With
        ``time``, ``times`` is added, and ``item_times`` where there is one id per time. ``nodata=None``: 0 was
        measured, and becomes 1.

    Raises
    ------
    GridError
        If a shape does not fit, the transform is not north-up and square, or the CRS is unknown.
    BandError
        If a name is no band of Sentinel-2.

    Examples
    --------
    >>> ds = from_arrays({"B02": np.ones((6, 12), np.uint16), "B01": np.ones((1, 2), np.uint16)},
    ...                  transform=(10, 0, 600000, 0, -10, 5000040), crs=32632, level="L1C")
    >>> ds["B01"].dims, float(ds.x60[0])
    (('y60', 'x60'), 600030.0)
    """
    names = check_bands(bands)
    base = transform if isinstance(transform, Affine) else Affine(*list(transform)[:6])
    if base.b or base.d or base.a <= 0 or base.a != -base.e:
        raise GridError(f"transform {tuple(base)[:6]} is not north-up with square pixels. Warp the images first.")
    groups = {name: (gsd or {}).get(name, BANDS[name].gsd) for name in names}
    if unknown := sorted({group for group in groups.values() if group not in GROUPS}):
        raise GridError(f"no group of {unknown} m exists. Use one of {GROUPS}.")
    coords = _coords({group: bands[name].shape for name, group in reversed(groups.items())}, base, crs)
    if time is not None:
        coords["time"] = ("time", np.asarray(time).astype("datetime64[ns]"), {"standard_name": "time"})
    if attrs.get("nodata", NODATA) is None:  # 0 means nodata everywhere in eosr, and a valid pixel holds at least 1
        attrs["nodata"], bands = NODATA, {name: a.clip(1) if a.dtype.kind in "ui" else a for name, a in bands.items()}
    variables = {name: _variable(name, bands[name], groups[name], time is not None) for name in names}
    for name, variable in variables.items() if attrs.get("quantity") == "reflectance" else ():
        variable.attrs = {"long_name": f"{name} reflectance", "units": "1"}
    try:
        ds = xr.Dataset(variables, coords=coords)
    except ValueError as error:
        raise GridError(f"the bands of one group differ in shape, or in length from time: {error}.") from error
    ds.attrs = {
        "level": level, "platform": "", "processing_baseline": "", "radiometric_offset": 0, "offset_policy": "none",
        "nodata": NODATA, "quantification": QUANTIFICATION, "item_ids": [], **_times_of(ds, attrs), **attrs,
    }  # fmt: skip
    check_nested(ds)
    return ds


def _times_of(ds: xr.Dataset, attrs: Mapping[str, Any]) -> dict[str, list[str]]:
    """Attributes by which a part of the series, e.g. ``.isel(time=[1, 0])``, still knows which item is whose."""
    if "time" not in ds.dims:
        return {}
    times, ids = [str(time) for time in ds["time"].values.astype("datetime64[us]")], attrs.get("item_ids", [])
    if len(times) == 1:
        return {"times": times, "item_times": times * len(ids)}
    return {"times": times, "item_times": times} if len(ids) == len(times) else {"times": times}


def _variable(name: str, array: Any, group: int, has_time: bool) -> xr.Variable:
    dims = ("time", f"y{group}", f"x{group}") if has_time else (f"y{group}", f"x{group}")
    if array.ndim != len(dims):
        hint = "Give time=, one per image." if array.ndim == 3 else "Give arrays (time, y, x), or no time."
        raise GridError(f"{name} has {array.ndim} dimensions where {dims} are meant. {hint}")
    variable = xr.Variable(dims, array, attrs={"long_name": f"{name} digital number", "units": "DN"})
    variable.encoding["grid_mapping"] = f"spatial_ref{group}"
    return variable


def _coords(shapes: Mapping[int, tuple[int, ...]], base: Affine, crs: Any) -> dict[str, Any]:
    """Pixel centres and one CF grid mapping per group, with the attributes that rioxarray looks for."""
    try:
        cf = CRS.from_user_input(crs).to_cf()
    except CRSError as error:
        raise GridError(f"{crs!r} is no coordinate reference system pyproj knows. Use e.g. 'EPSG:32632'.") from error
    coords: dict[str, Any] = {}
    for group in sorted(shapes):
        transform = base @ Affine.scale(STEPS[group])
        rows, columns = shapes[group][-2:]
        coords[f"y{group}"] = (f"y{group}", centres(transform.f, transform.e, rows), _axis_attrs("y"))
        coords[f"x{group}"] = (f"x{group}", centres(transform.c, transform.a, columns), _axis_attrs("x"))
        mapping = {**cf, "spatial_ref": cf["crs_wkt"], "GeoTransform": _gdal_text(transform)}
        coords[f"spatial_ref{group}"] = ((), np.int64(0), mapping)
    return coords


def _axis_attrs(axis: str) -> dict[str, str]:
    name = f"projection_{axis}_coordinate"
    return {"axis": axis.upper(), "standard_name": name, "long_name": f"{axis} of pixel centres", "units": "metre"}


def centres(corner: float, step: float, count: int) -> npt.NDArray[np.float64]:
    """Centres of ``count`` pixels that start at ``corner``.

    Examples
    --------
    >>> centres(600000.0, 10.0, 3)
    array([600005., 600015., 600025.])
    """
    return corner + step * (np.arange(count, dtype=np.float64) + 0.5)
