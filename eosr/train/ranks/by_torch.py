"""The communicator that torch itself brings: Gloo between CPUs, NCCL between cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

from eosr.train.ranks.communicator import by_kind, lost
from eosr.train.ranks.rendezvous import Place, meet, total

_T = TypeVar("_T")


class TorchDistributed:
    """Ranks of torchrun and srun."""

    def __init__(self, place: Place, timeout: float) -> None:
        self.rank, self.size, self.local_rank = place.rank, place.size, place.local_rank
        self._timeout = timeout
        self._store = meet(place, timeout)
        # NCCL only if every rank has a card of its own, by which device_of goes too; all must come to one answer.
        cards = torch.cuda.device_count() if torch.cuda.is_available() and distributed.is_nccl_available() else 0
        has_card = int(place.local_rank < cards)
        having = self._lost(lambda: total(self._store, "cards", has_card, size=place.size, timeout=timeout))
        self._on_card = having == place.size
        # Texts and CPU tensors go by Gloo whatever else there is.
        backend = "cpu:gloo,cuda:nccl" if self._on_card else "gloo"
        self.name = f"torch.distributed ({'NCCL' if self._on_card else 'Gloo'})"
        self._lost(
            lambda: distributed.init_process_group(
                backend, store=self._store, rank=place.rank, world_size=place.size, timeout=timedelta(seconds=timeout)
            )
        )

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""

        def mean(flat: Tensor) -> Tensor:
            self._lost(lambda: distributed.all_reduce(flat))
            return flat.div_(self.size)

        by_kind(tensors, mean, on_card=self._on_card)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""

        def of_chief(flat: Tensor) -> Tensor:
            self._lost(lambda: distributed.broadcast(flat, 0))
            return flat

        by_kind(tensors, of_chief, on_card=self._on_card)

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
