"""Evaluates conditions, inside a renderer. A timer stops slow regular expressions, such as `(a+)+$`."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from extras.conditions import ConditionSet, InvalidCondition

from .errors import TimeUp

# Processor time for a webhook's conditions on an event.
CONDITIONS_CPU_SECONDS = 0.05


class SlowCondition(InvalidCondition):
    """The conditions take too much time or memory: str() says so, and what to do."""


def are_met(conditions: str, data: str) -> str:
    """Return a text if the data meets the conditions, else ''. Both are JSON.

    Raises InvalidCondition, and SlowCondition after CONDITIONS_CPU_SECONDS.
    """
    with _bounded():
        return 'met' if ConditionSet(json.loads(conditions)).eval(json.loads(data)) else ''


def check_patterns(*patterns: str) -> None:
    """Compile regular expressions. Raises InvalidCondition for an invalid one, SlowCondition if they take too long."""
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
