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
from train.made import made_scene, tiny_config, train_alone

torch.set_num_threads(1)
TESTS = Path(__file__).resolve().parents[1]

#: A training that is killed by SIGKILL, in a process of its own: while it draws a batch, or half-way into a state file.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from eosr.train.outcome import state
from eosr.train.data import stream
from train.made import train_alone
from train.test_loop import scenes, tiny_config
torch.set_num_threads(1)
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
count = 0
if sys.argv[3] == "drawing":
    batch = stream.Stream.batch
    def dying(self, *args):
        global count
        count += 1
        return die() if count == 4 else batch(self, *args)
    stream.Stream.batch = dying
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
train_alone(tiny_config(**eval(sys.argv[4]) if sys.argv[4:] else {}), scenes(), Path(sys.argv[2]))
"""


def scenes():
    return [
        made_scene("one"),
        made_scene("two", seed=1),
        made_scene("kept", seed=2, kept_out=True, group="sample-block"),
    ]


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return train_alone(tiny_config(), scenes(), folder).generator.state_dict(), folder


@pytest.mark.parametrize("moment", ["saving", pytest.param("drawing", marks=pytest.mark.long)])
def test_a_run_killed_by_sigkill_and_started_again_ends_in_the_same_weights_bit_for_bit(moment, undisturbed, tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, TESTS, tmp_path, moment], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 2, "it died after the first state, before the second"
    told = []
    resumed = train_alone(tiny_config(), scenes(), tmp_path, tell=told.append).generator.state_dict()
    assert told[0] == "going on from step 2 of 6"
    assert [line.split(":")[0] for line in told[1:]] == ["step 4 of 6", "step 6 of 6"]
    assert ", RMSE / bicubic study/sample-block " in told[1]
    lines = log_of(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6], "no line is lost, none is there twice"
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(lines))
    expected, folder = undisturbed
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    assert not torch.equal(state["mean"]["stages.0.leave.bias"], resumed["stages.0.leave.bias"])
    keys = ("step", "study/sample-block", "box/sample-block")
    last, other = log_of(tmp_path)[-1], log_of(folder)[-1]
    assert [last[key] for key in keys] == [other[key] for key in keys]


def test_a_finished_run_started_again_returns_its_weights_and_trains_no_further(undisturbed):
    expected, folder = undisturbed
    before = (folder / "state.pt").read_bytes()
    told = []
    again = train_alone(tiny_config(), scenes(), folder, tell=told.append).generator.state_dict()
    assert told == ["already finished: step 6 of 6"]
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())
    assert (folder / "state.pt").read_bytes() == before


def test_the_log_has_a_line_per_validation_and_all_operators_in_the_last(undisturbed):
    lines = log_of(undisturbed[1])
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [sum(key.endswith("/sample-block") for key in line) for line in lines] == [1, 1, 4]
    assert not any(key == "study" for line in lines for key in line), "no unseen place: no score of unseen places"


def test_another_seed_gives_other_weights(undisturbed, tmp_path):
    other = train_alone(tiny_config(seed=4), scenes(), tmp_path).generator.state_dict()
    assert not torch.equal(other["stages.0.enter.weight"], undisturbed[0]["stages.0.enter.weight"])


def test_the_state_of_another_configuration_is_refused(undisturbed):
    said = (
        r"state\.pt is the state of another configuration \(seed = 3 there, 4 here, window\.rim = 4 there, 2 here\)\. "
        r"Use another folder, or remove it\."
    )
    with pytest.raises(TrainingError, match=said):
        train_alone(tiny_config(seed=4, window={"rim": 2}), scenes(), undisturbed[1])


@pytest.mark.parametrize("content", [b"", b"no state at all", b"PK\x03\x04 half a zip"])
def test_a_damaged_state_is_refused(content, tmp_path):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"state\.pt is no state of a training.* Remove it to start anew\."):
        train_alone(tiny_config(), scenes(), tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TrainingError, match=r"nothing can be written into .*run: .* Name another folder with --out\."):
        train_alone(tiny_config(), scenes(), tmp_path / "file" / "run")


def test_a_state_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "state.part").mkdir()
    with pytest.raises(TrainingError, match=r"state .* of step 2 cannot be written: .* start the same command again"):
        train_alone(tiny_config(), scenes(), tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(tmp_path):
    """A pixel of NaN in one scene, as a damaged pack might hold."""
    broken = scenes()
    broken[1].middle[:, 10:40, 10:40] = np.nan
    said = r"the loss of step \d is nan\. Lower learning_rate; the last state is kept, and the windows of the step are"
    with pytest.raises(TrainingError, match=said) as caught:
        train_alone(tiny_config(steps=40, every=40), broken, tmp_path)
    (saved,) = tmp_path.glob("not-a-number-step-*-rank-0.pt")
    assert str(saved) in str(caught.value)
    windows = torch.load(saved, weights_only=True)
    assert windows["target"].isnan().any()
    assert windows["fine"].shape == (2, 4, 24, 24)


def test_a_gradient_that_is_no_number_stops_the_run_before_it_spoils_the_weights(tmp_path):
    """Without rounding at zero the Charbonnier loss of a perfect estimate is 0 and its gradient 0 / 0."""
    dark = scenes()[0]
    dark = replace(dark, fine=0 * dark.fine, middle=0 * dark.middle)
    with pytest.raises(TrainingError, match=r"the gradient of step 0 is nan\. Lower learning_rate"):
        train_alone(tiny_config(charbonnier=0.0), [dark], tmp_path)
    assert not (tmp_path / "state.pt").exists()


@pytest.mark.parametrize("factor", [2, 6])
def test_the_loss_goes_down_on_a_tiny_overfit(factor, tmp_path):
    steps = {"steps": 60, "every": 15, "float32_steps": 60, "batch": 4, "learning_rate": 5e-3, "warmup": 5}
    config = tiny_config(factor, window={"gain": 0.0, "band_gain": 0.0, "operators": (1.0, 0.0, 0.0, 0.0)}, **steps)
    train_alone(config, [made_scene(size=144)], tmp_path)
    losses = [line["loss"] for line in log_of(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]


def test_a_60_m_run_starts_and_ends(tmp_path):
    config = tiny_config(6, steps=2, shares={"virtual": 0.5})
    kept_out = made_scene("kept", size=144, seed=2, kept_out=True, group="sample-block")
    train_alone(config, [made_scene(size=144), kept_out], tmp_path)
    assert log_of(tmp_path)[-1]["mtf_diff/sample-block"] > 0


def test_the_generator_that_is_returned_is_the_running_mean(undisturbed):
    mean, folder = undisturbed
    state = torch.load(folder / "state.pt", weights_only=True)
    assert all(torch.equal(state["mean"][name], tensor) for name, tensor in mean.items())
    assert not torch.equal(state["generator"]["stages.0.enter.weight"], mean["stages.0.enter.weight"])


#: A training that gets a signal while it draws the windows of its fourth step.
SIGNALLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from eosr.train.data import stream
from train.made import train_alone
from train.test_loop import scenes, tiny_config
torch.set_num_threads(1)
batch, count = stream.Stream.batch, 0
def signalled(self, *args):
    global count
    count += 1
    if count == 3:
        os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    return batch(self, *args)
stream.Stream.batch = signalled
told = []
outcome = train_alone(tiny_config(), scenes(), Path(sys.argv[2]), tell=told.append)
print(outcome.finished, outcome.step, told[-1])
"""


