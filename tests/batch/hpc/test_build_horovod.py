"""The script that builds Horovod says what is missing, asks the index for one exact archive, and builds once."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "hpc" / "build_horovod.sh"
#: A Python that has a torch, writes down what it is asked of pip, and has no network.
PYTHON = """#!/bin/sh
case "$*" in
  *torch.__version__*) echo ${TORCH-2.13.0+cpu} ; test -n "${TORCH-2.13.0+cpu}" ;;
  *cp%d%d*) echo cp311 ;;
  *sysconfig*) echo "${INCLUDE-$(dirname "$0")}" ;;
  *"pip "*) echo "$*" >>"$(dirname "$0")/asked" ; case "$*" in *" download "*) exit 1 ;; esac ;;
esac
"""


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "python"
    path.write_text(PYTHON)
    path.chmod(0o755)
    (tmp_path / "Python.h").touch()
    return path


def build(python, **variables):
    environ = os.environ | {"PYTHON": str(python), "EOSR_CACHE": str(python.parent / "cache"), "CXX": "true"}
    return subprocess.run(["bash", SCRIPT], env=environ | variables, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"TORCH": ""}, "has no torch. Install eosr first: pip install -c constraints.txt -e ."),
        ({"CXX": "no-such-compiler"}, "there is no C++ compiler. On Debian: apt-get install g++"),
        ({"INCLUDE": "/nowhere"}, "has no Python.h. On Debian: apt-get install python3-dev"),
        ({"EOSR_CACHE": "/dev/null"}, "cannot be made. Give another folder with EOSR_CACHE."),
        ({}, "the source of Horovod 0.28.1 cannot be had from the package index (network, or checksum)."),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(python, variables, said):
    done = build(python, **variables)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("build_horovod: ")
    assert said in done.stderr.splitlines()[-1]


def test_the_archive_is_fetched_by_its_checksum_and_a_wheel_in_the_cache_is_not_built_again(python):
    build(python)
    asked = (python.parent / "asked").read_text()
    assert "--require-hashes" in next(line for line in asked.splitlines() if " download " in line)
    (store,) = (python.parent / "cache" / "horovod").iterdir()
    assert "0.28.1-torch2.13.0+cpu-cp311-gloo" in store.name
    wheel = store / "horovod-0.28.1-cp311-cp311-linux_x86_64.whl"
    wheel.touch()
    (python.parent / "asked").unlink()
    done = build(python)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, str(wheel)), done.stderr
    asked = (python.parent / "asked").read_text()
    assert " download " not in asked
    assert f"--no-index {wheel}" in asked
    # Another torch is another wheel.
    assert build(python, TORCH="2.14.0").returncode == 1
    assert len(list(store.parent.iterdir())) == 2
