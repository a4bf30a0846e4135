"""`eosr-train bench-scaling`: windows per second against ranks, measured by a real launcher, and on paper beyond.

What synchronous data parallelism costs: the alpha-beta model of a ring all-reduce, fitted to what was measured.

A ring of ``k`` ranks averages a buffer of ``S`` bytes in ``2 (k - 1)`` messages of ``S / k`` bytes per rank [1]:

    time(k, S) = 2 (k - 1) alpha + 2 (k - 1) / k * S / beta

with the latency ``alpha`` [s] of a message and the bandwidth ``beta`` [bytes/s] of a link. A step takes
``compute + time(k, S)``; nothing is overlapped, because `Communicator.average` starts when the gradients are there.

References
----------
[1] Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in MPICH", 2005, section 4.5.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from eosr.errors import MissingExtraError, TrainingError
from eosr.train.settings.config import load_config

#: Ranks per launcher: the words before the Python command.
LAUNCHERS: Final[dict[str, Callable[[int], list[str]]]] = {
    "horovodrun": lambda ranks: ["horovodrun", "-np", str(ranks), sys.executable],
    "torchrun": lambda ranks: ["torchrun", "--standalone", "--no-python", f"--nproc-per-node={ranks}", sys.executable],
    "srun": lambda ranks: ["srun", "-n", str(ranks), sys.executable],
    "mpirun": lambda ranks: ["mpirun", "-np", str(ranks), sys.executable],
}
#: Numbers of ranks the model is followed to.
PROJECTED: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """How scaling is measured."""

    ranks: Sequence[int]
    #: Folder for ``scaling.json``, ``scaling.md`` and ``scaling.png``.
    out: Path
    #: A key of `LAUNCHERS`; ``auto``: horovodrun where it is installed, else torchrun.
    launcher: str = "auto"
    #: Steps that are timed.
    steps: int = 20
    #: CPU threads of every rank.
    threads: int = 1
    device: str = "auto"
    #: Seconds after which a measurement is given up.
    timeout: float = 1800.0


def bench_scaling(config: Path, options: ScalingOptions, *, tell: Callable[[str], None] | None = None) -> Path:
    """Measure every number of ranks, fit the ring model, and write table and figure; return the table's path.

    Raises
    ------
    TrainingError
        If the launcher is not there, or ranks fail; with the last words of the rank.
    MissingExtraError
        If matplotlib is not installed.
    """
    _matplotlib()
    settings = load_config(config)
    launcher = _launcher(options.launcher)
    if 1 not in options.ranks or min(options.ranks) < 1:
        raise TrainingError(
            f"--ranks {','.join(map(str, options.ranks))} cannot be compared: efficiency is per rank against one. "
            "Give a list with 1, e.g. --ranks 1,2,4."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    measured, names = [], []
    for ranks in sorted(set(options.ranks)):
        one, name = _measured(config, ranks, launcher, options)
        measured.append(one)
        names.append(name)
        (tell or str)(f"{ranks} rank{'s' if ranks > 1 else ''} ({name}): {one.throughput:.1f} windows/s")
    ring = fit_ring(measured)
    told = {"name": settings.name, "launcher": launcher, "communicators": names, "threads": options.threads}
    record = told | {"measured": [asdict(one) for one in measured], "ring": asdict(ring) if ring else None}
    (options.out / "scaling.json").write_text(json.dumps(record, indent=1))
    table = options.out / "scaling.md"
    table.write_text(to_markdown(measured, ring, told))
    draw(measured, ring, settings.name, options.out / "scaling.png")
    return table


def _launcher(name: str) -> str:
    if name == "auto":
        name = "horovodrun" if shutil.which("horovodrun", path=_path()) else "torchrun"
    if name not in LAUNCHERS:
        raise TrainingError(f"launcher {name!r} is unknown. Give auto, {', '.join(LAUNCHERS)}.")
    if shutil.which(name, path=_path()) is None:
        raise TrainingError(f"there is no {name} here. Install it (make horovod), or give another --launcher.")
    return name


def _path() -> str:
    """Where launchers are looked for: beside this Python first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _measured(config: Path, ranks: int, launcher: str, options: ScalingOptions) -> tuple[Measured, str]:
    out = options.out / f"ranks-{ranks}.json"
    out.unlink(missing_ok=True)
    front = LAUNCHERS[launcher](ranks) if ranks > 1 else [sys.executable]
    command = [
        *front, "-m", "eosr.train.ranks.measure", str(config), str(out),
        "--steps", str(options.steps), "--device", options.device,
    ]  # fmt: skip
    environ = os.environ | {"OMP_NUM_THREADS": str(options.threads), "PATH": _path()}
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=options.timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise TrainingError(
            f"{ranks} ranks by {launcher} took more than {options.timeout:.0f} s. Give fewer --steps, or look whether "
            "the ranks find each other: docs/how-to/train-on-many-processes.md."
        ) from None
    if done.returncode or not out.is_file():
        words = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()] or ["no words"]
        raise TrainingError(
            f"{ranks} rank{'s' if ranks > 1 else ''} by {launcher} ended with status {done.returncode}: {words[-1]}. "
            f"Try the same by hand: {' '.join(command)}"
        )
    record = json.loads(out.read_text())
    name = record.pop("communicator")
    record["reduces"] = {int(size): time for size, time in record["reduces"].items()}
    return Measured(**record), name


