"""The STAC collection of what a batch has made."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pystac

from eosr.host.files import put_text


def write_collection(path: Path, items: Sequence[Path], *, id: str | None = None) -> pystac.Collection:
    """Write a static STAC collection of items that `eosr.to_stac_item` wrote; the items stay as they are.

    Parameters
    ----------
    path : Path
        ``collection.json``; replaced whole.
    items : sequence of Path
        At least one; linked to by relative paths.
    id : str, optional
        Default: the name of the folder.

    Returns
    -------
    pystac.Collection
        STAC 1.1; `eosr.open_stac` reads it.
    """
    read = [pystac.Item.from_file(str(item)) for item in items]
    boxes = [item.bbox for item in read if item.bbox]
    times = sorted(item.datetime for item in read if item.datetime)
    extent = pystac.Extent(pystac.SpatialExtent([_around(boxes)]), pystac.TemporalExtent([[times[0], times[-1]]]))
    collection = pystac.Collection(
        id=id or path.parent.name or "eosr", title="Sentinel-2 at 10 m",
        description="Sentinel-2 bands sharpened to 10 m by eosr, one item per satellite, tile and day.",
        extent=extent, license="other", keywords=["sentinel-2", "super-resolution"],
    )  # fmt: skip
    told: dict[str, Any] = collection.to_dict(include_self_link=False)
    told["links"] = [{"rel": "root", "href": "./collection.json", "type": "application/json"}] + [
        {
            "rel": "item", "href": "./" + os.path.relpath(item, path.parent).replace(os.sep, "/"),
            "type": "application/geo+json",
        }
        for item in items
    ]  # fmt: skip
    put_text(path, json.dumps(told, indent=2) + "\n")
    return collection


def _around(boxes: Sequence[Sequence[float]]) -> list[float]:
    """West, south, east, north of all boxes; where one of them crosses the antimeridian, west > east as there."""
    over = any(west > east for west, _, east, _ in boxes)
    # Longitudes from 0 to 360: the antimeridian lies within.
    spans = [[lon + 360 if over and lon < 0 else lon for lon in (west, east)] for west, _, east, _ in boxes]
    west, east = min(span[0] for span in spans), max(span[1] for span in spans)
    return [west, min(box[1] for box in boxes), east - 360 if east > 180 else east, max(box[3] for box in boxes)]
