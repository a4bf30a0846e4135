"""Whether a file of a SAFE product is as it was delivered: by ``manifest.safe``, and by the CRC-32 of its archive.

JPEG 2000 that is damaged inside decodes without an error (docs/decisions/jpeg2000.md).
"""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO, Final

from eosr.errors import SourceError
from eosr.open.safe.files import AGAIN
from eosr.open.safe.metadata import Image

#: ``checksumName`` of manifests -> hashlib. SHA3-256 since 2021, MD5 before.
_ALGORITHMS: Final = {"SHA3-256": "sha3_256", "MD5": "md5"}
#: Files that this process has found to be whole, by address and stamp.
_WHOLE: Final = set[tuple[str, str]]()
_LOCKS: Final = dict[tuple[str, str], threading.Lock]()


def check_whole(image: Image) -> None:
    """Compare a file with its checksums, once per process; what has none passes.

    Raises
    ------
    SourceError
        If the file differs from them, or cannot be read.
    """
    key = image.href, image.stamp
    # Every block of a file comes here at once; one reads, the others wait.
    with _LOCKS.setdefault(key, threading.Lock()):
        if key not in _WHOLE:
            _check(image)
            _WHOLE.add(key)


def _check(image: Image) -> None:
    name, _, stated = image.checksum.partition(" ")
    inside = re.fullmatch(r"/vsizip/\{(.*)\}/(.*)", image.href)
    if name not in _ALGORITHMS and not inside:
        return
    try:
        if inside:
            with zipfile.ZipFile(inside[1]) as archive, archive.open(inside[2]) as file:
                found = _digest(name, file)  # at the end of the file zipfile compares the CRC-32
        else:
            with Path(image.href).open("rb") as file:
                found = _digest(name, file)
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(f"cannot read {image.href}: {error}. {AGAIN}") from None
    if found != stated and name in _ALGORITHMS:
        raise SourceError(
            f"{image.href} is damaged: its {name} is not the one in manifest.safe. {AGAIN[:-1]}; if the image was "
            "changed on purpose, remove manifest.safe."
        )


def _digest(name: str, file: IO[bytes]) -> str:
    digest = hashlib.new(_ALGORITHMS.get(name, "md5"), usedforsecurity=False)
    while part := file.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()
