"""Wald's protocol: degrade -> sharpen -> score against what was measured; one table, with bicubic always beside.

References
----------
Wald, Ranchin, Mangolini, "Fusion of satellite images of different spatial resolutions", PE&RS 63(6), 1997: the two
properties. Synthesis: sharpen the degraded scene and compare with the scene. Consistency: sharpen the scene, degrade
the result and compare with the scene; it needs no finer truth, and a projection onto the measurement sets it to zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from eosr.bands import BANDS, QUANTIFICATION, check_bands
from eosr.degrade import degrade
from eosr.errors import BandError, GridError, MetricError, ReachError
from eosr.grid import STEPS, crop_to_multiple, groups_of, gsd_of
from eosr.metrics import score_table
from eosr.radiometry import for_its_times
from eosr.superresolve import superresolve

Property: TypeAlias = Literal["synthesis", "consistency"]

#: Groups that are scored; the 10 m bands have nothing to be compared with.
_SCORED_GROUPS: Final = (20, 60)
#: Coarse pixels left out along the rim: no method has all its neighbours there. DSen2 cuts the same 4 px of 20 m.
_BORDER: Final = 2
_BICUBIC: Final = "bicubic"
#: Attributes of a group's table that ``gsd`` and ``property`` tell already.
_PER_GROUP: Final = ("fine_gsd", "coarse_gsd")
#: Attributes of a sharpened Dataset that go into the table, once for each pixel size.
_PROVENANCE: Final = ("sharpened_by", "sharpening_methods", "weights_sha256", "consistency")


def evaluate(
    ds: xr.Dataset,
    *,
    weights: str | Path | Sequence[str | Path] | None = None,
    method: str | None = None,
    bands: Sequence[str] | None = None,
    degradation: str = "study",
    property: Property = "synthesis",
    border: int | None = None,
    mask: xr.DataArray | None = None,
    consistency: bool | None = None,
    conventions: Sequence[str] = ("zhang2020",),
    device: str = "auto",
) -> xr.Dataset:
    """Score a generator or a method on a scene, with bicubic beside it. Computes.

    Parameters
    ----------
    ds : Dataset
        Multi-resolution, digital numbers, with the 10 m bands; e.g. from `eosr.open_stac`.
    weights, method, device
        What to score, as in `eosr.superresolve`. Default: the shipped weights.
    bands : sequence of str, optional
        Bands to score. Default: every 20 m and 60 m band that can be sharpened.
    degradation : str
        Operator that makes the coarse scene, see `eosr.degrade`. **A score means nothing without its name**: the RMSE
        of one network moves by a factor of 4 between operators.
    property : {"synthesis", "consistency"}
        Synthesis: degrade every band, by 2 for the 20 m bands and by 6 for the 60 m bands, sharpen, compare with the
        bands as measured. Consistency: sharpen the scene as it is, degrade, compare at the bands' own pixel size.
    border : int, optional
        Pixels left out along each side of the bands that are compared. Default: the ground of two coarse pixels, i.e.
        4 px (20 m) and 12 px (60 m) in synthesis, 2 px in consistency.
    mask : DataArray of bool, dims (..., y10, x10), optional
        True = use. A coarser pixel counts where all its 10 m pixels do.
    consistency : bool, optional
        Whether what is scored is projected onto its input, as in `eosr.superresolve`: by default generators are,
        methods are not. The bicubic row never is.
    conventions : sequence of str
        See `eosr.metrics.score_table`.

    Returns
    -------
    Dataset, dims (method, band), and ``time`` if ``ds`` has it
        The columns of `eosr.metrics.score_table`, in DN without offset; those over all bands have the dimension ``gsd``
        (the bands' own pixel size, 20 or 60 [m]) in place of ``band``. Attributes name the property, the operator, the
        border, the products and the weights. Sharpened values are not rounded to whole DN. Pick a row with
        ``table.loc[{"method": "bicubic"}]``: xarray's ``sel`` has an argument of that name.

    Raises
    ------
    MetricError
        If an argument has no meaning, or a band has no pixel to score (nodata, mask, border).
    BandError, GridError
        If bands are missing, or the scene is too small.
    """
    if property not in get_args(Property):
        raise MetricError(f"property={property!r} is unknown. Use 'synthesis' or 'consistency'.")
    if not isinstance(ds, xr.Dataset):
        raise MetricError(
            f"evaluate needs a Dataset of bands, not a {type(ds).__name__}. Open one with eosr.open_stac."
        )
    if border is not None and (isinstance(border, bool) or not isinstance(border, int | np.integer)):
        raise MetricError(f"border={border!r} is no number of pixels. Use e.g. border=4.")
    if mask is not None and not isinstance(mask, xr.DataArray):
        raise MetricError(
            f"mask is a {type(mask).__name__}, not a DataArray. Wrap it: xarray.DataArray(mask, dims=('y10', 'x10'))."
        )
    if border is not None and border < 0:
        raise MetricError(f"border={border} pixels cannot be left out. Use 0 or more, or None for two coarse pixels.")
    ds = for_its_times(ds)
    runs = _runs(weights, method, consistency)
    tables = []
    provenance: dict[str, Any] = {}
    for group, names in _scored_bands(ds, bands).items():
        rows = []
        for label, options in runs.items():
            how = {**options, "device": device, "degradation": degradation}
            pairs = _synthesis if property == "synthesis" else _consistency
            estimate, reference, factor = pairs(ds, group, names, how)
            scored = _score(estimate, reference, group, factor, property, border, mask, conventions)
            _check_scored(scored, label)
            rows.append(scored.assign_coords(method=label))
            if label != _BICUBIC:
                told = {key: estimate.attrs[key] for key in _PROVENANCE if key in estimate.attrs}
                provenance |= {f"{key}_{group}m": text for key, text in told.items()}
        tables.append(_side_by_side(rows, group))
    table = xr.merge(tables, join="outer", compat="no_conflicts", combine_attrs="drop_conflicts")
    order = [name for name in BANDS if name in table.band.values]
    table = table.loc[{"band": order, "method": list(runs)}].transpose(
        "method", ..., "band", "gsd", missing_dims="ignore"
    )
    table = table.assign_coords(native_gsd=("band", [BANDS[name].gsd for name in order]))
    default = "2 coarse pixels" if border is None else border
    about = {
        "property": property,
        "degradation": degradation,
        "border": default,
        "item_ids": ds.attrs.get("item_ids", []),
    }
    return table.assign_attrs(about | provenance)


def to_markdown(table: xr.Dataset) -> str:
    """Show the main columns of a table of `evaluate` as Markdown; times are averaged.

    Parameters
    ----------
    table : Dataset
        From `evaluate`.

    Returns
    -------
    str
        A row per band and method, and for each pixel size one over all its bands: there RMSE, SRE and PSNR are pooled
        over pixels and bands, SSIM and bPSNR are means over bands. A line below says in which convention.
    """
    mean = table.mean("time", keep_attrs=True) if "time" in table.dims else table
    columns = ["rmse", "sre", "sam", "ergas", "ssim", "psnr", "bpsnr"]
    heads = ["RMSE [DN]", "SRE [dB]", "SAM [deg]", "ERGAS", "SSIM", "PSNR [dB]", "bPSNR [dB]"]
    lines = ["| band | method | " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(heads)]
    for gsd in mean.gsd.values:
        names = [str(name) for name in mean.band.values[mean.native_gsd.values == gsd]]
        for name in names:
            for method in mean.method.values:
                row = mean.loc[{"band": name, "method": method}]
                cells = [_cell(row[key], key) if "band" in mean[key].dims else "" for key in columns]
                lines.append(f"| {name} | {method} | " + " | ".join(cells) + " |")
        for method in mean.method.values:
            row = mean.loc[{"gsd": gsd, "method": method}]
            cells = [_cell(_over_bands(row, key, names), key) for key in columns]
            lines.append(f"| all {gsd} m | {method} | " + " | ".join(cells) + " |")
    said = table.attrs
    lines += [
        "",
        f"{said['property'].capitalize()}, degradation `{said['degradation']}`, border {said['border']}; peak and data "
        f"range {said['peak']:g} DN, SRE as in DSen2 (pooled: energy), ERGAS as in Wald.",
    ]
    return "\n".join(lines) + "\n"


def _runs(weights: Any, method: str | None, consistency: bool | None) -> dict[str, dict[str, Any]]:
    """Rows of the table: label -> arguments of superresolve."""
    runs: dict[str, dict[str, Any]] = {_BICUBIC: {"method": _BICUBIC, "consistency": False}}
    if method == _BICUBIC and not consistency:
        return runs
    if method is not None:
        label = f"{method}+consistency" if method == _BICUBIC else method
    elif weights is None:
        label = "eosr"
    else:
        label = "+".join(Path(one).stem for one in ([weights] if isinstance(weights, str | Path) else weights))
    if label in runs:
        label = f"{label} (weights)"
    return {**runs, label: {"weights": weights, "method": method, "consistency": consistency}}


def _scored_bands(ds: xr.Dataset, bands: Sequence[str] | None) -> dict[int, list[str]]:
    groups = {
        group: [n for n in names if n != "B10"] for group, names in groups_of(ds).items() if group in _SCORED_GROUPS
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


def _synthesis(ds: xr.Dataset, group: int, names: list[str], how: dict[str, Any]) -> tuple[xr.Dataset, xr.Dataset, int]:
    factor = STEPS[group]
    # Whole pixels of every group must remain after degrading, so that the coarse grids nest again.
    # B10 is never scored, and has no MTF to be degraded by.
    ds = ds.drop_vars("B10", errors="ignore")
    nested = crop_to_multiple(ds, factor * max(STEPS[one] for one in groups_of(ds)))
    coarse = degrade(nested, factor, degradation=how["degradation"])
    try:
        sharp = superresolve(coarse, bands=names, dtype="float32", **{**how, "degradation": "auto"})
    except ReachError as error:
        least, step = error.needed * factor, 36 if factor == 6 else 12
        least = -(-least // step) * step
        raise GridError(
            f"the window is too small to score {', '.join(names)}: it is degraded by {factor} first, and must still "
            f"hold {error.needed} pixels. Open at least {least} x {least} pixels of 10 m, or name other bands=..."
        ) from error
    return _renamed(sharp[names], group), nested[names], factor


def _consistency(
    ds: xr.Dataset, group: int, names: list[str], how: dict[str, Any]
) -> tuple[xr.Dataset, xr.Dataset, int]:
    factor = STEPS[group]
    nested = crop_to_multiple(ds, max(STEPS[one] for one in groups_of(ds)))
    sharp = superresolve(nested, bands=names, dtype="float32", **how)
    return _renamed(degrade(sharp[names], factor, degradation=how["degradation"]), group), nested[names], factor


def _renamed(sharp: xr.Dataset, group: int) -> xr.Dataset:
    """Name the dimensions after the measured bands: the pixels are those of their grid now."""
    bare = sharp.drop_vars([name for name in sharp.coords if str(name).startswith("spatial_ref")])
    return bare.rename(y10=f"y{group}", x10=f"x{group}")


def _score(
    estimate: xr.Dataset,
    reference: xr.Dataset,
    group: int,
    factor: int,
    property: Property,
    border: int | None,
    mask: xr.DataArray | None,
    conventions: Sequence[str],
) -> xr.Dataset:
    gsd = gsd_of(reference, group)
    sizes = {"synthesis": (gsd, gsd * factor), "consistency": (gsd / factor, gsd)}[property]
    rim = (_BORDER * (factor if property == "synthesis" else 1)) if border is None else border
    inner = {}
    for dim in (f"y{group}", f"x{group}"):
        if reference.sizes[dim] <= 2 * rim:
            raise GridError(
                f"nothing is left of {reference.sizes[dim]} pixels along {dim!r} once {rim} are cut on both sides. Use "
                "a larger scene or a smaller border, e.g. border=0."
            )
        inner[dim] = slice(rim, reference.sizes[dim] - rim)
    counts = None if mask is None else _coarse_mask(mask, reference, group).isel(inner)
    table = score_table(
        estimate.isel(inner),
        reference.isel(inner),
        fine_gsd=sizes[0],
        coarse_gsd=sizes[1],
        peak=QUANTIFICATION,
        data_range=QUANTIFICATION,
        mask=counts,
        conventions=conventions,
    ).compute()
    table.attrs = {key: value for key, value in table.attrs.items() if key not in _PER_GROUP}
    for name in ("rmse", "bias", "rmse_joint"):
        table[name].attrs["units"] = "DN"
    return table


def _coarse_mask(mask: xr.DataArray, reference: xr.Dataset, group: int) -> xr.DataArray:
    step, dims = STEPS[group], (f"y{group}", f"x{group}")
    if mask.dtype != bool or not {"y10", "x10"} <= set(mask.dims):
        raise MetricError(
            f"mask is {mask.dtype} on {mask.dims}. Pass bool with True = use on the 10 m grid, dims ('y10', 'x10')."
        )
    cropped = mask.isel(y10=slice(0, reference.sizes[dims[0]] * step), x10=slice(0, reference.sizes[dims[1]] * step))
    coarse = cropped.coarsen(y10=step, x10=step, boundary="trim").reduce(np.all)
    return coarse.rename(y10=dims[0], x10=dims[1])


def _check_scored(table: xr.Dataset, label: str) -> None:
    empty = table.coverage == 0
    if bool(empty.any()):
        bands = [str(name) for name in table.band.values[empty.any([d for d in empty.dims if d != "band"]).values]]
        raise MetricError(
            f"no pixel is left to score {label} in band {', '.join(bands)}: all are nodata, masked or in the border. "
            "Choose another window or time, or a smaller border or mask."
        )


def _side_by_side(rows: list[xr.Dataset], group: int) -> xr.Dataset:
    table = xr.concat(rows, "method", combine_attrs="drop_conflicts", coords="minimal", compat="override")
    joint = [name for name in table.data_vars if "band" not in table[name].dims]
    wide = table[joint].expand_dims(gsd=[group])
    return table.drop_vars(joint).merge(wide, compat="override")


def _over_bands(row: xr.Dataset, key: str, names: list[str]) -> xr.DataArray:
    if "band" not in row[key].dims:
        return row[key]
    return row[f"{key}_joint"] if f"{key}_joint" in row else row[key].sel(band=names).mean()


def _cell(value: xr.DataArray, key: str) -> str:
    digits = {"rmse": 2, "sre": 2, "psnr": 2, "bpsnr": 2, "sam": 3, "ergas": 3}.get(key, 4)
    return f"{float(value):.{digits}f}"
