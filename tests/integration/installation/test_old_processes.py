"""Web processes of 1.0.0 run on during and after the upgrade, until they are restarted."""

import json
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.elsewhere import run, using
from support.fixtures.servers import StackDescription
from users.models import Token, User

from devstack.database import copy_database, drop_database
from devstack.folders import CHECKOUT
from devstack.netbox import NetBox
from devstack.postgres import DatabaseAddress
from devstack.process import Processes, wait_until
from devstack.receiver import Receiver

# The commit with 1.0.0's package. A clone without its history has no old process to offer.
VERSION_1_0_0 = '176b80db'
PATIENCE = 600

REMOVE = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE tablename LIKE 'webhooks\\_%' LOOP
            EXECUTE 'DROP TABLE ' || name || ' CASCADE';
        END LOOP;
    END $$;
    DROP SEQUENCE IF EXISTS webhooks_event_sequence;
    DELETE FROM django_migrations WHERE app = 'webhooks'"""
SEND = """
from webhooks.engine.process import inline
while inline.run():
    pass
"""
DISPATCH = 'from webhooks import dispatch; print(dispatch.batch())'


class OldNetBox(NetBox):
    """Runs the plugin of another folder than this checkout."""

    package: Path

    def environment(self) -> dict[str, str]:
        found = super().environment()
        return found | {'PYTHONPATH': f'{self.package}:{CHECKOUT / "scripts"}'}


@dataclass
class Upgrade:
    """`old` and `new` are processes of 1.0.0 and of this version, on one database."""

    old: OldNetBox
    new: NetBox
    database: DatabaseAddress
    token: str = ''
    url: str = ''

    def request(self, method: str, path: str, **data: Any) -> Any:
        """Ask the old web server. Raises HTTPError."""
        headers = {'Authorization': self.token, 'Content-Type': 'application/json'}
        request = urllib.request.Request(f'{self.url}api/{path}', json.dumps(data).encode(), headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def run(self, netbox: NetBox, *arguments: str) -> None:
        answer = netbox.run(*arguments, timeout=PATIENCE)
        assert answer.returncode == 0, answer.stderr

    def add_token(self) -> None:
        with using(self.database):
            token = Token(user=User.objects.create(username='admin', is_superuser=True))
            token.save()
        self.token = f'{token.get_auth_header_prefix()}{token.token}'


@pytest.fixture
def upgrade(
    stack: StackDescription, processes: Processes, netbox: NetBox, tmp_path: Path, django_db_blocker: Any
) -> Iterator[Upgrade]:
    archive = subprocess.run(
        ['git', 'archive', VERSION_1_0_0, 'webhooks'], cwd=CHECKOUT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip('this clone has not the history with 1.0.0')
    subprocess.run(['tar', '-x', '-C', tmp_path], input=archive.stdout, check=True)
    database = copy_database(stack.server, stack.template, 'old_processes')
    database.execute(REMOVE)

    def make(kind: type, name: str) -> NetBox:
        made = kind(stack.folder / name, database, stack.caching, stack.tasks, processes, 'WEBHOOKS_ENABLED = True')
        made.write_configuration()
        return made

    found = Upgrade(make(OldNetBox, 'old_processes'), make(NetBox, 'new_processes'), database)
    found.old.package = tmp_path
    found.run(found.old, 'migrate', 'webhooks', '--skip-checks')
    with django_db_blocker.unblock():
        found.add_token()
        server = found.old.start_server()
        server.wait_until_ready()
        found.url = server.url
        yield found
        server.stop()
    drop_database(stack.server, database.name)


class Saver(threading.Thread):
    """Saves an object of its own again and again, and counts what was answered."""

    def __init__(self, upgrade: Upgrade, number: int) -> None:
        super().__init__(daemon=True)
        self.done = 0
        self.error: Exception | None = None
        self._upgrade = upgrade
        self._stopped = threading.Event()
        self.site = upgrade.request('POST', 'dcim/sites/', name=f'Site {number}', slug=f'site-{number}')['id']
        self.start()

    def run(self) -> None:
        try:
            while not self._stopped.wait(0.05):
                self._upgrade.request('PATCH', f'dcim/sites/{self.site}/', description=str(self.done + 1))
                self.done += 1
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        self._stopped.set()
        self.join(PATIENCE)
        if self.error:
            raise self.error


def of_path(receiver: Receiver, name: str, site: int) -> list[str]:
    bodies = [request.json() for request in receiver.matching(lambda request: request.path.endswith(f'/{name}'))]
    return [body['data']['description'] for body in bodies if body['data']['id'] == site]


def more(savers: list[Saver]) -> Callable[[], bool]:
    before = [saver.done for saver in savers]
    return lambda: all(saver.error or saver.done > count + 3 for saver, count in zip(savers, before, strict=True))


def test_all_that_old_processes_save_during_and_after_migrate_is_sent_in_order(upgrade, receiver):
    make = {'type_update': True, 'payload_url': receiver.url('/Hook'), 'object_types': ['dcim.site']}
    upgrade.request('POST', 'plugins/webhooks/webhooks/', name='Hook', **make)
    make = {'type_update': True, 'payload_url': receiver.url('/Rule'), 'object_types': []}
    hook = upgrade.request('POST', 'plugins/webhooks/webhooks/', name='Rule', **make)
    rule = {'object_types': ['dcim.site'], 'event_types': ['object_updated'], 'action_type': 'webhooks.send'}
    action = {'action_object_type': 'webhooks.webhook', 'action_object_id': hook['id']}
    upgrade.request('POST', 'extras/event-rules/', name='Rule', enabled=True, **rule, **action)
    savers = [Saver(upgrade, number) for number in range(2)]
    assert wait_until(more(savers), timeout=PATIENCE)

    upgrade.run(upgrade.new, 'migrate', 'webhooks', '--skip-checks')

    assert wait_until(more(savers), timeout=PATIENCE)
    # What an old worker does first.
    answer = upgrade.old.run('shell', '-c', DISPATCH)
    assert answer.returncode
    assert 'restart this process of 1.0.0' in answer.stderr
    run(upgrade.database, SEND)
    assert wait_until(more(savers), timeout=PATIENCE)
    for saver in savers:
        saver.stop()
    run(upgrade.database, SEND)
    for saver in savers:
        saved = [str(number) for number in range(1, saver.done + 1)]
        assert of_path(receiver, 'Hook', saver.site) == saved
        assert of_path(receiver, 'Rule', saver.site) == saved
