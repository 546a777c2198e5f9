"""After a run of every feature with marked secrets, no mark is anywhere but where it has to be."""

import base64
import logging
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from core.models import ObjectChange
from dcim.models import Rack, Site
from django.db import connection
from django.test import Client
from rest_framework.test import APIClient
from support.builders import site
from support.builtin import request_by, rule
from support.engine import expire, pass_retry_waits, work
from support.loopback import serving

from devstack.redis import RedisAddress
from webhooks.models import Attempt, Delivery, Event, Webhook

API = '/api/plugins/webhooks/'
PAGES = '/plugins/webhooks/'
SECRET, FORMER, HEADER, SESSION = 'mArkS3cret0001', 'mArkF0rmer00002', 'mArkH3ader00003', 'mArkS3ssion0004'
USER, PASSWORD, KEY = 'mArkUs3r000005', 'mArkPassw0rd006', 'mArkQu3ry000007'
LOGIN = base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()
SEALED = (SECRET, FORMER, HEADER, SESSION)
IN_URL = (USER, PASSWORD, KEY)
MARKS = (*SEALED, *IN_URL, LOGIN)


class Reader:
    """Asks as somebody does, and keeps all that is answered."""

    def __init__(self, pages: Client, api: APIClient):
        self._pages, self._api = pages, api
        self.answers: list[tuple[str, str]] = []

    def page(self, address: str, data: dict[str, Any] | None = None) -> Any:
        ask = self._pages.get if data is None else self._pages.post
        return self._keep(address, ask(address, data, follow=data is not None))

    def api(self, method: str, address: str, data: Any = None) -> Any:
        return self._keep(f'{method} {address}', getattr(self._api, method)(address, data, format='json'))

    def _keep(self, address: str, answer: Any) -> Any:
        assert answer.status_code < 500, address
        content = b''.join(answer.streaming_content) if answer.streaming else answer.content
        headers = '\n'.join(f'{name}: {value}' for name, value in answer.headers.items())
        self.answers.append((f'{address} {answer.status_code}', headers + content.decode(errors='replace')))
        return answer


def echo(server_box: list[Any], status: bytes) -> Any:
    """An answer that repeats the whole request, in its body, its reason and a header."""

    def parts() -> Iterator[bytes]:
        request = server_box[0].requests[-1]
        line = b' '.join(request.split(b'\r\n'))
        yield b'HTTP/1.1 %b %b\r\nX-Echo: %b\r\n\r\n%b' % (status, line, line, request)

    return parts


def in_tables() -> Iterator[tuple[str, str]]:
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names():
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            for (row,) in cursor.fetchall():
                yield f'table {table}', row


def in_redis(address: RedisAddress) -> Iterator[tuple[str, str]]:
    with address.client() as client:
        for key in client.scan_iter():
            for value in _values(client, key):
                for form in _forms(value):
                    yield f'Redis {key!r}', form.decode('latin-1')


def _values(client: Any, key: bytes) -> Iterator[bytes]:
    kind = client.type(key).decode()
    read = {
        'string': lambda: [client.get(key)],
        'hash': lambda: [part for pair in client.hgetall(key).items() for part in pair],
        'list': lambda: client.lrange(key, 0, -1),
        'set': lambda: client.smembers(key),
        'zset': lambda: client.zrange(key, 0, -1),
        'stream': lambda: [part for _id, entry in client.xrange(key) for pair in entry.items() for part in pair],
    }
    yield key
    yield from filter(None, read[kind]())


def _forms(value: bytes) -> Iterator[bytes]:
    """RQ packs some of what it keeps, and spells some of that in base64."""
    yield value
    with suppress(zlib.error):
        yield zlib.decompress(value)
    with suppress(ValueError):
        yield base64.b64decode(value, validate=True)


def define(reader: Reader, url: str, name: str, **fields: Any) -> int:
    place = url.removeprefix('http://').rstrip('/')
    definition = {
        'name': name,
        'payload_url': f'http://{USER}:{PASSWORD}@{place}/in?key={KEY}',
        'object_types': ['dcim.site'],
        'type_create': True,
        'type_update': True,
        'type_delete': True,
        'additional_headers': f'X-Token: {HEADER}\nCookie: session={SESSION}; path=/\nX-Name: {{{{ data.name }}}}',
        'secret': FORMER,
    }
    answer = reader.api('post', f'{API}webhooks/', definition | fields)
    assert answer.status_code == 201, answer.content
    return answer.json()['id']


