"""One step of the training: windows in, weights moved by the mean gradient of all ranks, measures out.

Gradients are averaged after ``backward``, in one all-reduce that carries the measures too
(docs/decisions/training-loop.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from eosr.nn.losses import (
    charbonnier,
    clip_weights,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    gradient_squares,
    l1,
    needs_real,
    ratio_of,
)
from eosr.nn.operator import project, taps_for
from eosr.train.data.windows import Batch
from eosr.train.ranks.communicator import Communicator
from eosr.train.settings.schema import TrainConfig

#: Share of the calibrated weight that a new calibration leaves.
_KEPT: Final = 0.8
#: Tells the random numbers of the penalty from those of the windows.
_PENALTY: Final = 1


@dataclass(kw_only=True)
class Networks:
    """What is trained, with its optimisers."""

    generator: nn.Module
    #: Running mean of the generator's weights.
    mean: nn.Module
    optimiser: torch.optim.Optimizer
    critic: nn.Module | None = None
    critic_optimiser: torch.optim.Optimizer | None = None
    #: Weight of the adversarial loss that the wanted ratio of gradients leads to; 0: not calibrated yet.
    weight: float = 0.0


class NonFiniteError(Exception):
    """A loss or a gradient is no number; ``what`` is said of which."""

    def __init__(self, what: str, value: float) -> None:
        super().__init__(what, value)
        self.what, self.value = what, value


class Stepper:
    """Steps of one run on one rank.

    Parameters
    ----------
    networks : Networks
    config : TrainConfig
    communicator : Communicator
    device : torch.device
    """

    def __init__(
        self, networks: Networks, config: TrainConfig, communicator: Communicator, device: torch.device
    ) -> None:
        self.networks, self.config, self.communicator, self.device = networks, config, communicator, device
        self.dtype = torch.float64 if config.precision == "float64" else torch.float32

    def generator_step(self, batch: Batch, step: int, rate: float, stop: bool) -> tuple[dict[str, float], bool]:
        """Move the generator and its running mean.

        Parameters
        ----------
        batch : Batch
            This rank's windows, on its device.
        step : int
            From 0.
        rate : float
            Learning rate.
        stop : bool
            Whether this rank has been asked to stop.

        Returns
        -------
        measures : dict
            Means over all ranks: ``loss``, ``gradient`` (norm before clipping), with a discriminator also
            ``adversarial``, ``weight``.
        stop : bool
            Whether any rank has been asked to stop.

        Raises
        ------
        NonFiniteError
            On every rank alike, before any weight has moved.
        """
        networks = self.networks
        estimate = self._estimate(batch, step)
        loss = self._reconstruction(estimate, batch)
        measures = {"loss": loss}
        total = loss
        if networks.critic is not None:
            networks.critic.requires_grad_(False)  # its gradients belong to its own step
            adversarial = self._adversarial(networks.critic, estimate, batch)
            weight = self._weight(loss, adversarial, estimate, step)
            measures |= {"adversarial": adversarial, "weight": loss.new_tensor(weight)}
            total = loss + weight * adversarial
        networks.optimiser.zero_grad(set_to_none=True)
        total.backward()
        if networks.critic is not None:
            networks.critic.requires_grad_(True)
        means = self._average(networks.generator, measures | {"stop": loss.new_tensor(float(stop))})
        means["gradient"] = self._move(networks.generator, networks.optimiser, rate, means["loss"])
        self._follow(step)
        return means, means.pop("stop") > 0

    def critic_step(self, batch: Batch, step: int, number: int, rate: float) -> dict[str, float]:
        """Move the discriminator; return its loss [1] as ``critic``, and ``penalty`` where there is one.

        ``number`` tells the steps of the discriminator apart: it seeds where between real and made the penalty looks.

        Raises
        ------
        NonFiniteError
            As `generator_step`.
        """
        critic, optimiser = self.networks.critic, self.networks.critic_optimiser
        if critic is None or optimiser is None:
            raise ValueError("this run has no discriminator")
        adversarial = self.config.adversarial
        with torch.no_grad():
            estimate = self._estimate(batch, step)
        real, made, shown = self._seen(batch.target, batch), self._seen(estimate, batch), self._shown(batch)
        with self._autocast(step):
            judged = critic(real, shown).to(self.dtype), critic(made, shown).to(self.dtype)
        loss = discriminator_loss(adversarial.loss, *judged)
        measures = {"critic": loss}
        if adversarial.loss == "wgan_gp":
            penalty = gradient_penalty(critic, real, made, shown, self._between(len(real), number))
            measures["penalty"] = penalty
            loss = loss + adversarial.penalty * penalty
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        means = self._average(critic, measures)
        self._move(critic, optimiser, rate, means["critic"])
        if adversarial.loss == "wgan":
            clip_weights(critic, adversarial.weight_limit)
        return means

    def _autocast(self, step: int) -> AbstractContextManager[object]:
        reduced = self.config.precision == "bfloat16" and step < self.config.steps - self.config.float32_steps
        return torch.autocast(self.device.type, torch.bfloat16, enabled=reduced)

    def _estimate(self, batch: Batch, step: int) -> Tensor:
        with self._autocast(step):
            estimate: Tensor = self.networks.generator(batch.fine, batch.coarse, batch.sigma, batch.middle)
        estimate = estimate.to(self.dtype)
        if self.networks.critic is None or not self.config.adversarial.consistency:
            return estimate
        factor = self.config.window.factor
        return project(estimate, batch.coarse, taps_for(factor, batch.sigma, 3 * factor).to(estimate), factor)

    def _reconstruction(self, estimate: Tensor, batch: Batch) -> Tensor:
        if self.config.loss == "l1":
            return l1(estimate, batch.target, batch.weight)
        return charbonnier(estimate, batch.target, batch.weight, self.config.charbonnier)

    def _seen(self, bands: Tensor, batch: Batch) -> Tensor:
        """What a discriminator sees of bands: no rim, and zero where there is no truth."""
        return self._core(bands * (batch.weight > 0))

    def _shown(self, batch: Batch) -> Tensor | None:
        return self._core(batch.fine * (batch.weight > 0)) if self.config.adversarial.conditional else None

    def _core(self, bands: Tensor) -> Tensor:
        rim = self.config.window.rim
        return bands[..., rim : bands.shape[-2] - rim, rim : bands.shape[-1] - rim]

    def _adversarial(self, critic: nn.Module, estimate: Tensor, batch: Batch) -> Tensor:
        adversarial, shown = self.config.adversarial, self._shown(batch)
        made = critic(self._seen(estimate, batch), shown)
        with torch.no_grad():
            real = critic(self._seen(batch.target, batch), shown) if needs_real(adversarial.loss) else made.detach()
        return generator_loss(adversarial.loss, real, made, saturating=adversarial.saturating)

    def _weight(self, loss: Tensor, adversarial: Tensor, estimate: Tensor, step: int) -> float:
        """Weight of the adversarial loss at this step: as given, or as the wanted ratio of gradients asks for."""
        settings, networks = self.config.adversarial, self.networks
        risen = min(1.0, (step + 1) / settings.ramp) if settings.ramp else 1.0
        if settings.weight > 0:
            return settings.weight * risen
        if networks.weight == 0 or step % settings.calibrate_every == 0:
            squares = gradient_squares(loss, adversarial, estimate)
            self.communicator.average([squares])
            wanted = settings.gradient_ratio / max(ratio_of(squares), 1e-12)
            # In logarithms: one flat discriminator must not throw the weight up by orders of magnitude.
            networks.weight = wanted if networks.weight == 0 else networks.weight**_KEPT * wanted ** (1 - _KEPT)
        return networks.weight * risen

    def _between(self, count: int, number: int) -> Tensor:
        """Where between real and made the penalty looks, by window: the same whichever rank has the window."""
        first = (number * self.communicator.size + self.communicator.rank) * count
        drawn = [np.random.default_rng((self.config.seed, first + k, _PENALTY)).random() for k in range(count)]
        return torch.tensor(drawn, dtype=self.dtype, device=self.device)[:, None, None, None]

    def _average(self, network: nn.Module, measures: Mapping[str, Tensor]) -> dict[str, float]:
        """Average gradients and measures over the ranks, in one all-reduce."""
        packed = torch.stack([one.detach().to(self.dtype) for one in measures.values()])
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        self.communicator.average([*gradients, packed])
        return dict(zip(measures, packed.tolist(), strict=True))

    def _move(self, network: nn.Module, optimiser: torch.optim.Optimizer, rate: float, loss: float) -> float:
        """Clip and step, if loss and gradient are numbers; return the norm of the gradient."""
        if not torch.isfinite(torch.tensor(loss)):
            raise NonFiniteError("loss", loss)
        norm = float(nn.utils.clip_grad_norm_(network.parameters(), self.config.clip))
        # A loss can be a number and its gradient none; one such step would spoil every weight, and then the state.
        if not torch.isfinite(torch.tensor(norm)):
            raise NonFiniteError("gradient", norm)
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        return norm

    def _follow(self, step: int) -> None:
        """Let the running mean follow."""
        decay = min(self.config.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            pairs = zip(self.networks.mean.parameters(), self.networks.generator.parameters(), strict=True)
            for averaged, current in pairs:
                averaged.lerp_(current, 1 - decay)
