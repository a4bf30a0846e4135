"""The printed tables: every number is that of the slides, read again by another reader."""

import re

import pytest
from support.scenes import shared_path

from eosr.errors import MetricError
from eosr.score.report.study_figures import ALL, METRICS, TABLES, Figure, printed_table

NUMBER = re.compile(r"^-?\d+(\.\d+)?$")
#: How the slides write the names of generators.
SPELLED = (
    (r"\$(\\mathcal\{S\}|S)_\{2 ?\\times\}\^\{L[12][CA]\}\$", "S2x"),
    (r"\$(\\mathcal\{S\}|S)_\{6 ?\\times\}\^\{L[12][CA]\}\$", "S6x"),
)


def plain(text: str) -> str:
    for pattern, name in SPELLED:
        text = re.sub(pattern, name, text)
    return text.replace(r"$0.0001 \times$", "0.0001 x").replace("*", "").strip()


@pytest.fixture(scope="module")
def slides() -> dict[str, tuple[str, list[list[str]]]]:
    """Number of a table -> (caption, rows of cells); the rows are those above the caption, back to the slide's text."""
    found, rows = {}, []
    for line in shared_path("docs", "reference-study.txt").read_text().splitlines():
        caption = re.match(r"Table (6\.\d+): (.*)", line)
        if caption:
            found[caption[1]] = (plain(caption[2]), rows)
        elif "\t" in line and any(NUMBER.match(cell.strip()) for cell in line.split("\t")):
            rows.append([plain(cell) for cell in line.split("\t")])
        elif line.startswith(("-", "Super-resolution", "Distributed")):
            rows = []
    return found


def test_every_table_of_the_slides_is_here_and_no_other(slides):
    assert sorted(TABLES) == sorted(slides)
    assert "6.12" not in TABLES
    assert len(TABLES) == 15


@pytest.mark.parametrize("number", [n for n, table in TABLES.items() if table.kind in ("average", "adversarial")])
def test_average_tables_are_as_printed(slides, number):
    ours = [[row.method, *(_text(row, (metric, ALL)) for metric in METRICS)] for row in TABLES[number].rows]
    assert ours == slides[number][1]


@pytest.mark.parametrize("number", ["6.6", "6.9", "6.14", "6.16"])
def test_per_band_tables_are_as_printed(slides, number):
    """The slides print the RMSE of all methods, then the SRE of all."""
    bands = ("B05", "B06", "B07", "B8A", "B11", "B12")
    rows = TABLES[number].rows
    ours = [[row.method, *(_text(row, (metric, b)) for b in bands)] for metric in ("rmse", "sre") for row in rows]
    assert ours == slides[number][1]


def test_the_per_band_table_of_60_m_is_as_printed(slides):
    """B1 and B9, twice: first RMSE, then SRE."""
    columns = [(metric, band) for metric in ("rmse", "sre") for band in ("B01", "B09")]
    assert [[row.method, *(_text(row, c) for c in columns)] for row in TABLES["6.8"].rows] == slides["6.8"][1]


@pytest.mark.parametrize("number", ["6.19", "6.20"])
def test_distributed_tables_are_as_printed_with_their_setup(slides, number):
    ours = [
        [row.method, *(str(x or "-") for x in (row.gpus, row.batch)), f"{row.hours}h" if row.hours else "-",
         *(_text(row, (metric, ALL)) for metric in METRICS[:-1])]
        for row in TABLES[number].rows
    ]  # fmt: skip
    assert ours == slides[number][1]


def test_captions_are_those_of_the_slides(slides):
    for number, table in TABLES.items():
        assert table.caption == slides[number][0], number


def test_every_number_above_a_caption_is_transcribed(slides):
    """Those of the setup of distributed training among them; nothing in the slides' rows is left over."""
    printed = sum(bool(NUMBER.match(cell)) for _, rows in slides.values() for row in rows for cell in row)
    setups = sum((row.gpus is not None) + (row.batch is not None) for t in TABLES.values() for row in t.rows)
    assert printed == sum(len(row.figures) for t in TABLES.values() for row in t.rows) + setups


def test_level_pixel_size_and_property_follow_the_captions():
    for table in TABLES.values():
        assert table.gsd == (60 if "S6x" in table.caption else 20)
        assert table.property == ("consistency" if "consistency" in table.caption else "synthesis")
        assert table.level == ("L2A" if table.number in ("6.13", "6.14", "6.15", "6.16") else "L1C")


def test_the_typing_errors_of_the_slides_stand():
    swapped = printed_table("6.15").row("Bicubic")
    assert (swapped.value("ssim"), swapped.value("psnr")) == (52.25, 0.9844)
    assert (swapped.exchanged().value("ssim"), swapped.exchanged().value("psnr")) == (0.9844, 52.25)
    assert [row.batch for row in printed_table("6.19").rows[-2:]] == [1028, 2056]


def test_a_row_in_order_is_not_exchanged():
    row = printed_table("6.5").row("S2x")
    assert row.exchanged() is row


def test_digits_are_kept_as_printed():
    table = printed_table("6.13")
    assert table.row("DSen2-L2A").figures["rmse", ALL].text == "43.00"
    assert table.row("DSen2").figures["ssim", ALL].text == "0.91"
    assert Figure("0.91").half == pytest.approx(0.005)
    assert Figure("92").half == 0.5


def test_gpu_hours_are_what_training_cost():
    """DSen2 96 h on 1; S2x 24 h on 4 are the same, "4d to 4h" on 16 is 64."""
    table = printed_table("6.19")
    assert [table.row(label).gpu_hours for label in ("DSen2, 1 GPU", "S2x, 4 GPUs", "S2x, 16 GPUs")] == [96, 96, 64]
    assert table.row("Bicubic").gpu_hours is None


def test_a_number_that_is_not_printed_is_none():
    assert printed_table("6.5").row("ATPRK").value("psnr") is None


def test_an_unknown_table_or_row_is_named_with_what_there_is():
    with pytest.raises(MetricError, match=r"the study prints no table '6.12'. Use one of 6.5, 6.6, "):
        printed_table("6.12")
    with pytest.raises(MetricError, match=r"table 6.11 has no row 'S2x'. It has 'Bicubic', 'DSen2', 'S6x'\."):
        printed_table("6.11").row("S2x")


def _text(row, column):
    return row.figures[column].text if column in row.figures else "-"
