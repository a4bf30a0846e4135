"""Arrays of a patch store on disk: made, filled a shard at a time, read a patch at a time, summed up.

    x10 (n, 4, s, s)  x20 (n, 6, s/2, s/2)  x60 (n, 2, s/6, s/6)  usable (n, s, s)  place (n, 2)

int16 holds 10000 x reflectance with the offset applied, -1000 to 32767, which loses nothing of what is not saturated;
`HOLE` where nothing was measured. One process writes a shard: parallel writers of one file lose data.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec

#: Version of the layout.
FORMAT: Final = 2
#: Value of a pixel that was not measured, or is saturated.
HOLE: Final = -32768
#: Patches in one file.
SHARD: Final = 256
ARRAYS: Final = ("x10", "x20", "x60", "usable", "place")

#: Arrays of one patch, by name.
Arrays = dict[str, npt.NDArray[Any]]


def new_arrays(folder: Path, count: int, size: tuple[int, int], *, has_60m: bool, shard: int = SHARD) -> zarr.Group:
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
            # Every shard is a file, so that one that is missing can be told from one of zeros: see `absent_shards`.
            config={"write_empty_chunks": True},
        )  # fmt: skip
    return group


@dataclass(kw_only=True)
class ShardWriter:
    """Patches on their way into new arrays, a shard at a time."""

    group: zarr.Group
    waiting: list[Arrays] = field(default_factory=list)
    written: int = 0

    def add(self, patch: Arrays) -> None:
        """Take one patch; write a shard where it makes one full."""
        self.waiting.append(patch)
        if len(self.waiting) == SHARD:
            self._flush()

    def finish(self) -> str:
        """Write the rest, cut the arrays to what was written, and return the SHA-256 of what stands on disk."""
        self._flush()
        for name in self.group.array_keys():
            array: Any = self.group[name]
            array.resize((self.written, *array.shape[1:]))
        arrays = open_arrays(self.group)
        return checksum_of(patch_of(arrays, place) for place in range(self.written))

    def _flush(self) -> None:
        if self.waiting:
            for name in self.group.array_keys():
                array: Any = self.group[name]
                array[self.written : self.written + len(self.waiting)] = np.stack([one[name] for one in self.waiting])
            self.written += len(self.waiting)
            self.waiting = []


def open_arrays(group: zarr.Group) -> dict[str, Any]:
    """Open the arrays of a group by name; zarr reads their metadata anew whenever they are asked of the group."""
    return {name: group[name] for name in ARRAYS if name in group}


def patch_of(arrays: dict[str, Any], place: int) -> Arrays:
    """Read one patch."""
    return {name: np.asarray(array[place]) for name, array in arrays.items()}


def checksum_of(patches: Iterator[Arrays]) -> str:
    """SHA-256 over the pixels of patches, in order."""
    total = hashlib.sha256()
    for patch in patches:
        for name in ARRAYS:
            if name in patch:
                total.update(np.ascontiguousarray(patch[name]).tobytes())
    return total.hexdigest()


def absent_shards(folder: Path, arrays: dict[str, Any]) -> list[str]:
    """Files that the arrays lack; zarr would read them as zeros without a word."""
    return [
        str(file.relative_to(folder))
        for name, array in arrays.items()
        for number in range(-(-array.shape[0] // array.shards[0]))
        if not (file := folder.joinpath(name, "c", str(number), *["0"] * (array.ndim - 1))).is_file()
    ]


def write_attributes(path: Path, about: dict[str, Any]) -> None:
    """Make the folder a Zarr group with these attributes; what is below it becomes part of it."""
    # What zarr was writing here when it was killed before.
    for leftover in [*path.glob("*.partial"), *path.glob("*/*.partial")]:
        leftover.unlink()
    group = zarr.open_group(path, mode="a", zarr_format=3)
    for name in ("scenes", "validation"):
        group.require_group(name)
    group.attrs["eosr"] = about
