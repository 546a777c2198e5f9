"""Every feature runs with marked secrets, then no unexpected place has a mark.

Tables and the REST API are read whole. Without `--long`, every third object is looked at on its pages, which show the
same values.
"""

import base64
import io
import json
import logging
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from core.models import ObjectChange
from dcim.models import Rack, Site
from django.contrib.contenttypes.models import ContentType
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse
from django_rq import get_worker
from django_rq.settings import get_queues_map
from extras.models import ExportTemplate, Notification, NotificationGroup
from rest_framework.test import APIClient
from rq import SimpleWorker
from support.admin_browser import ADD, filled, page_of, press, run, shown, type_id
from support.builders import site
from support.builtin import builtin_rule, request_by, rule
from support.confirming import address_of, fields_of
from support.engine import expire, pass_retry_waits, work
from support.loopback import serving

from devstack.redis import RedisAddress
from webhooks import conf, metrics, presets
from webhooks.dashboard import WebhooksWidget
from webhooks.jobs import WebhooksRetentionJob
from webhooks.models import Attempt, Credential, Delivery, Event, Webhook

API = '/api/plugins/webhooks/'
PAGES = '/plugins/webhooks/'
SECRET, FORMER, HEADER, SESSION = 'mArkS3cret0001', 'mArkF0rmer00002', 'mArkH3ader00003', 'mArkS3ssion0004'
USER, PASSWORD, KEY = 'mArkUs3r000005', 'mArkPassw0rd006', 'mArkQu3ry000007'
LOGIN = base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()
SEALED = (SECRET, FORMER, HEADER, SESSION)
IN_URL = (USER, PASSWORD, KEY)
# Credentials: token, password, client secret, access token.
TOKEN, LOGIN_PASSWORD, CLIENT, ACCESS = 'mArkT0ken0000010', 'mArkPassw0rd0011', 'mArkCl1ent000012', 'mArkAcce55000013'
BASIC = base64.b64encode(f'netbox:{LOGIN_PASSWORD}'.encode()).decode()
GRANTED = json.dumps({'access_token': ACCESS, 'token_type': 'Bearer', 'expires_in': 3600}).encode()
OF_CREDENTIALS = (TOKEN, LOGIN_PASSWORD, CLIENT, ACCESS, BASIC)
MARKS = (*SEALED, *IN_URL, LOGIN, *OF_CREDENTIALS)
# NetBox stores and shows these in clear.
BUILTIN_SECRET, BUILTIN_HEADER = 'mArkBu1lt1n0008', 'mArkBu1ltH3ad09'
BUILTIN = (BUILTIN_SECRET, BUILTIN_HEADER)


class Reader:
    """It keeps all answers."""

    def __init__(self, pages: Client, api: APIClient, *, is_thorough: bool):
        self._pages, self._api = pages, api
        self._step = 1 if is_thorough else 3
        self.answers: list[tuple[str, str]] = []

    def some(self, objects: Iterable[Any]) -> list[Any]:
        """Return those whose pages are looked at."""
        return list(objects)[:: self._step]

    def page(self, address: str, data: dict[str, Any] | None = None) -> Any:
        ask = self._pages.get if data is None else self._pages.post
        return self.keep(address, ask(address, data, follow=data is not None))

    def admin(self, does: Any, *arguments: Any) -> Any:
        return self.keep(f'admin {arguments}', does(self._pages, *arguments))

    def confirm(self, asked: Any) -> Any:
        return self.page(address_of(asked), fields_of(asked))

    def fill_in(self, webhook: Webhook, **changed: Any) -> Any:
        return self.page(page_of(webhook), shown(self._pages, webhook) | changed)

    def api(self, method: str, address: str, data: Any = None) -> Any:
        return self.keep(f'{method} {address}', getattr(self._api, method)(address, data, format='json'))

    def command(self, *arguments: str) -> None:
        said = io.StringIO()
        with suppress(SystemExit):
            call_command(*arguments, stdout=said, stderr=said)
        self.answers.append((' '.join(arguments), said.getvalue()))

    def keep(self, address: str, answer: Any) -> Any:
        assert answer.status_code < 500, address
        content = b''.join(answer.streaming_content) if answer.streaming else answer.content
        headers = '\n'.join(f'{name}: {value}' for name, value in answer.headers.items())
        self.answers.append((f'{address} {answer.status_code}', headers + content.decode(errors='replace')))
        return answer


