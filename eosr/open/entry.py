"""What a path or address is before it is read: STAC, a folder of it, a product in a format of its own, or an image."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path
from typing import Final

from eosr.errors import SourceError

#: Files that are looked for in a folder, and files that are images rather than STAC.
_ENTRIES: Final = ("catalog.json", "collection.json")
_IMAGES: Final = (".tif", ".tiff", ".jp2", ".nc", ".safetensors")
#: What to say of a tar archive.
TAR: Final = "a tar archive, and pixels cannot be read inside of one. Unpack it (tar xf), and name the .SAFE folder."
#: Files that tell a product, at its root or in the folders of its archive.
_SAFE: Final = re.compile(r"(.*/)?(MTD_MSI\w+|S2._[A-Z]{4}_MTD_SAFL\w+)\.xml")
_ZARR: Final = re.compile(r"([^/]+/)?(\.zgroup|zarr\.json)")


def opener_of(source: str | Path) -> str:
    """Function of eosr that opens what is no STAC but a product: ``"open_safe"``, ``"open_eopf"``, else ``""``.

    Parameters
    ----------
    source : str or Path
        Path or address. A folder or a zip archive is told by what it holds, whatever its name; an address by its name.
    """
    name = str(source).rstrip("/")
    if re.search(r"\.SAFE(\.zip)?$", name, re.IGNORECASE) or _SAFE.fullmatch(name.rpartition("/")[2]):
        return "open_safe"
    if "://" in name:
        return "open_eopf" if name.lower().endswith(".zarr") else ""
    path = Path(name).expanduser()
    try:
        if path.is_dir():
            if any(_SAFE.fullmatch(one.name) for one in path.iterdir()):
                return "open_safe"
            attributes = (path / one for one in ("zarr.json", ".zattrs"))
            return (
                "open_eopf" if any(b"stac_discovery" in one.read_bytes() for one in attributes if one.is_file()) else ""
            )
        names = _names_in(path)
    except OSError:
        return ""  # who reads it will say so
    if any(map(_SAFE.fullmatch, names)):
        return "open_safe"
    return "open_eopf" if any(map(_ZARR.fullmatch, names)) else ""


def _names_in(path: Path) -> list[str]:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return []
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except zipfile.BadZipFile:
        return []


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, packed or not."""
    try:
        return tarfile.is_tarfile(path)
    except OSError:
        return False


def entry(href: str) -> str:
    """The file to read: of a folder the catalogue in it.

    Raises
    ------
    SourceError
        If it is an image, a product or an archive, or a folder without a catalogue; with what to do instead.
    """
    name = href.rstrip("/")
    opener = opener_of(href)
    if opener:
        kind = "a SAFE" if opener == "open_safe" else "an EOPF"
        raise SourceError(f"{href} is {kind} product, and no STAC. Open it with eosr.{opener}({name!r}).")
    if name.lower().endswith(".zarr"):
        raise SourceError(
            f"{href} is a Zarr store, and no STAC. Open one that eosr wrote with xr.open_zarr({name!r}, "
            "decode_coords='all'), and an EOPF product with eosr.open_eopf."
        )
    if name.lower().endswith(_IMAGES):
        raise SourceError(
            f"{href} holds pixels, and no STAC. Give the .json of the STAC item that lists the file; arrays become a "
            "Dataset with eosr.cube.from_arrays."
        )
    folder = Path(href)
    if "://" in href or not folder.is_dir():
        if "://" not in href and _names_in(folder):
            raise SourceError(
                f"{href} is a zip archive, with neither a SAFE nor an EOPF product at its root, and no STAC. Unpack "
                "it, and give what it holds."
            )
        if "://" not in href and is_tar(folder):
            raise SourceError(f"{href} is {TAR}")
        return href
    for one in _ENTRIES:
        if (folder / one).is_file():
            return str(folder / one)
    files = sorted(path.name for path in folder.glob("*.json"))
    if not files:
        raise SourceError(f"the folder {href} holds no STAC: no .json. Give the path of an item or a catalogue.")
    raise SourceError(
        f"the folder {href} holds no catalog.json. Name the file to open, e.g. {folder / files[0]}"
        + (f" (there are {len(files)})." if len(files) > 1 else ".")
    )
