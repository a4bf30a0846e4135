"""One scene of a batch, made by a process of its own: what GDAL remembers of a failure ends with it.

A worker starts ``python -m eosr.batch.scene`` and hands it a `SceneTask` as JSON. The process ends when its worker
does (docs/decisions/one-process-per-scene.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
import xarray as xr

from eosr.batch.planning import BatchConfig, ids_of, open_scene, sharpened
from eosr.cube.radiometry import check_not_empty, check_offset
from eosr.errors import EosrError
from eosr.host.files import put_text, take
from eosr.host.memory import cores, keep_freed_memory
from eosr.write import deliver
from eosr.write.delivery import STORE
from eosr.write.layout import is_full

#: Folder of the folders of the scenes, in that of a batch.
SCENES: Final = "scenes"
#: Lies in a scene's folder when the result is whole, and says what it is.
RECORD: Final = ".eosr-scene.json"
#: What changes in an item when ESA processes its image again, and keeps its id at some sources.
_PROCESSING: Final = (
    "s2:processing_baseline", "processing:version", "s2:generation_time", "s2:product_uri", "sentinel:product_id",
)  # fmt: skip
#: Lies in a scene's folder while a process is at work there.
_LOCK: Final = ".eosr-scene.lock"
#: Most tiles in a network at a time; each takes about a gigabyte.
_NETWORKS: Final = 4
#: What the process of a scene starts with. It looks every second whether its worker is still there, from the first
#: moment on: to import eosr takes seconds, in which the worker may be gone, and then nobody would ever end it.
_START: Final = """
import os, runpy, sys, threading, time

def watch():
    while os.getppid() == int(sys.argv[1]):
        time.sleep(1)
    os._exit(1)

