"""The version of eosr, importable by every module."""

from typing import Final

__version__: Final = "0.1.0"
