"""Every score of a set of bands at once: one tidy, lazy Dataset that says in which convention each number is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

import numpy as np
import xarray as xr

from eosr.cube.bands import NODATA, QUANTIFICATION
from eosr.errors import MetricError
from eosr.metrics.decibels import Peak, bpsnr_of, psnr_of, sre_of
from eosr.metrics.pairs import Dims, pair, said, spatial_dims
from eosr.metrics.scores import ErgasConvention, bias_of, ergas_of, rmse_of, sam_of, ssim_of
from eosr.metrics.windows import SSIM_WINDOW, window_dims


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The choices in which published tables differ, so that a number can be put beside them."""

    name: str
    #: Peak of PSNR and bPSNR [units of the data, or "reference_max"].
    peak: Peak
    #: L of SSIM [units of the data].
    data_range: float
    ergas: ErgasConvention


#: Conventions of published studies, for data in DN (reflectance x 10000). ``zhang2020``: Zhang, Cavallaro, Jitsev,
#: IGARSS 2020 and the thesis behind it. Its text gives none of the three; they were inferred from its tables. The peak
#: that RMSE and PSNR imply moves with the scenes (12 to 22 thousand): their maximum. Its SSIM of 0.82 (20 m) and 0.36
#: (60 m) for bicubic needs constants made for 8-bit images, applied to DN (255 gives 0.83 and 0.36, 1 gives 0.83 and
#: 0.32, 10000 gives 0.95 and 0.93). Its ERGAS at 60 m fits its RMSE only with 100 / 2.
CONVENTIONS: Final = MappingProxyType(
    {"zhang2020": Convention(name="zhang2020", peak="reference_max", data_range=255.0, ergas="zhang2020")}
)
#: What eosr itself reports, for data in DN: reflectance 1 is the peak and the data range, ERGAS is Wald's.
EOSR_CONVENTION: Final = Convention(
    name="eosr", peak=float(QUANTIFICATION), data_range=float(QUANTIFICATION), ergas="wald"
)


def score_table(
    estimate: xr.Dataset,
    reference: xr.Dataset,
    *,
    fine_gsd: float,
    coarse_gsd: float,
    peak: Peak,
    data_range: float,
    bands: Sequence[str] | None = None,
    conventions: Sequence[str] = ("zhang2020",),
    ergas_convention: ErgasConvention = "wald",
    moments: bool = False,
    dim: Dims = None,
    mask: xr.DataArray | None = None,
    weights: xr.DataArray | None = None,
) -> xr.Dataset:
    """Score bands that share one grid: per band, and jointly.

    Parameters
    ----------
    estimate, reference : Dataset
        One variable per band, e.g. ``B05``, all on one grid. Integers are digital numbers, whose 0 is nodata; floats
        have NaN there. The ``radiometric_offset`` in the attributes is added to digital numbers first, so that 0 means
        reflectance 0; a Dataset from `eosr.to_reflectance` is taken as it is.
    fine_gsd, coarse_gsd : float
        Pixel size after and before sharpening [m], for `ergas`.
    peak : float or "reference_max"
        See `psnr`; 10000 for DN, 1 for reflectance.
    data_range : float
        See `ssim`; 10000 for DN, 1 for reflectance.
    bands : sequence of str, optional
        Bands to score. Default: all, which must then be the same in both.
    conventions : sequence of str
        Keys of `CONVENTIONS` whose columns are set beside; ``()`` for none.
    ergas_convention : {"wald", "zhang2020"}
        That of the column ``ergas``, see `ergas`.
    moments : bool
        Add what scores of several scenes are pooled from: ``pixels`` that counted, and of the reference there its mean
        ``signal``, mean square ``energy`` and largest value ``highest``.
    dim, mask, weights
        As in `rmse`. With a time dimension in the data and not in ``dim``, every time gets its row.

    Returns
    -------
    Dataset, dims (..., band), float64
        Per band: ``rmse bias sre sre_supreme ssim psnr bpsnr`` and ``coverage``, the part of the pixels that counted.
        Over all bands: ``sam ergas`` and, pooled over pixels and bands, ``rmse_joint sre_joint psnr_joint``. For each
        convention the columns that differ, e.g. ``psnr_zhang2020``. Units and direction are in the attributes of each,
        the conventions in those of the table. Lazy if the input is; ``.compute()`` it once. Images smaller than the
        window of SSIM get NaN there.

    Raises
    ------
    MetricError
        If bands, grids or offsets differ between the two, or an argument has no meaning.

    Notes
    -----
    Per-band scores leave out a pixel where that band is missing, joint ones where any band is.
    """
    chosen = _chosen(conventions)
    names = _common_bands(estimate, reference, bands)
    reflectance = _in_reflectance(estimate, reference)
    offset = 0 if reflectance else offset_of(estimate, reference)
    fine = stack_bands(estimate, names, offset, "estimate")
    truth = stack_bands(reference, names, offset, "reference")
    over = spatial_dims(fine.dims) if dim is None else ((dim,) if isinstance(dim, str) else tuple(dim))
    score = _Scorer(fine, truth, dim=over, mask=mask, weights=weights)
    wald = partial(ergas_of, score.spectra, "band", fine_gsd=fine_gsd, coarse_gsd=coarse_gsd)
    table = {
        "rmse": rmse_of(score.bands),
        "bias": bias_of(score.bands),
        "sre": sre_of(score.bands),
        "sre_supreme": sre_of(score.bands, "supreme"),
        **score.windowed("", data_range),
        **score.peaked("", peak),
        "sam": sam_of(score.spectra, "band"),
        "ergas": wald(convention=ergas_convention),
        "rmse_joint": score.pooled(rmse_of(score.joint)),
        "sre_joint": score.pooled(sre_of(score.joint, "supreme")),
        "coverage": score.coverage(),
    }
    if moments:
        table |= score.moments()
    for each in chosen:
        reach = each.data_range / (QUANTIFICATION if reflectance else 1)
        table |= score.windowed(f"_{each.name}", reach) | score.peaked(f"_{each.name}", each.peak)
        table[f"ergas_{each.name}"] = wald(convention=each.ergas)
    attrs = {"fine_gsd": fine_gsd, "coarse_gsd": coarse_gsd, "peak": peak, "data_range": data_range}
    said_also = {
        "sre_definition": "dsen2",
        "ergas_convention": ergas_convention,
        "conventions": [each.name for each in chosen],
    }
    return xr.Dataset(table, attrs={**attrs, **said_also, "radiometric_offset_applied": offset})


