"""`eosr`: parse, call the library, print."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from eosr._version import __version__
from eosr.cli.batch import add_options as add_batch_options
from eosr.cli.batch import run_batch
from eosr.cli.commands import Parser, begin, nearest, run_command, say
from eosr.cli.evaluate import add_options, judged
from eosr.cli.options import (
    ALIASES,
    DEGRADATIONS,
    METHODS,
    check_degradation,
    check_device,
    device,
    method_name,
    names,
    open_source,
    pairs,
    source_options,
    typed,
)
from eosr.errors import EosrError, EosrWarning
from eosr.host.memory import keep_freed_memory

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
  eosr evaluate item.json --method all --preset zhang2020 --html report.html
      every method that needs no weights of others, beside the tables of the reference study; and a page to look at
  eosr info s2sr-20m
      where a weights file comes from and what it was scored at

`eosr COMMAND --help` lists the options of a command.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `eosr` with ``argv`` (default: the command line's) and return the exit status.

    Returns
    -------
    int
        0, or 1 after an `EosrError`, which is printed as one line, or for a batch that is not complete; 130 after
        Ctrl-C, 141 where nobody reads what it prints any more.
        Wrong options exit with 2; any other error keeps its traceback.
    """
    return run_command("eosr", lambda: _run(argv), "The same command goes on where it stopped.")


def _run(argv: Sequence[str] | None) -> int:
    if argv is None:
        keep_freed_memory()  # a process of eosr's own: what a tile has freed is for the next one
    options, unknown = _parser().parse_known_args(argv)
    if unknown:
        _refuse(options.parser, unknown)
    begin()
    try:
        with _warnings_in_a_line():
            return int(options.run(options) or 0)
    except EosrError as error:
        say(f"eosr: {typed(str(error), options.parser.options())}", file=sys.stderr)
        return 1


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show warnings of eosr as a line of the command, without the line of code that Python shows."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def in_a_line(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, EosrWarning):
                say(f"eosr: note: {message}", file=sys.stderr)
            else:
                show(message, category, *place, **more)

        warnings.simplefilter("default", EosrWarning)
        warnings.showwarning = in_a_line
        yield


def _refuse(parser: Parser, unknown: Sequence[str]) -> NoReturn:
    first = unknown[0].split("=")[0]
    kind = "option" if first.startswith("-") else "argument"
    parser.error(f"unknown {kind} {first}{nearest(first, parser.options()) if kind == 'option' else ''}")


def _parser() -> Parser:
    parser = Parser(
        prog="eosr", epilog=_EPILOG,
        description="Sharpen Sentinel-2: every band at 10 m, from STAC to Zarr and COG, with the numbers to prove it.",
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"eosr {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text, add, run in (
        ("superresolve", "sharpen a scene and write Zarr, COGs and STAC items", _superresolve_options, _superresolve),
        ("evaluate", "score a scene by Wald's protocol, with bicubic beside", add_options, _evaluate),
        ("adapt", "adapt weights to a scene, by its own pixels one scale down", _adapt_options, _adapt),
        ("batch", "sharpen many scenes on many workers, and lose nothing", _batch_options, _batch),
        ("info", "what a weights file or a method is, and where it comes from", _info_options, _info),
        ("demo", "the real sample scene, end to end", _demo_options, _demo),
    ):
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add(command)
        command.set_defaults(run=run, parser=command)
    return parser


def _sharpening_options(command: Parser, degradation: str) -> None:
    group = command.add_argument_group("how it is sharpened")
    group.add_argument("--bands", type=names, metavar="B05,B11", help="default: all 12")
    group.add_argument(
        "--weights", type=names, metavar="NAME,NAME", help="shipped names or files; default: all shipped"
    )
    group.add_argument(
        "--method", type=method_name, choices=METHODS,
        help="default: the weights; without weights bicubic, detail_injection, atprk, supreme or superres_like; dsen2, "
        "s2x and s6x need --weights",
    )  # fmt: skip
    group.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of a method, e.g. psf=published for atprk"
    )
    group.add_argument("--no-consistency", action="store_true", help="do not project the answer onto the measurement")
    group.add_argument("--degradation", metavar="NAME", help=degradation)
    group.add_argument(
        "--device", default="auto", type=device, metavar="NAME", help="auto (default), cpu, cuda or cuda:N"
    )


def _superresolve_options(command: Parser) -> None:
    source_options(command)
    command.add_argument("out", metavar="OUT", help="folder for the results")
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


def _batch_options(command: Parser) -> None:
    add_batch_options(command, lambda parser: _sharpening_options(parser, "blur to be undone; see superresolve"))


def _batch(options: argparse.Namespace) -> int:
    return run_batch(options, tell=say)


