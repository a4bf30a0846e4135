"""One STAC item -> the facts eosr needs: level, satellite, baseline, offset, CRS, and one native file per band.

Pure: a dict goes in, nothing is read. The dialects that are understood, with the collections they were learnt from:

- asset keys ``red`` (Earth Search v1, stactools), ``B04`` (Planetary Computer, Earth Search v0), ``B04_10m`` (CDSE);
- ``proj:epsg`` and ``proj:code``, on the item or on the asset;
- offsets in ``raster:bands`` (raster v1), ``raster:offset`` on the asset (v2) or in its ``bands`` (STAC 1.1);
- ``earthsearch:boa_offset_applied``, ``sentinel:boa_offset_applied``; ``s2:processing_baseline``,
  ``sentinel:processing_baseline``, ``processing:version``, or the ``N0511`` in the name of the product;
- ``alternate`` hrefs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from eosr.cube.band_names import band_named
from eosr.cube.bands import BANDS, QUANTIFICATION, TILE_SIDE, bands_of, check_bands
from eosr.cube.offset import applied_flag, offset_of, whole_offset
from eosr.cube.times import moment
from eosr.errors import BandError, GridError, RadiometryError, SourceError
from eosr.open.catalogue.plain import checked
from eosr.open.scene import Asset, Scene

_LEVELS: Final = {"S2MSI1C": "L1C", "S2MSI2A": "L2A"}
#: MMM_MSIXXX_start_Nxxyy_ROOO_Txxxxx_discriminator, the compact naming of December 2016; E. Search v0 drops ".SAFE".
_PRODUCT: Final = re.compile(r"^S2[A-D]_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{2})(\d{2})_R\d{3}_T(\d{2}[A-Z]{3})_\w+")
#: Attributes that a product of eosr gets back from its item when it is opened.
CARRIED: Final = (
    "quantity", "sharpened_by", "sharpening_methods", "weights_sha256", "consistency", "degradation",
    "degradation_factor",
)  # fmt: skip
#: Longest side of an image [m]: ten tiles, for products of eosr that were made of several.
LARGEST: Final = 10 * TILE_SIDE
#: Key of an asset whose href was taken out, because it leads from the network to elsewhere; its value says so.
REFUSED: Final = "eosr:refused"
_TILE: Final = re.compile(r"(?:^|_|-)T?(\d{1,2}[C-X][A-Z]{2})(?:_|$)")


def read_item(
    item: Mapping[str, Any],
    *,
    bands: Sequence[str] | None = None,
    offset: str | int = "auto",
    prefer: str | None = None,
) -> Scene:
    """Facts of one STAC item.

    Parameters
    ----------
    item : dict
        STAC item, version 1.0.0-beta or later, not migrated.
    bands : sequence of str, optional
        Bands that must be there. Default: every band of the processing level (for items made by eosr: what they have).
    offset : "auto", "none" or int
        See `eosr.cube.offset.offset_of`.
    prefer : str, optional
        Name of the alternate href to use where an asset offers it (``"https"``, ``"s3"``). Default: the asset's own.

    Returns
    -------
    Scene
        With the assets of ``bands`` in the order asked for.

    Raises
    ------
    SourceError
        If this is no item, or it lacks the level, the time, the CRS or the grid.
    BandError
        If a band has no file on its native grid; the message lists the keys there are.
    GridError
        If the files' grids do not nest.
    RadiometryError
        If the offset cannot be told.
    """
    item = checked(item)
    properties, name = item["properties"], str(item["id"])
    product = _product(item, properties)
    level = _level(item, properties, product)
    ours = _made_by_eosr(properties)
    sharpened = ours and properties.get("eosr:sharpened") is True
    epsg, found = _assets(item, properties, sharpened=sharpened, prefer=prefer)
    # "none" reads numbers that are no digital numbers, e.g. a classification in the place of a band.
    types = {"uint16"} | ({"float32"} if ours else set()) | ({"uint8"} if offset == "none" else set())
    wanted = _wanted(name, level, bands, found, types, ours=ours)
    baseline = _baseline(properties, product)
    provenance = dict(properties.get("eosr:provenance") or {}) if ours else {}
    if ours and offset == "auto":
        # What eosr recorded when it made the product overrules every rule: the user may have forced it then.
        recorded = provenance.get("radiometric_offset")
        offset = offset if recorded is None else whole_offset(recorded, "eosr:provenance of radiometric_offset")
    auto = offset == "auto"
    declared = _declared_offset(item, found, name) if auto else None
    applied = applied_flag(properties) if auto else None
    return Scene(
        id=name,
        collection=str(item.get("collection") or ""),
        level=level,
        platform=str(properties.get("platform") or "").lower(),
        datetime=_datetime(properties, name),
        tile=tile_of(item),
        product=product,
        datatake=_datatake(properties, product),
        datastrip=_datastrip(properties),
        processing_baseline=baseline,
        offset=offset_of(baseline, declared=declared, applied=applied, policy=offset, where=f"item {name}"),
        epsg=epsg,
        bounds=_common_bounds(name, found),
        sharpened=sharpened,
        created=str(properties.get("processing:datetime") or properties.get("created") or ""),
        assets={band: found[band] for band in wanted},
        provenance=provenance,
    )


def _product(item: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    names = (properties.get("s2:product_uri"), properties.get("sentinel:product_id"), item["id"])
    texts = [str(name).removesuffix(".SAFE") for name in names if name]
    return next((text for text in texts if _PRODUCT.match(text)), "")


def _level(item: Mapping[str, Any], properties: Mapping[str, Any], product: str) -> str:
    stated = properties.get("s2:product_type") or properties.get("product:type")
    if stated in _LEVELS:
        return _LEVELS[str(stated)]
    match = _PRODUCT.match(product)
    if match:
        return match[1]
    for text in (properties.get("processing:level"), item.get("collection"), item["id"]):
        named = re.search(r"L?(1C|2A)(?![0-9A-Za-z])", str(text or "").upper())
        if named:
            return f"L{named[1]}"
    raise SourceError(
        f"item {item['id']} does not say whether it is L1C or L2A (no s2:product_type, product:type or product name). "
        "Add it: item['properties']['s2:product_type'] = 'S2MSI2A' (or 'S2MSI1C')."
    )


def _datetime(properties: Mapping[str, Any], name: str) -> str:
    stated = properties.get("datetime") or properties.get("start_datetime")
    if not stated:
        raise SourceError(f"item {name} has no datetime. Add it: item['properties']['datetime'] = '2023-06-01T10:15Z'.")
    try:
        return f"{moment(stated):%Y-%m-%dT%H:%M:%S.%fZ}"
    except ValueError:
        remedy = "Write it so: item['properties']['datetime'] = '2023-06-01T10:15:00Z'."
        raise SourceError(f"item {name} has datetime {stated!r}, which is not ISO 8601. {remedy}") from None


def tile_of(item: Mapping[str, Any]) -> str:
    """MGRS tile of a STAC item, e.g. ``"32TQM"``; ``""`` if it does not say."""
    item = checked(item)
    properties = item["properties"]
    product = _product(item, properties)
    texts = [properties.get("s2:mgrs_tile"), str(properties.get("grid:code") or "").removeprefix("MGRS-")]
    match = _PRODUCT.match(product)
    texts += [match[5] if match else None, item["id"]]
    for text in texts:
        found = _TILE.search(str(text or ""))
        if found:
            return found[1].zfill(5)
    return ""


def _datatake(properties: Mapping[str, Any], product: str) -> str:
    match = _PRODUCT.match(product)
    stated = match[2] if match else str(properties.get("s2:datatake_id") or properties.get("eopf:datatake_id") or "")
    found = re.search(r"\d{8}T\d{6}", stated)
    with suppress(ValueError):  # digits that are not a time name no datatake
        return f"{moment(found[0]):%Y%m%dT%H%M%S}" if found else ""
    return ""


def _datastrip(properties: Mapping[str, Any]) -> str:
    stated = str(properties.get("s2:datastrip_id") or properties.get("eopf:datastrip_id") or "")
    found = re.search(r"_S(\d{8}T\d{6})", stated)
    return found[1] if found else ""


def _baseline(properties: Mapping[str, Any], product: str) -> str:
    for key in ("s2:processing_baseline", "sentinel:processing_baseline"):
        if properties.get(key):
            return str(properties[key])
    match = _PRODUCT.match(product)
    if match:
        return f"{match[3]}.{match[4]}"
    version = str(properties.get("processing:version") or "")
    return version if re.fullmatch(r"\d{2}\.\d{2}", version) else ""


def _made_by_eosr(properties: Mapping[str, Any]) -> bool:
    """Whether the item is a product of eosr: its pixels may be float32."""
    software = properties.get("processing:software")
    return isinstance(software, Mapping) and "eosr" in software


def _assets(
    item: Mapping[str, Any], properties: Mapping[str, Any], *, sharpened: bool, prefer: str | None
) -> tuple[int, dict[str, Asset]]:
    """CRS, and for each band the best asset on its native grid: GeoTIFF before JPEG 2000, https before s3."""
    name = str(item["id"])
    candidates: dict[str, list[tuple[Any, Asset, int]]] = {}
    for key, asset in item["assets"].items():
        band = band_of(key, asset)
        if band is None:
            continue
        epsg = _epsg(asset, properties, name)
        file = _file(band, key, asset, properties, name, prefer)
        if file.gsd == BANDS[band].gsd or (sharpened and file.gsd == 10):
            candidates.setdefault(band, []).append(((file.gsd, *_cost(file.href, asset), key), file, epsg))
    best = {band: min(candidates[band], key=lambda option: option[0]) for band in BANDS if band in candidates}
    if not best:
        keys = ", ".join(map(str, item["assets"]))
        stores = [str(asset.get("href")) for asset in item["assets"].values() if "zarr" in str(asset.get("type") or "")]
        if stores:
            store = stores[0].partition(".zarr")[0] + ".zarr"
            if _made_by_eosr(properties):
                raise SourceError(
                    f"item {name} holds one Zarr store of eosr, and no images. Open it: xr.open_zarr({store!r}, "
                    "decode_coords='all')."
                )
            raise SourceError(
                f"item {name} lists no images but a Zarr store, as items of EOPF products do. Open the store itself: "
                f"eosr.open_eopf({store!r})."
            )
        raise BandError(f"item {name} has no asset that is a native Sentinel-2 band. Its assets: {keys}.")
    codes = sorted({epsg for _, _, epsg in best.values()})
    if len(codes) > 1:
        raise GridError(f"the assets of item {name} are in several CRSs: EPSG {codes}. Such an item cannot be opened.")
    return codes[0], {band: file for band, (_, file, _) in best.items()}


def _cost(href: str, asset: Mapping[str, Any]) -> tuple[bool, bool]:
    is_jp2 = "jp2" in str(asset.get("type") or "") or href.lower().endswith(".jp2")
    return is_jp2, href.startswith("s3://")


def band_of(key: str, asset: Mapping[str, Any]) -> str | None:
    """Band that an asset holds, or None if it holds something else or several bands.

    Examples
    --------
    >>> band_of("red-jp2", {}), band_of("B8A_20m", {}), band_of("visual", {"eo:bands": [{"name": "B04"}] * 3})
    ('B04', 'B8A', None)
    """
    described = _listed(asset, "bands") or _listed(asset, "eo:bands")
    roles = asset.get("roles") or ()
    # A store is no file with one band, also where it holds one.
    if (
        "zarr" in str(asset.get("type") or "")
        or len(described) > 1
        or {"thumbnail", "overview", "metadata", "visual"} & set(roles)
    ):
        return None
    by_key = band_named(key)
    # Before STAC 0.8 bands were numbered: those say nothing about which one it is.
    named = described[0].get("name", "") if described and isinstance(described[0], Mapping) else ""
    by_name = band_named(str(named))
    if by_key and by_name and by_key != by_name:
        raise SourceError(f"asset {key!r} is named after {by_key} but says it holds {by_name}. Correct the item.")
    return by_key or by_name


def _epsg(asset: Mapping[str, Any], properties: Mapping[str, Any], name: str) -> int:
    for source in (asset, properties):
        code = source.get("proj:code") or source.get("proj:epsg")
        if code:
            number = re.fullmatch(r"(?:EPSG:)?(\d{4,6})(?:\.0)?", str(code), re.IGNORECASE)  # in tables a float
            if number:
                return int(number[1])
            raise SourceError(f"item {name} is in {code!r}; only EPSG codes can be opened. Sentinel-2 tiles have one.")
    raise SourceError(
        f"item {name} has neither proj:code nor proj:epsg, so its grid is unknown and would have to be guessed. Add "
        "the projection extension: item['properties']['proj:epsg'] = 32632, proj:shape and proj:transform per asset."
    )


def _file(
    band: str, key: str, asset: Mapping[str, Any], properties: Mapping[str, Any], name: str, prefer: str | None
) -> Asset:
    href = _href(asset, prefer)
    if not href:
        if REFUSED in asset:
            raise SourceError(f"asset {key!r} of item {name}: {asset[REFUSED]}")
        raise SourceError(f"asset {key!r} of item {name} has no href. Fetch the whole item from its catalogue.")
    shape = asset.get("proj:shape") or properties.get("proj:shape")
    transform = asset.get("proj:transform") or properties.get("proj:transform")
    if not shape or not transform:
        raise SourceError(
            f"asset {key!r} of item {name} has no proj:shape or no proj:transform, so its grid is unknown and would "
            "have to be guessed. Add both, or use an item of Earth Search v1, Planetary Computer or CDSE."
        )
    rows, columns = _numbers(shape, 2, f"asset {key!r} of item {name} has proj:shape")
    step_x, shear_x, left, shear_y, step_y, top = _numbers(
        transform, 6, f"asset {key!r} of item {name} has proj:transform"
    )
    if shear_x or shear_y or step_x <= 0 or step_x != -step_y or step_x != int(step_x):
        raise GridError(f"asset {key!r} of item {name} is not north-up with square, whole-metre pixels: {transform}.")
    if not (1 <= rows <= LARGEST // step_x and 1 <= columns <= LARGEST // step_x) or rows % 1 or columns % 1:
        raise GridError(
            f"asset {key!r} of item {name} has {rows:g} x {columns:g} pixels of {step_x:g} m (proj:shape); a tile of "
            f"Sentinel-2 has {TILE_SIDE / step_x:.0f} x {TILE_SIDE / step_x:.0f}. Correct the item."
        )
    return Asset(
        band=band, key=key, href=href, gsd=int(step_x), left=left, top=top, rows=int(rows), columns=int(columns),
        dtype=str(asset.get("data_type") or _raster(asset).get("data_type") or "uint16"),
    )  # fmt: skip


def _numbers(values: Any, count: int, what: str) -> list[float]:
    """Read the first numbers of a list: as many as there must be, all finite."""
    try:
        numbers = [float(value) for value in values[:count]]
    except (KeyError, TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise GridError(f"{what} {values!r:.100}, which is not {count} numbers. Correct the item.")
    return numbers


def _href(asset: Mapping[str, Any], prefer: str | None) -> str:
    alternates = asset.get("alternate") or {}
    own = str(asset.get("href") or "")
    if prefer and prefer in alternates and not own.startswith(f"{prefer}://"):
        return str(alternates[prefer]["href"])
    return own


def _raster(asset: Mapping[str, Any]) -> Mapping[str, Any]:
    described = _listed(asset, "raster:bands") or _listed(asset, "bands")
    return described[0] if len(described) == 1 and isinstance(described[0], Mapping) else {}


def _listed(asset: Mapping[str, Any], key: str) -> list[Any]:
    """A list of an asset, empty where it holds none."""
    return value if isinstance(value := asset.get(key), list) else []


def _wanted(
    name: str, level: str, bands: Sequence[str] | None, found: Mapping[str, Asset], types: set[str], *, ours: bool
) -> tuple[str, ...]:
    if bands is None and ours:
        return tuple(found)
    wanted = bands_of(level) if bands is None else check_bands(bands)
    impossible = [band for band in wanted if level not in BANDS[band].levels]
    if impossible:
        raise BandError(f"{', '.join(impossible)} does not exist in {level} (item {name}). Leave it out of bands=.")
    missing = [band for band in wanted if band not in found]
    if missing:
        there = [band for band in wanted if band in found]
        raise BandError(
            f"item {name} has no asset with {', '.join(missing)} at its native pixel size. "
            f"It has {', '.join(found)}; to go without: bands={there}."
        )
    wrong = sorted({found[band].dtype for band in wanted} - types)
    if wrong:
        raise RadiometryError(f"item {name} holds {wrong[0]} pixels, not digital numbers (uint16). Use the original.")
    return wanted


def _declared_offset(item: Mapping[str, Any], found: Mapping[str, Asset], name: str) -> int | None:
    """Offset [DN] that the assets state beside a scale of 1 / 10000; None if they do not."""
    declared: dict[int, str] = {}
    for band, file in found.items():
        asset = item["assets"][file.key]
        stated = {key.removeprefix("raster:"): value for key, value in {**_raster(asset), **asset}.items()}
        try:
            scale, offset = (
                float(stated[key]) if stated.get(key) is not None else math.nan for key in ("scale", "offset")
            )
        except (TypeError, ValueError):
            raise RadiometryError(
                f"{band} of item {name} states scale {stated.get('scale')!r} and offset {stated.get('offset')!r}, which"
                " are no numbers. Say what holds: offset=-1000 or offset=0."
            ) from None
        # A scale of 1 with an offset of 0 is what generic tools write into every item: no statement.
        if math.isfinite(offset) and math.isclose(scale * QUANTIFICATION, 1, rel_tol=1e-6):
            declared.setdefault(round(offset / scale), band)
    if len(declared) > 1:
        values = ", ".join(f"{value} DN ({band})" for value, band in declared.items())
        raise RadiometryError(f"the assets of item {name} declare different offsets: {values}. Say one: offset=-1000.")
    return next(iter(declared), None)


def _common_bounds(name: str, found: Mapping[str, Asset]) -> tuple[float, float, float, float]:
    """Ground that every native band covers, shrunk to whole pixels of the 60 m grid."""
    anchor = max(found.values(), key=lambda file: file.gsd)
    for file in found.values():
        if (file.left - anchor.left) % file.gsd or (file.top - anchor.top) % file.gsd:
            raise GridError(
                f"the grids of {file.band} ({file.gsd} m, corner {file.left:.0f}, {file.top:.0f}) and {anchor.band} "
                f"({anchor.gsd} m, corner {anchor.left:.0f}, {anchor.top:.0f}) of item {name} do not nest. Such files "
                "need warping to one grid first."
            )
    edges = list(zip(*(file.bounds for file in found.values()), strict=True))
    left, bottom, right, top = max(edges[0]), max(edges[1]), min(edges[2]), min(edges[3])
    left = anchor.left + math.ceil((left - anchor.left) / 60) * 60
    right = anchor.left + math.floor((right - anchor.left) / 60) * 60
    bottom = anchor.top + math.ceil((bottom - anchor.top) / 60) * 60
    top = anchor.top + math.floor((top - anchor.top) / 60) * 60
    if left >= right or bottom >= top:
        raise GridError(f"the bands of item {name} have not one whole pixel of 60 m in common. Use a larger image.")
    return left, bottom, right, top
