"""The projection onto the measurement: exact, nearest, local, and independent of how the scene is cut."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import eosr
from eosr.cube.consistency import inverse_gram_taps, project, projection_reach
from eosr.cube.degradation import DEGRADATIONS, blur_sigma, degrade, kernel_taps
from eosr.errors import DegradationError, GridError
from eosr.testing import nothing_computed, synthetic_bands, synthetic_scene

#: Every operator at both factors, with a narrow and a wide MTF.
CASES = [(band, factor, name) for band, factor in (("B05", 2), ("B11", 2), ("B01", 6)) for name in DEGRADATIONS]
RNG = np.random.default_rng(8)


def pair(band, factor, name, *, rows=16, columns=19, noise=300.0, dtype=np.float64):
    """A truth with DN of a real scene, what the sensor measures of it, and a poor estimate."""
    truth = synthetic_bands(max(rows, 4), max(columns, 4), level="L2A", seed=3)[band]
    truth = xr.DataArray(truth[: rows * factor, : columns * factor].astype(dtype), dims=("y", "x"), name=band)
    estimate = truth + noise * RNG.standard_normal(truth.shape)
    return truth, degrade(truth, factor, degradation=name), estimate.astype(dtype)


def rms(array):
    return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64)))))


@pytest.mark.parametrize(("band", "factor", "name"), CASES)
def test_degraded_answer_is_the_measurement_and_lies_nearer_to_the_truth(band, factor, name):
    truth, measured, estimate = pair(band, factor, name)
    answer = project(estimate, measured, factor, degradation=name)
    np.testing.assert_allclose(degrade(answer, factor, degradation=name), measured, rtol=0, atol=1e-3)
    assert rms(answer - truth) < rms(estimate - truth)
    assert rms(degrade(estimate, factor, degradation=name) - measured) > 10  # there was something to do


@pytest.mark.parametrize(("band", "factor", "name"), CASES)
def test_any_estimate_even_a_useless_one_never_moves_away_from_the_truth(band, factor, name):
    truth, measured, _ = pair(band, factor, name)
    for estimate in (0 * truth, truth[::-1], 2 * truth - 500, truth + 1000 * RNG.standard_normal()):
        estimate = xr.DataArray(estimate.values, dims=("y", "x"))
        assert rms(project(estimate, measured, factor, degradation=name) - truth.values) <= rms(estimate - truth.values)


@pytest.mark.parametrize(("band", "factor", "name"), CASES)
def test_projecting_twice_changes_nothing_and_the_truth_stays(band, factor, name):
    truth, measured, estimate = pair(band, factor, name)
    once = project(estimate, measured, factor, degradation=name)
    np.testing.assert_allclose(project(once, measured, factor, degradation=name), once, rtol=0, atol=1e-3)
    np.testing.assert_allclose(project(truth, measured, factor, degradation=name), truth, rtol=0, atol=1e-3)


@pytest.mark.parametrize("strip", [1, 2, 16])
@pytest.mark.parametrize(("band", "factor", "name"), CASES)
def test_dense_linear_algebra_gives_the_same(monkeypatch, band, factor, name, strip):
    monkeypatch.setattr("eosr.cube.consistency.ROWS", strip)
    # The second implementation: the operator as a matrix, column by column, and its pseudo-inverse.
    rows, columns = 5 * factor, 4 * factor
    eye = np.eye(rows * columns).reshape(-1, rows, columns)
    matrix = degrade(xr.DataArray(eye, dims=("n", "y", "x"), name=band), factor, degradation=name).values
    matrix = matrix.reshape(rows * columns, -1).T
    _, measured, estimate = pair(band, factor, name, rows=5, columns=4)
    residual = measured.values.ravel() - matrix @ estimate.values.ravel()
    expected = estimate.values.ravel() + np.linalg.pinv(matrix) @ residual
    answer = project(estimate, measured, factor, degradation=name)
    np.testing.assert_allclose(answer.values.ravel(), expected, rtol=0, atol=1e-3)


def test_at_six_the_box_needs_one_line():
    _, measured, estimate = pair("B09", 6, "box")
    box = degrade(estimate, 6, degradation="box").values
    by_hand = estimate + (measured.values - box).repeat(6, 0).repeat(6, 1)
    np.testing.assert_allclose(project(estimate, measured, 6, degradation="box"), by_hand, rtol=0, atol=1e-9)
    np.testing.assert_allclose(project(estimate, measured, 6, degradation="study"), by_hand, rtol=0, atol=0.01)
    np.testing.assert_allclose(inverse_gram_taps(6, 0.0), [6.0])


def test_inverse_taps_undo_the_gram_matrix():
    for factor, sigma in ((2, 0.5), (2, 1.11), (6, 3.09)):
        taps = kernel_taps(factor, sigma)
        correlation = np.correlate(taps, taps, "full")[(len(taps) - 1) % factor :: factor]
        product = np.convolve(correlation, inverse_gram_taps(factor, sigma))
        impulse = np.zeros_like(product)
        impulse[len(product) // 2] = 1
        np.testing.assert_allclose(product, impulse, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    case=st.sampled_from(CASES), rows=st.integers(1, 40), columns=st.integers(1, 40), chunk_y=st.integers(1, 90),
    chunk_x=st.integers(1, 90),
)  # fmt: skip
def test_answer_is_exact_and_the_same_for_every_size_and_chunk(case, rows, columns, chunk_y, chunk_x):
    band, factor, name = case
    _, measured, estimate = pair(band, factor, name, rows=rows, columns=columns)
    whole = project(estimate, measured, factor, degradation=name)
    np.testing.assert_allclose(degrade(whole, factor, degradation=name), measured, rtol=0, atol=1e-3)
    lazy = estimate.chunk({"y": chunk_y, "x": chunk_x})
    for y in (measured, measured.chunk({"y": 7, "x": 11})):
        np.testing.assert_allclose(project(lazy, y, factor, degradation=name), whole, rtol=0, atol=1e-6)
    np.testing.assert_allclose(project(estimate, measured.chunk(3), factor, degradation=name), whole, atol=1e-6)


@pytest.mark.parametrize(("band", "factor", "name"), CASES)
def test_many_chunks_are_cut_without_a_seam(band, factor, name):
    # Chunks of the reach itself: the smallest that are not merged, so every seam is exercised.
    depth = -(-projection_reach(factor, blur_sigma(band, factor, name)) // factor)
    _, measured, estimate = pair(band, factor, name, rows=3 * depth + 1, columns=2 * depth + 2)
    chunks = {"y": (depth * factor, depth * factor, (depth + 1) * factor), "x": (depth * factor, (depth + 2) * factor)}
    lazy = project(estimate.chunk(chunks), measured, factor, degradation=name)
    assert lazy.data.npartitions == 6
    whole = project(estimate, measured, factor, degradation=name)
    np.testing.assert_allclose(lazy, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("band", "factor", "name"), CASES)
def test_nothing_beyond_the_declared_reach_changes_a_pixel(band, factor, name):
    reach = projection_reach(factor, blur_sigma(band, factor, name))
    rows = 2 * -(-reach // factor) + 9
    _, measured, estimate = pair(band, factor, name, rows=rows, columns=6)
    column = 2 * factor
    row = rows * factor // 2
    other = estimate.copy(deep=True)
    other[row, column] += 1000.0
    change = abs(
        project(other, measured, factor, degradation=name) - project(estimate, measured, factor, degradation=name)
    )
    far = np.abs(np.arange(rows * factor) - row) > reach
    assert far.any()
    assert float(change[far].max()) < 1e-9
    assert float(change[row].max()) > 100


@pytest.mark.parametrize("lazy", [False, True])
def test_a_coarse_gap_sets_no_condition_and_the_rest_is_met(lazy):
    for band, factor, name in CASES:
        _, measured, estimate = pair(band, factor, name)
        measured[5:7, 3] = np.nan
        x = estimate.chunk({"y": 6, "x": 6}) if lazy else estimate
        answer = project(x, measured, factor, degradation=name).compute()
        assert bool(np.isfinite(answer).all())
        seen = degrade(answer, factor, degradation=name)
        np.testing.assert_allclose(seen.where(measured.notnull()), measured, rtol=0, atol=1e-3)
        before = degrade(estimate, factor, degradation=name).where(measured.isnull())
        np.testing.assert_allclose(seen.where(measured.isnull()), before, rtol=0, atol=1e-3)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_fine_gap_stays_and_what_does_not_see_it_is_met(lazy):
    for band, factor, name in CASES:
        _, measured, estimate = pair(band, factor, name)
        estimate[4 * factor : 5 * factor, 7 * factor + 1] = np.nan
        x = estimate.chunk({"y": 6, "x": 6}) if lazy else estimate
        answer = project(x, measured, factor, degradation=name).compute()
        np.testing.assert_array_equal(np.isnan(answer), np.isnan(estimate))
        seen = degrade(answer, factor, degradation=name)
        np.testing.assert_allclose(seen, measured.where(seen.notnull()), rtol=0, atol=1e-3)
        assert float(seen.isnull().mean()) < 0.8


def test_zero_is_nodata_in_an_integer_measurement():
    scene = synthetic_scene(6, 6, gaps={"B05": [(slice(4, 6), slice(8, 9))]})
    estimate = scene["B08"].astype(np.float32).rename(y10="y", x10="x")
    answer = project(estimate, scene["B05"], 2)
    seen = degrade(answer.rename("B05"), 2)
    np.testing.assert_allclose(seen.values[:4], scene["B05"].values[:4], rtol=0, atol=4e-3)
    assert float(seen[4, 8]) > 10  # not drawn towards 0
    assert answer.dtype == np.float32


def test_strength_goes_that_share_of_the_way():
    _, measured, estimate = pair("B05", 2, "study")
    full = project(estimate, measured, 2)
    np.testing.assert_allclose(project(estimate, measured, 2, strength=0.25), estimate + 0.25 * (full - estimate))
    np.testing.assert_array_equal(project(estimate, measured, 2, strength=0.0), estimate)


def test_band_satellite_and_sigma_choose_the_operator():
    truth, measured, estimate = pair("B11", 2, "mtf")
    a = project(estimate, measured, 2, degradation="mtf", platform="sentinel-2a")
    np.testing.assert_array_equal(a, project(estimate, measured, 2, sigma=blur_sigma("B11", 2, "mtf")))
    b = project(estimate, measured, 2, degradation="mtf", platform="sentinel-2b")
    assert float(abs(a - b).max()) > 1
    assert rms(a - truth) < rms(b - truth)  # the wrong optics cost something


@pytest.mark.parametrize("chunks", [None, ({"time": 1, "y": 30}, {"time": 2, "y": 9}), ({"time": 2}, {"time": 1})])
def test_time_and_the_order_of_dimensions_do_not_matter(chunks):
    one, two = (pair("B05", 2, "study", noise=noise) for noise in (50.0, 500.0))
    estimate, measured = (xr.concat([one[i], two[i]], "time") for i in (2, 1))
    if chunks:
        estimate, measured = estimate.chunk(chunks[0]), measured.chunk(chunks[1])
    both = project(estimate.transpose("x", "y", "time"), measured, 2)
    assert both.dims == ("x", "y", "time")
    for i, (_, y, x) in enumerate((one, two)):
        np.testing.assert_allclose(both.isel(time=i).transpose("y", "x"), project(x, y, 2), rtol=0, atol=1e-6)


def test_nothing_is_computed_until_asked_and_coordinates_stay():
    scene = synthetic_scene(40, 40, level="L2A", chunks=120)
    with nothing_computed():
        answer = project(scene["B08"].astype("float32"), scene["B05"], 2)
    xr.testing.assert_identical(answer.x10, scene.x10)
    assert answer.dtype == np.float32
    assert eosr.project is project


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda x, y: project(x[:-1], y, 2), GridError, "31 pixels along 'y' and the measurement 16 along 'y'; 2 to 1"),
        (lambda x, y: project(x, y, 6), GridError, "32 pixels along 'y' .* 6 to 1 is needed. Crop both to one extent"),
        (lambda x, y: project(x, y, 2, degradation="blur"), DegradationError, "'blur' is not a degradation eosr knows"),
        (lambda x, y: project(x, y, 2, sigma=-0.5), DegradationError, "sigma=-0.5 is no standard deviation"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, kind, text):
    _, measured, estimate = pair("B05", 2, "study")
    with pytest.raises(kind, match=text):
        call(estimate, measured)
