"""A whole run: configuration and data in, weights file with its history out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from eosr import __version__
from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M, LEVELS
from eosr.degrade import DEGRADATIONS
from eosr.nn.kinds import Generator
from eosr.nn.weights import Normalization, Provenance, Weights, save_weights
from eosr.train.config import TrainConfig, load_config
from eosr.train.loop import train, validation
from eosr.train.scenes import Scene, checksums, load_scenes
from eosr.train.validate import as_method, degraded_inputs
from eosr.train.windows import SCALE


def run_training(
    config: Path, *, data: Path, out: Path, threads: int | None = None, tell: Callable[[str], None] | None = None
) -> Path:
    """Train, or resume, and write ``OUT/NAME.safetensors``; return its path. ``tell`` gets a line per validation.

    Raises
    ------
    TrainingError
        If the configuration, the data or the state file cannot be used.
    """
    settings = load_config(config)
    if threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or os.cpu_count() or 1)
    scenes = load_scenes(data)
    generator = train(settings, scenes, out, tell=tell)
    return export(generator, settings, scenes, data=data, path=out / f"{settings.name}.safetensors")


def export(generator: Generator, config: TrainConfig, scenes: list[Scene], *, data: Path, path: Path) -> Path:
    """Score a trained generator under every operator and write it with its history."""
    kept_out = [scene for scene in scenes if scene.kept_out]
    two = config.generator.factor == 2
    weights = Weights(
        name=config.name,
        generator=generator.eval(),
        normalization=Normalization(
            fine_bands=BANDS_10M, middle_bands=() if two else BANDS_20M,
            target_bands=BANDS_20M if two else BANDS_60M, scale=SCALE,
        ),
        provenance=Provenance(
            software=f"eosr {__version__} {_commit()}".strip(), data=checksums(data), seed=config.seed,
            steps=config.steps, scores=validation(generator, kept_out, config, DEGRADATIONS),
            bfloat16_error=bfloat16_error(generator, kept_out, config.generator.factor),
        ),
        levels=LEVELS,
        degradations=DEGRADATIONS,
    )  # fmt: skip
    return save_weights(weights, path)


def bfloat16_error(generator: Generator, scenes: list[Scene], factor: int) -> float:
    """Largest change of any pixel of the scenes when convolutions run in bfloat16 [DN]; infinite without scenes."""
    method = as_method(generator, factor)
    scored = [scene for scene in scenes if factor == 2 or scene.coarse is not None]
    worst = 0.0 if scored else float("inf")
    for scene in scored:
        inputs = degraded_inputs(scene, factor, "study")[:4]
        exact = method(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            worst = max(worst, float(np.abs(method(*inputs) - exact).max()))
    return round(worst, 2)


def _commit() -> str:
    """Commit of this source; empty for an installed package, which may lie in somebody else's repository."""
    here = Path(__file__)
    git = ["git", "-C", str(here.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], capture_output=True, check=True)
        return subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
