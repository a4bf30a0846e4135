"""`ds.s2sr.f(...)` is `eosr.f(ds, ...)`: same signature, same answer."""

import inspect

import numpy as np
import pytest
import xarray as xr

import eosr
from eosr import write
from eosr.accessor import S2SRAccessor
from eosr.cube import grid, radiometry
from eosr.testing import nothing_computed, synthetic_scene

FUNCTIONS = {
    "superresolve": eosr.superresolve, "degrade": eosr.degrade, "evaluate": eosr.evaluate, "adapt": eosr.adapt,
    "to_reflectance": radiometry.to_reflectance, "at": grid.at, "crop_to_multiple": grid.crop_to_multiple,
    "to_zarr": write.to_zarr, "to_cog": write.to_cog,
}  # fmt: skip


def test_every_method_is_held_to_a_function():
    methods = {name for name in vars(S2SRAccessor) if not name.startswith("_")}
    assert methods == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_are_equal_but_for_the_dataset(name):
    _, *method = inspect.signature(getattr(S2SRAccessor, name)).parameters.values()
    first, *function = inspect.signature(FUNCTIONS[name]).parameters.values()
    assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert [(p.name, p.kind, p.default, p.annotation) for p in method] == [
        (p.name, p.kind, p.default, p.annotation) for p in function
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_documentation_is_that_of_the_function(name):
    told = inspect.getdoc(getattr(S2SRAccessor, name))
    assert told == inspect.getdoc(FUNCTIONS[name])
    assert "Parameters\n----------" in told


def test_answers_are_equal():
    scene = synthetic_scene(26, 24, level="L2A", radiometric_offset=-1000)
    xr.testing.assert_identical(
        scene.s2sr.superresolve(method="bicubic", bands=["B05", "B02"], dtype="float32", chunks=60, consistency=True),
        eosr.superresolve(scene, method="bicubic", bands=["B05", "B02"], dtype="float32", chunks=60, consistency=True),
    )
    xr.testing.assert_identical(
        scene.s2sr.degrade(2, degradation="mtf", platform="sentinel-2b"),
        eosr.degrade(scene, 2, degradation="mtf", platform="sentinel-2b"),
    )
    xr.testing.assert_identical(scene.s2sr.degrade(2, sigma=0.4), eosr.degrade(scene, 2, sigma=0.4))
    how = {"bands": ["B05"], "degradation": "box", "border": 4, "convention": "zhang2020", "units": "reflectance"}
    costs = ["seconds", "peak_memory"]
    xr.testing.assert_identical(
        scene.s2sr.evaluate("bicubic", **how).drop_vars(costs), eosr.evaluate(scene, "bicubic", **how).drop_vars(costs)
    )
    xr.testing.assert_identical(scene.s2sr.to_reflectance(), eosr.to_reflectance(scene))
    xr.testing.assert_identical(scene.s2sr.at(20), grid.at(scene, 20))
    xr.testing.assert_identical(scene.s2sr.crop_to_multiple(12), grid.crop_to_multiple(scene, 12))


def test_written_files_are_equal(tmp_path):
    sharp = synthetic_scene(20, 20, level="L2A", chunks=60).s2sr.superresolve(method="bicubic", bands=["B02", "B05"])
    sharp = sharp.expand_dims(time=np.array(["2023-06-01"], "datetime64[ns]")) if "time" not in sharp.dims else sharp
    here, there = sharp.s2sr.to_zarr(tmp_path / "a.zarr"), eosr.to_zarr(sharp, tmp_path / "b.zarr")
    xr.testing.assert_identical(xr.open_zarr(here).load(), xr.open_zarr(there).load())
    ours = sharp.s2sr.to_cog(tmp_path / "a", prefix="x", overviews="nearest")
    theirs = eosr.to_cog(sharp, tmp_path / "b", prefix="x", overviews="nearest")
    assert [p.name for p in ours] == [p.name for p in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.suffix != ".tif" or a.read_bytes() == b.read_bytes()


def test_asking_for_the_accessor_computes_nothing():
    scene = synthetic_scene(20, 20, level="L2A", chunks=60)
    with nothing_computed():
        assert vars(scene.s2sr) == {"_given": scene}
        scene.s2sr.degrade(2)
