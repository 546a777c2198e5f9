import json

import pytest
from core.models import ObjectType
from dcim.models import Rack, Site
from django.db import transaction
from extras.models import CustomField, NotificationGroup, Tag
from support.builders import NOWHERE, site, subscribe
from support.engine import in_thread
from support.log import delivery, event
from support.plugin import PluginAPI
from utilities.testing import APIViewTestCases

from webhooks.engine.deliver import order
from webhooks.models import Credential, Delivery, Event, Health, Webhook

WEBHOOKS = '/api/plugins/webhooks/webhooks/'
DELIVERIES = '/api/plugins/webhooks/deliveries/'
MASK = '********'
VALID = {'name': 'Receiver', 'object_types': ['dcim.site'], 'type_create': True, 'payload_url': 'https://a.example/'}


#
# NetBox's own tests
#


class TestWebhookEndpoint(
    PluginAPI,
    APIViewTestCases.GetObjectViewTestCase,
    APIViewTestCases.ListObjectsViewTestCase,
    APIViewTestCases.CreateObjectViewTestCase,
    APIViewTestCases.UpdateObjectViewTestCase,
    APIViewTestCases.DeleteObjectViewTestCase,
):
    model = Webhook
    brief_fields = ['description', 'display', 'id', 'name', 'payload_url', 'url']
    create_data = [
        VALID | {'name': f'Receiver {number}', 'conditions': {'attr': 'name', 'value': 'a'}} for number in range(3)
    ]
    update_data = {'name': 'Renamed', 'object_types': ['dcim.rack', 'dcim.site'], 'type_delete': True}
    bulk_update_data = {'description': 'Changed', 'paused': True}
    bulk_update_invalid_data = {'payload_url': 'ftp://a.example/'}

    @classmethod
    def setUpTestData(cls):
        for number in range(3):
            subscribe(NOWHERE, Site, name=f'Webhook {number}')


class TestDeliveryEndpoint(PluginAPI, APIViewTestCases.GetObjectViewTestCase, APIViewTestCases.ListObjectsViewTestCase):
    model = Delivery
    brief_fields = ['display', 'error', 'id', 'response_status', 'status', 'url', 'uuid']

    @classmethod
    def setUpTestData(cls):
        for number in range(3):
            delivery(event(site()), subscribe(NOWHERE, Site, name=f'Webhook {number}'))


class TestEventEndpoint(PluginAPI, APIViewTestCases.GetObjectViewTestCase, APIViewTestCases.ListObjectsViewTestCase):
    model = Event
    brief_fields = [
        'backfill', 'display', 'id', 'kind', 'object_id', 'object_repr', 'object_type', 'sequence', 'test', 'url',
        'uuid',
    ]  # fmt: skip

    @classmethod
    def setUpTestData(cls):
        for _number in range(3):
            event(site())


#
# Validation
#


