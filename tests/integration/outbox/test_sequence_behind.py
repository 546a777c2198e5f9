"""A sequence that is behind the numbers in use, as `loaddata` and logical replication leave it, loses no change."""

import uuid
from contextlib import suppress
from io import StringIO

import pytest
from dcim.models import Site
from django.core.management import call_command
from django.db import connection, transaction
from support.builders import CREATED, NOWHERE, UPDATED, changes, recorded, site, subscribe
from support.engine import arrivals, deliveries, dispatch_all, in_thread, work
from support.log import delivery, event
from support.writers import PATIENCE, Writer, in_parallel

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks.engine import dispatch
from webhooks.models import Delivery, Event, Subscription, Webhook, sequence
from webhooks.models.sequence import SEQUENCE

pytestmark = pytest.mark.usefixtures('committed')

HOOK = '/hook'


def set_sequence(value: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute('SELECT setval(%s, %s)', [SEQUENCE, value])


def last_value() -> int:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT last_value FROM {SEQUENCE}')
        return cursor.fetchone()[0]


def status() -> str:
    output = StringIO()
    with suppress(SystemExit):
        call_command('webhooks_status', stdout=output)
    return output.getvalue()


@pytest.fixture
def advanced() -> int:
    """A number that the tests' small ones are far below."""
    set_sequence(last_value() + 1000)
    return last_value()


@pytest.fixture
def webhook(advanced: int, receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def dispatched() -> list[int]:
    """Return the objects of the deliveries, in their order."""
    return [one.object_id for one in deliveries()]


def test_a_change_below_all_subscriptions_is_sent(webhook, receiver):
    set_sequence(1)
    place = site()
    assert recorded(Site)[0].sequence < webhook.subscriptions.first().since
    assert work() == '1 delivered'
    assert [pk for pk, _number in arrivals(receiver)] == [place.pk]


def test_a_job_sets_it_above_every_number_in_use(webhook, advanced):
    highest = advanced + 500
    delivery(event(site(), sequence=highest), webhook, sequence=highest)
    set_sequence(1)
    work()
    assert last_value() >= highest
    assert sequence.mend() is None


def test_a_worker_sets_it_forward_when_it_starts(webhook, rqworker):
    set_sequence(1)
    rqworker('low')
    since = max(webhook.subscriptions.values_list('since', flat=True))
    assert wait_until(lambda: last_value() >= since, timeout=PATIENCE)


def test_the_status_command_sets_it_forward_and_says_so(webhook):
    set_sequence(1)
    site()
    since = max(webhook.subscriptions.values_list('since', flat=True))
    assert f'set forward from 2 to {since}, 1 events drew anew' in status()
    assert 'set forward' not in status()


def test_it_is_left_alone_where_it_is_not_behind(webhook):
    site()
    work()
    before = last_value()
    assert sequence.mend() is None
    assert last_value() == before
    set_sequence(1)
    assert sequence.mend().last == 1


def test_changes_that_drew_too_low_a_number_keep_their_order(webhook, receiver):
    place = site()
    work()
    (_before,) = receiver.requests
    set_sequence(1)
    for name in ('first', 'second', 'third'):
        place.description = name
        place.save()
    work()
    got = [request.json() for request in receiver.requests]
    assert [one['data']['description'] for one in got] == ['', 'first', 'second', 'third']
    numbers = [one['sequence'] for one in got]
    assert numbers == sorted(numbers)


def test_what_waited_before_goes_before_what_drew_too_low_a_number(webhook, receiver):
    place = site()
    set_sequence(1)
    place.description = 'later'
    place.save()
    work()
    assert [request.json()['data']['description'] for request in receiver.requests] == ['', 'later']


def test_a_transaction_that_is_open_while_it_is_mended_loses_nothing(webhook, caplog):
    set_sequence(1)
    places = []
    writer = Writer(lambda: places.append(site())).has_written()
    assert sequence.mend().events == 0
    writer.finish()
    dispatch_all()
    assert dispatched() == [places[0].pk]
    assert 'sequence=low events=1' in caplog.text


def test_what_a_dispatcher_has_in_hand_meanwhile_is_sent_once(webhook):
    """It has matched the event by its low number, and would delete it."""
    set_sequence(1)
    place = site()
    lease = uuid.uuid4()
    events, _dealt = dispatch.event_claims.claim(lease, 10)
    matches, _components = dispatch.match(events)
    assert not matches[events[0].pk]

    sequence.mend()
    dispatch._write(lease, events, matches, {}, set())

    assert changes(Site) == [(CREATED, place.pk)]
    dispatch_all()
    assert dispatched() == [place.pk]


def test_what_was_before_a_subscription_is_not_sent_although_the_sequence_was_mended(advanced):
    witness = subscribe(NOWHERE, Site, kinds=(UPDATED,))
    place = site()
    webhook = subscribe(NOWHERE, Site)
    set_sequence(1)
    place.save()
    dispatch_all()
    of = {one: [(d.event.kind, d.object_id) for d in deliveries(webhook=one)] for one in (witness, webhook)}
    assert of == {witness: [(UPDATED, place.pk)], webhook: [(UPDATED, place.pk)]}


def test_a_kind_that_nobody_asks_for_is_discarded_with_any_number(advanced):
    subscribe(NOWHERE, Site, kinds=(UPDATED,))
    place = site()
    set_sequence(1)
    site()
    place.save()
    dispatch_all()
    assert changes(Site) == [(UPDATED, place.pk)]


def test_a_webhook_that_is_disabled_meanwhile_gets_what_was_recorded_before(webhook):
    before, low = site(), None
    set_sequence(1)
    low = site()
    webhook.enabled = False
    webhook.save()
    assert all(one.until > one.since for one in Subscription.objects.all())
    webhook.enabled = True
    webhook.save()
    after = site()
    dispatch_all()
    assert dispatched() == [before.pk, low.pk, after.pk]


def test_many_mend_it_at_once_and_no_number_is_drawn_twice(webhook):
    numbers: list[int] = []

    def draw() -> None:
        sequence.mend()
        numbers.extend(sequence.draw() for _ in range(50))

    highest = max(webhook.subscriptions.values_list('since', flat=True))
    set_sequence(1)
    in_parallel([draw] * 6)
    assert len(set(numbers)) == 300
    assert min(numbers) > highest


def test_an_open_transaction_that_mended_it_holds_up_nobody(webhook):
    set_sequence(1)
    writer = Writer(sequence.mend).has_written()
    set_sequence(1)
    other = in_thread(sequence.mend)
    other.join(10)
    assert not other.is_alive()
    writer.finish()
    assert last_value() > 1


def test_events_that_are_dispatched_keep_their_numbers(webhook):
    site()
    dispatch_all()
    before = list(Event.objects.values_list('sequence', flat=True))
    set_sequence(1)
    with transaction.atomic():
        site()
    sequence.mend()
    assert list(Event.objects.order_by('sequence').values_list('sequence', flat=True))[:1] == before
    dispatch_all()
    assert Delivery.objects.count() == 2


def test_a_promoted_replica_whose_sequence_is_ahead_is_left_alone(webhook, receiver):
    """PostgreSQL writes 32 values of a sequence ahead."""
    place = site()
    work()
    ahead = last_value() + 32
    set_sequence(ahead)
    place.save()
    assert work() == '1 delivered'
    assert [number for _pk, number in arrivals(receiver)] == [ahead - 32, ahead + 1]
    assert sequence.mend() is None
