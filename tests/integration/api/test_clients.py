"""Programs reach the REST API through clients that others wrote."""

import pynetbox
import pytest
from dcim.models import Site
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from webhooks.models import Delivery


@pytest.fixture
def plugin(netbox_server, api_token):
    """Return pynetbox's view of the plugin."""
    return pynetbox.api(netbox_server.url, token=api_token.partition(' ')[2]).plugins.webhooks


def test_pynetbox_reads_deliveries_with_their_attempts(plugin):
    log = delivery(event(site(name='Bern')), subscribe(NOWHERE, Site, name='CMDB'), attempts=2)
    shown = plugin.deliveries.get(log.pk)
    assert [one.request_url for one in shown.attempts] == ['http://receiver.example/hook'] * 2
    assert (shown.webhook.name, shown.event.object_repr) == ('CMDB', 'Bern')
    assert [one.id for one in plugin.deliveries.filter(status='failed')] == [log.pk]
    assert [dict(one)['response_status'] for one in next(iter(plugin.deliveries.all())).attempts] == [500, 500]


def test_pynetbox_reads_events_with_the_data_of_any_object(plugin, api_client):
    place = site(name='Bern')
    shown = api_client.get(f'/api/dcim/sites/{place.pk}/').content.decode()
    assert plugin.events.get(event(place, data=shown).pk).data['name'] == 'Bern'


def test_pynetbox_defines_changes_and_deletes_webhooks_and_credentials(plugin):
    token = plugin.credentials.create(name='AWX', type='bearer', hosts=['http://127.0.0.1:9'], secret='s3cret')
    made = plugin.webhooks.create(
        name='CMDB', payload_url=NOWHERE, object_types=['dcim.site'], credential=token.id, type_create=True
    )
    assert plugin.webhooks.get(name='CMDB').credential.name == 'AWX'
    made.description = 'written by a program'
    assert made.save()
    assert plugin.webhooks.get(made.id).description == 'written by a program'
    assert made.delete()
    assert token.delete()
    assert not list(plugin.webhooks.all())


def test_pynetbox_redelivers_what_failed(plugin):
    log = delivery(event(site()))
    page = plugin.deliveries.get(log.pk)
    answer = pynetbox.core.query.Request(
        base=f'{page.endpoint.url}/{log.pk}/redeliver', token=page.api.token, http_session=page.api.http_session
    ).post(None)
    assert answer == {'count': 1}
    assert Delivery.objects.get(pk=log.pk).status == 'pending'
