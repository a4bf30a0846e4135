"""A site file's workers, and a dask client to them: processes of this machine, jobs on Slurm, or the tasks of one."""

from __future__ import annotations

import logging
import multiprocessing
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Final

import dask

from eosr.batch.jobs import SlurmJobs, check_job, slurm_cluster
from eosr.batch.site import Site
from eosr.errors import BatchError, MissingExtraError, OutputError, first_line

#: Module that gives every worker process of a job one card of it.
_PRELOAD: Final = "eosr.batch.gpu"
#: A worker only waits for the process of its scene. Looking at its own stack a hundred times a second, and at its event
#: loop fifty times, would take a tenth of a core for as long.
_QUIET: Final = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "500ms"}


@contextmanager
def workers_of(site: Site, logs: Path, left: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Start the workers of a site; give a client, and what sees to them (see ``keep`` of `eosr.batch.run`).

    Parameters
    ----------
    site : Site
    logs : Path
        Folder for what jobs print.
    left : int, optional
        Number of scenes that are to be made: there are never more jobs.

    Raises
    ------
    BatchError
        With Slurm's own words, if it takes no such job; if the site file names an interface or an address that this
        machine does not have, or asks for the tasks of a job outside of one.
    MissingExtraError
        If dask-jobqueue is not installed.
    """
    # First its defaults: set before they are there, a setting takes all of them along when it ends.
    import distributed  # noqa: F401

    start = {"local": _local, "slurm": _slurm, "slurm-runner": _runner}[site.kind]
    # Nannies hand their settings on to their workers, jobs get them in their environment.
    with dask.config.set(_QUIET), start(site, logs, site.jobs * site.processes if left is None else left) as both:
        yield both


def dashboard_of(client: Any, site: Site) -> str:
    """Address of the dashboard of a client's scheduler, and who can open it; empty where it cannot be served."""
    try:
        import distributed.dashboard.core  # noqa: F401  # needs bokeh, and one that is not too old
    except ImportError:
        return ""
    link = str(client.dashboard_link or "")
    host = site.listens.rpartition(":")[0]
    if not link or host in ("", "0.0.0.0", "[::]"):
        return link and f"{link} (open to everybody in the network, without a password)"
    # dask tells the address of the scheduler, where it need not listen.
    return re.sub(r"//[^/]*(?=:\d+/)", f"//{host}", link)


@contextmanager
def _local(site: Site, logs: Path, left: int) -> Iterator[tuple[Any, Any]]:
    from distributed import Client, LocalCluster

    # dask-cuda, where it is installed, gives every worker a card of its own and the cores beside it.
    cuda = _dask_cuda() if site.gpus == site.processes else None
    cards = {"resources": {"GPU": 1}} | ({} if cuda else {"preload": [_PRELOAD]}) if site.gpus else {}
    made = cuda.LocalCUDACluster if cuda else LocalCluster
    _check_semaphores()
    with ExitStack() as stack:
        with _deaf():
            cluster = stack.enter_context(
                made(
                    n_workers=site.processes, threads_per_worker=1, dashboard_address=site.listens,
                    memory_limit=None, local_directory=site.local_directory,
                    silence_logs=logging.CRITICAL,  # what happens to workers and scenes is told by eosr
                    **cards, **_security(site),
                )
            )  # fmt: skip
        yield stack.enter_context(Client(cluster)), lambda left: ""


def _check_semaphores() -> None:
    """Find out now whether processes can be started: dask's wait for each other by semaphores, which are files."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (ImportError, OSError) as error:
        raise BatchError(
            f"workers cannot be started: there are no semaphores on this machine ({first_line(error)}). Make /dev/shm "
            "writable, e.g. mount -o remount,rw /dev/shm, of a container with --shm-size=1g."
        ) from None


@contextmanager
def _deaf() -> Iterator[None]:
    """Threads and processes that are started meanwhile do not hear Ctrl-C; this one does when it is over.

    A terminal sends it to all of them, and dask's workers would answer with screens of tracebacks. They end with us.
    """
    resource_tracker.ensure_running()  # with the first process, it would let that one hear again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _runner(site: Site, logs: Path, left: int) -> Iterator[tuple[Any, Any]]:
    from distributed import Client

    jobqueue = _jobqueue()
    # By this signal dask-jobqueue ends the tasks that are not eosr itself, when all is done.
    before = signal.signal(signal.SIGINT, lambda *_: sys.exit())
    try:
        runner = jobqueue.slurm.SLURMRunner(scheduler_options={"dashboard_address": site.listens})
    except RuntimeError as error:
        raise BatchError(
            f"kind: slurm-runner is for the tasks of a job: {first_line(error)}. Type srun -n 6 eosr batch ... inside "
            "one, or give a site file of kind: slurm."
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
    with runner, Client(runner) as client:
        yield client, lambda left: ""


@contextmanager
def _slurm(site: Site, logs: Path, left: int) -> Iterator[tuple[Any, Any]]:
    from distributed import Client

    jobqueue = _jobqueue()
    _check_interface(site)
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{logs} cannot be made: {error.strerror}. Name another folder.") from error
    try:
        started = slurm_cluster(jobqueue, arguments_of(site, logs) | _security(site))
    except (OSError, RuntimeError, ValueError) as error:
        raise BatchError(
            f"dask's scheduler does not start: {first_line(error)}. Correct scheduler_interface, interface or "
            "dashboard in the site file."
        ) from error
    with started as cluster:
        check_job(cluster.job_script())
        jobs = SlurmJobs(cluster, site, logs)
        jobs(left)
        with Client(cluster) as client:
            yield client, jobs


def _security(site: Site) -> dict[str, Any]:
    """Certificates that hold for this batch, handed to the jobs in files that only their owner reads."""
    if not site.tls:
        return {}
    from distributed.security import Security

    try:
        return {"security": Security.temporary()}
    except ImportError:
        raise MissingExtraError("tls: true in a site file needs cryptography. Run: pip install 'eosr[slurm]'") from None


def _check_interface(site: Site) -> None:
    key = "scheduler_interface" if site.scheduler_interface else "interface"
    name, there = getattr(site, key), sorted(name for _, name in socket.if_nameindex())
    if name and name not in there:
        raise BatchError(
            f"there is no network interface {name} here, which {key} in the site file names for dask's scheduler; "
            f"there are {', '.join(there)}. Write e.g. scheduler_interface: {there[-1] if there else 'ib0'}."
        )


def _dask_cuda() -> Any:
    try:
        import dask_cuda  # type: ignore[import-not-found]  # needs a card
    except ImportError:
        return None
    return dask_cuda


def _jobqueue() -> Any:
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
        import dask_jobqueue.slurm
    except ImportError:
        raise MissingExtraError("jobs on Slurm need dask-jobqueue. Install it: pip install 'eosr[slurm]'") from None
    if signal.getsignal(signal.SIGINT) is not before:
        # dask-jobqueue, when it is imported, makes Ctrl-C end this process with status 0.
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def arguments_of(site: Site, logs: Path) -> dict[str, Any]:
    """Arguments of dask_jobqueue.SLURMCluster."""
    extra = [
        "--nthreads",
        "1",
        "--no-dashboard",
        *(["--preload", _PRELOAD, "--resources", "GPU=1"] if site.gpus else []),
    ]
    more = [f"--gres=gpu:{site.gpus}"] if site.gpus else []
    told: dict[str, Any] = {
        "queue": site.partition, "account": site.account, "cores": site.cores, "memory": site.memory,
        "processes": site.processes, "walltime": site.walltime, "interface": site.interface,
        "job_extra_directives": [*more, *site.sbatch], "job_directives_skip": list(site.sbatch_skip),
        "job_script_prologue": [*_exports(), *site.prologue], "worker_extra_args": extra,
        "log_directory": str(logs), "local_directory": site.local_directory, "job_name": "eosr-batch",
        "death_timeout": 120, "shared_temp_directory": str(logs),
    }  # fmt: skip
    if site.python:
        told["python"] = site.python
    options = {"interface": site.scheduler_interface, "dashboard_address": site.listens}
    told["scheduler_options"] = {key: value for key, value in options.items() if value}
    return told


def _exports() -> list[str]:
    return [f"export DASK_{key.upper().replace('.', '__')}={value}" for key, value in _QUIET.items()]
