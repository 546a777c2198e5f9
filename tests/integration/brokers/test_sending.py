"""What a webhook of a broker keeps: the promises of HTTP, by the same engine."""

import json
from typing import Any

import pytest
from core.models import ObjectType
from dcim.models import Site
from django.db import transaction
from extras.models import CustomField
from support.brokers import ANY_DRIVER, Got, Reader, Relay
from support.builders import site, subscribe
from support.engine import (
    deliveries,
    disorder,
    dispatch_all,
    health,
    pass_probe_interval,
    pass_retry_waits,
    work,
    working,
)
from support.settings import change_settings
from tenancy.models import Tenant

from devstack.brokers import PASSWORD, Broker
from devstack.ports import free_port
from devstack.process import wait_until
from webhooks.choices import StatusChoices
from webhooks.models import Attempt, Delivery, Webhook
from webhooks.services import redelivery, trial

pytestmark = pytest.mark.usefixtures('committed', 'bus')

PENDING, DELIVERED, FAILED = StatusChoices.PENDING, StatusChoices.DELIVERED, StatusChoices.FAILED
LEFT_OUT = 'community-of-the-device'
SEPARATORS = {'amqp': '/', 'mqtt': '/'}


@pytest.fixture
def before(reader: Reader) -> int:
    """How many messages other tests have left."""
    return len(reader.read())


@pytest.fixture
def url(bus: Broker, reader: Reader) -> str:
    return bus.url(reader.address)


def identities(got: list[Got]) -> list[tuple[int, int]]:
    return [(one.json()['data']['id'], one.json()['sequence']) for one in got]


def test_key_id_and_signature_go_with_the_message(url, reader, before, driver):
    webhook = subscribe(url, Site, secret='0123456789abcdef')
    changed = site()
    work()
    (delivery,) = deliveries(webhook=webhook)
    (got,) = reader.wait_for(before + 1)[before:]
    assert got.key == ('' if driver == 'nats' else f'dcim.site:{changed.pk}')
    assert got.id == got.headers['webhook-id'] == str(delivery.uuid)
    assert got.headers['webhook-signature'].startswith('v1,')
    assert got.headers['content-type'] == 'application/json'


def test_the_attempt_shows_the_confirmation(url, reader, before):
    webhook = subscribe(url, Site)
    site()
    work()
    attempt = Attempt.objects.get(delivery__webhook=webhook)
    assert (attempt.method, attempt.url, attempt.error, attempt.response_status) == ('PUBLISH', url, '', None)
    assert attempt.response_headers
    assert all(attempt.response_headers.values())


def test_a_template_makes_the_address(bus, reader, before):
    # A topic of Kafka has to be there.
    made = '' if bus.driver == 'kafka' else '{{ object_type }}.{{ event }}'
    address = f'netbox{SEPARATORS.get(bus.driver, ".")}{made or "sites"}'
    subscribe(bus.url(address), Site)
    site()
    work()
    (got,) = reader.wait_for(before + 1)[before:]
    if bus.driver != 'kafka':
        assert got.address.replace('/', '.').endswith('dcim.site.created')


@ANY_DRIVER
def test_cloud_events_name_the_key_as_partition(url, reader, before):
    subscribe(url, Site, payload_format='cloudevents')
    changed = site()
    work()
    (got,) = reader.wait_for(before + 1)[before:]
    assert got.headers['content-type'] == 'application/cloudevents+json'
    assert got.json()['partitionkey'] == f'dcim.site:{changed.pk}'


