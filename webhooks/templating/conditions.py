"""Conditions that hold a regular expression. Used inside a renderer only (renderer.py).

A pattern such as `(a+)+$` has nothing wrong with it but that it takes longer than the universe is old, and which
patterns do cannot be told by looking at them. Python's matcher looks for signals while it works, so a timer ends it:
one of processor time, since what a busy machine does meanwhile must not count. The renderer has one thread, so that the
timer counts what that one uses, and its signal arrives.
"""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from extras.conditions import ConditionSet, InvalidCondition

from .errors import TimeUp

# Seconds of processor time for all conditions of one webhook over one event. They take microseconds as a rule, and a
# batch of events has to be dispatched within the time of a job.
TIME_LIMIT = 0.05


class TooSlow(InvalidCondition):
    """They took longer than they may."""


def are_met(conditions: str, data: str) -> str:
    """Return a text if conditions are met by data, both JSON. Raises InvalidCondition, or TooSlow, which is one."""
    with _bounded():
        return 'met' if ConditionSet(json.loads(conditions)).eval(json.loads(data)) else ''


def check_patterns(*patterns: str) -> None:
    """Raise InvalidCondition for a regular expression that is none, and where they take too long to compile."""
    with _bounded():
        try:
            for pattern in patterns:
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidCondition(str(error)) from None


@contextmanager
def _bounded() -> Iterator[None]:
    signal.signal(signal.SIGVTALRM, _strike)
    signal.setitimer(signal.ITIMER_VIRTUAL, TIME_LIMIT)
    try:
        yield
    except TimeUp:
        raise TooSlow(
            f'it takes more than {TIME_LIMIT:g} seconds: is it a regular expression without an end?'
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _strike(_signum: int, _frame: Any) -> None:
    raise TimeUp
