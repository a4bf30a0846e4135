"""STAC -> ONE lazy multi-resolution Dataset, from native files only, on their own pixels.

`open_stac` finds items (`eosr.open.catalogue.search`), reads their facts (`eosr.open.items`), checks that they can be
one Dataset, cuts a window, and lets `eosr.open.reading` make the lazy arrays. No pixel is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from pystac.utils import is_absolute_href

from eosr.cube.bands import NODATA
from eosr.cube.grid import from_arrays
from eosr.errors import GridError, RadiometryError, SourceError, warn
from eosr.host.proj import check_proj
from eosr.open.acquisitions import by_datatake, named, pieces, timestamp
from eosr.open.catalogue.search import BBox, Item, find_items
from eosr.open.catalogue.web import TIMEOUT, Limits
from eosr.open.items import CARRIED, read_item, tile_of
from eosr.open.reading import can_read_s3, load
from eosr.open.scene import Scene

#: Side of the 60 m pixel: windows and chunks are whole numbers of it [m].
_STEP = 60
LONLAT = "EPSG:4326"
#: Attributes of products of eosr that say what the numbers are.
_MUST_AGREE = ("quantity", "degradation", "degradation_factor")


def open_stac(
    source: Any,
    *,
    collection: str | Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    bbox_crs: str = LONLAT,
    intersects: Any = None,
    datetime: Any = None,
    query: Any = None,
    max_cloud_cover: float | None = None,
    tile: str | None = None,
    bands: Sequence[str] | None = None,
    chunks: int | None = None,
    offset: str | int = "auto",
    sign: Callable[[str], str] | None = None,
    alternate: str | None = None,
    gdal_env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    limits: Limits | None = None,
) -> xr.Dataset:
    """Sentinel-2 images of one tile as a lazy multi-resolution Dataset of digital numbers.

    Parameters
    ----------
    source, collection, intersects, datetime, query, max_cloud_cover
        Where to look and for what: see `eosr.open.find_items`.
    bbox : sequence of float, optional
        Window: left, bottom, right, top in ``bbox_crs``. It grows outward to whole 60 m pixels and is cut at the edges
        of the scene. Catalogues are also searched with it.
    bbox_crs : str
        ``"EPSG:4326"`` (longitude, latitude), ``"item"`` (the CRS of the items) or any other CRS.
    tile : str, optional
        Only items of this MGRS tile, e.g. ``"32TQM"``.
    bands : sequence of str, optional
        Default: every band of the processing level (B10 included for L1C).
    chunks : int, optional
        Side of a chunk [10 m pixels], a multiple of 6. Default 1536, which is 768 and 256 for the other groups.
    offset : "auto", "none" or int
        See `eosr.cube.offset.offset_of`. Digital numbers are never changed; the offset is recorded.
    sign : callable, optional
        Takes an href and returns the one to read, e.g. ``planetary_computer.sign``. Without it hrefs are read as they
        are: files that need signing open, and the first read says what is missing.
    alternate : str, optional
        Name of the alternate hrefs to read, e.g. ``"https"`` or ``"s3"``. Default: the main hrefs, but ``"https"``
        instead of s3 where the process has no AWS credentials.
    gdal_env : mapping, optional
        More GDAL options, e.g. ``{"AWS_REQUEST_PAYER": "requester"}``. They overrule `eosr.open.reading.GDAL_ENV`
        (as environment variables of the same names do), where the time-outs of the files are:
        ``{"GDAL_HTTP_TIMEOUT": "120", "GDAL_HTTP_LOW_SPEED_TIME": "60"}``.
    timeout, limits
        What a catalogue or an API may take [s], and how much is fetched: see `eosr.open.find_items`. The files have
        ``gdal_env``.

    Returns
    -------
    Dataset
        uint16, 0 = nodata; dims ``(time, y10, x10)``, ``(time, y20, x20)``, ``(time, y60, x60)``; see `eosr.cube.grid`.
        Attributes: ``level``, ``platform``, ``processing_baseline``, ``radiometric_offset`` (lists, one per time, where
        they differ), ``offset_source``, ``offset_policy``, ``tile``, ``times``, ``item_ids`` and ``item_times`` (the
        time that each item went into); for products of eosr also those that say how they were made.

    Raises
    ------
    SourceError
        If nothing is found, or the items cannot be one Dataset. When computed: if a file cannot be read.
    BandError
        If an item lacks a band.
    GridError
        If the window lies outside the scene, or ``chunks`` is not a multiple of 6.
    RadiometryError
        If the offset cannot be told, or differs within one acquisition.

    Warns
    -----
    EosrWarning
        If items are left out because others show the same pixels, or the window is cut at the edge of the scene.

    Notes
    -----
    Items of one tile that one satellite took in one go (a datatake) become one time; those that do not name it, if
    they lie within half an hour. The first that measured a pixel gives it, in the order of `eosr.open.acquisitions`:
    highest processing baseline, pixels whose offset was not taken out, newest. Of several items of one product or
    datastrip one is kept; ``item_ids_dropped`` names the rest.
    """
    size = _check_chunks(1536 if chunks is None else chunks)
    check_proj()
    window = _check_bbox(bbox, bbox_crs)
    items = find_items(
        source, collection=collection, bbox=_search_box(window, bbox_crs), intersects=intersects,
        datetime=datetime, query=query, max_cloud_cover=max_cloud_cover, timeout=timeout,
        limits=limits,
    )  # fmt: skip
    prefer = alternate or (None if can_read_s3() else "https")
    items = _of_tile(items, tile)
    found = [read_item(item, bands=bands, offset=offset, prefer=prefer) for item in items]
    _check_one_grid(found)
    acquisitions = [pieces(together) for together in by_datatake(found)]
    ordered = [_signed(scene, sign) for one in acquisitions for scene in one]
    dropped = sorted({named(scene) for scene in found} - {named(scene) for scene in ordered})
    _check_same_bands(ordered)
    bounds = _window(ordered[0], window, bbox_crs)
    arrays = load(ordered, list(ordered[0].assets), bounds, size, gdal_env or {})
    gsd = {band: asset.gsd for band, asset in ordered[0].assets.items()}
    return from_arrays(
        {band: _mosaic(array, [len(one) for one in acquisitions]) for band, array in arrays.items()},
        transform=(10, 0, bounds[0], 0, -10, bounds[3]), crs=ordered[0].epsg, level=ordered[0].level, gsd=gsd,
        time=[_time(one) for one in acquisitions], **_attributes(acquisitions, dropped, offset),
    )  # fmt: skip


def by_tile(items: Sequence[Item]) -> dict[str, list[Item]]:
    """Items grouped by MGRS tile, for one `open_stac` per tile.

    Examples
    --------
    ``{tile: open_stac(some) for tile, some in by_tile(find_items(url, bbox=...)).items()}``
    """
    grouped: dict[str, list[Item]] = {}
    for item in items:
        grouped.setdefault(tile_of(item), []).append(item)
    return dict(sorted(grouped.items()))


def of_tile(items: Sequence[Item], tile: str) -> list[Item]:
    """Items of one MGRS tile, however it is written: ``"32TQM"``, ``"T32TQM"``, ``"5VNK"``.

    What cannot be read stays: who opens it says why.
    """
    wanted = str(tile).upper().removeprefix("T").zfill(5)

    def is_of_it(item: Item) -> bool:
        try:
            return tile_of(item) == wanted
        except SourceError:
            return True

    return [item for item in items if is_of_it(item)]


def _check_chunks(chunks: int) -> int:
    if isinstance(chunks, bool) or not isinstance(chunks, int | np.integer) or chunks < 6 or chunks % 6:
        near = max(6, round(chunks / 6) * 6) if isinstance(chunks, int | float) else 1536
        raise GridError(
            f"chunks={chunks!r} is not a multiple of 6 pixels of 10 m, so 20 m and 60 m chunks could not cover the "
            f"same ground. Use e.g. chunks={near}."
        )
    return int(chunks)


def _check_bbox(bbox: Sequence[float] | None, bbox_crs: str) -> BBox | None:
    if bbox is None:
        return None
    try:
        numbers = tuple(float(number) for number in bbox)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        raise GridError(f"bbox={bbox!r} is not four numbers: left, bottom, right, top.")
    left, bottom, right, top = numbers
    if bottom >= top or (left >= right and bbox_crs != LONLAT) or left == right:
        raise GridError(f"bbox={numbers} is empty or upside down; the order is left, bottom, right, top.")
    return left, bottom, right, top


def _search_box(window: BBox | None, bbox_crs: str) -> BBox | None:
    # None where it can be known only once the items are.
    if window is None or bbox_crs == "item":
        return None
    if bbox_crs == LONLAT:
        return window
    return _project(window, bbox_crs, LONLAT)


def _project(box: BBox, source: Any, target: Any) -> BBox:
    """Smallest box in ``target`` around 21 points per edge of a box in ``source``; NaN where that has no place."""
    try:
        transformer = Transformer.from_crs(CRS.from_user_input(source), CRS.from_user_input(target), always_xy=True)
    except CRSError as error:
        raise GridError(f"bbox_crs={source!r} is no CRS pyproj knows. Use 'EPSG:4326' or 'item'.") from error
    left, bottom, right, top = box
    share = np.linspace(0, 1, 21)
    across, up = left + share * (right - left), bottom + share * (top - bottom)
    x = np.concatenate([across, across, np.full(21, left), np.full(21, right)])
    y = np.concatenate([np.full(21, bottom), np.full(21, top), up, up])
    to_x, to_y = transformer.transform(x, y)
    if not (np.isfinite(to_x).all() and np.isfinite(to_y).all()):
        return math.nan, math.nan, math.nan, math.nan
    over = target == LONLAT and np.ptp(to_x) > 180  # on both sides of the antimeridian: west > east
    to_x = np.where(over & (to_x < 0), to_x + 360, to_x)
    return float(to_x.min()), float(to_y.min()), float(to_x.max()) - 360 * bool(over), float(to_y.max())


def _window(scene: Scene, window: BBox | None, bbox_crs: str) -> BBox:
    """Put the window on the scene's 60 m pixels, grown outward and cut at the scene's edges [unit of the CRS]."""
    if window is None:
        return scene.bounds
    box = window
    if bbox_crs != "item":
        if bbox_crs == LONLAT and box[0] > box[2]:
            box = (box[0], box[1], box[2] + 360, box[3])  # across the antimeridian
        box = _project(box, bbox_crs, f"EPSG:{scene.epsg}")
    left, bottom, right, top = scene.bounds
    outside = box[0] >= right or box[2] <= left or box[1] >= top or box[3] <= bottom
    if outside or any(map(math.isnan, box)):
        covered = ", ".join(f"{edge:.4f}" for edge in _project(scene.bounds, f"EPSG:{scene.epsg}", LONLAT))
        metres = ", ".join(f"{edge:.0f}" for edge in scene.bounds)
        raise GridError(
            f"bbox={window} ({bbox_crs}) lies outside the scene {scene.id}, which covers ({covered}) in longitude and "
            f"latitude, ({metres}) in EPSG:{scene.epsg}. Choose a bbox within, e.g. bbox=({metres}), bbox_crs='item'."
        )
    # By more than the pixel of 60 m that a window may grow by.
    edges = (
        ("left", box[0] < left - _STEP), ("bottom", box[1] < bottom - _STEP),
        ("right", box[2] > right + _STEP), ("top", box[3] > top + _STEP),
    )  # fmt: skip
    beyond = [name for name, is_beyond in edges if is_beyond]
    if beyond:
        warn(f"bbox={window} reaches beyond the {' and '.join(beyond)} edge of scene {scene.id}: it was cut there.")
    # A millionth of a metre of slack: a window that was on the grid must not grow by what a projection rounds.
    slack = 1e-6
    return (
        max(left, left + math.floor((box[0] - left) / _STEP + slack) * _STEP),
        max(bottom, top - math.ceil((top - box[1]) / _STEP - slack) * _STEP),
        min(right, left + math.ceil((box[2] - left) / _STEP - slack) * _STEP),
        min(top, top - math.floor((top - box[3]) / _STEP + slack) * _STEP),
    )


def _of_tile(items: list[Item], tile: str | None) -> list[Item]:
    if tile is None:
        return items
    kept = of_tile(items, tile)
    if not kept:
        raise SourceError(f"no item of tile {tile!r} among those found; there are {list(by_tile(items))}.")
    return kept


def _check_one_grid(scenes: Sequence[Scene]) -> None:
    levels = sorted({scene.level for scene in scenes})
    if len(levels) > 1:
        raise RadiometryError(
            f"the items mix {' and '.join(levels)}: reflectance at the top and at the bottom of the atmosphere. Choose "
            "one collection, e.g. collection='sentinel-2-l2a'."
        )
    tiles = sorted({scene.tile or scene.id for scene in scenes})
    codes = sorted({scene.epsg for scene in scenes})
    if len({scene.tile for scene in scenes}) > 1 or len(codes) > 1:
        raise SourceError(
            f"the items lie on {len(tiles)} tiles ({', '.join(tiles[:6])}) in EPSG {codes}; one Dataset holds one "
            f"tile. Choose one with tile={tiles[0]!r}, or open each: {{tile: eosr.open_stac(some) for tile, some in "
            "eosr.open.by_tile(eosr.open.find_items(source)).items()}."
        )
    extents = {scene.bounds: scene.id for scene in scenes}
    if len(extents) > 1:
        listed = "; ".join(f"{name}: {tuple(map(int, extent))}" for extent, name in list(extents.items())[:3])
        raise GridError(f"the items are of one tile but cover different ground ({listed}). Open them one by one.")


def _check_same_bands(scenes: Sequence[Scene]) -> None:
    first = {band: (asset.gsd, asset.dtype) for band, asset in scenes[0].assets.items()}
    for scene in scenes[1:]:
        if {band: (asset.gsd, asset.dtype) for band, asset in scene.assets.items()} != first:
            alike = [band for band, asset in scene.assets.items() if first.get(band) == (asset.gsd, asset.dtype)]
            raise SourceError(
                f"items {scenes[0].id} and {scene.id} differ in bands, pixel size or type. Open them one by one"
                + (f", or the bands in which they do not: bands={alike}." if alike else ".")
            )


def _signed(scene: Scene, sign: Callable[[str], str] | None) -> Scene:
    for asset in scene.assets.values():
        if not is_absolute_href(asset.href):
            raise SourceError(
                f"{asset.href!r} is relative, and item {scene.id} does not say where it lies. Open the item by its "
                "path or URL, or give it a 'self' link."
            )
    if sign is None:
        return scene
    signed = {band: sign(asset.href) for band, asset in scene.assets.items()}
    for href in signed.values():
        if not isinstance(href, str):
            raise SourceError(f"sign= returned {type(href).__name__}; it must take an href and return an href.")
    return replace(scene, assets={band: replace(asset, href=signed[band]) for band, asset in scene.assets.items()})


def _mosaic(array: da.Array, lengths: Sequence[int]) -> da.Array:
    """Scenes of one acquisition merged: the first that measured a pixel gives it; (scene, y, x) to (time, y, x)."""
    if max(lengths) == 1:
        return array
    merged, start = [], 0
    for length in lengths:
        image = array[start]
        for later in range(start + 1, start + length):
            measured = ~da.isnan(image) if array.dtype.kind == "f" else image != NODATA
            image = da.where(measured, image, array[later])
        merged.append(image)
        start += length
    return da.stack(merged)


def _attributes(acquisitions: Sequence[Sequence[Scene]], dropped: list[str], policy: str | int) -> dict[str, Any]:
    first = [one[0] for one in acquisitions]
    attributes = {
        "platform": _per_time([scene.platform for scene in first]),
        "processing_baseline": _per_time([scene.processing_baseline for scene in first]),
        "radiometric_offset": _per_time([scene.offset.value for scene in first]),
        "offset_source": _per_time([scene.offset.source for scene in first]),
        "offset_policy": str(policy),
        "tile": first[0].tile,
        "item_ids": [scene.id for one in acquisitions for scene in one],
        # So that a part of the series, e.g. .isel(time=0), still knows which value and which item is whose.
        "times": [_iso(one) for one in acquisitions],
        "item_times": [_iso(one) for one in acquisitions for _ in one],
    }
    return attributes | _shared_provenance(acquisitions) | ({"item_ids_dropped": dropped} if dropped else {})


def _time(acquisition: Sequence[Scene]) -> np.datetime64:
    return min(map(timestamp, acquisition))


def _iso(acquisition: Sequence[Scene]) -> str:
    return str(_time(acquisition).astype("datetime64[us]"))


def _shared_provenance(acquisitions: Sequence[Sequence[Scene]]) -> dict[str, Any]:
    """What eosr recorded when it made all of these items; what differs without changing a number is left out."""
    scenes = [scene for one in acquisitions for scene in one]
    shared: dict[str, Any] = {}
    for key in CARRIED:
        first, *others = [scene.provenance.get(key) for scene in scenes]
        other = next((scene for scene, value in zip(scenes[1:], others, strict=True) if value != first), None)
        if other is None:
            shared |= {} if first is None else {key: first}
        elif key in _MUST_AGREE:
            plain = "digital numbers" if key == "quantity" else None
            raise RadiometryError(
                f"item {scenes[0].id} has {key} {first or plain!r} and item {other.id} has "
                f"{other.provenance.get(key) or plain!r}, so they cannot be one Dataset. Open them one by one."
            )
    return shared


def _per_time(values: list[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else values
