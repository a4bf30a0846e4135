"""What odc-stac, stackstac, cubo or rioxarray opened -> the Dataset that eosr works on, or the reason why it cannot be.

The rules, in `from_xarray`, leave nothing to guess: measured pixels are taken as they are or not at all. What can only
be seen in the pixels (whole numbers, blocks of equal pixels) is checked in every block when it is computed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import numpy as np
import xarray as xr

from eosr.cube.band_names import band_named
from eosr.cube.bands import LEVELS
from eosr.cube.grid import from_arrays
from eosr.cube.offset import offset_of
from eosr.cube.radiometry import listed
from eosr.errors import BandError, GridError, RadiometryError
from eosr.open.cubes.layers import common_window, layers_of, projection_of, split, times_of
from eosr.open.cubes.pixels import native

#: Attributes taken over from the sources.
_TOLD: Final = ("platform", "processing_baseline", "tile", "item_ids")
#: What may be given by name and is easily misspelt.
_WORDS: Final = ("level", "offset", "crs", "nodata", "platform", "processing_baseline", "item_ids")
#: Arguments and attributes of `from_arrays` that follow from the sources.
_OWN: Final = (
    "bands", "transform", "time", "times", "gsd", "quantity", "radiometric_offset", "offset_policy", "offset_source",
)  # fmt: skip


def from_xarray(
    *sources: xr.Dataset | xr.DataArray,
    level: str | None = None,
    offset: str | float | Sequence[float] | None = None,
    crs: Any = None,
    nodata: float | str | None = "declared",
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
    offset : "auto", "none", int or sequence of int, optional
        What is added to the digital numbers to get 10000 x reflectance, one or one per time: -1000 from processing
        baseline 04.00 on, 0 or ``"none"`` before, and where the source has taken it out already [DN]. Default and
        ``"auto"``: the attribute ``radiometric_offset``.
    crs : anything pyproj reads, optional
        Default: ``spatial_ref``, or what stackstac and cubo note as ``epsg``.
    nodata : float or None
        What stands for no measurement in the sources, beside NaN. Default: what they declare as ``nodata``,
        ``_FillValue`` or ``missing_value``, else 0. None: nothing, so 0 was measured, as where values below 0 were
        clipped, and becomes 1. In the result nodata is 0.
    **attrs
        Further attributes, e.g. ``platform="sentinel-2b"``. Default of ``platform``, ``processing_baseline``, ``tile``
        and ``item_ids``: what the sources say.

    Returns
    -------
    Dataset
        uint16, 0 = nodata, chunks of 1536 pixels of 10 m; see docs/reference/dataset-layout.md.

    Raises
    ------
    BandError
        If there is no band, or one twice.
    GridError
        If pixels lie off the grid of Sentinel-2, or are larger than those of their band; if the CRS is no UTM zone.
        When computed: if a band was brought to 10 m by another way than nearest neighbour.
    RadiometryError
        If level, offset or nodata cannot be told, or sources contradict each other; if an attribute is a misspelt
        argument. When computed: if pixels are no digital numbers.

    Notes
    -----
    - Coordinates may be centres (odc-stac, rioxarray) or upper left corners (stackstac and cubo by default): on the
      grid of Sentinel-2 only one of the two can be, and all bands must agree.
    - That grid counts from the equator: in the south from a northing of 10 000 000 m, which is no multiple of 60 m.
    - A 20 m or 60 m band on smaller pixels is brought back to its own: every pixel of it must be there as a block of
      equal ones, as nearest neighbour leaves it.
    - All are cut to the whole 60 m pixels (without 60 m bands: 20 m) that they have in common.
    - Times must be dates, the same in all bands. One date without a dimension, as ``.isel(time=0)`` leaves it, is kept.
    - Floats must be whole numbers; NaN is nodata. Reflectance is not turned back.

    Examples
    --------
    >>> ten = odc.stac.load(items, bands=["B02", "B03", "B04", "B08"], resolution=10)      # doctest: +SKIP
    >>> twenty = odc.stac.load(items, bands=["B05", "B11"], resolution=20)                 # doctest: +SKIP
    >>> ds = eosr.from_xarray(ten, twenty, level="L2A", offset=-1000)                      # doctest: +SKIP
    """
    if not sources:
        raise BandError(
            "from_xarray needs at least one Dataset or DataArray. Give e.g. "
            "eosr.from_xarray(ds, crs='EPSG:32632', level='L2A', offset=-1000)."
        )
    for source in sources:
        if not isinstance(source, xr.Dataset | xr.DataArray):
            raise GridError(
                f"from_xarray takes Datasets and DataArrays, not {type(source).__name__}. For plain arrays use "
                "eosr.cube.from_arrays."
            )
    _check_words(attrs)
    stated_level = _level(_said(sources, "level", "level", _level) if level is None else level)
    if offset is None or (isinstance(offset, str) and offset == "auto"):
        offset = _said(sources, "radiometric_offset", "offset", _offset)
    stated_offset = _offset(offset)
    projection = projection_of(sources, crs)
    layers = layers_of(sources, projection)
    window = common_window(layers, projection)
    times = times_of(layers)
    if isinstance(stated_offset, list) and (times is None or len(stated_offset) != times.size):
        raise RadiometryError(
            f"offset holds {len(stated_offset)} numbers for {'no' if times is None else times.size} times. Give one "
            "number, or one per time."
        )
    bands = {layer.name: native(layer, window, nodata) for layer in layers}
    alone = times is not None and times.ndim == 0
    if alone:  # one image with its date: like the first of a series
        bands = {name: image[None] for name, image in bands.items()}
    told = {key: _said(sources, key, key, listed) for key in _TOLD if key not in attrs}
    stated: dict[str, Any] = {
        "radiometric_offset": stated_offset,
        "offset_policy": "from_xarray",
        "offset_source": "stated",
    }
    stated |= {key: value for key, value in told.items() if value is not None} | attrs
    if "item_ids" in stated:
        stated["item_ids"] = listed(stated["item_ids"])
    ds = from_arrays(
        bands, transform=(10, 0, window[0], 0, -10, window[3]), crs=projection, level=stated_level,
        time=None if times is None else np.atleast_1d(times), **stated,
    )  # fmt: skip
    return ds.isel(time=0) if alone else ds


