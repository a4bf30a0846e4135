"""Places of patches: in phase, inside, reproducible; and the rules of the filter one by one."""

import numpy as np
import pytest
from pyproj import CRS, Transformer

from eosr.errors import GridError
from eosr.train.prepare.patches import Ground, PatchFilter, patch_places, sees_ground_of, why_rejected

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


def ground(left, top, *, side=6000.0, zone=32):
    """A square of some kilometres in a zone of UTM [m]."""
    crs = CRS.from_epsg(32600 + zone)
    middle = Transformer.from_crs(crs, 4326, always_xy=True).transform(left + side / 2, top - side / 2)
    return Ground(
        crs=crs, left=left, right=left + side, top=top, bottom=top - side, longitude=middle[0], latitude=middle[1]
    )


def test_squares_see_the_ground_of_a_scene_that_they_share_a_pixel_with():
    """Squares of 1000 m; the other scene begins 3000 m to the east and 2000 m further south."""
    places = np.array([[0, 0], [0, 200], [200, 194], [200, 200], [200, 206], [102, 206], [100, 300], [500, 300]])
    mine, other = ground(600000, 5000000), ground(603000, 4998000)
    seen = sees_ground_of(places, 100, mine, other)
    assert seen.tolist() == [False, False, False, False, True, True, False, True]


def test_scenes_of_neighbouring_zones_see_each_other_and_far_ones_do_not():
    """The seam of zones 32 and 33 lies at 12 degrees east: one place has coordinates in both."""
    mine = ground(730000, 5000000, side=12000)
    left, top = Transformer.from_crs(32632, 32633, always_xy=True).transform(730000, 5000000)
    places = np.stack(np.meshgrid(range(0, 1140, 60), range(0, 1140, 60), indexing="ij"), -1).reshape(-1, 2)
    seen = sees_ground_of(places, 60, mine, ground(left + 6000, top, side=12000, zone=33))
    # By every corner of every pixel, the long way.
    to_other = Transformer.from_crs(32632, 32633, always_xy=True)
    other = ground(left + 6000, top, side=12000, zone=33)
    for (row, column), found in zip(places, seen, strict=True):
        x, y = np.meshgrid(730000 + 10 * (column + np.arange(61)), 5000000 - 10 * (row + np.arange(61)))
        x, y = to_other.transform(x, y)
        true = ((x > other.left) & (x < other.right) & (y > other.bottom) & (y < other.top)).any()
        assert found or not true, "none is overlooked"
    assert 0.3 < seen.mean() < 0.7
    assert not sees_ground_of(places, 60, mine, ground(left, top, zone=3)).any(), "the same numbers, 180 degrees away"


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
