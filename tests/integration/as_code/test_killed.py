"""A process that is killed while it applies a document leaves all of it, or nothing."""

import random
import signal
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from core.models import ObjectChange
from django.core.management import call_command
from django.db import connection
from support.chaos.victims import Children, strike_before
from support.settings import change_settings

from webhooks.as_code.apply import plan
from webhooks.as_code.document import read
from webhooks.models import Credential, Subscription, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

STATEMENT = 'django.db.backends.utils.CursorWrapper._execute'
COMMIT = 'django.db.backends.base.base.BaseDatabaseWrapper._commit'
OUTPUT = 'django.core.management.base.OutputWrapper.write'
WEBHOOK = '  - {{name: {}, type_create: true, payload_url: "https://a.example.com", timeout: {}}}\n'
CREDENTIAL = '  - {{name: {}, type: bearer, hosts: [a.example.com], secret: {{env: CMDB_TOKEN}}, scope: "{}"}}\n'
KILLS = 12


def document(names: str, timeout: int) -> str:
    credentials = ''.join(CREDENTIAL.format(name, timeout) for name in names)
    webhooks = ''.join(WEBHOOK.format(name, timeout) for name in names)
    return f'source: team\ncredentials:\n{credentials}webhooks:\n{webhooks}'


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A document that creates, changes and deletes."""
    change_settings(monkeypatch, secret_variables=('CMDB_TOKEN',))
    path = tmp_path / 'webhooks.yaml'
    path.write_text(document('abc', 5))
    call_command('webhooks_apply', str(path), stdout=StringIO())
    path.write_text(document('bcdef', 6))
    return path


@pytest.fixture
def children() -> Iterator[Children]:
    started = Children()
    yield started
    started.kill_all()


def state() -> list[Any]:
    return [
        sorted(Credential.objects.values_list('name', 'scope', 'managed_by', 'managed_in')),
        sorted(Webhook.objects.values_list('name', 'timeout', 'managed_by', 'managed_in')),
        sorted(Subscription.objects.values_list('webhook_id', 'object_type_id')),
        ObjectChange.objects.count(),
    ]


def apply(file: Path) -> str:
    output = StringIO()
    call_command('webhooks_apply', str(file), '--prune', stdout=output)
    return output.getvalue()


def statements(file: Path) -> int:
    """Return how many statements the plan takes. The apply takes two less: the plan has a savepoint around it."""
    counted = []

    def count(execute: Callable, *arguments: Any) -> Any:
        counted.append(1)
        return execute(*arguments)

    documents = [read(file.read_text(), str(file))]
    plan(documents, prune=True)  # later ones, also in forks, find content types in a cache
    with connection.execute_wrapper(count):
        plan(documents, prune=True)
    return len(counted) - 2


def killed(children: Children, file: Path, where: str, call: int = 1) -> None:
    def doomed() -> None:
        strike_before(where, call)
        apply(file)

    assert children.wait(children.fork(doomed)) == signal.SIGKILL


def test_a_kill_at_any_statement_leaves_nothing_and_the_next_apply_does_all(file, children):
    total, before = statements(file), state()
    assert total > 100
    moments = random.Random(48).sample(range(2, total), KILLS)
    for number in (1, *moments, total):
        killed(children, file, STATEMENT, number)
        assert state() == before, number
    killed(children, file, COMMIT)
    assert state() == before
    assert len(apply(file).splitlines()) > KILLS
    assert state() != before


def test_a_kill_after_the_commit_leaves_all_and_the_next_apply_finds_nothing_to_do(file, children):
    before = state()
    killed(children, file, OUTPUT)
    after = state()
    assert after != before
    assert [name for name, *_rest in after[1]] == list('bcdef')
    assert apply(file).strip() == 'Nothing to do.'
    assert state() == after