BAD = [
    ('object_types', 'dcim.site'),
    ('object_types', ['dcim.sites']),
    ('object_types', ['no.such']),
    ('object_types', ['extras.tag']),
    ('object_types', ['webhooks.webhook']),
    ('object_types', ['dcim.site\0']),
    ('object_types', [7]),
    ('object_types', ['\ud800']),
    ('object_types', None),
    ('type_create', False),
    ('payload_url', None),
    ('payload_url', 'ftp://a.example/'),
    ('payload_url', 'https://'),
    ('payload_url', 'https://[a/'),
    ('payload_url', 'https://a.example:99999/'),
    ('payload_url', 'https://a.example/ \r\nHost: b'),
    ('payload_url', 'https://a.example/?token=********'),
    ('payload_url', 'https://a.example/\0'),
    ('payload_url', 'https://a.example/' + 'a' * 500),
    ('payload_url', '{{ data.url'),
    ('http_method', 'BREW'),
    ('http_method', '\ud800'),
    ('http_content_type', 'json'),
    ('payload_format', 'carrier pigeon'),
    ('additional_headers', 'no colon'),
    ('additional_headers', 'X-A: 1\r\rX-B: 2'),
    ('additional_headers', 'X A: 1'),
    ('additional_headers', 'Host: elsewhere'),
    ('additional_headers', 'webhook-signature: v1,forged'),
    ('additional_headers', 'X-A: ********'),
    ('additional_headers', 'X-A: {{ data.'),
    ('additional_headers', {'X-A': '1'}),
    ('body_template', '{% for %}'),
    ('conditions', [1]),
    ('conditions', 'status'),
    ('conditions', False),
    ('conditions', {'and': 5}),
    ('conditions', {'and': [{'attr': 'name'}]}),
    ('conditions', {'attr': 5, 'value': 1}),
    ('conditions', {'attr': 'name', 'value': {'a': 1}}),
    ('conditions', {'attr': 'name', 'value': '(', 'op': 'regex'}),
    ('conditions', {'attr': 'name', 'value': 'a\0b'}),
    ('conditions', {'attr': 'name', 'value': '\ud800'}),
    ('secret', 'whsec_short'),
    ('secret', None),
    ('timeout', 0),
    ('timeout', 3600),
    ('timeout', 'soon'),
    ('max_attempts', 0),
    ('max_attempts', 1000),
    ('rate_limit', 0),
    ('concurrency', 0),
    ('ca_file_path', '/etc/passwd'),
    ('client_key_path', '/etc/passwd'),
    ('ignore_users', [4711]),
    ('ignore_users', ['clerk']),
    ('name', ''),
    ('name', 'a\0b'),
    ('tags', [{'slug': 'no-such'}]),
    ('changelog_message', 'a\0b'),
    ('changelog_message', 'a' * 201),
]


@pytest.mark.parametrize('given', [{'object_types': []}, {}])
def test_a_webhook_for_event_rules_alone_has_no_object_types(api_client, given):
    valid = {name: value for name, value in VALID.items() if name != 'object_types'}
    answer = api_client.post(WEBHOOKS, valid | given, format='json')
    assert (answer.status_code, answer.json().get('object_types')) == (201, []), answer.data


def test_a_filter_that_was_pasted_with_a_line_break_is_stored_as_one_line(api_client):
    """The form takes one filter a line."""
    filters = {'dcim.site': '?status=active&\nname=Bern'}
    answer = api_client.post(WEBHOOKS, VALID | {'type_update': True, 'filters': filters}, format='json')
    assert (answer.status_code, answer.json().get('filters')) == (201, {'dcim.site': 'status=active&name=Bern'})


def test_bad_input_is_refused_by_the_name_of_its_field(api_client):
    for field, value in BAD:
        answer = _send(api_client.post, WEBHOOKS, VALID | {field: value})
        assert answer.status_code == 400, (field, value, answer.content)
        assert list(answer.json()) == [field], value
        assert not Webhook.objects.exists(), (field, value)


def test_a_refused_change_changes_nothing(api_client):
    webhook = subscribe('https://b.example/?token=x', Site, kinds=('created',), secret='s3cret', name='Receiver')
    before = _row(webhook)
    for field, value in BAD:
        answer = _send(api_client.patch, f'{WEBHOOKS}{webhook.pk}/', {field: value})
        assert answer.status_code == 400, (field, value, answer.content)
        assert _row(webhook) == before, (field, value)
    assert _send(api_client.patch, f'{WEBHOOKS}{webhook.pk}/', {'description': 'changed'}).status_code == 200
    assert _row(webhook) != before


def _send(method, address, data):
    # The client's encoder refuses half of a surrogate pair.
    return method(address, json.dumps(data), content_type='application/json')


def _row(webhook):
    columns = Webhook.objects.filter(pk=webhook.pk).values().get()
    return columns | {'object_types': list(webhook.object_types.order_by('pk'))}


@pytest.mark.parametrize('data', [[], [{}], [VALID], 'x', None])
def test_one_webhook_takes_one_object(api_client, data):
    webhook = subscribe(NOWHERE, Site)
    for method in (api_client.put, api_client.patch):
        assert _send(method, f'{WEBHOOKS}{webhook.pk}/', data).status_code == 400


