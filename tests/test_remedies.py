"""What a message says to type helps: every line is taken out of the message itself, pasted, and the call repeated."""

import argparse
import ast
import contextlib
import copy
import io
import json
import re
import shlex
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from support.foreign_cubes import named, plane
from support.safe_product import write_safe
from support.scenes import write_scene

import eosr
import eosr.cli.train
import eosr.cube.masks
import eosr.metrics
import eosr.score.report.study
from eosr.accessor import S2SRAccessor
from eosr.batch.site import load_site
from eosr.cli.entry import _parser, main
from eosr.cli.options import open_source, typed
from eosr.errors import EosrError
from eosr.testing import random_weights, synthetic_scene
from eosr.train.prepare.config import load_prepare_config
from eosr.train.prepare.sources import find_scenes
from eosr.train.settings.config import load_config
from eosr.write import deliver

ROOT = Path(__file__).resolve().parents[1]
CASES = tomllib.loads((Path(__file__).parent / "remedies.toml").read_text())
TIMES = np.array(["2023-06-01T10:20", "2023-06-06T10:20"], "datetime64[ns]")
SCORED = {"fine_gsd": 10, "coarse_gsd": 20, "peak": 10_000, "data_range": 10_000}
#: Functions that stand in place of the call that failed; another one makes what is given to it fit for that call.
INSTEAD = ("eosr.open", "eosr.to_", "eosr.write.to_", "eosr.cube.at", "eosr.from_xarray", "xr.open", "{")


def scene(size=12, times=1, bands=(), **attrs):
    said = {"radiometric_offset": -1000, "item_ids": ["S2A_x"]} | attrs
    ds = synthetic_scene(size, size, level="L2A", times=TIMES[:times] if times else None, **said)
    return ds[list(bands)] if bands else ds


def cube(**bands):
    """A Dataset of another library, on 10 m."""
    return xr.Dataset(bands or {"B02": plane(10), "B03": plane(10)})


def pixels():
    return xr.DataArray(np.arange(144.0).reshape(12, 12), dims=("y", "x"), name="B05")


