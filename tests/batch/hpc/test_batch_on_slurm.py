"""`eosr batch` on a real Slurm: jobs by dask-jobqueue, cancelled, killed, at their time limit; and inside one job."""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from distributed import Client
from support.batches import QUICK, SLOW_SITE, cluster, manifest_of, pixels_of, wait_for, write_items, write_sample
from support.patience import PATIENCE

from eosr.batch import run

pytest.importorskip("dask_jobqueue")

SITE = """
kind: slurm
jobs: 2
cores: 1
memory: 1GB
walltime: "{minutes:02d}:00"
partition: {partition}
interface: lo
scheduler_interface: lo
"""
COMMAND = ("--method", "bicubic", "--bands", "B05,B11", "--chunks", "96", "--format", "both", "--backoff", "0.1")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Four synthetic scenes and a piece of the real sample."""
    folder = tmp_path_factory.mktemp("scenes")
    return [*write_items(folder, 4, level="L1C"), write_sample(folder / "sample")]


@pytest.fixture(scope="module")
def undisturbed(items, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with cluster(2) as client:
        assert run(items, client, out, config=QUICK).complete
    return out


@pytest.fixture
def batch(slurm, items, tmp_path):
    """Start `eosr batch` on Slurm."""
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    (tmp_path / "site").mkdir()
    started = []

    def start(*front, minutes=10, partition="test", slow="", site=None, path="", more=()):
        (tmp_path / "site.yaml").write_text(site or SITE.format(minutes=minutes, partition=partition))
        environ = slurm | {
            "SLOW": slow,
            "SLOW_UNTIL": str(tmp_path / "go"),
            "PATH": f"{path}:{Path(sys.executable).parent}:{slurm['PATH']}",
        }
        if slow:
            (tmp_path / "site" / "sitecustomize.py").write_text(SLOW_SITE)
            environ["PYTHONPATH"] = f"{tmp_path / 'site'}:{environ.get('PYTHONPATH', '')}"
        where = (tmp_path / "items.json", tmp_path / "out", "--cluster", tmp_path / "site.yaml")
        command = [*front, "eosr", "batch", *where, *COMMAND, *more]
        log = (tmp_path / "driver.log").open("w")
        started.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()
    subprocess.run(["scancel", "--user", "root"], env=slurm, check=False)


def jobs(slurm):
    shown = subprocess.run(
        ["squeue", "--noheader", "--format=%A", "--states=RUNNING"],
        env=slurm,
        check=True,
        capture_output=True,
        text=True,
    )
    return shown.stdout.split()


def ended(process, tmp_path):
    try:
        status = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.fail((tmp_path / "driver.log").read_text())
    assert status == 0, (tmp_path / "driver.log").read_text()
    return (tmp_path / "driver.log").read_text()


@pytest.mark.long
def test_a_cancelled_job_is_replaced_and_the_bytes_are_those_of_an_undisturbed_run(slurm, batch, undisturbed, tmp_path):
    """With ``tls: true``, so that the certificates of the first job's replacement are tested too."""
    out = tmp_path / "out"
    running = batch(slow="15", site=SITE.format(minutes=10, partition="test") + "tls: true\n")
    wait_for(lambda: list(out.glob("scenes/*/sharpened.zarr.part.done/[0-9]*")))
    gone = jobs(slurm)[0]
    (worker, *_) = workers_in(gone)
    address = next(word for word in worker.cmdline() if word.startswith("tls://"))
    with pytest.raises(OSError, match=r"Timed out|refused|closed"):  # whoever has no certificate of this batch
        Client(address.replace("tls://", "tcp://"), timeout=5)
    subprocess.run(["scancel", gone], env=slurm, check=True)
    # The job that is left needs minutes for the blocks to come, were it alone to the end: the other is replaced before.
    wait_for(lambda: len(list((out / "logs" / "slurm").glob("*.out"))) == 3)
    (tmp_path / "go").touch()
    told = ended(running, tmp_path)
    assert "is gone; it is tried again" in told
    assert pixels_of(out) == pixels_of(undisturbed)
    assert {line["state"] for line in manifest_of(out)} == {"done"}


