"""What a computation costs: memory it takes on top of what was there, and how much of it is done."""

import ctypes
import gc
import threading
import time

import dask
import dask.array as da
import numpy as np
import pytest

from eosr.host.memory import PeakMemory
from eosr.host.progress import bar, reporting_tasks

MIB = 2**20


@pytest.fixture(autouse=True)
def quiet():
    """What earlier tests have freed must not go back to the system while a test looks."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def touched(size):
    return np.ones(size * MIB, np.uint8)


def test_an_allocation_is_seen_even_if_it_is_gone_at_the_end():
    with PeakMemory() as memory:
        block = touched(200)
        time.sleep(0.15)
        del block
    assert memory.grown == pytest.approx(200 * MIB, rel=0.1)


def test_what_is_there_at_the_end_is_seen_without_waiting_for_the_watcher(monkeypatch):
    monkeypatch.setattr("eosr.host.memory._INTERVAL", 60)
    with PeakMemory() as memory:
        block = touched(200)
    assert memory.grown == pytest.approx(block.nbytes, rel=0.1)


def test_what_was_there_before_does_not_count():
    block = touched(200)
    with PeakMemory() as memory:
        assert memory.grown < 20 * MIB
        time.sleep(0.05)
        smaller = touched(50)
    assert memory.grown == pytest.approx(smaller.nbytes, rel=0.3)
    assert block[0] == 1


def test_memory_that_is_given_back_is_no_negative_growth():
    block = touched(100)
    with PeakMemory() as memory:
        del block
    assert memory.grown < 10 * MIB


def test_the_watcher_ends_with_the_block_and_the_same_meter_can_be_used_again():
    memory = PeakMemory()
    for size in (150, 40):
        with memory:
            block = touched(size)
        assert not memory._watcher.is_alive()
        assert memory.grown == pytest.approx(size * MIB, rel=0.3)
        del block
    with pytest.raises(ValueError, match="inside"), memory:
        raise ValueError("inside")
    assert not memory._watcher.is_alive()


def slowly(block):
    time.sleep(0.015)
    return block + 1


def run(computations, told, *, expected=None, scheduler="synchronous"):
    def tell(done, total):
        told.append((done, total))

    with dask.config.set(scheduler=scheduler), reporting_tasks(tell, expected or computations, "evaluating"):
        for _ in range(computations):
            da.from_array(np.zeros(60), chunks=2).map_blocks(slowly, dtype=float).sum().compute()


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_progress_rises_from_0_to_1000(scheduler):
    told = []
    run(2, told, scheduler=scheduler)
    done = [one for one, _ in told]
    assert done[0] == 0
    assert done[-1] == 1000
    assert done == sorted(done)
    assert {total for _, total in told} == {1000}


def test_progress_tells_of_every_task_not_of_whole_computations_only():
    """The last block waits, for 10 s at most, until somebody is told of a part of its computation."""
    told, heard = [], threading.Event()

    def tell(done, total):
        told.append(done)
        if 0 < done < total:
            heard.set()

    def wait(block, block_info=None):
        if block_info[0]["chunk-location"] == (9,):
            heard.wait(10)
        return block

    with dask.config.set(scheduler="synchronous"), reporting_tasks(tell, 1, "evaluating"):
        da.zeros(20, chunks=2).map_blocks(wait, dtype=float).sum().compute()
    assert heard.is_set(), told


def test_progress_never_falls_where_a_computation_ends():
    from eosr.host.progress import _Tasks

    tasks = _Tasks(2)
    seen = []
    for _ in range(2):
        tasks._start_state(None, {"ready": [1, 2], "waiting": {3: 1, 4: 1}})
        for _ in range(4):
            tasks._posttask()
            seen.append(tasks.done())
        tasks.count = 0  # what another thread may see while a computation is being closed
        seen.append(tasks.done())
        tasks._finish(None, None, False)
        seen.append(tasks.done())
    assert seen == [125, 250, 375, 500, 500, 500, 625, 750, 875, 1000, 1000, 1000]


def test_progress_ends_at_1000_where_nobody_counts_tasks():
    """A dask cluster runs its tasks elsewhere; and there may be fewer computations than were announced."""
    told = []
    with reporting_tasks(lambda done, total: told.append((done, total)), 7, "evaluating"):
        pass
    assert told[-1] == (1000, 1000)


def test_an_error_is_not_told_as_done():
    told = []
    with (
        pytest.raises(ZeroDivisionError),
        reporting_tasks(lambda done, total: told.append(done), 2, "evaluating"),
    ):
        1 / 0  # noqa: B018
    assert told == [0]


def test_no_progress_asked_for_is_none_told(capsys):
    for silent in (None, False):
        with reporting_tasks(silent, 1, "evaluating"):
            da.ones(3).sum().compute()
    assert capsys.readouterr().err == ""


def test_a_bar_shows_words_and_news_without_their_escape_sequences(capsys):
    with bar("scenes") as tell:
        tell(1, 3, "2 at work", "S2A\x1b[2J is done")
    shown = capsys.readouterr().err
    assert all(words in shown for words in ("S2A", "is done", "1/3", "2 at work"))
    assert "\x1b[2J" not in shown
