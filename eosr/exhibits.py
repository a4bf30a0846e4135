"""The pixels that the page of an evaluation shows: a window of each scene at every scale that was scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.bands import BANDS_10M, SHARP_BANDS
from eosr.degrade import degrade
from eosr.errors import ReachError
from eosr.evaluate_arguments import choices, named_scenes
from eosr.evaluate_pairs import scored_bands
from eosr.grid import STEPS, crop_to_multiple, groups_of
from eosr.methods import Choice, choose_methods
from eosr.report.exhibit import Exhibit
from eosr.superresolve import superresolve

#: Pixels along a side that a page shows of one scene at one scale, unless told otherwise.
WINDOW: Final = 192
Image = npt.NDArray[np.float32]


def exhibits(
    ds: Any,
    methods: Any = None,
    *,
    degradation: str = "study",
    window: int = WINDOW,
    device: str = "auto",
) -> Iterator[Exhibit]:
    """Windows of every scene for `eosr.report.write_report`: degraded scale of 20 m and of 60 m, and native scale.

    Parameters
    ----------
    ds, methods, device
        As in `eosr.evaluate`.
    degradation : str
        Operator of the degraded scales.
    window : int
        Largest side [pixels of what is shown]; the middle of the scene is taken.

    Yields
    ------
    Exhibit
        Answers are those after the projection, bicubic before it. A scale that the scene is too small for is left out.
    """
    runs = choices(methods, device)
    for name, scene in named_scenes(ds).items():
        step = max(STEPS[one] for one in groups_of(scene))
        bare = scene.drop_vars("B10", errors="ignore")
        for group, names in scored_bands(scene, None).items():
            factor = STEPS[group]
            nested = crop_to_multiple(bare, factor * step)
            given = degrade(nested, factor, degradation=degradation)
            after = dict(_answers(given, runs, names, window))
            if after:
                truth = {band: _cut(nested[band], window) for band in names}
                before = _given(given, window, [*BANDS_10M, *names])
                yield Exhibit(
                    scene=name, title=f"synthesis, {degradation}, {group} m bands", gsd=float(group), factor=factor,
                    truth=truth, before=before, after=after,
                )  # fmt: skip
        native = crop_to_multiple(bare, step)
        after = dict(_answers(native, runs, None, window))
        if after:
            before = _given(native, window, [band for band in SHARP_BANDS if band in native])
            yield Exhibit(
                scene=name, title="native scale, all bands at 10 m", gsd=10.0, factor=step, truth={}, before=before,
                after=after,
            )  # fmt: skip


def _answers(
    given: xr.Dataset, runs: dict[str, Choice], names: Sequence[str] | None, window: int
) -> Iterator[tuple[str, dict[str, Image]]]:
    available = [band for band in SHARP_BANDS if band in given]
    for label, choice in runs.items():
        made = {band for method in choose_methods(choice, None, available) for band in method.delivers}
        wanted = [band for band in (names or available) if band in made]
        if not wanted:
            continue
        try:
            sharp = superresolve(
                given, weights=choice.weights, method=choice.method, options=choice.options, device=choice.device,
                bands=wanted, consistency=label != "bicubic", dtype="float32",
            )  # fmt: skip
        except ReachError:
            continue
        cut = xr.Dataset({band: _middle(sharp[band], window) for band in wanted}).compute()
        yield label, {band: cut[band].values for band in wanted}


def _given(given: xr.Dataset, window: int, names: Sequence[str]) -> dict[str, Image]:
    """What a method was given, each band repeated to the finest grid."""
    rows = given.sizes["y10"]
    images = {}
    for band in names:
        if band not in given:
            continue
        step = rows // given[band].shape[-2]
        whole = np.asarray(_float(given[band]).values)
        images[band] = _middle_of(whole.repeat(step, 0).repeat(step, 1), window)
    return images


def _cut(band: xr.DataArray, window: int) -> Image:
    return np.asarray(_middle(_float(band), window).values, np.float32)


def _float(band: xr.DataArray) -> xr.DataArray:
    values = band.astype(np.float32)
    return values if band.dtype.kind == "f" else values.where(band != 0)


def _middle(band: xr.DataArray, window: int) -> xr.DataArray:
    places = {dim: slice(*_ends(band.sizes[dim], window)) for dim in band.dims[-2:]}
    return band.isel(places)


def _middle_of(image: Image, window: int) -> Image:
    rows, columns = (slice(*_ends(size, window)) for size in image.shape)
    return image[rows, columns]


def _ends(size: int, window: int) -> tuple[int, int]:
    # Starts on whole 60 m pixels, so that repeated pixels are whole.
    start = max(0, (size - window) // 2) // 6 * 6
    return start, min(size, start + window)
