"""What eosr promises from outside: its names, their documentation, and a tree without private traces."""

import ast
import inspect
import ipaddress
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import eosr
from eosr import metrics, write
from eosr.cube import grid, masks, radiometry

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = sorted(name for name in eosr.__all__ if inspect.isfunction(getattr(eosr, name)))
SUBMODULE_FUNCTIONS = {
    "grid.at": grid.at, "grid.from_arrays": grid.from_arrays, "grid.crop_to_multiple": grid.crop_to_multiple,
    "masks.mask_like": masks.mask_like,
    "radiometry.to_digital_numbers": radiometry.to_digital_numbers, "write.to_stac_items": write.to_stac_items,
}  # fmt: skip


def sections(function) -> dict[str, str]:
    """Sections of a numpydoc docstring by title; the lines before the first are ``""``."""
    found, title = {"": ""}, ""
    lines = (inspect.getdoc(function) or "").splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if re.fullmatch(r"-{3,}", below) and len(below) == len(line):
            title = line
            found[title] = ""
        elif not re.fullmatch(r"-{3,}", line):
            found[title] += line + "\n"
    return found


def modules_after(code):
    """Modules that a fresh process has loaded once it has run this."""
    code = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_importing_eosr_loads_nothing_that_takes_longer_than_xarray():
    heavy = {
        "torch", "stackstac", "rasterio", "rioxarray", "zarr", "pystac", "pystac_client", "jinja2", "distributed",
        "dask", "scipy", "matplotlib", "horovod", "psutil",
    }  # fmt: skip
    loaded = modules_after("import eosr")
    assert "xarray" in loaded
    assert loaded & heavy == set()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("eosr", "--version"), ("eosr", "--help"), ("eosr", "superresolve --help"),
        ("eosr-train", "--version"), ("eosr-train", "--help"), ("eosr-train", "run --help"),
    ],
)  # fmt: skip
def test_a_command_answers_what_it_is_without_xarray(command, options):
    module = {"eosr": "eosr.cli", "eosr-train": "eosr.cli.train"}[command]
    code = (
        f"sys.argv = [{command!r}, *{options.split()!r}]\n"
        f"import {module} as command\n"
        "try: command.main()\nexcept SystemExit: pass"
    )
    assert modules_after(code) & {"xarray", "numpy", "torch", "dask"} == set()


def test_the_names_that_need_torch_are_found_on_use():
    code = "import eosr, sys; eosr.load_weights; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'eosr' has no attribute 'superresovle'"):
        _ = eosr.superresovle


@pytest.mark.parametrize("module", [eosr, metrics], ids=["eosr", "eosr.metrics"])
def test_every_public_name_exists_once_and_is_documented(module):
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value):
            assert value.__doc__, name
            assert value.__doc__.strip().splitlines()[0].rstrip().endswith((".", "]")), name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_documents_every_argument_its_result_and_its_errors(name):
    function = getattr(eosr, name)
    found = sections(function)
    signature = inspect.signature(function)
    assert {"Parameters", "Returns", "Raises"} <= set(found), f"{name} has only {sorted(found)}"
    heads = [line for line in found["Parameters"].splitlines() if line and not line.startswith(" ")]
    documented = {word.strip().lstrip("*") for line in heads for word in line.split(" : ")[0].split(",")}
    assert documented == set(signature.parameters), name
    kinds = re.findall(r"\b\w+Error\b", found["Raises"])
    assert kinds, name
    for kind in kinds:
        assert hasattr(eosr.errors, kind), f"{name} documents {kind}, which eosr.errors does not have"


@pytest.mark.parametrize("name", sorted(SUBMODULE_FUNCTIONS))
def test_a_function_reached_through_its_module_has_a_docstring(name):
    assert sections(SUBMODULE_FUNCTIONS[name])[""].strip()


def python_files() -> list[Path]:
    return sorted((ROOT / "eosr").rglob("*.py"))


def test_only_the_command_lines_print():
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in python_files()
        if path.parent.name != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def tracked_texts() -> dict[str, str]:
    """Text of every file that is in the repository or about to be."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    texts = {}
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".safetensors", ".npz", ".tif"}:
            texts[name] = path.read_text(errors="replace")
    return texts


def private_traces(text: str) -> list[str]:
    """Absolute paths of one machine, and hosts that only one network knows."""
    places = ("work", "tmp", "root", "home", "Users", "mnt")
    path = r"(?<![\w.:/~$}*-])/(?:" + "|".join(places) + r")/[\w.-]+"
    found = re.findall(path, text)
    for address in re.findall(r"https?://[^\s\"'`)>\]]+", text):
        host = urlsplit(re.sub(r"[{<].*", "", address)).hostname or ""
        if host and not host.endswith(".") and _is_private(host):  # "https://zipper." is only the beginning of one
            found.append(address)
    name = socket.gethostname()
    if len(name) >= 8 and name != "localhost" and re.search(rf"\b{re.escape(name)}\b", text):
        found.append(name)
    return found


def _is_private(host: str) -> bool:
    if host in {"localhost", "127.0.0.1"} or host.endswith((".example", ".invalid", ".test")):
        return False  # tests serve files on the loopback address, and errors show names that nobody has
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host.strip(".") or host.endswith((".internal", ".local", ".lan", ".corp", ".intranet"))


def test_the_tree_holds_no_path_or_host_of_one_machine():
    found = {name: traces for name, text in tracked_texts().items() if (traces := private_traces(text))}
    found.pop("tests/test_public.py", None)  # holds the planted ones
    assert found == {}


@pytest.mark.parametrize(
    "planted",
    [
        "open('/work/data/x.tif')",
        "see /tmp/out.txt",
        "/home/someone/x",
        "http://mirror.internal/simple",
        "http://pypi/x",
    ],
)
def test_a_planted_trace_is_seen(planted):
    assert private_traces(f"some text {planted} and more")


def test_public_addresses_and_relative_paths_are_no_trace():
    text = "https://earth-search.aws.element84.com/v1, ./work/x, tmp_path/'x', http://127.0.0.1:8000/a.tif, s3://tmp/x"
    assert private_traces(text) == []


def bounds_without_reason(text: str) -> list[str]:
    """Requirements with a version bound whose line in pyproject.toml says nothing about it."""
    bound = re.compile(r"\"[A-Za-z0-9_.-]+(?:\[[\w,]+\])?\s*(?:[<>=!~]=|[<>]).*?\"")
    return [line.strip() for line in text.splitlines() if bound.search(line.split("#")[0]) and "# " not in line]


def test_every_version_bound_says_why():
    assert bounds_without_reason((ROOT / "pyproject.toml").read_text()) == []


def test_a_version_bound_without_a_reason_is_seen():
    assert bounds_without_reason('  "numpy>=1.26",\n  "rich>=13", # why\n  "eosr[odc]",\n') == ['"numpy>=1.26",']


def test_every_dependency_is_written_on_its_own_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    lines = [line.split("#")[0] for line in (ROOT / "pyproject.toml").read_text().splitlines()]
    for requirement in (one for group in groups for one in group if re.search(r"[<>=]", one)):
        (line,) = {line for line in lines if f'"{requirement}"' in line}
        assert len(re.findall(r"\"[^\"]+[<>=][^\"]*\"", line)) == 1, line


def test_the_version_is_the_same_everywhere():
    version = eosr.__version__
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
