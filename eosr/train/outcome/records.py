"""What a run leaves to read: a line of JSON per validation, TensorBoard's event files, pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eosr.errors import MissingExtraError
from eosr.host.files import put_text
from eosr.nn.kinds import Generator
from eosr.score.report.page.maps import compose, limits_of
from eosr.score.report.page.png import encode_png
from eosr.train.data.scenes import Floats, Scene
from eosr.train.outcome.validate import as_method, degraded_inputs


class Log:
    """``log.jsonl`` and, if asked for, TensorBoard's files; both cut back to the step a run goes on from."""

    def __init__(self, folder: Path, step: int, *, tensorboard: bool) -> None:
        self._path = folder / "log.jsonl"
        #: Seconds of all parts of the run up to the state it goes on from.
        self.seconds = lines_up_to(self._path, step)
        self._writer = _summary_writer(folder / "tensorboard", step) if tensorboard else None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add a line; numbers of its first and second level go to TensorBoard too."""
        with self._path.open("a") as log:
            log.write(json.dumps(record) + "\n")
        if self._writer is not None:
            for name, value in _numbers(record):
                self._writer.add_scalar(name, value, record["step"])
            self._writer.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()


def lines_up_to(path: Path, step: int) -> float:
    """Keep the lines of a log up to a step, whole ones only; return the seconds that the last of them states."""
    kept = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:  # cut by a kill
            continue
        if record["step"] <= step:
            kept.append(record)
    if path.is_file():
        put_text(path, "".join(json.dumps(record) + "\n" for record in kept))
    return float(kept[-1]["seconds"]) if kept else 0.0


def check_tensorboard() -> None:
    """Refuse ``tensorboard = true`` where it is not installed.

    Raises
    ------
    MissingExtraError
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "tensorboard = true needs the package tensorboard. Install it: pip install 'eosr[train]', or leave the "
            "line out; log.jsonl holds the same numbers."
        ) from None


def _summary_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def _numbers(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{key}/")
        elif isinstance(value, int | float) and key != "step":
            yield before + key, float(value)


def write_pictures(folder: Path, step: int, generator: Generator, scenes: list[Scene], factor: int) -> None:
    """One PNG per scene: what was given, the answer, what was measured, and the absolute error, stretched alike.

    Scenes are degraded by ``study``. 20 m: B12, B11, B8A as red, green, blue; 60 m: B01 in grey.
    """
    for scene in scenes:
        folder.mkdir(exist_ok=True)
        fine, middle, coarse, sigma, truth = degraded_inputs(scene, factor, "study")
        answer = as_method(generator, factor)(fine, middle, coarse, sigma)
        given = coarse.repeat(factor, axis=1).repeat(factor, axis=2)
        shown = [5, 4, 3] if factor == 2 else [0, 0, 0]
        limits = [limits_of(truth[k]) for k in shown]
        images = [compose([bands[k] for k in shown], limits) for bands in (given, answer, truth)]
        images.append(_error_shades(answer - truth, shown, limits))
        part = folder / f"{scene.name}-{step:07d}.part"
        part.write_bytes(encode_png(np.concatenate(images, axis=1)))
        os.replace(part, part.with_suffix(".png"))


def _error_shades(error: Floats, shown: list[int], limits: list[tuple[float, float]]) -> Any:
    """Absolute error, white at a tenth of the stretch."""
    tenths = [(0.0, (high - low) / 10) for low, high in limits]
    return compose([np.abs(error[k]) for k in shown], tenths)
