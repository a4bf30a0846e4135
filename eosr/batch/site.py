"""A site file: where the workers of a batch come from. Read and checked here, used by `eosr.batch.cluster`."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

import yaml
from dask.utils import parse_bytes

from eosr.errors import BatchError

#: Site files that come with eosr.
SITES: Final = Path(__file__).parent / "sites"
_EXAMPLE: Final = SITES / "generic.yaml"
#: Memory that no node has [bytes].
_MOST: Final = 10**15
#: Jobs, processes and cores that no site has.
_COUNT: Final = 100_000
#: How the workers of a site come about.
KINDS: Final = ("local", "slurm", "slurm-runner")


@dataclass(frozen=True, kw_only=True)
class Site:
    """What a site file says; ``sites/generic.yaml`` explains every key."""

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
    #: Where the dashboard listens; None: at any port of this machine alone. It asks for no password: ``:8787`` opens it
    #: to everybody in the network.
    dashboard: str | None = None
    #: Whether scheduler, workers and eosr talk by TLS, with certificates made for this batch.
    tls: bool = False
    #: Folder on a node for what dask spills.
    local_directory: str | None = None

    @property
    def listens(self) -> str:
        """Where the dashboard listens."""
        return self.dashboard or "127.0.0.1:0"


def load_site(path: str | os.PathLike[str]) -> Site:
    """Read a site file.

    Parameters
    ----------
    path : path or str
        A file, or the name of one that comes with eosr: ``generic``, ``juwels-booster``, ``jureca``, ``runner``.

    Raises
    ------
    BatchError
        If it is not there or no YAML, has an unknown key or a value of another type, or contradicts itself.
    """
    known_sites = {one.stem: one for one in sorted(SITES.glob("*.yaml"))}
    file = known_sites.get(str(path), Path(path))
    try:
        told = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise BatchError(
            f"there is no site file {file} ({error.strerror}). Use one of {', '.join(known_sites)}, or copy one: "
            f"{_EXAMPLE}."
        ) from None
    except UnicodeDecodeError as error:
        raise BatchError(f"{file} is no text in UTF-8 (at byte {error.start}). Save it as such.") from None
    except RecursionError:
        raise BatchError(f"{file} is nested too deep for a site file. Copy {_EXAMPLE}.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: e.g. a date that there is not
        raise BatchError(f"{file} is no YAML: {' '.join(str(error).split())}. Correct it.") from None
    if not isinstance(told, dict):
        raise BatchError(f"{file} holds a {type(told).__name__}, not KEY: VALUE lines. Copy {_EXAMPLE}.")
    known = {one.name for one in fields(Site)}
    unknown = sorted(str(key) for key in set(told) - known)
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
    if isinstance(value, bool) != (hint is bool) or not isinstance(value, kinds):
        if value is None and type(None) in get_args(hint):
            return None
        raise BatchError(f"{file}: {key} is {value!r}, not {kinds[0].__name__}. Correct it.")
    return value


def _check(file: Path, site: Site) -> None:
    if site.kind not in KINDS:
        raise BatchError(f"{file}: kind is {site.kind!r}. Use one of {', '.join(KINDS)}.")
    if site.tls and site.kind == "slurm-runner":
        raise BatchError(f"{file}: tls is for kind slurm and local. Write tls: false, or kind: slurm.")
    for key in ("jobs", "processes", "cores"):
        if not 1 <= getattr(site, key) <= _COUNT:
            raise BatchError(f"{file}: {key} is {getattr(site, key)}. Give 1 to {_COUNT}.")
    try:
        memory = parse_bytes(site.memory)
    except (ValueError, OverflowError):
        memory = 0
    if not 0 < memory < _MOST:
        raise BatchError(f"{file}: memory is {site.memory!r}, no size of a node. Write e.g. memory: 16GB.")
    if site.gpus < 0 or (site.gpus and site.processes % site.gpus):
        raise BatchError(
            f"{file}: gpus is {site.gpus} and processes {site.processes}; every card takes one process, or as many as "
            f"the others. Write e.g. processes: {max(1, abs(site.gpus))}."
        )
