"""Secrets in files and variables: read when they are needed, and never stored or shown."""

import base64
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.db import connection
from standardwebhooks import Webhook as Verifier
from support.builders import NOWHERE, site, subscribe
from support.engine import pass_retry_waits, work
from support.settings import change_settings

from devstack.process import wait_until
from devstack.receiver import Answer, Receiver
from webhooks.models import Attempt, Credential, Delivery, Health, Webhook
from webhooks.security import references, signing

API = '/api/plugins/webhooks/'
KEY, OTHER = signing.generate(), signing.generate()
TOKEN = 'tok3n-of-awx'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / 'secrets'
    made.mkdir()
    change_settings(monkeypatch, secret_folders=(made,), secret_variables=('WEBHOOKS_*',))
    return made


@pytest.fixture
def key(folder: Path) -> Path:
    path = folder / 'key'
    path.write_text(f'{KEY}\n')
    return path


@pytest.fixture
def token(folder: Path) -> Path:
    path = folder / 'token'
    path.write_text(TOKEN)
    return path


def verify(secret: str, request: Any) -> None:
    Verifier(secret).verify(request.body, {name.lower(): value for name, value in request.headers})


def in_database() -> str:
    tables = [name for name in connection.introspection.table_names() if name.startswith('webhooks_')]
    with connection.cursor() as cursor:
        rows = []
        for table in (*tables, 'core_objectchange'):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            rows += [row for (row,) in cursor.fetchall()]
    return '\n'.join(rows)


@pytest.mark.usefixtures('committed')
class TestSending:
    def test_a_file_signs_and_its_renewal_needs_no_restart(self, receiver: Receiver, key: Path):
        subscribe(receiver.url('/'), Site, secret=f'file:{key}')
        site()
        work()
        key.write_text(OTHER)
        site()
        work()
        for secret, request in zip((KEY, OTHER), receiver.requests, strict=True):
            verify(secret, request)

    def test_a_secret_from_a_variable_signs(self, receiver: Receiver, folder: Path, monkeypatch):
        monkeypatch.setenv('WEBHOOKS_KEY', KEY)
        subscribe(receiver.url('/'), Site, secret='env:WEBHOOKS_KEY')
        site()
        work()
        verify(KEY, receiver.requests[0])

    @pytest.mark.parametrize('body_template', ['', '{{ data.name }}'])
    def test_a_header_has_the_files_text_and_no_page_shows_it(
        self, receiver: Receiver, token: Path, api_client, admin_pages, body_template
    ):
        headers = f'X-Token: file:{token}\nX-Other: plain'
        webhook = subscribe(receiver.url('/'), Site, additional_headers=headers, body_template=body_template)
        site()
        work()
        request = receiver.requests[0]
        assert (request.header('X-Token'), request.header('X-Other')) == (TOKEN, 'plain')
        api_client.patch(f'{API}webhooks/{webhook.pk}/', {'description': 'edited'}, format='json')
        page = webhook.get_absolute_url()
        paths = [page, f'{page}preview/', Delivery.objects.get().get_absolute_url()]
        names = ['webhooks/', 'deliveries/', f'webhooks/{webhook.pk}/preview/']
        answers = [*map(admin_pages.get, paths), *(api_client.get(f'{API}{name}') for name in names)]
        assert {answer.status_code for answer in answers} == {200}
        shown = [answer.content.decode() for answer in answers]
        assert ObjectChange.objects.exists()
        assert not [text for text in (*shown, in_database()) if TOKEN in text or str(token) in text]

    @pytest.mark.parametrize('kind', ['bearer', 'basic', 'header', 'template'])
    def test_a_credential_has_it_too(self, receiver: Receiver, token: Path, kind):
        made = Credential(
            name='AWX', type=kind, hosts=[receiver.url('')], secret=f'file:{token}', username='u', header='X-Key'
        )
        made.full_clean()
        made.save()
        body = '{{ credential.token }}' if kind == 'template' else ''
        subscribe(receiver.url('/'), Site, credential=made, body_template=body)
        site()
        work()
        request = receiver.requests[0]
        login = base64.b64encode(f'u:{TOKEN}'.encode()).decode()
        sent = str(request.headers) + request.body.decode()
        assert (login if kind == 'basic' else TOKEN) in sent and str(token) not in sent

    def test_an_endpoint_that_repeats_a_renewed_one_finds_it_masked(self, receiver: Receiver, token: Path):
        secrets = ['first-s3cret', 'second-s3cret']
        receiver.answers('/', *(Answer(500, f'got {secret}'.encode()) for secret in secrets))
        subscribe(receiver.url('/'), Site, additional_headers=f'X-Token: file:{token}', max_attempts=1)
        for secret in secrets:
            token.write_text(secret)
            site()
            work()
        assert [request.header('X-Token') for request in receiver.requests] == secrets
        assert {attempt.response_body for attempt in Attempt.objects.all()} == {'got ********'}


