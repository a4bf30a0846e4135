"""The facts: what every other file believes about Sentinel-2."""

import pytest

from eosr.cube.bands import (
    BANDS,
    BANDS_10M,
    BANDS_20M,
    BANDS_60M,
    PLATFORMS,
    SHARP_BANDS,
    bands_of,
    check_bands,
    mtf_at_nyquist,
)  # fmt: skip
from eosr.errors import BandError


def test_thirteen_bands_stand_in_spectral_order():
    assert len(BANDS) == 13
    wavelengths = [band.wavelength for band in BANDS.values()]
    assert wavelengths == sorted(wavelengths)
    assert [band.name for band in BANDS.values()] == list(BANDS)


def test_every_band_is_in_the_group_of_its_pixel_size():
    by_size = {gsd: tuple(name for name, band in BANDS.items() if band.gsd == gsd) for gsd in (10, 20, 60)}
    assert by_size[10] == BANDS_10M == ("B02", "B03", "B04", "B08")
    assert by_size[20] == BANDS_20M == ("B05", "B06", "B07", "B8A", "B11", "B12")
    assert by_size[60] == (*BANDS_60M, "B10")


def test_only_l1c_holds_cirrus_and_cirrus_is_never_sharpened():
    assert set(bands_of("L1C")) - set(bands_of("L2A")) == {"B10"}
    assert bands_of("L2A") == SHARP_BANDS
    assert len(SHARP_BANDS) == 12


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [("B01", 0.32, 0.34), ("B05", 0.38, 0.42), ("B8A", 0.33, 0.36), ("B09", 0.26, 0.25), ("B11", 0.22, 0.20)],
)
def test_mtf_is_that_of_the_published_tables_and_not_their_permuted_copy(name, a, b):
    # MuSA and SSSS carry B8A .23, B09 .33, B11 .26: the same numbers in a wrong order.
    assert mtf_at_nyquist(name, "sentinel-2a") == a
    assert mtf_at_nyquist(name, "SENTINEL-2B") == b
    assert mtf_at_nyquist(name, "sentinel-2c") == pytest.approx((a + b) / 2, abs=1e-4)


def test_every_sharpened_band_has_an_mtf_for_every_satellite():
    for name in SHARP_BANDS:
        for platform in PLATFORMS:
            assert 0.15 < mtf_at_nyquist(name, platform) < 0.45  # what ESA requires of the instrument


def test_facts_cannot_be_changed():
    with pytest.raises(TypeError):
        BANDS["B02"] = None
    with pytest.raises(TypeError):
        BANDS["B02"].mtf["sentinel-2a"] = 1.0
    with pytest.raises(AttributeError):
        BANDS["B02"].gsd = 20


def test_names_are_refused_with_the_names_that_are_known():
    assert check_bands("B02") == ("B02",)
    with pytest.raises(BandError, match=r"'B8a' is not a band of Sentinel-2\. Known bands: B01, B02, .*B8A, B09, B10"):
        check_bands(["B02", "B8a"])
    for odd in (..., [...], [["B02"]]):
        with pytest.raises(BandError, match=r"is not a band of Sentinel-2"):
            check_bands(odd)
    with pytest.raises(BandError, match="band B05 is asked for more than once"):
        check_bands(["B05", "B02", "B05"])
    with pytest.raises(BandError, match=r"'L2' is not a processing level eosr knows. Use one of L1C, L2A"):
        bands_of("L2")
    with pytest.raises(BandError, match=r"no MTF is known for satellite 'landsat-9'. Use one of sentinel-2a"):
        mtf_at_nyquist("B05", "landsat-9")
    with pytest.raises(BandError, match=r"band B10 has no published MTF.*Leave B10 out"):
        mtf_at_nyquist("B10")
