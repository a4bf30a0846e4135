"""The state file of a run: everything needed to go on as if nothing had happened; only the trainer reads it."""

from __future__ import annotations

import ast
import os
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eosr.errors import TrainingError
from eosr.train.config import TrainConfig


def save_state(
    path: Path, config: TrainConfig, generator: nn.Module, mean: nn.Module, optimiser: torch.optim.Optimizer, step: int
) -> None:
    """Write the state beside its place, then rename: a kill leaves the old or the new one, whole.

    Raises
    ------
    TrainingError
        If it cannot be written; the state before is kept.
    """
    part = path.with_suffix(".part")
    state = {
        "config": repr(asdict(config)),
        "step": step,
        "generator": generator.state_dict(),
        "mean": mean.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    try:
        torch.save(state, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise TrainingError(
            f"the state {path} of step {step} cannot be written: {str(error).splitlines()[0]}. "
            "Make room or correct the rights, then start the same command again; it goes on from the state before."
        ) from error


def load_state(
    path: Path, config: TrainConfig, generator: nn.Module, mean: nn.Module, optimiser: torch.optim.Optimizer
) -> int:
    """Put a saved state back and return the next step; 0 where there is none.

    Raises
    ------
    TrainingError
        If the state is damaged, or was written under another configuration.
    """
    if not path.is_file():
        return 0
    try:
        state = torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"{path} is no state of a training, or is damaged ({reason}). Remove it to start anew."
        ) from error
    if not isinstance(state, dict) or "config" not in state:
        raise TrainingError(f"{path} is no state of a training. Remove it to start anew.")
    if state["config"] != repr(asdict(config)):
        told = _differences(str(state["config"]), config)
        raise TrainingError(f"{path} is the state of another configuration{told}. Use another folder, or remove it.")
    generator.load_state_dict(state["generator"])
    mean.load_state_dict(state["mean"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _differences(saved: str, config: TrainConfig) -> str:
    """Keys whose values differ, with both; empty where the saved text cannot be read."""
    try:
        there, here = _flat(ast.literal_eval(saved)), _flat(asdict(config))
    except (ValueError, SyntaxError):
        return ""
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return " (" + ", ".join(f"{key} = {there.get(key)!r} there, {here.get(key)!r} here" for key in keys) + ")"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