class _Scorer:
    """What all scores of a table share: two stacks, checked and masked once for each way in which pixels count."""

    def __init__(
        self,
        estimate: xr.DataArray,
        reference: xr.DataArray,
        *,
        dim: tuple[str, ...],
        mask: xr.DataArray | None,
        weights: xr.DataArray | None,
    ) -> None:
        of = partial(pair, estimate, reference, dim=dim)
        #: A pixel counts in the bands in which it is measured.
        self.bands = of(mask=mask, weights=weights)
        #: Only where it is measured in all of them; without weights the two pairs are of the same pixels.
        self.spectra = of(mask=mask, weights=weights, spectral_dim="band")
        #: The same, averaged over the bands too, in each of which mask and weights may be another.
        whole = of(spectral_dim="band")
        self.joint = pair(whole.estimate, whole.reference, dim=(*dim, "band"), mask=mask, weights=weights)
        #: Without weights.
        self.even = self.bands if weights is None else of(mask=mask)

    def pooled(self, score: xr.DataArray) -> xr.DataArray:
        return score.assign_attrs(pooled_over=list(self.joint.dim))

    def windowed(self, suffix: str, data_range: float) -> dict[str, xr.DataArray]:
        windows = ssim_of(self.bands, data_range) if self._holds_a_window() else rmse_of(self.bands) * np.nan
        return {f"ssim{suffix}": windows}

    def peaked(self, suffix: str, peak: Peak) -> dict[str, xr.DataArray]:
        return {
            f"psnr{suffix}": psnr_of(self.bands, peak),
            f"bpsnr{suffix}": bpsnr_of(self.bands, peak),
            f"psnr_joint{suffix}": self.pooled(psnr_of(self.joint, peak)),
        }

    def _holds_a_window(self) -> bool:
        return all(self.bands.estimate.sizes[dim] >= SSIM_WINDOW for dim in window_dims(self.bands.dim))

    def moments(self) -> dict[str, xr.DataArray]:
        """What pooling over scenes needs besides the scores; ``weights`` are not used."""
        truth, dim = self.even.reference, self.even.dim
        return {
            "pixels": said(truth.notnull().sum(dim), "pixels that counted", "1"),
            "signal": said(truth.mean(dim), "mean of the reference", None),
            "energy": said((truth**2).mean(dim), "mean square of the reference", None),
            # Not .max(skipna=True): numpy warns about a slice of NaN alone.
            "highest": said(truth.fillna(-np.inf).max(dim), "largest value of the reference", None),
        }

    def coverage(self) -> xr.DataArray:
        return said(self.bands.estimate.notnull().mean(self.bands.dim), "part of the pixels that counted", "1")


