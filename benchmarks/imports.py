"""CPU time until something answers, as a multiple of that of ``python -c "import xarray"``, taken in turns.

python benchmarks/imports.py [--times 10]
"""

import argparse
import resource
import statistics
import subprocess
import sys

WHAT = {
    "import xarray": ["-c", "import xarray"],
    "import eosr": ["-c", "import eosr"],
    "eosr --version": ["-m", "eosr.cli", "--version"],
    "eosr superresolve --help": ["-m", "eosr.cli", "superresolve", "--help"],
    "eosr-train --help": ["-m", "eosr.cli.train", "--help"],
    "eosr.open_stac": ["-c", "import eosr; eosr.open_stac"],
    "eosr.superresolve": ["-c", "import eosr; eosr.superresolve"],
    "eosr.load_weights": ["-c", "import eosr; eosr.load_weights"],
}


def cpu_seconds(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    taken = {name: [] for name in WHAT}
    for _ in range(times):
        for name, arguments in WHAT.items():
            taken[name].append(cpu_seconds(arguments))
    base = statistics.median(taken["import xarray"])
    for name, seconds in taken.items():
        print(f"{name:26} {statistics.median(seconds) / base:5.2f} x  ({statistics.median(seconds):.2f} s)")


if __name__ == "__main__":
    main()
