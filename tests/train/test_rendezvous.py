"""The variables of every launcher, read alike; what is no launcher is one process."""

import pytest

from eosr.errors import TrainingError
from eosr.train.ranks.rendezvous import Place, address_of, find_place, first_host, tasks_per_node

SRUN = {
    "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "7",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_STEP_NODELIST": "a", "SLURM_STEP_ID": "2", "SLURM_NTASKS": "5",
}  # fmt: skip


def test_a_task_of_srun():
    """Hosts with 2, 2 and 1 tasks; this is the second task of the second one. Two hosts have a second task."""
    assert find_place(SRUN) == Place(
        launcher="srun", rank=3, size=5, local_rank=1, local_size=2, cross_rank=1, cross_size=2, host="a",
        port=20000 + 7 * 31 + 2, per_host=(2, 2, 1),
    )  # fmt: skip


def test_the_address_of_rank_0_can_be_given():
    place = find_place(SRUN | {"EOSR_MASTER_ADDR": "10.0.0.1", "EOSR_MASTER_PORT": "4321"})
    assert (place.host, place.port) == ("10.0.0.1", 4321)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        # The shell of an interactive allocation, and that of a batch job.
        {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_NPROCS": "2"},
        {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
        {"RANK": "3"},
        # Where salloc puts its shell into a step: Slurm's number for that one, SLURM_INTERACTIVE_STEP.
        SRUN | {"SLURM_STEP_ID": str(0xFFFFFFFA)},
    ],
)
def test_what_is_no_task_of_a_launcher_is_one_process(environ):
    assert find_place(environ) == Place(launcher="none")


def test_a_rank_of_torchrun():
    environ = {
        "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1",
        "MASTER_ADDR": "h", "MASTER_PORT": "123",
    }  # fmt: skip
    assert find_place(environ) == Place(
        launcher="torchrun", rank=5, size=8, local_rank=1, local_size=4, cross_rank=1, cross_size=2, host="h", port=123,
        per_host=(4, 4),
    )  # fmt: skip
    # Launched by srun on every host, served by torchrun's own store, and started for the second time.
    by_srun = SRUN | environ | {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "1"}
    place = find_place(by_srun)
    assert (place.launcher, place.served, place.attempt) == ("torchrun", True, 1)


def test_hosts_of_torchrun_with_unlike_numbers_of_ranks_are_told_as_unknown():
    """Three ranks on two hosts: whichever host asks."""
    for local_size in ("2", "1"):
        environ = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": local_size}
        assert find_place(environ | {"GROUP_WORLD_SIZE": "2"}).per_host == ()


def test_a_rank_of_horovodrun_and_of_mpirun():
    horovodrun = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
    assert find_place(horovodrun) == Place(launcher="horovodrun", rank=1, size=2, local_rank=1, local_size=2)
    mpirun = {f"OMPI_COMM_WORLD_{key}": value for key, value in
              {"RANK": "1", "SIZE": "4", "LOCAL_RANK": "0", "LOCAL_SIZE": "1"}.items()}  # fmt: skip
    assert find_place(mpirun) == Place(launcher="mpirun", rank=1, size=4)
    # MPICH's own, whose mpiexec in turn starts its ranks by srun.
    hydra = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    place = Place(launcher="mpirun", rank=3, size=4, local_rank=1, local_size=2)
    assert find_place(hydra) == find_place(SRUN | hydra) == place
    # srun with --mpi=pmi2 tells PMI_RANK too, and is srun all the same.
    assert find_place(SRUN | {"PMI_RANK": "3", "PMI_SIZE": "5"}).launcher == "srun"


@pytest.mark.parametrize(
    "environ",
    [
        SRUN | {"SLURM_STEP_TASKS_PER_NODE": "2"},
        SRUN | {"SLURM_NODEID": "x"},
        SRUN | {"SLURM_STEP_NODELIST": ""},
        {"HOROVOD_RANK": "0"},
        {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "0"},
    ],
)
def test_variables_that_contradict_themselves_are_refused(environ):
    with pytest.raises(
        TrainingError, match=r"contradict themselves .* Start the ranks again with horovodrun, torchrun"
    ):
        find_place(environ)


@pytest.mark.parametrize(("text", "counts"), [("4", (4,)), ("2(x3),1", (2, 2, 2, 1)), ("1,2(x2)", (1, 2, 2))])
def test_tasks_per_node_in_the_shorthand_of_slurm(text, counts):
    assert tasks_per_node(text) == counts


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("n1", "n1"),
        ("a,b", "a"),
        ("jwb[0007-0010,0012],c", "jwb0007"),
        ("r[2-3]n[04,05]-ib,x", "r2n04-ib"),
        ("n[7]", "n7"),
    ],
)
def test_the_first_host_of_the_shorthand_of_slurm(text, host):
    assert first_host(text) == host


def test_a_host_without_an_address_is_refused():
    assert address_of("localhost") == "127.0.0.1"
    with pytest.raises(
        TrainingError, match=r"'no-such-host\.invalid', has no address here\. Give one with EOSR_MASTER_ADDR"
    ):
        address_of("no-such-host.invalid")
