"""Wald's protocol for many methods, scenes and operators: one tidy table, with bicubic always beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final, TypeAlias, get_args

import numpy as np
import xarray as xr

from eosr._version import __version__
from eosr.cube.bands import BANDS, QUANTIFICATION, SHARP_BANDS
from eosr.cube.degradation import DEGRADATIONS
from eosr.cube.radiometry import listed
from eosr.errors import BandError
from eosr.host.memory import PeakMemory
from eosr.host.progress import Progress, reporting_tasks
from eosr.metrics.conventions import Convention
from eosr.score.arguments import (
    check_draws,
    check_mask,
    check_mask_names,
    checked_border,
    checked_units,
    choices,
    chosen_convention,
    kind_of,
    mirrored,
    named_scenes,
    several,
)
from eosr.score.blocks import computations, make_windows, score_windows
from eosr.score.checks import check_scene, check_scored, scored_bands
from eosr.score.protocol import Ask, Property, Protocol, in_memory, make_work, score_pairs, units_of
from eosr.score.summary import AVERAGES, INTERVAL, JOINT, METRICS, MOMENTS, PER_BAND, Pool, averaged, bootstrap
from eosr.sharpen.methods import Choice, choose_methods

#: One method or several: names, weights, or label -> how to sharpen.
Methods: TypeAlias = (
    "str | Path | Sequence[str | Path] | Mapping[str, str | Path | Sequence[str | Path] | Mapping[str, Any]] | None"
)
Scenes: TypeAlias = "xr.Dataset | Sequence[xr.Dataset] | Mapping[str, xr.Dataset]"

#: Estimates and reference that hold fewer bytes are computed first and then scored; larger ones window by window.
IN_MEMORY: Final = 64e6
#: Stages of the answer that are scored.
PROJECTION: Final = ("before", "after")


def evaluate(
    ds: Scenes,
    methods: Methods = None,
    *,
    property: Property | Sequence[Property] = "synthesis",
    degradation: str | Sequence[str] = "study",
    bands: Sequence[str] | None = None,
    border: int | None = None,
    mask: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    convention: str | Convention = "eosr",
    units: str = "DN",
    small: str = "refuse",
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = None,
) -> xr.Dataset:
    """Score methods on scenes by Wald's protocol: one tidy table, bicubic always in it. Computes.

    Parameters
    ----------
    ds : Dataset, or sequence or mapping of them
        Multi-resolution, digital numbers, with the 10 m bands; e.g. from `eosr.open_stac`. Every time of a series is a
        scene of its own. Names of scenes: the keys of a mapping, else the ids of their items; dates are added where
        times of one Dataset share a name, a number where scenes do.
    methods : str, path, sequence or mapping, optional
        Names as in `eosr.superresolve` (``"bicubic"``, ``"atprk"``, ``"eosr"``, ...), weights files, or a mapping from
        a label of your own to a name, weights, or arguments: ``{"atprk, default PSF": {"method": "atprk", "options":
        {"psf": "published"}}, "dsen2": {"method": "dsen2", "weights": [...]}}``. Default: ``"eosr"``.
    property : {"synthesis", "consistency", "both"}, or sequence of str
        Synthesis: degrade every band, by 2 for the 20 m bands and by 6 for the 60 m bands, sharpen, compare with the
        bands as measured. Consistency: sharpen the scene as it is, degrade, compare at the bands' own pixel size.
        ``"all"`` is ``"both"``.
    degradation : str or sequence of str
        Operators that make the coarse scene, see `eosr.degrade`; ``"all"`` for the four. **A score means nothing
        without its name**: the RMSE of one network moves by a factor of 4 between operators.
    bands : sequence of str, optional
        Bands to score. Default: every 20 m and 60 m band that is there.
    border : int, optional
        Pixels left out along each side of the bands that are compared. Default: the ground of two coarse pixels, i.e.
        4 px (20 m) and 12 px (60 m) in synthesis, 2 px in consistency.
    mask : DataArray of bool, dims (y10, x10), or mapping of scene to mask, optional
        True = use. A coarser pixel counts where all its 10 m pixels do.
    convention : str or Convention
        ``"eosr"``: peak of PSNR and data range of SSIM 10000 DN, ERGAS after Wald. ``"zhang2020"``: the reference
        study's (its peak is the image's maximum, its SSIM has constants of 8-bit images, its ERGAS 100 / 2 at 60 m
        too). Or an `eosr.metrics.conventions.Convention` of your own.
    units : {"DN", "reflectance"}
        Unit of RMSE and bias: digital numbers without offset, or those over 10000.
    small : {"refuse", "mirror"}
        What to do with a scene smaller than the reach of a method (once degraded): refuse it, or continue it by its
        mirror images, as patches of a dataset need.
    resamples, seed : int
        Bootstrap over scenes: number of draws, and their seed.
    device : str
        For generators, as in `eosr.superresolve`.
    progress : callable or bool, optional
        True draws a bar on standard error; a callable gets (done, total) in thousandths.

    Returns
    -------
    Dataset
        ``score`` (scene, method, property, degradation, projection, band, metric): NaN where a method does not make a
        band, and for SAM and ERGAS, which compare all bands of a pixel. All methods are scored on the same pixels of a
        scene, those that every one of them makes; saturated pixels (65535) are gaps. ``score_overall`` (..., gsd,
        average, metric): over the bands of one pixel size. ``summary`` and ``summary_overall``, over scenes, with
        ``_low`` and ``_high`` ends of the 95 % bootstrap interval (NaN for one scene). Coordinate ``average``:
        ``"mean"`` of the scores, or score of all pixels ``"pooled"``. ``projection``: the answer ``"before"`` and
        ``"after"`` it is projected onto the measurement. ``seconds`` of work of the method for all bands together, and
        ``peak_memory`` [bytes] (growth of this process, scoring included; a cluster's workers are not seen) per scene,
        method, property and degradation, and ``pixels`` of 10 m per scene. Units and directions: coordinates ``unit``
        and ``better`` of ``metric``. What a row is: coordinates ``described`` (with options), ``weights_sha256`` and
        ``kind`` (name of the method, whatever the label; empty for weights that are no method's) of ``method``. Pick
        with ``table.score.loc[{"method": "eosr"}]``: xarray's ``sel`` has an argument of that name.

    Raises
    ------
    MetricError
        If an argument has no meaning, or a band has no pixel to score (nodata, mask).
    MethodError, WeightsError
        If a method is unknown or lacks weights, or a label is the name of another method than it stands for.
    RadiometryError, DegradationError
        If a Dataset holds reflectance, or weights were made for another level or operator.
    BandError, GridError
        If bands are missing, cannot be made by a method, the scene is too small, or the border leaves nothing of it.

    Examples
    --------
    >>> from eosr.testing import synthetic_scene
    >>> table = evaluate(synthetic_scene(14, 14), "detail_injection", bands=["B05", "B11"])
    >>> table.method.values.tolist(), dict(table.score.sizes)["band"]
    (['bicubic', 'detail_injection'], 2)
    """
    job = _Job(
        scenes=named_scenes(ds), runs=choices(methods, device),
        properties=several(property, get_args(Property), "property"),
        degradations=several(degradation, DEGRADATIONS, "degradation"), bands=bands, border=checked_border(border),
        mask=mask, convention=chosen_convention(convention), units=checked_units(units),
        mirror=mirrored(small),
    )  # fmt: skip
    check_draws(resamples, seed)
    check_mask_names(mask, job.scenes)
    for name in job.scenes:
        check_mask(job.mask_of(name))
        job.check(name)
    # Counting plans every pass over every scene: only for a bar.
    with reporting_tasks(progress, job.computations() if progress else 0, "evaluating"):
        job.run()
    return job.table(resamples=resamples, seed=seed)


@dataclass(kw_only=True)
class _Job:
    """Arguments that are checked, and the scores as they come."""

    scenes: dict[str, xr.Dataset]
    runs: dict[str, Choice]
    properties: tuple[str, ...]
    degradations: tuple[str, ...]
    bands: Sequence[str] | None
    border: int | None
    mask: Any
    convention: Convention
    units: str
    mirror: bool
    arrays: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.groups = {name: scored_bands(scene, self.bands) for name, scene in self.scenes.items()}
        there = {band for groups in self.groups.values() for names in groups.values() for band in names}
        self.order = [band for band in BANDS if band in there]
        self.gsds = [gsd for gsd in (20, 60) if any(BANDS[band].gsd == gsd for band in self.order)]
        #: By label, of all scenes: a scene may lack the bands that some weights of a row are for.
        self.described: dict[str, dict[str, None]] = {label: {} for label in self.runs}
        self.checksums: dict[str, dict[str, None]] = {label: {} for label in self.runs}
        self.kinds: dict[str, str] = {}
        self._check_makes()
        self.guides = {scene: self._guides(scene) for scene in self.scenes}

    def mask_of(self, scene: str) -> xr.DataArray | None:
        return self.mask.get(scene) if isinstance(self.mask, Mapping) else self.mask

    def _makes(self, scene: str, label: str) -> dict[int, list[str]]:
        """Bands of a scene that a method can make, by group."""
        available = [name for name in SHARP_BANDS if name in self.scenes[scene].data_vars]
        choice = self.runs[label]
        # Bands that nobody scores need not be there.
        asked = None if self.bands is None else [n for names in self.groups[scene].values() for n in names]
        made = choose_methods(choice, asked, available)
        self.described[label] |= dict.fromkeys(method.described() for method in made)
        self.checksums[label] |= dict.fromkeys(method.checksum for method in made if method.checksum)
        kind = kind_of(label, choice, made)
        self.kinds[label] = kind if self.kinds.get(label, kind) == kind else ""
        delivered = {band for method in made for band in method.delivers}
        parts = {group: [n for n in bands if n in delivered] for group, bands in self.groups[scene].items()}
        return {group: bands for group, bands in parts.items() if bands}

    def _check_makes(self) -> None:
        self.made = {(scene, label): self._makes(scene, label) for scene, label in product(self.scenes, self.runs)}
        for (scene, label), groups in self.made.items():
            missing = [b for b in self.bands or () if not any(b in names for names in groups.values())]
            if (missing and any(b in names for b in missing for names in self.groups[scene].values())) or not groups:
                cannot = missing or [b for names in self.groups[scene].values() for b in names]
                raise BandError(
                    f"{label} cannot make {', '.join(cannot)} of {scene}. Name bands it makes with bands=..., or leave "
                    "the method out."
                )

    def check(self, scene: str) -> None:
        """Refuse a scene that cannot be scored as asked before anything is computed."""
        made = {label: self.made[scene, label] for label in self.runs}
        protocols = [self._protocol(*both) for both in product(self.properties, self.degradations)]
        check_scene(self.scenes[scene], scene, self.runs, made, protocols, self.mask_of(scene))

    def _asked(self, scene: str, label: str, protocol: Protocol) -> list[Ask]:
        """What one method is asked for on one scene, in as few computations as there must be."""
        how: dict[str, Any] = {
            "ds": self.scenes[scene], "choice": self.runs[label], "protocol": protocol, "guides": self.guides[scene],
        }  # fmt: skip
        return [Ask(groups=groups, **how) for groups in units_of(self.made[scene, label], protocol)]

    def _guides(self, scene: str) -> list[str]:
        """Bands of a scene without which one of the methods makes no pixel."""
        available = [name for name in SHARP_BANDS if name in self.scenes[scene].data_vars]
        needed: set[str] = set()
        for label, choice in self.runs.items():
            made = [band for names in self.made[scene, label].values() for band in names]
            for method in choose_methods(choice, made, available):
                needed |= {*method.fine_bands, *method.middle_bands}
                # One problem for two grids makes a pixel of the middle one where all its targets are there.
                needed |= {*method.targets} if method.delivers != method.targets else set()
        return [band for band in available if band in needed]

    def computations(self) -> int:
        """Number of graphs that will be computed."""
        asked = [ask for _, where in self._steps() for ask in self._asked(*where)]
        return sum(computations(ask) if ask.nbytes > IN_MEMORY else 1 for ask in asked)

    def run(self) -> None:
        """Fill the arrays of scores, moments and costs."""
        lead = (len(self.scenes), len(self.runs), len(self.properties), len(self.degradations))
        for name in (*PER_BAND, *MOMENTS):
            self.arrays[name] = np.full((*lead, len(PROJECTION), len(self.order)), np.nan)
        for name in JOINT:
            self.arrays[name] = np.full((*lead, len(PROJECTION), len(self.gsds)), np.nan)
        self.arrays["seconds"], self.arrays["peak_memory"] = np.zeros(lead), np.zeros(lead)
        for place, (scene, label, protocol) in self._steps():
            for ask in self._asked(scene, label, protocol):
                self._score(place, ask, scene, label)

    def _steps(self) -> Iterator[tuple[tuple[int, ...], tuple[str, str, Protocol]]]:
        axes: Any = (self.scenes, self.runs, self.properties, self.degradations)
        for places in product(*(range(len(axis)) for axis in axes)):
            scene, label, kind, operator = (list(axis)[i] for axis, i in zip(axes, places, strict=True))
            yield places, (scene, label, self._protocol(kind, operator))

    def _protocol(self, kind: Any, operator: str) -> Protocol:
        return Protocol(
            property=kind, degradation=operator, border=self.border, convention=self.convention, mirror=self.mirror
        )

    def _score(self, place: tuple[int, ...], ask: Ask, scene: str, label: str) -> None:
        with PeakMemory() as memory:
            tables, seconds = _scored(ask, self.mask_of(scene))
        for group, both in tables.items():
            for stage in range(len(PROJECTION)):
                table = both.isel(projection=stage)
                check_scored(table, scene, label)
                self._keep((*place, stage), group, table)
        self.arrays["seconds"][place] += seconds
        self.arrays["peak_memory"][place] = max(self.arrays["peak_memory"][place], memory.grown)

    def _keep(self, place: tuple[int, ...], group: int, table: xr.Dataset) -> None:
        names = table.band.values.tolist()
        for name in (*PER_BAND, *MOMENTS):
            for band in names:
                self.arrays[name][(*place, self.order.index(band))] = table[name].sel(band=band)
        for name in JOINT:
            # One band has no angle: it would be 0, which looks like perfection.
            score = np.nan if name == "sam" and len(names) == 1 else table[name]
            self.arrays[name][(*place, self.gsds.index(group))] = score

    def table(self, *, resamples: int, seed: int) -> xr.Dataset:
        """The tidy Dataset."""
        groups = {g: [i for i, band in enumerate(self.order) if BANDS[band].gsd == g] for g in self.gsds}
        pool = Pool(self.arrays, groups, self.convention)
        count = len(self.scenes)
        each = [averaged(_one_scene(pool, i), np.ones(1))[1] for i in range(count)]
        per_band = np.stack([self.arrays[n] if n in PER_BAND else np.full_like(self.arrays["rmse"], np.nan)
                             for n in METRICS], axis=-1)  # fmt: skip
        bands, overall = averaged(pool, np.ones(count))
        (low, high), (low_all, high_all) = bootstrap(pool, count, resamples=resamples, seed=seed)
        run = ("method", "property", "degradation")
        lead = (*run, "projection")
        costs = ("scene", *run)
        found = {
            "score": (("scene", *lead, "band", "metric"), per_band),
            "score_overall": (("scene", *lead, "gsd", "average", "metric"), np.stack(each)),
            **{f"summary{end}": ((*lead, "band", "average", "metric"), values)
               for end, values in (("", bands), ("_low", low), ("_high", high))},
            **{f"summary_overall{end}": ((*lead, "gsd", "average", "metric"), values)
               for end, values in (("", overall), ("_low", low_all), ("_high", high_all))},
            "seconds": (costs, self.arrays["seconds"], {"units": "s", "long_name": "work of the method"}),
            "peak_memory": (costs, self.arrays["peak_memory"],
                            {"units": "bytes", "long_name": "growth of this process, scoring included"}),
            "pixels": ("scene", [int(np.prod([one.sizes[d] for d in ("y10", "x10")])) for one in self.scenes.values()],
                       {"long_name": "pixels of 10 m"}),
        }  # fmt: skip
        table = xr.Dataset(found, coords=self._coords(), attrs=self._attrs(resamples, seed))
        if self.units == "reflectance":
            table = _in_reflectance(table)
        return table

    def _coords(self) -> dict[str, Any]:
        return {
            "scene": list(self.scenes),
            "method": list(self.runs),
            "property": list(self.properties),
            "degradation": list(self.degradations),
            "projection": list(PROJECTION),
            "band": self.order,
            "gsd": self.gsds,
            "average": list(AVERAGES),
            "metric": list(METRICS),
            "native_gsd": ("band", [BANDS[band].gsd for band in self.order]),
            "unit": ("metric", [one[0] for one in METRICS.values()]),
            "better": ("metric", [one[1] for one in METRICS.values()]),
            "kind": ("method", [self.kinds[label] for label in self.runs]),
            "described": ("method", [" + ".join(self.described[label]) for label in self.runs]),
            "weights_sha256": ("method", [" ".join(self.checksums[label]) for label in self.runs]),
        }

    def _attrs(self, resamples: int, seed: int) -> dict[str, Any]:
        levels = sorted({str(scene.attrs.get("level", "")) for scene in self.scenes.values()})
        how = self.convention
        return {
            "convention": how.name, "peak": how.peak, "data_range": how.data_range, "ergas_convention": how.ergas,
            "small": "mirror" if self.mirror else "refuse",
            "border": "2 coarse pixels" if self.border is None else self.border, "units": self.units,
            "level": levels[0] if len(levels) == 1 else "mixed", "interval": INTERVAL, "resamples": resamples,
            "seed": seed, "software": f"eosr {__version__}",
            "item_ids": [str(item) for one in self.scenes.values() for item in listed(one.attrs.get("item_ids"))],
        }  # fmt: skip


def _scored(ask: Ask, mask: xr.DataArray | None) -> tuple[dict[int, xr.Dataset], float]:
    """Scores of both stages by group, and the seconds of work: in memory where pairs fit, else window by window."""
    work = make_work(ask)
    if ask.nbytes > IN_MEMORY:
        return score_windows(work, make_windows(ask), ask.protocol, mask)
    work = in_memory(work)
    stages = {group: score_pairs(pairs, group, ask.protocol, mask) for group, pairs in work.pairs.items()}
    projection = xr.IndexVariable("projection", list(PROJECTION))
    tables = {group: xr.concat(both, projection, combine_attrs="override") for group, both in stages.items()}
    return {group: table.compute() for group, table in tables.items()}, float(work.seconds[0])


def _one_scene(pool: Pool, place: int) -> Pool:
    part = {name: values[place : place + 1] for name, values in pool.scores.items()}
    return Pool(part, pool.groups, pool.convention)


def _in_reflectance(table: xr.Dataset) -> xr.Dataset:
    scaled = [name for name, about in METRICS.items() if about[0] == "DN"]
    factor = xr.where(table.metric.isin(scaled), 1 / QUANTIFICATION, 1.0).drop_vars(["unit", "better"])
    names = [name for name in table.data_vars if "metric" in table[name].dims]
    unit = np.where(table.metric.isin(scaled), "1", table.unit)
    return table.assign({name: table[name] * factor for name in names}).assign_coords(unit=("metric", unit))
