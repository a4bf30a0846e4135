"""SAFE folders and zips, as ESA delivers them -> the same lazy Dataset that `eosr.open_stac` gives.

The metadata (`eosr.open.safe.metadata`) are read into a STAC item in memory, and that is opened: one set of checks,
grids and attributes. Only the way to the pixels (`eosr.open.safe.pixels`) is another, because they are JPEG 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import dask.array as da
import xarray as xr

from eosr.cube.bands import BANDS, BANDS_20M, BASELINE_0400_OFFSET, bands_of, check_bands
from eosr.cube.grid import STEPS, group_of, transform_of
from eosr.cube.offset import baseline_number
from eosr.errors import BandError, OutputError, RadiometryError, SourceError
from eosr.open.safe.files import AGAIN
from eosr.open.safe.masks import lazy_mask
from eosr.open.safe.metadata import Image, Product, item_of, read_product
from eosr.open.safe.pixels import lazy_image
from eosr.open.stac import LONLAT, open_stac

__all__ = ["MASKS", "open_safe"]

#: Masks that can be asked for, and what they are.
MASKS: Final = {
    "SCL": "scene classification of Sen2Cor",
    "cloud_mask": "true where cloud, cloud shadow (L2A only) or cirrus is",
}

#: Baseline that Sen2Cor writes when a user runs it: it tells nothing.
_TOOLBOX: Final = "99.99"


def open_safe(
    path: str | Path,
    *,
    bands: Sequence[str] | None = None,
    chunks: int | None = None,
    offset: str | int = "auto",
    bbox: Sequence[float] | None = None,
    bbox_crs: str = LONLAT,
    masks: bool | str | Sequence[str] = False,
    stage: str | Path | None = None,
) -> xr.Dataset:
    """Sentinel-2 product (L1C or L2A) in the SAFE format as a lazy multi-resolution Dataset of digital numbers.

    Parameters
    ----------
    path : path
        Folder ``*.SAFE``, its ``MTD_MSIL*.xml``, or a zip archive of it, which is not unpacked.
    bands : sequence of str, optional
        Default: every band of the processing level (B10 included for L1C).
    chunks : int, optional
        Side of a chunk [10 m pixels], a multiple of 6. Default 1536, which is 768 and 256 for the other groups.
    offset : "auto", "none" or int
        ``"auto"`` is what the metadata state: ``RADIO_ADD_OFFSET`` (L1C) or ``BOA_ADD_OFFSET`` (L2A), 0 where they
        have none before baseline 04.00. ``"none"`` and numbers overrule it. Digital numbers are never changed.
    bbox, bbox_crs
        Window, as for `eosr.open_stac`.
    masks : bool, str or sequence of str
        Masks to add on the 20 m grid. ``"SCL"``, uint8: the scene classification of L2A. ``"cloud_mask"``, bool: from
        the classification (classes 3, 8, 9, 10) in L2A; in L1C from the raster ``MSK_CLASSI`` (opaque, cirrus; from
        baseline 04.00 on) or the polygons ``MSK_CLOUDS`` (before). True: those that the product has.
    stage : path, optional
        Folder in which files are kept decoded, as tiled GeoTIFF in a folder named after the product. A file gets there
        when its first pixel is needed, and is decoded never again. All workers must see the folder.

    Returns
    -------
    Dataset
        As from `eosr.open_stac`: one time, native bands only (an L2A product holds resampled copies too).

    Raises
    ------
    SourceError
        If it is no product of these levels, metadata or files are missing, a mask that was named is missing, or it is
        of the old kind with several tiles. When computed: if a file cannot be read, is not on the grid that the
        metadata state, or differs from its checksum in ``manifest.safe`` or in the archive.
    OutputError
        If ``stage`` is no folder, or, when computed, cannot be written.
    BandError
        If a band does not exist in the level, or a mask is unknown.
    GridError
        If ``chunks`` is not a multiple of 6, or the window lies outside.
    RadiometryError
        If the offset differs between the bands, is stated before baseline 04.00 or is not stated after it, or digital
        numbers are not 10000 times reflectance.

    Notes
    -----
    JPEG 2000 decodes at 5 to 15 MB/s per core. Without ``stage`` every tile of a file is decoded once per computation:
    blocks of whole tiles are read and cut into the chunks. Where the Dataset is computed piece by piece, that is once
    per piece; give ``stage`` then. A full product takes about 1 GB there.

    Masks are for selecting pixels. `eosr.to_zarr` and `eosr.to_cog` write bands only: drop them, or convert them.
    """
    product = read_product(path)
    wanted = bands_of(product.level) if bands is None else check_bands(bands)
    _check_there(product, wanted, path)
    asked = asked_masks(masks)
    folder = _stage_folder(stage, product)
    if offset == "auto":
        _check_offset(product, path)
    ds = open_stac(
        item_of(product), bands=with_grid(wanted, asked, product), chunks=chunks, offset=offset, bbox=bbox,
        bbox_crs=bbox_crs,
    )  # fmt: skip
    if offset == "auto" and "declare" in ds.attrs["offset_source"]:
        stated = f"{product.offset_element} of the metadata"
        ds.attrs["offset_source"] = stated if product.offset_element else f"no {product.offset_name} in the metadata"
    side = 1536 if chunks is None else int(chunks)
    for name in map(str, ds.data_vars):
        image = product.images[name]
        chunk = side // STEPS[image.gsd]
        pixels = placed(lazy_image(image, chunk, folder), ds, image)
        ds[name] = ds[name].copy(data=pixels.rechunk((1, chunk, chunk)))
    for name in asked:
        mask = lazy_mask(name, product, side // STEPS[20], folder)
        if mask is not None:
            variable = as_variable(name, mask, ds, product)
            ds[name] = variable.copy(data=variable.data.rechunk((1, *(2 * [side // STEPS[20]]))))
        elif masks is not True:
            raise SourceError(_no_mask(name, product, path))
    return ds.drop_vars([name for name in ds.data_vars if name in BANDS and name not in wanted])


def _check_offset(product: Product, path: str | Path) -> None:
    """Stop where the offset and the baseline do not tell one thing; a wrong one is 0.1 everywhere."""
    baseline, name = product.processing_baseline, product.offset_name
    number = baseline_number(baseline)
    before = number is not None and number < 4
    stated = sorted({value for value in product.offsets.values() if value})
    if before and stated:
        said = f"state a {name} of {', '.join(map(str, stated))}, and processing baseline {baseline}, which had none"
    elif not before and not product.offset_element and baseline != _TOOLBOX:
        said = f"state no {name}, and processing baseline {baseline}, which {'has one' if number else 'is none of ESA'}"
    else:
        return
    likely = stated[0] if stated else BASELINE_0400_OFFSET
    raise RadiometryError(
        f"the metadata of {path} {said}. Look at dark pixels and say which: offset={likely} or offset=0."
    )


def _check_there(product: Product, wanted: Sequence[str], path: str | Path) -> None:
    lost = [band for band in wanted if band in product.absent]
    if lost:
        there = [band for band in wanted if band in product.images]
        remedy = f"{AGAIN[:-1]}, or go without: bands={there}." if there else AGAIN
        raise SourceError(f"{path} lacks the file {product.absent[lost[0]]}, which its metadata list. {remedy}")


def _no_mask(name: str, product: Product, path: str | Path) -> str:
    own = product.classification if product.level == "L2A" else product.clouds or product.cloud_polygons
    if own is not None and (product.level == "L2A" or name != "SCL"):
        return (
            f"{path} holds the mask {name}, and no file of a 20 m band, on whose grid it would lie. {AGAIN[:-1]}, with "
            "at least one, e.g. B05."
        )
    return (
        f"{path} ({product.level}) has no file for the mask {name}. Open it without, or with masks=True, which takes "
        "what there is."
    )


def asked_masks(masks: bool | str | Sequence[str]) -> tuple[str, ...]:
    """Names of the masks that an argument ``masks`` asks for."""
    if isinstance(masks, bool):
        return tuple(MASKS) if masks else ()
    names = (masks,) if isinstance(masks, str) else tuple(masks)
    for name in names:
        if name not in MASKS:
            raise BandError(f"{name!r} is no mask eosr knows. Use masks=True or some of {', '.join(map(repr, MASKS))}.")
    return names


def _stage_folder(stage: str | Path | None, product: Product) -> Path | None:
    if stage is None:
        return None
    folder = Path(stage).expanduser().absolute()
    try:
        (folder / product.id).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"files cannot be staged in {stage}: {error}. Name a folder that can be written: stage='...'."
        ) from None
    return folder / product.id


def with_grid(wanted: Sequence[str], asked: Sequence[str], product: Product) -> list[str]:
    """Bands to open: masks need the coordinates of a 20 m band, which is dropped in the end where nobody wants it."""
    if not asked or any(band in BANDS_20M for band in wanted):
        return list(wanted)
    return [*wanted, *[band for band in product.images if band in BANDS_20M][:1]]


def placed(pixels: da.Array, ds: xr.Dataset, image: Image) -> da.Array:
    """Part of a whole image (layer, y, x) that the Dataset covers: the ground that all bands share."""
    group = group_of(ds[image.name])
    corner = transform_of(ds, group)
    top, left = round((image.top - corner.f) / image.gsd), round((corner.c - image.left) / image.gsd)
    rows, columns = ds.sizes[f"y{group}"], ds.sizes[f"x{group}"]
    return pixels[:, top : top + rows, left : left + columns]


def as_variable(name: str, mask: da.Array, ds: xr.Dataset, product: Product) -> xr.DataArray:
    """A mask (y20, x20) as a variable of the Dataset, on its 20 m grid."""
    band = next(name for name in ds.data_vars if name in BANDS_20M)
    pixels = placed(mask[None], ds, product.images[str(band)])
    variable = ds[band].copy(data=pixels)
    variable.attrs = {"long_name": MASKS[name]}
    return variable
