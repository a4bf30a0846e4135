"""DSen2's published weights beside eosr's generators and bicubic, on the same kept-out scenes, in one run.

    pip download --no-deps remote-sensing-processor==0.2.2 && unzip remote_sensing_processor-0.2.2-*.whl -d rsp
    python benchmarks/compare_dsen2.py --data FOLDER --dsen2 rsp/remote_sensing_processor/sentinel2/superres/weights

The weights are GPL-3: they are run here to compare, and are no part of eosr. DSen2 takes the 10 m bands in the order
B04 B03 B02 B08, everything / 2000, the coarse bands bilinearly upsampled.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from eosr.cube.consistency import project_tile
from eosr.cube.degradation import DEGRADATIONS
from eosr.nn.weights import load_weights
from eosr.sharpen.classical.bicubic import bicubic_tile
from eosr.train.data.scenes import load_scenes
from eosr.train.outcome.validate import as_method, mean_rmse, rmse_per_scene

PAD = 24


def bicubic(fine, middle, coarse, sigma):
    return bicubic_tile(coarse, fine.shape[1] // coarse.shape[1])


def dsen2(net, factor):
    def run(fine, middle, coarse, sigma):
        def up(bands, scale, pad):
            padded = torch.from_numpy(np.pad(bands, ((0, 0), (pad, pad), (pad, pad)), mode="symmetric"))[None]
            return functional.interpolate(padded, scale_factor=scale, mode="bilinear", align_corners=False)

        inputs = [
            torch.from_numpy(np.pad(fine[[2, 1, 0, 3]], ((0, 0), (PAD, PAD), (PAD, PAD)), mode="symmetric"))[None]
        ]
        if middle is not None:
            inputs.append(up(middle, 2, PAD // 2))
        inputs.append(up(coarse, factor, PAD // factor))
        with torch.no_grad():
            out = net(*[x.float() / 2000 for x in inputs])
        return out[0].numpy()[:, PAD:-PAD, PAD:-PAD] * 2000

    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dsen2", type=Path, required=True)
    parser.add_argument("--weights", nargs="*", default=["s2sr-20m", "s2sr-60m"], help="names or files")
    parser.add_argument("--operators", nargs="*", default=list(DEGRADATIONS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scenes = [scene for scene in load_scenes(options.data) if scene.kept_out]
    print("| bands | operator | method | sample block | BigEarthNet | mean over scenes |\n|---|---|---|---|---|---|")
    for weights in map(load_weights, options.weights):
        factor = weights.factor
        net = torch.jit.load(str(options.dsen2 / f"L1C{factor * 10}M.pt"), map_location="cpu")
        ours = as_method(weights.generator, factor)
        blind = {weights.name: ours, f"{weights.name} + projection": projected(ours, factor)}
        # DSen2 is not told the operator. The last row is ours, not told either: it takes "study" for granted.
        blind[f"{weights.name} + projection, not told"] = not_told(projected(ours, factor), factor)
        methods = {"bicubic": bicubic, "DSen2": dsen2(net, factor), **blind}
        for operator in options.operators:
            for name, method in methods.items():
                scores = rmse_per_scene(method, scenes, factor, operator)
                block = mean_rmse({k: v for k, v in scores.items() if k.startswith("stest")})
                rest = mean_rmse({k: v for k, v in scores.items() if not k.startswith("stest")})
                row = f"{factor * 10} m | {operator} | {name} | {block:.2f} | {rest:.2f} | {mean_rmse(scores):.2f}"
                print(f"| {row} |", flush=True)


def projected(method, factor):
    def run(fine, middle, coarse, sigma):
        estimate = method(fine, middle, coarse, sigma)
        return np.stack([project_tile(estimate[i], coarse[i], factor, float(s)) for i, s in enumerate(sigma)])

    return run


def not_told(method, factor):
    return lambda fine, middle, coarse, sigma: method(fine, middle, coarse, np.full_like(sigma, 1 / factor))


if __name__ == "__main__":
    main()
