"""What the tests of `eosr batch` share: scenes with items, a cluster, the bytes of a result."""

import hashlib
import json
import time
from contextlib import contextmanager
from pathlib import Path

from affine import Affine
from distributed import Client, LocalCluster

from eosr.batch import BatchConfig
from eosr.cube.bands import BANDS_20M
from eosr.cube.grid import crs_of, transform_of
from eosr.open.sample import write_catalog
from eosr.open.stac import open_stac
from support.patience import PATIENCE
from support.scenes import WrittenScene, write_cog, write_scene
from support.slowed import sitecustomize

#: Quick: no network, two bands.
QUICK = BatchConfig(method="bicubic", bands=("B05", "B11"), chunks=96)
#: Blocks of a scene come SLOW seconds apart.
SLOW_SITE = sitecustomize("eosr.write.blocks", "_write_block")


def write_items(folder: Path, count: int, *, size=180, base=None, level="L2A") -> list[dict]:
    """Write scenes of one tile, a day each, and return their items."""
    items = []
    for number in range(count):
        scene = write_scene(folder / f"scene-{number}", size=size, seed=number, level=level)
        items.append(item_of(scene, number, base=None if base is None else f"{base}/scene-{number}", level=level))
    return items


def item_of(scene, number, *, base=None, level="L2A", tile="32TQM", **more):
    day = f"2023-06-{number + 1:02d}"
    return scene.item(
        ident=f"S2A_{tile}_{day.replace('-', '')}_0_{level}", base=base, datetime=f"{day}T10:15:00Z",
        **({"s2:product_type": f"S2MSI{level[1:]}", "s2:mgrs_tile": tile} | more),
    )  # fmt: skip


def write_sample(folder: Path, *, size=180) -> dict:
    """Cut a piece of the real sample scene (L1C), and return its item."""
    ds = open_stac(write_catalog(folder / "catalog"))
    step = {"B01": 6, "B09": 6, "B10": 6} | dict.fromkeys(BANDS_20M, 2)
    corner, epsg = transform_of(ds, 10), crs_of(ds).to_epsg()
    pixels = {}
    for name, band in ds.data_vars.items():
        cut = size // step.get(name, 1)
        pixels[name] = band.isel(time=0).values[:cut, :cut]
        gsd = 10 * step.get(name, 1)
        write_cog(folder / f"{name}.tif", pixels[name], Affine(gsd, 0, corner.c, 0, -gsd, corner.f), epsg)
    written = WrittenScene(folder, pixels, corner.c, corner.f, epsg)
    # Taken in 2015 or 2016: no offset, and pixels say so.
    return item_of(written, 0, level="L1C", tile="18SVG", **{"s2:processing_baseline": "02.04"})


@contextmanager
def cluster(workers=2, **options):
    """Real worker processes, and a client."""
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None, **options) as started,
        Client(started) as client,
    ):
        if workers:
            client.wait_for_workers(workers)
        yield client


def pixels_of(out: Path) -> dict[str, str]:
    """SHA-256 of every image and every chunk below the folder of a batch."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((out / "scenes").rglob("*"))
        if path.is_file() and (path.suffix == ".tif" or "/c/" in str(path))
    }


def manifest_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def wait_for(condition):
    """Wait until a condition holds, and return what it gave."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found
