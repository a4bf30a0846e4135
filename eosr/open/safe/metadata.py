"""Metadata of a product in the SAFE format -> what eosr needs of it: its files, their grids, offsets, time and place.

Files are found through the metadata, never by guessing names. A product of PSD 14 or 15 has one tile:
``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml`` at its root, ``GRANULE/*/MTD_TL.xml`` below.

References
----------
[1] ESA, "Sentinel-2 Products Specification Document", S2-PDGS-TAS-DI-PSD, issues 14 and 15. Elements of the pilot
    products of 2017 (PSD 14.2: ``PRODUCT_URI_2A``, ``IMAGE_FILE_2A``, type ``S2MSI2Ap``) as in the test files of GDAL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from eosr.cube.bands import BANDS, QUANTIFICATION, TILE_SIDE
from eosr.errors import RadiometryError, SourceError
from eosr.open.safe.files import AGAIN, Files, find_files, many_tiles

#: Bands in the order of ``band_id`` [1].
_BY_ID: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_LEVELS: Final = {"S2MSI1C": "L1C", "S2MSI2A": "L2A", "S2MSI2Ap": "L2A"}
_IMAGE: Final = re.compile(r"_(B\d[\dA]|SCL)(?:_(\d\d)m)?$")
_TILE: Final = re.compile(r"_T(\d{2}[A-Z]{3})(?=[_./]|$)")


@dataclass(frozen=True, kw_only=True)
class Image:
    """One file of pixels, and the grid that the metadata give it."""

    name: str
    #: What GDAL opens: a path, or ``/vsizip/{archive}/member``.
    href: str
    epsg: int
    #: Pixel size [m], left and top edge [unit of the CRS].
    gsd: int
    left: float
    top: float
    rows: int
    columns: int
    dtype: str = "uint16"
    #: Images in the file.
    layers: int = 1
    #: Changes when the file does: its length [bytes], and its CRC or time of change.
    stamp: str = ""
    #: What ``manifest.safe`` states of the file, e.g. ``"SHA3-256 2a8730..."``; ``""``: nothing.
    checksum: str = ""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What the metadata of one product say."""

    id: str
    level: str
    #: Lower case, e.g. ``"sentinel-2b"``.
    platform: str
    processing_baseline: str
    datatake: str
    #: Sensing and making, ISO 8601, UTC.
    datetime: str
    created: str
    #: MGRS tile, e.g. ``"32TQM"``.
    tile: str
    epsg: int
    #: Offset to add to digital numbers [DN] and the element that states it; ``""``: none is stated, and 0 meant.
    offsets: Mapping[str, int]
    offset_element: str
    #: Native bands that are there, in spectral order, and files of those that are listed and are not there.
    images: Mapping[str, Image] = field(repr=False)
    absent: Mapping[str, str] = field(repr=False)
    #: Scene classification (L2A); clouds of L1C as a raster of opaque, cirrus, snow, or as polygons.
    classification: Image | None = None
    clouds: Image | None = None
    #: Folder or archive, and name inside.
    cloud_polygons: tuple[str, str] | None = None

    @property
    def offset_name(self) -> str:
        """Element in which products of the level state their offset."""
        return "RADIO_ADD_OFFSET" if self.level == "L1C" else "BOA_ADD_OFFSET"


