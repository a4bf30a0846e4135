"""Wald's protocol end to end: what is compared with what, on which pixels, and the table that comes out."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from eosr import metrics
from eosr.degrade import degrade
from eosr.errors import BandError, GridError, MetricError
from eosr.evaluate import evaluate, to_markdown
from eosr.grid import from_arrays
from eosr.superresolve import superresolve

SHARED = Path(os.environ.get("EOSR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
GROUPS = {10: ("B02", "B03", "B04", "B08"), 20: ("B05", "B06", "B07", "B8A", "B11", "B12"), 60: ("B01", "B09")}
#: Enough bands for spectral scores.
SOME = ("B05", "B8A", "B12")
PLACE = {"transform": (10, 0, 600000, 0, -10, 5000040), "crs": 32632, "level": "L2A", "platform": "sentinel-2a"}


def synthetic(size=48, times=None, **attrs):
    """A scene of ``size`` 20 m pixels a side whose bands share edges, as bands do."""
    rng = np.random.default_rng(2)
    shape = (() if times is None else (len(times),)) + (2 * size, 2 * size)
    ground = gaussian_filter(rng.standard_normal(shape), (0,) * (len(shape) - 2) + (1.5, 1.5))
    bands = {}
    for group, names in GROUPS.items():
        step = group // 10
        blocks = ground.reshape(*shape[:-2], 2 * size // step, step, 2 * size // step, step).mean((-3, -1))
        for k, name in enumerate(names):
            bands[name] = (2500 + 200 * k + (900 + 100 * k) * blocks / ground.std()).clip(1).astype("uint16")
    return from_arrays(bands, time=times, **PLACE, **attrs)


@pytest.fixture(scope="module")
def scene():
    return synthetic()


@pytest.fixture(scope="module")
def large():
    """Wide enough for the reach of the 60 m bands after degrading by 6."""
    return synthetic(size=180)


@pytest.fixture(scope="module")
def table(scene):
    return evaluate(scene, method="bicubic", bands=SOME)


def row(table, method="bicubic"):
    return table.loc[{"method": method}]


def test_synthesis_compares_the_sharpened_degraded_scene_with_the_scene(scene, table):
    """The same by hand, band by band: degrade by 2, sharpen by 2, cut 4 px, compare at 20 m."""
    coarse = degrade(scene, 2)
    for band in ("B05", "B12"):
        sharp = superresolve(coarse, method="bicubic", bands=[band], consistency=False, dtype="float32")[band]
        error = sharp.values.astype(float) - scene[band].values.astype(float)
        expected = np.sqrt(np.mean(error[4:-4, 4:-4] ** 2))
        assert row(table).rmse.sel(band=band) == pytest.approx(expected, rel=1e-6)


def test_sixty_metre_bands_are_degraded_and_sharpened_by_six(large):
    scene = large
    table = evaluate(scene, method="bicubic", consistency=False, bands=["B09"], border=1)
    sharp = superresolve(degrade(scene, 6), method="bicubic", bands=["B09"], consistency=False, dtype="float32")["B09"]
    error = (sharp.values.astype(float) - scene["B09"].values.astype(float))[1:-1, 1:-1]
    assert row(table).rmse.sel(band="B09") == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert list(table.gsd.values) == [60]


def test_consistency_compares_the_degraded_sharpened_scene_with_the_scene(scene):
    table = evaluate(scene, method="bicubic", consistency=False, bands=["B05"], property="consistency")
    sharp = superresolve(scene, method="bicubic", bands=["B05"], consistency=False, dtype="float32")["B05"]
    error = degrade(sharp, 2).values.astype(float) - scene["B05"].values.astype(float)
    assert row(table).rmse.sel(band="B05") == pytest.approx(np.sqrt(np.mean(error[2:-2, 2:-2] ** 2)), rel=1e-6)
    assert row(table).ergas.sel(gsd=20) == pytest.approx(
        row(table).rmse.item() / scene["B05"][2:-2, 2:-2].mean().item() * 100 * 10 / 20
    )


def test_bicubic_stands_beside_every_other_row(scene):
    table = evaluate(scene, method="bicubic", consistency=True, bands=["B05", "B11"])
    assert list(table.method.values) == ["bicubic", "bicubic+consistency"]
    assert table.attrs["sharpened_by_20m"].startswith("eosr ")
    alone = evaluate(scene, method="bicubic", bands=["B05", "B11"])
    assert list(alone.method.values) == ["bicubic"]
    xr.testing.assert_allclose(row(table), row(alone))


def test_projecting_onto_the_measurement_lowers_the_error_and_ends_inconsistency(scene):
    synthesis = evaluate(scene, method="bicubic", consistency=True, bands=["B05", "B11"], border=0)
    assert (row(synthesis, "bicubic+consistency").rmse < row(synthesis).rmse).all()
    native = evaluate(scene, method="bicubic", consistency=True, bands=["B05", "B11"], property="consistency", border=0)
    assert (row(native).rmse > 1).all()
    assert (row(native, "bicubic+consistency").rmse < 0.01).all()


def test_the_operator_changes_the_score_and_is_named(scene):
    scores = {
        name: evaluate(scene, method="bicubic", consistency=False, bands=["B8A"], degradation=name)
        for name in ("study", "box", "mtf")
    }
    assert len({round(float(row(one).rmse.item()), 3) for one in scores.values()}) == 3
    assert [one.attrs["degradation"] for one in scores.values()] == list(scores)


def test_every_band_has_its_row_and_every_pixel_size_its_joint_scores(large):
    table = evaluate(large, method="bicubic")
    assert list(table.band.values) == ["B01", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"]
    assert list(table.native_gsd.values) == [60, 20, 20, 20, 20, 60, 20, 20]
    assert table.rmse.dims == ("method", "band")
    assert table.sam.dims == ("method", "gsd")
    assert table.rmse.notnull().all()
    assert table.sam.notnull().all()
    assert table.rmse.attrs["units"] == "DN"
    assert table.attrs["property"] == "synthesis"
    np.testing.assert_allclose(row(table).ergas_zhang2020, row(table).ergas * [1, 3])


def test_every_time_gets_its_row():
    times = np.array(["2020-01-01", "2020-01-06"], dtype="datetime64[ns]")
    scene = synthetic(times=times)
    table = evaluate(scene, method="bicubic", consistency=False, bands=["B05"])
    assert table.rmse.dims == ("method", "time", "band")
    for k in (0, 1):
        alone = evaluate(scene.isel(time=k), method="bicubic", consistency=False, bands=["B05"])
        np.testing.assert_allclose(table.rmse.isel(time=k), alone.rmse)


def test_lazy_input_gives_the_same_table(scene, table):
    lazy = scene.chunk(y10=36, x10=24, y20=18, x20=12, y60=6, x60=4)
    xr.testing.assert_allclose(evaluate(lazy, method="bicubic", consistency=False, bands=SOME), table, rtol=1e-6)


def test_nodata_is_left_out_with_what_it_spoils(scene):
    holed = scene.copy(deep=True)
    for group, names in GROUPS.items():
        for name in names:
            holed[name][: 240 // group, : 240 // group] = 0
    table = evaluate(holed, method="bicubic", consistency=False, bands=["B05"])
    assert table.rmse.notnull().all()
    assert 0.7 < row(table).coverage.item() < 1
    assert row(table).rmse.item() < 2000  # the scene varies by 900 DN; a filled hole would be off by 2500


def test_a_mask_on_the_10_m_grid_leaves_pixels_out(scene):
    mask = xr.ones_like(scene["B02"], dtype=bool)
    mask[:25] = False  # 12.5 rows of 20 m: the thirteenth is touched and goes too
    table = evaluate(scene, method="bicubic", consistency=False, bands=["B05"], mask=mask, border=0)
    assert row(table).coverage.item() == pytest.approx((48 - 13) / 48)


def test_the_scene_is_cut_until_the_grids_nest():
    scene = synthetic(size=39)  # 78 px at 10 m: 72 nest by 12, and 13 px at 60 m
    cut = scene.isel(y10=slice(72), x10=slice(72), y20=slice(36), x20=slice(36), y60=slice(12), x60=slice(12))
    whole, expected = (evaluate(ds, method="bicubic", consistency=False, bands=["B07"]) for ds in (scene, cut))
    xr.testing.assert_allclose(whole, expected)


def test_an_offset_changes_no_score(scene, table):
    stored = (scene + 1000).astype("uint16").assign_attrs(scene.attrs | {"radiometric_offset": -1000})
    shifted = evaluate(stored, method="bicubic", consistency=False, bands=SOME)
    for name in ("rmse", "sre", "sam", "ergas", "ssim", "psnr"):
        np.testing.assert_allclose(shifted[name], table[name], rtol=1e-4)


def test_real_patches_score_in_the_order_that_is_known():
    """Bicubic at 20 m under the study's operator: consistency is 0.28 (study) to 0.295 of synthesis."""
    path = SHARED / "data/train/bigearthnet_L2A.npz"
    if not path.exists():
        pytest.skip(f"{path.name} of the shared folder is not here (EOSR_SHARED names it)")
    with np.load(path) as pack:
        land = np.flatnonzero(pack["cover"] == "land")[:6]
        x10, x20 = pack["x10"][land], pack["x20"][land]
    bands = {name: x10[:, k] for k, name in enumerate(GROUPS[10])} | {n: x20[:, k] for k, n in enumerate(GROUPS[20])}
    times = np.datetime64("2018-01-01", "ns") + np.arange(len(land)).astype("timedelta64[D]")
    ds = from_arrays(bands, time=times, **PLACE)
    how = {"method": "bicubic", "consistency": False, "conventions": ()}
    synthesis, consistency = (evaluate(ds, property=name, **how) for name in ("synthesis", "consistency"))
    ratio = float((consistency.rmse_joint**2).mean() / (synthesis.rmse_joint**2).mean()) ** 0.5
    assert 0.26 < ratio < 0.33


