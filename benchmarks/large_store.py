"""Memory of a rank that draws windows from a store of 1.5 million patches.

    python benchmarks/large_store.py --out FOLDER [--patches 1500000] [--windows 2000]

One scene of 512 patches is written as `eosr-train prepare` writes it; all other scenes of the store are hard links to
its files, so the disk holds a hundred megabytes while the reader sees, opens and checks every file of the whole. A
process of its own draws windows and says what it took; a second store of the one scene alone tells how much of that is
libraries.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from eosr.train.data.material import open_material
from eosr.train.data.stream import stream
from eosr.train.data.windows import WindowConfig
from eosr.train.prepare.shards import FORMAT, ShardWriter, new_arrays, write_attributes
from eosr.train.prepare.store import PatchStore, SceneRecord
from eosr.train.settings.schema import TrainConfig

PER_SCENE, PATCH, MARGIN = 512, 144, 36


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=1_500_000)
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--read", type=Path, help="internal: draw from this store and print what it took")
    options = parser.parse_args()
    if options.read:
        print(json.dumps(drawn(options.read, options.windows)))
        return
    print(
        "| patches | scenes | opened [s] | table [s] | windows/s | peak memory [MB] |\n|---:|---:|---:|---:|---:|---:|"
    )
    for scenes in (1, -(-options.patches // PER_SCENE)):
        path = write_store(options.out / f"large-{scenes}.zarr", scenes)
        command = [sys.executable, __file__, "--out", options.out, "--read", path, "--windows", str(options.windows)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"| {found['patches']} | {scenes} | {found['open']:.1f} | {found['table']:.1f} | {found['rate']:.1f} | "
            f"{found['peak']:.0f} |", flush=True,
        )  # fmt: skip


def write_store(path: Path, scenes: int) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    side = PATCH + 2 * MARGIN
    first = path / "scenes" / "00000"
    rng = np.random.default_rng(1)
    group = new_arrays(first, PER_SCENE, (side, side), has_60m=True)
    writer = ShardWriter(group=group)
    for number in range(PER_SCENE):
        patch = {
            key: (1500 + 200 * rng.standard_normal((bands, 1, 1)) + 30 * rng.standard_normal((bands, n, n))).astype(
                "i2"
            )
            for key, bands, n in (("x10", 4, side), ("x20", 6, side // 2), ("x60", 2, side // 6))
        }
        writer.add(patch | {"usable": np.ones((side, side), bool), "place": np.array([6 * number, 36])})
    record = SceneRecord(
        name="scene", level="L2A", platform="sentinel-2a", tile="32TQM", item_ids=("scene",), offset=0,
        patches=PER_SCENE, drawn=PER_SCENE, rejected={}, checksum=writer.finish(),
    )  # fmt: skip
    for number in range(1, scenes):
        shutil.copytree(first, path / "scenes" / f"{number:05d}", copy_function=os.link)
    records = [asdict(replace(record, name=f"scene-{number}")) for number in range(scenes)]
    settings = {"patch": PATCH, "margin": MARGIN}
    about = {"format": FORMAT, "settings": settings, "scenes": records, "validation": [], "checksum": record.checksum}
    write_attributes(path, about)
    return path


def drawn(path: Path, windows: int) -> dict[str, float]:
    began = time.perf_counter()
    config = TrainConfig(name="large", window=WindowConfig(size=72))
    material = open_material(path, config)
    opened = time.perf_counter()
    table = PatchStore(path).table
    tabled = time.perf_counter()
    with stream(material.source, seed=1, batch=config.batch, place=(0, 1), readers=1) as batches:
        for number in range(windows // config.batch):
            batches.batch(number)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "patches": len(table), "open": opened - began, "table": tabled - opened, "rate": windows / (ended - tabled),
        "peak": peak,
    }  # fmt: skip


if __name__ == "__main__":
    main()
