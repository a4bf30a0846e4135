"""Which offset an image carries: what metadata say, and what they do not say."""

import pytest

from eosr.cube.offset import offset_of
from eosr.errors import RadiometryError


@pytest.mark.parametrize(
    ("baseline", "declared", "applied", "expected"),
    [
        ("02.12", None, None, 0),
        ("02.12", -1000, None, 0),  # Earth Search repeats -0.1 for old scenes
        ("03.01", -1000, False, 0),
        ("04.00", None, None, -1000),
        ("05.11", None, None, -1000),
        ("05.11", -1000, None, -1000),
        ("05.11", 0, None, 0),  # a harmonised copy that says so
        ("05.11", -1000, True, 0),
        ("05.11", 0, False, -1000),
        ("", -1000, None, -1000),
        ("", 0, None, 0),
        ("", None, True, 0),
    ],
)
def test_automatic_offset(baseline, declared, applied, expected):
    assert offset_of(baseline, declared=declared, applied=applied).value == expected


@pytest.mark.parametrize(("policy", "expected"), [("none", 0), (-1000, -1000), (0, 0), ("-1000", -1000), (37.0, 37)])
def test_explicit_offset_overrules_all_metadata(policy, expected):
    assert offset_of("05.11", declared=-500, applied=True, policy=policy).value == expected


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("maybe", "offset='maybe' is no policy. Use 'auto', 'none' or a number"),
        (-0.1, "offset=-0.1 is no whole number of DN"),
        (True, "offset=True is no whole number"),
        (float("nan"), "offset=nan is no whole number"),
    ],
)
def test_unknown_policy_is_refused(policy, message):
    with pytest.raises(RadiometryError, match=message):
        offset_of("05.11", policy=policy)


@pytest.mark.parametrize(
    ("text", "expected"), [("0214", 0), ("N0214", 0), ("N0511", -1000), ("5.11", -1000), (" 05.11 ", -1000)]
)
def test_a_baseline_is_read_in_every_way_that_it_is_written(text, expected):
    assert offset_of(text).value == expected


@pytest.mark.parametrize("text", ["99.99", "99.33", "N9999", "9999", "new", "214", "511", "05", "00.00", "12.30", "4"])
@pytest.mark.parametrize("applied", [None, False])
def test_text_that_is_no_baseline_tells_no_offset(text, applied):
    """Sen2Cor run by hand writes 99.99 or 99.33, over products with an offset and without."""
    with pytest.raises(
        RadiometryError, match=rf"item x states processing baseline '{text}', .* offset=-1000 .* offset=0"
    ):
        offset_of(text, applied=applied, where="item x")
    assert offset_of(text, declared=-1000, applied=applied).value == -1000
    assert offset_of(text, policy="0").value == 0
