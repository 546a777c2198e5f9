"""A limit on work in the main thread leaves nothing behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from webhooks.patience import TooSlow, within

# Seconds, never reached.
LONG = 60.0


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """A late strike hits other code."""
    before = signal.getsignal(signal.SIGVTALRM)
    threads = set(threading.enumerate())
    yield
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert set(threading.enumerate()) <= threads


def test_work_that_ends_in_time_goes_on():
    done = []
    with within(LONG):
        done.append(True)
    assert done


def test_work_that_takes_too_long_is_ended_with_a_reason():
    with pytest.raises(TooSlow, match=r'it takes more than 0\.05 seconds'), within(0.05):
        time.sleep(LONG)


def test_an_error_inside_is_no_other_one():
    with pytest.raises(ZeroDivisionError), within(LONG):
        raise ZeroDivisionError


def test_another_thread_has_no_limit():
    done = []

    def run() -> None:
        with within(0.001):
            time.sleep(0.05)
            done.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done


def test_while_the_process_is_frozen_no_time_passes():
    seconds = 2.0
    begun, goes_on = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        with suppress(TooSlow):
            with within(seconds):
                os.write(begun[1], b'+')
                os.read(goes_on[0], 1)
                time.sleep(0.1)  # or it would end before the watchdog has looked
            os._exit(0)
        os._exit(1)
    os.read(begun[0], 1)
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
    time.sleep(seconds + 0.1)
    os.write(goes_on[1], b'+')
    os.kill(pid, signal.SIGCONT)
    for end in (*begun, *goes_on):
        os.close(end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestStrikes:
    """A thawed process may find its time over at any point."""

    def test_a_strike_before_the_work_begins_breaks_it_off(self, monkeypatch):
        start = threading.Thread.start

        def struck(thread: threading.Thread) -> None:
            start(thread)
            signal.raise_signal(signal.SIGVTALRM)

        monkeypatch.setattr(threading.Thread, 'start', struck)
        with pytest.raises(TooSlow), within(LONG):
            raise AssertionError('it has begun')

    def test_a_strike_after_the_work_is_done_breaks_nothing_off(self, monkeypatch):
        handle = signal.signal

        def struck(number: int, handler: object) -> object:
            previous = handle(number, handler)
            if handler is signal.SIG_IGN:
                signal.raise_signal(signal.SIGVTALRM)
            return previous

        monkeypatch.setattr(signal, 'signal', struck)
        with within(LONG):
            pass
