"""The frozen benchmark notices what is missing, and a part of it does not pass for the whole. Nothing is evaluated."""

import importlib.util
import tomllib
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from support.synthetic_evaluation import synthetic_evaluation

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "benchmarks" / "frozen" / "scenes.toml").read_text())
#: Quality of every method that a run judges: "bicubic" is added by evaluate.
GROUPS = list(SETTINGS["groups"])
QUALITIES = {"bicubic": 1.0} | {name: 0.5 for name in SETTINGS["methods"]}
ALL = QUALITIES | {"dsen2": 0.3}


@pytest.fixture(scope="module")
def loaded():
    """The script, which is in no package, by its path."""
    spec = importlib.util.spec_from_file_location("frozen_evaluation", ROOT / "benchmarks" / "frozen_evaluation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def expected(loaded, tmp_path_factory):
    """The expected table of a whole run, as text."""
    methods = [*SETTINGS["methods"], "dsen2"]
    elsewhere = [name for name in methods if name not in SETTINGS["block_only"]]
    judged = {group: methods if group == "block" else elsewhere for group in GROUPS}
    path = tmp_path_factory.mktemp("frozen") / "expected.csv"
    loaded.write_expected(list(loaded.rows_of(judged_by_nobody(judged, judged, SETTINGS["operators"], SETTINGS))), path)
    return path.read_text()


@pytest.fixture
def script(loaded, expected, tmp_path, monkeypatch):
    """The script, with pages and expected table in a folder of their own, and tables that nobody evaluated."""
    frozen = tmp_path / "frozen"
    for folder in (frozen, tmp_path / "docs"):
        folder.mkdir()
    (frozen / "scenes.toml").write_bytes((ROOT / "benchmarks" / "frozen" / "scenes.toml").read_bytes())
    (frozen / "expected.csv").write_text(expected)
    monkeypatch.setattr(loaded, "HERE", frozen)
    monkeypatch.setattr(loaded, "PAGE", tmp_path / "docs" / "benchmark.md")
    monkeypatch.setattr(loaded, "PART", tmp_path / "benchmark-output" / "benchmark.md")
    monkeypatch.setattr(loaded, "scenes_of", lambda settings, data: dict.fromkeys(GROUPS if data else ["block"]))
    monkeypatch.setattr(loaded, "judge_all", judged_by_nobody)
    return loaded


def judged_by_nobody(groups, methods, operators, settings):
    return {
        group: [
            of_one_pixel_size(
                synthetic_evaluation(
                    {name: q for name, q in ALL.items() if name in {"bicubic", *methods[group]}},
                    scenes=("one",), operators=(operator,),
                ),
                gsd,
            ) for operator in operators for gsd in (20, 60)
        ] for group in groups
    }  # fmt: skip


def of_one_pixel_size(table, gsd):
    """The part of a table that a job of the script makes."""
    return table.isel(band=(table.native_gsd == gsd).values).sel(gsd=[gsd])


def status(script, *argv):
    with pytest.raises(SystemExit) as stopped:
        script.main([str(word) for word in argv])
    return stopped.value.code


WHOLE = ("--data", "packs", "--dsen2", "dsen2")


def test_a_whole_run_makes_the_page_of_the_docs_and_its_own_expected_table(script, capsys):
    (script.HERE / "expected.csv").unlink()
    assert status(script, *WHOLE, "--update") == 0
    assert status(script, *WHOLE) == 0
    told = capsys.readouterr().out
    assert "every figure is as expected" in told
    assert "not in this run" not in told
    page = script.PAGE.read_text()
    assert "Every figure of this run is as in the expected table." in page
    assert "lacks" not in page
    assert "## Unseen places, L1C: 1 scene" in page
    assert "## Sample block, L1C: the image that was trained on, another part of it: 1 scene" in page
    # Ours has half the error of bicubic, and after the projection 10 % less; DSen2 0.3, and no row after it.
    row = page.split("| **study, mean of L1C** | ")[1].splitlines()[0]
    assert "| 0.450 | **0.300** |" in row
    assert not script.PART.exists()


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ((), ["the unseen places, for which `DATA=FOLDER`", "DSen2, whose published weights are"]),
        (("--data", "packs"), ["DSen2, whose published weights are not shipped: `DSEN2=FOLDER` names their folder"]),
        (("--dsen2", "dsen2"), ["the unseen places, for which `DATA=FOLDER` names the folder"]),
    ],
    ids=["neither", "no DSen2", "no patches"],
)  # fmt: skip
def test_a_part_of_the_benchmark_says_so_and_leaves_the_page_of_the_docs_alone(script, capsys, given, lacking):
    script.PAGE.write_text("the whole benchmark\n")
    assert status(script, *given) == 0  # what was not to be judged is not missing
    assert script.PAGE.read_text() == "the whole benchmark\n"
    page, told = script.PART.read_text(), capsys.readouterr().out
    assert "This run is not the whole benchmark" in page
    assert page.count("\n- DSen2") + page.count("\n- the unseen") == len(lacking)
    for text in lacking:
        assert f"- {text}" in page
        assert f"not in this run: {text}" in told


