"""Settings, windows, steps, ranks and records of training a generator."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "adapt": "adaptation",
    "run_training": "run",
    "load_config": "settings.config",
    "PatchStore": "prepare.store",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
