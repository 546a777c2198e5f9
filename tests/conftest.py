"""Fixtures of all tests. Those that need a NetBox are in tests/integration."""

from collections.abc import Iterator

import pytest

from devstack.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real HTTP endpoint on loopback (scripts/devstack/receiver.py)."""
    with Receiver() as endpoint:
        yield endpoint
