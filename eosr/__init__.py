"""Sharpen Sentinel-2: every band at 10 m, lazily, from STAC to COG, with the numbers that prove it.

Examples
--------
``import eosr``
``ds = eosr.open_stac("https://earth-search.aws.element84.com/v1", collection="sentinel-2-c1-l2a", bbox=...)``
``sharp = ds.s2sr.superresolve()``
``sharp.s2sr.to_cog("out")``
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from eosr import commands as commands  # first: from here on Ctrl-C ends a command that is still importing the rest

# isort: split
from eosr import accessor as accessor  # registers `ds.s2sr`
from eosr.adapt import adapt
from eosr.consistency import project
from eosr.degrade import degrade
from eosr.eopf import open_eopf
from eosr.evaluate import evaluate
from eosr.foreign import from_xarray
from eosr.radiometry import to_reflectance
from eosr.safe import open_safe
from eosr.stac import open_stac
from eosr.superresolve import superresolve
from eosr.write import to_cog, to_stac_item, to_zarr

if TYPE_CHECKING:
    from eosr.nn.weights import Weights, load_weights

# Names that need torch: found on first use, because `import eosr` must not import torch.
_LAZY = {"load_weights": "eosr.nn.weights", "Weights": "eosr.nn.weights"}

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
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'eosr' has no attribute {name!r}")
