"""Dataset or Zarr -> one Cloud-Optimised GeoTIFF per band and time, window by window, checked before it appears.

While a run is unfinished, all of it lies in one hidden folder, ``.eosr-<fingerprint>.part``, inside the output folder.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import rasterio
import rasterio.shutil
import xarray as xr
import zarr
from rasterio.errors import RasterioError
from rasterio.windows import Window

from eosr._version import __version__
from eosr.cube.bands import QUANTIFICATION
from eosr.cube.grid import with_grid_mappings
from eosr.cube.radiometry import check_dataset, check_stated, for_its_times
from eosr.errors import NoRoomError, OutputError, first_line
from eosr.host.files import discard, held, put, put_text
from eosr.host.memory import cores
from eosr.host.progress import Progress, reporting
from eosr.write.blocks import fingerprint_of, prepared
from eosr.write.layout import (
    Layer,
    as_json,
    attrs_at,
    check_absent,
    check_folder,
    has_room,
    is_full,
    jsonable,
    labels_of,
    layers_of,
    local_path,
    spectral,
    times_of,
)
from eosr.write.store import COMPRESSED, to_zarr

#: Side of an internal tile [pixels].
TILE = 512
#: Rows and columns that are read from the Zarr at once, in whole chunks of it [pixels].
WINDOW = 1536
#: Most files that are made at the same time; each takes some room on the disk, and memory for a window.
AT_A_TIME = 12
#: GDAL's block cache [MB]; its default is 5 % of the memory of the machine.
CACHE_MB = 128
#: Pixels of an image with all its overviews per pixel of the image: 1 + 1/4 + 1/16 + ...
WITH_OVERVIEWS = 4 / 3


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One file to make."""

    path: Path
    #: What its name begins with.
    label: str
    band: str
    layer: Layer
    #: Index along time, or None where there is no such dimension.
    index: int | None
    dtype: str
    tags: Mapping[str, str]
    scale: float
    offset: float

    @property
    def nodata(self) -> float:
        return 0 if self.dtype == "uint16" else float("nan")


def to_cog(
    source: xr.Dataset | str | Path,
    folder: str | Path,
    *,
    overwrite: bool = False,
    prefix: str | None = None,
    overviews: Literal["average", "nearest"] = "average",
    progress: Progress = None,
) -> list[Path]:
    """Write every band and time as a Cloud-Optimised GeoTIFF on its own grid, and return the paths.

    Parameters
    ----------
    source : Dataset or path
        A Dataset (it is computed into a temporary Zarr first, block by block), or the path of a store that `to_zarr`
        made, which is read in place.
    folder : path
        Where the files go, named ``<item id, or date>_<band>_<pixel size>m.tif``.
    overwrite : bool
        Replace files of these names, each once its successor is complete.
    prefix : str, optional
        Begin the names with this instead of the item's id; with several times the date is appended.
    overviews : str
        How overviews are made: the mean of the valid pixels, or every second pixel (no new values).
    progress : callable or bool, optional
        Called with (done, total), for the blocks of the temporary Zarr and then for the files; True shows a bar.

    Returns
    -------
    list of Path
        By time, then in spectral order.

    Raises
    ------
    OutputError
        If the folder is a ``.tif`` or not writable, a file exists, files of these names are being
        written, the space does not suffice, or a file does not read
        back equal.
    GridError
        As `to_zarr`.

    Notes
    -----
    Deflate with predictor 2 (3 for float32), tiles of 512, nodata 0 (NaN for float32). Scale and offset turn the stored
    digital numbers into reflectance [1], and GIS programs apply them. Tags hold the attributes of the Dataset as JSON.
    A killed run of the same input goes on. Memory does not grow with the size of the image. Up to `AT_A_TIME` files are
    made at a time: as many as dask's ``num_workers``, or the cores of the process, and the room on the disk allow.
    """
    if overviews not in ("average", "nearest"):
        raise OutputError(f'overviews={overviews!r} is not known. Use "average" or "nearest".')
    target = local_path(folder)
    if target.suffix.lower() in (".tif", ".tiff"):
        raise OutputError(
            f"{target} names a file, and to_cog writes one file per band into a folder. "
            f"Give the folder: {str(target.with_suffix(''))!r}."
        )
    ds = for_its_times(with_grid_mappings(_opened(source)))
    check_stated(ds, "to_cog")
    layers = layers_of(ds)
    fingerprint = hashlib.sha256(as_json([fingerprint_of(prepared(ds, layers)), overviews]).encode()).hexdigest()[:12]
    jobs = _jobs(ds, layers, target, prefix)
    check_folder(target, 0)
    labels = sorted({job.label for job in jobs})
    with held([target / f".{label}.lock" for label in labels], target / f"{labels[0]}_*.tif"):
        _write_jobs(ds, source, jobs, fingerprint, target, overwrite=overwrite, overviews=overviews, progress=progress)
    return [job.path for job in jobs]


