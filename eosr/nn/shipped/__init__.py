"""Where weights files lie, and their checksums: all that those need who only hand weights on, without torch."""

from __future__ import annotations

import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import Final

from eosr.errors import WeightsError

#: The generators that come with eosr, best first.
SHIPPED: Final = ("s2sr-20m", "s2sr-60m")


def weights_path(source: str | os.PathLike[str]) -> Path:
    """Path of a shipped weights file by name, or the path itself.

    Raises
    ------
    WeightsError
        If it is neither a shipped name nor a file.
    """
    if str(source) in SHIPPED:
        return Path(str(resources.files("eosr.nn.shipped") / f"{source}.safetensors"))
    path = Path(source)
    if not path.is_file():
        raise WeightsError(
            f"{str(source)!r} is neither a weights file nor the name of shipped weights. "
            f"Shipped: {', '.join(map(repr, SHIPPED))}."
        )
    return path


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
