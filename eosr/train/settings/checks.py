"""Values of a configuration that cannot work, or contradict each other: refused before anything is read."""

from __future__ import annotations

import math
from typing import Any, Final

from eosr.cube.degradation import DEGRADATIONS
from eosr.errors import TrainingError
from eosr.nn.discriminator import DISCRIMINATORS, least_side
from eosr.nn.losses import ADVERSARIAL
from eosr.train.optimisers import OPTIMISERS
from eosr.train.settings.schema import TrainConfig

#: Least value of a key, and whether that value itself is allowed.
_LEAST: Final = {
    "": {
        "seed": (0, True), "steps": (1, True), "float32_steps": (0, True), "batch": (1, True), "every": (1, True),
        "learning_rate": (0, False), "warmup": (0, True), "weight_decay": (0, True), "clip": (0, False),
        "ema": (0, True), "charbonnier": (0, False), "floor": (0, True), "plateau": (1, True),
        "halve_every": (1, True), "save_every": (0, True), "readers": (1, True),
    },
    "generator": {key: (1, True) for key in ("features", "stages", "blocks", "expansion")},
    "window": {
        "size": (1, True), "rim": (0, True), "gain": (0, True), "band_gain": (0, True), "contrast": (0, True),
        "jitter": (0, True),
    },
    "validation": {"patience": (0, True), "pictures": (0, True)},
    "adversarial": {
        "weight": (0, True), "gradient_ratio": (0, True), "calibrate_every": (1, True), "ramp": (0, True),
        "critic_steps": (0, True), "learning_rate": (0, False), "penalty": (0, True), "weight_limit": (0, False),
        "features": (1, True), "stages": (1, True),
    },
}  # fmt: skip
#: Keys that name one of several things.
_NAMES: Final = {
    "": {
        "precision": ("bfloat16", "float32", "float64"), "loss": ("charbonnier", "l1"),
        "optimiser": tuple(OPTIMISERS), "schedule": ("cosine", "plateau", "halving", "constant"),
        "scaling": ("none", "linear", "modified"),
    },
    "validation": {"operators": DEGRADATIONS, "properties": ("synthesis", "consistency")},
    "adversarial": {"loss": ("", *ADVERSARIAL), "kind": DISCRIMINATORS},
}  # fmt: skip


def check_config(config: TrainConfig, where: str) -> None:
    """Refuse what cannot work.

    Raises
    ------
    TrainingError
        With the key, its value, and what to give instead.
    """
    _check_names(config, where)
    _check_ranges(config, where)
    _check_agreement(config, where)
    _check_windows(config, where)
    _check_stages(config, where)


def _check_names(config: TrainConfig, where: str) -> None:
    for table, names in _NAMES.items():
        part: Any = getattr(config, table) if table else config
        for key, known in names.items():
            value = getattr(part, key)
            several = value if isinstance(value, tuple) else (value,)
            if not set(several) <= set(known) or not several:
                place = f"{where} [{table}]" if table else where
                given = list(value) if isinstance(value, tuple) else value
                raise TrainingError(
                    f"{place}: {key} = {given!r} is unknown. Give {', '.join(repr(name) for name in known)}."
                )


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


def _check_windows(config: TrainConfig, where: str) -> None:
    window = config.window
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


def _check_stages(config: TrainConfig, where: str) -> None:
    """Refuse what the optimiser, the schedule, the validation and the discriminator cannot use."""
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        raise TrainingError(f"{where}: betas = {list(config.betas)} cannot work. Give two numbers in [0, 1).")
    if config.floor > 1:
        raise TrainingError(f"{where}: floor = {config.floor!r} is above the highest rate. Give 1 or less.")
    if config.scaling == "modified" and config.schedule != "halving":
        raise TrainingError(
            f"{where}: scaling = 'modified' halves the rate, schedule = {config.schedule!r} does not. "
            "Give schedule = 'halving', or scaling = 'linear'."
        )
    beyond = [name for name in config.validation.operators if name not in config.inverts]
    if beyond:
        raise TrainingError(
            f"{where} [validation]: no window is degraded by {', '.join(beyond)} (see operators below [window]). "
            f"Validate under {', '.join(config.inverts)}."
        )
    adversarial = config.adversarial
    if adversarial.loss and not (adversarial.weight > 0) ^ (adversarial.gradient_ratio > 0):
        raise TrainingError(
            f"{where} [adversarial]: weight = {adversarial.weight!r} and gradient_ratio = "
            f"{adversarial.gradient_ratio!r}; the one follows from the other. Give one of them above 0, the other as 0."
        )
    core = config.window.size - 2 * config.window.rim
    least = least_side(adversarial.kind, adversarial.stages)
    if adversarial.loss and core < least:
        raise TrainingError(
            f"{where} [adversarial]: windows of {core} pixels without rim are too small for a discriminator "
            f"of {adversarial.stages} stages. Give size = {least + 2 * config.window.rim} or more "
            "below [window], or fewer stages."
        )
