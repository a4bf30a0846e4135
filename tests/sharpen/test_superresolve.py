"""Coarse -> fine at any size: seams, edges, gaps, values, grids, graphs."""

import importlib
from pathlib import Path

import cloudpickle
import dask.array as da
import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M, SHARP_BANDS
from eosr.cube.degradation import DEGRADATIONS, degrade
from eosr.cube.grid import at, check_chunks, from_arrays
from eosr.cube.radiometry import to_reflectance
from eosr.errors import BandError, DegradationError, GridError, RadiometryError, WeightsError
from eosr.sharpen.methods import Choice, choose_methods
from eosr.sharpen.superresolution import superresolve
from eosr.testing import EPSG, TRANSFORM, chunked, nothing_computed, random_weights, synthetic_scene

TIMES = np.array(["2023-06-01T10:00", "2023-06-11T10:00"], "datetime64[ns]")
#: `eosr.superresolve` as an attribute is the function.
MODULE = importlib.import_module("eosr.sharpen.tiling")
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Small generators with random weights, by kind: whatever they are not told about their neighbours shows."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        kind: [random_weights(folder / f"{kind}-{f}.safetensors", factor=f, kind=kind, seed=f) for f in (2, 6)]
        for kind in ("back_projection", "study")
    }


@pytest.fixture(scope="module")
def gentle(tmp_path_factory):
    """Generators whose answer is wrong by hundreds of DN, not by tens of thousands."""
    folder = tmp_path_factory.mktemp("gentle")
    return [random_weights(folder / f"{f}.safetensors", factor=f, size=0.3) for f in (2, 6)]


@pytest.fixture
def small_tiles(monkeypatch):
    """Let a tile be as small as its halo: the worst case, which only costs time."""
    monkeypatch.setattr(MODULE, "MIN_HALOS", 1)


def run(ds, weights, **options):
    options = {"dtype": "float32", "device": "cpu", **options}
    return superresolve(ds, weights=weights, **options).compute(scheduler="sync")


def assert_close(actual, expected, atol):
    assert list(actual.data_vars) == list(expected.data_vars)
    for name in expected.data_vars:
        np.testing.assert_allclose(
            actual[name].values.astype(float), expected[name].values.astype(float), rtol=0, atol=atol, err_msg=name
        )


def test_chunk_sizes_agree_everywhere(weights):
    scene = synthetic_scene(27, 331, level="L2A")
    whole = run(chunked(scene, None), weights["back_projection"])
    for size in (240, 510, 768, 1536):
        assert_close(run(chunked(scene, size), weights["back_projection"]), whole, atol=0.1)
    # No projection whose halo could hide that of the network, and the blur that makes the network look farthest.
    raw = {"consistency": False, "degradation": "mtf"}
    whole = run(chunked(scene, None), weights["back_projection"], **raw)
    assert_close(run(chunked(scene, 240), weights["back_projection"], **raw), whole, atol=0.1)


