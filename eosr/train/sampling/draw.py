"""The draw: tiles by climate and continent, sides by geography, months by season. Numbers in, numbers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from eosr.errors import SourceError
from eosr.train.sampling.places import GROUPS, Floats, LandTiles

#: Sun elevation at noon, in the middle of the month, below which a month is not drawn [deg].
LEAST_SUN: Final = 25.0
#: Least radius of curvature of the Earth [km]: distances on a sphere of it are never too large.
_RADIUS: Final = 6335.0
#: Draws that are begun anew before the distance is called too large.
_ATTEMPTS: Final = 10


def draw_tiles(land: LandTiles, count: int, distance: float, rng: np.random.Generator) -> list[int]:
    """Indices of ``count`` tiles, none within ``distance`` [km] of another.

    Every class gets one, the rarest first, where ``count`` allows; the rest follow the square root of the number of
    tiles of the classes. Within a class the continent is taken that has the fewest so far, for the square root of its
    number of tiles.

    Raises
    ------
    SourceError
        If there is no room for so many.
    """
    places = _unit_vectors(land.longitude, land.latitude)
    best: list[int] = []
    for _ in range(_ATTEMPTS):
        drawn = _draw_once(land, places, count, distance, rng)
        if len(drawn) == count:
            return [drawn[k] for k in rng.permutation(count)]
        best = max(best, drawn, key=len)
    lacking = sorted({*land.climate.tolist()} - {str(land.climate[one]) for one in best})
    raise SourceError(
        f"only {len(best)} of {count} tiles find a place {distance:.0f} km apart"
        + (f", none of them in climate {', '.join(lacking[:3])}" if lacking and count >= len(GROUPS) else "")
        + f". Ask for fewer, or allow them closer: distance={distance / 2:.0f}."
    )


def _draw_once(land: LandTiles, places: Floats, count: int, distance: float, rng: np.random.Generator) -> list[int]:
    """Draw until ``count`` are there or nothing is left; nothing more if a class finds no place for its first tile."""
    areas = Counter(land.climate.tolist())
    reach = {str(name): float(np.sqrt(number)) for name, number in Counter(land.continent.tolist()).items()}
    wanted = shared_out(areas, count)
    rare_first = sorted(wanted, key=lambda climate: (areas[climate], climate))
    free = np.ones(len(land.name), bool)
    used: Counter[str] = Counter()
    drawn: list[int] = []

    def take(climate: str) -> bool:
        """Take one of the class, if any is left."""
        left = np.flatnonzero(free & (land.climate == climate))
        if not left.size:
            return False
        continents = sorted({str(one) for one in land.continent[left]})
        scarce = min(continents, key=lambda name: (used[name] + 1) / reach[name])
        one = int(rng.choice(left[land.continent[left] == scarce]))
        used[scarce] += 1
        drawn.append(one)
        np.logical_and(free, _apart(places, places[one]) >= distance, out=free)
        return True

    if not all(take(climate) for climate in rare_first):
        return drawn
    for climate in rare_first:
        for _ in range(wanted[climate] - 1):
            take(climate)
    # What classes without room could not give, the others do, the large ones first.
    while len(drawn) < count and any(take(climate) for climate in reversed(rare_first)):
        pass
    return drawn


def shared_out(areas: Counter[str], count: int) -> dict[str, int]:
    """Tiles per class: one each, the largest first where there are fewer tiles than classes; then by square root."""
    ranked = [climate for climate, _ in areas.most_common(count)]
    shares = dict.fromkeys(ranked, 1)
    roots = {climate: float(np.sqrt(areas[climate])) for climate in ranked}
    for _ in range(count - len(ranked)):
        shares[max(ranked, key=lambda climate: roots[climate] / shares[climate])] += 1
    return shares


def keep_out(land: LandTiles, drawn: Sequence[int], wanted: int, distance: float) -> set[int]:
    """Of the drawn tiles those kept out, none within ``distance`` [km] of one that is not.

    The five groups of climates take turns. In each, a tile goes whose class stays among the others, from the continent
    that has given the smallest share of its tiles.

    Raises
    ------
    SourceError
        If too many lie together for that.
    """
    clusters = _clusters(land, drawn, distance)
    total = Counter(str(land.continent[one]) for one in drawn)
    climates = Counter(str(land.climate[one]) for one in drawn)
    kept: set[int] = set()
    given: Counter[str] = Counter()

    def rank(one: int) -> tuple[bool, float, int]:
        continent = str(land.continent[one])
        return climates[str(land.climate[one])] == 1, (given[continent] + 1) / total[continent], drawn.index(one)

    going = True
    while going and len(kept) < wanted:
        going = False
        for group in GROUPS:
            fitting = [
                one for one in drawn if one not in kept and str(land.climate[one])[0] == group
                and len(kept | clusters[one]) <= wanted
            ]  # fmt: skip
            if fitting:
                going = True
                moved = clusters[min(fitting, key=rank)] - kept
                kept |= moved
                given.update(str(land.continent[one]) for one in moved)
                climates.subtract(str(land.climate[one]) for one in moved)
    if len(kept) < wanted:
        raise SourceError(
            f"{wanted} tiles cannot be kept out at {distance:.0f} km from the others: too many lie together. Give a "
            "smaller split_distance, or keep fewer out."
        )
    return kept


def _clusters(land: LandTiles, drawn: Sequence[int], distance: float) -> dict[int, set[int]]:
    """For each tile all that must be on its side: those near it, and those near these."""
    places = _unit_vectors(land.longitude[list(drawn)], land.latitude[list(drawn)])
    found: dict[int, set[int]] = {}
    for start in range(len(drawn)):
        if drawn[start] in found:
            continue
        inside, front = {start}, {start}
        while front:
            near = {int(k) for one in front for k in np.flatnonzero(_apart(places, places[one]) < distance)}
            front = near - inside
            inside |= front
        cluster = {drawn[k] for k in inside}
        found |= dict.fromkeys(cluster, cluster)
    return found


def draw_months(latitudes: Floats, rng: np.random.Generator) -> list[int]:
    """Month per tile, 1 to 12: in each hemisphere all equally often, as far as the sun stands high enough at noon."""
    open_months = [
        [month for month in range(1, 13) if noon_sun(float(latitude), month) >= LEAST_SUN] for latitude in latitudes
    ]
    used: dict[bool, Counter[int]] = {True: Counter(), False: Counter()}
    found = [0] * len(latitudes)
    # Those with little choice first: the others make up for them.
    for one in sorted(range(len(latitudes)), key=lambda k: (len(open_months[k]), k)):
        counts = used[bool(latitudes[one] >= 0)]
        least = min(counts[month] for month in open_months[one])
        found[one] = int(rng.choice([month for month in open_months[one] if counts[month] == least]))
        counts[found[one]] += 1
    return found


def noon_sun(latitude: float, month: int) -> float:
    """Height of the sun at noon in the middle of a month [deg], to a degree (Cooper 1969)."""
    day = 30.4 * (month - 0.5)
    declination = 23.45 * np.sin(np.radians(360 / 365 * (284 + day)))
    return float(90 - abs(latitude - declination))


def _unit_vectors(longitude: Floats, latitude: Floats) -> Floats:
    x, y = np.radians(longitude), np.radians(latitude)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def _apart(places: Floats, place: Floats) -> npt.NDArray[np.float64]:
    """Distances of places from one [km], at most 1 % too small and never too large."""
    return np.arccos(np.clip(places @ place, -1, 1)) * _RADIUS
