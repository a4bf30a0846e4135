"""Lazy overlap: classical methods over tiles, times, gaps, offsets and processes; stages and mirrored scenes."""

import importlib

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.consistency import projection_reach
from eosr.cube.degradation import degrade
from eosr.cube.grid import STEPS, from_arrays
from eosr.errors import RadiometryError, ReachError
from eosr.sharpen.classical.passes import sharpen_whole, whole_scene_tile
from eosr.sharpen.methods import CLASSICAL, Choice, choose_methods
from eosr.sharpen.superresolution import count_graphs, find_parameters, superresolve, superresolve_stages
from eosr.sharpen.tiling import plan_tasks
from eosr.testing import EPSG, TRANSFORM, chunked, nothing_computed, synthetic_scene

#: `eosr.superresolve` as an attribute is the function, so modules are imported by name.
TILING = importlib.import_module("eosr.sharpen.tiling")
NAMES = list(CLASSICAL)
#: Few steps: what is tested is how tiles are laid, not how far the solver gets.
OPTIONS = {"supreme": {"iterations": 4}}
#: The documented difference between tilings [DN]: SupReME is cut off, the others agree to rounding.
SEAM = {"supreme": 0.05}
TIMES = np.array(["2023-06-01T10:00", "2023-06-11T10:00"], "datetime64[ns]")


@pytest.fixture
def tiles(monkeypatch):
    """Let a tile be as small as its halo, and record how many tiles every pass and every group has."""
    seen = []
    laid = TILING._overlapped

    def recorded(function, arrays, *rest):
        seen.append((type(function).__name__, arrays[0].numblocks[2:]))
        return laid(function, arrays, *rest)

    monkeypatch.setattr(TILING, "MIN_HALOS", 1)
    monkeypatch.setattr(TILING, "_overlapped", recorded)
    return seen


def sharpened(ds, name, **options):
    return superresolve(ds, **{"method": name, "options": OPTIONS.get(name), "dtype": "float32", **options})


def computed(ds, name, **options):
    return sharpened(ds, name, **options).compute(scheduler="sync")


def whole_scene(name):
    """Whether a method estimates something from the whole scene."""
    return name in ("detail_injection", "atprk", "supreme")


def rectangles(ds, rows, columns):
    """Chunks of ``rows`` x ``columns`` pixels of 10 m, and the same ground on the other grids."""
    sizes = {
        f"{axis}{group}": n // k for group, k in STEPS.items() for axis, n in zip("yx", (rows, columns), strict=True)
    }
    return ds.chunk({dim: size for dim, size in sizes.items() if dim in ds.dims})


def assert_close(actual, expected, atol, bands=None):
    for band in bands or expected.data_vars:
        np.testing.assert_allclose(
            actual[band].values.astype(float), expected[band].values.astype(float), rtol=0, atol=atol, err_msg=str(band)
        )


