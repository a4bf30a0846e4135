"""Wald's protocol end to end: what is compared with what, on which pixels, and the table that comes out."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter

from eosr import metrics
from eosr.cube.degradation import degrade
from eosr.cube.grid import from_arrays
from eosr.errors import BandError, DegradationError, GridError, MetricError
from eosr.nn import weights as nn_weights
from eosr.score.evaluation import evaluate
from eosr.score.report.by_band import by_band
from eosr.sharpen.superresolution import superresolve
from eosr.testing import nothing_computed, random_weights, synthetic_scene

SHARED = Path(os.environ.get("EOSR_SHARED", Path(__file__).resolve().parents[3] / "shared"))
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
    return synthetic(size=198)


@pytest.fixture(scope="module")
def table(scene):
    return evaluate(scene, "bicubic", bands=SOME)


def per_band(table, metric="rmse", method="bicubic", projection="before"):
    """Scores of the one scene, property and operator there is, by band."""
    chosen = table.score.loc[{"method": method, "projection": projection, "metric": metric}]
    return chosen.squeeze(["scene", "property", "degradation"], drop=True)


def overall(table, metric, average="pooled", method="bicubic", projection="before"):
    """Scores over all bands, by pixel size."""
    at = {"method": method, "projection": projection, "metric": metric, "average": average}
    return table.score_overall.loc[at].squeeze(["scene", "property", "degradation"], drop=True)


def without_costs(table):
    return table.drop_vars(["seconds", "peak_memory"])


def test_synthesis_compares_the_sharpened_degraded_scene_with_the_scene(scene, table):
    """The same by hand, band by band: degrade by 2, sharpen by 2, cut 4 px, compare at 20 m."""
    coarse = degrade(scene, 2)
    for band in ("B05", "B12"):
        sharp = superresolve(coarse, method="bicubic", bands=[band], consistency=False, dtype="float32")[band]
        error = sharp.values.astype(float) - scene[band].values.astype(float)
        expected = np.sqrt(np.mean(error[4:-4, 4:-4] ** 2))
        assert per_band(table).sel(band=band) == pytest.approx(expected, rel=1e-6)


def test_sixty_metre_bands_are_degraded_and_sharpened_by_six(large):
    scene = large
    table = evaluate(scene, "bicubic", bands=["B09"], border=1)
    sharp = superresolve(degrade(scene, 6), method="bicubic", bands=["B09"], consistency=False, dtype="float32")["B09"]
    error = (sharp.values.astype(float) - scene["B09"].values.astype(float))[1:-1, 1:-1]
    assert per_band(table).sel(band="B09") == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert list(table.gsd.values) == [60]


def test_consistency_compares_the_degraded_sharpened_scene_with_the_scene(scene):
    table = evaluate(scene, "bicubic", bands=["B05"], property="consistency")
    sharp = superresolve(scene, method="bicubic", bands=["B05"], consistency=False, dtype="float32")["B05"]
    error = degrade(sharp, 2).values.astype(float) - scene["B05"].values.astype(float)
    assert per_band(table).sel(band="B05") == pytest.approx(np.sqrt(np.mean(error[2:-2, 2:-2] ** 2)), rel=1e-6)
    for average in ("mean", "pooled"):
        assert overall(table, "ergas", average).sel(gsd=20) == pytest.approx(
            per_band(table).item() / scene["B05"][2:-2, 2:-2].mean().item() * 100 * 10 / 20
        )


def test_bicubic_stands_beside_every_other_row(scene):
    table = evaluate(scene, "detail_injection", bands=["B05", "B11"])
    assert list(table.method.values) == ["bicubic", "detail_injection"]
    alone = evaluate(scene, "bicubic", bands=["B05", "B11"])
    assert list(alone.method.values) == ["bicubic"]
    for stage in ("before", "after"):
        xr.testing.assert_allclose(per_band(table, projection=stage), per_band(alone, projection=stage))


def test_projecting_onto_the_measurement_lowers_the_error_and_ends_inconsistency(scene):
    both = evaluate(scene, "bicubic", bands=["B05", "B11"], border=0, property=["synthesis", "consistency"])
    synthesis, native = (both.loc[{"property": [kind]}] for kind in ("synthesis", "consistency"))
    assert (per_band(synthesis, projection="after") < per_band(synthesis)).all()
    assert (per_band(native) > 1).all()
    assert (per_band(native, projection="after") < 0.01).all()


def test_both_stages_are_those_of_superresolve(scene):
    """What is scored after the projection is what superresolve delivers with consistency=True, by a second way."""
    table = evaluate(scene, "detail_injection", bands=["B05"], border=6)
    coarse = degrade(scene, 2)
    for stage, projected in (("before", False), ("after", True)):
        sharp = superresolve(coarse, method="detail_injection", bands=["B05"], consistency=projected, dtype="float32")
        error = (sharp["B05"].values.astype(float) - scene["B05"].values.astype(float))[6:-6, 6:-6]
        assert per_band(table, method="detail_injection", projection=stage).item() == pytest.approx(
            np.sqrt(np.mean(error**2)), rel=1e-6
        )


def test_the_operator_changes_the_score_and_is_named(scene):
    table = evaluate(scene, "bicubic", bands=["B8A"], degradation="all", small="mirror")
    assert list(table.degradation.values) == ["study", "box", "mtf", "mtf_diff"]
    scores = [per_band(table.loc[{"degradation": [name]}]).item() for name in table.degradation.values]
    assert len({round(score, 3) for score in scores}) == 4
    alone = evaluate(scene, "bicubic", bands=["B8A"], degradation="mtf", small="mirror")
    assert per_band(alone).item() == scores[2]


def test_every_band_has_its_row_and_every_pixel_size_its_joint_scores(large):
    table = evaluate(large, "bicubic")
    assert list(table.band.values) == ["B01", "B05", "B06", "B07", "B8A", "B09", "B11", "B12"]
    assert list(table.native_gsd.values) == [60, 20, 20, 20, 20, 60, 20, 20]
    assert table.score.dims == ("scene", "method", "property", "degradation", "projection", "band", "metric")
    assert table.score_overall.dims[-3:] == ("gsd", "average", "metric")
    assert per_band(table).notnull().all()
    assert overall(table, "sam").notnull().all()
    assert table.unit.sel(metric="rmse") == "DN"
    assert table.property.values.tolist() == ["synthesis"]
    study = evaluate(large, "bicubic", convention="zhang2020")
    for average in ("mean", "pooled"):
        np.testing.assert_allclose(overall(study, "ergas", average), overall(table, "ergas", average) * [1, 3])


def test_every_time_is_a_scene():
    times = np.array(["2020-01-01", "2020-01-06"], dtype="datetime64[ns]")
    told = [str(time)[:26] for time in times.astype("datetime64[us]")]
    scene = synthetic(times=times, item_ids=["one", "two"], item_times=told).assign_attrs(times=told)
    table = evaluate(scene, "bicubic", bands=["B05"])
    assert list(table.scene.values) == ["one", "two"]
    for k, name in enumerate(["one", "two"]):
        alone = evaluate(scene.isel(time=k), "bicubic", bands=["B05"])
        np.testing.assert_allclose(per_band(table.loc[{"scene": [name]}]), per_band(alone))


def test_lazy_input_gives_the_same_table(scene, table):
    lazy = scene.chunk(y10=36, x10=24, y20=18, x20=12, y60=6, x60=4)
    again = evaluate(lazy, "bicubic", bands=SOME)
    xr.testing.assert_allclose(without_costs(again), without_costs(table), rtol=1e-6, atol=1e-4)


def test_nodata_is_left_out_with_what_it_spoils(scene):
    holed = scene.copy(deep=True)
    for group, names in GROUPS.items():
        for name in names:
            holed[name][: 240 // group, : 240 // group] = 0
    table = evaluate(holed, "bicubic", bands=["B05"])
    assert per_band(table).notnull().all()
    assert 0.7 < per_band(table, "coverage").item() < 1
    assert per_band(table).item() < 2000  # the scene varies by 900 DN; a filled hole would be off by 2500


def test_a_mask_on_the_10_m_grid_leaves_pixels_out(scene):
    mask = xr.ones_like(scene["B02"], dtype=bool)
    mask[:25] = False  # 12.5 rows of 20 m: the thirteenth is touched and goes too
    table = evaluate(scene, "bicubic", bands=["B05"], mask=mask, border=0)
    assert per_band(table, "coverage").item() == pytest.approx((48 - 13) / 48)


def test_the_scene_is_cut_until_the_grids_nest():
    scene = synthetic(size=39)  # 78 px at 10 m: 72 nest by 12, and 13 px at 60 m
    cut = scene.isel(y10=slice(72), x10=slice(72), y20=slice(36), x20=slice(36), y60=slice(12), x60=slice(12))
    whole, expected = (evaluate(ds, "bicubic", bands=["B07"], small="mirror") for ds in (scene, cut))
    xr.testing.assert_allclose(whole.score, expected.score)


def test_an_offset_changes_no_score(scene, table):
    stored = (scene + 1000).astype("uint16").assign_attrs(scene.attrs | {"radiometric_offset": -1000})
    shifted = evaluate(stored, "bicubic", bands=SOME)
    for name in ("rmse", "sre", "ssim", "psnr"):
        np.testing.assert_allclose(per_band(shifted, name), per_band(table, name), rtol=1e-4)
    for name in ("sam", "ergas"):
        np.testing.assert_allclose(overall(shifted, name), overall(table, name), rtol=1e-4)


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
    table = evaluate(ds, "bicubic", property="all", small="mirror")
    assert table.sizes["scene"] == len(land)
    at = {"projection": "before", "average": "pooled", "metric": "rmse", "gsd": 20}
    pooled = table.summary_overall.loc[at].squeeze(drop=True)
    ratio = float(pooled.loc["consistency"] / pooled.loc["synthesis"])
    assert 0.26 < ratio < 0.33


def test_the_markdown_holds_every_band_and_the_convention(table):
    text = by_band(table)
    lines = text.splitlines()
    assert lines[0].startswith("| band | method | RMSE [DN] | SRE [dB] | SAM [deg] | ERGAS | SSIM |")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert f"| B05 | bicubic | {per_band(table).sel(band='B05').item():.2f} |" in text
    assert f"| B05 | bicubic + projection | {per_band(table, projection='after').sel(band='B05').item():.2f} |" in text
    assert f"| all 20 m | bicubic | {overall(table, 'rmse').sel(gsd=20).item():.2f} |" in text
    assert "degradation `study`" in lines[-1]


# ---- arguments without meaning -------------------------------------------------------------------------------------


def test_an_unknown_property_is_refused(scene):
    with pytest.raises(MetricError, match=r"property='wald' is unknown. Use 'synthesis' or 'consistency'"):
        evaluate(scene, "bicubic", property="wald")


def test_bands_that_cannot_be_scored_are_named(scene):
    with pytest.raises(BandError, match=r"band B02 cannot be scored: .* It has B05, B06"):
        evaluate(scene, "bicubic", bands=["B02", "B05"])
    with pytest.raises(BandError, match=r"no 20 m or 60 m band to score"):
        evaluate(scene[list(GROUPS[10])], "bicubic")
    with pytest.raises(BandError, match=r"bands is empty, so there is nothing to score"):
        evaluate(scene, "bicubic", bands=[])


def test_a_border_that_leaves_nothing_is_refused(scene):
    with pytest.raises(GridError, match=r"nothing is left of 48 pixels along 'y20' once 24 are cut.*border=0"):
        evaluate(scene, "bicubic", bands=["B05"], border=24)
    with pytest.raises(MetricError, match=r"border=-1 pixels cannot be left out"):
        evaluate(scene, "bicubic", border=-1)


@pytest.mark.parametrize(
    ("sizes", "bands", "options", "left"),
    [
        # Sides of the scenes in 20 m pixels; one of 51 is cut to 48 in synthesis, and stays as it is in consistency.
        ((48,), ["B05"], {"border": 24}, "48 pixels along 'y20' once 24"),
        ((60, 48), ["B05"], {"border": 24}, "48 pixels along 'y20' once 24"),
        ((51,), ["B05"], {"border": 24, "property": ["consistency", "synthesis"]}, "48 pixels along 'y20' once 24"),
        ((252,), ["B05", "B01"], {"border": 42}, "84 pixels along 'y60' once 42"),
        ((36,), ["B05", "B01"], {"small": "mirror"}, "12 pixels along 'y60' once 12"),
    ],
    ids=["one scene", "second scene", "second property", "second pixel size", "mirrored"],
)
def test_a_border_that_leaves_nothing_is_refused_before_anything_is_computed(sizes, bands, options, left):
    scenes = {str(size): synthetic(size) for size in sizes}
    with nothing_computed(), pytest.raises(GridError, match=f"nothing is left of {left} are cut.*border=0"):
        evaluate(scenes, ["bicubic", "detail_injection"], bands=bands, **options)


def test_weights_for_another_operator_are_refused_before_anything_is_computed(scene, tmp_path):
    weights = random_weights(tmp_path / "study-only.safetensors", degradations=["study"])
    with nothing_computed(), pytest.raises(DegradationError, match="trained to invert study, not 'mtf'"):
        evaluate(scene, ["bicubic", weights], bands=["B05"], degradation="mtf", small="mirror")


def test_a_band_without_a_pixel_to_score_is_an_error(scene):
    nowhere = xr.zeros_like(scene["B02"], dtype=bool)
    told = r"no pixel is left to score bicubic in band B05 of scene: all are nodata, masked or"
    with pytest.raises(MetricError, match=told):
        evaluate(scene, "bicubic", bands=["B05"], mask=nowhere)


def test_a_mask_on_another_grid_is_refused(scene):
    with pytest.raises(
        MetricError, match=r"mask is bool on \('y20', 'x20'\). Pass bool with True = use on the 10 m grid"
    ):
        evaluate(scene, "bicubic", bands=["B05"], mask=scene["B05"] > 0)
    moved = (scene["B02"] > 0).assign_coords(x10=scene.x10 + 10)
    with pytest.raises(MetricError, match=r"the 'x10' coordinates of mask and scene differ, by up to 10"):
        evaluate(scene, "bicubic", bands=["B05"], mask=moved)


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
    for name in ("ssim", "bpsnr", "sre_supreme"):
        np.testing.assert_allclose(per_band(table, name).sel(band=names), expected[name], rtol=1e-6)
    np.testing.assert_allclose(overall(table, "sam"), [expected.sam], rtol=1e-6)
    study = evaluate(scene, "bicubic", bands=SOME, convention="zhang2020")
    for name in ("ssim", "psnr", "bpsnr"):
        np.testing.assert_allclose(
            per_band(study, name).sel(band=names), expected[f"{name}_zhang2020"], rtol=1e-6
        )  # fmt: skip


@pytest.mark.parametrize(("bands", "size", "chunk"), [(["B05"], 96, 60), (["B01"], 240, 90)])
def test_chunks_do_not_change_the_scores(bands, size, chunk):
    whole = synthetic(size)
    sizes = {f"{axis}{group}": chunk * 10 // group for axis in "yx" for group in (10, 20, 60)}
    a, b = (evaluate(ds, "bicubic", bands=bands) for ds in (whole, whole.chunk(sizes)))
    np.testing.assert_allclose(per_band(a), per_band(b), rtol=1e-6)


def test_a_window_too_small_to_score_is_told_the_size_that_is_needed(scene):
    with pytest.raises(
        GridError, match=r"too small to score B01: it is degraded by 6 first.* at least (\d+) x \1 pixels"
    ):
        evaluate(scene, "bicubic", bands=["B01"])
    least = 396  # 66 px after degrading by 6: interpolation 18, projection 12 and filling of gaps 36
    evaluate(synthetic(least // 2), "bicubic", bands=["B01"])
    with pytest.raises(GridError, match=f"at least {least} x {least}"):
        evaluate(synthetic(least // 2 - 18), "bicubic", bands=["B01"])


@pytest.mark.parametrize("method", ["bicubic", "detail_injection"])
def test_a_small_scene_is_continued_by_its_mirror_images_if_asked(method):
    """The same pixels from a scene laid out with its mirror images by hand, in which nothing is too small."""
    scene = synthetic(size=36)
    laid = {name: np.pad(band.values, band.shape[0], mode="symmetric") for name, band in scene.data_vars.items()}
    laid = from_arrays(laid, **PLACE)
    small = evaluate(scene, method, bands=["B05"], border=0, small="mirror")
    mask = xr.zeros_like(laid["B02"], dtype=bool)
    mask[72:144, 72:144] = True
    whole = evaluate(laid, method, bands=["B05"], border=0, mask=mask)
    for stage in ("before", "after"):
        found, expected = (per_band(table, method=method, projection=stage).item() for table in (small, whole))
        assert found == pytest.approx(expected, rel=1e-5)
    with pytest.raises(GridError, match="let small scenes be continued by their mirror images with small='mirror'"):
        evaluate(scene, method, bands=["B05"], border=0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"small": "pad"}, "small='pad' is unknown. Use 'refuse' or 'mirror'"),
        ({"units": "percent"}, "units='percent' is unknown. Use 'DN' or 'reflectance'"),
        ({"convention": "zhang"}, "convention='zhang' is unknown. Use 'eosr', 'zhang2020', or a Convention"),
        ({"degradation": "gauss"}, "degradation='gauss' is unknown. Use 'study', 'box', 'mtf', 'mtf_diff', or 'all'"),
        ({"border": 1.5}, "border=1.5 is no number of pixels"),
        ({"mask": {"elsewhere": None}}, "mask names elsewhere, which is no scene. The scenes are scene; name them so"),
        ({"mask": np.ones((4, 4), bool)}, "not a DataArray. Wrap it"),
    ],
)
def test_arguments_of_the_wrong_type_are_refused(scene, options, text):
    with pytest.raises(MetricError, match=text):
        evaluate(scene, "bicubic", bands=["B05"], **options)


def test_a_dataarray_is_no_scene(scene):
    with pytest.raises(MetricError, match="needs a Dataset of bands, not a DataArray"):
        evaluate(scene["B05"])


def test_one_evaluation_loads_each_weights_file_once(monkeypatch, tmp_path):
    """Choosing methods, checking scenes and every tile ask for them: about ten times before they were kept."""
    weights, loads = random_weights(tmp_path / "w.safetensors"), []
    once = nn_weights.load_weights
    monkeypatch.setattr(nn_weights, "load_weights", lambda source: loads.append(source) or once(source))
    scene = synthetic_scene(36, 36)
    evaluate(scene, weights, property=("synthesis", "consistency"), degradation=("study", "box"), bands=["B05"])
    assert len(loads) == 1
    random_weights(weights, seed=1)
    evaluate(scene, weights, bands=["B05"])
    assert len(loads) == 2, "the file has changed"
