"""A test without an object is a ping."""

import json

import pytest
from dcim.models import Site
from support.builders import site, subscribe

from devstack.receiver import Receiver
from webhooks.choices import FormatChoices
from webhooks.models import Delivery, Event, Webhook
from webhooks.services import redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')


@pytest.mark.parametrize('models', [(), (Site,)])
def test_a_ping_is_about_the_webhook_itself(receiver: Receiver, models):
    webhook = subscribe(receiver.url('/'), *models, name='CMDB', secret='s3cret')
    assert trial.send_test(webhook).status == 'delivered'
    (request,) = receiver.wait_for(1)
    body = request.json()
    assert (body['event'], body['model'], body['object_type'], body['test']) == (
        'test', 'Webhook', 'webhooks.webhook', True,
    )  # fmt: skip
    assert (body['data']['id'], body['data']['name'], body['data']['display']) == (webhook.pk, 'CMDB', 'CMDB')
    assert 's3cret' not in request.body.decode()
    assert request.header('webhook-signature')


def test_with_an_object_the_object_is_sent(receiver: Receiver):
    webhook = subscribe(receiver.url('/'), Site)
    site(name='Bern')
    trial.send_test(webhook)
    assert receiver.wait_for(1)[0].json()['data']['name'] == 'Bern'


@pytest.mark.parametrize('payload_format', FormatChoices.values())
@pytest.mark.parametrize('way', [{}, {'change_set': True}, {'include_snapshots': True}])
def test_it_goes_in_each_format(receiver: Receiver, payload_format: str, way: dict[str, bool]):
    if payload_format == FormatChoices.THIN:
        way = {name: value for name, value in way.items() if name != 'include_snapshots'}
    webhook = subscribe(receiver.url('/'), Site, payload_format=payload_format, **way)
    assert trial.send_test(webhook).error == ''
    assert 'test' in json.dumps(receiver.wait_for(1)[0].json())


def test_a_template_can_name_what_is_in_it(receiver: Receiver):
    webhook = subscribe(receiver.url('/'), name='CMDB', body_template='{{ event }} {{ model }} {{ data.name }}')
    trial.send_test(webhook)
    assert receiver.wait_for(1)[0].body.decode() == 'test webhook CMDB'


def test_its_pages_can_be_opened(receiver: Receiver, admin_pages, api_client):
    trial.send_test(subscribe(receiver.url('/'), name='CMDB'))
    log = Delivery.objects.get()
    for address in (
        log.get_absolute_url(),
        Event.objects.get().get_absolute_url(),
        '/plugins/webhooks/deliveries/',
        '/plugins/webhooks/events/',
        f'/admin/webhooks/delivery/{log.pk}/change/',
    ):
        page = admin_pages.get(address)
        assert page.status_code == 200
        assert 'CMDB' in page.content.decode()
    assert api_client.get(f'/api/plugins/webhooks/events/{log.event_id}/').json()['kind'] == 'test'


def test_it_is_shown_to_those_who_may_view_the_webhook(receiver: Receiver, clerk_api, grant):
    webhook = subscribe(receiver.url('/'), name='CMDB')
    trial.send_test(webhook)
    grant(Event, 'view')
    address = f'/api/plugins/webhooks/events/{Event.objects.get().pk}/'
    assert clerk_api.get(address).json()['data'] is None
    grant(Webhook, 'view')
    assert clerk_api.get(address).json()['data']['name'] == 'CMDB'


def test_it_can_be_redelivered(receiver: Receiver):
    trial.send_test(subscribe(receiver.url('/'), change_set=True))
    assert redelivery.redeliver(Delivery.objects.all()) == 1
    assert Delivery.objects.filter(change_set=None).count() == 2
