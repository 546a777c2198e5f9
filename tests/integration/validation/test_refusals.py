from typing import Any

import pytest
from dcim.models import Site
from django.core.exceptions import ValidationError
from support.builders import NOWHERE, subscribe
from support.settings import change_settings

from webhooks.models import Webhook

pytestmark = pytest.mark.usefixtures('db')

API = '/api/plugins/webhooks/webhooks/'
DEEP: Any = {'attr': 'name', 'value': 'x'}
for _ in range(400):
    DEEP = {'and': [DEEP]}

BAD = [
    # Kinds and names
    ({'type_create': False, 'type_update': False, 'type_delete': False}, 'type_create'),
    ({'name': ''}, 'name'),
    ({'name': 'n' * 151}, 'name'),
    # URL
    ({'payload_url': '', 'change_set': True}, 'change_set'),
    ({'payload_url': 'receiver.example.com/hook'}, 'payload_url'),
    ({'payload_url': 'ftp://receiver.example.com/'}, 'payload_url'),
    ({'payload_url': 'file:///etc/passwd'}, 'payload_url'),
    ({'payload_url': 'javascript:alert(1)'}, 'payload_url'),
    ({'payload_url': 'http://'}, 'payload_url'),
    ({'payload_url': 'http:///hook'}, 'payload_url'),
    ({'payload_url': 'http://[::1/'}, 'payload_url'),
    ({'payload_url': 'http://a:99999/'}, 'payload_url'),
    ({'payload_url': 'http://a:0/'}, 'payload_url'),
    ({'payload_url': 'http://a/b c'}, 'payload_url'),
    ({'payload_url': 'http://a/\x00'}, 'payload_url'),
    ({'payload_url': 'http://a/\r\nHost: b'}, 'payload_url'),
    ({'payload_url': f'http://a/{"x" * 500}'}, 'payload_url'),
    ({'payload_url': 'http://a/{{ x'}, 'payload_url'),
    ({'payload_url': 'http://a/{{ x|no_such_filter }}'}, 'payload_url'),
    ({'payload_url': 'file:///{{ x }}'}, 'payload_url'),
    ({'payload_url': 'http://********@a/'}, 'payload_url'),
    # Request
    ({'change_set': True, 'body_template': '{"text": {{ data.name | tojson }}}'}, 'body_template'),
    ({'change_set': True, 'payload_url': 'http://127.0.0.1:9/{{ data.name }}'}, 'payload_url'),
    ({'change_set': True, 'additional_headers': 'X-Name: {{ data.name }}'}, 'additional_headers'),
    ({'http_method': 'OPTIONS'}, 'http_method'),
    ({'http_method': 'post'}, 'http_method'),
    ({'http_content_type': ''}, 'http_content_type'),
    ({'http_content_type': 'json'}, 'http_content_type'),
    ({'http_content_type': 'application/json\r\nX: 1'}, 'http_content_type'),
    ({'http_content_type': 'a/b; '}, 'http_content_type'),
    ({'additional_headers': 'no colon'}, 'additional_headers'),
    ({'additional_headers': ': value'}, 'additional_headers'),
    ({'additional_headers': 'X Y: value'}, 'additional_headers'),
    ({'additional_headers': 'X-A: 1\nno colon'}, 'additional_headers'),
    ({'additional_headers': 'X-A: a\x00b'}, 'additional_headers'),
    ({'additional_headers': 'X-A: a\rX-B: b'}, 'additional_headers'),
    ({'additional_headers': 'X-A: 東京'}, 'additional_headers'),
    ({'additional_headers': 'X-A: {{ x'}, 'additional_headers'),
    ({'additional_headers': 'X-A: {{ x|no_such_filter }}'}, 'additional_headers'),
    *(
        ({'additional_headers': f'{name}: x'}, 'additional_headers')
        for name in (
            'Host',
            'content-length',
            'Transfer-Encoding',
            'Connection',
            'webhook-id',
            'Webhook-Timestamp',
            'webhook-signature',
            'X-Hook-Signature',
        )
    ),
    # Body
    ({'payload_format': 'xml'}, 'payload_format'),
    ({'payload_format': 'cloudevents', 'http_content_type': 'application/x-www-form-urlencoded'}, 'http_content_type'),
    ({'payload_format': 'netbox', 'body_template': 'x'}, 'body_template'),
    ({'payload_format': 'cloudevents', 'body_template': 'x'}, 'body_template'),
    ({'http_method': 'GET', 'body_template': 'x'}, 'body_template'),
    ({'body_template': '{{ x'}, 'body_template'),
    ({'body_template': '{% for x in y %}'}, 'body_template'),
    ({'body_template': '{% unknown %}'}, 'body_template'),
    ({'body_template': '{{ x|no_such_filter }}'}, 'body_template'),
    ({'body_template': '{{ ' + '(' * 3000 + ')' * 3000 + ' }}'}, 'body_template'),
    ({'body_template': '{% for x in [1] %}' * 30 + '{% endfor %}' * 30}, 'body_template'),
    # Conditions
    ({'conditions': []}, 'conditions'),
    ({'conditions': 'x'}, 'conditions'),
    ({'conditions': 5}, 'conditions'),
    ({'conditions': {'xor': []}}, 'conditions'),
    ({'conditions': {'and': 'x'}}, 'conditions'),
    ({'conditions': {'attr': 'name'}}, 'conditions'),
    ({'conditions': {'value': 1}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'value': 1, 'more': 2}}, 'conditions'),
    ({'conditions': {'attr': 5, 'value': 1}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'like', 'value': 'x'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'gt', 'value': 'x'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'in', 'value': 'x'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'regex', 'value': '('}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'regex', 'value': 'a{99999999999}'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'regex', 'value': 'a{' + '9' * 5000 + '}'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'regex', 'value': '(?L)a'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'regex', 'value': '(' * 5000 + ')' * 5000}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'op': 'changed', 'value': 'x'}}, 'conditions'),
    ({'conditions': {'attr': 'snapshots.prechange.name', 'op': 'changed'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'value': {'a': 1}}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'value': 'a\x00b'}}, 'conditions'),
    ({'conditions': {'attr': 'name', 'value': '\ud800'}}, 'conditions'),
    ({'conditions': DEEP}, 'conditions'),
    # Secrets and TLS
    ({'secret': 'whsec_short'}, 'secret'),
    ({'secret': 'whsec_'}, 'secret'),
    ({'secret': 'whsec_***'}, 'secret'),
    ({'secret': 'whsec_' + 'A' * 400}, 'secret'),
    ({'secret': 'whsk_AAAA'}, 'secret'),
    ({'secret': '********'}, 'secret'),
    ({'secret': 'x' * 1001}, 'secret'),
    ({'ca_file_path': '/etc/ssl/ca.pem'}, 'ca_file_path'),
    ({'ca_file_path': '/etc/ssl/ca.pem', 'ssl_verification': False}, 'ca_file_path'),
    ({'client_key_path': '/etc/ssl/key.pem'}, 'client_key_path'),
    ({'client_cert_path': '/etc/ssl/cert.pem'}, 'client_cert_path'),
    # Delivery
    ({'timeout': 0}, 'timeout'),
    ({'timeout': -1}, 'timeout'),
    ({'timeout': 300}, 'timeout'),
    ({'timeout': 3601}, 'timeout'),
    ({'max_attempts': 0}, 'max_attempts'),
    ({'max_attempts': 101}, 'max_attempts'),
    ({'rate_limit': 0}, 'rate_limit'),
    ({'concurrency': 0}, 'concurrency'),
    ({'concurrency': 101}, 'concurrency'),
]

