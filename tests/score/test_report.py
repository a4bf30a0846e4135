"""The page of an evaluation: pictures, points, power spectra and tables with known answers; the file and its errors."""

import hashlib
import itertools
import json
import re
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from eosr.cube.bands import BANDS, BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.consistency import project_tile
from eosr.cube.degradation import degrade_tile, kernel_taps
from eosr.errors import BandError, GridError, MetricError, OutputError
from eosr.score import Exhibit, write_report
from eosr.score.report.page.figures import DASH, figure
from eosr.score.report.page.maps import SHADES, compose, error_limit, error_shades, limits_of, palette
from eosr.score.report.page.png import encode_png
from eosr.score.report.page.points import choose_points
from eosr.score.report.page.power import noise_from, radial_power
from eosr.score.report.page.show import GIVEN, MEASURED, Album, show
from eosr.score.report.page.tables import Scores, tables_of
from eosr.score.report.sheets import Cell, Sheet
from eosr.sharpen.classical.bicubic import bicubic_tile
from eosr.testing import synthetic_bands

VENDOR = Path(__file__).resolve().parents[2] / "eosr" / "score" / "report" / "page" / "vendor"
METHODS = ("bicubic", "bicubic, projected", "red detail, projected")
METRICS = {"rmse": ("DN", "lower"), "sre": ("dB", "higher"), "bias": ("DN", "")}


def sharpened(fine, coarse, factor):
    """Three simple methods of one band: interpolated, with the measurement met, and with the detail of the red band."""
    rows, columns = coarse.shape
    smooth = bicubic_tile(coarse.astype(np.float64), factor)
    red = fine["B04"].astype(np.float64)
    lost = red - bicubic_tile(red.reshape(rows, factor, columns, factor).mean(axis=(1, 3)), factor)
    detailed = smooth + coarse.std() / red.std() * lost
    met = [project_tile(image, coarse, factor, 0.0) for image in (smooth, detailed)]
    return dict(zip(METHODS, (smooth, *met), strict=True))


@cache
def exhibit(factor=2, *, side60=20, seed=0, native=False, title=None):
    """A made-up scene, degraded by a box and sharpened; at native scale nobody is told the truth."""
    made = synthetic_bands(side60, side60, seed=seed)
    targets = BANDS_20M if factor == 2 else BANDS_60M
    before = {name: made[name] for name in BANDS_10M}
    after = {method: {} for method in METHODS}
    for name in targets:
        coarse = degrade_tile(made[name].astype(np.float64), kernel_taps(factor, 0.0), factor)
        before[name] = np.kron(coarse, np.ones((factor, factor)))
        for method, image in sharpened(made, coarse, factor).items():
            after[method][name] = image
    return Exhibit(
        scene=f"synthetic {seed}", title=title or f"{'native' if native else 'synthesis'}, box, {10 * factor} m bands",
        gsd=10.0 if native else 10.0 * factor, factor=factor, before=before, after=after,
        truth={} if native else {name: made[name] for name in targets},
    )  # fmt: skip


def scores_of(estimate, truth):
    error = np.asarray(estimate, np.float64) - truth
    mse = np.mean(error**2)
    return np.array([np.sqrt(mse), 10 * np.log10(np.mean(truth) ** 2 / mse), error.mean()])


def evaluation(scenes=2, *, hostile=False):
    """An evaluation with the layout of `eosr.evaluate`, measured on made-up scenes; a copy to be spoiled."""
    table = measured_evaluation(scenes).copy(deep=True)
    if hostile:
        table["scene"] = ['<script>alert("x")</script>', *table.scene.values[1:]]
    return table


