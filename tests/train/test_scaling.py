"""`eosr-train bench-scaling` with real ranks, and what it refuses."""

import json
import subprocess
import sys

import pytest

from eosr.cli.train import main
from eosr.errors import TrainingError
from eosr.train.ranks.scaling import ScalingOptions, bench_scaling
from train.test_cli import CONFIG

pytest.importorskip("matplotlib")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.replace("[shares]\nstestdata = 0.5\n", ""))
    return path


@pytest.mark.long
def test_one_and_two_ranks_are_measured_fitted_and_drawn(config, tmp_path):
    command = [sys.executable, "-m", "eosr.cli.train", "bench-scaling", config, "--launcher", "torchrun"]
    done = subprocess.run([*command, "--steps", "3", "--out", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out' / 'scaling.md'}\n"
    record = json.loads((tmp_path / "out" / "scaling.json").read_text())
    one, two = record["measured"]
    assert (one["ranks"], two["ranks"], one["reduces"]) == (1, 2, {})
    assert 0 < one["compute"] <= one["step"]
    assert two["buffer"] == one["buffer"] > 4 * 1000, "4 bytes for each of the generator's parameters at least"
    assert record["ring"]["beta"] > 0
    table = (tmp_path / "out" / "scaling.md").read_text()
    assert "| 512 |" in table
    assert table.count("\n| 1 |") == 2
    assert (tmp_path / "out" / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ranks": [2, 4]}, r"--ranks 2,4 cannot be compared: .* Give a list with 1, e\.g\. --ranks 1,2,4\."),
        ({"launcher": "mpiexec"}, r"launcher 'mpiexec' is unknown\. Give auto, horovodrun, torchrun, srun, mpirun\."),
    ],
)
def test_what_cannot_be_measured_is_refused(change, said, config, tmp_path):
    options = {"ranks": [1], "out": tmp_path / "out", "launcher": "torchrun"} | change
    with pytest.raises(TrainingError, match=said):
        bench_scaling(config, ScalingOptions(**options))


def test_a_launcher_that_is_not_installed_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainingError, match=r"there is no srun here\. Install it"):
        bench_scaling(config, ScalingOptions(ranks=[1], out=tmp_path, launcher="srun"))


def test_ranks_that_fail_are_told_with_their_last_words(config, tmp_path):
    with pytest.raises(TrainingError, match=r"1 rank by torchrun ended with status 1: .*device 'gpu' is unknown"):
        bench_scaling(config, ScalingOptions(ranks=[1], out=tmp_path, launcher="torchrun", device="gpu"))


@pytest.mark.parametrize("ranks", ["0", "1,x", ""])
def test_ranks_that_are_no_numbers_are_refused(ranks, config, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["bench-scaling", str(config), "--ranks", ranks, "--out", str(tmp_path)])
    assert "--ranks" in capsys.readouterr().err
