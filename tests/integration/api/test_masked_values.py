"""One rule for each masked field: sent back as it was read, it keeps what is stored. A new object asks for it."""

from typing import Any

import pytest
from dcim.models import Site
from django.db.models import Model
from support.builders import subscribe

from webhooks.models import Credential, Webhook
from webhooks.security.masking import MASK

API = '/api/plugins/webhooks/'
HOST = 'https://hooks.example.com'
# {(endpoint, field): (stored, as it is read)}. A secret is not read, and is sent as the mask of any other value.
FIELDS = {
    ('webhooks', 'payload_url'): (f'{HOST}/?key=k3y', f'{HOST}/?key={MASK}'),
    ('webhooks', 'additional_headers'): ('X-Key: h34der\nX-More: m0re', f'X-Key: {MASK}\nX-More: {MASK}'),
    ('webhooks', 'secret'): ('s3cret', MASK),
    ('credentials', 'secret'): ('t0ken', MASK),
}

pytestmark = pytest.mark.parametrize(('endpoint', 'field'), FIELDS)


@pytest.fixture
def stored(db: None, endpoint: str, field: str) -> Model:
    value = FIELDS[endpoint, field][0]
    if endpoint == 'webhooks':
        return subscribe(f'{HOST}/', Site, **{field: value})
    return Credential.objects.create(name='One', type='bearer', hosts=[HOST], secret=value)


def revealed(instance: Model, field: str) -> str:
    return getattr(type(instance).objects.get(pk=instance.pk), field).reveal()


def test_sent_back_as_it_was_read_it_is_kept(api_client, stored, endpoint, field):
    value, shown = FIELDS[endpoint, field]
    address = f'{API}{endpoint}/{stored.pk}/'
    assert api_client.get(address).json().get(field, MASK) == shown
    sent: dict[str, Any] = {field: shown, 'description': 'edited'}
    assert api_client.patch(address, sent, format='json').status_code == 200
    assert api_client.patch(f'{API}{endpoint}/', [{'id': stored.pk, **sent}], format='json').status_code == 200
    assert revealed(stored, field) == value


def test_another_value_replaces_it(api_client, stored, endpoint, field):
    value = FIELDS[endpoint, field][0].replace('3', '4').replace('0', '5')
    answer = api_client.patch(f'{API}{endpoint}/{stored.pk}/', {field: value}, format='json')
    assert answer.status_code == 200, answer.content
    assert revealed(stored, field) == value != FIELDS[endpoint, field][0]


def test_a_new_object_asks_for_the_value(api_client, db, endpoint, field):
    new: dict[str, Any] = {'name': 'New', 'type': 'bearer', 'hosts': [HOST], 'secret': 's'}
    if endpoint == 'webhooks':
        new = {'name': 'New', 'type_create': True, 'object_types': ['dcim.site'], 'payload_url': f'{HOST}/'}
    answer = api_client.post(f'{API}{endpoint}/', new | {field: FIELDS[endpoint, field][1]}, format='json')
    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert not Webhook.objects.exists() and not Credential.objects.exists()
