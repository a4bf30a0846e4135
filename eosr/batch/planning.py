"""Items -> the scenes of a batch: what is made of what, where, how large; and what cannot work, before it runs."""

from __future__ import annotations

import importlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import xarray as xr

from eosr.cube.bands import BANDS, BANDS_60M, bands_of
from eosr.errors import BatchError, EosrError, EosrWarning, GridError
from eosr.host.files import name_for
from eosr.open.acquisitions import by_datatake, timestamp
from eosr.open.catalogue.plain import plain
from eosr.open.catalogue.search import find_items
from eosr.open.items import read_item
from eosr.open.scene import Scene as Image
from eosr.open.stac import open_stac
from eosr.sharpen.superresolution import superresolve
from eosr.write.delivery import Format

#: Side of a chunk of a whole tile, which it cuts into four by four [10 m pixels]: half the halo of the usual 1536, in a
#: gigabyte more for each tile that is worked on (benchmarks/README.md).
WHOLE: Final = 2748
#: Share of the raw pixels that a band takes on disk; measured on synthetic tiles with noise, real ones take less.
_OF_RAW: Final = {"zarr": 0.7, "cog": 0.95, "both": 1.65}
#: CPU seconds per million 10 m pixels of the shipped weights, with reading and writing (benchmarks/README.md).
_CPU_20M, _CPU_60M = 8.5, 7.0


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How every scene of a batch is opened, sharpened and written; arguments of the functions of these names.

    What is in it must fit into JSON: it is written beside the results, and goes to every worker.
    """

    # eosr.open_stac
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str = "EPSG:4326"
    #: None: `WHOLE` for whole tiles and the shipped kind of weights, else the default of `eosr.open_stac`.
    chunks: int | None = None
    offset: str | int = "auto"
    alternate: str | None = None
    gdal_env: Mapping[str, str] = field(default_factory=dict)
    #: Function that signs hrefs, ``"module:function"``, e.g. ``"planetary_computer:sign"``; each worker calls its own.
    sign: str | None = None
    # eosr.superresolve
    bands: tuple[str, ...] | None = None
    weights: tuple[str, ...] | None = None
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    consistency: bool | None = None
    degradation: str = "auto"
    device: str = "auto"
    dtype: str = "uint16"
    # eosr.write.deliver
    format: Format = "both"

    def __post_init__(self) -> None:
        """Refuse what no worker could be told, or would find out only in the end."""
        if self.format not in get_args(Format):
            known = ", ".join(map(repr, get_args(Format)))
            raise BatchError(f"format={self.format!r} is not known. Use one of {known}.")
        for name in ("bands", "weights"):
            if isinstance(getattr(self, name), str):
                value = getattr(self, name)
                raise BatchError(
                    f"{name}={value!r} is one text where several names are meant. Give {name}=({value!r},)."
                )
        for one in fields(self):
            value = getattr(self, one.name)
            try:
                json.dumps(value if not isinstance(value, Mapping) else dict(value))
            except (TypeError, ValueError):
                raise BatchError(
                    f"{one.name}={value!r} has no place in JSON, which goes to the workers. Give text, numbers or "
                    "lists of them, e.g. dtype='uint16'."
                ) from None

    @property
    def read_chunks(self) -> int | None:
        """Chunks to open a scene with."""
        whole = self.bbox is None and self.method in (None, "eosr")
        return WHOLE if self.chunks is None and whole else self.chunks

    @property
    def read_bands(self) -> list[str] | None:
        """Bands that must be there; None: all of the level. Guides are bands too, so all of those at 10 m and 20 m."""
        if self.bands is None:
            return None
        coarse = any(name in BANDS_60M for name in self.bands)
        return [name for name, band in BANDS.items() if name != "B10" and (band.gsd < 60 or coarse)]


@dataclass(frozen=True, kw_only=True)
class PlannedScene:
    """All items of one tile and datatake, and what is made of them."""

    #: Name, and folder of the results below ``scenes``.
    name: str
    level: str
    tile: str
    #: Source items, as they were found.
    items: tuple[Mapping[str, Any], ...] = field(repr=False)
    #: Bands that are written.
    bands: tuple[str, ...]
    #: Size [10 m pixels].
    rows: int
    columns: int
    #: What it takes on disk, and the time of one core, about [byte], [s]; 0 where nobody has measured it.
    size: int
    cpu: float

    @property
    def item_ids(self) -> list[str]:
        """Ids of the source items."""
        return ids_of(self.items)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a batch will make."""

    scenes: tuple[PlannedScene, ...]
    #: Scenes found that lie outside of the window.
    outside: tuple[str, ...] = ()
    #: Items, and scenes, of which nothing can be made -> why.
    odd: Mapping[str, str] = field(default_factory=dict)
    #: Settings that it was made with.
    config: BatchConfig | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """On disk, about [byte]."""
        return sum(scene.size for scene in self.scenes)

    @property
    def cpu(self) -> float:
        """Time of one core, about [s]."""
        return sum(scene.cpu for scene in self.scenes)

    @property
    def area(self) -> float:
        """Ground [km2], what overlaps counted twice."""
        return sum(scene.rows * scene.columns for scene in self.scenes) * 1e-4

    def __str__(self) -> str:
        bands = sum(len(scene.bands) for scene in self.scenes)
        hours = f", {self.cpu / 3600:.1f} core hours" if self.cpu else ""
        odd = f"; {len(self.odd)} more cannot be made" if self.odd else ""
        return (
            f"{len(self.scenes)} scenes of {len({scene.tile for scene in self.scenes})} tiles, {self.area:.0f} km2, "
            f"{bands} bands at 10 m; about {readable(self.size)}{hours}{odd}"
        )


