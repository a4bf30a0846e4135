"""Files that are missing, cut, signed, or not what their item says: an error that names them, never silent nodata."""

import re

import numpy as np
import pytest
from affine import Affine
from rasterio.shutil import copy as copy_raster
from support.batches import cluster
from support.safe_product import write_safe
from support.scenes import EPSG, LEFT, TOP, write_cog, write_scene

from eosr.errors import SourceError
from eosr.open.reading import read_error
from eosr.open.safe.product import open_safe
from eosr.open.stac import open_stac


def image(ds, band):
    return ds[band].values[0]


@pytest.mark.parametrize(("mode", "says"), [("404", "404"), ("truncated", "Read error")])
def test_http_fault_is_an_error_that_names_the_file(written, range_server, mode, says):
    item = written.item(base=f"{range_server.url}/ok")
    item["assets"]["B05"]["href"] = f"{range_server.url}/{mode}/B05.tif"
    ds = open_stac(item)
    with pytest.raises(SourceError, match=rf"cannot read {range_server.url}/{mode}/B05.tif: .*{says}") as error:
        ds["B05"].compute()
    assert "Check that the address exists and the file is whole" in str(error.value)
    np.testing.assert_array_equal(image(ds, "B06"), written.pixels["B06"])


def test_server_that_fails_once_is_asked_again(written, range_server):
    item = written.item(base=f"{range_server.url}/500-once")
    ds = open_stac(item, bands=["B01"])
    np.testing.assert_array_equal(image(ds, "B01"), written.pixels["B01"])
    assert len(range_server.seen) > 0


def test_local_file_that_is_missing_or_cut_is_an_error(tmp_path):
    scene = write_scene(tmp_path, size=60)
    ds = open_stac(scene.item())
    path = scene.folder / "B02.tif"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SourceError, match=r"cannot read .*B02.tif: .*Check that the file exists and is whole"):
        ds["B02"].compute()
    (scene.folder / "B03.tif").unlink()
    with pytest.raises(SourceError, match=r"cannot read .*B03.tif"):
        ds["B03"].compute()
    (scene.folder / "B04.tif").write_text("<Error>AccessDenied</Error>")
    with pytest.raises(SourceError, match=r"cannot read .*B04.tif"):
        ds["B04"].compute()


def test_a_worker_of_a_cluster_raises_the_same_error(tmp_path, range_server, written):
    (scene := write_scene(tmp_path / "scene", size=60)).folder.joinpath("B05.tif").unlink()
    product, _ = write_safe(tmp_path, size=36)
    damaged = next(product.glob("**/*_B05_20m.jp2"))
    item = written.item(base=f"{range_server.url}/403")
    opened = [open_stac(one, bands=["B05"]) for one in (scene.item(), item)]
    opened.append(open_safe(product, bands=["B05"]))
    damaged.write_bytes(damaged.read_bytes()[:400])
    with cluster(1):
        for ds in opened:
            with pytest.raises(SourceError, match=r"cannot read .*B05"):
                ds.compute()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.995])
def test_jpeg_2000_file_that_is_cut_is_an_error_too(tmp_path, share):
    """GDAL returns zeros for the tiles that are gone unless it decodes in the thread that asked."""
    scene = write_scene(tmp_path, size=360)
    path = tmp_path / "B02.jp2"
    options = {"quality": "100", "reversible": "YES", "blockxsize": 128, "blockysize": 128}
    copy_raster(tmp_path / "B02.tif", path, driver="JP2OpenJPEG", **options)
    item = scene.item()
    item["assets"]["B02"]["href"] = str(path)
    np.testing.assert_array_equal(image(open_stac(item), "B02"), scene.pixels["B02"])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(SourceError, match=r"cannot read .*B02.jp2"):
        open_stac(item)["B02"].compute()


@pytest.mark.parametrize(
    ("transform", "epsg", "dtype", "size", "message"),
    [
        (Affine(20, 0, LEFT, 0, -20, TOP), EPSG, np.uint16, 60, "has pixels of 20 x 20 m, its item says 10 m"),
        (Affine(10, 0, LEFT + 5, 0, -10, TOP), EPSG, np.uint16, 60, "off the grid that its item states"),
        (Affine(10, 0, LEFT, 0, -10, TOP), 32633, np.uint16, 60, "its item says EPSG:32632"),
        (Affine(10, 0, LEFT, 0, -10, TOP), EPSG, np.uint16, 48, "less than its item states"),
        (Affine(10, 0, LEFT, 0, -10, TOP), EPSG, np.float32, 60, "holds float32 pixels, its item says uint16"),
    ],
)
def test_file_that_is_not_what_its_item_says_is_refused_not_resampled(tmp_path, transform, epsg, dtype, size, message):
    scene = write_scene(tmp_path, size=60)
    write_cog(tmp_path / "B02.tif", np.ones((size, size), dtype), transform, epsg)
    with pytest.raises(SourceError, match=rf"B02.tif .*{message}"):
        open_stac(scene.item())["B02"].compute()


def test_file_that_does_not_declare_nodata_still_has_zero_as_nodata(tmp_path):
    scene = write_scene(tmp_path, size=60, hole=slice(2, 4))
    write_cog(tmp_path / "B02.tif", scene.pixels["B02"], Affine(10, 0, LEFT, 0, -10, TOP), nodata=None)
    box = (LEFT + 60, TOP - 480, LEFT + 480, TOP - 60)
    ds = open_stac(scene.item(), bbox=box, bbox_crs="item")
    np.testing.assert_array_equal(image(ds, "B02"), scene.pixels["B02"][6:48, 6:48])


# --- signing ---------------------------------------------------------------------------------------------------------


def test_sign_is_given_every_href_that_is_read_and_only_those(written, range_server):
    asked = []

    def sign(href):
        asked.append(href)
        return href.replace("/secret/", "/ok/") + "?sig=1"

    ds = open_stac(written.item(base=f"{range_server.url}/secret"), sign=sign, bands=["B01", "B09"])
    assert sorted(href.rsplit("/", 1)[1] for href in asked) == ["B01.tif", "B09.tif"]
    np.testing.assert_array_equal(image(ds, "B09"), written.pixels["B09"])


def test_sign_that_returns_no_href_is_refused(written):
    with pytest.raises(SourceError, match=r"sign= returned NoneType; it must take an href and return an href"):
        open_stac(written.item(), sign=lambda href: None)


@pytest.mark.parametrize(
    ("href", "hint"),
    [
        ("https://x.blob.core.windows.net/a.tif", r"sign=planetary_computer.sign"),
        ("https://x.blob.core.windows.net/a.tif?sv=1&sig=secret", "open the items again"),
        ("s3://sentinel-s2-l1c/a.jp2", r"gdal_env=\{'AWS_REQUEST_PAYER': 'requester'\}"),
        ("https://zipper.dataspace.copernicus.eu/a/$value", "CDSE needs a token"),
    ],
)
def test_read_error_says_what_the_host_needs_and_keeps_signatures_secret(href, hint):
    message = str(read_error(href, OSError("HTTP response code: 409")))
    assert re.search(hint, message)
    assert "HTTP response code: 409" in message
    assert "secret" not in message