@cache
def measured_evaluation(scenes):
    bands = [name for name in BANDS if name in (*BANDS_20M, *BANDS_60M)]
    score = np.full((scenes, len(METHODS), 2, 2, 2, len(bands), len(METRICS)), np.nan)
    for s in range(scenes):
        for factor in (2, 6):
            shown = exhibit(factor, side60=8, seed=s)
            for m, method in enumerate(METHODS):
                for name, image in shown.after[method].items():
                    found = scores_of(image, shown.truth[name])
                    score[s, m, 0, :, :, bands.index(name)] = found
                    # Another operator, another side of the projection: not measured, only told apart.
                    score[s, m, 0, 1, :, bands.index(name), 0] *= 1.1
                    score[s, m, 0, :, 0, bands.index(name), 0] *= 1.25
                    score[s, m, 1, :, :, bands.index(name)] = found / 10
    native = np.array([BANDS[name].gsd for name in bands])
    overall = np.stack([score[..., native == gsd, :].mean(axis=-2) for gsd in (20, 60)], axis=-2)
    both = ("mean", "pooled")
    names = [f"scene {s}" for s in range(scenes)]
    keys = ("property", "degradation", "projection")
    summary = np.stack([score.mean(axis=0), score.mean(axis=0) * 1.01], axis=-2)
    lowest, highest = (np.stack([end(score, axis=0)] * 2, axis=-2) for end in (np.min, np.max))
    if scenes == 1:
        lowest = highest = np.full_like(lowest, np.nan)
    spread = np.stack([overall, overall * 1.01], axis=-2)
    along = ("method", *keys, "band", "average", "metric")
    cost = np.add.outer(np.arange(1.0, scenes + 1), np.array([0.25, 0.5, 4.0]))[..., None, None] * np.ones((2, 2))
    return xr.Dataset(
        {
            "score": (("scene", "method", *keys, "band", "metric"), score),
            "score_overall": (("scene", "method", *keys, "gsd", "average", "metric"), spread),
            "summary": (along, summary), "summary_low": (along, lowest), "summary_high": (along, highest),
            "summary_overall": (("method", *keys, "gsd", "average", "metric"), spread.mean(axis=0)),
            "seconds": (("scene", "method", "property", "degradation"), cost),
            "peak_memory": (("scene", "method", "property", "degradation"), cost * 2**20),
            "pixels": ("scene", np.full(scenes, 1e6)),
        },
        coords={
            "scene": names, "method": list(METHODS), "property": ["synthesis", "consistency"],
            "degradation": ["study", "mtf"], "projection": ["before", "after"], "band": bands, "gsd": [20, 60],
            "average": list(both), "metric": list(METRICS), "native_gsd": ("band", native),
            "unit": ("metric", [unit for unit, _ in METRICS.values()]),
            "better": ("metric", [better for _, better in METRICS.values()]),
        },
        attrs={"convention": "eosr", "border": 4, "interval": "95 % bootstrap over scenes", "software": "eosr test"},
    )  # fmt: skip


def read_png(file):
    with rasterio.MemoryFile(file) as memory, memory.open() as opened:
        return opened.read()


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (33, 64)])
def test_another_reader_of_png_finds_every_pixel_again(shape):
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(shape[0]) * 5, np.arange(shape[1]) * 3)[..., None] + np.array([0, 40, 90])
    for image in (rng.integers(0, 256, (*shape, 3)), smooth % 256):
        image = image.astype(np.uint8)
        assert np.array_equal(read_png(encode_png(image))[:3], image.transpose(2, 0, 1))
        assert np.array_equal(read_png(encode_png(image[..., 1]))[0], image[..., 1])
    indices = rng.integers(0, 2 * SHADES + 2, shape).astype(np.uint8)
    with rasterio.MemoryFile(encode_png(indices, palette())) as memory, memory.open() as opened:
        assert np.array_equal(opened.read(1), indices)
        colours = opened.colormap(1)
    assert [colours[i][:3] for i in range(2 * SHADES + 2)] == [tuple(row) for row in palette().tolist()]
    assert colours[0][3] == 0
    assert colours[1][3] == 255


def test_nodata_is_transparent_in_every_kind_of_picture():
    band = np.array([[np.nan, 100.0], [200.0, 300.0]])
    for image in (compose([band], [(0.0, 300.0)]), compose([band] * 3, [(0.0, 300.0)] * 3)):
        with rasterio.MemoryFile(encode_png(image)) as memory, memory.open() as opened:
            assert opened.dataset_mask().tolist() == [[0, 255], [255, 255]]
    assert error_shades(band, 300.0).tolist()[0][0] == 0


def test_a_composite_is_a_straight_line_between_its_limits():
    # 64 levels from 3 to 255 in steps of 4: a third of the way is level 21 = 3 + 84.
    image = np.array([[-50.0, 0.0, 100.0, 300.0, 900.0]])
    assert compose([image], [(0.0, 300.0)]).tolist() == [[3, 3, 87, 255, 255]]
    assert limits_of(np.arange(101.0)) == (2.0, 98.0)
    assert limits_of(np.full((2, 2), np.nan)) == (0.0, 1.0)
    assert limits_of(np.full((2, 2), 7.0)) == (6.5, 7.5)


