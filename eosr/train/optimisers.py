"""Optimisers by the name they have in a configuration."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from eosr.train.settings import TrainConfig


def build_optimiser(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of the generator; its learning rate is set anew at every step."""
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "nadam": torch.optim.NAdam}[config.optimiser]
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
