"""Pixels of a foreign cube -> digital numbers on the bands' own pixels, checked block by block when computed."""

from __future__ import annotations

from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt

from eosr.bands import BANDS
from eosr.errors import GridError, RadiometryError
from eosr.foreign_layers import Layer
from eosr.grid import STEPS

_CHUNK: Final = 1536

Image = npt.NDArray[Any]


def native(layer: Layer, left: float, bottom: float, right: float, top: float) -> da.Array:
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
