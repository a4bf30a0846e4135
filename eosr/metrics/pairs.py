"""An estimate and its reference, checked to lie on one grid, with everything unmeasured left out of both."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, get_args

import numpy as np
import xarray as xr

from eosr.errors import MetricError

#: One dimension name or several; ``None`` stands for every spatial one (`spatial_dims`).
Dims: TypeAlias = str | Sequence[str] | None

#: ``y``, ``x`` and eosr's ``y10 ... x60``; not ``year``.
_SPATIAL = re.compile(r"[yx]\d*")
#: Coordinates may differ by this part of their spacing: rounding of one grid computed in two ways, never another pixel.
_JITTER = 1e-3


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two float64 arrays on one grid, NaN where the pixel does not count in either, and the dims to average over."""

    estimate: xr.DataArray
    reference: xr.DataArray
    weights: xr.DataArray | None
    dim: tuple[str, ...]
    #: Of the reference, for what has the units of the input.
    units: str | None

    def mean(self, values: xr.DataArray, dim: Sequence[str] | None = None) -> xr.DataArray:
        """Weighted mean of ``values`` where they are not NaN; NaN where nothing is left. Lazy, and silent on empty."""
        over = self.dim if dim is None else tuple(dim)
        kept = values.notnull()
        weights = kept.astype("float64") if self.weights is None else self.weights.where(kept, 0.0)
        total = (values * weights).sum(over, skipna=True)
        weight = weights.sum(over)
        return total / weight.where(weight > 0)

    @cached_property
    def error(self) -> xr.DataArray:
        """Estimate minus reference [units of the input]."""
        return self.estimate - self.reference

    @cached_property
    def mse(self) -> xr.DataArray:
        """Weighted mean square error [squared units of the input]."""
        return self.mean(self.error**2)

    @cached_property
    def bias(self) -> xr.DataArray:
        """Weighted mean error [units of the input]."""
        return self.mean(self.error)

    @cached_property
    def signal(self) -> xr.DataArray:
        """Weighted mean of the reference [units of the input]."""
        return self.mean(self.reference)


def spatial_dims(dims: Iterable[Hashable]) -> tuple[str, ...]:
    """Pick the spatial dimensions: ``y``, ``x``, and eosr's ``y10 x10 y20 x20 y60 x60``.

    Parameters
    ----------
    dims : iterable of hashable
        Dimension names, e.g. ``array.dims``.

    Returns
    -------
    tuple of str
        Those that are spatial, in the order given.

    Examples
    --------
    >>> spatial_dims(("time", "y20", "x20"))
    ('y20', 'x20')
    """
    return tuple(str(name) for name in dims if _SPATIAL.fullmatch(str(name)))


def pair(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
    spectral_dim: str | None = None,
) -> Pair:
    """Check two arrays and bring them to float64 with NaN wherever the pixel does not count.

    Parameters
    ----------
    estimate, reference : DataArray
        Any real dtype, same dims (in any order), sizes and coordinates. NaN means "no measurement".
    dim : str or sequence of str, optional
        Dimensions a score will average over. Default: the spatial ones.
    mask : DataArray of bool, optional
        True = use. Its dims are among those of ``estimate``.
    weights : DataArray, optional
        Weights >= 0, 0 or NaN = leave out. Their dims are among those of ``estimate``.
    spectral_dim : str, optional
        If given, a pixel counts only where every band along it is measured in both arrays.

    Returns
    -------
    Pair

    Raises
    ------
    MetricError
        If the arrays are not on one grid, ``dim`` is not there, the mask is not bool, or a weight is negative (for
        lazy weights: when they are computed).

    Notes
    -----
    Everything is cast to float64 first: the difference of two uint16 wraps (3 - 5 = 65534).
    """
    over = _dims_to_average(estimate, reference, dim)
    if spectral_dim is not None and spectral_dim not in estimate.dims:
        raise MetricError(
            f"a spectral score needs the bands along dimension {spectral_dim!r}, but the arrays have {estimate.dims}. "
            f"Stack them, e.g. ds[['B05', 'B06']].to_dataarray('band'), or name the dimension with spectral_dim=..."
        )
    if spectral_dim is not None and spectral_dim in over:
        raise MetricError(
            f"a spectral score cannot average over {spectral_dim!r}: it compares whole spectra. Leave it out of dim."
        )
    units = reference.attrs.get("units")
    reference = same_grid(reference, estimate, "reference", whole=True)
    estimate = estimate.drop_vars([name for name in estimate.coords if str(name).startswith("spatial_ref")])
    fine, truth = estimate.astype("float64"), reference.astype("float64")
    counts = fine.notnull() & truth.notnull()
    if mask is not None:
        if mask.dtype != bool:
            raise MetricError(
                f"mask has dtype {mask.dtype}, so it is not clear which value means 'use'. "
                "Pass bool with True = use, e.g. mask=(scl != 9)."
            )
        counts = counts & same_grid(mask, estimate, "mask")
    if weights is not None:
        weights = _checked_weights(same_grid(weights, estimate, "weights"))
        counts = counts & (weights > 0)
    if spectral_dim is not None:
        counts = counts.all(spectral_dim)
    return Pair(estimate=fine.where(counts), reference=truth.where(counts), weights=weights, dim=over, units=units)


