"""People and accidents interfere at random."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from dcim.models import Site
from django.db import connection, transaction
from support.builders import subscribe
from support.chaos.audit import Ledger, check_order, finish, is_whole
from support.chaos.victims import Children, toil
from support.engine import deliveries

from devstack.receiver import Answer, Received, Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine.tidy import retention
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import redelivery

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

ORDERED, TOGETHER, REPEATED = '/ordered', '/together', '/repeated'
CONCURRENCY = {ORDERED: 2, TOGETHER: 3, REPEATED: 5}
WORKERS, FEW, STEPS = 4, 30, 60


@dataclass(frozen=True)
class Counted(Answer):
    """Tells when it goes out."""

    sent: Callable[[], None] = lambda: None

    def encode(self) -> bytes:
        self.sent()
        return super().encode()


class Gauge:
    """Requests under way for each path, as the endpoint sees it, and their maximum."""

    def __init__(self, receiver: Receiver, chance: random.Random) -> None:
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._chance = chance
        self._record = receiver.record
        receiver.record = self._arrived

    def _arrived(self, request: Received) -> Answer:
        self._record(request)
        with self._lock:
            self._now[request.path] += 1
            self.most[request.path] = max(self.most[request.path], self._now[request.path])
            status = 500 if self._chance.random() < 0.2 else 200
        return Counted(status, delay=0.01, sent=lambda: self._left(request.path))

    def _left(self, path: str) -> None:
        with self._lock:
            self._now[path] -= 1


def deadlocks() -> int:
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_stat_clear_snapshot()')
        cursor.execute('SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()')
        return cursor.fetchone()[0]


@pytest.fixture
def webhooks(receiver: Receiver) -> dict[str, Webhook]:
    kinds = {ORDERED: {}, TOGETHER: {'change_set': True}, REPEATED: {'ordered': False, 'rate_limit': 200}}
    return {
        path: subscribe(
            receiver.url(path), Site, max_attempts=100, concurrency=CONCURRENCY[path], include_snapshots=True, **fields
        )
        for path, fields in kinds.items()
    }


class Turmoil:
    """Interferes at random."""

    def __init__(self, webhooks: dict[str, Webhook], children: Children, chance: random.Random) -> None:
        self.ledger = Ledger()
        self._webhooks, self._children, self._chance = webhooks, children, chance
        self._sites = [self.ledger.create() for _ in range(5)]
        self._workers = [children.fork(toil) for _ in range(WORKERS)]

    def step(self) -> None:
        self._chance.choice(
            (
                self._change, self._change, self._change, self._change_all, self._kill, self._redeliver,
                self._save, self._pause, self._prune, self._hurry,
            )
        )()  # fmt: skip

    def end(self) -> None:
        for pid in self._workers:
            self._children.kill(pid)
        Webhook.objects.update(paused=False)

    def _change(self) -> None:
        self.ledger.change(self._chance.choice(self._sites), regret=self._chance.random() < 0.2)

    def _change_all(self) -> None:
        with transaction.atomic():
            for pk in self._sites:
                self.ledger.change(pk)

    def _kill(self) -> None:
        self._children.kill(self._workers.pop(0))
        self._workers.append(self._children.fork(toil))

    def _redeliver(self) -> None:
        redelivery.redeliver(redelivery.select(self._webhooks[REPEATED]))

    def _save(self) -> None:
        """The test's own copy stays."""
        Webhook.objects.get(pk=self._chance.choice(list(self._webhooks.values())).pk).save()

    def _pause(self) -> None:
        webhook = Webhook.objects.get(pk=self._chance.choice(list(self._webhooks.values())).pk)
        webhook.paused = not webhook.paused
        webhook.save()

    def _prune(self) -> None:
        retention.prune_all(0)

    def _hurry(self) -> None:
        retried = Delivery.objects.filter(status=StatusChoices.PENDING, due_at__isnull=False, lapses=0)
        with transaction.atomic():
            # Workers lock these rows in another order.
            free = retried.exclude(error='').select_for_update(skip_locked=True).values_list('pk', flat=True)
            Delivery.objects.filter(pk__in=list(free)).update(due_at='2000-01-01T00:00Z')


def test_whatever_happens_all_arrives_in_order_and_within_its_limits(
    webhooks, receiver, children, chance, pytestconfig
):
    before = deadlocks()
    gauge = Gauge(receiver, chance)
    turmoil = Turmoil(webhooks, children, chance)
    for _ in range(STEPS if pytestconfig.getoption('--long') else FEW):
        turmoil.step()
    turmoil.end()
    finish()
    assert deadlocks() == before
    assert not Event.objects.filter(dispatched_at=None).exists()
    assert not deliveries(*OPEN_STATUSES), 'something waits for nothing'
    assert {path: most for path, most in gauge.most.items() if most > CONCURRENCY[path]} == {}
    committed = {number for _pk, number in turmoil.ledger.committed}
    for path in webhooks:
        got = {int(data['description']) for one in to(receiver, path) for data in shown(one)}
        assert got == committed, path
    check_order(to(receiver, ORDERED))


def to(receiver: Receiver, path: str) -> list[Received]:
    return receiver.matching(lambda request: request.path == path and is_whole(request))


def shown(request: Received) -> list[dict]:
    body = request.json()
    return [change['data'] for change in body.get('changes', [body])]
