"""Adapt a generator to one scene: a few hundred steps on the scene's own pixels, one scale down.

Wald's protocol needs no other image: the 20 m bands, degraded by 2, are what the generator is shown, and as measured
they are the truth. What it learns there of this ground, light and season it uses one scale up.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute

from eosr.cube.bands import BANDS, BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import DEGRADATIONS
from eosr.cube.grid import crop_to_multiple, group_of
from eosr.cube.radiometry import check_stated, for_its_times, listed, offsets
from eosr.errors import DegradationError, GridError, OutputError, RadiometryError, WeightsError
from eosr.host.progress import Progress, reporting
from eosr.sharpen.superresolution import operator_of
from eosr.train.prepare.patches import PatchFilter, patch_places, why_rejected
from eosr.write.layout import local_path

if TYPE_CHECKING:
    from eosr.nn.weights import Weights
    from eosr.train.data.scenes import Scene
    from eosr.train.fitting import Places

#: Side of a place that windows are drawn from [10 m pixels], by factor.
_PLACE: Final = {2: 192, 6: 432}
#: Smallest scene [10 m pixels]: what is held out, and as much again to learn from.
_LEAST: Final = {2: 96, 6: 432}
#: One strip of so many is held out.
_STRIPS: Final = 5
#: Places to be judged on, at most.
_JUDGED: Final = 12


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """What an adaptation came to."""

    #: Weights files for ``superresolve(weights=...)``: adapted ones, and as they were those that did not get better.
    paths: list[Path]
    #: RMSE [DN] of the part of the scene that was held out, one scale down, by name of the weights: before and after.
    before: dict[str, float]
    after: dict[str, float]

    @property
    def kept(self) -> dict[str, bool]:
        """Whether the adapted weights were better on the part held out, and are what the file holds."""
        return {name: self.after[name] < self.before[name] for name in self.before}


def adapt(
    ds: xr.Dataset,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    *,
    out: str | os.PathLike[str],
    degradation: str = "auto",
    steps: int = 300,
    learning_rate: float = 2e-4,
    windows: int = 256,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = None,
) -> Adaptation:
    """Weights adapted to a scene, as files for `eosr.superresolve`. Computes.

    Parameters
    ----------
    ds : Dataset
        Digital numbers, one time; numpy or dask. Of a large scene only the places that are trained on are read.
    weights : str, path, or sequence of them, optional
        To begin with. Default: the shipped ones of the bands that are there.
    out : path
        Folder for the files, ``NAME-adapted.safetensors``.
    degradation : str
        Operator of the measurement, as in `eosr.superresolve`; one with a name.
    steps : int
        Steps of 8 windows per weights file.
    learning_rate : float
        Of AdamW at its highest; a cosine brings it down.
    windows : int
        Places that windows are drawn from, at most; 192 pixels of 10 m wide. For the 60 m bands they are 432 wide, and
        a fifth as many.
    seed : int
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    progress : callable or bool, optional
        Called with (steps done, steps in all), or True for a bar.

    Returns
    -------
    Adaptation
        One strip of five is held out and never trained on; adapted weights are kept only if they are better there. A
        file says in its provenance which scene it was adapted to, from which weights, and both scores.

    Raises
    ------
    GridError
        If the scene is too small, has several times, lacks a band, or no place without gaps.
    RadiometryError, DegradationError
        If it holds reflectance, or is of a level that the weights do not serve; for a blur without a name.
    WeightsError
        If weights are not such that they can be trained, or a number of steps, windows, or the rate is not above 0.
    OutputError
        If ``out`` cannot be written.

    Notes
    -----
    Weights adapted to one scene are of no use on others.

    Examples
    --------
    ``adapted = ds.s2sr.adapt(out="adapted"); sharp = ds.s2sr.superresolve(weights=adapted.paths)``
    """
    _check_numbers(steps=steps, windows=windows, learning_rate=learning_rate)
    scene = _one_time(ds)
    operator = operator_of(scene, degradation)
    if operator not in DEGRADATIONS:
        raise DegradationError(
            f"adapt learns to invert {', '.join(DEGRADATIONS)}, not {operator!r}. Name one: degradation='study'."
        )
    begun = _begun_with(weights, scene)
    local_path(out)  # refuses a URL
    folder = _writable(Path(out))
    # Imported here: whoever looks at `ds.s2sr.adapt` needs no torch.
    from eosr.train.fitting import AdaptConfig, adapt_generator, save_adapted

    config = AdaptConfig(operator=operator, steps=steps, rate=learning_rate, seed=seed, device=device)
    done = Adaptation(paths=[], before={}, after={})
    steps_done = [0]

    def count(*_: int) -> None:
        steps_done[0] += 1

    with reporting(progress, lambda: steps_done[0], len(begun) * steps, "adapting"):
        for one in begun:
            places = _places_of(scene, one.factor, count=windows, seed=seed)
            adapted = adapt_generator(one, places, config, count)
            path = folder / f"{one.name}-adapted.safetensors"
            done.paths.append(save_adapted(adapted, one, places, config, path))
            done.before[one.name], done.after[one.name] = adapted.before, adapted.after
    return done


def _check_numbers(*, steps: int, windows: int, learning_rate: float) -> None:
    if steps < 1 or windows < 1:
        raise WeightsError(f"steps={steps} and windows={windows} must be 1 or more. Give e.g. steps=300, windows=256.")
    if not 0 < learning_rate < float("inf"):
        raise WeightsError(f"learning_rate={learning_rate} is no number above 0. Give e.g. learning_rate=0.0002.")


def _one_time(ds: xr.Dataset) -> xr.Dataset:
    check_stated(ds, "adapt")
    if ds.attrs.get("quantity") == "reflectance":
        raise RadiometryError(
            "the Dataset holds reflectance; adapt works on digital numbers. Give it the Dataset of open_stac, or "
            "eosr.cube.to_digital_numbers(ds)."
        )
    scene = for_its_times(ds)
    if "time" in scene.dims:
        if scene.sizes["time"] != 1:
            raise GridError(
                f"adapt takes one time, the Dataset holds {scene.sizes['time']}. Choose one: ds.isel(time=0)."
            )
        scene = for_its_times(scene.isel(time=0))
    return crop_to_multiple(scene.drop_vars("B10", errors="ignore"), 6)


def _writable(folder: Path) -> Path:
    """Make the folder, and find out now rather than after the training whether files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"no weights can be written to {folder}: {error}. Name another folder, out=...") from error
    return folder


