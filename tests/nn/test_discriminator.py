"""Discriminators: their size, that samples do not mix, that any size goes, and what is refused."""

import pytest
import torch
from torch import nn

from eosr.nn.discriminator import DISCRIMINATORS, DiscriminatorConfig, build_discriminator, least_side

torch.set_num_threads(1)
#: Of the study's S2x, which the discriminator should not outgrow.
GENERATOR = 1_843_303


def conv(entering, leaving, side):
    return entering * leaving * side**2 + leaving


def test_the_default_has_the_parameters_of_its_layers_and_fewer_than_the_generator():
    """10 -> 48; (48 -> 96, 96), (96 -> 192, 192), (192 -> 192, 192) of 3 x 3; 192 -> 1 without bias."""
    expected = conv(10, 48, 3) + conv(48, 96, 3) + conv(96, 96, 3) + conv(96, 192, 3) + 3 * conv(192, 192, 3) + 192
    assert build_discriminator(DiscriminatorConfig()).parameters_count == expected == 1_291_152 < GENERATOR


def test_the_patch_discriminator_has_the_parameters_of_its_layers():
    expected = conv(10, 48, 4) + conv(48, 96, 4) + conv(96, 192, 4) + conv(192, 192, 4) + 192 * 16
    assert build_discriminator(DiscriminatorConfig(kind="patch")).parameters_count == expected == 969_744


@pytest.mark.parametrize("kind", DISCRIMINATORS)
@pytest.mark.parametrize("spectral", [False, True])
def test_samples_do_not_mix_and_any_size_goes(kind, spectral):
    torch.manual_seed(0)
    config = DiscriminatorConfig(kind=kind, bands=2, condition=1, features=4, stages=2, spectral_norm=spectral)
    judge = build_discriminator(config).eval()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in judge.modules())
    least = least_side(kind, 2)
    for size in ((least, least), (least + 5, least + 12)):
        bands, condition = torch.rand(3, 2, *size), torch.rand(3, 1, *size)
        logits = judge(bands, condition)
        assert logits.shape[0] == 3
        assert logits.ndim == (1 if kind == "vgg" else 4)
        torch.testing.assert_close(judge(bands[1:2], condition[1:2]), logits[1:2])
    with pytest.raises(ValueError, match=rf"pixels is too small for 2 stages; give {least}"):
        judge(bands[..., : least - 1], condition[..., : least - 1])


def test_the_condition_counts_and_must_be_there():
    torch.manual_seed(0)
    judge = build_discriminator(DiscriminatorConfig(bands=2, condition=1, features=4, stages=1))
    bands = torch.rand(2, 2, 8, 8)
    assert not torch.equal(judge(bands, torch.zeros(2, 1, 8, 8)), judge(bands, torch.ones(2, 1, 8, 8)))
    with pytest.raises(ValueError, match="judges beside 1 bands; give it that as its condition"):
        judge(bands, None)
    alone = build_discriminator(DiscriminatorConfig(bands=2, condition=0, features=4, stages=1))
    assert alone(bands, None).shape == (2,)
    with pytest.raises(ValueError, match="judges beside nothing"):
        alone(bands, bands)


def test_spectral_norm_makes_the_largest_singular_value_of_a_layer_one():
    torch.manual_seed(0)
    config = DiscriminatorConfig(bands=2, condition=0, features=4, stages=1, spectral_norm=True)
    judge = build_discriminator(config).train()
    for _ in range(60):
        judge(torch.rand(1, 2, 8, 8), None)
    judge.eval()
    for layer in (judge.layers[0], judge.layers[2], judge.last):
        matrix = layer.weight.flatten(1)
        assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(1, abs=0.02)
    twin = build_discriminator(config).eval()
    twin.load_state_dict(judge.state_dict())
    bands = torch.rand(1, 2, 8, 8)
    assert torch.equal(twin(bands, None), judge(bands, None)), "the state holds the vectors of the power iteration"


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown kind of discriminator 'unet'; this eosr knows vgg, patch"):
        build_discriminator(DiscriminatorConfig(kind="unet"))
