"""SAFE products open as their STAC items would: native bands, offsets and times of the metadata; or one sentence."""

import os
import shutil
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.windows import Window
from support.safe_product import LEFT, TOP, write_jp2, write_safe
from support.scenes import shared_path

import eosr
from eosr.cube.bands import BANDS
from eosr.cube.grid import check_chunks, check_nested, crs_of
from eosr.errors import BandError, GridError, OutputError, RadiometryError, SourceError
from eosr.open.safe import pixels as safe_pixels
from eosr.open.safe.files import find_files
from eosr.open.safe.masks import draw_clouds
from eosr.open.safe.metadata import Image, item_of, read_product
from eosr.open.safe.product import open_safe
from eosr.testing import never_compute

MASKS = ("SCL", "cloud_mask")


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    folder = tmp_path_factory.mktemp("safe")
    return {
        "L2A": write_safe(folder),
        "L1C": write_safe(folder, level="L1C"),
        "old L2A": write_safe(folder, baseline="02.14", psd="14", offset=None),
        "old L1C": write_safe(folder, level="L1C", baseline="02.06", psd="14", offset=None),
        "pilot L2A": write_safe(folder, baseline="02.05", psd="14", offset=None, pilot=True),
    }


BASELINES = {"L2A": "05.09", "L1C": "05.09", "old L2A": "02.14", "old L1C": "02.06", "pilot L2A": "02.05"}


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_native_bands_are_read_with_place_time_and_offset(kind, zipped, products, tmp_path):
    path, pixels = products[kind]
    if zipped:
        path = shutil.make_archive(tmp_path / "product", "zip", path.parent, path.name)
    with dask.config.set(scheduler=never_compute):
        ds = open_safe(path)
    level = kind.split()[-1]
    assert list(ds.data_vars) == [band for band in pixels if band not in MASKS]
    for band in ds.data_vars:
        np.testing.assert_array_equal(ds[band].isel(time=0).values, pixels[band])
    assert (ds.attrs["level"], ds.attrs["platform"], ds.attrs["tile"]) == (level, "sentinel-2b", "32TQM")
    assert ds.attrs["radiometric_offset"] == (-1000 if kind in ("L1C", "L2A") else 0)
    assert ds.attrs["processing_baseline"] == BASELINES[kind]
    assert str(ds.time.values[0])[:19] == "2023-06-01T10:16:04"
    assert (float(ds.x10[0]), float(ds.y10[0])) == (LEFT + 5, TOP - 5)
    assert crs_of(ds).to_epsg() == 32632
    check_nested(ds)
    check_chunks(ds)
    assert ds.attrs["item_ids"] == [products[kind][0].name.removesuffix(".SAFE")]


def test_the_dataset_is_the_one_that_the_item_of_the_product_gives(products):
    path, _ = products["L2A"]
    ours, item = open_safe(path, chunks=72), item_of(read_product(path))
    theirs = eosr.open_stac(item, chunks=72)
    assert ours.attrs.pop("offset_source") == "BOA_ADD_OFFSET of the metadata"
    assert theirs.attrs.pop("offset_source") == "the offset that the assets declare"
    xr.testing.assert_identical(ours, theirs)
    for band in theirs.data_vars:
        assert ours[band].chunks == theirs[band].chunks
        assert ours[band].encoding == theirs[band].encoding


def test_it_is_a_public_name_and_sharpens_like_any_other(products):
    sharp = eosr.open_safe(products["L2A"][0], masks=True).s2sr.superresolve(method="bicubic")
    assert sharp["B05"].shape == (1, 144, 144)


@pytest.mark.parametrize("kind", ["L2A", "L1C"])
def test_the_offset_can_be_overruled_and_bands_chosen(kind, products):
    ds = open_safe(products[kind][0], bands=["B02", "B05"], offset=0)
    assert (list(ds.data_vars), ds.attrs["radiometric_offset"]) == (["B02", "B05"], 0)
    assert open_safe(products[kind][0], offset="none").attrs["offset_policy"] == "none"


@pytest.mark.parametrize("stage", [False, True], ids=["read", "staged"])
def test_a_window_is_that_of_open_stac(stage, products, tmp_path):
    path, pixels = products["L2A"]
    box = {"bbox": (LEFT + 130, TOP - 900, LEFT + 700, TOP - 310), "bbox_crs": "item"}
    ds = open_safe(path, chunks=36, masks=True, stage=tmp_path if stage else None, **box)
    theirs = eosr.open_stac(item_of(read_product(path)), chunks=36, **box)
    assert ds["B05"].chunks == theirs["B05"].chunks == ds["SCL"].chunks
    xr.testing.assert_identical(ds["x60"], theirs["x60"])
    for name, step in (("B02", 6), ("B05", 3), ("SCL", 3), ("B09", 1)):
        expected = pixels[name][5 * step : 15 * step, 2 * step : 12 * step]
        np.testing.assert_array_equal(ds[name].isel(time=0).values, expected)
    with pytest.raises(GridError, match=r"lies outside the scene S2B_MSIL2A_.*Choose a bbox within"):
        open_safe(path, bbox=(0, 0, 1, 1))


