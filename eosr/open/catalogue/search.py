"""Any kind of STAC source -> plain items: an API, a static catalogue, a file, pystac objects, dicts.

Items stay as they were published. pystac would migrate them (``proj:epsg`` becomes ``proj:code``, and so on), and
`eosr.open.items` reads every dialect anyway.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pystac
from pystac_client import Client, ConformanceClasses
from pystac_client.exceptions import APIError

from eosr.cube.times import moment
from eosr.errors import SourceError, first_line, warn
from eosr.open.catalogue.conditions import OPERATORS, box_of, conditions_of
from eosr.open.catalogue.conditions import BBox as BBox
from eosr.open.catalogue.plain import plain
from eosr.open.catalogue.web import (
    TIMEOUT,
    Limits,
    Web,
    check_depth,
    is_remote,
    links_of,
    on_disk,
    read_document,
    resolve,
    said,
)
from eosr.open.entry import entry
from eosr.open.items import REFUSED

Item = dict[str, Any]


def find_items(
    source: Any,
    *,
    collection: str | Sequence[str] | None = None,
    bbox: BBox | None = None,
    intersects: Any = None,
    datetime: Any = None,
    query: Any = None,
    max_cloud_cover: float | str | None = None,
    timeout: float = TIMEOUT,
    limits: Limits | None = None,
) -> list[Item]:
    """Items of a source that match, as plain dicts with absolute hrefs, in the order of the source.

    Parameters
    ----------
    source : str, Path, pystac object, dict, or a sequence of them
        URL of a STAC API or of a static catalogue; path or URL of an item, an ItemCollection, a list of items (also
        a line each), a collection or a catalogue; pystac Item, ItemCollection or Catalog; item dicts.
    collection : str or sequence of str, optional
        Only items of these collections.
    bbox : tuple of float, optional
        West, south, east, north [degree]. Items handed over directly are not filtered by it.
    intersects : GeoJSON geometry, optional
        Compared by an API exactly, otherwise by bounding boxes.
    datetime : str, datetime or pair, optional
        As in pystac-client: ``"2023-06"``, ``"2023-06-01/2023-06-30"``, ``"2023-06-01/.."``.
    query : dict or sequence of str, optional
        STAC API query extension, e.g. ``{"s2:mgrs_tile": {"eq": "32TQM"}}`` or ``["eo:cloud_cover<10"]``.
    max_cloud_cover : float, optional
        Percent (a number, or text of one); items that do not state their cloud cover are left out.
    timeout : float
        What a catalogue or an API may take before the first byte of an answer, and between two [s]; three times that
        for all of it. pystac objects are read by pystac, with its own.
    limits : Limits, optional
        What the search may fetch before it is given up: see `eosr.open.Limits`.

    Raises
    ------
    SourceError
        If the source cannot be read, is no STAC, never ends, leads from the network to this disk, or nothing matches
        (with what was searched).

    Notes
    -----
    Every condition is checked here again after a server has answered, because servers without the query extension
    return everything or nothing. Where a server does not announce the extension, it is not asked.
    """
    conditions = conditions_of(
        collection=collection, bbox=bbox, intersects=intersects, datetime=datetime, query=query,
        max_cloud_cover=max_cloud_cover,
    )  # fmt: skip
    direct, found = _items_of(source, conditions, Web(timeout, limits))
    if direct:
        conditions.pop("bbox", None)
    matching, unreadable = [], []
    for item in found:
        try:
            if _matches(item, conditions):
                matching.append(item)
        except SourceError as error:  # one odd item must not stand in the way of the others
            unreadable.append(error)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            unreadable.append(
                SourceError(f"item {item.get('id')} cannot be searched: its bbox or properties are odd ({error}).")
            )
    if not matching:
        if unreadable:
            raise unreadable[0]
        asked = ", ".join(f"{key}={value!r}" for key, value in conditions.items()) or "no condition"
        remedy = "Widen the search, e.g. a longer datetime or a larger max_cloud_cover."
        if max_cloud_cover is not None and found and not any(map(_states_clouds, found)):
            remedy = "None of them states eo:cloud_cover: leave max_cloud_cover away."
        raise SourceError(
            f"no item found in {_name(source)} with {asked} ({len(found)} seen before filtering). {remedy}"
        )
    if unreadable:
        warn(f"{len(unreadable)} of {len(found)} items were left out, because they cannot be searched: {unreadable[0]}")
    return matching


def _states_clouds(item: Mapping[str, Any]) -> bool:
    return (item.get("properties") or {}).get("eo:cloud_cover") is not None


def _name(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__} given"


def _items_of(source: Any, conditions: Mapping[str, Any], web: Web) -> tuple[bool, list[Item]]:
    """Items, and whether they were handed over directly (rather than found in a catalogue)."""
    if isinstance(source, str | Path):
        href = on_disk(str(source))
        if not is_remote(href) and not href.startswith("/vsi"):
            href = str(Path(href).absolute())
        href = entry(href)
        return _items_in(read_document(href, web), href, conditions, web)
    if isinstance(source, pystac.Catalog):
        return False, _of_catalogue(source, web)
    if isinstance(source, Mapping):
        check_depth(source, "")
        return _items_in(source, "", conditions, web)
    if isinstance(source, pystac.Item):
        return True, [_plain(source)]
    try:
        members = list(source)
    except TypeError:
        raise SourceError(
            f"a {type(source).__name__} is no STAC source. Give a URL, a path, or pystac items: eosr.open_stac(items)."
        ) from None
    return True, [item for member in members for item in _items_of(member, conditions, web)[1]]


def _of_catalogue(catalogue: pystac.Catalog, web: Web) -> list[Item]:
    """Items of a catalogue that pystac reads."""
    where, items = catalogue.get_self_href() or f"catalogue {catalogue.id}", []
    try:
        for item in catalogue.get_items(recursive=True):
            web.found(1, where)
            items.append(_plain(item, where))
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - pystac and what reads for it raise whatever they like
        raise SourceError(
            f"pystac cannot read the items of {where}: {first_line(error)}. Give its address instead, or the items."
        ) from None
    return items


def _plain(item: pystac.Item, origin: str = "") -> Item:
    found = item.to_dict(include_self_link=True, transform_hrefs=False)
    return _absolute(found, item.get_self_href() or "", origin)


def _items_in(document: Any, href: str, conditions: Mapping[str, Any], web: Web) -> tuple[bool, list[Item]]:
    if isinstance(document, list):
        return True, [item for part in document for item in _items_in(part, href, conditions, web)[1]]
    kind = plain(document.get("type")) if isinstance(document, Mapping) else None
    if kind == "Feature":
        web.found(1, href)
        return True, [_absolute(document, href or _self_href(document), href)]
    if kind == "FeatureCollection":
        features = document.get("features", [])
        if not isinstance(features, list | tuple):
            raise SourceError(
                f"{href or 'the dict given'} is an item collection whose features are {features!r:.40}, not a list. "
                "Correct it, or give the items themselves."
            )
        web.found(len(features), href or "the dict given")
        return True, [_absolute(item, href or _self_href(item), href) for item in features]
    if kind in ("Catalog", "Collection"):
        if document.get("conformsTo"):
            return False, _search(href or _self_href(document), conditions, web)
        return False, list(_walk(document, href or _self_href(document), conditions, set(), web))
    raise SourceError(
        f"{href or 'the dict given'} is no STAC: it holds {kind or type(document).__name__!r}. Give an item, an item "
        "collection, a catalogue or the URL of a STAC API."
    )


def _self_href(document: Mapping[str, Any]) -> str:
    return next((str(link.get("href") or "") for link in links_of(document) if link.get("rel") == "self"), "")


def _absolute(item: Any, base: str, origin: str = "") -> Item:
    """Copy an item so that its asset hrefs do not depend on where it was read from.

    Where that is the network (``origin``), hrefs that lead elsewhere are taken out, with what they were beside them.
    """
    if not isinstance(item, Mapping):
        raise SourceError(
            f"{origin or base or 'the source given'} holds {type(item).__name__} {item!r} where an item should be. "
            "Correct it, or give the items themselves."
        )
    found: Item = plain(item)
    if is_remote(origin):
        base = resolve(base, origin)
    assets = found.get("assets")
    for asset in assets.values() if isinstance(assets, Mapping) else ():
        alternates = asset.get("alternate") if isinstance(asset, Mapping) else None
        for place in (asset, *(alternates.values() if isinstance(alternates, Mapping) else ())):
            if not isinstance(place, dict) or not place.get("href"):
                continue
            try:
                place["href"] = resolve(str(place["href"]), base)
            except SourceError as error:
                del place["href"]
                place[REFUSED] = str(error)
    return found


def _search(href: str, conditions: Mapping[str, Any], web: Web) -> list[Item]:
    try:
        # timeout= once more: without it the client takes that of ``web`` away.
        client = Client.open(href, stac_io=web, timeout=web.timeout)
        asked = dict(conditions)
        if not client.conforms_to(ConformanceClasses.QUERY):
            asked.pop("query", None)
        items = []
        for item in client.search(**asked).items_as_dicts():
            web.found(1, href)
            items.append(_absolute(item, _self_href(item) or href, href))
        return items
    except SourceError:
        raise
    except (APIError, NotImplementedError, OSError) as error:
        raise SourceError(
            f"the STAC API at {href} does not answer the search: {said(error, web)}. Try again, narrow it, or wait "
            "longer: timeout=."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, pystac.STACError) as error:
        raise SourceError(
            f"the STAC API at {href} answers the search with something that is no STAC ({error!r}). Check the address; "
            "a proxy or a login page may have answered."
        ) from error


def _of_an_api(document: Mapping[str, Any], href: str, conditions: Mapping[str, Any], web: Web) -> list[Item]:
    """Items of a collection that an API has described: the API is searched for them."""
    ident = document.get("id")
    root = next((str(link.get("href")) for link in links_of(document) if link.get("rel") == "root"), "")
    root = resolve(root, href, document=True) if href else root
    if not is_remote(root):
        raise SourceError(
            f"collection {ident!r} does not hold its items: a STAC API serves them, and there is no link to it. Open "
            f"the API itself: eosr.open_stac('https://...', collection={ident!r})."
        )
    if not {*conditions} - {"collections"}:
        # The description of a whole archive is no wish to fetch all of it.
        raise SourceError(
            f"collection {ident!r} is served by the API {root}, and no window or time is given. Say which items: "
            f"eosr.open_stac({root!r}, collection={ident!r}, bbox=..., datetime=...)."
        )
    return _search(root, {**conditions, "collections": [ident]}, web)


def _walk(
    document: Mapping[str, Any], href: str, conditions: Mapping[str, Any], seen: set[str], web: Web, depth: int = 1
) -> Iterator[Item]:
    """Items of a static catalogue, depth first; collections that were not asked for are not entered."""
    wanted = conditions.get("collections")
    if document.get("type") == "Collection" and wanted and document.get("id") not in wanted:
        return
    web.limits.check("depth", depth, f"{href} lies more than {web.limits.depth} catalogues deep")
    links = links_of(document)
    relations = {str(link.get("rel")) for link in links}
    if document.get("type") == "Collection" and "items" in relations and not relations & {"item", "child"}:
        yield from _of_an_api(document, href, conditions, web)
        return
    for link in links:
        if link.get("rel") not in ("item", "child") or not link.get("href"):
            continue
        target = resolve(str(link["href"]), href, document=True)
        if target in seen:
            continue
        seen.add(target)
        child = read_document(target, web)
        if isinstance(child, Mapping) and child.get("type") in ("Catalog", "Collection"):
            yield from _walk(child, target, conditions, seen, web, depth + 1)
        else:
            yield from _items_in(child, target, conditions, web)[1]


def _matches(item: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    collections = conditions.get("collections")
    if collections and item.get("collection") not in collections:
        return False
    if "datetime" in conditions and not _in_period(item, str(conditions["datetime"])):
        return False
    for box in (conditions.get("bbox"), box_of(conditions.get("intersects"))):
        if box and item.get("bbox") and not _overlap(box, item["bbox"]):
            return False
    return all(
        _holds(item, name, operator, operand)
        for name, tests in conditions.get("query", {}).items()
        for operator, operand in tests.items()
    )


def _in_period(item: Mapping[str, Any], period: str) -> bool:
    properties = item.get("properties") or {}
    begin, _, end = period.partition("/")
    stated = str(properties.get("datetime") or properties.get("start_datetime") or "")
    try:
        taken = _moment(stated)
    except ValueError as error:
        raise SourceError(
            f"item {item.get('id')} has datetime {stated!r}, which is not ISO 8601, so it cannot be searched by time. "
            "Correct the item."
        ) from error
    if taken is None:
        return False
    first, last = _moment(begin), _moment(end or begin)
    return (first is None or first <= taken) and (last is None or taken <= last.replace(microsecond=999999))


def _moment(text: str) -> dt.datetime | None:
    return None if text in ("", "..") else moment(text)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes [degree] touch; a box whose west is greater than its east crosses the antimeridian."""
    (west, south, *_), (east, north) = one, (one[len(one) // 2], one[len(one) // 2 + 1])
    (left, low, *_), (right, high) = other, (other[len(other) // 2], other[len(other) // 2 + 1])
    if max(south, low) > min(north, high):
        return False
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    widths = [(left, right)] if left <= right else [(left, 180.0), (-180.0, right)]
    return any(max(a, c) <= min(b, d) for a, b in spans for c, d in widths)


def _holds(item: Mapping[str, Any], name: str, operator: str, operand: Any) -> bool:
    value = (item.get("properties") or {}).get(name)
    if value is None:
        return False
    try:
        if isinstance(value, int | float) and isinstance(operand, str):
            operand = float(operand)  # "eo:cloud_cover<10" arrives as the text "10"
        return bool(OPERATORS[operator](value, operand))
    except (TypeError, ValueError) as error:
        raise SourceError(
            f"query {name!r} {operator} {operand!r} cannot be compared with {value!r}, which item {item.get('id')} has "
            "there. Give a value of the same kind."
        ) from error
