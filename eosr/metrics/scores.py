"""Scores of a whole image or band: average what `maps` and `windows` give, then apply the formula.

Common to every score
---------------------
Input is any real dtype, numpy or dask (the score is then lazy and does not depend on the chunks). It is an average over
``dim``: by default every spatial dimension (``y``/``x``, ``y10``/``x10`` ...), so that an array with a band or a time
dimension gets a score per band and time. ``mask`` (bool, True = use) and ``weights`` (>= 0) may have any of the
dimensions. A pixel that is NaN in either image is left out, in spectral scores in every band. In integers every value
counts, also 0: mask nodata (``mask=reference != 0``), or use `score_table`, which does. **A score of no pixel at all is
NaN**, without a warning; `eosr.evaluate` makes it an error.

The zero of the scale matters
-----------------------------
Products of processing baseline 04.00 and later store reflectance x 10000 + 1000. `rmse`, `mae`, `bias`, `psnr` and
`bpsnr` with a number as peak do not see such an offset; `sre`, `sam`, `ergas`, `ssim`, `uiq` and a peak of
``"reference_max"`` do, and all look better than they are (SRE at a mean of 2300 DN: 3.1 dB). Take it off first
(`eosr.cube.radiometry`); `score_table` does so by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, TypeAlias

import numpy as np
import xarray as xr

from eosr.errors import MetricError
from eosr.metrics.maps import angle_between
from eosr.metrics.pairs import Dims, Pair, one_of, pair, said
from eosr.metrics.windows import UIQ_WINDOW, ssim_of_windows, uiq_of_windows, window_dims

ErgasConvention: TypeAlias = Literal["wald", "zhang2020"]

#: What the study puts for 100 h/l, at 20 m and at 60 m alike.
_ZHANG2020_RATIO: Final = 100 / 2


def rmse(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Root mean square error [units of the input]; lower is better.

    Parameters
    ----------
    estimate, reference : DataArray
        Same dims and coordinates.
    dim : str or sequence of str, optional
        Dimensions to average over; default the spatial ones. Add ``"band"`` for one joint number.
    mask : DataArray of bool, optional
        True = use.
    weights : DataArray, optional
        Weights of the pixels, >= 0.

    Returns
    -------
    DataArray, float64
        The dimensions of the input without ``dim``.

    Raises
    ------
    MetricError
        If the two are not on one grid, or mask, weights or ``dim`` do not fit.

    Examples
    --------
    >>> import xarray as xr
    >>> estimate = xr.DataArray([[3, 5]], dims=("y", "x")).astype("uint16")
    >>> float(rmse(estimate, estimate + 2))
    2.0
    """
    return rmse_of(pair(estimate, reference, dim=dim, mask=mask, weights=weights))


def rmse_of(both: Pair) -> xr.DataArray:
    """`rmse` of a pair."""
    return said(both.mse**0.5, "root mean square error", both.units, "lower")


