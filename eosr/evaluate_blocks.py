"""Scores of pairs too large for memory: every block is counted by itself, and the sums are added.

The same numbers as `eosr.metrics.score_table` gives (a test holds them equal), by another way: one task per block reads
both stages and the reference once and returns a handful of sums, so a tile of any size streams through.
"""

from __future__ import annotations

from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from eosr.degrade import merge_chunks
from eosr.evaluate_pairs import Pairs, Protocol, coarse_mask, inner_of, sizes_of
from eosr.metrics.maps import angle_between
from eosr.metrics.pairs import same_grid
from eosr.metrics.table import offset_of, stack_bands
from eosr.metrics.windows import SSIM_WINDOW, ssim_of_arrays

Sums = dict[str, npt.NDArray[np.float64]]

_RIM: Final = SSIM_WINDOW // 2
#: Blocks narrower than this are merged before they are scored [pixels].
_LEAST: Final = 256
#: Sums of blocks that one task adds.
_FAN_IN: Final = 16


def score_blocks(pairs: Pairs, group: int, protocol: Protocol, mask: xr.DataArray | None) -> xr.Dataset:
    """Scores and moments of both stages, dims (projection, band), and ``seconds``. Computes.

    Raises
    ------
    GridError, MetricError
        As `eosr.evaluate_pairs.score_pairs`.
    """
    names = [str(name) for name in pairs.reference.data_vars]
    inner = inner_of(pairs, group, protocol)
    counts = _counted(pairs, inner, group, mask)
    before, after, reference = (_stack(part, names, pairs) for part in (pairs.before, pairs.after, pairs.reference))
    sizes = [merge_chunks(chunks, 1, min(_LEAST, sum(chunks))) for chunks in before.chunks[1:]]
    layout = {0: -1, 1: sizes[0], 2: sizes[1]}
    arrays = [array.rechunk(layout) for array in (before, after, reference, da.from_array(counts[None], chunks=-1))]
    ones = tuple((1,) * len(chunks) for chunks in sizes)
    depth = {0: 0, 1: _RIM, 2: _RIM}
    sums = da.map_overlap(
        count_block, *arrays, data_range=protocol.convention.data_range, depth=[depth] * 4,
        boundary=[{0: "none", 1: np.nan, 2: np.nan}] * 3 + [{0: "none", 1: 0, 2: 0}], trim=False, align_arrays=False,
        allow_rechunk=False, dtype=object, meta=np.empty((0, 0, 0), object), chunks=((1,), *ones),
    )  # fmt: skip
    parts = list(sums.to_delayed(optimize_graph=False).ravel())
    while len(parts) > 1:
        parts = [delayed(add_blocks)(parts[i : i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
    work = da.stack([plane.sum() for plane in pairs.seconds]).sum() if pairs.seconds else 0.0
    total, seconds = delayed(lambda *both: both)(delayed(add_blocks)(parts[:1]), work).compute()
    pixels = int(np.prod([part.stop - part.start for part in inner.values()]))
    table = _table(total, names, protocol, sizes_of(pairs, group, protocol), pixels)
    table["seconds"] = float(seconds)
    return table


def _counted(pairs: Pairs, inner: dict[str, slice], group: int, mask: xr.DataArray | None) -> npt.NDArray[np.bool_]:
    """Pixels that count (y, x): not in the border, and in the mask."""
    reference = pairs.reference[next(iter(pairs.reference.data_vars))]
    counts = xr.zeros_like(reference, dtype=bool).drop_vars(list(reference.coords)).compute()
    counts[inner] = True
    if mask is not None:
        allowed = same_grid(coarse_mask(mask, pairs.reference, group), reference, "mask")
        counts = counts & allowed.drop_vars(list(allowed.coords)).compute()
    return np.asarray(counts.transpose(f"y{group}", f"x{group}").values)


def _stack(part: xr.Dataset, names: list[str], pairs: Pairs) -> da.Array:
    """Bands as one array (band, y, x), nodata NaN, zero at reflectance 0."""
    offset = offset_of(part, pairs.reference)
    stacked = stack_bands(part, names, offset, "estimate")
    return da.asarray(stacked.transpose("band", ...).data)


def count_block(before: Any, after: Any, reference: Any, counts: Any, data_range: float) -> npt.NDArray[Any]:
    """Sums of one block (band, y, x) with a rim of half a window, as the one element of an array of objects."""
    inner = (..., slice(_RIM, reference.shape[1] - _RIM), slice(_RIM, reference.shape[2] - _RIM))
    stages = [_count_stage(estimate, reference, counts.astype(bool), inner, data_range) for estimate in (before, after)]
    holder = np.empty((1, 1, 1), object)
    holder[0, 0, 0] = {key: np.stack([stage[key] for stage in stages]) for key in stages[0]}
    return holder


def _count_stage(estimate: Any, reference: Any, counts: Any, inner: Any, data_range: float) -> Sums:
    valid = np.isfinite(estimate) & np.isfinite(reference) & counts
    e, r = np.where(valid, estimate, np.nan), np.where(valid, reference, np.nan)
    windows = ssim_of_arrays(e, r, data_range)[inner]
    e, r, valid = e[inner], r[inner], valid[inner]
    error = e - r
    joint = valid.all(axis=0)
    here, there = (xr.DataArray(a[:, joint], dims=("band", "pixel")) for a in (e, r))
    angle = angle_between(here, there, "band").values
    over = (1, 2)
    return {
        "pixels": valid.sum(over).astype(float),
        "squares": np.nansum(error**2, over),
        "errors": np.nansum(error, over),
        "signal": np.nansum(r, over),
        "energy": np.nansum(r**2, over),
        "highest": np.where(valid, r, -np.inf).max(over),
        "windows": np.isfinite(windows).sum(over).astype(float),
        "ssim": np.nansum(windows, over),
        "joint": np.asarray(float(joint.sum())),
        "joint_squares": (error[:, joint] ** 2).sum(1),
        "joint_signal": r[:, joint].sum(1),
        "angles": np.asarray(float(np.isfinite(angle).sum())),
        "angle": np.asarray(float(np.nansum(angle))),
    }


def add_blocks(parts: list[Any]) -> Sums:
    """Add the sums of blocks; of the largest value, take the larger."""
    sums = [part.item() if isinstance(part, np.ndarray) else part for part in parts]
    how: dict[str, Any] = {key: np.max if key == "highest" else np.sum for key in sums[0]}
    return {key: add([one[key] for one in sums], axis=0) for key, add in how.items()}


def _table(total: Sums, names: list[str], protocol: Protocol, sizes: tuple[float, float], pixels: int) -> xr.Dataset:
    """The columns of `eosr.metrics.score_table` that an evaluation needs, from sums (projection, band)."""
    how = protocol.convention
    with np.errstate(divide="ignore", invalid="ignore"):
        n = total["pixels"]
        mse, bias = total["squares"] / n, total["errors"] / n
        signal, energy = total["signal"] / n, total["energy"] / n
        peak = total["highest"] if how.peak == "reference_max" else np.full_like(mse, float(how.peak))
        joint = total["joint"][:, None]
        relative = total["joint_squares"] / joint / (total["joint_signal"] / joint) ** 2
        ratio = 50.0 if how.ergas == "zhang2020" else 100.0 * sizes[0] / sizes[1]
        band = {
            "rmse": np.sqrt(mse), "bias": bias, "sre": 10 * np.log10(signal**2 / mse),
            "sre_supreme": 10 * np.log10(energy / mse), "ssim": total["ssim"] / total["windows"],
            "psnr": 10 * np.log10(peak**2 / mse), "bpsnr": 10 * np.log10(peak**2 / np.clip(mse - bias**2, 0, None)),
            "coverage": n / pixels, "pixels": n, "signal": signal, "energy": energy, "highest": total["highest"],
        }  # fmt: skip
        overall = {"sam": total["angle"] / total["angles"], "ergas": ratio * np.sqrt(relative.mean(1))}
    table: dict[str, Any] = {name: (("projection", "band"), values) for name, values in band.items()}
    table |= {name: ("projection", values) for name, values in overall.items()}
    return xr.Dataset(table, coords={"band": names})