def test_offsets_that_are_not_minus_1000_are_those_of_the_metadata(tmp_path):
    path, _ = write_safe(tmp_path, level="L1C", size=36, offset=-900)
    ds = open_safe(path)
    assert (ds.attrs["radiometric_offset"], ds.attrs["offset_source"]) == (-900, "RADIO_ADD_OFFSET of the metadata")


def test_a_product_made_by_a_toolbox_without_offsets_has_none(tmp_path):
    """Sen2Cor on a desk writes baseline 99.99; the metadata tell, not the number of the baseline."""
    path, _ = write_safe(tmp_path, size=36, baseline="99.99", offset=None)
    ds = open_safe(path)
    assert (ds.attrs["radiometric_offset"], ds.attrs["offset_source"]) == (0, "no BOA_ADD_OFFSET in the metadata")


@pytest.mark.parametrize(
    ("level", "baseline", "offset", "said"),
    [
        (
            "L2A",
            "03.01",
            -1000,
            r"state a BOA_ADD_OFFSET of -1000, and processing baseline 03\.01, which had none\. .*=-1000 or ",
        ),
        (
            "L1C",
            "02.14",
            -900,
            r"state a RADIO_ADD_OFFSET of -900, and processing baseline 02\.14, .*: offset=-900 or ",
        ),
        (
            "L2A",
            "04.00",
            None,
            r"state no BOA_ADD_OFFSET, and processing baseline 04\.00, which has one\. .*=-1000 or ",
        ),
        (
            "L1C",
            "05.09",
            None,
            r"state no RADIO_ADD_OFFSET, and processing baseline 05\.09, which has one\. .*=-1000 or ",
        ),
    ],
)
def test_an_offset_that_contradicts_the_baseline_is_an_error_until_one_is_named(
    level, baseline, offset, said, tmp_path
):
    path, _ = write_safe(tmp_path, size=36, level=level, baseline=baseline, offset=offset)
    with pytest.raises(RadiometryError, match=rf"the metadata of .*\.SAFE {said}offset=0\."):
        open_safe(path)
    for named in (-1000, 0):
        ds = open_safe(path, offset=named)
        assert (ds.attrs["radiometric_offset"], ds.attrs["offset_source"]) == (named, f"offset={named}")


# ------------------------------------------------------------------------------------------------------------- masks


def test_the_classification_lies_on_the_20_m_grid(products):
    path, pixels = products["L2A"]
    with dask.config.set(scheduler=never_compute):
        ds = open_safe(path, masks=True, chunks=72)
    assert (ds["SCL"].dims, ds["SCL"].dtype, ds["cloud_mask"].dtype) == (("time", "y20", "x20"), np.uint8, bool)
    assert ds["SCL"].chunks == ds["B05"].chunks == ds["cloud_mask"].chunks
    np.testing.assert_array_equal(ds["SCL"].isel(time=0).values, pixels["SCL"])
    cloudy = np.isin(pixels["SCL"], [3, 8, 9, 10])
    np.testing.assert_array_equal(ds["cloud_mask"].isel(time=0).values, cloudy)


@pytest.mark.parametrize("kind", ["L1C", "old L1C"])
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_clouds_of_l1c_come_from_the_raster_or_the_polygons(kind, zipped, products, tmp_path):
    path, pixels = products[kind]
    if zipped:
        path = shutil.make_archive(tmp_path / "product", "zip", path.parent, path.name)
    ds = open_safe(path, masks="cloud_mask", chunks=72)
    assert (ds["cloud_mask"].dims, ds["cloud_mask"].chunks) == (("time", "y20", "x20"), ds["B05"].chunks)
    np.testing.assert_array_equal(ds["cloud_mask"].isel(time=0).values, pixels["cloud_mask"])
    assert 0 < pixels["cloud_mask"].sum() < pixels["cloud_mask"].size


def test_masks_need_no_20_m_band_to_be_asked_for(products):
    ds = open_safe(products["L2A"][0], bands=["B02"], masks=["SCL"])
    assert list(ds.data_vars) == ["B02", "SCL"]
    assert "spatial_ref20" in ds.coords
    assert ds["SCL"].encoding["grid_mapping"] == "spatial_ref20"