def _write_jobs(
    ds: xr.Dataset, source: xr.Dataset | str | Path, jobs: Sequence[_Job], fingerprint: str, target: Path, *,
    overwrite: bool, overviews: str, progress: Progress,
) -> None:  # fmt: skip
    work = target / f".eosr-{fingerprint}.part"
    finished = {job.path for job in jobs if _is_finished(job, work)}
    if not overwrite:
        check_absent([job.path for job in jobs if job.path not in finished])
    missing = [job for job in jobs if job.path not in finished]
    raw = [_bytes(job) for job in missing]
    store = local_path(source) if isinstance(source, str | Path) else work / "source.zarr"
    temporary = 0 if store.exists() else COMPRESSED * sum(ds[name].nbytes for name in ds.data_vars)
    # As many in every round: the last one shall not leave most threads without a file.
    rounds = -(-len(raw) // min(_threads(), AT_A_TIME)) or 1
    at_a_time = -(-len(raw) // rounds) or 1

    def needed() -> int:
        return int(COMPRESSED * sum(raw) * WITH_OVERVIEWS + temporary + room_beside(raw, at_a_time))

    while at_a_time > 1 and needed() > shutil.disk_usage(target).free:
        at_a_time -= 1
    check_folder(target, needed())
    work.mkdir(exist_ok=True)
    if not store.exists():
        to_zarr(ds, store, progress=progress)
    with reporting(progress, lambda: sum(job.path in finished for job in jobs), len(jobs), "writing files"):
        _write_all(missing, store, work, overviews, at_a_time, finished)
    discard(work)


def room_beside(raw: Sequence[int], at_a_time: int = 1) -> float:
    """Bytes that files take while they are made: at worst each lies there plain, its overviews apart, and as a COG.

    ``raw`` holds the bytes of the pixels of each file; what the finished files take is not in it.
    """
    return (1 + WITH_OVERVIEWS) * sum(sorted(raw)[-at_a_time:])


def _opened(source: xr.Dataset | str | Path) -> xr.Dataset:
    if isinstance(source, xr.Dataset):
        return source
    if not isinstance(source, str | Path):
        check_dataset(source, "to_cog")
    path = local_path(str(source))
    if not (path / "zarr.json").is_file():
        raise OutputError(f"{path} is no finished Zarr store. Give the path that eosr.to_zarr returned, or a Dataset.")
    try:
        return xr.open_zarr(path, decode_coords="all")
    except Exception as error:  # noqa: BLE001 - of a store that another program wrote, xarray and zarr raise what they like
        raise OutputError(
            f"{path} is no store that eosr wrote: {first_line(error)}. Give the path that eosr.to_zarr returned, or a "
            "Dataset of eosr.from_xarray."
        ) from None


def _jobs(ds: xr.Dataset, layers: Mapping[int, Layer], target: Path, prefix: str | None) -> list[_Job]:
    times, labels = times_of(ds), labels_of(ds)
    if prefix is not None:
        if not re.fullmatch(r"[\w.-]+", prefix):
            raise OutputError(
                f"prefix={prefix!r} cannot begin a file name. Use letters, digits, '_', '-' and '.' only."
            )
        dates = labels_of(ds.assign_attrs(item_ids=[]))
        labels = [prefix] if len(times) == 1 else [f"{prefix}_{date}" for date in dates]
    layer_of = {name: layer for layer in layers.values() for name in layer.names}
    jobs = []
    for index, (time, label) in enumerate(zip(times, labels, strict=True)):
        attrs = attrs_at(jsonable(ds.attrs), index, len(times))
        scale, offset = _scaling(attrs)
        tags = {
            "TIFFTAG_SOFTWARE": f"eosr {__version__}",
            "EOSR_VERSION": __version__,
            "EOSR_LABEL": label,
            "EOSR_TIME": "" if time is None else time.isoformat(),
            "EOSR_ATTRS": as_json(attrs),
        }
        for band in spectral(ds.data_vars):
            layer = layer_of[band]
            name = f"{label}_{band}_{layer.gsd:g}m.tif"
            jobs.append(
                _Job(
                    path=target / name,
                    label=label,
                    band=band,
                    layer=layer,
                    index=index if "time" in ds[band].dims else None,
                    dtype=ds[band].dtype.name,
                    tags=tags,
                    scale=scale,
                    offset=offset,
                )
            )
    return jobs


def _scaling(attrs: Mapping[str, Any]) -> tuple[float, float]:
    """Scale and offset that turn stored numbers into reflectance [1]."""
    if attrs.get("quantity") == "reflectance":
        return 1.0, 0.0
    quantification = attrs.get("quantification", QUANTIFICATION)
    return 1 / quantification, attrs["radiometric_offset"] / quantification


def _bytes(job: _Job) -> int:
    return int(np.prod(job.layer.shape)) * np.dtype(job.dtype).itemsize


def _done(job: _Job, work: Path) -> Path:
    """The file that says which COG an interrupted run has put in its place, or was about to put there.

    Nothing of it is in the COG: the same pixels are the same bytes, wherever and whenever they are written.
    """
    return work / f"{job.path.name}.done"


def _is_finished(job: _Job, work: Path) -> bool:
    try:
        return _done(job, work).read_text() == _mark_of(job.path)
    except OSError:
        return False


def _mark_of(path: Path) -> str:
    """What a file keeps when it is renamed, and no other file of its name has."""
    about = path.stat()
    return f"{about.st_size} bytes, {about.st_mtime_ns} ns"


def _threads() -> int:
    """Threads that this process may use: those that dask is told, or all its cores."""
    return dask.config.get("num_workers", None) or cores()


def _write_all(
    jobs: list[_Job], store: Path, work: Path, overviews: str, at_a_time: int, finished: set[Path]
) -> None:  # fmt: skip
    """Make the files, some at a time, as most steps of one take one core; put their paths into ``finished``.

    After a failure the files that are being made are still ended, and no other is begun.
    """
    broken, threads = threading.Event(), -(-_threads() // at_a_time)

    def make(job: _Job) -> None:
        if broken.is_set():
            return
        try:
            with _failures_told(job):
                _write(job, zarr.open_array(store=store / job.band, mode="r"), work, overviews, threads)
        except BaseException:
            broken.set()
            raise
        finished.add(job.path)

    with ThreadPoolExecutor(at_a_time, "eosr-cogs") as pool:
        list(pool.map(make, jobs))  # Ctrl-C cancels those that are not begun


def _write(job: _Job, data: zarr.Array[Any], work: Path, overviews: str, threads: int) -> None:
    """Pixels into a plain tiled GeoTIFF, that into a COG, the COG compared with the pixels, then put in its place."""
    plain, cog = work / f"{job.path.stem}.plain.tif", work / job.path.name
    # Why a plain file first, level 1 and uncompressed overviews beside: docs/decisions/cog-writer.md.
    options = {
        "COMPRESS": "DEFLATE", "PREDICTOR": "STANDARD" if job.dtype == "uint16" else "FLOATING_POINT", "LEVEL": 1,
        "BLOCKSIZE": TILE, "OVERVIEWS": "IGNORE_EXISTING", "OVERVIEW_RESAMPLING": overviews.upper(),
        "BIGTIFF": "IF_SAFER", "NUM_THREADS": str(threads),
    }  # fmt: skip
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB, COG_TMP_COMPRESSION="NONE"):
        sums = _write_plain(job, data, plain)
        rasterio.shutil.copy(plain, cog, driver="COG", **options)
        _check(job, sums, cog)
    plain.unlink()
    # The mark first: a run killed in between makes the file again, instead of taking its own for somebody else's.
    put_text(_done(job, work), _mark_of(cog))
    put(cog, job.path)


@dataclass(frozen=True, kw_only=True)
class _Sum:
    """What stands in a window of an image: pixels are read once, and compared by this."""

    window: Window
    digest: bytes

    @classmethod
    def of(cls, window: Window, pixels: np.ndarray) -> _Sum:
        return cls(window=window, digest=hashlib.sha256(np.ascontiguousarray(pixels).data).digest())


def _windows(job: _Job, data: zarr.Array[Any]) -> Iterator[tuple[slice, slice]]:
    rows, columns = job.layer.shape
    high, wide = (chunk * max(1, WINDOW // chunk) for chunk in data.chunks[-2:])
    for top in range(0, rows, high):
        for left in range(0, columns, wide):
            yield slice(top, min(top + high, rows)), slice(left, min(left + wide, columns))


def _write_plain(job: _Job, data: zarr.Array[Any], path: Path) -> list[_Sum]:
    height, width = job.layer.shape
    sums = []
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype=job.dtype, nodata=job.nodata,
        crs=job.layer.crs, transform=job.layer.transform, tiled=True, blockxsize=TILE, blockysize=TILE,
        BIGTIFF="IF_SAFER", SPARSE_OK=True,
    ) as file:  # fmt: skip
        file.descriptions = (job.band,)
        file.scales, file.offsets = (job.scale,), (job.offset,)
        file.units = ("reflectance",)
        file.update_tags(**job.tags)
        for rows, columns in _windows(job, data):
            pixels = np.asarray(data[(rows, columns) if job.index is None else (job.index, rows, columns)])
            window = Window.from_slices(rows, columns)
            file.write(pixels, 1, window=window)
            sums.append(_Sum.of(window, pixels))
    return sums


def _check(job: _Job, sums: list[_Sum], path: Path) -> None:
    """Compare all pixels: GDAL may report a full disk only on closing, where rasterio does not raise."""
    with rasterio.open(path) as file:
        for one in sums:
            if _Sum.of(one.window, file.read(1, window=one.window)) != one:
                raise (OutputError if has_room(path.parent, _bytes(job)) else NoRoomError)(
                    f"{job.path.name} does not read back as it was written (row {one.window.row_off} on), so it was "
                    "not put in its place. Check the free space of the disk and call to_cog again."
                )


@contextmanager
def _failures_told(job: _Job) -> Iterator[None]:
    try:
        yield
    except OutputError:
        raise
    except (OSError, RasterioError) as error:
        # GDAL tells the number of the system's error to nobody.
        full = is_full(error) or not has_room(job.path.parent, _bytes(job))
        cause = "the disk is full" if full else str(error) or type(error).__name__
        raise (NoRoomError if full else OutputError)(
            f"{job.path} could not be written: {cause}. Finished files are kept; free some space and call to_cog again."
        ) from error
