"""Two real ranks under every launcher: they average, agree on errors, and notice when one is gone."""

import json
from itertools import pairwise

import pytest
import torch

from eosr.errors import RankLostError, SharedError, TrainingError
from eosr.train.communicator import Alone, by_kind, lost, together
from eosr.train.meeting import choose, timeout_of
from train.launch import TWO_RANKS, launch

SAID = {"torchrun": "torch.distributed (Gloo)", "horovodrun": "Horovod 0.28.1 (Gloo)"}


@pytest.mark.parametrize(("launcher", "communicator"), TWO_RANKS)
def test_two_ranks_average_broadcast_and_gather(launcher, communicator, tmp_path):
    done = launch(launcher, communicator, "talk", tmp_path)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["name"] == SAID["horovodrun" if communicator == "horovod" else launcher]
        assert found["place"] == [rank, 2, rank]
        assert found["average"] == [[1.5] * 3, [[5.0]], [[0.5, 0.5], [0.5, 0.5]]]
        assert found["broadcast"] == [[5.0, 5.0], 7]
        assert found["gather"] == ["rank 0, \u00e9", "rank 1, \u00e9"]


@pytest.mark.parametrize(("launcher", "communicator"), TWO_RANKS[:2])
def test_an_error_of_one_rank_is_an_error_of_both(launcher, communicator, tmp_path):
    done = launch(launcher, communicator, "errors", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "0.json").read_text()) == ["rank 1: no data here"] * 2


@pytest.mark.parametrize(("launcher", "communicator"), TWO_RANKS[:2])
def test_the_rank_that_is_left_says_that_the_other_is_gone(launcher, communicator, tmp_path):
    done = launch(launcher, communicator, "die", tmp_path, EOSR_RANK_TIMEOUT="20")
    assert done.returncode != 0
    # A launcher may kill the rank that is left before it has written a word; if it wrote one, it is this.
    if (tmp_path / "said").exists():
        assert "another rank is gone, or did not answer for 20 s" in (tmp_path / "said").read_text()
    else:
        assert "SIGKILL" in done.stderr + done.stdout or "-9" in done.stderr + done.stdout or "exit code" in done.stderr


def test_alone_nothing_is_changed_and_nobody_is_waited_for():
    alone = Alone()
    tensor = torch.arange(3.0)
    alone.average([tensor])
    alone.broadcast([tensor])
    alone.barrier()
    alone.close()
    assert tensor.tolist() == [0, 1, 2]
    assert alone.gather("me") == ["me"]


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
    monkeypatch.setattr("eosr.train.meeting.find_spec", lambda name: None)
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
    assert "did not answer for 2 s (closed)" in str(lost(RuntimeError("closed\nby peer"), 2.5))
    assert isinstance(lost(RuntimeError(), 1), RankLostError)