def test_the_markdown_holds_every_band_and_the_convention(table):
    text = to_markdown(table)
    lines = text.splitlines()
    assert lines[0].startswith("| band | method | RMSE [DN] | SRE [dB] | SAM [deg] | ERGAS | SSIM |")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert f"| B05 | bicubic | {row(table).rmse.sel(band='B05').item():.2f} |" in text
    assert f"| all 20 m | bicubic | {row(table).rmse_joint.sel(gsd=20).item():.2f} |" in text
    assert "degradation `study`" in lines[-1]


# ---- arguments without meaning -------------------------------------------------------------------------------------


def test_an_unknown_property_is_refused(scene):
    with pytest.raises(MetricError, match=r"property='wald' is unknown. Use 'synthesis' or 'consistency'"):
        evaluate(scene, method="bicubic", property="wald")


def test_bands_that_cannot_be_scored_are_named(scene):
    with pytest.raises(BandError, match=r"band B02 cannot be scored: .* It has B05, B06"):
        evaluate(scene, method="bicubic", bands=["B02", "B05"])
    with pytest.raises(BandError, match=r"no 20 m or 60 m band to score"):
        evaluate(scene[list(GROUPS[10])], method="bicubic")


def test_a_border_that_leaves_nothing_is_refused(scene):
    with pytest.raises(GridError, match=r"nothing is left of 48 pixels along 'y20' once 24 are cut.*border=0"):
        evaluate(scene, method="bicubic", bands=["B05"], border=24)
    with pytest.raises(MetricError, match=r"border=-1 pixels cannot be left out"):
        evaluate(scene, method="bicubic", border=-1)


