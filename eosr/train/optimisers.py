"""Optimisers by the name they have in a configuration; the learning rate of every step: warm-up, schedule, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

import torch
from torch import Tensor, nn

from eosr.train.settings.schema import TrainConfig

#: Coefficients of the quintic Newton-Schulz iteration, and iterations: Jordan et al., "Muon", 2024.
_QUINTIC: Final = (3.4445, -4.7750, 2.0315)
_ITERATIONS: Final = 5
#: Momentum of the matrices, of the same source.
_MOMENTUM: Final = 0.95
#: Root mean square of an AdamW update, to which that of a matrix is brought [rate]: Liu et al., "Muon is scalable for
#: LLM training", 2025, section 2.2. So one learning rate serves both parts.
_RMS: Final = 0.2


class Muon(torch.optim.AdamW):
    """AdamW for vectors; for the kernels of convolutions, momentum whose singular values are all brought near 1.

    A kernel is the matrix (out, in * rows * columns). It is orthogonalised in the precision of the weights:
    `torch.optim.Muon` takes matrices only and works in bfloat16, in which two ranks with half the windows no longer
    move the weights as one rank with all of them.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move every weight that has a gradient."""
        kernels = [(p, group) for group in self.param_groups for p in group["params"] if p.ndim == 4]
        gradients = [p.grad for p, _ in kernels]
        for p, group in kernels:
            gradient, p.grad = p.grad, None  # AdamW passes over what has none
            if gradient is not None:
                self._move(p, gradient, group["lr"], group["weight_decay"])
        loss = super().step(closure)
        for (p, _), gradient in zip(kernels, gradients, strict=True):
            p.grad = gradient
        return loss

    def _move(self, p: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[p]
        if not state:
            # AdamW looks for "step" in every state it loads.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(p))
        momentum: Tensor = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        update = orthogonalised(gradient.lerp(momentum, _MOMENTUM).flatten(1)).view_as(p)
        p.mul_(1 - rate * decay).add_(update, alpha=-rate * _RMS * max(p.shape[0], p[0].numel()) ** 0.5)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors whose singular values lie near 1 (0.7 to 1.2), shape as given."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


#: What ``optimiser`` may be.
OPTIMISERS: Final[dict[str, type[torch.optim.Optimizer]]] = {
    "muon": Muon, "adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "nadam": torch.optim.NAdam,
}  # fmt: skip


def build_optimiser(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of the generator; its learning rate is set anew at every step."""
    kind: Any = OPTIMISERS[config.optimiser]
    optimiser: torch.optim.Optimizer = kind(
        parameters, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    return optimiser


def build_critic_optimiser(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of the discriminator, as the papers of the losses have it.

    RMSprop for a critic whose weights are clipped (momentum made it unstable: Arjovsky et al. 2017, section 4); Adam
    without momentum under a gradient penalty (Gulrajani et al. 2017, algorithm 1); Adam else.
    """
    rate = config.adversarial.learning_rate
    if config.adversarial.loss == "wgan":
        return torch.optim.RMSprop(parameters, lr=rate)
    betas = (0.0, 0.9) if config.adversarial.loss == "wgan_gp" else (0.9, 0.999)
    return torch.optim.Adam(parameters, lr=rate, betas=betas)


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
