"""The pixels that the page shows: those of `superresolve`, of the same window everywhere, and in the right order."""

import numpy as np
import pytest

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import degrade
from eosr.errors import BandError, MethodError, MetricError
from eosr.score import write_report
from eosr.score.evaluation import evaluate
from eosr.score.report.exhibits import WINDOW, exhibits
from eosr.sharpen.superresolution import superresolve
from eosr.testing import synthetic_scene

OFFSET = -1000
#: A gap of one 60 m pixel in the middle of the scene.
GAPS = {"B05": [(slice(33, 36), slice(36, 39))]}


@pytest.fixture(scope="module")
def scene():
    """150 x 144 pixels of 10 m."""
    return synthetic_scene(25, 24, level="L2A", radiometric_offset=OFFSET, gaps=GAPS)


@pytest.fixture(scope="module")
def shown(scene):
    return list(exhibits(scene, ["detail_injection"], window=48))


def test_a_scene_is_shown_at_every_scale_it_is_large_enough_for(shown):
    """At 60 m 150 pixels leave 24 after degrading by 6: too few for any method."""
    assert [(one.title, one.gsd, one.factor) for one in shown] == [
        ("synthesis, study, 20 m bands", 20.0, 2), ("native scale, all bands at 10 m", 10.0, 6),
    ]  # fmt: skip
    assert {one.scene for one in shown} == {"synthetic"}
    assert [one.shape for one in shown] == [(48, 48), (48, 48)]


def test_the_answers_are_those_of_superresolve_with_the_offset(scene, shown):
    """Bicubic before the projection, the others after it. 75 - 3 = 72 rows at 20 m, (72 - 48) / 2 = 12 the first."""
    cropped = scene.isel(y10=slice(144), y20=slice(72), y60=slice(24))
    coarse = degrade(cropped, 2)
    for ds, exhibit, rows, columns in (
        (coarse, shown[0], slice(12, 60), slice(12, 60)),
        (scene, shown[1], slice(48, 96), slice(48, 96)),
    ):
        for method in ("bicubic", "detail_injection"):
            bands = [band for band in (*BANDS_20M, *BANDS_60M) if band in exhibit.after[method]]
            sharp = superresolve(
                ds, method=method, bands=bands, consistency=method != "bicubic", degradation="study", dtype="float32"
            )
            for band in bands:
                expected = sharp[band].values[rows, columns] + OFFSET
                np.testing.assert_allclose(exhibit.after[method][band], expected, rtol=1e-5, err_msg=band)


def test_the_truth_and_what_was_given_are_of_the_same_window(scene, shown):
    synthesis, native = shown
    assert list(synthesis.truth) == list(BANDS_20M)
    measured = scene["B8A"].values[12:60, 12:60].astype(float) + OFFSET
    np.testing.assert_array_equal(synthesis.truth["B8A"], measured)
    assert native.truth == {}
    # The window of 10 m starts at row 48 (51 is no whole 60 m pixel), which is row 24 of 20 m and row 8 of 60 m.
    np.testing.assert_array_equal(native.before["B02"], scene["B02"].values[48:96, 48:96].astype(float) + OFFSET)
    b11 = np.kron(scene["B11"].values[24:48, 24:48], np.ones((2, 2))) + OFFSET
    np.testing.assert_array_equal(native.before["B11"], b11)
    b09 = np.kron(scene["B09"].values[8:16, 8:16], np.ones((6, 6))) + OFFSET
    np.testing.assert_array_equal(native.before["B09"], b09)
    assert set(native.before) == {*BANDS_10M, *BANDS_20M, *BANDS_60M}
    assert set(synthesis.before) == {*BANDS_10M, *BANDS_20M}


def test_what_was_given_at_the_degraded_scale_is_the_degraded_scene(scene, shown):
    coarse = degrade(scene.isel(y10=slice(144), y20=slice(72), y60=slice(24)), 2)
    fine = coarse["B02"].values[12:60, 12:60] + OFFSET
    np.testing.assert_allclose(shown[0].before["B02"], fine, rtol=1e-6)
    band = np.kron(coarse["B12"].values[6:30, 6:30], np.ones((2, 2))) + OFFSET
    np.testing.assert_allclose(shown[0].before["B12"], band, rtol=1e-6)


def test_nodata_is_nan_in_all_of_them(shown):
    synthesis, native = shown
    hole = np.zeros((48, 48), bool)
    hole[33 - 12 : 36 - 12, 36 - 12 : 39 - 12] = True
    np.testing.assert_array_equal(np.isnan(synthesis.truth["B05"]), hole)
    large = np.zeros((48, 48), bool)
    large[66 - 48 : 72 - 48, 72 - 48 : 78 - 48] = True
    for one in (native.before["B05"], *(bands["B05"] for bands in native.after.values())):
        np.testing.assert_array_equal(np.isnan(one), large)
    assert np.isfinite(native.before["B06"]).all()


