"""Scores of many scenes -> averages and their uncertainty: the two averages that published tables mix up.

``mean``: the mean over scenes (and, over all bands of a pixel size, over bands) of the scores. ``pooled``: the score of
all pixels of all scenes (and bands) put together, computed from their moments. They differ: a mean of the RMSE of
scenes of one size is below the pooled RMSE, and a mean of decibels is no decibel of a mean. Pooled SSIM and SAM are
means over scenes weighed by pixels: those of each band for SSIM, of the band with the fewest for SAM, which is exact
where the gaps of the bands coincide.

References
----------
Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: percentile intervals; the units that are drawn
are scenes, because pixels of one scene are no independent draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eosr.metrics.conventions import Convention

Floats = npt.NDArray[np.float64]

#: Metrics in the order of the table: name -> unit in DN, which way is better, what it is.
METRICS: Final = MappingProxyType(
    {
        "rmse": ("DN", "lower", "root mean square error"),
        "bias": ("DN", "zero", "mean error"),
        "sre": ("dB", "higher", "signal to reconstruction error ratio, mean signal (DSen2)"),
        "sre_supreme": ("dB", "higher", "signal to reconstruction error ratio, energy of the signal (SupReME)"),
        "ssim": ("1", "higher", "structural similarity"),
        "psnr": ("dB", "higher", "peak signal to noise ratio"),
        "bpsnr": ("dB", "higher", "brightness-equalised peak signal to noise ratio"),
        "sam": ("degree", "lower", "mean spectral angle"),
        "ergas": ("1", "lower", "relative dimensionless global error of synthesis"),
        "coverage": ("1", "", "part of the pixels that counted"),
    }
)
#: Scores that compare all bands of a pixel; they have no value per band.
JOINT: Final = ("sam", "ergas")
PER_BAND: Final = tuple(name for name in METRICS if name not in JOINT)
MOMENTS: Final = ("pixels", "signal", "energy", "highest")
AVERAGES: Final = MappingProxyType(
    {
        "mean": "mean of the scores, over scenes (and bands)",
        "pooled": "score of all pixels of all scenes (and bands) together",
    }
)
#: Share of the bootstrap distribution inside the interval.
INTERVAL: Final = 0.95


class Pool:
    """Scores and moments as arrays (scene, ..., band), ready to be averaged with any weights of the scenes.

    Weights are (scene,), or (draw, scene) for as many answers at once, which then have ``draw`` as their first axis.
    """

    def __init__(
        self, scores: Mapping[str, Floats], groups: Mapping[int, Sequence[int]], convention: Convention
    ) -> None:
        #: ``scores`` holds `PER_BAND` and `MOMENTS` as (scene, ..., band) and `JOINT` as (scene, ..., group).
        self.scores, self.groups, self.convention = scores, groups, convention
        self.count = np.nan_to_num(scores["pixels"])

    def mean(self, weights: Floats) -> Floats:
        """Weighted mean over scenes of every per-band score: (..., band, metric)."""
        empty = np.full(self.count.shape, np.nan)
        return np.stack([_mean(self.scores[name] if name in PER_BAND else empty, weights) for name in METRICS], axis=-1)

    def pooled(self, weights: Floats) -> Floats:
        """Scores of all pixels of the scenes together: (..., band, metric)."""
        return self._stacked(self._moments(weights, slice(None)), per_band=True)

    def mean_over_bands(self, weights: Floats) -> Floats:
        """Mean over bands of each scene's scores, then over scenes: (..., group, metric)."""
        groups = []
        for place, bands in enumerate(self.groups.values()):
            of_scenes = (
                self.scores[name][..., place] if name in JOINT else _quiet_mean(self.scores[name][..., list(bands)])
                for name in METRICS
            )
            groups.append(np.stack([_mean(values, weights) for values in of_scenes], axis=-1))
        return np.stack(groups, axis=-2)

    def pooled_over_bands(self, weights: Floats) -> Floats:
        """Scores of all pixels of all scenes and bands together: (..., group, metric)."""
        groups = []
        for place, bands in enumerate(self.groups.values()):
            per_band = self._moments(weights, list(bands))
            joint = {"pixels": per_band["pixels"].sum(-1), "area": per_band["area"].sum(-1)}
            joint["highest"] = per_band["highest"].max(-1)
            for name in _WEIGHED:
                joint[name] = _divided(per_band[f"{name} total"].sum(-1), per_band[f"{name} count"].sum(-1))
            relative = _divided(per_band["mse"], per_band["signal"] ** 2)
            joint["sam"] = _divided(*_totals(self.scores["sam"][..., place], self._fewest(list(bands)), weights))
            joint["ergas"] = self._ergas_factor(place) * np.sqrt(_quiet_mean(relative))
            groups.append(self._stacked(joint, per_band=False))
        return np.stack(groups, axis=-2)

    def _fewest(self, bands: list[int]) -> Floats:
        """Pixels of the band that has the fewest, of those that have any: (scene, ...)."""
        count = self.count[..., bands]
        fewest: Floats = np.where(count > 0, count, np.inf).min(-1)
        return np.where(np.isfinite(fewest), fewest, 0.0)

    def _ergas_factor(self, place: int) -> float:
        # Wald's factor is 100 times the ratio of the pixel sizes; the study's is 100 / 2 for every pixel size.
        factor = {20: 2, 60: 6}[list(self.groups)[place]]
        return 100.0 / (2 if self.convention.ergas == "zhang2020" else factor)

    def _moments(self, weights: Floats, bands: Any) -> dict[str, Floats]:
        """Moments of the pixels of all scenes together, (..., band)."""
        count = self.count[..., bands]
        area = np.nan_to_num(_divided(count, self.scores["coverage"][..., bands]))
        pooled = {"pixels": _sum(count, weights), "area": _sum(area, weights)}
        pooled["highest"] = _highest(np.where(count > 0, self.scores["highest"][..., bands], -np.inf), weights)
        for name in _WEIGHED:
            values = self.scores["rmse"][..., bands] ** 2 if name == "mse" else self.scores[name][..., bands]
            total, known = _totals(values, count, weights)
            pooled |= {f"{name} total": total, f"{name} count": known, name: _divided(total, known)}
        return pooled

    def _stacked(self, moments: dict[str, Floats], *, per_band: bool) -> Floats:
        mse, peak = moments["mse"], self.convention.peak
        highest = moments["highest"] if peak == "reference_max" else np.full_like(mse, float(peak))
        empty = np.full_like(mse, np.nan)
        scores = {
            "rmse": np.sqrt(mse),
            "bias": moments["bias"],
            "sre": _decibel(moments["signal"] ** 2, mse),
            "sre_supreme": _decibel(moments["energy"], mse),
            "ssim": moments["ssim"],
            "psnr": _decibel(highest**2, mse),
            "bpsnr": _decibel(highest**2, np.clip(mse - moments["bias"] ** 2, 0, None)),
            "sam": empty if per_band else moments["sam"],
            "ergas": empty if per_band else moments["ergas"],
            "coverage": _divided(moments["pixels"], moments["area"]),
        }
        there = moments["pixels"] > 0
        return np.stack([np.where(there, scores[name], np.nan) for name in METRICS], axis=-1)