@pytest.mark.parametrize("kind", ["back_projection", "study"])
def test_every_shape_and_chunk_gives_the_same(weights, small_tiles, kind):
    few = 6 if kind == "back_projection" else 3

    @settings(max_examples=few, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        rows=st.integers(25, 50), columns=st.integers(25, 60), chunk=st.integers(1, 40), remainder=st.booleans(),
        consistency=st.booleans(),
    )  # fmt: skip
    def check(rows, columns, chunk, remainder, consistency):
        if remainder:
            rows = max(rows // chunk, 1) * chunk + 1  # one 60 m pixel is left over
            rows = rows if 20 <= rows <= 60 else 31
        scene = synthetic_scene(rows, columns, level="L2A", seed=rows)
        whole = run(scene, weights[kind], consistency=consistency)
        assert_close(run(chunked(scene, 6 * chunk), weights[kind], consistency=consistency), whole, atol=0.1)

    check()


def test_shipped_weights_leave_no_seam(small_tiles):
    scene = synthetic_scene(24, 54, level="L1C").drop_vars("B10")
    whole = run(chunked(scene, None), None, dtype="uint16")
    tiled = run(chunked(scene, 144), None, dtype="uint16")
    assert_close(tiled, whole, atol=1)
    assert list(whole.data_vars) == list(SHARP_BANDS)


@pytest.mark.parametrize("kind", ["back_projection", "study"])
@pytest.mark.parametrize("size", [200, 202, 204])
def test_twenty_metre_bands_alone_need_no_sixty_metre_grid(weights, small_tiles, kind, size):
    whole = synthetic_scene(40, 40, level="L2A")[[*BANDS_10M, *BANDS_20M]]
    scene = whole.isel(x10=slice(size), y10=slice(size), x20=slice(size // 2), y20=slice(size // 2))
    expected = run(scene, weights[kind][0])
    assert expected["B05"].shape == (size, size)
    assert_close(run(scene.chunk(x10=96, y10=120, x20=48, y20=60), weights[kind][0]), expected, atol=0.1)


@pytest.mark.parametrize("operator", DEGRADATIONS)
def test_degraded_answer_is_the_measurement_up_to_the_edges(gentle, operator):
    scene = synthetic_scene(50, 47, level="L2A", chunks=144)
    sharp = run(scene, gentle, degradation=operator)
    for name in (*BANDS_20M, *BANDS_60M):
        factor = 2 if name in BANDS_20M else 6
        seen = degrade(sharp[name].astype(float), factor, degradation=operator)
        # float32 holds a DN of 8000 to 5e-4.
        np.testing.assert_allclose(seen.values, scene[name].values, rtol=0, atol=2e-3, err_msg=name)


def test_rounded_answer_is_the_measurement_within_rounding(gentle):
    # A high zero: nothing is clipped at 1.
    scene = synthetic_scene(30, 30, level="L2A", radiometric_offset=-9000)
    sharp = run(scene, gentle, dtype="uint16")
    without = run(scene, gentle, consistency=False)
    for name in (*BANDS_20M, *BANDS_60M):
        factor = 2 if name in BANDS_20M else 6
        assert float(abs(degrade(sharp[name], factor) - scene[name].values).max()) < 0.51
        assert float(abs(degrade(without[name], factor) - scene[name].values).max()) > 10


def test_images_of_one_dataset_do_not_know_each_other(weights):
    scene = synthetic_scene(30, 32, level="L2A", times=TIMES, chunks=96, radiometric_offset=[0, -1000])
    both = run(scene, weights["back_projection"])
    assert both["B05"].dims == ("time", "y10", "x10")
    assert both.attrs["radiometric_offset"] == [0, -1000]
    for t, offset in enumerate((0, -1000)):
        alone = scene.isel(time=t).assign_attrs(radiometric_offset=offset)
        assert_close(both.isel(time=t), run(alone, weights["back_projection"]), atol=0)
    shifted = scene.isel(time=1) - 1000.0
    shifted.attrs = {**scene.attrs, "radiometric_offset": 0}
    # The network sees DN with the offset applied, so where the zero lies cannot matter.
    assert_close(both.isel(time=1) - 1000, run(shifted, weights["back_projection"]), atol=0.01)


def gap_effect(band, windows, weights, names, **options):
    """Change of the answer [DN] by a gap in one band; NaN where the answer became nodata."""
    whole = synthetic_scene(60, 60, level="L2A")
    holed = synthetic_scene(60, 60, level="L2A", gaps={band: windows})
    a, b = (run(ds, weights, bands=names, **options) for ds in (whole, holed))
    return {name: (b[name] - a[name]).values for name in names}


def test_every_image_of_a_series_is_inverted_for_its_own_satellite(weights):
    names = ["sentinel-2a", "sentinel-2b"]
    scene = synthetic_scene(30, 30, level="L2A", times=TIMES, platform=names)[[*BANDS_10M, *BANDS_20M]]
    degraded = degrade(scene, 2, degradation="mtf")
    sharp = run(scene, weights["back_projection"][0], degradation="mtf", bands=["B11"])
    for i, name in enumerate(names):
        alone = scene.isel(time=[i]).assign_attrs(platform=name)
        xr.testing.assert_equal(degraded.isel(time=[i]).B11, degrade(alone, 2, degradation="mtf").B11)
        assert_close(
            sharp.isel(time=[i]), run(alone, weights["back_projection"][0], degradation="mtf", bands=["B11"]), atol=0.01
        )
        other = run(
            alone.assign_attrs(platform=names[1 - i]), weights["back_projection"][0], degradation="mtf", bands=["B11"]
        )
        assert float(abs(sharp.isel(time=[i]).B11 - other.B11).max()) > 1
    # A part of the series knows its satellite by its time; where the times were not recorded, nothing is guessed.
    xr.testing.assert_equal(degrade(scene.isel(time=[1]), 2, degradation="mtf").B11, degraded.isel(time=[1]).B11)
    part = scene.isel(time=[0])
    del part.attrs["times"]
    with pytest.raises(RadiometryError, match="names 2 satellites for 1 times"):
        superresolve(part, weights=weights["back_projection"][0], degradation="mtf")
    with pytest.raises(DegradationError, match="names 2 satellites for 1 times"):
        degrade(part, 2, degradation="mtf")


@pytest.mark.parametrize(
    ("band", "lost"),
    [("B03", {"B03"}), ("B05", {"B05"}), ("B01", {"B01"})],
)
def test_nodata_is_where_the_own_pixel_is_and_one_guide_that_is_missing_changes_nothing_beyond_the_reach(
    weights, band, lost
):
    step = {"B03": 1, "B05": 2, "B01": 6}[band]
    rows, columns = slice(30, 60), slice(24, 54)  # fine pixels
    window = (slice(30 // step, 60 // step), slice(24 // step, 54 // step))
    names = ["B05", "B11", "B01", "B02", "B03"]
    effect = gap_effect(band, [window], weights["back_projection"], names)
    inside = np.zeros((360, 360), bool)
    inside[rows, columns] = True
    for name, change in effect.items():
        np.testing.assert_array_equal(np.isnan(change), inside & (name in lost), err_msg=name)
    methods = choose_methods(Choice(weights=weights["back_projection"]), None, SHARP_BANDS)
    two, six = (MODULE._task(m, "study", "sentinel-2a", consistency=True, dtype="float32").depth for m in methods)
    for name, reach in (("B05", two), ("B11", two), ("B01", six)):
        far = np.ones((360, 360), bool)
        far[30 - min(30, reach) : 60 + reach, 24 - min(24, reach) : 54 + reach] = False
        assert far.sum() > 50000
        assert not effect[name][far].any(), name
    assert np.nanmax(np.abs(effect["B01"])) > 0  # it is seen nearby: the test could fail
    assert not np.nan_to_num(effect["B02"]).any()


def test_a_gap_spoils_nothing_around_it():
    # Trained weights: next to a hole the answer stays what it would have been, give or take the texture.
    effect = gap_effect("B05", [(slice(40, 50), slice(60, 75))], "s2sr-20m", ["B05", "B8A", "B12"])
    for name, change in effect.items():
        assert np.nanmax(np.abs(change)) < 1500, name
        assert np.sqrt(np.nanmean(change[60:120, 100:170] ** 2)) < 150, name


def test_gaps_do_not_see_the_chunks(weights, small_tiles):
    # Two gaps straddle the seam at 114 and end where the halo of the left tile does: it must be filled from beyond.
    # B09 and B06 stay valid there and see the filling.
    gaps = {
        "B01": [(slice(14, 28), slice(14, 28))],
        "B05": [(slice(60, 80), slice(50, 70))],
        "B02": [(slice(299, 300), slice(0, 300))],
    }
    scene = synthetic_scene(50, 50, level="L2A", gaps=gaps)
    # The widest blur, because only it makes the network look as far as it may.
    for options in ({"consistency": False, "degradation": "mtf"}, {}):
        whole = run(scene, weights["back_projection"], **options)
        assert 0.02 < float(whole["B01"].isnull().mean()) < 0.5
        assert_close(run(chunked(scene, 114), weights["back_projection"], **options), whole, atol=0.1)
    digital = run(scene, weights["back_projection"], dtype="uint16")
    for name in whole.data_vars:
        np.testing.assert_array_equal(digital[name] == 0, whole[name].isnull())


def test_a_window_without_any_data_stays_without(weights):
    scene = synthetic_scene(25, 25, level="L2A", chunks=150) * np.uint16(0)
    for options in ({"weights": weights["back_projection"]}, {"method": "bicubic"}):
        sharp = superresolve(scene.assign_attrs(level="L2A"), **options)
        assert all(not sharp[name].values.any() for name in sharp.data_vars)
        empty = superresolve(scene.assign_attrs(level="L2A"), dtype="float32", **options)
        assert all(bool(empty[name].isnull().all()) for name in empty.data_vars)


def test_bright_and_negative_values_survive(weights):
    scene = synthetic_scene(30, 30, level="L2A")
    bright = (scene * 3).clip(1, 60000).astype("uint16").assign_attrs(scene.attrs)
    sharp = run(bright, weights["back_projection"])
    assert float(sharp["B8A"].max()) > 15000
    np.testing.assert_allclose(degrade(sharp["B05"], 2).values, bright["B05"].values, rtol=0, atol=0.02)
    sharp, digital = (
        run(bright, weights["back_projection"], dtype=dtype, consistency=False) for dtype in ("float32", "uint16")
    )
    np.testing.assert_array_equal(digital["B05"], sharp["B05"].round().clip(1, 65535))  # no wrap at 65536
    dark = (scene.astype("float32") - 600).assign_attrs(scene.attrs)
    negative = run(dark, weights["back_projection"])
    assert float(negative["B12"].min()) < 0
    np.testing.assert_allclose(degrade(negative["B12"], 2).values, dark["B12"].values, rtol=0, atol=2e-3)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_saturation_is_kept_and_spoils_no_neighbour(weights, dtype):
    window = (slice(40, 60), slice(40, 60))
    scene = synthetic_scene(30, 30, level="L2A")
    saturated, gapped = scene.copy(deep=True), scene.copy(deep=True)
    saturated["B05"][window] = 65535
    gapped["B05"][window] = 0
    options = {"dtype": dtype, "bands": ["B05", "B06"]}
    sharp, beside_a_gap = (run(ds, weights["back_projection"], **options) for ds in (saturated, gapped))
    inside = np.zeros((180, 180), bool)
    inside[80:120, 80:120] = True
    assert (sharp["B05"].values[inside] == 65535).all()
    for name in ("B05", "B06"):
        np.testing.assert_array_equal(sharp[name].values[~inside], beside_a_gap[name].values[~inside])


def test_a_saturated_guide_is_no_gap_and_stays_as_it_is(weights):
    scene = synthetic_scene(30, 30, level="L2A")
    scene["B02"][10:20, 10:20] = 65535
    sharp = run(scene, weights["back_projection"], dtype="uint16")
    np.testing.assert_array_equal(sharp["B02"], scene["B02"])
    assert int((sharp["B05"] == 0).sum()) == 0


def test_chunks_of_a_degraded_scene_nest_again():
    """Its bands are cut to whole coarse pixels one by one; sharpening and scoring need them on common ground."""
    scene = synthetic_scene(180, 180, level="L2A", chunks=90)
    for factor in (2, 6):
        coarse = degrade(scene, factor)
        check_chunks(coarse)
        whole = degrade(scene.compute(), factor)
        for name in ("B02", "B05", "B01"):
            np.testing.assert_allclose(coarse[name].values, whole[name].values, rtol=0, atol=1e-3)
        superresolve(coarse, method="bicubic")


def test_grid_mappings_that_zarr_hands_over_as_data_are_kept(weights):
    scene = synthetic_scene(25, 25, level="L2A")
    as_data = scene.reset_coords([name for name in scene.coords if str(name).startswith("spatial_ref")])
    assert superresolve(as_data, weights=weights["back_projection"])["B05"].rio.crs.to_epsg() == EPSG


def test_sharpened_bands_and_native_ones_share_their_chunks(weights):
    scene = synthetic_scene(30, 30, level="L2A", times=TIMES, chunks=90)
    scene = scene.chunk(time=2).isel(y10=slice(60, 180), y20=slice(30, 90), y60=slice(10, 30))
    sharp = superresolve(scene, weights=weights["back_projection"])
    assert len({tuple(sharp[name].chunks) for name in sharp.data_vars}) == 1


def test_native_bands_pass_untouched(weights):
    scene = synthetic_scene(25, 25, level="L2A", chunks=60, gaps={"B08": [(slice(3, 9), slice(0, 99))]})
    sharp = superresolve(scene, weights=weights["back_projection"])
    floats = superresolve(scene, weights=weights["back_projection"], dtype="float32")
    for name in BANDS_10M:
        assert sharp[name].dtype == np.uint16
        np.testing.assert_array_equal(sharp[name], scene[name])
        np.testing.assert_array_equal(floats[name], scene[name].astype("float32").where(scene[name] > 0))


@pytest.mark.parametrize("times", [None, TIMES])
def test_grid_offset_and_provenance_are_kept(weights, times):
    scene = synthetic_scene(30, 25, times=times, chunks=60, radiometric_offset=-1000, processing_baseline="05.11")
    sharp = superresolve(scene, weights=weights["back_projection"])
    assert list(sharp.data_vars) == list(SHARP_BANDS)  # B10 was there, and is not delivered
    assert sharp.attrs.items() >= scene.attrs.items()
    assert sharp.attrs["sharpened_by"].startswith("eosr ")
    assert sharp.attrs["sharpening_methods"] == ["random-2", "random-6"]
    assert [len(text) for text in sharp.attrs["weights_sha256"]] == [64, 64]
    assert (sharp.attrs["consistency"], sharp.attrs["degradation"]) == ("exact", "study")
    for axis in (*(["time"] if times is not None else []), "y10", "x10"):
        xr.testing.assert_identical(
            sharp[axis], scene[axis].drop_vars([c for c in scene[axis].coords if c not in sharp.coords])
        )
    plain = at(sharp, 10)
    assert plain.rio.crs.to_epsg() == EPSG
    assert plain["B01"].rio.transform()[:6] == TRANSFORM
    assert plain["B05"].rio.bounds() == at(scene, 60).rio.bounds()
    assert all(sharp[name].encoding["grid_mapping"] == "spatial_ref10" for name in sharp.data_vars)


def test_output_has_the_type_and_chunks_asked_for(weights):
    scene = synthetic_scene(40, 40, level="L2A", chunks=60)
    sharp = superresolve(scene, weights=weights["back_projection"])
    assert all(sharp[name].dtype == np.uint16 for name in sharp.data_vars)
    assert all(sharp[name].chunks == scene["B02"].chunks for name in sharp.data_vars)
    other = superresolve(scene, weights=weights["back_projection"], chunks=90, dtype="float32")
    assert all(other[name].dtype == np.float32 for name in other.data_vars)
    assert all(other[name].data.chunksize == (90, 90) for name in other.data_vars)
    assert list(superresolve(scene, weights=weights["back_projection"], bands=["B12", "B02"]).data_vars) == [
        "B02",
        "B12",
    ]


def test_operator_recorded_by_degrade_is_the_one_inverted(weights):
    scene, twenty = synthetic_scene(50, 50, level="L2A"), weights["back_projection"][0]
    coarse = degrade(scene, 2, degradation="mtf_diff")
    sharp = run(coarse, twenty)
    assert sharp.attrs["degradation"] == "mtf_diff"
    assert_close(sharp, run(coarse, twenty, degradation="mtf_diff"), atol=0)
    assert float(abs(sharp["B05"] - run(coarse, twenty, degradation="study")["B05"]).max()) > 10
    by_sigma = degrade(scene, 2, sigma=0.7)
    seen = degrade(run(by_sigma, twenty)["B05"].astype(float), 2, sigma=0.7)
    np.testing.assert_allclose(seen.values, by_sigma["B05"].values, rtol=0, atol=2e-3)


@pytest.fixture(scope="module")
def whole_tile():
    """A tile of 10980 x 10980 pixels that nobody computes."""
    bands = {}
    for group, names in {10: BANDS_10M, 20: BANDS_20M, 60: BANDS_60M}.items():
        size, chunk = 109800 // group, 15360 // group
        bands |= {name: da.zeros((size, size), dtype=np.uint16, chunks=chunk) for name in names}
    tile = from_arrays(bands, transform=TRANSFORM, crs=EPSG, level="L2A")
    with nothing_computed():
        return superresolve(tile)


def test_a_whole_tile_is_a_small_lazy_graph(whole_tile):
    blocks = 64
    assert whole_tile["B05"].data.npartitions == blocks
    tasks = len(dict(whole_tile.__dask_graph__()))
    assert tasks < 400 * blocks, tasks


def test_graph_holds_the_path_and_checksum_and_not_the_model(whole_tile):
    pickled = cloudpickle.dumps(dict(whole_tile["B05"].data.dask))
    (twenty, _) = choose_methods(Choice(), None, SHARP_BANDS)
    assert whole_tile.attrs["weights_sha256"][0] == twenty.checksum
    assert twenty.checksum.encode() in pickled
    assert twenty.path.encode() in pickled
    assert len(pickled) < 1_500_000 < Path(twenty.path).stat().st_size, len(pickled)


def test_weights_changed_after_the_graph_was_built_are_refused(tmp_path):
    path = random_weights(tmp_path / "w.safetensors", seed=1)
    sharp = superresolve(synthetic_scene(25, 25, level="L2A", chunks=150), weights=path)
    random_weights(path, seed=2)
    with pytest.raises(
        WeightsError, match=r"w\.safetensors have changed since the graph was built .* Build the result"
    ):
        sharp["B05"].compute(scheduler="sync")
    path.unlink()
    with pytest.raises(WeightsError, match=r"are not visible from this worker\. Put them on a shared filesystem"):
        sharp["B05"].compute(scheduler="sync")


def test_processes_of_a_cluster_give_the_same(weights):
    from distributed import Client, LocalCluster

    scene = synthetic_scene(80, 40, level="L2A", chunks=240)
    lazy = superresolve(scene, weights=weights["back_projection"], bands=["B05", "B01", "B02"])
    expected = lazy.compute(scheduler="sync")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        assert_close(lazy.compute(), expected, atol=0)


def scene_without(*names):
    return synthetic_scene(25, 25, level="L2A").drop_vars(names)


@pytest.mark.parametrize(
    ("ds", "options", "kind", "text"),
    [
        (scene_without, {"bands": ["B5"]}, BandError, "'B5' is not a band of Sentinel-2. Known bands: B01, B02"),
        (scene_without, {"bands": ["B10"]}, BandError, "B10 cannot be sharpened by random-2, random-6."),
        (lambda: scene_without(*BANDS_10M), {}, BandError, "none of the 10 m bands B02, B03, B04, B08 that guide"),
        (lambda: scene_without("B03"), {}, BandError, "random-2 needs B02, .* the Dataset lacks B03. Open it"),
        (lambda: scene_without("B11"), {}, BandError, "random-2 needs .* the Dataset lacks B11"),
        (lambda: scene_without(*BANDS_20M, *BANDS_60M), {}, BandError, "nothing that random-2, random-6 could sharpen"),
        (lambda: scene_without()[[]], {}, BandError, "holds no variables, but none of the 10 m bands"),
        (lambda: scene_without().isel(x20=slice(2, 70)), {}, GridError, "the 20 m grid starts at .* same corner"),
        (lambda: scene_without().isel(y60=slice(24)), {}, GridError, "150 pixels along y10 .*crop_to_multiple"),
        (lambda: synthetic_scene(15, 40, level="L2A"), {}, GridError,
         r"90 x 240 pixels of 10 m are fewer than the reach of random-6, (\d+) .*at least \1 x \1 pixels .*bands="),
        (lambda: scene_without().chunk(y10=60, x10=60, y20=30, x20=30, y60=9, x60=9), {}, GridError,
         r"must be in the ratio 6:3:1\. Rechunk: ds = ds\.chunk\(y10=1536, x10=1536, y20=768"),
        (scene_without, {"dtype": "int16"}, RadiometryError, "dtype 'int16' is not offered. Use one of 'uint16'"),
        (scene_without, {"chunks": 500}, GridError, "chunks=500 is no multiple of 6 above 0. Use e.g. chunks=498"),
        (lambda: to_reflectance(scene_without()), {}, RadiometryError, "holds reflectance; superresolve works on"),
        (lambda: scene_without()["B05"], {}, GridError, "needs a Dataset with one variable per band, not a DataArray"),
        (scene_without, {"degradation": "blur"}, DegradationError, "'blur'"),
        (lambda: scene_without().assign_attrs(level="L1B"), {}, RadiometryError, "'L1B', and L1C and L2A"),
        (lambda: scene_without().assign_attrs(radiometric_offset=[0, 0]), {}, RadiometryError, "2 numbers for no"),
        (scene_without, {"chunks": "auto"}, GridError, "chunks='auto' is no multiple of 6 .* chunks=1536"),
        (scene_without, {"chunks": -6}, GridError, "chunks=-6 is no multiple of 6 above 0"),
        (scene_without, {"degradation": None}, DegradationError, "degradation=None is not one eosr knows. Use 'auto'"),
        (scene_without, {"degradation": "sigma=abc"}, DegradationError, "'sigma=abc' is not one eosr knows"),
        (scene_without, {"consistency": "none"}, DegradationError, "'none' is neither True, False nor None"),
        (scene_without, {"bands": []}, BandError, "bands is empty"),
        (scene_without, {"device": "gpu"}, WeightsError, "device 'gpu' is not one eosr knows. Use 'auto', 'cpu'"),
        (lambda: superresolve(scene_without(), method="bicubic"), {}, GridError,
         "B01 is on the 10 m grid already, sharpened by eosr .* Give the Dataset of open_stac"),
        (lambda: scene_without().expand_dims("run"), {}, GridError, "has a dimension run besides time"),
        (lambda: scene_without().astype(bool), {}, RadiometryError, "holds bool, not digital numbers"),
        (scene_without, {"device": "cuda:9"}, WeightsError, "'cuda:9' is not available here. Use device='auto'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_remedy(weights, ds, options, kind, text):
    with pytest.raises(kind, match=text):
        superresolve(ds(), weights=weights["back_projection"], **options).compute(scheduler="sync")


def test_a_native_band_that_is_asked_for_and_not_there_is_named():
    with pytest.raises(BandError, match="the Dataset lacks B04, which is asked for"):
        superresolve(scene_without("B04"), method="bicubic", bands=["B04", "B05"])


def test_chunks_of_512_256_85_are_refused_with_the_line_that_helps(weights):
    scene = synthetic_scene(90, 90, level="L2A").chunk(y10=512, x10=512, y20=256, x20=256, y60=85, x60=85)
    with pytest.raises(GridError, match=r"chunks of B01 along y60 \(85, 5\) .*6:3:1\. Rechunk: (.*)") as caught:
        superresolve(scene, weights=weights["back_projection"])
    names = {"ds": scene}
    exec(str(caught.value).split("Rechunk: ")[1].rstrip("."), names)  # the remedy is a line to paste, so paste it
    superresolve(names["ds"], weights=weights["back_projection"])
