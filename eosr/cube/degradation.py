"""Fine -> coarse: the same scene seen by a sensor with larger pixels (Wald's protocol).

Every operator here is a Gaussian blur followed by the mean over ``factor x factor`` pixels. It is separable, so it is
held as one row of taps per band: output pixel ``i`` is the weighted sum of the input pixels
``factor * i - radius ... factor * i + factor - 1 + radius``, with the scene continued symmetrically at its borders.

References
----------
[1] Wald, Ranchin, Mangolini, "Fusion of satellite images of different spatial resolutions", PE&RS 63(6), 1997.
[2] Lanaras et al., "Super-resolution of Sentinel-2 images", ISPRS Journal 146, 2018: the operator named ``study``.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Final, TypeVar

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr.cube.bands import BANDS, NODATA, PLATFORMS, mtf_at_nyquist
from eosr.cube.radiometry import for_its_times
from eosr.errors import DegradationError, GridError

#: The operators by name. ``study``: Gaussian of 1 / factor pixels (DSen2 and the reference study). ``box``: no blur.
#: ``mtf``: a Gaussian with the band's own MTF at the coarse Nyquist frequency. ``mtf_diff``: the part of that Gaussian
#: which the fine image lacks, given that it was itself taken through the same optics. The measured MTF includes the
#: detector and the box mean comes on top, so both blur more than the instrument: see `blur_sigma`.
DEGRADATIONS: Final = ("study", "box", "mtf", "mtf_diff")

#: Gaussian taps reach this many standard deviations, as in `scipy.ndimage.gaussian_filter`.
TRUNCATE: Final = 4.0

Array = TypeVar("Array", bound=Any)


def blur_sigma(band: str, factor: int, degradation: str = "study", platform: str = "sentinel-2a") -> float:
    """Standard deviation of the Gaussian blur that precedes the box mean [fine pixels].

    Parameters
    ----------
    band : str
        Band name; only the two MTF operators depend on it.
    factor : int
        Pixel-size ratio.
    degradation : str
        One of `DEGRADATIONS`.
    platform : str
        Satellite, for the two MTF operators.

    Raises
    ------
    DegradationError
        If the operator is unknown, or the factor no whole number from 1 on.
    BandError
        If the operator needs an MTF that the band or the satellite does not have.

    Notes
    -----
    A Gaussian with MTF ``m`` at the Nyquist frequency of its own pixels has ``sigma = sqrt(-2 ln m) / pi`` of those
    pixels, i.e. ``factor`` times that in fine pixels. An image taken through the same optics at the fine scale already
    holds ``1 / factor`` of that blur, so the missing part is ``sqrt(factor**2 - 1)`` native sigmas.

    That is the Gaussian alone. ``m`` is the MTF of the whole instrument, detector included, and the box mean is added:
    with it ``mtf`` passes 0.71 ``m`` (factor 2) or 0.64 ``m`` (factor 6) at the coarse Nyquist frequency, as does
    ``mtf_diff`` together with the blur of the fine image. For B05 of Sentinel-2A, whose ``m`` is 0.38, ``mtf`` is at
    0.27 and has a standard deviation of 1.02 fine pixels in all. The shipped weights were trained with these operators.

    Examples
    --------
    >>> blur_sigma("B05", 2), round(blur_sigma("B05", 2, "mtf_diff"), 2)
    (0.5, 0.77)
    """
    _check_factor(factor)
    if degradation == "study":
        return 1.0 / factor
    if degradation == "box":
        return 0.0
    if degradation not in DEGRADATIONS:
        raise DegradationError(
            f"{degradation!r} is not a degradation eosr knows. Use one of {', '.join(map(repr, DEGRADATIONS))}."
        )
    native = math.sqrt(-2.0 * math.log(mtf_at_nyquist(band, platform))) / math.pi
    return native * (factor if degradation == "mtf" else math.sqrt(factor**2 - 1))


def kernel_taps(factor: int, sigma: float, *, radius: int | None = None) -> npt.NDArray[np.float64]:
    """Taps of blur and box mean in one row of length ``factor + 2 * radius``; they sum to 1.

    Parameters
    ----------
    factor : int
        Pixel-size ratio, at least 1.
    sigma : float
        Standard deviation of the Gaussian [fine pixels]; 0 means no blur.
    radius : int, optional
        Reach of the Gaussian [fine pixels]. Default: ``int(4 * sigma + 0.5)``, as scipy does.

    Raises
    ------
    DegradationError
        If the factor is no whole number from 1 on, or sigma is negative or not finite.

    Examples
    --------
    >>> kernel_taps(2, 0.0)
    array([0.5, 0.5])
    """
    _check_factor(factor)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise DegradationError(f"sigma={sigma} is no standard deviation. Use a number of fine pixels, 0 for no blur.")
    if radius is None:
        radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    gauss = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma > 0 else (offsets == 0).astype(np.float64)
    return np.convolve(gauss / gauss.sum(), np.full(factor, 1.0 / factor))


def _check_factor(factor: int) -> None:
    if not isinstance(factor, int | np.integer) or factor < 1:
        raise DegradationError(f"a degradation by a factor of {factor} has no meaning. Use 2 for 10 m -> 20 m.")


def radius_of(taps: npt.NDArray[np.float64], factor: int) -> int:
    """Fine pixels that an output pixel sees beyond its own ``factor x factor`` footprint."""
    return (taps.shape[-1] - factor) // 2


def correlate_strided(padded: Array, taps: Any, factor: int, axis: int) -> Array:
    """Weighted sums of windows every ``factor`` pixels along one axis of an array padded by the kernel's radius.

    Works on numpy arrays and on torch tensors alike (slices and arithmetic only). ``taps[..., k]`` may carry leading
    axes that broadcast against the array.
    """
    length = taps.shape[-1]
    count = (padded.shape[axis] - length) // factor + 1
    index: list[Any] = [slice(None)] * padded.ndim
    total: Any = None
    for k in range(length):
        index[axis] = slice(k, k + factor * (count - 1) + 1, factor)
        term = taps[..., k] * padded[tuple(index)]
        total = term if total is None else total + term
    return total


def degrade_tile(
    padded: npt.NDArray[np.floating[Any]], taps: npt.NDArray[np.float64], factor: int
) -> npt.NDArray[np.floating[Any]]:
    """Degrade an array whose last two axes are already padded by the kernel's radius."""
    rows = correlate_strided(padded, taps, factor, padded.ndim - 2)
    return correlate_strided(rows, taps, factor, padded.ndim - 1)