@pytest.mark.parametrize('method', ['put', 'patch'])
@pytest.mark.parametrize('bad', [{'payload_url': 'ftp://a.example/'}, {'id': 4711}, {}, 'x', None])
def test_a_list_that_is_half_bad_changes_nothing(api_client, method, bad):
    first, second = (subscribe(NOWHERE, Site, name=name) for name in ('First', 'Second'))
    wrong = {'id': second.pk, **bad} if isinstance(bad, dict) and bad else bad
    answer = _send(getattr(api_client, method), WEBHOOKS, [{'id': first.pk, **VALID}, wrong])
    assert answer.status_code == 400, answer.content
    assert sorted(Webhook.objects.values_list('name', flat=True)) == ['First', 'Second']


@pytest.mark.parametrize('bad', [{'id': 4711}, {}, 'x', None])
def test_a_list_that_is_half_bad_deletes_nothing(api_client, bad):
    webhook = subscribe(NOWHERE, Site)
    answer = _send(api_client.delete, WEBHOOKS, [{'id': webhook.pk}, bad])
    assert answer.status_code == 400, answer.content
    assert Webhook.objects.exists()


def test_a_name_is_given_once(api_client):
    subscribe(NOWHERE, Site, name='Receiver')
    answer = api_client.post(WEBHOOKS, VALID, format='json')
    assert answer.status_code == 400
    assert list(answer.json()) == ['name']


def test_no_webhook_is_left_where_a_tag_is_refused_after_its_row_was_written(api_client):
    tag = Tag.objects.create(name='Racks only', slug='racks-only')
    tag.object_types.add(ObjectType.objects.get_for_model(Rack))
    answer = api_client.post(WEBHOOKS, VALID | {'tags': [{'slug': 'racks-only'}]}, format='json')
    assert answer.status_code == 400
    assert not Webhook.objects.exists()
    tag.object_types.clear()
    answer = api_client.post(WEBHOOKS, VALID | {'tags': [{'slug': 'racks-only'}]}, format='json')
    assert answer.status_code == 201
    assert Webhook.objects.exists()


def test_one_bad_webhook_of_many_refuses_them_all(api_client):
    answer = api_client.post(WEBHOOKS, [VALID, VALID | {'name': 'Other', 'object_types': ['no.such']}], format='json')
    assert answer.status_code == 400
    assert answer.json()['errors'][0]['errors'].keys() == {'object_types'}
    assert not Webhook.objects.exists()


def test_all_fields_come_back_as_they_were_sent(api_client, netbox_user):
    Tag.objects.create(name='Blue', slug='blue')
    sent = VALID | {
        'object_types': ['ipam.prefix', 'dcim.site'],
        'description': 'to the CMDB',
        'enabled': False,
        'paused': True,
        'type_update': True,
        'http_method': 'PUT',
        'http_content_type': 'application/json; charset=utf-8',
        'body_template': '{{ event }}\n',
        'conditions': {'and': [{'attr': 'status.value', 'value': 'active'}]},
        'timeout': 5,
        'max_attempts': 1,
        'rate_limit': 10,
        'concurrency': 2,
        'ordered': False,
        'latest_only': True,
        'quiet': 30,
        'quiet_max': 60,
        'include_snapshots': True,
        'ssl_verification': False,
    }
    answer = api_client.post(
        WEBHOOKS, sent | {'ignore_users': [netbox_user.pk], 'tags': [{'slug': 'blue'}]}, format='json'
    )
    assert answer.status_code == 201, answer.content
    shown = api_client.get(f'{WEBHOOKS}{answer.json()["id"]}/').json()
    assert {name: shown[name] for name in sent} | {'object_types': sorted(shown['object_types'])} == sent | {
        'object_types': ['dcim.site', 'ipam.prefix']
    }
    assert [one['username'] for one in shown['ignore_users']] == ['admin']
    assert [one['slug'] for one in shown['tags']] == ['blue']


