"""All scores of a table at once against the same scores one by one, in turns.

    python benchmarks/scores.py --size 60 --repeat 5

Small images show what xarray itself costs: a training validates on patches of this size, again and again.
"""

import argparse
from functools import partial

import numpy as np
import xarray as xr
from measure import Clock, machine, report

from eosr import metrics
from eosr.cube.bands import BANDS_20M

PEAK = 10000.0
SIZES = {"fine_gsd": 20, "coarse_gsd": 40}
SINGLE = {
    "rmse": metrics.rmse, "bias": metrics.bias, "sre": metrics.sre,
    "sre_supreme": partial(metrics.sre, definition="supreme"), "ssim": partial(metrics.ssim, data_range=PEAK),
    "psnr": partial(metrics.psnr, peak=PEAK), "bpsnr": partial(metrics.bpsnr, peak=PEAK), "sam": metrics.sam,
    "ergas": partial(metrics.ergas, **SIZES),
    "rmse_joint": partial(metrics.rmse, dim=("band", "y20", "x20")),
    "sre_joint": partial(metrics.sre, definition="supreme", dim=("band", "y20", "x20")),
    "psnr_joint": partial(metrics.psnr, peak=PEAK, dim=("band", "y20", "x20")),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=60, help="20 m pixels along one side")
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    facts, clock = machine(), Clock()
    estimate, reference = (_image(options.size, seed) for seed in (0, 1))
    stacks = [image.to_dataarray("band") for image in (estimate, reference)]
    for _ in range(options.repeat):
        with clock.time("one by one"):
            alone = {name: score(*stacks) for name, score in SINGLE.items()}
        with clock.time("score_table"):
            table = metrics.score_table(
                estimate, reference, **SIZES, peak=PEAK, data_range=PEAK, conventions=(), moments=True
            )
    for name, score in alone.items():
        np.testing.assert_array_equal(table[name], score, err_msg=name)
    rows = [{"what": name, "CPU s": clock.median(name)[0], "wall s": clock.median(name)[1]} for name in clock.cpu]
    report(f"scores of 6 bands of {options.size} x {options.size} px", rows, **facts)


def _image(size: int, seed: int) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    pixels = {name: (("y20", "x20"), rng.integers(1, 3000, (size, size)).astype("uint16")) for name in BANDS_20M}
    return xr.Dataset(pixels, coords={"y20": -20.0 * np.arange(size), "x20": 20.0 * np.arange(size)})


if __name__ == "__main__":
    main()