def test_a_mask_without_a_20_m_band_to_lie_on_is_told(products, tmp_path):
    path = broken(products, tmp_path)
    for file in path.glob("**/R20m/*_B*_20m.jp2"):
        file.unlink()
    with pytest.raises(
        SourceError, match=r"holds the mask SCL, and no file of a 20 m band, on whose grid it would lie"
    ):
        open_safe(path, bands=["B02"], masks="SCL")
    with pytest.raises(SourceError, match=r"L1C.* has no file for the mask SCL\. Open it without"):
        open_safe(products["L1C"][0], masks="SCL")


def test_a_product_without_any_image_is_not_answered_with_no_bands(products, tmp_path):
    path = broken(products, tmp_path)
    shutil.rmtree(next(path.glob("GRANULE/*/IMG_DATA")))
    with pytest.raises(SourceError, match=r"lacks the file .*, which its metadata list\. Get the product again\.$"):
        open_safe(path)


def test_masks_true_takes_what_there_is_and_a_name_must_be_there(products, tmp_path):
    path = broken(products, tmp_path, "L1C")
    assert "SCL" not in open_safe(path, masks=True)
    shutil.rmtree(next(path.glob("GRANULE/*/QI_DATA")))
    assert "cloud_mask" not in open_safe(path, masks=True)
    with pytest.raises(SourceError, match=r"\(L1C\) has no file for the mask cloud_mask\. Open it without, or with"):
        open_safe(path, masks="cloud_mask")
    with pytest.raises(BandError, match=r"'clouds' is no mask eosr knows\. Use masks=True or some of 'SCL', 'cloud_"):
        open_safe(path, masks=["clouds"])


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("</eop:Mask>", "", r"MSK_CLOUDS_B00\.gml in .* is damaged: "),
        ("EPSG:8.7:32632", "EPSG:8.7:32633", r"MSK_CLOUDS_B00\.gml in .* is in EPSG:32633, its product in EPSG:32632"),
        (f"{LEFT + 180} ", "180 1 ", r"MSK_CLOUDS_B00\.gml in .* is damaged: "),
    ],
)
def test_damaged_polygons_are_an_error(before, after, said, products, tmp_path):
    path = broken(products, tmp_path, "old L1C")
    replaced(next(path.glob("GRANULE/*/QI_DATA/MSK_CLOUDS_B00.gml")), before, after)
    with pytest.raises(SourceError, match=said):
        open_safe(path, masks=True)["cloud_mask"].compute()


def test_no_polygon_is_no_cloud(products, tmp_path):
    path = broken(products, tmp_path, "old L1C")
    file = next(path.glob("GRANULE/*/QI_DATA/MSK_CLOUDS_B00.gml"))
    text = file.read_text()
    file.write_text(text[: text.index("<eop:maskMembers>")] + "<eop:maskMembers/></eop:Mask>")
    assert not open_safe(path, masks=True)["cloud_mask"].values.any()


