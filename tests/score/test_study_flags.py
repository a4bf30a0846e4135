"""What is wrong with printed figures is found by arithmetic: known cases, and planted ones."""

import math
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from eosr.errors import MetricError
from eosr.score.report import study_flags
from eosr.score.report.study_figures import ALL, TABLES, Figure, printed_table
from eosr.score.report.study_flags import MEANINGS, flags, implied_peak, ssim_range_bound

AVERAGES = [number for number, table in TABLES.items() if table.kind != "bands"]


def cases(code):
    return {(flag.table, flag.row) for number in TABLES for flag in flags(number) if flag.code == code}


def planted(monkeypatch, number, label, **texts):
    """Flags of a table in which the figures of one row were changed."""
    table = TABLES[number]
    figures = {(metric, ALL): Figure(text) for metric, text in texts.items()}
    rows = tuple(replace(r, figures={**r.figures, **figures}) if r.label == label else r for r in table.rows)
    changed = replace(table, rows=rows)
    tables = MappingProxyType({**TABLES, number: changed})
    monkeypatch.setattr(study_flags, "TABLES", tables)
    monkeypatch.setattr(study_flags, "printed_table", tables.__getitem__)
    study_flags._has_no_common_peak.cache_clear()
    told = flags.__wrapped__(number)
    study_flags._has_no_common_peak.cache_clear()
    return {(flag.code, metric) for flag in told if flag.row == label for metric, _ in flag.columns or [("", ALL)]}


def test_seven_bpsnr_are_below_their_psnr():
    """Subtracting the mean error b leaves MSE - b^2: bPSNR - PSNR = -10 log10(1 - b^2 / MSE) >= 0."""
    assert cases("bpsnr_below_psnr") == {
        ("6.10", "Bicubic"), ("6.7", "DSen2"), ("6.7", "S6x"), ("6.11", "Bicubic"), ("6.17", "+ vanilla GAN"),
        ("6.17", "+ relativistic GAN"), ("6.18", "+ vanilla GAN"),
    }  # fmt: skip


def test_bpsnr_may_equal_psnr(monkeypatch):
    assert ("bpsnr_below_psnr", "bpsnr") not in planted(monkeypatch, "6.10", "Bicubic", bpsnr="56.1555")
    assert ("bpsnr_below_psnr", "bpsnr") in planted(monkeypatch, "6.10", "Bicubic", bpsnr="56.1550")


def test_one_row_has_ssim_and_psnr_exchanged():
    assert cases("swapped") == {("6.15", "Bicubic")}


def test_every_ergas_at_60_m_is_that_of_a_ratio_of_two():
    """S6x: relative RMSE 10^(-34.98 / 20) = 0.01782; 1.29 / 1.782 = 0.72, not 0.17."""
    with_ergas = {
        (n, row.label) for n in AVERAGES for row in TABLES[n].rows if TABLES[n].gsd == 60 and row.value("ergas")
    }
    assert cases("ergas_60m") == with_ergas
    assert len(with_ergas) == 3 + 3 + 7
    (told,) = [flag for flag in flags("6.7") if (flag.row, flag.code) == ("S6x", "ergas_60m")]
    assert told.detail == "ERGAS 1.29 / (100 x relative RMSE of 34.98 dB) = 0.72, far from 1/6"


def test_walds_ergas_would_pass_at_60_m(monkeypatch):
    """7.30 / 3 = 2.43; 2.43 / (100 x 0.1024) = 0.237, which is nearer to 1/6 than to 1/2 on a scale of ratios."""
    assert ("ergas_60m", "ergas") not in planted(monkeypatch, "6.7", "Bicubic", ergas="2.43")


@pytest.mark.parametrize(
    ("number", "row", "peak"),
    [
        ("6.5", "Bicubic", 22351), ("6.5", "DSen2", 21457), ("6.5", "S2x", 21514), ("6.10", "S2x", 23846),
        ("6.13", "DSen2-L2A", 16645), ("6.15", "Bicubic", 17131), ("6.15", "S2x", 18449), ("6.7", "S6x", 11896),
        ("6.11", "DSen2", 12584),
    ],
)  # fmt: skip
def test_the_peak_that_rmse_and_psnr_imply(number, row, peak):
    """RMSE 10^(PSNR / 20); in 6.15 with SSIM and PSNR exchanged back."""
    assert implied_peak(printed_table(number).row(row)) == pytest.approx(peak, abs=0.5)


def test_no_table_has_one_peak():
    assert {number for number, _ in cases("psnr_peak")} == set(AVERAGES)
    assert cases("psnr_peak") == {(n, r.label) for n in AVERAGES for r in TABLES[n].rows if r.value("psnr")}


def test_one_peak_in_all_rows_would_pass(monkeypatch):
    """PSNR of a peak of 10000: 20 log10(10000 / RMSE)."""
    table = TABLES["6.10"]
    rows = tuple(
        replace(r, figures={**r.figures, ("psnr", ALL): Figure(f"{20 * math.log10(10000 / r.value('rmse')):.4f}")})
        for r in table.rows
    )
    monkeypatch.setattr(study_flags, "TABLES", {**TABLES, "6.10": replace(table, rows=rows)})
    study_flags._has_no_common_peak.cache_clear()
    assert not study_flags._has_no_common_peak("6.10")
    study_flags._has_no_common_peak.cache_clear()


