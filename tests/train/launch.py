"""Start real ranks in tests."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

RANKS = Path(__file__).with_name("ranks.py")
NO_HOROVOD = "Horovod is not installed here: make horovod"
needs_horovod = pytest.mark.skipif(find_spec("horovod") is None, reason=NO_HOROVOD)
#: Launcher and communicator of two ranks.
TWO_RANKS = [
    pytest.param("torchrun", "auto", id="torchrun"),
    pytest.param("horovodrun", "auto", id="horovodrun", marks=needs_horovod),
    pytest.param("torchrun", "horovod", id="horovod-under-torchrun", marks=needs_horovod),
]


def launch(launcher, communicator, *words, program=(str(RANKS),), timeout=120, **variables):
    """Run two ranks of a program; everything they started is gone afterwards."""
    python = sys.executable
    front = {
        "torchrun": [
            python,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--no-python",
            "--nproc-per-node=2",
            python,
        ],
        "horovodrun": [str(Path(python).with_name("horovodrun")), "-np", "2", python],
        "alone": [python],
    }[launcher]
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("HOROVOD_", "SLURM_", "PMI", "OMPI_"))
    }
    environ |= {"OMP_NUM_THREADS": "1", "COMMUNICATOR": communicator, "EOSR_RANK_TIMEOUT": "60"} | variables
    command = [*front, *program, *map(str, words)]
    running = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = running.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        out, err = running.communicate()
        pytest.fail(f"two ranks of {launcher} hung for {timeout} s:\n{out}\n{err}")
    return subprocess.CompletedProcess(command, running.returncode, out, err)
