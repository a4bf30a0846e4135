"""The LaTeX of an evaluation and of the study's tables, set by a real pdflatex: it compiles, and nothing is cut off."""

import re
import shutil
import subprocess

import pytest
from support.patience import PATIENCE
from support.synthetic_evaluation import synthetic_evaluation

from eosr.score.report.formats import to_latex
from eosr.score.report.sheets import Cell, Sheet, latex
from eosr.score.report.study import paper_tables

HOSTILE = {"bicubic": 1.0, "[mine]": 0.5, "*best": 0.4, "R&D 5% of #1_a|b~c^d\\e{f}$ <g>": 0.3, "Größe": 0.2}


@pytest.fixture
def typeset(tmp_path):
    """Compile tables in a minimal document, and return the log of pdflatex, unfolded."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not on PATH: apt-get install texlive-latex-base texlive-latex-recommended")

    def compiled(tables):
        (packages,) = re.findall(r"^% Needs (\\usepackage\S+) in the preamble\.$", tables, flags=re.MULTILINE)
        text = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{tables}\\end{{document}}\n"
        (tmp_path / "t.tex").write_text(text, "utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=PATIENCE)
        log = (tmp_path / "t.log").read_text("utf-8", "replace")
        assert done.returncode == 0, "\n".join(re.findall(r"^!.*(?:\n.*){4}", log, flags=re.MULTILINE))
        return log

    return compiled


@pytest.mark.parametrize(
    "table",
    [
        lambda: synthetic_evaluation(),
        lambda: synthetic_evaluation(HOSTILE, scenes=("one",), operators=("study",)),
        lambda: paper_tables(synthetic_evaluation()),
        lambda: paper_tables(None),
    ],
    ids=["evaluation", "names that LaTeX would read", "study's tables with measured rows", "study's tables"],
)
def test_tables_compile_and_stay_on_the_page(typeset, table):
    """A table that is too wide is no error to pdflatex: it warns of an overfull box, and its right side is lost."""
    log = typeset(to_latex(table()))
    assert re.findall(r"^Overfull \\[hv]box.*|.*Missing character.*|.*Float too large.*", log, flags=re.MULTILINE) == []
    assert re.search(r"^Output written on t\.pdf \(\d+ pages?", log, flags=re.MULTILINE)


def test_a_head_stands_on_as_many_lines_as_it_has_words():
    rows = ((Cell("a"), Cell("1"), Cell("2")),)
    text = latex([Sheet(title="t", heads=("method", "RMSE B05 [DN]", "SAM [deg]"), rows=rows)])
    heads = text.split("\\toprule\n")[1].split("\n\\midrule")[0]
    assert heads.splitlines() == [r" & RMSE &  \\", r" & B05 & SAM \\", r"method & [DN] & [deg] \\"]


@pytest.mark.parametrize("name", ["[mine]", "*best"])
def test_a_name_is_not_taken_for_the_argument_of_the_line_above(name):
    """LaTeX reads a bracket or a star after the end of a row as belonging to it."""
    sheet = Sheet(title="t", heads=(name, "a"), rows=((Cell(name), Cell("1")),))
    lines = latex([sheet]).splitlines()
    assert lines.count(rf"{{}}{name} & 1 \\") == 1
    assert not [line for line in lines if line.startswith(("[", "*"))]