def to_markdown(measured: Sequence[Measured], ring: Ring | None, told: dict[str, Any]) -> str:
    """Return what was measured, and what the model says of more ranks, as Markdown."""
    alone = measured[0]
    lines = [
        f"# Scaling of {told['name']}", "",
        f"Launcher {told['launcher']}, {told['threads']} CPU thread{'s' if told['threads'] > 1 else ''} per rank, "
        f"{alone.batch} windows per rank and step, {alone.buffer / 1e6:.2f} MB averaged per step.",
        "Times are medians.", "",
        "## Measured", "",
        "| ranks | communicator | windows/s | per rank | efficiency | step [ms] | without all-reduce [ms] |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for one, name in zip(measured, told["communicators"], strict=True):
        lines.append(
            f"| {one.ranks} | {name} | {one.throughput:.1f} | {one.throughput / one.ranks:.1f} | "
            f"{efficiency(alone, one):.2f} | {1e3 * one.step:.1f} | {1e3 * one.compute:.1f} |"
        )
    if ring is None:
        return "\n".join(lines) + "\n"
    lines += [
        "", "## On paper", "",
        f"Ring model fitted to all-reduces of {len(measured[-1].reduces)} sizes on up to {measured[-1].ranks} ranks: "
        f"latency {1e6 * ring.alpha:.0f} us, bandwidth {ring.beta / 1e6:.0f} MB/s, misfit {100 * ring.misfit:.0f} %.",
        "Ranks that share memory and cores were measured; on a network latency and bandwidth are others.", "",
        "| ranks | windows/s | efficiency | step [ms] |", "|---:|---:|---:|---:|",
    ]  # fmt: skip
    for ranks, step in project_steps(alone, ring, PROJECTED).items():
        lines.append(f"| {ranks} | {ranks * alone.batch / step:.1f} | {alone.compute / step:.2f} | {1e3 * step:.1f} |")
    return "\n".join(lines) + "\n"


def draw(measured: Sequence[Measured], ring: Ring | None, title: str, path: Path) -> None:
    """Draw throughput against ranks, in the form of figures 6.16 and 6.17 of the reference study, as PNG."""
    figure_class = _matplotlib()
    alone = measured[0]
    figure = figure_class(figsize=(6.4, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    ranks = [one.ranks for one in measured]
    farthest = PROJECTED if ring else ranks
    ideal = [alone.throughput * k for k in farthest]
    axes.plot(farthest, ideal, "--", color="0.6", label="ideal: one rank times ranks")
    if ring is not None:
        steps = project_steps(alone, ring, PROJECTED)
        modelled = [k * alone.batch / step for k, step in steps.items()]
        axes.plot(list(steps), modelled, color="tab:blue", label="ring model")
    axes.plot(ranks, [one.throughput for one in measured], "o", color="tab:red", label="measured")
    axes.set(
        xscale="log", yscale="log", xlabel="ranks", ylabel="data throughput [windows/s]", title=title,
        xticks=farthest, xticklabels=[str(k) for k in farthest],
    )  # fmt: skip
    axes.minorticks_off()
    axes.legend()
    part = path.with_suffix(".part")
    figure.savefig(part, format="png")
    os.replace(part, path)


def _matplotlib() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("figures need matplotlib. Install it: pip install 'eosr[train]'") from None
    return Figure


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one number of ranks was measured to do."""

    ranks: int
    #: Windows per step and rank.
    batch: int
    #: Median over steps of the slowest rank's time without the all-reduce, and with it [s].
    compute: float
    step: float
    #: Bytes that a step averages.
    buffer: int
    #: Median time of an all-reduce alone [s] by size [bytes]; empty for one rank.
    reduces: dict[int, float]

    @property
    def throughput(self) -> float:
        """Windows per second of all ranks together."""
        return self.ranks * self.batch / self.step


@dataclass(frozen=True, kw_only=True)
class Ring:
    """Latency and bandwidth of the links."""

    #: Latency of a message [s].
    alpha: float
    #: Bandwidth of a link [bytes/s].
    beta: float
    #: Root mean square of (model / measured - 1) over the measurements it was fitted to.
    misfit: float

    def reduce(self, ranks: int, size: int) -> float:
        """Time of an all-reduce of ``size`` bytes [s]."""
        return 2 * (ranks - 1) * self.alpha + 2 * (ranks - 1) / ranks * size / self.beta


def fit_ring(measured: Sequence[Measured]) -> Ring | None:
    """Fit the model to all-reduces of several sizes, by least squares of relative errors; None without two ranks.

    Neither latency nor inverse bandwidth may come out below zero.
    """
    # Imported here: it takes a quarter of a second, and only this function needs it.
    from scipy.optimize import nnls

    points = [(one.ranks, size, time) for one in measured for size, time in one.reduces.items() if one.ranks > 1]
    if len(points) < 2:
        return None
    ranks, sizes, times = (np.array(column, float) for column in zip(*points, strict=True))
    columns = np.stack([2 * (ranks - 1), 2 * (ranks - 1) / ranks * sizes], axis=1)
    (alpha, inverse), _ = nnls(columns / times[:, None], np.ones(len(times)))
    model = columns @ np.array([alpha, inverse])
    return Ring(
        alpha=float(alpha), beta=float(1 / inverse) if inverse > 0 else float("inf"),
        misfit=float(np.sqrt(np.mean((model / times - 1) ** 2))),
    )  # fmt: skip


def project_steps(one: Measured, ring: Ring, ranks: Sequence[int]) -> dict[int, float]:
    """Time of a step [s] by number of ranks: the work of ``one`` rank, and the all-reduce of the model."""
    return {k: one.compute + ring.reduce(k, one.buffer) for k in ranks}


def efficiency(alone: Measured, other: Measured) -> float:
    """Throughput per rank, 1 being that of one rank: weak scaling."""
    return other.throughput / other.ranks / alone.throughput
