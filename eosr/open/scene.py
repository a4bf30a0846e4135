"""What eosr keeps of a STAC item: its files and the facts about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eosr.cube.offset import Offset


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file with one band on one grid."""

    band: str
    key: str
    href: str
    #: Pixel size [m] as the item states it: the group that the band joins.
    gsd: int
    #: Left and top edge [unit of the CRS].
    left: float
    top: float
    rows: int
    columns: int
    #: numpy name of the pixels' type.
    dtype: str = "uint16"

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top [unit of the CRS]."""
        bottom, right = self.top - self.rows * self.gsd, self.left + self.columns * self.gsd
        return self.left, bottom, right, self.top


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What one STAC item says about one image of one tile."""

    id: str
    collection: str
    level: str
    #: Lower case, e.g. ``"sentinel-2b"``; ``""`` if unknown.
    platform: str
    #: ISO 8601, UTC.
    datetime: str
    #: MGRS tile, e.g. ``"32TQM"``; ``""`` if unknown.
    tile: str
    #: Name of the SAFE product; ``""`` if unknown.
    product: str
    #: Start of the datatake, e.g. ``"20250731T131909"``: the same for every file ever made of one acquisition.
    datatake: str
    #: Start of the datastrip, e.g. ``"20250731T131905"``: the same for every file ever made of it; ``""`` if unknown.
    datastrip: str
    #: E.g. ``"05.11"``; ``""`` if unknown.
    processing_baseline: str
    offset: Offset
    epsg: int
    #: Left, bottom, right, top of the ground covered by every native band, whole 60 m pixels [unit of the CRS].
    bounds: tuple[float, float, float, float]
    #: Made by eosr: bands may be at 10 m that were not measured so.
    sharpened: bool
    created: str
    assets: Mapping[str, Asset] = field(repr=False)
    #: What eosr recorded when it made the item; empty for all others.
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
