"""S2x and S6x: their size, their reach, and the two ways to shift a mean."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from eosr.errors import WeightsError
from eosr.nn.options.study import StudyConfig, StudyGenerator
from nn.made import farthest_pixel_that_counts, inputs_of, scatter

torch.set_num_threads(1)
SIXTY = {"factor": 6, "targets": 2, "middle_guides": 6}


def small(**settings):
    torch.manual_seed(0)
    generator = scatter(StudyGenerator(StudyConfig(**{"features": 16, "scaling": 1.0} | settings)), 0.05)
    nn.init.ones_(generator.attention.gamma)
    return generator.requires_grad_(False)


@pytest.mark.parametrize(
    ("settings", "count", "means"),
    [({}, 1_843_303, 10), (SIXTY, 1_857_507, 12), ({"fusion": 3}, 2_105_447, 10)],
    ids=["S2x", "S6x", "S2x with 3 x 3 fusion"],
)
def test_parameter_counts_are_those_of_the_reconstruction(settings, count, means):
    generator = StudyGenerator(StudyConfig(**settings))
    held = {name: p.numel() for name, p in generator.named_parameters()}
    assert sum(n for name, n in held.items() if not name.startswith("means")) == count
    assert sum(n for name, n in held.items() if name.startswith("means")) == means


@pytest.mark.parametrize(
    "settings", [{"blocks": 2}, {"blocks": 1, "fusion": 3, "margin": 12}, SIXTY | {"blocks": 1}, {}, SIXTY], ids=str
)
def test_reach_is_exactly_enough(settings):
    """No pixel beyond reach has a gradient; some pixel within one block of it has: reach is rounded up to blocks."""
    generator = small(**settings)
    reach = generator.reach
    size = -(-(2 * reach + 24) // 12) * 12
    farthest = farthest_pixel_that_counts(generator, phases=range(6), size=size)
    assert reach - 6 < farthest <= reach
    assert reach % 6 == 0


def test_the_mean_of_a_patch_as_shift_depends_on_the_tile_so_it_declares_no_reach():
    generator = small(mean_shift="patch", blocks=1)
    inputs = inputs_of(generator, 48)
    before = generator(**inputs)[0, :, 0, 0]
    inputs["fine"][..., -1, -1] += 50
    assert (generator(**inputs)[0, :, 0, 0] - before).abs().max() > 1e-4
    with pytest.raises(WeightsError, match=r"sees the whole tile.*Retrain it with mean_shift='fixed'"):
        _ = generator.reach


def test_an_unknown_mean_shift_is_refused():
    with pytest.raises(ValueError, match="mean_shift 'tile' is not one of 'fixed', 'patch', 'none'"):
        StudyGenerator(StudyConfig(mean_shift="tile"))


def test_fixed_means_take_out_a_constant_and_the_skip_puts_it_back():
    """Inputs and means raised by 5 give the answer raised by 5."""
    generator = small(blocks=1)
    inputs = inputs_of(generator, 24)
    before = generator(**inputs)
    for mean in generator.means:
        mean += 5
    raised = {name: t if name == "sigma" or t is None else t + 5 for name, t in inputs.items()}
    torch.testing.assert_close(generator(**raised), before + 5, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, SIXTY])
def test_an_untrained_generator_is_close_to_bilinear(settings):
    torch.manual_seed(0)
    generator = StudyGenerator(StudyConfig(**settings, features=16)).requires_grad_(False)
    inputs = inputs_of(generator, 48)
    bilinear = functional.interpolate(inputs["coarse"], scale_factor=generator.config.factor, mode="bilinear")
    assert 0 < (generator(**inputs) - bilinear).abs().max() < 0.05


def test_every_band_counts():
    generator = small(**SIXTY, blocks=1)
    inputs = inputs_of(generator, 24)
    names = ("fine", "coarse", "middle")
    for name in names:
        inputs[name].requires_grad_()
    generator(**inputs).sum().backward()
    for name in names:
        assert (inputs[name].grad.abs().sum((0, 2, 3)) > 0).all(), name
