"""What Sentinel-2 is: 13 bands, their pixel size, wavelength, width, and MTF at Nyquist per satellite.

Sources
-------
[1] ESA, Sentinel-2 MSI User Guide: band table (central wavelength, bandwidth, pixel size).
[2] MTF of Sentinel-2A as printed in the code of Lanaras et al. (SupReME, CVPRW 2017) and Ulfarsson et al. (S2Sharp,
    TGRS 2019), after the L1C Data Quality Report S2-PDGS-MPC-DQR.
[3] MTF used by Armannsson et al. (Remote Sensing 13(11):2192, 2021), from a later Data Quality Report; taken here
    for Sentinel-2B (an inference: the report itself could not be read).
No published MTF of Sentinel-2C was found; the mean of 2A and 2B stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from eosr.errors import BandError

#: Digital numbers per unit reflectance [DN].
QUANTIFICATION: Final = 10000
#: Side of a tile on the ground [m]: 10980 pixels of 10 m.
TILE_SIDE: Final = 109_800
#: The digital number that means "no measurement" in L1C and L2A.
NODATA: Final = 0
#: The largest digital number: the instrument's products have 15 bits. What lies between this and `SATURATED` is a
#: negative number that wrapped around where somebody took an offset off in uint16.
LARGEST: Final = 32767
#: The digital number that means "saturated" in the metadata of L1C and L2A.
SATURATED: Final = 65535
#: Offset of processing baselines 04.00 and later: reflectance = (DN + OFFSET) / QUANTIFICATION [DN].
BASELINE_0400_OFFSET: Final = -1000


@dataclass(frozen=True, kw_only=True)
class Band:
    """One spectral band of the MultiSpectral Instrument."""

    name: str
    #: Pixel size on the ground [m].
    gsd: int
    #: Central wavelength of Sentinel-2A [nm], source [1].
    wavelength: float
    #: Bandwidth (full width at half maximum) of Sentinel-2A [nm], source [1].
    width: float
    #: The STAC `eo` common name.
    common_name: str
    #: Modulation transfer function at this band's own Nyquist frequency [1], by satellite, sources [2] and [3].
    mtf: MappingProxyType[str, float]
    #: Processing levels that hold the band.
    levels: tuple[str, ...] = ("L1C", "L2A")


def _band(name: str, gsd: int, wavelength: float, width: float, common: str, a: float | None, b: float | None) -> Band:
    mtf = {} if a is None or b is None else {"sentinel-2a": a, "sentinel-2b": b, "sentinel-2c": round((a + b) / 2, 4)}
    levels = ("L1C",) if name == "B10" else ("L1C", "L2A")
    return Band(
        name=name, gsd=gsd, wavelength=wavelength, width=width, common_name=common, mtf=MappingProxyType(mtf),
        levels=levels,
    )  # fmt: skip


#: Every band by its SAFE name, in spectral order. B10 (cirrus) has no published MTF in [2] and [3].
BANDS: Final = MappingProxyType(
    {
        band.name: band
        for band in (
            _band("B01", 60, 442.7, 21, "coastal", 0.32, 0.34),
            _band("B02", 10, 492.4, 66, "blue", 0.26, 0.25),
            _band("B03", 10, 559.8, 36, "green", 0.28, 0.27),
            _band("B04", 10, 664.6, 31, "red", 0.24, 0.25),
            _band("B05", 20, 704.1, 15, "rededge071", 0.38, 0.42),
            _band("B06", 20, 740.5, 15, "rededge075", 0.34, 0.35),
            _band("B07", 20, 782.8, 20, "rededge078", 0.34, 0.35),
            _band("B08", 10, 832.8, 106, "nir", 0.26, 0.26),
            _band("B8A", 20, 864.7, 21, "nir08", 0.33, 0.36),
            _band("B09", 60, 945.1, 20, "nir09", 0.26, 0.25),
            _band("B10", 60, 1373.5, 31, "cirrus", None, None),
            _band("B11", 20, 1613.7, 91, "swir16", 0.22, 0.20),
            _band("B12", 20, 2202.4, 175, "swir22", 0.23, 0.24),
        )
    }
)

BANDS_10M: Final = ("B02", "B03", "B04", "B08")
BANDS_20M: Final = ("B05", "B06", "B07", "B8A", "B11", "B12")
#: The 60 m bands that are sharpened. B10 sees cirrus, not the ground: no 10 m band knows its detail.
BANDS_60M: Final = ("B01", "B09")
#: Every band eosr delivers at 10 m, in spectral order.
SHARP_BANDS: Final = tuple(name for name in BANDS if name != "B10")
#: Satellites with an MTF in `BANDS`.
PLATFORMS: Final = ("sentinel-2a", "sentinel-2b", "sentinel-2c")
LEVELS: Final = ("L1C", "L2A")


def bands_of(level: str) -> tuple[str, ...]:
    """Names of the bands that products of a processing level hold, in spectral order.

    Parameters
    ----------
    level : str
        ``"L1C"`` (13 bands) or ``"L2A"`` (12 bands: no B10).

    Raises
    ------
    BandError
        If the level is neither.

    Examples
    --------
    >>> "B10" in bands_of("L1C"), "B10" in bands_of("L2A")
    (True, False)
    """
    if level not in LEVELS:
        raise BandError(f"{level!r} is not a processing level eosr knows. Use one of {', '.join(LEVELS)}.")
    return tuple(name for name, band in BANDS.items() if level in band.levels)


def check_bands(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple once every one is a band of Sentinel-2.

    Raises
    ------
    BandError
        If a name is no band; the message proposes the spelling of SAFE and STAC (``B04``, ``B8A``).

    Examples
    --------
    >>> check_bands(["B04", "B8A"])
    ('B04', 'B8A')
    """
    if isinstance(names, str):
        names = (names,)
    checked = tuple(names) if isinstance(names, Iterable) else (names,)
    for name in checked:
        if not (isinstance(name, str) and name in BANDS):
            raise BandError(f"{name!r} is not a band of Sentinel-2. Known bands: {', '.join(BANDS)}.")
    repeated = sorted({name for name in checked if checked.count(name) > 1})
    if repeated:
        raise BandError(f"band {', '.join(repeated)} is asked for more than once. Name every band once.")
    return checked


def mtf_at_nyquist(name: str, platform: str = "sentinel-2a") -> float:
    """Modulation transfer function of one band at its own Nyquist frequency [1].

    Parameters
    ----------
    name : str
        Band, e.g. ``"B8A"``.
    platform : str
        ``"sentinel-2a"``, ``"sentinel-2b"`` or ``"sentinel-2c"`` (mean of the two others), any case.

    Raises
    ------
    BandError
        If the band or the satellite is unknown, or the band has no published value (B10).

    Examples
    --------
    >>> mtf_at_nyquist("B8A")
    0.33
    """
    (name,) = check_bands([name])
    table = BANDS[name].mtf
    if not table:
        raise BandError(f"band {name} has no published MTF, so it cannot be degraded by it. Leave {name} out.")
    if platform.lower() not in table:
        raise BandError(f"no MTF is known for satellite {platform!r}. Use one of {', '.join(PLATFORMS)}.")
    return table[platform.lower()]
