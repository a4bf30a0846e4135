"""A Dataset that does not say what its numbers are is refused at every door, with a line that helps."""

import re

import numpy as np
import pytest
import xarray as xr

import eosr
from eosr.errors import RadiometryError
from eosr.testing import synthetic_scene
from eosr.write import deliver

TIMES = np.array(["2023-06-01T10:20"], "datetime64[ns]")
DOORS = {
    "superresolve": lambda ds, folder: eosr.superresolve(ds, method="bicubic"),
    "evaluate": lambda ds, folder: eosr.evaluate(ds, "bicubic", bands=["B05"], border=0),
    "adapt": lambda ds, folder: eosr.adapt(ds, out=folder),
    "to_zarr": lambda ds, folder: eosr.to_zarr(ds, folder / "scene.zarr"),
    "to_cog": lambda ds, folder: eosr.to_cog(ds, folder),
    "to_stac_item": lambda ds, folder: eosr.to_stac_item(ds, [folder / "B02.tif"]),
    "deliver": lambda ds, folder: deliver(ds, folder),
}


def scene(size=12, **attrs):
    said = {"radiometric_offset": -1000, "item_ids": ["S2A_x"]} | attrs
    return synthetic_scene(size, size, level="L2A", times=TIMES, **said)


def rebuilt(ds):
    """What many notebooks do, and what loses the attributes."""
    return xr.Dataset({name: ds[name] for name in ds.data_vars})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("lost", ["everything", "level", "radiometric_offset"])
def test_a_dataset_that_lost_its_attributes_is_refused_with_the_line_that_brings_them_back(door, lost, tmp_path):
    opened = scene()
    bare = rebuilt(opened) if lost == "everything" else opened.copy()
    bare.attrs.pop(lost, None)
    names = ["level", "radiometric_offset"] if lost == "everything" else [lost]
    with pytest.raises(RadiometryError, match=f"no attribute {' and no attribute '.join(names)};") as refusal:
        DOORS[door](bare, tmp_path)
    assert list(tmp_path.iterdir()) == []
    for line in (r"ds\.attrs = opened\.attrs", r"ds\.attrs \|= \{.*?\}"):
        mended = bare.copy()
        exec(re.search(line, str(refusal.value))[0], {"ds": mended, "opened": opened})
        assert mended.attrs["radiometric_offset"] == -1000
        if door in ("superresolve", "to_zarr"):
            DOORS[door](mended, tmp_path / line[-4])


def test_reflectance_needs_no_offset_to_be_written(tmp_path):
    ds = eosr.to_reflectance(scene())
    del ds.attrs["radiometric_offset"]
    eosr.to_zarr(ds, tmp_path / "reflectance.zarr")


@pytest.mark.parametrize("wrong", ["-1000 DN", None, float("nan"), True, -0.1])
def test_an_offset_that_is_no_whole_number_is_refused(wrong):
    with pytest.raises(RadiometryError, match=r"radiometric_offset"):
        eosr.superresolve(scene(radiometric_offset=-1000).assign_attrs(radiometric_offset=wrong), method="bicubic")


def test_a_list_of_one_offset_is_that_offset(tmp_path):
    one = scene()
    listed = one.assign_attrs(radiometric_offset=[-1000], platform=["sentinel-2a"])
    assert eosr.to_reflectance(listed).equals(eosr.to_reflectance(one))
    sharp = eosr.superresolve(listed, method="bicubic")
    assert sharp.attrs["radiometric_offset"] == -1000
    cogs = eosr.to_cog(listed.drop_attrs(deep=False).assign_attrs(listed.attrs), tmp_path)
    assert eosr.to_stac_item(listed, cogs).properties["eosr:provenance"]["radiometric_offset"] == -1000


def test_a_time_that_nobody_recorded_has_no_offset():
    """`xr.concat` keeps the attributes of the first: its offset is not that of the second."""
    first = scene()
    later = synthetic_scene(12, 12, level="L2A", times=TIMES + np.timedelta64(9, "D"), radiometric_offset=0)
    both = xr.concat([first, later], "time", combine_attrs="override")
    with pytest.raises(RadiometryError, match=r"2023-06-10T10:20:00.000000 is not among .* del ds.attrs\['times'\]"):
        eosr.to_reflectance(both)
    alike = both.copy()
    del alike.attrs["times"]
    assert eosr.to_reflectance(alike).sizes["time"] == 2
