"""Which pixels are scored: saturated ones are gaps, all methods of a table share theirs, masks fit or are refused."""

import importlib

import numpy as np
import pytest
import xarray as xr
from dask.callbacks import Callback

from eosr.errors import GridError, MetricError
from eosr.score.evaluation import evaluate
from eosr.sharpen.classical.supreme import Supreme
from eosr.testing import chunked, nothing_computed, synthetic_scene

EVALUATE = importlib.import_module("eosr.score.evaluation")
WINDOWS = importlib.import_module("eosr.score.blocks")


def first(table, metric):
    return table.score.loc[{"metric": metric, "projection": "after"}].squeeze(["scene", "property", "degradation"])


@pytest.mark.parametrize("kind", ["synthesis", "consistency"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_a_saturated_pixel_is_scored_like_a_gap(kind, dtype):
    clean = synthetic_scene(20, 20, gaps={"B05": [(slice(40, 41), slice(41, 42))]})
    burnt = synthetic_scene(20, 20)
    burnt["B05"][40, 41] = 65535
    # A scene in float has NaN in its gaps.
    if dtype == "float32":
        clean, burnt = (ds.map(lambda b: b.where(b != 0).astype(dtype), keep_attrs=True) for ds in (clean, burnt))
    tables = [evaluate(ds, "atprk", bands=["B05", "B06"], property=kind) for ds in (clean, burnt)]
    xr.testing.assert_allclose(tables[1].score, tables[0].score, rtol=1e-6)
    assert float(tables[1].score.sel(metric="coverage", band="B05").max()) < 1
    assert float(tables[1].score.sel(metric="rmse").max()) < 500


@pytest.mark.parametrize("kind", ["synthesis", "consistency"])
def test_all_methods_of_a_table_are_scored_on_the_same_pixels(kind):
    # SupReME makes no pixel of any 20 m band where one of the bands has a gap; detail injection none where B03 has.
    gaps = {
        "B06": [(slice(13, 25), slice(10, 24))],
        "B01": [(slice(5, 8), slice(12, 15))],
        "B03": [(slice(90, 97), slice(7))],
    }
    scene = synthetic_scene(20, 20, gaps=gaps)
    methods = {"supreme": {"method": "supreme", "options": {"iterations": 2}}, "detail_injection": "detail_injection"}
    table = evaluate(scene, methods, bands=["B05", "B06"], small="mirror", property=kind)
    coverage = first(table, "coverage")
    assert coverage.sizes["method"] == 3
    assert float(coverage.sel(band="B05").max()) < 0.9
    for label in methods:
        np.testing.assert_array_equal(coverage.loc[{"method": label}], coverage.loc[{"method": "bicubic"}])
    # Without them bicubic has more pixels.
    alone = first(evaluate(scene, "bicubic", bands=["B05", "B06"], small="mirror", property=kind), "coverage")
    assert (alone.loc[{"method": "bicubic"}] > coverage.loc[{"method": "bicubic"}]).all()


def test_one_problem_for_both_grids_is_solved_once_in_consistency(monkeypatch):
    scene, solved = synthetic_scene(20, 20), []
    sharpen = Supreme.sharpen
    monkeypatch.setattr(Supreme, "sharpen", lambda *a: solved.append(1) or sharpen(*a))
    how = {"method": "supreme", "options": {"iterations": 2}}
    table = evaluate(scene, {"supreme": how}, property="consistency", small="mirror")
    assert len(solved) == 1
    assert table.score.sel(metric="rmse").loc[{"method": "supreme"}].notnull().all()


def on_the_grid(values, *dims):
    return xr.DataArray(values, dims=dims or ("y10", "x10"))


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (on_the_grid(np.ones((150, 150), bool)), "mask has 150 pixels along 'y10', but .* has 120"),
        (on_the_grid(np.ones((100, 120), bool)), "mask has 100 pixels along 'y10', but .* has 120"),
        (
            on_the_grid(np.ones((2, 120, 120), bool), "time", "y10", "x10"),
            "every time of a series is a scene of its own",
        ),
        (on_the_grid(np.ones((120, 120))), r"mask is float64 on \('y10', 'x10'\)"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_before_anything_is_computed(mask, text):
    scene = chunked(synthetic_scene(20, 20), 60)
    with nothing_computed(), pytest.raises(MetricError, match=text):
        evaluate(scene, "detail_injection", bands=["B05"], mask=mask)


@pytest.mark.parametrize("most", [0, 1e12])
def test_every_computation_is_expected_by_the_progress_bar(monkeypatch, most):
    monkeypatch.setattr(EVALUATE, "IN_MEMORY", most)
    monkeypatch.setattr(WINDOWS, "LEAST", (36, 36))
    counted, told = [], []
    keep = EVALUATE.reporting_tasks

    def watching(progress, computations, what):
        counted.append(computations)
        return keep(progress, computations, what)

    monkeypatch.setattr(EVALUATE, "reporting_tasks", watching)
    began = []
    with Callback(start=lambda dsk: began.append(1)):
        evaluate(
            chunked(synthetic_scene(20, 20), 60), "detail_injection", bands=["B05", "B01"], small="mirror", border=0,
            property=["synthesis", "consistency"], progress=lambda done, total: told.append(done),
        )  # fmt: skip
    assert counted == [len(began)]
    assert told[-1] == 1000


@pytest.mark.parametrize("method", ["supreme", "eosr"])
def test_a_band_that_nobody_scores_need_not_be_there(method):
    scene = synthetic_scene(12, 12, level="L2A").drop_vars("B09")
    how = {method: {"method": method, **({"options": {"iterations": 2}} if method == "supreme" else {})}}
    table = evaluate(scene, how, bands=["B05"], small="mirror", border=0)
    assert table.score.sel(metric="rmse", band="B05").notnull().all()
    assert "60m" not in table.described.sel({"method": method}).item()


def test_chunks_that_do_not_match_are_refused_before_anything_is_computed():
    scene = synthetic_scene(20, 20).chunk(60)
    with nothing_computed(), pytest.raises(GridError, match="chunks must be in the ratio 6:3:1"):
        evaluate(scene, "bicubic", bands=["B05"], property="both")
