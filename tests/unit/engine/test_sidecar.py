"""The sidecar's process: when it is started, told to stop, and given up."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

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
