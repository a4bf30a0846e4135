"""The database of coordinate systems that rasterio and pyproj were installed with."""

from __future__ import annotations

import os
from functools import cache

import pyproj
from rasterio.crs import CRS
from rasterio.errors import CRSError

from eosr.errors import EosrError, first_line


@cache
def check_proj() -> None:
    """Make sure that rasterio and pyproj know coordinate systems: a variable may name the database of another program.

    Raises
    ------
    EosrError
        If it does; the message names the variable.
    """
    try:
        CRS.from_epsg(32632)
        pyproj.CRS.from_epsg(32632)
    except (CRSError, pyproj.exceptions.ProjError) as error:
        named = [name for name in ("PROJ_DATA", "PROJ_LIB") if name in os.environ]
        told = " and ".join(f"{name}={os.environ[name]}" for name in named) or "its installation"
        remedy = f"unset {' '.join(named)}" if named else "pip install --force-reinstall rasterio pyproj"
        raise EosrError(
            f"PROJ cannot use the database of coordinate systems that {told} leads to, which is that of another "
            f"program, or none ({first_line(error)}). Before the next start: {remedy}"
        ) from None
