"""Pixels of a foreign cube -> digital numbers on the bands' own pixels, checked block by block when computed."""

from __future__ import annotations

import math
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt

from eosr.cube.bands import BANDS, BASELINE_0400_OFFSET
from eosr.cube.grid import STEPS
from eosr.errors import GridError, RadiometryError
from eosr.open.cubes.layers import Layer

_CHUNK: Final = 1536
#: Attributes that say what stands for no measurement: odc-stac; rioxarray, netCDF and Zarr; netCDF.
_NODATA: Final = ("nodata", "_FillValue", "missing_value")

Image = npt.NDArray[Any]


def native(layer: Layer, window: tuple[float, float, float, float], nodata: Any = "declared") -> da.Array:
    """Digital numbers of a band on its own pixels, uint16, 0 = nodata, dims ([time,] y, x), lazy.

    Parameters
    ----------
    layer : Layer
    window : tuple
        Left, bottom, right, top, whole pixels of the band [m].
    nodata : float or None
        What stands for no measurement; None: nothing but NaN. Default: what the band or its source declares.

    Raises
    ------
    RadiometryError
        If nodata is no number or declared twice, or pixels are no numbers. When computed: if they are no digital ones.
    GridError
        When computed: if pixels are not in blocks of equal ones.
    """
    left, bottom, right, top = window
    gsd, step = BANDS[layer.name].gsd, layer.step
    rows = slice(round((layer.top - top) / step), round((layer.top - bottom) / step))
    columns = slice(round((left - layer.left) / step), round((right - layer.left) / step))
    inside = layer.image.isel(y=rows, x=columns).data
    if inside.dtype.kind not in "iuf" or inside.dtype.itemsize == 1:
        picture = ", an 8-bit picture" if inside.dtype in ("uint8", "int8") else ""
        raise RadiometryError(
            f"{layer.name} holds {inside.dtype}{picture}, no digital numbers. Load it as uint16, from the original."
        )
    if not isinstance(inside, da.Array):
        inside = da.from_array(inside, chunks=-1)
    side = _CHUNK // STEPS[step]
    inside = inside.rechunk((*(1,) * (inside.ndim - 2), side, side))
    factor = gsd // step
    chunks = tuple(inside.chunks[:-2]) + tuple(tuple(n // factor for n in sizes) for sizes in inside.chunks[-2:])
    if isinstance(nodata, str) and nodata == "declared":
        missing = _declared(layer)
    else:
        missing = math.nan if nodata is None else _number("nodata", nodata)
    return inside.map_blocks(
        _measured,
        layer.name,
        factor,
        missing,
        dtype=np.uint16,
        chunks=chunks,
        meta=np.empty((0,) * inside.ndim, np.uint16),
    )


def _declared(layer: Layer) -> float | None:
    """Nodata of a band; its own attributes go before what its file held, and that before those of the source."""
    for attrs in (layer.image.attrs, layer.image.encoding, layer.around):
        said = {key: _number(f"{key} of {layer.name}", attrs[key]) for key in _NODATA if attrs.get(key) is not None}
        # NaN is nodata in any case.
        numbers = {key: value for key, value in said.items() if not np.isnan(value)}
        if len({*numbers.values()}) > 1:
            both = " and ".join(f"{key}={value:g}" for key, value in numbers.items())
            raise RadiometryError(f"{layer.name} declares {both}. Say which is nodata: nodata=0.")
        if numbers:
            return next(iter(numbers.values()))
    return None


def _number(what: str, value: Any) -> float:
    try:
        if not isinstance(value, bool):
            return float(np.asarray(value).item())
    except (TypeError, ValueError):
        pass
    raise RadiometryError(f"{what} is {value!r}, which is no number. Say what stands for no measurement: nodata=0.")


def _measured(block: Image, name: str, factor: int, nodata: float | None) -> Image:
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


def _digital_numbers(block: Image, name: str, nodata: float | None) -> Image:
    if block.dtype == np.uint16 and nodata in (None, 0):
        return block
    values = block.astype(np.float64)
    if nodata is not None and np.isnan(nodata):  # 0 was measured
        values[values == 0] = 1
    missing = np.isnan(values) if nodata is None else np.isnan(values) | (values == nodata)
    values[missing] = 0
    if not np.array_equal(values, np.rint(values)) or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        odd = values[(values != np.rint(values)) | (values < 0) | (values > 65535)].flat[0]
        if odd == np.rint(odd) and BASELINE_0400_OFFSET <= odd < 0:
            raise RadiometryError(
                f"{name} holds {odd:.10g}, which was measured: the offset was taken out, and uint16 has no room below "
                f"0. Put it back, ds = ds.where(ds != {nodata or 0:g}) + {-BASELINE_0400_OFFSET}, and give "
                f"offset={BASELINE_0400_OFFSET}."
            )
        if odd == np.rint(odd):
            raise RadiometryError(
                f"{name} holds {odd:.10g}, no digital number. If it is nodata, say nodata={odd:.10g}."
            )
        raise RadiometryError(
            f"{name} holds {odd:g}, which is no digital number. Load it without scale and offset: rescale=False "
            "(stackstac; cubo: stackstac_kw={'rescale': False}), mask_and_scale=False (xarray)."
        )
    return values.astype(np.uint16)