def _chosen(conventions: Sequence[str]) -> list[Convention]:
    conventions = (conventions,) if isinstance(conventions, str) else conventions
    unknown = [name for name in conventions if name not in CONVENTIONS]
    if unknown:
        raise MetricError(
            f"convention {unknown[0]!r} is unknown. Use {', '.join(map(repr, CONVENTIONS))}, or () for none."
        )
    return [CONVENTIONS[name] for name in conventions]


def _common_bands(estimate: xr.Dataset, reference: xr.Dataset, bands: Sequence[str] | None) -> list[str]:
    for name, dataset in (("estimate", estimate), ("reference", reference)):
        if not isinstance(dataset, xr.Dataset):
            raise MetricError(
                f"{name} is a {type(dataset).__name__}; score_table wants a Dataset with a variable per band."
            )
    mine, theirs = [str(name) for name in estimate.data_vars], [str(name) for name in reference.data_vars]
    names = theirs if bands is None else [bands] if isinstance(bands, str) else list(bands)
    for name, there in (("estimate", mine), ("reference", theirs)):
        missing = [band for band in names if band not in there]
        if missing:
            raise MetricError(
                f"{name} has no band {', '.join(missing)}; it has {', '.join(there) or 'none'}. {_BANDS_HINT}"
            )
    if bands is None and set(mine) != set(theirs):
        extra = [band for band in mine if band not in theirs]
        raise MetricError(f"reference has no band {', '.join(extra)}; it has {', '.join(theirs)}. {_BANDS_HINT}")
    if not names:
        raise MetricError("there is no band to score. Pass Datasets with a variable per band, e.g. ds[['B05', 'B06']].")
    return names


_BANDS_HINT: Final = "Name those to score, e.g. bands=['B05', 'B06']."


def _in_reflectance(estimate: xr.Dataset, reference: xr.Dataset) -> bool:
    mine, theirs = (ds.attrs.get("quantity") for ds in (estimate, reference))
    if mine != theirs:
        raise MetricError(
            f"estimate has quantity {mine!r} and reference {theirs!r}: one is reflectance, the other is not. Convert "
            "both, e.g. with eosr.cube.to_reflectance."
        )
    return bool(mine == "reflectance")


def offset_of(estimate: xr.Dataset, reference: xr.Dataset) -> int | list[int]:
    """Find the offset to add [DN]; a list has one per time."""
    for name, dataset in (("estimate", estimate), ("reference", reference)):
        if dataset.attrs.get("radiometric_offset") is None:
            raise MetricError(
                f"{name} has no attribute radiometric_offset, so no number of it is known to be dark; xarray drops "
                f"attributes. Set what holds: {name}.attrs['radiometric_offset'] = -1000 (0 before baseline 04.00)."
            )
    mine, theirs = (ds.attrs["radiometric_offset"] for ds in (estimate, reference))
    if not np.array_equal(mine, theirs):
        raise MetricError(
            f"estimate has radiometric_offset {mine} and reference {theirs}: they are on different scales. Bring "
            "both to one first, e.g. with eosr.cube.to_reflectance."
        )
    if not np.ndim(mine):
        return int(mine)
    for name, dataset in (("estimate", estimate), ("reference", reference)):
        if dataset.sizes.get("time") != len(mine):
            raise MetricError(
                f"radiometric_offset has {len(mine)} values but {name} {dataset.sizes.get('time', 'no')} times. Set "
                f"one for each, e.g. {name}.attrs['radiometric_offset'] = -1000."
            )
    return [int(one) for one in mine]


def stack_bands(dataset: xr.Dataset, names: list[str], offset: int | list[int], what: str) -> xr.DataArray:
    """Bands as one float array along ``band``, nodata NaN, zero at reflectance 0."""
    shapes = {name: dict(dataset[name].sizes) for name in names}
    if any(shape != shapes[names[0]] for shape in shapes.values()):
        raise MetricError(
            f"the bands of {what} are not on one grid: {shapes}. Score one pixel size at a time, e.g. "
            "bands=['B05', 'B06', 'B07', 'B8A', 'B11', 'B12']."
        )
    shift = xr.DataArray(offset, dims=("time",) if isinstance(offset, list) else ())
    return xr.concat([_measured(dataset[name]) for name in names], xr.IndexVariable("band", names)) + shift


def _measured(band: xr.DataArray) -> xr.DataArray:
    counts = band.reset_coords(drop=True)
    return counts.astype("float64") if counts.dtype.kind == "f" else counts.where(counts != NODATA).astype("float64")
