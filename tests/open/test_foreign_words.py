"""What is said of a foreign cube, by arguments and by attributes: level, offset, platform ..., and what is refused."""

import numpy as np
import pytest
from support.foreign_cubes import named, plane

import eosr
from eosr.errors import RadiometryError

L2A = {"level": "L2A", "offset": -1000}


@pytest.mark.parametrize(
    ("key", "one", "other", "said", "argument"),
    [
        ("radiometric_offset", -1000, 0, r"radiometric_offset is -1000 and 0\. Say which .*: offset=", {"offset": 0}),
        ("level", "L2A", "L1C", r"level is 'L2A' and 'L1C'\. Say which holds for all: level=", {"level": "L1C"}),
        ("platform", "sentinel-2a", "sentinel-2b", r"'sentinel-2a' and 'sentinel-2b'", {"platform": "sentinel-2b"}),
        ("item_ids", ["a"], ["b"], r"item_ids is \['a'\] and \['b'\]", {"item_ids": ["b"]}),
    ],
)
def test_sources_that_contradict_each_other_are_refused_until_one_is_said(key, one, other, said, argument):
    ten, twenty = (
        image.assign_attrs(level="L2A", radiometric_offset=0) for image in named(B02=plane(10), B05=plane(20))
    )
    sources = ten.assign_attrs({key: one}), twenty.assign_attrs({key: other})
    with pytest.raises(RadiometryError, match=said):
        eosr.from_xarray(*sources, crs=32632)
    assert eosr.from_xarray(*sources, crs=32632, **argument).attrs[key] == other
    silent = twenty.copy()
    silent.attrs = {"platform": "", "item_ids": []}
    assert eosr.from_xarray(sources[0], silent, crs=32632).attrs[key] == one


@pytest.mark.parametrize(
    "offset", [-1000, -1000.0, np.float64(-1000), np.int16(-1000), "-1000", [-1000.0], np.array([-1000])]
)
def test_an_offset_may_be_any_whole_number(offset):
    (band,) = named(B02=plane(10))
    ds = eosr.from_xarray(band, crs=32632, level="L2A", offset=offset)
    assert repr(ds.attrs["radiometric_offset"]) == "-1000"
    stated = band.to_dataset().assign_attrs(level="L2A", radiometric_offset=offset, crs=32632)
    assert (stated.s2sr.to_reflectance().B02 == -0.0999).all()
    assert eosr.from_xarray(stated, offset="auto").attrs["radiometric_offset"] == -1000
    assert eosr.from_xarray(stated, offset="none").attrs["radiometric_offset"] == 0


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        ("auto", r"nothing tells the radiometric offset\. Say it: offset=-1000"),
        ("-0.1", r"offset='-0\.1' is no policy"),
        (True, r"offset=True is no whole number of DN"),
        (-0.1, r"offset=-0\.1 is no whole number of DN"),
        ([], r"offset=\[\] holds no number"),
        ([-1000, None], r"offset=None is no whole number of DN"),
    ],
)
def test_an_offset_that_is_no_number_is_refused(offset, said):
    with pytest.raises(RadiometryError, match=said):
        eosr.from_xarray(*named(B02=plane(10)), crs=32632, level="L2A", offset=offset)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"ofset": 3}, r"from_xarray has no argument ofset\. Did you mean offset=\?"),
        ({"Level": "L1C"}, r"no argument Level\. Did you mean level="),
        ({"plattform": "sentinel-2b"}, r"no argument plattform\. Did you mean platform="),
        ({"radiometric_offset": 0}, r"radiometric_offset= is no attribute to give: .* offset="),
        ({"time": ["2023-06-01"]}, r"time= is no attribute to give: from_xarray sets it itself"),
    ],
)
def test_words_that_mean_something_else_are_refused(words, said):
    band = named(B02=plane(10))
    with pytest.raises(RadiometryError, match=said):
        eosr.from_xarray(*band, crs=32632, **L2A, **words)
    assert eosr.from_xarray(*band, crs=32632, **L2A, title="mine").attrs["title"] == "mine"
