"""A whole 10980 x 10980 tile: time and size of the graph, and peak memory of dask workers that run a part of it.

    python benchmarks/full_tile.py            # 2 x 2 chunks of 1536, on 2 worker processes
    python benchmarks/full_tile.py --all      # the whole tile: about an hour on 2 cores

Memory is the resident set of every worker, sampled 20 times a second; `besides the model` is what it has grown by since
torch and the weights were loaded. Without ``--all`` only the pixels that are used are on disk.
"""

import argparse
import resource
import tempfile
import threading
import time
from pathlib import Path

import psutil
from distributed import Client, LocalCluster
from measure import machine, report
from synthetic import write_scene

import eosr

SIZE, HALO = 10980, 400
TARGET_GB, TARGET_S = 3.0, 2.0


def load_model() -> float:
    """Load what every worker needs anyway; the CPU seconds that its process has used so far."""
    import torch

    from eosr.nn.weights import SHIPPED, load_weights

    torch.set_num_threads(1)
    for name in SHIPPED:
        load_weights(name)
    return cpu_of_worker()


def cpu_of_worker() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Sampler(threading.Thread):
    """Largest resident set of some processes, each and together [GB]."""

    def __init__(self, pids: list[int]) -> None:
        super().__init__(daemon=True)
        self.processes = {pid: psutil.Process(pid) for pid in pids}
        self.peak, self.together = dict.fromkeys(pids, 0.0), 0.0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            now = {pid: process.memory_info().rss / 1e9 for pid, process in self.processes.items()}
            self.peak = {pid: max(self.peak[pid], gb) for pid, gb in now.items()}
            self.together = max(self.together, sum(now.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--chunk", type=int, default=1536)
    parser.add_argument("--part", type=int, default=2, help="chunks along one side that are run")
    parser.add_argument("--all", action="store_true", help="run the whole tile")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--graph-only", action="store_true")
    options = parser.parse_args()
    side = options.size if options.all else min(options.size, options.part * options.chunk)
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filled = None if options.all else min(options.size, side + HALO)
        item = write_scene(folder, options.size, filled=0 if options.graph_only else filled, cog=False)
        eosr.superresolve(eosr.open_stac(str(item), chunks=options.chunk), device="cpu")  # imports, weights
        start = time.process_time()
        ds = eosr.open_stac(str(item), chunks=options.chunk)
        opened = time.process_time()
        sharp = eosr.superresolve(ds, device="cpu")
        built = time.process_time()
        tasks = len(sharp.__dask_graph__())
        rows = [
            {"what": "open_stac [CPU s]", "value": opened - start, "target": ""},
            {"what": "superresolve, graph only [CPU s]", "value": built - opened, "target": f"< {TARGET_S:g}"},
            {"what": "tasks", "value": tasks, "target": ""},
        ]
        if not options.graph_only:
            part = sharp.isel(y10=slice(0, side), x10=slice(0, side))
            rows += run(part, folder / "sharp.zarr", options.workers)
    report(f"a tile of {options.size} px, {side} px of it run", rows, **vars(options), **facts)


def run(part, target: Path, workers: int) -> list[dict]:
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        cpu_before = client.run(load_model)
        pids = list(client.run(lambda: __import__("os").getpid()).values())
        empty = [psutil.Process(pid).memory_info().rss / 1e9 for pid in pids]
        sampler, start = Sampler(pids), time.perf_counter()
        sampler.start()
        eosr.to_zarr(part, target)
        wall = time.perf_counter() - start
        sampler.stopped.set()
        sampler.join()
        cpu = sum(client.run(cpu_of_worker).values()) - sum(cpu_before.values())
    besides = sampler.together - sum(empty)
    rows = [{"what": f"worker {i}: with the model only [GB]", "value": gb, "target": ""} for i, gb in enumerate(empty)]
    rows += [{"what": f"worker {i}: peak [GB]", "value": sampler.peak[pid], "target": ""} for i, pid in enumerate(pids)]
    rows += [
        {"what": "all workers: peak of the sum [GB]", "value": sampler.together, "target": ""},
        {"what": "all workers: besides the model [GB]", "value": besides, "target": f"< {TARGET_GB:g}"},
        {"what": "workers [CPU s]", "value": cpu, "target": ""},
        {"what": "run [wall s]", "value": wall, "target": ""},
    ]
    return rows


if __name__ == "__main__":
    main()
