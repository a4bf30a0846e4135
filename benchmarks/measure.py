"""Clocks and tables for the benchmarks: seconds of CPU of this process beside wall time, and one way to print them."""

import json
import os
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Clock:
    """Times of several things, each measured several times in turn."""

    cpu: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wall: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), cpu_seconds()
        yield
        self.cpu[name].append(cpu_seconds() - cpu)
        self.wall[name].append(time.perf_counter() - wall)

    def median(self, name: str) -> tuple[float, float]:
        """Median CPU and wall seconds."""
        return statistics.median(self.cpu[name]), statistics.median(self.wall[name])


def cpu_seconds() -> float:
    """User and system seconds of this process, all its threads and the children it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def machine() -> dict[str, object]:
    """What the numbers depend on."""
    return {"cores": os.cpu_count(), "torch": torch.__version__, "load before": round(os.getloadavg()[0], 1)}


def report(title: str, rows: Sequence[Mapping[str, object]], **facts: object) -> None:
    """Print a Markdown table, then the same and the facts around it as one line of JSON."""
    heads = list(rows[0])
    print(f"\n### {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(_shown(row.get(head, '')) for head in heads)} |")
    print(f"\n{json.dumps({'benchmark': title, **facts, 'rows': list(rows)}, default=str)}\n", flush=True)


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
