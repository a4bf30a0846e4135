"""The loader behind `eosr.open_stac`: stackstac, reduced to reading files on their own grid.

It reads plain items made here from `eosr.open.scene.Scene` (docs/decisions/plain-items.md). Before the first pixels of
a file are used, its header is compared with the item. What fails over the network is read once more.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import dask.array as da
import numpy as np
import rasterio.errors
import stackstac
from rasterio.windows import Window
from stackstac.rio_reader import (
    AutoParallelRioReader,
    LayeredEnv,
    SelfCleaningDatasetReader,
    SingleThreadedRioDataset,
    ThreadLocalRioDataset,
)

from eosr.cube.bands import NODATA
from eosr.cube.grid import STEPS
from eosr.errors import SourceError
from eosr.open.rasters import SEALED, Bounds, check_file, open_raster, place_in
from eosr.open.scene import Asset, Scene

Read = TypeVar("Read")

#: GDAL options of every read. Retries and time-outs, because GDAL has neither by default.
#: LOW_SPEED: 20 s below 100 bytes a second end a request: a server may also send a byte now and then. GDAL 3.10 does
#: not ask again then, as it does after TIMEOUT, and asks five times for one block by itself: a server that stalls would
#: else hold a block for 5 x 6 x 30 s.
GDAL_ENV: Final = {
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.2",
    "GDAL_HTTP_TIMEOUT": "30",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_TIME": "20",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
}

#: Side of what is read at once [px]: the blocks of COGs are this large (AWS), or a half or a quarter of it.
_READ: Final = 1024

#: What no option may overrule. One thread, or errors of JPEG 2000 tiles are lost (docs/decisions/jpeg2000.md).
ALWAYS: Final = {**SEALED, "GDAL_NUM_THREADS": "1"}

#: Names under which a file has been read again in this process; see `read_twice`.
_NAMES: Final = itertools.count(1)

#: What rasterio and stackstac raise when a file cannot be read.
_FAILURES: Final = (rasterio.errors.RasterioError, RuntimeError, OSError)

#: What GDAL says of a fault over HTTP -> what to try; the first that fits.
_HINTS: Final = {
    r"response code: 40[13]": (
        "The server refuses. A signature that has run out needs a new one: open the items again, with sign= where "
        "addresses must be signed, or a token: gdal_env={'GDAL_HTTP_HEADERS': 'Authorization: Bearer <token>'}."
    ),
    r"response code: (429|5\d\d)": (
        "The server fails or is busy. Try again later, or ask more often: gdal_env={'GDAL_HTTP_MAX_RETRY': '10'}."
    ),
    "timed out|too slow": (
        "The server does not answer in time. Try again later, or wait longer: "
        "gdal_env={'GDAL_HTTP_LOW_SPEED_TIME': '60', 'GDAL_HTTP_TIMEOUT': '120'}."
    ),
    "Could not resolve": (
        "No name server knows the host. Check the spelling of the address, and that this machine is on the network."
    ),
    "Failed to connect|[Cc]ould(n't| not) connect": (
        "Nothing answers there. Check host and port; where a proxy must be used: "
        "gdal_env={'GDAL_HTTP_PROXY': 'host:port'}."
    ),
    "SSL|certificate": (
        "The connection cannot be trusted. Where the server has a certificate of its own authority, name the file of "
        "that: gdal_env={'GDAL_CURL_CA_BUNDLE': 'authority.pem'}."
    ),
    "redirects followed": (
        "The address leads in a circle, as where a login is asked for. Open it in a browser, and use the address at "
        "which the file is, or a token: gdal_env={'GDAL_HTTP_HEADERS': 'Authorization: Bearer <token>'}."
    ),
    "Range downloading not supported": "The server cannot send parts of a file: download it, and open it from disk.",
    "Read error": (
        "Check that the address exists and the file is whole: less came than was asked for, or the server failed or "
        "stalled in the middle of it (to wait longer: gdal_env={'GDAL_HTTP_LOW_SPEED_TIME': '60'})."
    ),
    "": "Check that the address exists and the file is whole.",
}


def load(
    scenes: Sequence[Scene], names: Sequence[str], bounds: Bounds, chunk: int, gdal_env: Mapping[str, str]
) -> dict[str, da.Array]:
    """Digital numbers per band, dims (scene, y, x), lazy; scenes in the order given.

    Parameters
    ----------
    scenes : sequence of Scene
        All on one grid.
    names : sequence of str
        Bands that every scene has.
    bounds : tuple
        Left, bottom, right, top: whole 60 m pixels inside every scene [unit of the CRS].
    chunk : int
        10 m pixels, a multiple of 6.
    gdal_env : mapping
        GDAL options on top of `GDAL_ENV` and of the variables of the environment with the same names.

    Raises
    ------
    SourceError
        When computed: if a file cannot be read, or is not what its item says.
    """
    groups: dict[tuple[int, str], list[str]] = {}
    for name in names:
        asset = scenes[0].assets[name]
        groups.setdefault((asset.gsd, asset.dtype), []).append(name)
    arrays: dict[str, da.Array] = {}
    for (gsd, dtype), members in groups.items():
        env = {**GDAL_ENV, **_of_environment(), **gdal_env, **ALWAYS}
        arrays |= _loaded(scenes, members, bounds, gsd, np.dtype(dtype), chunk // STEPS[gsd], env)
    return {name: arrays[name] for name in names}


def _of_environment() -> dict[str, str]:
    # GDAL would take an option that is set over a variable of the environment, and the user who set that has no say.
    return {name: os.environ[name] for name in GDAL_ENV if name in os.environ}


def _fill(dtype: np.dtype[Any]) -> Any:
    return dtype.type(np.nan if dtype.kind == "f" else NODATA)


def _transform(asset: Asset) -> list[float]:
    return [asset.gsd, 0.0, asset.left, 0.0, -asset.gsd, asset.top, 0.0, 0.0, 1.0]


def _plain_items(scenes: Sequence[Scene], names: Sequence[str]) -> list[dict[str, Any]]:
    """Items in the dialect that stackstac reads; ids are positions, so that no two are equal."""
    return [
        {
            "type": "Feature", "stac_version": "1.0.0", "id": f"{index:06d}", "geometry": None, "links": [],
            "properties": {"datetime": scene.datetime, "proj:epsg": scene.epsg},
            "assets": {
                name: {
                    "href": scene.assets[name].href, "type": "image/tiff",
                    "proj:epsg": scene.epsg, "proj:transform": _transform(scene.assets[name]),
                    "proj:shape": [scene.assets[name].rows, scene.assets[name].columns],
                }
                for name in names
            },
        }
        for index, scene in enumerate(scenes)
    ]  # fmt: skip


def _loaded(
    scenes: Sequence[Scene], names: Sequence[str], bounds: Bounds, gsd: int, dtype: np.dtype[Any], chunk: int,
    env: Mapping[str, str],
) -> dict[str, da.Array]:  # fmt: skip
    rows, columns = _read_chunks(scenes[0].assets[names[0]], bounds)
    stacked = stackstac.stack(
        _plain_items(scenes, names), assets=list(names), epsg=scenes[0].epsg, resolution=gsd, bounds=bounds,
        snap_bounds=False, chunksize=(1, 1, rows, columns), dtype=dtype, fill_value=_fill(dtype), rescale=False,
        sortby_date=False, xy_coords=False, properties=False, band_coords=False, errors_as_nodata=(),
        gdal_env=LayeredEnv(always=dict(env), open={"VSI_CACHE": True}, read={"VSI_CACHE": False}),
        reader=CheckedReader,
    ).data  # fmt: skip
    return {name: stacked[:, index].rechunk({1: chunk, 2: chunk}) for index, name in enumerate(names)}


def _read_chunks(asset: Asset, bounds: Bounds) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows and columns that are read together: those of the file's blocks, so that no block is fetched twice.

    Cut at multiples of `_READ` from the corner of the file, wherever the window begins.
    """
    left, bottom, right, top = bounds
    count = (round((top - bottom) / asset.gsd), round((right - left) / asset.gsd))
    cuts = (
        [at, *range(at - at % _READ + _READ, at + n, _READ), at + n]
        for at, n in zip(_place(asset, bounds), count, strict=True)
    )
    rows, columns = (tuple(after - before for before, after in itertools.pairwise(one)) for one in cuts)
    return rows, columns


