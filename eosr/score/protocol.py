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
from typing import Any, Final, Literal, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.cube.bands import NODATA, SATURATED
from eosr.cube.degradation import as_float_with_nan, degrade
from eosr.cube.grid import STEPS, crop_to_multiple, group_of, groups_of, gsd_of
from eosr.errors import GridError
from eosr.metrics import score_table
from eosr.metrics.conventions import Convention
from eosr.sharpen.methods import Choice
from eosr.sharpen.superresolution import Parameters, Stages, superresolve_stages

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
    """Bands of one pixel size: estimates before and after the projection, and the reference."""

    before: xr.Dataset
    after: xr.Dataset
    reference: xr.Dataset
    factor: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """Pairs by the group of their pixel size that come from the same tiles, and the seconds of work as lazy arrays."""

    pairs: Mapping[int, Pairs]
    seconds: Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Bands of one scene, to be sharpened by one method in one way."""

    ds: xr.Dataset
    #: Bands by the group of their pixel size; several groups only in consistency, where one scene serves all.
    groups: Mapping[int, Sequence[str]]
    choice: Choice
    protocol: Protocol
    #: Bands without which one of the methods of the table makes no pixel: all are scored where all make one.
    guides: Sequence[str] = ()

    @property
    def bands(self) -> list[str]:
        """Bands of all groups."""
        return [name for names in self.groups.values() for name in names]

    @property
    def nbytes(self) -> int:
        """What pairs of the whole scene hold once computed [bytes]: two estimates in float32, and the reference."""
        return sum(self.ds[name].size * (8 + self.ds[name].dtype.itemsize) for name in self.bands)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Rows or columns of a scene that are scored together, and those around them that are read too [10 m pixels]."""

    start: int
    stop: int
    #: First and last one that is read.
    first: int
    last: int

    def read(self, step: int) -> slice:
        """What is read of bands with ``step`` times larger pixels."""
        return slice(self.first // step, self.last // step)

    def scored(self, step: int) -> slice:
        """What is scored of what was read."""
        return slice((self.start - self.first) // step, (self.stop - self.first) // step)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A part of a scene that is computed by itself."""

    rows: Span
    columns: Span
    #: What the methods estimated from the whole scene.
    parameters: Parameters


def units_of(groups: Mapping[int, Sequence[str]], protocol: Protocol) -> list[Mapping[int, Sequence[str]]]:
    """Groups that are sharpened together: in synthesis each has a degraded scene of its own."""
    return [groups] if protocol.property == "consistency" else [{group: names} for group, names in groups.items()]


def cropped(ds: xr.Dataset, group: int, protocol: Protocol) -> tuple[int, int]:
    """By how much the scene is degraded before it is sharpened, and the pixels of 10 m that are cropped to a multiple.

    Whole pixels of every group must remain after degrading, so that the coarse grids nest again.
    """
    factor = STEPS[group] if protocol.property == "synthesis" else 1
    return factor, factor * max(STEPS[one] for one in groups_of(ds))


def nested_of(ask: Ask) -> tuple[xr.Dataset, int]:
    """The scene in whole pixels of every grid that comes, without saturated ones; and by how much it is degraded."""
    # B10 is never scored, and has no MTF to be degraded by.
    ds = ask.ds.drop_vars("B10", errors="ignore")
    factor, whole = cropped(ds, next(iter(ask.groups)), ask.protocol)
    return without_saturated(crop_to_multiple(ds, whole)), factor


def without_saturated(ds: xr.Dataset) -> xr.Dataset:
    """The scene with saturated pixels as gaps.

    Such a pixel says "at least": it is no measurement to be compared with, nor one to be mixed into larger pixels.
    """
    bands = [name for names in groups_of(ds).values() for name in names]
    return ds.assign({name: _measured(ds[name]) for name in bands})


def _measured(band: xr.DataArray) -> xr.DataArray:
    gap = np.nan if band.dtype.kind == "f" else NODATA
    kept = band.copy(data=_where(band.data != SATURATED, band.data, band.dtype.type(gap)))
    kept.encoding = band.encoding
    return kept


def _where(there: Any, data: Any, other: Any) -> Any:
    return (da if isinstance(data, da.Array) else np).where(there, data, other)


def given_of(nested: xr.Dataset, factor: int, protocol: Protocol) -> tuple[xr.Dataset, str]:
    """What a method is given, and the operator it is told."""
    if protocol.property == "synthesis":
        return degrade(nested, factor, degradation=protocol.degradation), "auto"
    return nested, protocol.degradation


def make_work(ask: Ask, window: Window | None = None) -> Work:
    """Estimates and reference, lazily; of a whole scene, or of a window of it.

    Raises
    ------
    ReachError
        If the scene is too small; `eosr.score.checks.check_scene` says by how much.
    """
    nested, factor = nested_of(ask)
    if window is not None:
        axes = {"y": window.rows, "x": window.columns}
        nested = nested.isel({f"{a}{g}": span.read(STEPS[g]) for g in groups_of(nested) for a, span in axes.items()})
    given, told = given_of(nested, factor, ask.protocol)
    stages = superresolve_stages(
        given, ask.choice, bands=ask.bands, degradation=told, mirror=ask.protocol.mirror or window is not None,
        parameters=None if window is None else window.parameters,
    )  # fmt: skip
    there = _made_by_all(given, ask.guides)
    pairs = {
        group: _pairs_of(nested, group, list(names), stages, ask.protocol, there) for group, names in ask.groups.items()
    }
    work = Work(pairs=pairs, seconds=stages.seconds)
    return work if window is None else _cut(work, factor, window)


def _pairs_of(
    nested: xr.Dataset, group: int, names: list[str], stages: Stages, protocol: Protocol, there: xr.DataArray | None
) -> Pairs:
    both = [stage[names] for stage in (stages.before, stages.after)]
    if there is not None:
        both = [stage.where(there) for stage in both]
    if protocol.property == "consistency":
        both = [degrade(stage, STEPS[group], degradation=protocol.degradation) for stage in both]
    before, after = (_renamed(stage, group) for stage in both)
    return Pairs(before=before, after=after, reference=nested[names], factor=STEPS[group])


def _made_by_all(given: xr.Dataset, guides: Sequence[str]) -> xr.DataArray | None:
    """Pixels of 10 m (y10, x10) where no guide has a gap; None if there are no guides to look at."""
    there: xr.DataArray | None = None
    for name in guides:
        band = given[name]
        valid = np.isfinite(as_float_with_nan(band.data))
        if (step := STEPS[group_of(band)]) > 1:
            valid = _enlarged(valid, step)
        one = xr.DataArray(valid, dims=(*band.dims[:-2], "y10", "x10"))
        there = one if there is None else there & one
    return there


def _enlarged(valid: Any, step: int) -> Any:
    if not isinstance(valid, da.Array):
        return _repeated(valid, step)
    chunks = (*valid.chunks[:-2], *(tuple(size * step for size in sizes) for sizes in valid.chunks[-2:]))
    return da.map_blocks(_repeated, valid, step, dtype=bool, chunks=chunks)


def _repeated(block: npt.NDArray[np.bool_], step: int) -> npt.NDArray[np.bool_]:
    return block.repeat(step, -2).repeat(step, -1)


def _cut(work: Work, factor: int, window: Window) -> Work:
    """What is scored of a window, without what was read around it."""
    pairs = {}
    for group, whole in work.pairs.items():
        step = STEPS[group]
        inner = {f"y{group}": window.rows.scored(step), f"x{group}": window.columns.scored(step)}
        before, after, reference = (part.isel(inner) for part in (whole.before, whole.after, whole.reference))
        pairs[group] = replace(whole, before=before, after=after, reference=reference)
    fine = (slice(None), window.rows.scored(factor), window.columns.scored(factor))
    return Work(pairs=pairs, seconds=[plane[fine] for plane in work.seconds])


def _renamed(sharp: xr.Dataset, group: int) -> xr.Dataset:
    """Name the dimensions after the measured bands: the pixels are those of their grid now."""
    bare = sharp.drop_vars([name for name in sharp.coords if str(name).startswith("spatial_ref")])
    return bare.rename(y10=f"y{group}", x10=f"x{group}")


def in_memory(work: Work) -> Work:
    """Compute pairs all at once: scoring arrays needs no graph of its own."""
    parts = {
        (group, key): part
        for group, pairs in work.pairs.items()
        for key, part in (("before", pairs.before), ("after", pairs.after), ("reference", pairs.reference))
    }
    # One Dataset, one graph: all come from the same tiles, which are sharpened once.
    whole = xr.merge(
        [part.rename({name: f"{key} {name}" for name in part.data_vars}) for (_, key), part in parts.items()],
        combine_attrs="drop", compat="override", join="override",
    )  # fmt: skip
    whole["seconds"] = xr.DataArray(sum(plane.sum() for plane in work.seconds))
    whole = whole.compute()
    loaded: dict[int, dict[str, Any]] = {group: {} for group in work.pairs}
    for (group, key), part in parts.items():
        loaded[group][key] = part.assign({n: part[n].copy(data=whole[f"{key} {n}"].data) for n in part.data_vars})
    return Work(
        pairs={group: replace(pairs, **loaded[group]) for group, pairs in work.pairs.items()},
        seconds=[float(whole["seconds"])],
    )


def score_pairs(
    pairs: Pairs, group: int, protocol: Protocol, mask: xr.DataArray | None
) -> tuple[xr.Dataset, xr.Dataset]:
    """Scores before and after the projection, lazily: `eosr.metrics.score_table` with moments.

    Raises
    ------
    GridError
        If the border leaves nothing.
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
    return inner_sizes(pairs.reference.sizes, group, pairs.factor, protocol)


def inner_sizes(sizes: Mapping[Any, int], group: int, factor: int, protocol: Protocol) -> dict[str, slice]:
    """The same, from the sizes of the reference."""
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
    """Mask of the bands' own pixels: those of which every 10 m pixel is to be used."""
    step, dims = STEPS[group], (f"y{group}", f"x{group}")
    nested = mask.isel(y10=slice(0, reference.sizes[dims[0]] * step), x10=slice(0, reference.sizes[dims[1]] * step))
    coarse = nested.coarsen(y10=step, x10=step, boundary="trim").reduce(np.all)
    return coarse.rename(y10=dims[0], x10=dims[1])
