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


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_smallest_image_of_a_patch_discriminator_leaves_one_logit(stages):
    """3 * 2^stages pixels: 3 after the halvings, 2 after the layer of stride 1, 1 after the last."""
    judge = build_discriminator(DiscriminatorConfig(kind="patch", bands=1, condition=0, features=2, stages=stages))
    least = least_side("patch", stages)
    assert judge(torch.rand(1, 1, least, least), None).shape == (1, 1, 1, 1)
    smaller = torch.rand(1, 1, least - 1, least - 1)
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        judge.last(judge.layers(smaller))


@pytest.mark.parametrize(
    ("kind", "stages", "field"), [("patch", 3, 70), ("patch", 1, 16), ("vgg", 3, 45), ("vgg", 1, 9)]
)
def test_the_receptive_field_is_that_of_the_gradient(kind, stages, field):
    """Of pix2pix's PatchGAN 70; each 4 x 4 layer adds 3 steps between its inputs, each 3 x 3 layer 2."""
    torch.manual_seed(0)
    judge = build_discriminator(
        DiscriminatorConfig(kind=kind, bands=1, condition=0, features=4, stages=stages)
    ).double()
    image = torch.rand(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    seen = judge.layers(image)
    if kind == "patch":
        seen = judge.last(seen)
    middle = seen.shape[-1] // 2
    seen[0, :, middle, middle].sum().backward()
    places = (image.grad[0, 0] != 0).nonzero()
    assert (places.max(0).values - places.min(0).values + 1).tolist() == [field, field]
    assert judge.receptive_field == field


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_the_state_of_spectral_norm_follows_the_weights_not_the_images_and_only_in_training(kind):
    torch.manual_seed(0)
    config = DiscriminatorConfig(kind=kind, bands=2, condition=0, features=4, stages=1, spectral_norm=True)
    one = build_discriminator(config).train()
    other = build_discriminator(config).train()
    other.load_state_dict(one.state_dict())
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    one(torch.rand(1, 2, 8, 8), None)
    other(torch.rand(3, 2, 12, 12), None)
    after = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in after.items()), "as two ranks would"
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.endswith(("._u", "._v")) for name in moved)
    one.eval()(torch.rand(1, 2, 8, 8), None)
    assert all(torch.equal(tensor, after[name]) for name, tensor in one.state_dict().items())


def test_what_no_discriminator_can_be_made_of_is_refused():
    for key in ("bands", "features", "stages"):
        with pytest.raises(ValueError, match=f"with {key} = 0 cannot be built; give 1 or more"):
            build_discriminator(DiscriminatorConfig(kind="patch", **{key: 0}))


def test_other_bands_than_it_was_made_for_are_refused():
    judge = build_discriminator(DiscriminatorConfig(bands=2, condition=1, features=4, stages=1))
    with pytest.raises(ValueError, match="judges 2 bands beside 1; it was given 3 beside 1"):
        judge(torch.rand(1, 3, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="judges 2 bands beside 1; it was given 2 beside 4"):
        judge(torch.rand(1, 2, 8, 8), torch.rand(1, 4, 8, 8))


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