def adopted(ds: xr.Dataset) -> xr.Dataset:
    """A Dataset with plain ``y`` and ``x`` that holds bands, through `from_xarray`; any other as it is."""
    plain = isinstance(ds, xr.Dataset) and {"y", "x"} <= set(ds.dims)
    return from_xarray(ds) if plain and any(band_named(key) for key, _, _ in split(ds)) else ds


def _level(level: Any) -> str:
    if isinstance(level, str) and level in LEVELS:
        return str(level)
    told = "nothing tells the processing level" if level is None else f"level={level!r} is unknown"
    raise RadiometryError(f"{told}. Say it: level='L2A' or level='L1C', or ds.attrs['level'] = 'L2A'.")


def _offset(offset: Any) -> int | list[int]:
    if offset is None:
        raise RadiometryError(
            "nothing tells the radiometric offset. Say it: offset=-1000 for processing baselines from 04.00 on, "
            "offset=0 before, or where the source has taken it out; or ds.attrs['radiometric_offset'] = -1000."
        )
    numbers = [offset_of("", policy=one, where="the cube").value for one in listed(offset)]
    if not numbers:
        raise RadiometryError(f"offset={offset!r} holds no number. Give one, or one per time: offset=-1000.")
    return numbers if len({*numbers}) > 1 else numbers[0]


def _said(sources: Sequence[Any], key: str, argument: str, read: Callable[[Any], Any]) -> Any:
    """What the sources say in one attribute, or None; ``read`` tells whether two of them say the same."""
    said = [source.attrs[key] for source in sources if listed(source.attrs.get(key)) not in ([], [""], [None])]
    for one in said:
        if read(one) != read(said[0]):
            raise RadiometryError(
                f"the sources contradict each other: {key} is {said[0]!r} and {one!r}. Say which holds for all: "
                f"{argument}=..., or load them with one search."
            )
    return said[0] if said else None


def _check_words(attrs: Iterable[str]) -> None:
    """No attribute may stand for something else: a misspelt argument, or what `from_arrays` is told here."""
    for key in attrs:
        if key in _OWN:
            raise RadiometryError(
                f"{key}= is no attribute to give: from_xarray sets it itself, from the sources and from level=, "
                "offset=, crs= and nodata=."
            )
        near = difflib.get_close_matches(key.lower(), _WORDS, n=1, cutoff=0.85)
        if near and near[0] != key:
            raise RadiometryError(f"from_xarray has no argument {key}. Did you mean {near[0]}=?")
