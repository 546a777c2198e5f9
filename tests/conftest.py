"""Fixtures of all tests. Those that need a NetBox are in tests/integration."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.receiver import Receiver

UNIT = Path(__file__).parent / 'unit'


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a NetBox only the unit tests are run, and the others say why not."""
    if 'WEBHOOKS_STACK' in os.environ:
        return
    for item in items:
        if UNIT not in item.path.parents:
            item.add_marker(pytest.mark.skip('needs the servers that scripts/test starts'))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real HTTP endpoint on loopback (scripts/devstack/receiver.py)."""
    with Receiver() as endpoint:
        yield endpoint
