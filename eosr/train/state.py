"""The state file of a run: everything needed to go on as if nothing had happened; only the trainer reads it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from eosr.errors import TrainingError
from eosr.train.config import TrainConfig


def save_state(
    path: Path, config: TrainConfig, generator: nn.Module, mean: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write the state beside its place, then rename: a kill leaves the old or the new one, whole."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "config": repr(asdict(config)),
            "step": step,
            "generator": generator.state_dict(),
            "mean": mean.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
        part,
    )
    os.replace(part, path)


def load_state(
    path: Path, config: TrainConfig, generator: nn.Module, mean: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Put a saved state back and return the next step; 0 where there is none.

    Raises
    ------
    TrainingError
        If the state was written under another configuration.
    """
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["config"] != repr(asdict(config)):
        raise TrainingError(f"{path} is the state of another configuration. Use another folder, or remove it.")
    generator.load_state_dict(state["generator"])
    mean.load_state_dict(state["mean"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
