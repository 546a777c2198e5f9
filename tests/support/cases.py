"""Some cases of a promise always run, the others with `--long`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

LONG = pytest.mark.long


def first(number: int, cases: Sequence[Any]) -> list[Any]:
    """Let the first `number` cases always run. A tuple is a value for each argument."""
    return [*cases[:number], *(_long(case) for case in cases[number:])]


def named(always: Collection[str], cases: Mapping[str, Any]) -> list[Any]:
    """Let the cases with these names always run. Each is a value for one argument."""
    return [pytest.param(case, id=name, marks=() if name in always else LONG) for name, case in cases.items()]


def _long(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else [case]), marks=LONG)
