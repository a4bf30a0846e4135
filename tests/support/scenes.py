"""A small synthetic scene with items in three dialects, a server of items, and the shared data."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.shutil import copy as copy_raster

from eosr.cube.bands import BANDS, bands_of

LEFT, TOP, EPSG = 699960.0, 5000040.0, 32632
COLOURS = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2",
    "B07": "rededge3", "B08": "nir", "B8A": "nir08", "B09": "nir09", "B10": "cirrus", "B11": "swir16", "B12": "swir22",
}  # fmt: skip


def shared_path(*parts: str) -> Path:
    """A file of the shared data beside the repository (or under EOSR_SHARED); skips the test where it is absent."""
    root = Path(os.environ.get("EOSR_SHARED") or Path(__file__).resolve().parents[3] / "shared")
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"shared data is not here: {Path(*parts)} (set EOSR_SHARED)")
    return path


@dataclass(frozen=True)
class WrittenScene:
    """COGs of one synthetic scene and the pixels they hold."""

    folder: Path
    pixels: dict[str, np.ndarray]
    left: float = LEFT
    top: float = TOP
    epsg: int = EPSG

    @property
    def size(self) -> int:
        return self.pixels["B02"].shape[0]

    def item(self, dialect="legacy", *, base=None, ident="S2A_32TQM_20230601_0_L2A", **properties) -> dict:
        """A STAC item in one of three dialects: ``legacy``, ``code`` (proj:code, raster v1), ``v11`` (STAC 1.1)."""
        return make_item(self, dialect, base or str(self.folder), ident, properties)


def write_scene(
    folder: Path, *, size=360, seed=0, level="L2A", hole=None, left=LEFT, top=TOP, epsg=EPSG
) -> WrittenScene:
    """Write one COG per band: ramps with noise; ``hole`` is a slice of 60 m rows set to nodata."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = {}
    for index, name in enumerate(bands_of(level)):
        gsd = BANDS[name].gsd
        count = size * 10 // gsd
        rng = np.random.default_rng([seed, index])
        ramp = np.add.outer(np.linspace(0, 4000, count), np.linspace(0, 3000, count))
        image = (1000 + ramp + rng.integers(0, 3000, (count, count))).astype(np.uint16)
        if hole is not None:
            step = 60 // gsd
            image[hole.start * step : hole.stop * step] = 0
        write_cog(folder / f"{name}.tif", image, Affine(gsd, 0, left, 0, -gsd, top), epsg)
        pixels[name] = image
    return WrittenScene(folder, pixels, left, top, epsg)


def write_cog(path: Path, image: np.ndarray, transform: Affine, epsg: int = EPSG, nodata=0) -> None:
    rows, columns = image.shape
    profile = {"width": columns, "height": rows, "count": 1, "dtype": image.dtype, "crs": f"EPSG:{epsg}"}
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", transform=transform, nodata=nodata, **profile) as file:
            file.write(image, 1)
        copy_raster(memory.name, path, driver="COG", compress="DEFLATE", blocksize=128, overviews="NONE")


def lonlat_box(left, top, size, epsg=EPSG) -> list[float]:
    transformer = Transformer.from_crs(epsg, 4326, always_xy=True)
    return list(transformer.transform_bounds(left, top - size * 10, left + size * 10, top))


def make_item(scene: WrittenScene, dialect: str, base: str, ident: str, properties: dict) -> dict:
    west, south, east, north = lonlat_box(scene.left, scene.top, scene.size, scene.epsg)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    facts = {
        "datetime": "2023-06-01T10:15:00Z", "platform": "sentinel-2a", "eo:cloud_cover": 1.0,
        "s2:processing_baseline": "05.09", "s2:mgrs_tile": "32TQM", "s2:product_type": "S2MSI2A",
    }  # fmt: skip
    facts |= {"proj:epsg": scene.epsg} if dialect == "legacy" else {"proj:code": f"EPSG:{scene.epsg}"}
    facts |= properties
    item = {
        "type": "Feature", "stac_version": "1.1.0" if dialect == "v11" else "1.0.0", "id": ident, "links": [],
        "stac_extensions": [], "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north], "collection": "sentinel-2-l2a",
        "properties": {key: value for key, value in facts.items() if value is not None}, "assets": {},
    }  # fmt: skip
    for name, image in scene.pixels.items():
        gsd = BANDS[name].gsd
        key = {"legacy": name, "code": COLOURS[name], "v11": f"{name}_{gsd}m"}[dialect]
        asset = {
            "href": f"{base}/{name}.tif", "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data", "reflectance"], "gsd": gsd,
            "proj:shape": list(image.shape), "proj:transform": [gsd, 0, scene.left, 0, -gsd, scene.top],
        }  # fmt: skip
        if dialect == "v11":
            asset |= {"bands": [{"name": name}], "data_type": "uint16", "nodata": 0}
            asset |= {"raster:scale": 0.0001, "raster:offset": -0.1}
        else:
            asset["eo:bands"] = [{"name": name}]
            asset["raster:bands"] = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
        item["assets"][key] = asset
    return item


@contextlib.contextmanager
def stac_api(items: Path):
    """Address of a real STAC API server (rustac) of an item collection; its memory backend has no query extension."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).parent / "rustac"
    server = subprocess.Popen(
        [program, "serve", "--create-collections", "--addr", f"127.0.0.1:{port}", items],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
