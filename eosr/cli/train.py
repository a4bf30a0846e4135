"""`eosr-train`: parse, one library call, print."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eosr._version import __version__
from eosr.cli.commands import Parser, begin, run_command, say
from eosr.errors import EosrError, RankLostError, SharedError

if TYPE_CHECKING:
    from eosr.train.ranks.communicator import Communicator

#: Seconds in which rank 0 has surely said what is wrong.
_LEAVE_TO_SPEAK = 5.0


def main(argv: list[str] | None = None) -> int:
    """Run `eosr-train` with ``argv`` (default: the command line's) and return the exit status."""
    parser = Parser(prog="eosr-train", description="Train a generator by Wald's protocol.")
    parser.add_argument("--version", action="version", version=f"eosr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_sample(commands)
    _add_prepare(commands)
    _add_run(commands)
    _add_interpolate(commands)
    _add_bench_scaling(commands)
    return run_command("eosr-train", lambda: _call(parser, argv), "The same command goes on from the last state.")


def _call(parser: Parser, argv: list[str] | None) -> int:
    options = parser.parse_args(argv)
    begin()
    try:
        return int(options.call(options))
    except EosrError as error:
        say(f"eosr-train: {error}", file=sys.stderr)
        return 1


def _add_sample(commands: argparse._SubParsersAction[Parser]) -> None:
    sample = commands.add_parser("sample", help="print sources for prepare: tiles of all climates and seasons")
    sample.add_argument("--count", type=_count, default=60, help="tiles in all (default: 60)")
    sample.add_argument("--validation", type=int, default=15, help="of them, kept out (default: 15)")
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument(
        "--preset", choices=("dsen2", "study"), help="the 45 and 15 tiles of DSen2 and the study instead"
    )
    sample.add_argument(
        "--url", default="https://earth-search.aws.element84.com/v1", help="STAC API (default: %(default)s)"
    )
    sample.add_argument("--collection", default="sentinel-2-c1-l2a", help="default: %(default)s")
    sample.add_argument("--year", type=int, default=2023, help="default: %(default)s")
    sample.add_argument(
        "--max-cloud", type=float, default=5.0, help="largest cloud cover of an image [%%] (default: %(default)s)"
    )
    sample.add_argument("--csv", action="store_true", help="print a table of the tiles instead of sources")
    sample.set_defaults(call=_sample)


def _sample(options: argparse.Namespace) -> int:
    from eosr.train.sampling.tiles import preset, sample_tiles, to_csv, to_toml

    if options.preset:
        tiles = preset(options.preset)
    else:
        tiles = sample_tiles(options.count, validation=options.validation, seed=options.seed)
    if options.csv:
        say(to_csv(tiles), end="")
        return 0
    say(
        to_toml(
            tiles, options.url, collection=options.collection, year=options.year, max_cloud_cover=options.max_cloud
        )
    )  # fmt: skip
    return 0


def _add_prepare(commands: argparse._SubParsersAction[Parser]) -> None:
    prepare = commands.add_parser("prepare", help="cut training patches out of scenes into a store; goes on if killed")
    prepare.add_argument("config", type=Path, help="TOML file that says which scenes and which patches")
    prepare.add_argument(
        "--out", type=Path, default=Path(), help="folder that the store NAME.zarr lies in (default: here)"
    )
    prepare.set_defaults(call=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    from eosr.train.prepare.config import load_prepare_config
    from eosr.train.prepare.run import prepare
    from eosr.train.prepare.store import PatchStore

    config = load_prepare_config(options.config)
    with _bar(True, "patches") as progress:
        path = prepare(config, options.out, progress=progress)
    store = PatchStore(path)
    _tell(f"{len(store)} patches of {len(store.scenes)} scenes; {len(store.validation_scenes)} kept out for validation")
    say(path)
    return 0


def _add_run(commands: argparse._SubParsersAction[Parser]) -> None:
    run = commands.add_parser("run", help="train, or go on from the state file in OUT, and write the weights file")
    run.add_argument("config", type=Path, help="TOML file, e.g. eosr/nn/shipped/s2sr-20m.toml")
    run.add_argument(
        "--data",
        type=Path,
        required=True,
        help="a store of `eosr-train prepare` (NAME.zarr), or the folder of the packs",
    )
    run.add_argument("--out", type=Path, required=True, help="folder for state, log and weights")
    run.add_argument("--threads", type=_count, help="CPU threads of each process (default: all, or OMP_NUM_THREADS)")
    run.add_argument("--device", default="auto", help="auto (default), cpu, or cuda: one card per rank of a host")
    run.add_argument(
        "--communicator", default="auto", help="auto (default: what the launcher tells), alone, horovod or torch"
    )
    run.set_defaults(call=_run)


def _run(options: argparse.Namespace) -> int:
    # Imported here: `eosr-train --help` needs no torch.
    from eosr.train.ranks.meeting import choose
    from eosr.train.ranks.rendezvous import find_place
    from eosr.train.ranks.signals import StopSignals

    # From here on a signal waits for the first step: reading the data takes a while.
    with StopSignals():
        try:
            communicator = choose(options.communicator)
        except SharedError:
            # The ranks have not met, but each of them finds the same: one of them says it, and before the others leave,
            # because a launcher ends the rest with the first.
            if find_place(os.environ).rank:
                time.sleep(_LEAVE_TO_SPEAK)
                return 1
            raise
        return _run_noticed(options, communicator)


def _run_noticed(options: argparse.Namespace, communicator: Communicator) -> int:
    from eosr.train.ranks.communicator import leave
    from eosr.train.run import RunOptions, run_training

    chief = communicator.rank == 0
    try:
        with _bar(chief, "training") as progress:
            path = run_training(
                options.config,
                RunOptions(data=options.data, out=options.out, threads=options.threads, device=options.device),
                communicator, tell=_tell if chief else None, progress=progress,
            )  # fmt: skip
    except RankLostError as error:
        # Every rank that is left says so: rank 0 may be the one that is gone. Leaving in good order could wait for it.
        print(f"eosr-train: rank {communicator.rank}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    except SharedError as error:
        if chief:
            print(f"eosr-train: {error}", file=sys.stderr, flush=True)
        return leave(communicator, 1)
    except EosrError as error:
        if communicator.size == 1:
            raise
        # This rank has it alone. The others learn of it by losing this one.
        print(f"eosr-train: rank {communicator.rank}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    if chief and path is not None:
        say(path)
    return leave(communicator, 0)


def _add_interpolate(commands: argparse._SubParsersAction[Parser]) -> None:
    between = commands.add_parser("interpolate", help="weights between those of two runs, tensor by tensor")
    between.add_argument("first", help="weights file or shipped name, e.g. those trained without a discriminator")
    between.add_argument("second", help="weights of the same network, e.g. those trained on with one")
    between.add_argument("share", type=float, help="0 is the first, 1 the second")
    between.add_argument("--out", type=Path, required=True, help="the file to write")
    between.set_defaults(call=_interpolate)


def _interpolate(options: argparse.Namespace) -> int:
    from eosr.nn.interpolation import interpolate
    from eosr.nn.weights import load_weights, save_weights

    found = interpolate(load_weights(options.first), load_weights(options.second), options.share)
    say(save_weights(found, options.out))
    return 0


def _add_bench_scaling(commands: argparse._SubParsersAction[Parser]) -> None:
    bench = commands.add_parser("bench-scaling", help="measure windows per second against ranks; draw and project them")
    bench.add_argument("config", type=Path, help="TOML file of the run whose steps are timed, on made-up windows")
    bench.add_argument("--ranks", type=_counts, default=[1, 2], help="numbers of ranks, e.g. 1,2,4 (default: 1,2)")
    bench.add_argument("--out", type=Path, required=True, help="folder for scaling.md, scaling.json and scaling.png")
    bench.add_argument(
        "--launcher",
        default="auto",
        help="horovodrun (default where it is installed), torchrun, srun or mpirun",
    )
    bench.add_argument("--steps", type=_count, default=20, help="steps that are timed (default: 20)")
    bench.add_argument("--threads", type=_count, default=1, help="CPU threads of every rank (default: 1)")
    bench.add_argument("--device", default="auto", help="as in run")
    bench.set_defaults(call=_bench_scaling)


def _bench_scaling(options: argparse.Namespace) -> int:
    from eosr.train.ranks.scaling import ScalingOptions, bench_scaling

    table = bench_scaling(
        options.config,
        ScalingOptions(
            ranks=options.ranks, out=options.out, launcher=options.launcher, steps=options.steps,
            threads=options.threads, device=options.device,
        ),
        tell=_tell,
    )  # fmt: skip
    say(table)
    return 0


@contextmanager
def _bar(chief: bool, what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Draw a progress bar on a terminal; nothing in a log file, whose lines are the validations."""
    if not chief or not sys.stderr.isatty():
        yield None
        return
    from eosr.host.progress import bar

    with bar(what) as tell:
        yield tell


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # the path of the weights is all that standard output receives


def _counts(text: str) -> list[int]:
    return [_count(part) for part in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; give 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