def test_a_band_without_a_pixel_to_score_is_an_error(scene):
    nowhere = xr.zeros_like(scene["B02"], dtype=bool)
    with pytest.raises(MetricError, match=r"no pixel is left to score bicubic in band B05: all are nodata, masked or"):
        evaluate(scene, method="bicubic", bands=["B05"], mask=nowhere)


def test_a_mask_on_another_grid_is_refused(scene):
    with pytest.raises(
        MetricError, match=r"mask is bool on \('y20', 'x20'\). Pass bool with True = use on the 10 m grid"
    ):
        evaluate(scene, method="bicubic", bands=["B05"], mask=scene["B05"] > 0)
    moved = (scene["B02"] > 0).assign_coords(x10=scene.x10 + 10)
    with pytest.raises(MetricError, match=r"the 'x20' coordinates of mask and estimate differ, by up to 10"):
        evaluate(scene, method="bicubic", bands=["B05"], mask=moved)


def test_scores_come_from_the_metrics_room(scene, table):
    """No second implementation: the table is `score_table` of the two images."""
    coarse = degrade(scene, 2)
    names = list(SOME)
    sharp = superresolve(coarse, method="bicubic", bands=names, consistency=False, dtype="float32")[names]
    inner = {"y20": slice(4, -4), "x20": slice(4, -4)}
    estimate = sharp.drop_vars("spatial_ref10", errors="ignore").rename(y10="y20", x10="x20").isel(inner)
    expected = metrics.score_table(
        estimate, scene[names].isel(inner), fine_gsd=20, coarse_gsd=40, peak=10000, data_range=10000
    )
    for name in ("ssim", "bpsnr", "sre_supreme", "ssim_zhang2020"):
        np.testing.assert_allclose(row(table)[name].sel(band=names), expected[name], rtol=1e-6)
    np.testing.assert_allclose(row(table).sam, [expected.sam], rtol=1e-6)


@pytest.mark.parametrize(("bands", "size", "chunk"), [(["B05"], 96, 60), (["B01"], 240, 90)])
def test_chunks_do_not_change_the_scores(bands, size, chunk):
    whole = synthetic(size)
    sizes = {f"{axis}{group}": chunk * 10 // group for axis in "yx" for group in (10, 20, 60)}
    a, b = (evaluate(ds, method="bicubic", bands=bands) for ds in (whole, whole.chunk(sizes)))
    np.testing.assert_allclose(a["rmse"].values, b["rmse"].values, rtol=1e-6)


def test_a_window_too_small_to_score_is_told_the_size_that_is_needed(scene):
    with pytest.raises(
        GridError, match=r"too small to score B01: it is degraded by 6 first.* at least (\d+) x \1 pixels"
    ):
        evaluate(scene, method="bicubic", bands=["B01"])
    least = 324
    evaluate(synthetic(least // 2), method="bicubic", bands=["B01"])
    with pytest.raises(GridError, match=f"at least {least} x {least}"):
        evaluate(synthetic(least // 2 - 18), method="bicubic", bands=["B01"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"border": 1.5}, "border=1.5 is no number of pixels"),
        ({"mask": np.ones((4, 4), bool)}, "not a DataArray. Wrap it"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(scene, options, text):
    with pytest.raises(MetricError, match=text):
        evaluate(scene, method="bicubic", bands=["B05"], **options)


def test_a_dataarray_is_no_scene(scene):
    with pytest.raises(MetricError, match="needs a Dataset of bands, not a DataArray"):
        evaluate(scene["B05"])
