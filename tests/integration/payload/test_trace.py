"""W3C Trace Context goes from the request that made a change to the receiver."""

import pytest
from dcim.models import Device, Site
from django.db import transaction
from support.builders import device, interface, site, subscribe
from support.engine import work

from webhooks.models import Delivery, Event
from webhooks.services import redelivery

PARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
STATE = 'vendor=t61rcWkgMzE,rojo=00f067aa0ba902b7'
SITES = '/api/dcim/sites/'

pytestmark = pytest.mark.usefixtures('committed')


def create(api_client, name: str = 'Bern', **headers: str) -> None:
    answer = api_client.post(SITES, {'name': name, 'slug': name.lower()}, format='json', headers=headers)
    assert answer.status_code == 201, answer.content


def test_a_request_has_the_trace_of_its_change_and_so_has_a_redelivery(api_client, receiver):
    subscribe(receiver.url('/'), Site)
    create(api_client, traceparent=PARENT, tracestate=STATE)
    work()
    redelivery.redeliver(Delivery.objects.all())
    work()
    traces = [(one.header('traceparent'), one.header('tracestate')) for one in receiver.requests]
    assert traces == [(PARENT, STATE)] * 2
    assert 'traceparent' not in receiver.requests[0].json()


def test_a_change_without_a_trace_sends_none(api_client, receiver):
    subscribe(receiver.url('/'), Site)
    create(api_client)
    site()
    work()
    assert [one.header('traceparent') for one in receiver.requests] == [None, None]


def test_an_invalid_traceparent_is_not_passed_on(api_client, receiver):
    subscribe(receiver.url('/'), Site)
    wrong = ('', 'nonsense', PARENT.upper(), f'{PARENT}-more', '00-' + '0' * 32 + PARENT[35:])
    for number, parent in enumerate(wrong):
        create(api_client, f'Site{number}', traceparent=parent, tracestate=STATE)
    work()
    assert [event.trace for event in Event.objects.all()] == [None] * len(wrong)
    assert [request.header('tracestate') for request in receiver.requests] == [None] * len(wrong)


def test_a_wrong_tracestate_takes_nothing_else_along(api_client, receiver):
    subscribe(receiver.url('/'), Site)
    create(api_client, traceparent=PARENT, tracestate='A=1')
    work()
    assert receiver.requests[0].header('traceparent') == PARENT
    assert receiver.requests[0].header('tracestate') is None


def test_a_header_of_the_webhook_wins(api_client, receiver):
    subscribe(receiver.url('/'), Site, additional_headers='Traceparent: mine')
    create(api_client, traceparent=PARENT)
    work()
    assert receiver.requests[0].header('traceparent') == 'mine'


def test_a_request_of_several_changes_has_the_trace_of_their_transaction(api_client, receiver):
    subscribe(receiver.url('/'), Site, change_set=True)
    rows = [{'name': name, 'slug': name} for name in ('a', 'b')]
    assert api_client.post(SITES, rows, format='json', headers={'traceparent': PARENT}).status_code == 201
    work()
    (request,) = receiver.requests
    assert request.header('traceparent') == PARENT


def test_a_cloudevent_has_it_as_extension(api_client, receiver):
    subscribe(receiver.url('/'), Site, payload_format='cloudevents')
    create(api_client, traceparent=PARENT, tracestate=STATE)
    work()
    shown = receiver.requests[0].json()
    assert (shown['traceparent'], shown['tracestate']) == (PARENT, STATE)


def test_a_feed_has_it_in_its_headers(api_client):
    webhook = subscribe('', Site)
    create(api_client, traceparent=PARENT)
    site()
    work()
    answer = api_client.get(f'/api/plugins/webhooks/webhooks/{webhook.pk}/feed/')
    traces = [item['headers'].get('traceparent') for item in answer.json()['items']]
    assert traces == [PARENT, None]


def test_a_device_has_the_trace_of_its_component(api_client, receiver):
    port = interface(device())
    subscribe(receiver.url('/'), Device, kinds=('updated',), include_components=True)
    address = f'/api/dcim/interfaces/{port.pk}/'
    answer = api_client.patch(address, {'description': 'new'}, format='json', headers={'traceparent': PARENT})
    assert answer.status_code == 200
    work()
    (request,) = receiver.requests
    assert request.json()['caused_by'] == ['dcim.interface']
    assert request.header('traceparent') == PARENT


def test_nothing_is_kept_outside_a_request():
    subscribe('http://127.0.0.1:9/', Site)
    with transaction.atomic():
        place = site()
        place.save()
    assert Event.objects.get().trace is None
