"""The table of all scores: what is in it, on which scale, and that it says so."""

import dask
import numpy as np
import pytest
import xarray as xr

from eosr import metrics
from eosr.cube.radiometry import to_reflectance
from eosr.errors import MetricError

DN = {"fine_gsd": 20, "coarse_gsd": 40, "peak": 10000, "data_range": 10000}
PER_BAND = ["rmse", "bias", "sre", "sre_supreme", "ssim", "psnr", "bpsnr", "coverage"]
JOINT = ["sam", "ergas", "rmse_joint", "sre_joint", "psnr_joint"]
STUDY = ["ssim_zhang2020", "psnr_zhang2020", "bpsnr_zhang2020", "psnr_joint_zhang2020", "ergas_zhang2020"]


def dataset(values, **attrs):
    """Three bands at 20 m as digital numbers, 0 = nodata."""
    dims = ("time", "y20", "x20")[-values[0].ndim :]
    coords = {"y20": 5e6 - 20.0 * np.arange(values[0].shape[-2]), "x20": 4e5 + 20.0 * np.arange(values[0].shape[-1])}
    coords["spatial_ref20"] = 0
    bands = {name: (dims, band.astype("uint16")) for name, band in zip(["B05", "B8A", "B12"], values, strict=True)}
    return xr.Dataset(bands, coords=coords, attrs={"radiometric_offset": 0, **attrs})


@pytest.fixture
def scene():
    """(estimate, reference) with a corner of nodata in one band."""
    rng = np.random.default_rng(11)
    truth = rng.integers(500, 6000, (3, 2, 24, 26))
    estimate = truth + rng.integers(-90, 100, truth.shape)
    truth[1, :, :4, :6] = 0
    return dataset(estimate), dataset(truth)


def test_the_table_holds_every_score_per_time_and_says_what_it_is(scene):
    table = metrics.score_table(*scene, **DN)
    assert set(table) == {*PER_BAND, *JOINT, *STUDY}
    for name, score in table.items():
        assert set(score.dims) == ({"time"} if name.removesuffix("_zhang2020") in JOINT else {"time", "band"}), name
        assert score.notnull().all(), name
        assert "long_name" in score.attrs, name
        assert "units" in score.attrs or score.attrs["long_name"] in ("root mean square error", "mean error")
    assert list(table.band.values) == ["B05", "B8A", "B12"]
    assert table.attrs["peak"] == 10000
    assert table.attrs["ergas_convention"] == "wald"
    assert table.attrs["conventions"] == ["zhang2020"]


def test_the_table_agrees_with_the_single_scores(scene):
    table = metrics.score_table(*scene, **DN)
    estimate, reference = scene
    estimate, reference = (ds.where(reference != 0) for ds in (estimate, reference))
    for band in ("B05", "B8A"):
        one = (estimate[band], reference[band])
        expected = {
            "rmse": metrics.rmse(*one),
            "sre": metrics.sre(*one, definition="dsen2"),
            "sre_supreme": metrics.sre(*one, definition="supreme"),
            "ssim": metrics.ssim(*one, data_range=10000),
            "ssim_zhang2020": metrics.ssim(*one, data_range=255),
            "psnr": metrics.psnr(*one, peak=10000),
            "psnr_zhang2020": metrics.psnr(*one, peak="reference_max"),
            "bpsnr": metrics.bpsnr(*one, peak=10000),
        }
        for name, score in expected.items():
            np.testing.assert_allclose(table[name].sel(band=band), score, err_msg=name)
    stacked = [ds.drop_vars("spatial_ref20").to_dataarray("band") for ds in (estimate, reference)]
    np.testing.assert_allclose(table.sam, metrics.sam(*stacked))
    np.testing.assert_allclose(table.ergas, metrics.ergas(*stacked, fine_gsd=20, coarse_gsd=40))
    whole = [a.where(stacked[1].notnull().all("band")) for a in stacked]
    np.testing.assert_allclose(table.rmse_joint, metrics.rmse(*whole, dim=("band", "y20", "x20")))


def test_digital_number_0_is_nodata_and_coverage_tells_how_much(scene):
    table = metrics.score_table(*scene, **DN)
    gone = 4 * 6 / (24 * 26)
    np.testing.assert_allclose(table.coverage.isel(time=0), [1, 1 - gone, 1])
    assert table.rmse.max() < 100  # an error of thousands, were the corner scored


def test_the_study_has_the_ergas_of_20_metres_at_60_metres_too(scene):
    table = metrics.score_table(*scene, **DN | {"fine_gsd": 60, "coarse_gsd": 360})
    np.testing.assert_allclose(table.ergas_zhang2020, 3 * table.ergas)
    table = metrics.score_table(*scene, **DN)
    np.testing.assert_allclose(table.ergas_zhang2020, table.ergas)


def test_the_columns_of_the_study_can_be_left_out(scene):
    table = metrics.score_table(*scene, **DN, conventions=())
    assert set(table) == {*PER_BAND, *JOINT}
    with pytest.raises(MetricError, match=r"convention 'wald' is unknown. Use 'zhang2020', or \(\) for none"):
        metrics.score_table(*scene, **DN, conventions=("wald",))


