"""The table for a terminal: which figure stands in which cell, and what is left out."""

import pytest
from support.synthetic_evaluation import BANDS, synthetic_evaluation

from eosr.errors import MetricError
from eosr.score.report.by_band import by_band, row_note

TOLD = {"units": "DN", "convention": "eosr", "peak": 10000.0, "data_range": 10000.0, "ergas_convention": "wald"}


@pytest.fixture(scope="module")
def table():
    return synthetic_evaluation(operators=("study",), **TOLD).loc[{"property": ["synthesis"]}]


def rows_of(text):
    """(band, method) -> cells by column."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *rest = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {(row[0], row[1]): dict(zip(head[2:], row[2:], strict=True)) for row in rest}


def test_a_row_of_a_band_holds_the_mean_over_scenes(table):
    """Bicubic has 120 DN at B05 and 1 DN more per band; eosr a fifth of it, and 0.9 of that once projected."""
    rows = rows_of(by_band(table))
    assert rows["B05", "bicubic"]["RMSE [DN]"] == "120.00"
    assert rows["B06", "bicubic"]["RMSE [DN]"] == "121.00"
    assert rows["B06", "eosr"]["RMSE [DN]"] == f"{120 * 0.2 + 1:.2f}"
    assert rows["B06", "eosr + projection"]["RMSE [DN]"] == f"{120 * 0.2 * 0.9 + 1:.2f}"
    assert rows["B05", "eosr"]["PSNR [dB]"] == "57.98"  # 44 + 20 log10(5)
    assert rows["B05", "eosr"]["SAM [deg]"] == rows["B05", "eosr"]["ERGAS"] == ""


def test_a_row_over_all_bands_pools_what_can_be_pooled_and_averages_the_rest(table):
    """The pooled figures of the table are 10 % above the means."""
    row = rows_of(by_band(table))["all 20 m", "bicubic"]
    assert row == {
        "RMSE [DN]": "132.00", "SRE [dB]": "27.50", "SAM [deg]": "1.320", "ERGAS": "3.740", "SSIM": "0.8000",
        "PSNR [dB]": "48.40", "bPSNR [dB]": "45.00",
    }  # fmt: skip


def test_what_a_method_does_not_make_has_no_row(table):
    rows = rows_of(by_band(table))
    assert ("all 20 m", "s2x") in rows
    assert ("all 60 m", "s2x") not in rows
    assert ("B09", "s2x") not in rows
    assert ("B05", "s2x + projection") not in rows
    assert {band for band, _ in rows} == {*BANDS, "all 20 m", "all 60 m"}
    # Per band bicubic and eosr twice, s2x in the 20 m bands; the same over all bands.
    assert len(rows) == 8 * 3 + 6 + 2 * 3 + 1


def test_one_stage_alone_needs_no_mark(table):
    rows = rows_of(by_band(table, projection="after"))
    assert {method for _, method in rows} == {"eosr"}
    assert rows["B05", "eosr"]["RMSE [DN]"] == "21.60"
    mixed = rows_of(by_band(table, projection={"eosr": "before"}))
    assert {method for _, method in mixed} == {"bicubic", "s2x", "eosr"}
    assert mixed["B05", "eosr"]["RMSE [DN]"] == "24.00"


def test_a_table_of_one_stage_shows_that_stage(table):
    one = table.loc[{"projection": ["before"]}]
    assert rows_of(by_band(one)) == rows_of(by_band(table, projection="before"))


def test_an_unknown_stage_is_refused(table):
    for wrong in ("befor", {"eosr": "befor"}):
        with pytest.raises(MetricError) as told:
            by_band(table, projection=wrong)
        assert str(told.value) == "projection='befor' is unknown. Use 'both', 'before' or 'after'."


def test_small_errors_keep_figures_that_can_be_seen(table):
    small = table.assign(summary=table.summary * 1e-4, summary_overall=table.summary_overall * 1e-4)
    rows = rows_of(by_band(small.assign_attrs(units="reflectance")))
    assert rows["B05", "bicubic"]["RMSE [1]"] == "0.0120"
    assert rows["all 20 m", "bicubic"]["RMSE [1]"] == "0.0132"
    assert "RMSE [DN]" not in rows["B05", "bicubic"]


def test_every_property_and_operator_has_its_table_and_its_line_of_conditions():
    table = synthetic_evaluation(**TOLD)
    text = by_band(table)
    assert text.count("| band | method |") == 4
    said = [line for line in text.splitlines() if line and not line.startswith(("|", "Rows: "))]
    assert said[1].startswith(
        "Synthesis, degradation `mtf_diff`, border 2 coarse pixels, 2 scenes; convention eosr: peak 10000 DN, data "
        "range 10000 DN, SRE as in DSen2, ERGAS wald."
    )
    assert [line.split(",")[0] for line in said] == ["Synthesis", "Synthesis", "Consistency", "Consistency"]


def test_the_conditions_name_a_peak_that_is_no_number_and_a_single_scene():
    told = {**TOLD, "peak": "reference_max", "convention": "zhang2020", "data_range": 255.0}
    table = synthetic_evaluation(operators=("study",), scenes=("one",), **told)
    assert ", 1 scene; convention zhang2020: peak reference_max, data range 255 DN" in by_band(table)


def test_what_a_label_does_not_tell_stands_below_once():
    """Options, and weights with the first 12 digits of their checksums; "bicubic" and "s2x" say all there is to say."""
    table = synthetic_evaluation(**TOLD)
    assert by_band(table).splitlines()[-1] == (
        "Rows: eosr is s2sr-20m + s2sr-60m (SHA-256 0a0a0a0a0a0a, 1b1b1b1b1b1b)."
    )
    assert by_band(table).count("Rows: ") == 1
    assert row_note(table, ["bicubic", "s2x"]) == ""
    told = table.assign_coords(described=("method", ["bicubic", "s2x(rounds=2)", "eosr"]))
    assert row_note(told, ["s2x"]) == "Rows: s2x is s2x(rounds=2)."
    assert row_note(table.drop_vars("described")) == ""
