"""Tables as text: what is read back is what was measured, and the markup is well-formed."""

import csv
import io
import json
import re

import numpy as np
import pytest
import xarray as xr
from support.synthetic_evaluation import METRICS, synthetic_evaluation

from eosr.errors import MetricError
from eosr.score.report.formats import (
    EVALUATION_COLUMNS,
    PAPER_COLUMNS,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_sheets,
)
from eosr.score.report.sheets import Cell, Sheet, escape_latex, evaluation_sheets, latex, markdown
from eosr.score.report.study import paper_tables


@pytest.fixture(scope="module")
def table():
    return synthetic_evaluation()


@pytest.fixture(scope="module")
def papers(table):
    return paper_tables(table)


@pytest.fixture(scope="module")
def rows(table):
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def refuse(word):
    raise ValueError(word)


def test_csv_reads_back_to_every_score(table, rows):
    """The summaries and the scores of single scenes, each found by its names."""
    for row in rows:
        at = {name: row[name] for name in ("method", "property", "degradation", "projection", "metric")}
        name = "summary" if row["scene"] == "all" else "score"
        if row["band"].startswith("all "):
            name, at["gsd"] = f"{name}_overall", int(row["band"].split()[1])
        else:
            at["band"] = row["band"]
        at |= {} if row["scene"] == "all" else {"scene": row["scene"]}
        at |= {"average": row["average"]} if row["average"] else {}
        assert set(at) == set(table[name].dims)
        if row["metric"] == "rmse" and row["method"] == "eosr":  # one look-up by xarray per row is slow
            assert float(row["value"]) == float(table[name].sel(at))


def test_csv_holds_every_figure_and_no_empty_one(table, rows):
    names = ("score", "score_overall", "summary", "summary_overall")
    assert len(rows) == sum(int(table[name].notnull().sum()) for name in names)
    assert all(row["value"] for row in rows)


def test_csv_has_a_header_and_whole_rows():
    table = synthetic_evaluation(scenes=("T33UUB",), operators=("study",))
    lines = list(csv.reader(io.StringIO(to_csv(table))))
    assert tuple(lines[0]) == EVALUATION_COLUMNS
    assert {len(line) for line in lines} == {len(EVALUATION_COLUMNS)}


def test_figures_carry_unit_direction_interval_and_cost(rows):
    """Two scenes of 1.5 s each, 1000 and 2000 pixels, 256 MiB at the peak."""
    (row,) = [
        row for row in rows
        if [row[k] for k in ("scene", "method", "property", "degradation", "projection", "band", "average", "metric")]
        == ["all", "s2x", "synthesis", "mtf_diff", "before", "all 20 m", "mean", "rmse"]
    ]  # fmt: skip
    told = {key: row[key] for key in ("value", "unit", "better", "low", "high", "seconds", "peak_memory", "pixels")}
    assert told == {
        "value": "30.0", "unit": "DN", "better": "lower", "low": "27.0", "high": "33.0", "seconds": "3.0",
        "peak_memory": str(2.0**28), "pixels": "3000.0",
    }  # fmt: skip
    single = next(row for row in rows if row["scene"] == "49JGM")
    assert (single["seconds"], single["pixels"], single["low"]) == ("1.5", "2000.0", "")


def test_every_figure_carries_what_its_row_is(rows, papers):
    """Options and weights: a row ``atprk`` with a published PSF is not the default's."""
    told = {row["method"]: (row["kind"], row["described"], row["weights_sha256"]) for row in rows}
    sums = f"{'0a' * 32} {'1b' * 32}"
    assert told == {
        "bicubic": ("bicubic", "bicubic", ""), "s2x": ("s2x", "s2x", ""),
        "eosr": ("eosr", "s2sr-20m + s2sr-60m", sums),
    }  # fmt: skip
    of_papers = csv.DictReader(io.StringIO(to_csv(papers)))
    found = {(row["label"], row["described"], row["weights_sha256"]) for row in of_papers}
    assert found == {("", "", ""), ("eosr", "s2sr-20m + s2sr-60m", sums), *((n, n, "") for n in ("bicubic", "s2x"))}


