"""Which bands a foreign cube holds, and where on the grid of Sentinel-2 their pixels lie: by its coordinates alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from pyproj import CRS
from pyproj.exceptions import CRSError

from eosr.cube.band_names import band_named, check_not_nearly
from eosr.cube.bands import BANDS
from eosr.cube.grid import TOLERANCE
from eosr.errors import BandError, GridError

#: Names of dimensions that hold bands: stackstac and cubo, rioxarray, others.
_BAND_DIMS: Final = ("band", "bands", "variable")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One band as it came."""

    name: str
    #: (time, y, x) or (y, x), y falling.
    image: xr.DataArray
    #: Attributes of the source that holds it.
    around: Mapping[str, Any]
    #: What its coordinates are of pixels: "centres" or "corners".
    of: str
    #: Side of its pixels, left and top edge [m].
    step: int
    left: float
    top: float

    @property
    def right(self) -> float:
        """Right edge [m]."""
        return self.left + self.step * self.image.sizes["x"]

    @property
    def bottom(self) -> float:
        """Bottom edge [m]."""
        return self.top - self.step * self.image.sizes["y"]


def layers_of(sources: Sequence[Any], projection: CRS) -> list[Layer]:
    """Bands of all sources in spectral order, with the edges of their pixels.

    Raises
    ------
    BandError
        If there is no band, or one twice.
    GridError
        If pixels lie off the grid of Sentinel-2, or are larger than those of their band.
    """
    y0 = _false_northing(projection)
    found: dict[str, Layer] = {}
    seen: list[str] = []
    for source in sources:
        for key, image, axis in split(source):
            seen.append(key)
            name = band_named(key)
            if name is None:
                check_not_nearly([key], axis)
                continue
            if name in found:
                raise BandError(f"{name} is there twice. Leave it out of one: ds.drop_vars({key!r}).")
            found[name] = _layer(name, image, source.attrs, y0)
    if not found:
        line = f"ds.assign_coords({axis}=['B02', 'B05', ...])" if seen and axis else "ds.rename({'...': 'B02'})"
        raise BandError(f"no band of Sentinel-2 among {seen or 'nothing'}. Name them B02, B05 ...: {line}.")
    layers = [found[name] for name in BANDS if name in found]
    for layer in layers:
        if layer.of != layers[0].of:
            corners = next(one for one in (layer, layers[0]) if one.of == "corners")
            half = f"{corners.step / 2:g}"
            raise GridError(
                f"on the grid of Sentinel-2 the coordinates of {layers[0].name} are {layers[0].of} of pixels, those of "
                f"{layer.name} {layer.of}: one was resampled. Load it on the pixels of its file; if two libraries "
                f"opened them, turn corners into centres: ds.assign_coords(x=ds.x + {half}, y=ds.y - {half})."
            )
    return layers


def split(source: xr.Dataset | xr.DataArray) -> Iterator[tuple[str, xr.DataArray, str]]:
    """Arrays without a dimension for bands, the names they go by, and the dimension that held them or "".

    Names are of bands, or of whatever else is there. Where they tell no band, those that a file gives its bands do,
    which rioxarray hands over as ``long_name``.

    Raises
    ------
    BandError
        If an array with the name of one band holds several.
    """
    if isinstance(source, xr.Dataset):
        for image in source.data_vars.values():
            yield from split(image)
        return
    name, axis = str(source.name), next((dim for dim in _BAND_DIMS if dim in source.dims), None)
    described = source.attrs.get("long_name")
    if axis is None:
        told = isinstance(described, str) and band_named(name) is None and band_named(described)
        yield str(described) if told else name, source, ""
        return
    keys = [str(key) for key in source[axis].values]
    texts = [described] if isinstance(described, str) else described
    if isinstance(texts, list | tuple) and len(texts) == len(keys) and not any(band_named(key) for key in keys):
        keys = [str(text) if band_named(str(text)) else key for text, key in zip(texts, keys, strict=True)]
    if band_named(name) is None or (len(keys) > 1 and any(band_named(key) for key in keys)):
        for index, key in enumerate(keys):
            yield key, source.isel({axis: index}, drop=True), axis
    elif len(keys) == 1:
        yield name, source.squeeze(axis, drop=True), ""
    else:
        raise BandError(f"{name} has {len(keys)} images along {axis}. Select one: ds.isel({axis}=0).")