@pytest.mark.usefixtures('committed')
class TestMissing:
    """A worker finds no file: the operator has to act, not the receiver."""

    @pytest.fixture
    def webhook(self, receiver: Receiver, key: Path) -> Webhook:
        made = subscribe(receiver.url('/'), Site, secret=f'file:{key}', max_attempts=2)
        key.unlink()
        return made

    def test_deliveries_wait_unspent_and_go_out_signed_once_it_is_there(self, webhook, receiver, key: Path):
        for _ in range(3):
            site()
        for _ in range(6):
            work()
            pass_retry_waits()
            Health.objects.update(probe_at='2000-01-01T00:00Z')
        waiting = Delivery.objects.all()
        assert {one.status for one in waiting} == {'pending'}
        assert all((one.attempt_limit or 2) - one.attempt_count == 2 for one in waiting)
        assert Attempt.objects.count() >= 6 and not receiver.requests
        key.write_text(KEY)
        pass_retry_waits()
        Health.objects.update(probe_at='2000-01-01T00:00Z')
        work()
        assert {one.status for one in Delivery.objects.all()} == {'delivered'}
        assert Health.objects.get().suspended_since is None
        for request in receiver.wait_for(3):
            verify(KEY, request)

    def test_the_first_one_suspends_the_webhook_and_its_page_names_the_file(self, webhook, admin_pages, key: Path):
        site()
        work()
        page = admin_pages.get(webhook.get_absolute_url()).content.decode()
        assert 'A secret has been missing since' in page and f'file:{key}: No such file or directory' in page
        assert 'The receiver has been unreachable' not in page
        delivery = admin_pages.get(Delivery.objects.get().get_absolute_url()).content.decode()
        assert 'A secret is missing' in delivery

    def test_a_test_fails_and_names_it(self, webhook, api_client, key: Path):
        site()
        answer = api_client.post(f'{API}webhooks/{webhook.pk}/test/').json()
        assert (answer['status'], answer['error']) == ('failed', f'file:{key}: No such file or directory')

    @pytest.mark.parametrize(
        ('content', 'reason'),
        [('', 'file is empty'), ('one\ntwo', 'several lines'), ('whsec_short', 'base64'), ('x' * 70_000, 'too long')],
    )
    def test_so_does_a_file_without_a_secret(self, webhook, key: Path, content, reason):
        key.write_text(content)
        site()
        work()
        delivery = Delivery.objects.get()
        assert delivery.status == 'pending' and reason in delivery.error


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'link to itself'])
def test_what_is_no_file_keeps_nobody_waiting(folder: Path, kind):
    path = folder / 'key'
    {'pipe': os.mkfifo, 'folder': Path.mkdir, 'link to itself': lambda one: one.symlink_to(one)}[kind](path)
    found: list[Exception] = []

    def read() -> None:
        with pytest.raises(references.SecretUnavailable) as refused:
            references.read(f'file:{path}')
        found.append(refused.value)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    assert wait_until(lambda: found, timeout=60), 'a reader waits for ever'
    assert str(found[0]).startswith(f'file:{path}: ')


@pytest.mark.parametrize('field', ['secret', 'additional_headers', 'credential'])
@pytest.mark.parametrize('name', ['file', 'file above', 'link', 'variable'])
def test_what_the_settings_do_not_allow_is_refused_and_never_read(db, folder: Path, api_client, field, name):
    outside = folder.parent / 'outside'
    outside.write_text(KEY)
    (folder / 'link').symlink_to(outside)
    reference = {
        'file': f'file:{outside}',
        'file above': f'file:{folder}/../outside',
        'link': f'file:{folder}/link',
        'variable': 'env:PATH',
    }[name]
    if field == 'credential':
        sent = {'name': 'New', 'type': 'bearer', 'hosts': ['a.example'], 'secret': reference}
        answer = api_client.post(f'{API}credentials/', sent, format='json')
    else:
        value = f'X-Key: {reference}' if field == 'additional_headers' else reference
        sent = {'name': 'New', 'type_create': True, 'payload_url': NOWHERE, field: value}
        answer = api_client.post(f'{API}webhooks/', sent, format='json')
    assert (answer.status_code, list(answer.json())) == (400, ['secret' if field == 'credential' else field])
    assert 'do not allow' in str(answer.json())
    with pytest.raises(references.SecretUnavailable):
        references.read(reference)


def test_without_settings_nothing_is_read(monkeypatch):
    monkeypatch.setenv('WEBHOOKS_KEY', KEY)
    for reference in ('env:WEBHOOKS_KEY', 'file:/etc/hostname'):
        with pytest.raises(references.SecretUnavailable):
            references.read(reference)


@pytest.mark.parametrize('text', ['', 'secret', 'env:', 'env:a-b', 'file:relative', 'Bearer env:NAME', KEY])
def test_other_texts_are_secrets_themselves(text):
    assert references.read(text) == text


def test_the_public_key_of_a_referenced_pair_is_shown(db, folder: Path):
    private = signing.generate(signing.PRIVATE)
    (folder / 'pair').write_text(private)
    webhook = subscribe(NOWHERE, Site, secret=f'file:{folder}/pair')
    assert webhook.public_key == signing.public_key(private)
