"""ESA's EOPF Zarr product of Sentinel-2 -> the same lazy Dataset that `eosr.open_stac` gives.

As for SAFE products (`eosr.open.safe.product`), the metadata become a STAC item in memory and that is opened: one set
of checks, grids and attributes. Only the way to the pixels is another: Zarr chunks, each read once per computation.

References
----------
[1] Metadata of S2B_MSIL2A_20260721T100559_N0512_R022_T33UWQ (Zarr v3, EOPF-CPM 3.0.0), in the repository
    EOPF-Explorer/data-model, ``tests/_test_data/v3_s2_examples``: groups, attributes of bands, masks and root.
[2] Same repository, ``optimized_geozarr_examples/S2B_MSIL1C_20250113T103309_N0511_*``: ``_eopf_attrs``, ``proj:*``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from pyproj import CRS
from pyproj.exceptions import CRSError

from eosr.cube.bands import BANDS, BASELINE_0400_OFFSET, NODATA, QUANTIFICATION, TILE_SIDE, bands_of, check_bands
from eosr.cube.grid import STEPS, TOLERANCE
from eosr.cube.masks import CLOUDY
from eosr.cube.offset import baseline_number
from eosr.errors import GridError, RadiometryError, SourceError, first_line
from eosr.open.catalogue.web import TIMEOUT, check_timeout
from eosr.open.eopf.store import open_arrays
from eosr.open.eopf.tree import AnyArrays, AnyRaster, tree_arrays
from eosr.open.safe.files import AGAIN
from eosr.open.safe.metadata import Image, Product, item_of
from eosr.open.safe.product import as_variable, asked_masks, placed, with_grid
from eosr.open.stac import LONLAT, open_stac

__all__ = ["open_eopf"]

_LEVELS: Final = {"S02MSIL1C": "L1C", "S02MSIL2A": "L2A", "S2MSI1C": "L1C", "S2MSI2A": "L2A"}
_REFLECTANCE: Final = "measurements/reflectance"
_SCL: Final = "conditions/mask/l2a_classification/r20m/scl"
_CLOUDS: Final = "conditions/mask/l1c_classification/r60m/b00"
#: Name of the product that was converted, which most stores keep as theirs: baseline and tile.
_NAME: Final = re.compile(r"S2[A-D]_MSIL(?:1C|2A)_\d{8}T\d{6}_N(\d{2})(\d{2})_R\d{3}_T(\d{2}[A-Z]{3})_\w+")
_CRS_KEYS: Final = ("proj:code", "proj:epsg", "horizontal_crs_code", "horizontal_CRS_code", "crs_wkt")
_CF: Final = ("scale_factor", "add_offset")
#: A number, or a list of some, under a key like that of SAFE: ``RADIO_ADD_OFFSET``, ``BOA_ADD_OFFSET``.
_OFFSETS: Final = re.compile(r'"\w*(?:radio|boa)\w*offset\w*": (\[[^]{]*\]|"?[+-]?\d[\d.]*)', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Store:
    """One product: where it is, its root group, and what the attributes of that say."""

    where: str
    arrays: AnyArrays
    id: str
    properties: Mapping[str, Any]
    other: Mapping[str, Any]

    def lazy(self, raster: AnyRaster) -> da.Array:
        """Pixels, dims (y, x), lazy."""
        return raster.lazy(self.properties.get("created"))

    def text(self, *keys: str) -> str:
        """Text of the first property that says something; the converter writes ``"null"`` for nothing."""
        values = (str(self.properties.get(key) or "") for key in keys)
        return next((value for value in values if value and value != "null"), "")


def open_eopf(
    source: str | os.PathLike[str] | xr.DataTree | zarr.Group,
    *,
    bands: Sequence[str] | None = None,
    chunks: int | None = None,
    offset: str | int = "auto",
    bbox: Sequence[float] | None = None,
    bbox_crs: str = LONLAT,
    masks: bool | str | Sequence[str] = False,
    timeout: float = TIMEOUT,
) -> xr.Dataset:
    """Sentinel-2 product (L1C or L2A) in the EOPF Zarr format as a lazy multi-resolution Dataset of digital numbers.

    Parameters
    ----------
    source : path, URL, DataTree or zarr.Group
        Root of the product: a folder ``*.zarr``, a zip archive of it (not unpacked), or an address. ``https://`` needs
        the package aiohttp. Zarr v2 and v3. A tree of ``xr.open_datatree(path, engine="zarr", chunks={})`` gives the
        same: what xarray decoded to reflectance is undone, without loss. Trees and groups are read as they were
        opened, with their own time-outs.
    bands : sequence of str, optional
        Default: every band of the processing level (B10 included for L1C).
    chunks : int, optional
        Side of a chunk [10 m pixels], a multiple of 6. Default 1536, which is 768 and 256 for the other groups.
    offset : "auto", "none" or int
        ``"auto"`` is ``add_offset / scale_factor`` of the bands, or what the processing baseline means where bands
        state none; see `eosr.cube.offset.offset_of`. Digital numbers are never changed.
    bbox, bbox_crs
        Window, as for `eosr.open_stac`.
    masks : bool, str or sequence of str
        Masks to add on the 20 m grid. ``"SCL"``, uint8: the scene classification of L2A. ``"cloud_mask"``, bool: its
        classes 3, 8, 9, 10 in L2A, opaque cloud and cirrus in L1C. True: those that the product has.
    timeout : float
        For ``http://`` and ``https://``: what a server may take before the first byte of an answer, and between two
        [s]; one request as a whole may take ten times that. No answer is asked for twice, a fault three times.

    Returns
    -------
    Dataset
        As from `eosr.open_stac`: one time, uint16 (0 = nodata), native bands only (an L2A product repeats bands at
        coarser pixels). The time is that of the tile (``mean_sensing_time``), else that of the datatake.

    Raises
    ------
    SourceError
        If it is no EOPF product of these levels, its metadata lack something or contradict each other, or a mask that
        was named is missing. When computed: if a chunk cannot be read.
    BandError, GridError
        If a band or a kind of mask is missing; if grids do not nest, the window lies outside, or ``chunks`` is wrong.
    RadiometryError
        If pixels are no digital numbers of 10000 times reflectance, or what states the offset contradicts itself.
    MissingExtraError
        If the address needs a package that is not installed.

    Notes
    -----
    The CF attributes of the bands are read, never applied. A chunk that is absent from the store is nodata, as Zarr
    defines it: a store that was copied in part cannot be told from one with gaps.
    """
    product, arrays = _read_product(store := _open(source, timeout))
    wanted = bands_of(product.level) if bands is None else check_bands(bands)
    asked = asked_masks(masks)
    item = item_of(product)
    found = {name: arrays[name] for name in wanted if name in arrays}
    stated = {name: value for name, array in found.items() if (value := _offset(store, array)) is not None}
    for name, asset in item["assets"].items():
        # None is not 0: where nothing is stated the baseline tells.
        asset["raster:bands"][0]["offset"] = stated[name] / QUANTIFICATION if name in stated else None
    if offset == "auto":
        _check_offset(store, product.processing_baseline, stated, arrays)
    ds = open_stac(
        item, bands=with_grid(wanted, asked, product), chunks=chunks, offset=offset, bbox=bbox, bbox_crs=bbox_crs
    )
    if "declare" in ds.attrs["offset_source"]:
        ds.attrs["offset_source"] = "add_offset of the bands"
    side = 1536 if chunks is None else int(chunks)
    for name in map(str, ds.data_vars):
        pixels = placed(store.lazy(arrays[name])[None], ds, product.images[name])
        ds[name] = ds[name].copy(data=pixels.rechunk((1, *(2 * [side // STEPS[BANDS[name].gsd]]))))
    for name in asked:
        mask = _lazy_mask(name, store, product)
        if mask is not None:
            variable = as_variable(name, mask, ds, product)
            ds[name] = variable.copy(data=variable.data.rechunk((1, *(2 * [side // STEPS[20]]))))
        elif masks is not True:
            raise SourceError(f"{store.where} ({product.level}) has no pixels for the mask {name}. Use masks=True.")
    return ds.drop_vars([name for name in ds.data_vars if name in BANDS and name not in wanted])


def _open(source: str | os.PathLike[str] | xr.DataTree | zarr.Group, timeout: float = TIMEOUT) -> _Store:
    check_timeout(timeout)
    arrays = tree_arrays(source) if isinstance(source, xr.DataTree) else open_arrays(source, timeout)
    where, attrs = arrays.place.where, arrays.attributes()
    stac, other = attrs.get("stac_discovery"), attrs.get("other_metadata")
    properties = stac.get("properties") if isinstance(stac, Mapping) else None
    if not isinstance(stac, Mapping) or not isinstance(properties, Mapping):
        raise SourceError(
            f"{where} is a Zarr store without stac_discovery, so it is no EOPF product. Name the root of the product; "
            "for a store that eosr wrote, use xr.open_zarr(path, decode_coords='all')."
        )
    other = other if isinstance(other, Mapping) else {}
    return _Store(where=where, arrays=arrays, id=str(stac.get("id") or ""), properties=properties, other=other)


def _read_product(store: _Store) -> tuple[Product, dict[str, AnyRaster]]:
    """What the attributes say, in the record that SAFE products use; and the arrays of the native bands."""
    level = _level(store)
    paths = {name: f"{_REFLECTANCE}/r{band.gsd}m/{name.lower()}" for name, band in BANDS.items()}
    arrays = {name: array for name, path in paths.items() if (array := store.arrays.get(path)) is not None}
    if not arrays:
        raise SourceError(f"{store.where} holds no band where an EOPF product does, e.g. {paths['B02']}. {AGAIN}")
    # CPM names its products anew; the store is mostly called as the SAFE product was.
    names = [store.id.removesuffix(".SAFE"), re.sub(r"(\.zarr)?(\.zip)?$", "", store.where.rpartition("/")[2])]
    match = next((found for name in names if (found := _NAME.fullmatch(name))), None)
    epsg = _epsg(store, arrays)
    grids = {gsd: _grid(store, gsd) for gsd in sorted({BANDS[name].gsd for name in arrays})}
    strip = re.search(r"_N(\d{2}\.\d{2})$", store.text("eopf:datastrip_id", "eopf:datatake_id"))
    sensed = str(store.other.get("mean_sensing_time") or "")
    return Product(
        id=match[0] if match else names[0] or names[1], level=level, platform=store.text("platform").lower(),
        # Not processing:version, which is that of the format.
        processing_baseline=strip[1] if strip else f"{match[1]}.{match[2]}" if match else "",
        datatake=store.text("eopf:datatake_id"), created=store.text("created"), epsg=epsg,
        datetime=sensed if re.match(r"\d{4}-", sensed) else store.text("datetime", "start_datetime"),
        tile=match[3] if match else store.text("grid:code").removeprefix("MGRS-"),
        offsets=dict.fromkeys(arrays, 0), offset_element="add_offset", absent={},
        images={name: _image(store, name, array, epsg, grids[BANDS[name].gsd]) for name, array in arrays.items()},
    ), arrays  # fmt: skip


def _level(store: _Store) -> str:
    kind, level = store.text("product:type", "eopf:type"), store.text("processing:level")
    if kind in _LEVELS or (not kind and level in _LEVELS.values()):
        return _LEVELS.get(kind, level)
    raise SourceError(
        f"{store.where} is of type {kind or level or 'unknown'!r}; eosr reads S02MSIL1C (L1C) and S02MSIL2A (L2A). Get "
        "the L1C or L2A product of the same acquisition."
    )


def _attributes(array: AnyRaster) -> dict[str, Any]:
    """Attributes of an array, with those that EOPF-CPM 2 keeps in ``_eopf_attrs``."""
    return {**array.attrs, **(array.attrs.get("_eopf_attrs") or {})}


def _epsg(store: _Store, arrays: Mapping[str, AnyRaster]) -> int:
    holders = {"stac_discovery": store.properties, "other_metadata": store.other}
    for array in arrays.values():
        mapping = store.arrays.get(f"{array.path.rpartition('/')[0]}/spatial_ref")
        holders |= {array.path: _attributes(array)}
        holders |= {mapping.path: mapping.attrs} if mapping is not None else {}
    stated = {str(attrs[key]): place for place, attrs in holders.items() for key in _CRS_KEYS if attrs.get(key)}
    stated.pop("null", None)
    try:
        crs = {CRS.from_user_input(int(text) if text.isdigit() else text): text for text in stated}
    except CRSError as error:
        raise SourceError(f"{store.where} states a CRS that is none: {first_line(error)}. {AGAIN}") from error
    codes = {code: stated[text] for one, text in crs.items() if (code := one.to_epsg()) is not None}
    if len(codes) > 1:
        told = " and ".join(f"EPSG:{code} ({place})" for code, place in sorted(codes.items()))
        raise SourceError(f"{store.where} says that it lies in {told}. {AGAIN}")
    if not codes:
        raise SourceError(f"{store.where} states no proj:code, proj:epsg or horizontal_crs_code. {AGAIN}")
    return next(iter(codes))


def _grid(store: _Store, gsd: int) -> tuple[float, float, int, int]:
    """Left and top edge [unit of the CRS], rows and columns of one group, from its coordinates of pixel centres."""
    edges: dict[str, tuple[float, int]] = {}
    for axis, step in (("x", gsd), ("y", -gsd)):
        path = f"{_REFLECTANCE}/r{gsd}m/{axis}"
        array = store.arrays.get(path)
        if array is None:
            raise SourceError(f"{store.where} has no coordinates {path}. {AGAIN}")
        if math.prod(array.shape) > TILE_SIDE // gsd:
            raise GridError(
                f"{path} of {store.where} has the shape {array.shape}; a tile has {TILE_SIDE // gsd} pixels of {gsd} m "
                f"a side. {AGAIN}"
            )
        centres = array.values().astype(np.float64)
        if centres.size == 0 or (centres.size > 1 and np.abs(np.diff(centres) - step).max() > TOLERANCE * gsd):
            raise GridError(f"{path} of {store.where} is not spaced by {step} m, as its group says. {AGAIN}")
        edges[axis] = float(centres[0]) - step / 2, centres.size
        if abs(math.remainder(edges[axis][0], gsd)) > TOLERANCE * gsd:
            raise GridError(
                f"{path} of {store.where} starts at {centres[0]:.12g}, which is no centre of a {gsd} m pixel, so its "
                f"grid does not nest with the others. {store.arrays.place.again}"
            )
    return edges["x"][0], edges["y"][0], edges["y"][1], edges["x"][1]


def _image(store: _Store, name: str, array: AnyRaster, epsg: int, grid: tuple[float, float, int, int]) -> Image:
    left, top, rows, columns = grid
    if array.shape != (rows, columns):
        raise GridError(
            f"{array.path} of {store.where} has the shape {array.shape}, its coordinates say {rows, columns}. "
            f"{store.arrays.place.again}"
        )
    stated = _attributes(array).get("proj:transform")
    if stated and (stated[2], stated[5]) != (left, top):
        raise GridError(
            f"{array.path} of {store.where} starts at ({stated[2]:.12g}, {stated[5]:.12g}) by its proj:transform, and "
            f"at ({left:.12g}, {top:.12g}) by its coordinates. {store.arrays.place.again}"
        )
    # A tree from memory is nowhere, and an item wants to know where its files are.
    where = store.where if "://" in store.where or os.path.isabs(store.where) else f"memory://{store.where}"
    return Image(
        name=name, href=f"{where}/{array.path}", epsg=epsg, gsd=BANDS[name].gsd, left=left, top=top, rows=rows,
        columns=columns, dtype=array.dtype.name,
    )  # fmt: skip


def _offset(store: _Store, array: AnyRaster) -> int | None:
    """Offset that a band states [DN]; None if it states none."""
    attrs = _attributes(array)
    scale, offset = (value if isinstance(value := attrs.get(key), int | float) else None for key in _CF)
    if scale is not None and not math.isclose(scale * QUANTIFICATION, 1, rel_tol=1e-6):
        raise RadiometryError(
            f"{array.path} of {store.where} has scale_factor {scale:g}; eosr knows 1 / {QUANTIFICATION}. {AGAIN}"
        )
    nodata = attrs.get("fill_value", attrs.get("_FillValue", NODATA))
    if array.dtype.kind == "u" and nodata != NODATA:
        raise RadiometryError(f"{array.path} of {store.where} marks nodata by {nodata}; eosr knows {NODATA}. {AGAIN}")
    return None if scale is None or offset is None else round(offset / scale)


def _check_offset(store: _Store, baseline: str, stated: Mapping[str, int], arrays: Mapping[str, AnyRaster]) -> None:
    """Stop where the bands, other_metadata and the baseline do not tell one offset; a wrong one is 0.1 everywhere."""
    found = _OFFSETS.findall(json.dumps(store.other, default=str))
    elsewhere = {round(float(number)) for text in found for number in re.findall(r"[+-]?\d+(?:\.\d+)?", text)}
    for name, declared in stated.items():
        own, told = arrays[name].attrs.get("add_offset"), list[str]()
        if own is not None and own != _attributes(arrays[name])["add_offset"]:
            told.append(f"its other add_offset is {own}")
        if elsewhere - {declared}:
            told.append(f"other_metadata state {', '.join(map(str, sorted(elsewhere)))}")
        number = baseline_number(baseline)
        if number and (number >= 4) != (declared != 0):
            told.append(f"processing baseline {baseline} means {0 if declared else BASELINE_0400_OFFSET}")
        if told:
            raise RadiometryError(
                f"{name} of {store.where} states an offset of {declared} DN, and {' and '.join(told)}. Look at dark "
                f"pixels and say which: offset={BASELINE_0400_OFFSET} or offset=0."
            )


def _lazy_mask(name: str, store: _Store, product: Product) -> da.Array | None:
    """One mask, dims (y20, x20), lazy; None where the product has no pixels for it."""
    grid = next((image for image in product.images.values() if image.gsd == 20), None)
    array = store.arrays.get(_SCL if product.level == "L2A" else _CLOUDS)
    if grid is None or array is None or (name == "SCL" and product.level != "L2A"):
        return None
    times = 1 if product.level == "L2A" else 3  # 60 m pixels nest in the 20 m grid
    if tuple(times * length for length in array.shape) != (grid.rows, grid.columns):
        raise GridError(f"{array.path} of {store.where} does not cover the 20 m bands. Open it without masks.")
    classes = store.lazy(array)
    if product.level == "L2A":
        return classes if name == "SCL" else da.isin(classes, CLOUDY)
    # Bits [1]; meanings are a list, or one text by CF.
    attrs = array.attrs
    words, values = attrs.get("flag_meanings", "opaque cirrus"), attrs.get("flag_masks", [1, 2])
    flags = zip(words.split() if isinstance(words, str) else words, values, strict=False)
    cloudy = (classes & sum(int(bit) for word, bit in flags if word.lower() in ("opaque", "cirrus"))) != 0
    return da.repeat(da.repeat(cloudy, times, axis=0), times, axis=1)
