"""What the tests of `eosr-train prepare` share: cubes of several places, a configuration, the files of a store."""

import hashlib
from pathlib import Path

from eosr.testing import synthetic_scene
from eosr.train.prepare.config import PrepareConfig, load_prepare_config
from eosr.write import to_zarr

OFFSET = -1000
CONFIG = """
name = "made"
seed = 5
patch = 72
margin = 36
per_scene = 20
[filter]
cloud = 1.0
[split]
validation = 0.3
size = 144
[[source]]
kind = "cube"
paths = ["{cubes}/*.zarr"]
"""


def placed_scene(east_km=0.0, *, rows60=40, columns60=36, **how):
    """A synthetic scene of 240 x 216 pixels of 10 m, moved to the east."""
    ds = synthetic_scene(rows60, columns60, **({"level": "L2A", "radiometric_offset": OFFSET} | how))
    return ds.assign_coords({dim: ds[dim] + 1000 * east_km for dim in ds.dims if str(dim).startswith("x")})


def write_cubes(folder: Path) -> Path:
    """Four images of three tiles 30 km apart; the last two are of one tile, the first of these has a hole."""
    for number, tile in enumerate(("31AAA", "32BBB", "33CCC", "33CCC")):
        gaps = {"B05": [(slice(0, 40), slice(0, 40))]} if number == 2 else None
        ds = placed_scene(30 * min(number, 2), seed=number, item_ids=[f"{tile}-{number}"], tile=tile, gaps=gaps)
        to_zarr(ds, folder / f"{number}.zarr")
    return folder


def write_config(path: Path, cubes: object, **changes: str) -> PrepareConfig:
    """Write the configuration with some lines replaced, ``seed__5="seed = 6"``, and load it."""
    text = CONFIG.format(cubes=cubes)
    for before, after in changes.items():
        old = before.replace("__", " = ")
        assert text.count(old) == 1, old
        text = text.replace(old, after)
    path.write_text(text)
    return load_prepare_config(path)


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip
