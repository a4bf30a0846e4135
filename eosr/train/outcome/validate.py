"""Scores on the scenes kept out: Wald's protocol under each named operator, per band, against bicubic if asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import blur_sigma, degrade_tile, kernel_taps
from eosr.train.data.scenes import Floats, Scene
from eosr.train.data.windows import SCALE

#: (fine, middle, coarse, sigma) in DN, each with a batch axis of one -> estimate in DN.
Method = Callable[[Floats, Floats | None, Floats, Floats], Floats]


def degraded_inputs(scene: Scene, factor: int, operator: str) -> tuple[Floats, Floats | None, Floats, Floats, Floats]:
    """Degrade one scene to inputs and truth: fine, middle, coarse, sigma, truth [DN]; sizes cut to nest."""
    truth = scene.middle if factor == 2 else scene.coarse
    if truth is None:
        raise ValueError(f"{scene.name} has no 60 m bands")
    targets = BANDS_20M if factor == 2 else BANDS_60M
    rows, columns = (size // factor * factor for size in truth.shape[1:])
    truth = truth[:, :rows, :columns]
    ratio = scene.fine.shape[1] // truth.shape[1] if factor == 2 else 6
    fine = _degraded(scene.fine[:, : rows * ratio, : columns * ratio], BANDS_10M, factor, operator)
    middle = None
    if factor == 6:
        middle = _degraded(scene.middle[:, : rows * 3, : columns * 3], BANDS_20M, factor, operator)
    coarse = _degraded(truth, targets, factor, operator)
    sigma = np.array([blur_sigma(b, factor, operator) for b in targets], np.float32)
    return fine, middle, coarse, sigma, truth


def _degraded(bands: Floats, names: tuple[str, ...], factor: int, operator: str) -> Floats:
    result = []
    for band, name in zip(bands, names, strict=True):
        taps = kernel_taps(factor, blur_sigma(name, factor, operator))
        radius = (len(taps) - factor) // 2
        result.append(degrade_tile(np.pad(band, radius, mode="symmetric"), taps, factor))
    return np.stack(result).astype(np.float32)


def rmse_per_scene(method: Method, scenes: list[Scene], factor: int, operator: str) -> dict[str, list[float]]:
    """RMSE of every band on every scene [DN], by scene."""
    scores = {}
    for scene in scenes:
        if factor == 6 and scene.coarse is None:
            continue
        fine, middle, coarse, sigma, truth = degraded_inputs(scene, factor, operator)
        estimate = method(fine, middle, coarse, sigma)
        scores[scene.name] = np.sqrt(((estimate - truth) ** 2).mean(axis=(1, 2))).tolist()
    return scores


def mean_rmse(scores: dict[str, list[float]]) -> float:
    """Mean over scenes of the mean over bands [DN]."""
    return float(np.mean([np.mean(bands) for bands in scores.values()]))


def as_method(generator: torch.nn.Module, factor: int, margin: int = 48) -> Method:
    """Wrap a generator as a function of numpy scenes, continued symmetrically by ``margin`` target pixels."""

    def run(fine: Floats, middle: Floats | None, coarse: Floats, sigma: Floats) -> Floats:
        def padded(bands: Floats, pad: int) -> Tensor:
            return torch.from_numpy(np.pad(bands, ((0, 0), (pad, pad), (pad, pad)), mode="symmetric") / SCALE)[None]

        with torch.no_grad():
            args = [padded(fine, margin), padded(coarse, margin // factor), torch.from_numpy(sigma)[None]]
            if middle is not None:
                args.append(padded(middle, margin // 2))
            out = generator(*args)[0].numpy() * SCALE
        return out[:, margin:-margin, margin:-margin]

    return run
