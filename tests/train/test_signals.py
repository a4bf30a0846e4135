"""A signal is noticed and nothing else happens; outside the block it does what it did before."""

import os
import signal
import threading

from eosr.train.ranks.signals import StopSignals


def test_the_first_signal_is_remembered_by_name():
    with StopSignals() as signals:
        assert signals.received == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == "SIGUSR1"


def test_after_the_block_the_handlers_are_those_of_before():
    called = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: called.append(number))
    try:
        with StopSignals():
            os.kill(os.getpid(), signal.SIGUSR1)
        assert called == []
        os.kill(os.getpid(), signal.SIGUSR1)
        assert called == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_another_thread_than_the_main_one_there_are_no_handlers_and_no_error():
    seen = []

    def inside():
        with StopSignals() as signals:
            seen.append(signals.received)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [""]


def test_an_inner_block_knows_what_the_outer_one_received():
    with StopSignals():
        os.kill(os.getpid(), signal.SIGTERM)
        with StopSignals() as inner:
            assert inner.received == "SIGTERM"
    with StopSignals() as later:
        assert later.received == ""
