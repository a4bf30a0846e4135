"""Files of pixels from anywhere, opened as the two formats that Sentinel-2 comes in, and as nothing else.

GDAL opens whatever the bytes are, and many formats can name further files: a VRT, answered where a GeoTIFF was asked
for, reads files of the user's own disk into the result, or asks another host. So every file is opened by the name of a
driver. Files beside it (``.aux.xml``, ``.ovr``, ``.msk``) are not looked for, see `SEALED`, and a file whose metadata
name another for its overviews is refused: GDAL would open that one with any driver as soon as it looks for a mask.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import RasterioIOError

from eosr.cube.bands import TILE_SIDE
from eosr.errors import SourceError

#: GDAL's names of GeoTIFF (COGs too) and JPEG 2000. rasterio 1.4 takes one name at a time.
DRIVERS: Final = ("GTiff", "JP2OpenJPEG")
#: GDAL options without which a file could have others opened; they hold for every read, whatever a user sets.
SEALED: Final = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}

Bounds = tuple[float, float, float, float]


def open_raster(address: str, reader: type[Any] = rasterio.DatasetReader) -> Any:
    """Open file, a rasterio dataset, under the GDAL options that are set.

    Parameters
    ----------
    address : str
        Path or URL.
    reader : type, optional
        Class of rasterio's datasets to make.

    Raises
    ------
    RasterioError
        If it cannot be read, is neither GeoTIFF nor JPEG 2000, or names another file.

    Notes
    -----
    The second driver costs no request: GDAL keeps the first bytes of an address.
    """
    try:
        address.encode()
    except UnicodeEncodeError:
        raise RasterioIOError("its name is not UTF-8, which GDAL needs; give the file or folder another name") from None
    likely_first = sorted(DRIVERS, key=lambda driver: ("jp2" in address.lower()) != (driver == "JP2OpenJPEG"))
    for driver in likely_first:
        try:
            dataset = reader(address, driver=driver, sharing=False)
        except RasterioIOError as error:
            if "not recognized as being in a supported file format" not in str(error.__cause__ or error):
                raise
        else:
            if dataset.tags(ns="OVERVIEWS"):
                dataset.close()
                raise RasterioIOError("its metadata name another file for its overviews, which is not opened")
            return dataset
    raise RasterioIOError(
        "it is neither a GeoTIFF nor a JPEG 2000 file; other formats can name further files, and are not opened"
    )


def place_in(dataset: Any, left: float, top: float) -> tuple[int, int]:
    """Row and column of an open file at which a corner lies [unit of the CRS]."""
    step = dataset.transform
    return round((top - step.f) / step.e), round((left - step.c) / step.a)


def check_file(
    href: str, dataset: Any, epsg: int, gsd: float, corner: tuple[float, float], bounds: Bounds, dtype: np.dtype[Any]
) -> None:
    """Compare the header of an open file with what its item said.

    Parameters
    ----------
    dataset : rasterio dataset
    corner : tuple
        A point on the pixel grid that was promised [unit of the CRS].
    bounds : tuple
        The ground that is going to be read.

    Raises
    ------
    SourceError
        What differs, and where.
    """
    remedy = "The item does not describe its file; refresh the item from its catalogue."
    if dataset.count != 1:
        raise SourceError(f"{href} holds {dataset.count} bands where its item promises one. {remedy}")
    if dataset.crs is None or dataset.crs != CRS.from_epsg(epsg):
        raise SourceError(f"{href} is in {dataset.crs or 'no CRS'}, its item says EPSG:{epsg}. {remedy}")
    step = dataset.transform
    if (step.a, step.b, step.d, step.e) != (gsd, 0.0, 0.0, -gsd):
        raise SourceError(f"{href} has pixels of {step.a:g} x {-step.e:g} m, its item says {gsd:g} m. {remedy}")
    if (step.c - corner[0]) % gsd or (step.f - corner[1]) % gsd:
        raise SourceError(f"{href} starts at ({step.c:g}, {step.f:g}), off the grid that its item states. {remedy}")
    inside = dataset.bounds
    if inside[0] > bounds[0] or inside[1] > bounds[1] or inside[2] < bounds[2] or inside[3] < bounds[3]:
        raise SourceError(f"{href} covers {tuple(inside)}, less than its item states: {bounds}. {remedy}")
    picture = dataset.dtypes[0] in ("uint8", "int8") and dtype == np.uint16  # digital numbers
    if picture or not np.can_cast(dataset.dtypes[0], dtype):
        raise SourceError(f"{href} holds {dataset.dtypes[0]} pixels, its item says {dtype}. {remedy}")
    check_blocks(href, dataset)


def check_blocks(href: str, dataset: Any) -> None:
    """Stop before GDAL takes memory for a block of a file that is larger than a whole band.

    Raises
    ------
    SourceError
        If a block has more pixels than a tile of Sentinel-2.
    """
    rows, columns = dataset.block_shapes[0]
    if rows * columns > (TILE_SIDE // 10) ** 2:
        raise SourceError(
            f"{href} is packed in blocks of {rows} x {columns} pixels, more than a tile of Sentinel-2 has. Get "
            "it again, or make smaller blocks: rio convert IN OUT --driver COG."
        )