@ANY_DRIVER
@pytest.mark.parametrize(
    'chosen', [{'omit': ['description', 'custom_fields.snmp', 'tenant']}, {'fields': ['id', 'name', 'status']}], ids=str
)
def test_a_left_out_value_stands_nowhere_in_a_message_or_its_log(url, reader, before, chosen, api_client):
    CustomField.objects.create(name='snmp', type='text').object_types.set([ObjectType.objects.get_for_model(Site)])
    ((name, keys),) = chosen.items()
    subscribe(
        url, Site, include_snapshots=True, additional_headers='X-Keys: {{ data.keys() | join(",") }}',
        payload_format='cloudevents', **{name: {'dcim.site': keys}},
    )  # fmt: skip
    tenant = Tenant.objects.create(name=f'{LEFT_OUT} AG', slug='acme')
    place = site(description=LEFT_OUT, custom_field_data={'snmp': LEFT_OUT}, tenant=tenant)
    with transaction.atomic():
        place.snapshot()
        place.description = f'{LEFT_OUT}!'
        place.save()
    place.delete()
    work()
    got = reader.wait_for(before + 3)[before:]
    assert all(place.name in str(one) for one in got)
    assert LEFT_OUT not in str(got)
    query = '{webhooks_delivery_list {error attempts {url error request_headers response_headers response_body}}}'
    answers = [
        api_client.post('/graphql/', {'query': query}, format='json'),
        *(api_client.get(f'/api/plugins/webhooks/{kind}/') for kind in ('deliveries', 'webhooks')),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert not any(LEFT_OUT in answer.content.decode() for answer in answers)


@ANY_DRIVER
def test_a_change_set_is_one_message_with_the_webhooks_key(url, reader, before, driver):
    webhook = subscribe(url, Site, change_set=True)
    with transaction.atomic():
        site()
        site()
    work()
    (got,) = reader.wait_for(before + 1)[before:]
    assert len(got.json()['changes']) == 2
    assert got.key == ('' if driver == 'nats' else f'webhook:{webhook.pk}')


@ANY_DRIVER
def test_a_test_is_published_and_announced(url, reader, before):
    webhook = subscribe(url, Site)
    site()
    delivery = trial.send_test(webhook)
    assert delivery.status == DELIVERED
    assert len(reader.wait_for(before + 1)) == before + 1
    assert str(trial.announce(delivery)[1]).endswith('the broker confirmed it.')


@ANY_DRIVER
def test_a_broker_that_is_away_suspends_the_webhook_which_goes_on_when_it_is_back(
    url, bus, reader, before, monkeypatch, driver
):
    webhook = subscribe(url, Site, timeout=1)
    change_settings(monkeypatch, brokers={'bus': _elsewhere(bus, free_port())})
    first = site()
    for _ in range(5):
        work()
        pass_retry_waits()
    assert health(webhook).suspended_since
    first.description = 'later'
    first.save()
    work()
    assert len(deliveries(PENDING)) == 2
    change_settings(monkeypatch, brokers={'bus': bus.options})
    # The broker answers a busy machine late, too.
    Webhook.objects.filter(pk=webhook.pk).update(timeout=60)
    pass_probe_interval(webhook)
    work()
    pass_retry_waits()
    work()
    assert len(deliveries(DELIVERED)) == 2
    got = reader.wait_for(before + 2)[before:]
    assert disorder(identities(got)) == []


@ANY_DRIVER
class TestIsolation:
    @pytest.mark.parametrize('how', ['hangs', 'resets'])
    def test_a_broker_that_never_confirms_costs_an_http_webhook_nothing(self, url, relay: Relay, receiver, how):
        busy = subscribe(url, Site, timeout=20)
        subscribe(receiver.url('/'), Tenant)
        relay.cut()
        setattr(relay, how, True)
        connections = relay.connections
        for _ in range(20):
            site()
        dispatch_all()
        with working():
            assert wait_until(lambda: relay.connections > connections, timeout=60)
            Tenant.objects.create(name='Tenant', slug='tenant')
            receiver.wait_for(1)
            assert {one.status for one in deliveries(webhook=busy)} == {PENDING}  # none is confirmed
            setattr(relay, how, False)
            relay.cut()

    def test_an_address_that_nobody_takes_costs_another_webhook_of_the_broker_nothing(self, url, bus, reader, before):
        if not reader.unknown:
            pytest.skip('any address is there')
        wrong = subscribe(bus.url(reader.unknown), Site)
        right = subscribe(url, Site)
        for _ in range(20):
            site()
        work()
        assert len(deliveries(DELIVERED, webhook=right)) == 20
        assert {one.attempt_count for one in deliveries(webhook=right)} == {1}
        assert len(deliveries(PENDING, webhook=wrong)) == 20
        assert len(reader.wait_for(before + 20)) == before + 20


@ANY_DRIVER
def test_a_refused_message_can_be_redelivered_under_its_id(bus, reader, before):
    if not reader.unknown:
        pytest.skip('any address is there')
    webhook = subscribe(bus.url(reader.unknown), Site, max_attempts=1)
    site()
    work()
    (failed,) = deliveries(FAILED)
    assert failed.error
    webhook.refresh_from_db()
    webhook.payload_url = bus.url(reader.address)
    webhook.full_clean()
    webhook.save()
    redelivery.redeliver(Delivery.objects.filter(pk=failed.pk))
    work()
    (got,) = reader.wait_for(before + 1)[before:]
    assert got.id == str(failed.uuid)


def test_no_secret_of_the_broker_is_in_the_log(bus, reader, monkeypatch, caplog):
    change_settings(monkeypatch, brokers={'bus': _elsewhere(bus, free_port())})
    subscribe(bus.url(reader.address), Site, timeout=1)
    site()
    work()
    shown = json.dumps([list(Attempt.objects.values_list('url', 'error')), caplog.text], default=str)
    assert 'bus' in shown
    assert PASSWORD not in shown


def _elsewhere(broker: Broker, port: int) -> dict[str, Any]:
    text = json.dumps(broker.options).replace(str(broker.shown_port), str(port))
    return json.loads(text)
