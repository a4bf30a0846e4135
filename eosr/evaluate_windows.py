"""A scene in windows: pairs of a few chunks, each computed from its own pixels and the halo around them alone.

So memory does not grow with the scene, whatever dask reads first. What a method estimates from the whole scene is
computed before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Final

import dask.array as da
import numpy as np
import xarray as xr

from eosr.bands import PLATFORMS, SHARP_BANDS
from eosr.degrade import blur_sigma, kernel_taps, merge_chunks, radius_of
from eosr.evaluate_pairs import Ask, Span, Window, Work, given_of, make_work, nested_of
from eosr.grid import STEPS, groups_of
from eosr.methods import Method, choose_methods
from eosr.superresolve import count_graphs, find_parameters
from eosr.tiling import plan_tasks

#: Rows and columns of a window, at least [10 m pixels]; few rows, so that what is read of a chunk is used.
LEAST: Final = (1024, 4096)
#: Rows and columns of the chunks that are assumed for a scene in memory [10 m pixels].
CHUNK: Final = 1536
#: A pixel of 60 m in pixels of 10 m, whether there are 60 m bands or not.
WHOLE: Final = max(STEPS.values())


def make_windows(ask: Ask) -> Iterator[list[Work]]:
    """The pairs of `eosr.evaluate_pairs.make_work`, window by window: rows of windows from top to bottom.

    Computes what the methods estimate from the whole scene; the pairs themselves are lazy.
    """
    nested, factor = nested_of(ask)
    given, told = given_of(nested, factor, ask.protocol)
    parameters = find_parameters(given, ask.choice, bands=ask.bands, degradation=told)
    # They took their time once, whatever the number of windows.
    spent = sum(found.seconds for method in parameters for found in method)
    parameters = [tuple(replace(found, seconds=0.0) for found in method) for method in parameters]
    halo = _halo(ask, nested, factor)
    rows, columns = (_spans(nested, axis, factor, halo) for axis in "yx")
    for row in rows:
        works = [make_work(ask, Window(rows=row, columns=column, parameters=parameters)) for column in columns]
        if not row.start:
            works[0] = replace(works[0], seconds=[*works[0].seconds, da.asarray(np.array([spent]))])
        yield works


def computations(ask: Ask) -> int:
    """Number of graphs that windows take: those of the passes over the whole scene, and their own."""
    nested, factor = nested_of(ask)
    given, told = given_of(nested, factor, ask.protocol)
    count = len(_spans(nested, "y", factor, 0)) * len(_spans(nested, "x", factor, 0))
    return count + count_graphs(given, ask.choice, bands=ask.bands, degradation=told)


def _spans(nested: xr.Dataset, axis: str, factor: int, halo: int) -> list[Span]:
    """Rows (``"y"``) or columns of the windows: those of the chunks, merged where they are small.

    What is sharpened starts on whole 60 m pixels as every tile does, even where there are no 60 m bands: networks with
    attention cut it into blocks of that size.
    """
    finest, names = next(iter(groups_of(nested).items()))
    step, dim = STEPS[finest], f"{axis}{finest}"
    length = nested.sizes[dim] * step
    # Of one band: those of another may differ, and a Dataset has no chunks then.
    chunks = nested[names[0]].chunksizes.get(dim)
    sizes = [size * step for size in chunks] if chunks else [min(CHUNK, length - i) for i in range(0, length, CHUNK)]
    least = min(LEAST["yx".index(axis)], length)
    ends = np.cumsum(merge_chunks(tuple(sizes), factor * WHOLE, least)).tolist()
    return [
        Span(start=start, stop=stop, first=max(0, start - halo), last=min(length, stop + halo))
        for start, stop in pairwise([0, *ends])
    ]


def _methods(ask: Ask, ds: xr.Dataset) -> list[Method]:
    return list(choose_methods(ask.choice, ask.bands, [name for name in SHARP_BANDS if name in ds.data_vars]))


def _halo(ask: Ask, nested: xr.Dataset, factor: int) -> int:
    """Pixels around a window that can change it [10 m]: all that a tile sees, and the blur of the degradation."""
    told = ask.protocol.degradation
    tasks = [
        task
        for method in _methods(ask, nested)
        for task in plan_tasks(nested, method, told, consistency=True, dtype="float32")
    ]
    step = max(STEPS[group] for group in groups_of(nested))
    # Before it is sharpened every band is degraded on its own grid, by the same factor; afterwards on the fine grid.
    platform = nested.attrs.get("platform") or PLATFORMS[0]
    satellites = [platform] if isinstance(platform, str) else list(platform)
    bands = [name for name in SHARP_BANDS if name in nested.data_vars] if factor > 1 else []
    sigmas = [blur_sigma(name, factor, told, satellite) for name in bands for satellite in satellites]
    before = max((_reach(sigma, factor) for sigma in sigmas), default=0) * step
    after = max(_reach(sigma, max(task.method.factor, 2)) for task in tasks for sigma in task.sigma)
    pixels = before + factor * (max(task.halo for task in tasks) + (after if factor == 1 else 0))
    whole = factor * WHOLE
    return -(-pixels // whole) * whole


def _reach(sigma: float, factor: int) -> int:
    return radius_of(kernel_taps(factor, sigma), factor) + factor
