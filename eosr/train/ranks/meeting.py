"""Which communicator this process has: read from what the launcher tells, met with the others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from eosr.errors import SharedError
from eosr.train.ranks.communicator import Alone, Communicator
from eosr.train.ranks.rendezvous import Place, find_place

#: Seconds that a rank waits for the others, if EOSR_RANK_TIMEOUT does not say otherwise. Ranks wait for each other
#: while rank 0 writes a state, and while others score a larger share of the scenes: too short a wait ends a sound run,
#: too long a one keeps the cards of a broken one.
TIMEOUT: Final = 300.0
#: A year; longer ones do not fit the libraries' numbers.
_LONGEST: Final = 3.2e7
NAMES: Final = ("auto", "alone", "horovod", "torch")


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
    SharedError
        If the name is unknown, Horovod is asked for and not installed, or the launcher's ranks cannot be joined so: the
        ranks have not met, but each of them finds the same.
    TrainingError
        If the launcher's variables contradict themselves, or rank 0 cannot be reached from here.
    RankLostError
        If the others do not come within EOSR_RANK_TIMEOUT seconds.
    """
    environ = os.environ if environ is None else environ
    if name not in NAMES:
        raise SharedError(f"communicator {name!r} is unknown. Give {', '.join(NAMES)}.")
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
        raise SharedError(
            f"the ranks of {place.launcher} meet by Horovod, which is not installed. Build it (make horovod, or "
            "hpc/build_horovod.sh), or give --communicator torch under torchrun or srun."
        )
    # Imported here: Horovod is an extra that few machines have.
    from eosr.train.ranks.by_horovod import Horovod

    return Horovod(place, timeout)


def _torch_distributed(place: Place, timeout: float) -> Communicator:
    if place.launcher in ("horovodrun", "mpirun"):
        raise SharedError(
            f"{place.launcher} does not tell its ranks where to meet without Horovod. Start them with torchrun or "
            "srun, or give --communicator horovod."
        )
    from eosr.train.ranks.by_torch import TorchDistributed

    return TorchDistributed(place, timeout)


def timeout_of(environ: Mapping[str, str]) -> float:
    """Seconds that a rank waits for the others: EOSR_RANK_TIMEOUT, else `TIMEOUT`.

    Raises
    ------
    SharedError
        If it is no positive number.
    """
    text = environ.get("EOSR_RANK_TIMEOUT", str(TIMEOUT))
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < _LONGEST:
        raise SharedError(f"EOSR_RANK_TIMEOUT = {text!r} is no number of seconds. Give e.g. 300.")
    return value
