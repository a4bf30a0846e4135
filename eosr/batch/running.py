"""Many scenes overnight: (items, dask client) -> COGs, Zarr, a STAC collection, and a manifest that no kill can lose.

A scene goes to one worker at a time, which makes it in a process of its own (`eosr.batch.scene`). The driver keeps the
manifest (`eosr.batch.manifest`), gives the next scene to a worker that is free, and a failed one another try later.
Typed again, the same command does what is missing; a scene that was being written goes on at its blocks.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from eosr._version import __version__
from eosr.batch.checks import check_numbers, check_plan, check_same, folder_of, plain
from eosr.batch.crew import Crew
from eosr.batch.manifest import Line, Manifest
from eosr.batch.planning import BatchConfig, Plan, PlannedScene, plan, readable
from eosr.batch.report import Report, Status
from eosr.batch.scene import SCENES, SceneResult, SceneTask, is_whole, read_record, record_in
from eosr.errors import BatchError
from eosr.host.files import put_text
from eosr.nn.shipped import SHIPPED, file_checksum, weights_path
from eosr.write.cog import room_beside
from eosr.write.collection import write_collection
from eosr.write.store import COMPRESSED

__all__ = ["BatchConfig", "Plan", "Report", "Status", "plan", "run"]

SETTINGS: Final = "batch.json"
#: A plan that takes more than this on disk [byte] is not begun without ``large=True``.
LARGE: Final = 100e9
#: Seconds between two looks at the workers.
_LOOK: Final = 0.25
#: How often a scene may lose its worker, besides its own attempts: workers end with their jobs.
_LOST: Final = 10
#: How often another process may be found at work on a scene, and the longest pause between [s]: half an hour in all.
#: The process of a worker whose node has lost its network ends when the node notices.
_BUSY, _PAUSE = 120, 15.0


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """How a batch goes about it; arguments of `run`."""

    attempts: int
    backoff: float
    threads: int
    scene_timeout: float
    worker_timeout: float
    verify: bool
    progress: Callable[[Status], object]


@dataclass(kw_only=True)
class _Work:
    """A scene that is to be made."""

    scene: PlannedScene
    attempts: int = 0
    lost: int = 0
    #: How often another process was found at work on it.
    busy: int = 0
    #: Clock [s] before which it is not tried again.
    not_before: float = 0.0
    error: str = ""


def run(
    items: Any,
    client: Any,
    out: str | os.PathLike[str],
    *,
    config: BatchConfig | None = None,
    attempts: int = 3,
    backoff: float = 10.0,
    threads: int = 0,
    scene_timeout: float = 0.0,
    worker_timeout: float = 600.0,
    large: bool = False,
    verify: bool = False,
    keep: Callable[[int], str | None] | None = None,
    progress: Callable[[Status], object] | None = None,
) -> Report:
    """Sharpen every scene of a list of items on the workers of a dask client, or what is missing of it.

    Parameters
    ----------
    items : sequence of dict, path, pystac objects, or Plan
        STAC items, e.g. of `eosr.open.find_items`, or what it takes; those of one tile and datatake become
        one scene. Or what `plan` made of them with the same ``config``.
    client : distributed.Client, or callable
        Whose workers see ``out``; on each one scene at a time. Or what starts them: called with the number of scenes to
        make, once nothing else can refuse the batch, it gives a context manager of a client and a ``keep``. Where there
        is nothing to make it is not called.
    out : path
        Folder for ``scenes/NAME/`` (COGs, Zarr, STAC item), ``collection.json``, ``manifest.jsonl``, ``report.json``
        and ``logs/``.
    config : BatchConfig, optional
        How scenes are opened, sharpened and written; of a folder always the same. Default: that of the plan.
    attempts : int
        Tries of a scene before it is set aside; a worker that goes away does not count.
    backoff : float
        Pause before the second try [s], twice as long before each further one.
    threads : int
        Threads of the process of a scene; 0: as many as it may use.
    scene_timeout : float
        Longest time of one scene [s]; 0: no end.
    worker_timeout : float
        Longest time without any worker [s], not counting the time that ``keep`` says they wait in a queue.
    large : bool
        Begin also where the plan takes more than 100 GB.
    verify : bool
        Of what is there already, compare the SHA-256 of every COG with the record (of a Zarr store that is beside them,
        its files and bytes), not only the sizes; what differs is made again. It takes as long as reading it all.
    keep : callable, optional
        Called several times a second with the number of scenes that are left; sees to the workers. It returns what
        those wait for that are to come, e.g. ``"1 job waits in the queue: Priority"``, or nothing.
    progress : callable, optional
        Called with a `Status` whenever something has happened.

    Returns
    -------
    Report
        Also of a batch that is not complete: look at ``complete``.

    Raises
    ------
    BatchError
        Before any scene, if the plan cannot work, another driver is at work in the folder, it belongs to other
        settings, or there is too little room; also if a worker has another version of eosr, does not see the folder or
        the weights, or none comes.
    KeyboardInterrupt
        Where that ends it; it says what is missing.
    """
    check_numbers(
        attempts=attempts, backoff=backoff, threads=threads, scene_timeout=scene_timeout, worker_timeout=worker_timeout
    )
    settings = config or (items.config if isinstance(items, Plan) else None) or BatchConfig()
    planned = items if isinstance(items, Plan) else plan(items, settings)
    check_plan(planned, settings)
    if planned.size > LARGE and not large:
        raise BatchError(
            f"this takes about {readable(planned.size)} on disk: {planned}. Say that it may: --yes (large=True)."
        )
    folder = folder_of(out)
    weights = _weights(settings)
    told = {"version": __version__, "weights": weights, **plain(settings)}
    check_same(folder / SETTINGS, told)
    rules = _Rules(
        attempts=attempts, backoff=backoff, threads=threads, scene_timeout=scene_timeout, worker_timeout=worker_timeout,
        verify=verify, progress=progress or (lambda status: None),
    )  # fmt: skip
    batch = _Batch(planned, folder, settings, rules)
    with Manifest(folder).open() as manifest:
        _clear_answers(folder)
        batch.prepare(manifest)
        _check_room(folder, batch)
        _write_json(folder / SETTINGS, told)
        if batch.waiting:
            workers = client(len(batch.waiting)) if callable(client) else nullcontext((client, keep))
            gpu = settings.device.startswith("cuda")
            try:
                with workers as (started, keep), Crew(started, folder, weights, gpu=gpu) as crew:
                    batch.work(manifest, crew, keep or (lambda left: None))
            except KeyboardInterrupt:
                batch.stopped = "interrupted"
                raise KeyboardInterrupt(str(batch.report(manifest))) from None
            except BaseException:
                with suppress(Exception):  # what ended the run is what counts
                    batch.report(manifest)
                raise
        return batch.report(manifest)


@dataclass(kw_only=True)
class _Totals:
    """Sums of a run."""

    made: list[str] = field(default_factory=list)
    cpu: float = 0.0
    memory: int = 0


class _Batch:
    """The scenes of a run, and what becomes of them."""

    def __init__(self, planned: Plan, folder: Path, config: BatchConfig, rules: _Rules) -> None:
        self.planned, self.folder, self.config, self.rules = planned, folder, config, rules
        self.waiting: list[_Work] = []
        self.failed: dict[str, str] = dict(planned.odd)
        #: Scenes with a result -> their STAC item, relative to the folder; empty where there is none.
        self.done: dict[str, str] = {}
        self.totals = _Totals()
        self.stopped = ""
        self.began = time.monotonic()

    def prepare(self, manifest: Manifest) -> None:
        """Find out what is to be made: all of which there is no whole result of these items."""
        for scene in self.planned.scenes:
            found = self._result(manifest, scene)
            if found is not None:
                self.done[scene.name] = found.item
            else:
                self.waiting.append(_Work(scene=scene))
        manifest.record(line for work in self.waiting for line in self._lines(work, "pending"))

    def _result(self, manifest: Manifest, scene: PlannedScene) -> SceneResult | None:
        """What there is of a scene, if it is whole, and of the same items: not of those before a reprocessing."""
        lines = {line.band: line for line in manifest.lines(scene.name)}
        if any(band not in lines or lines[band].state != "done" for band in scene.bands):
            return None
        task = self._task(scene)
        found = read_record(task.target, task.made_of)
        if found is None or any(lines[band].checksum != found.bands[band][1] for band in scene.bands):
            return None
        return found if is_whole(self.folder, found, sums=self.rules.verify) else None

    def _task(self, scene: PlannedScene) -> SceneTask:
        return SceneTask(
            name=scene.name, items=scene.items, bands=scene.bands, folder=str(self.folder), config=self.config,
            threads=self.rules.threads, timeout=self.rules.scene_timeout,
        )  # fmt: skip

    def work(self, manifest: Manifest, crew: Crew, keep: Callable[[int], str | None]) -> None:
        """Make the scenes."""
        alone_since, told = time.monotonic(), ""
        while self.waiting or crew.running:
            now = time.monotonic()
            queued = keep(len(self.waiting) + len(crew.running)) or ""
            free = crew.look()
            if queued and queued != told:
                self._tell(crew, queued)
            told = queued
            if crew.workers or queued:
                alone_since = now
            elif now - alone_since > self.rules.worker_timeout:
                raise BatchError(
                    f"no worker came within {self.rules.worker_timeout:.0f} s, time of jobs in a queue not counted. "
                    "Look at what workers print (of jobs: logs/slurm), or give a larger worker_timeout=3600."
                )
            for work, result, worker in crew.results():
                self._take(manifest, crew, work, result, worker)
            self._give(manifest, crew, free, now)
            if self.stopped and not crew.running:
                return
            time.sleep(_LOOK)

    def _give(self, manifest: Manifest, crew: Crew, free: list[str], now: float) -> None:
        """Hand the next scenes to the workers that are free."""
        due = [] if self.stopped else [work for work in self.waiting if work.not_before <= now]
        for worker, work in zip(free, due, strict=False):  # as many as there are of both
            self.waiting.remove(work)
            manifest.record(self._lines(work, "running", worker=worker))
            crew.give(worker, self._task(work.scene), work)
            self._tell(crew, f"{work.scene.name}: begun on {worker}")

    def _take(self, manifest: Manifest, crew: Crew, work: _Work, result: SceneResult, worker: str) -> None:
        """Write down how a scene ended, and see what becomes of it."""
        if result.state == "done":
            lines = [
                Line(
                    scene=work.scene.name, band=band, state="done", path=path, checksum=checksum, size=size,
                    seconds=result.seconds, worker=worker, attempts=work.attempts + 1,
                )
                for band, (path, checksum, size) in result.bands.items()
            ]  # fmt: skip
            manifest.record(lines)
            self.done[work.scene.name] = result.item
            self.totals.made.append(work.scene.name)
            self.totals.cpu += result.cpu
            self.totals.memory = max(self.totals.memory, result.memory)
            self._tell(crew, f"{work.scene.name}: done in {result.seconds:.0f} s")
            return
        work.error = result.error
        pause = self.rules.backoff * 2**work.attempts
        if result.state == "full":
            self.stopped = (
                f"no room is left for {self.folder}. Make some, and type the same command again; it goes on where it "
                "stopped."
            )
        elif result.state == "lost":
            work.lost += 1
            pause = 0.0
        elif result.state == "busy":
            work.busy += 1
            pause = min(_PAUSE, 2.0**work.busy)
        else:
            work.attempts += 1
        if work.attempts >= self.rules.attempts or work.lost > _LOST or work.busy > _BUSY:
            self.failed[work.scene.name] = result.error
            manifest.record(self._lines(work, "failed", worker=worker, seconds=result.seconds))
            self._tell(crew, f"{work.scene.name}: set aside after {work.attempts + work.lost} tries: {result.error}")
            return
        work.not_before = time.monotonic() + pause
        self.waiting.append(work)
        manifest.record(self._lines(work, "pending", worker=worker, seconds=result.seconds))
        self._tell(crew, f"{work.scene.name}: {result.error}; it is tried again in {pause:.0f} s")

    def _lines(self, work: _Work, state: Any, *, worker: str = "", seconds: float = 0.0) -> list[Line]:
        return [
            Line(
                scene=work.scene.name, band=band, state=state, worker=worker, seconds=seconds,
                attempts=work.attempts + work.lost, error=work.error,
            )
            for band in work.scene.bands
        ]  # fmt: skip

    def _tell(self, crew: Crew, news: str) -> None:
        self.rules.progress(
            Status(
                scenes=len(self.planned.scenes), done=len(self.done), failed=len(self.failed), running=crew.running,
                workers=len(crew.workers), seconds=time.monotonic() - self.began, news=news,
            )
        )  # fmt: skip

    def report(self, manifest: Manifest) -> Report:
        """Write down what there is, and what is missing."""
        there = _earlier(manifest, self) | self.done
        items = [self.folder / item for _, item in sorted(there.items()) if item]
        if items:
            write_collection(self.folder / "collection.json", items)
        area = {scene.name: scene.rows * scene.columns * 1e-4 for scene in self.planned.scenes}
        report = Report(
            folder=self.folder, done=tuple(sorted(self.done)), made=tuple(sorted(self.totals.made)),
            failed=dict(sorted(self.failed.items())), pending=tuple(sorted({*area} - {*self.done} - {*self.failed})),
            seconds=round(time.monotonic() - self.began, 1), cpu=round(self.totals.cpu, 1), memory=self.totals.memory,
            area=round(sum(area[name] for name in self.totals.made), 1), stopped=self.stopped,
        )  # fmt: skip
        _write_json(self.folder / "report.json", asdict(report) | {"folder": str(self.folder)})
        return report


def _weights(config: BatchConfig) -> dict[str, str]:
    """Path and SHA-256 of every weights file that workers will need."""
    if config.method not in (None, "eosr") and config.weights is None:
        return {}
    names = SHIPPED if config.weights is None else config.weights
    return {str(name): file_checksum(weights_path(name)) for name in names}


def _check_room(folder: Path, batch: _Batch) -> None:
    # The last scene needs more for a moment; each of several that are made at once would.
    scenes = [work.scene for work in batch.waiting]
    beside = max((_beside(scene, batch.config) for scene in scenes), default=0)
    needed = sum(scene.size for scene in scenes) + beside
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BatchError(
            f"{folder} has {readable(free)} left, and {len(batch.waiting)} scenes take about {readable(needed)}. Make "
            "room, or name another folder."
        )


def _beside(scene: PlannedScene, config: BatchConfig) -> int:
    """Bytes that a scene takes while its files are made, besides these."""
    if config.format == "zarr":
        return 0
    raw = scene.rows * scene.columns * np.dtype(config.dtype).itemsize
    # COGs alone are made from a store that goes when they are there.
    return int(room_beside([raw]) + (COMPRESSED * raw * len(scene.bands) if config.format == "cog" else 0))


def _earlier(manifest: Manifest, batch: _Batch) -> dict[str, str]:
    """Whole scenes of runs with another list -> their STAC items, unless a scene of this run is made of the same."""
    planned = {scene.name for scene in batch.planned.scenes}
    taken = {item for scene in batch.planned.scenes if scene.name in batch.done for item in scene.item_ids}
    found = {}
    for name in {line.scene for line in manifest.lines()} - planned:
        record = record_in(batch.folder / SCENES / name)
        if record is None or any(line.state != "done" for line in manifest.lines(name)):
            continue  # without its record nobody knows what it is of
        made_of, result = record
        if taken.isdisjoint(made_of.get("items", ())) and result.item and is_whole(batch.folder, result, sums=False):
            found[name] = result.item
    return found


def _clear_answers(folder: Path) -> None:
    """Delete the answers of scenes whose worker was killed before it could read them."""
    for path in (folder / "logs").glob(".*.json"):
        path.unlink(missing_ok=True)


def _write_json(path: Path, content: Any) -> None:
    put_text(path, json.dumps(content, indent=1) + "\n")