def mae(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean absolute error [units of the input]; lower is better. Arguments as in `rmse`."""
    both = pair(estimate, reference, dim=dim, mask=mask, weights=weights)
    return said(both.mean(abs(both.error)), "mean absolute error", both.units, "lower")


def bias(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean of estimate minus reference [units of the input]; positive: too bright. Arguments as in `rmse`."""
    return bias_of(pair(estimate, reference, dim=dim, mask=mask, weights=weights))


def bias_of(both: Pair) -> xr.DataArray:
    """`bias` of a pair."""
    return said(both.bias, "mean error", both.units, "zero")


def ssim(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    data_range: float,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean structural similarity [1], at most 1; higher is better. Gaussian 11 x 11 window, sigma 1.5, K = 0.01, 0.03.

    Parameters
    ----------
    estimate, reference, dim, mask, weights
        As in `rmse`; ``dim`` holds the two spatial dimensions. A weight is that of the window's centre.
    data_range : float
        As in `eosr.metrics.ssim_map`: 10000 for DN. The reference study's values need one of 1 to 255 on DN.

    Returns
    -------
    DataArray, float64
        Mean over the windows that lie wholly inside the image and touch no gap and no masked pixel.

    Raises
    ------
    MetricError
        As in `rmse`, or for an image smaller than the window.

    References
    ----------
    Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), 2004.
    """
    return ssim_of(pair(estimate, reference, dim=dim, mask=mask, weights=weights), data_range)


def ssim_of(both: Pair, data_range: float) -> xr.DataArray:
    """`ssim` of a pair."""
    score = both.mean(ssim_of_windows(both.estimate, both.reference, window_dims(both.dim), data_range))
    return said(score, "structural similarity", "1", "higher").assign_attrs(data_range=data_range)


def uiq(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    window: int = UIQ_WINDOW,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean universal image quality index [1], at most 1; higher is better. Arguments as in `ssim` and `uiq_map`."""
    both = pair(estimate, reference, dim=dim, mask=mask, weights=weights)
    score = both.mean(uiq_of_windows(both.estimate, both.reference, window_dims(both.dim), window))
    return said(score, "universal image quality index", "1", "higher").assign_attrs(window=window)


def sam(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    spectral_dim: str = "band",
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Mean spectral angle [deg]; lower is better. Mean of angles, not angle of means.

    Parameters
    ----------
    estimate, reference : DataArray, dims (..., spectral_dim, y, x)
        On a scale whose 0 is reflectance 0. With two bands the angle only tests their ratio.
    spectral_dim : str, default "band"
        The dimension that holds the spectrum.
    dim, mask, weights
        As in `rmse`. A pixel counts only where every band is measured.

    Returns
    -------
    DataArray, float64
        Pixels whose reference is zero in every band are left out; see `eosr.metrics.spectral_angle`.

    Raises
    ------
    MetricError
        As in `rmse`, or without ``spectral_dim``.
    """
    return sam_of(
        pair(estimate, reference, dim=dim, mask=mask, weights=weights, spectral_dim=spectral_dim), spectral_dim
    )


def sam_of(both: Pair, spectral_dim: str) -> xr.DataArray:
    """`sam` of a pair of whole spectra."""
    flat = _flat_weights(both, spectral_dim)
    score = flat.mean(angle_between(both.estimate, both.reference, spectral_dim))
    return said(score, "mean spectral angle", "degree", "lower")


def ergas(
    estimate: xr.DataArray,
    reference: xr.DataArray,
    *,
    fine_gsd: float,
    coarse_gsd: float,
    convention: ErgasConvention = "wald",
    spectral_dim: str = "band",
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.DataArray:
    """Relative dimensionless global error of synthesis (ERGAS) [1]; lower is better.

    Parameters
    ----------
    estimate, reference : DataArray, dims (..., spectral_dim, y, x)
        On a scale whose 0 is reflectance 0.
    fine_gsd, coarse_gsd : float
        Pixel size of the sharpened image and of the one it was made from [m], e.g. 20 and 40 in Wald's protocol, or
        10 and 20: only their ratio counts. Two lengths by name, because a ratio can be handed over upside down.
    convention : {"wald", "zhang2020"}
        ``"wald"``: 100 (fine_gsd / coarse_gsd) sqrt(mean over bands of (RMSE / mean)^2). ``"zhang2020"``: the reference
        study's, which has 100 / 2 there even for 60 m bands and so comes out 3 times larger for them.
    spectral_dim, dim, mask, weights
        As in `sam`.

    Raises
    ------
    MetricError
        As in `sam`, or if ``fine_gsd`` is not smaller than ``coarse_gsd``.

    References
    ----------
    Wald, "Quality of high resolution synthesised images: is there a simple criterion?", Fusion of Earth data, 2000.
    """
    both = pair(estimate, reference, dim=dim, mask=mask, weights=weights, spectral_dim=spectral_dim)
    return ergas_of(both, spectral_dim, fine_gsd=fine_gsd, coarse_gsd=coarse_gsd, convention=convention)


def ergas_of(
    both: Pair, spectral_dim: str, *, fine_gsd: float, coarse_gsd: float, convention: ErgasConvention
) -> xr.DataArray:
    """`ergas` of a pair of whole spectra."""
    one_of("convention", convention, ErgasConvention)
    if not 0 < fine_gsd < coarse_gsd:
        raise MetricError(
            f"fine_gsd={fine_gsd} is not smaller than coarse_gsd={coarse_gsd}. Pass the pixel size [m] after and "
            "before sharpening, e.g. fine_gsd=10, coarse_gsd=20."
        )
    relative = _quotient(both.mse**0.5, both.signal)
    ratio = _ZHANG2020_RATIO if convention == "zhang2020" else 100.0 * fine_gsd / coarse_gsd
    score = ratio * (relative**2).mean(spectral_dim, skipna=False) ** 0.5
    return said(score, "relative dimensionless global error of synthesis", "1", "lower").assign_attrs(
        convention=convention
    )


def _flat_weights(both: Pair, spectral_dim: str) -> Pair:
    """Drop the spectral dimension of weights that have one: an angle has a single weight, the mean of its bands'."""
    if both.weights is None or spectral_dim not in both.weights.dims:
        return both
    return replace(both, weights=both.weights.mean(spectral_dim))


def _quotient(numerator: xr.DataArray, denominator: xr.DataArray) -> xr.DataArray:
    quotient: xr.DataArray = xr.apply_ufunc(
        _quotient_of_arrays, numerator, denominator, dask="parallelized", output_dtypes=["float64"]
    )
    return quotient


def _quotient_of_arrays(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(numerator / denominator)