def test_the_scale_of_errors_is_that_of_the_worst_method_rounded_up():
    # 99th percentile of |0 .. 100| is 99; of ten times that 990.
    errors = {"good": np.arange(101.0)[None], "bad": -10.04 * np.arange(101.0)[None], "none": np.full((1, 3), np.nan)}
    assert error_limit({"good": errors["good"]}) == 99.0
    assert error_limit(errors) == 1000.0  # 993.96
    assert error_limit({"exact": np.zeros((2, 2))}) == 1.0


def test_errors_of_opposite_sign_are_mirror_images_and_zero_is_the_middle():
    error = np.array([[-80.0, -40.0, 0.0, 40.0, 80.0, 200.0]])
    shades = error_shades(error, 80.0)
    assert shades.tolist() == [[1, SHADES + 1 - 16, SHADES + 1, SHADES + 1 + 16, 2 * SHADES + 1, 2 * SHADES + 1]]
    colours = palette()
    assert colours.shape == (2 * SHADES + 2, 3)
    assert colours[SHADES + 1].tolist() == [247, 247, 247]
    # Told apart without red and green: blue falls from one end to the other, and both ends are darker than the middle.
    blue_over_red = colours[1:, 2].astype(int) - colours[1:, 0]
    assert (blue_over_red[:SHADES] > 0).all()
    assert (blue_over_red[SHADES + 1 :] < 0).all()


def test_white_noise_has_its_variance_at_every_frequency():
    noise = 30.0 * np.random.default_rng(1).standard_normal((256, 256))
    frequency, power = radial_power(noise, np.ones(noise.shape, bool))
    assert frequency[0] == 1 / 256
    assert frequency[-1] == 0.5
    assert power[10:].mean() == pytest.approx(900, rel=0.02)
    # A tenth of the pixels missing changes the noise of the estimate, not its level.
    holes = np.random.default_rng(2).random(noise.shape) > 0.1
    assert radial_power(np.where(holes, noise, np.nan), holes)[1][10:].mean() == pytest.approx(900, rel=0.03)


def test_a_wave_stands_at_its_frequency_whatever_its_direction_and_mean():
    rows, columns = np.mgrid[:96, :120]
    for wave in (rows, columns):
        image = 5000 + 100 * np.cos(2 * np.pi * wave / 8)
        frequency, power = radial_power(image, np.ones(image.shape, bool))
        assert frequency[power.argmax()] == pytest.approx(1 / 8)
        assert power[frequency < 0.1].max() < 1e-6 * power.max()


def test_a_second_way_to_the_power_spectrum_agrees():
    """Ring by ring, with the Hann window of scipy at half-pixel places and a Fourier sum instead of a transform."""
    image = np.random.default_rng(3).normal(1000, 50, (16, 16))
    place = (np.arange(16) + 0.5) / 16
    window = np.outer(*[np.sin(np.pi * place) ** 2] * 2)
    values = (image - np.average(image, weights=window)) * window
    wave = np.exp(-2j * np.pi * np.outer(np.arange(16), np.arange(16)) / 16)
    power = np.abs(wave @ values @ wave) ** 2 / np.sum(window**2)
    signed = np.where(np.arange(16) < 8, np.arange(16), np.arange(16) - 16)
    distance = np.sqrt(signed[:, None] ** 2 + signed[None] ** 2)
    expected = [power[(distance >= ring - 0.5) & (distance < ring + 0.5)].mean() for ring in range(1, 9)]
    assert radial_power(image, np.ones((16, 16), bool))[1] == pytest.approx(expected, rel=1e-9)


def test_detail_is_noise_from_where_the_error_is_as_strong_as_the_truth():
    frequency = np.arange(1, 41) / 80
    truth = np.full(40, 100.0)
    error = np.where(frequency >= 0.25, 100.0, 1.0)
    assert noise_from(frequency, truth, error) == 0.25
    assert np.isnan(noise_from(frequency, truth, error / 2))
    one = error / 2
    one[7] = 500.0  # a single noisy ring is no verdict
    assert np.isnan(noise_from(frequency, truth, one))


def test_a_window_too_small_or_too_empty_has_no_power_spectrum():
    image = np.zeros((32, 32))
    measured = np.ones((32, 32), bool)
    assert radial_power(image[:15], measured[:15])[0].size == 0
    measured[:17] = False
    assert radial_power(image, measured)[0].size == 0


