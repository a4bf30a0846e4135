"""`eosr-train prepare`: scenes -> patches -> one Zarr store; killed at any moment, it goes on.

One scene is written at a time, strip by strip, into a folder that gets its name only when it is whole; the store's
attributes, without which nobody opens it, come last. So a killed run leaves whole scenes and at most one part.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.base import compute

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.errors import GridError, OutputError, TrainingError
from eosr.patches import patch_places, why_rejected
from eosr.train.prepare_config import PrepareConfig
from eosr.train.prepare_sources import FoundScene, find_scenes
from eosr.train.state import differences
from eosr.train.store import FORMAT, HOLE, SHARD, Arrays, SceneRecord, checksum_of, cut_to, new_arrays, patch_of, put

#: Rows of a scene that are read at once [10 m pixels], beside the patches that begin in them.
STRIP: Final = 1536
#: Called with (scenes done, scenes in all).
Progress = Callable[[int, int], None]
_GROUPS: Final = (("x10", BANDS_10M, 1), ("x20", BANDS_20M, 2), ("x60", BANDS_60M, 6))


def prepare(config: PrepareConfig, out: Path, *, progress: Progress | None = None) -> Path:
    """Make the store ``OUT/NAME.zarr``, or go on with it; return its path.

    Reading is done by dask, on whatever scheduler is active.

    Parameters
    ----------
    config : PrepareConfig
    out : Path
        Folder that the store lies in.
    progress : callable, optional
        Called when a scene is done.

    Raises
    ------
    TrainingError
        If sources match nothing or cannot be used, no patch passes the filter, or the folder holds the store of another
        configuration.
    OutputError
        If nothing can be written.
    """
    path = out / f"{config.name}.zarr"
    part = out / f"{config.name}.zarr.part"
    scenes = find_scenes(config)
    kept_out = split(scenes, config)
    if all(scene.name in kept_out for scene in scenes):
        raise TrainingError(
            f"all {len(scenes)} scenes are kept out for validation. Add scenes of other places, or give a smaller "
            "validation below [split]."
        )
    told = {**asdict(config), "scenes": [scene.name for scene in scenes]}
    try:
        if path.exists():
            _check_same(path / "zarr.json", told, path)
            return path
        part.mkdir(parents=True, exist_ok=True)
        _check_same(part / "settings.json", told, path)
        _write_json(part / "settings.json", told)
        records = _write_scenes(scenes, kept_out, config, part, progress)
        _finish(part, path, told, records)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"the store {path} cannot be written: {error}. Make room or correct the rights, then start the same "
            "command again; it goes on where it stopped."
        ) from error
    return path


def split(scenes: Sequence[FoundScene], config: PrepareConfig) -> set[str]:
    """Names of the scenes that are kept out for validation: whole places, so no ground is on both sides."""
    if config.split.names:
        named = {scene.name for scene in scenes if any(text in scene.name for text in config.split.names)}
        unused = [text for text in config.split.names if not any(text in scene.name for scene in scenes)]
        if unused:
            raise TrainingError(f"[split] names {', '.join(unused)}, which no scene is called. Correct the line.")
        # The place of a named scene goes with it.
        places = {_place(scene, config) for scene in scenes if scene.name in named}
        return {scene.name for scene in scenes if _place(scene, config) in places}
    places_in_order = sorted({_place(scene, config) for scene in scenes})
    count = int(np.ceil(config.split.validation * len(places_in_order) - 1e-9))
    chosen = np.random.default_rng((config.seed, 1)).permutation(len(places_in_order))[:count]
    out = {places_in_order[number] for number in chosen}
    return {scene.name for scene in scenes if _place(scene, config) in out}


def _place(scene: FoundScene, config: PrepareConfig) -> str:
    """What stays on one side: the MGRS tile, or the cell of a grid of degrees."""
    if config.split.by == "scene" and scene.tile:
        return scene.tile
    side = config.split.degrees if config.split.by == "geography" else 1.0
    return f"{np.floor(scene.latitude / side):.0f},{np.floor(scene.longitude / side):.0f}"


def _write_scenes(
    scenes: Sequence[FoundScene], kept_out: set[str], config: PrepareConfig, part: Path, progress: Progress | None
) -> dict[str, list[SceneRecord]]:
    records: dict[str, list[SceneRecord]] = {"scenes": [], "validation": []}
    for done, scene in enumerate(scenes):
        kind = "validation" if scene.name in kept_out else "scenes"
        folder = part / kind / f"{len(records[kind]):05d}"
        written = folder.parent / f"{folder.name}.json"
        if progress:
            progress(done, len(scenes))
        if not written.is_file():
            work = folder.parent / f"{folder.name}.part"
            record = (_whole if kind == "validation" else _patches)(scene, config, work)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(work, folder)
            # The record last: it is the sign that the folder beside it is whole.
            _write_json(written, asdict(record))
        told = json.loads(written.read_text())
        records[kind].append(SceneRecord(**told | {"item_ids": tuple(told["item_ids"])}))
    if progress:
        progress(len(scenes), len(scenes))
    _check_enough(records["scenes"])
    return records


def _check_enough(records: Sequence[SceneRecord]) -> None:
    kept, drawn = sum(one.patches for one in records), sum(one.drawn for one in records)
    if kept:
        return
    lost: Counter[str] = Counter()
    for one in records:
        lost.update(one.rejected)
    told = ", ".join(f"{rule} {100 * count / drawn:.0f} %" for rule, count in lost.most_common())
    raise TrainingError(
        f"none of {drawn} patches passes the filter ({told}). Choose clearer scenes, or give larger shares below "
        "[filter]."
    )


@dataclass(kw_only=True)
class _Writer:
    """Patches of one scene on their way to disk, a shard at a time."""

    group: zarr.Group
    waiting: list[Arrays] = field(default_factory=list)
    written: int = 0

    def add(self, patch: Arrays) -> None:
        self.waiting.append(patch)
        if len(self.waiting) == SHARD:
            self.flush()

    def flush(self) -> None:
        if self.waiting:
            put(self.group, self.written, self.waiting)
            self.written += len(self.waiting)
            self.waiting = []


def _patches(scene: FoundScene, config: PrepareConfig, folder: Path) -> SceneRecord:
    """Write the patches of one scene."""
    size, margin = config.patch + 2 * config.margin, config.margin
    rows, columns = scene.ds.sizes["y10"], scene.ds.sizes["x10"]
    try:
        places = patch_places(
            rows, columns, patch=config.patch, margin=margin, count=config.per_scene or None, seed=config.seed,
            name=scene.name,
        )  # fmt: skip
    except GridError as error:
        raise TrainingError(str(error)) from error
    group = new_arrays(folder, len(places), (size, size), has_60m="B01" in scene.ds, shard=SHARD)
    writer, rejected = _Writer(group=group), Counter[str]()
    for top, strip, cloudy, inside in _strips(scene, places, size, margin):
        for row, column in inside:
            corner = (int(row) - margin - top, int(column) - margin)
            bands = _cut(strip, corner, size)
            own = None if cloudy is None else _cut_image(cloudy, corner, size, strip["B02"].shape[0])
            if reason := why_rejected(bands, own, config.filter):
                rejected[reason] += 1
                continue
            writer.add(_stored(bands, own, scene.offset, (int(row), int(column))))
    writer.flush()
    cut_to(group, writer.written)
    checksum = checksum_of(patch_of(group, i) for i in range(writer.written))
    return _record(scene, patches=writer.written, drawn=len(places), rejected=dict(rejected), checksum=checksum)


def _strips(
    scene: FoundScene, places: npt.NDArray[np.int64], size: int, margin: int
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]], Any, npt.NDArray[np.int64]]]:
    """Read the scene in strips of rows, each with the places whose patches begin in it."""
    for first in range(0, scene.ds.sizes["y10"], STRIP):
        inside = places[(places[:, 0] - margin >= first) & (places[:, 0] - margin < first + STRIP)]
        if len(inside):
            last = min(int(inside[:, 0].max()) - margin + size, scene.ds.sizes["y10"])
            strip, cloudy = _read(scene, slice(first, last), slice(0, scene.ds.sizes["x10"]))
            yield first, strip, cloudy, inside


def _read(scene: FoundScene, rows: slice, columns: slice) -> tuple[dict[str, npt.NDArray[Any]], Any]:
    """Pixels of all bands in a window of 10 m pixels, and its clouds on their own grid; one computation."""

    def window(array: xr.DataArray) -> Any:
        y, x = map(str, array.dims[-2:])
        step = scene.ds.sizes["y10"] // scene.ds.sizes[y]
        spans = ((y, rows), (x, columns))
        return array.isel({dim: slice(span.start // step, -(-span.stop // step)) for dim, span in spans}).data

    wanted = {name: window(scene.ds[name]) for name in map(str, scene.ds.data_vars)}
    found, cloudy = compute(wanted, None if scene.cloudy is None else window(scene.cloudy))
    return found, cloudy


def _cut(strip: dict[str, npt.NDArray[Any]], corner: tuple[int, int], size: int) -> dict[str, npt.NDArray[Any]]:
    return {name: _cut_image(image, corner, size, strip["B02"].shape[0]) for name, image in strip.items()}


def _cut_image(image: npt.NDArray[Any], corner: tuple[int, int], size: int, rows: int) -> npt.NDArray[Any]:
    step = rows // image.shape[0]
    top, left, side = corner[0] // step, corner[1] // step, size // step
    return image[top : top + side, left : left + side]


def _stored(bands: dict[str, npt.NDArray[Any]], cloudy: Any, offset: int, place: tuple[int, int]) -> Arrays:
    """Arrays of one patch as they are written."""
    patch: Arrays = {"place": np.array(place, np.int64)}
    rows = bands["B02"].shape[0]
    usable = np.ones(bands["B02"].shape, bool)
    for key, names, step in _GROUPS:
        if names[0] not in bands:
            continue
        images = np.stack([bands[name] for name in names]).astype(np.int32)
        shifted = images + offset
        hole = (images == 0) | (images == 65535) | (shifted > 32767)
        patch[key] = np.where(hole, HOLE, shifted).astype(np.int16)
        usable &= ~hole.any(axis=0).repeat(step, 0).repeat(step, 1)
    if cloudy is not None:
        step = rows // cloudy.shape[0]
        usable &= ~cloudy.repeat(step, 0).repeat(step, 1)
    return patch | {"usable": usable}


def _whole(scene: FoundScene, config: PrepareConfig, folder: Path) -> SceneRecord:
    """Write the middle of a scene that is kept out."""
    nested = 36
    spans = []
    for axis in "yx":
        length = scene.ds.sizes[f"{axis}10"]
        side = min(length, config.split.size) // nested * nested
        start = (length - side) // 2 // 6 * 6
        spans.append(slice(start, start + side))
    if min(span.stop - span.start for span in spans) < nested:
        raise TrainingError(f"{scene.name} is kept out for validation and smaller than {nested} pixels of 10 m.")
    bands, cloudy = _read(scene, *spans)
    patch = _stored(bands, cloudy, scene.offset, (spans[0].start, spans[1].start))
    size = patch["usable"].shape
    group = new_arrays(folder, 1, (size[0], size[1]), has_60m="x60" in patch, shard=1)
    put(group, 0, [patch])
    return _record(scene, patches=1, drawn=1, rejected={}, checksum=checksum_of(iter([patch])))


def _record(scene: FoundScene, *, patches: int, drawn: int, rejected: dict[str, int], checksum: str) -> SceneRecord:
    return SceneRecord(
        name=scene.name, level=scene.level, tile=scene.tile, item_ids=scene.item_ids, offset=scene.offset,
        patches=patches, drawn=drawn, rejected=rejected, checksum=checksum,
    )  # fmt: skip


def _finish(part: Path, path: Path, told: dict[str, Any], records: dict[str, list[SceneRecord]]) -> None:
    """Write the attributes, take away the markers, and give the store its name."""
    plain = {kind: [asdict(one) for one in several] for kind, several in records.items()}
    # The name of the store and what was drawn in vain decide no pixel.
    rests = [[kind, one["checksum"], one["level"]] for kind, several in plain.items() for one in several]
    checksum = hashlib.sha256(json.dumps([FORMAT, told["patch"], told["margin"], rests]).encode()).hexdigest()
    group = zarr.open_group(part, mode="a", zarr_format=3)
    group.attrs["eosr"] = {"format": FORMAT, "settings": told, **plain, "checksum": checksum}
    for marker in [*part.glob("*/*.json"), part / "settings.json"]:
        if marker.name != "zarr.json":
            marker.unlink()
    for leftover in part.glob("*/*.part"):
        shutil.rmtree(leftover)
    os.replace(part, path)


def _check_same(file: Path, told: dict[str, Any], path: Path) -> None:
    """Refuse a store that was begun with other settings."""
    if not file.is_file():
        return
    before = json.loads(file.read_text())
    before = before.get("attributes", {}).get("eosr", {}).get("settings", before)
    now = json.loads(json.dumps(told))
    if before != now:
        raise TrainingError(
            f"{path} was begun with another configuration or other scenes{differences(before, now)}. Use another name "
            "or folder, or remove it."
        )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(".writing")
    part.write_text(json.dumps(content, indent=1, sort_keys=True))
    os.replace(part, path)
