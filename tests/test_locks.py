"""The lock on a file: one process has it, and it is free again when that one is gone."""

import subprocess
import sys

from eosr.locks import take


def test_one_process_has_it_and_it_is_free_when_that_one_was_killed(tmp_path):
    path = tmp_path / "lock"
    program = (
        "import sys, time; from eosr.locks import take; file = open(sys.argv[1], 'w'); print(take(file), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with path.open("w") as file:
            assert not take(file)
        other.kill()
        other.wait()
    with path.open("w") as file:
        assert take(file)


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (tmp_path / "lock").open("w") as file:
        assert take(file)
