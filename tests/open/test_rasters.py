"""What a file of pixels may not do: have another file opened, on this disk or on another host, or take all memory.

The canary is a file of this disk whose pixels are 7777, the second server one that nobody has a reason to ask.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from rasterio.shutil import copy as copy_raster
from support.batches import cluster
from support.range_server import serve
from support.safe_product import write_safe
from support.scenes import EPSG, LEFT, TOP, write_cog, write_scene

from eosr.errors import SourceError
from eosr.open.safe.product import open_safe
from eosr.open.stac import open_stac

REFUSED = "neither a GeoTIFF nor a JPEG 2000 file"
SIZE = 60


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary.tif"
    write_cog(path, np.full((SIZE, SIZE), 7777, np.uint16), Affine(10, 0, LEFT, 0, -10, TOP))
    return path


@pytest.fixture
def second(tmp_path, canary):
    """A server that has the canary too, and is asked by nothing but what a file of the first server names."""
    with serve(tmp_path) as server:
        yield server


@pytest.fixture
def first(tmp_path):
    scene = write_scene(tmp_path / "scene", size=SIZE)
    with serve(scene.folder) as server:
        server.scene = scene
        yield server


def vrt(*names, size=SIZE):
    """Text of a VRT of one band, whose pixels are those of the files named."""
    sources = "".join(
        f'<SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename><SourceBand>1</SourceBand>'
        f'<SrcRect xOff="0" yOff="{row}" xSize="{size}" ySize="{size // 2}"/>'
        f'<DstRect xOff="0" yOff="{row}" xSize="{size}" ySize="{size // 2}"/></SimpleSource>'
        for name, row in zip(names, (0, size // 2), strict=False)
    )
    return (
        f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}"><SRS>EPSG:{EPSG}</SRS><GeoTransform>{LEFT},10,0,{TOP},'
        f'0,-10</GeoTransform><VRTRasterBand dataType="UInt16" band="1">{sources}</VRTRasterBand></VRTDataset>'
    )


def item_of(server, band="B02", name=None):
    item = server.scene.item(base=f"{server.url}/ok")
    item["assets"][band]["href"] = f"{server.url}/ok/{name or f'{band}.tif'}"
    return item


@pytest.mark.parametrize("name", ["B02.tif", "B02.jp2", "B02.vrt", "B02"])
def test_a_vrt_in_place_of_an_image_reads_no_file_and_asks_no_host(first, second, canary, name):
    far = f"/vsicurl/{second.url}/ok/canary.tif"
    (first.root / name).write_text(vrt(canary, far))
    ds = open_stac(item_of(first, name=name), bands=["B02"])
    with pytest.raises(SourceError, match=REFUSED):
        ds.B02.compute()
    assert second.requests == []


def test_workers_in_other_processes_open_no_vrt_either(first, second, canary):
    (first.root / "B02.tif").write_text(vrt(canary, f"/vsicurl/{second.url}/ok/canary.tif"))
    ds = open_stac(item_of(first), bands=["B02"])
    with cluster(1), pytest.raises(SourceError, match=REFUSED):
        ds.B02.compute()
    assert second.requests == []


@pytest.mark.parametrize(
    "head",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"<GDALTileIndexDataset><IndexDataset>x</IndexDataset>",
        b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1/</ServerUrl></Service></GDAL_WMS>",
        b"ncols 6\nnrows 6\nxllcorner 0\nyllcorner 0\ncellsize 10\n" + b"1 " * 36,
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"ENVI\nsamples = 6",
    ],
    ids=["PNG", "GTI", "WMS", "AAIGrid", "HDF5", "ENVI"],
)
def test_files_of_other_formats_are_not_opened(first, head):
    (first.root / "B02.tif").write_bytes(head)
    with pytest.raises(SourceError, match=REFUSED):
        open_stac(item_of(first), bands=["B02"]).B02.compute()


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
def test_metadata_inside_a_file_lead_to_no_other_file(first, second, canary, driver):
    """Of a GeoTIFF the tag 42112, of a JPEG 2000 its box: both may name a file of overviews, opened with any driver."""
    (first.root / "more.vrt").write_text(vrt(f"/vsicurl/{second.url}/ok/canary.tif"))
    with rasterio.open(first.root / "B02.tif") as file:
        pixels, profile = file.read(1), file.profile
    with rasterio.open(first.root / "trap.tif", "w", **profile) as file:
        file.write(pixels, 1)
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"{first.root}/more.vrt")
    name = "trap.tif"
    if driver != "GTiff":
        copy_raster(
            first.root / name, first.root / (name := "trap.jp2"), driver=driver, QUALITY="100", REVERSIBLE="YES",
            WRITE_METADATA="YES",
        )  # fmt: skip
    with rasterio.open(first.root / name) as file:
        assert file.tags(ns="OVERVIEWS")  # else the trap is none
    with pytest.raises(SourceError, match="name another file for its overviews, which is not opened"):
        open_stac(item_of(first, name=name), bands=["B02"]).B02.compute()
    assert second.requests == []


def test_files_beside_a_file_are_neither_looked_for_nor_opened(first, second, monkeypatch):
    monkeypatch.setenv("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE")  # nor where a user's environment says so
    for suffix in ("ovr", "msk", "aux.xml", "aux"):
        (first.root / f"B02.tif.{suffix}").write_text(vrt(f"/vsicurl/{second.url}/ok/canary.tif"))
    ds = open_stac(item_of(first), bands=["B02"], gdal_env={"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE"})
    np.testing.assert_array_equal(ds.B02.values[0], first.scene.pixels["B02"])
    local = open_stac(first.scene.item(), bands=["B02"])
    np.testing.assert_array_equal(local.B02.values[0], first.scene.pixels["B02"])
    assert {path for _, path, _ in first.requests} == {"/ok/B02.tif"}
    assert second.requests == []


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("staged", [False, True])
def test_a_vrt_inside_a_safe_reads_no_file(tmp_path, second, canary, zipped, staged):
    product, _ = write_safe(tmp_path / "in", size=SIZE)
    (product / "manifest.safe").unlink(missing_ok=True)  # who makes a trap states no checksums, or right ones
    next(product.glob("**/*_B02_10m.jp2")).write_text(vrt(canary, f"/vsicurl/{second.url}/ok/canary.tif"))
    if zipped:
        product = shutil.make_archive(str(tmp_path / "product"), "zip", product.parent)
    ds = open_safe(product, bands=["B02"], stage=tmp_path / "stage" if staged else None)
    with pytest.raises(SourceError, match=REFUSED):
        ds.B02.compute()
    assert second.requests == []


def test_a_redirect_to_another_scheme_is_not_followed(first, second, canary):
    """A server may send on to another address of the web, and nowhere else."""
    for name, target in {"there": f"{second.url}/ok/canary.tif", "here": f"file://{canary}"}.items():
        first.redirects[f"/ok/{name}.tif"] = target
    item = item_of(first, name="there.tif")
    assert (open_stac(item, bands=["B02"]).B02 == 7777).all()
    with pytest.raises(SourceError, match=r"cannot read .*here\.tif"):
        open_stac(item_of(first, name="here.tif"), bands=["B02"]).B02.compute()


def test_a_block_larger_than_a_tile_of_sentinel_2_is_refused_before_it_is_read(first):
    side = 11_040
    with rasterio.open(
        first.root / "B02.tif", "w", driver="GTiff", width=side, height=side, count=1, dtype="uint16", nodata=0,
        crs=f"EPSG:{EPSG}", transform=Affine(10, 0, LEFT, 0, -10, TOP), blockysize=side, compress="zstd",
        SPARSE_OK=True,
    ):  # fmt: skip
        pass
    with pytest.raises(SourceError, match=r"in blocks of 11040 x 11040 pixels, more than a tile"):
        open_stac(item_of(first), bands=["B02"]).B02.compute()


_DOORS = """
import json, sys
from pathlib import Path
from eosr import open_stac, to_cog, to_stac_item, to_zarr
from eosr.batch.planning import BatchConfig, plan
from eosr.errors import EosrError
from eosr.testing import synthetic_scene
from eosr.write import deliver
item, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
ds = synthetic_scene(60, 60, level="L2A")
for name, door in {
    "item": lambda: open_stac(item),
    "window": lambda: open_stac(item, bbox=(699960, 4996440, 703560, 5000040), bbox_crs="EPSG:32632"),
    "zarr": lambda: to_zarr(ds, out / "a.zarr"), "cog": lambda: to_cog(ds, out), "both": lambda: deliver(ds, out / "b"),
    "of files": lambda: to_stac_item(None, [item["assets"]["B02"]["href"]]),
    "batch": lambda: plan([item], BatchConfig()),
}.items():
    try:
        door()
    except EosrError as error:
        print(name, error)
