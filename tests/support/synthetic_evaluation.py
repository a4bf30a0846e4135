"""An evaluation without evaluating: what `eosr.evaluate` returns, with figures that arithmetic can check."""

import numpy as np
import xarray as xr

from eosr.sharpen.methods import METHODS as METHODS_KNOWN

BANDS = ("B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09")
GSD = (20, 20, 20, 20, 20, 20, 60, 60)
METRICS = ("rmse", "bias", "sre", "sre_supreme", "ssim", "psnr", "bpsnr", "sam", "ergas", "coverage")
UNITS = ("DN", "DN", "dB", "dB", "1", "dB", "dB", "deg", "1", "1")
BETTER = ("lower", "zero", "higher", "higher", "higher", "higher", "higher", "lower", "lower", "")
#: Figures of bicubic; a method of quality q has q times the errors and -20 log10 q more decibels.
BICUBIC = {"rmse": 120.0, "sam": 1.2, "ergas": 3.4, "sre": 25.0, "psnr": 44.0, "bpsnr": 45.0, "ssim": 0.8, "bias": 2.0}
QUALITY = {"bicubic": 1.0, "s2x": 0.25, "eosr": 0.2}
PROJECTED = 0.9
#: What stands behind a label that does not tell: options, or weights and their checksums.
DESCRIBED = {"eosr": ("s2sr-20m + s2sr-60m", f"{'0a' * 32} {'1b' * 32}")}


def figure(metric: str, quality: float) -> float:
    base = BICUBIC.get(metric, 1.0)
    if metric in ("sre", "psnr", "bpsnr", "sre_supreme"):
        return base - 20 * np.log10(quality)
    if metric == "ssim":
        return 1 - (1 - base) * quality
    return base if metric == "coverage" else base * quality


def synthetic_evaluation(qualities=None, scenes=("T33UUB", "49JGM"), operators=("study", "mtf_diff"), **attrs):
    """``eosr`` has a row after the projection as well; ``s2x`` no 60 m band; pooled figures are 10 % worse."""
    qualities = QUALITY if qualities is None else qualities
    properties, projections, averages = ("synthesis", "consistency"), ("before", "after"), ("mean", "pooled")
    coords = {
        "scene": list(scenes), "method": list(qualities), "property": list(properties),
        "degradation": list(operators), "projection": list(projections), "band": list(BANDS), "gsd": [20, 60],
        "average": list(averages), "metric": list(METRICS), "native_gsd": ("band", list(GSD)),
        "unit": ("metric", list(UNITS)), "better": ("metric", list(BETTER)),
        "kind": ("method", [name if name in METHODS_KNOWN else "" for name in qualities]),
        "described": ("method", [DESCRIBED.get(name, (name, ""))[0] for name in qualities]),
        "weights_sha256": ("method", [DESCRIBED.get(name, (name, ""))[1] for name in qualities]),
    }  # fmt: skip
    one = np.full((len(qualities), 2, len(operators), 2, 2, len(METRICS)), np.nan)  # ..., projection, gsd, metric
    for i, (method, quality) in enumerate(qualities.items()):
        for j in range(2 if method == "eosr" else 1):
            for k in range(1 if method == "s2x" else 2):
                one[i, :, :, j, k] = [figure(metric, quality * PROJECTED**j) for metric in METRICS]
    overall = xr.DataArray(one, dims=("method", "property", "degradation", "projection", "gsd", "metric"))
    overall = overall.assign_coords({key: coords[key] for key in ("gsd", "metric")})
    bands = overall.sel(gsd=list(GSD)).drop_vars("gsd").rename(gsd="band").drop_vars("metric")
    bands[..., [METRICS.index("sam"), METRICS.index("ergas")]] = np.nan  # they compare all bands
    # RMSE grows by 1 DN from band to band, so that a mix-up of bands shows.
    bands = bands + xr.DataArray(np.multiply.outer(np.arange(8.0), np.eye(len(METRICS))[0]), dims=("band", "metric"))
    pooled = xr.DataArray([1.0, 1.1], dims="average")
    shape = (len(scenes), len(qualities), 2, len(operators))
    cost = ("scene", "method", "property", "degradation")
    variables = {
        "score": bands.expand_dims(scene=list(scenes)),
        "score_overall": (overall.drop_vars(["metric", "gsd"]) * pooled).expand_dims(scene=list(scenes)),
        "summary": bands * pooled,
        "summary_low": bands * pooled * 0.9,
        "summary_high": bands * pooled * 1.1,
        "summary_overall": overall.drop_vars(["metric", "gsd"]) * pooled,
        "summary_overall_low": overall.drop_vars(["metric", "gsd"]) * pooled * 0.9,
        "summary_overall_high": overall.drop_vars(["metric", "gsd"]) * pooled * 1.1,
        "seconds": (cost, np.full(shape, 1.5)),
        "peak_memory": (cost, np.full(shape, 2.0**28), {"units": "B"}),
        "pixels": ("scene", np.arange(1.0, len(scenes) + 1) * 1000),
    }  # fmt: skip
    told = {"convention": "zhang2020", "border": "2 coarse pixels", "level": "L1C"}
    return xr.Dataset(variables, coords=coords, attrs=told | attrs)
