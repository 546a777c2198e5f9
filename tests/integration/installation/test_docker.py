import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from support.docs import block, blocks
from support.engine import deliveries

from devstack.api import Api
from devstack.folders import CHECKOUT
from devstack.netbox import NetBox
from devstack.ports import LOOPBACK, free_port
from devstack.process import Child, wait_until
from webhooks import conf
from webhooks.choices import StatusChoices
from webhooks.outbox import redis_queue

pytestmark = pytest.mark.usefixtures('committed')

PAGE = 'installation.md'
ALIVE = CHECKOUT / 'contrib/worker_alive.py'
PATIENCE = 90
THREADS = 4
SECRETS = '/run/secrets/'
# Nobody listens there.
UNREACHABLE = {'DB_HOST': LOOPBACK, 'DB_PORT': '1', 'REDIS_HOST': LOOPBACK, 'REDIS_PORT': '1'}
# netbox-docker takes each setting from the last file with it.
LOADER = """
import importlib.util, pathlib
_modules = []
for _file in sorted(pathlib.Path({folder!r}).glob('*.py')):
    _spec = importlib.util.spec_from_file_location(_file.stem, _file)
    _modules.insert(0, importlib.util.module_from_spec(_spec))
    _spec.loader.exec_module(_modules[0])
    print(f'loaded {{_file}}')

def __getattr__(name):
    for module in _modules:
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(name)
"""
CONFIGURATION = """
from os import environ
ALLOWED_HOSTS = ['*']
SECRET_KEY = environ.get('SECRET_KEY', '')
API_TOKEN_PEPPERS = {1: environ['API_TOKEN_PEPPER_1']} if 'API_TOKEN_PEPPER_1' in environ else {}
DATABASES = {'default': {
    'NAME': environ.get('DB_NAME', 'netbox'), 'USER': environ.get('DB_USER', ''),
    'PASSWORD': environ.get('DB_PASSWORD', ''), 'HOST': environ.get('DB_HOST', 'localhost'),
    'PORT': environ.get('DB_PORT', ''), 'OPTIONS': {'sslmode': 'prefer'}, 'CONN_MAX_AGE': 300,
}}
_REDIS = {'HOST': environ.get('REDIS_HOST', 'localhost'), 'PORT': int(environ.get('REDIS_PORT', 6379)), 'SSL': False}
REDIS = {
    'tasks': {**_REDIS, 'DATABASE': int(environ.get('REDIS_DATABASE', 0))},
    'caching': {**_REDIS, 'PORT': int(environ.get('REDIS_CACHE_PORT', _REDIS['PORT'])),
                'DATABASE': int(environ.get('REDIS_CACHE_DATABASE', 1))},
}
"""


