"""Tiles over HTTP -> `eosr batch` -> COGs: time, memory, bytes read, and what it costs beside the bare networks.

    python benchmarks/region.py                                              # one whole tile, in one process
    python benchmarks/region.py --size 2196 --tiles 1,3,9 --ways threads,workers,slurm   # whether cost grows

Bands lie as COGs with overviews (blocks of 1024, as on AWS) behind an HTTP server in a process of its own. Ways:
``threads``: one dask worker whose scenes have all cores; ``threads:2``: two that share them; ``workers``: as many
workers as cores, a core each; ``slurm``: as many jobs on a Slurm of this machine (takes root and Debian's Slurm, see
tests/hpc).

The networks alone get `--sample` tiles, already normalised in memory, without halo, before and after each run, with
one thread of torch, which takes the least CPU time; the mean is scaled to the area. CPU seconds are those of the
processes of the scenes: all that starting, reading, sharpening and writing take.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean

import psutil
import rasterio
import torch
from measure import cpu_seconds, machine, report
from overhead import networks, tiles_of
from serving import served
from synthetic import write_scene

import eosr.host.memory
from eosr.batch import BatchConfig, run
from eosr.batch.cluster import workers_of
from eosr.batch.site import Site
from eosr.host.memory import keep_freed_memory

OVERHEAD, READ = 10.0, 1.25
FIRST = "32TQM"  # name of the first tile
SLURM = Path(__file__).parents[1] / "tests" / "hpc" / "slurm_local.sh"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10980, help="10 m pixels along one side of a tile")
    parser.add_argument("--tiles", default="1", help="numbers of tiles, e.g. 1,3,9")
    parser.add_argument("--ways", default="threads")
    parser.add_argument("--chunk", type=int, help="of the pipeline; default: that of the batch")
    parser.add_argument("--block", type=int, default=1024, help="of the COGs that are read")
    parser.add_argument(
        "--sample", type=int, default=2, help="tiles of 1536 pixels that the networks alone get each time; 0: none"
    )
    parser.add_argument("--method", help="e.g. bicubic, to try the script")
    parser.add_argument("--format", default="cog")
    parser.add_argument(
        "--trace", type=float, default=0, metavar="S", help="print every S seconds what the machine does"
    )
    parser.add_argument("--device", default="cpu", help="cuda: one card, and how busy it is is told too")
    options = parser.parse_args()
    counts = [int(one) for one in options.tiles.split(",")]
    ways = options.ways.split(",")
    keep_freed_memory()  # as the processes of the scenes do: the networks alone shall not be slower for it
    facts, cores = machine(), eosr.host.memory.cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(served(folder))
        items = []
        first = write_scene(folder / FIRST, options.size, block=options.block, tile=FIRST)
        for number in range(max(counts)):
            tile = f"32T{'QRSTUVWXY'[number]}M"
            if tile != FIRST:  # the same pixels, elsewhere
                shutil.copytree(folder / FIRST, folder / tile, copy_function=os.link)
            items.append(json.loads(first.read_text().replace(FIRST, tile)))
            for asset in items[-1]["assets"].values():
                asset["href"] = f"{server.url}/{tile}/{asset['href'].removeprefix('./')}"
        size = bytes_of(folder / tile)
        config = BatchConfig(chunks=options.chunk, method=options.method, format=options.format, device=options.device)
        environ = stack.enter_context(slurm()) if "slurm" in ways else {}
        calls, pixels = sample_of(options.size, options.sample) if options.sample else ([], 1)
        rows = []
        for way in ways:
            kind, _, told = way.partition(":")
            processes = int(told or 1) if kind == "threads" else cores
            threads = cores // processes
            for count in counts:
                bare = [timed(calls, pixels)]
                with (
                    ready(kind, processes, folder, environ, options.device) as (client, keep),
                    traced(options.trace) as busy,
                ):
                    sent, requests = server.sent.value, server.requests.value
                    began, cpu = time.perf_counter(), cpu_seconds()
                    out = folder / f"out-{kind}-{processes}-{count}"
                    done = run(items[:count], client, out, config=config, threads=threads, keep=keep)
                    wall, driver = time.perf_counter() - began, cpu_seconds() - cpu
                if not done.complete:
                    raise SystemExit(str(done))
                bare.append(timed(calls, pixels))
                rows.append(row_of(way, count, done, wall, driver, mean(bare), server.sent.value - sent, size))
                rows[-1] |= {"cores busy [%]": busy[0]} | (
                    {"card busy [%]": busy[1]} if options.device == "cuda" else {}
                )
                print(rows[-1], "bare", bare, "requests", server.requests.value - requests, flush=True)
    report(f"tiles of {options.size} px over HTTP to {options.format}", rows, **vars(options), **facts, input=size)


def row_of(way, count, done, wall, driver, bare, sent, size) -> dict[str, object]:
    return {
        "way": way, "tiles": count, "wall [s]": wall, "CPU [s]": done.cpu, "driver CPU [s]": driver,
        "CPU [s/km2]": done.cpu / done.area, "networks alone [CPU s/km2]": bare,
        f"over the networks [%], target {OVERHEAD:g}": 100 * (done.cpu / done.area / bare - 1),
        "largest process [GB]": done.memory / 1e9,
        f"read / input, target {READ:g}": sent / (size * count),
    }  # fmt: skip


def bytes_of(folder: Path) -> int:
    """Size of the images of all bands without their overviews [byte]."""
    total = 0
    for path in folder.glob("*.tif"):
        with rasterio.open(path) as file:
            ((height, width),) = file.block_shapes
            for y in range(-(-file.height // height)):
                for x in range(-(-file.width // width)):
                    total += int(file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1))
    return total


def sample_of(size: int, count: int) -> tuple[list[tuple], int]:
    """Calls of the networks for some tiles of 1536 px, or what a smaller scene has; 10 m pixels of them."""
    chunk = min(1536, size)
    with tempfile.TemporaryDirectory() as name:
        item = write_scene(Path(name), count * chunk, cog=False)
        calls = tiles_of(item, count * chunk, chunk)
    per_network = len(calls) // 2
    return [*calls[:count], *calls[per_network : per_network + count]], count * chunk**2


def timed(calls: list[tuple], pixels: int) -> float:
    """CPU seconds of the networks alone, per km2."""
    if not calls:
        return float("nan")
    torch.set_num_threads(1)
    networks(calls[:1])
    before = cpu_seconds()
    networks(calls)
    return (cpu_seconds() - before) / (pixels * 1e-4)


@contextmanager
def traced(step: float) -> Iterator[list[float]]:
    """Mean share of the time that the cores, and a card, are busy [%]; filled in at the end."""
    ended, looks, found = threading.Event(), [], []
    began = time.perf_counter()
    psutil.cpu_times_percent()

    def look() -> None:
        while not ended.wait(step or 1):
            now = psutil.cpu_times_percent()
            looks.append((100 - now.idle, torch.cuda.utilization() if torch.cuda.is_available() else 0))
            if step:
                memory = psutil.virtual_memory().used / 1e9
                print(
                    f"{time.perf_counter() - began:6.1f} s: cores {looks[-1][0]:.0f} %, of it system {now.system:.0f}; "
                    f"card {looks[-1][1]} %; {memory:.1f} GB",
                    flush=True,
                )

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()
        found += [mean(one) for one in zip(*looks, strict=True)] or [0.0, 0.0]


@contextmanager
def ready(way: str, processes: int, folder: Path, environ: dict[str, str], device: str) -> Iterator[tuple]:
    """Workers of one way, and what sees to them."""
    if way == "slurm":
        os.environ.update(environ)
        site = Site(kind="slurm", jobs=processes, cores=1, memory="3GB", partition="test", interface="lo",
                    scheduler_interface="lo", walltime="04:00:00")  # fmt: skip
        with workers_of(site, folder / "logs") as (client, keep):
            client.wait_for_workers(processes)
            yield client, keep
        return
    site = Site(processes=processes, gpus=1 if device == "cuda" else 0)
    with workers_of(site, folder / "logs") as (client, _):
        yield client, None


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """A Slurm of this machine; the variables that let sbatch find it."""
    folder = Path("/tmp") / f"eosr-slurm-{os.getpid()}"
    environ = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run(["bash", SLURM, "up", folder], env=os.environ | environ, check=True)
    try:
        yield environ
    finally:
        subprocess.run(["bash", SLURM, "down", folder], env=os.environ | environ, check=False)


if __name__ == "__main__":
    main()
