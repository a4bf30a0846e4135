"""The bare networks on a CUDA card: seconds per tile, share of the card's bfloat16 peak, and what precision costs.

    python benchmarks/card.py --chunks 1536,2748 [--kept-out heldout.npz]

The peak is measured here: a product of two 8192 x 8192 matrices of bfloat16, random. Operations are counted by torch
(convolutions and products of matrices, two for each multiplication). A tile of 10980 px is as many chunks as it is cut
into, each with the halo that the batch gives it. ``--kept-out`` names an ``.npz`` of degraded inputs and truth (keys
``FACTOR|SCENE|NUMBER``, as `eosr.train.outcome.validate.degraded_inputs` returns them); then the largest change of a
pixel against float32 on the CPU and the change of the RMSE are told too.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measure import machine, report
from torch.utils.flop_counter import FlopCounterMode

from eosr.cube.consistency import projection_reach
from eosr.cube.degradation import blur_sigma
from eosr.nn.weights import SHIPPED, load_weights
from eosr.train.outcome.validate import as_method

SIZE = 10980
#: The second float32 is without channels_last, in which the others are.
PRECISIONS = ("float32", "float32, planes", "tf32", "bfloat16", "float16")


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Arithmetic of the convolutions."""
    tf32 = name == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    reduced = getattr(torch, name) if name.endswith("16") else torch.bfloat16
    with torch.inference_mode(), torch.autocast("cuda", reduced, enabled=name.endswith("16")):
        yield
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def seconds(call, repeat: int) -> float:
    """Median time of a call on the card."""
    call()
    times = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times)


def peak() -> float:
    """Operations per second of a product of matrices of bfloat16."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: left @ right, 10)


def tile(weights, chunk: int) -> tuple:
    """Inputs of one chunk with its halo, random."""
    norm, factor = weights.normalization, weights.factor
    sigma = [blur_sigma(band, factor) for band in norm.target_bands]
    further = max(projection_reach(factor, one) for one in sigma)
    rim = -(-(weights.generator.reach + further) // 6) * 6
    side = chunk + 2 * rim
    shapes = [(len(norm.fine_bands), side), (len(norm.target_bands), side // factor)]
    shapes += [(len(norm.middle_bands), side // 2)] if norm.middle_bands else []
    fine, coarse, *middle = (torch.rand(1, bands, n, n, device="cuda") for bands, n in shapes)
    return fine, coarse, torch.tensor([sigma], device="cuda"), *middle


def kept_out(path: Path, factor: int) -> list[list[np.ndarray | None]]:
    """Degraded inputs and truth of every scene of a factor."""
    scenes: dict[str, list] = defaultdict(lambda: [None] * 5)
    with np.load(path) as file:
        for key in file.files:
            of, scene, number = key.split("|")
            if int(of) == factor:
                scenes[scene][int(number)] = file[key]
    return list(scenes.values())


class OnCard(torch.nn.Module):
    """A network on the card, for tensors that are not."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network.to("cuda")

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.network(*(one.cuda() for one in tensors)).float().cpu()


def changes(name: str, path: Path) -> dict[str, tuple[float, float]]:
    """By precision: the largest change of a pixel, and that of the RMSE over all scenes [DN]."""
    factor = load_weights(name).factor
    scenes = kept_out(path, factor)
    exact = [as_method(load_weights(name).generator, factor)(*one[:4]) for one in scenes]
    network, found = load_weights(name).generator, {}
    moved = as_method(OnCard(network), factor)

    def rmse(estimates):
        errors = [((one - scene[4]) ** 2).mean() for one, scene in zip(estimates, scenes, strict=True)]
        return float(np.sqrt(np.mean(errors)))

    for kind in PRECISIONS:
        planes = "planes" in kind
        network.to(memory_format=torch.contiguous_format if planes else torch.channels_last)
        with precision(kind):
            estimates = [moved(*one[:4]) for one in scenes]
        worst = max(float(np.abs(a - b).max()) for a, b in zip(estimates, exact, strict=True))
        found[kind] = (worst, rmse(estimates) - rmse(exact))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", default="1536,2748")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--kept-out", type=Path)
    options = parser.parse_args()
    rows, top = [], peak()
    for name in SHIPPED:
        weights = load_weights(name)
        error = changes(name, options.kept_out) if options.kept_out else {}
        generator = weights.generator.to("cuda", memory_format=torch.channels_last)
        for chunk in map(int, options.chunks.split(",")):
            inputs = tile(weights, chunk)
            count = math.ceil(SIZE / chunk) ** 2
            with torch.inference_mode(), FlopCounterMode(display=False) as counter:
                generator(*inputs, trim=generator.reach)
            operations = counter.get_total_flops()
            for kind in PRECISIONS:
                laid_out = torch.contiguous_format if "planes" in kind else torch.channels_last
                generator.to(memory_format=laid_out)
                with precision(kind):
                    torch.cuda.reset_peak_memory_stats()
                    took = seconds(lambda: generator(*inputs, trim=generator.reach), options.repeat)  # noqa: B023  # called here
                    memory = torch.cuda.max_memory_allocated() / 1e9
                worst, change = error.get(kind, ("", ""))
                rows.append({
                    "weights": name, "chunk": chunk, "precision": kind, "ms per chunk": 1e3 * took,
                    "s per tile of 10980 px": took * count, "TFLOP/s": operations / took / 1e12,
                    "share of the bf16 peak [%]": 100 * operations / took / top, "memory of the card [GB]": memory,
                    "largest change [DN]": worst, "change of RMSE [DN]": change,
                })  # fmt: skip
    report(
        f"networks on {torch.cuda.get_device_name()}", rows, **machine(), **{"peak [TFLOP/s]": top / 1e12},
        options={key: str(value) for key, value in vars(options).items()},
    )  # fmt: skip


if __name__ == "__main__":
    main()
