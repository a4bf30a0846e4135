"""A lazy Dataset in, all its bands at 10 m out."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "superresolve": "superresolution",
    "METHODS": "methods",
    "method_facts": "methods",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