threading.Thread(target=watch, daemon=True).start()
runpy.run_module("eosr.batch.scene", run_name="__main__", alter_sys=True)
"""
#: Free bytes below which a disk counts as full.
_FOR_WORDS: Final = 100_000
#: Name of the variable that tells a process where its answer goes.
_ANSWER: Final = "EOSR_BATCH_ANSWER"


@dataclass(frozen=True, kw_only=True)
class SceneTask:
    """What a worker is told."""

    name: str
    items: tuple[Mapping[str, Any], ...] = field(repr=False)
    bands: tuple[str, ...]
    #: Folder of the batch.
    folder: str
    config: BatchConfig
    #: Threads of the process; 0: as many as it may use.
    threads: int = 0
    #: Seconds after which it is stopped; 0: never.
    timeout: float = 0.0

    @property
    def target(self) -> Path:
        """Folder of the results."""
        return Path(self.folder) / SCENES / self.name

    @property
    def made_of(self) -> dict[str, Any]:
        """What decides the pixels of the result, besides the settings of the batch."""
        facts = [[str(item.get("properties", {}).get(key, "")) for key in _PROCESSING] for item in self.items]
        return {"items": ids_of(self.items), "bands": list(self.bands), "processing": sorted(facts)}


@dataclass(frozen=True, kw_only=True)
class SceneResult:
    """What a worker answers."""

    name: str
    #: ``done``; ``failed``: worth another attempt; ``busy``: another process is at work; ``full``: no room on the disk.
    state: str
    #: Path relative to the folder of the batch, SHA-256 and size [byte], by band.
    bands: Mapping[str, tuple[str, str, int]] = field(default_factory=dict)
    #: STAC item, relative to the folder of the batch.
    item: str = ""
    #: Files of the Zarr store in the folder of the scene, and their bytes; none where there is no store.
    store: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    #: Peak of the process's memory [byte], and its CPU time [s].
    memory: int = 0
    cpu: float = 0.0
    error: str = ""


def run_scene(task: SceneTask) -> SceneResult:
    """Make a scene in a process of its own; on a worker. What it prints goes to ``logs/NAME.log``.

    Returns
    -------
    SceneResult
        Never raises for what the process does: how it ended is in the result.
    """
    began = time.monotonic()
    log = Path(task.folder) / "logs" / f"{task.name}.log"
    answer = Path(task.folder) / "logs" / f".{task.name}.{os.getpid()}.{threading.get_ident()}.json"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        if _is_taken(task.target / _LOCK):
            return _busy(task)
        with log.open("a") as written:
            running = subprocess.Popen(
                [sys.executable, "-c", _START, str(os.getpid())], stdin=subprocess.PIPE, stdout=written, stderr=written,
                env=os.environ | {_ANSWER: str(answer)} | _limits(task), text=True,
            )  # fmt: skip
            try:
                running.communicate(json.dumps(asdict(task)), timeout=task.timeout or None)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
                return _failed(task, began, f"it took more than {task.timeout:.0f} s. Give a larger scene_timeout.")
        return _answered(answer, task, began, running.returncode, log)
    except OSError as error:
        state = "full" if is_full(error) else "failed"
        return replace(_failed(task, began, str(error)), state=state)
    finally:
        answer.unlink(missing_ok=True)


def _limits(task: SceneTask) -> dict[str, str]:
    # Tiles in a network at a time (`eosr.nn.tile`), and the share of the threads that each has.
    networks = min(_threads_of(task), _NETWORKS)
    share = str(_threads_of(task) // networks)
    # A nanny of dask sets each of the three to 1, and torch takes the least.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), share)
    # GDAL's cache would else be 5 % of the memory of the node, for every scene on it.
    return threads | {"EOSR_NETWORKS": str(networks), "GDAL_CACHEMAX": "256"}


def _threads_of(task: SceneTask) -> int:
    return task.threads or cores()


def _failed(task: SceneTask, began: float, why: str) -> SceneResult:
    return SceneResult(name=task.name, state="failed", error=why, seconds=round(time.monotonic() - began, 2))


def _answered(answer: Path, task: SceneTask, began: float, status: int, log: Path) -> SceneResult:
    if status == 0:
        with suppress(OSError, ValueError, TypeError):
            return _result(json.loads(answer.read_text()))
    if status < 0:
        why = f"its process was killed by {signal.Signals(-status).name}"
        why += (
            " (is there enough memory? see memory in docs/how-to/run-a-batch.md)" if status == -signal.SIGKILL else ""
        )
    else:
        # What eosr does not expect: its traceback ends with the error.
        said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        why = f"its process ended with status {status}: {said[-1] if said else 'no words'}"
    failed = _failed(task, began, f"{why}; see {log}")
    # Where not even words find room, a process cannot say that there is none.
    return replace(failed, state="full") if shutil.disk_usage(log.parent).free < _FOR_WORDS else failed


def make_scene(task: SceneTask) -> SceneResult:
    """Open, sharpen, write and sum up one scene in this process.

    Raises
    ------
    OSError
        If the folder cannot be written for another reason than that it is full.
    """
    began = time.monotonic()
    try:
        task.target.mkdir(parents=True, exist_ok=True)
        with _alone(task.target) as alone:
            if not alone:
                return _busy(task)
            result = _made(task)
    except (EosrError, OSError) as error:
        if not (isinstance(error, EosrError) or is_full(error)):
            raise
        result = SceneResult(name=task.name, state="full" if is_full(error) else "failed", error=str(error))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return replace(
        result, seconds=round(time.monotonic() - began, 2), memory=usage.ru_maxrss * 1024,
        cpu=round(usage.ru_utime + usage.ru_stime, 2),
    )  # fmt: skip


def _made(task: SceneTask) -> SceneResult:
    config, folder = task.config, Path(task.folder)
    earlier = read_record(task.target, task.made_of)
    if earlier is not None and is_whole(folder, earlier, sums=True):
        return earlier  # a driver was killed before it could write it down
    (task.target / RECORD).unlink(missing_ok=True)
    ds = open_scene(task.items, config)
    check_not_empty(ds)
    if config.offset == "auto":
        check_offset(ds)
    # An unfinished run of the same is taken up all the same; what else lies there is damaged, or of other items.
    made = deliver(sharpened(ds, config), task.target, format=config.format, overwrite=True)
    item = str(made.items[0].relative_to(folder)) if made.items else ""
    if made.cogs:
        by_band = {path.stem.rsplit("_", 2)[1]: path for path in made.cogs}
        paths = [by_band[band] for band in task.bands]
        with ThreadPoolExecutor(_threads_of(task)) as pool:
            sums = list(pool.map(checksum_of, paths))
        bands = {
            band: (str(path.relative_to(folder)), checksum, path.stat().st_size)
            for band, path, checksum in zip(task.bands, paths, sums, strict=True)
        }
    else:
        store = task.target / STORE
        bands = {band: (str(store.relative_to(folder)), _pixels(store, band), 0) for band in task.bands}
    result = SceneResult(name=task.name, state="done", bands=bands, item=item, store=_files_of(task.target / STORE))
    put_text(task.target / RECORD, json.dumps({"made_of": task.made_of, "result": asdict(result)}))
    return result


def read_record(target: Path, made_of: Mapping[str, Any]) -> SceneResult | None:
    """Return the result that lies in a scene's folder; None where there is none, or one of other items or bands."""
    record = record_in(target)
    return record[1] if record and record[0] == made_of else None