@dataclass
class Container:
    """Behaves as `docker compose run` does."""

    netbox: NetBox
    folder: Path
    environment: dict[str, str]
    children: list[Child] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / 'opt/netbox'

    @property
    def configuration(self) -> Path:
        return self.folder / 'etc/netbox/config'

    def variables(self, extra: dict[str, str]) -> dict[str, str]:
        return {
            'PATH': os.environ['PATH'],
            'HOME': str(self.folder),
            'PYTHONPATH': os.environ['PYTHONPATH'],
            'NETBOX_ROOT': str(self.root),
            'PYTHONDONTWRITEBYTECODE': '1',
            **extra,
        }

    def run(self, *command: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=self.variables(extra),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def build(self, command: str) -> subprocess.CompletedProcess[str]:
        """Builds have no servers."""
        manage = f'{sys.executable} -m netbox '
        command = command.replace('/opt/netbox/venv/bin/python /opt/netbox/netbox/manage.py ', manage)
        return subprocess.run(
            ['bash', '-euc', command.replace('/etc/netbox/config/', f'{self.configuration}/')],
            cwd=self.root,
            env=self.variables(UNREACHABLE),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def start(self, name: str, *command: str) -> Child:
        variables = self.variables(self.environment)
        child = self.netbox.processes.start(
            name, [sys.executable, *command], environment=variables, folder=self.root, client=True
        )
        self.children.append(child)
        return child

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob('*') if path.is_file()}


@pytest.fixture
def container(netbox, tmp_path):
    configuration = tmp_path / 'etc/netbox/config'
    configuration.mkdir(parents=True)
    (configuration / 'configuration.py').write_text(CONFIGURATION)
    (configuration / 'plugins.py').write_text(block(PAGE, 'python', "'enabled': True,\n    }"))
    (tmp_path / 'opt/netbox/conf').mkdir(parents=True)
    (tmp_path / 'opt/netbox/conf/configuration.py').write_text(LOADER.format(folder=str(configuration)))
    shutil.copy(ALIVE, tmp_path / 'opt/netbox/worker_alive.py')
    database, tasks, caching = netbox.database, netbox.tasks, netbox.caching
    made = Container(
        netbox,
        tmp_path,
        {
            'SECRET_KEY': 'development-only-' * 4,
            'API_TOKEN_PEPPER_1': 'development-only-pepper-' * 3,
            'DB_NAME': database.name,
            'DB_USER': database.user,
            'DB_PASSWORD': database.password,
            'DB_HOST': database.host,
            'DB_PORT': str(database.port),
            'REDIS_HOST': tasks.host,
            'REDIS_PORT': str(tasks.port),
            'REDIS_DATABASE': str(tasks.db),
            'REDIS_CACHE_PORT': str(caching.port),
            'REDIS_CACHE_DATABASE': str(caching.db),
        },
    )
    yield made
    for child in made.children:
        netbox.processes.stop(child)


@pytest.fixture
def compose() -> dict:
    return yaml.safe_load(block(PAGE, 'yaml', 'build:'))['services']


def granian(port: int) -> list[str]:
    """netbox-docker starts a thread for each concurrent request."""
    options = f'--host {LOOPBACK} --port {port} --interface wsgi --no-ws --workers 1 --backpressure {THREADS}'
    return ['-m', 'granian', *options.split(), '--respawn-failed-workers', '--access-log', 'netbox.wsgi:application']


def answers(url: str) -> Callable[[], bool]:
    def asked() -> bool:
        try:
            return urllib.request.urlopen(f'{url}login/', timeout=60).status == 200
        except urllib.error.HTTPError:
            raise
        except OSError:
            return False

    return asked


def commands_of_the_dockerfile() -> list[str]:
    lines = blocks(PAGE, 'dockerfile')[0].replace('\\\n', ' ').splitlines()
    return [line.removeprefix('RUN ') for line in lines if line]


class TestBuilding:
    def test_the_static_files_are_collected_without_servers_keys_and_secrets(self, container):
        """Compose mounts plugins.py only at start."""
        with_a_secret = container.configuration / 'plugins.py'
        with_a_secret.write_text(block(PAGE, 'python', 'encryption_keys'))
        answer = container.run('-m', 'netbox', 'collectstatic', '--no-input', SECRET_KEY='k' * 50)
        assert 'FileNotFoundError' in answer.stderr
        (command,) = [line for line in commands_of_the_dockerfile() if 'collectstatic' in line]
        answer = container.build(command)
        assert answer.returncode == 0, answer.stderr
        assert (container.root / 'static/webhooks/admin.css').exists()
        assert not with_a_secret.exists()

    def test_containers_read_a_secret_that_both_of_them_are_given(self, container):
        added = yaml.safe_load(block(PAGE, 'yaml', 'secrets:'))
        text = block(PAGE, 'python', 'encryption_keys')
        (name,) = added['secrets']
        assert added['services'] == {one: {'secrets': [name]} for one in ('netbox', 'netbox-worker')}
        assert f'{SECRETS}{name}' in text
        secret = container.folder / added['secrets'][name]['file']
        secret.parent.mkdir(exist_ok=True)
        secret.write_text('a-key-of-32-characters-or-more-in-your-place\n')
        configured: dict = {}
        exec(text.replace(f'{SECRETS}{name}', str(secret)), configured)
        found = conf.resolve(configured['PLUGINS_CONFIG']['webhooks'], SimpleNamespace())
        assert found.encryption_keys == ('a-key-of-32-characters-or-more-in-your-place',)

    def test_the_checks_pass_without_servers(self, container):
        answer = container.run('-m', 'netbox', 'check', **container.environment | UNREACHABLE)
        assert answer.returncode == 0, answer.stderr
        assert 'webhooks.W001' in answer.stderr + answer.stdout

    def test_the_image_gets_each_file_that_it_names(self):
        lines = [line.split() for line in commands_of_the_dockerfile()]
        copied = [name for line in lines if line[0] == 'COPY' for name in line[1:-1]]
        assert copied == ['plugin_requirements.txt', 'worker_alive.py', '*.wh[l]']
        text = (CHECKOUT / 'docs' / PAGE).read_text()
        assert [name for name in copied[:2] if f'{name}`' not in text] == []


class TestRunning:
    def test_a_change_through_the_rest_api_is_received_and_the_health_check_knows_the_worker(
        self, container, compose, receiver, netbox_user
    ):
        assert compose['netbox-worker']['healthcheck']['test'][2].endswith('/worker_alive.py')
        assert container.run(str(container.root / 'worker_alive.py'), **container.environment).returncode == 1
        port = free_port()
        before = container.files()
        server = container.start('granian', *granian(port))
        url = f'http://{LOOPBACK}:{port}/'
        server.wait_until_ready(answers(url), timeout=120)
        _python, _manage, *arguments = compose['netbox-worker']['command']
        worker = container.start('docker-worker', '-m', 'netbox', *arguments)

        api = Api(url)
        api.log_in('admin', 'admin')
        # A web process tries templates in another process.
        webhook = {'name': 'Receiver', 'object_types': ['dcim.site'], 'type_create': True, 'type_update': True}
        template = {'payload_url': receiver.url('/hook'), 'body_template': 'It is {{ data.name }}.'}
        api.post('plugins/webhooks/webhooks/', **webhook, **template, type_delete=True)
        with ThreadPoolExecutor(THREADS) as pool:
            names = [f'Bern {number}' for number in range(2 * THREADS)]
            list(pool.map(lambda name: api.post('dcim/sites/', name=name, slug=name.lower().replace(' ', '-')), names))
        received = receiver.wait_for(len(names), timeout=PATIENCE)
        assert {request.body.decode() for request in received} == {f'It is {name}.' for name in names}
        assert wait_until(lambda: len(deliveries(StatusChoices.DELIVERED)) == len(names), timeout=PATIENCE)

        assert container.files() == before
        assert wait_until(lambda: 'Send webhooks' in worker.log_tail(100), timeout=PATIENCE)
        self.check_health(container, worker)

    def check_health(self, container: Container, worker: Child) -> None:
        """The health check knows whether a worker lives and serves the queue of webhooks."""
        check, variables = str(container.root / 'worker_alive.py'), container.environment
        assert wait_until(lambda: [one.get_state() for one in redis_queue.workers()] == ['idle'], timeout=PATIENCE)
        assert container.run(check, **variables).returncode == 0
        (dispatcher,) = redis_queue.workers()
        os.kill(dispatcher.pid, signal.SIGSTOP)
        try:
            # A worker's hash expires two minutes after its last renewal.
            redis_queue.get().connection.delete(dispatcher.key)
            answer = container.run(check, **variables)
            assert (answer.returncode, answer.stderr) == (1, 'Nobody here serves low\n')
            assert container.run(check, 'high', 'default', **variables).returncode == 0
        finally:
            os.kill(dispatcher.pid, signal.SIGKILL)
        container.netbox.processes.stop(worker)
        assert wait_until(lambda: container.run(check, **variables).returncode == 1, timeout=PATIENCE)
        silent = container.run(check, **variables | UNREACHABLE)
        assert (silent.returncode, 'Redis cannot be asked' in silent.stdout) == (0, True)

    def test_a_container_that_ends_is_started_again(self, compose):
        assert {name: service.get('restart') for name, service in compose.items()} == {
            'netbox': 'unless-stopped',
            'netbox-worker': 'unless-stopped',
        }

    def test_a_worker_has_as_long_to_stop_as_a_request_may_take(self, compose):
        from django.conf import settings

        assert int(compose['netbox-worker']['stop_grace_period'].rstrip('s')) > settings.WEBHOOK_DEFAULT_TIMEOUT