@pytest.mark.parametrize("consistency", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_does_not_depend_on_the_chunks(tiles, name, consistency):
    scene = synthetic_scene(22, 40, level="L2A")
    told = {"bands": ["B12", "B01"], "consistency": consistency}
    whole = computed(scene, name, **told)
    assert {count for _, count in tiles} == {(1, 1)}
    tiles.clear()
    sizes = {"supreme": (132, 120)}.get(name, (66, 90) if consistency else (60, 60))
    assert_close(computed(rectangles(scene, *sizes), name, **told), whole, SEAM.get(name, 1e-3), ["B12", "B01"])
    # It was cut indeed: SupReME in two, whose halo is wide, the others in more.
    for kind in ("TileTask", "CountTask") if whole_scene(name) else ("TileTask",):
        assert max(rows * columns for one, (rows, columns) in tiles if one == kind) >= (2 if name == "supreme" else 4)


def test_chunks_of_the_answer_are_those_of_the_input_or_those_asked_for(tiles):
    scene = chunked(synthetic_scene(22, 24, level="L2A"), 60)
    assert sharpened(scene, "atprk", bands=["B05"])["B05"].chunks == ((60, 60, 12), (60, 60, 24))
    assert sharpened(scene, "atprk", bands=["B05"], chunks=48)["B05"].chunks == ((48, 48, 36), (48, 48, 48))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_computed_and_the_graph_grows_with_the_tiles_only(tiles, name):
    sizes = {}
    for rows, columns in ((30, 30), (60, 60)):
        lazy = da.zeros((6 * rows, 6 * columns), chunks=90, dtype=np.uint16)
        arrays = {b: lazy for b in BANDS_10M} | {b: lazy[::2, ::2].rechunk(45) for b in BANDS_20M}
        scene = from_arrays(arrays, transform=TRANSFORM, crs=EPSG, level="L2A", platform="sentinel-2a")
        with nothing_computed():
            sharp = sharpened(scene, name)
            sizes[rows] = len(dict(sharp.__dask_graph__()))
    count = max(rows * columns for kind, (rows, columns) in tiles if kind == "TileTask")
    assert count == 16
    # Four times the tiles have about four times the tasks (edges have fewer neighbours), none of them per pair.
    assert sizes[60] < 5.5 * sizes[30]
    assert sizes[60] / count < 300
    # The tasks hold no pixels: a lazy answer is sent to a scheduler in a few hundred kilobytes.
    assert len(cloudpickle.dumps(sharp)) < 1e6


def test_a_lazy_answer_survives_pickling(tiles):
    lazy = sharpened(chunked(synthetic_scene(22, 24, level="L2A"), 60), "atprk", bands=["B05"])
    copy = cloudpickle.loads(cloudpickle.dumps(lazy))
    xr.testing.assert_identical(copy.compute(scheduler="sync"), lazy.compute(scheduler="sync"))


@pytest.mark.parametrize("window", [(1, 1), (1, 1000)])
@pytest.mark.parametrize("name", [name for name in NAMES if whole_scene(name)])
def test_passes_window_by_window_find_what_passes_in_one_graph_find(tiles, monkeypatch, name, window):
    # Gaps on the seams of windows, along an edge of the scene, and in a guide.
    gaps = {
        "B05": [(slice(28, 33), slice(0, 70)), (slice(0, 3), slice(40, 90))],
        "B02": [(slice(None), slice(118, 122))],
    }
    ds = chunked(synthetic_scene(50, 50, level="L2A", radiometric_offset=-1000, gaps=gaps), 60)
    told = {"bands": ["B05", "B11", "B01"], "degradation": "study"}
    choice = Choice(method=name, options=OPTIONS.get(name))
    once = count_graphs(ds, choice, **told)
    monkeypatch.setattr(TILING, "WINDOW", window)
    assert count_graphs(ds, choice, **told) > once
    parameters = find_parameters(ds, choice, **told)
    given = superresolve_stages(ds, choice, **told, parameters=parameters).before.compute(scheduler="sync")
    found = superresolve_stages(ds, choice, **told).before.compute(scheduler="sync")
    xr.testing.assert_allclose(given, found, rtol=0, atol=1e-2)  # DN


@pytest.mark.parametrize("name", NAMES)
def test_every_image_of_a_series_is_estimated_for_itself(tiles, name):
    # Two grounds, two satellites with their own MTF, and the offset that came with processing baseline 04.00.
    recorded = {"radiometric_offset": [0, -1000], "platform": ["sentinel-2a", "sentinel-2b"]}
    series = synthetic_scene(20, 22, level="L2A", times=TIMES, **recorded)
    told = {"bands": ["B11"], "degradation": "mtf", "consistency": name == "atprk"}
    both = computed(chunked(series, 60), name, **told)["B11"]
    assert both.dims == ("time", "y10", "x10")
    for index in (0, 1):
        alone = series.isel(time=index).drop_vars("time")
        alone.attrs |= {key: values[index] for key, values in recorded.items()}
        expected = computed(chunked(alone, 60), name, **told)["B11"]
        np.testing.assert_array_equal(both.values[index], expected.values)
    if whole_scene(name):
        # Told the other satellite, it gives something else: the platform does arrive.
        alone.attrs["platform"] = "sentinel-2a"
        assert np.abs(computed(alone, name, **told)["B11"].values - both.values[1]).max() > 0.01


def test_a_series_needs_one_satellite_or_one_per_time():
    series = synthetic_scene(20, 22, level="L2A", times=TIMES)
    (method,) = choose_methods(Choice(method="atprk"), ["B05"], ["B02", "B03", "B04", "B08", "B05"])
    series.attrs["platform"] = ["sentinel-2a"] * 3
    with pytest.raises(RadiometryError, match=r"platform names 3 satellites for 2 times\. Give one, or one per time"):
        plan_tasks(series, method, "study", consistency=False, dtype="float32")
    series.attrs["platform"] = "sentinel-2b"
    tasks = plan_tasks(series, method, "study", consistency=False, dtype="float32")
    assert len(tasks) == 2  # what is estimated from a scene is estimated from each
    (bicubic,) = choose_methods(Choice(method="bicubic"), ["B05"], ["B02", "B05"])
    assert len(plan_tasks(series, bicubic, "study", consistency=False, dtype="float32")) == 1


@pytest.mark.parametrize("name", NAMES)
def test_an_offset_shifts_the_answer_and_changes_nothing_else(name):
    scene = synthetic_scene(16, 18, level="L2A").drop_vars(BANDS_60M)
    shifted = (scene + np.uint16(1000)).assign_attrs(scene.attrs, radiometric_offset=-1000)
    for band in shifted.data_vars:
        shifted[band].encoding = scene[band].encoding
    told = {"bands": ["B05", "B12"], "consistency": True}
    before, after = computed(scene, name, **told), computed(shifted, name, **told)
    assert_close(after, before + 1000, 2e-3, told["bands"])
    # Not a matter of course: the same numbers without the offset recorded are another scene to some methods.
    if name == "superres_like":
        wrong = computed(shifted.assign_attrs(radiometric_offset=0), name, **told)
        assert np.abs(wrong["B12"] - after["B12"]).max() > 0.1


@pytest.fixture(scope="module")
def torn():
    """A scene with a block of nodata in all bands, one in B05 alone, and single saturated pixels."""
    gaps = {band: [(slice(48, 84), slice(60, 90))] for band in BANDS_10M}
    gaps |= {band: [(slice(24, 42), slice(30, 45))] for band in BANDS_20M}
    gaps["B05"] = [*gaps["B05"], (slice(50, 53), slice(60, 62))]
    scene = synthetic_scene(22, 25, level="L2A", gaps=gaps).drop_vars(BANDS_60M)
    scene["B04"].values[30, 100] = 65535
    scene["B12"].values[60, 30] = 65535
    return scene


@pytest.mark.parametrize("name", NAMES)
def test_gaps_and_saturated_pixels_leave_no_seam(tiles, torn, name):
    whole = computed(torn, name, consistency=True)
    assert_close(computed(rectangles(torn, 48, 90), name, consistency=True), whole, SEAM.get(name, 1e-3), BANDS_20M)
    assert max(rows * columns for _, (rows, columns) in tiles) >= 2
    assert (whole["B12"].values == 65535).sum() == 4
    assert np.isnan(whole["B06"].values).sum() == 36 * 30
    assert np.isnan(whole["B05"].values).sum() == 36 * 30 + 24


@pytest.mark.parametrize("name", ["bicubic", "superres_like", "atprk"])
def test_small_holes_everywhere_leave_no_seam(tiles, name):
    # Every hole is filled from all sides, also one in the halo of a tile, whose far side lies beyond the halo.
    scene = synthetic_scene(16, 18, level="L2A")[[*BANDS_10M, "B05"]]
    scene["B05"].values[1::3, 2::4] = 0
    whole = computed(scene, name)
    assert_close(computed(rectangles(scene, 30, 36), name), whole, 1e-3, ["B05"])
    assert max(rows * columns for kind, (rows, columns) in tiles if kind == "TileTask") >= 6


@pytest.mark.parametrize("name", NAMES)
def test_floats_with_nan_are_the_same_as_integers_with_zero(torn, name):
    floats = torn.map(lambda band: band.where(band != 0).astype(np.float32), keep_attrs=True)
    assert floats["B05"].isnull().any()
    assert_close(computed(floats, name), computed(torn, name), 0, BANDS_20M)


@pytest.mark.parametrize("name", ["bicubic", "superres_like"])
@pytest.mark.parametrize("consistency", [False, True])
def test_a_gap_changes_nothing_beyond_the_reach(torn, name, consistency):
    # Methods that estimate nothing from the whole scene: what stands in the gap is filled from its rim.
    full = synthetic_scene(22, 25, level="L2A").drop_vars(BANDS_60M)
    gap = torn.copy()
    gap["B04"] = full["B04"].where(torn["B04"] != 0, 0)
    gap["B12"] = full["B12"].where(torn["B12"] != 0, 0)
    told = {"bands": ["B12"], "consistency": consistency}
    moved = computed(gap, name, **told)["B12"].values != computed(full, name, **told)["B12"].values
    rows, columns = np.nonzero(moved)
    (method,) = choose_methods(Choice(method=name), ["B12"], ["B02", "B03", "B04", "B08", "B12"])
    reach = method.reach + (projection_reach(2, 0.5) if consistency else 0)
    assert rows.min() >= 48 - reach
    assert rows.max() < 84 + reach
    assert columns.min() >= 60 - reach
    assert columns.max() < 90 + reach
    # And it does change its neighbours.
    assert moved.sum() > 36 * 30


@pytest.mark.parametrize("name", NAMES)
def test_beside_a_saturated_pixel_is_beside_a_gap(torn, name):
    missing = torn.copy()
    for band in ("B04", "B12"):
        missing[band] = torn[band].where(torn[band] != 65535, 0)
    told = {"bands": ["B12"], "consistency": True}
    lost, gone = computed(torn, name, **told)["B12"].values, computed(missing, name, **told)["B12"].values
    assert (lost[120:122, 60:62] == 65535).all()
    assert np.isnan(gone[120:122, 60:62]).all()
    # A saturated guide is filled like one that is missing beside others, and the answer beneath it stays.
    assert np.isfinite(lost[30, 100])
    assert np.isfinite(gone[30, 100])
    both = np.isfinite(gone)
    np.testing.assert_array_equal(lost[both], gone[both])


def test_scenes_all_nodata_stay_so_and_refuse_only_what_cannot_be_learned():
    scene = synthetic_scene(16, 18, level="L2A").drop_vars(BANDS_60M)
    empty = scene.map(np.zeros_like, keep_attrs=True)
    for band in empty.data_vars:
        empty[band].encoding = scene[band].encoding
    for name in ("bicubic", "detail_injection", "atprk", "superres_like"):
        assert np.isnan(computed(empty, name)["B05"].values).all(), name


def scores_of(sharp, other):
    """Reductions of two answers: bare dask scalars, as a progress report asks for them."""
    return [sharp[band].mean().data for band in ("B05", "B12")] + [((sharp["B05"] - other["B05"]) / 3.0).max().data]


def test_two_answers_and_their_reductions_are_computed_in_one_call(tiles):
    scene = chunked(synthetic_scene(20, 22, level="L2A"), 60)
    for name in ("bicubic", "detail_injection"):
        plain = sharpened(scene, name, bands=["B05", "B12"])
        exact = sharpened(scene, name, bands=["B05", "B12"], consistency=True)
        first, second, numbers = dask.compute(plain, exact, scores_of(plain, exact), scheduler="threads")
        assert_close(first, plain.compute(scheduler="sync"), 0)
        assert_close(second, exact.compute(scheduler="sync"), 0)
        np.testing.assert_allclose(numbers[:2], [first["B05"].mean(), first["B12"].mean()], rtol=1e-5)
        np.testing.assert_allclose(numbers[2], ((first["B05"] - second["B05"]) / 3).max(), rtol=1e-5)


def test_stages_and_their_seconds_are_computed_in_one_call(tiles):
    scene = chunked(synthetic_scene(20, 22, level="L2A"), 60)
    stages = superresolve_stages(scene, Choice(method="detail_injection"), bands=["B05"], degradation="study")
    coarse = degrade(stages.after, 2)
    total = stages.seconds[0].sum()
    before, after, degraded, (seconds,) = dask.compute(
        stages.before, stages.after, coarse, [total], scheduler="threads"
    )  # fmt: skip
    assert seconds > 0
    np.testing.assert_allclose(degraded["B05"].values, scene["B05"].values, rtol=0, atol=0.01)
    assert np.abs(before["B05"] - after["B05"]).max() > 1


def test_processes_of_a_cluster_give_the_same(tiles):
    distributed = pytest.importorskip("distributed")
    scene = chunked(synthetic_scene(20, 22, level="L2A"), 60)
    lazy = sharpened(scene, "atprk", bands=["B05"], consistency=True)
    expected = lazy.compute(scheduler="sync")
    # On a busy machine two fresh processes need longer than the 30 s that distributed waits for them.
    patient = dask.config.set({"distributed.comm.timeouts.connect": "300s"})
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0)
    with patient, cluster, distributed.Client(cluster) as client:
        first = client.gather(client.compute(lazy))
        again, mean = dask.compute(lazy, lazy["B05"].mean().data)
    xr.testing.assert_identical(first, expected)
    xr.testing.assert_identical(again, expected)
    np.testing.assert_allclose(mean, expected["B05"].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_stages_are_the_two_answers(tiles, name):
    scene = chunked(synthetic_scene(20, 22, level="L2A"), 60).drop_vars(BANDS_60M)
    told = {"bands": ["B05"], "degradation": "mtf"}
    stages = superresolve_stages(scene, Choice(method=name, options=OPTIONS.get(name)), **told)
    # SupReME sees a wider halo with the projection than without.
    before = computed(scene, name, consistency=False, **told)
    assert_close(stages.before.compute(scheduler="sync"), before, SEAM.get(name, 1e-3))
    assert_close(stages.after.compute(scheduler="sync"), computed(scene, name, consistency=True, **told), 1e-3)
    # The projection meets the measurement up to the edges of the scene, also where a method does not treat a mirror
    # image as the mirror image.
    degraded = degrade(stages.after, 2, degradation="mtf")["B05"].compute(scheduler="sync")
    np.testing.assert_allclose(degraded.values, scene["B05"].values, rtol=0, atol=0.02)
    assert (stages.before.attrs["consistency"], stages.after.attrs["consistency"]) == ("none", "exact")
    (plane,) = stages.seconds
    seconds = plane.compute(scheduler="sync")
    assert seconds.shape == (1, 120, 132)
    assert (seconds > 0).all()


def test_seconds_are_those_of_every_tile_added_up(tiles, monkeypatch):
    # A clock that ticks once per look: every tile takes 1 s, and so do a tile's count and a solution.
    ticks = iter(range(10**6))
    monkeypatch.setattr("eosr.sharpen.tile.time.perf_counter", lambda: float(next(ticks)))
    scene = chunked(synthetic_scene(20, 22, level="L2A"), 60)
    stages = superresolve_stages(scene, Choice(method="bicubic"), bands=["B05"], degradation="study")
    total = float(stages.seconds[0].sum().compute(scheduler="sync"))
    (laid,) = [rows * columns for kind, (rows, columns) in tiles if kind == "TileTask"]
    assert laid >= 4
    assert total == pytest.approx(laid, rel=1e-5)
    tiles.clear()
    stages = superresolve_stages(scene, Choice(method="atprk"), bands=["B05"], degradation="study")
    total = float(stages.seconds[0].sum().compute(scheduler="sync"))
    counted = sum(rows * columns for kind, (rows, columns) in tiles)
    assert total == pytest.approx(counted + 2, rel=1e-5)  # two passes, two solutions


@pytest.mark.parametrize("band", ["B05", "B01"])
@pytest.mark.parametrize("name", ["bicubic", "superres_like", "detail_injection"])
def test_a_scene_smaller_than_its_halo_is_the_middle_of_its_mirror_images(name, band):
    # 12 x 6 pixels of 60 m: also whole pixels of the next coarser grid, which detail injection counts on. Every
    # mirror image counts the same, so nine times the sums have the same solution.
    scene = synthetic_scene(12, 6, level="L2A")[[*BANDS_10M, band]]
    laid = from_arrays(
        {name: np.pad(values.values, [(n, n) for n in values.shape], "symmetric")
         for name, values in scene.data_vars.items()},
        transform=TRANSFORM, crs=EPSG, level="L2A", platform="sentinel-2a",
    )  # fmt: skip
    with pytest.raises(ReachError):
        superresolve(scene.isel(y10=slice(6), y20=slice(3), y60=slice(1), missing_dims="ignore"), method=name)
    told = {"bands": [band], "degradation": "study"}
    small = superresolve_stages(scene, Choice(method=name), mirror=True, **told)
    large = superresolve_stages(laid, Choice(method=name), mirror=True, **told)
    middle = {"y10": slice(72, 144), "x10": slice(36, 72)}
    # Superres-like takes corners in turn, so its answer to a mirror image is not quite the mirror image of its answer,
    # and the projection, which sees the neighbours, differs by up to 0.13 DN.
    for stage, bound in (("before", 5e-3), ("after", 0.2 if name == "superres_like" else 5e-3)):
        one = getattr(small, stage)[band].compute(scheduler="sync").values
        nine = getattr(large, stage)[band].isel(middle).compute(scheduler="sync").values
        np.testing.assert_allclose(one, nine, rtol=0, atol=bound, err_msg=stage)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(4, 5), (7, 50), (50, 7)])