@pytest.mark.parametrize("offset", [-1000, [-1000, 0]], ids=["one", "one per time"])
def test_the_offset_comes_off_before_scoring(scene, offset):
    """The same reflectance stored with and without the offset of baseline 04.00 has the same scores."""
    expected = metrics.score_table(*scene, **DN)
    shift = xr.DataArray(offset, dims="time" if isinstance(offset, list) else ())
    stored = [(ds - shift).where(ds != 0, 0).transpose("time", ...).astype("uint16") for ds in scene]
    stored = [ds.assign_attrs(radiometric_offset=offset) for ds in stored]
    table = metrics.score_table(*stored, **DN)
    xr.testing.assert_allclose(table, expected)
    assert table.attrs["radiometric_offset_applied"] == offset
    naive = metrics.score_table(*(ds.assign_attrs(radiometric_offset=0) for ds in stored), **DN)
    assert (naive.sre.isel(time=0) > expected.sre.isel(time=0) + 1).all()


def test_reflectance_has_the_scores_of_digital_numbers(scene):
    stored = [ds.assign_attrs(radiometric_offset=-1000, quantification=10000) for ds in scene]
    table = metrics.score_table(*stored, **DN)
    reflectance = [to_reflectance(ds) for ds in stored]
    other = metrics.score_table(*reflectance, **DN | {"peak": 1, "data_range": 1})
    for name in (*PER_BAND, *JOINT, *STUDY):
        scale = 1e4 if name in ("rmse", "bias", "rmse_joint") else 1
        np.testing.assert_allclose(scale * other[name], table[name], rtol=1e-4, atol=1e-4, err_msg=name)
    with pytest.raises(MetricError, match=r"estimate has quantity 'reflectance' and reference None"):
        metrics.score_table(reflectance[0], stored[1], **DN)


def test_an_offset_per_time_needs_as_many_times(scene):
    scene = [ds.assign_attrs(radiometric_offset=[-1000, 0]).isel(time=slice(1)) for ds in scene]
    with pytest.raises(MetricError, match=r"radiometric_offset has 2 values but estimate 1 times"):
        metrics.score_table(*scene, **DN)


def test_two_offsets_and_one_that_nobody_states_are_refused(scene):
    estimate, reference = scene
    with pytest.raises(
        MetricError, match=r"reference has no attribute radiometric_offset.*\['radiometric_offset'\] = "
    ):
        metrics.score_table(estimate, reference.drop_attrs(deep=False), **DN)
    with pytest.raises(MetricError, match=r"estimate has radiometric_offset -1000 and reference 0: .*to_reflectance"):
        metrics.score_table(estimate.assign_attrs(radiometric_offset=-1000), reference, **DN)


def test_the_table_is_lazy_and_does_not_depend_on_the_chunks(scene):
    def never(*args, **kwargs):
        raise RuntimeError("somebody computed")

    with dask.config.set(scheduler=never):
        lazy = metrics.score_table(scene[0].chunk(y20=11), scene[1].chunk(x20=12, time=1), **DN)
    xr.testing.assert_allclose(lazy.compute(), metrics.score_table(*scene, **DN))


def test_the_order_of_bands_follows_bands_and_changes_no_score(scene):
    turned = metrics.score_table(*scene, **DN, bands=["B12", "B05", "B8A"])
    assert list(turned.band.values) == ["B12", "B05", "B8A"]
    xr.testing.assert_allclose(turned.sel(band=["B05", "B8A", "B12"]), metrics.score_table(*scene, **DN))


def test_an_image_smaller_than_the_window_has_no_ssim_but_every_other_score(scene):
    table = metrics.score_table(*(ds.isel(y20=slice(10)) for ds in scene), **DN)
    assert table.ssim.isnull().all()
    assert table.rmse.notnull().all()


def test_mask_and_time_can_be_given(scene):
    mask = scene[1].x20 < 4e5 + 20 * 20
    cut = [ds.isel(x20=slice(20)) for ds in scene]
    masked, expected = metrics.score_table(*scene, **DN, mask=mask), metrics.score_table(*cut, **DN)
    xr.testing.assert_allclose(masked.drop_vars("coverage"), expected.drop_vars("coverage"))
    pooled = metrics.score_table(*scene, **DN, dim=("time", "y20", "x20"))
    np.testing.assert_allclose(pooled.rmse**2, (expected_rmse(scene) ** 2), rtol=1e-12)


def expected_rmse(scene):
    estimate, reference = (ds.to_dataarray("band").astype(float) for ds in scene)
    error = (estimate - reference).where(reference != 0)
    return (error**2).mean(("time", "y20", "x20")) ** 0.5


def test_bands_that_are_missing_or_too_many_are_named(scene):
    estimate, reference = scene
    with pytest.raises(MetricError, match=r"estimate has no band B12; it has B05, B8A. Name those to score"):
        metrics.score_table(estimate.drop_vars("B12"), reference, **DN)
    with pytest.raises(MetricError, match=r"reference has no band B12; it has B05, B8A. Name those to score"):
        metrics.score_table(estimate, reference.drop_vars("B12"), **DN)
    assert metrics.score_table(estimate, reference.drop_vars("B12"), **DN, bands=["B05"]).band == ["B05"]
    with pytest.raises(MetricError, match=r"there is no band to score"):
        metrics.score_table(estimate, reference, **DN, bands=[])


def test_bands_of_two_pixel_sizes_are_refused(scene):
    coarse = scene[1][["B05"]].isel(y20=slice(8), x20=slice(8)).rename(y20="y60", x20="x60", B05="B01")
    both = [ds.assign(coarse) for ds in scene]
    with pytest.raises(MetricError, match=r"the bands of estimate are not on one grid: .*B01.*Score one pixel size"):
        metrics.score_table(*both, **DN)


def test_arrays_are_refused(scene):
    with pytest.raises(MetricError, match=r"estimate is a DataArray; score_table wants a Dataset"):
        metrics.score_table(scene[0].B05, scene[1], **DN)
