"""Clouds of a SAFE product on its 20 m grid, lazy: from the scene classification (L2A) or the cloud mask of L1C."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import numpy.typing as npt
from affine import Affine
from dask.base import tokenize
from dask.delayed import delayed
from rasterio.features import rasterize

from eosr.cube.masks import CLOUDY
from eosr.errors import SourceError
from eosr.open.safe.files import read_bytes
from eosr.open.safe.metadata import Image, Product
from eosr.open.safe.pixels import lazy_image

#: Types of cloud in the polygons of L1C.
_TYPES = ("OPAQUE", "CIRRUS")


def lazy_mask(name: str, product: Product, chunk: int, stage: Path | None) -> da.Array | None:
    """One mask, dims (y20, x20), lazy; None where the product has no file for it.

    Parameters
    ----------
    name : "SCL" or "cloud_mask"
        Scene classification, uint8; or True where cloud, cloud shadow (L2A only) or cirrus is.
    product : Product
    chunk : int
        Side of the chunks [20 m pixels].
    stage : path or None
        As `eosr.open.safe.pixels.lazy_image`.
    """
    grid = next((one for one in product.images.values() if one.gsd == 20), None)
    if grid is None:
        return None
    if product.level == "L2A":
        if product.classification is None:
            return None
        classes = lazy_image(product.classification, chunk, stage)[0]
        return classes if name == "SCL" else da.isin(classes, CLOUDY)
    if name == "SCL":
        return None
    if product.clouds is not None:
        opaque_and_cirrus = lazy_image(product.clouds, product.clouds.rows, stage)[:2]
        coarse = (opaque_and_cirrus > 0).any(axis=0)
        # 60 m pixels nest in the 20 m grid.
        return da.repeat(da.repeat(coarse, 3, axis=0), 3, axis=1).rechunk(chunk)
    if product.cloud_polygons is not None:
        return _lazy_polygons(*product.cloud_polygons, grid, chunk)
    return None


def _lazy_polygons(where: str, name: str, image: Image, chunk: int) -> da.Array:
    token = tokenize(where, name, image)
    drawn = delayed(draw_clouds)(where, name, image, dask_key_name=f"clouds-{token}")
    whole: da.Array = da.from_delayed(
        drawn, (image.rows, image.columns), dtype=bool, meta=np.empty((0, 0), bool), name=f"safe-clouds-{token}"
    )
    return whole.rechunk(chunk)


def draw_clouds(where: str, name: str, image: Image) -> npt.NDArray[np.bool_]:
    """True inside the cloud polygons of an L1C product of before baseline 04.00, on the grid of an image.

    Raises
    ------
    SourceError
        If the file is damaged, or in another CRS than the product.
    """
    try:
        tree = ElementTree.fromstring(read_bytes(where, name))
        shapes = [shape for one in tree.iter() if _local(one) == "MaskFeature" for shape in _polygons(one)]
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"{name} in {where} is damaged: {error}. Get the product again.") from None
    for one in tree.iter():
        code = re.search(r"(\d+)$", one.attrib.get("srsName", ""))
        if code and int(code[1]) != image.epsg:
            raise SourceError(
                f"{name} in {where} is in EPSG:{code[1]}, its product in EPSG:{image.epsg}. Get the product again."
            )
    if not shapes:
        return np.zeros((image.rows, image.columns), bool)
    transform = Affine(image.gsd, 0, image.left, 0, -image.gsd, image.top)
    drawn = rasterize(shapes, out_shape=(image.rows, image.columns), transform=transform, fill=0, dtype="uint8")
    return np.asarray(drawn, bool)


def _local(element: ElementTree.Element) -> str:
    """Tag without its namespace: GML 3.2 and EOP change theirs between baselines."""
    return element.tag.rpartition("}")[2]


def _polygons(feature: ElementTree.Element) -> list[dict[str, Any]]:
    kind = next((one.text or "" for one in feature.iter() if _local(one) == "maskType"), "")
    if kind.strip() not in _TYPES:
        return []
    return [
        {"type": "Polygon", "coordinates": [_ring(one) for one in polygon.iter() if _local(one) == "posList"]}
        for polygon in feature.iter()
        if _local(polygon) == "Polygon"
    ]


def _ring(positions: ElementTree.Element) -> list[tuple[float, float]]:
    """Corners of one ring: the exterior comes first in GML, as in GeoJSON."""
    numbers = [float(number) for number in (positions.text or "").split()]
    per_point = int(positions.attrib.get("srsDimension", 2))
    corners = list(zip(numbers[::per_point], numbers[1::per_point], strict=True))
    if len(corners) < 4 or len(numbers) % per_point:
        raise ValueError(f"a polygon of {len(numbers)} numbers")
    return corners