def same_grid(array: xr.DataArray, estimate: xr.DataArray, name: str, *, whole: bool = False) -> xr.DataArray:
    """Return ``array`` with the coordinates of ``estimate`` once it is certain that they name the same pixels.

    xarray's arithmetic joins on coordinates and drops, without a word, every pixel that only one side has; and it
    makes an outer product of dimensions that only one side has. Both give a score of something else.

    Parameters
    ----------
    array, estimate : DataArray
        The array to check, and the one that sets the grid.
    name : str
        What the error calls ``array``.
    whole : bool, default False
        Whether every dimension of ``estimate`` must be there (a mask may lack some).

    Raises
    ------
    MetricError
        If dims, sizes or coordinates differ.
    """
    _check_type(array, name)
    extra = [str(one) for one in array.dims if one not in estimate.dims]
    missing = [str(one) for one in estimate.dims if one not in array.dims] if whole else []
    if extra or missing:
        raise MetricError(
            f"{name} has dimensions {array.dims} but estimate has {estimate.dims}. {_remedy(array, estimate, name)}"
        )
    for dim in array.dims:
        if array.sizes[dim] != estimate.sizes[dim]:
            raise MetricError(
                f"{name} has {array.sizes[dim]} pixels along {dim!r} but estimate has {estimate.sizes[dim]}. "
                f"{_same_window(array, estimate, str(dim), name)}."
            )
        if dim in array.indexes and dim in estimate.indexes:
            _check_coordinate(array, estimate, str(dim), name)
    bare = array.reset_coords(drop=True)
    bare = bare.transpose(*estimate.dims) if whole else bare
    return bare.assign_coords({dim: estimate[dim] for dim in bare.dims if dim in estimate.indexes})


def said(values: xr.DataArray, long_name: str, units: str | None, better: str | None = None) -> xr.DataArray:
    """Attach what the numbers are; ``better`` is ``"lower"``, ``"higher"`` or ``"zero"``."""
    told = {"long_name": long_name, "units": units, "better": better}
    values.attrs = {name: text for name, text in told.items() if text is not None}
    return values


def one_of(name: str, value: str, allowed: object) -> None:
    """Refuse a ``value`` that is not among those of the Literal ``allowed``."""
    if value not in get_args(allowed):
        raise MetricError(f"{name}={value!r} is unknown. Use one of {', '.join(map(repr, get_args(allowed)))}.")


def _check_type(array: Any, name: str) -> None:
    if not isinstance(array, xr.DataArray):
        raise MetricError(
            f"{name} is a {type(array).__name__}, not an xarray.DataArray. For a Dataset use eosr.metrics.score_table; "
            f"for plain arrays wrap them, e.g. xr.DataArray({name}, dims=('y', 'x'))."
        )
    if array.dtype.kind not in "biuf":
        raise MetricError(f"{name} has dtype {array.dtype}; scores need real numbers. Convert it, e.g. .astype(float).")


