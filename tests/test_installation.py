"""An editable installation of a clone, as `make` makes it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_folder_above_a_clone_named_eosr_does_not_hide_the_package(tmp_path):
    """There ``import eosr`` sees the clone first: a folder without __init__.py, behind any package on sys.path."""
    pytest.importorskip("setuptools", minversion="77")
    clone = tmp_path / "projects" / "eosr"
    clone.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    (clone / "eosr").mkdir()
    shutil.copy(ROOT / "eosr" / "_version.py", clone / "eosr")
    for path in ROOT.glob("eosr/**/__init__.py"):
        copy = clone / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("def open_stac(): ...\n")
    build = "from setuptools import build_meta; import sys; build_meta.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=clone, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("eosr-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    told = "import site, sys; site.addsitedir(sys.argv[1]); import eosr; eosr.open_stac; print(eosr.__file__)"
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    for folder in (clone.parent, clone, tmp_path):
        # -S: without the site-packages of this environment, which hold another eosr.
        run = subprocess.run(
            [sys.executable, "-S", "-c", told, str(tmp_path / "site")],
            cwd=folder, env=clean, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (run.stdout.strip(), run.stderr) == (str(clone / "eosr" / "__init__.py"), "")
