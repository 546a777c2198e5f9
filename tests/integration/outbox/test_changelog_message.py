from typing import Any

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.db import transaction
from extras.models import Tag
from support.builders import site, subscribe
from support.engine import work

from devstack.receiver import Receiver
from webhooks.models import Event

pytestmark = pytest.mark.usefixtures('committed')

SITES = '/api/dcim/sites/'


def change(api_client: Any, method: str, pk: int | None = None, **fields: Any) -> Any:
    answer = getattr(api_client, method)(f'{SITES}{pk}/' if pk else SITES, fields, format='json')
    assert answer.status_code < 400, answer.content
    return answer


def test_each_kind_of_change_has_its_own(receiver: Receiver, api_client):
    subscribe(receiver.url('/'), Site)
    pk = change(api_client, 'post', name='A', slug='a', changelog_message='RFC 1').json()['id']
    change(api_client, 'patch', pk, description='x', changelog_message='RFC 2')
    change(api_client, 'patch', pk, description='y')
    change(api_client, 'delete', pk, changelog_message='RFC 3')
    work()
    assert [one.json().get('changelog_message') for one in receiver.wait_for(4)] == ['RFC 1', 'RFC 2', None, 'RFC 3']
    assert 'changelog_message' not in receiver.requests[2].json()
    messages = list(ObjectChange.objects.order_by('pk').values_list('message', flat=True))
    assert messages == ['RFC 1', 'RFC 2', '', 'RFC 3']


def test_it_outlives_changes_of_tags_in_the_same_transaction(receiver: Receiver, api_client):
    Tag.objects.create(name='t', slug='t')
    subscribe(receiver.url('/'), Site)
    change(api_client, 'post', name='A', slug='a', tags=[{'slug': 't'}], changelog_message='RFC 1')
    work()
    (request,) = receiver.wait_for(1)
    assert request.json()['changelog_message'] == 'RFC 1'
    assert [tag['slug'] for tag in request.json()['data']['tags']] == ['t']


def test_the_last_one_of_a_transaction_counts(receiver: Receiver):
    place = site()
    subscribe(receiver.url('/'), Site)
    with transaction.atomic():
        for message in ('RFC 1', 'RFC 2'):
            place._changelog_message = message
            place.save()
    work()
    assert [one.json()['changelog_message'] for one in receiver.wait_for(1)] == ['RFC 2']


@pytest.mark.parametrize(('payload_format', 'name'), [('cloudevents', 'changelogmessage'), ('netbox', '')])
def test_each_format_has_it_under_its_own_name(receiver: Receiver, api_client, payload_format: str, name: str):
    subscribe(receiver.url('/'), Site, payload_format=payload_format)
    change(api_client, 'post', name='A', slug='a', changelog_message='RFC 1')
    work()
    body = receiver.wait_for(1)[0].json()
    assert [key for key, value in body.items() if value == 'RFC 1'] == [name] * bool(name)


def test_a_template_sees_it(receiver: Receiver, api_client):
    subscribe(receiver.url('/'), Site, body_template='{{ changelog_message }}')
    change(api_client, 'post', name='A', slug='a', changelog_message='RFC 1')
    work()
    assert receiver.wait_for(1)[0].body == b'RFC 1'


def test_conditions_may_ask_for_it(receiver: Receiver, api_client):
    conditions = {'attr': 'changelog_message', 'op': 'contains', 'value': 'RFC'}
    subscribe(receiver.url('/'), Site, conditions=conditions)
    change(api_client, 'post', name='A', slug='a', changelog_message='a typo')
    change(api_client, 'post', name='B', slug='b', changelog_message='RFC 7')
    site(name='C', slug='c')
    work()
    assert [one.json()['data']['name'] for one in receiver.wait_for(1)] == ['B']
    assert [one.skipped for one in Event.objects.order_by('pk')] == [1, 0, 1]
