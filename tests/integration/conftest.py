"""Tests in a real NetBox, whose servers `scripts/test` started.

Two kinds of test. Those with `db` (all of Django's TestCase, and so NetBox's own mixins) run in one transaction that
is rolled back: cheap, but everything in it is one change to the outbox, and nothing is ever sent. Those with
`committed` write for real, and so reach workers and servers in other processes; afterwards every table that was empty
at first is emptied. The database is a copy of the prepared one, used as it is: none is created or migrated here.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.database import copy_database, drop_database
from devstack.netbox import NetBox, WebServer, Worker
from devstack.postgres import DatabaseAddress
from devstack.process import Processes
from devstack.redis import RedisAddress, RedisServer

QUEUES = ('high', 'default', 'low')


@dataclass(frozen=True)
class StackDescription:
    """What scripts/devstack/stack.py wrote down."""

    folder: Path
    server: DatabaseAddress
    template: str
    caching: RedisAddress
    tasks: RedisAddress
    private_redis: bool
    private_postgres: bool

    @classmethod
    def read(cls, path: Path) -> 'StackDescription':
        values = json.loads(path.read_text())
        values |= {use: RedisAddress(**values[use]) for use in ('caching', 'tasks')}
        return cls(**values | {'folder': Path(values['folder']), 'server': DatabaseAddress(**values['server'])})


@pytest.fixture(scope='session')
def stack() -> StackDescription:
    return StackDescription.read(Path(os.environ['WEBHOOKS_STACK']))


@pytest.fixture(scope='session')
def processes(stack: StackDescription) -> Iterator[Processes]:
    """Servers that tests start."""
    children = Processes(stack.folder / 'logs')
    yield children
    children.stop_all()


@pytest.fixture(scope='session')
def django_db_setup() -> None:
    """pytest-django would create a test database here."""


@pytest.fixture(scope='session')
def empty_tables(django_db_setup: None, django_db_blocker: object) -> list[str]:
    """The tables that the migrations leave empty."""
    from django.db import connection

    with django_db_blocker.unblock():
        names = connection.introspection.table_names()
        return [name for name in names if name not in _filled(names)]


def _filled(tables: list[str]) -> set[str]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(' UNION ALL '.join(f'SELECT \'{name}\' WHERE EXISTS (SELECT FROM "{name}")' for name in tables))
        return {name for (name,) in cursor.fetchall()}


def _empty(tables: list[str]) -> None:
    """DELETE, not TRUNCATE, which takes time for each table that refers to these; without foreign keys and triggers."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute('SET LOCAL session_replication_role = replica')
        for name in _filled(tables):
            cursor.execute(f'DELETE FROM "{name}"')


@pytest.fixture
def committed(
    empty_tables: list[str], django_db_blocker: object, stack: StackDescription, tasks_redis: 'TasksRedis'
) -> Iterator[None]:
    """Real commits."""
    with django_db_blocker.unblock():
        yield
        _forget_connections()
        _empty(empty_tables)
        tasks_redis.start()
        with stack.tasks.client() as client:
            client.flushdb()


def _forget_connections() -> None:
    """A test may have broken its connection, or have left it in a failed transaction."""
    from django.db import connection

    connection.close()


@pytest.fixture
def saves(request: pytest.FixtureRequest) -> None:
    """The database as the test wants it: with `committed` where it asks for that, else in a transaction."""
    request.getfixturevalue('committed' if 'committed' in request.fixturenames else 'db')


@pytest.fixture
def netbox_user(saves: None) -> object:
    from users.models import User

    return User.objects.create_superuser(username='admin', password='admin', email='admin@example.com')


@pytest.fixture
def api_token(netbox_user: object) -> str:
    """The value of the Authorization header."""
    from users.models import Token

    token = Token(user=netbox_user)
    token.save()
    return f'{token.get_auth_header_prefix()}{token.token}'


@pytest.fixture
def api_client(api_token: str) -> object:
    """Django REST framework's client, as a superuser, in this process."""
    from rest_framework.test import APIClient

    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=api_token)
    return client


@pytest.fixture
def admin_pages(netbox_user: object, client: object) -> object:
    """Django's client, logged in as a superuser."""
    client.force_login(netbox_user)
    return client


@pytest.fixture
def clerk_user(saves: None) -> object:
    """A user without any permission: see `grant`."""
    from users.models import User

    return User.objects.create_user(username='clerk')