def test_a_page_that_is_named_is_written_there(script, tmp_path):
    assert status(script, "--out", tmp_path / "mine.md") == 0
    assert "It lacks:" in (tmp_path / "mine.md").read_text()
    assert not script.PAGE.exists()
    assert not script.PART.exists()


def test_git_ignores_the_page_of_a_part():
    assert "benchmark-output/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.drop_sel(method="atprk"), "block, , synthesis, mtf, atprk, before, B05"),
        (lambda table: table.drop_sel(band="B11", errors="ignore"), "block, , synthesis, study, eosr, after, B11"),
        (lambda table: table.drop_sel(gsd=60, errors="ignore"), "block, , consistency, box, atprk, before, all 60 m"),
        (lambda table: table.assign(summary=table.summary.where(table.band != "B09")),
         "block, , synthesis, mtf_diff, bicubic, before, B09"),
    ],
    ids=["method", "band", "pixel size", "not a number"],
)  # fmt: skip
def test_what_is_expected_and_missing_is_told_and_fails(script, monkeypatch, capsys, change, told):
    def with_a_gap(groups, methods, operators, settings):
        tables = judged_by_nobody(groups, methods, operators, settings)
        return {group: [change(one) for one in parts] for group, parts in tables.items()}

    monkeypatch.setattr(script, "judge_all", with_a_gap)
    assert status(script, *WHOLE) == 1
    printed = capsys.readouterr().out
    assert f"expected, but not in this run: {told}" in printed
    count = printed.count("expected, but not in this run")
    assert f"\n{count} figures of this run are not as in the expected table, or missing." in script.PAGE.read_text()


def test_a_figure_that_differs_or_is_new_is_told(script):
    figures = ("block", "", "synthesis", "study", "eosr", "after", "B05", "20.00", "nan", "nan")
    row = dict(zip(script.COLUMNS, figures, strict=True))
    expected = {script.key_of(row): row}
    judged = {"block": ({"eosr"}, {"study"})}
    # Tolerated: 0.2 % and 0.01 DN, together 0.05 of 20 DN.
    assert script.compare([row | {"rmse": "20.049"}], expected, judged) == []
    assert script.compare([row | {"rmse": "20.06"}], expected, judged) == [
        "block, , synthesis, study, eosr, after, B05: RMSE 20.06 DN, expected 20.00"
    ]
    assert script.compare([row, row | {"band": "B06"}], expected, judged) == [
        "not in the expected table: block, , synthesis, study, eosr, after, B06"
    ]
    assert script.compare([], expected, judged) == [
        "expected, but not in this run: block, , synthesis, study, eosr, after, B05"
    ]
    for others in (
        {"L2A": ({"eosr"}, {"study"})},
        {"block": ({"atprk"}, {"study"})},
        {"block": ({"eosr"}, {"mtf"})},
    ):
        assert script.compare([], expected, others) == []


