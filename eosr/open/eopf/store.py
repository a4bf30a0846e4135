"""Where an EOPF product lies, and how its arrays are read: Zarr on disk, in a zip archive, or over the network.

The rule is that of the files of STAC items: what the store holds, or a `SourceError` that names the array and says what
to do, without what is secret in an address. What is remote is asked for again.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import re
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import dask.array as da
import numpy as np
import numpy.typing as npt
import zarr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ZipStore

from eosr.cube.bands import TILE_SIDE
from eosr.errors import MissingExtraError, SourceError, first_line, without_secrets
from eosr.open.safe.files import AGAIN

Answer = TypeVar("Answer")

#: Side of the blocks that are read at once, about [pixels]; always whole chunks of the store.
BLOCK: Final = 1024
#: How often what is remote is asked for, and how often where no answer came.
_ATTEMPTS: Final = 3
_SILENT: Final = 2
#: Before the second time [s]; twice that before the third.
_PAUSE: Final = 0.2
#: Longest time of one request as a whole, in time-outs: a server may also send a byte now and then.
_WHOLE: Final = 10


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a product lies, as an error may name it; how it is asked for."""

    where: str
    remote: bool = False
    #: What was set for the wait for an answer [s]; None: the store has its own.
    timeout: float | None = None
    #: What helps where its grid is not as stated.
    again: str = AGAIN

    def ask(self, what: str, call: Callable[[], Answer], attempt: int = 1) -> Answer:
        """What a call returns; what is remote is asked again.

        Raises
        ------
        SourceError
            If it fails each time: what was asked for, what was answered, and what to do.
        """
        try:
            return call()
        except ImportError:
            raise
        except Exception as error:  # noqa: BLE001 - stores and codecs raise whatever they like
            again = self.remote and attempt < (_SILENT if isinstance(error, TimeoutError) else _ATTEMPTS)
            told = self._error(what, error)
        if not again:
            # Not while the other is handled: its text may tell a signature, and aiohttp's kinds cannot be pickled, so
            # that a worker could not send ours with it.
            raise told
        time.sleep(_PAUSE * attempt)
        return self.ask(what, call, attempt + 1)

    def _error(self, what: str, error: Exception) -> SourceError:
        name = f"{self.where}/{what}" if what else self.where
        status = getattr(error, "status", None)
        if isinstance(error, TimeoutError):
            set_to = "" if self.timeout is None else f" (timeout={self.timeout:g} s)"
            longer = "" if self.timeout is None else f", or wait longer: timeout={2 * self.timeout:g}"
            return SourceError(f"cannot read {name}: no answer in time, twice{set_to}. Try again later{longer}.")
        if isinstance(status, int) and status:
            reason = f"HTTP status {status} ({getattr(error, 'message', '')})".removesuffix(" ()")
        else:
            reason = first_line(error)
        if status in (401, 403):
            hint = "The server refuses. A signature in the address may have run out: get a new address."
        elif status == 429 or (isinstance(status, int) and status >= 500):
            hint = "The server fails or is busy. Try again later."
        elif what:
            hint = "Check that the product is whole and in reach."
        else:
            return SourceError(
                f"{name} is no Zarr store that can be read ({reason}). Name the root of an EOPF product: the folder "
                "that ends in .zarr, its zip archive, or its URL."
            )
        return SourceError(f"cannot read {name}: {reason}. {hint}")


@dataclass(frozen=True, kw_only=True)
class Raster:
    """One array of a product, with the attributes that its store keeps."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]
    array: zarr.Array[Any]
    place: Place

    def values(self) -> npt.NDArray[Any]:
        """All of it, now."""
        return read(self.array, (slice(None),) * len(self.shape), self.path, self.place)

    def lazy(self, version: object) -> da.Array:
        """Pixels, dims (y, x), lazy, in blocks of whole chunks of the store; ``version`` changes when they do."""
        cuts = normalize_chunks(block_sides(self.array.chunks), self.shape)
        # Names of the graph depend on the product alone: a killed `to_zarr` recognises its input when it is opened
        # again, with another signature too.
        about = json.dumps([self.array.metadata.to_dict(), version], sort_keys=True, default=str)
        dtype = self.dtype.newbyteorder("=")
        return da.map_blocks(
            _block, chunks=cuts, dtype=dtype, meta=np.empty((0, 0), dtype), array=self.array, path=self.path,
            place=self.place,
            name=f"eopf-{self.path.rpartition('/')[2]}-{tokenize(self.place.where, self.array.path, about)}",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """The arrays of a Zarr group by their paths below it."""

    place: Place
    root: zarr.Group

    def attributes(self) -> dict[str, Any]:
        """Attributes of the root."""
        return dict(self.root.attrs.asdict())

    def get(self, path: str) -> Raster | None:
        """One array; None if there is none of this name. Without consolidated metadata this asks the store."""
        found = self.place.ask(path, lambda: self.root.get(path))
        if not isinstance(found, zarr.Array):
            return None
        sides = found.shards or found.chunks
        if math.prod(sides) > (TILE_SIDE // 10) ** 2:  # a chunk is unpacked as a whole
            raise SourceError(
                f"{path} of {self.place.where} is packed in chunks of {' x '.join(map(str, sides))} pixels, more than "
                "a tile of Sentinel-2 has. Get it again, or rewrite it: array.chunk(...).to_zarr(...)."
            )
        return Raster(
            path=path, shape=found.shape, dtype=found.dtype, attrs=found.attrs.asdict(), array=found, place=self.place
        )


def block_sides(chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Rows and columns that are read at once: whole chunks of the store, about `BLOCK` pixels."""
    return tuple(max(1, round(BLOCK / chunk)) * chunk for chunk in chunks)


