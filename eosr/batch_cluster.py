"""A site file -> a dask client with workers on Slurm, jobs that ended replaced, Slurm's own words where it refuses.

dask-jobqueue submits and cancels the jobs. What it leaves to its users is done here: it logs a failed sbatch and goes
on waiting, and it never replaces a job that has ended (dask-jobqueue issues 691 and 701).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import dask
import yaml

from eosr.errors import BatchError, MissingExtraError

#: How the workers of a site come about.
KINDS: Final = ("local", "slurm", "slurm-runner")
#: Seconds between two looks at the queue.
_LOOK: Final = 5.0
#: Jobs in a row that may end before a worker of theirs has come.
_STILLBORN: Final = 3
#: Module that gives every worker process of a job one card of it.
_PRELOAD: Final = "eosr.batch_gpu"
#: A worker only waits for the process of its scene. Looking at its own stack a hundred times a second, and at its event
#: loop fifty times, would take a tenth of a core for as long.
_QUIET: Final = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a site file says; hpc/sites has files with every key explained."""

    #: ``local``: processes on this machine; ``slurm``: jobs that eosr submits; ``slurm-runner``: the tasks of the job
    #: that eosr itself runs in, under srun.
    kind: str = "local"
    #: Jobs at a time, and worker processes of each; a worker makes one scene at a time.
    jobs: int = 1
    processes: int = 1
    #: Cores and memory of a job; shared out over its processes.
    cores: int = 1
    memory: str = "8GB"
    #: Longest time of a job, as Slurm writes it. A job that reaches it is replaced.
    walltime: str = "01:00:00"
    partition: str | None = None
    account: str | None = None
    #: Cards of a job; then ``processes`` must be as many, one for each.
    gpus: int = 0
    #: More options of sbatch, e.g. ``--constraint=...``.
    sbatch: tuple[str, ...] = ()
    #: Options of sbatch that dask-jobqueue writes and the site refuses, e.g. ``--mem``.
    sbatch_skip: tuple[str, ...] = ()
    #: Lines of shell before the worker starts: modules, activation.
    prologue: tuple[str, ...] = ()
    #: Python of the workers; default: this one.
    python: str | None = None
    #: Network interface, e.g. ``ib0``, of the workers; of the scheduler, where it has another one.
    interface: str | None = None
    scheduler_interface: str | None = None
    #: Address of the dashboard, e.g. ``:8787``.
    dashboard: str | None = None
    #: Folder on a node for what dask spills.
    local_directory: str | None = None


def load_site(path: str | os.PathLike[str]) -> Site:
    """Read a site file.

    Raises
    ------
    BatchError
        If it is not there or no YAML, has an unknown key or a value of another type, or contradicts itself.
    """
    file = Path(path)
    try:
        told = yaml.safe_load(file.read_text()) or {}
    except OSError as error:
        raise BatchError(
            f"there is no site file {file} ({error.strerror}). hpc/sites has some to copy, e.g. hpc/sites/generic.yaml."
        ) from None
    except yaml.YAMLError as error:
        raise BatchError(f"{file} is no YAML: {' '.join(str(error).split())}. Correct it.") from None
    if not isinstance(told, dict):
        raise BatchError(f"{file} holds a {type(told).__name__}, not KEY: VALUE lines. Copy hpc/sites/generic.yaml.")
    known = {one.name for one in fields(Site)}
    unknown = sorted(set(told) - known)
    if unknown:
        raise BatchError(f"{file} has the unknown key {unknown[0]}. Known are {', '.join(sorted(known))}.")
    hints = get_type_hints(Site)
    site = Site(**{key: _typed(file, key, value, hints[key]) for key, value in told.items()})
    _check(file, site)
    return site


