"""Which process am I: the variables that horovodrun, mpirun, torchrun and srun set, read alike.

References
----------
[1] Slurm, "srun", section OUTPUT ENVIRONMENT VARIABLES.
[2] PyTorch, "torchrun (Elastic Launch)", section Environment Variables.
"""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from eosr.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a process stands among those of its run."""

    #: Who started it: ``horovodrun``, ``mpirun``, ``torchrun``, ``srun``, or ``none``.
    launcher: str
    rank: int = 0
    size: int = 1
    #: Number among the processes of its host, and how many these are.
    local_rank: int = 0
    local_size: int = 1
    #: Number of its host among those that have a process of its local rank, and how many these are.
    cross_rank: int = 0
    cross_size: int = 1
    #: Host and port at which rank 0 can be met; empty where the launcher needs none.
    host: str = ""
    port: int = 0
    #: Processes of every host.
    per_host: tuple[int, ...] = (1,)


def find_place(environ: Mapping[str, str]) -> Place:
    """Read the variables of whichever launcher started this process.

    Raises
    ------
    TrainingError
        If a launcher's variables are there in part, or are no numbers.
    """
    try:
        if "HOROVOD_RANK" in environ:
            return Place(
                launcher="horovodrun", rank=int(environ["HOROVOD_RANK"]), size=int(environ["HOROVOD_SIZE"]),
                local_rank=int(environ["HOROVOD_LOCAL_RANK"]), local_size=int(environ["HOROVOD_LOCAL_SIZE"]),
            )  # fmt: skip
        if "OMPI_COMM_WORLD_RANK" in environ:
            return Place(
                launcher="mpirun", rank=int(environ["OMPI_COMM_WORLD_RANK"]),
                size=int(environ["OMPI_COMM_WORLD_SIZE"]), local_rank=int(environ["OMPI_COMM_WORLD_LOCAL_RANK"]),
                local_size=int(environ["OMPI_COMM_WORLD_LOCAL_SIZE"]),
            )  # fmt: skip
        if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= set(environ):
            return _torchrun(environ)
        # A shell of salloc, and the shell of a batch job, have SLURM_NTASKS too, but are one process and no task of a
        # step that srun started; SLURM_STEP_ID and SLURM_PROCID stand in both only together with SLURM_STEP_NUM_TASKS
        # where srun set them for each task.
        if {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"} <= set(environ):
            return _srun(environ)
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"the variables of the launcher contradict themselves ({type(error).__name__}: {error}). Start the ranks "
            "again with horovodrun, torchrun, srun or mpirun, or give --communicator alone for one process."
        ) from None
    return Place(launcher="none")


def _torchrun(environ: Mapping[str, str]) -> Place:
    size = int(environ["WORLD_SIZE"])
    local_size = int(environ.get("LOCAL_WORLD_SIZE", size))
    hosts = size // local_size
    return Place(
        launcher="torchrun", rank=int(environ["RANK"]), size=size, local_rank=int(environ["LOCAL_RANK"]),
        local_size=local_size, cross_rank=int(environ.get("GROUP_RANK", "0")), cross_size=hosts,
        host=environ.get("MASTER_ADDR", "127.0.0.1"), port=int(environ.get("MASTER_PORT", "29500")),
        per_host=(local_size,) * hosts,
    )  # fmt: skip


def _srun(environ: Mapping[str, str]) -> Place:
    size, local, node = (int(environ[key]) for key in ("SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID"))
    per_host = tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", str(size)))
    if sum(per_host) != size or not 0 <= node < len(per_host):
        raise ValueError(f"{size} tasks, but {per_host} on the hosts")
    # Hosts that have a process of this local rank.
    having = [number for number, count in enumerate(per_host) if count > local]
    # Ports from 20000 on, another for every job and step: two of them may share a host.
    seed = int(environ.get("SLURM_JOB_ID", "0")) * 31 + int(environ.get("SLURM_STEP_ID", "0"))
    return Place(
        launcher="srun", rank=int(environ["SLURM_PROCID"]), size=size, local_rank=local, local_size=per_host[node],
        cross_rank=having.index(node), cross_size=len(having), per_host=per_host,
        host=environ.get("EOSR_MASTER_ADDR") or _first_host(environ.get("SLURM_STEP_NODELIST", "localhost")),
        port=int(environ.get("EOSR_MASTER_PORT") or 20000 + seed % 20000),
    )  # fmt: skip


def tasks_per_node(text: str) -> tuple[int, ...]:
    """Tasks of every host from Slurm's shorthand.

    Examples
    --------
    >>> tasks_per_node("2(x3),1")
    (2, 2, 2, 1)
    """
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return tuple(itertools.chain.from_iterable([int(count)] * int(times or 1) for count, times in parts))


def _first_host(nodes: str) -> str:
    if "[" not in nodes and "," not in nodes:
        return nodes
    # Slurm's own tool: its lists nest and have ranges with leading zeros.
    shown = subprocess.run(["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True)
    return shown.stdout.split()[0]


def address_of(host: str) -> str:
    """Return the address of a host; that of this one where its own name is unknown to the network.

    Raises
    ------
    TrainingError
        If another host's name is unknown.
    """
    try:
        return socket.gethostbyname(host)
    except OSError:
        if host in (socket.gethostname(), socket.gethostname().split(".")[0]):
            return "127.0.0.1"
        raise TrainingError(
            f"the host of rank 0, {host!r}, has no address here. Give one with EOSR_MASTER_ADDR."
        ) from None
