"""What a training run is: one TOML file, every key known, unknown keys refused."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from eosr.errors import TrainingError
from eosr.nn.generator import BackProjectionConfig
from eosr.train.windows import WindowConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run, from seed to schedule."""

    #: Name of the weights, e.g. ``s2sr-20m``.
    name: str
    #: Seed of windows, operators and initial weights.
    seed: int = 0
    #: Optimiser steps in all.
    steps: int = 10000
    #: Of them, the last ones in full float32 (the others in bfloat16 where convolutions are concerned).
    float32_steps: int = 500
    #: Windows per step.
    batch: int = 16
    #: Peak learning rate of AdamW; linear warm-up over `warmup` steps, then a cosine down to 1 % of it.
    learning_rate: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-4
    #: Gradient norm above which a step is scaled down.
    clip: float = 0.5
    #: Decay of the running mean of the weights; it is the mean that is validated and shipped.
    ema: float = 0.999
    #: Charbonnier loss sqrt(e^2 + eps^2): where it turns from square to absolute [units of 2000 DN].
    charbonnier: float = 0.02
    #: Steps between validations and state files.
    every: int = 500
    #: Share of windows from scenes whose name starts with the key; the rest is spread over the others.
    shares: dict[str, float] = field(default_factory=dict)
    generator: BackProjectionConfig = field(default_factory=BackProjectionConfig)
    window: WindowConfig = field(default_factory=WindowConfig)


def load_config(path: Path) -> TrainConfig:
    """Read a run's TOML file.

    Raises
    ------
    TrainingError
        If the file is missing or no TOML, or a key is unknown; the message lists the known ones.
    """
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise TrainingError(f"there is no configuration {path}. Name a TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{path} is not valid TOML: {error}. Correct that line.") from None
    nested = {
        "generator": _build(BackProjectionConfig, table.pop("generator", {}), f"{path} [generator]"),
        "window": _build(WindowConfig, table.pop("window", {}), f"{path} [window]"),
    }
    return _build(TrainConfig, table | nested, str(path))


def _build(kind: Any, table: dict[str, Any], where: str) -> Any:
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise TrainingError(f"{where}: unknown key {', '.join(unknown)}. Known keys: {', '.join(known)}.")
    table = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    try:
        return kind(**table)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}. Add the missing key.") from None
