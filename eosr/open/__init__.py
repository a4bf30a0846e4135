"""STAC, SAFE, EOPF and cubes of other libraries, opened as one lazy Dataset."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "open_stac": "stac",
    "open_safe": "safe.product",
    "open_eopf": "eopf.product",
    "from_xarray": "cubes.adopt",
    "find_items": "catalogue.search",
    "by_tile": "stac",
    "of_tile": "stac",
    "Limits": "catalogue.web",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
