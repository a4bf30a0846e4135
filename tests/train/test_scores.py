"""Scores by place: relative to bicubic, after the projection, and without what is no unseen ground."""

import numpy as np
import pytest

from eosr.cube.bands import BANDS_20M
from eosr.train.data.material import from_scenes
from eosr.train.loop import build_networks
from eosr.train.outcome.export import export
from eosr.train.outcome.scores import by_group, relative, score
from train.made import made_scene, tiny_config


def scores_of(rmse):
    """Scores as `score` nests them: RMSE by scene and band, bicubic at 10 DN."""
    return {
        scene: {
            "study": {
                "synthesis": {"after": {f"B{i}": {"rmse": v, "rmse_bicubic": 10.0} for i, v in enumerate(values)}}
            }
        }
        for scene, values in rmse.items()
    }


def test_the_error_of_a_scene_is_that_of_its_bands_together_over_that_of_bicubic():
    # (2 + 4) / (10 + 10) and (6 + 6) / 20, then their mean.
    assert relative(scores_of({"one": [2.0, 4.0], "two": [6.0, 6.0]}), "study") == pytest.approx((0.3 + 0.6) / 2)


def test_scenes_of_a_place_are_one_figure_and_the_seen_image_is_not_in_the_mean():
    scenes = [
        made_scene("a1", place="a"), made_scene("a2", place="a"), made_scene("p", place="x", group="patches"),
        made_scene("block", place="v", group="sample-block"),
    ]  # fmt: skip
    scores = scores_of({"a1": [2.0], "a2": [4.0], "p": [6.0], "block": [1.0]})
    assert by_group(scores, ["study"], scenes) == {
        "study": 0.4, "study/a": 0.3, "study/patches": 0.6, "study/sample-block": 0.1,
    }  # fmt: skip


def test_a_score_counts_measured_pixels_only(tmp_path):
    """Holes of 60000 DN in a target would raise the RMSE of every band above a thousand."""
    config = tiny_config()
    measured = np.ones((48, 48), bool)
    measured[20] = False
    scene = made_scene("holes", kept_out=True, measured={20: measured})
    filled = scene.middle.copy()
    filled[:, 20] = 60000
    object.__setattr__(scene, "middle", filled)
    material = from_scenes([made_scene("other"), scene], config)
    path = export(build_networks(config, "cpu").mean, config, material, path=tmp_path / "w.safetensors")
    bands = score(path, [scene], ["box"], ["synthesis"], factor=2)["holes"]["box"]["synthesis"]["after"]
    assert set(bands) == set(BANDS_20M)
    # One row in 48 of the truth is a hole; its neighbours see it through the degradation, so "box" is asked.
    assert all(0.5 < band["coverage"] < 1 for band in bands.values())