@pytest.fixture
def clerk_pages(clerk_user: object, client: object) -> object:
    client.force_login(clerk_user)
    return client


@pytest.fixture
def clerk_api(clerk_user: object) -> object:
    from rest_framework.test import APIClient
    from users.models import Token

    token = Token.objects.create(user=clerk_user)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f'{token.get_auth_header_prefix()}{token.token}')
    return client


@pytest.fixture
def grant(clerk_user: object) -> Callable[..., None]:
    """Gives the clerk permissions: `grant(Site, 'view', 'change', name='Bern')`, the last being constraints."""
    from core.models import ObjectType
    from users.models import ObjectPermission

    def give(model: type, *actions: str, **constraints: object) -> None:
        name = f'{model._meta.label} {actions} {constraints}'
        permission = ObjectPermission.objects.create(name=name, actions=list(actions), constraints=constraints or None)
        permission.object_types.add(ObjectType.objects.get_for_model(model))
        permission.users.add(clerk_user)

    return give


@pytest.fixture
def drain() -> Callable[..., None]:
    """Runs what waits in the queues in this process, with RQ's own worker, and returns when nothing does."""

    def run(*queues: str) -> None:
        from django_rq import get_worker
        from rq import SimpleWorker

        get_worker(*(queues or QUEUES), worker_class=SimpleWorker).work(burst=True, with_scheduler=True)

    return run


class TasksRedis:
    """The server of NetBox's task queue, which can be stopped without stopping NetBox."""

    def __init__(self, server: RedisServer, private: bool) -> None:
        self.server = server
        self.private = private

    def stop(self) -> None:
        if not self.private:
            pytest.skip('this Redis is not ours to stop')
        self.server.stop()

    def start(self) -> None:
        if not self.server.answers():
            self.server.start()


@pytest.fixture(scope='session')
def tasks_redis(stack: StackDescription, processes: Processes) -> TasksRedis:
    """`stop` and `start` it; it is running again after the test."""
    return TasksRedis(RedisServer('redis-tasks', stack.folder, processes, stack.tasks.port), stack.private_redis)


@pytest.fixture
def other_redis(stack: StackDescription, processes: Processes) -> Iterator[RedisServer]:
    """A third server, that no setting names yet."""
    server = RedisServer('redis-other', stack.folder, processes)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope='session')
def netbox(stack: StackDescription, processes: Processes) -> NetBox:
    """The NetBox of these tests, for what runs in processes of its own: `netbox.run('webhooks_status')`."""
    from django.conf import settings

    database = stack.server.named(settings.DATABASES['default']['NAME'])
    return NetBox(Path(os.environ['NETBOX_ROOT']), database, stack.caching, stack.tasks, processes)


@pytest.fixture
def make_netbox(stack: StackDescription, processes: Processes, netbox: NetBox) -> Iterator[Callable[..., NetBox]]:
    """Another one, with other settings (Python text), on this test's database or a `fresh` copy of the prepared one."""
    made: list[NetBox] = []

    def make(settings: str = '', *, fresh: bool = False) -> NetBox:
        name = f'{netbox.database.name}_{len(made)}'
        database = copy_database(stack.server, stack.template, name) if fresh else netbox.database
        made.append(NetBox(stack.folder / name, database, stack.caching, stack.tasks, processes, settings))
        made[-1].write_configuration()
        return made[-1]

    yield make
    for other in made:
        if other.database != netbox.database:
            drop_database(stack.server, other.database.name)


@pytest.fixture
def rqworker(committed: None, netbox: NetBox) -> Iterator[Callable[..., Worker]]:
    """Starts a real `rqworker` and waits until it listens: `worker = rqworker('low')`, `worker.kill()`."""
    started: list[Worker] = []

    def start(*queues: str, netbox: NetBox = netbox, redis: RedisAddress | None = None) -> Worker:
        started.append(netbox.start_worker(*queues, redis=redis))
        started[-1].wait_until_ready()
        return started[-1]

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture(scope='session')
def _server(netbox: NetBox) -> Iterator[WebServer]:
    server = netbox.start_server()
    server.wait_until_ready()
    yield server
    server.stop()


@pytest.fixture
def netbox_server(committed: None, _server: WebServer) -> WebServer:
    """NetBox under gunicorn (`.url`), on this test's database. One for all tests."""
    return _server
