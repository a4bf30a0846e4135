"""The pixels that the page of an evaluation shows: a window of each scene at every scale that was scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.cube.bands import BANDS_10M, SHARP_BANDS
from eosr.cube.degradation import as_float_with_nan, degrade
from eosr.cube.grid import STEPS, crop_to_multiple, groups_of
from eosr.cube.radiometry import offsets
from eosr.errors import GridError, ReachError
from eosr.score.arguments import BICUBIC, choices, mirrored, named_scenes
from eosr.score.checks import scored_bands
from eosr.score.protocol import without_saturated
from eosr.score.report.page.exhibit import Exhibit
from eosr.sharpen.methods import Choice, choose_methods
from eosr.sharpen.superresolution import find_parameters, superresolve_stages

#: Pixels along a side that a page shows of one scene at one scale, unless told otherwise.
WINDOW: Final = 192
Image = npt.NDArray[np.float32]


def exhibits(
    ds: Any,
    methods: Any = None,
    *,
    degradation: str = "study",
    bands: Sequence[str] | None = None,
    small: str = "refuse",
    window: int = WINDOW,
    device: str = "auto",
) -> Iterator[Exhibit]:
    """Windows of every scene for `eosr.score.write_report`: degraded scale of 20 m and of 60 m, and native scale.

    Parameters
    ----------
    ds, methods, bands, device
        As in `eosr.evaluate`.
    degradation : str
        Operator of the degraded scales.
    small : {"refuse", "mirror"}
        What to do with a scale smaller than the reach of a method: leave the method out of it, or continue the scene
        by its mirror images.
    window : int
        Largest side [pixels of what is shown]; the middle of the scene is taken.

    Yields
    ------
    Exhibit
        Answers are those after the projection, bicubic before it. A scale that the scene is too small for is left out.

    Raises
    ------
    MetricError, MethodError, WeightsError, BandError
        As in `eosr.evaluate`.
    """
    runs, mirror = choices(methods, device), mirrored(small)
    for name, scene in named_scenes(ds).items():
        bare = without_saturated(scene.drop_vars("B10", errors="ignore"))
        step = max(STEPS[one] for one in groups_of(bare))
        scored = scored_bands(bare, bands)
        # As in evaluate: bands that nobody asked for need not be there.
        asked = None if bands is None else [band for names in scored.values() for band in names]
        for group, names in scored.items():
            factor = STEPS[group]
            nested = _cropped(bare, factor * step)
            if nested is None:
                continue
            given = degrade(nested, factor, degradation=degradation)
            after = dict(_answers(given, runs, names, asked, "auto", mirror, window))
            if after:
                yield Exhibit(
                    scene=name, title=f"synthesis, {degradation}, {group} m bands", gsd=float(group), factor=factor,
                    truth={band: _cut(nested, band, window) for band in names},
                    before=_given(given, window, [*BANDS_10M, *names]), after=after,
                )  # fmt: skip
        native = _cropped(bare, step)
        if native is None:
            continue
        wanted = [band for names in scored.values() for band in names]
        after = dict(_answers(native, runs, wanted, asked, degradation, mirror, window))
        if after:
            yield Exhibit(
                scene=name, title="native scale, all bands at 10 m", gsd=10.0, factor=step, truth={},
                before=_given(native, window, [*BANDS_10M, *wanted]), after=after,
            )  # fmt: skip


def _cropped(ds: xr.Dataset, multiple: int) -> xr.Dataset | None:
    try:
        return crop_to_multiple(ds, multiple)
    except GridError:
        return None


def _answers(
    given: xr.Dataset,
    runs: dict[str, Choice],
    names: Sequence[str],
    asked: Sequence[str] | None,
    operator: str,
    mirror: bool,
    window: int,
) -> Iterator[tuple[str, dict[str, Image]]]:
    available = [band for band in SHARP_BANDS if band in given]
    for label, choice in runs.items():
        made = {band for method in choose_methods(choice, asked, available) for band in method.delivers}
        wanted = [band for band in names if band in made]
        if not wanted:
            continue
        how: dict[str, Any] = {"bands": wanted, "degradation": operator}
        try:
            stages = superresolve_stages(given, choice, mirror=mirror, **how)
        except ReachError:
            continue
        # What is estimated from the whole scene first: in one graph with the window it might all be read at once.
        if any(parameters := find_parameters(given, choice, **how)):
            stages = superresolve_stages(given, choice, mirror=mirror, parameters=parameters, **how)
        sharp = stages.before if label == BICUBIC else stages.after
        cut = sharp[wanted].isel({dim: slice(*_ends(sharp.sizes[dim], window)) for dim in ("y10", "x10")}).compute()
        yield label, {band: cut[band].values + _offset(given) for band in wanted}


def _given(given: xr.Dataset, window: int, names: Sequence[str]) -> dict[str, Image]:
    """What a method was given, each band repeated to the finest grid."""
    ends = [_ends(given.sizes[dim], window) for dim in ("y10", "x10")]
    images = {}
    for band in names:
        if band in given:
            step = given.sizes["y10"] // given[band].shape[-2]
            # Cut first: a whole tile repeated to 10 m is half a gigabyte. The window starts on whole coarse pixels.
            places = [slice(start // step, -(-end // step)) for start, end in ends]
            repeated = _measured(given, band, places).repeat(step, 0).repeat(step, 1)
            images[band] = repeated[: ends[0][1] - ends[0][0], : ends[1][1] - ends[1][0]]
    return images


def _cut(ds: xr.Dataset, band: str, window: int) -> Image:
    return _measured(ds, band, [slice(*_ends(size, window)) for size in ds[band].shape[-2:]])


def _measured(ds: xr.Dataset, band: str, places: Sequence[slice]) -> Image:
    """Pixels of a band with its offset [DN], NaN where nothing was measured."""
    cut = ds[band].isel(dict(zip(ds[band].dims[-2:], places, strict=True)))
    values = np.asarray(as_float_with_nan(np.asarray(cut.values)), np.float32)
    return values + _offset(ds)


def _offset(ds: xr.Dataset) -> np.float32:
    return np.float32(offsets(ds))


def _ends(size: int, window: int) -> tuple[int, int]:
    # Starts on whole 60 m pixels, so that repeated pixels are whole.
    start = max(0, (size - window) // 2) // 6 * 6
    return start, min(size, start + window)
