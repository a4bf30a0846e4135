"""`eosr demo` on the real sample scene, without the weights to be quick; and its parts on small inputs."""

import json
import warnings

import numpy as np
import pytest
import rasterio

import eosr
from eosr.cli import main
from eosr.cli.demo import DEMO_WINDOW, PICTURE, aligned, consistency_rmse
from eosr.cube.bands import BANDS_20M
from eosr.errors import MissingExtraError
from eosr.open.sample import sample_folder
from eosr.train.data.scenes import SAMPLE_WINDOW, VALIDATION_BLOCK


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a demonstration that was run twice."""
    try:
        sample_folder()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", str(out), "--method", "bicubic", "--quiet"]) == 0
    return out


def test_the_window_is_large_enough_and_holds_the_block_and_the_picture():
    for inner, outer in ((VALIDATION_BLOCK, DEMO_WINDOW), (PICTURE, VALIDATION_BLOCK)):
        for a, b in zip(inner, outer, strict=True):
            assert b.start <= a.start < a.stop <= b.stop
    rows, columns = DEMO_WINDOW
    assert min(rows.stop - rows.start, columns.stop - columns.start) * 10 >= 10_000
    assert all(edge % 36 == 0 for edge in (rows.start, rows.stop, columns.start, columns.stop))


def test_the_demo_writes_all_bands_at_10_m_as_zarr_cogs_and_an_item(made):
    ds = eosr.open_stac(next((made / "sharpened").glob("*_eosr.json")))
    assert dict(ds.sizes) == {"time": 1, "y10": 1080, "x10": 1296}
    assert len(ds.data_vars) == 12
    west, _, _, north = SAMPLE_WINDOW
    assert (float(ds.x10[0]), float(ds.y10[0])) == (west + 5, north - 3605)
    assert len(list((made / "sharpened").glob("*_10m.tif"))) == 12
    assert (made / "sharpened" / "sharpened.zarr" / "zarr.json").is_file()


def test_the_items_of_the_demo_claim_no_day(made):
    facts = json.loads(next((made / "sharpened").glob("*_eosr.json")).read_text())["properties"]
    assert facts["datetime"] is None
    assert facts["start_datetime"] < facts["end_datetime"]


def test_the_scores_are_those_of_the_block_alone(made):
    """A second way: degrade, interpolate and compare by hand, over the block without the border of the window."""
    printed = json.loads((made / "scores.json").read_text())
    wanted = {"scene": "all", "band": "B12", "metric": "rmse", "projection": "before", "average": "mean"}
    (score,) = [row["value"] for row in printed["rows"] if {key: row[key] for key in wanted} == wanted]
    ds = eosr.open_stac(made / "catalogue" / "catalog.json", bands=["B02", *BANDS_20M])
    rows, columns = DEMO_WINDOW
    inner = {"y20": slice(rows.start // 2, rows.stop // 2), "x20": slice(columns.start // 2, columns.stop // 2)}
    ds = ds.isel({"y10": rows, "x10": columns, **inner})
    sharp = eosr.superresolve(eosr.degrade(ds, 2), method="bicubic", bands=["B12"], dtype="float32").B12.values[0]
    block = slice((VALIDATION_BLOCK[0].start - rows.start) // 2, (VALIDATION_BLOCK[0].stop - rows.start) // 2)
    error = (sharp - ds.B12.values[0].astype(float))[block, 4:-4]
    assert score == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)


def test_the_table_has_every_score_of_every_band(made):
    lines = [line for line in (made / "scores.md").read_text().splitlines() if line.startswith("|")]
    for word in ("RMSE", "SRE", "SAM", "ERGAS", "SSIM", "PSNR", "bPSNR", "consistency"):
        assert word in lines[0]
    bands = [line.split("|")[1].strip() for line in lines[2:]]
    assert bands == ["B05", "B06", "B07", "B8A", "B11", "B12", "all 20 m", "B01", "B09", "all 60 m"]
    assert "image that was trained on, another part of it" in (made / "scores.md").read_text()


def test_the_picture_is_a_png_with_four_different_panels(made):
    with warnings.catch_warnings(action="ignore"), rasterio.open(made / "before-after.png") as file:  # no georeference
        image = file.read()[:3].astype(int)
    height, width = image.shape[1:]
    panels = [
        image[:, top : top + height // 3, left : left + width // 3]
        for top in (height // 12, height * 7 // 12)
        for left in (width // 12, width * 7 // 12)
    ]
    for i, panel in enumerate(panels):
        assert panel.std() > 10
        assert all(np.abs(panel - other).mean() > 1 for other in panels[i + 1 :])


def test_the_demo_runs_again_in_the_same_folder(made, capsys):
    assert main(["demo", str(made), "--method", "bicubic", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert [line[:3] for line in told.splitlines()[:5]] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    for name in ("catalog.json", "sharpened.zarr", "12 files", "_eosr.json", "scores.md", "before-after.png"):
        assert name in told.split("Everything is in ")[1]


def test_consistency_is_zero_for_what_was_made_by_repetition_and_the_shift_for_what_was_shifted(written, tmp_path):
    (tmp_path / "item.json").write_text(json.dumps(written.item()))
    ds = eosr.open_stac(tmp_path / "item.json").load()
    flat = ds.copy()
    for band in ("B05", "B01"):
        flat[band] = ds[band].copy(data=np.full_like(ds[band].values, 700))
    sharp = eosr.superresolve(flat, method="bicubic", bands=["B01", "B05"], dtype="float32")
    assert consistency_rmse(sharp, flat) == pytest.approx({"B05": 0, "B01": 0}, abs=1e-3)
    assert consistency_rmse(sharp + 5, flat) == pytest.approx({"B05": 5, "B01": 5}, abs=1e-3)


def test_aligned_keeps_text_and_cells():
    table = "| a | b |\n|---|---:|\n| x | 10.5 |\n| long |  |\n\nbelow\n"
    assert aligned(table) == "| a    |    b |\n|------|-----:|\n| x    | 10.5 |\n| long |      |\n\nbelow\n"
