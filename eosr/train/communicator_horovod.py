"""The communicator by Horovod: the one file that knows it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import horovod
import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from eosr.errors import RankLostError
from eosr.train.communicator import by_kind, lost
from eosr.train.rendezvous import Place, address_of

_T = TypeVar("_T")


class Horovod:
    """Ranks of horovodrun and mpirun; under srun and torchrun rank 0 serves Horovod's own rendezvous first."""

    def __init__(self, place: Place, timeout: float) -> None:
        # A rank that does not come is named after a while, and the job ended; Horovod alone would warn for ever.
        os.environ.setdefault("HOROVOD_STALL_CHECK_TIME_SECONDS", str(max(1, int(timeout / 2))))
        os.environ.setdefault("HOROVOD_STALL_SHUTDOWN_TIME_SECONDS", str(max(2, int(timeout))))
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", str(max(2, int(timeout))))
        self._server: Any = None
        if place.launcher in ("srun", "torchrun"):
            self._server = _meet(place, timeout)
        self._timeout = timeout
        self._lost(hvd.init)
        self.rank, self.size, self.local_rank = hvd.rank(), hvd.size(), hvd.local_rank()
        how = "NCCL" if hvd.nccl_built() else "MPI" if hvd.mpi_enabled() else "Gloo"
        self._on_card = bool(hvd.nccl_built())
        self.name = f"Horovod {horovod.__version__} ({how})"

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""

        def mean(flat: Tensor) -> Tensor:
            here = flat if self._on_card else flat.cpu()  # a build without NCCL moves memory of the host only
            return hvd.allreduce(here, op=hvd.Average, name="eosr.average").to(flat.device)

        self._lost(lambda: by_kind(tensors, mean))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""

        def of_chief(flat: Tensor) -> Tensor:
            here = flat if self._on_card else flat.cpu()
            return hvd.broadcast(here, 0, name="eosr.broadcast").to(flat.device)

        self._lost(lambda: by_kind(tensors, of_chief))

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

    def _lost(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (HorovodInternalError, RuntimeError) as error:
            raise lost(error, self._timeout) from error


def _meet(place: Place, timeout: float) -> Any:
    """Serve (rank 0) or find Horovod's rendezvous, and tell Horovod what horovodrun would have told it.

    torchrun's own port is taken, so the next one is used.
    """
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    address, port = address_of(place.host), place.port + (1 if place.launcher == "torchrun" else 0)
    server = None
    if place.rank == 0:
        RendezvousHTTPServer.allow_reuse_address = True
        server = RendezvousHTTPServer(("", port), RendezvousHandler, 0)
        server.daemon_threads = True
        server.init([])
        # How many of each scope will say that they are done; horovodrun derives it from its list of slots.
        server.scope_size["global"] = place.size
        for local in range(max(place.per_host)):
            server.scope_size[f"cross_{local}"] = sum(count > local for count in place.per_host)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        _wait_for(address, port, timeout)
    os.environ.update(
        HOROVOD_CONTROLLER="gloo", HOROVOD_CPU_OPERATIONS="gloo", HOROVOD_GLOO_RENDEZVOUS_ADDR=address,
        HOROVOD_GLOO_RENDEZVOUS_PORT=str(port),
        HOROVOD_HOSTNAME=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        HOROVOD_RANK=str(place.rank), HOROVOD_SIZE=str(place.size), HOROVOD_LOCAL_RANK=str(place.local_rank),
        HOROVOD_LOCAL_SIZE=str(place.local_size), HOROVOD_CROSS_RANK=str(place.cross_rank),
        HOROVOD_CROSS_SIZE=str(place.cross_size),
    )  # fmt: skip
    return server


def _wait_for(address: str, port: int, timeout: float) -> None:
    """Wait until rank 0 listens: Horovod's client gives up at the first refused connection."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((address, port), 2).close()
        except OSError:
            if time.monotonic() > end:
                raise RankLostError(
                    f"rank 0 does not listen at {address}:{port} after {timeout:.0f} s. Look at what it said; another "
                    "port can be given with EOSR_MASTER_PORT."
                ) from None
            time.sleep(0.1)
        else:
            return
