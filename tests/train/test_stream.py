"""Who draws which windows: two ranks see what one sees, and nothing depends on the threads."""

import pytest
import torch

from eosr.errors import TrainingError
from eosr.train.data.stream import stream
from eosr.train.data.windows import WindowConfig, Windows
from train.made import made_scene


def source():
    return Windows([made_scene(), made_scene(seed=1)], WindowConfig(size=24, rim=4))


def batches(place, batch, readers=1, numbers=(0, 1, 2, 3)):
    with stream(source(), seed=5, batch=batch, place=place, readers=readers) as opened:
        return [opened.batch(number).target for number in numbers]


def test_the_parts_of_two_ranks_are_the_batch_of_one_with_twice_as_many_windows():
    whole = batches((0, 1), 4)
    halves = [batches((rank, 2), 2) for rank in (0, 1)]
    for number in range(4):
        assert torch.equal(whole[number], torch.cat([halves[0][number], halves[1][number]]))


def test_no_window_is_drawn_twice():
    drawn = torch.cat(batches((0, 1), 4)).flatten(1)
    assert len(torch.unique(drawn, dim=0)) == 16


@pytest.mark.parametrize("readers", [1, 3])
def test_a_run_that_goes_on_and_more_threads_draw_the_same(readers):
    assert torch.equal(batches((0, 1), 2, readers, (3,))[0], batches((0, 1), 2)[3])


def test_an_error_of_a_window_reaches_the_training():
    class Broken:
        def sample(self, index, seed):
            raise TrainingError(f"no window {index}")

    with (
        stream(Broken(), seed=5, batch=2, place=(1, 2), readers=1) as opened,
        pytest.raises(TrainingError, match="no window 6"),
    ):
        opened.batch(1)
