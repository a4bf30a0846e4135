"""What can be scored: bands, sizes, borders and masks of a scene, looked at before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import xarray as xr

from eosr.cube.bands import SHARP_BANDS, check_bands
from eosr.cube.grid import STEPS, TOLERANCE, check_chunks, crop_to_multiple, groups_of, gsd_of
from eosr.cube.radiometry import check_stated
from eosr.errors import BandError, GridError, MetricError, ReachError
from eosr.score.protocol import SCORED_GROUPS, Protocol, cropped, inner_sizes
from eosr.sharpen.methods import Choice, Method, choose_methods
from eosr.sharpen.tiling import check_size, plan_tasks


def scored_bands(ds: xr.Dataset, bands: Sequence[str] | None) -> dict[int, list[str]]:
    """Bands to score by the group of their pixel size.

    Raises
    ------
    BandError
        If a band asked for has no group, none is asked for, or there is none at all.
    """
    groups = {
        group: [n for n in names if n != "B10"] for group, names in groups_of(ds).items() if group in SCORED_GROUPS
    }
    if bands is not None:
        asked = check_bands(bands)
        if not asked:
            raise BandError("bands is empty, so there is nothing to score. Leave it out for all bands.")
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
    mask: xr.DataArray | None = None,
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
    mask
        Of the scene.

    Raises
    ------
    RadiometryError, DegradationError, MethodError
        If a method was not made for the level of the scene or for an operator.
    GridError
        If the scene is too small for any of the methods (the size told is enough for all), or a border leaves nothing.
    MetricError
        If the mask is not one of the scene's 10 m grid.
    """
    check_stated(ds, f"evaluate, {scene}")
    ds = ds.drop_vars("B10", errors="ignore")
    if mask is not None:
        _check_mask(mask, ds, scene)
    if any(protocol.property == "consistency" for protocol in protocols):
        check_chunks(ds)
    available = [name for name in SHARP_BANDS if name in ds.data_vars]
    short: dict[int, str] = {}
    for label, choice in runs.items():
        for group, names in made[label].items():
            for method, protocol in product(choose_methods(choice, names, available), protocols):
                method.check(level=ds.attrs["level"], degradation=protocol.degradation)
                factor, whole = cropped(ds, group, protocol)
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
        nested = crop_to_multiple(ds, cropped(ds, group, protocol)[1])
        inner_sizes(nested.sizes, group, STEPS[group], protocol)


def _check_reach(ds: xr.Dataset, method: Method, protocol: Protocol, factor: int, whole: int) -> None:
    """Refuse what a method will be given if it is below its reach, and is not continued by its mirror images."""
    if protocol.mirror:
        return
    fewest = {axis: min(ds.sizes[f"{axis}{group}"] * STEPS[group] for group in groups_of(ds)) for axis in "yx"}
    given = xr.Dataset(coords={f"{axis}10": range(size // whole * whole // factor) for axis, size in fewest.items()})
    check_size(given, plan_tasks(ds, method, protocol.degradation, consistency=True, dtype="float32"))


def _check_mask(mask: xr.DataArray, ds: xr.Dataset, scene: str) -> None:
    """Refuse a mask that is not one of the scene's 10 m grid.

    Raises
    ------
    MetricError
    """
    wanted = "Pass bool with True = use on the 10 m grid, dims ('y10', 'x10')"
    if "time" in mask.dims:
        raise MetricError(
            f"mask has a dimension time, but every time of a series is a scene of its own. {wanted}, one per scene: "
            f"mask={{{scene!r}: mask.isel(time=0), ...}}."
        )
    if mask.dtype != bool or set(mask.dims) != {"y10", "x10"}:
        raise MetricError(
            f"mask is {mask.dtype} on {mask.dims}. {wanted}; a mask of clouds on the 20 m grid becomes one by "
            "mask=~eosr.cube.mask_like(ds.cloud_mask, ds.B02).squeeze()."
        )
    fine = ds[next(iter(groups_of(ds).values()))[0]]
    for dim in ("y10", "x10"):
        if mask.sizes[dim] != fine.sizes[dim]:
            raise MetricError(
                f"mask has {mask.sizes[dim]} pixels along {dim!r}, but {scene} has {fine.sizes[dim]}. "
                + (_cut(mask, fine) or f"{wanted}, of the whole scene.")
            )
        if dim in mask.indexes and dim in fine.indexes:
            apart = float(np.abs(mask[dim].values - fine[dim].values).max())
            if apart > TOLERANCE * gsd_of(ds, 10):
                bare = f"mask=mask.drop_vars({[str(one) for one in mask.dims if one in mask.coords]})"
                raise MetricError(
                    f"the {dim!r} coordinates of mask and {scene} differ, by up to {apart:g}. "
                    + (_cut(mask, fine) or f"If its pixels are those of the scene, leave them out: {bare}.")
                )


def _cut(mask: xr.DataArray, fine: xr.DataArray) -> str:
    """How a mask becomes one of the scene's pixels; empty where it has not all of them."""
    has = all(dim in mask.indexes and np.isin(fine[dim], mask[dim]).all() for dim in ("y10", "x10"))
    return "Cut it to the scene: mask=mask.sel(y10=ds.y10, x10=ds.x10)." if has else ""


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
