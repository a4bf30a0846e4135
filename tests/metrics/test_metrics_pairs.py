"""What counts and what does not: gaps, masks, weights, grids, chunks, and laziness, for every score."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from eosr import metrics
from eosr.errors import MetricError

SCORES = {
    "rmse": metrics.rmse,
    "mae": metrics.mae,
    "bias": metrics.bias,
    "sre_dsen2": lambda *a, **k: metrics.sre(*a, definition="dsen2", **k),
    "sre_supreme": lambda *a, **k: metrics.sre(*a, definition="supreme", **k),
    "psnr": lambda *a, **k: metrics.psnr(*a, peak=10000, **k),
    "psnr_reference_max": lambda *a, **k: metrics.psnr(*a, peak="reference_max", **k),
    "bpsnr": lambda *a, **k: metrics.bpsnr(*a, peak=10000, **k),
    "ssim": lambda *a, **k: metrics.ssim(*a, data_range=10000, **k),
    "uiq": metrics.uiq,
    "sam": metrics.sam,
    "ergas": lambda *a, **k: metrics.ergas(*a, fine_gsd=20, coarse_gsd=60, **k),
}
SPECTRAL = ("sam", "ergas")
WINDOWED = ("ssim", "uiq")
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())


def never(*args, **kwargs):
    raise RuntimeError("somebody computed")


@pytest.fixture
def images():
    """(estimate, reference), dims (time, band, y20, x20), uint16, correlated and smooth enough to be an image."""
    rng = np.random.default_rng(3)
    coords = {"time": np.array(["2020-01-01", "2020-01-06"], dtype="datetime64[ns]"), "band": ["B05", "B11", "B12"]}
    coords |= {"y20": 5e6 - 20.0 * np.arange(37), "x20": 4e5 + 20.0 * np.arange(41)}
    truth = rng.integers(300, 5000, (2, 3, 37, 41))
    estimate = truth + rng.integers(-200, 230, truth.shape)
    return tuple(xr.DataArray(a.astype("uint16"), dims=tuple(coords), coords=coords) for a in (estimate, truth))


@every_score
@pytest.mark.parametrize("chunk", [7, 16, 40])
def test_the_score_does_not_depend_on_the_chunks(images, score, chunk):
    estimate, reference = images
    lazy = score(estimate.chunk(y20=chunk, x20=chunk + 3), reference.chunk(y20=chunk + 5, band=1))
    xr.testing.assert_allclose(lazy.compute(), score(estimate, reference), rtol=1e-10)


@every_score
def test_the_score_stays_lazy_whatever_is_lazy(images, score):
    estimate, reference = images
    weights = xr.ones_like(reference.isel(band=0, drop=True), dtype=float).chunk()
    mask = (weights > 0).chunk(y20=9)
    with dask.config.set(scheduler=never):
        results = [
            score(estimate.chunk(), reference.chunk(x20=11)),
            score(estimate.chunk(), reference),
            score(estimate, reference.chunk()),
            score(estimate, reference, mask=mask, weights=weights),
        ]
    assert all(isinstance(result.data, da.Array) for result in results)


@every_score
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_the_score_does_not_depend_on_the_dtype(images, score, dtype):
    xr.testing.assert_allclose(score(*(a.astype(dtype) for a in images)), score(*images), rtol=1e-12)


@every_score
def test_the_order_of_bands_and_dimensions_does_not_matter(images, score):
    estimate, reference = images
    turned = score(
        estimate.isel(band=[2, 0, 1]), reference.isel(band=[2, 0, 1]).transpose("x20", "band", "y20", "time")
    )
    expected = score(estimate, reference)
    if "band" in expected.dims:
        expected = expected.isel(band=[2, 0, 1])
    xr.testing.assert_allclose(turned, expected)


@every_score
def test_every_time_gets_the_score_it_has_alone(images, score):
    whole = score(*images)
    for time in (0, 1):
        xr.testing.assert_allclose(score(*(a.isel(time=time) for a in images)), whole.isel(time=time))


@every_score
def test_gaps_never_make_a_score_nan_and_equal_a_mask(images, score):
    """Nodata in one image, in the other, and a mask are the same thing; and what lies under it plays no part."""
    estimate, reference = images
    gap = xr.zeros_like(reference.isel(band=0, drop=True), dtype=bool)
    gap[:, 3, 5] = gap[0, 30:, 20:] = True
    expected = score(estimate, reference, mask=~gap)
    assert expected.notnull().all()
    xr.testing.assert_allclose(score(estimate.where(~gap), reference), expected)
    xr.testing.assert_allclose(score(estimate, reference.where(~gap)), expected)
    xr.testing.assert_allclose(score(estimate.where(~gap, 60000), reference, mask=~gap), expected)
    assert not np.allclose(score(estimate, reference), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(WINDOWED)))
def test_left_out_pixels_might_as_well_not_be_there(images, name):
    estimate, reference = images
    mask = xr.DataArray(np.arange(37) < 20, dims="y20", coords={"y20": estimate.y20})
    cut = [a.isel(y20=slice(20)) for a in images]
    xr.testing.assert_allclose(SCORES[name](estimate, reference, mask=mask), SCORES[name](*cut))


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_that_touch_a_gap_are_left_out_and_no_others(images, name):
    estimate, reference = images
    mask = xr.DataArray(np.arange(37) < 20, dims="y20", coords={"y20": estimate.y20})
    cut = [a.isel(y20=slice(20)) for a in images]
    xr.testing.assert_allclose(SCORES[name](estimate, reference, mask=mask), SCORES[name](*cut))
    holed = reference.astype(float)
    holed[:, :, 18, 20] = np.nan
    scored = metrics.ssim_map(estimate, holed, data_range=10000).isel(time=0, band=0)
    whole = metrics.ssim_map(estimate, reference, data_range=10000).isel(time=0, band=0)
    lost = scored.isnull() & whole.notnull()
    assert lost.sum() == 11 * 11
    assert lost[13:24, 15:26].all()
    xr.testing.assert_allclose(scored, whole.where(~lost))


@pytest.mark.parametrize("name", SPECTRAL)
def test_a_gap_in_one_band_takes_the_pixel_out_of_every_band(images, name):
    estimate, reference = (a.astype(float) for a in images)
    estimate[:, 0, 4, 4] = np.nan
    reference[:, 2, 9, 9] = np.nan
    gap = estimate.isnull().any("band") | reference.isnull().any("band")
    xr.testing.assert_allclose(SCORES[name](estimate, reference), SCORES[name](*images, mask=~gap))


@every_score
def test_a_score_of_no_pixel_is_nan_without_a_warning(images, score, recwarn):
    estimate, reference = images
    nowhere = xr.zeros_like(reference, dtype=bool)
    assert score(estimate, reference, mask=nowhere).isnull().all()
    assert score(estimate.chunk(), reference, weights=0.0 * reference).compute().isnull().all()
    half = nowhere.copy()
    half[1] = True
    assert score(estimate, reference, mask=half).isel(time=0).isnull().all()
    assert score(estimate, reference, mask=half).isel(time=1).notnull().all()
    assert not [one for one in recwarn.list if issubclass(one.category, RuntimeWarning)]


@pytest.mark.parametrize("name", ["rmse", "mae", "bias", "sre_dsen2", "sre_supreme", "psnr", "bpsnr", "sam", "ergas"])
def test_a_weight_of_three_counts_a_pixel_three_times(images, name):
    estimate, reference = (a.isel(time=0, drop=True) for a in images)
    counts = np.random.default_rng(5).integers(0, 4, estimate.x20.size)
    weights = xr.DataArray(counts, dims="x20", coords={"x20": estimate.x20})
    repeated = [a.isel(x20=np.repeat(np.arange(counts.size), counts)).drop_vars("x20") for a in (estimate, reference)]
    xr.testing.assert_allclose(SCORES[name](estimate, reference, weights=weights), SCORES[name](*repeated))


def test_a_weight_of_nan_or_zero_leaves_the_pixel_out(images):
    estimate, reference = (a.isel(time=0, band=0) for a in images)
    weights = xr.ones_like(reference, dtype=float)
    weights[4:9] = np.nan
    for weight in (weights, weights.fillna(0)):
        xr.testing.assert_allclose(
            metrics.psnr(estimate, reference, peak="reference_max", weights=weight),
            metrics.psnr(estimate, reference, peak="reference_max", mask=weights.notnull()),
        )


def test_dimensions_can_be_named(images):
    estimate, reference = images
    odd = [a.rename(y20="lat", x20="lon") for a in images]
    xr.testing.assert_equal(metrics.rmse(*odd, dim=("lat", "lon")), metrics.rmse(estimate, reference))
    xr.testing.assert_equal(
        metrics.ssim(*odd, data_range=1, dim=("lat", "lon")), metrics.ssim(estimate, reference, data_range=1)
    )
    pooled = metrics.rmse(estimate, reference, dim=("time", "band", "y20", "x20"))
    assert pooled == pytest.approx(np.sqrt((metrics.rmse(estimate, reference) ** 2).mean()))


def test_a_dimension_called_year_is_not_spatial():
    values = xr.DataArray(np.ones((2, 3, 4)), dims=("year", "y", "x"))
    assert metrics.rmse(values, values + values.year).dims == ("year",)


# ---- not on one grid -----------------------------------------------------------------------------------------------


def test_other_coordinates_are_refused_and_not_joined(images):
    """xarray alone would score the 36 rows both have, without a word."""
    estimate, reference = images
    shifted = reference.assign_coords(y20=reference.y20 + 20)
    assert (estimate - shifted).sizes["y20"] == 36
    with pytest.raises(MetricError, match=r"the 'y20' coordinates of reference and estimate differ, by up to 20"):
        metrics.rmse(estimate, shifted)


def test_half_a_pixel_is_refused_and_rounding_is_not(images):
    estimate, reference = images
    with pytest.raises(MetricError, match=r"by up to 10. Degrade or regrid one to the other's grid"):
        metrics.rmse(estimate, reference.assign_coords(x20=reference.x20 + 10))
    rounded = reference.assign_coords(x20=reference.x20 + 1e-7)
    xr.testing.assert_equal(metrics.rmse(estimate, rounded), metrics.rmse(estimate, reference))


def test_other_bands_or_their_order_are_refused(images):
    estimate, reference = images
    with pytest.raises(MetricError, match=r"'band' coordinates.*first at index 0: B12 against B05.*sel"):
        metrics.sam(estimate, reference.isel(band=[2, 0, 1]))


def test_other_sizes_are_refused_with_the_remedy(images):
    estimate, reference = images
    with pytest.raises(
        MetricError,
        match=r"reference has 30 pixels along 'y20' but estimate has 37.*estimate\.sel\(y20=reference.y20\)",
    ):
        metrics.rmse(estimate, reference.isel(y20=slice(30)))


def test_other_dimension_names_are_refused_and_not_broadcast(images):
    """xarray alone would compare every pixel with every other."""
    estimate, reference = (a.isel(time=0, band=0, drop=True) for a in images)
    with pytest.raises(MetricError, match=r"reference = reference.rename\(\{'y': 'y20', 'x': 'x20'\}\)"):
        metrics.rmse(estimate, reference.rename(y20="y", x20="x"))
    with pytest.raises(MetricError, match=r"Choose one element, e.g. reference = reference.isel\(time=0\)"):
        metrics.rmse(estimate, images[1].isel(band=0, drop=True))
    with pytest.raises(MetricError, match=r"Choose one element, e.g. estimate = estimate.isel\(band=0\)"):
        metrics.rmse(images[0], images[1].isel(band=0, drop=True))


def test_a_mask_must_be_bool_and_on_the_grid(images):
    cloud = xr.zeros_like(images[0].isel(time=0, band=0, drop=True))
    with pytest.raises(MetricError, match=r"mask has dtype uint16.*Pass bool with True = use"):
        metrics.rmse(*images, mask=cloud)
    with pytest.raises(MetricError, match=r"the 'x20' coordinates of mask and estimate differ"):
        metrics.rmse(*images, mask=(cloud == 0).assign_coords(x20=cloud.x20 + 20))
    with pytest.raises(MetricError, match=r"mask has dimensions .*'scene'"):
        metrics.rmse(*images, mask=(cloud == 0).expand_dims(scene=2))


def test_negative_weights_are_refused_also_when_lazy(images):
    weights = xr.ones_like(images[0], dtype=float)
    weights[0, 0, 0, 0] = -0.5
    with pytest.raises(MetricError, match=r"weights hold negative values .lowest -0.5"):
        metrics.rmse(*images, weights=weights)
    lazy = metrics.rmse(*images, weights=weights.chunk())
    with pytest.raises(MetricError, match=r"weights hold negative values"):
        lazy.compute()


def test_what_is_no_data_array_is_refused(images):
    with pytest.raises(MetricError, match=r"reference is a ndarray.*wrap them, e.g. xr.DataArray"):
        metrics.rmse(images[0], images[1].values)
    with pytest.raises(MetricError, match=r"estimate is a Dataset, not an xarray.DataArray. For a Dataset use"):
        metrics.rmse(images[0].to_dataset("band"), images[1])
    with pytest.raises(MetricError, match=r"estimate has dtype <U1; scores need real numbers"):
        metrics.rmse(xr.full_like(images[0], "a", dtype="U1"), images[1])


def test_dimensions_that_are_not_there_are_refused(images):
    with pytest.raises(MetricError, match=r"no spatial dimension .* Name those to average over"):
        metrics.rmse(*(a.rename(y20="lat", x20="lon") for a in images))
    with pytest.raises(MetricError, match=r"dim=\('y', 'x'\).*is not among the dimensions"):
        metrics.rmse(*images, dim=("y", "x"))
    with pytest.raises(MetricError, match=r"dim=\(\)"):
        metrics.rmse(*images, dim=())
