"""Start real ranks in tests."""

import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.patience import PATIENCE

RANKS = Path(__file__).with_name("ranks.py")
NO_HOROVOD = "Horovod is not installed here: make horovod"
needs_horovod = pytest.mark.skipif(find_spec("horovod") is None, reason=NO_HOROVOD)
#: Launcher and communicator of two ranks.
TWO_RANKS = [
    pytest.param("torchrun", "auto", id="torchrun"),
    pytest.param("horovodrun", "auto", id="horovodrun", marks=needs_horovod),
    pytest.param("torchrun", "horovod", id="horovod-under-torchrun", marks=needs_horovod),
]
#: The same, Horovod among the long tests: for what was tested of one communicator already.
LONG_BY_HOROVOD = [
    TWO_RANKS[0], pytest.param("horovodrun", "auto", id="horovodrun", marks=[needs_horovod, pytest.mark.long])
]  # fmt: skip


def launch(launcher, communicator, *words, program=(str(RANKS),), **variables):
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
    environ = environ_of(communicator, **variables)
    command = [*front, *program, *map(str, words)]
    running = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        out, err = running.communicate()
        pytest.fail(f"two ranks of {launcher} hung for {PATIENCE} s:\n{out}\n{err}")
    return subprocess.CompletedProcess(command, running.returncode, out, err)


def environ_of(communicator, **variables):
    """This environment without what a launcher may have left in it."""
    environ = {
        key: value for key, value in os.environ.items() if not key.startswith(("HOROVOD_", "SLURM_", "PMI", "OMPI_"))
    }
    return environ | {"OMP_NUM_THREADS": "1", "COMMUNICATOR": communicator, "EOSR_RANK_TIMEOUT": "300"} | variables


def launch_by_hand(communicator, *words, wait_for, **variables):
    """Start two ranks without a launcher, which would kill the one that is left; return that one, ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, str(RANKS), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environ_of(communicator, **variables) | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        out, err = running[wait_for].communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.fail(f"rank {wait_for} hung for {PATIENCE} s")
    finally:
        for one in running:
            one.kill()
            one.communicate()
    return subprocess.CompletedProcess(words, running[wait_for].returncode, out, err)
