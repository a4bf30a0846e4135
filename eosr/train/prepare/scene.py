"""One scene -> its patches in new arrays: read in strips by dask, filtered, cut, written a shard at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import compute

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.errors import EosrError, TrainingError
from eosr.train.prepare.config import NESTED, PrepareConfig
from eosr.train.prepare.patches import PHASE, why_rejected
from eosr.train.prepare.plan import Job
from eosr.train.prepare.shards import HOLE, Arrays, ShardWriter, new_arrays
from eosr.train.prepare.sources import FoundScene
from eosr.train.prepare.store import SceneRecord

#: Rows of a scene that are read at once [10 m pixels]: one row of the chunks of `eosr.open_stac`.
STRIP: Final = 1536
_GROUPS: Final = (("x10", BANDS_10M, 1), ("x20", BANDS_20M, 2), ("x60", BANDS_60M, 6))
#: What readers and codecs raise for a file that is missing or damaged.
_UNREADABLE: Final = (OSError, RuntimeError, ValueError, KeyError)

#: Pixels by band, and clouds on their own grid or None.
Pixels = tuple[dict[str, npt.NDArray[Any]], Any]


def write_scene(job: Job, config: PrepareConfig, folder: Path, *, step: Callable[[int], None]) -> SceneRecord:
    """Write the patches of one scene, or the part of a scene kept out, into new arrays in ``folder``.

    Parameters
    ----------
    job : Job
    config : PrepareConfig
    folder : Path
        Emptied first.
    step : callable
        Called with the number of patches looked at since the last call.

    Raises
    ------
    TrainingError
        If the scene cannot be read, or nothing of one that is kept out is of use.
    """
    record = (_whole if job.kind == "validation" else _patches)(job, config, folder, step)
    scene = job.scene
    return SceneRecord(
        name=scene.name, level=scene.level, platform=scene.platform, tile=scene.tile, item_ids=scene.item_ids,
        offset=scene.offset, drawn=job.drawn, **record,
    )  # fmt: skip


def _patches(job: Job, config: PrepareConfig, folder: Path, step: Callable[[int], None]) -> dict[str, Any]:
    scene, size, margin = job.scene, config.patch + 2 * config.margin, config.margin
    writer = ShardWriter(group=new_arrays(folder, len(job.places), (size, size), has_60m="B01" in scene.ds))
    rejected = Counter({"kept out": job.drawn - len(job.places)})
    for top, (strip, cloudy), inside in _strips(scene, job.places - margin, size):
        rows = strip["B02"].shape[0]
        for row, column in inside.tolist():
            bands = {name: _cut(image, row - top, column, size, rows) for name, image in strip.items()}
            own = None if cloudy is None else _cut(cloudy, row - top, column, size, rows)
            if reason := why_rejected(bands, own, config.filter):
                rejected[reason] += 1
            else:
                writer.add(stored(bands, own, scene.offset, (row + margin, column + margin)))
        step(len(inside))
    checksum = writer.finish()
    return {"patches": writer.written, "rejected": {k: n for k, n in rejected.items() if n}, "checksum": checksum}


def _strips(
    scene: FoundScene, corners: npt.NDArray[np.int64], size: int
) -> Iterator[tuple[int, Pixels, npt.NDArray[np.int64]]]:
    """Read the scene from the top down, every pixel once: rows, first row, and the squares that are whole in them."""
    if not len(corners):
        return
    kept: Pixels | None = None
    # Only what is above no square is left out: the strips stay those of the chunks.
    first = int(corners[:, 0].min()) // STRIP * STRIP
    end = int(corners[:, 0].max()) + size
    top = first
    for start in range(first, end, STRIP):
        stop = min(start + STRIP, end)
        read = _read(scene, slice(start, stop), slice(0, scene.ds.sizes["x10"]))
        pixels = read if kept is None else _below(kept, read)
        ends = corners[:, 0] + size
        inside = corners[(ends > start) & (ends <= stop)]
        if len(inside):
            yield top, pixels, inside
        # The lower squares begin at most this far above the next strip.
        keep = min(size, stop - first)
        top = stop - keep
        kept = _last_rows(pixels, keep)


def _below(upper: Pixels, lower: Pixels) -> Pixels:
    bands = {name: np.concatenate([image, lower[0][name]]) for name, image in upper[0].items()}
    return bands, None if upper[1] is None else np.concatenate([upper[1], lower[1]])


def _last_rows(pixels: Pixels, count: int) -> Pixels:
    rows = pixels[0]["B02"].shape[0]

    def cut(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # A copy: a view would hold the whole strip.
        return image[image.shape[0] - count * image.shape[0] // rows :].copy()

    return {name: cut(image) for name, image in pixels[0].items()}, None if pixels[1] is None else cut(pixels[1])


def _read(scene: FoundScene, rows: slice, columns: slice, names: tuple[str, ...] = ()) -> Pixels:
    """Pixels of bands (default: all) in a window of 10 m pixels, and its clouds on their own grid; one computation."""

    def window(array: xr.DataArray) -> Any:
        y, x = map(str, array.dims[-2:])
        step = scene.ds.sizes["y10"] // scene.ds.sizes[y]
        spans = ((y, rows), (x, columns))
        return array.isel({dim: slice(span.start // step, span.stop // step) for dim, span in spans}).data

    wanted = {name: window(scene.ds[name]) for name in names or map(str, scene.ds.data_vars)}
    try:
        found, cloudy = compute(wanted, None if scene.cloudy is None else window(scene.cloudy))
    except EosrError:
        raise
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"the pixels of {scene.name} cannot be read ({reason}). Mend the file or leave the scene out, then start "
            "the same command again."
        ) from error
    return found, cloudy


def _cut(image: npt.NDArray[Any], row: int, column: int, size: int, rows: int) -> npt.NDArray[Any]:
    """Square of an image that has ``rows`` rows of 10 m, in its own pixels."""
    step = rows // image.shape[0]
    top, left, side = row // step, column // step, size // step
    return image[top : top + side, left : left + side]


def stored(bands: dict[str, npt.NDArray[Any]], cloudy: Any, offset: int, place: tuple[int, int]) -> Arrays:
    """Arrays of one patch as they are written: reflectance in int16, holes marked, and the pixels that are of use."""
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


def _whole(job: Job, config: PrepareConfig, folder: Path, step: Callable[[int], None]) -> dict[str, Any]:
    rows, columns = _clearest(job.scene, config.split.size)
    bands, cloudy = _read(job.scene, rows, columns)
    patch = stored(bands, cloudy, job.scene.offset, (rows.start, columns.start))
    if not patch["usable"].any():
        raise TrainingError(
            f"nothing of {job.scene.name}, which is kept out for validation, is of use: no data, saturated or cloud. "
            "Name another scene below [split], or leave it out."
        )
    size = patch["usable"].shape
    writer = ShardWriter(group=new_arrays(folder, 1, (size[0], size[1]), has_60m="x60" in patch, shard=1))
    writer.add(patch)
    step(1)
    return {"patches": 1, "rejected": {}, "checksum": writer.finish()}


def _clearest(scene: FoundScene, largest: int) -> tuple[slice, slice]:
    """Window of a scene with the largest share of pixels of use, judged by B05 and clouds; the nearest to the middle.

    The middle alone would not do: the edge of the swath runs through many tiles.
    """
    sizes = [scene.ds.sizes[dim] for dim in ("y10", "x10")]
    sides = [min(size, largest) // NESTED * NESTED for size in sizes]
    starts = [_starts(size, side) for size, side in zip(sizes, sides, strict=True)]
    windows = [(slice(r, r + sides[0]), slice(c, c + sides[1])) for r in starts[0] for c in starts[1]]
    if len(windows) == 1:
        return windows[0]
    bands, cloudy = _read(scene, slice(0, sizes[0]), slice(0, sizes[1]), ("B05",))
    good = (bands["B05"] != 0) & (bands["B05"] != 65535)
    if cloudy is not None:
        step = max(1, good.shape[0] // cloudy.shape[0])
        mask = cloudy[::2, ::2] if cloudy.shape[0] > good.shape[0] else cloudy.repeat(step, 0).repeat(step, 1)
        good &= ~mask

    def rank(window: tuple[slice, slice]) -> tuple[float, float]:
        share = float(good[tuple(slice(span.start // 2, span.stop // 2) for span in window)].mean())
        off = sum(abs(span.start + span.stop - size) for span, size in zip(window, sizes, strict=True))
        return round(share, 3), -off

    return max(windows, key=rank)


def _starts(size: int, side: int) -> list[int]:
    """First pixels of windows over one axis, in phase with the 60 m grid, the middle one among them."""
    last = (size - side) // PHASE * PHASE
    return sorted({*range(0, last, side), last // 2 // PHASE * PHASE, last})
