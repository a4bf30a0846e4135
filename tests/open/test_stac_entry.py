"""What is no STAC but a product is told by what it holds, and opened by the command line."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import xarray as xr
import zarr
from support.safe_product import write_safe

import eosr
from eosr.cli import main
from eosr.errors import SourceError
from eosr.open.entry import opener_of
from eosr.testing import synthetic_scene


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    return write_safe(tmp_path_factory.mktemp("safe"), size=216)[0]


@pytest.fixture(scope="module")
def eopf(tmp_path_factory):
    path = tmp_path_factory.mktemp("eopf") / "anything"
    zarr.open_group(path, mode="w", attributes={"stac_discovery": {"properties": {}}})
    return path


def test_a_product_is_told_by_what_it_holds_not_by_its_name(safe, eopf, tmp_path):
    renamed = shutil.copytree(safe, tmp_path / "product")
    archive = shutil.make_archive(tmp_path / "archive", "zip", safe.parent, safe.name)
    assert {opener_of(path) for path in (safe, f"{safe}/", renamed, archive, renamed / "MTD_MSIL2A.xml")} == {
        "open_safe"
    }
    zipped = shutil.make_archive(tmp_path / "zarr", "zip", eopf)
    assert {opener_of(path) for path in (eopf, zipped, "https://example.com/S2B.zarr/")} == {"open_eopf"}


def test_what_is_no_product_is_left_to_open_stac(written, tmp_path):
    synthetic_scene(2, 2).s2sr.to_zarr(tmp_path / "ours.zarr")
    (tmp_path / "item.json").write_text(json.dumps(written.item()))
    (tmp_path / "bad.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    others = [tmp_path, tmp_path / "ours.zarr", tmp_path / "item.json", tmp_path / "bad.zip", tmp_path / "nothing"]
    assert {opener_of(path) for path in [*others, "https://example.com/item.json"]} == {""}


def test_open_stac_names_the_function_that_opens_a_product(safe, eopf, tmp_path):
    archive = shutil.make_archive(tmp_path / "archive", "zip", safe.parent, safe.name)
    with pytest.raises(
        SourceError, match=r"archive\.zip is a SAFE product, .*Open it with eosr\.open_safe\('.*archive\.zip"
    ):
        eosr.open_stac(archive)
    with pytest.raises(
        SourceError, match=r"anything is an EOPF product, .*Open it with eosr\.open_eopf\('.*anything'\)"
    ):
        eosr.open_stac(eopf)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a/b.json", "{}")
    with pytest.raises(SourceError, match=r"other\.zip is a zip archive, with neither a SAFE nor an EOPF .* Unpack it"):
        eosr.open_stac(tmp_path / "other.zip")


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_the_command_line_opens_a_safe_product_and_cuts_a_window(zipped, safe, tmp_path, capsys):
    source = shutil.make_archive(tmp_path / "archive", "zip", safe.parent, safe.name) if zipped else safe
    left, top = 699960, 5000040
    box = ["--bbox", str(left), str(top - 1200), str(left + 1200), str(top), "--bbox-crs", "item"]
    out = tmp_path / "out"
    # Random pixels lie below 1000 DN too, where the offset of the product would make them negative: it is said.
    how = ["--method", "bicubic", "--bands", "B05", "--offset=-1000"]
    said = main(["superresolve", str(source), str(out), *how, "--quiet", *box])
    assert said == 0, capsys.readouterr().err
    sharp = xr.open_zarr(out / "sharpened.zarr", decode_coords="all")
    ds = eosr.open_safe(safe, bbox=(left, top - 1200, left + 1200, top), bbox_crs="item")
    expected = ds.s2sr.superresolve(method="bicubic", bands=["B05"])
    np.testing.assert_array_equal(sharp.B05.values, expected.B05.values)
    assert main(["evaluate", str(source), *how]) == 0
    assert "B05" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--tile", "32TQM"], "--tile"),
        (["--max-cloud-cover", "10"], "--max-cloud-cover"),
        (["--limit", "items=3"], "--limit"),
    ],
)
def test_options_that_choose_among_items_are_refused_for_a_product(option, said, safe, tmp_path, capsys):
    assert main(["superresolve", str(safe), str(tmp_path / "out"), *option]) == 1
    assert f"is one product, so {said} has no meaning. Leave it out." in capsys.readouterr().err


def test_the_command_line_hands_an_eopf_product_to_open_eopf(eopf, tmp_path, capsys):
    assert main(["superresolve", str(eopf), str(tmp_path / "out")]) == 1
    assert "is of type 'unknown'; eosr reads S02MSIL1C" in capsys.readouterr().err
