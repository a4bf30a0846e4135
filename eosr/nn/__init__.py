"""Networks, their losses, and the file of weights. Torch only: nothing here knows xarray or dask."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "Weights": "weights",
    "load_weights": "weights",
    "save_weights": "weights",
    "interpolate": "interpolation",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