def command(line):
    """Run a command in this process; what it says when it fails is the message."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(shlex.split(line))
        except SystemExit as end:
            status = end.code
    if status:
        raise EosrError(said.getvalue())


def opened(line):
    """Open the scene of a command, which is most of the work of a message about it."""
    options = _parser().parse_args(shlex.split(line))
    try:
        return open_source(options)
    except EosrError as error:
        raise EosrError(typed(str(error), options.parser.options())) from error


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("tiny"), size=84)


@pytest.fixture
def names(tiny, tmp_path):
    """What a case may use, anew for every remedy of it."""

    def made():
        item = copy.deepcopy(tiny.item())
        source = tmp_path / "item.json"
        source.write_text(json.dumps(item))

        def configured(load, text):
            path = tmp_path / "file"
            path.write_text(text)
            return load(path)

        return {
            "eosr": eosr, "xr": xr, "xarray": xr, "np": np, "TIMES": TIMES, "SCORED": SCORED, "folder": tmp_path,
            "scene": scene, "cube": cube, "named": named, "plane": plane, "pixels": pixels, "deliver": deliver,
            "item": item, "other": tiny.item, "source": str(source), "command": command, "opened": opened,
            "run": lambda text: configured(load_config, text), "site": lambda text: configured(load_site, text),
            "prepare": lambda text: find_scenes(configured(load_prepare_config, text)), "write_safe": write_safe,
            "random_weights": random_weights,
        }  # fmt: skip

    return made


def refused(case, names):
    """What a case made, its own names among it, and the remedies of the message."""
    scope = names()
    known = set(scope)
    exec(case["given"], scope)
    with pytest.raises(EosrError) as refusal:
        eval(case["call"], scope)
    found = re.findall(case["pasted"], str(refusal.value), re.DOTALL)
    assert found, str(refusal.value)
    for old, new in case.get("filled", {}).items():
        found = [text.replace(old, new.replace("TMP", str(scope["folder"]))) for text in found]
    found = [case["as"].format(text) if "as" in case else text for text in found]
    return scope, [name for name in scope if name not in known | {"__builtins__"}], found


def paste(text, call, scope, own):
    """Do what a reader does with a remedy, and repeat the call."""
    if "line" in own:
        scope["line"] = with_options(scope["line"], text)
    elif "config" in own:
        scope["config"] = with_key(scope["config"], text)
    elif re.match(r"\w+=[^=]", text):
        call = with_arguments(call, text)
    elif text.startswith(INSTEAD):
        call = text
    else:
        text = f"{own[0]}{text}" if text.startswith(".") else text
        with contextlib.suppress(SyntaxError):  # a statement stays as it is
            used = [node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)]
            text = f"{next(name for name in used if name in own or name == 'item')} = {text}"
        exec(text, scope)
    return eval(call, scope)


def with_arguments(call, text):
    """A call with arguments added, in place of those of the same name."""
    tree = ast.parse(call, mode="eval")
    new = ast.parse(f"f({text})", mode="eval").body.keywords
    node = tree.body
    while isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
        node = node.func.value
    node.keywords = [one for one in node.keywords if one.arg not in {other.arg for other in new}] + new
    return ast.unparse(tree)


def with_options(line, text):
    """A command with options added, in place of those of the same name."""
    for option in re.findall(r"--[a-z-]+", text):
        line = re.sub(rf" {option}[ =](?:(?! --).)*", "", line)
    return f"{line} {text}"


def with_key(config, text):
    """A TOML or YAML file with a line in place of that of the same key; a key that is not there goes to the end."""
    key = re.match(r"\w+", text)[0]
    if not re.search(rf"^{key}\b", config, re.MULTILINE):
        return f"{config}{text}\n"
    return re.sub(rf"^{key}\b.*", text, config, flags=re.MULTILINE)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@pytest.mark.filterwarnings("ignore::eosr.errors.EosrWarning")
def test_what_a_message_says_to_type_helps(case, names):
    number, count = 0, 1
    while number < count:
        scope, own, remedies = refused(case, names)
        paste(remedies[number], case["call"], scope, own)
        number, count = number + 1, len(remedies)


# ------------------------------------------------------------------------------------------- what messages name exists


@cache
def sentences():
    """Every text of eosr's sources that is no docstring and holds a space, with its place."""
    found = []
    for path in sorted((ROOT / "eosr").rglob("*.py")):
        skipped, texts = set(), []
        for node in ast.walk(ast.parse(path.read_text())):  # from the outside in
            if isinstance(node, ast.Expr):
                skipped.add(id(node.value))
            elif isinstance(node, ast.JoinedStr):
                skipped.update(map(id, node.values))
                texts.append((node, node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                texts.append((node, [node]))
        for node, values in texts:
            text = "".join(one.value if isinstance(one, ast.Constant) else "{}" for one in values)
            if " " in text.strip():
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", text))
    return found


def options_of(parser):
    """Every option of a program and of its commands."""
    for action in parser._actions:
        yield from action.option_strings
        for command in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from options_of(command)


def test_every_option_that_a_message_names_exists(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", lambda parser, argv: {}[parser])
        with pytest.raises(KeyError) as caught:
            eosr.cli.train.main([])
    others = {"--shm-size", "--resources", "--driver", "--force-reinstall", "--no-deps", "--nproc-per-node"}
    known = {*others, *options_of(_parser()), *options_of(caught.value.args[0])}
    pattern = r"(?<![\w-])--[a-z][a-z-]*[a-z]"
    named = [(place, option) for place, text in sentences() for option in re.findall(pattern, text)]
    assert len(named) > 50
    assert [(place, option) for place, option in named if option not in known] == []


def exists(name):
    """Whether ``eosr.a.b`` is there, a module or what is in it."""
    found, path = eosr, "eosr"
    for part in name.split(".")[1:]:
        path += f".{part}"
        try:
            found = getattr(found, part) if hasattr(found, part) else import_module(path)
        except ImportError:
            return False
    return True


def test_every_function_that_a_message_names_exists():
    pattern = r"(?<![\w./:-])eosr(?:\.[A-Za-z]\w*)+"
    named = {(place, name) for place, text in sentences() for name in re.findall(pattern, text)}
    assert len(named) > 30
    assert [(place, name) for place, name in named if not exists(name)] == []
    methods = {(place, name) for place, text in sentences() for name in re.findall(r"\.s2sr\.(\w+)", text)}
    assert [(place, name) for place, name in methods if not hasattr(S2SRAccessor, name)] == []


def test_every_file_and_target_that_a_message_names_is_there():
    named = {(place, name) for place, text in sentences() for name in re.findall(r"\b(?:hpc|docs)/[\w./-]*\w", text)}
    assert len(named) > 3
    assert [(place, name) for place, name in named if not (ROOT / name).exists()] == []
    targets = {name for _, text in sentences() for name in re.findall(r"\(make (\w+)", text)}
    rules = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets <= set(rules)


def test_every_extra_that_a_message_names_brings_the_package_that_it_says_is_missing():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = {
        extra: [re.match(r"[\w-]+", one)[0] for one in needed]
        for extra, needed in project["optional-dependencies"].items()
    }
    named = [(place, text, extra) for place, text in sentences() for extra in re.findall(r"'eosr\[(\w+)\]'", text)]
    assert len(named) > 8
    for place, text, extra in named:
        assert any(package in text for package in packages[extra]), place
