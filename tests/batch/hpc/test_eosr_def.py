"""The recipe of the image: what can be checked without Apptainer. Nothing here builds the image."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RECIPE = (ROOT / "hpc" / "eosr.def").read_text()


def section(name):
    """Lines of a section without comments."""
    (text,) = re.findall(rf"^%{name}\n(.*?)(?=^%|\Z)", RECIPE, re.MULTILINE | re.DOTALL)
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def copied(folder):
    """What the recipe copies, at its places below a folder. Apptainer takes one source and one place per line."""
    for line in section("files"):
        source, place = line.split()
        target = folder / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, target)
    return folder / "opt" / "eosr"


@pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools is not installed")
def test_eosr_can_be_built_from_what_the_recipe_copies(tmp_path):
    place = copied(tmp_path / "image")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    words = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path), str(place)]
    done = subprocess.run([*pip, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("eosr-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "eosr/cli/train.py" in names
    assert any(name.startswith("eosr/nn/shipped/") and name.endswith(".safetensors") for name in names)


def test_what_the_recipe_runs_is_there(tmp_path):
    place = copied(tmp_path)
    commands = section("post")
    assert "{{ torch_options }}" in "\n".join(commands)
    assert [line.partition("=")[0] for line in section("arguments")] == ["torch_options"]
    assert (place / "hpc" / "build_horovod.sh").stat().st_mode & 0o100
    pins = [line for line in (place / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
    assert len(pins) == 1
    for name in ("post", "test", "environment", "runscript"):
        done = subprocess.run(["sh", "-n"], input="\n".join(section(name)), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