def _typed(file: Path, key: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        raise BatchError(f"{file}: {key} is {value!r}, not a list of texts. Write e.g. {key}: ['...'].")
    kinds = tuple(one for one in get_args(hint) if one is not type(None)) or (hint,)
    if key == "walltime" and isinstance(value, int):
        # YAML 1.1 reads 1:30:00 as a number of base 60.
        raise BatchError(f'{file}: walltime needs quotes in YAML. Write walltime: "01:30:00".')
    if isinstance(value, bool) or not isinstance(value, kinds):
        if value is None and type(None) in get_args(hint):
            return None
        raise BatchError(f"{file}: {key} is {value!r}, not {kinds[0].__name__}. Correct it.")
    return value


def _check(file: Path, site: Site) -> None:
    if site.kind not in KINDS:
        raise BatchError(f"{file}: kind is {site.kind!r}. Use one of {', '.join(KINDS)}.")
    for key in ("jobs", "processes", "cores"):
        if getattr(site, key) < 1:
            raise BatchError(f"{file}: {key} is {getattr(site, key)}. Give 1 or more.")
    if site.gpus < 0 or (site.gpus and site.processes % site.gpus):
        raise BatchError(
            f"{file}: gpus is {site.gpus} and processes {site.processes}; every card takes one process, or as many as "
            f"the others. Write e.g. processes: {max(1, abs(site.gpus))}."
        )


@contextmanager
def workers_of(site: Site, logs: Path) -> Iterator[tuple[Any, Any]]:
    """Start the workers of a site; give a client, and what sees to them (see ``keep`` of `eosr.batch.run`).

    Parameters
    ----------
    site : Site
    logs : Path
        Folder for what jobs print.

    Raises
    ------
    BatchError
        With Slurm's own words, if it takes no such job.
    MissingExtraError
        If dask-jobqueue is not installed.
    """
    # First its defaults: set before they are there, a setting takes all of them along when it ends.
    import distributed  # noqa: F401

    # Nannies hand their settings on to their workers, jobs get them in their environment.
    with dask.config.set(_QUIET), _workers_of(site, logs) as both:
        yield both


@contextmanager
def _workers_of(site: Site, logs: Path) -> Iterator[tuple[Any, Any]]:
    from distributed import Client, LocalCluster

    if site.kind == "local":
        # dask-cuda, where it is installed, gives every worker a card of its own and the cores beside it.
        cuda = _dask_cuda() if site.gpus == site.processes else None
        cards = {"resources": {"GPU": 1}} | ({} if cuda else {"preload": [_PRELOAD]}) if site.gpus else {}
        with (
            (cuda.LocalCUDACluster if cuda else LocalCluster)(
                n_workers=site.processes, threads_per_worker=1, dashboard_address=site.dashboard, memory_limit=None,
                local_directory=site.local_directory, **cards,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            yield client, lambda left: None
        return
    jobqueue = _jobqueue()
    if site.kind == "slurm-runner":
        with jobqueue.slurm.SLURMRunner() as runner, Client(runner) as client:
            yield client, lambda left: None
        return
    logs.mkdir(parents=True, exist_ok=True)
    with jobqueue.SLURMCluster(**arguments_of(site, logs)) as cluster:
        check_job(cluster.job_script())
        jobs = SlurmJobs(cluster, site, logs)
        jobs(site.jobs * site.processes)
        with Client(cluster) as client:
            yield client, jobs


def _dask_cuda() -> Any:
    try:
        import dask_cuda  # type: ignore[import-not-found]  # needs a card
    except ImportError:
        return None
    return dask_cuda


def _jobqueue() -> Any:
    try:
        import dask_jobqueue
        import dask_jobqueue.slurm
    except ImportError:
        raise MissingExtraError("jobs on Slurm need dask-jobqueue. Install it: pip install 'eosr[slurm]'") from None
    return dask_jobqueue


def arguments_of(site: Site, logs: Path) -> dict[str, Any]:
    """Arguments of dask_jobqueue.SLURMCluster."""
    extra = ["--preload", _PRELOAD, "--resources", "GPU=1"] if site.gpus else []
    more = [f"--gres=gpu:{site.gpus}"] if site.gpus else []
    told: dict[str, Any] = {
        "queue": site.partition, "account": site.account, "cores": site.cores, "memory": site.memory,
        "processes": site.processes, "walltime": site.walltime, "interface": site.interface,
        "job_extra_directives": [*more, *site.sbatch], "job_directives_skip": list(site.sbatch_skip),
        "job_script_prologue": [*_exports(), *site.prologue], "worker_extra_args": ["--nthreads", "1", *extra],
        "log_directory": str(logs), "local_directory": site.local_directory, "job_name": "eosr-batch",
        "death_timeout": 120,
    }  # fmt: skip
    if site.python:
        told["python"] = site.python
    options = {"interface": site.scheduler_interface, "dashboard_address": site.dashboard or ":0"}
    told["scheduler_options"] = {key: value for key, value in options.items() if value}
    return told


def _exports() -> list[str]:
    return [f"export DASK_{key.upper().replace('.', '__')}={value}" for key, value in _QUIET.items()]


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
        raise BatchError(f"Slurm takes no such job: {_words(asked.stderr)} Correct the site file.")


def _words(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip()) + "."


class SlurmJobs:
    """The jobs of a batch: as many as there are scenes left for, those that have ended replaced."""

    def __init__(self, cluster: Any, site: Site, logs: Path) -> None:
        self._cluster, self._site, self._logs = cluster, site, logs
        self._looked = 0.0
        #: Names of jobs that a worker came of, and jobs in a row that ended without one.
        self._came: set[Any] = set()
        self._stillborn = 0

    def __call__(self, left: int) -> None:
        """See to the jobs.

        Raises
        ------
        BatchError
            If jobs end again and again before a worker comes, with the last words of their log.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        wanted = min(self._site.jobs, max(1, -(-left // self._site.processes)))
        queued = _queued()
        if queued is None:
            return  # the controller does not answer; the jobs go on without it
        names = {str(one.get("name")).rsplit("-", 1)[0] if self._site.processes > 1 else str(one.get("name"))
                 for one in self._cluster.scheduler_info["workers"].values()}  # fmt: skip
        for name, job in list(self._cluster.workers.items()):
            if str(name) in names:
                self._came.add(name)
                self._stillborn = 0
            if job.job_id is not None and str(job.job_id) not in queued:
                if name not in self._came:
                    self._stillborn += 1
                    self._check_stillborn(job.job_id)
                # dask-jobqueue takes it for one that still runs.
                self._cluster.worker_spec.pop(name, None)
        self._cluster.scale(jobs=wanted)

    def _check_stillborn(self, number: str) -> None:
        if self._stillborn < _STILLBORN:
            return
        logs = sorted(self._logs.glob(f"*{number}*.err")) or sorted(self._logs.glob("*.err"))
        said = logs[-1].read_text(errors="replace").strip().splitlines()[-1:] if logs else []
        raise BatchError(
            f"{self._stillborn} jobs in a row ended before a worker came: {said[0] if said else 'no words'} (see "
            f"{self._logs}). Correct prologue, python or interface in the site file."
        )


def _queued() -> set[str] | None:
    """Numbers of the user's jobs that wait or run; None where Slurm does not answer."""
    asked = subprocess.run(
        ["squeue", "--me", "--noheader", "--format=%A", "--states=PENDING,RUNNING,CONFIGURING,SUSPENDED,REQUEUED"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return set(asked.stdout.split()) if asked.returncode == 0 else None
