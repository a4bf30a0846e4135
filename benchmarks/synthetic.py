"""A synthetic Sentinel-2 L2A scene as one GeoTIFF per band and one STAC item: what the benchmarks read."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.shutil import copy as copy_raster
from rasterio.windows import Window

from eosr.cube.bands import BANDS, bands_of

LEFT, TOP, EPSG = 699960.0, 5000040.0, 32632
#: Side of the pattern that is repeated over a scene, in pixels of each band.
PATTERN = 1098


def pattern(seed: int) -> np.ndarray:
    """Fields, roads and noise: digital numbers with structure at every scale, so that compression is realistic."""
    rng = np.random.default_rng(seed)
    total = np.full((PATTERN, PATTERN), 3000.0)
    for side, amplitude in ((6, 900), (61, 600), (183, 300), (PATTERN, 60)):
        repeat = PATTERN // side
        total += amplitude * rng.standard_normal((side, side)).repeat(repeat, 0).repeat(repeat, 1)
    return np.clip(total, 1, 15000).astype(np.uint16)


def write_scene(
    folder: Path, size: int, *, filled: int | None = None, cog: bool = True, block: int = 512, tile: str = "32TQM"
) -> Path:
    """Write every L2A band and an item; return the path of the item.

    ``size``: 10 m pixels along one side, a multiple of 6. ``filled``: only so many from the top left hold data, the
    rest of the file is absent (sparse) and reads as nodata; then, or with ``cog=False``, plain tiled GeoTIFFs.
    ``block``: side of the blocks of COGs [px].
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ended = []
        for index, band in enumerate(bands_of("L2A")):
            step = BANDS[band].gsd // 10
            shape = (size // step, min(filled or size, size) // step, step)
            ended.append(pool.submit(_write_band, folder / f"{band}.tif", index, *shape, block=block if cog else None))
        for one in ended:
            one.result()
    item = folder / f"S2A_{tile}_20230601_0_L2A.json"
    item.write_text(json.dumps(_item(size, tile)))
    return item


def _write_band(path: Path, seed: int, side: int, filled: int, step: int, *, block: int | None) -> None:
    cell = pattern(seed)
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint16", "nodata": 0,
        "crs": f"EPSG:{EPSG}", "transform": Affine(10 * step, 0, LEFT, 0, -10 * step, TOP), "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2, "zlevel": 1, "sparse_ok": True,
    }  # fmt: skip
    plain = path.with_suffix(".plain.tif") if block else path
    with rasterio.open(plain, "w", **profile) as target:
        for row in range(0, filled, 512):
            rows = np.arange(row, min(row + 512, filled))
            strip = cell[np.ix_(rows % PATTERN, np.arange(filled) % PATTERN)]
            target.write(strip, 1, window=Window(0, row, filled, len(rows)))
    if block:
        copy_raster(plain, path, driver="COG", compress="DEFLATE", predictor=2, level=1, blocksize=block)
        plain.unlink()


def _item(size: int, tile: str) -> dict:
    right, bottom = LEFT + 10 * size, TOP - 10 * size
    to_lonlat = Transformer.from_crs(EPSG, 4326, always_xy=True)
    west, south, east, north = to_lonlat.transform_bounds(LEFT, bottom, right, TOP)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    assets = {}
    for band in bands_of("L2A"):
        gsd = BANDS[band].gsd
        assets[band] = {
            "href": f"./{band}.tif", "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"], "gsd": gsd, "eo:bands": [{"name": band}],
            "proj:shape": [size * 10 // gsd] * 2, "proj:transform": [gsd, 0, LEFT, 0, -gsd, TOP],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "scale": 1e-4, "offset": -0.1}],
        }  # fmt: skip
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"S2A_{tile}_20230601_0_L2A",
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [west, south, east, north], "links": [],
        "stac_extensions": ["https://stac-extensions.github.io/projection/v1.1.0/schema.json"],
        "collection": "sentinel-2-l2a", "assets": assets,
        "properties": {
            "datetime": "2023-06-01T10:15:00Z", "platform": "sentinel-2a", "constellation": "sentinel-2",
            "s2:processing_baseline": "05.09", "s2:mgrs_tile": tile, "proj:epsg": EPSG,
        },
    }  # fmt: skip