@pytest.mark.parametrize("name", ["SIGUSR1", pytest.param("SIGTERM", marks=pytest.mark.long)])
def test_a_signal_ends_the_step_saves_the_state_and_the_run_goes_on_bit_for_bit(name, undisturbed, tmp_path):
    done = subprocess.run([sys.executable, "-c", SIGNALLED, TESTS, tmp_path, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = f"stopped by {name} after step 3 of 6: the state is saved, the same command goes on"
    assert done.stdout == f"False 3 {said}\n"
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3, "no validation was due there"
    resumed = train_alone(tiny_config(), scenes(), tmp_path)
    assert resumed.finished
    for name, tensor in undisturbed[0].items():
        assert torch.equal(resumed.generator.state_dict()[name], tensor), name
    # The mean loss of steps 3 and 4, of which one was before the signal.
    assert [line["loss"] for line in log_of(tmp_path)] == [line["loss"] for line in log_of(undisturbed[1])]


ADVERSARIAL = {"loss": "wgan_gp", "features": 4, "stages": 2, "ramp": 3, "critic_steps": 2, "calibrate_every": 2}


@pytest.mark.long
def test_an_adversarial_run_killed_and_started_again_ends_in_the_same_weights_bit_for_bit(tmp_path):
    config = {"adversarial": ADVERSARIAL, "window": {"size": 28}}
    whole = train_alone(tiny_config(**config), scenes(), tmp_path / "whole").generator.state_dict()
    command = [sys.executable, "-c", KILLED, TESTS, tmp_path / "killed", "drawing", repr(config)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "state.pt").exists(), "it died in its second step, before any state"
    saved = config | {"save_every": 1}
    whole = train_alone(tiny_config(**saved), scenes(), tmp_path / "saved").generator.state_dict()
    command[-3:] = [tmp_path / "killed", "drawing", repr(saved)]
    command[4] = tmp_path / "again"
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    state = torch.load(tmp_path / "again" / "state.pt", weights_only=True)
    assert state["step"] == 1
    assert state["weight"] > 0
    resumed = train_alone(tiny_config(**saved), scenes(), tmp_path / "again").generator.state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    line = log_of(tmp_path / "again")[-1]
    assert {"loss", "critic", "penalty", "adversarial", "weight", "gradient"} <= set(line)


def test_another_number_of_ranks_is_refused(undisturbed):
    from eosr.train.outcome.state import load_state
    from eosr.train.ranks.communicator import Alone

    said = r"state\.pt was written by 1 process, this run has 2\. Start 1, or use another folder"
    with pytest.raises(TrainingError, match=said):
        load_state(undisturbed[1] / "state.pt", tiny_config(), 2)
    assert load_state(undisturbed[1] / "state.pt", tiny_config(), Alone().size) is not None


def test_a_run_stops_early_and_keeps_the_best_weights(tmp_path):
    """With a rate that is far too high the first validations are the best."""
    settings = {
        "steps": 40,
        "every": 2,
        "learning_rate": 0.05,
        "warmup": 0,
        "schedule": "constant",
        "float32_steps": 40,
    }
    config = tiny_config(**settings, validation={"patience": 3})
    told = []
    outcome = train_alone(config, scenes(), tmp_path, tell=told.append)
    lines = log_of(tmp_path)
    errors = [line["study/sample-block"] for line in lines]
    best = int(np.argmin(errors))
    assert outcome.finished
    assert outcome.step == lines[-1]["step"] == 2 * (best + 4) < 40
    assert told[-2] == "no lower error in 3 validations: stopped early, the best weights are kept"
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert not torch.equal(
        state["mean"]["stages.0.enter.weight"], outcome.generator.state_dict()["stages.0.enter.weight"]
    )
    again = train_alone(config, scenes(), tmp_path)
    assert (again.finished, again.step) == (True, outcome.step)
    for name, tensor in outcome.generator.state_dict().items():
        assert torch.equal(again.generator.state_dict()[name], tensor)


@pytest.mark.long
def test_a_plateau_halves_the_rate(tmp_path):
    settings = {"steps": 24, "every": 2, "learning_rate": 0.05, "warmup": 0, "schedule": "plateau", "plateau": 2}
    train_alone(tiny_config(**settings, float32_steps=24), scenes(), tmp_path)
    rates = [line["rate"] for line in log_of(tmp_path)]
    assert rates[0] == 0.05
    assert set(np.log2(np.array(rates) / 0.05)) <= {0.0, -1.0, -2.0, -3.0, -4.0}
    assert rates[-1] < 0.05


def test_a_run_begins_with_given_weights_and_refuses_others(undisturbed, tmp_path):
    from eosr.train.data.material import from_scenes
    from eosr.train.outcome.export import export

    config = tiny_config()
    given = train_alone(config, scenes(), undisturbed[1]).generator
    path = export(given, config, from_scenes(scenes(), config), path=tmp_path / "given.safetensors")
    still = tiny_config(initial=str(path), learning_rate=1e-12, steps=2)
    end = train_alone(still, scenes(), tmp_path / "still").generator.state_dict()
    for name, tensor in given.state_dict().items():
        torch.testing.assert_close(end[name], tensor, rtol=0, atol=1e-7)
    with pytest.raises(TrainingError, match=r"initial = 's2sr-20m' is a back_projection with .*features': 64.* 8"):
        train_alone(tiny_config(initial="s2sr-20m"), scenes(), tmp_path / "other")
    with pytest.raises(TrainingError, match=r"initial = 'nothing' cannot be used: .*neither a weights file"):
        train_alone(tiny_config(initial="nothing"), scenes(), tmp_path / "none")


def test_scores_of_every_metric_and_both_properties_are_in_the_log(tmp_path):
    config = tiny_config(steps=2, validation={"properties": ("synthesis", "consistency")})
    train_alone(config, scenes(), tmp_path)
    (line,) = log_of(tmp_path)
    scores = line["scores"]
    assert set(scores) == {"study", "box", "mtf", "mtf_diff"}
    assert set(scores["study"]) == {"synthesis", "consistency"}
    assert set(scores["study"]["synthesis"]) == {"before", "after"}
    bands = scores["study"]["synthesis"]["before"]
    assert list(bands) == ["B05", "B06", "B07", "B8A", "B11", "B12"]
    assert {"rmse", "bias", "sre", "ssim", "psnr", "bpsnr"} <= set(bands["B05"])
    after = scores["study"]["synthesis"]["after"].values()
    ratio = sum(band["rmse"] for band in after) / sum(band["rmse_bicubic"] for band in after)
    assert ratio == pytest.approx(line["study/sample-block"], abs=1e-4)
    assert max(band["rmse"] for band in scores["study"]["consistency"]["after"].values()) < 0.01


def test_pictures_and_event_files_are_written_and_event_files_hold_the_numbers_of_the_log(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_alone(tiny_config(tensorboard=True, validation={"pictures": 1}), scenes(), tmp_path)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == [f"kept-000000{step}.png" for step in (2, 4, 6)]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for tag in ("loss", "rate", "study/sample-block", "scores/study/synthesis/before/B05/rmse"):
        shown = [event.value for event in events.Scalars(tag)]
        logged = []
        for line in log_of(tmp_path):
            value = line
            for key in [tag] if tag in line else tag.split("/"):
                value = value[key]
            logged.append(value)
        assert shown == pytest.approx(logged, rel=1e-6), tag
