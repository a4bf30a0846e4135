"""Measured rows beside printed ones: which rows stand where, and what can be compared."""

import math

import numpy as np
import pytest
import xarray as xr
from support.synthetic_evaluation import BANDS, BICUBIC, PROJECTED, QUALITY, figure, synthetic_evaluation

from eosr.errors import MetricError
from eosr.nn.weights import file_checksum
from eosr.score.evaluation import evaluate
from eosr.score.report.study import PaperRow, check_levels, figure_text, metric_name, paper_tables, to_bicubic
from eosr.score.report.study_figures import ALL, METRICS, TABLES
from eosr.testing import random_weights, synthetic_scene


@pytest.fixture(scope="module")
def papers():
    return {paper.printed.number: paper for paper in paper_tables(synthetic_evaluation())}


def row_of(paper, name, average=None) -> PaperRow:
    rows = [row for row in paper.rows if row.name == name and average in (None, row.average)]
    return rows[0]


def cell_of(paper, row, metric, band=ALL):
    return row.cells[paper.columns.index((metric, band))]


def test_tables_of_the_level_come_in_the_order_of_the_study(papers):
    assert list(papers) == [number for number, table in TABLES.items() if table.level == "L1C"]
    of_l2a = paper_tables(synthetic_evaluation(), level="L2A")
    assert [paper.printed.number for paper in of_l2a] == ["6.13", "6.14", "6.15", "6.16"]


def test_only_what_was_evaluated_gets_a_table():
    table = synthetic_evaluation().sel({"gsd": [60], "property": ["consistency"]})
    assert [paper.printed.number for paper in paper_tables(table)] == ["6.11"]


def test_without_an_evaluation_the_printed_rows_stand_alone():
    papers = paper_tables(None)
    assert [paper.printed.number for paper in papers] == list(TABLES)
    assert all(row.source == "printed" for paper in papers for row in paper.rows)
    assert not any(paper.degradation or paper.scenes or paper.notes for paper in papers)
    assert len(paper_tables(None, level="L2A")) == 4


def test_each_measured_row_follows_the_printed_row_of_its_method(papers):
    assert [row.name for row in papers["6.5"].rows if row.average != "pooled"] == [
        "Bicubic", "bicubic", "ATPRK", "SupReME", "Superres", "DSen2", "S2x", "s2x", "eosr", "eosr, projected",
    ]  # fmt: skip
    assert {row.source for row in papers["6.5"].rows if row.name in ("s2x", "eosr")} == {"measured"}


def test_a_row_stands_where_its_kind_belongs_whatever_its_label():
    """A label is a word of the user's; the study's S2x is what a generator of its kind and factor is."""
    table = synthetic_evaluation({"bicubic": 1.0, "mine": 0.5, "S2x": 0.4, "ours": 0.3})
    table = table.assign_coords(kind=("method", ["bicubic", "s2x", "", "dsen2_l2a"]))
    shown = [row.name for row in paper_tables(table)[0].rows if row.average == "mean" or row.source == "printed"]
    assert shown == ["Bicubic", "bicubic", "ATPRK", "SupReME", "Superres", "DSen2", "S2x", "mine", "S2x", "ours"]
    papers = {paper.printed.number: paper for paper in paper_tables(table, level="L2A")}
    shown = [row.name for row in papers["6.13"].rows if row.average == "mean" or row.source == "printed"]
    assert shown == ["Bicubic", "bicubic", "DSen2", "DSen2-L2A", "ours", "S2x", "mine", "S2x"]
    papers = {paper.printed.number: paper for paper in paper_tables(table)}
    assert [row.name for row in papers["6.17"].rows if row.average == "mean"] == ["mine", "S2x"]


def test_a_row_is_what_ran_on_any_of_the_scenes(tmp_path):
    """The second scene has no 60 m bands, so that only one file of two ran on it."""
    paths = [random_weights(tmp_path / f"{k}.safetensors", kind="study", factor=k) for k in (2, 6)]
    whole = synthetic_scene(14, 14)
    part = whole.drop_vars(["B01", "B09"])
    for scenes in ([whole, part], [part, whole]):
        table = evaluate(scenes, {"mine": paths}, small="mirror", border=0, bands=None)
        assert table.kind.values.tolist() == ["bicubic", ""]
        assert set(table.weights_sha256.values[1].split()) == {file_checksum(path) for path in paths}
        assert table.described.values[1].count(" + ") == 1
    table = evaluate(whole, {"mine": paths[0]}, small="mirror", border=0, bands=["B05"])
    assert table.kind.values.tolist() == ["bicubic", "s2x"]
    assert [row.name for row in paper_tables(table)[0].rows if row.average == "mean"][-2:] == [
        "mine",
        "mine, projected",
    ]


