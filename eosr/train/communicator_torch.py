"""The communicator that torch itself brings: Gloo between CPUs, NCCL between cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from eosr.train.communicator import by_kind, lost
from eosr.train.rendezvous import Place, address_of

_T = TypeVar("_T")


class TorchDistributed:
    """Ranks that meet at MASTER_ADDR, or under srun at rank 0's host."""

    def __init__(self, place: Place, timeout: float) -> None:
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank
        self._timeout = timeout
        cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
        # Texts and CPU tensors go by Gloo whatever else there is.
        backend = "cpu:gloo,cuda:nccl" if place.local_rank < cards and distributed.is_nccl_available() else "gloo"
        self.name = f"torch.distributed ({'NCCL' if 'nccl' in backend else 'Gloo'})"
        # torchrun tells torch by variables; srun does not.
        meeting = f"tcp://{address_of(place.host)}:{place.port}" if place.launcher == "srun" else None
        self._lost(
            lambda: distributed.init_process_group(
                backend, init_method=meeting,
                rank=place.rank, world_size=place.size, timeout=timedelta(seconds=timeout),
            )
        )  # fmt: skip

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""

        def mean(flat: Tensor) -> Tensor:
            distributed.all_reduce(flat)
            return flat.div_(self.size)

        self._lost(lambda: by_kind(tensors, mean))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""

        def of_chief(flat: Tensor) -> Tensor:
            distributed.broadcast(flat, 0)
            return flat

        self._lost(lambda: by_kind(tensors, of_chief))

    def gather(self, value: str) -> list[str]:
        """See `Communicator`."""
        texts: list[str] = [""] * self.size
        self._lost(lambda: distributed.all_gather_object(texts, value))
        return texts

    def barrier(self) -> None:
        """See `Communicator`."""
        self.gather("")

    def close(self) -> None:
        """See `Communicator`."""
        if distributed.is_initialized():
            self.barrier()  # nobody leaves while another still listens to it
            distributed.destroy_process_group()

    def _lost(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except RuntimeError as error:  # Gloo's errors, time-outs and DistBackendError alike
            raise lost(error, self._timeout) from error
