"""A Dataset as Zarr, COGs and STAC items: whole or not there."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "to_zarr": "store",
    "to_cog": "cog",
    "to_stac_item": "item",
    "to_stac_items": "item",
    "deliver": "delivery",
    "Delivery": "delivery",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