def test_an_evaluation_that_does_not_say_what_its_rows_are_is_refused():
    with pytest.raises(MetricError, match=r"has no coordinate 'kind', which says what each row is: .* Evaluate again"):
        paper_tables(synthetic_evaluation().drop_vars("kind"))


def test_options_and_weights_of_measured_rows_are_told(papers):
    assert papers["6.5"].notes[2] == ("Rows: eosr is s2sr-20m + s2sr-60m (SHA-256 0a0a0a0a0a0a, 1b1b1b1b1b1b).")
    row = row_of(papers["6.5"], "eosr")
    assert (row.described, row.weights_sha256) == ("s2sr-20m + s2sr-60m", f"{'0a' * 32} {'1b' * 32}")
    assert row_of(papers["6.5"], "S2x").described == ""


def test_scenes_without_a_level_are_refused_before_they_are_evaluated():
    scene = synthetic_scene(2, 2)
    check_levels(scene)
    with pytest.raises(MetricError) as told:
        check_levels({"north": scene, "south": scene.assign_attrs(level="")})
    assert str(told.value) == (
        "south has level='', which the study has no tables for. Set ds.attrs['level'] to 'L1C' or 'L2A'; or, on the "
        "command line, type --property both --convention zhang2020 instead of --preset zhang2020."
    )
    with pytest.raises(MetricError, match=r"the scenes are of L1C and of L2A, .* Judge them apart"):
        check_levels([scene, scene.assign_attrs(level="L2A")])


def test_a_method_that_makes_no_60_m_band_is_not_in_their_tables(papers):
    assert "s2x" not in {row.label for row in papers["6.7"].rows}
    assert "eosr" in {row.label for row in papers["6.7"].rows}


def test_measured_figures_are_those_of_the_evaluation(papers):
    for projection, factor in (("eosr", 1.0), ("eosr, projected", PROJECTED)):
        row = row_of(papers["6.7"], projection, "mean")
        values = [cell.value for cell in row.cells]
        assert values == pytest.approx([figure(metric, QUALITY["eosr"] * factor) for metric in METRICS])


def test_per_band_tables_hold_the_bands_of_their_pixel_size(papers):
    """RMSE grows by 1 DN per band in the synthetic evaluation, B05 first, B01 and B09 last."""
    paper = papers["6.6"]
    row = row_of(paper, "s2x", "mean")
    for i, band in enumerate(BANDS[:6]):
        assert cell_of(paper, row, "rmse", band).value == pytest.approx(30.0 + i)
    paper = papers["6.8"]
    assert cell_of(paper, row_of(paper, "eosr", "mean"), "rmse", "B09").value == pytest.approx(24.0 + 7)


def test_reflectance_is_turned_into_the_digital_numbers_of_the_print():
    table = synthetic_evaluation(units="reflectance")
    scaled = table["summary_overall"] * xr.where(table.metric == "rmse", 1e-4, 1.0)
    paper = paper_tables(table.assign(summary_overall=scaled))[0]
    assert cell_of(paper, row_of(paper, "bicubic", "mean"), "rmse").value == pytest.approx(BICUBIC["rmse"])
    assert cell_of(paper, row_of(paper, "bicubic", "mean"), "sre").value == pytest.approx(BICUBIC["sre"])


def test_both_averages_stand_there_by_name(papers):
    paper = papers["6.5"]
    mean, pooled = (row_of(paper, "s2x", average) for average in ("mean", "pooled"))
    assert cell_of(paper, pooled, "rmse").value == pytest.approx(1.1 * cell_of(paper, mean, "rmse").value)


def test_the_ratio_to_bicubic_of_the_print_is_that_of_science(papers):
    """S2x: 34.99 / 125.69 = 0.278; DSen2: 35.85 / 125.69 = 0.285; SRE 36.19 - 25.64 = 10.55 dB."""
    paper = papers["6.5"]
    assert cell_of(paper, row_of(paper, "S2x"), "rmse").to_bicubic == pytest.approx(0.2784, abs=5e-5)
    assert cell_of(paper, row_of(paper, "DSen2"), "rmse").to_bicubic == pytest.approx(0.2852, abs=5e-5)
    assert cell_of(paper, row_of(paper, "S2x"), "sre").to_bicubic == pytest.approx(10.55)