print(*out.glob("**/*.*"))
"""


@pytest.mark.parametrize("variable", ["PROJ_DATA", "PROJ_LIB"])
def test_the_database_of_another_proj_is_a_sentence_that_names_the_variable(tmp_path, variable):
    """As QGIS and PostGIS leave it: their proj.db is of an older layout, or the folder is gone."""
    old, out = tmp_path / "old", tmp_path / "out"
    old.mkdir()
    out.mkdir()
    shutil.copy(Path(pyproj.datadir.get_data_dir()) / "proj.db", old)
    with sqlite3.connect(old / "proj.db") as database:
        database.execute("UPDATE metadata SET value='0' WHERE key='DATABASE.LAYOUT.VERSION.MINOR'")
    (tmp_path / "item.json").write_text(json.dumps(write_scene(tmp_path / "scene", size=60).item()))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PROJ_")}
    run = subprocess.run(
        [sys.executable, "-c", _DOORS, tmp_path / "item.json", out],
        env=clean | {variable: str(old)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    *said, written = run.stdout.split("\n")[:-1]
    doors = ["item", "window", "zarr", "cog", "both", "of", "batch"]
    assert [line.partition(" ")[0] for line in said] == doors
    for line in said:
        assert f"that {variable}={old} leads to, which is that of another program" in line
        assert line.endswith(f"Before the next start: unset {variable}")
    assert written == ""
