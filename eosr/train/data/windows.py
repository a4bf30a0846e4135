"""Scenes -> batches: random windows, degraded by a random operator, turned, flipped and re-lit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M, PLATFORMS
from eosr.cube.degradation import DEGRADATIONS, blur_sigma, degrade_tile, kernel_taps, radius_of
from eosr.errors import TrainingError
from eosr.train.data.scenes import Floats, Scene

Generator = np.random.Generator
#: Digital numbers per unit of the network.
SCALE = 2000.0
#: Draws of a window after which a batch is given up, and the least share of a window that must count.
MAX_DRAWS, MIN_USABLE = 1000, 0.1
#: Power of the share measured that a scene's chance is multiplied by.
HOLES = 4
#: Widest blur of the free draws [coarse pixels]; the widest MTF of a real band needs 0.571 (B11 of Sentinel-2B).
MAX_SIGMA = 0.6


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """What a training window is."""

    #: Pixel-size ratio, 2 or 6.
    factor: int = 2
    #: Side of a window [target pixels]; a multiple of ``2 * factor``.
    size: int = 72
    #: Rim of a window that is context only [target pixels].
    rim: int = 8
    #: Chance of each operator of `DEGRADATIONS`; the rest of the windows draw a free blur per band.
    operators: tuple[float, float, float, float] = (0.45, 0.1, 0.1, 0.15)
    #: Standard deviation of the log of a gain common to all bands, and of one per band [1].
    gain: float = 0.25
    band_gain: float = 0.08
    #: Standard deviation of the log of a factor on the contrast of each target, its level kept: how strongly a band
    #: follows its guides depends on the atmosphere, and must be read from the window, not learnt from levels [1].
    contrast: float = 0.0
    #: Standard deviation of the log of a factor on the blur of a named operator [1].
    jitter: float = 0.0
    #: Turn and flip windows at random.
    flips: bool = True


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Tensors of one step, normalised by `SCALE`."""

    fine: Tensor
    middle: Tensor | None
    coarse: Tensor
    sigma: Tensor
    target: Tensor
    weight: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """Move every tensor."""
        moved = {
            name: None if tensor is None else tensor.to(device, dtype, non_blocking=True)
            for name, tensor in vars(self).items()
        }
        return Batch(**moved)  # type: ignore[arg-type]  # middle alone may be None, and stays so


class Window(NamedTuple):
    """One degraded window of a scene, numpy."""

    fine: Floats
    #: None for a 20 m generator.
    middle: Floats | None
    coarse: Floats
    #: Blur between target and coarse [target pixels].
    sigma: Floats
    target: Floats
    #: 1 where the loss counts, 0 on the rim and where nothing may be trained on.
    weight: Floats