# As JSON these need hand-made requests, or mean something else.
NOT_BY_API = ({'payload_url': 'http://********@a/'}, {'conditions': {'attr': 'name', 'value': '\ud800'}})
# In an edit, a mask that is sent back keeps the stored value.
KEEPS = {'secret': '********'}
GOOD = {'name': 'Webhook', 'payload_url': NOWHERE, 'type_create': True}


def ids(case: tuple[dict[str, Any], str]) -> str:
    fields, _name = case
    return str(fields)[:60]


@pytest.mark.parametrize(('fields', 'name'), BAD, ids=[ids(case) for case in BAD])
def test_the_model_names_the_bad_field(fields: dict[str, Any], name: str):
    with pytest.raises(ValidationError) as caught:
        Webhook(**GOOD | fields).full_clean()
    assert name in caught.value.message_dict
    assert all(caught.value.message_dict[name])


def test_the_api_names_the_bad_field(api_client):
    """A request for each case is slow, so a single test runs them all."""
    for fields, name in BAD:
        if fields in NOT_BY_API:
            continue
        answer = api_client.post(API, {**GOOD, 'object_types': ['dcim.site'], **fields}, format='json')
        assert answer.status_code == 400, (fields, answer.content)
        assert name in answer.json(), (fields, answer.json())
    assert not Webhook.objects.exists()


