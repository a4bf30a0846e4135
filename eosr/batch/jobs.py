"""The jobs of a batch on Slurm: submitted, looked after, replaced when they have ended; Slurm's words if it refuses.

dask-jobqueue submits and cancels them. What it leaves to its users is done here: it loses what a failed sbatch says in
its event loop and goes on waiting, and it never replaces a job that has ended (dask-jobqueue issues 691 and 701).
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

from eosr.batch.site import Site
from eosr.errors import BatchError

#: Seconds between two looks at the queue: at first, and after every change; and where nothing changes for long.
_LOOK: Final = 5.0
_SELDOM: Final = 30.0
#: Seconds that squeue may take.
_ANSWER: Final = 60.0
#: Jobs in a row that may end before a worker of theirs has come.
_STILLBORN: Final = 3
#: Times in a row that Slurm may refuse all jobs: once is a controller that is busy.
_REFUSED: Final = 2
#: States in which a job is going to run.
_STATES: Final = "PENDING,RUNNING,CONFIGURING,SUSPENDED,REQUEUED"


def slurm_cluster(jobqueue: Any, arguments: dict[str, Any]) -> Any:
    """A SLURMCluster of dask-jobqueue, whose jobs keep what sbatch says, and never have the name of an earlier one."""
    from distributed.core import Status

    class ToldJob(jobqueue.slurm.SLURMJob):  # type: ignore[misc]  # an extra
        #: What sbatch said instead of taking it.
        refused = ""

        async def start(self) -> None:
            try:
                await super().start()
            except (OSError, RuntimeError, ValueError) as error:
                self.refused = words(str(error).rpartition("stderr:\n")[2])
                await super(jobqueue.core.Job, self).start()

        async def close(self) -> None:
            await super().close()
            self.status = Status.closed  # dask-jobqueue leaves it, and a cluster that closes looks

    class Numbered(jobqueue.SLURMCluster):  # type: ignore[misc]  # an extra
        _numbers = count()

        def _new_worker_name(self, worker_number: int) -> str:
            # dask would give the name of the job that has ended to the next, and then take the one for the other.
            return str(super()._new_worker_name(next(self._numbers)))

    return Numbered(job_cls=ToldJob, **arguments)


def check_job(script: str) -> None:
    """Ask Slurm whether it would take a job, before anybody waits for it.

    Raises
    ------
    BatchError
        With what Slurm says.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            asked = subprocess.run(["sbatch", "--test-only", file.name], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise BatchError(
                "there is no sbatch here. Type this where jobs can be submitted, or give a site file of kind: local."
            ) from None
    if asked.returncode:
        raise BatchError(
            f"Slurm takes no such job: {words(asked.stderr)} Correct the site file; if it is right, try again later: "
            "Slurm says the same while nodes are drained or down (sinfo)."
        )


def words(text: str) -> str:
    """What a program said, in one line."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) + "."


class SlurmJobs:
    """The jobs of a batch: as many as there are scenes left for, those that have ended replaced."""

    def __init__(self, cluster: Any, site: Site, logs: Path) -> None:
        self._cluster, self._site, self._logs = cluster, site, logs
        self._due, self._pause = 0.0, _LOOK
        self._here: set[str] = set()
        #: Numbers of jobs that a worker came of, and jobs in a row that ended without one.
        self._came: set[str] = set()
        self._stillborn = 0
        #: Times in a row that Slurm refused all jobs.
        self._refused = 0
        self._waits = ""

    def __call__(self, left: int) -> str:
        """See to the jobs.

        Returns
        -------
        str
            What they wait for, e.g. ``"2 jobs wait in the queue: Resources"``; empty where none waits.

        Raises
        ------
        BatchError
            If Slurm refuses all jobs twice in a row, in its words, or if jobs end again and again before a worker
            comes, with the last words of their log.
        """
        now = time.monotonic()
        here = self._names(self._cluster.scheduler_info["workers"].values())
        if here != self._here:
            self._here, self._pause, self._due = here, _LOOK, min(self._due, now + _LOOK)
        # Before squeue is asked: a job that comes in between is not one that has ended.
        jobs = {name: (job, job.job_id) for name, job in list(self._cluster.workers.items())}
        refused = {name: job.refused for name, (job, _) in jobs.items() if job.refused}
        if refused and len(refused) == len(jobs) == len(self._cluster.worker_spec):
            self._none_taken(next(iter(refused.values())))
            self._forget(refused)
            self._pause, self._due = _LOOK, now + _LOOK
        if now < self._due:
            return self._waits
        queue = _queue() if jobs else {}
        self._due, self._pause = now + self._pause, min(1.5 * self._pause, _SELDOM)
        if queue is None:
            return self._waits  # the controller does not answer; the jobs go on without it
        numbers = {name: str(number) for name, (_, number) in jobs.items() if number is not None}
        self._refused = 0 if numbers else self._refused
        self._forget([name for name, number in numbers.items() if self._has_ended(name, number, queue)])
        self._forget(refused)
        self._waits = _waits([queue[number] for number in numbers.values() if queue.get(number)], refused)
        self._scale(min(self._site.jobs, max(1, -(-left // self._site.processes))))
        return self._waits

    def _scale(self, wanted: int) -> None:
        spec = self._cluster.worker_spec
        # dask would end any, also those that are at work.
        busy = self._names(
            {"name": one.name} for one in list(self._cluster.scheduler.workers.values()) if one.processing
        )
        idle = sorted((name for name in spec if str(name) not in busy), key=lambda name: str(name) in self._here)
        for name in idle[: max(0, len(spec) - wanted)]:
            spec.pop(name)
        self._cluster.scale(jobs=max(wanted, len(spec)))

    def _names(self, workers: Iterable[Mapping[str, Any]]) -> set[str]:
        """Names of the jobs of workers."""
        names = (str(one["name"]) for one in workers)
        return {name.rsplit("-", 1)[0] if self._site.processes > 1 else name for name in names}

    def _forget(self, names: Iterable[Any]) -> None:
        """Take out jobs that are no more; dask-jobqueue takes them for some that still run."""
        from distributed.core import Status

        for name in names:
            self._cluster.worker_spec.pop(name, None)
            job = self._cluster.workers.pop(name, None)
            if job is not None:
                job.status = Status.closed

    def _has_ended(self, name: Any, number: str, queue: dict[str, str]) -> bool:
        if str(name) in self._here:
            self._came.add(number)
            self._stillborn = 0
        if number in queue:
            return False
        if number not in self._came:
            self._stillborn += 1
            self._check_stillborn(number)
        return True

    def _none_taken(self, said: str) -> None:
        self._refused += 1
        if self._refused >= _REFUSED:
            raise BatchError(
                f"Slurm takes no job: {said} Correct the site file, or wait until it takes some, and type the same "
                "command again."
            )

    def _check_stillborn(self, number: str) -> None:
        if self._stillborn < _STILLBORN:
            return
        logs = sorted(self._logs.glob(f"*{number}*.err")) or sorted(self._logs.glob("*.err"))
        said = logs[-1].read_text(errors="replace").strip().splitlines()[-1:] if logs else []
        raise BatchError(
            f"{self._stillborn} jobs in a row ended before a worker came: {said[0] if said else 'no words'} (see "
            f"{self._logs}). Correct prologue, python or interface in the site file."
        )


def _waits(reasons: list[str], refused: dict[Any, str]) -> str:
    parts = []
    if reasons:
        what = "1 job waits" if len(reasons) == 1 else f"{len(reasons)} jobs wait"
        parts.append(f"{what} in the queue: {', '.join(sorted(set(reasons)))}")
    if refused:
        parts.append(f"Slurm takes no more: {next(iter(refused.values()))}")
    return "; ".join(parts)


def _queue() -> dict[str, str] | None:
    """Numbers of the user's jobs -> why they wait, empty while they run; None where Slurm does not answer."""
    try:
        asked = subprocess.run(
            ["squeue", "--me", "--noheader", "--format=%A|%T|%r", f"--states={_STATES}"],
            capture_output=True, text=True, check=False, timeout=_ANSWER,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode:
        return None
    queue = {}
    for line in asked.stdout.splitlines():
        number, state, reason = (one.strip() for one in line.split("|", 2))
        queue[number] = "" if state == "RUNNING" else state.capitalize() if reason in ("", "None") else reason
    return queue
