"""SAFE folders and zips, as ESA delivers them -> the same lazy Dataset that `eosr.open_stac` gives.

The metadata are read into a STAC item in memory, and that is opened: one way to pixels, with one set of checks.

References
----------
[1] ESA, "Sentinel-2 Products Specification Document", S2-PDGS-TAS-DI-PSD, issues 14 and 15.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import xarray as xr

from eosr.bands import BANDS
from eosr.errors import SourceError
from eosr.stac import open_stac

#: Names of bands by ``band_id`` of the metadata.
_BY_ID: Final = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_IMAGE: Final = re.compile(r"_(B\d[\dA]|SCL)(?:_(\d\d)m)?$")


def open_safe(
    path: str | Path,
    *,
    bands: Sequence[str] | None = None,
    chunks: int | None = None,
    offset: str | int = "auto",
    scl: bool = False,
) -> xr.Dataset:
    """Sentinel-2 product (L1C or L2A) in the SAFE format as a lazy multi-resolution Dataset of digital numbers.

    Parameters
    ----------
    path : path
        Folder ``*.SAFE`` or zip archive of one. Its files are read where they lie.
    bands : sequence of str, optional
        Default: every band of the processing level.
    chunks : int, optional
        Side of a chunk [10 m pixels], a multiple of 6; default 1536.
    offset : "auto", "none" or int
        See `eosr.radiometry.offset_of`; ``auto`` is what the metadata state.
    scl : bool
        Add the scene classification of an L2A product as ``SCL`` (time, y20, x20), uint8; see `eosr.patches.CLOUDY`.

    Returns
    -------
    Dataset
        As from `eosr.open_stac`: one time, native bands only (an L2A product holds resampled copies too).

    Raises
    ------
    SourceError
        If it is no product of these levels, metadata or files are missing, or it is of the old kind with several tiles.
        When computed: if a file cannot be read.
    BandError, GridError, RadiometryError
        As `eosr.open_stac`.

    Notes
    -----
    JPEG 2000 is slow to read, 5 to 10 MB/s: write the Dataset once with `eosr.to_zarr` where it is used again.
    """
    item, classification = safe_item(path)
    ds = open_stac(item, bands=bands, chunks=chunks, offset=offset)
    if not scl or classification is None:
        return ds
    # Imported here: only this needs it.
    import rioxarray

    side = (1536 if chunks is None else chunks) // 2
    opened: Any = rioxarray.open_rasterio(classification, chunks={"x": side, "y": side})
    classes = opened.isel(band=0, drop=True).drop_vars("spatial_ref").rename(x="x20", y="y20")
    placed = classes.assign_coords(x20=ds["x20"], y20=ds["y20"]).expand_dims(time=ds["time"])
    return ds.assign(SCL=placed.drop_attrs().assign_attrs(long_name="scene classification of Sen2Cor"))


def safe_item(path: str | Path) -> tuple[dict[str, Any], str | None]:
    """Describe a product as a STAC item, whose hrefs are paths, and name the file of its scene classification.

    Raises
    ------
    SourceError
        As `open_safe`.
    """
    root, names, read = _files(Path(path))
    product = _xml(read, _one(names, r"(^|/)MTD_MSI(L1C|L2A)\.xml$", path, "MTD_MSIL1C.xml or MTD_MSIL2A.xml"), path)
    tiles = [name for name in names if re.search(r"(^|/)GRANULE/[^/]+/(MTD_TL|S2._OPER_MTD[^/]*_TL_[^/]*)\.xml$", name)]
    if len(tiles) > 1:
        raise SourceError(
            f"{path} holds {len(tiles)} tiles, as products did before December 2016. Get the tiles one by one, under "
            "their newer names."
        )
    tile = _xml(read, _one(names, r"(^|/)GRANULE/[^/]+/MTD_TL\.xml$", path, "GRANULE/*/MTD_TL.xml"), path)
    level = {"S2MSI1C": "L1C", "S2MSI2A": "L2A"}.get(_text(product, "PRODUCT_TYPE", path))
    if level is None:
        raise SourceError(
            f"{path} is of type {_text(product, 'PRODUCT_TYPE', path)}; eosr reads S2MSI1C (L1C) and S2MSI2A (L2A)."
        )
    top = next((name[: -len(f"MTD_MSI{level}.xml")] for name in names if name.endswith(f"MTD_MSI{level}.xml")), "")
    images = _images(product, names, top, root, level, path)
    grid = {int(one.attrib["resolution"]): one for one in tile.iter("Geoposition")}
    sizes = {int(one.attrib["resolution"]): one for one in tile.iter("Size")}
    offsets = _offsets(product)
    assets = {}
    for name, href in images.items():
        if name == "SCL":
            continue
        gsd = BANDS[name].gsd
        left, upper = (float(_text(grid[gsd], key, path)) for key in ("ULX", "ULY"))
        assets[name] = {
            "href": href, "type": "image/jp2", "gsd": gsd, "eo:bands": [{"name": name}],
            "proj:shape": [int(_text(sizes[gsd], key, path)) for key in ("NROWS", "NCOLS")],
            "proj:transform": [gsd, 0, left, 0, -gsd, upper],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": offsets[name] / 10000}],
        }  # fmt: skip
    uri = _text(product, "PRODUCT_URI", path).removesuffix(".SAFE")
    found = re.search(r"_T(\d{2}[A-Z]{3})[_.]", uri + ".")
    properties = {
        "datetime": _text(tile, "SENSING_TIME", path), "platform": _text(product, "SPACECRAFT_NAME", path).lower(),
        "proj:epsg": int(_text(tile, "HORIZONTAL_CS_CODE", path).removeprefix("EPSG:")),
        "s2:processing_baseline": _text(product, "PROCESSING_BASELINE", path),
        "s2:product_type": _text(product, "PRODUCT_TYPE", path), **({"s2:mgrs_tile": found[1]} if found else {}),
    }  # fmt: skip
    item: dict[str, Any] = {
        "type": "Feature", "stac_version": "1.0.0", "id": uri, "links": [], "stac_extensions": [], "geometry": None,
        "properties": properties, "assets": assets,
    }  # fmt: skip
    return item, images.get("SCL")


def _files(path: Path) -> tuple[str, list[str], Callable[[str], bytes]]:
    """Where GDAL finds the product, the names of its files, and a way to read one."""
    if path.is_dir():
        names = [str(one.relative_to(path)) for one in sorted(path.rglob("*")) if one.is_file()]
        return f"{path.resolve()}/", names, lambda name: (path / name).read_bytes()
    if not path.is_file():
        raise SourceError(f"there is no {path}. Name a .SAFE folder, or the zip archive of one.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except zipfile.BadZipFile:
        raise SourceError(f"{path} is neither a folder nor a whole zip archive. Get it again.") from None

    def read(name: str) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)

    return f"/vsizip/{path.resolve()}/", names, read


def _one(names: list[str], pattern: str, path: str | Path, what: str) -> str:
    found = [name for name in names if re.search(pattern, name)]
    if len(found) != 1:
        raise SourceError(
            f"{path} holds {'no' if not found else len(found)} {what}, so it is no SAFE product of level 1C or 2A. "
            "Name the folder that ends in .SAFE, or its zip archive."
        )
    return found[0]


def _xml(read: Callable[[str], bytes], name: str, path: str | Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read(name))
    except ElementTree.ParseError as error:
        raise SourceError(f"{name} in {path} is damaged: {error}. Get the product again.") from None


def _text(tree: ElementTree.Element, tag: str, path: str | Path) -> str:
    found = next((one.text for one in tree.iter(tag) if one.text), None)
    if found is None:
        raise SourceError(f"the metadata of {path} lack {tag}. Get the product again.")
    return found.strip()


def _images(
    product: ElementTree.Element, names: list[str], top: str, root: str, level: str, path: str | Path
) -> dict[str, str]:
    """File of every native band, and of the classification; the resampled copies of an L2A product are passed over."""
    images = {}
    for one in (*product.iter("IMAGE_FILE"), *product.iter("IMAGE_ID")):
        listed = (one.text or "").strip()
        known = _IMAGE.search(listed)
        if known is None:
            continue
        name, gsd = known[1], int(known[2]) if known[2] else None
        native = 20 if name == "SCL" else BANDS[name].gsd
        if gsd not in (None, native) or (level == "L2A" and gsd is None):
            continue
        file = f"{top}{listed}.jp2"
        if file not in names:
            raise SourceError(f"{path} lacks the file {listed}.jp2, which its metadata list. Get the product again.")
        images[name] = root + file
    if not images:
        raise SourceError(f"the metadata of {path} list no images of bands. Get the product again.")
    return images


def _offsets(product: ElementTree.Element) -> dict[str, int]:
    """Offset of every band [DN]; 0 where none is stated, as before baseline 04.00."""
    offsets = dict.fromkeys(_BY_ID, 0)
    for one in (*product.iter("RADIO_ADD_OFFSET"), *product.iter("BOA_ADD_OFFSET")):
        offsets[_BY_ID[int(one.attrib["band_id"])]] = int(one.text or 0)
    return offsets


__all__ = ["open_safe", "safe_item"]