def workers_in(job):
    """Processes of dask's workers in a job of Slurm."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job and "distributed" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.long
def test_after_a_kill_of_a_worker_and_then_of_the_driver_the_same_command_ends_in_the_same_bytes(
    slurm, batch, undisturbed, tmp_path
):
    out = tmp_path / "out"
    running = batch(slow="5")
    wait_for(lambda: list(out.glob("scenes/*/sharpened.zarr.part.done/[0-9]*")))
    killed = wait_for(lambda: workers_in(jobs(slurm)[0]))
    for worker in killed:
        worker.kill()
    wait_for(lambda: "is gone; it is tried again" in (tmp_path / "driver.log").read_text())
    running.kill()
    running.wait()
    assert not (out / "collection.json").exists(), "it was killed in the middle"
    (tmp_path / "go").touch()
    ended(batch(slow="5"), tmp_path)
    assert pixels_of(out) == pixels_of(undisturbed)
    assert {line["state"] for line in manifest_of(out)} == {"done"}


@pytest.mark.long
def test_jobs_at_their_time_limit_are_replaced_and_scenes_go_on_at_their_blocks(slurm, batch, undisturbed, tmp_path):
    """Five scenes of four blocks, 10 s each, on two jobs: 80 s at least, and a job lasts a minute."""
    out = tmp_path / "out"
    told = ended(batch(slow="10", minutes=1), tmp_path)
    assert "is gone; it is tried again" in told
    assert len(list((out / "logs" / "slurm").glob("*.out"))) >= 3
    assert pixels_of(out) == pixels_of(undisturbed)


def test_a_job_that_slurm_refuses_is_told_at_once_in_its_own_words(batch, tmp_path):
    assert batch(partition="nosuch").wait(PATIENCE) == 1
    told = (tmp_path / "driver.log").read_text()
    assert "Slurm takes no such job: " in told
    assert "invalid partition" in told.lower()
    assert "Traceback" not in told
    assert not (tmp_path / "out" / "scenes").exists()


FAKE = """#!/bin/bash
[ "$1" != --test-only ] && {when} && {{ echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }}
exec {sbatch} "$@"
"""


@pytest.fixture
def refusing(slurm, tmp_path):
    """Write an sbatch that refuses jobs on a condition, but not when it is asked before; return its folder."""

    def write(when):
        (tmp_path / "bin").mkdir()
        file = tmp_path / "bin" / "sbatch"
        file.write_text(FAKE.format(when=when, sbatch=shutil.which("sbatch", path=slurm["PATH"])))
        file.chmod(0o755)
        return file.parent

    return write


def test_a_job_that_slurm_refuses_only_when_it_is_submitted_is_told_too(batch, refusing, tmp_path):
    assert batch(path=refusing("true")).wait(PATIENCE) == 1
    told = (tmp_path / "driver.log").read_text()
    assert told.splitlines()[-1].startswith("eosr: Slurm takes no job: sbatch: error: QOSMaxSubmitJobPerUserLimit. ")
    assert "Traceback" not in told


def test_a_job_that_is_refused_once_is_submitted_again(batch, refusing, tmp_path):
    told = ended(batch(path=refusing(f"mkdir {tmp_path}/once 2>/dev/null")), tmp_path)
    assert (tmp_path / "once").exists()
    assert "Traceback" not in told


def test_jobs_that_wait_in_the_queue_are_waited_for(slurm, batch, tmp_path):
    filled = ["sbatch", "--parsable", "--ntasks=4", "--output=/dev/null", "--wrap=sleep 600"]
    full = subprocess.run(filled, env=slurm, check=True, capture_output=True, text=True).stdout.strip()
    wait_for(lambda: jobs(slurm))
    running = batch(more=("--worker-timeout", "8"))
    wait_for(lambda: "2 jobs wait in the queue: " in (tmp_path / "driver.log").read_text())
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(16)
    subprocess.run(["scancel", full], env=slurm, check=True)
    ended(running, tmp_path)


def test_jobs_that_cannot_start_a_worker_end_the_batch_with_their_last_words(batch, tmp_path):
    site = SITE.format(minutes=10, partition="test") + "python: /no/such/python\n"
    assert batch(site=site).wait(PATIENCE) == 1
    told = (tmp_path / "driver.log").read_text()
    assert "3 jobs in a row ended before a worker came: " in told
    assert "/no/such/python" in told


@pytest.mark.long
def test_inside_one_job_the_tasks_of_srun_are_the_workers(slurm, batch, undisturbed, tmp_path):
    running = batch(
        "srun", "--ntasks=4", "--cpus-per-task=1", "--partition=test", site="kind: slurm-runner\ncores: 1\n"
    )
    ended(running, tmp_path)
    assert pixels_of(tmp_path / "out") == pixels_of(undisturbed)
    assert len({line["worker"] for line in manifest_of(tmp_path / "out")}) == 2
