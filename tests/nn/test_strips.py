"""Strips of rows against whole layers: without gradients on the CPU the answer is the one that is trained."""

import pytest
import torch

from eosr.nn import strips
from nn.made import inputs_of, small_generator

torch.set_num_threads(1)


def both(generator, inputs, trim):
    """The answers of strips and of whole layers, in float64: they differ in nothing but the order of sums."""
    generator.double()
    inputs = {name: None if tensor is None else tensor.double() for name, tensor in inputs.items()}
    given = {name: None if tensor is None else tensor.clone() for name, tensor in inputs.items()}
    with torch.inference_mode():
        by_strips = generator(**inputs, trim=trim)
    for name, tensor in given.items():
        assert tensor is None or torch.equal(inputs[name], tensor), f"{name} was changed"
    with torch.enable_grad():
        whole = generator(**inputs, trim=trim)
    rows, columns = (slice(trim, size - trim) for size in whole.shape[2:])
    return by_strips[..., rows, columns], whole[..., rows, columns]


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("strip", [1, 7 * 60, 10**6], ids=["four rows", "seven rows", "one strip"])
def test_strips_give_the_answer_of_whole_layers(monkeypatch, factor, stages, blocks, strip):
    monkeypatch.setattr(strips, "STRIP", strip)
    generator = small_generator(factor, stages=stages, blocks=blocks)
    by_strips, whole = both(generator, inputs_of(generator, 120), trim=0)
    torch.testing.assert_close(by_strips, whole, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("factor", [2, 6])
@pytest.mark.parametrize("trim", ["a third of the reach", "the reach", "twice the reach"])
def test_a_trimmed_answer_is_the_same_inside(monkeypatch, factor, trim):
    monkeypatch.setattr(strips, "STRIP", 1)
    generator = small_generator(factor, stages=3, blocks=2)
    pixels = generator.reach * {"a third of the reach": 1, "the reach": 3, "twice the reach": 6}[trim] // 18 * 6
    by_strips, whole = both(generator, inputs_of(generator, 4 * generator.reach // 6 * 6 + 60), pixels)
    assert min(whole.shape[2:]) > 0
    torch.testing.assert_close(by_strips, whole, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("size", [6, 12, 18])
def test_images_of_fewer_rows_than_a_strip_keeps(monkeypatch, size):
    monkeypatch.setattr(strips, "STRIP", 1)
    generator = small_generator(2, stages=2, blocks=3)
    by_strips, whole = both(generator, inputs_of(generator, size), trim=0)
    torch.testing.assert_close(by_strips, whole, atol=1e-9, rtol=1e-9)


def test_a_batch_is_sharpened_sample_by_sample():
    generator = small_generator(2)
    one, two = inputs_of(generator, 60), inputs_of(generator, 60, seed=1, sigma=0.2)
    joined = {name: None if one[name] is None else torch.cat([one[name], two[name]]) for name in one}
    with torch.inference_mode():
        apart = torch.cat([generator(**one), generator(**two)])
        torch.testing.assert_close(generator(**joined), apart, atol=1e-5, rtol=1e-5)
