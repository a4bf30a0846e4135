"""What `eosr.adapt` gains: on the kept-out block of the sample scene, degraded once, against its true 20 m bands.

    python benchmarks/adaptation.py [--steps 100 300] [--rates 1e-4 3e-4] [--operators study box mtf]

The degraded block (20 m guides, 40 m bands) stands for a scene. The adaptation sees its own pixels degraded once more;
the score is on the 20 m bands as measured, which it has never seen.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import eosr
from eosr.bands import BANDS_20M
from eosr.sample import sample_folder
from eosr.train.scenes import as_dataset, sample_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4])
    parser.add_argument("--operators", nargs="+", default=["study", "box", "mtf"])
    parser.add_argument("--weights", default="s2sr-20m")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (block,) = (scene for scene in sample_scene(sample_folder()) if scene.kept_out)
    truth = as_dataset(block)[0]
    print("| operator | steps | rate | held out, before | after | RMSE [DN], before | after | seconds |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for operator in options.operators:
        given = eosr.degrade(truth, 2, degradation=operator)
        plain = rmse(given, truth, [options.weights])
        for steps in options.steps:
            for rate in options.rates:
                with tempfile.TemporaryDirectory() as folder:
                    began = time.perf_counter()
                    found = eosr.adapt(given, options.weights, out=folder, steps=steps, learning_rate=rate)
                    seconds = time.perf_counter() - began
                    (before,), (after,) = found.before.values(), found.after.values()
                    adapted = rmse(given, truth, found.paths)
                print(
                    f"| {operator} | {steps} | {rate:g} | {before:.2f} | {after:.2f} | {plain:.2f} | {adapted:.2f} | "
                    f"{seconds:.0f} |", flush=True,
                )  # fmt: skip


def rmse(given, truth, weights: list[Path | str]) -> float:
    sharp = given.s2sr.superresolve(weights=weights, bands=list(BANDS_20M), dtype="float32")
    errors = [
        np.sqrt(np.mean((sharp[name].values.astype(float) - truth[name].values.astype(float)) ** 2))
        for name in BANDS_20M
    ]
    return float(np.mean(errors))


if __name__ == "__main__":
    main()
