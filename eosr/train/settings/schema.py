"""What a training run is: every setting, its default, unit and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eosr.cube.degradation import DEGRADATIONS
from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from eosr.train.data.windows import WindowConfig


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What is scored on the scenes kept out, and how often: `eosr.evaluate` with these arguments."""

    #: Operators of the scores during the run; the last validation has all that the generator inverts.
    operators: tuple[str, ...] = ("study",)
    properties: tuple[str, ...] = ("synthesis", "consistency")
    #: Validations in a row without a better RMSE (synthesis, first operator, mean over scenes) that end the run; 0: no
    #: end before the last step.
    patience: int = 0
    #: Scenes of which a picture is written at every validation.
    pictures: int = 0


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The second stage: a discriminator beside the reconstruction loss."""

    #: One of `eosr.nn.losses.ADVERSARIAL`; empty: no discriminator.
    loss: str = ""
    #: Weight of the adversarial loss; or 0 and `gradient_ratio` instead.
    weight: float = 0.0
    #: Wanted ratio of the norms of both losses' gradients at the estimate; the weight then follows from it.
    gradient_ratio: float = 0.05
    #: Steps between two calibrations of the weight to `gradient_ratio`.
    calibrate_every: int = 50
    #: Steps over which the weight rises from 0.
    ramp: int = 1000
    #: Steps of the discriminator before each of the generator; 0: 5 for wgan and wgan_gp, else 1.
    critic_steps: int = 0
    #: Adam's learning rate of the discriminator, scheduled as the generator's.
    learning_rate: float = 4e-4
    #: Weight of the gradient penalty (wgan_gp).
    penalty: float = 10.0
    #: Largest weight of the critic (wgan).
    weight_limit: float = 0.01
    #: Generator loss log(1 - D) instead of -log D (vanilla).
    saturating: bool = False
    #: Project the estimate onto the measurement before any loss sees it.
    consistency: bool = True
    #: `eosr.nn.discriminator.DiscriminatorConfig`: kind, features, stages, spectral norm.
    kind: str = "vgg"
    features: int = 48
    stages: int = 3
    spectral_norm: bool = False
    #: Show the discriminator the 10 m bands too.
    conditional: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run, from seed to schedule."""

    #: Name of the weights, e.g. ``s2sr-20m``.
    name: str
    #: Seed of windows, operators and initial weights.
    seed: int = 0
    #: Weights to begin with, a shipped name or a path; empty: fresh ones.
    initial: str = ""
    #: Optimiser steps in all.
    steps: int = 10000
    #: ``bfloat16`` (convolutions), ``float32`` or ``float64``.
    precision: str = "bfloat16"
    #: Of a run in bfloat16, the last steps, which are in float32.
    float32_steps: int = 500
    #: Windows per step and process.
    batch: int = 16
    #: ``charbonnier`` or ``l1``.
    loss: str = "charbonnier"
    #: Charbonnier loss sqrt(e^2 + eps^2): where it turns from square to absolute [units of 2000 DN].
    charbonnier: float = 0.02
    #: ``muon``, ``adamw``, ``adam`` or ``nadam``.
    optimiser: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    #: Learning rate at its highest, for one process.
    learning_rate: float = 1e-3
    #: Linear rise before [steps].
    warmup: int = 200
    #: ``cosine`` (down to `floor`), ``plateau``, ``halving`` or ``constant``.
    schedule: str = "cosine"
    #: Lowest learning rate [1 of the highest].
    floor: float = 0.01
    #: ``plateau``: validations in a row without a better RMSE that halve the rate.
    plateau: int = 5
    #: ``halving``: steps of one process after which the rate halves, the n of the modified linear rule.
    halve_every: int = 66000
    #: Rate of k processes: ``none``; ``linear``: times k; ``modified``: times k, and halved every `halve_every` / k
    #: steps.
    scaling: str = "none"
    #: Gradient norm above which a step is scaled down.
    clip: float = 0.5
    #: Decay of the running mean of the weights; it is the mean that is validated and shipped.
    ema: float = 0.999
    #: Steps between validations.
    every: int = 500
    #: Steps between state files; 0: as `every`.
    save_every: int = 0
    #: Threads that draw windows beside the training.
    readers: int = 1
    #: Write TensorBoard's event files too.
    tensorboard: bool = False
    #: Share of windows from scenes whose name starts with the key; the rest is spread over the others.
    shares: dict[str, float] = field(default_factory=dict)
    #: Kind of the generator, ``kind = "..."`` below ``[generator]``, and its configuration.
    kind: str = BackProjectionGenerator.kind
    generator: Any = field(default_factory=BackProjectionConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)

    @property
    def critic_steps(self) -> int:
        """Steps of the discriminator before each of the generator; 0 without one."""
        adversarial = self.adversarial
        if not adversarial.loss:
            return 0
        return adversarial.critic_steps or (5 if adversarial.loss in ("wgan", "wgan_gp") else 1)

    @property
    def inverts(self) -> tuple[str, ...]:
        """Operators that the windows show: all of them where blurs are drawn freely."""
        chances = self.window.operators
        return tuple(
            name for name, chance in zip(DEGRADATIONS, chances, strict=True) if chance > 0 or sum(chances) < 1 - 1e-9
        )
