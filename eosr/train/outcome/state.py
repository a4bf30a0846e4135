"""The state file of a run: everything needed to go on as if nothing had happened; only the trainer reads it."""

from __future__ import annotations

import ast
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from eosr.errors import TrainingError
from eosr.host.files import put
from eosr.train.settings.schema import TrainConfig


def save_state(path: Path, config: TrainConfig, ranks: int, content: dict[str, Any]) -> None:
    """Write the state beside its place, then rename: a kill leaves the old or the new one, whole.

    Raises
    ------
    TrainingError
        If it cannot be written; the state before is kept.
    """
    part = path.with_suffix(".part")
    try:
        torch.save({"config": repr(asdict(config)), "ranks": ranks, **content}, part)
        put(part, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise TrainingError(
            f"the state {path} of step {content['step']} cannot be written: {str(error).splitlines()[0]}. "
            "Make room or correct the rights, then start the same command again; it goes on from the state before."
        ) from error


def load_state(path: Path, config: TrainConfig, ranks: int) -> dict[str, Any] | None:
    """Return a saved state; None where there is none.

    Raises
    ------
    TrainingError
        If the state is damaged, or was written under another configuration or by another number of processes.
    """
    if not path.is_file():
        return None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"{path} is no state of a training, or is damaged ({reason}). Remove it to start anew."
        ) from error
    if not isinstance(state, dict) or not {"config", "ranks", "step"} <= set(state):
        raise TrainingError(f"{path} is no state of a training. Remove it to start anew.")
    if state["config"] != repr(asdict(config)):
        told = _differences(str(state["config"]), config)
        raise TrainingError(f"{path} is the state of another configuration{told}. Use another folder, or remove it.")
    if state["ranks"] != ranks:
        # Other windows, and under a scaling rule another rate: another run under the same name.
        raise TrainingError(
            f"{path} was written by {state['ranks']} process{'es' if state['ranks'] > 1 else ''}, this run has "
            f"{ranks}. Start {state['ranks']}, or use another folder with initial = the weights so far."
        )
    return dict(state)


def _differences(saved: str, config: TrainConfig) -> str:
    try:
        return differences(ast.literal_eval(saved), asdict(config))
    except (ValueError, SyntaxError):
        return ""


def differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Keys whose values differ, with both, in brackets."""
    one, other = _flat(there), _flat(here)
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return " (" + ", ".join(f"{key} = {one.get(key)!r} there, {other.get(key)!r} here" for key in keys) + ")"


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