def test_all_of_the_expected_table_is_looked_for_by_a_whole_run(script):
    expected = script.read_expected(ROOT / "benchmarks" / "frozen" / "expected.csv")
    for groups, dsen2, figures in ((("block", "patches"), Path("x"), 1600), (("block",), None, 900)):
        options = Namespace(dsen2=dsen2, methods=None)
        judged = {
            group: ({"bicubic", *script.methods_of(SETTINGS, group, options)}, set(SETTINGS["operators"]))
            for group in groups
        }
        assert len(script.compare([], expected, judged)) == figures


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--update",), "--update would leave figures out of the expected table. Give --data and --dsen2"),
        ((*WHOLE, "--update", "--operators", "study"), "--update would leave figures out"),
        (("--methods", "supremo"), "--methods supremo is not judged here. Use bicubic, detail_injection, atprk"),
        (("--methods", "dsen2"), "dsen2 is not judged here. Use .*; dsen2 needs --dsen2 FOLDER."),
        (("--operators", "mft"), "--operators mft is not judged here. Use study, box, mtf, mtf_diff."),
    ],
)
def test_a_run_that_could_not_do_what_is_asked_is_refused(script, capsys, argv, told):
    assert status(script, *argv) == 2
    printed = capsys.readouterr().err
    assert told.partition(".*")[0] in printed
    assert told.partition(".*")[2] in printed


def test_a_quick_look_writes_no_page_and_looks_for_what_it_judged(script, capsys):
    assert status(script, "--methods", "atprk", "--operators", "study", "box") == 0
    assert not script.PAGE.exists()
    assert not script.PART.exists()
    assert "every figure is as expected" in capsys.readouterr().out


@pytest.mark.parametrize("by_pixel_size", [False, True])
def test_time_is_that_of_all_bands_together(script, by_pixel_size):
    # 1.5 s in all, on 1000 pixels: 0.001 Mpx / 1.5 s.
    table = synthetic_evaluation(QUALITIES, scenes=("one",), operators=("study",))
    if by_pixel_size:
        share = xr.DataArray([1.0, 0.5], dims="gsd", coords={"gsd": [20, 60]})
        table["seconds"] = xr.ones_like(table.seconds) * share
    lines = script.timing([table])
    assert "| atprk | 1.50 | 0.001 |" in lines
    assert sum(line.startswith("| ") and "1.50" in line for line in lines) == len(QUALITIES)


def test_a_method_that_made_no_60_m_band_has_the_time_of_its_20_m_bands(script):
    table = synthetic_evaluation(QUALITIES, scenes=("one",), operators=("study",))
    share = xr.DataArray([1.0, np.nan], dims="gsd", coords={"gsd": [20, 60]})
    table["seconds"] = xr.ones_like(table.seconds) * share
    assert "| atprk | 1.00 | 0.001 |" in script.timing([table])
    table["seconds"] = table.seconds * 0
    assert "| atprk | 0.00 | - |" in script.timing([table])


def test_a_table_that_was_judged_is_not_judged_again_unless_what_it_rests_on_changed(loaded, tmp_path, monkeypatch):
    judged = []

    def judge(**how):
        judged.append(how["operator"])
        return synthetic_evaluation({"bicubic": 1.0}, scenes=("one",), operators=(how["operator"],))

    monkeypatch.setattr(loaded, "judge", judge)
    how = {"scenes": {"one": None}, "methods": {"eosr": {"method": "eosr"}}, "settings": SETTINGS, "kept": tmp_path}
    how["factor"] = 2
    first = loaded.kept_or_judged(**how, operator="study")
    again = loaded.kept_or_judged(**how, operator="study")
    assert judged == ["study"]
    xr.testing.assert_identical(first, again)
    loaded.kept_or_judged(**how, operator="box")
    loaded.kept_or_judged(**how | {"settings": SETTINGS | {"seed": 1}}, operator="box")
    weights = tmp_path / "weights"
    weights.write_text("one")
    with_file = how | {"methods": {"dsen2": {"method": "dsen2", "weights": [str(weights)]}}}
    loaded.kept_or_judged(**with_file, operator="box")
    weights.write_text("another")
    loaded.kept_or_judged(**with_file, operator="box")
    assert judged == ["study", "box", "box", "box", "box"]
    assert not list(tmp_path.glob("*.part"))


def test_a_job_that_fails_keeps_nothing(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(loaded, "judge", lambda **how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        loaded.kept_or_judged(scenes={}, methods={}, settings=SETTINGS, operator="box", factor=2, kept=tmp_path)
    assert not list(tmp_path.iterdir())
