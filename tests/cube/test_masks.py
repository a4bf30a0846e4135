"""A mask on the grid of a band: its values, its coordinates, and what cannot be put there."""

import dask
import numpy as np
import pytest
import xarray as xr

from eosr.cube.masks import mask_like
from eosr.errors import GridError, MetricError
from eosr.testing import never_compute, synthetic_scene


@pytest.fixture
def ds():
    scene = synthetic_scene(4, 6, times=["2023-06-01"])
    clouds = np.zeros(scene.B05.shape, bool)
    clouds[..., 4, 7] = True
    return scene.assign(cloud_mask=(scene.B05.dims, clouds))


def where(mask):
    return [tuple(map(int, place)) for place in np.argwhere(mask.squeeze(drop=True).values)]


def test_to_finer_pixels_every_pixel_gets_the_value_around_it(ds):
    fine = mask_like(ds.cloud_mask, ds.B02)
    assert (fine.dims, fine.shape, fine.dtype) == (ds.B02.dims, ds.B02.shape, bool)
    assert where(fine) == [(8, 14), (8, 15), (9, 14), (9, 15)]
    clear = ds.B02.where(~fine)
    assert clear.shape == ds.B02.shape, "no pixel is lost or paired with others"
    assert int(clear.isnull().sum()) == 4
    for name in ("y10", "x10", "spatial_ref10", "time"):
        assert fine[name].variable.identical(ds.B02[name].variable), name
    assert "spatial_ref20" not in fine.coords
    assert "y20" not in fine.coords


def test_to_coarser_pixels_one_is_true_where_any_part_is(ds):
    coarse = mask_like(ds.cloud_mask, ds.B01)
    assert (coarse.dims, coarse.shape) == (ds.B01.dims, ds.B01.shape)
    assert where(coarse) == [(1, 2)]
    assert ds.B01.where(~coarse).shape == ds.B01.shape
    assert where(mask_like(mask_like(ds.cloud_mask, ds.B01), ds.B05)) == [(y, x) for y in (3, 4, 5) for x in (6, 7, 8)]
    assert where(~mask_like(~coarse, ds.B02)) == [(y, x) for y in range(6, 12) for x in range(12, 18)]


def test_on_its_own_grid_it_stays(ds):
    xr.testing.assert_equal(mask_like(ds.cloud_mask, ds.B05).variable, ds.cloud_mask.variable)


def test_classes_keep_their_numbers_to_finer_pixels_and_have_none_for_coarser_ones(ds):
    classes = ds.cloud_mask.astype(np.uint8) * 9
    fine = mask_like(classes, ds.B02)
    assert (fine.dtype, fine.values.max(), int((fine == 9).sum())) == (np.uint8, 9, 4)
    with pytest.raises(GridError, match=r"a mask of uint8 cannot become coarser: .*ds\.SCL\.isin\(\[3, 8, 9, 10\]\)"):
        mask_like(classes, ds.B01)


@pytest.mark.parametrize("band", ["B02", "B05", "B01"])
def test_it_stays_lazy_and_does_not_depend_on_chunks(band, ds):
    lazy = ds.chunk({"y10": 12, "x10": 12, "y20": 6, "x20": 6, "y60": 2, "x60": 2})
    with dask.config.set(scheduler=never_compute):
        moved = mask_like(lazy.cloud_mask, lazy[band])
    assert moved.chunks == lazy[band].chunks
    xr.testing.assert_identical(moved.compute(), mask_like(ds.cloud_mask, ds[band]))


def test_windows_that_belong_together_are_moved_and_others_refused(ds):
    window = ds.isel(y10=slice(6, 18), y20=slice(3, 9))
    assert where(mask_like(window.cloud_mask, window.B02)) == [(2, 14), (2, 15), (3, 14), (3, 15)]
    with pytest.raises(GridError, match=r"do not lie on one ground: their centres along y differ by 60"):
        mask_like(ds.cloud_mask, window.B02)
    short = ds.cloud_mask.isel(x20=slice(0, 9))
    with pytest.raises(
        GridError, match=r"the mask has 9 pixels of 20 m along x, which do not cover the 36 of 10 m of B02"
    ):
        mask_like(short, ds.B02)
    with pytest.raises(
        GridError, match=r"the mask has 9 pixels of 20 m along x, which do not cover the 6 of 60 m of B01"
    ):
        mask_like(short, ds.B01)
    with pytest.raises(GridError, match=r"has dimensions \('y', 'x'\)"):
        mask_like(xr.DataArray(np.zeros((4, 4), bool), dims=("y", "x")), ds.B02)


def test_evaluate_says_how_a_mask_of_clouds_is_handed_over():
    ds = synthetic_scene(16, 16)
    clouds = ds.B05 > 1e9
    with pytest.raises(MetricError, match=r"mask=~eosr\.cube\.mask_like\(ds\.cloud_mask, ds\.B02\)"):
        ds.s2sr.evaluate("bicubic", bands=["B05"], border=0, mask=clouds)
    use = ~mask_like(clouds, ds.B02)
    assert ds.s2sr.evaluate("bicubic", bands=["B05"], border=0, mask=use, resamples=0)
