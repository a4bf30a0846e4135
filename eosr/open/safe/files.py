"""The files of a product in the SAFE format: a folder, or a zip archive that is read without being unpacked."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from eosr.errors import SourceError
from eosr.open.entry import TAR, is_tar

#: What helps against a product that is not whole.
AGAIN: Final = "Get the product again."
_PACKED: Final = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma"}
#: Longest file of metadata or polygons that is read [bytes]; those of ESA have some megabytes.
_LONGEST: Final = 100_000_000
_MANIFEST: Final = "manifest.safe"
#: Products of before December 2016 (PSD 13 and earlier), with all tiles of a datatake in one.
_OLD: Final = re.compile(r"(^|/)S2._[A-Z]{4}_MTD_SAFL\w+\.xml$")


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files of one product, in a folder or in a zip archive."""

    where: Path
    #: Folder of the product inside ``where``: ``""`` or ``"S2B_....SAFE/"``.
    top: str
    #: Name below ``top`` to stamp.
    stamps: Mapping[str, str] = field(repr=False)

    def href(self, name: str) -> str:
        """What GDAL opens. Braces: the archive need not be called ``.zip``."""
        root = f"/vsizip/{{{self.where}}}" if self.where.is_file() else str(self.where)
        return f"{root}/{self.top}{name}"

    @cached_property
    def checksums(self) -> Mapping[str, str]:
        """What ``manifest.safe`` states by name below ``top``, e.g. ``"SHA3-256 2a8730..."``; it may be missing."""
        found = dict[str, str]()
        for stream in self.xml(_MANIFEST).iterfind(".//{*}byteStream") if _MANIFEST in self.stamps else ():
            place, stated = stream.find("{*}fileLocation"), stream.find("{*}checksum")
            if place is not None and stated is not None:
                name = place.attrib.get("href", "").replace("\\", "/").removeprefix("./")
                found[name] = f"{stated.attrib.get('checksumName', '').upper()} {(stated.text or '').strip().lower()}"
        return found

    def one(self, pattern: str, what: str) -> str:
        """Name of the only file that matches.

        Raises
        ------
        SourceError
            If there is none, or several.
        """
        found = [name for name in self.stamps if re.search(pattern, name)]
        if len(found) != 1:
            raise SourceError(f"{self.where} holds {len(found) or 'no'} {what}, so it is no whole product. {AGAIN}")
        return found[0]

    def xml(self, name: str) -> ElementTree.Element:
        """Root element of one file."""
        try:
            return ElementTree.fromstring(read_bytes(str(self.where), self.top + name))
        except ElementTree.ParseError as error:
            raise SourceError(f"{name} in {self.where} is damaged: {error}. {AGAIN}") from None


def read_bytes(where: str, name: str) -> bytes:
    """Content of one file in a folder or an archive.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    try:
        if Path(where).is_dir():
            _check_size(where, name, Path(where, name).stat().st_size)
            return Path(where, name).read_bytes()
        with zipfile.ZipFile(where) as archive:
            _check_size(where, name, archive.getinfo(name).file_size)
            return archive.read(name)
    except (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: a password is needed, or another way of packing.
        raise SourceError(f"cannot read {name} in {where}: {error}. {AGAIN}") from None


def _check_size(where: str, name: str, size: int) -> None:
    if size > _LONGEST:
        raise SourceError(f"{name} in {where} unpacks to {size / 1e6:.0f} MB, which no metadata have. {AGAIN}")


def find_files(path: str | Path) -> Files:
    """Files of the product at a path: a ``.SAFE`` folder, the folder around it, its metadata file, or a zip archive.

    Raises
    ------
    SourceError
        If there is nothing, or no product, or several, or one of another level or of before December 2016, or an
        archive packed in a way that GDAL does not read.
    """
    where = Path(path).expanduser().absolute()
    if re.fullmatch(r"MTD_MSI\w+\.xml", where.name) and where.is_file():
        where = where.parent
    if not where.exists():
        raise SourceError(f"there is no {path}. Name a .SAFE folder, or the zip archive of one.")
    try:
        stamps = dict(_in_folder(where) if where.is_dir() else _in_archive(where))
    except zipfile.BadZipFile:
        raise SourceError(
            f"{path} is {TAR if is_tar(where) else 'neither a folder nor a whole zip archive. Get it again.'}"
        ) from None
    except OSError as error:
        raise SourceError(f"cannot look into {path}: {error}. Ask for the right to read it.") from None
    roots = [name for name in stamps if re.fullmatch(r"(.*/)?MTD_MSI\w+\.xml", name)]
    if not roots and any("\\" in name for name in stamps):
        raise SourceError(
            f"{path} was packed with backslashes in its names, as old tools of Windows do, which GDAL does not read. "
            "Unpack it (unzip mends the names), and name the .SAFE folder."
        )
    if any(_OLD.search(name) for name in stamps) and not roots:
        tiles = {found[1] for name in stamps if (found := re.search(r"(?:^|/)GRANULE/([^/]+)/[^/]+\.xml$", name))}
        raise SourceError(many_tiles(path, len(tiles)))
    if len(roots) != 1:
        raise SourceError(
            f"{path} holds {len(roots) or 'no'} MTD_MSIL1C.xml or MTD_MSIL2A.xml, so it is no SAFE product of level 1C "
            "or 2A. Name the folder that ends in .SAFE, or its zip archive."
        )
    top = roots[0].rpartition("/")[0]
    top = f"{top}/" if top else ""
    own = {name[len(top) :]: stamp for name, stamp in stamps.items() if name.startswith(top)}
    return Files(where=where, top=top, stamps=own)


def _in_folder(folder: Path) -> Iterator[tuple[str, str]]:
    # Only where a product is: a walk through somebody's home directory would take minutes.
    is_product = any(re.match(r"MTD_MSI|S2._[A-Z]{4}_MTD_SAF", one.name) for one in folder.iterdir())
    inside = (folder.glob("/".join([*"*" * depth, "MTD_MSI*.xml"])) for depth in (1, 2))
    roots = [folder] if is_product else [one.parent for some in inside for one in some]
    for root in roots:
        for one in sorted(root.rglob("*")):
            if one.is_file():
                facts = one.stat()
                yield one.relative_to(folder).as_posix(), f"{facts.st_size}-{facts.st_mtime_ns}"


def _in_archive(archive: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(archive) as opened:
        for one in opened.infolist():
            if one.filename.endswith(".jp2") and one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                packed = _PACKED.get(one.compress_type, f"method {one.compress_type}")
                raise SourceError(
                    f"{archive} is packed by {packed}, which GDAL does not read. Unpack it, and name the .SAFE folder."
                )
            if not one.is_dir():
                yield one.filename, f"{one.file_size}-{one.CRC:08x}"


def many_tiles(path: str | Path, count: int) -> str:
    """Sentence about a product of several tiles."""
    return (
        f"{path} holds {count} tiles, as products did before December 2016. Get the tiles one by one, under their "
        "newer names (S2A_MSIL1C_..._T32TQM_...)."
    )