def record_in(target: Path) -> tuple[dict[str, Any], SceneResult] | None:
    """What the result in a scene's folder was made of, and the result; None where there is none."""
    try:
        told = json.loads((target / RECORD).read_text())
        return dict(told["made_of"]), _result(told["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_whole(folder: Path, result: SceneResult, *, sums: bool) -> bool:
    """Whether all files of a result are there, with the sizes that were recorded.

    Parameters
    ----------
    folder : Path
        Of the batch.
    result : SceneResult
        What `read_record` found.
    sums : bool
        Compare the SHA-256 of every COG too, or of the pixels where there is a store alone.
    """
    store = folder / SCENES / result.name / STORE
    try:
        if result.item:
            json.loads((folder / result.item).read_text())
        whole = _files_of(store) == result.store
        for band, (path, checksum, size) in result.bands.items():
            whole = whole and (not size or (folder / path).stat().st_size == size)
            if whole and sums:
                whole = (checksum_of(folder / path) if size else _pixels(store, band)) == checksum
    except (OSError, ValueError, KeyError):
        return False
    return whole


def _files_of(store: Path) -> tuple[int, int]:
    """How many files a store has, and their bytes."""
    sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _result(told: dict[str, Any]) -> SceneResult:
    bands = {band: tuple(facts) for band, facts in told["bands"].items()}
    return SceneResult(**told | {"bands": bands, "store": tuple(told["store"])})


def checksum_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pixels(store: Path, band: str) -> str:
    """SHA-256 of a band's pixels in a Zarr store, row after row."""
    total = hashlib.sha256()
    with xr.open_zarr(store, chunks={}, mask_and_scale=False) as ds:
        image = ds[band]
        rows = image.chunksizes[image.dims[-2]]
        top = 0
        for height in rows:
            total.update(np.ascontiguousarray(image.isel({image.dims[-2]: slice(top, top + height)}).values).tobytes())
            top += height
    return total.hexdigest()


def _busy(task: SceneTask) -> SceneResult:
    return SceneResult(name=task.name, state="busy", error="another process is at work on it")


def _is_taken(lock: Path) -> bool:
    """Whether a process has a lock now; asked before one is started that could only find it out."""
    try:
        with lock.open("r+") as file:
            return not take(file)
    except FileNotFoundError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether nobody else is at work in a folder."""
    with (folder / _LOCK).open("w") as file:
        free = take(file)
        yield free
    if free:
        with suppress(OSError):
            (folder / _LOCK).unlink()


def main() -> int:
    """Make the scene that standard input tells; write the answer to the file that the environment names."""
    keep_freed_memory()
    told = json.load(sys.stdin)
    settings: dict[str, Any] = {k: tuple(one) if isinstance(one, list) else one for k, one in told["config"].items()}
    config = BatchConfig(**settings)
    task = SceneTask(**told | {"config": config, "items": tuple(told["items"]), "bands": tuple(told["bands"])})
    with dask.config.set(scheduler="threads", num_workers=_threads_of(task)):
        result = make_scene(task)
    Path(os.environ[_ANSWER]).write_text(json.dumps(asdict(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