def test_scenes_and_strips_narrower_than_a_halo_are_continued_whatever_their_chunks(tiles, name, shape):
    scene = synthetic_scene(*shape, level="L2A").drop_vars(BANDS_60M)
    (method,) = choose_methods(Choice(method=name, options=OPTIONS.get(name)), ["B05"], [*BANDS_10M, *BANDS_20M])
    fine = np.stack([scene[b].values for b in method.fine_bands or ("B02",)]).astype(np.float32)
    coarse = np.stack([scene[b].values for b in method.targets]).astype(np.float32)
    sigma = (0.5,) * len(coarse)
    expected = sharpen_whole(method.baseline, whole_scene_tile(fine, None, coarse, sigma))[0]
    for size in (60, 240):
        stages = superresolve_stages(
            chunked(scene, size), Choice(method=name, options=OPTIONS.get(name)), bands=["B05"], degradation="study",
            mirror=True,
        )  # fmt: skip
        found = stages.before["B05"].compute(scheduler="sync").values
        np.testing.assert_allclose(found, expected, rtol=0, atol=SEAM.get(name, 2e-3))


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_smaller_than_the_halo_is_refused_with_the_size_it_needs(name):
    with pytest.raises(
        ReachError, match=rf"12 x 132 pixels of 10 m are fewer than the reach of {name}, \d+ pixels"
    ) as no:
        superresolve(synthetic_scene(2, 22, level="L2A").drop_vars(BANDS_60M), method=name, bands=["B05"])
    least = no.value.needed // 6
    superresolve(synthetic_scene(least, least, level="L2A").drop_vars(BANDS_60M), method=name, bands=["B05"])
