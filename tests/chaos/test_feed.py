"""Readers end equal to the database, although readers, workers and NetBox are killed."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from dcim.models import Site
from support.builders import subscribe
from support.chaos.audit import Ledger, finish
from support.chaos.seeds import seeds
from support.chaos.victims import Children, toil
from users.models import Token

from devstack.folders import CHECKOUT
from devstack.process import descendants, wait_until
from webhooks.choices import OPEN_STATUSES
from webhooks.models import Delivery, Health

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

CLIENT = CHECKOUT / 'contrib' / 'feed_client.py'
# The server is killed half-way.
FEW, STEPS, PATIENCE = 20, 40, 120


class Reader:
    """contrib/feed_client.py, which may be killed."""

    def __init__(self, database: Path, feed: str, token: str) -> None:
        self._database = database
        self._environment = {**os.environ, 'FEED': feed, 'TOKEN': token, 'DATABASE': str(database)}
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, CLIENT], env=self._environment)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def inbox(self) -> list[tuple[str, str]]:
        if not self._database.exists():
            return []
        with sqlite3.connect(self._database, timeout=30) as copy:
            tables = copy.execute("SELECT name FROM sqlite_master WHERE name = 'inbox'")
            return copy.execute('SELECT id, body FROM inbox ORDER BY number').fetchall() if tables.fetchone() else []


@pytest.fixture
def readers(netbox_server, netbox_user, feed, tmp_path) -> Iterator[list[Reader]]:
    token = Token.objects.create(user=netbox_user)
    full = f'{token.get_auth_header_prefix()}{token.token}'.removeprefix('Bearer ')
    url = f'{netbox_server.url.rstrip("/")}/api/plugins/webhooks/webhooks/{feed.pk}/feed/'
    made = [Reader(tmp_path / f'{number}.sqlite', url, full) for number in range(2)]
    yield made
    for one in made:
        one.kill()


@pytest.fixture
def feed(committed: None):
    return subscribe('', Site)


@pytest.mark.parametrize('seed', seeds(3))
def test_readers_end_with_what_the_database_holds(feed, readers, netbox_server, children: Children, seed: int):
    chance, ledger = random.Random(seed), Ledger()
    pks = [ledger.create() for _ in range(4)]
    workers = [children.fork(toil) for _ in range(2)]
    steps = FEW if seed == 1 else STEPS
    for step in range(steps):
        ledger.change_at_random(chance, pks, chance.randrange(4))
        one = chance.choice(readers)
        if step % 10 == 3:
            children.kill(workers.pop(0))
            workers.append(children.fork(toil))
        elif step % 10 == 6:
            one.kill()
            one.start()
        elif step % 10 == 8:
            one.freeze()
        elif step % 10 == 1:
            for reader in readers:
                reader.thaw()
        elif step == steps // 2:
            for process in descendants(netbox_server.child.pid):
                process.kill()
    for pid in workers:
        children.kill(pid)
    finish()
    for reader in readers:
        reader.thaw()
    assert not Delivery.objects.filter(status__in=OPEN_STATUSES).exists()
    published = list(Delivery.objects.order_by('position').values_list('position', 'uuid'))
    assert [position for position, _uuid in published] == list(range(1, Health.objects.get().position + 1))
    for reader in readers:
        assert wait_until(lambda reader=reader: len(reader.inbox()) >= len(published), timeout=PATIENCE)
        inbox = reader.inbox()
        assert [identity for identity, _body in inbox] == [str(uuid) for _position, uuid in published]
        _check(ledger, [json.loads(body) for _identity, body in inbox])


def _check(ledger: Ledger, events: list[dict]) -> None:
    told = defaultdict(list)
    for event in events:
        told[event['data']['id']].append(int(event['data']['description']))
    got = [number for numbers in told.values() for number in numbers]
    assert sorted(got) == sorted(number for _pk, number in ledger.committed)
    assert all(numbers == sorted(numbers) for numbers in told.values())
