"""Site files of batches: read, refused with what is wrong, and turned into jobs."""

import re
import shlex
import socket
import subprocess
import sys
import types
import urllib.request
from contextlib import suppress
from pathlib import Path

import dask
import distributed
import psutil
import pytest

from eosr.batch.cluster import arguments_of, dashboard_of, workers_of
from eosr.batch.gpu import card_of, dask_setup
from eosr.batch.jobs import SlurmJobs, check_job
from eosr.batch.site import SITES, Site, load_site
from eosr.errors import BatchError, OutputError


@pytest.mark.parametrize("path", sorted(SITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_site_file_of_ours_is_read(path):
    assert load_site(path).kind in ("slurm", "slurm-runner")


def test_the_generic_one_explains_every_key():
    text = (SITES / "generic.yaml").read_text()
    for key in Site.__dataclass_fields__:
        assert f"\n{key}: " in text


def test_what_a_site_says_reaches_the_jobs(tmp_path):
    (tmp_path / "site.yaml").write_text(
        "kind: slurm\ngpus: 4\nprocesses: 4\ncores: 48\nmemory: 480GB\nwalltime: '06:00:00'\npartition: booster\n"
        "account: me\nsbatch: ['--nodes=1']\nsbatch_skip: ['--mem']\nprologue: [module load Python]\ninterface: ib0\n"
    )
    told = arguments_of(load_site(tmp_path / "site.yaml"), Path("/logs"))
    assert told["job_extra_directives"] == ["--gres=gpu:4", "--nodes=1"]
    assert told["worker_extra_args"] == [
        "--nthreads",
        "1",
        "--no-dashboard",
        "--preload",
        "eosr.batch.gpu",
        "--resources",
        "GPU=1",
    ]
    assert (told["queue"], told["account"], told["processes"], told["cores"]) == ("booster", "me", 4, 48)
    quiet, own = told["job_script_prologue"][:2], told["job_script_prologue"][2:]
    assert (own, told["job_directives_skip"]) == (["module load Python"], ["--mem"])
    environ = dict(line.removeprefix("export ").split("=") for line in quiet)
    assert dask.config.collect_env(environ) == {
        "distributed": {"worker": {"profile": {"enabled": False}}, "admin": {"tick": {"interval": "500ms"}}}
    }


def test_workers_that_only_wait_do_not_look_at_their_own_stacks(tmp_path):
    with workers_of(Site(), tmp_path) as (client, _):
        client.wait_for_workers(1)
        told = client.run(lambda dask_worker: [*dask_worker.periodic_callbacks])
    for callbacks in told.values():
        assert "profile" not in callbacks
        assert "tick" in callbacks


@pytest.mark.filterwarnings("error:Port")
def test_the_dashboard_is_at_any_free_port_and_its_link_leads_there(tmp_path):
    pytest.importorskip("bokeh")
    with socket.socket() as taken:
        with suppress(OSError):  # or somebody else has it
            taken.bind(("", 8787))
            taken.listen()
        with workers_of(Site(), tmp_path) as (client, _), urllib.request.urlopen(dashboard_of(client, Site())) as page:
            assert b"bokeh" in page.read()


def test_without_bokeh_there_is_no_link(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed.dashboard.core", None)
    assert dashboard_of(types.SimpleNamespace(dashboard_link="http://127.0.0.1:8787/status"), Site()) == ""


@pytest.mark.parametrize(
    ("dashboard", "told"),
    [
        ("127.0.0.1:0", "http://127.0.0.1:8787/status"),
        ("localhost:8787", "http://localhost:8787/status"),
        (":8787", "http://node.example:8787/status (open to everybody in the network, without a password)"),
        ("0.0.0.0:8787", "http://node.example:8787/status (open to everybody in the network, without a password)"),
    ],
)
def test_the_dashboard_is_told_where_it_listens(dashboard, told):
    pytest.importorskip("bokeh")
    client = types.SimpleNamespace(dashboard_link="http://node.example:8787/status")
    assert dashboard_of(client, Site(dashboard=dashboard)) == told


def test_with_tls_who_has_no_certificate_reaches_neither_scheduler_nor_worker(tmp_path):
    pytest.importorskip("cryptography")
    with workers_of(Site(tls=True), tmp_path) as (client, _):
        client.wait_for_workers(1)
        assert client.submit(sum, [1, 2]).result() == 3
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert all(address.startswith("tls://") for address in addresses)
        for address in addresses:
            with pytest.raises(OSError, match=r"Timed out|[Ss]tream|handshake|closed|TLS"):
                distributed.Client(address.replace("tls://", "tcp://"), timeout=1)


def test_nothing_of_a_batch_on_this_machine_listens_elsewhere(tmp_path):
    with workers_of(Site(), tmp_path) as (client, _):
        client.wait_for_workers(1)
        own = psutil.Process()
        heard = [
            one.laddr.ip
            for process in (own, *own.children(recursive=True))
            for one in process.net_connections(kind="inet")
            if one.status == psutil.CONN_LISTEN
        ]
    assert heard
    assert set(heard) <= {"127.0.0.1", "::1"}


def test_a_worker_that_only_looks_at_the_weights_does_not_load_torch(tmp_path):
    """It takes hundreds of megabytes, and so long to end that dask killed workers for it."""
    from eosr.nn.weights import SHIPPED, file_checksum, weights_path

    sums = {name: file_checksum(weights_path(name)) for name in SHIPPED}
    told = (
        "import sys; from eosr._version import __version__; from eosr.batch.crew import look_around\n"
        f"assert look_around(__version__, {str(tmp_path)!r}, 'token', {sums!r}) == ''\n"
        "assert 'torch' not in sys.modules\n"
    )
    (tmp_path / ".eosr-batch-token").write_text("token")
    subprocess.run([sys.executable, "-c", told], check=True)


def test_a_process_that_had_not_imported_distributed_can_start_workers_again(tmp_path):
    again = (
        "import pathlib, dask, eosr.batch.cluster as cluster\n"
        "if __name__ == '__main__':\n"
        f"    with cluster.workers_of(cluster.Site(), pathlib.Path({str(tmp_path)!r})): pass\n"
        "    assert dask.config.get('distributed.comm.timeouts.connect')\n"
        "    assert dask.config.get('distributed.worker.profile.enabled')\n"
    )
    (tmp_path / "again.py").write_text(again)
    told = subprocess.run([sys.executable, str(tmp_path / "again.py")], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobbs: 3", r"site\.yaml has the unknown key jobbs\. Known are account, cores, "),
        ("jobs: many", r"site\.yaml: jobs is 'many', not int\. Correct it\."),
        ("jobs: true", r"site\.yaml: jobs is True, not int"),
        ("jobs: 0", r"site\.yaml: jobs is 0\. Give 1 to 100000\."),
        ("cores: 99999999999999999999", r"site\.yaml: cores is 9{20}\. Give 1 to 100000\."),
        ("memory: 1e300GB", r"site\.yaml: memory is '1e300GB', no size of a node"),
        ("memory: 1e999GB", r"site\.yaml: memory is '1e999GB', no size of a node"),
        ("a: " + "[" * 5000, r"site\.yaml is nested too deep for a site file"),
        ("tls: 'yes'", r"site\.yaml: tls is 'yes', not bool"),
        ("kind: slurm-runner\ntls: true", r"site\.yaml: tls is for kind slurm and local"),
        ("kind: pbs", r"site\.yaml: kind is 'pbs'\. Use one of local, slurm, slurm-runner\."),
        ("walltime: 6:00:00", r'site\.yaml: walltime needs quotes in YAML\. Write walltime: "01:30:00"\.'),
        ("prologue: module load x", r"site\.yaml: prologue is 'module load x', not a list of texts\. Write e\.g\."),
        (
            "gpus: 2",
            r"gpus is 2 and processes 1; every card takes .*, or as many as the others\. Write e\.g\. processes: 2\.",
        ),
        ("jobs: [", r"site\.yaml is no YAML: .* Correct it\."),
        ("memory: quatsch", r"site\.yaml: memory is 'quatsch', no size of a node\. Write e\.g\. memory: 16GB\."),
        ("kind: local\nmemory: '0'", r"site\.yaml: memory is '0', no size"),
        ("1: 2\nfoo: 3", r"site\.yaml has the unknown key 1\. Known are "),
        ("walltime: 2023-99-99", r"site\.yaml is no YAML: month must be in 1\.\.12\. Correct it\."),
        ("- jobs", r"site\.yaml holds a list, not KEY: VALUE lines"),
    ],
)
def test_a_wrong_site_file_is_told(tmp_path, text, said):
    (tmp_path / "site.yaml").write_text(text + "\n")
    with pytest.raises(BatchError, match=said):
        load_site(tmp_path / "site.yaml")


def test_a_site_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "site.yaml").write_bytes("account: Jülich\n".encode("latin-1"))
    with pytest.raises(BatchError, match=r"site\.yaml is no text in UTF-8 \(at byte 10\)\. Save it as such\."):
        load_site(tmp_path / "site.yaml")


def started(site, logs):
    with workers_of(site, logs):
        pytest.fail("it started")


def test_what_a_site_names_and_this_machine_does_not_have_is_told(tmp_path):
    pytest.importorskip("dask_jobqueue")
    with pytest.raises(
        BatchError, match=r"there is no network interface nosuch0 here, which interface in the site fil"
    ):
        started(Site(kind="slurm", interface="nosuch0"), tmp_path)
    with pytest.raises(
        BatchError, match=r"nosuch1 here, which scheduler_interface in .* Write e\.g\. scheduler_interfac"
    ):
        started(Site(kind="slurm", interface="ib0", scheduler_interface="nosuch1"), tmp_path)
    with pytest.raises(
        BatchError, match=r"dask's scheduler does not start: .* Correct scheduler_interface, interface or"
    ):
        started(Site(kind="slurm", dashboard="no/such:port"), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/logs cannot be made: Not a directory\. Name another folder\."):
        started(Site(kind="slurm"), tmp_path / "file" / "logs")


def test_the_tasks_of_a_job_outside_of_one_are_told(tmp_path, monkeypatch):
    pytest.importorskip("dask_jobqueue")
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    with pytest.raises(
        BatchError, match=r"kind: slurm-runner is for the tasks of a job: SLURM_PROCID, .* Type srun -n 6"
    ):
        started(Site(kind="slurm-runner"), tmp_path)


def test_dask_jobqueue_does_not_take_ctrl_c_from_eosr(tmp_path):
    pytest.importorskip("dask_jobqueue")
    told = "import signal, eosr.batch.cluster as c; c._jobqueue(); print(signal.getsignal(signal.SIGINT).__name__)"
    told = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert told.stdout == "default_int_handler\n"


def test_drained_nodes_and_a_wrong_site_file_are_refused_in_the_same_words(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'allocation failure: not available' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        BatchError, match=r"not available\. Correct the site file; if it is right, try again .*\(sinfo\)"
    ):
        check_job("#!/bin/sh\n")


def test_no_site_file_and_no_sbatch_are_told(tmp_path, monkeypatch):
    with pytest.raises(
        BatchError, match=r"there is no site file .*no\.yaml \(No such .*\)\. Use one of generic, "
    ) as refusal:
        load_site(tmp_path / "no.yaml")
    example = str(refusal.value).rpartition("or copy one: ")[2].removesuffix(".")
    assert load_site(example) == load_site("generic")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BatchError, match=r"there is no sbatch here\. Type this where jobs can be submitted"):
        check_job("#!/bin/sh\n")


def test_every_process_of_a_job_takes_a_card_of_its_own(monkeypatch):
    assert [card_of(f"SLURMCluster-3-{k}", "0,1,2,3") for k in range(4)] == ["0", "1", "2", "3"]
    assert card_of("SLURMCluster-3", "5") == "5"
    assert card_of("SLURMCluster-3-1", "") is None
    assert [card_of(name, "4,6") for name in ("0", "1", "2")] == ["4", "6", "4"]
    assert [card_of(f"SLURMCluster-0-{k}", "0,1") for k in range(4)] == ["0", "1", "0", "1"], "two each"
    assert card_of("1", "") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    dask_setup(type("Worker", (), {"name": "SLURMCluster-0-1"}))
    import os

    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"


def card():
    import os

    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize("with_dask_cuda", [False, True])
def test_workers_of_this_machine_have_a_card_each_by_dask_cuda_where_it_is(with_dask_cuda, tmp_path, monkeypatch):
    """dask-cuda needs a card: in its place stands the cluster of dask that it is made of."""
    from distributed import LocalCluster

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    asked = []

    class LocalCUDACluster(LocalCluster):
        def __init__(self, **how):
            asked.append(how)
            super().__init__(**how)

    stand_in = types.ModuleType("dask_cuda")
    stand_in.LocalCUDACluster = LocalCUDACluster
    monkeypatch.setitem(sys.modules, "dask_cuda", stand_in if with_dask_cuda else None)
    with workers_of(Site(kind="local", processes=2, gpus=2), tmp_path) as (client, _):
        client.wait_for_workers(2)
        facts = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [one["resources"] for one in facts] == [{"GPU": 1}] * 2
        if not with_dask_cuda:
            assert sorted(client.run(card).values()) == ["0", "1"]
    assert len(asked) == with_dask_cuda


def test_two_workers_share_a_card_where_a_site_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setitem(sys.modules, "dask_cuda", types.ModuleType("dask_cuda"))  # would give a card to one only
    with workers_of(Site(kind="local", processes=2, gpus=1), tmp_path) as (client, _):
        client.wait_for_workers(2)
        assert list(client.run(card).values()) == ["5", "5"]


def test_where_no_card_is_found_workers_keep_what_they_see(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    dask_setup(type("Worker", (), {"name": "1"}))
    assert card() == ""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    dask_setup(type("Worker", (), {"name": "1"}))
    assert card() == "1"


class Cluster:
    """What is asked of a SLURMCluster, without Slurm."""

    def __init__(self, jobs):
        self.workers = {name: type("Job", (), {"job_id": number, "refused": ""}) for name, number in jobs.items()}
        self.worker_spec = dict.fromkeys(jobs)
        self.names, self.busy, self.scaled = [], [], []

    @property
    def scheduler_info(self):
        return {"workers": {f"tcp://{name}": {"name": name} for name in self.names}}

    def refuse(self, name):
        self.workers[name] = type("Job", (), {"job_id": None, "refused": "error: QOSMaxSubmit."})
        self.worker_spec[name] = None

    @property
    def scheduler(self):
        workers = {name: types.SimpleNamespace(name=name, processing=name in self.busy) for name in self.names}
        return types.SimpleNamespace(workers=workers)

    def scale(self, jobs):
        self.scaled.append(jobs)


def test_jobs_that_ended_are_replaced_while_scenes_are_left_and_stillborn_ones_end_the_batch(tmp_path, monkeypatch):
    queue = ["7"]
    monkeypatch.setattr("eosr.batch.jobs._queue", lambda: dict.fromkeys(queue, ""))
    monkeypatch.setattr("eosr.batch.jobs._LOOK", 0)
    cluster = Cluster({"w-0": "7", "w-1": "8"})
    cluster.names = ["w-0", "w-1"]
    jobs = SlurmJobs(cluster, Site(kind="slurm", jobs=2), tmp_path)
    jobs(5)
    assert list(cluster.worker_spec) == ["w-0"], "the ended one is taken out, so that scale() submits another"
    assert cluster.scaled == [2]
    jobs(1)
    assert cluster.scaled == [2, 1], "no more jobs than scenes left"

    (tmp_path / "eosr-batch-9.err").write_text("a\nbash: python: command not found\n")
    queue.clear()
    dead = Cluster({"w-0": "9", "w-1": "10", "w-2": "11"})
    with pytest.raises(
        BatchError, match=r"3 jobs in a row ended before a worker came: bash: python: command not found"
    ):
        SlurmJobs(dead, Site(kind="slurm", jobs=3), tmp_path)(5)


def test_a_job_of_many_processes_is_replaced_by_one_of_another_name(tmp_path, monkeypatch):
    monkeypatch.setattr("eosr.batch.jobs._queue", dict)
    monkeypatch.setattr("eosr.batch.jobs._LOOK", 0)
    cluster = Cluster({"w-0": "7"})
    cluster.names = ["w-0-0", "w-0-1"]
    SlurmJobs(cluster, Site(kind="slurm", processes=2), tmp_path)(5)
    assert (cluster.workers, cluster.worker_spec, cluster.scaled) == ({}, {}, [1])


def test_the_job_that_is_at_work_on_the_last_scene_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("eosr.batch.jobs._queue", lambda: {"7": "", "8": "", "9": "Priority"})
    monkeypatch.setattr("eosr.batch.jobs._LOOK", 0)
    cluster = Cluster({"w-0": "7", "w-1": "8", "w-2": "9"})
    cluster.names, cluster.busy = ["w-0", "w-1"], ["w-1"]
    jobs = SlurmJobs(cluster, Site(kind="slurm", jobs=3), tmp_path)
    jobs(2)
    assert list(cluster.worker_spec) == ["w-0", "w-1"], "one that waits goes first"
    jobs(1)
    assert list(cluster.worker_spec) == ["w-1"]


def test_jobs_that_wait_are_told_and_the_queue_is_asked_ever_more_seldom(tmp_path, monkeypatch):
    clock, asked = [0.0], []

    def squeue(*command, **how):
        asked.append(clock[0])
        text = "7|PENDING|Resources\n8|PENDING|Priority\n9|CONFIGURING|None\n10|RUNNING|None\n11|PENDING|Held\n"
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(subprocess, "run", squeue)
    monkeypatch.setattr("eosr.batch.jobs.time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    cluster = Cluster({"w-0": "7", "w-1": "8", "w-2": "9", "w-3": "10"})
    jobs = SlurmJobs(cluster, Site(kind="slurm", jobs=4), tmp_path)
    for _ in range(2000):
        assert jobs(9) == "3 jobs wait in the queue: Configuring, Priority, Resources"
        clock[0] += 0.25
    assert asked[1] - asked[0] == 5
    assert asked[-1] - asked[-2] == 30
    cluster.names = ["w-0"]
    jobs(9)
    clock[0] += 5
    jobs(9)
    assert asked[-1] == clock[0], "something has changed"


def test_what_sbatch_refuses_is_tried_once_more_and_then_told_unless_another_job_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("eosr.batch.jobs._queue", lambda: {"7": ""})
    monkeypatch.setattr("eosr.batch.jobs._LOOK", 0)
    cluster = Cluster({"w-0": "7"})
    cluster.refuse("w-1")
    jobs = SlurmJobs(cluster, Site(kind="slurm", jobs=2), tmp_path)
    for _ in range(5):
        assert jobs(5) == "Slurm takes no more: error: QOSMaxSubmit."
        cluster.refuse("w-1")
    cluster.workers.clear()
    cluster.worker_spec.clear()
    cluster.refuse("w-2")
    jobs(5)
    cluster.refuse("w-3")
    with pytest.raises(BatchError, match=r"Slurm takes no job: error: QOSMaxSubmit\. Correct the site file, or wait"):
        jobs(5)


def test_slurm_that_does_not_answer_is_waited_for(tmp_path, monkeypatch):
    from eosr.batch.jobs import _queue

    monkeypatch.setattr(subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "Unable to contact"))
    assert _queue() is None
    cluster = Cluster({"w-0": "7"})
    SlurmJobs(cluster, Site(kind="slurm"), tmp_path)(1)
    assert list(cluster.worker_spec) == ["w-0"]


def test_without_semaphores_a_sentence_says_what_to_make_writable(tmp_path):
    """As in containers whose /dev/shm is missing or read-only."""
    start = (
        "from pathlib import Path; from eosr.batch.cluster import workers_of; from eosr.batch.site import Site\n"
        f"with workers_of(Site(processes=1), Path({str(tmp_path)!r})): pass"
    )
    command = f"mount -t tmpfs -o ro none /dev/shm && exec {sys.executable} -c {shlex.quote(start)}"
    run = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, check=False)
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip("this machine lets nobody mount")
    assert re.search(
        r"BatchError: workers cannot be started: there are no semaphores .*Read-only.*Make /dev/shm", run.stderr
    )
