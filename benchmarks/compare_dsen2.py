"""DSen2's published weights beside eosr's generators and bicubic, on the same kept-out scenes, in one run.

    pip download --no-deps remote-sensing-processor==0.2.2 && unzip remote_sensing_processor-0.2.2-*.whl -d rsp
    python benchmarks/compare_dsen2.py --data FOLDER --dsen2 rsp/remote_sensing_processor/sentinel2/superres/weights

The weights are GPL-3: they are run here to compare, and are no part of eosr. DSen2 takes the 10 m bands in the order
B04 B03 B02 B08, everything / 2000, the coarse bands bilinearly upsampled.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from eosr.degrade import DEGRADATIONS
from eosr.train.scenes import load_scenes
from eosr.train.validate import as_method, mean_rmse, rmse_per_scene

PAD = 24


def bicubic(fine, middle, coarse, sigma):
    factor = fine.shape[1] // coarse.shape[1]
    padded = np.pad(coarse, ((0, 0), (4, 4), (4, 4)), mode="symmetric")
    up = functional.interpolate(
        torch.from_numpy(padded)[None], scale_factor=factor, mode="bicubic", align_corners=False
    )
    # torch's kernel has a = -0.75 where MATLAB's has -0.5: see eosr.baselines.bicubic for the one that is shipped.
    return up[0, :, 4 * factor : -4 * factor, 4 * factor : -4 * factor].numpy()


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
    parser.add_argument("--weights", type=Path, nargs="*", default=[], help="weights files, or state files of a run")
    parser.add_argument("--factor", type=int, nargs="*", default=[2, 6])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scenes = [scene for scene in load_scenes(options.data) if scene.kept_out]
    for factor in options.factor:
        net = torch.jit.load(str(options.dsen2 / f"L1C{20 if factor == 2 else 60}M.pt"), map_location="cpu")
        methods = {"bicubic": bicubic, "dsen2": dsen2(net, factor)}
        methods |= {path.parent.name: ours for path in options.weights if (ours := from_state(path, factor))}
        for operator in DEGRADATIONS:
            for name, method in methods.items():
                scores = rmse_per_scene(method, scenes, factor, operator)
                block = mean_rmse({k: v for k, v in scores.items() if k.startswith("stest")})
                rest = mean_rmse({k: v for k, v in scores.items() if not k.startswith("stest")})
                row = {"factor": factor, "operator": operator, "method": name, "block": block, "bigearthnet": rest}
                row["mean"] = mean_rmse(scores)
                print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


def from_state(path, factor):
    from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator

    state = torch.load(path, weights_only=True)
    config = BackProjectionConfig(factor=factor) if factor == 2 else None
    if config is None:
        config = BackProjectionConfig(factor=6, targets=2, middle_guides=6)
    generator = BackProjectionGenerator(config)
    try:
        generator.load_state_dict(state["mean"])
    except RuntimeError:
        return None
    return as_method(generator, factor)


if __name__ == "__main__":
    main()