def echo(server_box: list[Any], status: bytes) -> Any:
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


def in_sessions() -> Iterator[tuple[str, str]]:
    for session in Session.objects.all():
        yield 'session', json.dumps(session.get_decoded())


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
    # It may have expired.
    yield from filter(None, read.get(kind, list)())


def _forms(value: bytes) -> Iterator[bytes]:
    """RQ compresses some values, and encodes some in base64."""
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


def use_everything(reader: Reader, user: Any, url: str, echoes: str, login: str, names: Iterable[str]) -> list[str]:
    """Return the secrets made meanwhile. `names`: the presets to begin with."""
    good = define(reader, url, 'Good')
    bad = define(reader, echoes, 'Bad', max_attempts=2)
    define_more(reader, url, echoes)
    use_credentials(reader, echoes, login, user)
    begin_with_presets(reader, echoes, names)
    conditions = {'attr': 'name', 'op': 'regex', 'value': 'B'}
    define(reader, url, 'Template', body_template='{{ data.name }}', conditions=conditions, max_attempts=1)
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
    use_netboxs_own(reader, user, good)
    rotated = rotate(reader, bad)
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
    use_the_admin(reader, good, bad)
    redeliver(reader)
    reader.confirm(reader.page(f'{PAGES}deliveries/redeliver/?status=failed&return_url={PAGES}status/'))
    reader.api('get', f'{API}failures/')
    for command in COMMANDS:
        reader.command(*command)
    imported = Webhook.objects.get(name='Of NetBox')
    assert imported.secret.reveal() == BUILTIN_SECRET
    reader.api('post', f'{API}webhooks/{imported.pk}/test/')
    expire()
    work()
    WebhooksRetentionJob.enqueue(schedule_at=None)
    get_worker('default', worker_class=SimpleWorker).work(burst=True)
    reader.page(f'{PAGES}webhooks/rename/', {'pk': [good], '_apply': '1', 'find': 'Good', 'replace': 'Better'})
    gone = Webhook.objects.get(name='Imported')
    reader.page(f'{PAGES}webhooks/delete/', {'pk': [gone.pk]})
    reader.api('delete', f'{API}webhooks/{gone.pk}/')
    return rotated


def define_more(reader: Reader, url: str, echoes: str) -> None:
    define(reader, 'http://127.0.0.1:9/', 'Nowhere', max_attempts=1)
    define(reader, url, 'Broken', additional_headers=f'X-Token: {HEADER}{{{{ 1 / 0 }}}}', max_attempts=1)
    define(reader, f'{echoes}elsewhere', 'Form', http_content_type='application/x-www-form-urlencoded')
    headers = f'X-Token: {HEADER}'
    define(reader, url, 'Together', change_set=True, payload_format='cloudevents', additional_headers=headers)
    define(reader, echoes, 'Like NetBox', payload_format='netbox', include_snapshots=True, max_attempts=1)
    define(reader, url, 'Feed', payload_url='')
    define(reader, url, 'Broken feed', payload_url='', additional_headers=f'X-Token: {HEADER}{{{{ 1 / 0 }}}}')
    define(reader, url, 'Signing feed', payload_url='', body_template='{{ data.name }} {{ hmac() }}')