def point_scene():
    rng = np.random.default_rng(0)
    bands = {name: 1000 + rng.normal(0, 1, (40, 40)) for name in ("B04", "B8A", "B11")}
    bands["B8A"][10:20, 10:20] = 4000  # vegetation: (4000 - 1000) / 5000 = 0.6
    bands["B8A"][13, 16] = 4500
    bands["B8A"][17, 12] = 3500
    bands["B11"][30, 9] = 6000
    return bands


def test_points_are_where_they_were_planted():
    bands = point_scene()
    bands["B8A"][25:28, 25:28] = np.nan
    bands["B8A"][2, 2] = 9000  # too near to the edge
    shown = Exhibit(scene="s", title="t", gsd=20, factor=1, truth=bands, before=bands, after={})
    found = {point.label: (point.row, point.column) for point in choose_points(shown)}
    assert found["centre"] == (20, 20)
    assert found["brightest vegetation"] == (13, 16)
    assert found["darkest vegetation"] == (17, 12)
    # Any pixel whose 3 x 3 neighbourhood holds the bright one has the same contrast but for the noise.
    assert np.hypot(found["strongest contrast"][0] - 30, found["strongest contrast"][1] - 9) < 2
    assert choose_points(shown) == choose_points(shown)


def test_a_gap_hides_its_neighbours_and_not_the_rest_of_its_lines():
    """A running sum would carry the NaN on to the right and downwards, where the strongest contrast lies."""
    bands = point_scene()
    for name in bands:
        bands[name][30, 6] = bands[name][6, 9] = np.nan
    shown = Exhibit(scene="s", title="t", gsd=20, factor=1, truth=bands, before=bands, after={})
    (found,) = [point for point in choose_points(shown) if point.label == "strongest contrast"]
    assert np.hypot(found.row - 30, found.column - 9) < 2


def test_points_avoid_gaps_and_fall_back_to_ground_without_infrared():
    bands = {"B02": np.random.default_rng(0).normal(1000, 9, (40, 40))}
    bands["B02"][18:23, 18:23] = np.nan
    found = choose_points(Exhibit(scene="s", title="t", gsd=10, factor=2, truth={}, before=bands, after={}))
    assert {point.label for point in found} == {"centre", "strongest contrast", "brightest ground", "darkest ground"}
    assert all(np.isfinite(bands["B02"][point.row, point.column]) for point in found)
    nothing = {"B02": np.full((20, 20), np.nan)}
    assert choose_points(Exhibit(scene="s", title="t", gsd=10, factor=2, truth={}, before=nothing, after={})) == ()


def test_numbers_have_four_digits_and_what_is_none_is_a_dash():
    values = (123456.7, 1234.5, 114.46, 31.234, 9.9996, 0.98765, -0.5, 2e-5, 3.2e8)
    assert [figure(v) for v in values] == [
        "123457", "1234", "114.5", "31.23", "10.000", "0.9877", "-0.5000", "2.0e-05", "3.2e+08",
    ]  # fmt: skip
    assert {figure(v) for v in (np.nan, np.inf, -np.inf)} == {DASH} == {"–"}


def read(scores, names):
    place = next(place for place, found in scores.settings() if found == names)
    return {table.kind: table for table in tables_of(scores, place, names)}


def test_tables_hold_the_numbers_of_their_setting_and_name_it():
    table = evaluation(2)
    names = ("synthesis", "mtf", "before", "pooled")
    found = read(Scores.read(table), names)
    chosen = dict(zip(("property", "degradation", "projection", "average"), names, strict=True))
    rows = {(row[0].text, row[2].text): row[3:] for row in found["bands"].rows}
    for band in ("B01", "B11"):
        for method in METHODS:
            expected = table.summary.sel({"band": band, "method": method, **chosen})
            cells = rows[band, method]
            assert [cell.text for cell in cells] == [figure(float(v)) for v in expected]
            at = {"band": band, "method": method, "metric": "rmse", **chosen}
            low, high = (float(table[name].sel(at)) for name in ("summary_low", "summary_high"))
            assert cells[0].interval == f"[{figure(low)}, {figure(high)}]"
    rows = {(row[0].text, row[1].text): row[2].text for row in found["overall"].rows}
    assert rows["bicubic", "60"] == figure(
        float(table.summary_overall.sel({"gsd": 60, "method": "bicubic", "metric": "rmse", **chosen}))
    )
    rows = {tuple(cell.text for cell in row[:3]): row[3].text for row in found["scenes"].rows}
    expected = table.score_overall.sel({"scene": "scene 1", "gsd": 20, "method": "bicubic", "metric": "rmse", **chosen})
    assert rows["scene 1", "bicubic", "20"] == figure(float(expected))
    for kind in ("overall", "bands", "scenes"):
        for said in ("Synthesis", "operator mtf", "before the final projection", "pooled over pixels"):
            assert said in found[kind].caption
    # 1 + 2 scenes of (s + 1) + 0.25 seconds are 3.5 s, 2 Mpx: 0.5714 Mpx/s; the worst scene takes 2.25 MiB.
    assert [cell.text for cell in found["costs"].rows[0]] == ["bicubic", "3.500", "0.5714", "2.250"]
    assert "operator mtf" in found["costs"].caption