def test_what_a_label_does_not_tell_is_a_note_of_every_table_that_shows_the_row(table, papers):
    note = "Rows: eosr is s2sr-20m + s2sr-60m (SHA-256 0a0a0a0a0a0a, 1b1b1b1b1b1b)."
    assert to_markdown(table).count(f"- {note}\n") == 8
    assert all(sheet.notes[-1] == note for sheet in evaluation_sheets(table))
    assert f"{note}\\par" in to_latex(table)
    measured = [paper for paper in papers if paper.degradation]
    assert to_markdown(papers).count(f"- {note}\n") == to_latex(papers).count(note) == len(measured) > 0
    assert to_sheets(papers)[0].notes[-1] == note
    assert "Rows:" not in to_markdown(synthetic_evaluation({"bicubic": 1.0, "s2x": 0.5}))


def test_commas_quotes_and_line_ends_survive_csv():
    name = 'my "net", v2\nlarge'
    rows = list(csv.DictReader(io.StringIO(to_csv(synthetic_evaluation({"bicubic": 1.0, name: 0.5})))))
    assert {row["method"] for row in rows} == {"bicubic", name}


def test_json_is_strict_and_says_what_csv_says(table, rows):
    read = json.loads(to_json(table), parse_constant=refuse)
    assert read["attrs"]["convention"] == "zhang2020"
    assert len(read["rows"]) == len(rows)
    for one, other in zip(read["rows"], rows, strict=True):
        assert set(one) == set(EVALUATION_COLUMNS)
        assert {key: "" if value is None else str(value) for key, value in one.items()} == other


def test_nan_is_null_and_infinity_a_word_in_json():
    table = synthetic_evaluation(scenes=("T33UUB",), operators=("study",))
    table["summary_overall"].loc[{"method": "eosr", "metric": "sre", "projection": "after"}] = np.inf
    table["summary_overall"].loc[{"method": "eosr", "metric": "ssim"}] = np.nan
    table.attrs |= {"limits": np.array([1.0, np.nan]), "count": np.int64(3), "where": ("a", None)}
    read = json.loads(to_json(table), parse_constant=refuse)
    assert read["attrs"]["limits"] == [1.0, None]
    assert (read["attrs"]["count"], read["attrs"]["where"]) == (3, ["a", None])
    overall = [r for r in read["rows"] if r["scene"] == "all" and r["band"] == "all 20 m" and r["method"] == "eosr"]
    assert {r["value"] for r in overall if r["metric"] == "sre" and r["projection"] == "after"} == {"inf"}
    assert {r["value"] for r in overall if r["metric"] == "ssim"} == {None}
    text = [r for r in csv.DictReader(io.StringIO(to_csv(table))) if r["metric"] == "sre" and r["value"] == "inf"]
    assert text
    assert float(text[0]["value"]) == np.inf


def test_an_evaluation_without_intervals_costs_and_single_scenes_can_be_written():
    whole = synthetic_evaluation()
    table = whole[["summary", "summary_overall"]].assign_coords(whole.coords).drop_vars(["unit", "better"])
    row = next(csv.DictReader(io.StringIO(to_csv(table))))
    assert (row["seconds"], row["low"], row["unit"], row["value"]) == ("", "", "", "120.0")
    assert "**21.60**" in to_markdown(table)


def test_order_of_dimensions_does_not_matter():
    table = synthetic_evaluation(scenes=("T33UUB",), operators=("study",))
    mixed = table.transpose(*reversed(list(table.dims)))
    assert to_markdown(mixed) == to_markdown(table)
    assert sorted(to_csv(mixed).splitlines()) == sorted(to_csv(table).splitlines())


def test_one_markdown_table_per_property_operator_and_pixel_size(table):
    titles = re.findall("^### (.*)$", to_markdown(table), flags=re.M)
    assert len(titles) == len(set(titles)) == 2 * 2 * 2
    assert titles[0] == "Synthesis, 20 m bands, degradation study"
    assert "Consistency, 60 m bands, degradation mtf_diff" in titles


def markdown_tables(text):
    """Blocks of lines that begin with a bar."""
    return [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.M)]