def _check_coordinate(array: xr.DataArray, estimate: xr.DataArray, dim: str, name: str) -> None:
    mine, theirs = np.asarray(array[dim].values), np.asarray(estimate[dim].values)
    if np.array_equal(mine, theirs):
        return
    remedy = _same_window(array, estimate, dim, name)
    if mine.dtype.kind in "iuf" and theirs.dtype.kind in "iuf":
        spacing = np.abs(np.diff(theirs)).min() if theirs.size > 1 else 0.0
        worst = np.abs(mine - theirs).max()
        if worst <= _JITTER * spacing:
            return
        what = f"by up to {worst:g}"
    else:
        first = int(np.flatnonzero(mine != theirs)[0])
        what = f"first at index {first}: {mine[first]!s} against {theirs[first]!s}"
    raise MetricError(f"the {dim!r} coordinates of {name} and estimate differ, {what}. {remedy}.")


def _same_window(array: xr.DataArray, estimate: xr.DataArray, dim: str, name: str) -> str:
    """How two arrays get the same pixels: cut the longer, or sort one, where one has all of the other's."""
    sides = (name, array), ("estimate", estimate)
    (long, wide), (short, narrow) = sides if array.sizes[dim] >= estimate.sizes[dim] else sides[::-1]
    if dim not in wide.indexes or dim not in narrow.indexes:
        return f"Cut both to the same window first, e.g. {long} = {long}.isel({dim}=slice(0, {narrow.sizes[dim]}))"
    if np.isin(narrow[dim], wide[dim]).all():
        return f"Bring both to one window and order: {long} = {long}.sel({dim}={short}.{dim})"
    same = f", or if the pixels are the same: {name} = {name}.drop_vars({dim!r})"
    return "Degrade or regrid one to the other's grid" + (same if wide.sizes[dim] == narrow.sizes[dim] else "")


def _dims_to_average(estimate: xr.DataArray, reference: xr.DataArray, dim: Dims) -> tuple[str, ...]:
    _check_type(estimate, "estimate")
    _check_type(reference, "reference")
    if dim is None:
        over = spatial_dims(estimate.dims)
        if not over:
            raise MetricError(
                f"no spatial dimension (y, x, y10, x10, ...) among {estimate.dims}. Name those to average over, "
                "e.g. dim=('lat', 'lon')."
            )
        return over
    over = (dim,) if isinstance(dim, str) else tuple(dim)
    absent = [name for name in over if name not in estimate.dims]
    if absent or not over:
        raise MetricError(
            f"dim={dim!r}: {absent or 'nothing'} is not among the dimensions {estimate.dims} of estimate."
        )
    return over


def _remedy(array: xr.DataArray, estimate: xr.DataArray, name: str) -> str:
    """Propose a renaming where as many dims are missing as are too many, else an index."""
    extra = [str(dim) for dim in array.dims if dim not in estimate.dims]
    missing = [str(dim) for dim in estimate.dims if dim not in array.dims]
    if len(extra) == len(missing):
        ordered = sorted(missing, key=lambda dim: [dim[0] != one[0] for one in extra])
        return f"If they are the same, say so: {name} = {name}.rename({dict(zip(extra, ordered, strict=True))})."
    longer, dims = (name, extra) if len(extra) > len(missing) else ("estimate", missing)
    return f"Choose one element, e.g. {longer} = {longer}.isel({dims[0]}=0), or give both the same dimensions."


def _checked_weights(weights: xr.DataArray) -> xr.DataArray:
    checked: xr.DataArray = xr.apply_ufunc(
        _refuse_negative, weights.astype("float64"), dask="parallelized", output_dtypes=["float64"]
    )
    return checked


def _refuse_negative(block: np.ndarray) -> np.ndarray:
    if np.any(block < 0):
        raise MetricError(
            f"weights hold negative values (lowest {np.nanmin(block):g}). Use weights >= 0, e.g. weights.clip(min=0)."
        )
    return np.nan_to_num(block, nan=0.0)
