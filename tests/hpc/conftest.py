"""A real Slurm of one node, started for the tests that need it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Environment in which sbatch finds the local Slurm."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip(
            "no Slurm can be started: it takes root and the Debian packages slurmctld slurmd slurm-client "
            "slurm-wlm-basic-plugins munge"
        )
    script = Path(__file__).with_name("slurm_local.sh")
    # Not below pytest's folder, which only its user may enter: munge runs as another one.
    folder = Path("/tmp") / f"eosr-slurm-{os.getpid()}"
    # Workers of pytest-xdist have a Slurm each.
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    port = str(16827 + 2 * worker)
    environ = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin", "CPUS": "4", "PORT": port}
    try:
        subprocess.run(["bash", script, "up", folder], env=environ, check=True, capture_output=True, text=True)
        yield environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        subprocess.run(["bash", script, "down", folder], env=environ, check=False, capture_output=True)
