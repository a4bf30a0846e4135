"""The communicator by Horovod: the one file that knows it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import horovod
import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]  # public, but not in torch's __all__

from eosr.errors import SharedError
from eosr.train.ranks.communicator import by_kind, lost
from eosr.train.ranks.rendezvous import Place, address_of, meet

_T = TypeVar("_T")


class Horovod:
    """Ranks of horovodrun and mpirun; under srun and torchrun rank 0 serves Horovod's own rendezvous first."""

    def __init__(self, place: Place, timeout: float) -> None:
        # A rank that does not come is named after a while, and the job ended; Horovod alone would warn for ever.
        os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(max(1, int(timeout / 2))))
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", str(max(2, int(timeout))))
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(max(2, int(timeout))))
        if place.launcher == "mpirun" and not hvd.mpi_built():
            raise _without_mpi(place)
        if not place.per_host:
            raise SharedError(
                "Horovod under torchrun needs the same number of ranks on every host. Give every torchrun the same "
                "--nproc-per-node, or eosr-train --communicator torch."
            )
        self._server: Any = None
        self._store: Store | None = None
        if place.launcher in ("srun", "torchrun"):
            self._store = meet(place, timeout)
            self._server = _serve(place, self._store)
        self._timeout = timeout
        try:
            self._lost(hvd.init)
        except ValueError as error:  # "Horovod initialization failed"
            raise lost(error, timeout) from error
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        if self.size != place.size:
            raise _without_mpi(place)
        how = "NCCL" if hvd.nccl_built() else "MPI" if hvd.mpi_enabled() else "Gloo"
        self._on_card = bool(hvd.nccl_built())
        self.name = f"Horovod {horovod.__version__} ({how})"

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""
        self._by_kind(tensors, lambda flat: hvd.allreduce(flat, op=hvd.Average, name="eosr.average"))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""
        self._by_kind(tensors, lambda flat: hvd.broadcast(flat, 0, name="eosr.broadcast"))

    def gather(self, value: str) -> list[str]:
        """See `Communicator`."""
        return list(self._lost(lambda: hvd.allgather_object(value, name="eosr.gather")))

    def barrier(self) -> None:
        """See `Communicator`."""
        self._lost(hvd.barrier)

    def close(self) -> None:
        """See `Communicator`."""
        self.barrier()  # nobody leaves while another still listens to it
        hvd.shutdown()
        if self._server is not None:
            self._server.shutdown()

    def _by_kind(self, tensors: Sequence[Tensor], work: Callable[[Tensor], Tensor]) -> None:
        # A build without NCCL moves memory of the host only.
        by_kind(tensors, lambda flat: self._lost(lambda: work(flat)), on_card=self._on_card)

    def _lost(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (HorovodInternalError, RuntimeError) as error:
            raise lost(error, self._timeout) from error


def _without_mpi(place: Place) -> SharedError:
    # Each process would go on as if it were the only one, and all write to one folder.
    return SharedError(
        f"{place.launcher} started {place.size} processes, which this build of Horovod cannot join: it has no MPI, or "
        "another one. Build it with HOROVOD_MPI=1 hpc/build_horovod.sh, or start the ranks with horovodrun, torchrun "
        "or srun."
    )


def _serve(place: Place, store: Store) -> Any:
    """Serve Horovod's rendezvous on rank 0, and tell Horovod on every rank what horovodrun would have told it.

    Returns the server on rank 0, else None.
    """
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server = None
    if place.rank == 0:
        server = RendezvousHTTPServer(("", 0), RendezvousHandler, 0)
        server.daemon_threads = True
        server.init([])
        # How many of each scope will say that they are done; horovodrun derives it from its list of slots.
        server.scope_size["global"] = place.size
        for local in range(max(place.per_host)):
            server.scope_size[f"cross_{local}"] = sum(count > local for count in place.per_host)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store.set("horovod", str(server.server_address[1]))
    os.environ.update(
        HOROVOD_CONTROLLER="gloo", HOROVOD_CPU_OPERATIONS="gloo",
        HOROVOD_GLOO_RENDEZVOUS_ADDR=address_of(place.host),
        HOROVOD_GLOO_RENDEZVOUS_PORT=store.get("horovod").decode(),
        HOROVOD_HOSTNAME=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        HOROVOD_RANK=str(place.rank), HOROVOD_SIZE=str(place.size), HOROVOD_LOCAL_RANK=str(place.local_rank),
        HOROVOD_LOCAL_SIZE=str(place.local_size), HOROVOD_CROSS_RANK=str(place.cross_rank),
        HOROVOD_CROSS_SIZE=str(place.cross_size),
    )  # fmt: skip
    return server
