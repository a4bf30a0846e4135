"""Public names of a package that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def find(package: str, names: Mapping[str, str], name: str) -> Any:
    """Import a public name, for the ``__getattr__`` of a package (PEP 562).

    Parameters
    ----------
    package : str
        Name of the package.
    names : mapping
        Public name -> module below the package that defines it.
    name : str
        What was asked for.

    Raises
    ------
    AttributeError
        If the package has no such name.
    """
    if name not in names:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(f"{package}.{names[name]}"), name)