def _adapt_options(command: Parser) -> None:
    source_options(command)
    command.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder for the weights files")
    group = command.add_argument_group("how it is adapted")
    group.add_argument("--weights", type=names, metavar="NAME,NAME", help="to begin with; default: all shipped")
    group.add_argument("--degradation", metavar="NAME", help="auto (default), study, box, mtf or mtf_diff")
    group.add_argument("--steps", type=int, default=300, metavar="N", help="per weights file; default 300")
    group.add_argument("--learning-rate", type=float, default=2e-4, metavar="RATE", help="default 2e-4")
    group.add_argument("--windows", type=int, default=256, metavar="N", help="places that are read; default 256")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    group.add_argument(
        "--device", default="auto", type=device, metavar="NAME", help="auto (default), cpu, cuda or cuda:N"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    command.set_defaults(method=None)  # for check_device: a generator runs


def _info_options(command: Parser) -> None:
    command.add_argument("weights", metavar="WEIGHTS", help="a shipped name, e.g. s2sr-20m, a file, or a method")
    command.add_argument("--json", action="store_true", help="print JSON")


def _demo_options(command: Parser) -> None:
    command.add_argument("out", metavar="OUT", type=Path, help="folder; what an earlier demo left there is replaced")
    command.add_argument("--method", type=method_name, choices=METHODS, help="bicubic: a quick run without the weights")
    command.add_argument("--quiet", action="store_true", help="no progress bars")


# The library is imported in the commands: `eosr --help` answers at once.


def _superresolve(options: argparse.Namespace) -> None:
    from eosr.cube.radiometry import check_not_empty
    from eosr.sharpen.superresolution import superresolve
    from eosr.write import deliver
    from eosr.write.layout import local_path

    out = local_path(options.out)
    check_degradation(options.degradation, "auto", *DEGRADATIONS, "sigma=NUMBER")
    ds = open_source(options)
    check_device(options)
    sharp = superresolve(
        ds, weights=options.weights, method=options.method, bands=options.bands,
        options=pairs("--option", options.option, "psf=published") or None,
        consistency=False if options.no_consistency else None, degradation=options.degradation or "auto",
        device=options.device, dtype=options.dtype,
    )  # fmt: skip
    check_not_empty(ds)
    made = deliver(
        sharp, out, format=options.format, overwrite=options.overwrite, progress=not options.quiet
    )  # fmt: skip
    say(f"{len(sharp.data_vars)} bands of {sharp.sizes['y10']} x {sharp.sizes['x10']} pixels in {made.folder}")
    _print_delivery(made)


def _print_delivery(made: Any) -> None:
    if made.zarr:
        say(f"  Zarr       {made.zarr}")
    if made.cogs:
        say(f"  COGs       {len(made.cogs)} files, {made.cogs[0].name} ...")
    for item in made.items:
        say(f"  STAC item  {item}")


def _adapt(options: argparse.Namespace) -> None:
    from eosr.train.adaptation import adapt

    check_degradation(options.degradation, "auto", *DEGRADATIONS)
    ds = open_source(options)
    check_device(options)
    found = adapt(
        ds, options.weights, out=options.out, degradation=options.degradation or "auto", steps=options.steps,
        learning_rate=options.learning_rate, windows=options.windows, seed=options.seed, device=options.device,
        progress=None if options.quiet else True,
    )  # fmt: skip
    for path, (name, kept) in zip(found.paths, found.kept.items(), strict=True):
        was, now = found.before[name], found.after[name]
        say(f"{path}: {'adapted' if kept else 'as it was'}, {was:.2f} -> {now:.2f} DN on the part held out")


def _evaluate(options: argparse.Namespace) -> None:
    text, files = judged(options)
    if text:
        say(text, end="" if text.endswith("\n") else "\n")
    for path in files:
        say(f"written: {path}", file=sys.stderr)


def _info(options: argparse.Namespace) -> None:
    if options.weights in (*METHODS, *ALIASES) and not Path(options.weights).is_file():
        _info_method(options)
        return
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
        _unit_of(made.scores): dict(made.scores),
        "data, SHA-256": dict(made.data),
        "SHA-256": weights.checksum,
        "licence": "Apache-2.0" if Path(options.weights).suffix == "" else "see where the file comes from",
    }
    _print_facts(facts, as_json=options.json)


def _info_method(options: argparse.Namespace) -> None:
    from eosr.sharpen.methods import method_facts

    groups = method_facts(options.weights)
    if options.json:
        say(json.dumps(groups, indent=2))
        return
    for facts in groups:
        _print_facts({key: value if isinstance(value, dict) else str(value) if not isinstance(value, list) else
                      [str(one) for one in value] for key, value in facts.items()}, as_json=False)  # fmt: skip


def _unit_of(scores: Mapping[str, float]) -> str:
    """What the scores of a weights file are; the shipped 20 m file is older than the scores by place."""
    old = any(name.endswith("/block") for name in scores)
    return "RMSE [DN] (block: part of an image that was trained on)" if old else "RMSE relative to bicubic"


def _print_facts(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            say(f"{key}:")
            for name, entry in value.items():
                say(f"  {name:34} {entry}")
        else:
            say(f"{key + ':':29} {', '.join(value) if isinstance(value, list) else value}")


def _demo(options: argparse.Namespace) -> None:
    from eosr.cli.demo import run_demo

    made = run_demo(options.out, method=options.method, progress=not options.quiet, tell=say)
    say(f"\n{made.table}\nEverything is in {options.out.absolute()}:")
    say(f"  source     {made.catalog}")
    _print_delivery(made.delivery)
    say(f"  scores     {made.scores[0]}, {made.scores[1].name}")
    say(f"  picture    {made.picture}")