def _layer(name: str, image: xr.DataArray, around: Mapping[str, Any], y0: float) -> Layer:
    rest = [dim for dim in image.dims if dim not in ("time", "y", "x")]
    if rest or not {"y", "x"} <= set(image.dims):
        missing = [dim for dim in ("y", "x") if dim not in image.dims]
        if missing and len(rest) < len(missing):
            raise GridError(f"{name} has dimensions {image.dims}; y and x are needed. Give images of (time, y, x).")
        line = f"rename({dict(zip(rest[-len(missing) :], missing, strict=True))})" if missing else f"isel({rest[0]}=0)"
        raise GridError(f"{name} has dimensions {image.dims}; time, y and x are known. Rename or select: ds.{line}.")
    image = image.transpose(*(dim for dim in ("time", "y", "x") if dim in image.dims))
    for axis in ("y", "x"):
        if axis not in image.coords or image.sizes[axis] < 2:
            raise GridError(f"{name} has no coordinate {axis} of two pixels or more. Open a larger window.")
    if image.y[0] < image.y[-1]:
        image = image.isel(y=slice(None, None, -1))
    steps = [_spacing(name, image, "x"), -_spacing(name, image, "y")]
    step, native = round(steps[0]), BANDS[name].gsd
    if not np.allclose(steps, step, rtol=0, atol=TOLERANCE) or step not in (10, native) or native % step:
        raise GridError(
            f"{name} has pixels of {steps[0]:g} by {steps[1]:g} m; its own are {native} m. Load it on those (or on "
            "10 m by nearest neighbour), in the UTM zone of its tile."
        )
    of, left = _edge(name, "x", float(image.x[0]), step, 0)
    of_rows, top = _edge(name, "y", float(image.y[0]), step, y0)
    if of != of_rows:
        raise GridError(
            f"on the grid of Sentinel-2 the coordinates of {name} are {of} of pixels along x, {of_rows} along y: it "
            "was resampled. Load it on the pixels of its file."
        )
    return Layer(name=name, image=image, around=around, of=of, step=step, left=left, top=top)


def _spacing(name: str, image: xr.DataArray, axis: str) -> float:
    """Distance from pixel to pixel, the same between all of them [m]."""
    values = image[axis].values
    if values.dtype.kind not in "iuf":
        raise GridError(f"coordinate {axis} of {name} holds {values[0]!r} instead of metres. Give numbers.")
    steps = np.diff(values.astype(np.float64))
    if not np.ptp(steps) <= TOLERANCE * abs(steps[0]):
        raise GridError(
            f"coordinate {axis} of {name} is not equally spaced ({steps.min():g} to {steps.max():g}). "
            "Do not drop rows or columns."
        )
    return float(steps.mean())


def _edge(name: str, axis: str, first: float, step: int, origin: float) -> tuple[str, float]:
    """What the coordinate is of the first pixel, and its edge; pixels of every size are counted from the origin."""
    for of, edge in (("corners", first), ("centres", first - step / 2 if axis == "x" else first + step / 2)):
        number = (edge - origin) / step
        if abs(number - round(number)) < TOLERANCE:
            return of, origin + round(number) * step
    # Both count from 0, and 10 000 km are no multiple of 60 m.
    anchored = "; in the south with anchor=odc.geo.xy_(0, 2 / 3) (odc-stac) or snap_bounds=False (stackstac)"
    south = anchored if origin and step == 60 else ""
    raise GridError(
        f"{name} starts at {axis}={first:.10g}, neither centre nor corner of a pixel of Sentinel-2: it was resampled. "
        f"Load it on the pixels of its file, in the UTM zone of its tile{south}."
    )


def _false_northing(projection: CRS) -> float:
    """Northing that tiles are counted from [m]: 0, or 10 000 km in the southern hemisphere."""
    operation = projection.coordinate_operation
    if operation is None or operation.method_name != "Transverse Mercator":
        raise GridError(
            f"the sources are in {projection.to_string()}, so they were resampled: Sentinel-2 is measured in UTM. Load "
            "them in the UTM zone of their tile, e.g. crs='EPSG:32632'."
        )
    return next((float(one.value) for one in operation.params if one.name == "False northing"), 0.0)