def cells(line):
    return re.split(r"(?<!\\)\|", line)[1:-1]


@pytest.mark.parametrize("what", ["table", "papers"])
def test_markdown_columns_are_balanced(what, request):
    blocks = markdown_tables(to_markdown(request.getfixturevalue(what)))
    assert blocks
    for block in blocks:
        assert len({len(cells(line)) for line in block}) == 1
        assert set(block[1]) <= set("|-:")


def test_markdown_shows_the_scores(table):
    """Bicubic first: B05 120.00, one more per band, 120.00 over all with its interval of 10 %."""
    first = [cell.strip() for cell in cells(markdown_tables(to_markdown(table))[0][2])]
    assert first[:9] == [
        "bicubic", "120.00", "121.00", "122.00", "123.00", "124.00", "125.00", "120.00 (108.00 to 132.00)", "25.00",
    ]  # fmt: skip
    assert first[-2:] == ["1.50", "256"]


def test_the_best_of_each_column_is_bold_and_nothing_else(table):
    """eosr after projection wins every score; time and memory are not bold."""
    _, _, *lines = markdown_tables(to_markdown(table))[0]
    for line in lines:
        name, *scores, _, _ = (cell.strip() for cell in cells(line))
        assert all(score.startswith("**") == (name == "eosr, projected") for score in scores)


def test_higher_is_better_where_the_table_says_so():
    table = synthetic_evaluation({"bicubic": 1.0, "s2x": 2.0})
    bicubic = next(line for line in to_markdown(table).splitlines() if line.startswith("| bicubic"))
    assert bicubic.count("**") == 2 * (6 + 7)


def test_equal_figures_share_the_bold(table):
    twins = synthetic_evaluation({"bicubic": 1.0, "one": 0.5, "two": 0.5})
    text = markdown_tables(to_markdown(twins))[0]
    assert [line.count("**") for line in text[2:]] == [0, 2 * 13, 2 * 13]


def test_a_single_row_beats_nobody():
    table = synthetic_evaluation({"bicubic": 1.0})
    table["summary_overall"].loc[{"metric": "ssim"}] = np.nan
    assert "**" not in to_markdown(table)


def test_reflectance_has_its_unit_and_enough_digits():
    table = synthetic_evaluation(units="reflectance")
    scale = xr.where(table.metric.isin(["rmse", "bias"]), 1e-4, 1.0)
    text = to_markdown(table.assign({name: table[name] * scale for name in table.data_vars if "summary" in name}))
    assert "| RMSE [1] |" in text
    assert "RMSE [DN]" not in text
    assert "| bicubic | 0.012000 | 0.012100 |" in text
    assert "0.012000 (0.010800 to 0.013200) | 25.00" in text


def test_the_operator_stands_in_every_title_and_note(table):
    for sheet in evaluation_sheets(table):
        operator = sheet.title.rpartition(" ")[2]
        assert f"Degradation {operator}, convention zhang2020, border 2 coarse pixels, 2 scenes" in sheet.notes[0]


def test_pooled_figures_are_in_csv_and_not_in_markdown(papers, rows):
    assert {row["average"] for row in rows} == {"mean", "pooled", ""}
    assert "33.00 |" not in to_markdown(papers[:1])  # 1.1 x 30
    assert {row["average"] for row in csv.DictReader(io.StringIO(to_csv(papers)))} == {"printed", "mean", "pooled"}


def test_paper_csv_reads_back_to_print_and_measurement(papers):
    rows = list(csv.DictReader(io.StringIO(to_csv(papers))))
    assert tuple(rows[0]) == PAPER_COLUMNS
    keys = ("table", "method", "gpus", "metric", "band")
    printed = {tuple(r[key] for key in keys): r for r in rows if r["source"] == "printed"}
    one = printed["6.5", "S2x", "", "psnr", "all 20 m"]
    assert (one["text"], one["flags"], one["degradation"], one["scenes"]) == ("55.7756", "psnr_peak", "", "")
    assert printed["6.19", "S2x", "8", "rmse", "all 20 m"]["flags"] == "batch"
    assert printed["6.6", "ATPRK", "", "rmse", "B8A"]["text"] == "147.4"
    ours = next(r for r in rows if r["source"] == "measured" and r["label"] == "s2x")
    assert (ours["degradation"], ours["convention"], ours["scenes"]) == ("study", "zhang2020", "T33UUB;49JGM")
    assert float(ours["to_bicubic"]) == pytest.approx(0.25)