def test_what_get_answers_is_taken_by_put(api_client, netbox_user):
    credential = Credential.objects.create(name='AWX', type='bearer', hosts=['http://127.0.0.1:9'], secret='s3cret')
    webhook = subscribe(
        NOWHERE, Site, credential=credential, ignore_users=[netbox_user], secret='s1gns', additional_headers='X-A: b'
    )
    webhook.notification_groups.add(NotificationGroup.objects.create(name='Operators'))
    webhook.tags.add(Tag.objects.create(name='Blue', slug='blue'))
    for address in (f'{WEBHOOKS}{webhook.pk}/', f'/api/plugins/webhooks/credentials/{credential.pk}/'):
        shown = api_client.get(address).json()
        answer = api_client.put(address, shown, format='json')
        assert answer.status_code == 200, answer.content
        assert {**answer.json(), 'last_updated': None} == {**shown, 'last_updated': None}
    webhook.refresh_from_db()
    assert webhook.secret.reveal() == 's1gns'
    assert webhook.additional_headers.reveal() == 'X-A: b'


def test_batches_of_1_0_0_are_refused_by_name_and_off_they_say_nothing(api_client):
    good = {'name': 'New', 'payload_url': NOWHERE, 'object_types': ['dcim.site'], 'type_create': True}
    answer = api_client.post(WEBHOOKS, {**good, 'batch': True}, format='json')
    assert (answer.status_code, [*answer.json()]) == (400, ['batch'])
    assert 'Switch on “Change set”' in answer.json()['batch']
    made = api_client.post(WEBHOOKS, {**good, 'batch': False}, format='json')
    assert made.status_code == 201
    address = f'{WEBHOOKS}{made.json()["id"]}/'
    for wrong in (True, 'true', 1):
        assert api_client.patch(address, {'batch': wrong}, format='json').status_code == 400
    assert 'batch' not in api_client.get(address).json()
    listed = api_client.post(WEBHOOKS, [{**good, 'name': 'Another', 'batch': True}], format='json')
    assert (listed.status_code, 'Switch on “Change set”' in str(listed.json())) == (400, True)


#
# Masks
#


SECRETS = {
    'payload_url': 'https://user:pa55word@a.example/in?token=t0ken',
    'additional_headers': 'Authorization: Bearer b3arer\nX-Env: pr0d',
    'secret': 's3cret',
}
SHOWN_URL = 'https://********@a.example/in?token=********'


@pytest.fixture
def secretive(db):
    return subscribe(SECRETS['payload_url'], Site, additional_headers=SECRETS['additional_headers'], secret='s3cret')


def test_no_answer_shows_a_secret(api_client):
    created = api_client.post(WEBHOOKS, VALID | SECRETS, format='json')
    address = f'{WEBHOOKS}{created.json()["id"]}/'
    log = delivery(event(site()), Webhook.objects.get())
    answers = [
        created,
        api_client.get(address),
        api_client.get(WEBHOOKS),
        api_client.get(f'{WEBHOOKS}?brief=true'),
        api_client.patch(address, {'description': 'x', 'secret': 's3cret'}, format='json'),
        api_client.get(f'{DELIVERIES}{log.pk}/'),
        api_client.get('/api/core/object-changes/'),
    ]
    for answer in answers:
        assert answer.status_code in (200, 201), answer.content
        text = answer.content.decode()
        assert not [word for word in ('pa55word', 't0ken', 'b3arer', 'pr0d', 's3cret') if word in text]
    shown = answers[1].json()
    assert shown['payload_url'] == SHOWN_URL
    assert shown['additional_headers'] == f'Authorization: {MASK}\nX-Env: {MASK}'
    assert 'secret' not in shown


def test_a_masked_value_that_is_sent_back_keeps_the_stored_one(api_client, secretive):
    address = f'{WEBHOOKS}{secretive.pk}/'
    shown = api_client.get(address).json()
    sent = shown | {'additional_headers': f'authorization: {MASK}\nX-New: 1'}
    answer = api_client.put(address, sent, format='json')
    assert answer.status_code == 200, answer.content
    secretive.refresh_from_db()
    assert secretive.payload_url.reveal() == SECRETS['payload_url']
    assert secretive.additional_headers.reveal() == 'authorization: Bearer b3arer\nX-New: 1'
    assert secretive.secret.reveal() == 's3cret'


