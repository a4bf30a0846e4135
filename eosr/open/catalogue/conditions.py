"""What a user searches for -> conditions of a STAC search, each understood or refused with what to write instead."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pystac_client import ItemSearch

from eosr.errors import SourceError

BBox = tuple[float, float, float, float]

#: The operators of the STAC API query extension that are understood without a server.
OPERATORS: Final = {
    "eq": lambda value, other: value == other,
    "neq": lambda value, other: value != other,
    "lt": lambda value, other: value < other,
    "lte": lambda value, other: value <= other,
    "gt": lambda value, other: value > other,
    "gte": lambda value, other: value >= other,
    "in": lambda value, other: value in other,
    "startsWith": lambda value, other: str(value).startswith(other),
    "endsWith": lambda value, other: str(value).endswith(other),
    "contains": lambda value, other: other in value,
}
_TEXT: Final = re.compile(r"\s*([^<>=!\s]+)\s*(<=|>=|<>|=|<|>)\s*([^<>=\s].*?)\s*")
_GEOMETRIES: Final = ("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon")
_EXAMPLES: Final = {
    "collections": "collection='sentinel-2-c1-l2a'",
    "datetime": "datetime='2023-06-01/2023-06-30'",
    "intersects": "intersects={'type': 'Point', 'coordinates': [11.3, 46.5]}",
    "query": "query=['eo:cloud_cover<10']",
}


def conditions_of(
    *, collection: Any, bbox: Any, intersects: Any, datetime: Any, query: Any, max_cloud_cover: Any
) -> dict[str, Any]:
    """Parameters of a STAC search; see `eosr.open.find_items`.

    Raises
    ------
    SourceError
        If a condition has no meaning; the message holds one that has.
    """
    given = {"collections": collection, "datetime": datetime, "intersects": intersects, "query": _query(query)}
    asked: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        try:
            # pystac-client is asked to read what a user may write; no request is sent.
            asked |= ItemSearch("unused", **{key: value}).get_parameters()
        except Exception as error:  # pystac-client raises bare Exceptions for text it cannot parse
            raise SourceError(
                f"the search cannot be understood: {key}={value!r} ({error}). Use e.g. {_EXAMPLES[key]}."
            ) from error
    if "intersects" in asked:
        _check_geometry(asked["intersects"])
    if bbox is not None:
        if intersects is not None:
            raise SourceError("bbox and intersects are both given, and a search takes one of them. Leave one away.")
        asked["bbox"] = _bbox(bbox)
    if max_cloud_cover is not None:
        limit = _percent(max_cloud_cover)
        asked["query"] = {**asked.get("query", {})}
        asked["query"]["eo:cloud_cover"] = {**asked["query"].get("eo:cloud_cover", {}), "lte": limit}
    return asked


def _percent(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 100:
        raise SourceError(f"max_cloud_cover={value!r} is no percentage. Use 0 to 100, e.g. 20.")
    return value if isinstance(value, int) else number


def _bbox(bbox: Any) -> tuple[float, ...]:
    parts = bbox.split(",") if isinstance(bbox, str) else bbox
    try:
        box = tuple(float(number) for number in parts)
    except (TypeError, ValueError):
        box = ()
    if len(box) not in (4, 6):
        raise SourceError(
            f"bbox={bbox!r} is not four numbers: west, south, east, north [degree]. Use e.g. bbox=(11.2, 46.4, 11.4, "
            "46.5)."
        )
    east_north = box[len(box) // 2 :]
    if max(abs(box[1]), abs(east_north[1])) > 90 or max(abs(box[0]), abs(east_north[0])) > 360:
        raise SourceError(
            f"bbox={box} is outside of all longitudes and latitudes [degree]. If it is in metres of the scene's UTM "
            "zone, say so: --bbox-crs item (bbox_crs='item'), or give its CRS, e.g. --bbox-crs EPSG:32632."
        )
    half = len(box) // 2
    west, east = _wrapped(box[0], box[half])
    return (west, *box[1:half], east, *box[half + 1 :])


def _wrapped(west: float, east: float) -> tuple[float, float]:
    """Longitudes of catalogues: -180 to 180, and west > east across the antimeridian, also where 170 to 190 is said."""
    if east - west >= 360:
        return -180.0, 180.0
    return west + 360 * ((west < -180) - (west >= 180)), east + 360 * ((east <= -180) - (east > 180))


def _query(query: Any) -> Any:
    """Query texts checked and trimmed; a dict checked; one text alone is a list of one."""
    if query is None:
        return None
    if isinstance(query, str):
        query = [query]
    if isinstance(query, Mapping):
        for name, tests in query.items():
            _check_tests(name, tests)
        return dict(query)
    if not isinstance(query, Sequence) or not all(isinstance(text, str) for text in query):
        raise SourceError(f"query={query!r} is neither a dict nor texts. Use e.g. {_EXAMPLES['query']}.")
    trimmed = []
    for text in query:
        parts = _TEXT.fullmatch(text)
        if not parts:
            raise SourceError(
                f"query {text!r} is not NAME, one of < <= > >= = <>, VALUE. Use e.g. 'eo:cloud_cover<10' or "
                "'s2:mgrs_tile=32TQM'."
            )
        trimmed.append("".join(parts.groups()))
    return trimmed


def _check_tests(name: Any, tests: Any) -> None:
    if not isinstance(tests, Mapping):
        raise SourceError(
            f"query={{{name!r}: {tests!r}}} does not say how to compare. Use e.g. "
            f"query={{{name!r}: {{'eq': {tests!r}}}}}."
        )
    for operator, operand in tests.items():
        if operator not in OPERATORS:
            raise SourceError(f"query operator {operator!r} is unknown. Use one of {', '.join(OPERATORS)}.")
        if operator == "in":
            fits, wanted = isinstance(operand, list | tuple | set), "a list"
        elif operator in ("startsWith", "endsWith"):
            fits, wanted = isinstance(operand, str), "a text"
        else:
            fits, wanted = isinstance(operand, str | int | float), "a number or a text"
        if not fits:
            raise SourceError(
                f"query operator {operator!r} of {name!r} takes {wanted}, not {operand!r}. Correct that value."
            )


def _check_geometry(geometry: Any) -> None:
    kind = geometry.get("type") if isinstance(geometry, Mapping) else type(geometry).__name__
    if kind not in _GEOMETRIES:
        raise SourceError(
            f"intersects is a {kind!r}, which cannot be searched with. Use one of {', '.join(_GEOMETRIES)}, e.g. "
            f"{_EXAMPLES['intersects']}."
        )
    try:
        box_of(geometry)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SourceError(f"intersects is a {kind} without coordinates. Use e.g. {_EXAMPLES['intersects']}.") from error


def box_of(geometry: Any) -> BBox | None:
    """West, south, east, north of a GeoJSON geometry; None without one."""
    if not geometry:
        return None
    numbers: list[Sequence[float]] = []

    def collect(part: Any) -> None:
        if part and isinstance(part[0], int | float):
            numbers.append(part)
        else:
            for inner in part:
                collect(inner)

    collect(geometry["coordinates"])
    lon, lat = [point[0] for point in numbers], [point[1] for point in numbers]
    west, east = min(lon), max(lon)
    # Cut at the antimeridian, as GeoJSON asks for: parts that end there, and parts that begin there.
    if (west, east) == (-180, 180) and geometry["type"] == "MultiPolygon":
        edges = [[point[0] for point in part[0]] for part in geometry["coordinates"]]
        if all(max(edge) <= 0 or min(edge) >= 0 for edge in edges):
            west, east = min(one for one in lon if one > 0), max(one for one in lon if one < 0)
    return west, min(lat), east, max(lat)