def test_paper_json_is_strict_and_keeps_flags_and_notes(papers):
    read = json.loads(to_json(papers), parse_constant=refuse)
    assert [one["table"] for one in read["tables"]] == [paper.printed.number for paper in papers]
    codes = {(one["table"], flag["code"]) for one in read["tables"] for flag in one["flags"]}
    assert ("6.19", "batch") in codes
    assert len(read["rows"]) == len(to_csv(papers).splitlines()) - 1


def test_marks_of_figures_have_their_footnote():
    """Every letter above a figure stands before a note of the same table, and the other way round."""
    text = to_markdown(paper_tables(None))
    for part in re.split("^### ", text, flags=re.M)[1:]:
        if "figures" in part.splitlines()[0]:
            used = set("".join(re.findall("<sup>(.*?)</sup>", part)))
            assert used == set(re.findall(r"^- \(([a-z])\)", part, flags=re.M))


def test_a_figure_that_is_not_printed_has_no_mark():
    assert "- <sup>" not in to_markdown(paper_tables(None)).replace("-<sup>", "- <sup>")


def test_the_operator_stands_in_the_title_of_a_paper_table(papers):
    assert (
        "### Table 6.5, L1C, 20 m bands, synthesis: printed and measured figures; measured with degradation study"
        in (to_markdown(papers))
    )


@pytest.mark.parametrize("what", ["table", "papers"])
def test_latex_columns_and_braces_are_balanced(what, request):
    text = to_latex(request.getfixturevalue(what))
    bare = re.sub(r"\\[\\{}&%$#_]", lambda found: r"\\" if found[0] == r"\\" else "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"(?<!\\)[#^~]", bare.split("\n", 1)[1])
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule")
    for columns, body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, flags=re.S):
        for line in body.splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1


def test_every_underscore_and_percent_is_escaped_in_latex():
    text = to_latex(synthetic_evaluation({"bicubic": 1.0, "superres_like": 0.5, "R&D 5%": 0.6}))
    assert r"superres\_like" in text
    assert r"R\&D 5\%" in text
    assert not re.search(r"(?<!\\)_", text)
    assert not re.search(r"(?<!\\)%", text.split("\n", 1)[1])


def test_latex_has_a_minus_and_a_dash_where_there_is_no_figure():
    sheet = Sheet(title="t", heads=("m", "a", "b", "c"), rows=((Cell("x-y"), Cell("-1.5"), Cell("-"), Cell("-inf")),))
    assert r"x-y & $-$1.5 & -- & $-$$\infty$ \\" in latex([sheet])
    assert "| x-y | -1.5 | - | -inf |" in markdown([sheet])


@pytest.mark.parametrize("letter", list("\\&%$#_{}~^"))
def test_special_letters_of_latex_are_escaped(letter):
    assert escape_latex(f"a{letter}b") not in (f"a{letter}b", "ab")
    assert escape_latex("plain (text), 10 m") == "plain (text), 10 m"


def test_a_bar_in_a_name_does_not_split_a_markdown_cell():
    (block,) = markdown_tables(markdown([Sheet(title="t", heads=("a|b", "c"), rows=((Cell("d|e"), Cell("1")),))]))
    assert {len(cells(line)) for line in block} == {2}


@pytest.mark.parametrize("form", [to_markdown, to_latex, to_csv, to_json])
def test_what_is_no_table_is_refused(form):
    with pytest.raises(MetricError, match=r"a dict cannot be formatted. Pass the Dataset of eosr.evaluate, or"):
        form({})
    with pytest.raises(MetricError, match=r"the table has no scene, method, .* so it is no evaluation"):
        form(xr.Dataset())


def test_every_metric_is_in_the_rows(rows):
    assert {row["metric"] for row in rows} == set(METRICS)
