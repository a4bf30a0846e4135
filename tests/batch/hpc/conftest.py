"""A real Slurm of one node, started for the tests that need it."""

import os
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")


@pytest.fixture(scope="session")
def slurm():
    """Environment in which sbatch finds the local Slurm."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if os.geteuid() != 0 or any(shutil.which(name, path=path) is None for name in PROGRAMS):
        pytest.skip(
            "no Slurm can be started: it takes root and the Debian packages slurmctld slurmd slurm-client "
            "slurm-wlm-basic-plugins munge"
        )
    script = Path(__file__).with_name("slurm_local.sh")
    # Not below pytest's folder, which only its user may enter: munge runs as another one.
    folder = Path("/tmp") / f"eosr-slurm-{os.getpid()}"
    # Nothing of another Slurm, or of the job that the tests may be part of.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_", "EOSR_"))}
    environ = clean | {"PATH": path, "PORT": str(_two_free_ports()), "SLURM_CONF": str(folder / "slurm.conf")}
    try:
        up = subprocess.run(["bash", script, "up", folder], env=environ, capture_output=True, text=True)
        assert up.returncode == 0, f"Slurm does not start:\n{up.stdout}{up.stderr}"
        yield environ
    finally:
        subprocess.run(["bash", script, "down", folder], env=environ, check=False, capture_output=True)


def _two_free_ports():
    """The first of two that nobody listens at: workers of pytest-xdist, and other people, have a Slurm each."""
    for first in range(16827 + 2 * (os.getpid() % 1000), 20000, 2):
        with ExitStack() as stack:
            try:
                for port in (first, first + 1):
                    stack.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return first
    pytest.fail("no two free ports in a row below 20000")
