from typing import Any

from support.cases import first


def seeds(count: int) -> list[Any]:
    """The first one always runs, the others with `--long`."""
    return first(1, range(1, count + 1))
