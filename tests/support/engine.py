"""The engine in this process, with a movable clock."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from django.db import connection, connections, transaction
from django.utils import timezone

from devstack.process import wait_until
from devstack.receiver import Received, Receiver
from webhooks.choices import OPEN_STATUSES, StatusChoices
from webhooks.engine import rescue
from webhooks.engine.deliver import loop
from webhooks.engine.dispatch.loop import Dispatcher
from webhooks.engine.process import child, inline, suspects
from webhooks.engine.process.dispatcher import DispatcherRole
from webhooks.engine.registry import DISPATCH, SEND, SUSPECTS, Registration
from webhooks.models import Delivery, Event, Health, Webhook, Worker
from webhooks.services import failed_jobs
from webhooks.worker import summary


def work() -> str:
    """Work until nothing is due."""
    counts = inline.run(seconds=300)
    failed_jobs.publish()
    return summary(counts)


def try_suspects() -> None:
    """As the process of suspects does. Its timer would end the tests after a minute."""
    try:
        suspects._work(Registration(inline.name('test'), SUSPECTS))
    finally:
        child.kill_after(0)


def dispatch_all() -> None:
    registration = Registration(inline.name('test'), DISPATCH)
    registration.begin()
    dispatcher = Dispatcher(registration)
    while dispatcher.batch():
        pass
    registration.end()


def dispatch_batch() -> int:
    registration = Registration(inline.name('test'), DISPATCH)
    registration.begin()
    try:
        return Dispatcher(registration).batch()
    finally:
        registration.end()


@contextmanager
def dispatching(publish: Callable[[], None] = lambda: None) -> Iterator[DispatcherRole]:
    """Its steps are the caller's."""
    registration = Registration(inline.name('test'), DISPATCH)
    registration.begin()
    yield DispatcherRole(registration, lambda: None, publish)
    registration.end()


def hold(*held: Delivery | Event, role: str = SEND) -> Registration:
    """Return an idle worker that holds these and their lanes."""
    registration = Registration(inline.name('test'), role)
    registration.begin()
    webhooks = [one.webhook_id for one in held if isinstance(one, Delivery)]
    Health.objects.filter(webhook__in=webhooks).update(owner=registration.pk)
    registration.beat(
        events=[one.pk for one in held if isinstance(one, Event)],
        deliveries=[one.pk for one in held if isinstance(one, Delivery)],
    )
    return registration


def die(*held: Delivery | Event) -> None:
    """Let a worker die with these, and others find it."""
    hold(*held)
    pass_alive()
    overdue = Worker.objects.filter(alive_until__lt=timezone.now()).exclude(role='dead')
    # PostgreSQL may take a moment to end the transaction of a killed worker.
    wait_until(lambda: not rescue.rescue() and not overdue.exists(), timeout=60)


def suspect(*held: Delivery | Event) -> None:
    """Let two workers die with these: then each is tried alone."""
    for _ in range(2):
        die(*held)


@contextmanager
def sender() -> Iterator[tuple[int, loop.Sender]]:
    registration = Registration(inline.name('test'), SEND)
    registration.begin()
    with loop.opened(registration) as opened:
        yield registration.pk, opened
        opened.end()


def take_turns(first: loop.Sender, until: Callable[[], object]) -> bool:
    def is_done() -> bool:
        first.turn(0.01)
        return bool(until())

    return wait_until(is_done, timeout=60)


def in_hand() -> list[Delivery]:
    held = [pk for worker in Worker.objects.all() for pk in worker.deliveries]
    return list(Delivery.objects.filter(pk__in=held).order_by('sequence', 'pk'))


@contextmanager
def working() -> Iterator[threading.Thread]:
    """Run a drain job in a thread. It must end by itself."""
    thread = in_thread(work)
    yield thread
    thread.join(60)
    assert not thread.is_alive()


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        try:
            function()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@contextmanager
def open_transaction(prepare: Callable[[], Any]) -> Iterator[None]:
    """Keep another transaction open until the block ends."""
    is_ready, goes_on = threading.Event(), threading.Event()

    def run() -> None:
        with transaction.atomic():
            prepare()
            is_ready.set()
            goes_on.wait(60)

    thread = in_thread(run)
    assert is_ready.wait(30)
    try:
        yield
    finally:
        goes_on.set()
        thread.join(30)


def is_anybody_blocked() -> bool:
    return count_blocked() > 0


def count_blocked() -> int:
    with connection.cursor() as cursor:
        # Otherwise a transaction keeps its first view of the sessions.
        cursor.execute('SELECT pg_stat_clear_snapshot()')
        cursor.execute(
            'SELECT count(*) FROM pg_stat_activity '
            'WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0'
        )
        return cursor.fetchone()[0]


#
# The clock
#


def pass_retry_waits(**filters: Any) -> None:
    """Make retries due, but no held delivery."""
    pending = Delivery.objects.filter(status=StatusChoices.PENDING, due_at__isnull=False, **filters)
    pending.update(due_at=timezone.now())
    Event.objects.filter(retry_at__isnull=False).update(retry_at=timezone.now())


def pass_alive() -> None:
    Worker.objects.update(alive_until=timezone.now() - timedelta(seconds=1))


def pass_probe_interval(webhook: Webhook) -> None:
    Health.objects.filter(webhook=webhook).update(probe_at=timezone.now() - timedelta(seconds=1))


def expire(**filters: Any) -> None:
    open_ones = Delivery.objects.filter(status__in=OPEN_STATUSES, **filters)
    open_ones.update(expires_at=timezone.now() - timedelta(seconds=1))


#
# What came of it
#


def deliveries(*statuses: str, **filters: Any) -> list[Delivery]:
    found = Delivery.objects.filter(**filters).order_by('sequence', 'pk')
    return list(found.filter(status__in=statuses) if statuses else found)


def health(webhook: Webhook) -> Health:
    return Health.objects.get(webhook=webhook)


def arrivals(receiver: Receiver, path: str | None = None) -> list[tuple[int, int]]:
    """Return (object id, sequence) in order of arrival."""
    return [
        (request.json()['data']['id'], request.json()['sequence'])
        for request in receiver.matching(lambda request: path is None or request.path == path)
    ]


def sequences(requests: list[Received]) -> list[int]:
    return [request.json()['sequence'] for request in requests]


def most_at_once(receiver: Receiver, delay: float) -> int:
    """Return how many requests were surely under way at once, where each answer came after such a delay."""
    arrived = [request.arrived for request in receiver.requests]
    return max(sum(one - delay < other <= one for other in arrived) for one in arrived)


def disorder(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return arrivals after a later one of their object. Repetitions do not count."""
    highest: dict[int, int] = {}
    late = []
    for object_id, sequence in pairs:
        if sequence < highest.get(object_id, 0):
            late.append((object_id, sequence))
        highest[object_id] = max(sequence, highest.get(object_id, 0))
    return late
