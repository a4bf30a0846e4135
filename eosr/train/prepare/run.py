"""`eosr-train prepare`: scenes -> patches -> one Zarr store; killed at any moment, it goes on.

    NAME.zarr.part/
      settings.json            what the store was begun with
      writing/                 the scene that is being written
      store/                   what becomes NAME.zarr
      scenes-00000.json ...    records of the scenes that are whole in store/

A scene is written beside the store, moved into it, and only then gets its record. When all have one, the attributes are
written and the store gets its name. Records and settings go last of all, so every kill leaves what is needed to go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eosr.errors import EosrError, OutputError, TrainingError
from eosr.host.files import put_text, settle, settle_all, take
from eosr.train.outcome.state import differences
from eosr.train.prepare.config import PrepareConfig
from eosr.train.prepare.plan import Job, plan
from eosr.train.prepare.scene import write_scene
from eosr.train.prepare.shards import FORMAT, write_attributes
from eosr.train.prepare.sources import find_scenes
from eosr.train.prepare.store import SceneRecord

#: Called with (patches looked at, patches in all).
Progress = Callable[[int, int], None]
#: Scenes that a message names before it only counts them.
_NAMED = 3


def prepare(config: PrepareConfig, out: Path, *, progress: Progress | None = None) -> Path:
    """Make the store ``OUT/NAME.zarr``, or go on with it; return its path.

    Reading is done by dask, on whatever scheduler is active.

    Parameters
    ----------
    config : PrepareConfig
    out : Path
        Folder that the store lies in.
    progress : callable, optional
        Called whenever a strip of a scene is done.

    Raises
    ------
    TrainingError
        If sources match nothing or cannot be used, hardly any patch passes the filter, the folder holds the store of
        another configuration, or another process is preparing it.
    OutputError
        If nothing can be written.
    """
    path, work = out / f"{config.name}.zarr", out / f"{config.name}.zarr.part"
    scenes = find_scenes(config)
    jobs = plan(scenes, config)
    told = {**asdict(config), "scenes": [scene.name for scene in scenes]}
    # How few patches are too few decides nothing that is written.
    told.pop("least")
    try:
        if path.exists():
            _check_same(path / "zarr.json", told, path)
            shutil.rmtree(work, ignore_errors=True)
            return path
        work.mkdir(parents=True, exist_ok=True)
        with _alone(work, path):
            _check_same(work / "settings.json", told, path)
            _write_json(work / "settings.json", told)
            records = _write_scenes(jobs, config, work, progress)
            _check_enough(records["scenes"], config)
            _finish(work, path, told, records)
    except EosrError:
        raise
    except OSError as error:
        raise OutputError(
            f"the store {path} cannot be written: {error}. Make room or correct the rights, then start the same "
            "command again; it goes on where it stopped."
        ) from error
    return path


@contextmanager
def _alone(work: Path, path: Path) -> Iterator[None]:
    """Keep a second process out; the system forgets the lock of one that was killed."""
    with (work / "lock").open("w") as file:
        if not take(file):
            raise TrainingError(
                f"another process is preparing {path}. Let it finish, or end it; prepare runs as one process, and "
                "dask shares out the reading."
            )
        yield


def _write_scenes(
    jobs: Sequence[Job], config: PrepareConfig, work: Path, progress: Progress | None
) -> dict[str, list[SceneRecord]]:
    records: dict[str, list[SceneRecord]] = {"scenes": [], "validation": []}
    done, total = 0, sum(job.steps for job in jobs)

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    for job in jobs:
        told = work / f"{job.kind}-{job.number:05d}.json"
        if told.is_file():
            step(job.steps)
        else:
            record = write_scene(job, config, work / "writing", step=step)
            folder = work / "store" / job.kind / f"{job.number:05d}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            settle_all(work / "writing")
            os.replace(work / "writing", folder)
            # The record last: it is the sign that the folder is whole.
            _write_json(told, asdict(record))
        values = json.loads(told.read_text())
        records[job.kind].append(SceneRecord(**values | {"item_ids": tuple(values["item_ids"])}))
    return records


def _check_enough(records: Sequence[SceneRecord], config: PrepareConfig) -> None:
    kept, drawn = sum(one.patches for one in records), sum(one.drawn for one in records)
    if kept >= max(1, config.least):
        return
    lost: Counter[str] = Counter()
    for one in records:
        lost.update(one.rejected)
    told = ", ".join(f"{rule} {100 * count / drawn:.0f} %" for rule, count in lost.most_common())
    why = f" ({told})" if told else ""
    some = f"only {kept} of {drawn} patches pass" if kept else f"none of {drawn} patches passes"
    raise TrainingError(
        f"{some} the filter{why}, {max(1, config.least)} are wanted. Under another name choose clearer scenes, a "
        "larger per_scene, or larger shares below [filter]; or lower least."
    )


def _finish(work: Path, path: Path, told: dict[str, Any], records: dict[str, list[SceneRecord]]) -> None:
    """Write the attributes, give the store its name, and take the rest away."""
    plain = {kind: [asdict(one) for one in several] for kind, several in records.items()}
    # The name of the store and what was drawn in vain decide no pixel.
    rests = [[kind, one["checksum"], one["level"]] for kind, several in plain.items() for one in several]
    checksum = hashlib.sha256(json.dumps([FORMAT, told["patch"], told["margin"], rests]).encode()).hexdigest()
    write_attributes(work / "store", {"format": FORMAT, "settings": told, **plain, "checksum": checksum})
    settle(*(work / "store").glob("zarr.json"), *(work / "store").glob("*/zarr.json"))
    os.replace(work / "store", path)
    shutil.rmtree(work)


def _check_same(file: Path, told: dict[str, Any], path: Path) -> None:
    """Refuse a store that was begun with other settings."""
    if not file.is_file():
        return
    before = json.loads(file.read_text())
    before = before.get("attributes", {}).get("eosr", {}).get("settings", before)
    now = json.loads(json.dumps(told))
    if before != now:
        there, here = before.pop("scenes", []), now.pop("scenes")
        keys = differences(before, now) if before != now else ""
        names = _named("only there", set(there) - set(here)) + _named("only here", set(here) - set(there))
        raise TrainingError(
            f"{path} was begun with another configuration or other scenes{keys}{names}. Use another name or folder, or "
            "remove it."
        )


def _named(where: str, names: set[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f", {where}: {', '.join(sorted(names)[:_NAMED])}{more}"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    put_text(path, json.dumps(content, indent=1, sort_keys=True))
