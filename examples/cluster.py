"""Sharpen a window of the sample scene on two worker processes, and write it as Zarr.

    python examples/cluster.py [FOLDER] [SIDE]

SIDE is the side of the window in 10 m pixels (default 1080). Point `Client` at any other cluster, and nothing else
changes; FOLDER must then lie on a disk that all workers see.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dask.distributed import Client, LocalCluster

import eosr
from eosr.open.sample import write_catalog

#: Top-left corner of the window [m, UTM 18N].
LEFT, TOP = 438180, 4169820


def main(folder: Path, side: int = 1080) -> Path:
    """Write ``folder/sharp.zarr`` and return its path."""
    # Two workers share the cores; torch must not take all of them twice. Workers inherit this.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))
    catalog = write_catalog(folder / "catalogue")
    window = (LEFT, TOP - 10 * side, LEFT + 10 * side, TOP)
    ds = eosr.open_stac(catalog, bbox=window, bbox_crs="item", chunks=max(360, side // 2 // 6 * 6))
    sharp = ds.s2sr.superresolve()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
        return sharp.s2sr.to_zarr(folder / "sharp.zarr", overwrite=True)


# The guard is needed: worker processes import this file.
if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "cluster-output")
    print(main(out, *map(int, sys.argv[2:3])))
