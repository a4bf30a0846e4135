"""Training patches on disk: one Zarr v3 store that every rank reads straight from, a patch at a time.

    NAME.zarr/
      zarr.json        attributes: format, settings, scenes, checksum; written last
      scenes/00000/    x10 (n, 4, s, s)  x20 (n, 6, s/2, s/2)  x60 (n, 2, s/6, s/6)  usable (n, s, s)  place (n, 2)
      validation/00000/  the same arrays of one whole scene, n = 1

Pixels are native ones: the trainer degrades what it reads, by an operator of its own choice each time. int16 holds
10000 x reflectance with the offset applied, -1000 to 32767; `HOLE` where nothing was measured.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from eosr.degrade import degrade
from eosr.errors import TrainingError
from eosr.train.scenes import Scene, as_dataset

#: Version of the layout.
FORMAT: Final = 1
#: Value of a pixel that was not measured, or is saturated.
HOLE: Final = -32768
#: Patches in one file, which one process writes at once: parallel writers of one file lose data.
SHARD: Final = 256
#: Scenes whose arrays stay open.
_OPEN: Final = 64
_ARRAYS: Final = ("x10", "x20", "x60", "usable", "place")

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """What a store knows of a scene."""

    name: str
    level: str
    tile: str
    item_ids: tuple[str, ...]
    #: Offset that was added to the digital numbers [DN].
    offset: int
    #: Patches kept, and places drawn.
    patches: int
    drawn: int
    #: Places left out, by the rule they broke.
    rejected: dict[str, int]
    #: SHA-256 of the pixels.
    checksum: str


def new_arrays(folder: Path, count: int, size: tuple[int, int], *, has_60m: bool, shard: int) -> zarr.Group:
    """Make arrays for ``count`` patches of rows x columns 10 m pixels: filled shard by shard, cut at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "x10": ((4, *size), "int16"), "x20": ((6, *(side // 2 for side in size)), "int16"),
        "usable": (size, "bool"), "place": ((2,), "int64"),
    }  # fmt: skip
    if has_60m:
        shapes["x60"] = ((2, *(side // 6 for side in size)), "int16")
    for name, (shape, kind) in shapes.items():
        # One patch is one chunk: it is read without its neighbours.
        group.create_array(
            name, shape=(count, *shape), chunks=(1 if name != "place" else shard, *shape), shards=(shard, *shape),
            dtype=kind, compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), fill_value=0,
        )  # fmt: skip
    return group


def put(group: zarr.Group, first: int, patches: Sequence[Arrays]) -> None:
    """Write patches in a row, ``first`` being the start of a shard."""
    for name in group.array_keys():
        array: Any = group[name]
        array[first : first + len(patches)] = np.stack([patch[name] for patch in patches])


def cut_to(group: zarr.Group, count: int) -> None:
    """Leave ``count`` patches."""
    for name in group.array_keys():
        array: Any = group[name]
        array.resize((count, *array.shape[1:]))


def checksum_of(patches: Iterator[Arrays]) -> str:
    """SHA-256 over the pixels of patches, in order."""
    total = hashlib.sha256()
    for patch in patches:
        for name in _ARRAYS:
            if name in patch:
                total.update(np.ascontiguousarray(patch[name]).tobytes())
    return total.hexdigest()


class PatchStore:
    """A store of `eosr-train prepare`, to be read by any number of threads and processes at once.

    Raises
    ------
    TrainingError
        If there is no such store, or it is not finished, or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        about = _attributes(self.path)
        settings = about["settings"]
        #: Side of a core and width of the context around it [10 m pixels].
        self.patch, self.margin = int(settings["patch"]), int(settings["margin"])
        self.scenes = [_record(one) for one in about["scenes"]]
        self.validation_scenes = [_record(one) for one in about["validation"]]
        #: Processing levels of the scenes.
        self.levels = tuple(sorted({one.level for one in (*self.scenes, *self.validation_scenes)}))
        self._checksum = str(about["checksum"])
        self._ends = np.cumsum([one.patches for one in self.scenes])
        self._groups: OrderedDict[int, zarr.Group] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of training patches."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def checksum(self) -> str:
        """Return the SHA-256 of everything that decides the pixels, as it was recorded when they were written."""
        return self._checksum

    def verify(self) -> None:
        """Read every patch and compare it with its scene's checksum.

        Raises
        ------
        TrainingError
            Naming the scene that differs.
        """
        for kind, records in (("scenes", self.scenes), ("validation", self.validation_scenes)):
            for number, record in enumerate(records):
                group = zarr.open_group(self.path / kind / f"{number:05d}", mode="r")
                if checksum_of(patch_of(group, i) for i in range(record.patches)) != record.checksum:
                    raise TrainingError(
                        f"the patches of {record.name} in {self.path} are not those that were written. Remove the "
                        "store and prepare it again."
                    )

    def scene(self, index: int) -> Scene:
        """Return a training patch with its margin, as a little scene; one read of a few hundred kilobytes.

        Raises
        ------
        IndexError
            If there is no such patch.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} patches, none of number {index}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        record = self.scenes[number]
        place = index - (int(self._ends[number - 1]) if number else 0)
        return _scene(patch_of(self._group(number), place), record, kept_out=False)

    def validation(self) -> list[Scene]:
        """Return the scenes kept out, whole, in memory."""
        groups = [
            zarr.open_group(self.path / "validation" / f"{number:05d}", mode="r")
            for number in range(len(self.validation_scenes))
        ]
        pairs = zip(groups, self.validation_scenes, strict=True)
        return [_scene(patch_of(group, 0), record, kept_out=True) for group, record in pairs]

    def degraded(self, index: int, factor: int, operator: str = "study") -> xr.Dataset:
        """Return a patch degraded by Wald's protocol, lazily: what a generator is shown of it."""
        return degrade(as_dataset(self.scene(index))[0].chunk(), factor, degradation=operator)

    @cached_property
    def table(self) -> npt.NDArray[Any]:
        """Scene number, row and column of the core [10 m pixels] of every patch."""
        rows = np.empty(len(self), dtype=[("scene", "i4"), ("row", "i4"), ("column", "i4")])
        for number, (record, end) in enumerate(zip(self.scenes, self._ends, strict=True)):
            part = slice(int(end) - record.patches, int(end))
            places: Any = self._group(number)["place"]
            rows["scene"][part] = number
            rows["row"][part], rows["column"][part] = np.asarray(places[:]).T
        return rows

    def _group(self, number: int) -> zarr.Group:
        with self._lock:
            group = self._groups.pop(number, None)
            if group is None:
                group = zarr.open_group(self.path / "scenes" / f"{number:05d}", mode="r")
            self._groups[number] = group
            if len(self._groups) > _OPEN:
                self._groups.popitem(last=False)
        return group


def _attributes(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise TrainingError(f"there is no store {path}. Make one with eosr-train prepare, or name another with --data.")
    try:
        about = json.loads((path / "zarr.json").read_text())["attributes"]["eosr"]
    except (OSError, ValueError, KeyError):
        raise TrainingError(
            f"the store {path} is not finished, or is none of eosr's. Run the same eosr-train prepare again; it goes "
            "on where it stopped."
        ) from None
    if about.get("format") != FORMAT:
        raise TrainingError(
            f"the store {path} has format {about.get('format')!r}, this eosr reads {FORMAT}. Prepare it again."
        )
    return dict(about)


def _record(told: dict[str, Any]) -> SceneRecord:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in told.items()}
    return SceneRecord(**values)


def patch_of(group: zarr.Group, place: int) -> Arrays:
    """Read one patch."""
    arrays: dict[str, Any] = {name: group[name] for name in _ARRAYS if name in group}
    return {name: np.asarray(array[place]) for name, array in arrays.items()}


def _scene(patch: Arrays, record: SceneRecord, *, kept_out: bool) -> Scene:
    def bands(name: str) -> npt.NDArray[np.float32]:
        image = patch[name].astype(np.float32)
        return np.where(image == HOLE, np.float32(0), image)

    row, column = patch["place"].tolist()
    return Scene(
        name=record.name if kept_out else f"{record.name}@{row},{column}", level=record.level, fine=bands("x10"),
        middle=bands("x20"), coarse=bands("x60") if "x60" in patch else None, usable=patch["usable"], kept_out=kept_out,
    )  # fmt: skip
