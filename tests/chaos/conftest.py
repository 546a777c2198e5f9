"""Processes are killed and servers crash; support/chaos/audit.py lists the promises that hold all the same.

Nothing is mocked: workers fork as RQ's jobs do, and SIGKILL comes at the same place in each run.
"""

import random
from collections.abc import Iterator

import pytest
from support.chaos.seeds import seeds
from support.chaos.servers import CrashingPostgres
from support.chaos.victims import Children
from support.fixtures.servers import StackDescription

from devstack.process import Processes


@pytest.fixture(params=seeds(3), ids='seed {}'.format)
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


@pytest.fixture(scope='session')
def postgres(stack: StackDescription, processes: Processes) -> CrashingPostgres:
    if not stack.private_postgres:
        pytest.skip('this PostgreSQL is not ours to crash')
    return CrashingPostgres(stack.folder / 'postgres', processes, stack.server)


@pytest.fixture
def children(committed: None) -> Iterator[Children]:
    children = Children()
    yield children
    children.kill_all()
