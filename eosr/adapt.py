"""Adapt a generator to one scene: a few hundred steps on the scene's own pixels, one scale down.

Wald's protocol needs no other image: the 20 m bands, degraded by 2, are what the generator is shown, and as measured
they are the truth. What it learns there of this ground, light and season it uses one scale up.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from dask.base import compute

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.degrade import DEGRADATIONS
from eosr.errors import GridError, OutputError, WeightsError
from eosr.grid import crop_to_multiple
from eosr.patches import patch_places
from eosr.radiometry import check_dataset, for_its_times, listed, offsets
from eosr.superresolve import operator_of

if TYPE_CHECKING:
    from eosr.nn.weights import Weights
    from eosr.train.scenes import Scene

#: Side of a place that windows are drawn from [10 m pixels], and of a window [target pixels], by factor.
_PLACE: Final = {2: 192, 6: 432}
_WINDOW: Final = {2: (72, 8), 6: (48, 6)}
#: Smallest scene [10 m pixels]: what is held out, and as much again to learn from.
_LEAST: Final = {2: 96, 6: 432}
#: One strip of so many is held out.
_STRIPS: Final = 5
#: Called with (steps done, steps in all) after every step.
Progress = Callable[[int, int], None]


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
    progress: Progress | None = None,
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
        Operator of the measurement, as in `eosr.superresolve`.
    steps : int
        Steps of 8 windows per weights file.
    learning_rate : float
        Of AdamW at its highest; a cosine brings it down.
    windows : int
        Places that windows are drawn from, at most; 192 pixels of 10 m wide, for the 60 m bands 432.
    seed : int
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    progress : callable, optional
        Called with (steps done, steps in all).

    Returns
    -------
    Adaptation
        One strip of five is held out and never trained on; adapted weights are kept only if they are better there. A
        file says in its provenance which scene it was adapted to, from which weights, and both scores.

    Raises
    ------
    GridError
        If the scene is too small, has several times, or no place without gaps.
    WeightsError
        If weights are not such that they can be trained, or ``steps`` is less than 1.
    OutputError
        If ``out`` cannot be written.

    Notes
    -----
    Weights adapted to one scene are of no use on others. **Measure before you rely on it**: the part held out is judged
    one scale down too, and what is better there need not be better at the scale you want. On the kept-out block of the
    sample scene it was not, at any rate or length that was tried (docs/how-to/adapt-to-a-scene.md).

    Examples
    --------
    ``adapted = ds.s2sr.adapt(out="adapted"); sharp = ds.s2sr.superresolve(weights=adapted.paths)``
    """
    check_dataset(ds, "adapt")
    if steps < 1 or windows < 1:
        raise WeightsError(f"steps={steps} and windows={windows} must be 1 or more. Give e.g. steps=300, windows=256.")
    scene = _one_time(ds)
    operator = operator_of(scene, degradation)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made: {error}. Name another with out=...") from error
    begun = _begun_with(weights, scene)
    done = Adaptation(paths=[], before={}, after={})
    for number, one in enumerate(begun):
        told = None if progress is None else _shifted(progress, number * steps, len(begun) * steps)
        learner = _Learner(scene, one, operator, seed=seed, windows=windows, device=device)
        before, after = learner.learn(steps, learning_rate, told)
        done.paths.append(learner.save(folder, before, after, steps))
        done.before[one.name], done.after[one.name] = before, after
    return done


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda step, _: progress(before + step, total)


def _one_time(ds: xr.Dataset) -> xr.Dataset:
    scene = for_its_times(ds)
    if "time" in scene.dims:
        if scene.sizes["time"] != 1:
            raise GridError(
                f"adapt takes one time, the Dataset holds {scene.sizes['time']}. Choose one: ds.isel(time=0)."
            )
        scene = for_its_times(scene.isel(time=0))
    return crop_to_multiple(scene.drop_vars("B10", errors="ignore"), 6)


