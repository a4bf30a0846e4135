"""What is compared with what in Wald's protocol: pairs of estimate and reference, on which pixels, and their scores.

References
----------
Wald, Ranchin, Mangolini, "Fusion of satellite images of different spatial resolutions", PE&RS 63(6), 1997: the two
properties. Synthesis: sharpen the degraded scene and compare with the scene. Consistency: sharpen the scene, degrade
the result and compare with the scene; it needs no finer truth, and a projection onto the measurement sets it to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import xarray as xr

from eosr.bands import check_bands
from eosr.degrade import degrade
from eosr.errors import BandError, GridError, MetricError, ReachError
from eosr.grid import STEPS, crop_to_multiple, groups_of, gsd_of
from eosr.methods import Choice
from eosr.metrics import score_table
from eosr.metrics.table import Convention
from eosr.superresolve import superresolve_stages

Property: TypeAlias = Literal["synthesis", "consistency"]

#: Groups that are scored; the 10 m bands have nothing to be compared with.
SCORED_GROUPS: Final = (20, 60)
#: Coarse pixels left out along the rim: no method has all its neighbours there. DSen2 cuts the same 4 px of 20 m.
BORDER: Final = 2


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a pair is made and scored."""

    property: Property
    degradation: str
    border: int | None
    convention: Convention
    #: Continue a scene smaller than the reach of a method by its mirror images.
    mirror: bool = False


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Bands of one pixel size: estimates before and after the projection, the reference, the work as lazy arrays."""

    before: xr.Dataset
    after: xr.Dataset
    reference: xr.Dataset
    factor: int
    seconds: Sequence[Any]


def scored_bands(ds: xr.Dataset, bands: Sequence[str] | None) -> dict[int, list[str]]:
    """Bands to score by the group of their pixel size.

    Raises
    ------
    BandError
        If a band asked for has no group, or there is none at all.
    """
    groups = {
        group: [n for n in names if n != "B10"] for group, names in groups_of(ds).items() if group in SCORED_GROUPS
    }
    if bands is not None:
        asked = check_bands(bands)
        missing = [name for name in asked if not any(name in names for names in groups.values())]
        if missing:
            raise BandError(
                f"band {', '.join(missing)} cannot be scored: the Dataset has no such 20 m or 60 m band. It has "
                f"{', '.join(name for names in groups.values() for name in names) or 'none'}."
            )
        groups = {group: [name for name in names if name in asked] for group, names in groups.items()}
    groups = {group: names for group, names in groups.items() if names}
    if not groups:
        raise BandError("the Dataset has no 20 m or 60 m band to score. Open it with e.g. B05 and the 10 m bands.")
    return groups


def make_pairs(ds: xr.Dataset, group: int, names: list[str], choice: Choice, protocol: Protocol) -> Pairs:
    """Estimates and reference of one group of bands, lazily.

    Raises
    ------
    GridError
        If the scene is too small to be degraded and still hold the reach of the method.
    """
    factor = STEPS[group]
    # B10 is never scored, and has no MTF to be degraded by.
    ds = ds.drop_vars("B10", errors="ignore")
    # Whole pixels of every group must remain after degrading, so that the coarse grids nest again.
    step = max(STEPS[one] for one in groups_of(ds))
    synthesis = protocol.property == "synthesis"
    nested = crop_to_multiple(ds, factor * step if synthesis else step)
    told = protocol.degradation
    if synthesis:
        given = degrade(nested, factor, degradation=told)
        try:
            stages = superresolve_stages(given, choice, bands=names, degradation="auto", mirror=protocol.mirror)
        except ReachError as error:
            raise _too_small(error, names, factor) from error
        before, after = stages.before[names], stages.after[names]
    else:
        stages = superresolve_stages(nested, choice, bands=names, degradation=told, mirror=protocol.mirror)
        before, after = (
            degrade(stage[names], factor, degradation=told) for stage in (stages.before, stages.after)
        )  # fmt: skip
    return Pairs(
        before=_renamed(before, group), after=_renamed(after, group), reference=nested[names], factor=factor,
        seconds=stages.seconds,
    )  # fmt: skip


def _too_small(error: ReachError, names: Sequence[str], factor: int) -> GridError:
    least, step = error.needed * factor, 36 if factor == 6 else 12
    least = -(-least // step) * step
    return GridError(
        f"the window is too small to score {', '.join(names)}: it is degraded by {factor} first, and must still "
        f"hold {error.needed} pixels. Open at least {least} x {least} pixels of 10 m, name other bands=..., or let small "
        "scenes be continued by their mirror images with small='mirror'."
    )


def _renamed(sharp: xr.Dataset, group: int) -> xr.Dataset:
    """Name the dimensions after the measured bands: the pixels are those of their grid now."""
    bare = sharp.drop_vars([name for name in sharp.coords if str(name).startswith("spatial_ref")])
    return bare.rename(y10=f"y{group}", x10=f"x{group}")


def score_pairs(
    pairs: Pairs, group: int, protocol: Protocol, mask: xr.DataArray | None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Scores before and after the projection, lazily: `eosr.metrics.score_table` with moments.

    Raises
    ------
    GridError
        If the border leaves nothing.
    MetricError
        If the mask is not one of the 10 m grid.
    """
    reference, factor = pairs.reference, pairs.factor
    gsd = gsd_of(reference, group)
    synthesis = protocol.property == "synthesis"
    sizes = (gsd, gsd * factor) if synthesis else (gsd / factor, gsd)
    rim = (BORDER * (factor if synthesis else 1)) if protocol.border is None else protocol.border
    inner = {}
    for dim in (f"y{group}", f"x{group}"):
        if reference.sizes[dim] <= 2 * rim:
            raise GridError(
                f"nothing is left of {reference.sizes[dim]} pixels along {dim!r} once {rim} are cut on both sides. Use "
                "a larger scene or a smaller border, e.g. border=0."
            )
        inner[dim] = slice(rim, reference.sizes[dim] - rim)
    counts = None if mask is None else _coarse_mask(mask, reference, group).isel(inner)
    how = protocol.convention
    before, after = (
        score_table(
            estimate.isel(inner), reference.isel(inner), fine_gsd=sizes[0], coarse_gsd=sizes[1], peak=how.peak,
            data_range=how.data_range, ergas_convention=how.ergas, mask=counts, conventions=(), moments=True,
        )
        for estimate in (pairs.before, pairs.after)
    )  # fmt: skip
    return before, after


def _coarse_mask(mask: xr.DataArray, reference: xr.Dataset, group: int) -> xr.DataArray:
    step, dims = STEPS[group], (f"y{group}", f"x{group}")
    if mask.dtype != bool or not {"y10", "x10"} <= set(mask.dims):
        raise MetricError(
            f"mask is {mask.dtype} on {mask.dims}. Pass bool with True = use on the 10 m grid, dims ('y10', 'x10')."
        )
    cropped = mask.isel(y10=slice(0, reference.sizes[dims[0]] * step), x10=slice(0, reference.sizes[dims[1]] * step))
    coarse = cropped.coarsen(y10=step, x10=step, boundary="trim").reduce(np.all)
    return coarse.rename(y10=dims[0], x10=dims[1])


def check_scored(table: xr.Dataset, scene: str, label: str) -> None:
    """Refuse a band of which no pixel counted.

    Raises
    ------
    MetricError
    """
    empty = table.coverage == 0
    if bool(empty.any()):
        bands = [str(name) for name in table.band.values[empty.values]]
        raise MetricError(
            f"no pixel is left to score {label} in band {', '.join(bands)} of {scene}: all are nodata, masked or in "
            "the border. Choose another window or time, or a smaller border or mask."
        )