def ids_of(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of items, in order."""
    return sorted(str(item["id"]) for item in items)


def readable(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def plan(items: Any, config: BatchConfig) -> Plan:
    """Share items out into scenes and say what will be made; nothing is read but the items.

    Parameters
    ----------
    items : sequence of dict, path or pystac objects
        STAC items, e.g. of `eosr.open.find_items`, or what it takes: the path of a file, an ItemCollection, ... An
        item that is there twice counts once.
    config : BatchConfig

    Returns
    -------
    Plan
        Items that cannot be read are in ``odd``, with the reason.

    Raises
    ------
    BatchError
        If there is no item, levels are mixed, or two scenes would be written to one place.
    EosrError
        If no item can be read: why not the first.
    """
    found = _items(items)
    if not found:
        raise BatchError("there is no item to sharpen. Widen the search, e.g. a longer datetime.")
    odd: dict[str, EosrError] = {}
    readable: list[tuple[Mapping[str, Any], Image]] = []
    for number, item in enumerate(found, start=1):
        try:
            image = read_item(item, bands=config.read_bands, offset=config.offset)
        except EosrError as error:
            odd[str(item.get("id") or f"item {number}")] = error
        else:
            readable.append((item, image))
    _check_levels([image for _, image in readable])
    item_of = {id(image): item for item, image in readable}
    groups = [[(item_of[id(image)], image) for image in group] for group in by_datatake(image for _, image in readable)]
    scenes: list[PlannedScene] = []
    outside: list[str] = []
    for group in groups:
        try:
            _place(group, config, scenes, outside)
        except BatchError:
            raise
        except EosrError as error:
            odd[", ".join(ids_of([item for item, _ in group]))[:100]] = error
    if not scenes and odd and not outside:
        raise next(iter(odd.values()))
    if not scenes:
        raise BatchError(f"none of {len(outside)} scenes lies in bbox={config.bbox}. Correct it, or leave it away.")
    names = Counter(scene.name.casefold() for scene in scenes)  # some file systems take "a" and "A" for one name
    twice = [scene for scene in scenes if names[scene.name.casefold()] > 1]
    if twice:
        ids = ", ".join(repr(str(item.get("id"))) for scene in twice[:2] for item in scene.items[:1])
        raise BatchError(
            f"two scenes would be written to {twice[0].name}: items {ids}, of other days or tiles. Search one "
            "collection, or give one of them."
        )
    _check_sharpens(scenes, config)
    return Plan(
        scenes=tuple(sorted(scenes, key=lambda scene: scene.name)), outside=tuple(sorted(outside)), config=config,
        odd={name: str(error) for name, error in sorted(odd.items())},
    )  # fmt: skip


def _items(source: Any) -> list[Mapping[str, Any]]:
    """Items as dicts, each once: a list that is written down twice would else be another one."""
    try:
        members = None if isinstance(source, str | Path | Mapping) else list(source)
    except TypeError:
        members = None
    if members is None or not all(isinstance(one, Mapping) for one in members):
        members = list(find_items(source if members is None else members))
    members = [plain(item) for item in members]
    return list({json.dumps(item, sort_keys=True, default=str): item for item in reversed(members)}.values())[::-1]


def _place(
    group: Sequence[tuple[Mapping[str, Any], Image]],
    config: BatchConfig,
    scenes: list[PlannedScene],
    outside: list[str],
) -> None:
    """Add the scene of a group to those that are made, or to those outside of the window."""
    try:
        scenes.append(_scene(group, config))
    except GridError:
        if config.bbox is None or not _outside(group, config):
            raise
        outside.append(_name(group))


def _check_sharpens(scenes: Sequence[PlannedScene], config: BatchConfig) -> None:
    """Tell now what cannot be sharpened so, by the first of the scenes that is not odd itself; nothing is computed."""
    first: GridError | None = None
    for scene in scenes:
        try:
            sharpened(open_scene(scene.items, config), config)
        except GridError as error:
            # E.g. a sliver, smaller than what changes one pixel: it is set aside when it is made.
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _check_levels(images: Sequence[Image]) -> None:
    levels = Counter(image.level for image in images)
    if len(levels) > 1:
        told = " and ".join(f"{count} of {level}" for level, count in sorted(levels.items()))
        raise BatchError(
            f"the items are of two levels, {told}, and one set of results is of one. Search one collection, e.g. "
            "--collection sentinel-2-c1-l2a (collection='sentinel-2-c1-l2a')."
        )


def open_scene(items: Sequence[Mapping[str, Any]], config: BatchConfig) -> xr.Dataset:
    """Open the items of one scene, lazily, as `eosr.open_stac` does."""
    with warnings.catch_warnings():
        # The window is the region of the batch: every scene at its edge is cut by it.
        warnings.filterwarnings("ignore", message="bbox=", category=EosrWarning)
        return _opened(items, config)


def _opened(items: Sequence[Mapping[str, Any]], config: BatchConfig) -> xr.Dataset:
    return open_stac(
        list(items), bbox=config.bbox, bbox_crs=config.bbox_crs, bands=config.read_bands,
        chunks=config.read_chunks, offset=config.offset, alternate=config.alternate, gdal_env=config.gdal_env,
        sign=None if config.sign is None else signer(config.sign),
    )  # fmt: skip


def sharpened(ds: xr.Dataset, config: BatchConfig) -> xr.Dataset:
    """Sharpen one scene, lazily, as `eosr.superresolve` does."""
    return superresolve(
        ds, weights=None if config.weights is None else list(config.weights), method=config.method,
        options=dict(config.options) or None, bands=None if config.bands is None else list(config.bands),
        consistency=config.consistency, degradation=config.degradation, device=config.device, dtype=config.dtype,
    )  # fmt: skip


def signer(name: str) -> Callable[[str], str]:
    """Return the function of ``"module:function"``.

    Raises
    ------
    BatchError
        If there is none.
    """
    module, _, function = name.partition(":")
    try:
        found: Callable[[str], str] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise BatchError(
            f"sign={name!r} names no function here ({error}). Give module:function, e.g. "
            "sign='planetary_computer:sign', and install the module on the workers."
        ) from None
    return found


def _name(group: Sequence[tuple[Mapping[str, Any], Image]]) -> str:
    image, ids = group[0][1], sorted({one.id for _, one in group})
    start = image.datatake or str(timestamp(image).astype("datetime64[s]")).replace("-", "").replace(":", "")
    name = ids[0] if len(ids) == 1 else "_".join((image.platform, image.tile, start, image.level))
    return name_for(name)


def _scene(group: Sequence[tuple[Mapping[str, Any], Image]], config: BatchConfig) -> PlannedScene:
    image, items = group[0][1], tuple(item for item, _ in group)
    ds = open_scene(items, config)
    rows, columns = ds.sizes["y10"], ds.sizes["x10"]
    bands = tuple(config.bands or [one for one in bands_of(image.level) if one != "B10"])
    shipped = config.method in (None, "eosr") and config.weights is None
    per_million = _CPU_20M + (_CPU_60M if any(one in BANDS_60M for one in bands) else 0)
    return PlannedScene(
        name=_name(group), level=image.level, tile=image.tile, items=items, bands=bands, rows=rows, columns=columns,
        size=int(rows * columns * len(bands) * np.dtype(config.dtype).itemsize * _OF_RAW[config.format]),
        cpu=rows * columns / 1e6 * per_million if shipped else 0.0,
    )  # fmt: skip


def _outside(group: Sequence[tuple[Mapping[str, Any], Image]], config: BatchConfig) -> bool:
    """Whether the window alone is why a scene cannot be opened."""
    open_scene([item for item, _ in group], replace(config, bbox=None))
    return True
