"""One NetBox: a NETBOX_ROOT with its configuration, commands, web server and workers.

Gunicorn serves `devstack.wsgi` as in production, but also the static files, without nginx.
"""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis

from devstack.folders import CHECKOUT
from devstack.ports import LOOPBACK, free_port
from devstack.postgres import DatabaseAddress
from devstack.process import Child, Processes, descendants
from devstack.redis import RedisAddress
from devstack.warm import GUNICORN, Warm

PLUGIN = 'webhooks'
QUEUES = ('high', 'default', 'low')

# Publicly known, so the servers listen on loopback.
_SECRET_KEY = 'development-only-' * 4
_PEPPER = 'development-only-pepper-' * 3


def plugin_exists() -> bool:
    return (CHECKOUT / PLUGIN / '__init__.py').exists()


def configuration(database: DatabaseAddress, caching: RedisAddress, tasks: RedisAddress, *, plugin: bool) -> str:
    parts = {
        'ALLOWED_HOSTS': ['*'],
        'SECRET_KEY': _SECRET_KEY,
        'API_TOKEN_PEPPERS': {1: _PEPPER},
        'DATABASES': {'default': _database_setting(database)},
        'REDIS': {'tasks': _redis_setting(tasks), 'caching': _redis_setting(caching)},
        'ISOLATED_DEPLOYMENT': True,
        'CENSUS_REPORTING_ENABLED': False,
        'PLUGINS': [PLUGIN] if plugin else [],
    }
    if plugin:
        parts['WEBHOOKS_ENABLED'] = True
    return ''.join(f'{name} = {value!r}\n' for name, value in parts.items())


def _database_setting(address: DatabaseAddress) -> dict[str, object]:
    return {
        'NAME': address.name,
        'USER': address.user,
        'PASSWORD': address.password,
        'HOST': address.host,
        'PORT': str(address.port),
        'CONN_MAX_AGE': 300,
    }


def _redis_setting(address: RedisAddress) -> dict[str, object]:
    return {'HOST': address.host, 'PORT': address.port, 'DATABASE': address.db, 'SSL': False}


@dataclass
class NetBox:
    """`settings` is Python text, and may replace any of the configuration."""

    root: Path
    database: DatabaseAddress
    caching: RedisAddress
    tasks: RedisAddress
    processes: Processes
    settings: str = ''
    plugin: bool = field(default_factory=plugin_exists)
    # Without it each worker and web server loads NetBox.
    warm: Warm | None = None

    def write_configuration(self) -> None:
        text = configuration(self.database, self.caching, self.tasks, plugin=self.plugin)
        (self.root / 'conf').mkdir(parents=True, exist_ok=True)
        (self.root / 'conf' / 'configuration.py').write_text(f'{text}\n{self.settings}\n')

    def environment(self) -> dict[str, str]:
        without = {name: value for name, value in os.environ.items() if name != 'NETBOX_CONFIGURATION'}
        return without | {
            'NETBOX_ROOT': str(self.root),
            'DJANGO_SETTINGS_MODULE': 'netbox.settings',
            'PYTHONPATH': os.pathsep.join([str(CHECKOUT), str(CHECKOUT / 'scripts')]),
            'PYTHONUNBUFFERED': '1',
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, '-m', 'netbox', *arguments]

    def run(
        self, *arguments: str, timeout: float = 600, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return output and errors as text, even if it fails."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment() | (environment or {}),
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start_command(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        return self.processes.start(
            name,
            self.command(*arguments),
            environment=self.environment() | (environment or {}),
            folder=self.root,
            client=True,
        )

    def keep_warm(self, folder: Path) -> None:
        """Let workers, web servers and `warm.run` be forks of one process, whose socket is in `folder`."""
        self.warm = Warm(self.environment(), folder, self.processes)

    def create_superuser(self, name: str, password: str) -> None:
        account = {'USERNAME': name, 'PASSWORD': password, 'EMAIL': f'{name}@example.com'}
        environment = {f'DJANGO_SUPERUSER_{key}': value for key, value in account.items()}
        self.warm.run('createsuperuser', '--no-input', '--skip-checks', environment=environment)

    def start_server(self, port: int | None = None, base_path: str = '') -> 'WebServer':
        server = WebServer(self, port or free_port(), base_path)
        server.start()
        return server

    def start_worker(self, *queues: str, redis: RedisAddress | None = None) -> 'Worker':
        worker = Worker(self, queues, redis or self.tasks)
        worker.start()
        return worker


@dataclass
class WebServer:
    netbox: NetBox
    port: int
    base_path: str = ''
    threads: int = 4
    child: Child | None = None

    @property
    def url(self) -> str:
        return f'http://{LOOPBACK}:{self.port}/{self.base_path}'

    def start(self) -> None:
        # A loading worker does not listen to requests to stop.
        options = f'--bind {LOOPBACK}:{self.port} --threads {self.threads} --graceful-timeout 1 --no-control-socket'
        name, arguments = f'netbox-{self.port}', [GUNICORN, *options.split(), 'devstack.wsgi:application']
        if self.netbox.warm:
            self.child = self.netbox.warm.start(name, arguments)
        else:
            self.child = self.netbox.processes.start(
                name,
                [sys.executable, '-m', *arguments],
                environment=self.netbox.environment(),
                folder=self.netbox.root,
                client=True,
            )

    def wait_until_ready(self) -> None:
        self.child.wait_until_ready(self._answers)

    def _answers(self) -> bool:
        try:
            return urllib.request.urlopen(f'{self.url}login/', timeout=60).status == 200
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False

    def stop(self) -> None:
        self.netbox.processes.stop(self.child)


@dataclass
class Worker:
    """`kill` sends SIGKILL to it alone: its running job goes on in its fork."""

    netbox: NetBox
    queues: tuple[str, ...]
    redis: RedisAddress
    child: Child | None = None

    def start(self) -> None:
        # Django's checks take longer than all else of a start.
        arguments = ['rqworker', '--skip-checks', *self.queues]
        if self.netbox.warm:
            self.child = self.netbox.warm.start('rqworker', arguments)
        else:
            self.child = self.netbox.start_command('rqworker', *arguments)

    @property
    def pid(self) -> int:
        return self.child.pid

    def wait_until_ready(self) -> None:
        # Many clients would take CPU that the starting worker needs.
        with self.redis.client() as client:
            self.child.wait_until_ready(lambda: self._listens(client))

    def _listens(self, client: Redis) -> bool:
        """RQ keeps a hash of each worker. The last queue's worker is our child or its descendant."""
        wanted = self.queues[-1] if self.queues else 'low'
        ours = {str(process.pid).encode() for process in (self.child, *descendants(self.pid))}
        workers = [client.hmget(key, 'pid', 'state', 'queues') for key in client.smembers('rq:workers')]
        return any(
            pid in ours and state in (b'idle', b'busy') and wanted in queues.decode().split(',')
            for pid, state, queues in workers
        )

    def stop(self) -> None:
        self.netbox.processes.stop(self.child)

    def kill(self) -> None:
        self.child.kill()
