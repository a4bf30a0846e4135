"""A whole run: configuration and data in, weights file with its history out; on one process or many."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from eosr.errors import SharedError, TrainingError
from eosr.train.data.material import Material, open_material
from eosr.train.loop import Outcome, Progress, train
from eosr.train.outcome.export import bfloat16_error, export
from eosr.train.outcome.scores import by_group, score_together
from eosr.train.ranks.communicator import Communicator, together
from eosr.train.settings.config import load_config
from eosr.train.settings.schema import TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is told beside its configuration; none of it changes a weight."""

    #: Folder of the training packs, or a store of ``eosr-train prepare``.
    data: Path
    #: Folder for state, log and weights.
    out: Path
    #: CPU threads of this process; None: all, or OMP_NUM_THREADS.
    threads: int | None = None
    #: ``auto``, ``cpu`` or ``cuda``: of every rank the card of its number on its host.
    device: str = "auto"


def run_training(
    config: Path, options: RunOptions, communicator: Communicator, *, tell: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Path | None:  # fmt: skip
    """Train, or resume, and write ``OUT/NAME.safetensors``.

    Returns
    -------
    Path or None
        The weights file; None where a signal stopped the run, which the same call takes up again.

    Raises
    ------
    TrainingError
        On every rank alike, if configuration, data or state file cannot be used, or the ranks have not the same.
    """
    tell = tell or (lambda text: None)
    if options.threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(options.threads or os.cpu_count() or 1)
    with together(communicator):
        settings = load_config(config)
        device = device_of(options.device, communicator)
        material = open_material(options.data, settings)
    agree(settings, material, communicator)
    tell(f"{communicator.name}, {communicator.size} rank{'s' if communicator.size > 1 else ''}, {device}")
    outcome = train(
        settings, material, options.out, communicator=communicator, device=device, tell=tell, progress=progress
    )
    if not outcome.finished:
        return None
    return _exported(outcome, settings, material, options.out, communicator)


def _exported(outcome: Outcome, config: TrainConfig, material: Material, out: Path, communicator: Communicator) -> Path:
    """Score under every operator, where that has not just been done, and write the file; rank 0 writes."""
    path, latest = out / f"{config.name}.safetensors", out / "latest.safetensors"
    factor, chief = config.window.factor, communicator.rank == 0
    scores = outcome.scores
    if scores is None:
        with together(communicator):
            if chief:
                export(outcome.generator, config, material, path=latest, steps=outcome.step)
        with together(communicator):
            found = score_together(
                latest, material.validation, config.inverts, ("synthesis",), factor=factor, communicator=communicator
            )
        scores = by_group(found, config.inverts, material.validation)
    with together(communicator):
        if chief:
            on_cpu = outcome.generator.cpu().float()
            error = bfloat16_error(on_cpu, material.validation, factor)
            export(on_cpu, config, material, path=path, steps=outcome.step, scores=scores, bfloat16=error)
            latest.unlink(missing_ok=True)
    return path


def device_of(name: str, communicator: Communicator) -> torch.device:
    """Return the device of this rank: the card of its number on its host, or the CPU.

    Raises
    ------
    TrainingError
        If CUDA is asked for and there is no card for this rank.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"device {name!r} is unknown. Give auto, cpu or cuda.")
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not cards):
        return torch.device("cpu")
    if communicator.local_rank >= cards:
        raise TrainingError(
            f"rank {communicator.local_rank} of this host finds {cards} CUDA device{'s' if cards != 1 else ''}. "
            "Start one rank per card, or give --device cpu."
        )
    device = torch.device("cuda", communicator.local_rank)
    torch.cuda.set_device(device)
    return device


def agree(config: TrainConfig, material: Material, communicator: Communicator) -> None:
    """Refuse a run whose ranks have not the same configuration and data.

    Raises
    ------
    TrainingError
        On every rank alike, naming the ranks that differ from rank 0.
    """
    told = {
        "configuration": repr(asdict(config)),
        "data": json.dumps(dict(material.checksums), sort_keys=True),
    }
    sums = {what: hashlib.sha256(text.encode()).hexdigest() for what, text in told.items()}
    everyone = [json.loads(text) for text in communicator.gather(json.dumps(sums))]
    for what in told:
        others = [str(rank) for rank, theirs in enumerate(everyone) if theirs[what] != everyone[0][what]]
        if others:
            raise SharedError(
                f"the {what} of rank {', '.join(others)} is not that of rank 0 (SHA-256 "
                f"{everyone[int(others[0])][what][:12]}, not {everyone[0][what][:12]}). Give every rank the same "
                "files, e.g. on a shared filesystem."
            )
