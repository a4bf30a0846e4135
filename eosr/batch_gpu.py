"""Give every worker process of a job one of its cards; dask loads this with ``--preload`` before the worker starts.

Slurm hands all cards of a job to all of its processes. A worker of dask's is called NAME-0, NAME-1 and so on in a job
with several processes, and 0, 1 and so on in a cluster of one machine: the number is that of its card.
"""

from __future__ import annotations

import os
import re
from typing import Any


def dask_setup(worker: Any) -> None:
    """Called by dask with the worker."""
    card = card_of(str(worker.name), os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    if card is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card


def card_of(name: str, visible: str) -> str | None:
    """Return the card of a worker, of those that can be seen; None where a job says nothing of its cards.

    Examples
    --------
    >>> card_of("SLURMCluster-3-1", "4,6")
    '6'
    >>> card_of("1", "")
    '1'
    """
    cards = [card.strip() for card in visible.split(",") if card.strip()]
    of_this_machine = name.isdecimal()
    if not cards:
        return name if of_this_machine else None
    if of_this_machine:
        # A worker without a card is told so when it is looked at.
        return cards[int(name)] if int(name) < len(cards) else "-1"
    number = re.search(r"-(\d+)$", name)
    return cards[int(number[1]) % len(cards)] if number and len(cards) > 1 else cards[0]
