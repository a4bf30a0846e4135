"""Things to test with: synthetic scenes, small generators with random weights, and a scheduler that raises."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.ndimage import gaussian_filter

from eosr.cube.bands import BANDS, BANDS_10M, BANDS_20M, BANDS_60M, bands_of
from eosr.cube.grid import STEPS, from_arrays

#: A place in zone 32N where the three grids of a real tile start [m].
TRANSFORM: Final = (10.0, 0.0, 699960.0, 0.0, -10.0, 5000040.0)
EPSG: Final = 32632

#: Reflectance of four grounds (water, soil, crop, city) at the bands in spectral order [DN without offset].
_GROUNDS: Final = np.array(
    [
        [1250, 900, 650, 420, 350, 260, 230, 200, 180, 140, 15, 90, 60],
        [1450, 1300, 1500, 1900, 2150, 2300, 2450, 2550, 2700, 900, 20, 3300, 2900],
        [1200, 800, 950, 600, 1300, 3100, 3900, 4100, 4300, 1500, 25, 2100, 1000],
        [1700, 1900, 2000, 2150, 2250, 2350, 2450, 2600, 2650, 1000, 30, 2900, 2700],
    ]
)

#: Windows of nodata per band, in pixels of the band: ``{"B05": [(slice(3, 9), slice(0, 4))]}``.
Gaps = Mapping[str, Sequence[tuple[slice, slice]]]


def synthetic_bands(
    rows60: int, columns60: int, *, level: str = "L1C", seed: int = 0
) -> dict[str, npt.NDArray[np.float32]]:
    """Every band of one scene at 10 m, as no satellite sees it [DN without offset].

    Fields of four grounds with sharp borders, a relief that shades all bands alike, and fine texture: bands are
    correlated, but no band is a function of the others.

    Parameters
    ----------
    rows60, columns60 : int
        Size in pixels of 60 m.
    level : str
        ``"L1C"`` (with B10) or ``"L2A"``.
    seed : int
        The same seed gives the same scene.

    Returns
    -------
    dict of band name to ndarray, shape (6 * rows60, 6 * columns60)
    """
    rng = np.random.default_rng(seed)
    shape = (6 * rows60, 6 * columns60)
    # Voronoi fields: every pixel belongs to the ground whose smooth random surface is highest there.
    ground = np.argmax([gaussian_filter(rng.standard_normal(shape), 7.0) for _ in _GROUNDS], axis=0)
    shade = 1.0 + 0.15 * _surface(rng, shape, 20.0)
    bands = {}
    for index, name in enumerate(BANDS):
        texture = 1.0 + 0.04 * _surface(rng, shape, 0.8) + 0.03 * _surface(rng, shape, 3.0)
        if name in bands_of(level):
            image = _GROUNDS[ground, index] * shade * texture
            bands[name] = image.clip(1, 12000).astype(np.float32)
    return bands


def _surface(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> npt.NDArray[np.float64]:
    surface = gaussian_filter(rng.standard_normal(shape), sigma)
    return np.asarray((surface - surface.mean()) / max(float(surface.std()), 1e-12))


def synthetic_scene(
    rows60: int,
    columns60: int,
    *,
    level: str = "L1C",
    times: Sequence[Any] | None = None,
    chunks: int | None = None,
    gaps: Gaps | None = None,
    seed: int = 0,
    **attrs: Any,
) -> xr.Dataset:
    """Multi-resolution Dataset of a made-up scene, as `eosr.open_stac` returns it [DN].

    Parameters
    ----------
    rows60, columns60 : int
        Size in pixels of 60 m; the 10 m bands are six times as long.
    level : str
        ``"L1C"`` or ``"L2A"``.
    times : sequence of datetime64, optional
        One scene per time, each with its own ground; without it there is no dimension ``time``.
    chunks : int, optional
        Dask chunk in pixels of 10 m, a multiple of 6; without it the arrays are numpy.
    gaps : mapping, optional
        Windows of nodata per band, in pixels of that band.
    seed : int
        The same seed gives the same scene.
    **attrs
        Attributes of the Dataset, e.g. ``radiometric_offset=-1000`` (taken off the digital numbers), or a list with
        one per time.

    Returns
    -------
    Dataset
        uint16; coarse bands are block means of `synthetic_bands`, so no band is consistent with ``study`` by accident.

    Examples
    --------
    >>> synthetic_scene(4, 5, level="L2A").sizes["x10"]
    30
    """
    images = [
        _scene_arrays(rows60, columns60, level, seed + 1000 * i) for i in range(1 if times is None else len(times))
    ]
    recorded = attrs.get("radiometric_offset", 0)
    shift = list(recorded) if isinstance(recorded, Sequence) else [recorded] * len(images)
    arrays = {}
    for name in images[0]:
        stacked = np.stack([image[name] - offset for image, offset in zip(images, shift, strict=True)])
        digital = np.rint(stacked).clip(1, 65535).astype(np.uint16)
        for rows, columns in (gaps or {}).get(name, ()):
            digital[:, rows, columns] = 0
        arrays[name] = digital if times is not None else digital[0]
    ds = from_arrays(
        arrays, transform=TRANSFORM, crs=EPSG, level=level, time=times,
        **{"platform": "sentinel-2a", "item_ids": ["synthetic"], **attrs},
    )  # fmt: skip
    return ds if chunks is None else chunked(ds, chunks)


def _scene_arrays(rows60: int, columns60: int, level: str, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    arrays = {}
    for name, image in synthetic_bands(rows60, columns60, level=level, seed=seed).items():
        step = STEPS[BANDS[name].gsd]
        rows, columns = image.shape
        arrays[name] = image.reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    return arrays


def chunked(ds: xr.Dataset, size: int | None) -> xr.Dataset:
    """Dataset with dask chunks of ``size`` pixels of 10 m, and the same ground at 20 m and 60 m; None: one chunk."""
    sizes = {f"{axis}{group}": -1 if size is None else size // step for group, step in STEPS.items() for axis in "yx"}
    present = {dim: length for dim, length in {**sizes, "time": 1}.items() if dim in ds.dims}
    return ds.chunk(present)


class ComputedError(AssertionError):
    """Something was computed where everything should have stayed lazy."""


def never_compute(*_: Any, **__: Any) -> Any:
    """Dask scheduler that refuses to run; use it as ``dask.config.set(scheduler=never_compute)``.

    Raises
    ------
    ComputedError
        Always.
    """
    raise ComputedError("a graph was computed where everything should have stayed lazy")


@contextmanager
def nothing_computed() -> Iterator[None]:
    """Inside this block every computation of a dask graph raises `ComputedError`."""
    scheduler: Callable[..., Any] = never_compute
    with dask.config.set(scheduler=scheduler):
        yield


def random_weights(
    path: str | os.PathLike[str],
    *,
    factor: int = 2,
    kind: str = "back_projection",
    seed: int = 0,
    size: float = 1.0,
    levels: Sequence[str] = ("L1C", "L2A"),
    degradations: Sequence[str] = ("study", "box", "mtf", "mtf_diff"),
    **settings: Any,
) -> Path:
    """Write a small generator with random weights to a file: a harder test of tiling than a trained one.

    Parameters
    ----------
    path : path
        The weights file.
    factor : int
        2 (the 20 m bands) or 6 (the 60 m bands, guided by 10 m and 20 m).
    kind : str
        Any that `eosr.nn.kinds.build_generator` knows, e.g. ``"back_projection"`` or ``"study"``.
    seed : int
        Of the weights.
    size : float
        Standard deviation of a weight, relative to one over the square root of its inputs.
    levels, degradations
        What the file claims to serve.
    **settings
        Of the generator's configuration. Default: 8 features, 1 block and 2 stages for ``"back_projection"``, 16
        features and 1 block for ``"study"``, else the kind's own.
    """
    # Imported here: torch is needed by this function only.
    from eosr.nn.kinds import build_generator
    from eosr.nn.weights import Normalization, Provenance, Weights, save_weights

    targets, middle = (BANDS_20M, ()) if factor == 2 else (BANDS_60M, BANDS_20M)
    sizes = {"back_projection": {"features": 8, "blocks": 1, "stages": 2}, "study": {"features": 16, "blocks": 1}}
    small: dict[str, Any] = sizes.get(kind, {})
    shape = {"factor": factor, "targets": len(targets), "middle_guides": len(middle)}
    generator = build_generator(kind, {**small, **shape, **settings})
    rng = np.random.default_rng(seed)
    for parameter in generator.parameters():
        inputs = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
        deviation = size / np.sqrt(inputs) if parameter.dim() > 1 else 0.1 * size
        values = deviation * rng.standard_normal(tuple(parameter.shape))
        parameter.data.copy_(parameter.data.new_tensor(values.astype(np.float32)))
    norm = Normalization(fine_bands=BANDS_10M, middle_bands=middle, target_bands=targets, scale=2000.0)
    return save_weights(
        Weights(
            name=f"random-{factor}", generator=generator, normalization=norm, levels=tuple(levels),
            degradations=tuple(degradations),
            provenance=Provenance(software="eosr.testing", data={}, seed=seed, steps=0, scores={}),
        ),
        path,
    )  # fmt: skip
