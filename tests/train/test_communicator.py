"""Two real ranks under every launcher: they average, agree on errors, and notice when one is gone."""

import json
import socket
from itertools import pairwise

import pytest
import torch

from eosr.errors import RankLostError, SharedError, TrainingError
from eosr.train.ranks.communicator import Alone, by_kind, leave, lost, together
from eosr.train.ranks.meeting import choose, timeout_of
from eosr.train.ranks.rendezvous import MPI
from train.launch import TWO_RANKS, launch, launch_by_hand, needs_horovod

SAID = {"torchrun": "torch.distributed (Gloo)", "horovodrun": "Horovod 0.28.1 (Gloo)"}


@pytest.mark.parametrize(("launcher", "communicator"), TWO_RANKS)
def test_two_ranks_average_broadcast_gather_and_share_an_error(launcher, communicator, tmp_path):
    done = launch(launcher, communicator, "talk", tmp_path)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["name"] == SAID["horovodrun" if communicator == "horovod" else launcher]
        assert found["place"] == [rank, 2, rank]
        assert found["average"] == [[1.5] * 3, [[5.0]], [[0.5, 0.5], [0.5, 0.5]]]
        assert found["broadcast"] == [[5.0, 5.0], 7]
        assert found["gather"] == ["rank 0, \u00e9", "rank 1, \u00e9"]
        assert found["errors"] == ["rank 1: no data here"] * 2


@pytest.mark.parametrize("communicator", ["torch", pytest.param("horovod", marks=needs_horovod)])
@pytest.mark.parametrize(("gone", "how"), [(1, "SIGKILL"), (0, "SIGSTOP")])
def test_the_rank_that_is_left_says_that_the_other_is_killed_or_stands_still(communicator, gone, how):
    """A time-out of minutes for the one, which is seen at once, and of seconds for the other."""
    timeout = {"SIGKILL": "300", "SIGSTOP": "20"}[how]
    left = launch_by_hand(communicator, "lose", gone, how, wait_for=1 - gone, EOSR_RANK_TIMEOUT=timeout)
    assert left.returncode == 3, left.stderr
    assert f"rank {1 - gone}: another rank is gone, or did not answer for {timeout} s (" in left.stdout
    assert "the same command goes on from the last state" in left.stdout