def read(array: zarr.Array[Any], window: tuple[slice, ...], path: str, place: Place) -> npt.NDArray[Any]:
    """Pixels of a window; where that fails over the network, chunk by chunk.

    A window is many requests, and the first that fails ends it: read as a whole again, another may fail.
    """
    if not place.remote:
        return place.ask(path, lambda: np.asarray(array[window]))
    try:
        return np.asarray(array[window])
    except Exception as error:  # noqa: BLE001 - as above
        attempt = 2 if isinstance(error, TimeoutError) else 1
    ranges = [range(*one.indices(length)) for one, length in zip(window, array.shape, strict=True)]
    pixels = np.empty([len(one) for one in ranges], array.dtype)
    cuts = (
        [one[at : at + side] for at in range(0, len(one), side)] for one, side in zip(ranges, array.chunks, strict=True)
    )
    for piece in itertools.product(*cuts):
        at = tuple(slice(one.start, one.stop) for one in piece)
        here = tuple(
            slice(one.start - all_.start, one.stop - all_.start) for one, all_ in zip(piece, ranges, strict=True)
        )
        pixels[here] = place.ask(path, functools.partial(array.__getitem__, at), attempt)
    return pixels


def _block(array: zarr.Array[Any], path: str, place: Place, block_info: Any = None) -> npt.NDArray[Any]:
    window = tuple(slice(first, last) for first, last in block_info[None]["array-location"])
    return read(array, window, path, place).astype(block_info[None]["dtype"], copy=False)


def open_arrays(source: str | os.PathLike[str] | zarr.Group, timeout: float) -> Arrays:
    """Root group of a product on disk, in a zip archive, or at an address; or one that is open.

    Raises
    ------
    SourceError
        If there is nothing, no Zarr store, or no answer; or if it is something else.
    MissingExtraError
        If the address needs a package that is not installed.
    """
    if isinstance(source, zarr.Group):
        return Arrays(place=_place_of(source), root=source)
    if not isinstance(source, str | os.PathLike):
        raise SourceError(
            f"source is of type {type(source).__name__}, which is no EOPF product. Give the path or address of one, or "
            "what xr.open_datatree(path, engine='zarr', chunks={}) or zarr.open_group(path, mode='r') returns."
        )
    address = str(source).rstrip("/")
    remote = "://" in address
    if not remote:
        place, path = _on_disk(source)
    else:
        place, path = Place(where=without_secrets(address).rstrip("/"), remote=True, timeout=timeout), ""

    def opened() -> zarr.Group:
        store: FsspecStore | LocalStore | ZipStore
        if remote:
            bare, options = _http(address, timeout)
            store = FsspecStore.from_url(bare, options, read_only=True)
        elif Path(place.where).is_dir():
            store = LocalStore(place.where, read_only=True)
        else:
            store = ZipStore(place.where, mode="r")
        return zarr.open_group(store, path=path, mode="r")

    try:
        with warnings.catch_warnings():
            # Types of text that zarr calls unstable stand in the coordinates of the angles; they are not read. Where a
            # server answers anything with a page, zarr warns of two formats, and tells the address with its password.
            warnings.simplefilter("ignore", category=FutureWarning)
            warnings.simplefilter("ignore", category=UserWarning)
            return Arrays(place=place, root=place.ask("", opened))
    except ImportError as error:
        lacking = "'eosr[eopf]'" if address.startswith("http") else getattr(error.__cause__, "name", "fsspec[full]")
        raise MissingExtraError(f"{error}, to read {place.where}. Run: pip install {lacking}") from error


def _place_of(group: zarr.Group) -> Place:
    store = group.store
    if isinstance(store, LocalStore | ZipStore | FsspecStore):
        root = str(store.root if isinstance(store, LocalStore) else store.path)
        where = f"{without_secrets(root).rstrip('/')}/{group.path}".rstrip("/")
    else:
        where = f"the group {group.path or '/'} given"
    return Place(where=where, remote=not isinstance(store, LocalStore | ZipStore | MemoryStore))


def _on_disk(source: str | os.PathLike[str]) -> tuple[Place, str]:
    """Where a folder or an archive is, and the folder of the product inside."""
    where = Path(source).expanduser().absolute()
    if not where.exists():
        raise SourceError(f"there is no {source}. Name the .zarr folder of an EOPF product, its zip, or its URL.")
    return Place(where=str(where)), "" if where.is_dir() else _root_in_zip(str(where))


def _http(address: str, timeout: float) -> tuple[str, dict[str, Any]]:
    """An address without its query, and the options of fsspec: time-outs, and the query for each request."""
    if not address.startswith(("http://", "https://")):
        return address, {}
    from aiohttp import ClientTimeout

    waits = ClientTimeout(total=_WHOLE * timeout, sock_connect=timeout, sock_read=timeout)
    bare, _, query = address.partition("?")
    # zarr would put the names of its files behind the signature.
    signed = {"params": parse_qsl(query, keep_blank_values=True)} if query else {}
    return bare.rstrip("/"), {"client_kwargs": {"timeout": waits}, **signed}


def _root_in_zip(where: str) -> str:
    """Folder of the product inside the archive: ``""`` or ``"S2B_....zarr"``."""
    if not zipfile.is_zipfile(where):
        raise SourceError(f"{where} is neither a folder nor a whole zip archive. {AGAIN}")
    with zipfile.ZipFile(where) as archive:
        names = archive.namelist()
    roots = [name.rpartition("/")[0] for name in names if re.fullmatch(r"([^/]+/)?(\.zgroup|zarr\.json)", name)]
    return min(roots, key=len, default="")
