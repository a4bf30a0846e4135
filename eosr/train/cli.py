"""`eosr-train`: parse, one library call, print."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from eosr.errors import EosrError


def main(argv: list[str] | None = None) -> int:
    """Run `eosr-train` with ``argv`` (default: the command line's) and return the exit status."""
    parser = argparse.ArgumentParser(prog="eosr-train", description="Train a generator by Wald's protocol.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, or go on from the state file in OUT, and write the weights file")
    run.add_argument("config", type=Path, help="TOML file, e.g. eosr/weights/s2sr-20m.toml")
    run.add_argument("--data", type=Path, required=True, help="folder of the training packs (*.npz)")
    run.add_argument("--out", type=Path, required=True, help="folder for state, log and weights")
    run.add_argument("--threads", type=_count, help="CPU threads (default: all)")
    options = parser.parse_args(argv)
    try:
        # Imported here: `eosr-train --help` needs no torch.
        from eosr.train.run import run_training

        path = run_training(
            options.config, data=options.data, out=options.out, threads=options.threads, tell=_tell
        )  # fmt: skip
        print(path)
    except EosrError as error:
        print(f"eosr-train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eosr-train: interrupted. The same command goes on from the last state.", file=sys.stderr)
        return 130
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # the path of the weights is all that standard output receives


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads; give 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
