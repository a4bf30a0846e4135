"""eosr's default 20 m generator against DSen2's architecture on the same pixels, with the same threads, in turns.

    python benchmarks/speed.py --size 1024 --repeat 3

DSen2 here is its architecture with random weights (Lanaras et al., ISPRS Journal 146, 2018, figure 3): speed does not
depend on them, and no published weights are needed.
"""

import argparse

import torch
from measure import Clock, machine, report
from torch import Tensor, nn
from torch.nn import functional

from eosr.nn.weights import load_weights

TARGET = 5.0
PARAMETERS = 1_789_574


class Block(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * self.second(functional.relu(self.first(x)))


class DSen2(nn.Module):
    """20 m -> 10 m: everything on the 10 m grid, 6 residual blocks of 128 features."""

    def __init__(self, features: int = 128, blocks: int = 6) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4 + 6, features, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(features) for _ in range(blocks)))
        self.leave = nn.Conv2d(features, 6, 3, padding=1)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        up = functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        features = functional.relu(self.enter(torch.cat([fine, up], dim=1)))
        return up + self.leave(self.blocks(features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="10 m pixels along one side, even")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", default="s2sr-20m")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    facts, size = machine(), options.size
    # As eosr.nn.tile prepares it; DSen2 gets the faster layout too.
    ours = load_weights(options.weights).generator.to(memory_format=torch.channels_last)
    theirs = DSen2().eval().to(memory_format=torch.channels_last)
    counted = sum(parameter.numel() for parameter in theirs.parameters())
    if counted != PARAMETERS:
        raise SystemExit(f"DSen2 has {PARAMETERS} parameters, this one {counted}")
    torch.manual_seed(0)
    fine, coarse = torch.rand(1, 4, size, size), torch.rand(1, 6, size // 2, size // 2)
    sigma = torch.full((1, 6), 0.5)
    runs = {"eosr": lambda f, c: ours(f, c, sigma), "DSen2": theirs}
    clock = Clock()
    with torch.inference_mode():
        for run in runs.values():  # the first forward of a process chooses its kernels
            run(fine[..., :96, :96], coarse[..., :48, :48])
        for turn in range(options.repeat):
            for name in list(runs)[:: 1 if turn % 2 else -1]:
                with clock.time(name):
                    runs[name](fine, coarse)
    pixels = size * size / 1e6
    rows = []
    for name, module in (("eosr", ours), ("DSen2", theirs)):
        cpu, wall = clock.median(name)
        rows.append(
            {
                "what": name, "parameters": sum(p.numel() for p in module.parameters()), "CPU [s]": cpu,
                "CPU [s/Mpx]": cpu / pixels, "Mpx/s": pixels / wall, "faster by CPU": clock.median("DSen2")[0] / cpu,
                "faster by wall": clock.median("DSen2")[1] / wall,
            }
        )  # fmt: skip
    report(f"speed at equal threads, target >= {TARGET:g} x", rows, **vars(options), **facts, cpu=dict(clock.cpu),
           wall=dict(clock.wall))  # fmt: skip


if __name__ == "__main__":
    main()
