"""SAFE products open as their STAC items would: native bands, offsets and times of the metadata; or one sentence."""

import shutil

import dask
import numpy as np
import pytest
from conftest import shared_path
from safe_product import LEFT, TOP, write_safe

import eosr
from eosr.errors import SourceError
from eosr.grid import check_nested, crs_of
from eosr.safe import open_safe, safe_item
from eosr.testing import never_compute


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    folder = tmp_path_factory.mktemp("safe")
    return {
        "L2A": write_safe(folder),
        "L1C": write_safe(folder, level="L1C"),
        "old L1C": write_safe(folder, level="L1C", baseline="02.06", psd="14", offset=None),
    }


@pytest.mark.parametrize("kind", ["L2A", "L1C", "old L1C"])
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_native_bands_are_read_with_place_time_and_offset(kind, zipped, products, tmp_path):
    path, pixels = products[kind]
    if zipped:
        path = shutil.make_archive(tmp_path / "product", "zip", path.parent, path.name)
    with dask.config.set(scheduler=never_compute):
        ds = open_safe(path)
    level = kind.split()[-1]
    assert list(ds.data_vars) == [band for band in pixels if band != "SCL"]
    for band in ds.data_vars:
        np.testing.assert_array_equal(ds[band].isel(time=0).values, pixels[band])
    assert (ds.attrs["level"], ds.attrs["platform"], ds.attrs["tile"]) == (level, "sentinel-2b", "32TQM")
    assert ds.attrs["radiometric_offset"] == (0 if "old" in kind else -1000)
    assert ds.attrs["processing_baseline"] == ("02.06" if "old" in kind else "05.09")
    assert str(ds.time.values[0])[:19] == "2023-06-01T10:16:04"
    assert (float(ds.x10[0]), float(ds.y10[0])) == (LEFT + 5, TOP - 5)
    assert crs_of(ds).to_epsg() == 32632
    check_nested(ds)
    assert ds.attrs["item_ids"] == [products[kind][0].name.removesuffix(".SAFE")]


def test_the_classification_lies_on_the_20_m_grid(products):
    path, pixels = products["L2A"]
    ds = open_safe(path, scl=True)
    assert ds["SCL"].dims == ("time", "y20", "x20")
    np.testing.assert_array_equal(ds["SCL"].isel(time=0).values, pixels["SCL"])
    assert "SCL" not in open_safe(products["L1C"][0], scl=True), "a product of level 1C has none"


def test_it_is_a_public_name_and_sharpens_like_any_other(products):
    sharp = eosr.open_safe(products["L2A"][0]).s2sr.superresolve(method="bicubic")
    assert sharp["B05"].shape == (1, 144, 144)


def test_the_offset_can_be_overruled_and_bands_chosen(products):
    ds = open_safe(products["L2A"][0], bands=["B02", "B05"], offset=0)
    assert (list(ds.data_vars), ds.attrs["radiometric_offset"]) == (["B02", "B05"], 0)


def broken(products, tmp_path, kind="L2A"):
    copy = tmp_path / products[kind][0].name
    shutil.copytree(products[kind][0], copy)
    return copy


def replaced(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: shutil.rmtree(p), r"there is no .*\.SAFE\. Name a \.SAFE folder"),
        (lambda p: (p / "MTD_MSIL2A.xml").unlink(), r"holds no MTD_MSIL1C\.xml or MTD_MSIL2A\.xml, so it is no SAFE"),
        (lambda p: next(p.glob("GRANULE/*/MTD_TL.xml")).unlink(), r"holds no GRANULE/\*/MTD_TL\.xml"),
        (lambda p: next(p.glob("**/*_B05_20m.jp2")).unlink(), r"lacks the file GRANULE/.*_B05_20m\.jp2, which its"),
        (lambda p: (p / "MTD_MSIL2A.xml").write_text("<a>"), r"MTD_MSIL2A\.xml in .* is damaged: .* Get the product"),
        (lambda p: replaced(p / "MTD_MSIL2A.xml", "S2MSI2A", "S2MSI1B"), r"is of type S2MSI1B; eosr reads S2MSI1C"),
        (lambda p: replaced(p / "MTD_MSIL2A.xml", "SPACECRAFT_NAME", "SHIP"), r"metadata of .* lack SPACECRAFT_NAME"),
        (
            lambda p: shutil.copytree(next(p.glob("GRANULE/*")), p / "GRANULE" / "another"),
            r"holds 2 tiles, as products did before December 2016",
        ),
    ],
)
def test_what_is_no_whole_product_is_refused(change, said, products, tmp_path):
    path = broken(products, tmp_path)
    change(path)
    with pytest.raises(SourceError, match=said):
        open_safe(path)


def test_a_damaged_archive_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(SourceError, match=r"x\.zip is neither a folder nor a whole zip archive"):
        open_safe(tmp_path / "x.zip")


def test_a_truncated_image_is_an_error_that_names_it_and_never_zeros(products, tmp_path):
    path = broken(products, tmp_path)
    file = next(path.glob("**/*_B05_20m.jp2"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"cannot read .*_B05_20m\.jp2"):
        open_safe(path)["B05"].compute()


def test_the_metadata_of_a_real_product_are_understood(tmp_path):
    """Images are not there: an empty file stands for each."""
    (real,) = shared_path("data", "safe_xml").glob("*.SAFE")
    copy = tmp_path / real.name
    shutil.copytree(real, copy)
    for line in (copy / "MTD_MSIL2A.xml").read_text().splitlines():
        if "<IMAGE_FILE>" in line:
            file = copy / f"{line.split('>')[1].split('<')[0]}.jp2"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    item, classification = safe_item(copy)
    assert item["id"] == "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454"
    assert set(item["assets"]) == {
        "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12",
    }  # fmt: skip
    assert item["assets"]["B8A"]["proj:shape"] == [5490, 5490]
    assert item["assets"]["B01"]["href"].endswith("_B01_60m.jp2")
    assert classification.endswith("_SCL_20m.jp2")
    ds = open_safe(copy)
    assert (ds.attrs["radiometric_offset"], ds.attrs["processing_baseline"]) == (-1000, "04.00")
    assert dict(ds.sizes) == {"time": 1, "y60": 1830, "x60": 1830, "y10": 10980, "x10": 10980, "y20": 5490, "x20": 5490}
