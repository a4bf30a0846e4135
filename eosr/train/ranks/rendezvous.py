"""Which process am I, and where are the others: what horovodrun, mpirun, torchrun and srun tell, read alike.

References
----------
[1] Slurm, "srun", section OUTPUT ENVIRONMENT VARIABLES.
[2] PyTorch, "torchrun (Elastic Launch)", section Environment Variables.
[3] Open MPI, "Environment variables set for MPI applications"; those of MPICH as its ``mpiexec`` (5.0) sets them.
"""

from __future__ import annotations

import itertools
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from torch.distributed import (  # type: ignore[attr-defined]  # public, but not in torch's __all__
    DistNetworkError,
    DistStoreError,
    PrefixStore,
    Store,
    TCPStore,
)

from eosr.errors import RankLostError, TrainingError

#: Rank, size, local rank and local size, of Open MPI and of MPICH, Intel MPI and others that start by Hydra.
MPI: Final = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
#: Numbers of steps from here on are no steps of srun: 0xFFFFFFFA is the shell of an interactive allocation.
_SPECIAL_STEPS: Final = 0xFFFFFFF0


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
    #: Processes of every host; empty where the launcher does not tell.
    per_host: tuple[int, ...] = (1,)
    #: Whether the launcher itself serves torch's store there; else rank 0 does.
    served: bool = False
    #: How often the launcher has started the ranks again: each time they meet anew.
    attempt: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.size and 0 <= self.local_rank < self.local_size <= self.size):
            raise ValueError(f"rank {self.rank} of {self.size}, and on its host {self.local_rank} of {self.local_size}")


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
        # Before mpirun and srun, which often start one torchrun on each host.
        if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= set(environ):
            return _torchrun(environ)
        # Before srun, by which mpirun itself may start its ranks; srun alone sets PMI_RANK, but no number on the host.
        for names in MPI:
            if {names[0], names[2]} <= set(environ):
                rank, size, local, local_size = (int(environ[name]) for name in names)
                return Place(launcher="mpirun", rank=rank, size=size, local_rank=local, local_size=local_size)
        if _in_step(environ):
            return _srun(environ)
    except (KeyError, ValueError) as error:
        raise TrainingError(
            f"the variables of the launcher contradict themselves ({type(error).__name__}: {error}). Start the ranks "
            "again with horovodrun, torchrun, srun or mpirun, or give --communicator alone for one process."
        ) from None
    return Place(launcher="none")


def _in_step(environ: Mapping[str, str]) -> bool:
    """Whether this is a task that srun started.

    The shells of salloc and of a batch job have SLURM_NTASKS, and the latter SLURM_PROCID too, but are one process, and
    would wait for ever for tasks that nobody starts. SLURM_STEP_NUM_TASKS is there in tasks of a step only. Where
    salloc puts its shell into a step (``use_interactive_step``), that step's number is none that srun gives.
    """
    named = {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"} <= set(environ)
    return named and int(environ.get("SLURM_STEP_ID", "0")) < _SPECIAL_STEPS


def _torchrun(environ: Mapping[str, str]) -> Place:
    size = int(environ["WORLD_SIZE"])
    local_size = int(environ.get("LOCAL_WORLD_SIZE", size))
    hosts = int(environ.get("GROUP_WORLD_SIZE", max(1, size // max(1, local_size))))
    return Place(
        launcher="torchrun", rank=int(environ["RANK"]), size=size, local_rank=int(environ["LOCAL_RANK"]),
        local_size=local_size, cross_rank=int(environ.get("GROUP_RANK", "0")), cross_size=hosts,
        host=environ.get("MASTER_ADDR", "127.0.0.1"), port=int(environ.get("MASTER_PORT", "29500")),
        per_host=(local_size,) * hosts if hosts * local_size == size else (),
        served=environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        attempt=int(environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
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
        host=environ.get("EOSR_MASTER_ADDR") or first_host(environ.get("SLURM_STEP_NODELIST", "localhost")),
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


def first_host(nodes: str) -> str:
    """Return the first host of Slurm's shorthand; in a container there may be no scontrol that would tell it.

    Examples
    --------
    >>> first_host("jwb[0007-0010,0012],jwb0100")
    'jwb0007'
    """
    found = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if not found:
        raise ValueError(f"no host in {nodes!r}")
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0])


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


def meet(place: Place, timeout: float) -> Store:
    """Return a store that all ranks of torchrun or srun share, when all of them have come to it.

    It must be kept until all have taken leave: rank 0 may be the one that serves it.

    Raises
    ------
    RankLostError
        If some do not come within ``timeout`` seconds.
    TrainingError
        If rank 0 cannot listen at the port, or its host has no address.
    """
    address, serves = address_of(place.host), place.rank == 0 and not place.served
    if not serves:
        _wait_for(address, place, timeout)
    try:
        server = TCPStore(
            address, place.port, is_master=serves, timeout=timedelta(seconds=timeout), wait_for_workers=False
        )
        store = PrefixStore(f"eosr/{place.attempt}", server)
        total(store, "ranks", 1, size=place.size, timeout=timeout)
    except DistNetworkError as error:
        if not serves:
            raise _not_listening(address, place, timeout) from error
        option = "the variable EOSR_MASTER_PORT" if place.launcher == "srun" else "another MASTER_PORT"
        raise TrainingError(
            f"rank 0 cannot listen at port {place.port} of its host ({str(error).splitlines()[0][-60:]}). Give "
            f"another one by {option}."
        ) from error
    except DistStoreError as error:
        raise RankLostError(
            f"{store.add('ranks', 0)} of {place.size} ranks came to {place.host}:{place.port} within {timeout:.0f} s. "
            "Look at what the others said; EOSR_RANK_TIMEOUT is the number of seconds to wait for them."
        ) from error
    return store


def total(store: Store, name: str, mine: int, *, size: int, timeout: float) -> int:
    """Return the sum of what all ranks give, when all have given; DistStoreError if one does not."""
    store.add(name, mine)
    if store.add(f"{name}, told", 1) == size:
        store.set(f"{name}, complete", "")
    store.wait([f"{name}, complete"], timedelta(seconds=timeout))
    return int(store.add(name, 0))


def _wait_for(address: str, place: Place, timeout: float) -> None:
    """Wait until somebody listens there; torch's own client writes pages about every refused connection."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, place.port), min(2.0, timeout)).close()
        except OSError:
            if time.monotonic() > end:
                raise _not_listening(address, place, timeout) from None
            time.sleep(0.1)
        else:
            return


def _not_listening(address: str, place: Place, timeout: float) -> RankLostError:
    return RankLostError(
        f"rank 0 does not listen at {address}:{place.port} after {timeout:.0f} s. Look at what it said; under srun "
        "EOSR_MASTER_ADDR and EOSR_MASTER_PORT name another place."
    )