def test_a_url_that_is_as_long_as_may_be_is_longer_masked(api_client):
    longest = f'https://a.example/?{"a=1&" * 125}'[:500]
    created = api_client.post(WEBHOOKS, VALID | {'payload_url': longest}, format='json')
    assert created.status_code == 201, created.content
    address, shown = f'{WEBHOOKS}{created.json()["id"]}/', created.json()
    assert len(shown['payload_url']) > 500
    answer = api_client.put(address, shown, format='json')
    assert answer.status_code == 200, answer.content
    assert Webhook.objects.get().payload_url.reveal() == longest
    answer = api_client.put(address, shown | {'payload_url': f'{longest}b'}, format='json')
    assert list(answer.json()) == ['payload_url']


def test_a_secret_is_replaced_and_cleared(api_client, secretive):
    address = f'{WEBHOOKS}{secretive.pk}/'
    assert api_client.patch(address, {'secret': ' n3w '}, format='json').status_code == 200
    secretive.refresh_from_db()
    assert secretive.secret.reveal() == ' n3w '
    assert api_client.patch(address, {'secret': ''}, format='json').status_code == 200
    secretive.refresh_from_db()
    assert not secretive.secret


@pytest.mark.parametrize('query', ['payload_url=user', 'payload_url__ic=t0ken', 'q=t0ken', 'secret=s3cret'])
def test_no_filter_reveals_masked_values(api_client, secretive, query):
    """Unknown filters are ignored; a search finds nothing."""
    count = api_client.get(f'{WEBHOOKS}?{query}').json()['count']
    assert count == (0 if query.startswith('q=') else 1)


def test_no_order_reveals_masked_values(api_client, db):
    for url in ('https://b:b@x.example/', 'https://a:a@x.example/'):
        subscribe(url, Site)
    answers = [api_client.get(f'{WEBHOOKS}?ordering={order}').json() for order in ('', 'payload_url', '-payload_url')]
    default, up, down = ([one['id'] for one in answer['results']] for answer in answers)
    assert default == up == down


@pytest.mark.parametrize('method', ['post', 'put', 'patch', 'delete'])
def test_no_list_waits_in_redis_with_its_secrets(api_client, method):
    """NetBox's pages of background tasks show data sent with `background=true`."""
    webhook = subscribe(NOWHERE, Site)
    data = [VALID | {'id': webhook.pk, 'secret': 's3cret'}]
    answer = getattr(api_client, method)(f'{WEBHOOKS}?background=true', data, format='json')
    assert answer.status_code == 400, answer.content
    assert list(answer.json()) == ['detail']
    assert list(Webhook.objects.all()) == [webhook]


#
# Health
#


def test_health_is_shown_where_there_is_any(api_client):
    webhook = subscribe(NOWHERE, Site)
    Health.objects.all().delete()
    assert api_client.get(f'{WEBHOOKS}{webhook.pk}/').json()['health'] is None
    Health.objects.create(webhook=webhook, delivered=3, failed=1, last_status=500)
    health = api_client.get(f'{WEBHOOKS}{webhook.pk}/').json()['health']
    assert (health['delivered'], health['failed'], health['last_status']) == (3, 1, 500)


def test_a_deletion_waits_for_no_worker(committed, api_client):
    webhook = subscribe(NOWHERE, Site)
    with transaction.atomic():
        order.lock_lanes([webhook.pk])
        deletion = in_thread(lambda: api_client.delete(f'{WEBHOOKS}{webhook.pk}/'))
        deletion.join(30)
        assert not Webhook.objects.exists()


#
# Beside other objects
#


@pytest.mark.parametrize('type_', ['object', 'multiobject'])
def test_a_custom_field_of_another_object_may_point_to_webhooks_and_to_the_log(api_client, type_):
    place = site()
    told = delivery(event(place), subscribe(NOWHERE, Rack))
    for one in (told.webhook, told, told.event):
        field = CustomField.objects.create(
            name=one._meta.model_name, type=type_, related_object_type=ObjectType.objects.get_for_model(one)
        )
        field.object_types.set([ObjectType.objects.get_for_model(Site)])
        value = [one.pk] if type_ == 'multiobject' else one.pk
        answer = api_client.patch(f'/api/dcim/sites/{place.pk}/', {'custom_fields': {field.name: value}}, format='json')
        assert answer.status_code == 200, answer.content
        place.refresh_from_db()
        assert place.custom_field_data[field.name] == value