def as_float_with_nan(array: Array) -> Array:
    """Integers are digital numbers: 0 becomes NaN and the rest float32. Floats pass unchanged."""
    if array.dtype.kind == "f":
        return array
    values = array.astype(np.float32)
    if isinstance(values, da.Array):
        return da.where(array == NODATA, np.float32(np.nan), values)
    np.copyto(values, np.float32(np.nan), where=array == NODATA)
    return values


def degrade(
    fine: xr.DataArray | xr.Dataset,
    factor: int,
    *,
    degradation: str = "study",
    platform: str | None = None,
    sigma: float | None = None,
) -> Any:
    """Simulate the same scene seen by a sensor with ``factor`` times larger pixels [unit of the input].

    Parameters
    ----------
    fine : DataArray, dims (..., y, x), or Dataset of bands
        Digital numbers or reflectance, numpy or dask; dask stays lazy. Spatial dimensions are those whose names start
        with ``y`` and ``x``. In integer arrays 0 is nodata. A Dataset has every band degraded on its own grid.
    factor : int
        Pixel-size ratio, e.g. 2 for 10 m -> 20 m. Both spatial sizes must be multiples of it.
    degradation : str
        ``"study"`` (Gaussian of 1 / factor pixels, then box mean), ``"box"``, ``"mtf"`` or ``"mtf_diff"`` (Gaussian
        after the band's MTF, then box mean: more blur than the instrument's, see `blur_sigma`).
    platform : str, optional
        Satellite whose MTF is meant. Default: the Dataset's ``platform`` attribute, else Sentinel-2A.
    sigma : float, optional
        Use this Gaussian [fine pixels] for every band instead of a named operator.

    Returns
    -------
    DataArray or Dataset
        float32 (float64 for float64 input). Dimension names stay, coordinates become the centres of the larger pixels.
        A Dataset records ``degradation`` and ``degradation_factor`` in its attributes.

    Raises
    ------
    GridError
        If a spatial size is no multiple of ``factor``, or there are no spatial dimensions.
    DegradationError, BandError
        If the operator, the band or the satellite is unknown.

    Notes
    -----
    NaN spreads to every output pixel within reach of the blur, so gaps must be masked before scoring, not filled
    before degrading. The scene is continued symmetrically (edge pixel repeated) at its borders.
    """
    if not isinstance(fine, xr.Dataset | xr.DataArray):
        raise GridError(
            f"degrade needs a DataArray with dims (..., y, x) or a Dataset of bands, not a {type(fine).__name__}. "
            "Wrap it, e.g. xarray.DataArray(image, dims=('y', 'x'), name='B05')."
        )
    if sigma is not None and (isinstance(sigma, bool) or not isinstance(sigma, int | float | np.number)):
        raise DegradationError(
            f"sigma={sigma!r} is no standard deviation. Use a number of fine pixels, e.g. sigma=0.5."
        )
    if isinstance(fine, xr.Dataset):
        return _degrade_dataset(fine, factor, degradation=degradation, platform=platform, sigma=sigma)
    if sigma is None:
        sigma = blur_sigma(str(fine.name), factor, degradation, platform or PLATFORMS[0])
    return _degrade_array(fine, factor, kernel_taps(factor, sigma))


