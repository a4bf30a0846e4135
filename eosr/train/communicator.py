"""What training needs from a cluster, and which of three answers to it this process has.

Nothing else in eosr asks for its rank but to decide who writes; gradients are averaged in one place, `eosr.train.step`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final, Protocol

import torch
from torch import Tensor

from eosr.errors import EosrError, RankLostError, SharedError, TrainingError
from eosr.train.rendezvous import Place, find_place

#: Seconds that a rank waits for the others, if EOSR_RANK_TIMEOUT does not say otherwise. Ranks wait for each other
#: while rank 0 writes a state, and while the others score a larger share of the scenes.
TIMEOUT: Final = 300.0
NAMES: Final = ("auto", "alone", "horovod", "torch")


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


def choose(name: str = "auto", environ: Mapping[str, str] | None = None) -> Communicator:
    """Return the communicator of this process, met with the others.

    Parameters
    ----------
    name : {"auto", "alone", "horovod", "torch"}
        ``auto``: Horovod under horovodrun and mpirun; torch.distributed under torchrun; under srun Horovod where it is
        installed, else torch.distributed; alone otherwise.
    environ : mapping, optional
        Default: the environment.

    Raises
    ------
    TrainingError
        If the name is unknown, Horovod is asked for and not installed, or the launcher's variables contradict
        themselves.
    RankLostError
        If the others do not come within EOSR_RANK_TIMEOUT seconds.
    """
    environ = os.environ if environ is None else environ
    if name not in NAMES:
        raise TrainingError(f"communicator {name!r} is unknown. Give {', '.join(NAMES)}.")
    place = find_place(environ)
    if name == "alone" or place.size == 1:
        return Alone()
    installed = find_spec("horovod") is not None
    kind = name
    if name == "auto":
        of_horovod = place.launcher in ("horovodrun", "mpirun") or (place.launcher == "srun" and installed)
        kind = "horovod" if of_horovod else "torch"
    timeout = timeout_of(environ)
    if kind == "horovod":
        return _horovod(place, timeout, installed)
    return _torch_distributed(place, timeout)


def _horovod(place: Place, timeout: float, installed: bool) -> Communicator:
    if not installed:
        raise TrainingError(
            f"the ranks of {place.launcher} meet by Horovod, which is not installed. Build it (make horovod, or "
            "hpc/build_horovod.sh), or give --communicator torch under torchrun or srun."
        )
    # Imported here: Horovod is an extra that few machines have.
    from eosr.train.communicator_horovod import Horovod

    return Horovod(place, timeout)


def _torch_distributed(place: Place, timeout: float) -> Communicator:
    if place.launcher in ("horovodrun", "mpirun"):
        raise TrainingError(
            f"{place.launcher} does not tell its ranks where to meet without Horovod. Start them with torchrun or "
            "srun, or give --communicator horovod."
        )
    from eosr.train.communicator_torch import TorchDistributed

    return TorchDistributed(place, timeout)


def timeout_of(environ: Mapping[str, str]) -> float:
    """Seconds that a rank waits for the others: EOSR_RANK_TIMEOUT, else `TIMEOUT`.

    Raises
    ------
    TrainingError
        If it is no positive number.
    """
    text = environ.get("EOSR_RANK_TIMEOUT", str(TIMEOUT))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise TrainingError(f"EOSR_RANK_TIMEOUT = {text!r} is no number of seconds. Give e.g. 300.")
    return value


def by_kind(tensors: Sequence[Tensor], work: Callable[[Tensor], Tensor]) -> None:
    """Do ``work`` once per type and device, on all such tensors laid end to end; its answer replaces them.

    One message of everything costs one latency; one per tensor costs as many as there are layers.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    for group in groups.values():
        flat = work(torch.cat([tensor.detach().reshape(-1) for tensor in group]))
        parts = flat.split([tensor.numel() for tensor in group])
        with torch.no_grad():
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.reshape(tensor.shape))


def lost(error: BaseException, timeout: float) -> RankLostError:
    """Return the error for a rank that is gone, with what the library said."""
    said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
    return RankLostError(
        f"another rank is gone, or did not answer for {timeout:.0f} s ({said}). Look at what the others said; the same "
        "command goes on from the last state."
    )


def leave(communicator: Communicator, status: int) -> int:
    """Take leave of the others, and end this process where it is one of several; else return ``status``.

    Gloo's and autograd's threads outlive the interpreter, and now and then one of them aborts the process at its exit
    ("terminate called without an active exception"; seen in a third of short runs of torch 2.13 with two ranks): a
    launcher then calls a run failed that is not. All is written and told by then.
    """
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
