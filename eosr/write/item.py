"""The STAC item that says what a folder of COGs holds, what it was made from, and by what."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import rasterio.warp
import xarray as xr
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from eosr._version import __version__
from eosr.cube.bands import BANDS
from eosr.cube.radiometry import check_stated, for_its_times
from eosr.cube.times import moment
from eosr.errors import OutputError
from eosr.host.files import name_for, put_text
from eosr.host.proj import check_proj
from eosr.write.layout import (
    attrs_at,
    check_absent,
    check_linkable,
    check_not_degraded,
    jsonable,
    labels_of,
    layers_of,
    local_path,
    spectral,
    times_of,
)  # fmt: skip

_EXTENSIONS = {"projection": "v1.2.0", "raster": "v2.0.0", "eo": "v2.0.0", "processing": "v1.2.0"}
_OF_ITEMS = ("projection", "processing")
_COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_ZARR_TYPE = "application/vnd.zarr; version=3"
_PRODUCT_TYPES = {"L1C": "S2MSI1C", "L2A": "S2MSI2A"}


@dataclass(frozen=True, kw_only=True)
class _File:
    """What one COG of eosr says about itself."""

    path: Path
    band: str
    label: str
    time: str
    attrs: Mapping[str, Any]
    crs: CRS
    shape: tuple[int, int]
    transform: Affine
    dtype: str
    nodata: float
    scale: float
    offset: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        rows, columns = self.shape
        left, top = self.transform @ (0, 0)
        right, bottom = self.transform @ (columns, rows)
        return left, bottom, right, top

    @property
    def sharpened(self) -> bool:
        """Whether the pixels are smaller than the instrument measures them."""
        return self.band in BANDS and self.transform.a < BANDS[self.band].gsd


def to_stac_item(
    ds: xr.Dataset | None,
    paths: str | Path | Sequence[str | Path],
    *,
    id: str | None = None,
    derived_from: Iterable[str] = (),
    zarr: str | Path | None = None,
    time: str | None = None,
    overwrite: bool = False,
) -> pystac.Item:
    """Write the STAC item of the COGs of one time beside them, as ``<id>.json``, and return it.

    Parameters
    ----------
    ds : Dataset, optional
        What the files were made from; its attributes go into the item. Default: the attributes kept in the files.
    paths : path or sequence of paths
        What `to_cog` returned, or the folder with these files.
    id : str, optional
        Default: the prefix of the file names and ``_eosr``.
    derived_from : iterable of str
        URLs of the source items, for links of that relation. Their ids are always kept, as ``eosr:derived_from``.
    zarr : path, optional
        A Zarr store of the same Dataset, named as a further asset.
    time : str, optional
        Acquisition time, ISO 8601 and UTC, where the Dataset has none.
    overwrite : bool
        Replace an item of that name.

    Returns
    -------
    pystac.Item
        STAC 1.1; `eosr.open_stac` reads it, from the file or as the object.

    Raises
    ------
    OutputError
        If the Dataset is a degraded one, the files are not of eosr, of several times or of other bands than ``ds``, or
        the item exists.
    """
    if ds is not None:
        check_stated(ds, "to_stac_item")
        check_not_degraded(ds.attrs)
    files = _files_of(paths)
    check_linkable(files[0].path.parent)
    labels = sorted({file.label for file in files})
    if len(labels) > 1:
        raise OutputError(
            f"the files hold {len(labels)} times ({labels[0]}, {labels[1]}, ...), and one item describes one. "
            f"Use eosr.write.to_stac_items(ds, paths), or give those of one time: "
            f"[p for p in paths if p.name.startswith({labels[0]!r})]."
        )
    attrs = _attributes(None if ds is None else for_its_times(ds), files)
    check_not_degraded(attrs)
    folder = files[0].path.parent
    assets = {file.band: _asset(file, folder) for file in files}
    if zarr is not None:
        assets["zarr"] = _store(local_path(zarr), folder)
    return _written(
        id or f"{labels[0]}_eosr", files, _properties(files, attrs, time), assets, derived_from, overwrite=overwrite
    )


def to_stac_items(ds: xr.Dataset | None, paths: str | Path | Sequence[str | Path], **options: Any) -> list[pystac.Item]:
    """Write one STAC item per time; see `to_stac_item`, which takes the same options but ``id`` and ``time``."""
    if ds is not None:
        check_stated(ds, "to_stac_items")
    groups: dict[str, list[str | Path]] = {}
    for file in _files_of(paths):
        groups.setdefault(file.label, []).append(file.path)
    return [to_stac_item(ds, group, **options) for group in groups.values()]


def is_describable(ds: xr.Dataset) -> bool:
    """Whether a Dataset has what an item must say: times of its own, an EPSG code; and is not a degraded one."""
    if ds.attrs.get("degradation_factor") is not None or None in times_of(ds):
        return False
    with suppress(OutputError):  # the same time twice
        labels_of(ds)
        return all(layer.crs.to_epsg() is not None for layer in layers_of(ds).values())
    return False


def to_zarr_items(ds: xr.Dataset, store: Path, *, derived_from: Iterable[str] = ()) -> list[pystac.Item]:
    """Write one STAC item per time for a Zarr store without COGs, beside it, and return them.

    Parameters
    ----------
    ds : Dataset
        What the store holds; `is_describable`.
    store : Path
        Its one asset, with the names of the bands.
    derived_from : iterable of str
        As for `to_stac_item`.
    """
    ds, links = for_its_times(ds), list(derived_from)
    times, items = times_of(ds), []
    for index, (time, label) in enumerate(zip(times, labels_of(ds), strict=True)):
        attrs = attrs_at(jsonable(ds.attrs), index, len(times))
        files = [
            _File(
                path=store, band=band, label=label, time="" if time is None else time.isoformat(), attrs=attrs,
                crs=layer.crs, shape=layer.shape, transform=layer.transform, dtype=ds[band].dtype.name, nodata=0,
                scale=1, offset=0,
            )
            for layer in layers_of(ds).values() for band in layer.names
        ]  # fmt: skip
        bands = [{"name": band} for band in spectral(ds.data_vars)]
        assets = {"zarr": _store(store, store.parent) | {"bands": bands}}
        items.append(_written(f"{label}_eosr", files, _properties(files, attrs, None), assets, links, overwrite=True))
    return items


def _written(
    id: str,
    files: Sequence[_File],
    properties: Mapping[str, Any],
    assets: Mapping[str, Any],
    derived_from: Iterable[str],
    *,
    overwrite: bool,
) -> pystac.Item:
    """Write an item beside its files."""
    target = files[0].path.parent / f"{name_for(id)}.json"
    if not overwrite:
        check_absent([target])
    # Those of assets only where there are such assets: their schemas ask for them.
    known = {name: version for name, version in _EXTENSIONS.items() if files[0].band in assets or name in _OF_ITEMS}
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            f"https://stac-extensions.github.io/{name}/{version}/schema.json" for name, version in known.items()
        ],
        "id": id,
        **_footprint(files),
        "properties": properties,
        "links": [{"rel": "derived_from", "href": str(href), "type": "application/geo+json"} for href in derived_from],
        "assets": assets,
    }
    put_text(target, json.dumps(item, indent=2, allow_nan=False) + "\n")
    return pystac.Item.from_file(str(target))


def _store(store: Path, folder: Path) -> dict[str, Any]:
    return {"href": _relative(store, folder), "type": _ZARR_TYPE, "roles": ["data"], "title": "All bands"}


def _files_of(paths: str | Path | Sequence[str | Path]) -> list[_File]:
    if isinstance(paths, str | Path):
        folder = local_path(paths)
        found: Sequence[str | Path] = sorted(folder.glob("*.tif"))
        if not found:
            raise OutputError(
                f"{folder} holds no *.tif to describe. Write them first: eosr.to_cog(ds, {str(paths)!r})."
            )
    elif isinstance(paths, Sequence):
        found = list(paths)
        if not found:
            raise OutputError("there is no file to describe. Give what eosr.to_cog returned.")
    else:
        raise OutputError(f"paths is a {type(paths).__name__}. Give what eosr.to_cog returned, or its folder.")
    check_proj()
    files = [_file(local_path(path)) for path in found]
    if len({file.path.parent for file in files}) > 1:
        raise OutputError(
            "the files lie in several folders, and an item lies beside its files. Give those of one folder."
        )
    order = spectral({file.band for file in files})
    return sorted(files, key=lambda file: (file.label, order.index(file.band)))


def _file(path: Path) -> _File:
    try:
        with rasterio.open(path) as source:
            tags = source.tags()
            if "EOSR_ATTRS" not in tags:
                raise OutputError(
                    f"{path} has no tag EOSR_ATTRS, so eosr did not write it. Give what eosr.to_cog returned."
                )
            return _File(
                path=path, band=str(source.descriptions[0]), label=tags["EOSR_LABEL"], time=tags.get("EOSR_TIME", ""),
                attrs=json.loads(tags["EOSR_ATTRS"]), crs=source.crs, shape=source.shape, transform=source.transform,
                dtype=source.dtypes[0], nodata=source.nodata, scale=source.scales[0], offset=source.offsets[0],
            )  # fmt: skip
    except RasterioError as error:
        raise OutputError(f"{path} cannot be read: {error}. Give the files that eosr.to_cog returned.") from error


def _attributes(ds: xr.Dataset | None, files: Sequence[_File]) -> Mapping[str, Any]:
    if ds is None:
        return files[0].attrs
    foreign = [file.band for file in files if file.band not in ds.data_vars]
    times = ["" if moment is None else moment.isoformat() for moment in times_of(ds)]
    if foreign or files[0].time not in times:
        what = f"bands {', '.join(foreign)}" if foreign else f"the time {files[0].time}"
        raise OutputError(
            f"{files[0].path.parent} holds {what}, which the Dataset does not. Give the one it was made from."
        )
    return attrs_at(jsonable(ds.attrs), times.index(files[0].time), len(times))


def _footprint(files: Sequence[_File]) -> dict[str, Any]:
    """Bounding box and outline [degrees] of the ground that any file covers."""
    edges = [file.bounds for file in files]
    left, bottom, right, top = (
        pick(side) for pick, side in zip((min, min, max, max), zip(*edges, strict=True), strict=True)
    )
    share = np.linspace(0, 1, 22)[:-1]
    x = left + (right - left) * np.concatenate([share, np.ones(21), 1 - share, np.zeros(21)])
    y = bottom + (top - bottom) * np.concatenate([np.zeros(21), share, np.ones(21), 1 - share])
    east, north = map(np.array, rasterio.warp.transform(files[0].crs, CRS.from_epsg(4326), x, y))
    if east.max() - east.min() > 180:  # on both sides of the antimeridian
        east = np.where(east < 0, east + 360, east)
    # The corners; points between them say how far the edges bulge.
    ring = [(float(east[k % 84]), float(north[k % 84])) for k in range(0, 85, 21)]
    parts = [_rounded(_side(ring, 1)), _rounded([(lon - 360, lat) for lon, lat in _side(ring, -1)])]
    over = bool(parts[1])
    box = [east.min(), north.min(), east.max() - 360 * over, north.max()]
    shape: Any = {"type": "MultiPolygon", "coordinates": [[part] for part in parts if part]}
    return {
        "bbox": [round(float(edge), 7) for edge in box],
        "geometry": shape if over else {"type": "Polygon", "coordinates": [parts[0]]},
    }


def _side(ring: list[tuple[float, float]], sign: int) -> list[tuple[float, float]]:
    """Cut a convex ring at 180 degrees: what lies west of it (``sign`` 1) or east of it (-1); empty without area."""
    kept: list[tuple[float, float]] = []
    for (lon, lat), (other, beyond) in itertools.pairwise(ring):
        if sign * (180 - lon) >= 0:
            kept.append((lon, lat))
        if (lon - 180) * (other - 180) < 0:
            kept.append((180.0, lat + (beyond - lat) * (180 - lon) / (other - lon)))
    return [*kept, kept[0]] if any(lon != 180 for lon, _ in kept) else []


def _rounded(ring: list[tuple[float, float]]) -> list[list[float]]:
    return [[round(lon, 7), round(lat, 7)] for lon, lat in ring]


def _properties(files: Sequence[_File], attrs: Mapping[str, Any], time: str | None) -> dict[str, Any]:
    moment = time or files[0].time
    if not moment:
        raise OutputError("the Dataset has no time, which a STAC item needs. Say it: time='2023-06-06T10:15:59Z'.")
    level, sharpened = str(attrs.get("level", "")), any(file.sharpened for file in files)
    ids = [str(entry) for entry in attrs.get("item_ids", [])]
    optional = {
        "platform": attrs.get("platform"),
        "s2:processing_baseline": attrs.get("processing_baseline"),
        "s2:product_type": _PRODUCT_TYPES.get(level),
        "processing:level": level,
    }
    return {
        "datetime": _utc(moment),
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": min(file.transform.a for file in files),
        **{key: value for key, value in optional.items() if value},
        **_code(files[0]),
        "processing:software": {"eosr": __version__},
        "processing:lineage": _lineage(attrs, ids, sharpened),
        "eosr:sharpened": sharpened,
        "eosr:derived_from": ids,
        "eosr:provenance": dict(attrs),
    }


def _utc(text: str) -> str:
    try:
        return moment(text).isoformat().replace("+00:00", "Z")
    except ValueError:
        raise OutputError(f"time={text!r} is not a time. Write it as ISO 8601: time='2023-06-06T10:15:59Z'.") from None


def _lineage(attrs: Mapping[str, Any], ids: Sequence[str], sharpened: bool) -> str:
    verb = "sharpened to 10 m" if sharpened else "cut out and rewritten"
    how = "; ".join(
        f"{key}: {json.dumps(value)}" for key, value in sorted(attrs.items()) if re.search("weights|method", key)
    )
    return f"{', '.join(ids) or 'Sentinel-2'} {verb} by eosr {__version__}" + (f" ({how})." if how else ".")


def _code(file: _File) -> dict[str, Any]:
    """CRS in both versions of the projection extension: stackstac 0.5 knows the first alone."""
    epsg = file.crs.to_epsg()
    if epsg is None:
        raise OutputError(f"the CRS of {file.path} has no EPSG code, which proj:code needs. Write it in a UTM zone.")
    return {"proj:code": f"EPSG:{epsg}", "proj:epsg": epsg}


def _asset(file: _File, folder: Path) -> dict[str, Any]:
    band: dict[str, Any] = {"name": file.band}
    if file.band in BANDS:
        facts = BANDS[file.band]
        band |= {
            "eo:common_name": facts.common_name,
            "eo:center_wavelength": round(facts.wavelength / 1000, 4),
            "eo:full_width_half_max": round(facts.width / 1000, 4),
        }
    return {
        "href": _relative(file.path, folder),
        "type": _COG_TYPE,
        "title": f"{file.band} at {file.transform.a:g} m",
        "roles": ["data", "reflectance"],
        "gsd": BANDS[file.band].gsd if file.band in BANDS else file.transform.a,
        "bands": [band],
        "data_type": file.dtype,
        "nodata": "nan" if file.dtype == "float32" else int(file.nodata),
        "unit": "1",
        "raster:scale": file.scale,
        "raster:offset": file.offset,
        "raster:spatial_resolution": file.transform.a,
        **_code(file),
        "proj:shape": list(file.shape),
        "proj:transform": list(file.transform)[:6],
        "file:size": file.path.stat().st_size,
    }


def _relative(path: Path, folder: Path) -> str:
    relative = os.path.relpath(path, folder)
    return relative if relative.startswith("..") else f"./{relative}"
