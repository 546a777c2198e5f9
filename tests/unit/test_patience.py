"""A time limit that does not run while the process is frozen."""

import math
import time

import pytest

from webhooks.patience import TICKS_PER_LIMIT, Patience


class Clock:
    """Attempts move it on by the given seconds, or by their limit."""

    def __init__(self, *seconds: float) -> None:
        self.now = 1000.0
        self._seconds = iter(seconds)
        self.attempts = 0

    def __call__(self) -> float:
        return self.now

    def attempt(self, longest: float) -> None:
        self.attempts += 1
        self.now += next(self._seconds, longest)
        raise TimeoutError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, 'monotonic', clock)
    return clock


def test_it_ends_after_its_time_whatever_is_waited_for_with_it(clock):
    patience = Patience(10)
    for attempts in (1, 2):
        with pytest.raises(TimeoutError):
            patience.wait(clock.attempt)
        assert math.isclose(clock.now, 1010, abs_tol=attempts * 10 / TICKS_PER_LIMIT)


def test_waiting_returns_what_it_waited_for():
    assert Patience(60).wait(lambda _: 'something') == 'something'


def test_a_tick_that_takes_an_hour_counts_once(monkeypatch):
    clock = Clock(3600)
    monkeypatch.setattr(time, 'monotonic', clock)
    patience = Patience(10)
    with pytest.raises(TimeoutError):
        patience.wait(clock.attempt)
    assert abs(clock.attempts - TICKS_PER_LIMIT) <= 1


def test_it_ends_although_a_little_comes_again_and_again(clock):
    patience = Patience(10)

    def drip(longest: float) -> None:
        clock.now += longest / 2

    with pytest.raises(TimeoutError):
        for _ in range(3 * TICKS_PER_LIMIT):
            patience.wait(drip)
    assert math.isclose(clock.now, 1010, abs_tol=10 / TICKS_PER_LIMIT)
