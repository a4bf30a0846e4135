"""What odc-stac, stackstac, cubo or rioxarray opened -> the Dataset that eosr works on, or the reason why it cannot be.

The rules, in `from_xarray`, leave nothing to guess: measured pixels are taken as they are or not at all. What can only
be seen in the pixels (whole numbers, blocks of equal pixels) is checked in every block when it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from pyproj import CRS
from pyproj.exceptions import CRSError

from eosr.bands import BANDS, LEVELS
from eosr.errors import BandError, GridError, RadiometryError
from eosr.grid import STEPS, TOLERANCE, from_arrays
from eosr.items import band_of

#: Names of dimensions that hold bands: stackstac and cubo, rioxarray, others.
_BAND_DIMS: Final = ("band", "bands", "variable")
#: In the southern hemisphere grids start at a false northing of 10 000 km, which is no multiple of 60 m [m].
_SOUTH: Final = 10_000_000
_CHUNK: Final = 1536

Image = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """One band as it came."""

    name: str
    #: (time, y, x) or (y, x), y falling.
    image: xr.DataArray
    #: Side of its pixels, left and top edge [m].
    step: int
    left: float
    top: float

    @property
    def right(self) -> float:
        return self.left + self.step * self.image.sizes["x"]

    @property
    def bottom(self) -> float:
        return self.top - self.step * self.image.sizes["y"]


def from_xarray(
    *sources: xr.Dataset | xr.DataArray,
    level: str | None = None,
    offset: int | Sequence[int] | None = None,
    crs: Any = None,
    **attrs: Any,
) -> xr.Dataset:
    """Multi-resolution Dataset from arrays with plain ``y`` and ``x``, lazily.

    Parameters
    ----------
    *sources : Dataset or DataArray
        One with all bands, or one per pixel size, in any order. Bands are the variables of a Dataset, or the values
        of a dimension ``band``, named ``B05``, ``B05_20m``, ``rededge1`` ... Whatever is no band is left out.
    level : str, optional
        ``"L1C"`` or ``"L2A"``. Default: the attribute ``level``.
    offset : int or sequence of int, optional
        What is added to the digital numbers to get 10000 x reflectance, one or one per time: -1000 from processing
        baseline 04.00 on, 0 before, and where the source has taken it out already [DN]. Default: the attribute
        ``radiometric_offset``.
    crs : anything pyproj reads, optional
        Default: ``spatial_ref``, or what stackstac and cubo note as ``epsg``.
    **attrs
        Further attributes, e.g. ``platform="sentinel-2b"``.

    Returns
    -------
    Dataset
        uint16, 0 = nodata, chunks of 1536 pixels of 10 m; see docs/reference/dataset-layout.md.

    Raises
    ------
    BandError
        If there is no band, or one twice.
    GridError
        If pixels lie off the grid of Sentinel-2, or are larger than those of their band. When computed: if a band was
        brought to 10 m by another way than nearest neighbour.
    RadiometryError
        If level or offset cannot be told. When computed: if pixels are no digital numbers.

    Notes
    -----
    - Coordinates may be centres (odc-stac, rioxarray) or upper left corners (stackstac and cubo by default): on the
      grid of Sentinel-2 only one of the two can be.
    - A 20 m or 60 m band on smaller pixels is brought back to its own: every pixel of it must be there as a block of
      equal ones, as nearest neighbour leaves it.
    - All are cut to the whole 60 m pixels (without 60 m bands: 20 m) that they have in common.
    - Floats must be whole numbers; NaN is nodata. Reflectance is not turned back.

    Examples
    --------
    >>> ten = odc.stac.load(items, bands=["B02", "B03", "B04", "B08"], resolution=10)      # doctest: +SKIP
    >>> twenty = odc.stac.load(items, bands=["B05", "B11"], resolution=20)                 # doctest: +SKIP
    >>> ds = eosr.from_xarray(ten, twenty, level="L2A", offset=-1000)                      # doctest: +SKIP
    """
    if not sources:
        raise BandError("from_xarray needs at least one Dataset or DataArray. Give e.g. from_xarray(ds, level='L2A').")
    for source in sources:
        if not isinstance(source, xr.Dataset | xr.DataArray):
            raise GridError(
                f"from_xarray takes Datasets and DataArrays, not {type(source).__name__}. For plain arrays use "
                "eosr.grid.from_arrays."
            )
    known = {key: value for source in sources for key, value in source.attrs.items()}
    stated_level = _level(known.get("level") if level is None else level)
    stated_offset = _offset(known.get("radiometric_offset") if offset is None else offset)
    layers = _layers(sources)
    projection = _crs(sources, crs)
    left, bottom, right, top = _common(layers, projection)
    times = _times(layers)
    bands = {layer.name: _native(layer, left, bottom, right, top) for layer in layers}
    told = {key: known[key] for key in ("platform", "processing_baseline", "tile", "item_ids") if key in known}
    stated = {"radiometric_offset": stated_offset, "offset_policy": "from_xarray", "offset_source": "stated"}
    return from_arrays(
        bands, transform=(10, 0, left, 0, -10, top), crs=projection, level=stated_level, time=times,
        **{**stated, **told, **attrs},
    )  # fmt: skip


def adopted(ds: xr.Dataset) -> xr.Dataset:
    """A Dataset with plain ``y`` and ``x`` that holds bands, through `from_xarray`; any other as it is."""
    plain = isinstance(ds, xr.Dataset) and {"y", "x"} <= set(ds.dims) and any(_names(ds))
    return from_xarray(ds) if plain else ds


def _names(ds: xr.Dataset) -> Iterator[str]:
    return (str(name) for name in ds.data_vars if band_of(str(name), {}))


def _level(level: Any) -> str:
    if level in LEVELS:
        return str(level)
    told = "nothing tells the processing level" if level is None else f"level={level!r} is unknown"
    raise RadiometryError(f"{told}. Say it: level='L2A' or level='L1C', or ds.attrs['level'] = 'L2A'.")


def _offset(offset: Any) -> int | list[int]:
    if offset is None:
        raise RadiometryError(
            "nothing tells the radiometric offset. Say it: offset=-1000 for processing baselines from 04.00 on, "
            "offset=0 before, or where the source has taken it out; or ds.attrs['radiometric_offset'] = -1000."
        )
    several = not isinstance(offset, int | np.integer)
    numbers = [int(one) for one in (offset if several else [offset])]
    return numbers if several and len(set(numbers)) > 1 else numbers[0]


def _layers(sources: Sequence[Any]) -> list[_Layer]:
    found: dict[str, _Layer] = {}
    seen: list[str] = []
    for source in sources:
        for key, image in _split(source):
            seen.append(key)
            name = band_of(key, {})
            if name is None:
                continue
            if name in found:
                raise BandError(f"{name} is there twice. Leave it out of one: ds.drop_vars({key!r}).")
            found[name] = _layer(name, image)
    if not found:
        raise BandError(f"no band of Sentinel-2 among {seen or 'nothing'}. Name them B02, B05 ...: ds.rename(...).")
    return [found[name] for name in BANDS if name in found]


def _split(source: Any) -> Iterator[tuple[str, xr.DataArray]]:
    """Arrays without a dimension for bands, and the names they go by."""
    if isinstance(source, xr.Dataset):
        for name, image in source.data_vars.items():
            axis = next((dim for dim in _BAND_DIMS if dim in image.dims), None)
            if band_of(str(name), {}) is None and axis is not None and image.sizes[axis] > 1:
                yield from _split(image)
            else:
                yield str(name), image if axis is None else image.squeeze(axis, drop=True)
        return
    axis = next((dim for dim in _BAND_DIMS if dim in source.dims), None)
    if axis is None:
        yield str(source.name), source
    elif (axis in source.coords and source.sizes[axis] > 1) or band_of(str(source.name), {}) is None:
        for index, key in enumerate(source[axis].values):
            yield str(key), source.isel({axis: index}, drop=True)
    else:
        yield str(source.name), source.squeeze(axis, drop=True)


def _layer(name: str, image: xr.DataArray) -> _Layer:
    rest = [dim for dim in image.dims if dim not in ("time", "y", "x")]
    if rest or not {"y", "x"} <= set(image.dims):
        raise GridError(f"{name} has dimensions {image.dims}; time, y and x are known. Rename or select: ds.isel(...).")
    image = image.transpose(*(dim for dim in ("time", "y", "x") if dim in image.dims))
    for axis in ("y", "x"):
        if axis not in image.coords or image.sizes[axis] < 2:
            raise GridError(f"{name} has no coordinate {axis} of two pixels or more. Open a larger window.")
    if image.y[0] < image.y[-1]:
        image = image.isel(y=slice(None, None, -1))
    steps = [float(image.x[1] - image.x[0]), float(image.y[0] - image.y[1])]
    step, native = round(steps[0]), BANDS[name].gsd
    if not np.allclose(steps, step, rtol=0, atol=TOLERANCE) or step not in (10, native) or native % step:
        raise GridError(
            f"{name} has pixels of {steps[0]:g} by {steps[1]:g} m; its own are {native} m. Load it on those (or on "
            "10 m by nearest neighbour), in the UTM zone of its tile."
        )
    left, top = (_edge(name, axis, float(image[axis][0]), step) for axis in ("x", "y"))
    return _Layer(name=name, image=image, step=step, left=left, top=top)


def _edge(name: str, axis: str, first: float, step: int) -> float:
    """Edge of the first pixel, from its centre or its corner."""
    # Corners of tiles are multiples of 20 m; those of 60 m pixels are checked against the other bands.
    grid = min(step, 20)
    for edge in (first, first - step / 2 if axis == "x" else first + step / 2):
        if abs(edge / grid - round(edge / grid)) * grid < TOLERANCE * step:
            return float(round(edge / grid) * grid)
    raise GridError(
        f"{name} starts at {axis}={first:.10g}, neither centre nor corner of a pixel of Sentinel-2: it was resampled. "
        "Load it on the pixels of its file, in the UTM zone of its tile."
    )


def _crs(sources: Sequence[Any], crs: Any) -> CRS:
    found = [crs] if crs is not None else [one for source in sources for one in _stated_crs(source)]
    if not found:
        raise GridError("nothing tells the coordinate reference system. Say it, e.g. crs='EPSG:32632'.")
    try:
        known = [CRS.from_user_input(one) for one in found]
    except CRSError as error:
        raise GridError(
            f"{found[0]!r} is no coordinate reference system pyproj knows. Say crs='EPSG:32632'."
        ) from error
    if any(one != known[0] for one in known):
        raise GridError(f"the sources are in {sorted({one.to_string() for one in known})}. Load them in one.")
    return known[0]


def _stated_crs(source: Any) -> Iterator[Any]:
    for name, coord in source.coords.items():
        if "crs_wkt" in coord.attrs:
            yield coord.attrs["crs_wkt"]
        elif name in ("epsg", "proj:epsg", "proj:code") and coord.size:
            yield from {int(str(one).removeprefix("EPSG:")) for one in np.ravel(coord.values)}
    for name in ("crs", "epsg"):
        if source.attrs.get(name):
            yield source.attrs[name]


def _common(layers: Sequence[_Layer], crs: CRS) -> tuple[float, float, float, float]:
    """Whole coarsest pixels that all bands have [m]."""
    coarse = max(BANDS[layer.name].gsd for layer in layers)
    own = next((layer for layer in layers if layer.step == coarse), None)
    south = (crs.to_epsg() or 0) // 100 == 327
    x0, y0 = (own.left, own.top) if own else (0, _SOUTH if south else 0)
    left = max(layer.left for layer in layers)
    right = min(layer.right for layer in layers)
    bottom = max(layer.bottom for layer in layers)
    top = min(layer.top for layer in layers)
    left = x0 + math.ceil((left - x0) / coarse) * coarse
    right = x0 + math.floor((right - x0) / coarse) * coarse
    bottom = y0 + math.ceil((bottom - y0) / coarse) * coarse
    top = y0 + math.floor((top - y0) / coarse) * coarse
    if left >= right or bottom >= top:
        raise GridError(f"the bands have no whole pixel of {coarse} m in common. Load all of them for one window.")
    return left, bottom, right, top


def _times(layers: Sequence[_Layer]) -> Image | None:
    first = layers[0]
    for layer in layers:
        if ("time" in layer.image.dims) != ("time" in first.image.dims) or (
            "time" in layer.image.dims and not np.array_equal(layer.image.time.values, first.image.time.values)
        ):
            raise GridError(f"{layer.name} has other times than {first.name}. Load them with one search.")
    return np.asarray(first.image.time.values) if "time" in first.image.dims else None


def _native(layer: _Layer, left: float, bottom: float, right: float, top: float) -> da.Array:
    """Digital numbers of a band on its own pixels, for the common window."""
    gsd, step = BANDS[layer.name].gsd, layer.step
    rows = slice(round((layer.top - top) / step), round((layer.top - bottom) / step))
    columns = slice(round((left - layer.left) / step), round((right - layer.left) / step))
    inside = layer.image.isel(y=rows, x=columns).data
    if not isinstance(inside, da.Array):
        inside = da.from_array(inside, chunks=-1)
    side = _CHUNK // STEPS[step]
    inside = inside.rechunk((*(1,) * (inside.ndim - 2), side, side))
    factor = gsd // step
    chunks = tuple(inside.chunks[:-2]) + tuple(tuple(n // factor for n in sizes) for sizes in inside.chunks[-2:])
    nodata = layer.image.attrs.get("nodata", layer.image.encoding.get("_FillValue"))
    return inside.map_blocks(
        _measured,
        layer.name,
        factor,
        nodata,
        dtype=np.uint16,
        chunks=chunks,
        meta=np.empty((0,) * inside.ndim, np.uint16),
    )


def _measured(block: Image, name: str, factor: int, nodata: Any) -> Image:
    numbers = _digital_numbers(block, name, nodata)
    if factor == 1:
        return numbers
    once = np.ascontiguousarray(numbers[..., ::factor, ::factor])
    if not np.array_equal(once.repeat(factor, -2).repeat(factor, -1), numbers):
        raise GridError(
            f"{name} was brought to {BANDS[name].gsd // factor} m by interpolation, or off its own pixels: they are "
            f"not in blocks of {factor} x {factor} equal ones. Load it at {BANDS[name].gsd} m, or by nearest neighbour."
        )
    return once


def _digital_numbers(block: Image, name: str, nodata: Any) -> Image:
    if block.dtype == np.uint16 and nodata in (None, 0):
        return block
    values = block.astype(np.float64)
    missing = np.isnan(values) if nodata is None else np.isnan(values) | (values == float(nodata))
    values[missing] = 0
    if not np.array_equal(values, np.rint(values)) or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        odd = values[(values != np.rint(values)) | (values < 0) | (values > 65535)].flat[0]
        raise RadiometryError(
            f"{name} holds {odd:g}, which is no digital number. Load it without scale and offset: rescale=False "
            "(stackstac; cubo: stackstac_kw={'rescale': False}), mask_and_scale=False (xarray)."
        )
    return values.astype(np.uint16)
