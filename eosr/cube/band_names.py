"""Names by which STAC, Earth Engine and data cubes call the bands of Sentinel-2, and what only looks like one.

A name that nearly is one of these is never left out in silence: half of the bands would be sharpened without the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from eosr.cube.bands import BANDS
from eosr.errors import BandError

#: Names by colour, without "_", "-" and blanks. "swir1" and "swir2" are not among them: the data cube of Australia
#: calls B11 swir_2, that of Africa swir_1.
_COLOURS: Final = {
    "coastal": "B01", "coastalaerosol": "B01", "blue": "B02", "green": "B03", "red": "B04", "rededge1": "B05",
    "rededge2": "B06", "rededge3": "B07", "rededge071": "B05", "rededge075": "B06", "rededge078": "B07", "nir": "B08",
    "nir1": "B08", "nir08": "B8A", "nir2": "B8A", "nirnarrow": "B8A", "nir09": "B09", "cirrus": "B10",
    "swir16": "B11", "swir22": "B12",
}  # fmt: skip
#: What names carry behind the band: pixel size, or file format.
_SUFFIX: Final = re.compile(r"[_-](10m|20m|60m|jp2|tif)$", re.IGNORECASE)
#: B2 of Earth Engine, which leaves zeros out.
_NUMBER: Final = re.compile(r"b0?(\d{1,2}a?)")
#: Without "_", "-", blanks and dots: with what stands before and behind the bands in data cubes and composites.
_NEARLY: Final = re.compile(
    r"(nbart|nbar|sr|boa|toa|s2|sentinel2)*"
    r"(b(and)?\d{1,3}a?|coastal\w*|aerosol|blue|green|red|rededge\w*|re\d|\w*nir\w*|swir\w*|watervapou?r|cirrus)"
    r"(mean|median|min|max)?"
)
_LIKELY: Final = {"swir1": "B11", "swir2": "B12", "swir3": "B12", "watervapour": "B09", "watervapor": "B09"}


def band_named(text: str) -> str | None:
    """Band that a name means beyond doubt, or None.

    Examples
    --------
    >>> band_named("B8A_20m"), band_named("B2"), band_named("red_edge_1"), band_named("swir_1"), band_named("SCL")
    ('B8A', 'B02', 'B05', None, None)
    """
    name = _squeezed(text)
    number = _NUMBER.fullmatch(name)
    band = f"B{number[1].upper().zfill(2)}" if number else _COLOURS.get(name, "")
    return band if band in BANDS else None


def nearly_band(text: str) -> str | None:
    """Band that a name may mean, ``"B.."`` where nothing tells which; None for what is a band, or no name of one.

    Examples
    --------
    >>> nearly_band("swir_1"), nearly_band("B4_median"), nearly_band("band_7"), nearly_band("SCL"), nearly_band("B04")
    ('B11', 'B04', 'B..', None, None)
    """
    name = _squeezed(text)
    if band_named(text) or not _NEARLY.fullmatch(name):
        return None
    if name in _LIKELY:
        return _LIKELY[name]
    inner = re.sub(r"^(nbart|nbar|sr|boa|toa|s2|sentinel2)+|(mean|median|min|max)$", "", name)
    return band_named(inner) or "B.."


def check_not_nearly(names: Iterable[str], axis: str = "") -> None:
    """Refuse a variable, or an entry along the dimension ``axis``, whose name is nearly that of a band.

    Raises
    ------
    BandError
        With the lines that rename it or leave it out.
    """
    for name in names:
        near = nearly_band(name)
        if near is None:
            continue
        lines = f"ds.rename({{{name!r}: {near!r}}})", f"ds.drop_vars({name!r})"
        if axis:
            renamed = f"[{{{name!r}: {near!r}}}.get(b, b) for b in ds.{axis}.values]"
            lines = f"ds.assign_coords({axis}={renamed})", f"ds.drop_sel({axis}={name!r})"
        raise BandError(
            f"{name} is nearly the name of a band. Say which it is, {lines[0]}, or leave it out, {lines[1]}."
        )


def _squeezed(text: str) -> str:
    return re.sub(r"[\s_.-]", "", _SUFFIX.sub("", text.strip())).lower()
