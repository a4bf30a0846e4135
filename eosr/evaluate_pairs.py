"""What is compared with what in Wald's protocol: pairs of estimate and reference, on which pixels, and their scores.

References
----------
Wald, Ranchin, Mangolini, "Fusion of satellite images of different spatial resolutions", PE&RS 63(6), 1997: the two
properties. Synthesis: sharpen the degraded scene and compare with the scene. Consistency: sharpen the scene, degrade
the result and compare with the scene; it needs no finer truth, and a projection onto the measurement sets it to zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import xarray as xr

from eosr.bands import SHARP_BANDS, check_bands
from eosr.degrade import degrade
from eosr.errors import BandError, GridError, MetricError, ReachError
from eosr.grid import STEPS, crop_to_multiple, groups_of, gsd_of
from eosr.methods import Choice, Method, choose_methods
from eosr.metrics import score_table
from eosr.metrics.table import Convention
from eosr.superresolve import superresolve_stages
from eosr.tiling import check_size, plan_tasks

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

    @property
    def nbytes(self) -> int:
        """What they hold once computed [bytes]."""
        return sum(part.nbytes for part in (self.before, self.after, self.reference))


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


def check_scene(
    ds: xr.Dataset,
    scene: str,
    runs: Mapping[str, Choice],
    made: Mapping[str, Mapping[int, Sequence[str]]],
    protocols: Sequence[Protocol],
) -> None:
    """Refuse, before anything is computed, what no pairs can be made of or what leaves none of their pixels.

    Parameters
    ----------
    ds, scene
        The scene and its name.
    runs, made
        Label -> method, and label -> group -> bands of the scene it makes.
    protocols
        Everything that will be asked of every method.

    Raises
    ------
    RadiometryError, DegradationError, MethodError
        If a method was not made for the level of the scene or for an operator.
    GridError
        If the scene is too small for any of the methods (the size told is enough for all), or a border leaves nothing.
    """
    ds = ds.drop_vars("B10", errors="ignore")
    available = [name for name in SHARP_BANDS if name in ds.data_vars]
    short: dict[int, str] = {}
    for label, choice in runs.items():
        for group, names in made[label].items():
            for method, protocol in product(choose_methods(choice, names, available), protocols):
                method.check(level=str(ds.attrs.get("level", "")), degradation=protocol.degradation)
                factor, whole = _cropped(ds, group, protocol)
                try:
                    _check_reach(ds, method, protocol, factor, whole)
                except ReachError as error:
                    least = -(-error.needed * factor // whole) * whole
                    must = f"is degraded by {factor} first, and must still" if factor > 1 else "must"
                    short[least] = f"{', '.join(names)}: it {must} hold {error.needed} pixels for {label}"
    if short:
        least = max(short)
        raise GridError(
            f"the window of {scene} is too small to score {short[least]}. Open at least {least} x {least} pixels of 10 "
            "m, name other bands=..., or let small scenes be continued by their mirror images with small='mirror'."
        )
    for group, protocol in product(sorted({group for groups in made.values() for group in groups}), protocols):
        nested = crop_to_multiple(ds, _cropped(ds, group, protocol)[1])
        _inner(nested.sizes, group, STEPS[group], protocol)


def _cropped(ds: xr.Dataset, group: int, protocol: Protocol) -> tuple[int, int]:
    """By how much the scene is degraded before it is sharpened, and the pixels of 10 m that are cropped to a multiple.

    Whole pixels of every group must remain after degrading, so that the coarse grids nest again.
    """
    factor = STEPS[group] if protocol.property == "synthesis" else 1
    return factor, factor * max(STEPS[one] for one in groups_of(ds))


def _check_reach(ds: xr.Dataset, method: Method, protocol: Protocol, factor: int, whole: int) -> None:
    """Refuse what a method will be given if it is below its reach, and is not continued by its mirror images."""
    if protocol.mirror:
        return
    fewest = {axis: min(ds.sizes[f"{axis}{group}"] * STEPS[group] for group in groups_of(ds)) for axis in "yx"}
    given = xr.Dataset(coords={f"{axis}10": range(size // whole * whole // factor) for axis, size in fewest.items()})
    check_size(given, plan_tasks(ds, method, protocol.degradation, consistency=True, dtype="float32"))


def make_pairs(ds: xr.Dataset, group: int, names: list[str], choice: Choice, protocol: Protocol) -> Pairs:
    """Estimates and reference of one group of bands, lazily.

    Raises
    ------
    ReachError
        If the scene is too small; `check_scene` says by how much.
    """
    # B10 is never scored, and has no MTF to be degraded by.
    ds = ds.drop_vars("B10", errors="ignore")
    factor, told = STEPS[group], protocol.degradation
    nested = crop_to_multiple(ds, _cropped(ds, group, protocol)[1])
    if protocol.property == "synthesis":
        given = degrade(nested, factor, degradation=told)
        stages = superresolve_stages(given, choice, bands=names, degradation="auto", mirror=protocol.mirror)
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


def _renamed(sharp: xr.Dataset, group: int) -> xr.Dataset:
    """Name the dimensions after the measured bands: the pixels are those of their grid now."""
    bare = sharp.drop_vars([name for name in sharp.coords if str(name).startswith("spatial_ref")])
    return bare.rename(y10=f"y{group}", x10=f"x{group}")


def in_memory(pairs: Pairs) -> Pairs:
    """Compute pairs all at once: scoring arrays needs no graph of its own."""
    parts = {"before": pairs.before, "after": pairs.after, "reference": pairs.reference}
    # One Dataset, one graph: both stages come from the same tiles, which are sharpened once.
    whole = xr.merge(
        [part.rename({name: f"{key} {name}" for name in part.data_vars}) for key, part in parts.items()],
        combine_attrs="drop", compat="override", join="override",
    )  # fmt: skip
    whole["seconds"] = total_seconds(pairs)
    whole = whole.compute()
    loaded: dict[str, Any] = {
        key: part.assign({name: part[name].copy(data=whole[f"{key} {name}"].data) for name in part.data_vars})
        for key, part in parts.items()
    }
    return replace(pairs, **loaded, seconds=(whole["seconds"],))


def total_seconds(pairs: Pairs) -> xr.DataArray:
    """Seconds of work of all tiles [s]."""
    return xr.DataArray(sum(plane.sum() for plane in pairs.seconds))


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
    inner, sizes = inner_of(pairs, group, protocol), sizes_of(pairs, group, protocol)
    reference = pairs.reference
    counts = None if mask is None else coarse_mask(mask, reference, group).isel(inner)
    how = protocol.convention
    before, after = (
        score_table(
            estimate.isel(inner), reference.isel(inner), fine_gsd=sizes[0], coarse_gsd=sizes[1], peak=how.peak,
            data_range=how.data_range, ergas_convention=how.ergas, mask=counts, conventions=(), moments=True,
        )
        for estimate in (pairs.before, pairs.after)
    )  # fmt: skip
    return before, after


def sizes_of(pairs: Pairs, group: int, protocol: Protocol) -> tuple[float, float]:
    """Pixel size after and before sharpening [m]."""
    gsd = gsd_of(pairs.reference, group)
    return (gsd, gsd * pairs.factor) if protocol.property == "synthesis" else (gsd / pairs.factor, gsd)


def inner_of(pairs: Pairs, group: int, protocol: Protocol) -> dict[str, slice]:
    """Rows and columns that are compared.

    Raises
    ------
    GridError
        If the border leaves nothing.
    """
    return _inner(pairs.reference.sizes, group, pairs.factor, protocol)


def _inner(sizes: Mapping[Any, int], group: int, factor: int, protocol: Protocol) -> dict[str, slice]:
    rim = protocol.border
    if rim is None:
        rim = BORDER * (factor if protocol.property == "synthesis" else 1)
    inner = {}
    for dim in (f"y{group}", f"x{group}"):
        size = sizes[dim]
        if size <= 2 * rim:
            raise GridError(
                f"nothing is left of {size} pixels along {dim!r} once {rim} are cut on both sides. Use "
                "a larger scene or a smaller border, e.g. border=0."
            )
        inner[dim] = slice(rim, size - rim)
    return inner


def coarse_mask(mask: xr.DataArray, reference: xr.Dataset, group: int) -> xr.DataArray:
    """Mask of the bands' own pixels: those of which every 10 m pixel is to be used.

    Raises
    ------
    MetricError
        If the mask is not one of the 10 m grid.
    """
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