def test_the_measured_ratio_is_to_bicubic_as_measured_before_the_projection(papers):
    """Errors of quality 0.25 are 0.25 of bicubic's, decibels 12.04 more, 1 - SSIM a quarter; so for any average."""
    for average in ("mean",):
        row = row_of(papers["6.5"], "s2x", average)
        wanted = [20 * math.log10(4) if m in ("sre", "psnr", "bpsnr") else 0.25 for m in METRICS]
        assert [cell.to_bicubic for cell in row.cells] == pytest.approx(wanted)
    pooled = row_of(papers["6.5"], "s2x", "pooled")
    assert cell_of(papers["6.5"], pooled, "rmse").to_bicubic == pytest.approx(0.25)


def test_adversarial_tables_take_bicubic_from_the_table_of_the_same_pixels(papers):
    """Pre-trained S2x in consistency: 4.28 / 34.96 of table 6.10."""
    paper = papers["6.18"]
    assert cell_of(paper, row_of(paper, "pre-trained S2x"), "rmse").to_bicubic == pytest.approx(4.28 / 34.96)


def test_adversarial_tables_take_s2x_and_what_the_study_has_no_name_for(papers):
    assert [row.name for row in papers["6.17"].rows if row.average != "pooled"][:3] == [
        "pre-trained S2x", "s2x", "+ WGAN-GP",
    ]  # fmt: skip
    assert {row.label for row in papers["6.17"].rows} == {"", "s2x", "eosr"}


def test_tables_on_distributed_training_get_no_measured_row(papers):
    assert all(row.source == "printed" for row in papers["6.19"].rows)
    assert [row.gpus for row in papers["6.19"].rows] == [None, 1, 1, 2, 4, 8, 16]
    assert papers["6.19"].notes == ()


def test_figures_in_exchanged_columns_stand_as_printed_but_count_as_meant():
    """6.15: SSIM 52.25 stands; bicubic's PSNR is 52.25, so that DSen2-L2A is 66.1935 - 52.25 = 13.94 dB better."""
    paper = paper_tables(None, level="L2A")[2]
    bicubic, other = row_of(paper, "Bicubic"), row_of(paper, "DSen2-L2A")
    assert cell_of(paper, bicubic, "ssim").text == "52.25"
    assert "swapped" in cell_of(paper, bicubic, "ssim").flags
    assert cell_of(paper, bicubic, "psnr").to_bicubic == 0
    assert cell_of(paper, other, "psnr").to_bicubic == pytest.approx(66.1935 - 52.25)
    assert cell_of(paper, other, "ssim").to_bicubic == pytest.approx((1 - 0.9819) / (1 - 0.9844))


def test_flags_stand_at_their_figure_and_at_their_row(papers):
    paper = papers["6.7"]
    assert "bpsnr_below_psnr" in cell_of(paper, row_of(paper, "S6x"), "bpsnr").flags
    assert "ergas_60m" in cell_of(paper, row_of(paper, "S6x"), "ergas").flags
    assert cell_of(paper, row_of(paper, "S6x"), "sam").flags == ()
    assert row_of(paper, "ATPRK").flags == ("copied",)
    assert not any(cell.flags for row in paper.rows if row.source == "measured" for cell in row.cells)


def test_measured_figures_carry_operator_convention_and_scenes(papers):
    paper = papers["6.5"]
    assert (paper.degradation, paper.convention, paper.scenes) == ("study", "zhang2020", ("T33UUB", "49JGM"))
    assert paper.notes[0] == (
        "Measured by eosr on 2 scenes (T33UUB, 49JGM), not on the study's tiles: compare what is said to bicubic, not "
        "the figures. Degradation 'study', convention 'zhang2020', border 2 coarse pixels."
    )


def test_many_scenes_are_counted_not_listed():
    table = synthetic_evaluation(scenes=[f"scene{i}" for i in range(9)])
    assert "9 scenes (scene0, scene1, scene2, scene3 and 5 more)" in paper_tables(table)[0].notes[0]


