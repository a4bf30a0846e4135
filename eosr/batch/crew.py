"""The workers of a batch: which are there, which are sound, and which scene each has."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from eosr._version import __version__
from eosr.batch.scene import SceneResult, SceneTask, run_scene
from eosr.errors import BatchError


def look_around(version: str, folder: str, token: str, weights: Mapping[str, str], *, gpu: bool = False) -> str:
    """What keeps a worker from working on a batch; empty where nothing does. Runs on the worker, in its own eosr."""
    from eosr._version import __version__ as mine

    if mine != version:
        return f"has eosr {mine}"
    try:
        if (Path(folder) / ".eosr-batch-token").read_text() != token:
            return f"has another folder {folder}"
    except OSError as error:
        return f"does not see {folder} ({error.strerror})"
    from eosr.nn.shipped import file_checksum, weights_path

    for name, checksum in weights.items():
        try:
            found = file_checksum(weights_path(name))
        except (OSError, ValueError) as error:
            return f"does not see the weights {name} ({error})"
        if found != checksum:
            return f"has other weights {name} (SHA-256 {found[:12]}, not {checksum[:12]})"
    return _without_card() if gpu else ""


def _without_card() -> str:
    from eosr.nn.tile import has_card

    if has_card():
        return ""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
    return f"finds no CUDA card, which device='cuda' asks for (CUDA_VISIBLE_DEVICES: {shown})"


def _lost(task: SceneTask, worker: str) -> SceneResult:
    return SceneResult(name=task.name, state="lost", error=f"its worker {worker} is gone")


class Crew:
    """Workers of a client, each with at most one scene.

    A scene is handed to one worker by name, so that two never share its memory, and a worker that is gone is noticed
    here rather than by dask, which would give its scene to any other at once.
    """

    def __init__(self, client: Any, folder: Path, weights: Mapping[str, str], *, gpu: bool) -> None:
        self._client, self._folder, self._weights, self._gpu = client, folder, weights, gpu
        self._token = uuid.uuid4().hex
        self._probes: dict[str, Any] = {}
        self._sound: set[str] = set()
        self._given: dict[str, tuple[Any, Any, SceneTask]] = {}
        self._ended: list[tuple[Any, SceneResult, str]] = []
        #: Addresses of the workers that are there.
        self.workers: tuple[str, ...] = ()

    def __enter__(self) -> Crew:
        (self._folder / ".eosr-batch-token").write_text(self._token)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        (self._folder / ".eosr-batch-token").unlink(missing_ok=True)
        for future, _, _ in self._given.values():
            future.cancel()

    @property
    def running(self) -> dict[str, str]:
        """Scenes at work -> worker."""
        return {task.name: worker for worker, (_, _, task) in self._given.items()}

    def look(self) -> list[str]:
        """Look at the workers; return those that are sound and free.

        Raises
        ------
        BatchError
            If a worker cannot work on this batch, or all are without the cards that it takes.
        """
        # Not client.scheduler_info(): the client overwrites what that returns every 2 s with an answer without workers,
        # and a scene would be taken from a worker that is well.
        facts = self._client.sync(self._client.scheduler.identity, n_workers=-1)["workers"]
        usable = {name: one for name, one in facts.items() if not self._gpu or one.get("resources", {}).get("GPU")}
        self.workers = tuple(usable)
        if facts and not usable:
            raise BatchError(
                f"none of {len(facts)} workers has a card for device='cuda'. Start them with a resource, "
                "LocalCluster(resources={'GPU': 1}) or dask worker --resources GPU=1, or give device='auto'."
            )
        for worker in [worker for worker in self._given if worker not in facts]:
            future, given, task = self._given.pop(worker)
            future.cancel()
            self._ended.append((given, _lost(task, worker), worker))
        for worker in [worker for worker in self._probes if worker not in facts]:
            self._probes.pop(worker).cancel()
        self._sound &= set(facts)
        for worker in usable:
            if worker not in self._sound:
                self._probe(worker)
        return [worker for worker in usable if worker in self._sound and worker not in self._given]

    def _probe(self, worker: str) -> None:
        future = self._probes.get(worker)
        if future is None:
            self._probes[worker] = self._client.submit(
                look_around, __version__, str(self._folder), self._token, dict(self._weights), gpu=self._gpu,
                workers=[worker], pure=False, key=f"eosr-look-{uuid.uuid4().hex}",
            )  # fmt: skip
            return
        if not future.done():
            return
        if future.status == "error":
            error = future.exception()
            said = f"cannot run eosr {__version__} ({type(error).__name__}: {error})"
        elif future.status == "finished":
            said = future.result()
        else:
            self._probes.pop(worker)
            return
        if said:
            raise BatchError(
                f"worker {worker} {said}. Give every worker what the driver has (eosr {__version__}, the same weights, "
                "a folder on a filesystem that all of them see), and type the same command again."
            )
        self._probes.pop(worker)
        self._sound.add(worker)

    def give(self, worker: str, task: SceneTask, given: Any) -> None:
        """Hand a scene to a free worker; ``given`` comes back with its result."""
        future = self._client.submit(
            run_scene, task, workers=[worker], pure=False, key=f"eosr-{task.name}-{uuid.uuid4().hex}"
        )
        self._given[worker] = (future, given, task)

    def results(self) -> list[tuple[Any, SceneResult, str]]:
        """What has ended since the last call: what was given with the scene, its result, its worker."""
        for worker, (future, given, task) in list(self._given.items()):
            if not future.done():
                continue
            del self._given[worker]
            if future.status == "finished":
                result = future.result()
            elif future.status == "error":
                error = future.exception()
                result = SceneResult(name=task.name, state="failed", error=f"{type(error).__name__}: {error}")
            else:
                result = _lost(task, worker)
            self._ended.append((given, result, worker))
        ended, self._ended = self._ended, []
        return ended
