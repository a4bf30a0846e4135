"""What a batch is given, checked before anything of it is begun: numbers, plan, folder, settings of the runs before."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eosr.batch.planning import BatchConfig, Plan
from eosr.errors import BatchError, OutputError
from eosr.write.layout import check_folder, check_linkable, local_path


def check_numbers(
    *, attempts: object, backoff: object, threads: object, scene_timeout: object, worker_timeout: object
) -> None:
    """Refuse numbers that a batch cannot go by; which they are: see `eosr.batch.run`.

    Raises
    ------
    BatchError
        Naming the first, with an example.
    """
    for name, value, least, example in (("attempts", attempts, 1, 3), ("threads", threads, 0, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise BatchError(f"{name}={value!r} is no whole number. Give e.g. {name}={example}.")
        if value < least:
            raise BatchError(f"{name}={value} must be {least} or more. Give e.g. {name}={example}.")
    for name, value, example in (
        ("backoff", backoff, 10), ("scene_timeout", scene_timeout, 3600), ("worker_timeout", worker_timeout, 600),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise BatchError(f"{name}={value!r} is no number of seconds. Give e.g. {name}={example}.")
        if value < 0:
            raise BatchError(f"{name}={value} must be 0 or more. Give e.g. {name}={example}.")


def check_plan(planned: Plan, config: BatchConfig) -> None:
    """Refuse a plan that was made with other settings.

    Raises
    ------
    BatchError
        With what differs.
    """
    if planned.config is None or planned.config == config:
        return
    there, now = asdict(planned.config), asdict(config)
    differ = ", ".join(f"{key} {there[key]!r} there, {now[key]!r} now" for key in now if there[key] != now[key])
    raise BatchError(f"the plan was made with other settings: {differ}. Leave config away, or plan again with it.")


def folder_of(out: str | os.PathLike[str]) -> Path:
    """Make the folder, and find out now that files can be written there.

    Raises
    ------
    OutputError
        If it is a URL, cannot be linked to by STAC items, or cannot be written.
    """
    folder = local_path(out)
    check_linkable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error}. Name another folder.") from error
    check_folder(folder, 0)
    return folder


def plain(config: BatchConfig) -> dict[str, Any]:
    """Settings that decide pixels, as JSON has them."""
    told: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    # Where and how pixels are fetched decides none of them.
    return {key: value for key, value in told.items() if key not in ("gdal_env", "alternate", "sign", "device")}


def check_same(file: Path, told: Mapping[str, Any]) -> None:
    """Refuse a folder of other settings than ``told``, which ``file`` keeps where there were runs before.

    Raises
    ------
    BatchError
        With what differs, or if the file cannot be read.
    """
    try:
        before = json.loads(file.read_bytes())
        if not isinstance(before, dict):
            raise ValueError(f"it holds {type(before).__name__!r}")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise BatchError(
            f"{file}, the settings of the runs before, cannot be read: {said}. Delete it if you are sure that they "
            "were those of now, or name another folder."
        ) from error
    keys = sorted(key for key in {*before, *told} if before.get(key) != told.get(key))
    if keys:
        differ = ", ".join(f"{key} {before.get(key)!r} there, {told.get(key)!r} now" for key in keys)
        raise BatchError(
            f"{file.parent} holds a batch of other settings: {differ}. Give the same ones, or name another folder."
        )
