"""Are a webhook's conditions met? By NetBox's ConditionSet, with a bound on the time that its regular expressions take.

A pattern such as `(a+)+$` has nothing wrong with it but that it takes longer than the universe is old, and which
patterns do cannot be told by looking at them. Python's matcher looks for signals while it works, so a timer ends it:
one of processor time, by SIGVTALRM, since RQ bounds its jobs by SIGALRM, and since what a busy machine does meanwhile
must not count. Signals reach the main thread only. That is where a worker dispatches; in another there is no bound.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from extras.conditions import ConditionSet, InvalidCondition

# Seconds of processor time for all conditions of one webhook over one event. They take microseconds as a rule, and a
# batch of events has to be dispatched within the time of a job.
TIME_LIMIT = 0.05
# A timer of 0 would be none.
SHORTEST = 0.001


def are_met(conditions: dict[str, Any], data: dict[str, Any]) -> bool:
    """Raises InvalidCondition for conditions that do not fit the data, or take too long."""
    with _bounded():
        return ConditionSet(conditions).eval(data)


@contextmanager
def _bounded() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    limit = _Limit()
    previous = signal.signal(signal.SIGVTALRM, limit.strike)
    try:
        limit.arm(TIME_LIMIT)
        try:
            yield
        finally:
            limit.disarm()
    finally:
        signal.signal(signal.SIGVTALRM, previous)


class _Limit:
    """The timer counts what all threads of the process use, so it may strike early: then it is set anew."""

    def __init__(self) -> None:
        self._end = time.thread_time() + TIME_LIMIT
        self._is_over = False

    def arm(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)

    def disarm(self) -> None:
        # First of all, for a signal that is on its way would set the timer once more.
        self._is_over = True
        self.arm(0)

    def strike(self, signum: int, frame: Any) -> None:
        left = self._end - time.thread_time()
        if self._is_over:
            return
        if left <= 0:
            raise InvalidCondition(
                f'it takes more than {TIME_LIMIT:g} seconds: is it a regular expression without an end?'
            )
        self.arm(max(left, SHORTEST))
