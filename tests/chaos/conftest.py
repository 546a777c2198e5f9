"""The chaos suite: processes are killed, servers crash, endpoints misbehave. What holds all the same is in audit.py.

Nothing is mocked: workers are forked, as RQ forks its jobs, and killed by SIGKILL at a place or a moment that is the
same in each run.
"""

import random
from collections.abc import Iterator

import pytest
from integration.conftest import (  # noqa: F401  (the same test bed)
    committed,
    django_db_setup,
    empty_tables,
    netbox,
    processes,
    rqworker,
    stack,
    tasks_redis,
)
from servers import CrashingPostgres
from victims import Children


# Of what is left to chance.
@pytest.fixture(params=[1, 2, 3], ids='seed {}'.format)
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


@pytest.fixture(scope='session')
def postgres(stack, processes) -> CrashingPostgres:  # noqa: F811
    """The server of this run, to crash and to start again."""
    if not stack.private_postgres:
        pytest.skip('this PostgreSQL is not ours to crash')
    return CrashingPostgres(stack.folder / 'postgres', processes, stack.server)


@pytest.fixture
def children(committed: None) -> Iterator[Children]:  # noqa: F811
    children = Children()
    yield children
    children.kill_all()