def test_the_best_is_marked_by_its_direction_and_only_against_others():
    table = evaluation(1)
    found = read(Scores.read(table), ("synthesis", "study", "after", "mean"))["bands"]
    heads = [heading.text for heading in found.headings]
    for name, sign in (("rmse", -1), ("sre", 1)):
        values = sign * table.summary.sel(
            property="synthesis", degradation="study", projection="after", average="mean", band="B12", metric=name
        )
        winner = METHODS[int(values.values.argmax())]
        marked = [row[2].text for row in found.rows if row[0].text == "B12" and row[heads.index(name)].best]
        assert marked == [winner]
    assert not any(row[heads.index("bias")].best for row in found.rows)
    alone = read(Scores.read(table.isel(method=[0])), ("synthesis", "study", "after", "mean"))
    assert not any(cell.best for made in alone.values() for row in made.rows for cell in row)


def test_what_no_method_makes_has_no_row_and_what_one_does_not_make_is_a_dash():
    table = evaluation(1)
    table["summary"].loc[{"band": "B01"}] = np.nan
    table["summary"].loc[{"band": "B05", "method": "bicubic", "metric": "rmse"}] = np.nan
    table["summary"].loc[{"metric": "bias"}] = np.inf
    found = read(Scores.read(table), ("synthesis", "study", "after", "mean"))["bands"]
    assert {row[0].text for row in found.rows} == {"B05", "B06", "B07", "B8A", "B09", "B11", "B12"}
    (row,) = [row for row in found.rows if row[0].text == "B05" and row[2].text == "bicubic"]
    assert row[3].text == DASH
    assert row[3].interval == ""
    assert "bias" not in [heading.text for heading in found.headings]


def test_a_setting_without_scores_is_left_out_and_selected_entries_count_as_one():
    table = evaluation(1)
    for name in ("summary", "summary_overall", "score_overall"):
        table[name].loc[{"property": "consistency", "degradation": "mtf"}] = np.nan
    names = [names for _, names in Scores.read(table).settings()]
    assert len(names) == 3 * 2 * 2
    assert names[0] == ("synthesis", "study", "after", "mean")
    one = Scores.read(table.sel(property="synthesis", degradation="study"))
    assert len(list(one.settings())) == 4


def test_the_answer_does_not_depend_on_the_order_of_dimensions():
    table = evaluation(2)
    turned = table.transpose("metric", "band", ...)
    for place, names in Scores.read(table).settings():
        assert tables_of(Scores.read(table), place, names) == tables_of(Scores.read(turned), place, names)


def test_an_exhibit_is_shown_with_one_stretch_one_scale_and_no_picture_twice():
    shown = exhibit(2)
    album = Album()
    page = show(shown, album)
    natural = next(c for c in page["composites"] if c["name"] == "Natural colour")
    assert len(set(natural["images"].values())) == 1
    assert page["composites"][0]["name"] == "Short-wave infrared"
    assert list(page["composites"][0]["images"]) == [GIVEN, *METHODS, MEASURED]
    assert page["composites"][-1] == natural
    assert [entry["band"] for entry in page["maps"]] == list(BANDS_20M)
    entry = page["maps"][3]
    worst = max(np.percentile(np.abs(shown.after[m]["B8A"] - shown.truth["B8A"]), 99) for m in METHODS)
    assert worst <= entry["limit"] <= worst * 1.1
    assert entry["methods"][0]["rmse"] == figure(
        float(np.sqrt(np.mean((shown.after["bicubic"]["B8A"] - shown.truth["B8A"]) ** 2)))
    )
    power = page["power"][0]
    assert power["given_nyquist"] == 12.5  # pixels of 40 m: half a cycle per 40 m
    assert power["frequency"][-1] == 25.0
    assert set(power["error"]) == set(METHODS)
    # Interpolation adds no detail beyond what it was given, so its error is the whole truth there.
    assert power["noise_from"]["bicubic"] is None or power["noise_from"]["bicubic"] > 10


