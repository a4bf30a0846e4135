"""Scores counted block by block, for tiles of any size: the same numbers as scores of whole arrays."""

import importlib
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from eosr.errors import GridError, MetricError
from eosr.metrics.windows import ssim_of_arrays
from eosr.score.evaluation import evaluate
from eosr.testing import chunked, synthetic_scene

EVALUATE = importlib.import_module("eosr.score.evaluation")
WINDOWS = importlib.import_module("eosr.score.blocks")
BLOCKS = importlib.import_module("eosr.score.blocks")
GAPS = {
    "B05": [(slice(20, 31), slice(40, 44))],
    "B11": [(slice(0, 3), slice(70, 90))],
    "B02": [(slice(8, 9), slice(9, 12))],
}


@pytest.fixture
def scene():
    return synthetic_scene(36, 40, gaps=GAPS, level="L2A", radiometric_offset=-1000)


def both_ways(monkeypatch, scene, **how):
    """The table of whole arrays, and that of windows of 60 x 60 pixels and more in blocks of 32 pixels and more."""
    whole = evaluate(scene, "detail_injection", bands=["B05", "B11"], **how)
    monkeypatch.setattr(EVALUATE, "IN_MEMORY", 0)
    monkeypatch.setattr(BLOCKS, "_LEAST", 32)
    monkeypatch.setattr(WINDOWS, "LEAST", (60, 60))
    blocks = evaluate(chunked(scene, 60), "detail_injection", bands=["B05", "B11"], **how)
    return whole, blocks


@pytest.mark.parametrize("kind", ["synthesis", "consistency"])
@pytest.mark.parametrize("convention", ["eosr", pytest.param("zhang2020", marks=pytest.mark.long)])
def test_blocks_give_the_scores_of_whole_arrays(monkeypatch, scene, kind, convention):
    mask = xr.ones_like(scene["B02"], dtype=bool)
    mask[100:130, 50:57] = False
    whole, blocks = both_ways(monkeypatch, scene, property=kind, convention=convention, mask=mask)
    for name in ("score", "score_overall", "summary", "summary_overall"):
        # Chunks change a pixel by float32 rounding only; after the projection consistency is that rounding itself.
        stage = {"projection": ["before"]} if kind == "consistency" else {}
        xr.testing.assert_allclose(blocks[name].loc[stage], whole[name].loc[stage], rtol=2e-5, atol=2e-5)
    assert float(blocks.seconds.sum()) > 0


def test_every_window_across_a_seam_is_counted_once():
    rng = np.random.default_rng(3)
    before, after, reference = rng.uniform(1, 5000, (3, 2, 61, 54))
    before[0, 30, 20] = np.nan
    reference[1, 22:25, 17] = np.nan
    counts = np.ones((1, 61, 54), bool)
    counts[0, 40:43, 5:30] = False

    def summed(rows, columns):
        cut = [
            [tuple(a[:, r, c] for a in (before, after, reference, counts)) for c in columns] for r in rows
        ]  # fmt: skip
        grid = [[BLOCKS.count_block(*arrays, data_range=1e4).item() for arrays in row] for row in cut]
        parts = [BLOCKS.count_row(row, 1e4) for row in grid]
        parts += [BLOCKS.count_seam(*two, 1e4) for two in pairwise(grid)]
        return BLOCKS.add_blocks(parts)

    whole = summed([slice(None)], [slice(None)])
    parts = summed([slice(0, 23), slice(23, 33), slice(33, 61)], [slice(0, 17), slice(17, 40), slice(40, 54)])
    assert set(parts) == set(whole)
    for key, value in whole.items():
        np.testing.assert_allclose(parts[key], value, rtol=1e-12, err_msg=key)
    # Of the second stage's first band nothing is missing but what is masked.
    there = ssim_of_arrays(*(np.where(counts, a[:1], np.nan) for a in (after, reference)), 1e4)
    assert whole["windows"][1, 0] == np.isfinite(there).sum() > 1000


def test_every_pixel_is_counted_once(monkeypatch, scene):
    whole, blocks = both_ways(monkeypatch, scene, border=0)
    counted = {"metric": "coverage", "projection": "before", "method": "bicubic"}
    np.testing.assert_array_equal(blocks.score.loc[counted], whole.score.loc[counted])


def test_blocks_refuse_what_whole_arrays_refuse(monkeypatch, scene):
    monkeypatch.setattr(EVALUATE, "IN_MEMORY", 0)
    with pytest.raises(GridError, match=r"nothing is left of 108 pixels along 'y20' once 60 are cut"):
        evaluate(scene, "bicubic", bands=["B05"], border=60)
    moved = (scene["B02"] > 0).assign_coords(x10=scene.x10 + 10)
    with pytest.raises(MetricError, match=r"the 'x10' coordinates of mask and synthetic differ, by up to 10"):
        evaluate(scene, "bicubic", bands=["B05"], mask=moved)
    with pytest.raises(MetricError, match="no pixel is left to score bicubic in band B05"):
        evaluate(scene, "bicubic", bands=["B05"], mask=xr.zeros_like(scene["B02"], dtype=bool))