@pytest.mark.parametrize("window", [20, 47, 50])
def test_every_window_starts_on_a_whole_60_m_pixel(scene, window):
    (native,) = exhibits(scene[[*BANDS_10M, *BANDS_60M]], "bicubic", window=window)
    blocks = native.before["B09"]
    assert blocks.shape == (window, window)
    for start in range(0, window - 5, 6):
        block = blocks[start : start + 6, start : start + 6]
        assert (block == block[0, 0]).all()
    assert len(np.unique(blocks)) > 4


def test_a_window_larger_than_the_scene_shows_all_of_it(scene):
    (native,) = [one for one in exhibits(scene, "bicubic", bands=["B01"], window=1000) if not one.truth]
    assert native.shape == (150, 144)
    assert WINDOW <= 200  # a page holds the pixels of every exhibit


def test_a_scene_too_small_for_everything_shows_nothing_unless_it_is_mirrored():
    small = synthetic_scene(6, 6)
    assert list(exhibits(small, "bicubic", bands=["B05", "B01"])) == []
    titles = [one.title for one in exhibits(small, "bicubic", bands=["B05", "B01"], small="mirror", degradation="box")]
    assert titles == [
        "synthesis, box, 20 m bands", "synthesis, box, 60 m bands", "native scale, all bands at 10 m"
    ]  # fmt: skip
    (native,) = exhibits(synthetic_scene(1, 1), "bicubic", small="mirror", bands=["B01"])
    assert native.gsd == 10


def test_a_band_that_is_not_judged_is_not_shown(scene):
    for one in exhibits(scene, "bicubic", bands=["B05"], window=24):
        assert one.made == ("B05",)
        assert set(one.before) == {*BANDS_10M, "B05"}


def test_a_scene_without_60_m_bands_has_no_60_m_scale(scene):
    found = list(exhibits(scene[[*BANDS_10M, *BANDS_20M]], "bicubic", window=24))
    assert [(one.gsd, one.factor) for one in found] == [(20.0, 2), (10.0, 2)]


def test_lazy_scenes_show_the_same_pixels(scene, shown):
    chunks = {f"{axis}{group}": 48 * 10 // group for group in (10, 20, 60) for axis in "yx"}
    for one, again in zip(shown, exhibits(scene.chunk(chunks), "detail_injection", window=48), strict=True):
        assert one.title == again.title
        for band, pixels in one.after["detail_injection"].items():
            np.testing.assert_allclose(again.after["detail_injection"][band], pixels, rtol=1e-4)


def test_bad_arguments_are_answered_as_in_evaluate(scene):
    with pytest.raises(MetricError, match=r"small='crop' is unknown. Use 'refuse' or 'mirror'"):
        next(exhibits(scene, "bicubic", small="crop"))
    with pytest.raises(MethodError, match="'atprc' is not a method eosr knows"):
        next(exhibits(scene, "atprc"))
    with pytest.raises(MetricError, match="needs a Dataset of bands, not a str"):
        next(exhibits("item.json", "bicubic"))


def test_the_page_is_written_from_the_table_and_the_exhibits(scene, tmp_path):
    table = evaluate(scene, "bicubic", bands=["B05", "B11"])
    shown = exhibits(scene, "bicubic", bands=["B05", "B11"], window=48)
    path = write_report(table, tmp_path / "report.html", exhibits=shown)
    page = path.read_text("utf-8")
    assert "synthesis, study, 20 m bands" in page
    assert "native scale, all bands at 10 m" in page
    rmse = table.summary_overall.loc[{"metric": "rmse", "average": "mean", "projection": "before"}].item()
    assert f"{rmse:.2f}" in page or f"{rmse:.1f}" in page


def test_a_saturated_pixel_is_shown_as_a_gap():
    """The table leaves it out; mixed into larger pixels it would spoil the maps of every method."""
    burnt = synthetic_scene(25, 24, level="L2A")
    burnt["B05"][36:38, 36:38] = 65535
    exhibit = next(iter(exhibits(burnt, "bicubic", bands=["B05"], window=48)))
    assert np.isnan(exhibit.truth["B05"]).sum() == 4
    assert np.nanmax(np.abs(exhibit.after["bicubic"]["B05"] - exhibit.truth["B05"])) < 5000


def test_a_scene_may_lack_bands_that_nobody_asked_for():
    """eosr's weights of 60 m need B09, and would be refused without it."""
    scene = synthetic_scene(16, 16, level="L2A").drop_vars("B09")
    with pytest.raises(BandError, match="B09"):
        list(exhibits(scene, "eosr", small="mirror"))
    shown = list(exhibits(scene, "eosr", bands=["B05"], small="mirror"))
    assert {band for one in shown for images in one.after.values() for band in images} == {"B05"}
