"""Tools see that a hidden value has changed, and not the value."""

from pathlib import Path
from typing import Any

import pytest
from dcim.models import Site
from django.db.models import Model
from support.builders import subscribe
from support.settings import change_settings

from webhooks.models import Credential

API = '/api/plugins/webhooks/'
HOST = 'https://hooks.example.com'
VALUES = {
    ('webhooks', 'payload_url'): (f'{HOST}/?key=k3y', f'{HOST}/?key=0ther'),
    ('webhooks', 'additional_headers'): ('X-Key: h34der', 'X-Key: 0ther'),
    ('webhooks', 'secret'): ('s3cret', 'env:WEBHOOKS_KEY'),
    ('credentials', 'secret'): ('t0ken', 'file:/run/secrets/webhooks/token'),
}


def made(endpoint: str, field: str, name: str = 'One') -> Model:
    value = VALUES[endpoint, field][0]
    if endpoint == 'webhooks':
        return subscribe(f'{HOST}/', Site, name=name, **{field: value})
    return Credential.objects.create(name=name, type='bearer', hosts=[HOST], secret=value)


@pytest.mark.parametrize(('endpoint', 'field'), VALUES)
def test_it_changes_if_and_only_if_the_value_does(db, api_client, monkeypatch, endpoint, field):
    change_settings(monkeypatch, secret_folders=(Path('/run/secrets'),), secret_variables=('WEBHOOKS_KEY',))
    first, other = VALUES[endpoint, field]
    address = f'{API}{endpoint}/{made(endpoint, field).pk}/'

    def shown(**changes: Any) -> dict[str, str]:
        answer = api_client.patch(address, changes, format='json') if changes else api_client.get(address)
        assert answer.status_code == 200, answer.content
        return answer.json()['fingerprints']

    before = shown()
    assert len(before[field]) == 16
    assert shown(description='edited') == before
    # It is encrypted anew, by another key.
    change_settings(monkeypatch, encryption_keys=('k' * 40,))
    assert shown(**{field: first}) == before
    changed = shown(**{field: other})
    assert changed[field] not in (before[field], '')
    assert {**changed, field: ''} == {**before, field: ''}
    assert shown(**{field: first}) == before


def test_an_empty_value_has_an_empty_one_and_equal_values_have_different_ones(db, api_client):
    for _ in range(2):
        subscribe(f'{HOST}/', Site, secret='s3cret')
    one, two = (row['fingerprints'] for row in api_client.get(f'{API}webhooks/').json()['results'])
    assert one['additional_headers'] == '' != one['secret']
    assert one['secret'] != two['secret']


def test_a_value_that_cannot_be_decrypted_has_none(db, api_client, monkeypatch):
    webhook = subscribe(f'{HOST}/', Site, secret='s3cret')
    change_settings(monkeypatch, encryption_keys=('k' * 40,))
    assert api_client.get(f'{API}webhooks/{webhook.pk}/').json()['fingerprints']['secret'] is None


@pytest.mark.parametrize('endpoint', ['webhooks', 'credentials'])
def test_only_readers_who_may_change_an_object_see_its_own(db, clerk_api, grant, endpoint):
    one, two = made(endpoint, 'secret', name='One'), made(endpoint, 'secret', name='Two')
    grant(type(one), 'view')

    def shown() -> dict[int, Any]:
        return {row['id']: row['fingerprints'] for row in clerk_api.get(f'{API}{endpoint}/').json()['results']}

    assert shown() == {one.pk: None, two.pk: None}
    grant(type(one), 'change', name='One')
    assert (shown()[one.pk] is None, shown()[two.pk]) == (False, None)
    seen = [clerk_api.get(f'{API}{endpoint}/{each.pk}/').json()['fingerprints'] for each in (one, two)]
    assert seen == [shown()[one.pk], None]
