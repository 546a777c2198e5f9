"""PostgreSQL and two Redis servers, private or named by the environment, and NetBoxes on them.

NETBOX_WEBHOOKS_TEST_DB_HOST, _PORT (5432), _USER (postgres), _PASSWORD
    An existing PostgreSQL server. The user must be able to create databases (and be a superuser for the tests).
NETBOX_WEBHOOKS_TEST_REDIS_HOST, _PORT (6379)
    An existing Redis server. Database 0 is used for tasks, 1 for caching, and both are emptied. Tests that stop Redis
    are skipped.

Other processes find `Stack.description` as JSON in the file that WEBHOOKS_STACK names.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from devstack.database import TEMPLATE, PrivateTemplate, copy_database, drop_database, prepare_on_existing_server
from devstack.folders import run_folder
from devstack.netbox import NetBox, plugin_exists
from devstack.postgres import DatabaseAddress, PostgresServer
from devstack.process import Processes
from devstack.redis import RedisAddress, RedisServer


@dataclass
class Stack:
    folder: Path
    processes: Processes
    caching: RedisAddress
    tasks: RedisAddress
    private_redis: bool
    server: DatabaseAddress | None = None
    postgres: PostgresServer | None = None
    template: str = TEMPLATE

    def netbox_on(self, database: DatabaseAddress, plugin: bool, settings: str = '') -> NetBox:
        root = self.folder / f'netbox-{database.name}'
        return NetBox(root, database, self.caching, self.tasks, self.processes, settings, plugin)

    def netbox(self, name: str, settings: str = '') -> NetBox:
        """Its own database is a copy of the template."""
        netbox = self.netbox_on(copy_database(self.server, self.template, name), plugin_exists(), settings)
        netbox.write_configuration()
        return netbox

    def describe(self) -> Path:
        description = {
            'folder': str(self.folder),
            'server': asdict(self.server),
            'template': self.template,
            'caching': asdict(self.caching),
            'tasks': asdict(self.tasks),
            'private_redis': self.private_redis,
            'private_postgres': bool(self.postgres),
        }
        path = self.folder / 'stack.json'
        path.write_text(json.dumps(description, indent=2))
        path.chmod(0o600)
        return path


@contextmanager
def running_stack() -> Iterator[Stack]:
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(run_folder())
        processes = Processes(folder / 'logs')
        cleanup.callback(processes.stop_all)
        stack = _with_redis(folder, processes)
        _add_database(stack)
        yield stack


def _with_redis(folder: Path, processes: Processes) -> Stack:
    if host := os.environ.get('NETBOX_WEBHOOKS_TEST_REDIS_HOST'):
        port = int(os.environ.get('NETBOX_WEBHOOKS_TEST_REDIS_PORT') or 6379)
        tasks, caching = (RedisAddress(host, port, number) for number in (0, 1))
        return Stack(folder, processes, caching, tasks, private_redis=False)
    servers = [RedisServer(f'redis-{use}', folder, processes) for use in ('caching', 'tasks')]
    for server in servers:
        server.start()
    return Stack(folder, processes, servers[0].address, servers[1].address, private_redis=True)


def _add_database(stack: Stack) -> None:
    if server := _existing_postgres():
        stack.server = server
        stack.template = prepare_on_existing_server(server, stack.netbox_on)
        return
    stack.postgres = PostgresServer(stack.folder / 'postgres', stack.processes)
    PrivateTemplate(stack.postgres, stack.netbox_on).prepare()
    stack.server = stack.postgres.address


def _existing_postgres() -> DatabaseAddress | None:
    parts = ('HOST', 'PORT', 'USER', 'PASSWORD')
    host, port, user, password = (os.environ.get(f'NETBOX_WEBHOOKS_TEST_DB_{part}', '') for part in parts)
    return DatabaseAddress(host, int(port or 5432), user or 'postgres', password) if host else None


@contextmanager
def netbox_in(stack: Stack, name: str, settings: str = '') -> Iterator[NetBox]:
    """An existing server outlives the run, so drop the database."""
    netbox = stack.netbox(f'{name}_{os.getpid()}', settings)
    try:
        yield netbox
    finally:
        if not stack.postgres:
            drop_database(stack.server, netbox.database.name)
