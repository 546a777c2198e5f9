"""The migrated database, which all others are copied from.

It begins with a dump of an empty NetBox (empty_netbox.py). The cache folder keeps a stopped server's data folder. There
are two levels, NetBox alone and then the plugin's migrations, so that editing a migration costs seconds. On an existing
server both are databases.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from devstack import empty_netbox
from devstack.console import Progress, say
from devstack.failure import StartFailed
from devstack.folders import CHECKOUT, cache_folder, copy_tree, lock, store_tree
from devstack.netbox import NetBox, plugin_exists
from devstack.postgres import DatabaseAddress, PostgresServer, major_version
from devstack.process import Child, wait_until

TEMPLATE = 'netbox_template'
_KEPT_PLUGIN_TEMPLATES = 6

# NetBox and the packages whose migrations it runs.
_MIGRATED = ('netbox', 'Django', 'django-rq', 'django-taggit', 'social-auth-app-django', 'sorl-thumbnail')

NetBoxOn = Callable[[DatabaseAddress, bool], NetBox]


def netbox_key() -> str:
    versions = ' '.join(version(name) for name in _MIGRATED)
    return f'netbox-{version("netbox")}-{_digest(versions.encode())}'


def plugin_key() -> str:
    """It depends on the app's configuration too, which may add apps with migrations."""
    package = CHECKOUT / 'webhooks'
    files = [package / '__init__.py', *sorted((package / 'migrations').glob('*.py'))]
    return f'{netbox_key()}-{_digest(b"".join(path.name.encode() + path.read_bytes() for path in files))}'


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _alone() -> AbstractContextManager[None]:
    return lock('database', lambda: say('Waiting for another run that prepares the database'))


@dataclass
class PrivateTemplate:
    server: PostgresServer
    netbox_on: NetBoxOn

    def prepare(self) -> None:
        if not self._restore(self._wanted()):
            with _alone():
                self._prepare_alone()
        self.server.start()

    def prepare_netbox(self) -> None:
        """Start the server with the database of a NetBox that has no plugin."""
        with _alone():
            self._prepare_netbox()
        self.server.start()

    def _prepare_netbox(self) -> None:
        if not self._restore(netbox_key()):
            self.server.initialize()
            self._build(self._create_and_migrate, netbox_key())

    def _prepare_alone(self) -> None:
        self._prepare_netbox()
        if plugin_exists() and not self._restore(plugin_key()):
            self._build(self._migrate_plugin, plugin_key())
            _forget_old_plugin_templates(self._folder('').parent)

    def _wanted(self) -> str:
        return plugin_key() if plugin_exists() else netbox_key()

    def _folder(self, key: str) -> Path:
        return cache_folder() / 'databases' / f'postgresql-{major_version()}-{key}'

    def _restore(self, key: str) -> bool:
        folder = self._folder(key)
        if not folder.exists():
            return False
        self.server.make_folder()
        shutil.rmtree(self.server.data, ignore_errors=True)
        copy_tree(folder, self.server.data)
        with suppress(FileNotFoundError):
            os.utime(folder)
        return True

    def _build(self, step: Callable[[DatabaseAddress], None], key: str) -> None:
        self.server.start()
        step(self.server.address)
        self.server.stop()
        store_tree(self.server.data, self._folder(key))

    def _create_and_migrate(self, address: DatabaseAddress) -> None:
        address.execute('CREATE DATABASE {}', TEMPLATE)
        fill_and_migrate(self.netbox_on(address.named(TEMPLATE), False))

    def _migrate_plugin(self, address: DatabaseAddress) -> None:
        migrate_plugin(self.netbox_on(address.named(TEMPLATE), True))


def _forget_old_plugin_templates(folder: Path) -> None:
    templates = [path for path in folder.iterdir() if path.name.count('-') > netbox_key().count('-') + 2]
    templates.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in templates[_KEPT_PLUGIN_TEMPLATES:]:
        shutil.rmtree(path, ignore_errors=True)


def prepare_on_existing_server(server: DatabaseAddress, netbox_on: NetBoxOn) -> str:
    """Return the name of the database to copy."""
    base = _database_name(netbox_key())
    with _alone():
        _create_migrated(server, base, 'template0', lambda address: fill_and_migrate(netbox_on(address, False)))
        if not plugin_exists():
            return base
        name = _database_name(plugin_key())
        _create_migrated(server, name, base, lambda address: migrate_plugin(netbox_on(address, True)))
        return name


def _database_name(key: str) -> str:
    return f'{TEMPLATE}_{key.removeprefix("netbox-")}'


def _create_migrated(
    server: DatabaseAddress, name: str, source: str, migrate_it: Callable[[DatabaseAddress], None]
) -> None:
    """The database gets its name only when it is complete."""
    if database_exists(server, name):
        return
    unfinished = f'{name}_unfinished'
    server.execute('DROP DATABASE IF EXISTS {}', unfinished)
    copy_database(server, source, unfinished)
    migrate_it(server.named(unfinished))
    server.execute('ALTER DATABASE {} RENAME TO {}', unfinished, name)


def database_exists(server: DatabaseAddress, name: str) -> bool:
    with server.connect() as connection:
        return bool(connection.execute('SELECT 1 FROM pg_database WHERE datname = %s', [name]).fetchone())


def copy_database(server: DatabaseAddress, source: str, name: str) -> DatabaseAddress:
    server.execute('CREATE DATABASE {} TEMPLATE {}', name, source)
    return server.named(name)


def drop_database(server: DatabaseAddress, name: str) -> None:
    server.execute('DROP DATABASE IF EXISTS {} WITH (FORCE)', name)


def fill_and_migrate(netbox: NetBox) -> None:
    """Make NetBox's tables in an empty database: from a dump, if there is one for this NetBox, and by migrations."""
    say('Restoring an empty NetBox')
    if not empty_netbox.restore(netbox.database):
        say('There is no dump of this NetBox: its migrations take some four minutes')
    migrate_netbox(netbox)


def migrate_netbox(netbox: NetBox) -> None:
    netbox.write_configuration()
    if planned := _count_planned(netbox):
        _migrate(netbox, 'Migrating NetBox', f' of {planned}')


def migrate_plugin(netbox: NetBox) -> None:
    netbox.write_configuration()
    _migrate(netbox, 'Migrating the plugin')


def _migrate(netbox: NetBox, label: str, of_total: str = '') -> None:
    progress = Progress(label)
    child = netbox.start_command(f'migrate-{netbox.plugin}', 'migrate', '--no-input', '--skip-checks')
    while not wait_until(lambda: not child.running, timeout=1, interval=0.1):
        progress.show(f'{_count_applied(child)}{of_total}')
    netbox.processes.children.remove(child)
    if child.popen.returncode:
        raise StartFailed(f'{label} failed:\n{child.log_tail()}')
    progress.done(f'{_count_applied(child)}{of_total}')


def _count_planned(netbox: NetBox) -> int:
    answer = netbox.run('showmigrations', '--plan')
    if answer.returncode:
        raise StartFailed(f'The migrations cannot be read:\n{answer.stderr[-2000:]}')
    return answer.stdout.count('[ ]')


def _count_applied(child: Child) -> int:
    return child.log.read_text(errors='replace').count('  Applying ')
