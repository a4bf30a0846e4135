"""Between two generators: exact at both ends, the mean in the middle, with the history of both, or refused."""

from dataclasses import replace

import pytest
import torch

from eosr.errors import WeightsError
from eosr.nn.interpolation import interpolate
from eosr.nn.kinds import build_generator
from eosr.nn.options.study import StudyConfig, StudyGenerator
from eosr.nn.weights import load_weights, save_weights
from nn.made import inputs_of, scatter, small_generator, small_weights

torch.set_num_threads(1)


def trained_on(weights, *, seed=1):
    """The same network with other tensors."""
    other = build_generator(weights.generator.kind, weights.generator.settings())
    torch.manual_seed(seed)
    return replace(weights, name="tiny-gan", generator=scatter(other).eval())


@pytest.fixture
def both():
    first = small_weights()
    return first, trained_on(first)


def tensors(weights):
    return weights.generator.state_dict()


def refusal(*arguments) -> str:
    with pytest.raises(WeightsError) as caught:
        interpolate(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("generator", [small_generator(), scatter(StudyGenerator(StudyConfig(features=8, blocks=1)))])
def test_the_ends_are_the_two_generators_bit_for_bit(generator):
    first = small_weights(generator)
    second = trained_on(first)
    inputs = inputs_of(generator, 48)
    for share, end in ((0, first), (1, second)):
        mixed = interpolate(first, second, share)
        assert all(torch.equal(tensor, tensors(end)[name]) for name, tensor in tensors(mixed).items())
        with torch.no_grad():
            assert torch.equal(mixed.generator(**inputs), end.generator.eval()(**inputs))


def test_every_tensor_is_the_weighted_mean_rounded_once(both):
    first, second = both
    mixed = tensors(interpolate(first, second, 0.3))
    assert list(mixed) == list(tensors(first))
    for name, tensor in mixed.items():
        expected = 0.7 * tensors(first)[name].double() + 0.3 * tensors(second)[name].double()
        assert torch.equal(tensor, expected.float()), name
        assert not torch.equal(tensor, tensors(first)[name]), name


def test_a_quarter_of_the_way_by_hand(both):
    """0.75 * 1 + 0.25 * 5 = 2."""
    first, second = both
    for weights, value in ((first, 1.0), (second, 5.0)):
        for parameter in weights.generator.parameters():
            torch.nn.init.constant_(parameter, value)
    mixed = interpolate(first, second, 0.25)
    assert not mixed.generator.training, "ready to run"
    assert all((parameter == 2).all() and not parameter.requires_grad for parameter in mixed.generator.parameters())


def test_neither_of_the_two_is_changed_nor_shared(both):
    before = [{name: tensor.clone() for name, tensor in tensors(weights).items()} for weights in both]
    mixed = interpolate(*both, 0.5)
    with torch.no_grad():
        for parameter in mixed.generator.parameters():
            parameter.zero_()
    for weights, copies in zip(both, before, strict=True):
        assert all(torch.equal(tensor, copies[name]) for name, tensor in tensors(weights).items())


def test_the_file_names_both_and_claims_no_scores(both, tmp_path):
    first, second = (load_weights(save_weights(weights, tmp_path / f"{weights.name}.safetensors")) for weights in both)
    mixed = load_weights(save_weights(interpolate(first, second, 0.3), tmp_path / "mixed.safetensors"))
    assert mixed.name == "tiny-gan-0.3"
    assert f"0.7 of tiny ({first.checksum}) and 0.3 of tiny-gan ({second.checksum})" in mixed.provenance.software
    assert mixed.provenance.scores == {}
    assert mixed.provenance.bfloat16_error == float("inf"), "nobody has measured it"
    assert (mixed.provenance.seed, mixed.provenance.steps) == (7, 6)
    assert mixed.normalization == first.normalization


def test_the_data_of_both_are_named_and_another_file_of_the_same_name_is_kept(both):
    first, second = both
    other = replace(second.provenance, data={"pack.npz": "11aa", "gan.zarr": "22bb"}, seed=8, steps=99)
    mixed = interpolate(first, replace(second, provenance=other), 0.5).provenance
    assert mixed.data == {"pack.npz": "00ff", "pack.npz (tiny-gan)": "11aa", "gan.zarr": "22bb"}
    assert (mixed.seed, mixed.steps) == (8, 99)
    assert "(never written)" in mixed.software
    same = interpolate(first, second, 0.5).provenance
    assert same.data == {"pack.npz": "00ff"}


def test_levels_and_operators_are_those_that_both_serve(both):
    first, second = both
    narrow = replace(second, levels=("L1C",), degradations=("box", "mtf"))
    mixed = interpolate(first, narrow, 0.5)
    assert (mixed.levels, mixed.degradations) == (("L1C",), ("box",))
    silent = replace(second, levels=(), degradations=())
    mixed = interpolate(first, silent, 0.5)
    assert (mixed.levels, mixed.degradations) == (first.levels, first.degradations), "an empty one restricts nothing"
    text = refusal(first, replace(second, degradations=("mtf",)), 0.5)
    assert "their degradations are study, box and mtf. Give two that have one in common." in text


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_share_outside_is_refused(both, share):
    assert refusal(*both, share) == (
        f"share {share!r} does not lie between two weights files. Give a number from 0 to 1."
    )


def test_another_network_is_refused_with_what_differs(both):
    first, _ = both
    study = small_weights(scatter(StudyGenerator(StudyConfig(features=8, blocks=1))), name="s2x")
    assert "'tiny' and 's2x' cannot be interpolated: the one is a back_projection, the other a study. Give two " in (
        refusal(first, study, 0.5)
    )
    wide = small_weights(small_generator(features=12), name="wide")
    assert "in their configuration, features is 8 and 12. " in refusal(first, wide, 0.5)


def test_another_normalisation_is_refused_with_what_differs(both):
    first, second = both
    for key, value, said in (
        ("scale", 10000.0, "scale is 2000.0 and 10000.0"),
        ("fine_bands", ("B04", "B03", "B02", "B08"), "fine_bands is ('B02', 'B03', 'B04', 'B08') and ('B04', "),
    ):
        other = replace(second, normalization=replace(second.normalization, **{key: value}))
        assert f"in their normalisation, {said}" in refusal(first, other, 0.5)
