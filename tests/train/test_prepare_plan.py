"""The split and the places of patches, before a pixel is read: no ground on both sides."""

import numpy as np
import pytest

from eosr.errors import TrainingError
from eosr.train.prepare.plan import plan, split
from eosr.train.prepare.sources import find_scenes
from eosr.write import to_zarr
from train.prepared import placed_scene, write_config, write_cubes


@pytest.fixture(scope="module")
def cubes(tmp_path_factory):
    return write_cubes(tmp_path_factory.mktemp("cubes"))


@pytest.fixture
def config(tmp_path, cubes):
    return lambda cubes=cubes, **changes: write_config(tmp_path / "prepare.toml", cubes, **changes)


def test_a_tile_is_on_one_side_with_all_its_images(config):
    for seed in range(8):
        settings = config(seed__5=f"seed = {seed}")
        out = split(find_scenes(settings), settings)
        assert len({name[:5] for name in out}) == 1
        assert ("33CCC-2" in out) == ("33CCC-3" in out)


def test_the_split_is_the_same_for_the_same_seed_and_another_for_another(config):
    def out_of(seed):
        settings = config(seed__5=f"seed = {seed}")
        return frozenset(split(find_scenes(settings), settings))

    assert out_of(3) == out_of(3)
    assert len({out_of(seed) for seed in range(8)}) > 1


def test_named_scenes_are_kept_out_with_all_images_of_their_tile(config):
    settings = config(**{"validation__0.3": 'names = ["33CCC-2"]'})
    assert split(find_scenes(settings), settings) == {"33CCC-2", "33CCC-3"}


def test_by_geography_whole_cells_of_a_grid_are_kept_out(config):
    """The scenes lie at 11.54, 11.92 and 12.30 degrees east: cells of 1 degree hold the first two and the last two."""
    settings = config(**{"validation__0.3": 'by = "geography"\ndegrees = 1.0\nvalidation = 0.5'})
    scenes = find_scenes(settings)
    east = {one.name: int(one.ground.longitude) for one in scenes}
    assert east == {"31AAA-0": 11, "32BBB-1": 11, "33CCC-2": 12, "33CCC-3": 12}
    assert split(scenes, settings) in ({"31AAA-0", "32BBB-1"}, {"33CCC-2", "33CCC-3"})
    wide = config(**{"validation__0.3": 'by = "geography"\ndegrees = 20.0\nvalidation = 0.5'})
    with pytest.raises(TrainingError, match="all 4 scenes are kept out"):
        plan(scenes, wide)


def test_patches_on_ground_of_a_scene_that_is_kept_out_are_left_out(config, tmp_path):
    """Two tiles that overlap by 1000 m, as neighbouring ones do: squares that begin in their last columns go."""
    for number, tile in enumerate(("34DDD", "35EEE")):
        # 216 columns of 10 m, the second scene starts 116 columns later.
        to_zarr(placed_scene(1.16 * number, seed=number, item_ids=[tile], tile=tile), tmp_path / f"{number}.zarr")
    small = {"patch__72": "patch = 36", "margin__36": "margin = 0", "per_scene__20": "per_scene = 100"}
    settings = config(tmp_path, **small, **{"validation__0.3": 'names = ["35EEE"]'})
    one, out = plan(find_scenes(settings), settings)
    assert (one.kind, out.kind, one.drawn, out.scene.name) == ("scenes", "validation", 100, "35EEE")
    assert 20 < len(one.places) < 80
    assert (one.places[:, 1] + 36 <= 116).all()
    assert one.steps == len(one.places)
    alone = config(tmp_path, **small, **{"*.zarr": "0.zarr", "validation__0.3": "validation = 0.0"})
    (before,) = plan(find_scenes(alone), alone)
    lost = {tuple(place) for place in before.places.tolist()} - {tuple(place) for place in one.places.tolist()}
    assert all(column + 36 > 116 for _, column in lost), "no other is left out"


def test_without_a_tile_in_the_files_images_of_one_place_are_on_one_side(config, tmp_path):
    for number in range(3):
        to_zarr(placed_scene(30 * (number == 2), seed=number, item_ids=[f"s{number}"]), tmp_path / f"{number}.zarr")
    settings = config(tmp_path, **{"validation__0.3": 'names = ["s0"]'})
    with pytest.raises(TrainingError, match="all 3 scenes are kept out"):  # of one cell of 1 degree
        plan(find_scenes(settings), settings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch__72": "patch = 252"}, r"\d\d[A-C]{3}-\d has 240 x 216 pixels of 10 m, a patch with its margin 324"),
        ({"validation__0.3": "validation = 1.0"}, r"all 4 scenes are kept out for validation\. Add scenes of other"),
        ({"validation__0.3": 'names = ["34"]'}, r"\[split\] names 34, which no scene is called\. Correct the line"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_before_anything_is_written(change, said, config):
    settings = config(**change)
    with pytest.raises(TrainingError, match=said):
        plan(find_scenes(settings), settings)


def test_places_are_in_phase_and_the_same_again(config):
    settings = config()
    first, second = (plan(find_scenes(settings), settings) for _ in range(2))
    assert [job.scene.name for job in first] == [job.scene.name for job in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.places, other.places)
        assert (one.places % 6 == 0).all()