def _begun_with(weights: Any, ds: xr.Dataset) -> list[Weights]:
    """Load the weights to begin with, and refuse those that cannot be trained."""
    # Imported here: `import eosr` must not import torch.
    from eosr.nn.weights import SHIPPED, load_weights

    if weights is None:
        names = [SHIPPED[0]] + ([SHIPPED[1]] if all(name in ds for name in BANDS_60M) else [])
    else:
        names = list(weights) if isinstance(weights, list | tuple) else [weights]
    loaded = [load_weights(name) for name in names]
    for one in loaded:
        wanted = (*BANDS_10M, *BANDS_20M, *(BANDS_60M if one.factor == 6 else ()))
        missing = [name for name in wanted if name not in ds]
        if missing:
            raise GridError(f"{one.name} is adapted on {', '.join(missing)} too, which the Dataset lacks. Open them.")
        if one.normalization.fine_bands != BANDS_10M:
            raise WeightsError(
                f"{one.name} takes its 10 m bands as {', '.join(one.normalization.fine_bands)}, eosr trains "
                f"{', '.join(BANDS_10M)}. Adapt weights of eosr-train."
            )
    return loaded


class _Learner:
    """One generator on one scene."""

    def __init__(self, ds: xr.Dataset, begun: Weights, operator: str, *, seed: int, windows: int, device: str) -> None:
        import torch

        from eosr.nn.tile import resolve_device
        from eosr.train.windows import WindowConfig, Windows

        self.ds, self.begun, self.operator, self.seed = ds, begun, operator, seed
        self.factor = begun.factor
        self.device = torch.device(resolve_device(device))
        kept_in, self.held_out = _split(ds, self.factor, count=windows, seed=seed)
        size, rim = _WINDOW[self.factor]
        chances = tuple(0.85 if name == operator else 0.0 for name in DEGRADATIONS)
        # A blur by its sigma is none of the four: it is drawn freely, with all others.
        self.config = WindowConfig(
            factor=self.factor, size=size, rim=rim, jitter=0.05, gain=0.1, band_gain=0.03,
            operators=(chances[0], chances[1], chances[2], chances[3]),
        )  # fmt: skip
        self.source = Windows(kept_in, self.config)

    def learn(self, steps: int, rate: float, progress: Progress | None) -> tuple[float, float]:
        """Train; return the RMSE on the part held out before and after."""
        import copy

        import torch

        from eosr.train.communicator import Alone
        from eosr.train.optimisers import build_optimiser
        from eosr.train.rates import learning_rate
        from eosr.train.settings import TrainConfig
        from eosr.train.step import Networks, NonFiniteError, Stepper
        from eosr.train.windows import collate

        config = TrainConfig(
            name="adapted", steps=steps, learning_rate=rate, warmup=min(20, steps), precision="float32", ema=0.98,
            window=self.config, kind=self.begun.generator.kind, generator=self.begun.generator.config,
        )  # fmt: skip
        generator: Any = copy.deepcopy(self.begun.generator).to(self.device).train().requires_grad_(True)
        mean = copy.deepcopy(generator).requires_grad_(False)
        networks = Networks(generator=generator, mean=mean, optimiser=build_optimiser(generator.parameters(), config))
        stepper = Stepper(networks, config, Alone(), self.device)
        for step in range(steps):
            drawn = [self.source.sample(8 * step + k, self.seed) for k in range(8)]
            batch = collate(drawn).to(self.device, torch.float32)
            try:
                stepper.generator_step(batch, step, learning_rate(step, config), False)
            except NonFiniteError:  # the rate is too high for this scene
                return self._rmse(self.begun.generator), float("inf")
            if progress is not None:
                progress(step + 1, steps)
        self.adapted: Any = mean.cpu().eval()
        return self._rmse(self.begun.generator), self._rmse(self.adapted)

    def _rmse(self, generator: Any) -> float:
        from eosr.train.validate import as_method, mean_rmse, rmse_per_scene

        operator = self.operator if self.operator in DEGRADATIONS else "study"
        return mean_rmse(rmse_per_scene(as_method(generator, self.factor), self.held_out, self.factor, operator))

    def save(self, folder: Path, before: float, after: float, steps: int) -> Path:
        """Write the better of both."""
        from eosr import __version__
        from eosr.nn.weights import save_weights

        better = after < before
        ids = [str(item) for item in listed(self.ds.attrs.get("item_ids"))] or ["a scene without an id"]
        about = replace(
            self.begun.provenance,
            software=f"eosr {__version__}, {'adapted' if better else 'not bettered'} from {self.begun.name} "
            f"({self.begun.checksum[:12]}) on {', '.join(ids)}",
            data={**self.begun.provenance.data, **{item: hashlib.sha256(item.encode()).hexdigest() for item in ids}},
            seed=self.seed, steps=self.begun.provenance.steps + (steps if better else 0),
            scores={f"{self.operator}/held out, {when}": round(rmse, 3) for when, rmse in
                    (("before", before), ("after", after))},
            bfloat16_error=float("inf") if better else self.begun.provenance.bfloat16_error,
        )  # fmt: skip
        adapted = replace(
            self.begun, name=f"{self.begun.name}-adapted", provenance=about,
            generator=self.adapted if better else self.begun.generator,
        )  # fmt: skip
        return save_weights(adapted, folder / f"{self.begun.name}-adapted.safetensors")


