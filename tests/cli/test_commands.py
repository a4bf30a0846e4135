"""How `eosr` and `eosr-train` end where nobody can read what they print, and on Ctrl-C while being imported."""

import os
import signal
import subprocess
import sys

import pytest

from eosr.cli.commands import started_as

COMMANDS = {
    "eosr": ["eosr.cli", "info", "bicubic"],
    "eosr-train": ["eosr.cli.train", "sample", "--preset", "dsen2"],
}
#: Stops in the first import of eosr that takes long, says so, and waits for Ctrl-C.
_STOPPED = """
import sys, time, runpy
class Stop:
    def find_spec(name, path=None, target=None):
        if name == "xarray":
            print("importing", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Stop)
sys.argv = sys.argv[1:]
module = {"eosr": "eosr.cli", "eosr-train": "eosr.cli.train"}.get(sys.argv[0], "eosr")
runpy.run_module(module, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("name", "unbuffered", "asked"),
    [
        ("eosr", "", []),
        ("eosr", "1", []),
        ("eosr-train", "1", []),
        ("eosr", "1", ["--help"]),
        ("eosr-train", "", ["--help"]),
    ],
)
def test_a_full_or_closed_standard_output_is_a_sentence_or_silence(name, unbuffered, asked):
    command = [sys.executable, "-m", *COMMANDS[name], *asked]
    how = {"stderr": subprocess.PIPE, "text": True, "env": os.environ | {"PYTHONUNBUFFERED": unbuffered}}
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, stdout=full, check=False, **how)
    said = f"{name}: standard output does not take what is printed (No space left on device). Send it elsewhere.\n"
    assert (run.returncode, run.stderr) == (1, said)
    reader, writer = os.pipe()
    os.close(reader)  # as `| head` does, once it has its lines
    run = subprocess.run(command, stdout=writer, check=False, **how)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, "")
    run = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], check=False, **how)
    assert (run.returncode, run.stderr) == (0, "")


def interrupted(name):
    """Status of a process that gets Ctrl-C while it imports eosr, and what it says."""
    command = [sys.executable, "-c", _STOPPED, name, *COMMANDS.get(name, [""])[1:]]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Shells let what runs in their background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    return process.returncode, said


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_traceback(name):
    assert interrupted(name) == (130, f"{name}: interrupted before it began.\n")


def test_ctrl_c_in_another_program_that_imports_eosr_stays_what_it_is():
    assert "KeyboardInterrupt" in interrupted("notebook")[1]
    assert started_as() == ""
