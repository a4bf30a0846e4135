"""A trained generator -> a weights file with its history."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from eosr._version import __version__
from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.nn.kinds import Generator
from eosr.nn.weights import Normalization, Provenance, Weights, save_weights
from eosr.train.data.material import Material
from eosr.train.data.scenes import Scene
from eosr.train.data.windows import SCALE
from eosr.train.outcome.scores import scored
from eosr.train.outcome.validate import as_method, degraded_inputs
from eosr.train.settings.schema import TrainConfig


def export(
    generator: Generator, config: TrainConfig, material: Material, *, path: Path, steps: int = 0,
    scores: Mapping[str, float] | None = None, bfloat16: float = float("inf"),
) -> Path:  # fmt: skip
    """Write a generator with what made it; return the path.

    Parameters
    ----------
    generator : Generator
        Left as it is; the file holds float32.
    config : TrainConfig
    material : Material
    path : Path
    steps : int
        Optimiser steps behind it.
    scores : mapping, optional
        RMSE [DN] by operator and group of scenes.
    bfloat16 : float
        From `bfloat16_error`.
    """
    two = config.generator.factor == 2
    shipped = copy.deepcopy(generator).cpu().float().eval().requires_grad_(False)
    weights = Weights(
        name=config.name, generator=shipped,
        normalization=Normalization(
            fine_bands=BANDS_10M, middle_bands=() if two else BANDS_20M,
            target_bands=BANDS_20M if two else BANDS_60M, scale=SCALE,
        ),
        provenance=Provenance(
            software=f"eosr {__version__} {_commit()}".strip(), data=dict(material.checksums), seed=config.seed,
            steps=steps, scores=dict(scores or {}), bfloat16_error=bfloat16,
        ),
        levels=material.levels, degradations=config.inverts,
    )  # fmt: skip
    return save_weights(weights, path)


def bfloat16_error(generator: Generator, scenes: list[Scene], factor: int) -> float:
    """Largest change of any pixel of the scenes when convolutions run in bfloat16 [DN]; infinite without scenes."""
    method = as_method(generator, factor)
    judged = scored(scenes, factor)
    worst = 0.0 if judged else float("inf")
    for scene in judged:
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
