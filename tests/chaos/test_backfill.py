"""A receiver that lets the higher sequence win ends equal to the database, although much fails at random.

`--long`: twenty seeds, all but the first for longer.
"""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from support.builders import forget_events, site, subscribe
from support.chaos import crowd
from support.chaos.audit import finish, is_whole
from support.chaos.crowd import Journal
from support.chaos.faults import MOODS
from support.chaos.seeds import seeds
from support.chaos.victims import Children, strike_after, strike_before, toil
from support.engine import deliveries, disorder, work

from devstack.receiver import Receiver
from webhooks.choices import OPEN_STATUSES, BackfillStateChoices, StatusChoices
from webhooks.engine.walks import loop as engine
from webhooks.exceptions import DefinitionError
from webhooks.models import Backfill, Event, Webhook
from webhooks.services import backfill

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

SINGLE, TOGETHER, HASTY = '/single', '/together', '/hasty'
WRITERS, WORKERS, FEW, STEPS = 3, 3, 12, 25
# Objects that nobody changes.
QUIET = 60


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked children inherit it."""
    monkeypatch.setattr(engine, 'OBJECTS_PER_SLICE', 7)


@pytest.fixture
def journal(committed: None, tmp_path: Path) -> Iterator[Journal]:
    crowd.make_numbers()
    yield Journal(tmp_path / 'journal')
    crowd.drop_numbers()


@pytest.fixture
def webhooks(receiver: Receiver) -> list[Webhook]:
    ways = {SINGLE: {}, TOGETHER: {'change_set': True}, HASTY: {'ordered': False}}
    return [
        subscribe(receiver.url(path), Site, timeout=1, max_attempts=100, concurrency=3, **fields)
        for path, fields in ways.items()
    ]


def start(webhook: Webhook) -> None:
    backfill.start(webhook, backfill.choose(webhook))


class Turmoil:
    """Disturb workers, endpoints or webhooks at random."""

    def __init__(self, chance: random.Random, children: Children, receiver: Receiver, webhooks: list[Webhook]) -> None:
        self._chance, self._children, self._receiver, self._webhooks = chance, children, receiver, webhooks
        self._workers = [children.fork(toil) for _ in range(WORKERS)]

    def step(self) -> None:
        self._chance.choice((self._kill, self._kill, self._change_mood, self._change_mood, self._pause))()
        time.sleep(self._chance.random() / 5)

    def end(self) -> None:
        for pid in self._workers:
            self._children.kill(pid)
        for path in (SINGLE, TOGETHER, HASTY):
            self._receiver.answers(path, *MOODS['well'])
        for webhook in self._webhooks:
            if Backfill.objects.get(pk=webhook.pk).state == BackfillStateChoices.PAUSED:
                backfill.resume(webhook)

    def _kill(self) -> None:
        self._children.kill(self._workers.pop(0))
        self._workers.append(self._children.fork(toil))

    def _change_mood(self) -> None:
        bad = self._chance.choice([MOODS['fails'], MOODS['resets'], MOODS['drips']])
        answers = [self._chance.choice(bad) for _ in range(self._chance.randrange(1, 10))]
        self._receiver.answers(self._chance.choice([SINGLE, TOGETHER, HASTY]), *answers, *MOODS['well'])

    def _pause(self) -> None:
        webhook = self._chance.choice(self._webhooks)
        state = Backfill.objects.get(pk=webhook.pk).state
        if state == BackfillStateChoices.RUNNING:
            with suppress(DefinitionError):  # it has just ended
                backfill.pause(webhook)
        elif state == BackfillStateChoices.PAUSED:
            backfill.resume(webhook)


@pytest.mark.parametrize('seed', seeds(20))
def test_a_receiver_that_starts_empty_ends_equal_to_the_database(webhooks, journal, receiver, children, seed):
    chance = random.Random(seed)
    for _ in range(QUIET):
        site(description='quiet')
    people = [children.fork(lambda seed=seed + 100 * number: crowd.write(journal, seed)) for number in range(WRITERS)]
    # Forget earlier events, as if the webhooks were new.
    time.sleep(chance.random())
    forget_events()
    for webhook in webhooks:
        start(webhook)
    turmoil = Turmoil(chance, children, receiver, webhooks)
    for _ in range(FEW if seed == 1 else STEPS):
        turmoil.step()
    assert all(map(children.is_running, people)), 'somebody who changes things has given up'
    for pid in people:
        children.kill(pid)
    turmoil.end()
    finish()

    assert {one.state for one in Backfill.objects.all()} == {BackfillStateChoices.COMPLETED}
    assert not deliveries(*OPEN_STATUSES, StatusChoices.FAILED)
    there = dict(Site.objects.values_list('pk', 'description'))
    assert {path: copy_at(receiver, path) for path in (SINGLE, TOGETHER, HASTY)} == dict.fromkeys(
        (SINGLE, TOGETHER, HASTY), there
    )
    for path in (SINGLE, TOGETHER):
        assert not disorder([(pk, sequence) for pk, sequence, *_ in told(receiver, path)])


def told(receiver: Receiver, path: str) -> list[tuple[int, int, str, str]]:
    """Return (object id, sequence, kind, description) by arrival."""
    bodies = [request.json() for request in receiver.matching(lambda one: one.path == path and is_whole(one))]
    return [
        (data['id'], event['sequence'], event['event'], data['description'])
        for body in bodies
        for data, event in _events(body)
    ]


def _events(body: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(change['data'], change) for change in body.get('changes', [body])]


def copy_at(receiver: Receiver, path: str) -> dict[int, str]:
    """Return {object id: description} of a receiver that began empty and lets the higher sequence win."""
    held: dict[int, tuple[int, str, str]] = {}
    for pk, sequence, kind, description in told(receiver, path):
        if sequence >= held.get(pk, (0,))[0]:
            held[pk] = sequence, kind, description
    return {pk: description for pk, (_sequence, kind, description) in held.items() if kind != 'deleted'}


@pytest.mark.parametrize('strike', [strike_before, strike_after])
def test_a_worker_that_is_killed_at_a_slice_repeats_and_loses_nothing(receiver, children, strike):
    made = [site().pk for _ in range(20)]
    forget_events()
    start(subscribe(receiver.url(SINGLE), Site))

    def doomed() -> None:
        strike('webhooks.outbox.restating.restate', call=2)
        work()

    assert children.wait(children.fork(doomed))
    assert not Event.objects.filter(object_type=ContentType.objects.get_for_model(Site)).count() > 14
    finish()
    assert list(Event.objects.order_by('object_id').values_list('object_id', flat=True)) == made
    assert set(copy_at(receiver, SINGLE)) == set(made)
    assert Backfill.objects.get().state == BackfillStateChoices.COMPLETED
