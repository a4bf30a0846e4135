"""Training patches on disk: one Zarr v3 store that every rank reads straight from, a patch at a time.

    NAME.zarr/
      zarr.json          attributes: format, settings, scenes, checksum
      scenes/00000/      the patches of a scene, arrays as `eosr.train.prepare.shards` makes them
      validation/00000/  the same arrays of one whole scene, n = 1

Pixels are native ones: the trainer degrades what it reads, by an operator of its own choice each time.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from dask.delayed import delayed

from eosr.cube.bands import BANDS, BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import degrade
from eosr.errors import TrainingError, first_line
from eosr.train.data.scenes import Scene
from eosr.train.prepare.shards import FORMAT, HOLE, Arrays, absent_shards, checksum_of, open_arrays, patch_of

#: Scenes whose arrays stay open.
_OPEN: Final = 256
_BANDS_OF: Final = {"x10": BANDS_10M, "x20": BANDS_20M, "x60": BANDS_60M}
#: What zarr and its codecs raise for a file that is damaged.
_DAMAGED: Final = (OSError, RuntimeError, ValueError, KeyError)


@dataclass(frozen=True, kw_only=True)
class SceneRecord:
    """What a store knows of a scene."""

    name: str
    level: str
    platform: str
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
        self._open: OrderedDict[int, dict[str, Any]] = OrderedDict()
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
            Naming the first scene that differs, or whose files are missing or damaged.
        """
        for kind, records in (("scenes", self.scenes), ("validation", self.validation_scenes)):
            for number, record in enumerate(records):
                arrays = _arrays(self.path, kind, number, record)
                if checksum_of(_read(arrays, i, self.path, record) for i in range(record.patches)) != record.checksum:
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
        TrainingError
            If its file is missing or damaged.
        """
        number, place = self._where(index)
        record = self.scenes[number]
        return _scene(_read(self._arrays(number), place, self.path, record), record, kept_out=False)

    def validation(self) -> list[Scene]:
        """Return the scenes kept out, whole, in memory."""
        return [
            _scene(_read(_arrays(self.path, "validation", k, one), 0, self.path, one), one, kept_out=True)
            for k, one in enumerate(self.validation_scenes)
        ]

    def degraded(self, indices: int | Sequence[int], factor: int, operator: str = "study") -> xr.Dataset:
        """Return patches degraded by Wald's protocol [DN], lazily: what a generator is shown of them.

        Parameters
        ----------
        indices : int or sequence of int
            Numbers of the patches.
        factor : int
            Pixel-size ratio: 2, 3 or 6.
        operator : str
            One of `eosr.cube.degradation.DEGRADATIONS`; the MTF is that of the satellite that took the scene.

        Returns
        -------
        Dataset
            One variable per band, dims (patch, y.., x..), float32, NaN where a hole is within reach of the blur; read
            when computed.

        Raises
        ------
        IndexError
            If there is no such patch.
        """
        numbers = [indices] if isinstance(indices, int) else list(indices)
        return xr.concat([degrade(self._lazy(k), factor, degradation=operator) for k in numbers], dim="patch",
                         combine_attrs="drop_conflicts")  # fmt: skip

    @cached_property
    def table(self) -> npt.NDArray[Any]:
        """Scene number, row and column of the core [10 m pixels] of every patch."""
        rows = np.empty(len(self), dtype=[("scene", "i4"), ("row", "i4"), ("column", "i4")])
        for number, (record, end) in enumerate(zip(self.scenes, self._ends, strict=True)):
            part = slice(int(end) - record.patches, int(end))
            places = np.asarray(_arrays(self.path, "scenes", number, record)["place"][:])
            rows["scene"][part] = number
            rows["row"][part], rows["column"][part] = places.T
        return rows

    def _where(self, index: int) -> tuple[int, int]:
        """Number of the scene, and of the patch in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has {len(self)} patches, none of number {index}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, int(index) - (int(self._ends[number - 1]) if number else 0)

    def _arrays(self, number: int) -> dict[str, Any]:
        with self._lock:
            arrays = self._open.pop(number, None)
            if arrays is None:
                arrays = _arrays(self.path, "scenes", number, self.scenes[number])
            self._open[number] = arrays
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        return arrays

    def _lazy(self, index: int) -> xr.Dataset:
        """Return a patch before degrading; a graph that holds names, not this store, so any worker can read it."""
        number, place = self._where(index)
        record = self.scenes[number]
        side = self.patch + 2 * self.margin
        shown = ("x10", "x20", "x60") if "x60" in self._arrays(number) else ("x10", "x20")
        read = delayed(_images, pure=True)(str(self.path), number, place, record)
        bands = {
            band: ((f"y{gsd}", f"x{gsd}"), da.from_delayed(read[key][k], (10 * side // gsd,) * 2, np.float32))
            for key in shown
            for k, (band, gsd) in enumerate((band, BANDS[band].gsd) for band in _BANDS_OF[key])
        }
        attrs = {"level": record.level, "platform": record.platform, "radiometric_offset": 0}
        return xr.Dataset(bands, coords={"patch": index}, attrs=attrs)


def _images(path: str, number: int, place: int, record: SceneRecord) -> Arrays:
    """Bands of a patch, NaN in holes; for workers, who have no store open."""
    found = _read(_arrays(Path(path), "scenes", number, record), place, Path(path), record)
    floats = {key: found[key].astype(np.float32) for key in _BANDS_OF if key in found}
    return {key: np.where(image == HOLE, np.float32(np.nan), image) for key, image in floats.items()}


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


def _arrays(path: Path, kind: str, number: int, record: SceneRecord) -> dict[str, Any]:
    folder = path / kind / f"{number:05d}"
    try:
        arrays = open_arrays(zarr.open_group(folder, mode="r"))
        lost = absent_shards(folder, arrays) + [
            name for name in ("x10", "x20", "usable", "place") if name not in arrays
        ]
    except _DAMAGED as error:
        raise _damaged(path, record, error) from error
    if lost:
        raise TrainingError(
            f"{len(lost)} files of {record.name} are missing in {path}, e.g. {kind}/{number:05d}/{lost[0]}: it was "
            "copied in part, or files were purged. Copy it again, or remove it and prepare it again."
        )
    return arrays


def _read(arrays: dict[str, Any], place: int, path: Path, record: SceneRecord) -> Arrays:
    try:
        return patch_of(arrays, place)
    except _DAMAGED as error:
        raise _damaged(path, record, error) from error


def _damaged(path: Path, record: SceneRecord, error: Exception) -> TrainingError:
    return TrainingError(
        f"the patches of {record.name} in {path} cannot be read ({first_line(error)}). Copy the store again, or "
        "remove it and prepare it again."
    )


def _scene(patch: Arrays, record: SceneRecord, *, kept_out: bool) -> Scene:
    def bands(name: str) -> npt.NDArray[np.float32]:
        image = patch[name].astype(np.float32)
        return np.where(image == HOLE, np.float32(0), image)

    row, column = patch["place"].tolist()
    return Scene(
        name=record.name if kept_out else f"{record.name}@{row},{column}", level=record.level, fine=bands("x10"),
        middle=bands("x20"), coarse=bands("x60") if "x60" in patch else None, usable=patch["usable"], kept_out=kept_out,
    )  # fmt: skip
