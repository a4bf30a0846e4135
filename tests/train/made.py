"""What the tests of eosr.train share: synthetic scenes whose bands share edges, tiny configurations, packs on disk."""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from eosr.nn.generator import BackProjectionConfig
from eosr.train.data.material import from_scenes
from eosr.train.data.scenes import PACKS, Scene
from eosr.train.data.windows import WindowConfig
from eosr.train.loop import Outcome, train
from eosr.train.ranks.communicator import Alone
from eosr.train.settings.schema import AdversarialConfig, TrainConfig, ValidationConfig


def bands_of_ground(size, seed=0):
    """10 m, 20 m and 60 m bands [DN] of one ground of ``size`` 10 m pixels."""
    rng = np.random.default_rng(seed)
    ground = gaussian_filter(rng.standard_normal((size, size)), 1.5)
    ground = (ground / ground.std()).astype(np.float32)

    def seen(count, step, level):
        coarse = ground.reshape(size // step, step, size // step, step).mean(axis=(1, 3))
        return np.stack([level + 200 * k + (500 + 60 * k) * coarse for k in range(count)]).clip(1)

    return seen(4, 1, 2500), seen(6, 2, 2800), seen(2, 6, 2200)


def made_scene(name="made", *, size=96, seed=0, kept_out=False, usable=None, with_60m=True, **more) -> Scene:
    fine, middle, coarse = bands_of_ground(size, seed)
    usable = np.ones((size, size), bool) if usable is None else usable
    return Scene(
        name=name, level="L2A", fine=fine, middle=middle, coarse=coarse if with_60m else None, usable=usable,
        kept_out=kept_out, **more,
    )  # fmt: skip


def tiny_config(factor=2, *, window=None, validation=None, adversarial=None, **settings) -> TrainConfig:
    """One block of 8 features, six steps, a state every two."""
    shape = {} if factor == 2 else {"targets": 2, "middle_guides": 6}
    generator = BackProjectionConfig(factor=factor, features=8, stages=1, blocks=1, **shape)
    values = {"name": "tiny", "seed": 3, "steps": 6, "float32_steps": 2, "batch": 2, "warmup": 2, "every": 2}
    return TrainConfig(
        **(values | settings), generator=generator,
        window=WindowConfig(**({"factor": factor, "size": 24, "rim": 4} | (window or {}))),
        validation=ValidationConfig(**({"properties": ("synthesis",)} | (validation or {}))),
        adversarial=AdversarialConfig(**(adversarial or {})),
    )  # fmt: skip


def train_alone(config, scenes, folder, **how) -> Outcome:
    """Train on scenes in memory, on one process."""
    device = torch.device("cpu")
    return train(config, from_scenes(scenes, config), folder, communicator=Alone(), device=device, **how)


def write_packs(folder: Path) -> Path:
    """Tiny stand-ins of all training packs: eight patches of eight acquisitions, larger scenes, scenes with holes."""
    patches = [bands_of_ground(120, seed) for seed in range(8)]
    fine, middle, coarse = (np.stack([p[k] for p in patches]).astype(np.uint16) for k in range(3))
    acquisition = np.array([f"S2A_MSIL2A_2018010{k}T101010" for k in range(8)])
    patch = np.array([f"{name}_1_1" for name in acquisition])
    cover = np.array(["land"] * 7 + ["bright/cloud/snow"])
    for seed, pack in enumerate(PACKS):
        path = folder / pack.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if pack is PACKS[0]:
            np.savez(path, x10=fine, x20=middle, x60=coarse, acquisition=acquisition, patch=patch, cover=cover)
            continue
        bands = [image.astype(np.uint16) for image in bands_of_ground(120, seed)]
        bands[0][0] = bands[0][0].clip(None, 1500)  # blue above 1700 is taken for cloud
        arrays = dict(zip(("x10", "x20", "x60"), bands, strict=True))
        if "/" in pack.file:
            arrays |= {"m20": np.ones((60, 60), bool), "m60": np.ones((20, 20), bool)}
            arrays["m20"][7], arrays["m60"][3] = False, False
        if pack.place == "zurich":
            del arrays["x60"]
        if pack.without_60m:
            arrays = {key: np.stack([image, image]) for key, image in arrays.items()}
        np.savez(path, **arrays)
    return folder
