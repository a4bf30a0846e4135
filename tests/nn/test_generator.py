"""The default generator: what it is before training, how far it sees, how large it is."""

import pytest
import torch
from torch.nn import functional

from eosr.cube.degradation import kernel_taps
from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from nn.made import farthest_pixel_that_counts, inputs_of, scatter, small_generator

torch.set_num_threads(1)
SIXTY = {"factor": 6, "targets": 2, "middle_guides": 6}


def back_projected(coarse, sigma, factor, stages):
    """Plain back-projection of the bilinear guess, written with dense two-dimensional convolutions."""
    bands = []
    for band, blur in zip(coarse[0], sigma[0].tolist(), strict=True):
        row = torch.from_numpy(kernel_taps(factor, blur, radius=factor)).float()
        kernel = torch.outer(row, row)[None, None]
        measured = band[None, None]
        guess = functional.interpolate(measured, scale_factor=factor, mode="bilinear", align_corners=False)
        for _ in range(stages):
            padded = functional.pad(guess, (factor,) * 4, mode="replicate")
            residual = measured - functional.conv2d(padded, kernel, stride=factor)
            spread = functional.conv_transpose2d(residual, kernel, stride=factor)
            guess = guess + factor**2 * spread[..., factor:-factor, factor:-factor]
        bands.append(guess[0, 0])
    return torch.stack(bands)[None]


@pytest.mark.parametrize("settings", [{"factor": 2}, SIXTY])
def test_an_untrained_generator_is_plain_back_projection_of_the_bilinear_guess(settings):
    torch.manual_seed(0)
    generator = BackProjectionGenerator(BackProjectionConfig(**settings, features=8))
    inputs = inputs_of(generator, 120)
    expected = back_projected(inputs["coarse"], inputs["sigma"], generator.config.factor, generator.config.stages)
    with torch.no_grad():
        answer = generator(**inputs)
    inside = (..., slice(36, -36), slice(36, -36))  # the dense form has no continuation at the border
    torch.testing.assert_close(answer[inside], expected[inside], atol=1e-5, rtol=1e-5)
    bilinear = functional.interpolate(inputs["coarse"], scale_factor=generator.config.factor, mode="bilinear")
    assert (answer - bilinear)[inside].abs().max() > 0.05


@pytest.mark.parametrize(
    "settings",
    [
        {"factor": 2},
        {"factor": 2, "stages": 1, "blocks": 1},
        {"factor": 2, "stages": 2, "blocks": 4},
        {"factor": 2, "stages": 6, "blocks": 1},
        SIXTY,
        SIXTY | {"stages": 1, "blocks": 1},
        SIXTY | {"stages": 2, "blocks": 2},
        SIXTY | {"stages": 5, "blocks": 1},
    ],
)
def test_reach_is_exactly_enough(settings):
    """No pixel beyond reach has a gradient; some pixel within one coarse pixel of it has: reach is rounded up to it."""
    torch.manual_seed(0)
    generator = scatter(BackProjectionGenerator(BackProjectionConfig(**settings, features=8)))
    factor, reach = generator.config.factor, generator.reach
    size = -(-(2 * reach + 24) // 12) * 12
    farthest = farthest_pixel_that_counts(generator, phases=range(factor), size=size)
    assert reach - factor < farthest <= reach
    assert reach % factor == 0


def test_a_tile_cut_with_reach_gives_the_pixels_of_the_whole_scene():
    """What reach is for; aligned to coarse pixels, as tiles are."""
    generator = small_generator(6)
    inputs, r = inputs_of(generator, 240), generator.reach
    whole = generator(**inputs)[..., 96:144, 96:144]
    first, last = 96 - r, 144 + r
    part = {
        name: tensor if name == "sigma" else tensor[..., first // k : last // k, first // k : last // k]
        for name, tensor, k in ((n, inputs[n], k) for n, k in (("fine", 1), ("coarse", 6), ("sigma", 1), ("middle", 2)))
    }
    torch.testing.assert_close(generator(**part)[..., r:-r, r:-r], whole, atol=1e-4, rtol=1e-5)


def test_the_shipped_shape_has_the_number_of_parameters_worked_out_by_hand():
    """Three stages, each: enter 52 -> 64 (3x3), three blocks 64 -> 128 (3x3) -> 64 (1x1), leave 64 -> 24 (1x1)."""
    enter = (4 * (4 + 6) + 2 * 6) * 64 * 9 + 64
    block = (64 * 128 * 9 + 128) + (128 * 64 + 64)
    leave = 64 * 24 + 24
    generator = BackProjectionGenerator(BackProjectionConfig())
    assert sum(p.numel() for p in generator.parameters()) == 3 * (enter + 3 * block + leave) == 833_736


def test_the_generator_listens_to_the_blur_it_is_told():
    generator = small_generator()
    sharp, wide = (generator(**inputs_of(generator, 48, sigma=sigma)) for sigma in (0.0, 0.5))
    assert (sharp - wide).abs().max() > 1e-2


def test_every_band_counts():
    """A band that is cut off by a wrong channel order or count would have no gradient."""
    generator = small_generator(6)
    inputs = inputs_of(generator, 48)
    for name in ("fine", "coarse", "middle"):
        inputs[name].requires_grad_()
    generator(**inputs).sum().backward()
    for name in ("fine", "coarse", "middle"):
        assert (inputs[name].grad.abs().sum((0, 2, 3)) > 0).all(), name


def test_an_answer_keeps_more_than_bfloat16_digits_under_autocast():
    """The skip and the projection stay float32: 4000 DN come in steps of 16 in bfloat16."""
    generator = small_generator(seed=3)
    for stage in generator.stages:
        stage.leave.weight.mul_(1e-3)
        stage.leave.bias.zero_()
    inputs = inputs_of(generator, 48)
    inputs["coarse"] += 2
    exact = generator(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = generator(**inputs)
    assert reduced.dtype == torch.float32
    assert 0 < (reduced - exact).abs().max() < 2e-3 < 2 * 2**-8