def _split(ds: xr.Dataset, factor: int, *, count: int, seed: int) -> tuple[list[Scene], list[Scene]]:
    """Places to learn from, and those of the strip that is held out."""
    rows, columns = ds.sizes["y10"], ds.sizes["x10"]
    if min(rows, columns) < _LEAST[factor]:
        raise GridError(
            f"the scene has {rows} x {columns} pixels of 10 m, an adaptation for factor {factor} takes "
            f"{_LEAST[factor]} at least. Take a larger window of it."
        )
    nested = 6 * factor
    width = max(columns // _STRIPS // nested, 1) * nested
    strip = int(np.random.default_rng((seed, 3)).integers(_STRIPS))
    start = min(strip * width, columns - width)
    parts = [(0, start), (start + width, columns)]
    kept_in = [
        place
        for part in parts if part[1] - part[0] >= nested
        for place in _places(rows, part, factor, count * (part[1] - part[0]) // (columns - width), seed)
    ]  # fmt: skip
    held_out = _places(rows, (start, start + width), factor, 12, seed + 1)
    found = [_scenes(ds, places) for places in (kept_in, held_out)]
    for scenes, what in zip(found, ("to learn from", "to be judged on"), strict=True):
        if not scenes:
            raise GridError(f"the scene has no place without gaps {what}. Take a clearer part of it, or another scene.")
    return found[0], found[1]


def _places(rows: int, span: tuple[int, int], factor: int, count: int, seed: int) -> list[tuple[int, int, int, int]]:
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


def _scenes(ds: xr.Dataset, places: list[tuple[int, int, int, int]]) -> list[Scene]:
    """Read places, in one computation, and leave out those with gaps."""
    from eosr.train.scenes import Scene

    groups = {10: BANDS_10M, 20: BANDS_20M, 60: BANDS_60M if all(name in ds for name in BANDS_60M) else ()}

    def cut(place: tuple[int, int, int, int], name: str, group: int) -> Any:
        step = group // 10
        top, left, height, width = (value // step for value in place)
        return ds[name].isel({f"y{group}": slice(top, top + height), f"x{group}": slice(left, left + width)}).data

    lazy = [{g: [cut(place, name, g) for name in names] for g, names in groups.items()} for place in places]
    (read,) = compute(lazy)
    offset = np.float32(offsets(ds))
    scenes = []
    for place, images in zip(places, read, strict=True):
        stacked = {g: np.stack(bands) for g, bands in images.items() if bands}
        if any(((bands == 0) | (bands == 65535) | np.isnan(bands)).any() for bands in stacked.values()):
            continue
        values = {g: bands.astype(np.float32) + offset for g, bands in stacked.items()}
        scenes.append(
            Scene(
                name=f"{place[0]},{place[1]}", level=str(ds.attrs.get("level", "L2A")), fine=values[10],
                middle=values[20], coarse=values.get(60), usable=np.ones(values[10].shape[1:], bool), kept_out=False,
            )
        )  # fmt: skip
    return scenes