def spatial_dims(array: xr.DataArray) -> tuple[Hashable, Hashable]:
    """Names of the row and the column dimension: those that start with ``y`` and ``x``.

    Raises
    ------
    GridError
        If there is not exactly one of each.
    """
    rows = [dim for dim in array.dims if str(dim).startswith("y")]
    columns = [dim for dim in array.dims if str(dim).startswith("x")]
    if len(rows) != 1 or len(columns) != 1:
        raise GridError(
            f"{array.name or 'the array'} has dimensions {tuple(map(str, array.dims))}; exactly one starting with 'y' "
            "and one starting with 'x' are needed. Rename them, e.g. .rename(lat='y', lon='x')."
        )
    return rows[0], columns[0]


def _degrade_dataset(
    fine: xr.Dataset, factor: int, *, degradation: str, platform: str | None, sigma: float | None
) -> xr.Dataset:
    bands = [str(name) for name in fine.data_vars if name in BANDS]
    if not bands:
        raise DegradationError("the Dataset holds no Sentinel-2 band to degrade. Name its variables B02, B05 ...")
    fine = for_its_times(fine)
    satellites = platform or fine.attrs.get("platform") or PLATFORMS[0]
    how: dict[str, Any] = {"degradation": degradation, "sigma": sigma}
    if isinstance(satellites, str):
        degraded = {name: degrade(fine[name], factor, platform=satellites, **how) for name in bands}
    else:
        degraded = {name: _degrade_each_time(fine[name], factor, satellites, how) for name in bands}
    coarse = xr.Dataset(_on_common_chunks(degraded), attrs=fine.attrs)
    for name in bands:
        coarse[name].encoding["grid_mapping"] = fine[name].encoding.get("grid_mapping", "spatial_ref")
    coarse.attrs["degradation"] = degradation if sigma is None else f"sigma={sigma:g}"
    coarse.attrs["degradation_factor"] = int(factor)
    return coarse


