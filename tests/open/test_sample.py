"""The sample scene and its catalogue: what the item says is what the files say, and it opens like any other scene."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from support.scenes import write_cog

import eosr
from eosr.cube.bands import BANDS
from eosr.errors import MissingExtraError, SourceError
from eosr.open.sample import sample_folder, write_catalog


@pytest.fixture
def ragged(tmp_path):
    """Thirteen small files whose edges are ragged like those of the sample scene, and their pixels."""
    folder = tmp_path / "files"
    folder.mkdir()
    pixels = {}
    for index, (name, band) in enumerate(BANDS.items()):
        left, top = {10: (435730, 4179460), 20: (435720, 4179460), 60: (435720, 4179480)}[band.gsd]
        rows, columns = {10: (45, 41), 20: (22, 21), 60: (8, 7)}[band.gsd]
        pixels[name] = np.random.default_rng(index).integers(1, 9999, (rows, columns)).astype(np.uint16)
        plain = folder / f"{name}.tif"
        write_cog(plain, pixels[name], Affine(band.gsd, 0, left, 0, -band.gsd, top), 32618)
        plain.rename(folder / f"s2_{name}.jp2")  # as in the package: GeoTIFF by content, .jp2 by name
    return folder, pixels


def test_ragged_edges_come_from_the_files_and_the_opened_grids_nest(ragged, tmp_path):
    folder, pixels = ragged
    ds = eosr.open_stac(write_catalog(tmp_path / "catalogue", files=folder))
    # Common ground in whole 60 m pixels: x from 435780 (ragged 435720/435730) to 436140, y from 4179420 to 4179060.
    assert dict(ds.sizes) == {"time": 1, "y10": 36, "x10": 36, "y20": 18, "x20": 18, "y60": 6, "x60": 6}
    assert (float(ds.x10[0]), float(ds.y10[0])) == (435785.0, 4179415.0)
    np.testing.assert_array_equal(ds.B02[0].values, pixels["B02"][4:40, 5:41])
    np.testing.assert_array_equal(ds.B05[0].values, pixels["B05"][2:20, 3:21])
    np.testing.assert_array_equal(ds.B01[0].values, pixels["B01"][1:7, 1:7])


def test_the_item_invents_no_date_no_baseline_and_no_offset(ragged, tmp_path):
    catalog = write_catalog(tmp_path, files=ragged[0])
    facts = json.loads((catalog.parent / "sample_S2A_L1C_T18SVG.json").read_text())["properties"]
    assert facts["datetime"] is None
    assert (facts["start_datetime"][:10], facts["end_datetime"][:10]) == ("2015-06-23", "2016-06-10")
    assert "s2:processing_baseline" not in facts
    ds = eosr.open_stac(catalog)
    assert (ds.attrs["level"], ds.attrs["platform"], ds.attrs["radiometric_offset"]) == ("L1C", "sentinel-2a", 0)


def test_a_missing_or_damaged_file_is_told(ragged, tmp_path):
    (ragged[0] / "s2_B8A.jp2").write_text("no image")
    with pytest.raises(SourceError, match=r"band B8A of the sample scene cannot be read.*pip install --force"):
        write_catalog(tmp_path, files=ragged[0])
    assert not (tmp_path / "catalog.json").exists()


def test_without_the_package_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setattr("eosr.open.sample.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'eosr\[demo\]'"):
        sample_folder()


def test_the_real_sample_opens_with_the_pixels_of_its_files(tmp_path):
    try:
        folder = sample_folder()
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    ds = eosr.open_stac(write_catalog(tmp_path))
    assert {dim: size for dim, size in ds.sizes.items() if dim.startswith("y")} == {"y10": 1938, "y20": 969, "y60": 323}
    assert list(ds.data_vars) == list(BANDS)
    for band in ("B02", "B12", "B09"):
        gsd = BANDS[band].gsd
        part = ds[band][0, 60 // gsd * 10 : 60 // gsd * 20, 60 // gsd * 30 : 60 // gsd * 40]
        with rasterio.open(folder / f"s2_{band}.jp2") as file:
            left, top = part[f"x{gsd}"].values[0], part[f"y{gsd}"].values[0]
            row, column = file.index(left, top)
            expected = file.read(1)[row : row + part.shape[0], column : column + part.shape[1]]
        np.testing.assert_array_equal(part.values, expected)
