"""Whoever reads the table, or writes queries into a template, finds no secret part of a URL."""

from io import StringIO
from typing import Any

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.test import Client
from extras.models import ExportTemplate
from support.builders import NOWHERE, site, subscribe
from support.engine import work

from devstack.receiver import Receiver
from webhooks.jobs import WebhooksRetentionJob
from webhooks.models import Delivery, Webhook
from webhooks.models.fields import SEALED_MARK
from webhooks.security.masking import MASK

API = '/api/plugins/webhooks/webhooks/'
KEY = 's3cr3tk3y'
URLS = {
    'query': (f'https://hooks.example.com/a?key={KEY}', f'https://hooks.example.com/a?key={MASK}'),
    'user': (f'https://u:{KEY}@hooks.example.com/a', f'https://{MASK}@hooks.example.com/a'),
    'path': (f'https://hooks.example.com/{KEY}', f'https://hooks.example.com/{MASK}'),
    'template': (f'https://x.example/{{{{ data.name }}}}?k={KEY}', f'https://x.example/{{{{ data.name }}}}?k={MASK}'),
}
READ = 'SELECT payload_url FROM webhooks_webhook'
WRITE = 'UPDATE webhooks_webhook SET payload_url = %s'
# Each asks the table itself.
QUERIES = [
    "{% for one in queryset.extra(select={'u': 'payload_url'}) %}{{ one.u }}{% endfor %}",
    "{{ queryset.filter(payload_url__contains='s3cr3t').count() }} found",
    "{{ queryset.values_list('payload_url').first() }}",
    '{{ queryset.first().payload_url }} {{ queryset.first().payload_url.reveal }}',
]


def in_table() -> str:
    with connection.cursor() as cursor:
        cursor.execute(READ)
        return cursor.fetchone()[0]


def write(url: str) -> None:
    """As 1.0.0 does."""
    with connection.cursor() as cursor:
        cursor.execute(WRITE, [url])


@pytest.mark.parametrize('part', URLS)
def test_only_the_masked_url_is_in_clear(db, part):
    url, shown = URLS[part]
    webhook = subscribe(url, Site, secret_path=part == 'path')
    webhook.refresh_from_db()
    assert in_table().startswith(f'{shown}{SEALED_MARK}')
    assert KEY not in in_table()
    assert (str(webhook.payload_url), webhook.payload_url.reveal()) == (shown, url)


def test_a_url_without_a_secret_stays_readable_in_the_table(db):
    subscribe(f'{NOWHERE}a#b', Site)
    assert in_table() == f'{NOWHERE}a#b'


@pytest.mark.parametrize('query', QUERIES)
def test_no_export_template_finds_it(db, admin_pages: Client, query):
    subscribe(URLS['query'][0], Site)
    template = ExportTemplate.objects.create(name='Export', template_code=query)
    template.object_types.set([ContentType.objects.get_for_model(Webhook)])
    answer = admin_pages.get('/plugins/webhooks/webhooks/?export=Export')
    assert KEY not in answer.content.decode()
    assert answer.content.decode() not in ('', '1 found')


def test_no_dump_and_no_change_log_has_it(db, api_client):
    webhook = subscribe(URLS['query'][0], Site)
    api_client.patch(f'{API}{webhook.pk}/', {'description': 'edited'}, format='json')
    dump = StringIO()
    call_command('dumpdata', 'webhooks.webhook', stdout=dump)
    assert MASK in dump.getvalue() and KEY not in dump.getvalue()
    changes = [(change.prechange_data, change.postchange_data) for change in ObjectChange.objects.all()]
    assert changes and KEY not in str(changes)


def test_a_list_is_searched_by_the_masked_url(db):
    subscribe(URLS['query'][0], Site)
    assert Webhook.objects.filter(payload_url__startswith=URLS['query'][1]).exists()
    assert not Webhook.objects.filter(payload_url__startswith=URLS['query'][0]).exists()


@pytest.mark.parametrize('update_fields', [None, ['payload_url'], ['description']])
def test_a_save_keeps_the_whole_url(db, update_fields):
    webhook = subscribe(URLS['query'][0], Site)
    read = Webhook.objects.get()
    if update_fields == ['payload_url']:
        read.payload_url = URLS['user'][0]
    read.save(update_fields=update_fields)
    expected = URLS['user' if update_fields == ['payload_url'] else 'query'][0]
    webhook.refresh_from_db()
    assert webhook.payload_url.reveal() == Webhook.objects.only('payload_url').get().payload_url.reveal() == expected


def test_hiding_the_path_seals_what_was_stored(db):
    subscribe(URLS['path'][0], Site)
    read = Webhook.objects.get()
    read.secret_path = True
    read.save()
    assert KEY not in in_table()
    assert Webhook.objects.get().payload_url.reveal() == URLS['path'][0]


@pytest.mark.usefixtures('committed')
class TestStoredInClear:
    """As 1.0.0 has stored it, and as its processes may do beside this version."""

    def test_it_is_sent_to_and_the_daily_job_seals_it(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site)
        write(receiver.url(f'/?key={KEY}'))
        site()
        work()
        WebhooksRetentionJob.enqueue(immediate=True)
        assert KEY not in in_table()
        site()
        work()
        assert [request.target for request in receiver.requests] == [f'/?key={KEY}'] * 2
        assert {attempt.url for one in Delivery.objects.all() for attempt in one.attempts.all()} == {
            receiver.url(f'/?key={MASK}')
        }

    def test_the_next_save_seals_it(self):
        subscribe(NOWHERE, Site)
        write(URLS['user'][0])
        assert str(Webhook.objects.get().payload_url) == URLS['user'][1]
        Webhook.objects.get().save()
        assert KEY not in in_table()
        assert Webhook.objects.get().payload_url.reveal() == URLS['user'][0]

    def test_a_url_that_replaces_a_sealed_one_counts(self):
        subscribe(URLS['query'][0], Site)
        write(NOWHERE)
        assert Webhook.objects.get().payload_url.reveal() == NOWHERE

    def test_an_update_by_query_seals_it(self):
        subscribe(NOWHERE, Site)
        Webhook.objects.update(payload_url=URLS['query'][0])
        assert KEY not in in_table()
        assert Webhook.objects.get().payload_url.reveal() == URLS['query'][0]


@pytest.mark.usefixtures('committed')
class TestLostKeys:
    @pytest.fixture
    def webhook(self, settings: Any) -> Webhook:
        made = subscribe(URLS['query'][0], Site, max_attempts=1)
        settings.SECRET_KEY = 'x' * 50
        return made

    def test_pages_show_the_mask_and_the_delivery_says_why_it_failed(self, webhook, admin_pages, api_client):
        site()
        work()
        assert 'payload_url: The stored value cannot be decrypted' in Delivery.objects.get().error
        answers = [admin_pages.get(webhook.get_absolute_url()), api_client.get(f'{API}{webhook.pk}/')]
        answers.append(admin_pages.get(f'{webhook.get_absolute_url()}edit/'))
        assert [answer.status_code for answer in answers] == [200] * 3
        assert all(URLS['query'][1] in answer.content.decode() for answer in answers)

    def test_it_can_be_entered_again(self, webhook, api_client):
        answer = api_client.patch(f'{API}{webhook.pk}/', {'description': 'x'}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['payload_url'])
        answer = api_client.patch(f'{API}{webhook.pk}/', {'payload_url': URLS['query'][0]}, format='json')
        assert answer.status_code == 200, answer.content
        assert Webhook.objects.get().payload_url.reveal() == URLS['query'][0]
