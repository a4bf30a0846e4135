"""Dataset -> Zarr v3, block by block, so that a killed run loses one block and never looks finished.

While the store at ``x.zarr`` is unfinished, it lies at ``x.zarr.part``; beside it, ``x.zarr.part.done`` holds the
fingerprint of the input and one empty file per written block, and for a moment ``x.zarr.part.init`` the template.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.base import compute
from zarr.codecs import BloscCodec

from eosr.cube.radiometry import check_stated
from eosr.errors import NoRoomError, OutputError
from eosr.host.files import discard, held, put_text, settle, settle_all
from eosr.host.progress import Progress, reporting
from eosr.write.blocks import Block, blocks_of, fingerprint_of, prepared, write_blocks
from eosr.write.layout import FULL, check_absent, check_folder, layers_of, local_path, times_of

#: Bytes on disk per byte in memory, zstd-1 with bit-shuffling: 2.0 GB of 12 bands x 10980 x 10980 pixels x 2 bytes.
COMPRESSED = 0.7


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The names around one store."""

    final: Path

    @property
    def part(self) -> Path:
        return self.final.with_name(self.final.name + ".part")

    @property
    def init(self) -> Path:
        return self.final.with_name(self.final.name + ".part.init")

    @property
    def done(self) -> Path:
        return self.final.with_name(self.final.name + ".part.done")

    @property
    def lock(self) -> Path:
        return self.final.with_name(self.final.name + ".lock")

    @property
    def old(self) -> Path:
        return self.final.with_name(self.final.name + ".old")

    def done_blocks(self) -> set[Block]:
        """Blocks whose data are written, as told by their markers."""
        return {tuple(map(int, path.name.split("."))) for path in self.done.glob("*") if path.name[0].isdigit()}


def to_zarr(
    ds: xr.Dataset,
    path: str | Path,
    *,
    overwrite: bool = False,
    resume: bool | Literal["verify"] = True,
    progress: Progress = None,
) -> Path:
    """Write a Dataset as a Zarr v3 store and return its path; a killed run goes on where it stopped.

    Parameters
    ----------
    ds : Dataset
        Bands on ``([time,] y<g>, x<g>)`` for one or several of the groups 10, 20, 60; uint16 (0 = nodata) or float32
        (NaN = nodata). Dask or numpy; chunks that are uneven or do not nest 6:3:1 are made so. Computed on the active
        dask client, or else the active scheduler.
    path : path
        The store to make, on a disk that all workers see. It appears at the very end, complete.
    overwrite : bool
        Replace a store that is already at ``path``, once the new one is complete.
    resume : bool or "verify"
        True goes on with an unfinished run of the same input. The same input means: same bands, shapes, chunks,
        coordinates, attributes, version of eosr and dask names. Where only the dask names differ (signed URLs change
        them), ``"verify"`` computes one finished block again and goes on if it is equal. False starts anew.
    progress : callable or bool, optional
        Called with (blocks done, blocks in all); True shows a bar.

    Returns
    -------
    Path
        Open it with ``xr.open_zarr(path, decode_coords="all")``.

    Raises
    ------
    GridError
        If it is no Dataset, or its groups do not cover the same ground.
    OutputError
        If the store exists or is being written, the folder is not writable, the space does not suffice (before or
        during the run), an unfinished run of another input is there, or a block is not of the declared type.

    Notes
    -----
    One chunk of one band is one file (zstd level 1, bit-shuffled); no shards, since concurrent writes lose data in
    them. The nodata value is a plain attribute: as ``_FillValue`` it would turn uint16 into float32 on opening.
    Times are int64 ``seconds since 1970-01-01`` (microseconds if they have fractions of a second).
    """
    if resume not in (True, False, "verify"):
        raise OutputError(f'resume={resume!r} is not known. Use True, False or "verify".')
    check_stated(ds, "to_zarr")
    files = _Files(final=local_path(path))
    check_folder(files.final.parent, 0)
    with held([files.lock], files.final):
        _write(ds, files, overwrite=overwrite, resume=resume, progress=progress)
    return files.final


def _write(ds: xr.Dataset, files: _Files, *, overwrite: bool, resume: bool | str, progress: Progress) -> None:
    layers = layers_of(ds)
    ds = prepared(ds, layers)
    blocks = blocks_of(ds, layers)
    _check_existing(files, overwrite=overwrite)
    fingerprint = fingerprint_of(ds)
    done = _unfinished(files, fingerprint, resume=resume)
    share = 1 - len(done or ()) / len(blocks)
    check_folder(files.final.parent, int(COMPRESSED * share * sum(ds[name].nbytes for name in ds.data_vars)))
    with _full_disk_told(files, len(blocks)):
        if done is None:
            _make_template(ds, files, fingerprint)
            done = set()
        elif resume == "verify" and done and json.loads(_fingerprint_file(files).read_text()) != fingerprint:
            _verify(ds, files, sorted(done))
        missing = [block for block in blocks if block not in done]
        with reporting(progress, lambda: len(files.done_blocks()), len(blocks)):
            write_blocks(ds, files.part, files.done, missing)
    lost = len(blocks) - len(files.done_blocks())
    if lost:
        raise OutputError(
            f"{lost} of {len(blocks)} blocks of {files.part} were not written. Call to_zarr again to go on."
        )
    _finish(files)