def test_at_native_scale_there_is_no_error_of_anything():
    page = show(exhibit(2, native=True), Album())
    assert page["native"]
    assert page["maps"] == []
    assert all(entry["error"] == {} and entry["noise_from"] == {} for entry in page["power"])
    assert MEASURED not in page["composites"][0]["images"]
    assert MEASURED not in page["spectra"]["series"]


def test_the_finest_detail_given_is_that_of_the_band_where_bands_of_two_sizes_are_shown_together():
    """Half a cycle per pixel: 25 cycles / km of a 20 m band, 8.33 of a 60 m band, whatever the factor says."""
    parts = [exhibit(2, native=True), exhibit(6, native=True)]
    after = {method: {**parts[0].after[method], **parts[1].after[method]} for method in METHODS}
    both = Exhibit(
        scene="s", title="t", gsd=10, factor=6, truth={}, before=parts[0].before | parts[1].before, after=after
    )
    found = {entry["band"]: entry["given_nyquist"] for entry in show(both, Album())["power"]}
    assert found == {"B01": 8.33333, "B09": 8.33333, **dict.fromkeys(BANDS_20M, 25.0)}


def test_a_method_without_a_band_is_not_shown_with_the_band_of_another():
    whole = exhibit(2)
    after = {**whole.after, "partial": {"B05": whole.after["bicubic"]["B05"]}}
    shown = Exhibit(scene="s", title="t", gsd=20, factor=2, truth=whole.truth, before=whole.before, after=after)
    page = show(shown, Album())
    by_name = {composite["name"]: composite["images"] for composite in page["composites"]}
    assert "partial" not in by_name["Short-wave infrared"]
    assert "partial" not in by_name["Red edge"]
    assert "partial" in by_name["Natural colour"]
    assert [m["method"] for m in page["maps"][0]["methods"]] == [*METHODS, "partial"]
    assert [m["method"] for m in page["maps"][1]["methods"]] == list(METHODS)


def test_gaps_are_neither_errors_nor_detail():
    whole = exhibit(2)
    holed = {name: band.astype(float) for name, band in whole.truth.items()}
    holed["B05"][:, :20] = np.nan
    shown = Exhibit(scene="s", title="t", gsd=20, factor=2, truth=holed, before=whole.before, after=whole.after)
    page = show(shown, Album())
    rest = (whole.after["bicubic"]["B05"] - whole.truth["B05"])[:, 20:]
    assert page["maps"][0]["methods"][0]["rmse"] == figure(float(np.sqrt(np.mean(rest**2))))
    assert all(np.isfinite(values).all() for values in page["power"][0]["power"].values())
    json.dumps(page, allow_nan=False)


