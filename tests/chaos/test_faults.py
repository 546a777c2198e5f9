"""Random faults lose nothing, add nothing and keep the order of an object's changes.

`--long` injects a thousand, in parts by seed.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.db import connection
from support.builders import subscribe
from support.chaos import crowd
from support.chaos.audit import finish, is_whole
from support.chaos.crowd import Change, Journal
from support.chaos.faults import Faults
from support.chaos.victims import Children
from support.engine import deliveries

from devstack.process import wait_until
from devstack.receiver import Received, Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine.dispatch.render import Renderer
from webhooks.models import Delivery, Event, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

STEADY, PAUSED, TOGGLED = '/steady', '/paused', '/toggled'
WRITERS = 3
PATIENCE = 120

# Toggles come one by one, so their number says which of them a view sees.
SEEN = """
    SELECT v, (SELECT count(*) FROM unnest(%s::text[]) t WHERE pg_visible_in_snapshot(t::xid8, v::pg_snapshot))
    FROM unnest(%s::text[]) v"""


@dataclass
class Findings:
    """All webhooks together."""

    requests: int = 0
    lost: list[Any] = field(default_factory=list)
    ghosts: list[Any] = field(default_factory=list)
    disorder: list[Any] = field(default_factory=list)
    repeated: int = 0

    def __str__(self) -> str:
        return (
            f'{self.requests} requests, {len(self.lost)} lost, {len(self.ghosts)} ghosts, '
            f'{len(self.disorder)} out of order, {self.repeated} repeated'
        )


@pytest.fixture
def journal(committed: None, tmp_path: Path) -> Iterator[Journal]:
    crowd.make_numbers()
    yield Journal(tmp_path / 'journal')
    crowd.drop_numbers()


@pytest.fixture
def webhooks(receiver: Receiver) -> dict[str, Webhook]:
    return {
        path: subscribe(receiver.url(path), Site, timeout=1, max_attempts=100, concurrency=4)
        for path in (STEADY, PAUSED, TOGGLED)
    }


@pytest.mark.parametrize(
    ('seed', 'count'), [(1, 20), *(pytest.param(seed, 100, marks=pytest.mark.long) for seed in range(2, 12))]
)
def test_nothing_is_lost_made_up_or_out_of_order(
    webhooks, journal, receiver, children: Children, tasks_redis, seed, count
):
    if not tasks_redis.private:
        pytest.skip('this Redis is not ours to kill')
    Renderer()  # a first load takes long
    toggled = webhooks[TOGGLED]
    people = [children.fork(lambda seed=seed + number: crowd.write(journal, seed)) for number in range(WRITERS)]
    people.append(children.fork(lambda: crowd.toggle(journal, seed, toggled.pk)))
    faults = Faults(random.Random(seed), children, receiver, tasks_redis, list(webhooks), webhooks[PAUSED].pk)

    faults.inject(count)

    # Two webhooks at least get each change.
    assert wait_until(lambda: 2 * len(journal.changed()) > count, PATIENCE)
    assert all(map(children.is_running, people)), 'somebody who changes things has given up'
    for pid in people:
        children.kill(pid)
    faults.end()
    toggled.refresh_from_db()
    toggled.enabled = True
    toggled.save()
    finish()

    findings = look(journal, receiver)
    print(f'seed {seed}: {findings}; {dict(faults.done)}')
    report = f'seed {seed}, {faults.done}: {findings!r}'
    assert not Event.objects.filter(dispatched_at=None).exists(), report
    left = [_told(one) for one in deliveries(*OPEN_STATUSES, StatusChoices.FAILED)]
    assert not left, f'{left}, {report}'
    assert not findings.lost + findings.ghosts + findings.disorder, report
    assert findings.requests > count


def _told(one: Delivery) -> str:
    counts = f'{one.attempt_count} attempts, {one.lapses} lapses'
    return f'{one.webhook_id}/{one.object_id}: {one.status}, {counts}, {one.error}'


def look(journal: Journal, receiver: Receiver) -> Findings:
    changes = [Change(**change) for entry in journal.changed() for change in entry['changes']]
    toggles = [entry for entry in journal.committed() if 'enabled' in entry]
    all_of_them = {_name(change) for change in changes}
    certain, possible = _in_force(changes, toggles)
    findings = Findings()
    for path in (STEADY, PAUSED, TOGGLED):
        requests = receiver.matching(lambda request, path=path: request.path == path and is_whole(request))
        got = [_received(request) for request in requests]
        must, may = (certain, possible) if path == TOGGLED else (all_of_them, all_of_them)
        findings.requests += len(got)
        findings.lost += [(path, *one) for one in must - set(got)]
        findings.ghosts += [(path, *one) for one in set(got) - may]
        findings.disorder += [(path, *one) for one in _disorder(got)]
        findings.repeated += len(requests) - len(Counter(request.header('webhook-id') for request in requests))
    return findings


def _name(change: Change) -> tuple[int, int, str]:
    return change.pk, change.number, change.kind


def _received(request: Received) -> tuple[int, int, str]:
    body = request.json()
    return body['data']['id'], int(body['data']['description']), body['event']


def _disorder(got: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    highest: Counter[int] = Counter()
    late = []
    for pk, number, kind in got:
        if number < highest[pk]:
            late.append((pk, number, kind))
        highest[pk] = max(number, highest[pk])
    return late


def _in_force(changes: list[Change], toggles: list[dict[str, Any]]) -> tuple[set, set]:
    """Return the changes that the toggled webhook must get, and may get: it was toggled meanwhile."""
    views = [view for change in changes for pair in change.views for view in pair]
    seen = _seen(views, [toggle['id'] for toggle in toggles])
    is_enabled = [True, *(toggle['enabled'] for toggle in toggles)]
    must, may = set(), set()
    for change in changes:
        counts = [(seen[before], seen[after]) for before, after in change.views]
        if any(before == after and is_enabled[after] for before, after in counts):
            must.add(_name(change))
        if any(is_enabled[counts[0][0] : counts[-1][1] + 1]):
            may.add(_name(change))
    return must, may


def _seen(views: list[str], ids: list[str]) -> dict[str, int]:
    with connection.cursor() as cursor:
        cursor.execute(SEEN, [ids, list(set(views))])
        return dict(cursor.fetchall())
