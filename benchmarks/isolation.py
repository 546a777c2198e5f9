"""An idle webhook's delay, alone and beside other load: the worst of twenty."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dcim.models import Site
from django.db import connections, transaction
from tenancy.models import Tenant

from benchmarks import copies
from benchmarks.report import Row
from benchmarks.sides import OURS, Bed
from devstack.receiver import Answer, Received
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import backfill

BUSY, IDLE = '/busy', '/idle'
# Runs until its time is up.
ENDLESS = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'


def measure(bed: Bed) -> Iterator[Row]:
    bed.receiver.answers(BUSY, Answer(200, delay=0.02))
    count = 3 if bed.quick else 20
    backlog = 125 if bed.quick else 3000
    slow = 5 if bed.quick else 200
    turns, some = (1, 50) if bed.quick else (3, 5000)
    long = 1000 if bed.quick else 300_000
    large = 1000 if bed.quick else 50_000
    with bed.subscribed(OURS, Tenant, path=IDLE), bed.worker():
        alone = _worst(bed, count)
    yield _row('alone', alone)
    with _busy(bed, 8, backlog):
        yield _row(f'beside {8 * backlog:,} deliveries that wait for a healthy endpoint of 20 ms', _worst(bed, count))
    with _busy(bed, 1, slow, body_template=ENDLESS):
        yield _row(f'beside {slow} deliveries whose template takes its 2 s', _worst(bed, count))
    patterns, changed = (3, 2) if bed.quick else (30, 100)
    with _patterns(bed, patterns, changed):
        told = f'beside {changed} changes for {patterns} webhooks with a regular expression of 20 ms'
        yield _row(told, _worst(bed, count))
    with _import(bed, large):
        yield _row(f'beside an import of {large:,} objects', _worst(bed, count))
    kept = [_rate_of_import(bed, some, beside=True) / _rate_of_import(bed, some, beside=False) for _ in range(turns)]
    yield Row(f'rate of an import of {some:,} objects beside changes for an idle webhook, of that alone', '', kept)
    with _backfilled(bed, large):
        yield _row(f'beside a backfill of {large:,} objects', _worst(bed, count))
    with _busy(bed, 1, 100), _renamed():
        yield _row('beside an open transaction that has renamed a webhook with changes', _worst(bed, count))
    with _log(bed, long, 'delivered') as webhook:
        started = time.monotonic()
        webhook.delete()
        yield Row(f'a webhook with {long:,} deliveries is deleted', 'ms', [(time.monotonic() - started) * 1000])
        yield _row('while its log is removed', _worst(bed, count))
    with _log(bed, long, 'pending'):
        yield _row(f'while {long:,} deliveries of a paused webhook expire', _worst(bed, count))


@contextmanager
def _patterns(bed: Bed, webhooks: int, count: int) -> Iterator[None]:
    """Each evaluation stays below its limit."""
    with bed.subscribed(OURS, Site, webhooks, path=BUSY), bed.subscribed(OURS, Tenant, path=IDLE):
        condition = {'attr': 'description', 'op': 'regex', 'value': '(a+)+$'}
        Webhook.objects.filter(object_types__model='site').update(conditions=condition)
        sites = bed.new_sites(count)
        text = _slow_text(0.02)
        for one in sites:
            one.description = text
        bed.save(sites)
        with bed.worker():
            yield


def _slow_text(seconds: float) -> str:
    """Return the shortest text for which the pattern takes this many seconds."""
    text, taken = '!', 0.0
    while taken < seconds:
        text, began = f'a{text}', time.perf_counter()
        re.match('(a+)+$', text)
        taken = time.perf_counter() - began
    return text


@contextmanager
def _import(bed: Bed, count: int) -> Iterator[None]:
    with bed.subscribed(OURS, Site, path=BUSY), bed.subscribed(OURS, Tenant, path=IDLE):
        bed.save(bed.new_sites(1))
        unlike = {'uuid': 'gen_random_uuid()', 'object_id': 'object_id + n'}
        copies.make(Event, count, **unlike, sequence="nextval('webhooks_event_sequence')")
        with bed.worker():
            bed.receiver.wait_for(1, _is_busy, timeout=120)
            yield


def _rate_of_import(bed: Bed, count: int, *, beside: bool) -> float:
    """Return arriving objects a second, with other changes beside the import."""
    with _import(bed, count):
        number = 0
        while beside and len(bed.receiver.matching(_is_busy)) < count:
            number += 1
            _delay(bed, number)
        got = bed.receiver.wait_for(count, _is_busy, timeout=120)
    return count / (got[count - 1].arrived - got[0].arrived)


def _is_busy(request: Received) -> bool:
    return request.path == BUSY


@contextmanager
def _backfilled(bed: Bed, count: int) -> Iterator[None]:
    missing = max(count - Site.objects.count(), 0)
    Site.objects.bulk_create(bed.new_sites(missing), batch_size=1000)
    with bed.subscribed(OURS, Site, path=BUSY), bed.subscribed(OURS, Tenant, path=IDLE), bed.worker():
        webhook = Webhook.objects.get(object_types__model='site')
        backfill.start(webhook, backfill.choose(webhook))
        bed.receiver.wait_for(1, _is_busy, timeout=120)
        yield


@contextmanager
def _log(bed: Bed, count: int, status: str) -> Iterator[Webhook]:
    """The log is over, or pending and expired during a pause."""
    with bed.subscribed(OURS, Site, path=BUSY), bed.subscribed(OURS, Tenant, path=IDLE):
        webhook = Webhook.objects.get(object_types__model='site')
        with bed.worker():
            bed.save(bed.new_sites(1))
            bed.receiver.wait_for(1, _is_busy, timeout=120)
            Webhook.objects.filter(pk=webhook.pk).update(paused=True)
            unlike = {'uuid': 'gen_random_uuid()', 'object_id': 'object_id + n', 'sequence': 'sequence + n'}
            times = {'due_at': 'now()', 'expires_at': "now() - interval '1 second'", 'finished_at': 'NULL'}
            copies.make(Delivery, count, f'webhook_id = {webhook.pk}', **unlike, **times, status=f"'{status}'")
            yield webhook


@contextmanager
def _renamed() -> Iterator[None]:
    """The transaction stays open."""
    ready, over = threading.Event(), threading.Event()

    def rename() -> None:
        with transaction.atomic():
            Webhook.objects.filter(object_types__model='site').update(name='renamed')
            ready.set()
            over.wait(120)
        connections.close_all()

    thread = threading.Thread(target=rename)
    thread.start()
    ready.wait(30)
    try:
        yield
    finally:
        over.set()
        thread.join()


def _row(what: str, worst: float) -> Row:
    return Row(f'a change for an idle webhook arrives, {what}', 'ms, worst', [worst])


@contextmanager
def _busy(bed: Bed, webhooks: int, count: int, **fields: object) -> Iterator[None]:
    """A worker has `count` changes for each of the other webhooks."""
    with bed.subscribed(OURS, Site, webhooks, path=BUSY), bed.subscribed(OURS, Tenant, path=IDLE):
        Webhook.objects.filter(object_types__model='site').update(**fields)
        bed.save(bed.new_sites(count))
        with bed.worker():
            if not fields:
                bed.receiver.wait_for(100, _is_busy, timeout=120)
            yield


def _worst(bed: Bed, count: int) -> float:
    """Return milliseconds. The worker starts with the first change, which does not count."""
    return max([_delay(bed, number) for number in range(1, count + 2)][1:])


def _delay(bed: Bed, number: int) -> float:
    bed.save(bed.new_tenants(1))
    saved = time.time()
    arrived = bed.receiver.wait_for(number, lambda request: request.path == IDLE, timeout=120)[number - 1].arrived
    return (arrived - saved) * 1000
