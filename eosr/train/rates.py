"""The learning rate of every step: warm-up, schedule, and scaling with the number of processes."""

from __future__ import annotations

import math

from eosr.train.settings import TrainConfig


def scale_of(config: TrainConfig, ranks: int) -> float:
    """Factor of the learning rate for so many processes: ``ranks`` under a scaling rule, else 1.

    The linear rule: a batch ``k`` times as large takes a rate ``k`` times as large [1].

    References
    ----------
    [1] Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017, section 2.1.
    """
    return 1.0 if config.scaling == "none" else float(ranks)


def learning_rate(step: int, config: TrainConfig, *, ranks: int = 1, halvings: int = 0) -> float:
    """Learning rate of the generator at a step (from 0).

    Linear warm-up to the highest rate, then the schedule: a cosine down to ``floor``; the rate halved ``halvings``
    times (``plateau``); halved every ``halve_every`` steps (``halving``); or left alone.

    Under ``scaling = "modified"`` it is the reference study's rule ``lr0 * k * 0.5 ** floor(t * k / n)``: with ``k``
    processes an epoch has ``k`` times fewer steps, so the rate is halved after ``n / k`` of them, as often per epoch.
    """
    highest = config.learning_rate * scale_of(config, ranks)
    if step < config.warmup:
        return highest * (step + 1) / config.warmup
    if config.schedule == "cosine":
        done = (step - config.warmup) / max(1, config.steps - config.warmup)
        return highest * (config.floor + (1 - config.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
    if config.schedule == "halving":
        halvings = step * (ranks if config.scaling == "modified" else 1) // config.halve_every
    elif config.schedule == "constant":
        halvings = 0
    return highest * max(config.floor, 0.5**halvings)
