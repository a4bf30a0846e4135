"""What a training run is: one TOML file, every key known, unknown keys refused."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, get_origin, get_type_hints

from eosr.degrade import DEGRADATIONS
from eosr.errors import TrainingError
from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from eosr.nn.kinds import config_type
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
    #: Kind of the generator, ``kind = "..."`` below ``[generator]``, and its configuration.
    kind: str = BackProjectionGenerator.kind
    generator: Any = field(default_factory=BackProjectionConfig)
    window: WindowConfig = field(default_factory=WindowConfig)


def load_config(path: Path) -> TrainConfig:
    """Read a run's TOML file.

    Raises
    ------
    TrainingError
        If the file is missing or no TOML, a key is unknown (the message lists the known ones), a value is of another
        type, or two values contradict each other.
    """
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise TrainingError(f"there is no configuration {path}. Name a TOML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"the configuration {path} cannot be read: {error}. Name a TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"{path} is not valid TOML: {error}. Correct that line.") from None
    if "kind" in table:
        raise TrainingError(f"{path}: kind stands above the tables. Write it below [generator].")
    kind, shape = _kind_of(table.pop("generator", {}), f"{path} [generator]")
    nested = {
        "kind": kind,
        "generator": _build(config_type(kind), shape, f"{path} [generator]"),
        "window": _build(WindowConfig, table.pop("window", {}), f"{path} [window]"),
    }
    config: TrainConfig = _build(TrainConfig, table | nested, str(path))
    _check_ranges(config, str(path))
    _check_agreement(config, str(path))
    return config


#: Least value of a key, and whether that value itself is allowed.
_LEAST: Final = {
    "": {
        "seed": (0, True), "steps": (1, True), "float32_steps": (0, True), "batch": (1, True), "every": (1, True),
        "learning_rate": (0, False), "warmup": (0, True), "weight_decay": (0, True), "clip": (0, False),
        "ema": (0, True), "charbonnier": (0, False),
    },
    "generator": {key: (1, True) for key in ("features", "stages", "blocks", "expansion")},
    "window": {"size": (1, True), "rim": (0, True), "gain": (0, True), "band_gain": (0, True)},
}  # fmt: skip


def _kind_of(table: Any, where: str) -> tuple[str, Any]:
    if not isinstance(table, dict):
        return BackProjectionGenerator.kind, table
    shape = dict(table)
    kind = shape.pop("kind", BackProjectionGenerator.kind)
    try:
        config_type(kind)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{where}: {error}. Correct kind = {kind!r}.") from None
    return kind, shape


def _check_ranges(config: TrainConfig, where: str) -> None:
    for table, limits in _LEAST.items():
        part: Any = getattr(config, table) if table else config
        for key, (least, allowed) in limits.items():
            value = getattr(part, key, least if allowed else 1)  # not every kind of generator has every key
            if not math.isfinite(value) or value < least or (value == least and not allowed):
                bound = f"{least} or more" if allowed else f"more than {least}"
                place = f"{where} [{table}]" if table else where
                raise TrainingError(f"{place}: {key} = {value!r} cannot work. Give {bound}.")
    if config.ema >= 1:
        raise TrainingError(f"{where}: ema = {config.ema!r} never forgets the first weights. Give less than 1.")


def _check_agreement(config: TrainConfig, where: str) -> None:
    window, generator = config.window, config.generator
    if window.factor not in (2, 6) or generator.factor != window.factor:
        raise TrainingError(
            f"{where}: [generator] has factor {generator.factor} and [window] factor {window.factor}. "
            "Give both 2 (20 m -> 10 m) or both 6 (60 m -> 10 m)."
        )
    widths = (6, 4, 0) if window.factor == 2 else (2, 4, 6)
    if (generator.targets, generator.fine_guides, generator.middle_guides) != widths:
        raise TrainingError(
            f"{where} [generator]: a generator of factor {window.factor} has targets = {widths[0]}, "
            f"fine_guides = {widths[1]} and middle_guides = {widths[2]}. Correct those lines."
        )
    # The blocks of self-attention are 6 pixels wide, and coarse pixels must be whole.
    block = 12 if config.kind == "study" else 2 * window.factor
    if window.size % block or not 0 <= 2 * window.rim < window.size:
        raise TrainingError(
            f"{where} [window]: size {window.size} with rim {window.rim} cannot work. "
            f"Give a size that is a multiple of {block} and more than twice the rim."
        )
    if len(window.operators) != len(DEGRADATIONS) or min(window.operators) < 0 or sum(window.operators) > 1 + 1e-9:
        raise TrainingError(
            f"{where} [window]: operators {list(window.operators)} are no chances of {', '.join(DEGRADATIONS)}. "
            f"Give {len(DEGRADATIONS)} numbers with a sum of at most 1."
        )
    if min(config.shares.values(), default=0) < 0 or sum(config.shares.values()) > 1 + 1e-9:
        raise TrainingError(f"{where} [shares]: {config.shares} are no shares. Give numbers with a sum of at most 1.")


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:  # the generator's own configuration, built and checked before
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, get_origin(hint) or hint) and not isinstance(value, bool)


def _build(kind: Any, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise TrainingError(f"{where} is {table!r}, not a table of settings. Write the settings below its heading.")
    known = [f.name for f in fields(kind)]
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise TrainingError(f"{where}: unknown key {', '.join(unknown)}. Known keys: {', '.join(known)}.")
    table = {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
    for key, hint in get_type_hints(kind).items():
        if key in table and not _fits(table[key], hint):
            wanted = getattr(hint, "__name__", str(hint))
            raise TrainingError(f"{where}: {key} = {table[key]!r} is no {wanted}. Correct that line.")
    try:
        return kind(**table)
    except TypeError as error:
        raise TrainingError(f"{where}: {error}. Add the missing key.") from None