def projection_of(sources: Sequence[Any], crs: Any) -> CRS:
    """Coordinate reference system that was given, or that all sources state.

    Raises
    ------
    GridError
        If none is stated, it is unknown, or two differ.
    """
    found = [crs] if crs is not None else [one for source in sources for one in _stated_crs(source)]
    if not found:
        raise GridError("nothing tells the coordinate reference system. Say it, e.g. crs='EPSG:32632'.")
    known = []
    for one in found:
        try:
            known.append(CRS.from_user_input(one))
        except CRSError as error:
            raise GridError(f"{one!r} is no coordinate reference system pyproj knows. Say crs='EPSG:32632'.") from error
    if any(one != known[0] for one in known):
        raise GridError(f"the sources are in {sorted({one.to_string() for one in known})}. Load them in one.")
    return known[0]


def _stated_crs(source: Any) -> Iterator[Any]:
    for name, coord in source.coords.items():
        if "crs_wkt" in coord.attrs:
            yield coord.attrs["crs_wkt"]
        elif name in ("epsg", "proj:epsg", "proj:code") and coord.size:
            yield from {f"EPSG:{str(one).removeprefix('EPSG:').removesuffix('.0')}" for one in np.ravel(coord.values)}
    for name in ("crs", "epsg"):
        if source.attrs.get(name):
            yield source.attrs[name]


def common_window(layers: Sequence[Layer], projection: CRS) -> tuple[float, float, float, float]:
    """Whole coarsest pixels that all bands have: left, bottom, right, top [m].

    Raises
    ------
    GridError
        If there are none.
    """
    coarse = max(BANDS[layer.name].gsd for layer in layers)
    y0 = _false_northing(projection)
    left = math.ceil(max(layer.left for layer in layers) / coarse) * coarse
    right = math.floor(min(layer.right for layer in layers) / coarse) * coarse
    bottom = y0 + math.ceil((max(layer.bottom for layer in layers) - y0) / coarse) * coarse
    top = y0 + math.floor((min(layer.top for layer in layers) - y0) / coarse) * coarse
    if left >= right or bottom >= top:
        raise GridError(f"the bands have no whole pixel of {coarse} m in common. Load all of them for one window.")
    return left, bottom, right, top


def times_of(layers: Sequence[Layer]) -> npt.NDArray[np.datetime64] | None:
    """Times of all bands, shape (times,), or () where they have a date but no dimension of it; None without dates.

    Raises
    ------
    GridError
        If bands differ, or times are no dates.
    """
    first: tuple[str, npt.NDArray[np.datetime64]] | None = None
    for layer in layers:
        if ("time" in layer.image.dims) != ("time" in layers[0].image.dims):
            raise GridError(f"{layer.name} has other times than {layers[0].name}. Load them with one search.")
        if "time" in layer.image.coords or "time" in layer.image.dims:
            dates = _dates(layer)
            first = first or (layer.name, dates)
            if not np.array_equal(dates, first[1]):
                raise GridError(f"{layer.name} has other times than {first[0]}. Load them with one search.")
    return first[1] if first else None


def _dates(layer: Layer) -> npt.NDArray[np.datetime64]:
    # Without a coordinate these are 0, 1 ..., and numbers would be taken for nanoseconds since 1970.
    values = np.asarray(layer.image["time"].values)
    flat = np.ravel(values).tolist() if values.dtype.kind != "M" else list(np.ravel(values))
    if all(isinstance(one, str | datetime | np.datetime64) for one in flat):
        with suppress(ValueError):
            dates = pd.to_datetime(flat, utc=True, format="ISO8601").tz_localize(None)
            if not dates.isna().any():
                return np.asarray(dates.values, "datetime64[ns]").reshape(values.shape)
    raise GridError(
        f"times of {layer.name} are no dates: {', '.join(map(str, flat[:3]))}. Give dates, e.g. "
        "ds.assign_coords(time=['2023-06-01']), or take one image without: ds.isel(time=0, drop=True)."
    )