def _check_existing(files: _Files, *, overwrite: bool) -> None:
    if not overwrite:
        check_absent([files.final])
    elif files.final.exists() and not any((files.final / name).is_file() for name in ("zarr.json", ".zgroup")):
        raise OutputError(
            f"{files.final} is there and is no Zarr store, so overwrite=True does not delete it. Move it away."
        )


def _fingerprint_file(files: _Files) -> Path:
    return files.done / "fingerprint.json"


def _unfinished(files: _Files, fingerprint: dict[str, Any], *, resume: bool | str) -> set[Block] | None:
    """Blocks that an earlier run of the same input has written, or None to begin at the beginning."""
    if not files.part.exists():
        return None
    if not _fingerprint_file(files).is_file():
        raise OutputError(f"{files.part} is there and is no unfinished run of eosr. Move it away, or write elsewhere.")
    if not resume:
        return None
    earlier = json.loads(_fingerprint_file(files).read_text())
    other = [part for part, value in fingerprint.items() if earlier.get(part) != value]
    if resume == "verify" and other == ["dask names"]:
        other = []
    if other:
        told = ' If it is the same input, opened again, try resume="verify".' if other == ["dask names"] else ""
        raise OutputError(
            f"{files.part} holds an unfinished run of another input (different: {', '.join(other)}).{told} "
            "Start anew with resume=False, or write elsewhere."
        )
    # What zarr was writing when it was killed; its chunks are written beside their place and renamed.
    for leftover in files.part.rglob("*.partial"):
        leftover.unlink(missing_ok=True)
    return files.done_blocks()


def _make_template(ds: xr.Dataset, files: _Files, fingerprint: dict[str, Any]) -> None:
    """Write all metadata and coordinates into ``.init``; its renaming starts the run."""
    # The pixels before their marks, and all at once: see `discard`.
    for leftover in (files.part, files.init, files.done):
        discard(leftover)
    files.done.mkdir()
    put_text(_fingerprint_file(files), json.dumps(fingerprint))
    codec = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    template, encoding = ds.copy(), dict[str, dict[str, Any]]()
    for name, band in ds.data_vars.items():
        empty = da.zeros(band.shape, chunks=band.data.chunks, dtype=band.dtype)
        template[name] = band.copy(data=empty)
        fill = 0 if band.dtype == "uint16" else np.float32("nan")
        chunks = tuple(sizes[0] for sizes in band.data.chunks)
        encoding[str(name)] = {"compressors": (codec,), "chunks": chunks, "fill_value": fill, **band.encoding}
    if "time" in ds.coords:
        stamps = [time for time in times_of(ds) if time is not None]
        unit = "seconds" if all(time == time.floor("s") for time in stamps) else "microseconds"
        encoding["time"] = {"units": f"{unit} since 1970-01-01", "calendar": "proleptic_gregorian", "dtype": "int64"}
    for name in ds.coords:
        template[name].encoding = {}
    template.to_zarr(files.init, mode="w", compute=False, zarr_format=3, consolidated=False, encoding=encoding)
    with warnings.catch_warnings():
        # xarray warns when consolidated metadata are missing, zarr when they are made in v3; nothing depends on them.
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        zarr.consolidate_metadata(files.init, zarr_format=3)
    settle_all(files.init)
    files.init.rename(files.part)
    settle(files.part.parent)


def _verify(ds: xr.Dataset, files: _Files, done: list[Block]) -> None:
    """Compute one finished block again, preferably one that is not all the same, and compare."""
    store = zarr.open_group(files.part, mode="r")
    for block in done:
        stored = [np.asarray(_array(store, name).blocks[block]) for name in map(str, ds.data_vars)]
        if any(values.min() != values.max() for values in stored):
            break
    again = compute(*(ds[name].data.blocks[block] for name in ds.data_vars))
    if not all(np.array_equal(a, b, equal_nan=b.dtype.kind == "f") for a, b in zip(again, stored, strict=True)):
        raise OutputError(
            f"{files.part} holds an unfinished run of another input (block {block}, computed again, differs). "
            "Start anew with resume=False, or write elsewhere."
        )


def _array(store: zarr.Group, name: str) -> zarr.Array[Any]:
    array = store[name]
    if not isinstance(array, zarr.Array):
        raise OutputError(
            f"{name} in {store.store_path} is no array: the store is damaged. Start anew with resume=False."
        )
    return array


def _finish(files: _Files) -> None:
    """Put the complete store in its place; an older one goes only after that."""
    if files.final.exists():
        shutil.rmtree(files.old, ignore_errors=True)
        files.final.rename(files.old)
    files.part.rename(files.final)
    settle(files.final.parent)
    shutil.rmtree(files.done, ignore_errors=True)
    shutil.rmtree(files.old, ignore_errors=True)


@contextmanager
def _full_disk_told(files: _Files, total: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, OutputError) or error.errno not in FULL:
            raise
        raise NoRoomError(
            f"{os.strerror(error.errno or errno.ENOSPC)} after {len(files.done_blocks())} of {total} blocks, which are "
            f"kept in {files.part}. Free some space and call to_zarr again to go on, or delete it."
        ) from error
