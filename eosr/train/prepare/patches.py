"""Where training patches lie in a scene, and which of them are of use: reproducible, in phase with the 60 m grid.

Every corner is a multiple of six 10 m pixels, so that the 20 m and 60 m pixels of a patch are whole ones of the scene
(the phase rule); otherwise the degraded pixels of a patch would not be those of the degraded scene.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pyproj import CRS, Transformer

from eosr.errors import GridError

#: 10 m pixels of a 60 m pixel: corners are multiples of it.
PHASE: Final = 6


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where a scene lies."""

    crs: CRS
    #: Edges [unit of the CRS].
    left: float
    bottom: float
    right: float
    top: float
    #: Middle [deg].
    longitude: float
    latitude: float


@dataclass(frozen=True, kw_only=True)
class PatchFilter:
    """Which patches are left out. Margins count too: they are context."""

    #: Largest share of pixels without data in any band [1].
    nodata: float = 0.0
    #: Largest share of saturated pixels in any band [1].
    saturated: float = 0.0
    #: Largest share of pixels that are cloud, cloud shadow or cirrus [1]; 1: not looked at.
    cloud: float = 0.05
    #: Leave out patches of which any band has one value only.
    constant: bool = True


def patch_places(
    rows: int, columns: int, *, patch: int, margin: int, count: int | None, seed: int, name: str
) -> npt.NDArray[np.int64]:
    """Corners of the cores of patches [10 m pixels], shape (n, 2), from the top down.

    Parameters
    ----------
    rows, columns : int
        Size of the scene [10 m pixels].
    patch, margin : int
        Side of the core and width of the context around it [10 m pixels]; multiples of 6.
    count : int or None
        Places drawn at random, without one twice; all there are where there are fewer. None: cores side by side.
    seed : int
        Of the run.
    name : str
        Of the scene: another scene gets other places from the same seed.

    Raises
    ------
    GridError
        If the scene is smaller than one patch with its margin.
    """
    least = patch + 2 * margin
    if min(rows, columns) < least:
        raise GridError(
            f"{name} has {rows} x {columns} pixels of 10 m, a patch with its margin {least}. Give a smaller patch or "
            "margin, or a larger scene."
        )
    step = patch if count is None else PHASE
    heights = np.arange(margin, rows - margin - patch + 1, step)
    widths = np.arange(margin, columns - margin - patch + 1, step)
    total = len(heights) * len(widths)
    if count is None or count >= total:
        chosen = np.arange(total)
    else:
        # The name as numbers: the same on every machine, unlike hash().
        rng = np.random.default_rng([seed, *name.encode()])
        chosen = np.sort(rng.choice(total, count, replace=False))
    return np.stack([heights[chosen // len(widths)], widths[chosen % len(widths)]], axis=1)


def sees_ground_of(places: npt.NDArray[np.int64], side: int, ground: Ground, other: Ground) -> npt.NDArray[np.bool_]:
    """Which squares share ground with another scene; in another CRS also those that only come near it.

    Parameters
    ----------
    places : ndarray of int, shape (n, 2)
        Corners of the squares in the scene at ``ground`` [10 m pixels].
    side : int
        Of the squares [10 m pixels].
    ground, other : Ground
        The scene of the squares, and the other one.
    """
    if not _are_near(ground, other):
        return np.zeros(len(places), bool)
    x = ground.left + 10.0 * (places[:, 1] + side / 2)
    y = ground.top - 10.0 * (places[:, 0] + side / 2)
    reach = 10.0 * side / 2
    if ground.crs != other.crs:
        x, y = Transformer.from_crs(ground.crs, other.crs, always_xy=True).transform(x, y)
        # The square is turned there by an angle nobody needs to know, and a little longer or shorter.
        reach *= 1.01 * math.sqrt(2)
    across = (x + reach > other.left) & (x - reach < other.right)
    return np.asarray(across & (y + reach > other.bottom) & (y - reach < other.top))


def _are_near(one: Ground, other: Ground) -> bool:
    """Whether two scenes may touch; far away from its zone a projection gives any number."""
    a, b = (np.radians((ground.longitude, ground.latitude)) for ground in (one, other))
    arc = np.sin((a[1] - b[1]) / 2) ** 2 + np.cos(a[1]) * np.cos(b[1]) * np.sin((a[0] - b[0]) / 2) ** 2
    diagonals = sum(math.hypot(ground.right - ground.left, ground.top - ground.bottom) for ground in (one, other))
    # 1.1: metres of a projection are not quite those of the sphere. 5000 m: small scenes beside each other.
    return bool(2 * 6_371_000 * np.arcsin(np.sqrt(min(arc, 1.0))) < 1.1 * diagonals / 2 + 5000)


def why_rejected(bands: Mapping[str, npt.NDArray[Any]], cloudy: npt.NDArray[np.bool_] | None, kept: PatchFilter) -> str:
    """Name of the first rule of the filter that a patch breaks; empty where it breaks none.

    Parameters
    ----------
    bands : mapping of band name to array, (y, x)
        Digital numbers as measured: 0 = nodata, 65535 = saturated.
    cloudy : ndarray of bool, or None
        Cloud, cloud shadow or cirrus, on any grid; None: not known.
    kept : PatchFilter
    """
    images = bands.values()
    if any(np.mean(image == 0) > kept.nodata for image in images):
        return "nodata"
    if any(np.mean(image == 65535) > kept.saturated for image in images):
        return "saturated"
    if cloudy is not None and kept.cloud < 1 and np.mean(cloudy) > kept.cloud:
        return "cloud"
    if kept.constant and any(image.min() == image.max() for image in images):
        return "constant"
    return ""