def _begun_with(weights: Any, ds: xr.Dataset) -> list[Weights]:
    """Load the weights to begin with, and refuse those that cannot be trained, or not on this scene."""
    # Imported here: whoever looks at `ds.s2sr.adapt` needs no torch.
    from eosr.nn.weights import SHIPPED
    from eosr.train.fitting import load_trainable

    if weights is None:
        names = [SHIPPED[0]] + ([SHIPPED[1]] if all(name in ds for name in BANDS_60M) else [])
    else:
        names = list(weights) if isinstance(weights, list | tuple) else [weights]
    loaded = [load_trainable(name) for name in names]
    for one in loaded:
        _check_bands(one, ds)
        level = str(ds.attrs.get("level") or "")
        if level and one.levels and level not in one.levels:
            raise RadiometryError(
                f"{one.name} serves {' and '.join(one.levels)}, the Dataset is {level!r}. Choose other weights, or "
                f"if that is wrong, set ds.attrs['level'] = {one.levels[0]!r}."
            )
    twice = {one.name for one in loaded if [other.name for other in loaded].count(one.name) > 1}
    if twice:
        raise WeightsError(f"two of the weights are called {min(twice)}. Adapt them one by one, each to its own out.")
    return loaded


def _check_bands(weights: Weights, ds: xr.Dataset) -> None:
    """Every band that an adaptation reads is there, on its native grid."""
    wanted = (*BANDS_10M, *BANDS_20M, *(BANDS_60M if weights.factor == 6 else ()))
    missing = [name for name in wanted if name not in ds]
    if missing:
        raise GridError(f"{weights.name} is adapted on {', '.join(missing)} too, which the Dataset lacks. Open them.")
    for name in wanted:
        group = group_of(ds[name])
        if group != BANDS[name].gsd or ds[name].ndim != 2:
            raise GridError(
                f"{name} has the dimensions {', '.join(map(str, ds[name].dims))}, adapt takes y{BANDS[name].gsd}, "
                f"x{BANDS[name].gsd}. Give one image of the Dataset of open_stac."
            )


