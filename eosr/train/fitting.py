"""A generator and places of one scene -> the generator adapted to them, and whether that made it better."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from eosr._version import __version__
from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import DEGRADATIONS
from eosr.errors import WeightsError
from eosr.nn.kinds import Generator
from eosr.nn.tile import resolve_device
from eosr.nn.weights import Weights, load_weights, save_weights
from eosr.train.data.scenes import Scene
from eosr.train.data.windows import SCALE, WindowConfig, Windows, collate
from eosr.train.optimisers import build_optimiser, learning_rate
from eosr.train.outcome.validate import as_method, mean_rmse, rmse_per_scene
from eosr.train.ranks.communicator import Alone
from eosr.train.settings.schema import TrainConfig
from eosr.train.step import Networks, NonFiniteError, Stepper

#: Side and rim of a window [target pixels], by factor.
WINDOW: Final = {2: (72, 8), 6: (48, 6)}
#: Windows per step.
BATCH: Final = 8
#: Share of the windows that are degraded by the scene's operator; the others draw a blur freely, as eosr-train's do.
_OWN: Final = 0.85
#: Mirrored pixels around a place that is judged [target pixels]: places are small, and both generators get the same.
_MARGIN: Final = 24


@dataclass(frozen=True, kw_only=True)
class AdaptConfig:
    """How a generator is adapted."""

    operator: str
    steps: int
    rate: float
    seed: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Places:
    """Parts of one scene in memory: to learn from, and to be judged on."""

    learnt: Sequence[Scene]
    held_out: Sequence[Scene]
    #: Of the scene.
    item_ids: tuple[str, ...]

    @property
    def checksum(self) -> str:
        """SHA-256 of the pixels that are learnt from."""
        sums = hashlib.sha256()
        for scene in self.learnt:
            for bands in (scene.fine, scene.middle, scene.coarse):
                sums.update(b"" if bands is None else bands.tobytes())
        return sums.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """An adapted generator, and the mean RMSE of the places held out, one scale down [DN]: before and after."""

    generator: Generator
    before: float
    after: float

    @property
    def better(self) -> bool:
        """Whether it is better on the places held out than what it began with."""
        return self.after < self.before


def load_trainable(source: str | Path) -> Weights:
    """Load weights that eosr-train could go on with.

    Raises
    ------
    WeightsError
        If there is no such file, or its inputs are not those that eosr trains with.
    """
    weights = load_weights(source)
    bands, two = weights.normalization, weights.factor == 2
    trained = (BANDS_10M, () if two else BANDS_20M, BANDS_20M if two else BANDS_60M)
    if (bands.fine_bands, bands.middle_bands, bands.target_bands) != trained or bands.scale != SCALE:
        raise WeightsError(
            f"{weights.name} takes {', '.join((*bands.fine_bands, *bands.middle_bands))} per {bands.scale:g} DN and "
            f"gives {', '.join(bands.target_bands)}, which eosr cannot train. Adapt weights that eosr-train wrote, "
            "e.g. weights='s2sr-20m'."
        )
    return weights


def adapt_generator(
    begun: Weights, places: Places, config: AdaptConfig, progress: Callable[[int, int], object] | None = None
) -> Adapted:
    """Train a copy of a generator on places of a scene, and judge both on those held out."""
    device = torch.device(resolve_device(config.device))
    training = _training(begun, config)
    source = Windows(list(places.learnt), training.window)
    generator = copy.deepcopy(begun.generator).to(device).train().requires_grad_(True)
    mean = copy.deepcopy(generator).requires_grad_(False)
    networks = Networks(generator=generator, mean=mean, optimiser=build_optimiser(generator.parameters(), training))
    stepper = Stepper(networks, training, Alone(), device)

    def rmse(judged: Generator) -> float:
        method = as_method(judged, begun.factor, _MARGIN)
        with np.errstate(over="ignore"):  # weights that went astray are infinitely bad
            return mean_rmse(rmse_per_scene(method, list(places.held_out), begun.factor, config.operator))

    before = rmse(begun.generator)
    for step in range(config.steps):
        drawn = [source.sample(BATCH * step + k, config.seed) for k in range(BATCH)]
        batch = collate(drawn).to(device, torch.float32)
        try:
            stepper.generator_step(batch, step, learning_rate(step, training), False)
        except NonFiniteError:  # the rate is too high for this scene
            return Adapted(generator=begun.generator, before=before, after=float("inf"))
        if progress is not None:
            progress(step + 1, config.steps)
    adapted = mean.cpu().eval()
    return Adapted(generator=adapted, before=before, after=rmse(adapted))


def _training(begun: Weights, config: AdaptConfig) -> TrainConfig:
    size, rim = WINDOW[begun.factor]
    chances = tuple(_OWN if name == config.operator else 0.0 for name in DEGRADATIONS)
    window = WindowConfig(
        factor=begun.factor, size=size, rim=rim, jitter=0.05, gain=0.1, band_gain=0.03,
        operators=(chances[0], chances[1], chances[2], chances[3]),
    )  # fmt: skip
    return TrainConfig(
        name="adapted", seed=config.seed, steps=config.steps, learning_rate=config.rate,
        warmup=min(20, config.steps), batch=BATCH, precision="float32", ema=0.98, window=window,
        kind=begun.generator.kind, generator=begun.generator.config,
    )  # fmt: skip


def save_adapted(adapted: Adapted, begun: Weights, places: Places, config: AdaptConfig, path: Path) -> Path:
    """Write the adapted weights if they are better, else those it began with; the file says which, and of what."""
    better, made = adapted.better, begun.provenance
    ids = ", ".join(places.item_ids) or "a scene without an id"
    scores = {
        f"{config.operator}/held out, before": adapted.before,
        f"{config.operator}/held out, after": adapted.after,
    }
    about = replace(
        made,
        software=f"eosr {__version__}, {'adapted' if better else 'not bettered'} from {begun.name} "
        f"({begun.checksum[:12]}) on {ids}",
        data={**made.data, begun.name: begun.checksum, f"places of {ids}": places.checksum},
        seed=config.seed, steps=made.steps + (config.steps if better else 0),
        scores={name: round(value, 3) for name, value in scores.items()},
        bfloat16_error=float("inf") if better else made.bfloat16_error,
    )  # fmt: skip
    invert = begun.degradations
    if better and invert and config.operator not in invert:
        invert = (*invert, config.operator)
    return save_weights(
        replace(
            begun, name=path.stem, provenance=about, degradations=invert,
            generator=adapted.generator if better else begun.generator,
        ),
        path,
    )  # fmt: skip
