"""The whole pipeline (COG -> sharpen -> Zarr or COG) against the bare networks on the same pixels, in one run.

    python benchmarks/overhead.py --size 3072 --chunk 1536 --repeat 3

The bare networks get the same pixels in tiles of the same size, already normalised in memory, without halo. Pipeline
and networks take turns, with the same number of torch threads. CPU seconds are what to read on a machine that others
use too. A last run of the pipeline, with clocks around its parts, tells where the rest goes.
"""

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import dask
import numpy as np
import torch
from measure import Clock, machine, report
from synthetic import write_scene

import eosr
from eosr.cube.bands import BANDS
from eosr.cube.degradation import blur_sigma
from eosr.host.memory import keep_freed_memory
from eosr.nn.weights import SHIPPED, load_weights

TARGET = 15.0


def tiles_of(item: Path, size: int, chunk: int) -> list[tuple]:
    """Normalised tensors of every tile for every generator, without halo."""
    pixels = {name: band.squeeze("time").values for name, band in eosr.open_stac(str(item)).data_vars.items()}
    calls = []
    for name in SHIPPED:
        weights = load_weights(name)
        norm, factor = weights.normalization, weights.factor
        sigma = torch.tensor([[blur_sigma(band, factor) for band in norm.target_bands]])
        for y in range(0, size, chunk):
            for x in range(0, size, chunk):

                def stack(bands, y=y, x=x, scale=norm.scale):
                    cut = [
                        pixels[b][
                            tuple(slice(a * 10 // BANDS[b].gsd, (a + chunk) * 10 // BANDS[b].gsd) for a in (y, x))
                        ]
                        for b in bands
                    ]
                    return torch.from_numpy(np.stack(cut)[None].astype(np.float32)) / scale if cut else None

                inputs = (stack(bands) for bands in (norm.fine_bands, norm.target_bands, norm.middle_bands))
                fine, coarse, middle = inputs
                calls.append((weights.generator, fine, coarse, sigma, middle))
    return calls


def networks(calls: list[tuple]) -> None:
    with torch.inference_mode():
        for generator, *inputs in calls:
            generator(*inputs)


def pipeline(item: Path, folder: Path, options: argparse.Namespace) -> None:
    ds = eosr.open_stac(str(item), chunks=options.chunk)
    sharp = eosr.superresolve(ds, consistency=not options.no_consistency, device="cpu")
    if options.format == "cog":
        eosr.to_cog(sharp, folder / "sharp", overwrite=True)
    else:
        eosr.to_zarr(sharp, folder / "sharp.zarr", overwrite=True)


class Parts:
    """CPU seconds that the threads of one pipeline spend in functions of it, each without those inside it."""

    def __init__(self) -> None:
        self.seconds = defaultdict(float)
        self._inner = threading.local()
        self._lock = threading.Lock()

    def around(self, function, name):
        def timed(*args, **kwargs):
            before, start = getattr(self._inner, "total", 0.0), time.thread_time()
            self._inner.total = 0.0
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                with self._lock:
                    self.seconds[name] += spent - self._inner.total
                self._inner.total = before + spent

        return timed


def where_it_goes(item: Path, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of CPU per part. Right for one torch thread: only then a network runs in the thread that called it."""
    import rasterio.shutil
    import zarr

    import eosr.nn.tile
    import eosr.open.reading
    import eosr.sharpen.tile
    import eosr.write.cog
    from eosr.nn.generator import BackProjectionGenerator

    parts = Parts()
    spots = [
        (eosr.open.reading.CheckedReader, "read", "read COG"),
        (eosr.sharpen.tile, "fill_gaps", "fill gaps"),
        (eosr.sharpen.tile, "project_tile", "projection"),
        (eosr.sharpen.tile, "as_dtype", "to uint16"),
        (eosr.sharpen.tile, "as_float_with_nan", "to float"),
        (eosr.sharpen.tile.TileTask, "__call__", "tile, rest"),
        (eosr.nn.tile, "sharpen", "normalise"),
        (BackProjectionGenerator, "forward", "network"),
        (zarr.Array, "__setitem__", "write Zarr"),
        (eosr.write.cog, "_write_plain", "Zarr to plain file"),
        (rasterio.shutil, "copy", "plain file to COG (this thread)"),
        (eosr.write.cog, "_check", "check COG"),
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    with ExitStack() as stack:
        for owner, name, label in spots:
            stack.enter_context(mock.patch.object(owner, name, parts.around(getattr(owner, name), label)))
        pipeline(item, folder, options)
    total = time.process_time() - cpu
    rest = total - sum(parts.seconds.values())
    return {**dict(sorted(parts.seconds.items(), key=lambda p: -p[1])), "other threads, dask": rest, "all": total,
            "wall": time.perf_counter() - wall}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=3072, help="10 m pixels along one side of the scene")
    parser.add_argument("--chunk", type=int, default=1536)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=1, help="threads of dask")
    parser.add_argument("--format", default="zarr", choices=["zarr", "cog"])
    parser.add_argument("--no-consistency", action="store_true")
    options = parser.parse_args()
    if options.size % 6 or options.chunk % 6:
        parser.error("--size and --chunk must be multiples of 6")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    facts = machine()
    with tempfile.TemporaryDirectory() as name, dask.config.set(scheduler="threads", num_workers=options.workers):
        folder = Path(name)
        item = write_scene(folder, options.size)
        calls = tiles_of(item, options.size, options.chunk)
        clock = Clock()
        networks(calls[:1])  # the first forward of a process chooses its kernels
        for turn in range(options.repeat):
            for what in ("pipeline", "networks")[:: 1 if turn % 2 else -1]:
                with clock.time(what):
                    if what == "pipeline":
                        pipeline(item, folder, options)
                    else:
                        networks(calls)
        parts = where_it_goes(item, folder, options) if options.threads == 1 else {}
    (full, full_wall), (bare, bare_wall) = clock.median("pipeline"), clock.median("networks")
    rows = [
        {"what": "bare networks", "CPU [s]": bare, "wall [s]": bare_wall, "over the networks [%]": 0.0},
        {"what": "pipeline", "CPU [s]": full, "wall [s]": full_wall, "over the networks [%]": 100 * (full / bare - 1)},
    ]
    base = parts.get("network", 0.0)
    for part, seconds in parts.items():
        row = {"what": f"- {part}", "CPU [s]": seconds, "wall [s]": "", "over the networks [%]": 100 * seconds / bare}
        if part == "network":
            row |= {"what": "- network, with halo", "over the networks [%]": 100 * (base / bare - 1)}
        rows.append(row)
    report(
        f"overhead of the pipeline, target <= {TARGET:g} %", rows, **vars(options), **facts,
        cpu=dict(clock.cpu), wall_all=dict(clock.wall),
    )  # fmt: skip


if __name__ == "__main__":
    main()
