"""Give every worker process of a job one of its cards; dask loads this with ``--preload`` before the worker starts.

Slurm hands all cards of a job to all of its processes. A worker of dask's is called NAME-0, NAME-1 and so on in a job
with several processes, and 0, 1 and so on in a cluster of one machine: the number is that of its card. Where there are
more workers than cards, they are dealt out in turn.
"""

from __future__ import annotations

import os
import re
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by dask with the worker."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not visible and str(worker.name).isdecimal():
        from eosr.nn.tile import cards  # torch takes seconds, and a job of Slurm says which there are

        visible = ",".join(map(str, range(cards())))
    card = card_of(str(worker.name), visible)
    if card is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card


def card_of(name: str, visible: str) -> str | None:
    """Return the card of a worker, of those that can be seen; None where nothing says which there are.

    Examples
    --------
    >>> card_of("SLURMCluster-3-1", "4,6")
    '6'
    >>> card_of("2", "0,1")
    '0'
    """
    cards = [card.strip() for card in visible.split(",") if card.strip()]
    if not cards:
        return None
    number = re.search(r"(?:^|-)(\d+)$", name)
    return cards[int(number[1]) % len(cards)] if number else cards[0]
