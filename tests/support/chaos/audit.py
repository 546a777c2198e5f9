"""The promises that hold, whatever was killed.

1. Every committed change arrives at least once.
2. No change of a rolled back transaction arrives.
3. The changes of an object arrive in their order, apart from repetitions.
4. A request is repeated only after a failure or an unknown outcome.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

from dcim.models import Site
from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from devstack.receiver import Received, Receiver
from support.builders import named
from support.engine import pass_alive, work
from webhooks.choices import OPEN_STATUSES, BackfillStateChoices, StatusChoices
from webhooks.engine import registry
from webhooks.models import Attempt, Backfill, Delivery, Event, Health, Worker


class Regret(Exception):
    """Rolls back."""


@dataclass
class Ledger:
    """Each change writes its own number into the description."""

    committed: list[tuple[int, int]] = field(default_factory=list)
    rolled_back: set[int] = field(default_factory=set)
    # Perhaps committed: the connection broke meanwhile.
    unknown: set[int] = field(default_factory=set)
    # The killed worker may have been sending these deliveries.
    interrupted: Counter = field(default_factory=Counter)
    _number: int = 0

    def create(self) -> int:
        with transaction.atomic():
            place = Site.objects.create(**named('site'), description=self._next())
        self.committed.append((place.pk, self._number))
        return place.pk

    def change(self, pk: int, *, regret: bool = False) -> None:
        number = int(self._next())
        try:
            with transaction.atomic():
                place = Site.objects.get(pk=pk)
                place.description = str(number)
                place.save()
                if regret:
                    raise Regret
        except Regret:
            self.rolled_back.add(number)
        except (OperationalError, InterfaceError):
            self.unknown.add(number)
            connection.close()
        else:
            self.committed.append((pk, number))

    def change_at_random(self, chance: random.Random, pks: list[int], times: int) -> None:
        for _ in range(times):
            self.change(chance.choice(pks), regret=chance.random() < 0.15)

    def note_interrupted(self) -> None:
        """Call it right after a worker was killed."""
        in_hand = [pk for held in Worker.objects.values_list('deliveries', flat=True) for pk in held]
        open_ones = Delivery.objects.filter(pk__in=in_hand, status=StatusChoices.PENDING)
        self.interrupted.update(str(uuid) for uuid in open_ones.values_list('uuid', flat=True))

    def _next(self) -> str:
        self._number += 1
        return str(self._number)


def finish(rounds: int = 60) -> None:
    """Let all times pass, and finish the rest."""
    for _ in range(rounds):
        pass_alive()
        past = timezone.now() - timedelta(seconds=1)
        waiting = Delivery.objects.filter(status=StatusChoices.PENDING, due_at__isnull=False)
        waiting.exclude(error='').update(due_at=past)
        waiting.filter(waits_until__isnull=False).update(due_at=past, waits_until=past)
        Event.objects.filter(retry_at__isnull=False).update(retry_at=past)
        Health.objects.filter(suspended_since__isnull=False).update(probe_at=past)
        if not is_anything_left():
            break
        work()


def is_anything_left() -> bool:
    due = Delivery.objects.filter(status=StatusChoices.PENDING, due_at__lte=timezone.now())
    undispatched = Event.objects.filter(dispatched_at=None)
    # A backfill rests after a slow slice.
    backfills = Backfill.objects.filter(state=BackfillStateChoices.RUNNING)
    return any(one.exists() for one in (Worker.objects, undispatched, due, backfills))


def check(ledger: Ledger, receiver: Receiver) -> None:
    assert not Event.objects.filter(dispatched_at=None).exists(), 'events were left'
    assert not Delivery.objects.filter(status__in=OPEN_STATUSES).exists(), 'deliveries were left'
    requests = receiver.matching(is_whole)
    got = [_number(request) for request in requests]
    assert not {number for _pk, number in ledger.committed} - set(got), 'lost'
    assert not set(got) & ledger.rolled_back, 'sent although rolled back'
    assert not set(got) - {number for _pk, number in ledger.committed} - ledger.unknown, 'sent although not committed'
    check_order(requests)
    _check_repetitions(ledger, requests)


def is_whole(request: Received) -> bool:
    """A killed worker may have sent half a request, which no endpoint obeys."""
    return len(request.body) == int(request.header('Content-Length'))


def _number(request: Received) -> int:
    return int(request.json()['data']['description'])


def check_order(requests: list[Received]) -> None:
    arrivals = defaultdict(list)
    for request in requests:
        arrivals[request.json()['data']['id']].append(_number(request))
    for pk, numbers in arrivals.items():
        assert numbers == sorted(numbers), f'site {pk} out of order'


def _check_repetitions(ledger: Ledger, requests: list[Received]) -> None:
    received = Counter(request.header('webhook-id') for request in requests)
    made = Attempt.objects.exclude(error=registry.STOPPED).values_list('delivery__uuid', flat=True)
    attempts = Counter(str(uuid) for uuid in made)
    successes = Counter(str(uuid) for uuid in Attempt.objects.filter(error='').values_list('delivery__uuid', flat=True))
    assert set(successes.values()) <= {1}, 'delivered twice'
    more = {uuid: count for uuid, count in received.items() if count > attempts[uuid] + ledger.interrupted[uuid]}
    assert not more, 'sent again although the outcome was known'
