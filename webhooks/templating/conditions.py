"""Evaluates conditions inside a renderer. A timer stops patterns such as `(a+)+$`."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from extras.conditions import ConditionSet, InvalidCondition

from .errors import TimeUp

# Seconds of processor time for one webhook's conditions on one event.
CONDITIONS_CPU_SECONDS = 0.05


class SlowCondition(InvalidCondition):
    pass


def are_met(conditions: str, data: str) -> str:
    """Return a text if data meets the conditions, else ''. Raises InvalidCondition or SlowCondition."""
    with _bounded():
        return 'met' if ConditionSet(json.loads(conditions)).eval(json.loads(data)) else ''


def check_patterns(*patterns: str) -> None:
    """Raises InvalidCondition for an invalid regular expression, SlowCondition for a slow one."""
    with _bounded():
        try:
            for pattern in patterns:
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidCondition(str(error)) from None


@contextmanager
def _bounded() -> Iterator[None]:
    signal.signal(signal.SIGVTALRM, _strike)
    signal.setitimer(signal.ITIMER_VIRTUAL, CONDITIONS_CPU_SECONDS)
    try:
        yield
    except TimeUp:
        raise SlowCondition(
            f'it takes more than {CONDITIONS_CPU_SECONDS:g} seconds; simplify the regular expressions'
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _strike(_signum: int, _frame: Any) -> None:
    raise TimeUp
