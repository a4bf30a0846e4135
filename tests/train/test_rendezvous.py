"""The variables of every launcher, read alike; what is no launcher is one process."""

import pytest

from eosr.errors import TrainingError
from eosr.train.rendezvous import Place, address_of, find_place, tasks_per_node

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


def test_a_rank_of_horovodrun_and_of_mpirun():
    horovodrun = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
    assert find_place(horovodrun) == Place(launcher="horovodrun", rank=1, size=2, local_rank=1, local_size=2)
    mpirun = {f"OMPI_COMM_WORLD_{key}": value for key, value in
              {"RANK": "1", "SIZE": "4", "LOCAL_RANK": "0", "LOCAL_SIZE": "1"}.items()}  # fmt: skip
    assert find_place(mpirun) == Place(launcher="mpirun", rank=1, size=4)


@pytest.mark.parametrize(
    "environ", [SRUN | {"SLURM_STEP_TASKS_PER_NODE": "2"}, SRUN | {"SLURM_NODEID": "x"}, {"HOROVOD_RANK": "0"}]
)
def test_variables_that_contradict_themselves_are_refused(environ):
    with pytest.raises(
        TrainingError, match=r"contradict themselves .* Start the ranks again with horovodrun, torchrun"
    ):
        find_place(environ)


@pytest.mark.parametrize(("text", "counts"), [("4", (4,)), ("2(x3),1", (2, 2, 2, 1)), ("1,2(x2)", (1, 2, 2))])
def test_tasks_per_node_in_the_shorthand_of_slurm(text, counts):
    assert tasks_per_node(text) == counts


def test_a_host_without_an_address_is_refused():
    assert address_of("localhost") == "127.0.0.1"
    with pytest.raises(
        TrainingError, match=r"'no-such-host\.invalid', has no address here\. Give one with EOSR_MASTER_ADDR"
    ):
        address_of("no-such-host.invalid")
