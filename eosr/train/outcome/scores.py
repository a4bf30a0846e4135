"""Scores of a generator on the scenes kept out: `eosr.evaluate`, shared out over the ranks."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.score.evaluation import evaluate
from eosr.score.report.page.figures import rounded
from eosr.train.data.scenes import Scene, as_dataset
from eosr.train.ranks.communicator import Communicator

#: Scene -> operator -> property -> projection -> band -> metric -> value.
Scores = dict[str, Any]


def score(
    weights: Path, scenes: Sequence[Scene], operators: Sequence[str], properties: Sequence[str], *, factor: int,
    device: str = "auto",
) -> Scores:  # fmt: skip
    """Score a weights file on scenes, per band and with every metric, before and after the projection.

    Parameters
    ----------
    weights : Path
    scenes : sequence of Scene
        Those without bands of the generator's target resolution are passed over.
    operators, properties : sequence of str
        As in `eosr.evaluate`.
    factor : int
        2 or 6.
    device : str

    Returns
    -------
    dict
        Scene -> operator -> property -> ``before`` or ``after`` the projection -> band -> metric; None for scores that
        have no value. The metrics are those of `eosr.evaluate` and ``rmse_bicubic``, the RMSE of bicubic interpolation.
    """
    bands = BANDS_20M if factor == 2 else BANDS_60M
    kinds: Any = list(properties)  # names are checked by evaluate
    found: Scores = {}
    for scene in scored(scenes, factor):
        ds, usable = as_dataset(scene, factor)
        table = evaluate(
            {scene.name: ds}, {"trained": {"weights": str(weights)}}, property=kinds,
            degradation=list(operators), bands=bands, border=0, mask=None if usable.all() else usable, small="mirror",
            resamples=1, device=device,
        )  # fmt: skip
        of_bands = table.score.loc[{"scene": scene.name, "band": list(bands)}]
        plain = of_bands.loc[{"method": "bicubic", "projection": "before", "metric": "rmse"}]
        nested = _nested(of_bands.loc[{"method": "trained"}])
        for operator, name, band in itertools.product(operators, properties, bands):
            at = {"degradation": operator, "property": name, "band": band}
            for projection in nested[operator][name].values():
                projection[band]["rmse_bicubic"] = rounded(float(plain.loc[at]))
        found[scene.name] = nested
    return found


def scored(scenes: Iterable[Scene], factor: int) -> list[Scene]:
    """Scenes that have the bands a generator of this factor is scored on."""
    return [scene for scene in scenes if factor == 2 or scene.coarse is not None]


def score_together(
    weights: Path, scenes: Sequence[Scene], operators: Sequence[str], properties: Sequence[str], *, factor: int,
    communicator: Communicator, device: str = "auto",
) -> Scores:  # fmt: skip
    """As `score`, every rank its part of the scenes; all scores on every rank."""
    mine = scored(scenes, factor)[communicator.rank :: communicator.size]
    parts = communicator.gather(json.dumps(score(weights, mine, operators, properties, factor=factor, device=device)))
    return {name: scores for part in parts for name, scores in json.loads(part).items()}


def _nested(score: Any) -> Any:
    """A DataArray as nested dicts, innermost the metric."""
    dims = ("degradation", "property", "projection", "band", "metric")
    ordered = score.transpose(*dims)

    def nest(values: Any, depth: int) -> Any:
        if depth == len(dims):
            return rounded(float(values))
        labels = ordered[dims[depth]].values.tolist()
        return {label: nest(part, depth + 1) for label, part in zip(labels, values, strict=True)}

    return nest(ordered.values, 0)


def mean_scores(scores: Scores) -> dict[str, Any]:
    """Mean over scenes of every score that has a value."""

    def mean(parts: list[Any]) -> Any:
        if isinstance(parts[0], dict):
            return {key: mean([part[key] for part in parts]) for key in parts[0]}
        values = [part for part in parts if part is not None]
        return rounded(float(np.mean(values))) if values else None

    return dict(mean(list(scores.values()))) if scores else {}


def relative(scores: Scores, operator: str) -> float:
    """RMSE after the projection over that of bicubic, means over bands, mean over scenes [1]; NaN without scenes."""
    ratios = []
    for parts in scores.values():
        bands = parts[operator]["synthesis"]["after"].values()
        ratios.append(sum(band["rmse"] for band in bands) / sum(band["rmse_bicubic"] for band in bands))
    return float(np.mean(ratios)) if ratios else math.nan


def by_group(scores: Scores, operators: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Scores after the projection by operator and `Scene.group`, and over all scenes.

    ``study/beihai``: RMSE relative to bicubic [1], mean over the group's scenes; ``study``: mean over all scenes but
    those of a group named ``sample-block``, which is part of an image that was trained on.
    """
    groups: dict[str, Scores] = {}
    for scene in scenes:
        if scene.name in scores:
            groups.setdefault(scene.group or scene.place or scene.name, {})[scene.name] = scores[scene.name]
    unseen = {name: one for group, part in groups.items() if group != "sample-block" for name, one in part.items()}
    return {
        key: round(relative(part, operator), 4)
        for operator in operators
        for key, part in [(operator, unseen), *((f"{operator}/{group}", part) for group, part in groups.items())]
        if part
    }
