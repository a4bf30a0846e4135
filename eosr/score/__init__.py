"""Wald's protocol: methods, scenes and operators in, one table out."""

from typing import Any, Final

from eosr.host import doors

_NAMES: Final = {
    "evaluate": "evaluation",
    "Exhibit": "report.page.exhibit",
    "write_report": "report.page.write",
    "exhibits": "report.exhibits",
    "paper_tables": "report.study",
    "to_markdown": "report.formats",
    "to_csv": "report.formats",
    "to_json": "report.formats",
    "to_latex": "report.formats",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    return doors.find(__name__, _NAMES, name)