class PaddedScene:
    """A scene continued symmetrically far enough for every window and blur, as the tiler continues it."""

    def __init__(self, scene: Scene, config: WindowConfig) -> None:
        self.name, self.place = scene.name, scene.place or scene.name
        self.factor = config.factor
        self.targets = BANDS_20M if config.factor == 2 else BANDS_60M
        target = scene.middle if config.factor == 2 else scene.coarse
        if target is None:
            raise ValueError(f"{scene.name} has no 60 m bands")
        #: 10 m pixels per target pixel, hence the factor that the guides are degraded by: 2 or 6, and 2 in a virtual
        #: scene of the 60 m generator.
        self.guide_factor = scene.fine.shape[1] // target.shape[1]
        block = 2 * config.factor
        rows, columns = (size // config.factor * config.factor for size in target.shape[1:])
        target = target[:, :rows, :columns]
        self.shape = (rows, columns)
        #: Spare native pixels around every window for the widest blur.
        self.spare = int(4 * MAX_SIGMA * config.factor + 1)
        least = max(0, config.size - min(rows, columns))
        # The rim keeps context; a small scene is continued until a window fits.
        self.margin = _up(max(config.rim + block, least), block)
        self.pad = self.margin + _up(self.spare, block)
        usable = scene.counted(config.factor)[:rows, :columns]
        self.usable = np.pad(usable, self.pad)
        self.target = self._continued(target, 1)
        self.fine = self._continued(scene.fine, self.guide_factor)
        self.middle = self._continued(scene.middle, self.guide_factor // 2) if config.factor == 6 else None
        self.area = int(usable.sum())
        measured = scene.measured.get(10 * config.factor)
        self.measured = 1.0 if measured is None else float(measured.mean())

    def _continued(self, bands: Floats, ratio: int) -> Floats:
        rows, columns = (size * ratio for size in self.shape)
        pad = self.pad * ratio
        return np.pad(bands[:, :rows, :columns], ((0, 0), (pad, pad), (pad, pad)), mode="symmetric")


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _blurs(config: WindowConfig, scene: PaddedScene, rng: Generator) -> list[npt.NDArray[np.float64]]:
    """Sigma of the 10 m guides, the 20 m guides and the targets [own fine pixels]."""
    groups = ((BANDS_10M, scene.guide_factor), (BANDS_20M, scene.guide_factor), (scene.targets, config.factor))
    draw = rng.random()
    if draw < sum(config.operators):
        operator = DEGRADATIONS[int(np.searchsorted(np.cumsum(config.operators), draw, side="right"))]
        platform = PLATFORMS[int(rng.integers(2))]
        jitter = float(np.exp(rng.normal(0, config.jitter))) if config.jitter else 1.0
        sigmas = [np.array([blur_sigma(b, factor, operator, platform) for b in names]) for names, factor in groups]
        # MAX_SIGMA: the blur must not leave the spare pixels around a window.
        return [np.minimum(s * jitter, MAX_SIGMA * factor) for s, (_, factor) in zip(sigmas, groups, strict=True)]
    common = rng.uniform(0, MAX_SIGMA, 3)
    if rng.random() < 0.5:
        common[:] = common[0]
    return [
        np.clip(level + rng.normal(0, 0.05 * MAX_SIGMA, len(names)), 0, MAX_SIGMA) * factor
        for level, (names, factor) in zip(common, groups, strict=True)
    ]


def _degrade_bands(bands: Floats, sigmas: npt.NDArray[np.float64], factor: int, spare: int) -> Floats:
    """Degrade every band by its own blur; the input has ``spare`` extra pixels on each side for it."""
    if factor == 1:  # guides that are as coarse as the targets already
        return bands[:, spare : bands.shape[1] - spare, spare : bands.shape[2] - spare]
    result = []
    for band, sigma in zip(bands, sigmas, strict=True):
        taps = kernel_taps(factor, float(sigma))
        cut = spare - radius_of(taps, factor)
        result.append(degrade_tile(band[cut : band.shape[0] - cut, cut : band.shape[1] - cut], taps, factor))
    return np.stack(result).astype(np.float32)


def window(scene: PaddedScene, row: int, column: int, config: WindowConfig, rng: Generator) -> Window:
    """Cut and degrade one window [DN]; ``row`` and ``column`` count target pixels of the padded scene."""
    s, n, spare = config.factor, config.size, scene.spare
    guides, middles, targets = _blurs(config, scene, rng)

    def cut(bands: Floats, ratio: int) -> Floats:
        top, left, side = row * ratio - spare, column * ratio - spare, n * ratio + 2 * spare
        return bands[:, top : top + side, left : left + side]

    g = scene.guide_factor
    fine = _degrade_bands(cut(scene.fine, g), guides, g, spare)
    middle = None if scene.middle is None else _degrade_bands(cut(scene.middle, g // 2), middles, g, spare)
    coarse = _degrade_bands(cut(scene.target, 1), targets, s, spare)
    inside = (slice(row, row + n), slice(column, column + n))
    weight = np.zeros((n, n), np.float32)
    core = (slice(config.rim, n - config.rim),) * 2
    weight[core] = scene.usable[inside][core]
    return Window(fine, middle, coarse, targets.astype(np.float32), scene.target[(slice(None), *inside)], weight)


class Windows:
    """Windows of scenes in memory, drawn at random: an endless, reproducible row of them.

    Raises
    ------
    TrainingError
        If no pixel may be trained on, or a key of ``shares`` fits no scene.
    """

    def __init__(self, scenes: list[Scene], config: WindowConfig, shares: dict[str, float] | None = None) -> None:
        self.config = config
        self.scenes = [PaddedScene(scene, config) for scene in scenes]
        weights = _weights(self.scenes)
        if shares:
            _share_out(weights, [scene.name for scene in scenes], shares)
        if not weights.sum() > 0:
            raise TrainingError("no scene has a pixel that may be trained on. Give scenes with usable pixels.")
        self.chances = weights / weights.sum()

    def sample(self, index: int, seed: int) -> Window:
        """Draw the window of this number [network units]; the same for the same seed, whoever draws it.

        Raises
        ------
        TrainingError
            If hardly any window holds enough usable pixels.
        """
        rng = np.random.default_rng((seed, index))
        drawn = self._draw(rng)
        return relight(turn(drawn, rng) if self.config.flips else drawn, rng, self.config)

    def _draw(self, rng: Generator) -> Window:
        s, n = self.config.factor, self.config.size
        for _ in range(MAX_DRAWS):
            scene = self.scenes[int(rng.choice(len(self.scenes), p=self.chances))]
            low = scene.pad - scene.margin
            spans = [(length + 2 * scene.margin - n) // s for length in scene.shape]
            row, column = (low + s * int(rng.integers(span + 1)) for span in spans)
            drawn = window(scene, row, column, self.config, rng)
            if drawn.weight.mean() > MIN_USABLE:
                return drawn
        raise TrainingError(
            f"{MAX_DRAWS} windows of {n} pixels with a rim of {self.config.rim} held fewer than {MIN_USABLE:.0%} of "
            "usable pixels each. Make the window larger, its rim smaller, or give clearer scenes."
        )


def collate(drawn: Sequence[Window]) -> Batch:
    """Stack windows to the tensors of one step."""

    def stacked(arrays: Sequence[Floats]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    middles = [w.middle for w in drawn if w.middle is not None]
    return Batch(
        fine=stacked([w.fine for w in drawn]), middle=stacked(middles) if middles else None,
        coarse=stacked([w.coarse for w in drawn]), sigma=stacked([w.sigma for w in drawn]),
        target=stacked([w.target for w in drawn]), weight=stacked([w.weight for w in drawn])[:, None],
    )  # fmt: skip


def turn(drawn: Window, rng: Generator) -> Window:
    """Turn a window by quarters and flip it, at random."""
    quarter, flip = int(rng.integers(4)), bool(rng.integers(2))

    def turned(array: Floats) -> Floats:
        rotated = np.rot90(array, quarter, axes=(-2, -1))
        return np.ascontiguousarray(rotated[..., ::-1] if flip else rotated)

    return Window(
        fine=turned(drawn.fine), middle=None if drawn.middle is None else turned(drawn.middle),
        coarse=turned(drawn.coarse), sigma=drawn.sigma, target=turned(drawn.target), weight=turned(drawn.weight),
    )  # fmt: skip


def relight(drawn: Window, rng: Generator, config: WindowConfig) -> Window:
    """Multiply every band by a gain, the same in target and coarse, and bring digital numbers to network units."""
    common = np.exp(rng.normal(0, config.gain)) / SCALE

    def gains(bands: Floats) -> Floats:
        return (common * np.exp(rng.normal(0, config.band_gain, len(bands)))).astype(np.float32)[:, None, None]

    # The order of the draws is part of what a seed means.
    if config.contrast:
        drawn = _stretched(drawn, rng, config.contrast)
    of_target = gains(drawn.target)
    middle = None if drawn.middle is None else drawn.middle * gains(drawn.middle)
    return drawn._replace(
        fine=drawn.fine * gains(drawn.fine), middle=middle, coarse=drawn.coarse * of_target,
        target=drawn.target * of_target,
    )  # fmt: skip


def _stretched(drawn: Window, rng: Generator, contrast: float) -> Window:
    """Stretch every target about its level and, since the degradation keeps constants, its coarse pixels alike."""
    factors = np.exp(rng.normal(0, contrast, len(drawn.target))).astype(np.float32)[:, None, None]
    level = drawn.coarse.mean(axis=(1, 2), keepdims=True)
    target, coarse = (level + factors * (bands - level) for bands in (drawn.target, drawn.coarse))
    return drawn._replace(target=target, coarse=coarse)


def _weights(scenes: Sequence[PaddedScene]) -> npt.NDArray[np.float64]:
    """Chance of a scene before `shares`, not normalised.

    The square root keeps a large place from drowning the many small ones. Holes were filled in the guides too, so a
    scene with many of them counts for less than its pixels: with 16 % of holes a score is 6 % worse, with 9 % 3.5 %.
    """
    areas = np.array([scene.area for scene in scenes], float)
    of_place: dict[str, float] = {}
    for scene, area in zip(scenes, areas, strict=True):
        of_place[scene.place] = of_place.get(scene.place, 0.0) + area
    measured = np.array([scene.measured for scene in scenes])
    return areas / np.sqrt([max(1.0, of_place[scene.place]) for scene in scenes]) * measured**HOLES


def _share_out(weights: npt.NDArray[np.float64], names: list[str], shares: dict[str, float]) -> None:
    """Scale the weights of the scenes of every key to its share; in place. The rest goes to the other scenes."""
    group = [next((key for key in shares if name.startswith(key)), "") for name in names]
    unknown = sorted(set(shares) - set(group))
    if unknown:
        raise TrainingError(
            f"no training scene has a name that starts with {', '.join(unknown)}, named in [shares]. "
            f"Remove the line; the names begin with {', '.join(sorted({re.split('[-_]', n)[0] for n in names}))}."
        )
    for key in {*group}:
        member = np.array([g == key for g in group])
        total = weights[member].sum()
        if total > 0:
            weights[member] *= (shares[key] if key else 1 - sum(shares.values())) / total
