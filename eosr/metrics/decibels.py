"""Scores in decibels: signal to reconstruction error (SRE), and peak signal to noise with its bias-free variant.

The rules of `eosr.metrics.scores` hold here too: what is averaged, what is left out, why the zero of the scale matters.
"""

from __future__ import annotations

from numbers import Real
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr

from eosr.errors import MetricError
from eosr.metrics.pairs import Dims, Pair, one_of, pair, said

SreDefinition: TypeAlias = Literal["dsen2", "supreme"]
Peak: TypeAlias = float | Literal["reference_max"]


def sre(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    definition: SreDefinition = "dsen2",
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Signal to reconstruction error ratio [dB]; higher is better.

    Parameters
    ----------
    estimate, reference, dim, mask, weights
        As in `rmse`; on a scale whose 0 is reflectance 0.
    definition : {"dsen2", "supreme"}
        ``"dsen2"``: 10 log10(mean(reference)^2 / MSE). ``"supreme"``: 10 log10(sum reference^2 / sum error^2), never
        lower than the first, by 0.1 to 0.8 dB on real scenes. With ``"band"`` in ``dim`` the latter is the joint SRE.

    Returns
    -------
    DataArray, float64
        ``inf`` for a perfect estimate.

    Raises
    ------
    MetricError
        As in `rmse`, or for an unknown definition.

    References
    ----------
    Lanaras et al., "Super-resolution of Sentinel-2 images: learning a globally applicable deep neural network",
    ISPRS Journal 146, 2018 ("dsen2"); Lanaras et al., "Super-resolution of multispectral multiresolution images from a
    single sensor", CVPRW 2017 ("supreme").
    """
    one_of("definition", definition, SreDefinition)
    return sre_of(pair(estimate, reference, dim=dim, mask=mask, weights=weights), definition)


def sre_of(both: Pair, definition: SreDefinition = "dsen2") -> xr.DataArray:
    """`sre` of a pair."""
    signal = both.signal**2 if definition == "dsen2" else both.mean(both.reference**2)
    score = said(_decibel(signal, both.mse), "signal to reconstruction error ratio", "dB", "higher")
    return score.assign_attrs(definition=definition)


def psnr(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    peak: Peak,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Peak signal to noise ratio, 10 log10(peak^2 / MSE) [dB]; higher is better.

    Parameters
    ----------
    estimate, reference, dim, mask, weights
        As in `rmse`.
    peak : float or "reference_max"
        The signal's largest value [units of the input]. No default, because a wrong one shifts every number: 10000 for
        DN (reflectance 1), 1 for reflectance. ``"reference_max"``: the largest value of the reference among the pixels
        that count, for each image and band that gets a score of its own (the reference study; its peaks range from 12
        to 22 thousand, so its PSNR cannot be compared from scene to scene).

    Returns
    -------
    DataArray, float64
        ``inf`` for a perfect estimate.

    Raises
    ------
    MetricError
        As in `rmse`, or for a peak that is neither positive nor ``"reference_max"``.
    """
    return psnr_of(pair(estimate, reference, dim=dim, mask=mask, weights=weights), peak)


def psnr_of(both: Pair, peak: Peak) -> xr.DataArray:
    """`psnr` of a pair."""
    score = _decibel(_peak(both, peak) ** 2, both.mse)
    return said(score, "peak signal to noise ratio", "dB", "higher").assign_attrs(peak=peak)


def bpsnr(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    peak: Peak,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Brightness-equalised PSNR [dB]: `psnr` after the mean error is taken off; higher is better, never below `psnr`.

    Parameters
    ----------
    estimate, reference, peak, dim, mask, weights
        As in `psnr`. The mean error is that of each image and band with a score of its own.

    Returns
    -------
    DataArray, float64
        10 log10(peak^2 / (MSE - bias^2)). The reference study prints the formula with a wrong sign, and seven of its
        values lie below its PSNR, which cannot be.

    Raises
    ------
    MetricError
        As in `psnr`.

    References
    ----------
    Maertens et al., "Super-resolution of PROBA-V images using convolutional neural networks", Astrodynamics 3, 2019
    (there as -10 log10 cMSE, on data in [0, 1]).
    """
    return bpsnr_of(pair(estimate, reference, dim=dim, mask=mask, weights=weights), peak)


def bpsnr_of(both: Pair, peak: Peak) -> xr.DataArray:
    """`bpsnr` of a pair."""
    variance = (both.mse - both.bias**2).clip(min=0.0)
    score = _decibel(_peak(both, peak) ** 2, variance)
    return said(score, "brightness-equalised peak signal to noise ratio", "dB", "higher").assign_attrs(peak=peak)


def _peak(both: Pair, peak: Peak) -> xr.DataArray:
    if peak == "reference_max":
        # Not .max(skipna=True): numpy warns about a slice of NaN alone, and the answer here is NaN anyway.
        highest = both.reference.fillna(-np.inf).max(both.dim)
        return highest.where(np.isfinite(highest))
    if isinstance(peak, bool) or not isinstance(peak, Real) or not 0 < peak < np.inf:
        raise MetricError(
            f"peak={peak!r} is neither a positive number nor 'reference_max'. Use e.g. peak=10000 for DN, peak=1 for "
            "reflectance."
        )
    return xr.DataArray(float(peak))


def _decibel(signal: xr.DataArray, noise: xr.DataArray) -> xr.DataArray:
    decibel: xr.DataArray = xr.apply_ufunc(
        _decibel_of_arrays, signal, noise, dask="parallelized", output_dtypes=["float64"]
    )
    return decibel


def _decibel_of_arrays(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # a perfect estimate is inf, and that is the answer
        return 10.0 * np.log10(signal / noise)
