"""Places of patches: in phase, inside, reproducible; and the rules of the filter one by one."""

import numpy as np
import pytest

from eosr.errors import GridError
from eosr.patches import PatchFilter, patch_places, why_rejected

WHERE = {"patch": 36, "margin": 36, "seed": 3, "name": "scene"}


def test_places_are_in_phase_inside_and_not_twice():
    places = patch_places(300, 240, count=50, **WHERE)
    assert places.shape == (50, 2)
    assert (places % 6 == 0).all()
    assert len(np.unique(places, axis=0)) == 50
    assert (places >= 36).all()
    assert (places + 36 + 36 <= (300, 240)).all()
    assert (np.diff(places[:, 0]) >= 0).all(), "from the top down"
    assert places[:, 0].max() - places[:, 0].min() > 150, "spread over the scene"


def test_the_same_seed_and_scene_give_the_same_places_and_others_give_others():
    first = patch_places(300, 240, count=50, **WHERE)
    np.testing.assert_array_equal(first, patch_places(300, 240, count=50, **WHERE))
    for change in ({"seed": 4}, {"name": "other"}):
        assert not np.array_equal(first, patch_places(300, 240, count=50, **WHERE | change))


def test_without_a_count_cores_lie_side_by_side():
    """(180 - 72) / 36 = 3 rows and (150 - 72) // 36 = 2 columns."""
    places = patch_places(180, 150, count=None, **WHERE)
    assert places.tolist() == [[r, c] for r in (36, 72, 108) for c in (36, 72)]


def test_where_there_are_fewer_places_than_wanted_all_are_taken():
    """(120 - 108) / 6 + 1 = 3 rows, (114 - 108) / 6 + 1 = 2 columns."""
    assert len(patch_places(120, 114, count=1000, **WHERE)) == 6


def test_a_scene_smaller_than_a_patch_with_its_margin_is_refused():
    with pytest.raises(
        GridError, match=r"scene has 300 x 102 pixels of 10 m, a patch with its margin 108\. Give a smaller"
    ):
        patch_places(300, 102, count=5, **WHERE)


def bands(**changes):
    images = {name: np.arange(1, 37, dtype=np.uint16).reshape(6, 6) for name in ("B02", "B05")}
    for name, (place, value) in changes.items():
        images[name][place] = value
    return images


@pytest.mark.parametrize(
    ("images", "cloudy", "kept", "reason"),
    [
        (bands(), None, PatchFilter(), ""),
        (bands(B05=((0, 0), 0)), None, PatchFilter(), "nodata"),
        (bands(B05=((0, 0), 0)), None, PatchFilter(nodata=1 / 36), ""),
        (bands(B02=((0, 0), 65535)), None, PatchFilter(), "saturated"),
        (bands(B02=((0, 0), 65535)), None, PatchFilter(saturated=0.5), ""),
        (bands(B05=(slice(None), 7)), None, PatchFilter(), "constant"),
        (bands(B05=(slice(None), 7)), None, PatchFilter(constant=False), ""),
        (bands(), np.eye(4, dtype=bool), PatchFilter(cloud=0.2), "cloud"),
        (bands(), np.eye(4, dtype=bool), PatchFilter(cloud=0.25), ""),
        (bands(), np.ones((4, 4), bool), PatchFilter(cloud=1.0), ""),
    ],
)
def test_a_patch_is_left_out_for_the_first_rule_it_breaks(images, cloudy, kept, reason):
    assert why_rejected(images, cloudy, kept) == reason
