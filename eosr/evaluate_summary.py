"""Scores of many scenes -> averages and their uncertainty: the two averages that published tables mix up.

``mean``: the mean over scenes (and, over all bands of a pixel size, over bands) of the scores. ``pooled``: the score of
all pixels of all scenes (and bands) put together, computed from their moments. They differ: a mean of RMSE is below the
pooled RMSE, and a mean of decibels is no decibel of a mean. Pooled SSIM and SAM are means over scenes weighed by
pixels: those of each band for SSIM, of the band with the fewest for SAM, which is exact where the gaps of the bands
coincide.

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

from eosr.metrics.table import Convention

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
    """Scores and moments as arrays (scene, ..., band), ready to be averaged with any weights of the scenes."""

    def __init__(
        self, scores: Mapping[str, Floats], groups: Mapping[int, Sequence[int]], convention: Convention
    ) -> None:
        #: ``scores`` holds `PER_BAND` and `MOMENTS` as (scene, ..., band) and `JOINT` as (scene, ..., group).
        self.scores, self.groups, self.convention = scores, groups, convention
        self.count = np.nan_to_num(scores["pixels"])

    def mean(self, weights: Floats) -> Floats:
        """Weighted mean over scenes of every per-band score: (..., band, metric)."""
        return np.stack([_mean(self.scores[name], weights) if name in PER_BAND else
                         np.full(self.count.shape[1:], np.nan) for name in METRICS], axis=-1)  # fmt: skip

    def pooled(self, weights: Floats) -> Floats:
        """Scores of all pixels of the scenes together: (..., band, metric)."""
        return self._stacked(self._moments(weights, slice(None)), per_band=True)

    def mean_over_bands(self, weights: Floats) -> Floats:
        """Mean over bands of each scene's scores, then over scenes: (..., group, metric)."""
        groups = []
        for place, bands in enumerate(self.groups.values()):
            columns = []
            for name in METRICS:
                if name in JOINT:
                    columns.append(_mean(self.scores[name][..., place], weights))
                else:
                    columns.append(_mean(_quiet_mean(self.scores[name][..., list(bands)]), weights))
            groups.append(np.stack(columns, axis=-1))
        return np.stack(groups, axis=-2)

    def pooled_over_bands(self, weights: Floats) -> Floats:
        """Scores of all pixels of all scenes and bands together: (..., group, metric)."""
        groups = []
        for place, bands in enumerate(self.groups.values()):
            per_band = self._moments(weights, list(bands))
            counts = {"pixels": per_band["pixels"].sum(-1), "area": per_band["area"].sum(-1)}
            joint = {**counts, "highest": per_band["highest"].max(-1)}
            for name in ("mse", *_WEIGHED):
                joint[name] = _weighed(np.moveaxis(per_band[name], -1, 0), np.moveaxis(per_band["pixels"], -1, 0))
            relative = _divided(per_band["mse"], per_band["signal"] ** 2)
            joint["sam"] = _weighed(self.scores["sam"][..., place], _scaled(self._fewest(list(bands)), weights))
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
        taken = _scaled(count, weights)
        chosen = np.asarray(weights) > 0
        highest = np.where(count > 0, self.scores["highest"][..., bands], -np.inf)[chosen].max(0)
        area = np.nan_to_num(_divided(taken, self.scores["coverage"][..., bands])).sum(0)
        pooled = {"pixels": taken.sum(0), "area": area, "highest": highest}
        squares = self.scores["rmse"][..., bands] ** 2
        for name, values in {"mse": squares, **{n: self.scores[n][..., bands] for n in _WEIGHED}}.items():
            pooled[name] = _weighed(values, taken)
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


#: What is pooled as a mean over pixels, beside the mean square error.
_WEIGHED: Final = ("bias", "signal", "energy", "ssim")


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
    draws = [averaged(pool, np.bincount(rng.integers(0, scenes, scenes), minlength=scenes).astype(float))
             for _ in range(resamples)]  # fmt: skip
    several = (pool.count > 0).sum(0) > 1
    of_groups = np.stack([((pool.count[..., list(one)] > 0).any(-1)).sum(0) > 1 for one in pool.groups.values()], -1)
    result = []
    for part, known in enumerate((several, of_groups)):
        low, high = _interval(np.stack([draw[part] for draw in draws]))
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
    return _weighed(values, _scaled(np.ones_like(values), weights))


def _scaled(values: Floats, weights: Floats) -> Floats:
    """Values (scene, ...) times the weights of the scenes."""
    scaled: Floats = values * np.asarray(weights).reshape(-1, *(1,) * (values.ndim - 1))
    return scaled


def _weighed(values: Floats, weights: Floats) -> Floats:
    """Mean over the first axis of what is not NaN, by weights of the same shape."""
    factor = np.where(np.isnan(values), 0.0, weights)
    with np.errstate(invalid="ignore"):  # inf and -inf together
        total = (np.where(factor > 0, values, 0.0) * factor).sum(0)
    return _divided(total, factor.sum(0))


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
