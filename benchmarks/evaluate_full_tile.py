"""Evaluation of a whole 10980 x 10980 tile: peak memory of one process, and time, with a progress bar.

    python benchmarks/evaluate_full_tile.py                        # bicubic and detail injection, all bands
    python benchmarks/evaluate_full_tile.py --size 5490            # a quarter, to see that memory does not grow
    python benchmarks/evaluate_full_tile.py --property consistency # the answers are as large as the tile

The tile is made up and is never whole in memory: it is written as one raster per band first and read through
`eosr.open_stac`, as a real one would be. Memory is the largest resident set of the process, sampled 100 times a second,
less what it had when the evaluation began.
"""

import argparse
import tempfile
import time
from pathlib import Path

import dask
import numpy as np
from measure import cpu_seconds, machine, report
from synthetic import write_scene

import eosr
from eosr.host.memory import PeakMemory

TARGET_GB = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=10980)
    parser.add_argument("--chunk", type=int, default=1536)
    parser.add_argument("--methods", nargs="*", default=["detail_injection"])
    parser.add_argument("--bands", nargs="*", help="default: every 20 m and 60 m band")
    parser.add_argument("--property", default="synthesis")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory() as name, dask.config.set(num_workers=options.threads):
        item = write_scene(Path(name), options.size, cog=False)
        ds = eosr.open_stac(str(item), chunks=options.chunk)
        wall, cpu = time.perf_counter(), cpu_seconds()
        with PeakMemory() as memory:
            table = eosr.evaluate(
                ds, options.methods, bands=options.bands, property=options.property, progress=True
            )  # fmt: skip
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    rows = [
        {"what": "evaluation: growth of the process [GB]", "value": memory.grown / 1e9, "target": f"< {TARGET_GB:g}"},
        {"what": "evaluation [wall s]", "value": wall, "target": ""},
        {"what": "evaluation [CPU s]", "value": cpu, "target": ""},
    ]
    rmse = table.summary_overall.sel(metric="rmse", average="mean", projection="before").squeeze()
    memory_of, seconds_of = (table[name].values.ravel() for name in ("peak_memory", "seconds"))
    rows += [
        {"what": f"{label}: growth [GB], work [s], RMSE before the projection [DN]", "target": "",
         "value": f"{float(m) / 1e9:.2f}, {float(s):.1f}, {', '.join(f'{x:.2f}' for x in np.atleast_1d(r))}"}
        for label, m, s, r in zip(table.method.values, memory_of, seconds_of, rmse.values, strict=True)
    ]  # fmt: skip
    report(f"evaluation of a tile of {options.size} px", rows, **vars(options), **facts)


if __name__ == "__main__":
    main()
