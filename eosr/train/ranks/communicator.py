"""What training needs from a cluster, and what one process answers.

Nothing else in eosr asks for its rank but to decide who writes; gradients are averaged in one place, `eosr.train.step`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Protocol

import torch
from torch import Tensor

from eosr.errors import EosrError, RankLostError, SharedError, first_line


class Communicator(Protocol):
    """What training needs from a cluster; `Alone`, `Horovod` and `TorchDistributed` provide it.

    Every method but `close` is called by all ranks alike, and raises `RankLostError` where another one is gone.
    """

    #: For the log.
    name: str
    #: Number of this process, and how many there are.
    rank: int
    size: int
    #: Number among the processes of its host: which of the host's cards is its own.
    local_rank: int

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over the ranks, in place; one all-reduce per type and device."""
        ...

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by that of rank 0, in place."""
        ...

    def gather(self, value: str) -> list[str]:
        """Return the texts of all ranks, in order of rank."""
        ...

    def barrier(self) -> None:
        """Return when every rank has come here."""
        ...

    def close(self) -> None:
        """Take leave of the others."""
        ...


class Alone:
    """One process."""

    name = "one process"
    rank = 0
    size = 1
    local_rank = 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Leave everything as it is."""

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Leave everything as it is."""

    def gather(self, value: str) -> list[str]:
        """Return the one text."""
        return [value]

    def barrier(self) -> None:
        """Return."""

    def close(self) -> None:
        """Return."""


def by_kind(tensors: Sequence[Tensor], work: Callable[[Tensor], Tensor], *, on_card: bool = True) -> None:
    """Do ``work`` once per type and device, on all such tensors laid end to end; its answer replaces them.

    One message of everything costs one latency; one per tensor costs as many as there are layers. Without ``on_card``
    ``work`` is handed memory of the host: not every library can move that of a card.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in group])
        parts = work(flat if on_card else flat.cpu()).split([tensor.numel() for tensor in group])
        with torch.no_grad():
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.reshape(tensor.shape))


def lost(error: BaseException, timeout: float) -> RankLostError:
    """Return the error for a rank that is gone, with what the library said."""
    said = first_line(error)[:120]
    return RankLostError(
        f"another rank is gone, or did not answer for {timeout:.0f} s ({said}). Look at what the others said; the same "
        "command goes on from the last state."
    )


def leave(communicator: Communicator, status: int) -> int:
    """Take leave of the others, and end this process where it is one of several; else return ``status``.

    Gloo's and autograd's threads outlive the interpreter, and now and then one of them aborts the process at its exit
    ("terminate called without an active exception"; seen in a third of short runs of torch 2.13 with two ranks): a
    launcher then calls a run failed that is not. All is written and told by then; if another rank is gone,
    that one says why.
    """
    with suppress(RankLostError):
        communicator.close()
    if communicator.size == 1:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextmanager
def together(communicator: Communicator) -> Iterator[None]:
    """Make an error of one rank inside the block an error of every rank, raised at its end.

    Without it the rank with the error leaves, and the others wait for it in the next all-reduce. Inside the block no
    rank may wait for another: that one may be at the end already.

    Raises
    ------
    SharedError
        If any rank had an `EosrError`: that of the first rank that has one. With one process, the error itself.
    """
    own: EosrError | None = None
    try:
        yield
    except RankLostError:
        raise
    except EosrError as error:
        if communicator.size == 1:
            raise
        own = error
    for rank, text in enumerate(communicator.gather("" if own is None else str(own))):
        if text:
            raise SharedError(text if rank == 0 else f"rank {rank}: {text}") from own
