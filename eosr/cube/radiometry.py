"""Digital numbers <-> reflectance: what a Dataset says of its numbers, and the order in which that is applied."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr

from eosr.cube.bands import BANDS, BASELINE_0400_OFFSET, LEVELS, NODATA, QUANTIFICATION, SATURATED
from eosr.cube.offset import whole_offset
from eosr.errors import GridError, RadiometryError

#: Pixels of a baseline 04.00 product stay above this in the darkest permille: 1000 minus noise and overcorrection [DN].
DARKEST_WITH_OFFSET: Final = 900
#: Attributes that hold one value per time where the images differ.
PER_TIME: Final = ("platform", "processing_baseline", "radiometric_offset", "offset_source")
#: Bands whose dark pixels are darkest, because the atmosphere hardly scatters there.
DARK_BANDS: Final = ("B12", "B11")
#: What a Dataset must state, with an example and the other choice.
_STATED: Final = {"level": ("L2A", "or 'L1C'"), "radiometric_offset": (-1000, "0 before baseline 04.00")}


def check_dataset(ds: Any, where: str) -> None:
    """Make sure that what a function was given is a Dataset.

    Raises
    ------
    GridError
        What it is instead, and how to make one.
    """
    if isinstance(ds, xr.Dataset):
        return
    hint = "Open one with eosr.open_stac, or build it with eosr.cube.from_arrays."
    if isinstance(ds, xr.DataArray):
        hint = "Keep the Dataset when selecting: ds[['B02']], not ds['B02']."
    elif isinstance(ds, str):
        hint = f"Open the store first: xr.open_zarr({ds!r}, decode_coords='all')."
    raise GridError(f"{where} needs a Dataset with one variable per band, not a {type(ds).__name__}. {hint}")


def check_stated(ds: Any, where: str) -> None:
    """Make sure that a Dataset says what its numbers are: the processing level, and the offset of digital numbers.

    xarray loses attributes, e.g. in ``xr.Dataset({name: ds[name] for name in ds.data_vars})``; an offset that is not
    stated is not 0.

    Raises
    ------
    GridError
        If it is no Dataset.
    RadiometryError
        What is not stated, and the lines that state it.
    """
    check_dataset(ds, where)
    missing = [key for key in _STATED if ds.attrs.get(key) is None]
    if ds.attrs.get("quantity") == "reflectance":
        missing = [key for key in missing if key == "level"]
    if missing:
        raise _unstated(missing, where)
    if ds.attrs["level"] not in LEVELS:
        raise RadiometryError(
            f"{where}: the attribute level is {ds.attrs['level']!r}, and {' and '.join(LEVELS)} are known. Set it: "
            "ds.attrs['level'] = 'L2A'."
        )
    if ds.attrs.get("quantity") != "reflectance":
        offsets(ds)


def _unstated(missing: Iterable[str], where: str) -> RadiometryError:
    lines = ", ".join(f"{key!r}: {_STATED[key][0]!r}" for key in missing)
    others = ", ".join(_STATED[key][1] for key in missing)
    return RadiometryError(
        f"{where}: the Dataset has no attribute {' and no attribute '.join(missing)}; xarray drops attributes, e.g. in "
        "xr.Dataset({...}). Take over those of the Dataset that was opened, ds.attrs = opened.attrs, or set what "
        f"holds: ds.attrs |= {{{lines}}} ({others})."
    )


def for_its_times(ds: xr.Dataset) -> xr.Dataset:
    """The Dataset with per-time attributes cut down to the times it still holds, in their order.

    `eosr.open_stac` records the time of every image in ``times``, that of every item in ``item_times`` (parallel to
    ``item_ids``; a mosaicked day has several items), and ``platform``, ``processing_baseline`` and
    ``radiometric_offset`` as lists where the images differ. After ``.isel(time=0)`` or ``.sel`` these are those of the
    whole series; here every remaining image gets its own again. What has no ``times`` passes unchanged.

    Raises
    ------
    RadiometryError
        If the images differ and one has a time that was not recorded, or shares its time with another.
    """
    ds = _with_one_for_one(ds)
    if "times" not in ds.attrs or "time" not in ds.coords or ds["time"].dtype.kind != "M":
        return ds
    times = listed(ds.attrs["times"])
    here = [str(time) for time in np.atleast_1d(ds["time"].values).astype("datetime64[us]")]
    if here == times and "time" in ds.dims:
        return ds
    unknown = next((time for time in here if time not in times), None)
    if unknown is not None:
        raise RadiometryError(
            f"the time {unknown} is not among those that the attribute times records, so nothing tells its offset, "
            "satellite and item; xr.concat keeps the attributes of its first Dataset. Open all with one call of "
            "eosr.open_stac; or, if these attributes hold for every image, del ds.attrs['times']."
        )
    attrs: dict[str, Any] = {**ds.attrs, "times": here}
    for key in PER_TIME:
        value = listed(attrs.get(key))
        if not isinstance(attrs.get(key), str) and len(value) == len(times) > 1:
            mine = [_of_time(key, list(zip(times, value, strict=True)), time) for time in here]
            attrs[key] = mine[0] if len(set(mine)) == 1 else mine
    ids, moments = listed(attrs.get("item_ids")), listed(attrs.get("item_times"))
    if len(ids) == len(moments):
        mine = [
            (item, time) for time in dict.fromkeys(here) for item, own in zip(ids, moments, strict=True) if own == time
        ]
        attrs |= {"item_ids": [item for item, _ in mine], "item_times": [time for _, time in mine]}
    settled = ds.copy()
    settled.attrs = attrs
    return settled


def _with_one_for_one(ds: xr.Dataset) -> xr.Dataset:
    """A list with the one value of one image is that value."""
    alone = {
        key: listed(value)[0]
        for key, value in ds.attrs.items()
        if key in PER_TIME and not isinstance(value, str) and np.shape(value) == (1,) and ds.sizes.get("time", 1) == 1
    }
    return ds.assign_attrs(alone) if alone else ds


def listed(value: Any) -> list[Any]:
    """A list attribute as a list: files give a list of one back as its entry, and a list of numbers as an array."""
    return [] if value is None else np.atleast_1d(np.asarray(value)).tolist()


def _of_time(key: str, recorded: Iterable[tuple[str, Any]], time: str) -> Any:
    values = list(dict.fromkeys(value for moment, value in recorded if moment == time))
    if len(values) != 1:
        raise RadiometryError(
            f"{key} differs between the images, and the time {time} is that of several, so its own cannot be told. "
            f"Keep the times of open_stac, or set ds.attrs['times'] and ds.attrs[{key!r}] for every image."
        )
    return values[0]


def offsets(ds: xr.Dataset) -> xr.DataArray | int:
    """Offset of a Dataset from its attributes [DN]: one number, or dims (time,) where the images differ.

    Raises
    ------
    RadiometryError
        If the attribute is missing, or has another length than ``time``.
    """
    recorded = for_its_times(ds).attrs.get("radiometric_offset")
    if recorded is None:
        raise _unstated(["radiometric_offset"], "the offset")
    if isinstance(recorded, Sequence | np.ndarray) and not isinstance(recorded, str):
        if len(recorded) != ds.sizes.get("time"):
            raise RadiometryError(
                f"radiometric_offset holds {len(recorded)} numbers for {ds.sizes.get('time', 'no')} times. "
                "Give one number, or one per time."
            )
        numbers = [whole_offset(one, "radiometric_offset") for one in listed(recorded)]
        return xr.DataArray(np.asarray(numbers, np.float32), dims="time", coords={"time": ds["time"]})
    return whole_offset(recorded, "radiometric_offset")


def to_reflectance(ds: xr.Dataset) -> xr.Dataset:
    """Reflectance [1], float32: nodata to NaN first, then ``(DN + offset) / 10000``.

    Parameters
    ----------
    ds : Dataset
        Digital numbers; numpy or dask, dask stays lazy. In integer bands 0 is nodata; in floating ones NaN is.

    Returns
    -------
    Dataset
        Same bands, dims and coordinates; attribute ``quantity`` is ``"reflectance"``.

    Raises
    ------
    RadiometryError
        If the Dataset holds reflectance already, or does not record its offset.
    GridError
        If it is no Dataset.

    Notes
    -----
    Nothing is clipped: noise below zero stays negative, and saturated pixels (65535) stay the largest values.
    """
    check_dataset(ds, "to_reflectance")
    if ds.attrs.get("quantity") == "reflectance":
        raise RadiometryError("the Dataset holds reflectance already. Use it as it is.")
    offset = offsets(ds)
    quantification = np.float32(ds.attrs.get("quantification", QUANTIFICATION))

    def convert(band: xr.DataArray) -> xr.DataArray:
        values = band.astype(np.float32)
        if band.dtype.kind != "f":
            values = values.where(band != ds.attrs.get("nodata", NODATA))
        shift = offset if isinstance(offset, xr.DataArray) else np.float32(offset)
        result = ((values + shift) / quantification).astype(np.float32).transpose(*band.dims)
        result.attrs = {**band.attrs, "units": "1", "long_name": f"{band.name} reflectance"}
        result.encoding = {key: value for key, value in band.encoding.items() if key == "grid_mapping"}
        return result

    return _map_bands(ds, convert).assign_attrs(quantity="reflectance")


def to_digital_numbers(ds: xr.Dataset) -> xr.Dataset:
    """Digital numbers, uint16, of a Dataset of reflectance: the inverse of `to_reflectance`.

    NaN becomes 0. Valid pixels are kept valid: what would round to 0 or below becomes 1, what is too large 65535.

    Raises
    ------
    RadiometryError
        If the Dataset does not say that it holds reflectance, or does not record its offset.
    """
    if ds.attrs.get("quantity") != "reflectance":
        raise RadiometryError("the Dataset does not hold reflectance. Use eosr.cube.to_reflectance(ds) first.")
    offset = offsets(ds)
    quantification = np.float32(ds.attrs.get("quantification", QUANTIFICATION))

    def convert(band: xr.DataArray) -> xr.DataArray:
        scaled = (band * quantification - offset).round().clip(1, SATURATED)
        result = scaled.where(band.notnull(), NODATA).astype(np.uint16).transpose(*band.dims)
        result.attrs = {**band.attrs, "units": "DN", "long_name": f"{band.name} digital number"}
        result.encoding = {key: value for key, value in band.encoding.items() if key == "grid_mapping"}
        return result

    result = _map_bands(ds, convert)
    del result.attrs["quantity"]
    return result


def _map_bands(ds: xr.Dataset, convert: Any) -> xr.Dataset:
    converted = {name: convert(ds[name]) for name in ds.data_vars if name in BANDS}
    if not converted:
        raise RadiometryError("the Dataset holds no Sentinel-2 band. Name its variables B02, B05 ...")
    result = ds.assign(converted)
    for name, band in converted.items():
        result[name].encoding = band.encoding
    return result


def check_offset(ds: xr.Dataset, *, samples: int = 250_000) -> None:
    """Compare the recorded offset with the darkest pixels: metadata are wrong often enough to look once.

    If an offset of -1000 is recorded while a permille of the valid pixels of B12 (or B11) lies below 900 DN, it was
    already taken out. The reverse cannot be told from the pixels: a scene may hold nothing dark.

    Parameters
    ----------
    ds : Dataset
        Digital numbers. This function reads pixels.
    samples : int
        About how many pixels per image and band to look at, evenly spread.

    Raises
    ------
    RadiometryError
        Which image and band, its darkest permille, and what to pass to `eosr.open_stac`.
    """
    offset = offsets(ds)
    band = next((name for name in DARK_BANDS if name in ds.data_vars), None)
    if band is None or bool(np.all(np.asarray(offset) == 0)):
        return
    images = ds[band] if "time" in ds[band].dims else ds[band].expand_dims("time")
    per_image = np.broadcast_to(np.asarray(offset), images.sizes["time"])
    step = max(1, math.isqrt(images[0].size // samples))
    sampled = images[..., ::step, ::step].data
    values = sampled.compute() if isinstance(sampled, da.Array) else sampled
    for index, claimed in enumerate(per_image):
        valid = values[index][values[index] != NODATA]
        darkest = float(np.quantile(valid, 0.001)) if valid.size else math.inf
        if claimed == BASELINE_0400_OFFSET and darkest < DARKEST_WITH_OFFSET:
            raise RadiometryError(
                f"an offset of {int(claimed)} is recorded for image {index}, but a permille of the pixels of {band} "
                f"lies below {darkest:.0f} DN: the offset seems to be taken out already. Open the scene with offset=0, "
                f"or with offset={BASELINE_0400_OFFSET} if its ground is that dark."
            )


def check_not_empty(ds: xr.Dataset) -> None:
    """Make sure that an image holds more than nodata, from its coarsest band: the cheapest to read.

    Parameters
    ----------
    ds : Dataset
        Digital numbers (0 is nodata) or floats (NaN is nodata). This function reads pixels of one band.

    Raises
    ------
    RadiometryError
        If no image has a single valid pixel; the message names the items and what to change.
    """
    names = [str(name) for name in ds.data_vars if name in BANDS]
    if not names:
        return
    band = ds[min(names, key=lambda name: ds[name].size)]
    nodata = ds.attrs.get("nodata", NODATA)
    measured = band.notnull() if band.dtype.kind == "f" else xr.apply_ufunc(np.not_equal, band, nodata, dask="allowed")
    if not measured.any().compute().item():
        items = ", ".join(ds.attrs.get("item_ids", [])) or "the Dataset"
        raise RadiometryError(
            f"{items}: the window holds nothing but nodata ({band.name} is empty). It lies outside the swath; choose "
            "another window or date, e.g. --bbox or --datetime."
        )