#: What is pooled as a mean over pixels.
_WEIGHED: Final = ("mse", "bias", "signal", "energy", "ssim")
#: Draws of the bootstrap that are averaged at once; more would only take more memory.
_AT_ONCE: Final = 100


def averaged(pool: Pool, weights: Floats) -> tuple[Floats, Floats]:
    """Both averages: (..., band, average, metric) and (..., group, average, metric)."""
    bands = np.stack([pool.mean(weights), pool.pooled(weights)], axis=-2)
    groups = np.stack([pool.mean_over_bands(weights), pool.pooled_over_bands(weights)], axis=-2)
    return bands, groups


def bootstrap(pool: Pool, scenes: int, *, resamples: int, seed: int) -> list[tuple[Floats, Floats]]:
    """Lower and upper end of the percentile interval over scenes drawn with replacement, for bands and for groups.

    NaN with fewer than two scenes that have the band: one scene says nothing about the next.
    """
    bands, groups = averaged(pool, np.ones(scenes))
    if scenes < 2 or resamples < 1:
        return [(np.full_like(part, np.nan), np.full_like(part, np.nan)) for part in (bands, groups)]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, scenes, (resamples, scenes))
    weights = (drawn[..., None] == np.arange(scenes)).sum(1).astype(float)
    draws = [averaged(pool, weights[first : first + _AT_ONCE]) for first in range(0, resamples, _AT_ONCE)]
    several = (pool.count > 0).sum(0) > 1
    of_groups = np.stack([((pool.count[..., list(one)] > 0).any(-1)).sum(0) > 1 for one in pool.groups.values()], -1)
    result = []
    for part, known in enumerate((several, of_groups)):
        low, high = _interval(np.concatenate([draw[part] for draw in draws]))
        there = known[..., None, None]
        result.append((np.where(there, low, np.nan), np.where(there, high, np.nan)))
    return result


def _interval(draws: Floats) -> tuple[Floats, Floats]:
    """Ends of the percentile interval along the first axis, of what is not NaN; each is one of the draws.

    Not numpy.nanpercentile: it interpolates, and between two perfect scores (inf dB) that gives NaN.
    """
    draws.sort(axis=0)  # NaN last
    last = np.maximum((~np.isnan(draws)).sum(0) - 1, 0)
    tail = (1 - INTERVAL) / 2
    places = (np.floor(tail * last).astype(int), np.ceil((1 - tail) * last).astype(int))
    low, high = (np.take_along_axis(draws, place[None], axis=0)[0] for place in places)
    return low, high


def _mean(values: Floats, weights: Floats) -> Floats:
    """Weighted mean over the first axis of what is not NaN; infinities count (a perfect score stays perfect)."""
    ones = np.ones_like(values)
    mean = _divided(*_totals(np.where(np.isinf(values), 0.0, values), ones, weights))
    with np.errstate(invalid="ignore"):  # inf and -inf together
        for end in (np.inf, -np.inf):
            if (values == end).any():
                mean = np.where(_sum((values == end).astype(float), weights) > 0, mean + end, mean)
    return mean


def _totals(values: Floats, counts: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Sum over scenes of finite values times their counts, and the sum of counts, both where a value is not NaN."""
    known = np.where(np.isnan(values), 0.0, counts)
    return _sum(np.nan_to_num(values) * known, weights), _sum(known, weights)


def _sum(values: Floats, weights: Floats) -> Floats:
    """Weighted sum over the first axis."""
    total: Floats = np.tensordot(weights, values, axes=(-1, 0))
    return total


def _highest(values: Floats, weights: Floats) -> Floats:
    """Largest over the first axis of what has a weight."""
    highest = np.full((*weights.shape[:-1], *values.shape[1:]), -np.inf)
    for place, scene in enumerate(values):
        taken = weights[..., place].reshape(*weights.shape[:-1], *(1,) * scene.ndim) > 0
        highest = np.maximum(highest, np.where(taken, scene, -np.inf))
    return highest


def _quiet_mean(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN."""
    there = ~np.isnan(values)
    return _divided(np.where(there, values, 0.0).sum(-1), there.sum(-1).astype(float))


def _divided(above: Floats, below: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)


def _decibel(signal: Floats, noise: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10.0 * np.log10(signal / noise)
