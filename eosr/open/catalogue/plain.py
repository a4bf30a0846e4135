"""An item as it came -> one of plain types, whose parts are of the kinds that STAC gives them; and its time.

Items come from JSON, from tables (geoparquet: numpy arrays, missing values that are NaN) and from other programs.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from eosr.errors import SourceError

#: Field of an asset -> what it holds, where it is not null. Of properties, what is a mapping; others are one value.
_OF_ASSETS: Final[dict[str, type]] = {"href": str, "alternate": dict, "roles": list}
_OF_PROPERTIES: Final[dict[str, type]] = {"processing:software": dict, "eosr:provenance": dict}
#: Properties that are one text, number or flag.
_SINGLE: Final = (
    "datetime", "start_datetime", "platform", "proj:code", "proj:epsg", "s2:product_type", "product:type",
    "processing:level", "s2:processing_baseline", "sentinel:processing_baseline", "processing:version",
)  # fmt: skip
_KIND: Final[dict[type, str]] = {str: "text", dict: "an object", list: "a list"}


def plain(value: Any) -> Any:
    """Copy of what JSON would hold of a value: numpy's types become Python's, NaN null, a time its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, dt.date):
        return None if value != value else value.isoformat()  # pandas' NaT is one
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def checked(item: Any) -> dict[str, Any]:
    """`plain` item whose parts are of the kinds that STAC gives them; assets that are null are left out.

    Raises
    ------
    SourceError
        If a part that eosr reads is missing, or of another kind; the message names the item.
    """
    found: Any = plain(item)
    if not isinstance(found, dict) or found.get("type") != "Feature":
        kind = found.get("type", "no type") if isinstance(found, dict) else type(item).__name__
        raise SourceError(f"a STAC item is a Feature, this is {kind!r}. Give an item, a catalogue or an API's URL.")
    for key in ("id", "properties", "assets"):
        if not found.get(key):
            raise SourceError(
                f"item {found.get('id', 'without id')} has no {key}, so it is a fragment of an item. Fetch the whole "
                "item from its catalogue, e.g. with pystac.Item.from_file(url)."
            )
    where = f"item {found['id']!s:.300}"
    if isinstance(found["id"], dict | list):
        raise SourceError(f"{where} has an id that is neither text nor a number. Correct the item.")
    _check_kinds(found, {"properties": dict, "assets": dict}, where)
    _check_kinds(found["properties"], _OF_PROPERTIES, where)
    for key in _SINGLE:
        if isinstance(found["properties"].get(key), dict | list):
            raise SourceError(
                f"{where} has {key} {found['properties'][key]!r:.100}, where STAC has one value. Correct the item."
            )
    found["assets"] = {key: asset for key, asset in found["assets"].items() if asset is not None}
    _check_kinds(found["assets"], dict.fromkeys(found["assets"], dict), f"{where} among its assets")
    for key, asset in found["assets"].items():
        _check_kinds(asset, _OF_ASSETS, f"asset {key!r} of {where}")
        asset["roles"] = [str(role) for role in asset.get("roles") or ()]
        alternates = asset.get("alternate") or {}
        asset["alternate"] = {
            name: one for name, one in alternates.items() if isinstance(one, dict) and one.get("href")
        }
        # Before STAC 0.8 bands were numbered: that says nothing about which one it is.
        for listed in ("bands", "eo:bands", "raster:bands"):
            bands = asset.get(listed)
            asset[listed] = [one if isinstance(one, dict) else {} for one in (bands if isinstance(bands, list) else ())]
    return found


def _check_kinds(part: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    for key, kind in kinds.items():
        value = part.get(key)
        if value is not None and not isinstance(value, kind):
            raise SourceError(f"{where} has {key} {value!r:.100}, where STAC has {_KIND[kind]}. Correct the item.")