def read_product(path: str | Path) -> Product:
    """Facts of the product at a path; see `find_files` for what may be named.

    Raises
    ------
    SourceError
        As `find_files`; or if metadata are missing, damaged, or lack something.
    RadiometryError
        If digital numbers are not 10000 times reflectance.
    """
    files = find_files(path)
    main = files.xml(files.one(r"^MTD_MSI\w+\.xml$", "MTD_MSIL1C.xml or MTD_MSIL2A.xml"))
    kind = _text(main, files, "PRODUCT_TYPE")
    if kind not in _LEVELS:
        raise SourceError(
            f"{path} is of type {kind}; eosr reads S2MSI1C (L1C) and S2MSI2A (L2A). Get the L1C or L2A product of the "
            "same acquisition."
        )
    granules = [name for name in files.stamps if re.match(r"GRANULE/[^/]+/MTD_TL\.xml$", name)]
    if len(granules) > 1:
        raise SourceError(many_tiles(path, len(granules)))
    granule = files.one(r"^GRANULE/[^/]+/MTD_TL\.xml$", "GRANULE/*/MTD_TL.xml")
    tile = files.xml(granule)
    _check_quantification(main, files, _LEVELS[kind])
    name = _text(main, files, "PRODUCT_URI", "PRODUCT_URI_2A").removesuffix(".SAFE")
    place = _TILE.search(name) or _TILE.search(granule)
    offsets, element = _offsets(main, files)
    images, absent = _images(main, tile, files, _LEVELS[kind])
    taken = next((one.attrib.get("datatakeIdentifier", "") for one in main.iter("Datatake")), "")
    return Product(
        id=name, level=_LEVELS[kind], platform=_text(main, files, "SPACECRAFT_NAME").lower(),
        processing_baseline=_text(main, files, "PROCESSING_BASELINE"), datatake=taken,
        datetime=_text(tile, files, "SENSING_TIME"), created=_text(main, files, "GENERATION_TIME", default=""),
        tile=place[1] if place else "", epsg=_epsg(tile, files),
        offsets=offsets, offset_element=element,
        images={band: images[band] for band in BANDS if band in images}, absent=absent,
        classification=images.get("SCL"), **_clouds(tile, files, granule.removesuffix("MTD_TL.xml")),
    )  # fmt: skip


def _text(tree: ElementTree.Element, files: Files, *tags: str, default: str | None = None) -> str:
    """Text of the first element that is there under one of the names."""
    for tag in tags:
        for one in tree.iter(tag):
            if one.text and one.text.strip():
                return one.text.strip()
    if default is None:
        raise SourceError(f"the metadata of {files.where} lack {tags[0]}. {AGAIN}")
    return default


def _number(tree: ElementTree.Element, files: Files, *tags: str, default: str | None = None) -> float:
    text = _text(tree, files, *tags, default=default)
    with suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise SourceError(f"the metadata of {files.where} say {tags[0]} {text!r}, which is no number. {AGAIN}")


def _count(tree: ElementTree.Element, files: Files, tag: str, most: int) -> int:
    number = _number(tree, files, tag)
    if not 1 <= number <= most or number != int(number):
        raise SourceError(
            f"the metadata of {files.where} say {tag} {number:g}, which is no number of pixels of a tile (to {most}). "
            f"{AGAIN}"
        )
    return int(number)


def _epsg(tile: ElementTree.Element, files: Files) -> int:
    text = _text(tile, files, "HORIZONTAL_CS_CODE")
    if not re.fullmatch(r"EPSG:\d+", text):
        raise SourceError(f"the metadata of {files.where} place it in {text!r}, which is no EPSG code. {AGAIN}")
    return int(text.removeprefix("EPSG:"))


def _check_quantification(main: ElementTree.Element, files: Files, level: str) -> None:
    tags = ("QUANTIFICATION_VALUE",) if level == "L1C" else ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    value = _number(main, files, *tags, default=str(QUANTIFICATION))
    if value != QUANTIFICATION:
        raise RadiometryError(
            f"digital numbers of {files.where} are {value:g} times reflectance; eosr knows those of {QUANTIFICATION} "
            "times. Get the product of a later processing baseline."
        )


def _offsets(main: ElementTree.Element, files: Files) -> tuple[dict[str, int], str]:
    """Offset of every band [DN], 0 where none is stated, as before baseline 04.00; and what states it."""
    offsets, element = dict.fromkeys(_BY_ID, 0), ""
    for tag in ("RADIO_ADD_OFFSET", "BOA_ADD_OFFSET"):
        for one in main.iter(tag):
            try:
                band, value = dict(enumerate(_BY_ID))[int(one.attrib["band_id"])], float(one.text or "")
                if value != int(value):
                    raise ValueError
                offsets[band], element = int(value), tag
            except (KeyError, ValueError, OverflowError):
                raise SourceError(
                    f"the metadata of {files.where} state a {tag} that is none: {one.attrib} {one.text!r}. {AGAIN}"
                ) from None
    return offsets, element


