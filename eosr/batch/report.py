"""How far a batch is while it runs, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a batch is."""

    scenes: int
    done: int
    failed: int
    #: Scenes at work -> worker.
    running: Mapping[str, str]
    workers: int
    seconds: float
    #: What has just happened, a line; or nothing.
    news: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a batch ended."""

    folder: Path
    #: Scenes with a result, and those of them made in this run.
    done: tuple[str, ...]
    made: tuple[str, ...]
    #: Scenes set aside, and items of which none could be made -> why; scenes that were not begun or not finished.
    failed: Mapping[str, str]
    pending: tuple[str, ...]
    #: Of this run: wall time [s], CPU time of all scenes [s], highest memory of one process [byte], ground [km2].
    seconds: float
    cpu: float
    memory: int
    area: float
    #: Why the run ended before its end; empty where it did not.
    stopped: str = ""

    @property
    def complete(self) -> bool:
        """Whether every scene has a result."""
        return not self.failed and not self.pending

    def __str__(self) -> str:
        lines = [f"{len(self.done)} of {len(self.done) + len(self.failed) + len(self.pending)} scenes in {self.folder}"]
        if self.made:
            lines[0] += f", {len(self.made)} of them now, {self.area:.0f} km2 in {self.seconds:.0f} s"
        lines += [f"failed   {name}: {why}" for name, why in self.failed.items()]
        lines += [f"missing  {name}" for name in self.pending]
        return "\n".join(lines + ([self.stopped] if self.stopped else []))
