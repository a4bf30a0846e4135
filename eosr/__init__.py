"""Sharpen Sentinel-2: every band at 10 m, lazily, from STAC to COG, with the numbers that prove it.

Examples
--------
``import eosr``
``ds = eosr.open_stac("https://earth-search.aws.element84.com/v1", collection="sentinel-2-c1-l2a", bbox=...)``
``sharp = ds.s2sr.superresolve()``
``sharp.s2sr.to_cog("out")``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eosr._version import __version__ as __version__
from eosr.cli.commands import started_as  # from here on Ctrl-C ends a command that is still importing the rest
from eosr.host import doors

if not started_as():  # the commands call functions, and `eosr --help` answers without xarray
    from eosr import accessor as accessor  # registers `ds.s2sr`

if TYPE_CHECKING:
    from eosr.cube import degrade, project, to_reflectance
    from eosr.nn.weights import Weights, load_weights
    from eosr.open.cubes.adopt import from_xarray
    from eosr.open.eopf.product import open_eopf
    from eosr.open.safe.product import open_safe
    from eosr.open.stac import open_stac
    from eosr.score.evaluation import evaluate
    from eosr.sharpen.superresolution import superresolve
    from eosr.train.adaptation import adapt
    from eosr.write.cog import to_cog
    from eosr.write.item import to_stac_item
    from eosr.write.store import to_zarr

#: Public name -> module. Each is imported when it is first used: torch, GDAL and Zarr take seconds.
_NAMES = {
    "Weights": "nn", "adapt": "train", "degrade": "cube", "evaluate": "score", "from_xarray": "open",
    "load_weights": "nn", "open_eopf": "open", "open_safe": "open", "open_stac": "open", "project": "cube",
    "superresolve": "sharpen", "to_cog": "write", "to_reflectance": "cube", "to_stac_item": "write", "to_zarr": "write",
}  # fmt: skip

__all__ = [
    "Weights",
    "__version__",
    "adapt",
    "degrade",
    "evaluate",
    "from_xarray",
    "load_weights",
    "open_eopf",
    "open_safe",
    "open_stac",
    "project",
    "superresolve",
    "to_cog",
    "to_reflectance",
    "to_stac_item",
    "to_zarr",
]


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