def test_an_edit_by_the_api_names_the_bad_field(api_client, pytestconfig):
    """The model names them all in either case: without `--long`, every fourth is tried here."""
    webhook = subscribe(NOWHERE, Site, name='Good', secret='kept', additional_headers='X-A: kept')
    before = Webhook.objects.values().get()
    for fields, name in BAD if pytestconfig.getoption('--long') else BAD[::4]:
        if fields in (*NOT_BY_API, KEEPS) or set(fields) & {'type_create'}:
            continue
        answer = api_client.patch(f'{API}{webhook.pk}/', fields, format='json')
        assert answer.status_code == 400, (fields, answer.content)
        assert name in answer.json(), (fields, answer.json())
    assert Webhook.objects.values().get() == before


@pytest.mark.parametrize('object_types', [['dcim.location'], ['no.such'], ['dcim'], 'dcim.site', [5], [None]])
def test_an_object_type_that_is_not_allowed_is_refused(api_client, object_types: Any):
    answer = api_client.post(API, {**GOOD, 'object_types': object_types}, format='json')
    assert answer.status_code == 400, answer.content
    assert 'object_types' in answer.json()


def test_a_masked_header_without_a_stored_value_is_refused(api_client):
    fields = {**GOOD, 'object_types': ['dcim.site'], 'additional_headers': 'X-A: ********'}
    answer = api_client.post(API, fields, format='json')
    assert (answer.status_code, list(answer.json())) == (400, ['additional_headers'])


def test_a_file_outside_the_folder_is_refused(monkeypatch, tmp_path):
    inside = tmp_path / 'certificates'
    inside.mkdir()
    (tmp_path / 'outside.pem').write_text('')
    (inside / 'good.pem').write_text('')
    (inside / 'link.pem').symlink_to(tmp_path / 'outside.pem')
    change_settings(monkeypatch, certificate_root=inside)
    Webhook(**GOOD, ca_file_path=str(inside / 'good.pem')).full_clean()
    outside = (tmp_path / 'outside.pem', inside / '..' / 'outside.pem', inside / 'link.pem')
    for path in (*outside, inside / 'absent.pem', inside):
        for name in ('ca_file_path', 'client_cert_path'):
            with pytest.raises(ValidationError) as caught:
                Webhook(**GOOD, **{name: str(path)}).full_clean()
            assert name in caught.value.message_dict


@pytest.mark.parametrize(
    'fields',
    [
        {'payload_url': 'http://receiver:9000/{{ data.name }}?a=b#c'},
        {'payload_url': '{{ data.custom_fields.url }}'},
        {'payload_url': 'https://user:password@[::1]:8443/'},
        {'payload_url': 'http://under_score/'},
        {'http_content_type': 'application/vnd.acme+json; charset=utf-8; v="1 2"'},
        {'additional_headers': 'X-A: 1\r\n\r\nX-B:2\nX-C: {{ data.name | header_safe }}\nX-D: Zürich'},
        {'body_template': '{{ data | tojson }}', 'http_method': 'DELETE'},
        {'conditions': {'and': [{'attr': 'a.b', 'value': None}, {'or': [{'attr': 'c', 'op': 'changed'}]}]}},
        {'conditions': None},
        {'conditions': {}},
        {'secret': 'any other text'},
        {'secret': 'whsec_' + 'A' * 44},
        {'secret': 'whsk_' + 'A' * 43 + '='},
        {'timeout': 299, 'max_attempts': 100, 'rate_limit': 1, 'concurrency': 100},
    ],
)  # fmt: skip
def test_good_ones_are_not_refused(fields: dict[str, Any]):
    Webhook(**GOOD | fields).full_clean()
