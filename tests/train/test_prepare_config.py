"""The configuration of a store: every key known and documented, values that cannot work refused."""

from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from eosr.errors import TrainingError
from eosr.train.prepare.config import PrepareConfig, SourceConfig, load_prepare_config
from train.prepared import write_config
from train.test_config import toml_of

CUBE = 'kind__"cube"'


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patch__72": "patch = 70"}, r"patch = 70 is no multiple of 36 pixels .* Give 72\."),
        ({"patch__72": "patch = 0"}, r"patch = 0 is no multiple of 36 pixels .* Give 36\."),
        ({"margin__36": "margin = 6"}, r"margin = 6 is no multiple of 36"),
        ({"cloud__1.0": "cloud = 2.0"}, r"\[filter\] cloud = 2\.0 is no share"),
        ({"cloud__1.0": "nodata = nan"}, r"\[filter\] nodata = nan is no share"),
        ({"cloud__1.0": "clouds = 1.0"},
            r"\[filter\]: unknown key clouds\. Known keys: nodata, saturated, cloud, constant"),
        ({"seed__5": "sed = 5"}, r"unknown key sed\. Known keys: name, seed, patch"),
        ({"seed__5": "seed = -1"}, r"seed = -1 is below 0"),
        ({"seed__5": 'seed = "5"'}, r"seed = '5' is no int"),
        ({'name__"made"': 'name = "a/b"'}, r"name = 'a/b' cannot name a folder\. Give a word"),
        ({'name__"made"': 'name = ""'}, r"name = '' cannot name a folder"),
        ({'name__"made"': 'seed_ = 1'}, r"unknown key seed_"),
        ({CUBE: 'kind = "tiff"'}, r"\[\[source\]\] 1: kind = 'tiff' is unknown\. Give 'stac', 'safe' or 'cube'"),
        ({CUBE: 'kind = "cube"\ntile = "32TQM"\nlimit = 3'}, r"kind = 'cube' knows no limit, tile\. Remove the line"),
        ({CUBE: 'kind = "stac"\nlimit = -3'}, r"limit = -3 is below 0"),
        ({CUBE: 'kind = "safe"\noffset = "some"'}, r"offset = 'some' is unknown\. Give 'auto', 'none' or e\.g\."),
        ({"validation__0.3": 'by = "tile"'}, r"by = 'tile' is unknown\. Give 'scene' or 'geography'"),
        ({"validation__0.3": "degrees = 0.0"}, r"\[split\]: size must be 36 or more, degrees above 0"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_work_is_refused(change, said, tmp_path):
    with pytest.raises(TrainingError, match=said):
        write_config(tmp_path / "c.toml", tmp_path, **change)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"there is no configuration .*c\.toml\. Name a TOML file"),
        ("name = ", r"c\.toml cannot be read: .* Correct it"),
        ('name = "x"', r"names no source of scenes\. Add a table \[\[source\]\]"),
        ('[[source]]\nkind = "cube"\npaths = ["a"]', r"missing 1 required keyword-only argument: 'name'\. Add"),
        ('name = "x"\n[[source]]\nkind = "cube"', r"\[\[source\]\] 1: .*'paths'\. Add the missing key"),
        ('name = "x"\n[[source]]\nkind = "cube"\npaths = []', r"\[\[source\]\] 1: paths is empty"),
        ('name = "x"\nsource = 3', r"names no source of scenes"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(text, said, tmp_path):
    if text is not None:
        (tmp_path / "c.toml").write_text(text)
    with pytest.raises(TrainingError, match=said):
        load_prepare_config(tmp_path / "c.toml")


def test_the_documentation_lists_every_key_with_its_default():
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "prepare-training-data.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.splitlines() if line.startswith("| `")]
    told = {key.strip("`"): default for key, default in rows}
    plain = PrepareConfig(name="x")
    expected = {"name": "required"}
    for field in fields(PrepareConfig):
        part = getattr(plain, field.name)
        if is_dataclass(part):
            expected |= {f"[{field.name}] {one.name}": toml_of(getattr(part, one.name)) for one in fields(part)}
        elif field.name not in ("name", "source"):
            expected[field.name] = toml_of(part)
    source = SourceConfig(kind="x", paths=())
    for one in fields(SourceConfig):
        needed = one.name in ("kind", "paths")
        expected[f"[[source]] {one.name}"] = "required" if needed else toml_of(getattr(source, one.name))
    assert told == expected
