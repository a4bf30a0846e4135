"""A scene in strips: pairs of rows of chunks, each computed from its own rows and the halo around them alone.

So memory grows with the width of a scene and not with its height, whatever dask reads first. What a method estimates
from the whole scene is computed before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import dask.array as da
import numpy as np
import xarray as xr

from eosr.bands import SHARP_BANDS
from eosr.degrade import blur_sigma, kernel_taps, merge_chunks, radius_of
from eosr.evaluate_pairs import Ask, Strip, Work, cropped, given_of, make_work, nested_of
from eosr.grid import STEPS, groups_of
from eosr.methods import Method, choose_methods
from eosr.superresolve import find_parameters
from eosr.tiling import plan_tasks

#: Rows of a strip, at least [10 m pixels].
STRIP: Final = 1024
#: Rows of a strip of a scene without chunks [10 m pixels].
ROWS: Final = 1536


def make_strips(ask: Ask) -> Iterator[Work]:
    """The pairs of `eosr.evaluate_pairs.make_work`, strip by strip from top to bottom.

    Computes what the methods estimate from the whole scene; the pairs themselves are lazy.
    """
    nested, factor = nested_of(ask)
    given, told = given_of(nested, factor, ask.protocol)
    parameters = find_parameters(given, ask.choice, bands=ask.bands, degradation=told)
    # They took their time once, whatever the number of strips.
    spent = sum(found.seconds for method in parameters for found in method)
    parameters = [tuple(replace(found, seconds=0.0) for found in method) for method in parameters]
    halo, height = _halo(ask, nested, factor), _height(nested)
    for start, stop in strip_rows(ask):
        first, last = max(0, start - halo), min(height, stop + halo)
        work = make_work(ask, Strip(start=start, stop=stop, first=first, last=last, parameters=parameters))
        yield work if start else replace(work, seconds=[*work.seconds, da.asarray(np.array([spent]))])


def strip_rows(ask: Ask) -> list[tuple[int, int]]:
    """First and last row of every strip [10 m pixels]: the chunks of the scene, merged where they are small."""
    nested, _ = nested_of(ask)
    height, whole = _height(nested), cropped(ask.ds, next(iter(ask.groups)), ask.protocol)[1]
    finest = next(iter(groups_of(nested)))
    rows = nested.chunksizes.get(f"y{finest}")
    sizes = [size * STEPS[finest] for size in rows] if rows else [min(ROWS, height - r) for r in range(0, height, ROWS)]
    ends = np.cumsum(merge_chunks(tuple(sizes), whole, min(STRIP, height))).tolist()
    return list(pairwise([0, *ends]))


def computations(ask: Ask) -> int:
    """Number of graphs that strips take: every pass over the whole scene, and every strip."""
    return sum(len(method.passes) for method in _methods(ask, ask.ds)) + len(strip_rows(ask))


def _methods(ask: Ask, ds: xr.Dataset) -> list[Method]:
    return list(choose_methods(ask.choice, ask.bands, [name for name in SHARP_BANDS if name in ds.data_vars]))


def _height(ds: xr.Dataset) -> int:
    group = next(iter(groups_of(ds)))
    return int(ds.sizes[f"y{group}"]) * STEPS[group]


def _halo(ask: Ask, nested: xr.Dataset, factor: int) -> int:
    """Rows around a strip that can change it [10 m pixels]: all that a tile sees, and the blur of the degradation."""
    told = ask.protocol.degradation
    tasks = [
        task
        for method in _methods(ask, nested)
        for task in plan_tasks(nested, method, told, consistency=True, dtype="float32")
    ]
    step = max(STEPS[group] for group in groups_of(nested))
    # Before it is sharpened every band is degraded on its own grid, by the same factor; afterwards on the fine grid.
    sigmas = [blur_sigma(name, factor, told) for name in SHARP_BANDS if name in nested.data_vars] if factor > 1 else []
    before = max((_reach(sigma, factor) for sigma in sigmas), default=0) * step
    after = max(_reach(sigma, max(task.method.factor, 2)) for task in tasks for sigma in task.sigma)
    rows = before + factor * (max(task.halo for task in tasks) + (after if factor == 1 else 0))
    whole = factor * step
    return -(-rows // whole) * whole


def _reach(sigma: float, factor: int) -> int:
    return radius_of(kernel_taps(factor, sigma), factor) + factor
