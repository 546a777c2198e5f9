import pytest


def seeds(count: int) -> list:
    """The first one always runs, the others with `--long`."""
    return [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, count + 1))]
