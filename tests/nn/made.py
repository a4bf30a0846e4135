"""What the tests of eosr.nn share: small generators with random weights, and how far an output pixel really sees."""

from collections.abc import Iterable

import torch
from torch import nn

from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from eosr.nn.weights import Normalization, Provenance, Weights

FINE, MIDDLE = ("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A", "B11", "B12")


def small_generator(factor=2, *, seed=0, **settings) -> BackProjectionGenerator:
    """An ordinary generator, narrow, whose every weight counts."""
    torch.manual_seed(seed)
    settings = {"features": 8, "blocks": 1, "stages": 2} | settings
    if factor == 6:
        settings = {"targets": 2, "middle_guides": 6} | settings
    generator = BackProjectionGenerator(BackProjectionConfig(factor=factor, **settings))
    return scatter(generator).eval().requires_grad_(False)


def scatter(generator: nn.Module, spread=0.2) -> nn.Module:
    for parameter in generator.parameters():
        nn.init.normal_(parameter, 0, spread)
    return generator


def inputs_of(generator: nn.Module, size: int, *, seed=0, sigma=0.6) -> dict:
    """Random inputs of ``size`` x ``size`` fine pixels, by argument name."""
    torch.manual_seed(seed)
    config = generator.config
    coarse = size // config.factor
    return {
        "fine": torch.rand(1, config.fine_guides, size, size),
        "coarse": torch.rand(1, config.targets, coarse, coarse),
        "sigma": torch.full((1, config.targets), sigma * config.factor),
        "middle": torch.rand(1, config.middle_guides, size // 2, size // 2) if config.middle_guides else None,
    }


def farthest_pixel_that_counts(generator: nn.Module, *, phases: Iterable[int], size: int) -> int:
    """Largest distance [fine pixels] from an output pixel to an input pixel with a gradient, over phases."""
    generator.requires_grad_(False)
    farthest = 0
    for phase in phases:
        inputs = inputs_of(generator, size, seed=phase)
        steps = {"fine": 1, "coarse": generator.config.factor, "middle": 2}
        seen = {name: inputs[name].requires_grad_() for name in steps if inputs[name] is not None}
        pixel = size // 12 * 6 + phase
        generator(**inputs)[0, :, pixel, pixel].sum().backward()
        for name, tensor in seen.items():
            counts = (tensor.grad.abs().sum((0, 1)) > 0).nonzero()
            first = counts.min(0).values.min().item() * steps[name]
            last = (counts.max(0).values.max().item() + 1) * steps[name] - 1
            farthest = max(farthest, pixel - first, last - pixel)
    return farthest


def small_weights(generator=None, *, name="tiny", bfloat16_error=0.5) -> Weights:
    """A whole `Weights` around a small generator."""
    generator = small_generator() if generator is None else generator
    two = generator.config.factor == 2
    return Weights(
        name=name,
        generator=generator,
        normalization=Normalization(
            fine_bands=FINE, middle_bands=() if two else MIDDLE, target_bands=MIDDLE if two else ("B01", "B09"),
            scale=2000.0,
        ),
        provenance=Provenance(
            software="eosr 0.1.0 abc", data={"pack.npz": "00ff"}, seed=7, steps=6, scores={"study/block": 12.5},
            bfloat16_error=bfloat16_error,
        ),
        levels=("L1C", "L2A"),
        degradations=("study", "box"),
    )  # fmt: skip
