"""A generator comes back from its kind and its settings, and from nothing else."""

import json

import pytest

from eosr.nn.generator import BackProjectionConfig, BackProjectionGenerator
from eosr.nn.kinds import build_generator
from eosr.nn.options.study import StudyConfig, StudyGenerator


@pytest.mark.parametrize(
    "generator",
    [
        BackProjectionGenerator(BackProjectionConfig(features=8, stages=1, blocks=2)),
        StudyGenerator(StudyConfig(features=8, factor=6, targets=2, middle_guides=6, mean_shift="none")),
    ],
    ids=["back_projection", "study"],
)
def test_settings_survive_json_and_build_the_same_generator(generator):
    settings = json.loads(json.dumps(generator.settings()))
    again = build_generator(generator.kind, settings)
    assert type(again) is type(generator)
    assert again.config == generator.config
    shapes = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in again.state_dict().items()} == shapes


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown kind of generator 'gan'; this eosr knows back_projection, study"):
        build_generator("gan", {})


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="'featurs'"):
        build_generator("study", {"featurs": 8})
