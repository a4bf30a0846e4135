"""Windows of a scene: each holds, and starts at, what makes its pixels those of the whole scene."""

import importlib

import numpy as np
import pytest

from eosr.metrics.conventions import EOSR_CONVENTION
from eosr.score.evaluation import evaluate
from eosr.score.protocol import Ask, Protocol, in_memory, make_work
from eosr.sharpen.methods import Choice
from eosr.testing import chunked, random_weights, synthetic_scene

EVALUATE = importlib.import_module("eosr.score.evaluation")
WINDOWS = importlib.import_module("eosr.score.blocks")


@pytest.mark.parametrize("kind", ["synthesis", "consistency"])
def test_networks_with_attention_see_whole_60_m_pixels_where_no_band_has_them(monkeypatch, tmp_path, kind):
    # Their blocks are aligned to the 60 m grid: windows that started between its pixels changed the answer.
    scene = synthetic_scene(50, 20, level="L2A").drop_vars(["B01", "B09", "y60", "x60"])
    weights = random_weights(tmp_path / "s2x.safetensors", kind="study", features=8)
    ask = Ask(
        ds=chunked(scene, 60), groups={20: ["B05", "B11"]}, choice=Choice(weights=weights),
        protocol=Protocol(property=kind, degradation="study", border=None, convention=EOSR_CONVENTION),
    )  # fmt: skip
    whole = in_memory(make_work(ask)).pairs[20]
    monkeypatch.setattr(WINDOWS, "LEAST", (60, 60))
    rows = [[in_memory(window).pairs[20] for window in row] for row in WINDOWS.make_windows(ask)]
    assert len(rows) > 2
    for stage in ("before", "after"):
        for band in ("B05", "B11"):
            put = np.block([[getattr(pairs, stage)[band].values for pairs in row] for row in rows])
            np.testing.assert_allclose(put, getattr(whole, stage)[band].values, atol=0.01)  # DN


def test_bands_in_chunks_of_their_own_are_cut_into_windows_too(monkeypatch):
    scene = chunked(synthetic_scene(30, 30, level="L2A"), 60)
    scene["B03"] = scene["B03"].chunk({"y10": 120, "x10": 60})
    whole = evaluate(scene, "bicubic", bands=["B05"])
    monkeypatch.setattr(EVALUATE, "IN_MEMORY", 0)
    monkeypatch.setattr(WINDOWS, "LEAST", (60, 60))
    windows = evaluate(scene, "bicubic", bands=["B05"])
    np.testing.assert_allclose(windows.score, whole.score, rtol=1e-6)
