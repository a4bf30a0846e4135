"""`eosr`: parse, call the library, print."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from eosr import __version__
from eosr.errors import EosrError

#: `eosr.methods.METHODS` and `eosr.degrade.DEGRADATIONS`, which cannot be imported here: --help answers at once.
_METHODS = ("bicubic",)
_DEGRADATIONS = ("study", "box", "mtf", "mtf_diff")

_EPILOG = """\
examples:
  eosr demo demo-output
      the real sample scene, from its STAC item to every band at 10 m, with scores and a picture
  eosr superresolve https://earth-search.aws.element84.com/v1 out --collection sentinel-2-c1-l2a \\
      --bbox 11.2 46.4 11.4 46.5 --datetime 2023-06 --max-cloud-cover 10 --tile 32TPS
      search an API, cut a window, write Zarr, COGs and STAC items into the folder out
  eosr superresolve item.json out --bands B05,B11 --format cog
      one item, two bands
  eosr evaluate item.json --degradation mtf
      how good is it on this scene? Wald's protocol, bicubic beside it
  eosr info s2sr-20m
      where a weights file comes from and what it was scored at

`eosr COMMAND --help` lists the options of a command.
"""


class _Parser(argparse.ArgumentParser):
    """No abbreviations; a mistyped option or choice is answered with the nearest one there is."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def options(self) -> list[str]:
        """Every option of this parser, e.g. ``--bbox``."""
        return [text for action in self._actions for text in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Print usage and message, exit 2."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if wrong:
            message += _nearest(wrong[1], re.findall(r"[\w.-]+", wrong[2]))
        super().error(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eosr` with ``argv`` (default: the command line's) and return the exit status.

    Returns
    -------
    int
        0, or 1 after an `EosrError`, which is printed as one line. Wrong options exit with 2; any other error keeps
        its traceback.
    """
    options, unknown = _parser().parse_known_args(argv)
    if unknown:
        _refuse(options.parser, unknown)
    try:
        options.run(options)
    except EosrError as error:
        print(f"eosr: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eosr: interrupted. The same command goes on where it stopped.", file=sys.stderr)
        return 130
    return 0


def _refuse(parser: _Parser, unknown: Sequence[str]) -> NoReturn:
    first = unknown[0].split("=")[0]
    kind = "option" if first.startswith("-") else "argument"
    parser.error(f"unknown {kind} {first}{_nearest(first, parser.options()) if kind == 'option' else ''}")


def _nearest(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _parser() -> _Parser:
    parser = _Parser(
        prog="eosr", epilog=_EPILOG,
        description="Sharpen Sentinel-2: every band at 10 m, from STAC to Zarr and COG, with the numbers to prove it.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"eosr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text, add, run in (
        ("superresolve", "sharpen a scene and write Zarr, COGs and STAC items", _superresolve_options, _superresolve),
        ("evaluate", "score a scene by Wald's protocol, with bicubic beside", _evaluate_options, _evaluate),
        ("info", "what a weights file is, and where it comes from", _info_options, _info),
        ("demo", "the real sample scene, end to end", _demo_options, _demo),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add(command)
        command.set_defaults(run=run, parser=command)
    return parser


def _source_options(command: _Parser) -> None:
    command.add_argument("source", metavar="SOURCE", help="URL of a STAC API; path or URL of a catalogue or an item")
    group = command.add_argument_group("which scene")
    group.add_argument(
        "--bbox", nargs=4, type=float, metavar=("LEFT", "BOTTOM", "RIGHT", "TOP"),
        help="window: west south east north in degrees of longitude and latitude, unless --bbox-crs says otherwise",
    )  # fmt: skip
    group.add_argument(
        "--bbox-crs", default="EPSG:4326", metavar="CRS",
        help="CRS of --bbox: EPSG:4326 (default; longitude, latitude), 'item' (the scene's own: UTM metres), or EPSG:N",
    )  # fmt: skip
    group.add_argument("--datetime", metavar="WHEN", help="2023-06, or 2023-06-01/2023-06-30")
    group.add_argument("--collection", metavar="ID", help="e.g. sentinel-2-c1-l2a")
    group.add_argument("--query", action="append", metavar="TEXT", help="e.g. 'eo:cloud_cover<10'; may be repeated")
    group.add_argument("--max-cloud-cover", type=float, metavar="PERCENT", help="0 to 100")
    group.add_argument("--tile", metavar="MGRS", help="e.g. 32TQM, where several tiles are found")
    reading = command.add_argument_group("how it is read")
    reading.add_argument("--engine", default="stackstac", choices=["stackstac", "odc"])
    reading.add_argument("--chunks", type=int, metavar="PIXELS", help="side of a chunk [10 m pixels]; default 1536")
    reading.add_argument(
        "--offset", default="auto", metavar="DN",
        help="radiometric offset to add to the digital numbers: auto (default: what the item says), none, or a "
        "whole number, e.g. --offset=-1000; it is recorded, the digital numbers stay",
    )  # fmt: skip
    reading.add_argument("--alternate", metavar="NAME", help="which alternate hrefs to read, e.g. https")
    reading.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no device; use auto, cpu, cuda or cuda:N, e.g. cuda:0")
    return text


def _sharpening_options(command: _Parser, degradation: str) -> None:
    group = command.add_argument_group("how it is sharpened")
    group.add_argument("--bands", type=_names, metavar="B05,B11", help="default: all 12")
    group.add_argument(
        "--weights", type=_names, metavar="NAME,NAME", help="shipped names or files; default: all shipped"
    )
    group.add_argument("--method", choices=_METHODS, help="bicubic: interpolate, without weights")
    group.add_argument("--no-consistency", action="store_true", help="do not project the answer onto the measurement")
    group.add_argument("--degradation", metavar="NAME", help=degradation)
    group.add_argument(
        "--device", default="auto", type=_device, metavar="NAME", help="auto (default), cpu, cuda or cuda:N"
    )


def _superresolve_options(command: _Parser) -> None:
    _source_options(command)
    command.add_argument("out", metavar="OUT", type=Path, help="folder for the results")
    _sharpening_options(
        command, "blur to be undone: auto (default: what the scene says, else study), study, box, mtf, mtf_diff, or "
        "sigma=NUMBER [10 m pixels]",
    )  # fmt: skip
    group = command.add_argument_group("what is written")
    group.add_argument("--dtype", default="uint16", choices=["uint16", "float32"])
    group.add_argument("--format", default="both", choices=["both", "cog", "zarr"], help="default: both")
    group.add_argument("--overwrite", action="store_true", help="replace what is there; without it nothing is touched")
    group.add_argument("--quiet", action="store_true", help="no progress bars")
    command.epilog = "A killed run goes on when the same command is typed again."


def _evaluate_options(command: _Parser) -> None:
    _source_options(command)
    _sharpening_options(command, "blur of Wald's protocol: study (default), box, mtf or mtf_diff")
    group = command.add_argument_group("what is scored")
    group.add_argument("--property", default="synthesis", choices=["synthesis", "consistency"])
    group.add_argument("--border", type=int, metavar="PIXELS", help="left out along the rim")
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print all columns as JSON")
    shape.add_argument("--markdown", action="store_true", help="print the main columns as Markdown (default)")


def _info_options(command: _Parser) -> None:
    command.add_argument("weights", metavar="WEIGHTS", help="a shipped name, e.g. s2sr-20m, or a file")
    command.add_argument("--json", action="store_true", help="print JSON")


def _demo_options(command: _Parser) -> None:
    command.add_argument("out", metavar="OUT", type=Path, help="folder; what an earlier demo left there is replaced")
    command.add_argument("--method", choices=_METHODS, help="bicubic: a quick run without the weights")
    command.add_argument("--quiet", action="store_true", help="no progress bars")


# The library is imported in the commands: `eosr --help` answers at once.


def _open(options: argparse.Namespace) -> Any:
    from eosr.stac import open_stac

    if options.threads is not None:
        import dask

        if options.threads < 1:
            raise EosrError(f"--threads {options.threads} cannot work. Use 1 or more, e.g. --threads 2.")
        os.environ["OMP_NUM_THREADS"] = str(options.threads)  # read by torch, which is not imported yet
        dask.config.set(num_workers=options.threads)
    return open_stac(
        options.source, collection=options.collection, bbox=options.bbox, bbox_crs=options.bbox_crs,
        datetime=options.datetime, query=options.query, max_cloud_cover=options.max_cloud_cover, tile=options.tile,
        engine=options.engine, chunks=options.chunks, offset=options.offset, alternate=options.alternate,
    )  # fmt: skip


def _check_degradation(name: str | None, *known: str) -> None:
    """Refuse a blur before anything is opened; a number after ``sigma=`` is one, where the command takes it."""
    if name is None or name in known:
        return
    free = "sigma=NUMBER" in known
    if free and name.startswith("sigma="):
        with contextlib.suppress(ValueError):
            if 0 <= float(name.removeprefix("sigma=")) < float("inf"):
                return
        raise EosrError(f"--degradation {name} holds no number from 0 on. Use e.g. --degradation sigma=0.5.")
    raise EosrError(f"--degradation {name} is unknown. Use one of {', '.join(known)}{_nearest(name, known)}.")


def _check_device(options: argparse.Namespace) -> None:
    """Refuse a device that is not here before anything is written."""
    if options.device != "auto" and options.method is None:
        from eosr.nn.tile import resolve_device

        resolve_device(options.device)


def _superresolve(options: argparse.Namespace) -> None:
    from eosr.radiometry import check_not_empty
    from eosr.superresolve import superresolve
    from eosr.write import deliver

    _check_degradation(options.degradation, "auto", *_DEGRADATIONS, "sigma=NUMBER")
    ds = _open(options)
    _check_device(options)
    sharp = superresolve(
        ds, weights=options.weights, method=options.method, bands=options.bands,
        consistency=False if options.no_consistency else None, degradation=options.degradation or "auto",
        device=options.device, dtype=options.dtype,
    )  # fmt: skip
    check_not_empty(ds)
    made = deliver(
        sharp, options.out, format=options.format, overwrite=options.overwrite, progress=not options.quiet
    )  # fmt: skip
    print(f"{len(sharp.data_vars)} bands of {sharp.sizes['y10']} x {sharp.sizes['x10']} pixels in {made.folder}")
    _print_delivery(made)


def _print_delivery(made: Any) -> None:
    if made.zarr:
        print(f"  Zarr       {made.zarr}")
    if made.cogs:
        print(f"  COGs       {len(made.cogs)} files, {made.cogs[0].name} ...")
    for item in made.items:
        print(f"  STAC item  {item}")


def _evaluate(options: argparse.Namespace) -> None:
    from eosr.demo import aligned, as_records
    from eosr.evaluate import evaluate, to_markdown

    _check_degradation(options.degradation, *_DEGRADATIONS)
    ds = _open(options)
    _check_device(options)
    table = evaluate(
        ds, weights=options.weights, method=options.method, bands=options.bands,
        degradation=options.degradation or "study", property=options.property, border=options.border,
        consistency=False if options.no_consistency else None, device=options.device,
    )  # fmt: skip
    print(json.dumps(as_records(table), indent=2) if options.json else aligned(to_markdown(table)), end="")
    if options.json:
        print()


def _info(options: argparse.Namespace) -> None:
    from eosr.nn.weights import load_weights, weights_path

    weights = load_weights(options.weights)
    bands, made = weights.normalization, weights.provenance
    facts = {
        "name": weights.name,
        "file": str(weights_path(options.weights)),
        "sharpens": list(bands.target_bands),
        "guided by": [*bands.fine_bands, *bands.middle_bands],
        "factor": weights.factor,
        "parameters": weights.parameters,
        "reach [10 m pixels]": weights.generator.reach,
        "levels": list(weights.levels),
        "degradations": list(weights.degradations),
        "trained by": f"{made.software}, {made.steps} steps, seed {made.seed}",
        "RMSE on kept-out scenes [DN]": dict(made.scores),
        "data, SHA-256": dict(made.data),
        "SHA-256": weights.checksum,
        "licence": "Apache-2.0" if Path(options.weights).suffix == "" else "see where the file comes from",
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, entry in value.items():
                print(f"  {name:34} {entry}")
        else:
            print(f"{key + ':':29} {', '.join(value) if isinstance(value, list) else value}")


def _demo(options: argparse.Namespace) -> None:
    from eosr.demo import run_demo

    made = run_demo(options.out, method=options.method, progress=not options.quiet, tell=print)
    print(f"\n{made.table}\nEverything is in {options.out.absolute()}:")
    print(f"  source     {made.catalog}")
    _print_delivery(made.delivery)
    print(f"  scores     {made.scores[0]}, {made.scores[1].name}")
    print(f"  picture    {made.picture}")


if __name__ == "__main__":
    sys.exit(main())
