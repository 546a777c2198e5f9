"""A delivery that kills its worker's process, as one does for which memory runs out: the others arrive, and it ends."""

import signal

import pytest
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from support.builders import site, subscribe
from support.chaos.victims import Children, die
from support.engine import pass_event_leases, pass_leases, work
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks import rendering
from webhooks.choices import StatusChoices
from webhooks.engine import event_claims, event_rendering, rescue, timer
from webhooks.models import Delivery
from webhooks.payload import http_request

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The threads of the receiver, which the children do not use.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]


def pass_waits() -> None:
    pass_leases()
    rescue.rescue()
    Delivery.objects.filter(status=StatusChoices.PENDING).update(due_at=timezone.now())


def test_a_poisonous_delivery_fails_with_the_reason_and_all_others_arrive(receiver: Receiver, children: Children):
    sites = subscribe(receiver.url('/sites'), Site, max_attempts=2)
    tenants = subscribe(receiver.url('/tenants'), Tenant)
    places = [site() for _ in range(4)]
    poison = places[1].pk
    build = http_request.build

    def poisoned(delivery: Delivery, now: float) -> object:
        if (delivery.object_type.model, delivery.object_id) == ('site', poison):
            die()
        return build(delivery, now)

    def job() -> None:
        http_request.build = poisoned
        work()

    assert children.wait(children.fork(job)) == signal.SIGKILL
    pass_waits()
    Tenant.objects.create(name='Later', slug='later')
    deaths = 1
    for _ in range(5):
        deaths += children.wait(children.fork(job)) == signal.SIGKILL
        # Whatever else is due goes out before the one that may kill.
        assert Delivery.objects.get(webhook=tenants).status == StatusChoices.DELIVERED
        pass_waits()
    assert deaths == rescue.LAPSES
    failed = Delivery.objects.get(webhook=sites, status=StatusChoices.FAILED)
    assert (failed.object_id, failed.error) == (poison, rescue.LAPSED)
    delivered = Delivery.objects.filter(webhook=sites, status=StatusChoices.DELIVERED)
    assert {one.object_id for one in delivered} == {place.pk for place in places} - {poison}
    assert {one.attempts.filter(error=rescue.LAPSED).count() for one in delivered} <= {0, 1}


def test_an_event_that_kills_whoever_renders_it_fails_and_all_others_arrive(receiver: Receiver, children: Children):
    subscribe(receiver.url('/sites'), Site)
    with transaction.atomic():
        places = [site() for _ in range(4)]
    poison = places[1].pk
    render = rendering.render

    def poisoned(model: type, snapshots: list) -> list:
        if poison in [snapshot['row']['id'] for snapshot in snapshots]:
            die()
        return render(model, snapshots)

    def job() -> None:
        rendering.render = poisoned
        work()

    deaths = 0
    while timer.something_to_do():
        deaths += children.wait(children.fork(job)) == signal.SIGKILL
        # Only events were in its hands: the deliveries of others are safe.
        assert not Delivery.objects.filter(status=StatusChoices.SENDING).exists()
        pass_event_leases()
    assert deaths == event_claims.MOST
    failed = Delivery.objects.get(status=StatusChoices.FAILED)
    assert (failed.object_id, failed.error) == (poison, event_rendering.GIVEN_UP)
    delivered = Delivery.objects.filter(status=StatusChoices.DELIVERED)
    assert {one.object_id for one in delivered} == {place.pk for place in places} - {poison}
