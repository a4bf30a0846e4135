"""Pixels of a SAFE product as lazy arrays: every JPEG 2000 tile is decoded once per computation, or once for good.

Blocks of whole JPEG 2000 tiles are read and cut into the Dataset's chunks afterwards (docs/decisions/jpeg2000.md).
"""

from __future__ import annotations

import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from dask.base import tokenize
from dask.delayed import delayed
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.windows import Window

from eosr.errors import OutputError, SourceError
from eosr.host.files import put
from eosr.open.rasters import check_blocks, open_raster
from eosr.open.reading import ALWAYS, GDAL_ENV, read_error
from eosr.open.safe.checksums import check_whole
from eosr.open.safe.metadata import Image

#: Side of the blocks that are decoded at once [pixels], by pixel size [m]: whole tiles of the files; a 60 m band whole.
BLOCKS: Final = {10: 1024, 20: 1280, 60: 2048}
_ENV: Final = {**GDAL_ENV, **ALWAYS}
#: Of staged files: internal tiles that make up every default chunk, and fast lossless compression.
_PROFILE: Final = {
    "driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "zstd", "zstd_level": 1,
    "predictor": 2, "bigtiff": "if_safer",
}  # fmt: skip
_TAG: Final = "EOSR_STAGED_FROM"
#: Age at which an unfinished file beside a staged one is taken for a dead process's [s].
_DEAD: Final = 6 * 3600


def lazy_image(image: Image, chunk: int, stage: Path | None) -> da.Array:
    """Pixels of one file, dims (layer, y, x), lazy.

    Parameters
    ----------
    image : Image
    chunk : int
        Side of the chunks of the answer [pixels of the image].
    stage : path or None
        Folder in which the file is kept decoded, once it was read.

    Raises
    ------
    SourceError
        When computed: if the file cannot be read, is not on the grid that the metadata state, or not as it was
        delivered; see `eosr.open.safe.checksums`.
    OutputError
        When computed: if the decoded file cannot be written.
    """
    side = chunk if stage else BLOCKS[image.gsd]
    # Names of the graph depend on the file alone: a killed `to_zarr` recognises its input when it is opened again.
    token = tokenize(image, side, str(stage))
    source: Any = image.href
    if stage is not None:
        # One task per file; all blocks wait for it.
        source = delayed(staged)(image, stage, dask_key_name=f"stage-{image.name}-{token}")
    blocks = da.map_blocks(
        _block, chunks=((image.layers,), _cut(image.rows, side), _cut(image.columns, side)), dtype=image.dtype,
        meta=np.empty((0, 0, 0), image.dtype), name=f"safe-{image.name}-{token}", image=image, source=source,
    )  # fmt: skip
    return blocks.rechunk((image.layers, chunk, chunk))


def _cut(length: int, side: int) -> tuple[int, ...]:
    return tuple(min(side, length - start) for start in range(0, length, side))


def _block(image: Image, source: str, block_info: Any = None) -> npt.NDArray[Any]:
    _, (top, bottom), (left, right) = block_info[None]["array-location"]
    pixels = read_window(image, source, Window(left, top, right - left, bottom - top))
    if source == image.href:
        check_whole(image)
    return pixels


def read_window(image: Image, source: str, window: Window) -> npt.NDArray[Any]:
    """Pixels of a window, dims (layer, y, x), from the file itself or from the staged one.

    Raises
    ------
    SourceError
        If the file cannot be read, or is not on the grid that the metadata state.
    """
    try:
        with rasterio.Env(**_ENV), open_raster(source) as file:
            _check(image, source, file)
            return file.read(window=window).astype(image.dtype, copy=False)
    except (RasterioError, RuntimeError, OSError) as error:
        failure = read_error(source, error)
    raise failure  # not inside `except`: see `eosr.open.reading.read_twice`


def _check(image: Image, source: str, file: Any) -> None:
    """Compare the header of an open file with what the metadata of its product say."""
    step = file.transform
    # Decimal fractions of a metre are how some writers round the corner.
    corners = abs(step.c - image.left) + abs(step.f - image.top) < 1e-3 * image.gsd
    steps = abs(step.a - image.gsd) + abs(step.e + image.gsd) < 1e-6 * image.gsd
    if file.shape != (image.rows, image.columns) or not corners or not steps:
        raise SourceError(
            f"{source} has {file.height} x {file.width} pixels of {step.a:g} m from ({step.c:.0f}, {step.f:.0f}); the "
            f"metadata of its product state {image.rows} x {image.columns} of {image.gsd} m from ({image.left:.0f}, "
            f"{image.top:.0f}). It was resampled or cut after it was delivered; get the product again."
        )
    if file.crs is not None and file.crs != CRS.from_epsg(image.epsg):
        raise SourceError(
            f"{source} is in {file.crs}, the metadata of its product say EPSG:{image.epsg}. Get the product again."
        )
    if file.count != image.layers or not np.can_cast(file.dtypes[0], image.dtype):
        raise SourceError(
            f"{source} holds {file.count} layers of {file.dtypes[0]}, not {image.layers} of {image.dtype}. Get the "
            "product again."
        )
    check_blocks(source, file)


def staged(image: Image, folder: Path) -> str:
    """Path of the decoded copy of a file, a tiled GeoTIFF; made now if it is not there or is of another file.

    Raises
    ------
    SourceError
        If the file cannot be read, or is not as it was delivered.
    OutputError
        If the copy cannot be written.

    Notes
    -----
    The copy is written under another name, read again, and renamed: what bears its name is whole. Two processes that
    make it at the same time do the work twice and leave one.
    """
    target = folder / f"{image.name}.tif"
    if _is_of(target, image):
        return str(target)
    part = folder / f"{target.name}.{uuid.uuid4().hex[:12]}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_dead(folder, target.name)
        _copy(image, part)
        put(part, target)
    except (RasterioError, OSError) as error:
        raise OutputError(
            f"cannot write {target}: {error}. Free some space, or name a folder that can be written: stage='...'."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()
    return str(target)


def _is_of(target: Path, image: Image) -> bool:
    if not target.is_file():
        return False
    try:
        with rasterio.Env(**_ENV), open_raster(str(target)) as file:
            return bool(file.tags().get(_TAG) == image.stamp)
    except RasterioError:
        return False


def _remove_dead(folder: Path, name: str) -> None:
    for one in folder.glob(f"{name}.*.part"):
        if time.time() - one.stat().st_mtime > _DEAD:
            one.unlink(missing_ok=True)


def _copy(image: Image, part: Path) -> None:
    """Decode strip by strip, then compare the checksum of every strip: a full disk need not be told on closing."""
    transform = Affine(image.gsd, 0, image.left, 0, -image.gsd, image.top)
    sums = []
    with rasterio.open(
        part, "w", width=image.columns, height=image.rows, count=image.layers, dtype=image.dtype,
        crs=CRS.from_epsg(image.epsg), transform=transform, **_PROFILE,
    ) as file:  # fmt: skip
        file.update_tags(**{_TAG: image.stamp})
        for strip in _strips(image):
            pixels = read_window(image, image.href, strip)
            file.write(pixels, window=strip)
            sums.append(zlib.crc32(pixels.tobytes()))
    check_whole(image)
    with rasterio.open(part) as file:
        for strip, checksum in zip(_strips(image), sums, strict=True):
            if zlib.crc32(file.read(window=strip).tobytes()) != checksum:
                raise OSError(f"what was written differs from {image.href}")


def _strips(image: Image) -> Iterator[Window]:
    top = 0
    for height in _cut(image.rows, BLOCKS[image.gsd]):
        yield Window(0, top, image.columns, height)
        top += height
