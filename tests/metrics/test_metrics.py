"""Every score against arithmetic shown here, and against a program written by somebody else."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image as tm
import xarray as xr
from scipy.ndimage import gaussian_filter, zoom
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from eosr import metrics
from eosr.errors import MetricError

BANDS = ["B05", "B06", "B07", "B8A", "B11", "B12"]
SHARED = Path(os.environ.get("EOSR_SHARED", Path(__file__).resolve().parents[3] / "shared"))


def stack(values, dtype="uint16"):
    """(band, y, x) values as an array on a 20 m grid."""
    bands, rows, columns = values.shape
    coords = {"band": BANDS[:bands], "y": 5e6 - 20.0 * np.arange(rows), "x": 4e5 + 20.0 * np.arange(columns)}
    return xr.DataArray(values.astype(dtype), dims=("band", "y", "x"), coords=coords)


def blurred(reference):
    """What a bicubic-like estimate of it looks like: details gone."""
    return np.stack([gaussian_filter(band.astype(float), 1.2) for band in reference]).round()


def synthetic_scene():
    rng = np.random.default_rng(7)
    noise = [gaussian_filter(rng.standard_normal((48, 56)), 1.5) for _ in BANDS]
    return np.stack([2000 + 300 * k + 1500 * field for k, field in enumerate(noise)])


def real_scene():
    path = SHARED / "data/train/bigearthnet_L2A.npz"
    if not path.exists():
        pytest.skip(f"{path.name} of the shared folder is not here (EOSR_SHARED names it)")
    with np.load(path) as pack:
        return pack["x20"][3]


@pytest.fixture(params=[synthetic_scene, real_scene], ids=["synthetic", "real"])
def images(request):
    """(estimate, reference), uint16, six bands."""
    reference = request.param()
    return stack(blurred(reference)), stack(reference)


def image(rows, dtype=float):
    return xr.DataArray(np.array(rows, dtype=dtype), dims=("y", "x"))


def pixel_spectra(*spectra):
    """One row of pixels, each given by its spectrum."""
    return xr.DataArray(np.array(spectra, dtype=float).T[:, None, :], dims=("band", "y", "x"))


# ---- known answers -------------------------------------------------------------------------------------------------

ESTIMATE, REFERENCE = image([[1, 2], [3, 8]]), image([[2, 2], [5, 4]])  # errors -1 0 -2 +4


def test_errors_of_four_pixels():
    assert metrics.rmse(ESTIMATE, REFERENCE) == pytest.approx(np.sqrt((1 + 0 + 4 + 16) / 4))
    assert metrics.mae(ESTIMATE, REFERENCE) == pytest.approx((1 + 0 + 2 + 4) / 4)
    assert metrics.bias(ESTIMATE, REFERENCE) == pytest.approx((-1 + 0 - 2 + 4) / 4)
    np.testing.assert_array_equal(metrics.error(ESTIMATE, REFERENCE), [[-1, 0], [-2, 4]])


def test_both_definitions_of_sre():
    mse, mean, energy = 21 / 4, 13 / 4, (4 + 4 + 25 + 16) / 21
    assert metrics.sre(ESTIMATE, REFERENCE, definition="dsen2") == pytest.approx(10 * np.log10(mean**2 / mse))
    assert metrics.sre(ESTIMATE, REFERENCE, definition="supreme") == pytest.approx(10 * np.log10(energy))


def test_sre_of_dsen2_is_never_above_that_of_supreme_and_the_joint_one_pools_the_bands(images):
    estimate, reference = images
    dsen2, supreme = (metrics.sre(estimate, reference, definition=name) for name in ("dsen2", "supreme"))
    assert (dsen2 <= supreme).all()
    joint = metrics.sre(estimate, reference, definition="supreme", dim=("band", "y", "x"))
    e, r = estimate.values.astype(float), reference.values.astype(float)
    assert joint == pytest.approx(10 * np.log10((r**2).sum() / ((e - r) ** 2).sum()))


def test_psnr_with_a_number_and_with_the_largest_value_of_the_reference():
    assert metrics.psnr(ESTIMATE, REFERENCE, peak=10) == pytest.approx(10 * np.log10(100 / 5.25))
    assert metrics.psnr(ESTIMATE, REFERENCE, peak="reference_max") == pytest.approx(10 * np.log10(25 / 5.25))


def test_the_peak_is_found_for_each_band_and_time_of_its_own_and_never_among_pixels_left_out(images):
    estimate, reference = images
    reference = reference.where(reference < reference.max(("y", "x")))  # the largest of each band: no measurement
    per_band = metrics.psnr(estimate, reference, peak="reference_max")
    for band in BANDS:
        mine, truth = estimate.sel(band=band), reference.sel(band=band)
        assert per_band.sel(band=band) == pytest.approx(metrics.psnr(mine, truth, peak=float(truth.max())).item())


def test_bpsnr_is_the_psnr_of_the_estimate_without_its_mean_error():
    assert metrics.bpsnr(ESTIMATE, REFERENCE, peak=10) == pytest.approx(10 * np.log10(100 / (5.25 - 0.25**2)))
    levelled = ESTIMATE - metrics.bias(ESTIMATE, REFERENCE)
    expected = metrics.psnr(levelled, REFERENCE, peak=10)
    xr.testing.assert_allclose(metrics.bpsnr(ESTIMATE, REFERENCE, peak=10), expected)


@pytest.mark.parametrize("peak", [10000, "reference_max"])
def test_bpsnr_is_never_below_psnr_as_seven_published_values_are(images, peak):
    estimate, reference = images
    for shift in (-300, -1, 0, 40):
        shifted = estimate.astype(float) + shift
        assert (metrics.bpsnr(shifted, reference, peak=peak) >= metrics.psnr(shifted, reference, peak=peak)).all()


def test_sam_is_the_mean_of_the_angles_in_degrees():
    estimate = pixel_spectra([1, 1], [3, 0], [2, 2])
    reference = pixel_spectra([1, 0], [0, 5], [1, 1])  # 45, 90 and 0 degrees
    np.testing.assert_allclose(metrics.spectral_angle(estimate, reference), [[45, 90, 0]], atol=1e-12)
    assert metrics.sam(estimate, reference) == pytest.approx((45 + 90 + 0) / 3)


def test_the_angle_of_a_spectrum_with_itself_is_exactly_zero_and_with_its_negative_180(images):
    _, reference = images
    assert (metrics.spectral_angle(reference, 3.7 * reference) < 1e-12).all()
    assert metrics.sam(reference, reference) == 0
    assert metrics.sam(-reference.astype(float), reference) == pytest.approx(180)


def test_a_zero_reference_is_left_out_and_a_zero_estimate_is_90_degrees_off():
    estimate = pixel_spectra([1, 1], [1, 1], [0, 0], [0, 0])
    reference = pixel_spectra([1, 0], [0, 0], [1, 1], [0, 0])
    np.testing.assert_allclose(metrics.spectral_angle(estimate, reference), [[45, np.nan, 90, np.nan]])
    assert metrics.sam(estimate, reference) == pytest.approx((45 + 90) / 2)


def test_ergas_of_two_bands_at_20_and_at_60_metres_in_both_conventions():
    # RMSE 3 on a mean of 10, RMSE 4 on a mean of 20: sqrt((0.09 + 0.04) / 2)
    estimate, reference = pixel_spectra([13, 16], [7, 24]), pixel_spectra([10, 20], [10, 20])
    root = np.sqrt((0.3**2 + 0.2**2) / 2)
    assert metrics.ergas(estimate, reference, fine_gsd=10, coarse_gsd=20) == pytest.approx(50 * root)
    assert metrics.ergas(estimate, reference, fine_gsd=10, coarse_gsd=60) == pytest.approx(100 / 6 * root)
    study = metrics.ergas(estimate, reference, fine_gsd=10, coarse_gsd=60, convention="zhang2020")
    assert study == pytest.approx(50 * root)


def test_uiq_of_a_flat_shift_is_its_brightness_term_and_of_identical_images_one():
    flat = image(np.full((9, 9), 1000), "uint16")
    assert metrics.uiq(flat + 500, flat) == pytest.approx(2 * 1000 * 1500 / (1000**2 + 1500**2))
    assert metrics.uiq(0 * flat, 0 * flat) == 1
    rough = image(np.random.default_rng(1).integers(1, 9000, (20, 23)), "uint16")
    assert metrics.uiq(rough, rough) == pytest.approx(1)


# ---- programs written by others ------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_range", [1, 255, 10000])
def test_ssim_agrees_with_scikit_image(images, data_range):
    estimate, reference = images
    ours = metrics.ssim(estimate, reference, data_range=data_range)
    for band in BANDS:
        theirs = structural_similarity(
            estimate.sel(band=band).values.astype(float), reference.sel(band=band).values.astype(float),
            data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert ours.sel(band=band) == pytest.approx(theirs, abs=1e-9)


def test_ssim_agrees_with_torchmetrics(images):
    e, r = (torch.from_numpy(a.values.astype("float64"))[None] for a in images)
    # torchmetrics scores windows that leave the image too, over a mirrored border; its map allows to leave them out
    _, full = tm.structural_similarity_index_measure(e, r, data_range=10000.0, return_full_image=True, sigma=1.5)
    ours = metrics.ssim_map(*images, data_range=10000)
    np.testing.assert_allclose(ours[:, 5:-5, 5:-5], full[0, :, 5:-5, 5:-5], atol=1e-9)
    assert ours.isel(y=slice(5)).isnull().all()


def test_psnr_agrees_with_scikit_image(images):
    e, r = (a.isel(band=2) for a in images)
    theirs = peak_signal_noise_ratio(r.values.astype(float), e.values.astype(float), data_range=10000)
    assert metrics.psnr(e, r, peak=10000) == pytest.approx(theirs)


def test_sam_and_ergas_agree_with_torchmetrics(images):
    estimate, reference = images
    e, r = (torch.from_numpy(a.values.astype("float64"))[None] for a in images)
    assert metrics.sam(estimate, reference) == pytest.approx(
        np.degrees(tm.spectral_angle_mapper(e, r).item()), rel=1e-6
    )
    theirs = tm.error_relative_global_dimensionless_synthesis(e, r, ratio=2).item()
    assert metrics.ergas(estimate, reference, fine_gsd=20, coarse_gsd=40) == pytest.approx(theirs, rel=1e-6)


def test_uiq_agrees_with_the_plain_definition(images):
    e, r = (np.lib.stride_tricks.sliding_window_view(a[1].values.astype(float), (8, 8)) for a in images)
    (me, mr), (ve, vr) = ([w.mean((-1, -2)) for w in (e, r)], [w.var((-1, -2)) for w in (e, r)])
    covariance = (e * r).mean((-1, -2)) - me * mr
    plain = 4 * covariance * me * mr / ((ve + vr) * (me**2 + mr**2))
    assert metrics.uiq(images[0][1], images[1][1]) == pytest.approx(plain.mean())


# ---- what libraries get wrong --------------------------------------------------------------------------------------


def test_uint16_does_not_wrap():
    dark, bright = image([[3, 5]], "uint16"), image([[5, 3]], "uint16")
    assert metrics.bias(dark, bright + 2) == -2
    assert metrics.rmse(dark, bright) == 2


def test_squares_of_uint16_do_not_overflow():
    bright, brighter = image(np.full((11, 11), 60000), "uint16"), image(np.full((11, 11), 65000), "uint16")
    assert metrics.rmse(bright, brighter) == 5000
    assert metrics.ssim(bright, bright, data_range=65535) == pytest.approx(1)
    angle = metrics.sam(xr.concat([bright, brighter], "band"), xr.concat([brighter, bright], "band"))
    assert angle == pytest.approx(2 * np.degrees(np.arctan(65 / 60) - np.pi / 4))


def test_ergas_cannot_be_handed_an_upside_down_ratio(images):
    with pytest.raises(MetricError, match=r"fine_gsd=20 is not smaller than coarse_gsd=10.*fine_gsd=10, coarse_gsd=20"):
        metrics.ergas(*images, fine_gsd=20, coarse_gsd=10)
    with pytest.raises(MetricError, match=r"fine_gsd=20 is not smaller than coarse_gsd=20"):
        metrics.ergas(*images, fine_gsd=20, coarse_gsd=20)


def test_an_offset_of_1000_inflates_sre_sam_ergas_and_not_rmse(images):
    """Forgetting the offset of baseline 04.00 looks like progress; the docstrings say so, this is the proof."""
    estimate, reference = images
    shifted = (estimate + 1000, reference + 1000)
    assert metrics.rmse(*shifted).values == pytest.approx(metrics.rmse(*images).values)
    mean = reference.mean(("y", "x"))
    gain = metrics.sre(*shifted) - metrics.sre(*images)
    np.testing.assert_allclose(gain, 20 * np.log10((mean + 1000) / mean), rtol=1e-9)
    assert (gain > 1).all()
    assert metrics.sam(*shifted) < 0.95 * metrics.sam(*images)
    sizes = {"fine_gsd": 20, "coarse_gsd": 40}
    assert metrics.ergas(*shifted, **sizes) < 0.9 * metrics.ergas(*images, **sizes)


def test_a_perfect_estimate_scores_perfectly_and_without_a_warning(images, recwarn):
    _, reference = images
    assert np.isposinf(metrics.sre(reference, reference)).all()
    assert np.isposinf(metrics.psnr(reference, reference, peak=10000)).all()
    assert np.isposinf(metrics.bpsnr(reference, reference, peak="reference_max")).all()
    assert metrics.ssim(reference, reference, data_range=1).values == pytest.approx(1)
    assert metrics.ergas(reference, reference, fine_gsd=1, coarse_gsd=2) == 0
    assert not recwarn.list


# ---- arguments without meaning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("peak", [0, -1, "max", "10000", None, True, float("nan"), float("inf")])
def test_a_peak_that_is_no_peak_is_refused(peak):
    with pytest.raises(MetricError, match=r"is neither a positive number nor 'reference_max'. Use e.g. peak=10000"):
        metrics.psnr(ESTIMATE, REFERENCE, peak=peak)


def test_peak_and_data_range_have_no_default():
    with pytest.raises(TypeError, match=r"peak"):
        metrics.psnr(ESTIMATE, REFERENCE)
    with pytest.raises(TypeError, match=r"data_range"):
        metrics.ssim(ESTIMATE, REFERENCE)


@pytest.mark.parametrize("data_range", [0, -5, "image"])
def test_a_data_range_that_is_none_is_refused(images, data_range):
    with pytest.raises(MetricError, match=r"is not a positive number. Use e.g. data_range=10000"):
        metrics.ssim(*images, data_range=data_range)


def test_unknown_definitions_and_conventions_are_refused(images):
    with pytest.raises(MetricError, match=r"definition='energy' is unknown. Use one of 'dsen2', 'supreme'"):
        metrics.sre(*images, definition="energy")
    with pytest.raises(MetricError, match=r"convention='study' is unknown. Use one of 'wald', 'zhang2020'"):
        metrics.ergas(*images, fine_gsd=1, coarse_gsd=2, convention="study")


def test_an_image_smaller_than_the_window_is_refused(images):
    small = [a.isel(y=slice(10)) for a in images]
    with pytest.raises(MetricError, match=r"the image is \{'y': 10\} pixels, smaller than the window of 11 x 11"):
        metrics.ssim(*small, data_range=1)


def test_uiq_needs_a_window_with_a_variance(images):
    with pytest.raises(MetricError, match=r"window=1: one pixel has no variance"):
        metrics.uiq(*images, window=1)


def test_a_window_needs_two_dimensions(images):
    with pytest.raises(MetricError, match=r"a window needs two spatial dimensions, but dim=\('y',\)"):
        metrics.ssim(*images, data_range=1, dim="y")


def test_a_spectral_score_needs_bands(images):
    with pytest.raises(MetricError, match=r"needs the bands along dimension 'band'.*to_dataarray"):
        metrics.sam(ESTIMATE, REFERENCE)
    with pytest.raises(MetricError, match=r"cannot average over 'band'"):
        metrics.sam(*images, dim=("band", "y", "x"))


def test_half_a_pixel_of_detail_is_seen_by_every_score(images):
    """No score is blind: a sharper estimate is better in each."""
    _, reference = images
    blurrier = stack(
        np.stack([zoom(zoom(b.astype(float), 0.25, order=1), 4.0, order=1) for b in reference.values[:, :48, :48]])
    )
    sharper, reference = images[0][:, :48, :48], reference[:, :48, :48]
    for score, sign in (
        (metrics.rmse, -1), (metrics.mae, -1), (metrics.sre, 1), (metrics.sam, -1), (metrics.uiq, 1),
        (lambda e, r: metrics.ssim(e, r, data_range=10000), 1), (lambda e, r: metrics.bpsnr(e, r, peak=1e4), 1),
        (lambda e, r: metrics.ergas(e, r, fine_gsd=1, coarse_gsd=2), -1),
    ):  # fmt: skip
        assert (sign * (score(sharper, reference) - score(blurrier, reference)) > 0).all()