def use_credentials(reader: Reader, url: str, login: str, user: Any) -> None:
    """`url` refuses everything, and repeats its requests."""
    host, closed = url.rstrip('/'), 'http://127.0.0.1:9'
    made = {'name': 'Token', 'type': 'template', 'secret': TOKEN, 'hosts': [host, closed]}
    pk = reader.api('post', f'{API}credentials/', made).json()['id']
    page = {'name': 'Login', 'type': 'basic', 'username': 'netbox', 'secret': LOGIN_PASSWORD, 'hosts': host}
    reader.page(f'{PAGES}credentials/add/', page)
    client = {'name': 'Client', 'type': 'oauth2', 'username': 'c', 'secret': CLIENT, 'hosts': host, 'token_url': login}
    reader.page('/admin/webhooks/credential/add/', client)
    reader.page('/admin/webhooks/credential/add/', {**client, 'name': 'In the body', 'type': 'oauth2-body'})
    for kind in ('oauth2', 'oauth2-body'):
        reader.page('/admin/webhooks/credential/add/', {**client, 'name': f'No {kind}', 'type': kind, 'token_url': url})
    lines = f'name,type,header,hosts,secret\nImported,header,X-Key,{host},{TOKEN}'
    reader.page(f'{PAGES}credentials/import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
    reader.page(f'{PAGES}credentials/edit/', {'pk': [pk], '_apply': '1', 'secret': TOKEN, 'description': 'in bulk'})
    reader.page(f'{PAGES}credentials/edit/', {'pk': [pk], '_apply': '1', 'secret': TOKEN, 'type': 'basic'})
    for refused in ({'hosts': ['evil.example.com']}, {'header': 'X Y', 'type': 'header', 'secret': TOKEN}):
        assert reader.api('patch', f'{API}credentials/{pk}/', refused).status_code == 400
    reader.api('patch', f'{API}credentials/{pk}/', {'description': 'changed', 'secret': TOKEN})
    assert Credential.objects.count() == 7
    write_about(reader, 'credential', pk, user)
    in_set = {'payload_url': f'{url}{{{{ credential.token }}}}', 'credential': pk, 'max_attempts': 2}
    headers = f'X-Token: {HEADER} {{{{ credential.token }}}}'
    define(reader, url, 'Change set', change_set=True, additional_headers=headers, **in_set)
    lost = {'payload_url': f'{closed}/{{{{ credential.token }}}}', 'credential': pk, 'max_attempts': 1}
    define(reader, closed, 'Closed', **lost)
    for credential in Credential.objects.all():
        value = 'password' if credential.type == 'basic' else 'token'
        template = f'{{{{ credential.{value} }}}}'
        fields = {
            'payload_url': f'{url}{template}/x?key={template}',
            'body_template': f'{{"token": "{template}", "hidden": "{{{{ credential.{value} | list | join("-") }}}}"}}',
            'additional_headers': f'X-Token: {template}',
            'credential': credential.pk,
            'max_attempts': 2,
        }
        define(reader, url, f'With {credential}', **fields)
        wrong = f'{{{{ credential.{value} | int(default=none) + 1 }}}}'
        define(reader, url, f'Wrong with {credential}', **{**fields, 'body_template': wrong})


def begin_with_presets(reader: Reader, url: str, names: Iterable[str]) -> None:
    for name in names:
        page = f'{PAGES}webhooks/add/?preset={name}'
        form = reader.page(page).context['form']
        shown = {field: form[field].value() for field in form.fields}
        filled = {field: value for field, value in shown.items() if value not in (None, False)}
        filled |= {'name': name, 'payload_url': f'{url}{name}?key={KEY}', 'object_types': [type_id(Site)]}
        if 'credential.' in filled.get('body_template', ''):
            filled['credential'] = Credential.objects.get(name='Token').pk
        filled |= {'secret': SECRET, 'additional_headers': f'X-Token: {HEADER}', 'max_attempts': 2, '_create': '1'}
        reader.page(page, filled)
        assert Webhook.objects.filter(name=name).exists()


COMMANDS = (
    ('webhooks_status',),
    ('webhooks_status', '--json'),
    ('webhooks_schema', 'dcim.site'),
    ('webhooks_replay', '--status', 'failed'),
    ('webhooks_import', '--dry-run'),
    ('webhooks_import',),
    ('webhooks_prune',),
)
# One writes a credential into its body, one has headers, and one neither. `--long`: all.
SOME_PRESETS = ('pagerduty', 'servicenow', 'slack')
TEMPLATE = """{% for one in queryset %}{{ one }} {{ one.payload_url }} {{ one.secret }} {{ one.additional_headers }}
{{ one.serialize_object() }} {{ one.clone() }}{% endfor %}{{ queryset.values() | list }}"""


def rotate(reader: Reader, pk: int) -> list[str]:
    """Return the secrets made. The answers that show them are not kept."""
    reader.api('post', f'{API}webhooks/{pk}/rotate-secret/', {'overlap': '01:00:00'})
    shown_once = [reader.answers.pop()]
    reader.page(ADD, filled(name='Of the admin', generate_secret='on', _addanother='1'))
    waiting = Webhook.objects.get(name='Of the admin')
    made = [Webhook.objects.get(pk=pk).secret.reveal(), waiting.secret.reveal()]
    assert not [place for place, text in (*in_tables(), *in_sessions()) for secret in made if secret in text]
    reader.page(page_of(waiting))
    shown_once.append(reader.answers.pop())
    assert all(secret in text for secret, (_address, text) in zip(made, shown_once, strict=True))
    return made


def write_about(reader: Reader, model: str, pk: int, user: Any) -> None:
    about = {'object_type': f'webhooks.{model}', 'object_id': pk, 'user': user.pk}
    reader.api('post', '/api/extras/bookmarks/', about)
    reader.api('post', '/api/extras/subscriptions/', about)
    entry = {'assigned_object_type': f'webhooks.{model}', 'assigned_object_id': pk, 'comments': 'changed'}
    assert reader.api('post', '/api/extras/journal-entries/', entry).status_code == 201


def use_netboxs_own(reader: Reader, user: Any, pk: int) -> None:
    write_about(reader, 'webhook', pk, user)
    group = NotificationGroup.objects.create(name='Operators')
    group.users.add(user)
    for webhook in Webhook.objects.all():
        webhook.notification_groups.add(group)
    for model in (Webhook, Delivery, Event, Credential):
        template = ExportTemplate.objects.create(name=model.__name__, template_code=TEMPLATE)
        template.object_types.add(ContentType.objects.get_for_model(model))
    headers = {'additional_headers': f'X-Token: {BUILTIN_HEADER}', 'secret': BUILTIN_SECRET}
    builtin_rule(Site, payload_url='http://127.0.0.1:9/', rule_name='Of NetBox', **headers)


def use_the_admin(reader: Reader, good: int, bad: int) -> None:
    webhook = Webhook.objects.get(pk=good)
    reader.fill_in(webhook, description='changed', secret=SECRET, keep_previous='24')
    reader.fill_in(webhook, http_content_type='none')
    for action in ('disable', 'enable', 'test', 'redeliver_failed'):
        reader.admin(run, '/admin/webhooks/webhook/', action, webhook, Webhook.objects.get(pk=bad))
    reader.admin(press, webhook, 'test')


def redeliver(reader: Reader) -> None:
    one, two, three = Delivery.objects.filter(status='failed')[:3]
    reader.api('post', f'{API}deliveries/{one.pk}/redeliver/')
    reader.page(f'{PAGES}deliveries/{two.pk}/redeliver/', {})
    reader.confirm(reader.page(f'{PAGES}deliveries/redeliver/', {'pk': [two.pk, three.pk]}))
    delivered = Delivery.objects.filter(status='delivered').first()
    reader.confirm(reader.admin(run, '/admin/webhooks/delivery/', 'redeliver', delivered))
    work()
    failed = Delivery.objects.filter(status='failed').first()
    reader.page(of_queue('requeue_job', str(failed.uuid)), {'requeue': 'Requeue'})
    get_worker(conf.get().queue, worker_class=SimpleWorker).work(burst=True)


def of_queue(name: str, *arguments: Any) -> str:
    return reverse(f'django_rq:{name}', args=[get_queues_map()[conf.get().queue], *arguments])


def look_at_everything(reader: Reader, user: Any) -> None:
    for name in ('webhooks', 'deliveries', 'events', 'credentials'):
        reader.api('get', f'{API}{name}/')
        reader.api('options', f'{API}{name}/')
        reader.page(f'{PAGES}{name}/')
        reader.page(f'{PAGES}{name}/?export=table')
        reader.page(f'{PAGES}{name}/?export')
    for model in ('Webhook', 'Delivery', 'Event', 'Credential'):
        name = {'Delivery': 'deliveries'}.get(model, f'{model.lower()}s')
        assert 'queryset' not in reader.page(f'{PAGES}{name}/?export={model}').content.decode()
    for credential in Credential.objects.all():
        reader.api('get', f'{API}credentials/{credential.pk}/')
    for credential in reader.some(Credential.objects.all()):
        for page in ('', 'edit/', 'delete/', 'changelog/', 'journal/'):
            reader.page(f'{PAGES}credentials/{credential.pk}/{page}')
        reader.page(f'/admin/webhooks/credential/{credential.pk}/change/')
    distinct = Webhook.objects.exclude(name__in=presets.all_presets()).exclude(name__startswith='Wrong with')
    for webhook in distinct:
        reader.api('get', f'{API}webhooks/{webhook.pk}/')
    for webhook in reader.some(distinct):
        for page in ('', 'edit/'):
            reader.page(f'{PAGES}webhooks/{webhook.pk}/{page}')
        reader.page(f'/admin/webhooks/webhook/{webhook.pk}/change/')
    for webhook in reader.some(Webhook.objects.all()):
        reader.page(f'{PAGES}webhooks/{webhook.pk}/preview/')
    read_feeds(reader)
    look_at_the_log(reader)
    for page in (
        f'{PAGES}status/',
        '/admin/',
        '/admin/webhook-backend-status/',
        '/admin/webhooks/webhook/',
        '/admin/webhooks/delivery/',
        '/admin/webhooks/credential/',
        '/admin/webhooks/delivery/?q=Bern',
        of_queue('failed_jobs'),
        of_queue('finished_jobs'),
        '/core/background-queues/',
        '/core/jobs/',
        '/core/changelog/',
        '/extras/journal-entries/',
        '/extras/bookmarks/',
        '/extras/event-rules/',
        '/user/bookmarks/',
        '/user/notifications/',
        '/user/subscriptions/',
        '/search/?q=Better',
        '/graphql/',
        f'/dcim/sites/{Site.objects.get(name="Bern").pk}/webhooks/',
        *(f'{PAGES}webhooks/{webhook.pk}/{tab}/' for tab in ('changelog', 'journal', 'rotate-secret')),
        '/',
    ):
        reader.page(page)
    for path in (
        'core/object-changes',
        'core/jobs',
        'extras/journal-entries',
        'extras/notifications',
        'extras/bookmarks',
    ):
        reader.api('get', f'/api/{path}/')
    request = RequestFactory().get('/')
    request.user = user
    reader.answers.append(('dashboard', WebhooksWidget().render(request)))
    reader.keep('metrics', metrics.export(request))
    ask_graphql(reader)


def look_at_the_log(reader: Reader) -> None:
    """Deliveries of a webhook with the same end show the same, and so do changes of an object of the same kind."""
    kinds = Delivery.objects.order_by('webhook_id', 'status', '-pk').distinct('webhook_id', 'status')
    for delivery in kinds:
        reader.api('get', f'{API}deliveries/{delivery.pk}/')
    # What presets send differs in the body alone.
    of_presets = Webhook.objects.filter(name__in=presets.all_presets())
    kinds = kinds.exclude(webhook__in=of_presets)
    for delivery in reader.some(kinds):
        reader.page(delivery.get_absolute_url())
        reader.page(f'/admin/webhooks/delivery/{delivery.pk}/change/')
    for delivery in reader.some(kinds.filter(status='failed')):
        reader.page(of_queue('job_detail', str(delivery.uuid)))
        reader.page(f'/core/background-tasks/{delivery.uuid}/')
    for event in reader.some(Event.objects.all()):
        reader.page(event.get_absolute_url())
    webhooks = ContentType.objects.get_for_model(Webhook)
    changes = ObjectChange.objects.exclude(changed_object_type=webhooks, changed_object_id__in=of_presets.values('pk'))
    changes = changes.order_by('changed_object_type_id', 'changed_object_id', 'action', '-pk')
    for change in reader.some(changes.distinct('changed_object_type_id', 'changed_object_id', 'action')):
        reader.page(change.get_absolute_url())


def read_feeds(reader: Reader) -> None:
    for webhook in Webhook.objects.filter(payload_url=''):
        assert reader.api('get', f'{API}webhooks/{webhook.pk}/feed/').json()['items']


def ask_graphql(reader: Reader) -> None:
    fields = 'name payload_url additional_headers public_key health { last_error }'
    attempts = 'error attempts { url request_headers response_headers response_body error }'
    credentials = 'webhooks_credential_list { name hosts username } '
    deliveries = f'webhooks_delivery_list {{ {attempts} webhook {{ {fields} }} }}'
    query = f'{{ {credentials} webhooks_webhook_list {{ {fields} }} {deliveries} }}'
    assert 'errors' not in reader.api('post', '/graphql/', {'query': query}).json()
    for wrong in ('secret', 'access_token { token }', 'name(secret: true)'):
        said = reader.api('post', '/graphql/', {'query': f'{{ webhooks_credential_list {{ {wrong} }} }}'})
        assert 'errors' in said.json()


IN_CLEAR = 'table extras_webhook'


@pytest.mark.usefixtures('committed')
def test_no_mark_is_found_in_any_table_redis_key_log_line_page_or_answer(
    admin_pages, api_client, netbox_user, receiver, stack, caplog, pytestconfig
):
    is_thorough = pytestconfig.getoption('--long')
    names = presets.all_presets() if is_thorough else SOME_PRESETS
    box: list[Any] = []
    reader = Reader(admin_pages, api_client, is_thorough=is_thorough)
    with caplog.at_level(logging.DEBUG):
        granted = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b' % (len(GRANTED), GRANTED)
        with serving(echo(box, b'500')) as server, serving(granted) as login:
            box.append(server)
            rotated = use_everything(reader, netbox_user, receiver.url('/'), server.url(), login.url('/token'), names)
            asked = b''.join(login.requests).decode()
            received = b''.join(server.requests).decode('latin-1')
        look_at_everything(reader, netbox_user)
    # The marks were in use.
    assert all(mark in received for mark in (HEADER, SESSION, KEY, LOGIN, TOKEN, LOGIN_PASSWORD, ACCESS, BASIC))
    assert CLIENT in asked
    assert '"change_set"' in received
    assert Notification.objects.exists()
    assert Attempt.objects.filter(response_body__contains='X-Token: ********').exists()
    refused = Attempt.objects.filter(error__startswith='no access token', response_body__contains='********')
    assert refused.filter(response_body__contains='client_secret').exists()
    assert Rack.objects.count() == 0
    logged = [('log', f'{record.getMessage()} {record.exc_text or ""}') for record in caplog.records]
    redis = [*in_redis(stack.tasks), *in_redis(stack.caching)]
    tables = [(place, row) for place, row in (*in_tables(), *in_sessions()) if place != IN_CLEAR]
    assert len(reader.answers) > 50 and logged and len(redis) > 5 and len(tables) > 100
    kept = [*reader.answers, *logged, *redis, *tables]
    assert not {(place, mark) for place, text in kept for mark in (*MARKS, *BUILTIN, *rotated) if mark in text}
