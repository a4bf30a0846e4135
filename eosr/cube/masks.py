"""Masks on another grid of the multi-resolution Dataset: clouds are known per 20 m, bands have 10, 20 and 60 m."""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from eosr.cube.grid import STEPS, TOLERANCE, group_of
from eosr.errors import GridError

#: Classes of the scene classification (SCL) of Sen2Cor that hide the ground or spoil its colour: cloud shadow, medium
#: and high probability of cloud, thin cirrus.
CLOUDY: Final = (3, 8, 9, 10)


def mask_like(mask: xr.DataArray, band: xr.DataArray) -> xr.DataArray:
    """Mask on the grid of a band, with its coordinates.

    Parameters
    ----------
    mask : DataArray, dims (..., y, x) of one group
        E.g. ``ds.cloud_mask``, dims (time, y20, x20). Numpy or dask; dask stays lazy.
    band : DataArray, dims (..., y, x) of one group
        Whose grid is wanted, e.g. ``ds.B02``; its pixels are not read.

    Returns
    -------
    DataArray
        Same dtype. To finer pixels: every pixel gets the value of the coarser one around it. To coarser pixels: True
        where any of the finer ones is.

    Raises
    ------
    GridError
        If dimensions are not those of a group, the mask does not cover the band, the grids do not nest, or a mask that
        is not bool shall become coarser.

    Notes
    -----
    A coarser pixel is cloudy where any part of it is. For a mask of pixels to be used, where all parts count, turn it
    round: ``~mask_like(~use, ds.B05)``.

    Examples
    --------
    >>> from eosr.testing import synthetic_scene
    >>> ds = synthetic_scene(48, 48)
    >>> clear = ds.B02.where(~mask_like(ds.B05 > 5000, ds.B02))
    """
    have, want = group_of(mask), group_of(band)
    finer = STEPS[have] >= STEPS[want]
    times = max(STEPS[have], STEPS[want]) // min(STEPS[have], STEPS[want])
    cover = {f"{axis}{have}": _cover(mask, band, axis, times, finer=finer) for axis in "yx"}
    covered = mask.isel(cover)
    if finer:
        pixels = np.repeat(np.repeat(covered.data, times, axis=-2), times, axis=-1)
    elif mask.dtype == bool:
        pixels = covered.coarsen(dict.fromkeys(cover, times)).reduce(np.any).data
    else:
        raise GridError(
            f"a mask of {mask.dtype} cannot become coarser: its values do not merge. Say first which of them count, "
            "e.g. ds.SCL.isin([3, 8, 9, 10])."
        )
    own = {name for name in mask.coords if {*mask[name].dims} & {*cover}} | {f"spatial_ref{have}"}
    coords = {name: coord for name, coord in mask.coords.items() if name not in own}
    place = (f"y{want}", f"x{want}", f"spatial_ref{want}")
    coords |= {name: band.coords[name] for name in place if name in band.coords}
    answer = xr.DataArray(pixels, coords, (*mask.dims[:-2], *place[:2]), name=mask.name, attrs=mask.attrs)
    answer.encoding = {key: value for key, value in band.encoding.items() if key == "grid_mapping"}
    return answer


def _cover(mask: xr.DataArray, band: xr.DataArray, axis: str, times: int, *, finer: bool) -> slice:
    """Pixels of the mask that lie on the band, along one axis; an error where the two do not nest."""
    own, wanted = mask[f"{axis}{group_of(mask)}"], band[f"{axis}{group_of(band)}"]
    coarse, fine = (own, wanted) if finer else (wanted, own)
    count = min(coarse.size, fine.size // times)
    apart, name = 0.0, band.name or "the band"
    if own.name in mask.indexes and wanted.name in band.indexes and count:
        middles = fine.values[: count * times].reshape(count, times).mean(axis=1)
        apart = float(np.abs(middles - coarse.values[:count]).max())
    if apart > TOLERANCE * group_of(band):
        raise GridError(
            f"the mask and {name} do not lie on one ground: their centres along {axis} differ by {apart:g}. Cut both "
            "to one window."
        )
    if count * times < fine.size if finer else count < coarse.size:
        raise GridError(
            f"the mask has {own.size} pixels of {group_of(mask)} m along {axis}, which do not cover the {wanted.size} "
            f"of {group_of(band)} m of {name}. Cut both to one window."
        )
    return slice(0, count if finer else count * times)
