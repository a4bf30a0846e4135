"""A file of a SAFE product that was damaged inside is an error that names it, never pixels."""

import shutil
import zipfile
from pathlib import Path

import dask
import numpy as np
import pytest
from support.safe_product import write_safe

from eosr.errors import SourceError
from eosr.open.safe import checksums as safe_checksums
from eosr.open.safe.product import open_safe

TILES = {10: 64, 20: 64, 60: 32}


def with_a_hole(file: Path) -> None:
    """Overwrite a tenth of a file with zeros: GDAL reads it without a word."""
    content = file.read_bytes()
    whole = int(len(content) * 0.9)
    file.write_bytes(content[:whole] + bytes(len(content) - whole))


def image(path: Path, band: str) -> Path:
    return next(path.glob(f"GRANULE/*/IMG_DATA/**/*_{band}*.jp2"))


def zipped(path: Path, where: Path, compression: int) -> Path:
    with zipfile.ZipFile(where, "w", compression) as archive:
        for one in sorted(path.rglob("*")):
            archive.write(one, one.relative_to(path.parent))
    return where


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_safe(tmp_path_factory.mktemp("whole"), level="L1C", size=288, tile=TILES, manifest="SHA3-256")


@pytest.fixture
def product(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / whole[0].name)


@pytest.mark.parametrize("stage", [False, True], ids=["read", "staged"])
@pytest.mark.parametrize("checksum", ["SHA3-256", "MD5"])
def test_a_hole_in_a_file_is_an_error_by_the_manifest(checksum, stage, tmp_path):
    path, pixels = write_safe(tmp_path, level="L1C", size=288, tile=TILES, manifest=checksum)
    with_a_hole(image(path, "B03"))
    ds = open_safe(path, stage=tmp_path / "stage" if stage else None)
    said = rf"_B03\.jp2 is damaged: its {checksum} is not the one in manifest\.safe\. Get the product again; if the"
    for _ in range(2):
        with pytest.raises(SourceError, match=said):
            ds["B03"].compute()
    np.testing.assert_array_equal(ds["B02"].isel(time=0).values, pixels["B02"])
    if stage:
        assert [one.name for one in (tmp_path / "stage").rglob("*.*") if one.is_file()] == ["B02.tif"]


def test_without_a_manifest_nothing_is_compared(product):
    """As in products that were put together of single files; this also shows that GDAL does not see the hole."""
    with_a_hole(image(product, "B03"))
    (product / "manifest.safe").unlink()
    assert open_safe(product)["B03"].shape == open_safe(product)["B03"].compute().shape


@pytest.mark.parametrize("stage", [False, True], ids=["read", "staged"])
@pytest.mark.parametrize("manifest", [False, True], ids=["crc", "crc and manifest"])
def test_a_hole_in_an_archive_is_an_error_by_its_crc(manifest, stage, product, tmp_path):
    if not manifest:
        (product / "manifest.safe").unlink()
    archive = zipped(product, tmp_path / "product.zip", zipfile.ZIP_STORED)
    content = image(product, "B03").read_bytes()
    inside = archive.read_bytes()
    start = inside.index(content)
    end = start + len(content)
    archive.write_bytes(inside[: end - len(content) // 10] + bytes(len(content) // 10) + inside[end:])
    ds = open_safe(archive, stage=tmp_path / "stage" if stage else None)
    with pytest.raises(SourceError, match=r"cannot read /vsizip/.*_B03\.jp2: Bad CRC-32 .* Get the product again"):
        ds["B03"].compute()
    assert not list(tmp_path.rglob("B03.tif*"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_an_archive_of_damaged_files_is_told_by_the_manifest_in_it(compression, product, tmp_path):
    with_a_hole(image(product, "B03"))
    archive = zipped(product, tmp_path / "product.zip", compression)
    with pytest.raises(SourceError, match=r"_B03\.jp2 is damaged: its SHA3-256 is not the one in manifest\.safe"):
        open_safe(archive)["B03"].compute()


def test_masks_are_compared_too(tmp_path):
    path, _ = write_safe(tmp_path, size=288, tile=TILES, manifest="MD5")
    with_a_hole(image(path, "SCL"))
    with pytest.raises(SourceError, match=r"_SCL_20m\.jp2 is damaged: its MD5 is not the one"):
        open_safe(path, masks=True)["cloud_mask"].compute()


def test_a_file_is_compared_once_by_all_threads_of_a_process_and_again_when_it_has_changed(product, monkeypatch):
    read, real = [], safe_checksums._check
    monkeypatch.setattr(safe_checksums, "_check", lambda one: (read.append(one.name), real(one)))
    monkeypatch.setattr("eosr.open.safe.pixels.BLOCKS", {10: 64, 20: 64, 60: 96})
    with dask.config.set(scheduler="threads", num_workers=4):
        open_safe(product, bands=["B02", "B05"])["B02"].compute()
        open_safe(product, bands=["B02", "B05"]).compute()
    assert sorted(read) == ["B02", "B05"]
    with_a_hole(image(product, "B05"))
    with pytest.raises(SourceError, match=r"_B05\.jp2 is damaged"):
        open_safe(product, bands=["B02", "B05"]).compute()
    assert sorted(read)[:2] == ["B02", "B05"]
    assert set(read[2:]) == {"B05"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('checksumName="SHA3-256"', 'checksumName="CRC-7"'),
        ("<checksum", "<sum"),
        ('href="./', 'href="./elsewhere/'),
        ("byteStream", "stream"),
    ],
)
def test_a_manifest_that_states_nothing_that_can_be_compared_stops_nobody(before, after, whole, product):
    manifest = product / "manifest.safe"
    text = (
        manifest.read_text()
        .replace(before, after)
        .replace("</checksum>", "</sum>" if after == "<sum" else "</checksum>")
    )
    manifest.write_text(text)
    np.testing.assert_array_equal(open_safe(product)["B03"].isel(time=0).values, whole[1]["B03"])


def test_a_damaged_manifest_is_an_error(product):
    (product / "manifest.safe").write_text("<half")
    with pytest.raises(SourceError, match=r"manifest\.safe in .* is damaged: .* Get the product again"):
        open_safe(product)


@pytest.mark.parametrize(
    "compression", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["folder", "stored", "deflated"]
)
def test_a_whole_product_with_a_manifest_is_read(compression, whole, tmp_path):
    path, pixels = whole
    path = path if compression is None else zipped(path, tmp_path / "product.zip", compression)
    ds = open_safe(path, masks=True)
    for name in ds.data_vars:
        np.testing.assert_array_equal(ds[name].isel(time=0).values, pixels[name])
