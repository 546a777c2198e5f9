"""The sidecar's process: when it is started, told to stop, and given up."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import pytest

from webhooks.engine import sidecar
from webhooks.engine.sidecar import Sidecar

# Seconds: longer than anything here takes.
LONG = 60


@pytest.fixture
def made() -> Iterator[list[Sidecar]]:
    made: list[Sidecar] = []
    yield made
    for one in made:
        if one._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(one._handle, signal.SIGKILL)
            one.end()


@pytest.fixture
def start(made):
    """A sidecar that does `work` as long as nobody stops it."""

    def start(work: object = lambda: time.sleep(LONG), **options: object) -> Sidecar:
        made.append(Sidecar(work, **options))
        return made[-1]

    return start


def deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(LONG)


def seconds_of_the_end(one: Sidecar) -> float:
    begun = time.monotonic()
    one.end()
    return time.monotonic() - begun


def test_a_worker_that_is_stopped_while_it_forks_tells_it(start, monkeypatch):
    opened = os.pidfd_open

    def interrupted(pid: int) -> int:
        # A busy worker: its handler takes note, and does not raise.
        one.stop()
        return opened(pid)

    one = start()
    monkeypatch.setattr(os, 'pidfd_open', interrupted)
    one.keep()
    assert seconds_of_the_end(one) < LONG / 2


@pytest.mark.parametrize('is_deaf', [True, False])
def test_one_that_does_not_end_is_killed(start, caplog, is_deaf):
    one = start(deaf if is_deaf else lambda: time.sleep(LONG), patience=1)
    one.keep()
    time.sleep(0.5)  # until it is deaf
    with caplog.at_level(logging.WARNING):
        assert seconds_of_the_end(one) < LONG / 2
    assert ('sidecar=killed' in caplog.text) == is_deaf


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """Seconds of the sidecar's clock."""
    clock = [1000.0]
    monkeypatch.setattr(sidecar.time, 'monotonic', lambda: clock[0])
    return clock


class TestDeath:
    """How often it is started, by looks each INTERVAL."""

    @pytest.fixture
    def starts(self, monkeypatch, clock) -> list[float]:
        """When each process was forked. All are dead before the next look."""
        starts: list[float] = []
        forked = sidecar.fork

        def fork(work: object) -> object:
            starts.append(clock[0])
            channel, handle = forked(lambda _channel: None)
            os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOWAIT)
            return channel, handle

        monkeypatch.setattr(sidecar, 'fork', fork)
        return starts

    def look(self, one: Sidecar, clock: list[float], seconds: int) -> None:
        for _ in range(seconds // sidecar.INTERVAL):
            one.keep()
            clock[0] += sidecar.INTERVAL

    def test_one_that_dies_at_its_start_is_started_ever_more_rarely(self, start, clock, starts):
        self.look(start(), clock, 400)
        assert [later - earlier for earlier, later in pairwise(starts)] == [5, 10, 20, 40, 60, 60, 60, 60, 60]

    def test_one_that_dies_later_is_replaced_at_once(self, start, clock):
        one = start()
        for _ in range(3):
            one.keep()
            clock[0] += sidecar.LONGEST_PAUSE
            one.keep()
            handle = one._handle
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOWAIT)
            assert one._pause == sidecar.PAUSE
        one.keep()
        assert one._lives()
