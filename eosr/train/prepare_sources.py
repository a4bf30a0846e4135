"""Scenes from STAC, SAFE folders and local cubes, each as one lazy Dataset of one time, with its clouds where known."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from pyproj import Transformer

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.errors import EosrError, TrainingError
from eosr.evaluate_arguments import named_scenes
from eosr.grid import crop_to_multiple, crs_of, transform_of
from eosr.patches import CLOUDY
from eosr.radiometry import listed
from eosr.stac import open_stac
from eosr.stac_search import find_items
from eosr.train.prepare_config import PrepareConfig, SourceConfig

#: Keys under which catalogues list the scene classification.
_SCL = ("SCL", "scl", "SCL_20m")


@dataclass(frozen=True, kw_only=True)
class FoundScene:
    """A scene that patches can be cut from."""

    name: str
    #: Digital numbers as measured, one time, lazy, sizes multiples of six 10 m pixels.
    ds: xr.Dataset
    level: str
    tile: str
    #: Middle [deg].
    longitude: float
    latitude: float
    #: Offset to add [DN].
    offset: int
    item_ids: tuple[str, ...]
    #: True where cloud, cloud shadow or cirrus is, (y20, x20), lazy; None where nothing tells.
    cloudy: xr.DataArray | None


def find_scenes(config: PrepareConfig) -> list[FoundScene]:
    """Open every scene of every source, lazily; in order of name, each once.

    Raises
    ------
    TrainingError
        If a source matches nothing, a scene lacks bands, levels are mixed without leave, or clouds are to be filtered
        in a scene of which nobody tells them.
    """
    scenes: dict[str, FoundScene] = {}
    for number, source in enumerate(config.source, 1):
        found = list(_opened(source, f"[[source]] {number}"))
        if not found:
            raise TrainingError(f"[[source]] {number} ({', '.join(source.paths)}) matches no scene. Correct its paths.")
        scenes |= {one.name: one for one in found}
    levels = sorted({one.level for one in scenes.values()})
    if len(levels) > 1 and not config.mixed_levels:
        raise TrainingError(
            f"the sources mix {' and '.join(levels)}: reflectance at the top and at the bottom of the atmosphere. Make "
            "a store of each, or allow it: mixed_levels = true."
        )
    for one in scenes.values():
        if config.filter.cloud < 1 and one.cloudy is None:
            raise TrainingError(
                f"nothing tells the clouds of {one.name}: it has no SCL. Choose a clear scene and give cloud = 1.0 "
                "below [filter], or add a variable SCL or cloud_mask to the cube."
            )
    return [scenes[name] for name in sorted(scenes)]


def _opened(source: SourceConfig, where: str) -> Iterator[FoundScene]:
    opener: Callable[[SourceConfig], Iterator[tuple[str, xr.Dataset, Any]]] = {
        "stac": _from_stac, "safe": _from_safe, "cube": _from_cubes,
    }[source.kind]  # fmt: skip
    try:
        for name, ds, cloudy in opener(source):
            yield _found(name, ds, cloudy)
    except TrainingError:
        raise
    except EosrError as error:
        raise TrainingError(f"{where}: {error}") from error


def _found(name: str, ds: xr.Dataset, cloudy: xr.DataArray | None) -> FoundScene:
    names = [band for band in (*BANDS_10M, *BANDS_20M, *BANDS_60M) if band in ds]
    missing = [band for band in (*BANDS_10M, *BANDS_20M) if band not in names]
    if missing or sum(band in names for band in BANDS_60M) == 1:
        missing += [band for band in BANDS_60M if band not in names and any(one in names for one in BANDS_60M)]
        raise TrainingError(f"{name} lacks {', '.join(missing)}. Training patches hold all 10 m and 20 m bands.")
    clouds = cloudy if cloudy is not None else _clouds_in(ds)
    bare = crop_to_multiple(ds[names], 6)
    level = str(ds.attrs.get("level", ""))
    if level not in ("L1C", "L2A"):
        raise TrainingError(f"{name} has level {level!r}. Set ds.attrs['level'] to 'L1C' or 'L2A' in its file.")
    if clouds is not None:
        clouds = clouds.isel({dim: slice(0, bare.sizes[dim]) for dim in clouds.dims})
    longitude, latitude = _middle(bare)
    return FoundScene(
        name=name, ds=bare, level=level, tile=str(ds.attrs.get("tile", "")), longitude=longitude, latitude=latitude,
        offset=int(ds.attrs.get("radiometric_offset", 0)), item_ids=tuple(map(str, listed(ds.attrs.get("item_ids")))),
        cloudy=clouds,
    )  # fmt: skip


def _clouds_in(ds: xr.Dataset) -> xr.DataArray | None:
    if "cloud_mask" in ds:
        return ds["cloud_mask"].astype(bool)
    return _cloudy_classes(ds["SCL"]) if "SCL" in ds else None


def _cloudy_classes(classes: xr.DataArray) -> xr.DataArray:
    return classes.isin(CLOUDY)


def _middle(ds: xr.Dataset) -> tuple[float, float]:
    here = transform_of(ds, 10) * (ds.sizes["x10"] / 2, ds.sizes["y10"] / 2)
    longitude, latitude = Transformer.from_crs(crs_of(ds), 4326, always_xy=True).transform(*here)
    return float(longitude), float(latitude)


def _from_stac(source: SourceConfig) -> Iterator[tuple[str, xr.Dataset, Any]]:
    window: Any = source.bbox or None
    for path in source.paths:
        items = find_items(
            path, collection=source.collection or None, bbox=window, datetime=source.datetime or None,
            max_cloud_cover=source.max_cloud_cover if source.max_cloud_cover < 100 else None,
        )  # fmt: skip
        if source.limit:
            items = sorted(items, key=lambda item: (_clouds_stated(item), str(item["id"])))[: source.limit]
        for item in items:
            ds = open_stac(
                item, bbox=window, tile=source.tile or None, engine=source.engine,
                offset=_offset(source.offset), alternate=source.alternate or None,
            )  # fmt: skip
            ((name, scene),) = named_scenes(ds).items()
            yield name, scene, _classification(item, scene)


def _clouds_stated(item: Any) -> float:
    return float(item["properties"].get("eo:cloud_cover", 100.0))


def _offset(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text


def _classification(item: Any, ds: xr.Dataset) -> xr.DataArray | None:
    """Clouds by the scene classification of an item, on the 20 m grid of its Dataset."""
    href = next((item["assets"][key]["href"] for key in _SCL if key in item.get("assets", {})), None)
    if href is None:
        return None
    # Imported here: only STAC items of L2A need it.
    import rioxarray

    opened: Any = rioxarray.open_rasterio(href, chunks={"x": 768, "y": 768})
    # By place: the file holds the whole tile, the Dataset perhaps a window of it.
    classes = opened.isel(band=0, drop=True).sel(
        x=ds["x20"].values, y=ds["y20"].values, method="nearest", tolerance=1.0
    )
    return _cloudy_classes(classes.rename(x="x20", y="y20").drop_vars("spatial_ref", errors="ignore"))


def _paths(patterns: tuple[str, ...]) -> list[Path]:
    found = [sorted(glob.glob(pattern)) for pattern in patterns]
    return [Path(path) for paths in found for path in paths]


def _from_safe(source: SourceConfig) -> Iterator[tuple[str, xr.Dataset, Any]]:
    from eosr.safe import open_safe

    for path in _paths(source.paths):
        ds = open_safe(path, offset=_offset(source.offset), masks=True)
        for name, scene in named_scenes(ds).items():
            yield name, scene, None


def _from_cubes(source: SourceConfig) -> Iterator[tuple[str, xr.Dataset, Any]]:
    for path in _paths(source.paths):
        try:
            # mask_and_scale off: 0 is nodata, and digital numbers stay digital numbers.
            options: dict[str, Any] = {"decode_coords": "all", "mask_and_scale": False, "chunks": {}}
            ds = xr.open_zarr(path, **options) if path.is_dir() else xr.open_dataset(path, **options)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(
                f"{path} is no cube that xarray opens ({reason}). Write it with eosr.to_zarr."
            ) from error
        scenes = named_scenes(ds)
        # A cube without item ids is called like its file.
        plain = [name for name in scenes if name == "scene"]
        for name, scene in scenes.items():
            yield (path.stem if name in plain and len(scenes) == 1 else name), scene, None
