"""The chaos suite: processes are killed, servers crash, endpoints misbehave. What holds all the same is in
support/chaos/audit.py.

Nothing is mocked: workers are forked, as RQ forks its jobs, and killed by SIGKILL at a place or a moment that is the
same in each run.
"""

import random
from collections.abc import Iterator

import pytest
from support.chaos.servers import CrashingPostgres
from support.chaos.victims import Children
from support.fixtures.servers import StackDescription

from devstack.process import Processes


# Of what is left to chance.
@pytest.fixture(params=[1, 2, 3], ids='seed {}'.format)
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


@pytest.fixture(scope='session')
def postgres(stack: StackDescription, processes: Processes) -> CrashingPostgres:
    """The server of this run, to crash and to start again."""
    if not stack.private_postgres:
        pytest.skip('this PostgreSQL is not ours to crash')
    return CrashingPostgres(stack.folder / 'postgres', processes, stack.server)


@pytest.fixture
def children(committed: None) -> Iterator[Children]:
    children = Children()
    yield children
    children.kill_all()
