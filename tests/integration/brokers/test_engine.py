"""What the engine does for an endpoint it does for a broker too: backfills, pauses, replacing, counting."""

import pytest
from dcim.models import Site
from prometheus_client import generate_latest
from support.brokers import ANY_DRIVER, Reader
from support.builders import site, subscribe
from support.engine import deliveries, disorder, dispatch_all, work

from devstack.brokers import Broker
from webhooks import metrics
from webhooks.choices import StatusChoices
from webhooks.models import Webhook
from webhooks.services import backfill

pytestmark = [pytest.mark.usefixtures('committed', 'bus'), ANY_DRIVER]


@pytest.fixture
def before(reader: Reader) -> int:
    """How many messages other tests have left."""
    return len(reader.read())


@pytest.fixture
def url(bus: Broker, reader: Reader) -> str:
    return bus.url(reader.address)


def test_a_backfill_publishes_each_object_and_none_goes_back(url, reader, before):
    places = [site() for _ in range(5)]
    webhook = subscribe(url, Site)
    backfill.start(webhook, backfill.choose(webhook))
    places[0].description = 'changed meanwhile'
    places[0].save()
    work()
    got = reader.wait_for(before + 6)[before:]
    assert {one.json()['data']['id'] for one in got} == {one.pk for one in places}
    assert disorder([(one.json()['data']['id'], one.json()['sequence']) for one in got]) == []
    assert {one.status for one in deliveries()} == {StatusChoices.DELIVERED}


def test_after_a_pause_only_the_last_change_of_an_object_is_published(url, reader, before):
    webhook = subscribe(url, Site, latest_only=True)
    Webhook.objects.update(paused=True)
    place = site()
    for name in ('second', 'last'):
        place.name = name
        place.save()
    dispatch_all()
    work()
    assert len(reader.read()) == before
    Webhook.objects.update(paused=False)
    work()
    (got,) = reader.wait_for(before + 1)[before:]
    assert got.json()['data']['name'] == 'last'
    assert len(deliveries(StatusChoices.SUPERSEDED, webhook=webhook)) == 2


def test_metrics_count_what_the_broker_confirmed(url):
    subscribe(url, Site, name='Bus')
    site()
    work()
    shown = generate_latest(metrics._registry).decode()
    assert 'webhooks_deliveries_closed_total{outcome="delivered",webhook="Bus"} 1.0' in shown


def test_only_the_chosen_keys_are_published(url, reader, before):
    subscribe(url, Site, fields={'dcim.site': ['id', 'name']})
    place = site()
    work()
    (got,) = reader.wait_for(before + 1)[before:]
    assert got.json()['data'] == {'id': place.pk, 'name': place.name}
