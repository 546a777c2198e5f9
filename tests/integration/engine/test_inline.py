import threading

import pytest
from dcim.models import Site
from support.builders import site, subscribe

from devstack.process import wait_until
from webhooks.choices import StatusChoices
from webhooks.engine.process import inline
from webhooks.models import Delivery, Event, Health, Worker

pytestmark = pytest.mark.usefixtures('committed')


def test_a_change_is_sent(receiver):
    webhook = subscribe(receiver.url('/hook'), Site)
    site(name='Bern')
    assert inline.run() == {StatusChoices.DELIVERED: 1}
    assert [request.json()['data']['name'] for request in receiver.requests] == ['Bern']
    assert Delivery.objects.get().status == StatusChoices.DELIVERED
    assert Event.objects.get().dispatched_at
    assert Health.objects.get(webhook=webhook).delivered == 1
    assert not Worker.objects.exists()


def test_it_leaves_no_thread_behind(receiver):
    subscribe(receiver.url('/hook'), Site)
    site()
    before = set(threading.enumerate())
    assert inline.run() == {StatusChoices.DELIVERED: 1}
    # The receiver's own thread for the request ends soon.
    assert wait_until(lambda: set(threading.enumerate()) <= before, timeout=60)


def test_many_changes_of_objects_are_sent_in_order(receiver):
    subscribe(receiver.url('/hook'), Site)
    sites = [site() for _ in range(30)]
    for number in range(5):
        for one in sites:
            one.description = str(number)
            one.save()
    inline.run()
    for one in sites:
        told = [request.json()['data'] for request in receiver.requests if request.json()['data']['id'] == one.pk]
        assert [data['description'] for data in told] == ['', '0', '1', '2', '3', '4']


def test_a_failure_is_retried(receiver):
    receiver.answers('/hook', 500)
    subscribe(receiver.url('/hook'), Site)
    site()
    assert inline.run() == {StatusChoices.PENDING: 1}
    delivery = Delivery.objects.get()
    assert delivery.status == StatusChoices.PENDING
    assert delivery.attempts.get().response_status == 500


def test_it_ends_while_a_change_waits_until_its_object_is_quiet(receiver):
    subscribe(receiver.url('/hook'), Site, quiet=3600)
    site()
    assert inline.run() == {}
    assert Delivery.objects.get().status == StatusChoices.PENDING


def test_a_worker_sends(receiver, rqworker):
    subscribe(receiver.url('/hook'), Site)
    rqworker('high', 'default', 'low')
    site(name='Bern')
    assert receiver.wait_for(1)
    one = Site.objects.get()
    for number in range(20):
        one.description = str(number)
        one.save()
    assert receiver.wait_for(21)
    assert [request.json()['data']['description'] for request in receiver.requests] == ['', *map(str, range(20))]