def use_everything(reader: Reader, user: Any, url: str, echoes: str) -> None:
    good = define(reader, url, 'Good')
    bad = define(reader, echoes, 'Bad', max_attempts=2)
    define(reader, 'http://127.0.0.1:9/', 'Nowhere', max_attempts=1)
    define(reader, url, 'Broken', additional_headers=f'X-Token: {HEADER}{{{{ 1 / 0 }}}}', max_attempts=1)
    define(reader, f'{echoes}elsewhere', 'Form', http_content_type='application/x-www-form-urlencoded')
    for refused in ({'payload_url': f'http://{USER}:{PASSWORD}@:x/?{KEY}'}, {'additional_headers': f'X Y: {HEADER}'}):
        assert reader.api('patch', f'{API}webhooks/{good}/', refused).status_code == 400
    reader.api('patch', f'{API}webhooks/{good}/', {'secret': SECRET})
    reader.api('patch', f'{API}webhooks/', [{'id': bad, 'secret': SECRET, 'description': 'in bulk'}])
    reader.page(f'{PAGES}webhooks/edit/', {'pk': [bad], '_apply': '1', 'secret': SECRET})
    lines = (
        f'name,payload_url,object_types,type_create,secret,additional_headers\nImported,{url}?key={KEY},dcim.site,true,'
    )
    lines += f'{SECRET},X-Token: {HEADER}'
    reader.page(f'{PAGES}webhooks/import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
    rule(Webhook.objects.get(pk=good), Site, action_type='webhooks.send')
    with request_by(user):
        place = site(name='Bern')
        place.snapshot()
        place.save()
    work()
    pass_retry_waits()
    work()
    for pk in (good, bad):
        reader.api('post', f'{API}webhooks/{pk}/test/')
        reader.page(f'{PAGES}webhooks/{pk}/test/', {})
        reader.api('get', f'{API}webhooks/{pk}/preview/')
        reader.api('post', f'{API}webhooks/{pk}/preview/', {'body_template': '{{ data.name }}'})
        reader.page(f'{PAGES}webhooks/{pk}/preview/')
        reader.api('post', f'{API}webhooks/{pk}/replay/', {'since': '2020-01-01T00:00:00Z'})
    work()
    failed = Delivery.objects.filter(status='failed').first()
    reader.api('post', f'{API}deliveries/{failed.pk}/redeliver/')
    expire()
    work()


def look_at_everything(reader: Reader) -> None:
    for name in ('webhooks', 'deliveries', 'events'):
        reader.api('get', f'{API}{name}/')
        reader.page(f'{PAGES}{name}/')
        reader.page(f'{PAGES}{name}/?export=table')
    for webhook in Webhook.objects.all():
        reader.api('get', f'{API}webhooks/{webhook.pk}/')
        for page in ('', 'edit/', 'changelog/', 'preview/', 'rotate-secret/', 'journal/'):
            reader.page(f'{PAGES}webhooks/{webhook.pk}/{page}')
        reader.page(f'/admin/webhooks/webhook/{webhook.pk}/change/')
        reader.page(f'/admin/webhooks/webhook/{webhook.pk}/preview/')
    for delivery in Delivery.objects.all():
        reader.api('get', f'{API}deliveries/{delivery.pk}/')
        reader.page(delivery.get_absolute_url())
        reader.page(f'/admin/webhooks/delivery/{delivery.pk}/change/')
    for event in Event.objects.all():
        reader.page(event.get_absolute_url())
    for change in ObjectChange.objects.all():
        reader.page(change.get_absolute_url())
    for page in (
        '/admin/',
        '/admin/webhook-backend-status/',
        '/admin/webhooks/webhook/',
        '/admin/webhooks/delivery/',
        '/',
    ):
        reader.page(page)
    reader.api('get', '/api/core/object-changes/')
    fields = 'name payload_url additional_headers public_key health { last_error }'
    attempts = 'error attempts { url request_headers response_headers response_body error }'
    query = f'{{ webhooks_webhook_list {{ {fields} }} webhooks_delivery_list {{ {attempts} webhook {{ {fields} }} }} }}'
    assert 'errors' not in reader.api('post', '/graphql/', {'query': query}).json()


@pytest.mark.usefixtures('committed')
def test_no_mark_is_found_in_any_table_redis_key_log_line_page_or_answer(
    admin_pages, api_client, netbox_user, receiver, stack, caplog
):
    box: list[Any] = []
    reader = Reader(admin_pages, api_client)
    with caplog.at_level(logging.INFO), caplog.at_level(logging.DEBUG, 'webhooks'):
        with serving(echo(box, b'500')) as server:
            box.append(server)
            use_everything(reader, netbox_user, receiver.url('/'), server.url())
            received = b''.join(server.requests).decode('latin-1')
        look_at_everything(reader)
    # They have been there.
    assert all(mark in received for mark in (HEADER, SESSION, KEY, LOGIN))
    assert Attempt.objects.filter(response_body__contains='X-Token: ********').exists()
    assert Rack.objects.count() == 0
    logged = [('log', f'{record.getMessage()} {record.exc_text or ""}') for record in caplog.records]
    redis = [*in_redis(stack.tasks), *in_redis(stack.caching)]
    tables = [(place, row) for place, row in in_tables() if place != 'table webhooks_webhook']
    assert len(reader.answers) > 50 and logged and len(redis) > 5 and len(tables) > 100
    kept = [*reader.answers, *logged, *redis, *tables]
    assert not {(place, mark) for place, text in kept for mark in MARKS if mark in text}
    # The URL is stored in clear, which docs/security.md says; the rest is not.
    rows = [row for place, row in in_tables() if place == 'table webhooks_webhook']
    assert not [mark for row in rows for mark in (*SEALED, LOGIN) if mark in row]
    assert [row for row in rows if KEY in row]