def _image(tile: ElementTree.Element, files: Files, name: str, file: str, gsd: int, **facts: Any) -> Image:
    """Describe a file of pixels that lies on the grid of one pixel size."""
    try:
        place = next(one for one in tile.iter("Geoposition") if one.attrib.get("resolution") == str(gsd))
        size = next(one for one in tile.iter("Size") if one.attrib.get("resolution") == str(gsd))
    except StopIteration:
        raise SourceError(f"the metadata of {files.where} describe no grid of {gsd} m. {AGAIN}") from None
    return Image(
        name=name, href=files.href(file), epsg=_epsg(tile, files), gsd=gsd, left=_number(place, files, "ULX"),
        top=_number(place, files, "ULY"), rows=_count(size, files, "NROWS", TILE_SIDE // gsd),
        columns=_count(size, files, "NCOLS", TILE_SIDE // gsd), stamp=files.stamps[file],
        checksum=files.checksums.get(file, ""), **facts,
    )  # fmt: skip


def _images(
    main: ElementTree.Element, tile: ElementTree.Element, files: Files, level: str
) -> tuple[dict[str, Image], dict[str, str]]:
    """Native bands and the classification; the resampled copies in an L2A product are passed over."""
    images: dict[str, Image] = {}
    absent: dict[str, str] = {}
    for one in (*main.iter("IMAGE_FILE"), *main.iter("IMAGE_FILE_2A")):
        listed = (one.text or "").strip()
        known = _IMAGE.search(listed)
        if known is None or (known[1] != "SCL" and known[1] not in BANDS):
            continue
        name, stated = known[1], int(known[2]) if known[2] else None
        native = 20 if name == "SCL" else BANDS[name].gsd
        if stated != (native if level == "L2A" else None):
            continue
        file = f"{listed}.jp2"
        if file in files.stamps:
            images[name] = _image(tile, files, name, file, native, dtype="uint8" if name == "SCL" else "uint16")
        else:
            absent[name] = file
    if not images and not absent:
        raise SourceError(f"the metadata of {files.where} list no images of bands. {AGAIN}")
    return images, absent


def _clouds(tile: ElementTree.Element, files: Files, granule: str) -> dict[str, Any]:
    """Clouds of L1C: ``MSK_CLASSI``, a raster of 60 m, from baseline 04.00 on; ``MSK_CLOUDS``, polygons, before."""
    found: dict[str, Any] = {}
    for one in tile.iter("MASK_FILENAME"):
        # By name: some products state the path, some only the name.
        file = f"{granule}QI_DATA/{(one.text or '').strip().rpartition('/')[2]}"
        if file not in files.stamps:
            continue
        if one.attrib.get("type") == "MSK_CLASSI" and file.endswith(".jp2"):
            found["clouds"] = _image(tile, files, "MSK_CLASSI", file, 60, dtype="uint8", layers=3)
        elif one.attrib.get("type") == "MSK_CLOUDS" and file.endswith(".gml"):
            found["cloud_polygons"] = (str(files.where), files.top + file)
    return found


def item_of(product: Product) -> dict[str, Any]:
    """STAC item that says of a product what catalogues would; hrefs are paths."""
    stated = {
        "datetime": product.datetime, "created": product.created, "platform": product.platform,
        "constellation": "sentinel-2", "proj:epsg": product.epsg, "s2:processing_baseline": product.processing_baseline,
        "s2:product_type": "S2MSI1C" if product.level == "L1C" else "S2MSI2A", "s2:product_uri": f"{product.id}.SAFE",
        "s2:datatake_id": product.datatake, "s2:mgrs_tile": product.tile,
    }  # fmt: skip
    assets = {
        name: {
            "href": image.href, "type": "image/jp2", "gsd": image.gsd, "eo:bands": [{"name": name}],
            "proj:shape": [image.rows, image.columns],
            "proj:transform": [image.gsd, 0, image.left, 0, -image.gsd, image.top],
            "raster:bands": [
                {
                    "nodata": 0, "data_type": image.dtype, "scale": 1 / QUANTIFICATION,
                    "offset": product.offsets[name] / QUANTIFICATION,
                }
            ],
        }
        for name, image in product.images.items()
    }  # fmt: skip
    properties = {key: value for key, value in stated.items() if value}
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": product.id, "geometry": None,
        "links": [], "properties": properties, "assets": assets,
    }  # fmt: skip
