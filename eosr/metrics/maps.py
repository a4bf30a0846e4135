"""Scores per pixel, to be looked at or averaged: the difference, and the angle between two spectra."""

from __future__ import annotations

import numpy as np
import xarray as xr

from eosr.metrics.pairs import Dims, pair, said


def error(
    estimate: xr.DataArray, reference: xr.DataArray, *, mask: xr.DataArray | None = None, dim: Dims = None
) -> xr.DataArray:
    """Estimate minus reference per pixel [units of the input]; positive where the estimate is too bright.

    Parameters
    ----------
    estimate, reference : DataArray
        Same dims and coordinates; any real dtype (uint16 does not wrap).
    mask : DataArray of bool, optional
        True = use.
    dim : str or sequence of str, optional
        Spatial dimensions, only needed when they are not called ``y``/``x`` (or ``y10`` ...).

    Returns
    -------
    DataArray, float64
        Lazy if the input is; NaN where either side has no measurement or the mask is False.

    Raises
    ------
    MetricError
        If the two are not on one grid.
    """
    both = pair(estimate, reference, dim=dim, mask=mask)
    return said(both.estimate - both.reference, "error", reference.attrs.get("units"))


def spectral_angle(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    spectral_dim: str = "band",
    mask: xr.DataArray | None = None,
    dim: Dims = None,
) -> xr.DataArray:
    """Angle between the estimated and the true spectrum of each pixel [deg], 0 to 180; lower is better.

    Parameters
    ----------
    estimate, reference : DataArray, dims (..., spectral_dim, y, x)
        Any real dtype and any unit, as long as 0 means zero reflectance: an offset of 1000 DN makes angles smaller.
    spectral_dim : str, default "band"
        The dimension that holds the spectrum.
    mask, dim
        As in `error`.

    Returns
    -------
    DataArray, float64, dims without ``spectral_dim``
        Lazy if the input is. NaN where a band of either spectrum is not measured.

    Raises
    ------
    MetricError
        If the two are not on one grid, or there is no ``spectral_dim``.

    Notes
    -----
    A reference that is zero in every band has no direction: NaN. An estimate that is zero where the reference is not
    gets 90 degrees, so nobody improves a score by predicting zeros.

    The angle of unit vectors u, v is taken as 2 atan2(|u - v|, |u + v|), which equals arccos(u . v) but is exact near
    0 and cannot leave its domain: arccos needs its argument clipped to [-1, 1], and even then loses half the digits.

    References
    ----------
    Kruse et al., "The spectral image processing system (SIPS)", Remote Sensing of Environment 44, 1993.
    Kahan, "How futile are mindless assessments of roundoff in floating-point computation?", section 12, 2006.
    """
    both = pair(estimate, reference, dim=dim, mask=mask, spectral_dim=spectral_dim)
    return angle_between(both.estimate, both.reference, spectral_dim)


def angle_between(estimate: xr.DataArray, reference: xr.DataArray, spectral_dim: str) -> xr.DataArray:
    """Compute `spectral_angle` of two float arrays that are already checked (see `eosr.metrics.pairs.pair`)."""
    long, true = _length(estimate, spectral_dim), _length(reference, spectral_dim)
    u, v = estimate / long.where(long > 0), reference / true.where(true > 0)
    half = xr.apply_ufunc(np.arctan2, _length(u - v, spectral_dim), _length(u + v, spectral_dim), dask="allowed")
    degrees = half * (360.0 / np.pi)
    return said(degrees.where(~((long == 0) & (true > 0)), 90.0), "spectral angle", "degree")


def _length(vectors: xr.DataArray, spectral_dim: str) -> xr.DataArray:
    return (vectors**2).sum(spectral_dim, skipna=False) ** 0.5