# ------------------------------------------------------------------------------------------------- decoding and staging


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks and JPEG 2000 tiles so small that small images have many; GDAL writes tiles of 32 pixels or more."""
    monkeypatch.setattr(safe_pixels, "BLOCKS", {10: 64, 20: 80, 60: 128})
    return {10: 64, 20: 40, 60: 32}


@pytest.fixture
def windows(monkeypatch):
    """Every window that is read from a JPEG 2000 file."""
    read, real = [], safe_pixels.read_window

    def seen(image, source, window):
        if source.endswith(".jp2"):
            read.append((image.name, window.row_off, window.col_off, window.height, window.width))
        return real(image, source, window)

    monkeypatch.setattr(safe_pixels, "read_window", seen)
    return read


def test_every_tile_is_decoded_once_in_a_computation_whatever_the_chunks(small_blocks, windows, tmp_path):
    path, pixels = write_safe(tmp_path, level="L1C", size=288, tile=small_blocks)
    ds = open_safe(path, chunks=66)
    (values,) = dask.compute(ds)
    for band in ds.data_vars:
        np.testing.assert_array_equal(values[band].isel(time=0).values, pixels[band])
        side, tile = len(pixels[band]), small_blocks[BANDS[band].gsd]
        covered = np.zeros((side, side), int)
        for _, top, left, height, width in (one for one in windows if one[0] == band):
            covered[top : top + height, left : left + width] += 1
            assert top % tile == left % tile == 0
            assert top + height == side or (top + height) % tile == 0
        assert (covered == 1).all(), band


def test_a_staged_file_is_decoded_once_for_all_computations(small_blocks, windows, products, tmp_path):
    path, pixels = products["L1C"]
    with dask.config.set(scheduler=never_compute):
        ds = open_safe(path, stage=tmp_path / "stage", chunks=36, masks=True)
    assert windows == []
    for corner in range(0, 144, 36):
        piece = ds[["B02", "B05"]].isel(y10=slice(corner, corner + 36), y20=slice(corner // 2, corner // 2 + 18))
        np.testing.assert_array_equal(piece["B02"].isel(time=0).values, pixels["B02"][corner : corner + 36])
        np.testing.assert_array_equal(piece["B05"].isel(time=0).values, pixels["B05"][corner // 2 : corner // 2 + 18])
    counted = sorted(windows)
    assert {name for name, *_ in counted} == {"B02", "B05"}, "only what is needed is staged"
    assert len(counted) == len(set(counted)) == 3 + 1, "three strips of B02, one of B05"
    again = open_safe(path, stage=tmp_path / "stage", masks=True)
    np.testing.assert_array_equal(again["B02"].isel(time=0).values, pixels["B02"])
    np.testing.assert_array_equal(again["cloud_mask"].isel(time=0).values, pixels["cloud_mask"])
    assert [one for one in sorted(windows) if one[0] in ("B02", "B05")] == counted
    folder = tmp_path / "stage" / path.name.removesuffix(".SAFE")
    assert sorted(one.name for one in folder.iterdir()) == ["B02.tif", "B05.tif", "MSK_CLASSI.tif"]
    with rasterio.open(folder / "B02.tif") as file:
        assert (file.crs.to_epsg(), file.transform.c, file.transform.f) == (32632, LEFT, TOP)


def test_a_staged_file_of_another_file_is_made_anew(products, tmp_path):
    path = broken(products, tmp_path)
    stage = tmp_path / "stage"
    open_safe(path, bands=["B05"], stage=stage)["B05"].compute()
    changed = np.full((72, 72), 77, np.uint16)
    write_jp2(next(path.glob("**/R20m/*_B05_20m.jp2")), changed, 20)
    assert (open_safe(path, bands=["B05"], stage=stage)["B05"].values == 77).all()


def test_a_staged_file_that_is_half_written_is_never_read(products, tmp_path):
    path = broken(products, tmp_path)
    file = next(path.glob("**/R20m/*_B05_20m.jp2"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    folder = tmp_path / "stage" / path.name.removesuffix(".SAFE")
    with pytest.raises(SourceError, match=r"cannot read .*_B05_20m\.jp2"):
        open_safe(path, bands=["B05"], stage=tmp_path / "stage")["B05"].compute()
    assert list(folder.iterdir()) == []
    dead = folder / "B04.tif.0123456789ab.part"
    dead.write_bytes(b"of a process that was killed")
    os.utime(dead, (0, 0))
    open_safe(path, bands=["B04"], stage=tmp_path / "stage")["B04"].compute()
    assert [one.name for one in folder.iterdir()] == ["B04.tif"]


def test_a_stage_that_cannot_be_written_is_told(products, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"files cannot be staged in .*file: .* Name a folder that can be written"):
        open_safe(products["L2A"][0], stage=tmp_path / "file")
    ds = open_safe(products["L2A"][0], stage=tmp_path / "stage")
    folder = tmp_path / "stage" / products["L2A"][0].name.removesuffix(".SAFE")
    shutil.rmtree(folder)
    folder.write_text("x")
    with pytest.raises(OutputError, match=r"cannot write .*B02\.tif: .* Free some space, or name a folder"):
        ds["B02"].compute()


def test_other_processes_read_and_stage_the_same(products, tmp_path):
    path, pixels = products["old L1C"]
    archive = shutil.make_archive(tmp_path / "product", "zip", path.parent, path.name)
    ds = open_safe(archive, bands=["B02", "B05"], masks=True, stage=tmp_path / "stage", chunks=72)
    with dask.config.set(scheduler="processes", num_workers=2):
        (values,) = dask.compute(ds)
    for name in ("B02", "B05", "cloud_mask"):
        np.testing.assert_array_equal(values[name].isel(time=0).values, pixels[name])
    assert sorted(one.name for one in (tmp_path / "stage").rglob("*.*") if one.is_file()) == ["B02.tif", "B05.tif"]


def test_the_graph_is_the_same_when_the_product_is_opened_again(products):
    path, _ = products["L2A"]
    first, second = open_safe(path), open_safe(path)
    assert [first[band].data.name for band in first.data_vars] == [second[band].data.name for band in second.data_vars]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("stage", [False, True], ids=["read", "staged"])
def test_a_truncated_image_is_an_error_that_names_it_or_right_and_never_zeros(share, stage, small_blocks, tmp_path):
    path, pixels = write_safe(tmp_path, size=288, tile=small_blocks)
    file = next(path.glob("**/R20m/*_B05_20m.jp2"))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    ds = open_safe(path, stage=tmp_path / "stage" if stage else None)
    with pytest.raises(SourceError, match=r"cannot read .*_B05_20m\.jp2: .*Check that the file exists and is whole"):
        ds["B05"].compute()
    np.testing.assert_array_equal(ds["B06"].isel(time=0).values, pixels["B06"])


# ----------------------------------------------------------------------------------------------------------- bad input


def broken(products, tmp_path, kind="L2A"):
    copy = tmp_path / products[kind][0].name
    shutil.copytree(products[kind][0], copy)
    return copy


def replaced(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def main(path: Path) -> Path:
    return path / "MTD_MSIL2A.xml"


def tile(path: Path) -> Path:
    return next(path.glob("GRANULE/*/MTD_TL.xml"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: shutil.rmtree(p), r"there is no .*\.SAFE\. Name a \.SAFE folder"),
        (lambda p: main(p).unlink(), r"holds no MTD_MSIL1C\.xml or MTD_MSIL2A\.xml, so it is no SAFE"),
        (lambda p: tile(p).unlink(), r"holds no GRANULE/\*/MTD_TL\.xml, so it is no whole product\. Get the"),
        (
            lambda p: next(p.glob("**/*_B05_20m.jp2")).unlink(),
            r"lacks the file GRANULE/.*_B05_20m\.jp2, which its metadata list\. Get the product again, or go without: "
            r"bands=\['B01', .*'B04', 'B06'",
        ),
        (lambda p: main(p).write_text("<a>"), r"MTD_MSIL2A\.xml in .* is damaged: .* Get the product"),
        (lambda p: tile(p).write_text(""), r"MTD_TL\.xml in .* is damaged: .* Get the product"),
        (lambda p: replaced(main(p), "S2MSI2A", "S2MSI1B"), r"is of type S2MSI1B; eosr reads S2MSI1C \(L1C\) and"),
        (lambda p: replaced(main(p), "S2MSI2A", "S2MSI2B"), r"is of type S2MSI2B; eosr reads S2MSI1C \(L1C\) and"),
        (lambda p: replaced(main(p), "SPACECRAFT_NAME", "SHIP"), r"metadata of .* lack SPACECRAFT_NAME"),
        (lambda p: replaced(main(p), "IMAGE_FILE", "PICTURE"), r"metadata of .* list no images of bands"),
        (lambda p: replaced(main(p), 'band_id="3"', 'band_id="33"'), r"state a BOA_ADD_OFFSET that is none: .*'33'"),
        (lambda p: replaced(tile(p), 'resolution="20"', 'resolution="30"'), r"metadata of .* describe no grid of 20 m"),
        (lambda p: replaced(main(p), 'id="3">-1000', 'id="-1">-1000'), r"state a BOA_ADD_OFFSET that is none: .*'-1'"),
        (lambda p: replaced(main(p), 'id="3">-1000', 'id="3">inf'), r"state a BOA_ADD_OFFSET that is none: .*'inf'"),
        (lambda p: replaced(main(p), 'id="3">-1000', 'id="3">-0.1'), r"state a BOA_ADD_OFFSET that is none: .*'-0\.1'"),
        (lambda p: replaced(main(p), ">10000<", ">abc<"), r"say BOA_QUANTIFICATION_VALUE 'abc', which is no number"),
        (lambda p: replaced(tile(p), ">144<", ">many<"), r"say NROWS 'many', which is no number"),
        (lambda p: replaced(tile(p), ">144<", ">nan<"), r"say NROWS 'nan', which is no number\. Get the product again"),
        (lambda p: replaced(tile(p), ">144<", ">-144<"), r"say NROWS -144, which is no number of pixels of a tile"),
        (lambda p: replaced(tile(p), ">144<", ">144.5<"), r"say NROWS 144\.5, which is no number of pixels"),
        (
            lambda p: replaced(tile(p), ">144<", ">1e7<"),
            r"say NROWS 1e\+07, which is no number of .*tile \(to 10980\)",
        ),
        (lambda p: replaced(tile(p), ">144<", ">1e300<"), r"say NROWS 1e\+300, which is no number of pixels of a tile"),
        (lambda p: replaced(tile(p), "EPSG:32632", "WGS84"), r"place it in 'WGS84', which is no EPSG code"),
        (
            lambda p: shutil.copytree(next(p.glob("GRANULE/*")), p / "GRANULE" / "another"),
            r"holds 2 tiles, as products did before December 2016\. Get the tiles one by one",
        ),
    ],
)
def test_what_is_no_whole_product_is_refused(change, said, products, tmp_path):
    path = broken(products, tmp_path)
    change(path)
    with pytest.raises(SourceError, match=said):
        open_safe(path)


@pytest.mark.parametrize("around", ["", "download/", "a/b/c/"])
def test_a_product_inside_of_folders_is_found(products, tmp_path, around):
    """As where a zip was unpacked into a folder of its own name, or packed with the folders around it."""
    product = broken(products, tmp_path)
    with zipfile.ZipFile(tmp_path / "product.zip", "w") as archive:
        for one in product.rglob("*"):
            archive.write(one, f"{around}{product.name}/{one.relative_to(product)}")
    np.testing.assert_array_equal(open_safe(tmp_path / "product.zip").B05, open_safe(product).B05)
    if around.count("/") < 2:
        outer = tmp_path / "outer" / product.name
        shutil.copytree(product, outer / around / product.name)
        np.testing.assert_array_equal(open_safe(outer).B05, open_safe(product).B05)


def test_archives_that_cannot_be_read_say_how_to_unpack_them(products, tmp_path):
    product = broken(products, tmp_path)
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for one in product.rglob("*"):
            archive.write(one, f"{product.name}/{one.relative_to(product)}".replace("/", "\\"))
    with pytest.raises(SourceError, match=r"packed with backslashes in its names.*Unpack it"):
        open_safe(tmp_path / "windows.zip")
    for kind in ("tar", "gztar"):
        packed = shutil.make_archive(str(tmp_path / "packed"), kind, product.parent, product.name)
        for opener in (open_safe, eosr.open_stac):
            with pytest.raises(SourceError, match=r"is a tar archive, .*Unpack it \(tar xf\)"):
                opener(packed)


def test_metadata_that_unpack_to_gigabytes_are_not_read(products, tmp_path):
    product = broken(products, tmp_path)
    with main(product).open("ab") as file:
        file.truncate(200_000_000)
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", product.parent, product.name)
    for path in (product, packed):
        with pytest.raises(SourceError, match=r"MTD_MSIL2A\.xml in .* unpacks to 200 MB, which no metadata have"):
            open_safe(path)


def test_entities_in_metadata_that_grow_without_end_are_refused(products, tmp_path):
    product = broken(products, tmp_path)
    grown = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    main(product).write_text(f'<!DOCTYPE x [<!ENTITY e0 "lol">{grown}]><x>&e11;</x>')
    with pytest.raises(SourceError, match="is damaged"):
        open_safe(product)


def test_a_folder_whose_name_is_not_utf_8_is_refused_in_a_sentence(products, tmp_path):
    product = broken(products, tmp_path)
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    try:
        product.parent.rename(odd)
    except OSError:
        pytest.skip("this filesystem has names in UTF-8 only")
    with pytest.raises(SourceError, match=r"name is not UTF-8, which GDAL needs; give the file or folder another name"):
        open_safe(odd / product.name).B05.compute()


def test_a_product_of_before_december_2016_is_told_apart(tmp_path):
    root = tmp_path / "S2A_OPER_PRD_MSIL1C_PDMC_20160210T005347_R002_V20160129T010047.SAFE"
    for name in ("T53JPJ", "T53JPH", "T53JPK"):
        folder = root / "GRANULE" / f"S2A_OPER_MSI_L1C_TL_MTI__20160209T133001_A003145_{name}_N02.01"
        folder.mkdir(parents=True)
        (folder / f"S2A_OPER_MTD_L1C_TL_MTI__20160209T133001_A003145_{name}.xml").write_text("<a/>")
    (root / "S2A_OPER_MTD_SAFL1C_PDMC_20160210T005347_R002_V20160129T010047.xml").write_text("<a/>")
    archive = shutil.make_archive(tmp_path / "old", "zip", tmp_path, root.name)
    for path in (root, archive):
        with pytest.raises(SourceError, match=r"holds 3 tiles, as products did before December 2016"):
            open_safe(path)


def test_another_quantification_and_offsets_that_differ_are_refused(products, tmp_path):
    path = broken(products, tmp_path)
    replaced(main(path), '<BOA_ADD_OFFSET band_id="3">-1000<', '<BOA_ADD_OFFSET band_id="3">-900<')
    with pytest.raises(RadiometryError, match=r"declare different offsets: -1000 DN \(B01\), -900 DN \(B04\)"):
        open_safe(path)
    replaced(main(path), ">10000<", ">1000<")
    with pytest.raises(RadiometryError, match=r"are 1000 times reflectance; eosr knows those of 10000 times"):
        open_safe(path)


def test_bands_and_chunks_are_checked_as_by_open_stac(products):
    with pytest.raises(BandError, match=r"B10 does not exist in L2A"):
        open_safe(products["L2A"][0], bands=["B02", "B10"])
    with pytest.raises(BandError, match=r"'B5' is not a band of Sentinel-2"):
        open_safe(products["L2A"][0], bands=["B5"])
    with pytest.raises(GridError, match=r"chunks=100 is not a multiple of 6"):
        open_safe(products["L2A"][0], chunks=100)


def test_a_band_that_is_missing_can_be_gone_without(products, tmp_path):
    path = broken(products, tmp_path)
    next(path.glob("**/R20m/*_B8A_20m.jp2")).unlink()
    ds = open_safe(path, bands=["B02", "B05"])
    np.testing.assert_array_equal(ds["B05"].isel(time=0).values, products["L2A"][1]["B05"])


def test_a_damaged_archive_is_refused(products, tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(SourceError, match=r"x\.zip is neither a folder nor a whole zip archive"):
        open_safe(tmp_path / "x.zip")
    path, _ = products["L2A"]
    whole = Path(shutil.make_archive(tmp_path / "whole", "zip", path.parent, path.name))
    with zipfile.ZipFile(whole) as archive:
        start = archive.getinfo(f"{path.name}/MTD_MSIL2A.xml").header_offset
    content = bytearray(whole.read_bytes())
    content[start + 200 : start + 300] = bytes(100)
    whole.write_bytes(content)
    with pytest.raises(SourceError, match=r"cannot read .*MTD_MSIL2A\.xml in .*whole\.zip: .* Get the product again"):
        open_safe(whole)


@pytest.mark.parametrize("packed", ["bzip2", "lzma"])
def test_an_archive_packed_in_a_way_that_gdal_does_not_read_is_told(packed, products, tmp_path):
    path, _ = products["L2A"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w", getattr(zipfile, f"ZIP_{packed.upper()}")) as archive:
        for one in sorted(path.rglob("*")):
            archive.write(one, one.relative_to(path.parent))
    with pytest.raises(SourceError, match=rf"x\.zip is packed by {packed}, which GDAL does not read\. Unpack it, and"):
        open_safe(tmp_path / "x.zip")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_folder_that_must_not_be_looked_into_is_told(products, tmp_path):
    path = broken(products, tmp_path)
    path.chmod(0)
    try:
        with pytest.raises(SourceError, match=r"cannot look into .*SAFE: .* Ask for the right to read it"):
            open_safe(path)
    finally:
        path.chmod(stat.S_IRWXU)


def test_a_product_may_be_named_by_the_folder_around_it_or_by_its_metadata(products, tmp_path):
    path = broken(products, tmp_path)
    product = read_product(path)
    assert read_product(tmp_path).id == read_product(path / "MTD_MSIL2A.xml").id == product.id
    shutil.copytree(products["L1C"][0], tmp_path / products["L1C"][0].name)
    with pytest.raises(SourceError, match=r"holds 2 MTD_MSIL1C\.xml or MTD_MSIL2A\.xml, so it is no"):
        find_files(tmp_path)


@pytest.mark.parametrize("band", ["B02", "B05", "B01"])
def test_an_image_that_is_not_on_the_grid_of_its_metadata_is_an_error(band, products, tmp_path):
    path = broken(products, tmp_path, "L1C")
    gsd = BANDS[band].gsd
    file = next(path.glob(f"**/*_{band}.jp2"))
    thinned = products["L1C"][1][band][::2, ::2]
    write_jp2(file, thinned, 2 * gsd)
    side = 144 * 10 // gsd
    said = (
        rf"{band}\.jp2 has {side // 2} x {side // 2} pixels of {2 * gsd} m from \({LEFT}, {TOP}\); the metadata of its "
        rf"product state {side} x {side} of {gsd} m .* It was resampled or cut after it was delivered; get the product"
    )
    with pytest.raises(SourceError, match=said):
        open_safe(path)[band].compute()


def test_an_image_of_another_crs_or_kind_is_an_error(products, tmp_path):
    path = broken(products, tmp_path, "L1C")
    replaced(tile(path), "EPSG:32632", "EPSG:32633")
    with pytest.raises(SourceError, match=r"is in EPSG:32632, the metadata of its product say EPSG:32633"):
        open_safe(path)["B02"].compute()
    replaced(tile(path), "EPSG:32633", "EPSG:32632")
    write_jp2(next(path.glob("**/*_B02.jp2")), np.ones((2, 144, 144), np.uint16), 10)
    with pytest.raises(SourceError, match=r"B02\.jp2 holds 2 layers of uint16, not 1 of uint16"):
        open_safe(path)["B02"].compute()


# -------------------------------------------------------------------------------------------------------- real products


def test_the_metadata_of_a_real_l2a_product_are_understood(tmp_path):
    """Images are not there: an empty file stands for each."""
    (real,) = shared_path("data", "safe_xml").glob("*.SAFE")
    copy = tmp_path / real.name
    shutil.copytree(real, copy)
    for line in (copy / "MTD_MSIL2A.xml").read_text().splitlines():
        if "<IMAGE_FILE>" in line:
            file = copy / f"{line.split('>')[1].split('<')[0]}.jp2"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    product = read_product(copy)
    assert product.id == "S2A_MSIL2A_20221005T115411_N0400_R023_T29UNU_20221005T164454"
    assert product.datatake == "GS2A_20221005T115411_038058_N04.00"
    assert set(product.offsets.values()) == {-1000}
    ds = open_safe(copy, masks=True)
    assert [band for band in ds.data_vars if band in BANDS] == [band for band in BANDS if band != "B10"]
    assert product.images["B01"].href.endswith("R60m/T29UNU_20221005T115411_B01_60m.jp2")
    assert product.classification.href.endswith("R20m/T29UNU_20221005T115411_SCL_20m.jp2")
    assert (ds.attrs["radiometric_offset"], ds.attrs["processing_baseline"]) == (-1000, "04.00")
    assert (ds.attrs["platform"], ds.attrs["tile"]) == ("sentinel-2a", "29UNU")
    assert ds.attrs["times"] == ["2022-10-05T11:56:49.581767"]
    assert dict(ds.sizes) == {"time": 1, "y60": 1830, "x60": 1830, "y10": 10980, "x10": 10980, "y20": 5490, "x20": 5490}
    assert (float(ds.x10[0]), float(ds.y60[0])) == (499985.0, 5900010.0)


def real_archive(name: str) -> Path:
    """An archive among the test files of eodatasets3; skips where EOSR_SAFE_ARCHIVES does not say where they are."""
    folder = os.environ.get("EOSR_SAFE_ARCHIVES")
    found = sorted(Path(folder).rglob(name)) if folder else []
    if not found:
        pytest.skip("set EOSR_SAFE_ARCHIVES to the unpacked source distribution of eodatasets3==0.30.5")
    return found[0]


def test_a_real_l1c_archive_is_understood_and_its_thinned_images_are_refused():
    """Its pixels were thinned five times and B8A was left out, by those who made it a test file."""
    path = real_archive("S2B_MSIL1C_20201011T000249_N0209_R030_T55HFA_20201011T011446.zip")
    with pytest.raises(SourceError, match=r"lacks the file GRANULE/.*_B8A\.jp2, which its metadata list"):
        open_safe(path)
    there = [band for band in BANDS if band != "B8A"]
    ds = open_safe(path, bands=there, masks=True)
    assert list(ds.data_vars) == there
    assert (ds.attrs["level"], ds.attrs["platform"], ds.attrs["tile"]) == ("L1C", "sentinel-2b", "55HFA")
    assert (ds.attrs["processing_baseline"], ds.attrs["radiometric_offset"]) == ("02.09", 0)
    assert dict(ds.sizes)["y10"] == 10980
    with pytest.raises(SourceError, match=r"B02\.jp2 has 2196 x 2196 pixels of 50 m .* It was resampled or cut after"):
        ds["B02"].isel(y10=slice(0, 60), x10=slice(0, 60)).compute()


def test_the_pixels_of_a_real_archive_are_read_where_they_are_described_as_they_are():
    path = real_archive("S2B_MSIL1C_20201011T000249_N0209_R030_T55HFA_20201011T011446.zip")
    image = read_product(path).images["B05"]
    thinned = replace(image, gsd=100, rows=1098, columns=1098)
    window = Window(500, 300, 64, 32)
    with rasterio.open(image.href) as file:
        expected = file.read(1, window=window)
    assert len(np.unique(expected)) > 100
    np.testing.assert_array_equal(safe_pixels.read_window(thinned, image.href, window)[0], expected)


def test_real_cloud_polygons_become_a_mask():
    path = real_archive("S2B_OPER_MSI_L1C_TL_EPAE_20180617T013729_A006677_T55JGF_N02.06.AWSPDS.zip")
    (name,) = [name for name in zipfile.ZipFile(path).namelist() if name.endswith("MSK_CLOUDS_B00.gml")]
    image = Image(name="B05", href="", epsg=32755, gsd=20, left=699960, top=6600040, rows=5490, columns=5490)
    mask = draw_clouds(str(path), name, image)
    # Corner of the first polygon: 751500 6600040, 11 pixels of 60 m wide.
    assert mask[0, (751500 - 699960) // 20]
    assert not mask[0, (751500 - 699960) // 20 - 1]
    assert 0.05 < mask.mean() < 0.95


def test_several_tiles_in_a_real_archive_are_told():
    path = real_archive("S2A_OPER_PRD_MSIL1C_PDMC_20161213T162432_R088_V20151007T012016_20151007T012016.zip")
    with pytest.raises(SourceError, match=r"holds 15 tiles, as products did before December 2016"):
        open_safe(path)
