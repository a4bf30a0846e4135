"""Scenes from STAC, SAFE folders and local cubes, each as one lazy Dataset of one time, with its clouds where known."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import xarray as xr
from pyproj import Transformer

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.grid import crop_to_multiple, crs_of, transform_of
from eosr.cube.masks import CLOUDY
from eosr.cube.radiometry import check_stated, listed, offsets
from eosr.errors import EosrError, SourceError, TrainingError, first_line
from eosr.open.acquisitions import by_datatake, pieces
from eosr.open.catalogue.plain import checked
from eosr.open.catalogue.search import find_items
from eosr.open.items import band_of, read_item
from eosr.open.stac import of_tile, open_stac
from eosr.score.arguments import named_scenes
from eosr.train.prepare.config import PrepareConfig, SourceConfig
from eosr.train.prepare.patches import Ground

#: Keys under which catalogues list the scene classification.
_SCL: Final = ("SCL", "scl", "SCL_20m")
#: What an asset says of its grid and its way.
_OF_ASSET: Final = ("href", "alternate", "type", "proj:shape", "proj:transform", "proj:code", "proj:epsg")


@dataclass(frozen=True, kw_only=True)
class FoundScene:
    """A scene that patches can be cut from."""

    name: str
    #: Digital numbers as measured, one time, lazy, sizes multiples of six 10 m pixels.
    ds: xr.Dataset
    level: str
    platform: str
    tile: str
    ground: Ground
    #: Offset to add [DN].
    offset: int
    item_ids: tuple[str, ...]
    #: True where cloud, cloud shadow or cirrus is, on the grid of any group, lazy; None where nothing tells.
    cloudy: xr.DataArray | None


def find_scenes(config: PrepareConfig) -> list[FoundScene]:
    """Open every scene of every source, lazily; in order of name, each once.

    Raises
    ------
    TrainingError
        If a source matches nothing, a scene lacks bands, two scenes have one name, levels are mixed without leave, some
        scenes only have 60 m bands, or clouds are to be filtered in a scene of which nobody tells them.
    """
    scenes: dict[str, FoundScene] = {}
    for number, source in enumerate(config.source, 1):
        found = list(_opened(source, f"[[source]] {number}"))
        if not found and source.needed:
            raise TrainingError(
                f"[[source]] {number} ({', '.join(source.paths)}) matches no scene. Correct it, or go without: "
                "needed = false."
            )
        for one in found:
            _check_other(one, scenes.setdefault(one.name, one))
    if not scenes:
        raise TrainingError("no source matches any scene. Correct their paths and conditions.")
    _check_together([scenes[name] for name in sorted(scenes)], config)
    return [scenes[name] for name in sorted(scenes)]


def _check_other(scene: FoundScene, known: FoundScene) -> None:
    """Take the same scene twice for one, and refuse another one of its name."""
    there, here = ((one.ground, one.offset, tuple(one.ds.data_vars)) for one in (known, scene))
    if there != here:
        raise TrainingError(
            f"two scenes are called {scene.name} and differ in place, bands or offset. Write one of them with another "
            "attribute item_ids, or leave it out."
        )


def _check_together(scenes: list[FoundScene], config: PrepareConfig) -> None:
    levels = sorted({one.level for one in scenes})
    if len(levels) > 1 and not config.mixed_levels:
        raise TrainingError(
            f"the sources mix {' and '.join(levels)}: reflectance at the top and at the bottom of the atmosphere. Make "
            "a store of each, or allow it: mixed_levels = true."
        )
    without = [one.name for one in scenes if "B01" not in one.ds]
    if without and len(without) < len(scenes):
        raise TrainingError(
            f"{len(without)} of {len(scenes)} scenes have no 60 m bands, e.g. {without[0]}. Make a store of them "
            "alone; it trains 20 m generators only."
        )
    blind = [one.name for one in scenes if one.cloudy is None]
    if blind and config.filter.cloud < 1:
        raise TrainingError(
            f"nothing tells the clouds of {blind[0]}: it has no SCL. Choose a clear scene and give cloud = 1.0 "
            "below [filter], or add a variable SCL or cloud_mask to the cube."
        )


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
        raise TrainingError(
            f"{name} lacks {', '.join(missing)}. Training patches hold all 10 m and 20 m bands, and both or none of "
            "B01 and B09: leave the scene out, or complete it."
        )
    floats = [band for band in names if ds[band].dtype.kind not in "iu"]
    if floats:
        scaled = ds.attrs.get("quantity") == "reflectance"
        line = "eosr.cube.to_digital_numbers(ds)" if scaled else "ds.fillna(0).round().astype('uint16')"
        raise TrainingError(
            f"{floats[0]} of {name} is {ds[floats[0]].dtype}, not digital numbers. Write the cube as uint16 with 0 for "
            f"nodata, e.g. {line}."
        )
    clouds = cloudy if cloudy is not None else _clouds_in(ds)
    bare = crop_to_multiple(ds[names], 6)
    check_stated(ds, name)
    if clouds is not None:
        if not {*clouds.dims} <= {*bare.sizes}:
            raise TrainingError(f"the clouds of {name} lie on {clouds.dims}, none of its bands does. Correct the cube.")
        clouds = clouds.isel({dim: slice(0, bare.sizes[dim]) for dim in clouds.dims})
    return FoundScene(
        name=name, ds=bare, level=ds.attrs["level"], platform=str(ds.attrs.get("platform", "")),
        tile=str(ds.attrs.get("tile", "")), ground=_ground(bare), offset=int(offsets(ds)),
        item_ids=tuple(map(str, listed(ds.attrs.get("item_ids")))), cloudy=clouds,
    )  # fmt: skip


def _clouds_in(ds: xr.Dataset) -> xr.DataArray | None:
    if "cloud_mask" in ds:
        return ds["cloud_mask"].astype(bool)
    return _cloudy_classes(ds["SCL"]) if "SCL" in ds else None


def _cloudy_classes(classes: xr.DataArray) -> xr.DataArray:
    return classes.isin(CLOUDY)


def _ground(ds: xr.Dataset) -> Ground:
    transform, crs = transform_of(ds, 10), crs_of(ds)
    middle = transform @ (ds.sizes["x10"] / 2, ds.sizes["y10"] / 2)
    longitude, latitude = Transformer.from_crs(crs, 4326, always_xy=True).transform(*middle)
    right, bottom = transform @ (ds.sizes["x10"], ds.sizes["y10"])
    return Ground(
        crs=crs, left=transform.c, bottom=bottom, right=right, top=transform.f, longitude=float(longitude),
        latitude=float(latitude),
    )  # fmt: skip


def _from_stac(source: SourceConfig) -> Iterator[tuple[str, xr.Dataset, Any]]:
    window: Any = source.bbox or None
    for path in source.paths:
        try:
            items = find_items(
                path, collection=source.collection or None, bbox=window, datetime=source.datetime or None,
                max_cloud_cover=source.max_cloud_cover if source.max_cloud_cover < 100 else None,
            )  # fmt: skip
        except SourceError as error:
            if source.needed or not str(error).startswith("no item found"):
                raise
            continue
        items = of_tile(items, source.tile) if source.tile else items
        # The tile first, then its least cloudy items: a window may touch its neighbours too.
        items = _newest(sorted(items, key=lambda item: (_clouds_stated(item), str(item["id"]))), source)
        for item in items[: source.limit or None]:
            ds = _open(item, source, offset=_offset(source.offset))
            ((name, scene),) = named_scenes(ds).items()
            yield name, scene, _classification(item, source, scene)


def _open(item: Any, source: SourceConfig, **how: Any) -> xr.Dataset:
    return open_stac(
        item, bbox=source.bbox or None, alternate=source.alternate or None, **how
    )  # fmt: skip


def _newest(items: list[Any], source: SourceConfig) -> list[Any]:
    """Items without reprocessed copies of one acquisition, by the rule of `eosr.open_stac`."""
    scenes = [read_item(item, bands=["B02"], offset=_offset(source.offset)) for item in items]
    kept = {id(scene) for together in by_datatake(scenes) for scene in pieces(together)}
    return [item for item, scene in zip(items, scenes, strict=True) if id(scene) in kept]


def _clouds_stated(item: Any) -> float:
    return float(item["properties"].get("eo:cloud_cover", 100.0))


def _offset(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text


def _classification(item: Mapping[str, Any], source: SourceConfig, ds: xr.Dataset) -> xr.DataArray | None:
    """Clouds by the scene classification of an item, on the 20 m grid of its Dataset.

    It is opened in the place of a 20 m band, so that it gets the same checks, credentials and errors.
    """
    assets = checked(item)["assets"]
    own = next((assets[key] for key in _SCL if key in assets), None)
    if own is None:
        return None
    # Some catalogues do not describe its grid; the file is checked against that of B05 then.
    twin: Mapping[str, Any] = next(
        (asset for key, asset in assets.items() if band_of(key, asset) == "B05" and _is_20m(asset)), {}
    )
    asset = {key: twin[key] for key in _OF_ASSET if key in twin and key.startswith("proj:")}
    asset |= {key: own[key] for key in _OF_ASSET if key in own} | {"data_type": "uint8"}
    found = _open({**item, "assets": {"B05": asset}}, source, bands=["B05"], offset="none")["B05"].isel(time=0)
    try:
        # By place: the files of the bands may leave out what the classification covers.
        classes = found.sel(y20=ds["y20"].values, x20=ds["x20"].values, method="nearest", tolerance=1.0)
    except KeyError:
        raise SourceError(f"the SCL of item {item['id']} does not cover its bands. Leave the item out.") from None
    return _cloudy_classes(classes.drop_vars("time"))


def _is_20m(asset: Mapping[str, Any]) -> bool:
    return bool(asset.get("proj:shape")) and next(iter(asset.get("proj:transform") or [0])) == 20


def _paths(patterns: tuple[str, ...]) -> list[Path]:
    found = [sorted(glob.glob(pattern)) for pattern in patterns]
    return [Path(path) for paths in found for path in paths]


def _from_safe(source: SourceConfig) -> Iterator[tuple[str, xr.Dataset, Any]]:
    from eosr.open.safe.product import open_safe

    for path in _paths(source.paths):
        ds = open_safe(path, offset=_offset(source.offset), masks=True, stage=source.stage or None)
        for name, scene in named_scenes(ds).items():
            yield name, scene, None


def _from_cubes(source: SourceConfig) -> Iterator[tuple[str, xr.Dataset, Any]]:
    for path in _paths(source.paths):
        try:
            # mask_and_scale off: 0 is nodata, and digital numbers stay digital numbers.
            options: dict[str, Any] = {"decode_coords": "all", "mask_and_scale": False, "chunks": {}}
            ds = xr.open_zarr(path, **options) if path.is_dir() else xr.open_dataset(path, **options)
        except (OSError, ValueError, KeyError) as error:
            raise TrainingError(
                f"{path} is no cube that xarray opens ({first_line(error)}). Write it with eosr.to_zarr; NetCDF-4 "
                "needs pip install h5netcdf."
            ) from error
        scenes = named_scenes(ds)
        # A cube without item ids is called like its file.
        plain = [name for name in scenes if name == "scene"]
        for name, scene in scenes.items():
            yield (path.stem if name in plain and len(scenes) == 1 else name), scene, None