def _place(asset: Asset, bounds: Bounds) -> tuple[int, int]:
    """Row and column of the file at which a window begins."""
    return round((asset.top - bounds[3]) / asset.gsd), round((bounds[0] - asset.left) / asset.gsd)


def read_twice(href: str, read: Callable[[str], Read]) -> Read:
    """What ``read`` returns of an address; what fails over HTTP is tried once more, at an address new to GDAL.

    Raises
    ------
    SourceError
        If it fails again, or the file is not read over HTTP; see `read_error`.

    Notes
    -----
    Why a new address, and why the error is raised outside ``except``: docs/decisions/read-twice.md.
    """
    try:
        return read(href)
    except _FAILURES as error:
        failure = read_error(href, error)
    if href.startswith(("http://", "https://")):
        try:
            return read(f"/vsicurl/{href}#{next(_NAMES)}")  # rasterio would cut the fragment off a plain address
        except _FAILURES as error:
            failure = read_error(href, error)
    raise failure


def read_error(href: str, error: BaseException) -> SourceError:
    """Make the error for a file that cannot be read: its name, what GDAL says, and what to try."""
    bare = href.split("?")[0]
    # What follows the question mark may be a signature.
    reason = re.sub(rf"{re.escape(href)}(#\d+)?", lambda _: bare, _innermost(error))
    if href.startswith("s3://"):
        hint = (
            "Reading s3 needs credentials (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), the endpoint where it is not "
            "Amazon's (AWS_S3_ENDPOINT), and for requester-pays buckets gdal_env={'AWS_REQUEST_PAYER': 'requester'}."
        )
    elif ".blob.core.windows.net" in bare and "sig=" not in href:
        hint = "Planetary Computer files need signed addresses: open_stac(..., sign=planetary_computer.sign)."
    elif ".blob.core.windows.net" in bare:
        hint = "The signature may have run out (about an hour): open the items again."
    elif "zipper.dataspace.copernicus.eu" in bare:
        hint = "CDSE needs a token: open_stac(..., gdal_env={'GDAL_HTTP_HEADERS': 'Authorization: Bearer <token>'})."
    elif href.startswith("http"):
        hint = next(hint for said, hint in _HINTS.items() if re.search(said, reason))
    elif not bare.isascii() and sys.getfilesystemencoding() != "utf-8":
        hint = (
            f"Python reads names of files as {sys.getfilesystemencoding()} here, and GDAL as UTF-8. Start it with "
            "PYTHONUTF8=1."
        )
    else:
        hint = "Check that the file exists and is whole."
    return SourceError(f"cannot read {bare}: {reason}. {hint}")


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).split("?sv=")[0].strip().rstrip(".") or type(error).__name__


