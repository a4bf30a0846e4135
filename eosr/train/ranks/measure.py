"""What one rank of `eosr-train bench-scaling` does: steps on made-up windows, and all-reduces of several sizes.

Started by a launcher, once per number of ranks: ``horovodrun -np 2 python -m eosr.train.ranks.measure CONFIG OUT``.
Windows are drawn once and used in every step, so that reading is no part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from eosr.train.data.windows import Batch
from eosr.train.loop import build_networks
from eosr.train.ranks.communicator import Communicator, leave
from eosr.train.ranks.meeting import choose
from eosr.train.ranks.scaling import Measured
from eosr.train.run import device_of
from eosr.train.settings.config import load_config
from eosr.train.settings.schema import TrainConfig
from eosr.train.step import Stepper

#: Sizes of the all-reduces that are measured alone [numbers of 4 bytes].
SIZES: Final = (256, 16384, 262144, 1048576, 4194304)


class Timed:
    """A communicator that adds up the time its all-reduces take [s] and the bytes they move."""

    def __init__(self, inner: Communicator, device: torch.device) -> None:
        self._inner, self._device = inner, device
        self.name, self.rank, self.size, self.local_rank = inner.name, inner.rank, inner.size, inner.local_rank
        self.seconds, self.bytes = 0.0, 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""
        synchronize(self._device)
        began = time.perf_counter()
        self._inner.average(tensors)
        synchronize(self._device)
        self.seconds += time.perf_counter() - began
        self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """See `Communicator`."""
        self._inner.broadcast(tensors)

    def gather(self, value: str) -> list[str]:
        """See `Communicator`."""
        return self._inner.gather(value)

    def barrier(self) -> None:
        """See `Communicator`."""
        self._inner.barrier()

    def close(self) -> None:
        """See `Communicator`."""
        self._inner.close()


def synchronize(device: torch.device) -> None:
    """Wait until a card has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def made_up_batch(config: TrainConfig, rank: int) -> Batch:
    """Windows of noise, of the shapes that the configuration trains on."""
    rng = np.random.default_rng((config.seed, rank))
    size, factor, shape = config.window.size, config.window.factor, config.generator
    return Batch(
        fine=_noise(rng, config.batch, shape.fine_guides, size),
        middle=_noise(rng, config.batch, shape.middle_guides, size // 2) if shape.middle_guides else None,
        coarse=_noise(rng, config.batch, shape.targets, size // factor),
        sigma=torch.full((config.batch, shape.targets), 1 / factor),
        target=_noise(rng, config.batch, shape.targets, size),
        weight=torch.ones(config.batch, 1, size, size),
    )  # fmt: skip


def _noise(rng: np.random.Generator, batch: int, channels: int, size: int) -> Tensor:
    return torch.from_numpy(rng.random((batch, channels, size, size), np.float32))


def measure(config: TrainConfig, communicator: Communicator, device: torch.device, steps: int) -> Measured:
    """Time ``steps`` steps after two that do not count, and the all-reduces; the same answer on every rank."""
    timed = Timed(communicator, device)
    # What the run begins with, which may not be there yet, changes no time.
    config = replace(config, initial="")
    stepper = Stepper(build_networks(config, device), config, timed, device)
    batch = made_up_batch(config, communicator.rank).to(device, stepper.dtype)
    whole, reducing = [], []
    for step in range(steps + 2):
        communicator.barrier()
        timed.seconds, timed.bytes = 0.0, 0
        synchronize(device)
        began = time.perf_counter()
        for number in range(config.critic_steps):
            stepper.critic_step(batch, step, number, 1e-6)
        stepper.generator_step(batch, step, 1e-6, False)
        synchronize(device)
        whole.append(time.perf_counter() - began)
        reducing.append(timed.seconds)
    slowest = [json.loads(text) for text in communicator.gather(json.dumps([whole[2:], reducing[2:]]))]
    wholes, reduces = (np.array([rank[i] for rank in slowest]) for i in (0, 1))
    # The slowest rank waits least in the all-reduce: its own work is the step without it.
    compute = (wholes - reduces).max(axis=0)
    return Measured(
        ranks=communicator.size, batch=config.batch, compute=float(np.median(compute)),
        step=float(np.median(wholes.max(axis=0))), buffer=timed.bytes,
        reduces=_reduces(communicator, device) if communicator.size > 1 else {},
    )  # fmt: skip


def _reduces(communicator: Communicator, device: torch.device, repeats: int = 15) -> dict[int, float]:
    found = {}
    for count in SIZES:
        buffer = torch.zeros(count, device=device)
        times = []
        for _ in range(repeats):
            communicator.barrier()
            synchronize(device)
            began = time.perf_counter()
            communicator.average([buffer])
            synchronize(device)
            times.append(time.perf_counter() - began)
        everyone = [json.loads(text) for text in communicator.gather(json.dumps(statistics.median(times)))]
        found[4 * count] = max(everyone)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measure on the ranks a launcher started; rank 0 writes OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--communicator", default="auto")
    options = parser.parse_args(argv)
    torch.set_flush_denormal(True)
    communicator = choose(options.communicator)
    found = measure(load_config(options.config), communicator, device_of(options.device, communicator), options.steps)
    if communicator.rank == 0:
        options.out.write_text(json.dumps(asdict(found) | {"communicator": communicator.name}))
    leave(communicator, 0)


if __name__ == "__main__":
    main()
