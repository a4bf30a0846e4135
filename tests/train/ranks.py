"""What tests start as ranks: ``LAUNCHER ... python ranks.py WHAT [ARGUMENTS]``."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from eosr.errors import RankLostError, SharedError, TrainingError
from eosr.train.data.material import from_scenes
from eosr.train.loop import train
from eosr.train.ranks.communicator import leave, together
from eosr.train.ranks.meeting import choose
from train.made import made_scene, tiny_config

torch.set_num_threads(1)
CPU = torch.device("cpu")


def scenes():
    return [made_scene("one"), made_scene("two", seed=1), made_scene("kept", seed=2, kept_out=True)]


def talk(communicator, out):
    """Average, broadcast, gather and agree on an error; every rank writes what it has then."""
    rank = communicator.rank
    mixed = [torch.full((3,), rank + 1.0), torch.tensor([[10.0 * rank]], dtype=torch.float64), torch.zeros(2, 2) + rank]
    communicator.average(mixed)
    told = [torch.full((2,), rank + 5.0), torch.tensor(rank + 7)]
    communicator.broadcast(told)
    communicator.barrier()
    told = [one.tolist() for one in told]
    texts = communicator.gather(f"rank {rank}, \u00e9")
    # An error of rank 1 alone is an error of both, and they can still talk.
    try:
        with together(communicator):
            if rank == 1:
                raise TrainingError("no data here")
        said = "nothing"
    except SharedError as error:
        said = str(error)
    found = {
        "name": communicator.name, "place": [rank, communicator.size, communicator.local_rank],
        "average": [one.tolist() for one in mixed], "broadcast": told, "gather": texts,
        "errors": communicator.gather(said),
    }  # fmt: skip
    Path(out, f"{rank}.json").write_text(json.dumps(found))


def lose(communicator, rank, signal_name):
    """One rank is killed or stands still; the other one says what it sees of it."""
    tensor = torch.zeros(1000)
    communicator.average([tensor])
    if communicator.rank == int(rank):
        os.kill(os.getpid(), getattr(signal, signal_name))
    try:
        communicator.average([tensor])
        communicator.gather("still here?")
    except RankLostError as error:
        print(f"rank {communicator.rank}: {error}", flush=True)
        os._exit(3)


def steps(communicator, out, kind, batch):
    """Twenty steps, in float64, of AdamW on an L1 loss or as ``kind`` says; rank 0 writes the weights."""
    settings = {
        "steps": 20,
        "every": 20,
        "precision": "float64",
        "batch": int(batch),
        "loss": "l1",
        "learning_rate": 1e-2,
    }
    adversarial = {"loss": "wgan_gp", "features": 4, "stages": 2, "critic_steps": 2, "ramp": 5, "calibrate_every": 4}
    if kind == "muon":
        settings["optimiser"] = "muon"
    if kind == "wgan_gp":
        settings |= {"window": {"size": 28}, "adversarial": adversarial}
    config = tiny_config(**settings)
    material = from_scenes(scenes(), config)
    outcome = train(config, material, Path(out), communicator=communicator, device=CPU)
    if communicator.rank == 0:
        torch.save(outcome.generator.state_dict(), Path(out, f"{kind}-{communicator.size}.pt"))


def killed(communicator, out):
    """A training of which rank 1 is killed in step 5, after two states."""
    from eosr.train.data import stream

    batch, count = stream.Stream.batch, 0

    def dying(self, *arguments):
        nonlocal count
        count += 1
        if count == 6 and communicator.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(self, *arguments)

    stream.Stream.batch = dying
    config = tiny_config(steps=8)
    try:
        train(config, from_scenes(scenes(), config), Path(out), communicator=communicator, device=CPU)
    except RankLostError as error:
        print(f"rank {communicator.rank}: {error}", flush=True)
        os._exit(1)


def resumed(communicator, out):
    """The same training, undisturbed."""
    config = replace(tiny_config(steps=8))
    outcome = train(
        config, from_scenes(scenes(), config), Path(out), communicator=communicator, device=CPU,
        tell=print if communicator.rank == 0 else None,
    )  # fmt: skip
    if communicator.rank == 0:
        torch.save(outcome.generator.state_dict(), Path(out, "end.pt"))


if __name__ == "__main__":
    chosen = choose(os.environ.get("COMMUNICATOR", "auto"))
    {one.__name__: one for one in (talk, lose, steps, killed, resumed)}[sys.argv[1]](chosen, *sys.argv[2:])
    leave(chosen, 0)