def _places_of(ds: xr.Dataset, factor: int, *, count: int, seed: int) -> Places:
    """Places to learn from, and those of one strip that is held out: the first, at random, that leaves both."""
    from eosr.train.fitting import Places

    rows, columns = ds.sizes["y10"], ds.sizes["x10"]
    if min(rows, columns) < _LEAST[factor]:
        raise GridError(
            f"the scene has {rows} x {columns} pixels of 10 m, an adaptation for factor {factor} takes "
            f"{_LEAST[factor]} at least. Take a larger window of it."
        )
    nested = 6 * factor
    count = max(count * _PLACE[2] ** 2 // _PLACE[factor] ** 2, 1)  # what is in memory grows with their area
    width = max(columns // _STRIPS // nested, 1) * nested
    judged = False
    # At the edge of an orbit a strip may be empty, or hold all that is not.
    for strip in np.random.default_rng((seed, 3)).permutation(_STRIPS):
        start = min(int(strip) * width, columns - width)
        held_out = _scenes(ds, factor, _drawn(rows, (start, start + width), factor, _JUDGED, seed + 1))
        if not held_out:
            continue
        judged = True
        learnt = _scenes(ds, factor, [
            place
            for left, right in ((0, start), (start + width, columns)) if right - left >= nested
            for place in _drawn(rows, (left, right), factor, count * (right - left) // (columns - width), seed)
        ])  # fmt: skip
        if learnt:
            return Places(learnt=learnt, held_out=held_out, item_ids=tuple(map(str, listed(ds.attrs.get("item_ids")))))
    what = "to learn from" if judged else "to be judged on"
    raise GridError(f"the scene has no place without gaps {what}. Take a clearer part of it, or another scene.")


def _drawn(rows: int, span: tuple[int, int], factor: int, count: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Top, left, height and width [10 m pixels] of places between two columns."""
    nested = 6 * factor
    side = min(_PLACE[factor], rows // nested * nested)
    across = min(side, (span[1] - span[0]) // nested * nested)
    # Squares where there is room; strips narrower than a place are taken as wide as they are.
    if across < side:
        tops = patch_places(rows, side, patch=side, margin=0, count=max(count, 1), seed=seed, name="places")[:, 0]
        return [(int(top), span[0], side, across) for top in tops]
    places = patch_places(rows, span[1] - span[0], patch=side, margin=0, count=max(count, 1), seed=seed, name="places")
    return [(int(top), span[0] + int(left), side, side) for top, left in places]


def _scenes(ds: xr.Dataset, factor: int, places: list[tuple[int, int, int, int]]) -> list[Scene]:
    """Read places, in one computation, and leave out those with gaps or saturated pixels, or that are constant."""
    from eosr.train.data.scenes import Scene

    groups = {10: BANDS_10M, 20: BANDS_20M} | ({60: BANDS_60M} if factor == 6 else {})

    def cut(place: tuple[int, int, int, int], name: str, group: int) -> Any:
        step = group // 10
        top, left, height, width = (value // step for value in place)
        part = ds[name].isel({f"y{group}": slice(top, top + height), f"x{group}": slice(left, left + width)}).data
        # A part of a chunk is a view, which would keep the whole chunk in memory.
        return da.map_blocks(np.copy, part, dtype=part.dtype) if isinstance(part, da.Array) else part

    lazy = [{name: cut(place, name, group) for group, names in groups.items() for name in names} for place in places]
    (read,) = compute(lazy)
    offset = np.float32(offsets(ds))
    scenes = []
    for place, images in zip(places, read, strict=True):
        filled = {name: np.nan_to_num(image) for name, image in images.items()}  # NaN is nodata where 0 is not
        if why_rejected(filled, None, PatchFilter()):
            continue
        values = {
            g: np.stack([images[name] for name in names]).astype(np.float32) + offset for g, names in groups.items()
        }
        scenes.append(
            Scene(
                name=f"{place[0]},{place[1]}", level=str(ds.attrs.get("level", "L2A")), fine=values[10],
                middle=values[20], coarse=values.get(60), usable=np.ones(values[10].shape[1:], bool), kept_out=False,
            )
        )  # fmt: skip
    return scenes