def two_of_torchrun(**variables):
    """What torchrun would tell rank 0 of two, at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
    return told | {"MASTER_ADDR": "127.0.0.1", "EOSR_RANK_TIMEOUT": "1"} | variables


@pytest.mark.parametrize("communicator", ["torch", pytest.param("horovod", marks=needs_horovod)])
def test_a_rank_that_never_comes_is_not_waited_for_for_ever(communicator):
    with pytest.raises(RankLostError, match=r"1 of 2 ranks came to 127\.0\.0\.1:\d+ within 1 s\. Look at"):
        choose(communicator, two_of_torchrun())


def test_a_rank_0_that_never_comes_is_not_waited_for_for_ever():
    with pytest.raises(RankLostError, match=r"rank 0 does not listen at 127\.0\.0\.1:\d+ after 1 s"):
        choose("torch", two_of_torchrun(RANK="1", LOCAL_RANK="1"))


def test_a_port_that_is_taken_is_refused_with_what_gives_another():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(TrainingError, match=r"rank 0 cannot listen at port \d+ .*in use\)\. Give another one by"):
            choose("torch", two_of_torchrun(MASTER_PORT=str(taken.getsockname()[1])))


@needs_horovod
@pytest.mark.parametrize("names", MPI)
def test_processes_of_mpirun_that_horovod_cannot_join_do_not_each_train_alone(names):
    hvd = pytest.importorskip("horovod.torch")
    if hvd.mpi_built():
        pytest.skip("this build of Horovod has MPI")
    environ = dict(zip(names, ("0", "2", "0", "2"), strict=True))
    with pytest.raises(TrainingError, match=r"mpirun started 2 processes, .* Build it with HOROVOD_MPI=1"):
        choose("auto", environ)


@needs_horovod
def test_horovod_under_torchrun_wants_as_many_ranks_on_every_host():
    """Two hosts, of two ranks and one. It is the only one to come, so the answer must not need the others."""
    with pytest.raises(TrainingError, match="the same number of ranks on every host"):
        choose("horovod", two_of_torchrun(WORLD_SIZE="3", GROUP_WORLD_SIZE="2"))


def test_alone_nothing_is_changed_and_nobody_is_waited_for():
    alone = Alone()
    tensor = torch.arange(3.0)
    alone.average([tensor])
    alone.broadcast([tensor])
    alone.barrier()
    alone.close()
    assert tensor.tolist() == [0, 1, 2]
    assert alone.gather("me") == ["me"]


def test_leaving_is_no_failure_where_another_rank_has_gone_before():
    class Left(Alone):
        def close(self):
            raise lost(RuntimeError("closed by peer"), 1)

    assert leave(Left(), 0) == 0


def test_alone_an_error_stays_what_it_is():
    with pytest.raises(TrainingError, match="mine") as caught, together(Alone()):
        raise TrainingError("mine")
    assert not isinstance(caught.value, SharedError)


def test_one_message_per_type_carries_everything_back_to_its_place():
    sizes = []

    def work(flat):
        sizes.append((flat.dtype, flat.numel()))
        return flat * 2

    tensors = [torch.ones(2, 3), torch.ones(4, dtype=torch.float64), torch.full((), 5.0), torch.ones(2, 2).t()]
    by_kind(tensors, work)
    assert sizes == [(torch.float32, 6 + 1 + 4), (torch.float64, 4)]
    assert [one.sum().item() for one in tensors] == [12, 8, 10, 8]
    assert all(a.data_ptr() != b.data_ptr() for a, b in pairwise(tensors))


@pytest.mark.parametrize(
    ("environ", "name", "said"),
    [
        ({}, "mpi", r"communicator 'mpi' is unknown\. Give auto, alone, horovod, torch\."),
        (
            {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_LOCAL_SIZE": "2"}, "torch",
            r"horovodrun does not tell its ranks where to meet without Horovod\. Start them with torchrun or srun",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "EOSR_RANK_TIMEOUT": "soon"},
            "auto", r"EOSR_RANK_TIMEOUT = 'soon' is no number of seconds\. Give e\.g\. 300\.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(environ, name, said):
    with pytest.raises(TrainingError, match=said):
        choose(name, environ)


def test_horovod_that_is_not_installed_is_refused_with_what_builds_it(monkeypatch):
    monkeypatch.setattr("eosr.train.ranks.meeting.find_spec", lambda name: None)
    environ = {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_LOCAL_SIZE": "2"}
    with pytest.raises(
        TrainingError, match=r"which is not installed\. Build it \(make horovod, or hpc/build_horovod\.sh\)"
    ):
        choose("auto", environ)


def test_one_process_is_alone_whatever_started_it():
    assert isinstance(choose("auto", {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}), Alone)
    assert isinstance(choose("alone", {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}), Alone)
    assert isinstance(choose("auto", {}), Alone)


def test_the_time_out_is_what_was_given():
    assert timeout_of({}) == 300
    assert timeout_of({"EOSR_RANK_TIMEOUT": "2.5"}) == 2.5
    for text in ("0", "-1", "inf", "nan", ""):
        with pytest.raises(TrainingError, match=f"EOSR_RANK_TIMEOUT = '{text}' is no number of seconds"):
            timeout_of({"EOSR_RANK_TIMEOUT": text})
    assert "did not answer for 2 s (closed)" in str(lost(RuntimeError("closed\nby peer"), 2.5))
    assert isinstance(lost(RuntimeError(), 1), RankLostError)
