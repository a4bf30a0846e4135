"""Many scenes: what is to be done, by whom, and what came of it."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "run": "running",
    "plan": "planning",
    "BatchConfig": "planning",
    "Plan": "planning",
    "Report": "report",
    "Status": "report",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