def _on_common_chunks(bands: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Chunks of every band on the ground of the coarsest one's: each was cut to multiples of the factor alone."""
    lazy = {name: band for name, band in bands.items() if band.chunks is not None}
    if not lazy:
        return bands
    coarsest = min(lazy.values(), key=lambda band: band.size)
    for name, band in lazy.items():
        for mine, theirs in zip(spatial_dims(band), spatial_dims(coarsest), strict=True):
            ratio, rest = divmod(band.sizes[mine], coarsest.sizes[theirs])
            if not rest:
                sizes = tuple(size * ratio for size in coarsest.chunksizes[theirs])
                bands = {**bands, name: bands[name].chunk({mine: sizes})}
    return bands


def _degrade_each_time(band: xr.DataArray, factor: int, satellites: Sequence[str], how: dict[str, Any]) -> xr.DataArray:
    """Degrade a series whose images come from several satellites."""
    if len(satellites) != band.sizes.get("time"):
        raise DegradationError(
            f"the attribute platform names {len(satellites)} satellites for {band.sizes.get('time', 'no')} times. "
            "Give one, or one per time."
        )
    images = [degrade(band.isel(time=[i]), factor, platform=name, **how) for i, name in enumerate(satellites)]
    return xr.concat(images, dim="time")


def _degrade_array(fine: xr.DataArray, factor: int, taps: npt.NDArray[np.float64]) -> xr.DataArray:
    y, x = spatial_dims(fine)
    for dim in (y, x):
        if fine.sizes[dim] % factor or not fine.sizes[dim]:
            keep = fine.sizes[dim] // factor * factor
            raise GridError(
                f"{fine.sizes[dim]} pixels of {fine.name or 'the array'} along {dim!r} are no multiple of {factor}. "
                f"Crop first, e.g. .isel({dim}=slice(0, {keep}))."
            )
    ordered = fine.transpose(..., y, x)
    data = as_float_with_nan(ordered.data)
    coarse = _degrade_data(data, factor, taps)
    coords = {name: coord for name, coord in ordered.coords.items() if not {y, x} & set(coord.dims)}
    coords |= {dim: _coarse_centres(ordered[dim], factor) for dim in (y, x) if dim in ordered.coords}
    coords |= {name: _coarse_grid_mapping(c, factor) for name, c in coords.items() if "GeoTransform" in c.attrs}
    result = xr.DataArray(coarse, dims=ordered.dims, coords=coords, name=fine.name, attrs=fine.attrs)
    return result.transpose(*fine.dims)


def _degrade_data(data: Any, factor: int, taps: npt.NDArray[np.float64]) -> Any:
    radius = radius_of(taps, factor)
    taps = taps.astype(data.dtype)
    spatial = (data.ndim - 2, data.ndim - 1)
    if not isinstance(data, da.Array):
        return _degrade_block(data, taps, factor, (radius, radius))
    data = data.rechunk({axis: merge_chunks(data.chunks[axis], factor, max(radius, 1)) for axis in spatial})
    chunks = tuple(
        tuple(size // factor for size in sizes) if axis in spatial else sizes for axis, sizes in enumerate(data.chunks)
    )
    # dask continues a chunk by no more than its own length; one chunk needs no neighbours and continues itself.
    depth = {axis: radius if len(data.chunks[axis]) > 1 else 0 for axis in spatial}
    return da.map_overlap(
        _degrade_block, data, taps=taps, factor=factor, pad=tuple(radius - depth[axis] for axis in spatial),
        depth=depth, boundary="reflect", trim=False, align_arrays=False, allow_rechunk=False, dtype=data.dtype,
        chunks=chunks, meta=np.empty((0,) * data.ndim, data.dtype),
    )  # fmt: skip


def _degrade_block(block: Any, taps: npt.NDArray[np.float64], factor: int, pad: tuple[int, int]) -> Any:
    width = [(0, 0)] * (block.ndim - 2) + [(rim, rim) for rim in pad]
    return degrade_tile(np.pad(block, width, mode="symmetric"), taps, factor)


def merge_chunks(sizes: tuple[int, ...], multiple: int, minimum: int) -> tuple[int, ...]:
    """Move chunk borders to multiples of ``multiple`` and merge chunks smaller than ``minimum``, keeping the total.

    Examples
    --------
    >>> merge_chunks((5, 5, 2), 2, 3)
    (6, 6)
    """
    borders = [0]
    total = sum(sizes)
    for end in np.cumsum(sizes)[:-1]:
        border = -(-int(end) // multiple) * multiple
        if border - borders[-1] >= minimum and border < total:
            borders.append(border)
    if len(borders) > 1 and total - borders[-1] < minimum:
        borders.pop()
    return tuple(np.diff([*borders, total]).tolist())


def _coarse_centres(centres: xr.DataArray, factor: int) -> xr.DataArray:
    values = centres.values.reshape(-1, factor).mean(axis=1)
    return xr.DataArray(values, dims=centres.dims, attrs=centres.attrs)


def _coarse_grid_mapping(mapping: xr.DataArray, factor: int) -> xr.DataArray:
    """Pixel size times ``factor`` in the GDAL transform that rioxarray reads; the corner stays."""
    x0, dx, rx, y0, ry, dy = (float(value) for value in str(mapping.attrs["GeoTransform"]).split())
    scaled = (x0, dx * factor, rx * factor, y0, ry * factor, dy * factor)
    return mapping.assign_attrs(GeoTransform=" ".join(repr(value) for value in scaled))
