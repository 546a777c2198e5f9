"""Programs reach the REST API through clients that others wrote."""

import json
import subprocess
import sys

import pynetbox
import pytest
from dcim.models import Site
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from devstack.folders import CHECKOUT
from webhooks.models import Delivery, Webhook


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


ACTIVE, PLANNED = ({'attr': 'status.value', 'value': value} for value in ('active', 'planned'))


def test_pynetbox_changes_conditions_as_the_example_does(netbox_server, api_token):
    subscribe(NOWHERE, Site, name='CMDB', conditions=ACTIVE)
    arguments = [netbox_server.url, api_token.partition(' ')[2], 'CMDB', json.dumps(PLANNED)]
    command = [sys.executable, str(CHECKOUT / 'contrib/pynetbox_conditions.py'), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f'before: {json.dumps(ACTIVE)}\nafter: {json.dumps(PLANNED)}\n'
    assert Webhook.objects.get().conditions == PLANNED


def test_another_save_by_pynetbox_leaves_conditions_alone(plugin):
    made = subscribe(NOWHERE, Site, name='CMDB', conditions=ACTIVE, fields={'dcim.site': ['id']})
    shown = plugin.webhooks.get(made.pk)
    shown.description = 'edited'
    assert shown.save()
    made = Webhook.objects.get()
    assert (made.description, made.conditions, made.fields) == ('edited', ACTIVE, {'dcim.site': ['id']})


@pytest.mark.parametrize('field', ['conditions', 'success_conditions', 'fields', 'omit'])
def test_the_empty_string_that_pynetbox_makes_of_a_json_field_is_refused(plugin, field):
    """It copies the field of another webhook, as if that were a related object."""
    value = {'conditions': ACTIVE, 'success_conditions': {'attr': 'status', 'value': 200}}.get(field)
    value = value or {'dcim.site': ['id']}
    subscribe(NOWHERE, Site, name='One', **{field: value})
    other = subscribe(NOWHERE, Site, name='Other')
    before = getattr(other, field)
    shown = plugin.webhooks.get(other.pk)
    setattr(shown, field, getattr(plugin.webhooks.get(name='One'), field))
    with pytest.raises(pynetbox.RequestError) as refused:
        shown.save()
    assert (refused.value.req.status_code, [*refused.value.req.json()]) == (400, [field])
    assert getattr(Webhook.objects.get(pk=other.pk), field) == before