def _href(address: str) -> str:
    return address.removeprefix("/vsicurl/").split("#")[0]


class _PerThread(ThreadLocalRioDataset):  # type: ignore[misc]  # as below
    """A file that each thread opens for itself."""

    def _open(self) -> Any:
        with self._env.open:
            dataset = open_raster(self._url, SelfCleaningDatasetReader)
        with self._lock:
            self._threadlocal.ds, self._threadlocal.vrt = dataset, None
        return dataset

    def read(self, window: Any, **kwargs: Any) -> Any:
        # stackstac's own takes the name of the file for a format string, and stumbles over braces in it.
        with self._env.read:
            return self.dataset.read(window=window, **kwargs)


class CheckedReader(AutoParallelRioReader):  # type: ignore[misc]  # stackstac publishes no types
    """stackstac's reader: files are opened and checked by `eosr.open.rasters`, and named in errors."""

    def _open(self) -> Any:
        with self.gdal_env.open:
            dataset = open_raster(self.url, SelfCleaningDatasetReader)
            left, _, _, top = bounds = self.spec.bounds
            gsd = self.spec.resolutions_xy[0]
            check_file(_href(self.url), dataset, self.spec.epsg, gsd, (left, top), bounds, self.dtype)
        self._row, self._column = place_in(dataset, left, top)
        return (_PerThread if dataset.driver == "GTiff" else SingleThreadedRioDataset)(self.gdal_env, dataset)

    def read(self, window: Any, **kwargs: Any) -> Any:
        """Pixels of one window, or a `SourceError` that names the file."""
        return read_twice(self.url, lambda address: self._at(address)._read(window))

    def _at(self, address: str) -> CheckedReader:
        state: Any = self.__getstate__()
        return self if address == self.url else CheckedReader(**{**state, "url": address})

    def _read(self, window: Any) -> Any:
        opened = self.dataset
        # The pixels of the file are those of the Dataset: nothing is resampled.
        at = Window(self._column + window.col_off, self._row + window.row_off, window.width, window.height)
        return opened.read(window=at, indexes=1, out_dtype=self.dtype, masked=True).filled(self.fill_value)


def can_read_s3() -> bool:
    """Whether this process has been given a way to read s3: credentials, or the wish to go without."""
    names = (
        "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST", "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_SHARED_CREDENTIALS_FILE",
    )  # fmt: skip
    return any(os.environ.get(name) for name in names) or os.path.exists(os.path.expanduser("~/.aws/credentials"))