def test_bands_that_were_not_measured_are_named_beside_averages():
    papers = {p.printed.number: p for p in paper_tables(synthetic_evaluation().sel(band=["B05", "B06", "B01", "B09"]))}
    assert papers["6.5"].notes[-1] == "Measured without B07, B8A, B11, B12, which the printed averages hold."
    assert "Measured without" not in " ".join([*papers["6.6"].notes, *papers["6.7"].notes])


def test_another_convention_says_which_columns_cannot_be_compared():
    papers = {paper.printed.number: paper for paper in paper_tables(synthetic_evaluation(convention="eosr"))}
    assert papers["6.5"].notes[-1] == (
        "Another convention than the study's: SSIM, PSNR, bPSNR cannot be compared with the print. As seen from "
        "bicubic all but SSIM can."
    )
    assert "SSIM, PSNR, bPSNR, ERGAS cannot" in papers["6.7"].notes[-1]
    assert "Another convention" not in " ".join(papers["6.6"].notes)  # RMSE and SRE alone


def test_a_reconstruction_is_not_taken_for_the_original():
    table = synthetic_evaluation({"bicubic": 1.0, "superres_like": 0.5})
    paper = paper_tables(table)[0]
    assert row_of(paper, "superres_like").method == "Superres"
    assert paper.notes[-1].startswith("superres_like is a reconstruction")


def test_without_bicubic_there_is_no_ratio_and_a_note_says_so():
    paper = paper_tables(synthetic_evaluation({"eosr": 0.2}))[0]
    assert {cell.to_bicubic for cell in row_of(paper, "eosr").cells} == {None}
    assert paper.notes[-1] == "Bicubic was not measured, so the measured rows have no ratio to it."


def test_scores_under_another_operator_are_no_match():
    paper = paper_tables(synthetic_evaluation(operators=("mtf",)))[0]
    assert {row.source for row in paper.rows} == {"printed"}
    assert paper.notes == (
        "The evaluation has no scores under the operator 'study', so no measured row can stand here.",
    )


def test_scores_of_other_operators_do_not_leak_in():
    table = synthetic_evaluation()
    spoiled = table["summary_overall"].where(table.degradation == "study", 9999.0)
    paper = paper_tables(table.assign(summary_overall=spoiled))[0]
    assert cell_of(paper, row_of(paper, "bicubic", "mean"), "rmse").value == BICUBIC["rmse"]


def test_columns_that_were_not_scored_are_empty():
    table = synthetic_evaluation().sel(metric=["rmse", "sre"])
    row = row_of(paper_tables(table)[0], "eosr", "mean")
    assert [cell.text for cell in row.cells] == ["24.00", "38.98", "-", "-", "-", "-", "-"]


@pytest.mark.parametrize(
    ("metric", "value", "bicubic", "seen"),
    [("rmse", 5, 20, 0.25), ("sam", 0.5, 1, 0.5), ("psnr", 50, 44, 6), ("ssim", 0.9, 0.6, 0.25), ("rmse", 0, 20, 0)],
)
def test_figures_as_seen_from_bicubic(metric, value, bicubic, seen):
    assert to_bicubic(metric, value, bicubic) == pytest.approx(seen)


def test_two_perfect_figures_have_no_ratio():
    assert math.isnan(to_bicubic("rmse", 0.0, 0.0))
    assert math.isnan(to_bicubic("sre", math.inf, math.inf))


def test_digits_are_those_worth_showing():
    shown = [figure_text(*one) for one in (("rmse", 34.987), ("ssim", 0.93357), ("sam", 0.07), ("sre", np.inf))]
    assert shown == ["34.99", "0.9336", "0.070", "inf"]
    assert figure_text("rmse", math.nan) == "-"
    assert [metric_name(name) for name in ("rmse", "bpsnr", "sre_supreme")] == ["RMSE", "bPSNR", "SRE SUPREME"]


def test_a_level_without_tables_is_refused():
    with pytest.raises(MetricError, match=r"level='L1B' is none that the study has tables for. Use level='L1C' or"):
        paper_tables(synthetic_evaluation(level="L1B"))
    with pytest.raises(MetricError, match="level=None is none"):
        paper_tables(synthetic_evaluation().assign_attrs(level=None))


def test_what_is_no_evaluation_is_refused():
    with pytest.raises(MetricError, match="the table has no summary and no summary_overall, so it is no evaluation"):
        paper_tables(xr.Dataset(), level="L1C")
