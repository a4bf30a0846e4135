"""`eosr batch`: find the items, say what will be done, do it, and say what is missing."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from eosr.cli.commands import Parser, say
from eosr.cli.options import DEGRADATIONS, check_degradation, pairs, source_options, waiting
from eosr.errors import BatchError
from eosr.host.memory import cores


def add_options(command: Parser, sharpening: Any) -> None:
    """Options of `eosr batch`; ``sharpening`` adds those of how a scene is sharpened."""
    source_options(command)
    command.add_argument("out", metavar="OUT", help="folder for the results, seen by all workers")
    sharpening(command)
    group = command.add_argument_group("what is written")
    group.add_argument("--dtype", default="uint16", choices=["uint16", "float32"])
    group.add_argument("--format", default="cog", choices=["both", "cog", "zarr"], help="default: cog")
    group.add_argument("--clip", action="store_true", help="cut scenes at --bbox; without it they are made whole")
    group = command.add_argument_group("who works")
    group.add_argument(
        "--cluster",
        metavar="SITE",
        help="site file, or one that comes with eosr: generic, juwels-booster, jureca, runner; default: this machine",
    )
    group.add_argument("--workers", type=int, metavar="N", help="worker processes on this machine, without --cluster")
    group.add_argument(
        "--dashboard-address", metavar="HOST:PORT",
        help="where dask's dashboard listens (no password); default 127.0.0.1:0; :8787 is all addresses",
    )  # fmt: skip
    group.add_argument("--attempts", type=int, default=3, metavar="N", help="tries of a scene; default 3")
    group.add_argument("--backoff", type=float, default=10.0, metavar="S", help="pause before the second; default 10")
    group.add_argument(
        "--scene-timeout", type=float, default=0.0, metavar="S", help="longest time of a scene; default: no end"
    )
    group.add_argument(
        "--worker-timeout", type=float, default=600.0, metavar="S",
        help="longest time without a worker while no job waits in the queue; default 600",
    )  # fmt: skip
    group.add_argument("--sign", metavar="MODULE:FUNCTION", help="signs hrefs, e.g. planetary_computer:sign")
    group.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    group.add_argument("--yes", action="store_true", help="do not ask before more than 100 GB are written")
    group.add_argument("--verify", action="store_true", help="compare what is there by SHA-256, not by size")
    group.add_argument("--quiet", action="store_true", help="no progress")
    command.epilog = "Killed at any moment, the same command does what is missing. Exit status 1: something is."


def run_batch(options: argparse.Namespace, *, tell: Callable[[str], object]) -> int:
    """Do what the options say; 0 if every scene has a result."""
    from eosr.batch.checks import check_numbers
    from eosr.batch.running import LARGE, plan, run
    from eosr.batch.site import load_site
    from eosr.open.catalogue.search import find_items
    from eosr.write.layout import check_linkable, local_path

    out = local_path(options.out)
    check_linkable(out)
    check_degradation(options.degradation, "auto", *DEGRADATIONS, "sigma=NUMBER")
    check_numbers(
        attempts=options.attempts, backoff=options.backoff, threads=options.threads or 0,
        scene_timeout=options.scene_timeout, worker_timeout=options.worker_timeout,
    )  # fmt: skip
    if options.clip and not options.bbox:
        raise BatchError("--clip cuts scenes at --bbox, and there is none. Give --bbox, or leave --clip away.")
    if options.workers is not None and (options.cluster or options.workers < 1):
        raise BatchError("--workers takes 1 or more, and only without --cluster. Correct one of them.")
    site = load_site(options.cluster) if options.cluster else _here(options)
    site = replace(site, dashboard=options.dashboard_address or site.dashboard)
    config = _config(options)
    items = find_items(
        options.source, collection=options.collection, datetime=options.datetime, query=options.query,
        bbox=options.bbox if options.bbox and options.bbox_crs == "EPSG:4326" else None,
        max_cloud_cover=options.max_cloud_cover, **waiting(options),
    )  # fmt: skip
    planned = plan(_of_tile(items, options.tile), config)
    tell(str(planned))
    if planned.outside:
        tell(f"{len(planned.outside)} more lie outside of --bbox")
    for name, why in planned.odd.items():
        tell(f"set aside {name}: {why}")
    if options.dry_run:
        for scene in planned.scenes:
            tell(f"  {scene.name}: {', '.join(scene.bands)}, {scene.rows} x {scene.columns} pixels")
        return 0
    large = options.yes or planned.size <= LARGE or _asked(str(planned))
    try:
        with _ended_as_by_hand(), _shown(options.quiet) as show, _workers(site, out, quiet=options.quiet) as workers:
            report = run(
                planned, workers, out, config=config, attempts=options.attempts, backoff=options.backoff,
                threads=options.threads or _threads(site), scene_timeout=options.scene_timeout,
                worker_timeout=options.worker_timeout, large=large, verify=options.verify, progress=show,
            )  # fmt: skip
    except KeyboardInterrupt as stopped:
        say(stopped, end="\n" if str(stopped) else "", file=sys.stderr)
        raise
    if report.complete:
        tell(str(report))
        return 0
    say(report, file=sys.stderr)
    return 1


def _config(options: argparse.Namespace) -> Any:
    from eosr.batch.planning import BatchConfig

    return BatchConfig(
        bbox=tuple(options.bbox) if options.clip and options.bbox else None, bbox_crs=options.bbox_crs,
        chunks=options.chunks, offset=options.offset, alternate=options.alternate,
        sign=options.sign, bands=None if options.bands is None else tuple(options.bands),
        weights=None if options.weights is None else tuple(options.weights), method=options.method,
        options=pairs("--option", options.option, "psf=published"),
        consistency=False if options.no_consistency else None,
        degradation=options.degradation or "auto", device=options.device, dtype=options.dtype, format=options.format,
    )  # fmt: skip


def _of_tile(items: Any, tile: str | None) -> Any:
    from eosr.open.stac import by_tile, of_tile

    if tile is None:
        return items
    found = of_tile(items, tile)
    if not found:
        raise BatchError(f"no item of tile {tile} among those found; there are {', '.join(by_tile(items))}.")
    return found


def _here(options: argparse.Namespace) -> Any:
    """Workers of this machine, as a site file would say it; where cards are asked for, dealt out to the workers."""
    from eosr.batch.site import Site

    workers = options.workers or 1
    if not options.device.startswith("cuda"):
        return Site(processes=workers)
    from eosr.nn.tile import cards

    # Where there is none, its worker says so.
    return Site(processes=workers, gpus=min(workers, cards() or workers))


def _threads(site: Any) -> int:
    there = cores() if site.kind == "local" else site.cores
    return max(1, there // site.processes)


def _asked(what: str) -> bool:
    if not sys.stdin.isatty():
        return False
    return input(f"{what}. Begin? [y/N] ").strip().lower() in ("y", "yes")


@contextmanager
def _ended_as_by_hand() -> Iterator[None]:
    """Let SIGTERM, as at the end of the driver's own job, be as Ctrl-C: jobs are given back, the report is written."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _workers(site: Any, out: Path, *, quiet: bool) -> Iterator[Any]:
    """What starts the workers of a site, told how many scenes there are to make (see `eosr.batch.run`)."""
    from eosr.batch.cluster import dashboard_of, workers_of

    @contextmanager
    def started(left: int) -> Iterator[Any]:
        with workers_of(site, out.absolute() / "logs" / "slurm", left) as (client, keep):
            if not quiet:
                link = dashboard_of(client, site)
                say(f"dashboard: {link}" if link else "no dashboard; for one: pip install bokeh", file=sys.stderr)
            yield client, keep

    if site.kind != "slurm-runner":
        yield started
        return
    # Here each task of the job finds out whether it is eosr, or a worker of it; but for one of them it ends here.
    with started(0) as both:
        yield lambda left: nullcontext(both)


@contextmanager
def _shown(quiet: bool) -> Iterator[Any]:
    """Show how far it is: a bar on a terminal, a line per event elsewhere."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda status: say(
            f"[{status.seconds:7.0f} s] {status.done}/{status.scenes} {status.news}", file=sys.stderr
        )
        return
    from eosr.host.progress import bar

    with bar("scenes") as tell:

        def show(status: Any) -> None:
            at = f"{len(status.running)} at work, {status.failed} failed, {status.workers} workers"
            tell(status.done, status.scenes, at, status.news)

        yield show