class Outline(HTMLParser):
    """Elements, their attributes, and the text of headings, captions and cells."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.texts = {}
        self.inside = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if self.inside:
            self.texts.setdefault(self.inside[-1], []).append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The text of a page whose scene has a hostile name."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    shown = exhibit(2, side60=8, title="<img src=x onerror=alert(1)>")
    return write_report(evaluation(2, hostile=True), path, exhibits=[shown], title="A & <b>B</b>").read_text("utf-8")


def outline(text):
    found = Outline()
    found.feed(text)
    return found


def test_names_of_users_are_text_never_markup(page):
    found = outline(page)
    assert page.count('alert("x")') == 0
    tags = [tag for tag, _ in found.found]
    assert tags.count("b") == 0
    assert "A & <b>B</b>" in found.texts["h1"]
    assert all("onerror" not in attrs for _, attrs in found.found)
    assert '<script>alert("x")</script>' in found.texts["td"]
    (data,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data)["exhibits"][0]["title"] == "<img src=x onerror=alert(1)>"
    assert not set("<>&") & set(data)


def test_the_page_points_at_nothing_outside_itself_and_allows_only_its_own_scripts(page):
    found = outline(page)
    for tag, attrs in found.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attrs.get(name, "#").startswith("#"), (tag, attrs)
    assert not re.search(r"@import|url\(|sourceMappingURL", page)
    (policy,) = [attrs["content"] for tag, attrs in found.found if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert policy.count("'sha256-") == len(scripts) == 4


def test_the_page_can_be_read_by_those_who_do_not_see_it(page):
    found = outline(page)
    tags = [tag for tag, _ in found.found]
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert tags.count("caption") == tags.count("table") > 0
    assert all(attrs.get("scope") for tag, attrs in found.found if tag == "th")
    assert all("alt" in attrs for tag, attrs in found.found if tag == "img")
    assert all(attrs.get("role") == "img" for tag, attrs in found.found if tag == "canvas")
    (slider,) = [attrs for tag, attrs in found.found if tag == "img-comparison-slider"]
    assert {"aria-label", "aria-valuenow", "aria-valuemin", "aria-valuemax"} <= set(slider)
    assert dict(found.found)["html"]["lang"] == "en"


def test_every_attribute_of_the_table_stands_on_the_page(page):
    found = outline(page)
    for name, value in evaluation(1).attrs.items():
        assert name in found.texts["dt"]
        assert str(value) in found.texts["dd"]


def told_evaluation():
    table = evaluation(1)
    return table.assign_coords(
        described=("method", ["bicubic", "bicubic, projected", "s2sr-20m(<b>)"]),
        weights_sha256=("method", ["", "", f"{'0a' * 32} {'1b' * 32}"]),
    )


def test_what_rows_are_is_told_where_their_labels_do_not(tmp_path):
    """Beside the tables what they are; among the facts the whole checksums as well."""
    text = write_report(told_evaluation(), tmp_path / "a.html").read_text("utf-8")
    found = outline(text)
    assert "Rows: red detail, projected is s2sr-20m(<b>)." in found.texts["p"]
    assert "row red detail, projected" in found.texts["dt"]
    assert f"s2sr-20m(<b>); weights of SHA-256 {'0a' * 32} {'1b' * 32}" in found.texts["dd"]
    assert "row bicubic" not in found.texts["dt"]
    assert "Rows: " not in write_report(evaluation(1), tmp_path / "b.html").read_text("utf-8")


def test_tables_of_the_study_stand_on_the_page_with_marks_and_notes(tmp_path):
    rows = ((Cell("Bicubic", marks="a"), Cell("52.25", marks="bc")), (Cell("<i>mine</i>"), Cell("1.00", bold=True)))
    sheet = Sheet(title="Table 6.15", heads=("method", "PSNR [dB]"), rows=rows, notes=("(a) swapped & so on.",))
    text = write_report(evaluation(1), tmp_path / "a.html", sheets=[sheet]).read_text("utf-8")
    found = outline(text)
    (part,) = re.findall(r'<section id="study".*?</section>', text, re.DOTALL)
    assert "<td>Bicubic<sup>a</sup></td>" in part
    assert '<td class="n">52.25<sup>bc</sup></td>' in part
    assert '<td class="n best">1.00<span class="said"> (best)</span></td>' in part
    assert "(a) swapped & so on." in found.texts["li"]
    assert "<i>mine</i>" in found.texts["td"]
    assert [tag for tag, _ in found.found].count("i") == 0
    assert '<a href="#study">' in text
    assert 'id="study"' not in write_report(evaluation(1), tmp_path / "b.html").read_text("utf-8")


def test_what_is_no_table_to_be_read_is_refused(tmp_path):
    with pytest.raises(
        MetricError, match=r"sheets holds a str, .* Pass sheets=eosr\.score\.report\.formats\.to_sheets"
    ):
        write_report(evaluation(1), tmp_path / "a.html", sheets=["6.5"])
    assert list(tmp_path.iterdir()) == []


def test_a_page_of_a_table_alone_and_one_without_any_score_are_written(tmp_path):
    assert write_report(evaluation(1), tmp_path / "a.html").stat().st_size < 600_000
    empty = evaluation(1)
    for name in ("summary", "summary_overall", "score_overall"):
        empty[name][:] = np.nan
    assert "The table holds no score." in write_report(empty, tmp_path / "b.html").read_text("utf-8")


def test_three_exhibits_of_five_methods_and_200_pixels_stay_below_six_megabytes(tmp_path):
    """Noise, which nothing compresses, over smooth ground: the worst case of the promised size."""
    rng = np.random.default_rng(0)
    shown = []
    for factor, targets in ((2, BANDS_20M), (6, BANDS_60M), (2, BANDS_20M)):
        ground = {name: np.add.outer(np.arange(200.0), np.arange(200.0)) * 5 for name in (*BANDS_10M, *targets)}
        truth = {name: band + rng.normal(0, 50, band.shape) for name, band in ground.items()}
        after = {f"m{i}": {name: truth[name] + rng.normal(0, 20, (200, 200)) for name in targets} for i in range(5)}
        known = {} if len(shown) == 2 else {name: truth[name] for name in targets}
        shown.append(Exhibit(scene="s", title="t", gsd=20, factor=factor, before=truth, after=after, truth=known))
    assert write_report(evaluation(1), tmp_path / "full.html", exhibits=shown).stat().st_size < 6_000_000


def test_the_same_evaluation_is_the_same_file(tmp_path):
    paths = [
        write_report(evaluation(1), tmp_path / name, exhibits=[exhibit(2, side60=4)]) for name in ("a.html", "b.html")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_file_is_replaced_only_when_asked_and_never_half_written(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"report\.html is already there\. Add overwrite=True to replace it"):
        write_report(evaluation(1), path)
    assert path.read_text() == "mine"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", full)
        with pytest.raises(OutputError, match=r"cannot be written: No space left on device\. Name another place"):
            write_report(evaluation(1), path, overwrite=True)
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert write_report(evaluation(1), path, overwrite=True) == path
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")


def test_a_wrong_place_is_refused_with_the_remedy(tmp_path):
    table = evaluation(1)
    with pytest.raises(OutputError, match=r"report\.txt does not end in \.html\. Name a page, e\.g\. .*report\.html\."):
        write_report(table, tmp_path / "report.txt")
    with pytest.raises(OutputError, match=r"the folder .*gone of r\.html is missing\. Make it, e\.g\. mkdir -p "):
        write_report(table, tmp_path / "gone" / "r.html")
    (tmp_path / "d.html").mkdir()
    with pytest.raises(OutputError, match=r"d\.html is a folder\. Name a file in it"):
        write_report(table, tmp_path / "d.html", overwrite=True)


def test_a_table_of_something_else_is_refused():
    with pytest.raises(MetricError, match=r"the table lacks score_overall, summary, summary_overall, so it is not an"):
        Scores.read(xr.Dataset())


def test_an_exhibit_that_cannot_be_shown_is_refused():
    flat = np.zeros((4, 4))
    facts = {"scene": "s", "title": "t", "gsd": 10.0, "factor": 2, "truth": {}, "after": {}}
    with pytest.raises(
        GridError, match=r"after\['m'\]\['B05'\] of the exhibit 't' of 's' has the shape \(2, 2\) where \(4, 4\)"
    ):
        Exhibit(**{**facts, "after": {"m": {"B05": flat[:2, :2]}}}, before={"B02": flat})
    with pytest.raises(GridError, match=r"before\['B02'\] .* has the shape \(1, 4, 4\)"):
        Exhibit(**facts, before={"B02": flat[None]})
    with pytest.raises(GridError, match="the exhibit 't' of 's' holds no pixels"):
        Exhibit(**facts, before={})
    with pytest.raises(GridError, match=r"gsd=0 and factor=2\. Give metres"):
        Exhibit(**{**facts, "gsd": 0}, before={"B02": flat})
    with pytest.raises(BandError, match="'B13' is not a band"):
        Exhibit(**facts, before={"B13": flat})


def test_vendored_libraries_are_the_ones_their_list_names():
    listed = tomllib.loads((VENDOR / "VENDOR.toml").read_text("utf-8"))["library"]
    files = {"VENDOR.toml"}
    for library in listed:
        assert library["licence"] == "MIT"
        assert library["npm"] == f"{library['name']}@{library['version']}"
        licence = (VENDOR / library["licence_file"]).read_text("utf-8")
        assert "Permission is hereby granted, free of charge" in licence
        assert "Copyright (c)" in licence
        files.add(library["licence_file"])
        for file in library["file"]:
            assert hashlib.sha256((VENDOR / file["name"]).read_bytes()).hexdigest() == file["sha256"], file["name"]
            files.add(file["name"])
    assert {path.name for path in VENDOR.iterdir()} == files
    assert sum(path.stat().st_size for path in VENDOR.iterdir()) < 500_000


def test_the_licence_of_every_library_travels_with_the_page(page):
    text = "".join(outline(page).texts["pre"])
    assert text.count("Permission is hereby granted, free of charge") == 3
    for owner in ("Chart.js Contributors", "Dmitry Snisarenko", "Tristen Brown"):
        assert owner in text
