"""A receiver that lets the higher sequence win ends equal to the database, although faults strike.

`--long` runs twenty seeds.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dcim.models import Site
from support.builders import CREATED, DELETED, subscribe
from support.chaos import crowd
from support.chaos.audit import finish, is_whole
from support.chaos.crowd import Journal
from support.chaos.faults import Faults
from support.chaos.seeds import seeds
from support.chaos.victims import Children
from support.engine import deliveries, health

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Received, Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.models import Event, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

STEADY, PAUSED, QUIET, PLAIN = '/steady', '/paused', '/quiet', '/plain'
WRITERS, FEW, FAULTS, CHANGES = 3, 8, 15, 20
PATIENCE = 120


@dataclass
class Told:
    """A request's part for each object."""

    pk: int
    kind: str
    sequence: int
    before: str | None
    after: str


@dataclass
class Follower:
    """`gaps`: changes from a state that no request had shown.

    A deletion may show what a request before it showed that was refused: whoever closed that request cannot know
    whether the creation, whose worker was killed, had arrived.
    """

    objects: dict[int, Told] = field(default_factory=dict)
    created: set[int] = field(default_factory=set)
    gaps: list[Told] = field(default_factory=list)
    _heard: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))

    def apply(self, told: Told, refused: Collection[str] = ()) -> None:
        if told.kind == CREATED:
            self.created.add(told.pk)
        last = self.objects.get(told.pk)
        if last is not None and told.sequence <= last.sequence:
            return  # a repetition
        heard = self._heard[told.pk]
        # Without the creation, a receiver does not know the deleted object.
        is_excused = told.kind == DELETED and (not heard or told.before in refused)
        if told.before is not None and told.before not in heard and not is_excused:
            self.gaps.append(told)
        heard.add(told.after)
        if told.kind == DELETED:
            heard.clear()
        self.objects[told.pk] = told

    def heard(self, pk: int) -> set[str]:
        return set(self._heard[pk])

    @property
    def present(self) -> dict[int, str]:
        return {pk: told.after for pk, told in self.objects.items() if told.kind != DELETED}


class Ear:
    """Apply each request for two receivers: the careful receiver acts only if it answers 2xx."""

    def __init__(self, receiver: Receiver) -> None:
        self.careful: dict[str, Follower] = defaultdict(Follower)
        self.eager: dict[str, Follower] = defaultdict(Follower)
        self._record = receiver.record
        receiver.record = self._heard

    def _heard(self, request: Received) -> Answer:
        answer = self._record(request)
        if is_whole(request):
            told = _said(request)
            shown = self.eager[request.path].heard(told.pk)
            self.eager[request.path].apply(told)
            if answer.status < 300 and answer.manner == Manner.WHOLE:
                self.careful[request.path].apply(told, refused=shown)
        return answer


def _said(request: Received) -> Told:
    body = request.json()
    data, before = body['data'], body['snapshots']['prechange']
    return Told(data['id'], body['event'], body['sequence'], before and before['description'], data['description'])


@pytest.fixture
def journal(committed: None, tmp_path: Path) -> Iterator[Journal]:
    crowd.make_numbers()
    yield Journal(tmp_path / 'journal')
    crowd.drop_numbers()


@pytest.fixture
def webhooks(receiver: Receiver) -> dict[str, Webhook]:
    kinds = {
        STEADY: {'latest_only': True},
        PAUSED: {'latest_only': True},
        QUIET: {'quiet': 1, 'quiet_max': 3},
        PLAIN: {},
    }
    return {
        path: subscribe(
            receiver.url(path), Site, timeout=1, max_attempts=100, concurrency=4, include_snapshots=True, **fields
        )
        for path, fields in kinds.items()
    }


def pause(webhook: Webhook) -> None:
    Webhook.objects.filter(pk=webhook.pk).update(paused=True)


def wait_for_changes() -> None:
    """More changes than objects: some object has two at least."""
    enough = Event.objects.count() + CHANGES
    assert wait_until(lambda: Event.objects.count() >= enough, timeout=PATIENCE)


@pytest.mark.parametrize('seed', seeds(20))
def test_the_receiver_ends_equal_to_the_database(webhooks, journal, receiver, children: Children, tasks_redis, seed):
    if not tasks_redis.private:
        pytest.skip('this Redis is not ours to kill')
    ear = Ear(receiver)
    pause(webhooks[PAUSED])
    people = [children.fork(lambda seed=seed + number: crowd.write(journal, seed)) for number in range(WRITERS)]
    faults = Faults(random.Random(seed), children, receiver, tasks_redis, list(webhooks), webhooks[PAUSED].pk)

    faults.inject(FEW if seed == 1 else FAULTS)
    pause(webhooks[PAUSED])
    wait_for_changes()

    assert all(map(children.is_running, people)), 'somebody who changes things has given up'
    for pid in people:
        children.kill(pid)
    faults.end()
    finish()

    report = f'seed {seed}, {dict(faults.done)}'
    superseded = {path: health(webhook).superseded for path, webhook in webhooks.items()}
    print(f'{report}: {superseded} superseded of {Event.objects.count()} events')
    assert not Event.objects.filter(dispatched_at=None).exists(), report
    assert not deliveries(*OPEN_STATUSES, StatusChoices.FAILED), report
    present = dict(Site.objects.values_list('pk', 'description'))
    for path in webhooks:
        for follower in (ear.careful[path], ear.eager[path]):
            assert follower.present == present, f'{path}, {report}'
            assert present.keys() <= follower.created, f'{path}: a creation was lost, {report}'
            assert not follower.gaps, f'{path}, {report}'
    assert not superseded.pop(PLAIN)
    assert any(superseded.values())