def test_the_bound_on_the_data_range_of_ssim():
    """S2x in 6.15: 5.65 / (0.03 sqrt(1 - 0.9821)) = 5.65 / 0.004014 = 1408 DN, the lowest of all."""
    assert ssim_range_bound(printed_table("6.15").row("S2x")) == pytest.approx(1407.7, abs=0.5)
    bounds = [ssim_range_bound(row) for n in AVERAGES for row in TABLES[n].rows]
    assert min(bound for bound in bounds if bound) == pytest.approx(1407.7, abs=0.5)


def test_ssim_of_another_convention_is_that_of_a_whole_table():
    """Bicubic in 6.5 admits up to 9875 DN alone; but S2x beside it needs a range below 4526 DN, and a table has one."""
    with_ssim = {(n, row.label) for n in AVERAGES for row in TABLES[n].rows if row.value("ssim") is not None}
    marked = cases("ssim_range")
    assert {number for number, _ in marked} == set(AVERAGES) - {"6.13"}
    assert marked == {(n, label) for n, label in with_ssim if n != "6.13"}
    told = {flag.row: flag.detail for flag in flags("6.5") if flag.code == "ssim_range"}
    assert told == {
        "Bicubic": "data range below 4526 DN by S2x, and a table has one", "DSen2": "data range below 4589 DN",
        "S2x": "data range below 4526 DN",
    }  # fmt: skip
    assert ssim_range_bound(printed_table("6.5").row("Bicubic")) == pytest.approx(125.69 / (0.03 * math.sqrt(0.18)))


def test_no_image_breaks_the_bound():
    """SSIM by skimage, on images whose windows have means above 0.02 L: the true data range is within the bound."""
    ssim = pytest.importorskip("skimage.metrics").structural_similarity
    rng = np.random.default_rng(3)
    for range_, noise in ((10000.0, 40.0), (10000.0, 400.0), (4000.0, 100.0)):
        image = rng.uniform(0.1 * range_, 0.3 * range_, (64, 64))
        estimate = image + rng.normal(0, noise, image.shape) + noise / 4
        value, every = ssim(
            image, estimate, data_range=range_, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        # A window may hold more error than its share, so the mean over all pixels is taken, rim included.
        row = replace(
            printed_table("6.5").row("S2x"),
            figures={
                ("rmse", ALL): Figure(f"{np.sqrt(np.mean((image - estimate) ** 2)):.8f}"),
                ("ssim", ALL): Figure(f"{every.mean():.10f}"),
            },
        )
        assert ssim_range_bound(row) > 0.98 * range_
        assert value == pytest.approx(every.mean(), abs=0.01)


def test_rows_of_another_paper_are_known_by_their_averages():
    """ATPRK at 20 m: 697.4 / 6 = 116.23, printed 116.2; S2x: 202.03 / 6 = 33.67, printed 34.99."""
    assert cases("copied") == {(n, m) for n in ("6.5", "6.6", "6.7", "6.8") for m in ("ATPRK", "SupReME", "Superres")}


def test_every_other_average_is_no_mean_of_its_bands():
    own = {("6.5", "Bicubic"), ("6.5", "DSen2"), ("6.5", "S2x"), ("6.7", "Bicubic"), ("6.7", "DSen2"), ("6.7", "S6x")}
    own |= {("6.10", row) for row in ("Bicubic", "DSen2", "S2x")}
    own |= {("6.13", row) for row in ("Bicubic", "DSen2", "DSen2-L2A", "S2x")}
    own |= {("6.15", row) for row in ("Bicubic", "DSen2-L2A", "S2x")}
    assert cases("no_mean") == own


def test_two_averages_lie_outside_their_bands():
    """S2x in 6.5: SRE 36.19, its bands have 36.22 to 36.66."""
    assert cases("outside") == {("6.5", "DSen2"), ("6.5", "S2x")}


def test_averages_that_repeat_one_band():
    told = {(f.table, f.row, f.detail) for n in TABLES for f in flags(n) if f.code == "one_band"}
    assert told == {
        ("6.7", "Bicubic", "SRE 19.79 is that of B09"),
        ("6.10", "Bicubic", "SRE 36.70 is that of B8A"),
        ("6.15", "DSen2-L2A", "RMSE 8.95 is that of B05"),
    }


def test_a_mean_within_rounding_passes(monkeypatch):
    """Bicubic in 6.6: RMSE 732.15 / 6 = 122.025, root mean square 122.57, SRE 154.21 / 6 = 25.70."""
    assert not {("no_mean", "rmse"), ("no_mean", "sre")} & planted(
        monkeypatch, "6.5", "Bicubic", rmse="122.57", sre="25.70"
    )
    assert ("no_mean", "rmse") in planted(monkeypatch, "6.5", "Bicubic", rmse="122.60")


def test_two_batches_are_typing_errors():
    told = {(f.table, f.row): f.detail for n in TABLES for f in flags(n) if f.code == "batch"}
    assert set(told) == {("6.19", "S2x, 8 GPUs"), ("6.19", "S2x, 16 GPUs")}
    assert told["6.19", "S2x, 8 GPUs"].endswith("128 per GPU in the other rows, so 1024 was meant")
    assert told["6.19", "S2x, 16 GPUs"].endswith("so 2048 was meant")


def test_every_flag_is_a_sentence_with_its_arithmetic():
    for number in TABLES:
        for flag in flags(number):
            assert flag.code in MEANINGS
            assert flag.sentence.endswith(".")
            assert flag.detail in flag.sentence
            printed_table(number).row(flag.row)


def test_an_unknown_table_has_no_flags():
    with pytest.raises(MetricError, match=r"the study prints no table '7.1'"):
        flags("7.1")
