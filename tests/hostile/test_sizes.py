import datetime
import json
from collections import Counter
from typing import Any

import pytest
from dcim.models import Site
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from rest_framework.test import APIClient
from support.builders import NOWHERE, subscribe

from webhooks.forms.bulk_import import WebhookImportForm
from webhooks.models import Webhook

API = '/api/plugins/webhooks/webhooks/'
IMPORT = '/plugins/webhooks/webhooks/import/'
LIMIT = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
HEADS = 'name,payload_url,object_types,type_create,description'
LINE = f'One,{NOWHERE},dcim.site,true'
DEFINITION = {'name': 'One', 'payload_url': NOWHERE, 'object_types': 'dcim.site', 'type_create': True}


@pytest.fixture
def ask(db: None, api_client: APIClient) -> APIClient:
    """A failure is an answer, too."""
    api_client.raise_request_exception = False
    return api_client


@pytest.fixture
def pages(admin_pages: Client) -> Client:
    admin_pages.raise_request_exception = False
    return admin_pages


class TestApi:
    @pytest.mark.parametrize('path', ['', '{}/', '{}/preview/', '{}/replay/', '{}/rotate-secret/'])
    def test_more_than_netbox_takes_is_refused_and_said(self, ask: APIClient, path: str):
        path = API + path.format(subscribe(NOWHERE, Site).pk)
        send = ask.patch if path.removesuffix('/')[-1].isdigit() else ask.post
        for length, statuses in ((LIMIT + 1, {413}), (LIMIT - 1000, {200, 201, 400})):
            body = json.dumps({'description': 'x' * length})
            answer = send(path, body, content_type='application/json')
            assert answer.status_code in statuses, answer.content[:1000]
            assert length < LIMIT or 'DATA_UPLOAD_MAX_MEMORY_SIZE' in answer.json()['detail']

    def test_more_files_than_django_takes_are_refused(self, ask: APIClient):
        for count, text in ((settings.DATA_UPLOAD_MAX_NUMBER_FILES + 1, 'DATA_UPLOAD_MAX_NUMBER_FILES'), (1, 'name')):
            files = {f'file{number}': SimpleUploadedFile('a', b'x') for number in range(count)}
            answer = ask.post(API, files, format='multipart')
            assert answer.status_code == 400
            assert text in answer.content.decode()


def entered(text: str, kind: str) -> dict[str, str]:
    return {'data': text, 'format': kind, 'csv_delimiter': ',' if kind == 'csv' else ''}


class TestImport:
    @pytest.mark.parametrize(
        'kind, text',
        {
            'a long field': ('csv', f'{HEADS}\n{LINE},{"x" * 131_073}'),
            'a line break in a field': ('csv', f'{HEADS}\n{LINE},a\rb'),
            'a NUL': ('csv', f'{HEADS}\n{LINE},a\x00b'),
            'nothing': ('csv', '\r'),
            'JSON of a text': ('json', '"x"'),
            'JSON of a number': ('json', '[1]'),
            'JSON of a long number': ('json', json.dumps([DEFINITION]).replace('true', '9' * 5000)),
            'JSON too deep': ('json', '[' * 100_000),
            'an id that is none': ('json', json.dumps([DEFINITION | {'id': [1]}])),
            'an id out of range': ('json', json.dumps([DEFINITION | {'id': 10**30}])),
            'YAML in itself': ('yaml', '- &a [*a]'),
            'YAML too deep': ('yaml', '[' * 2000),
            'YAML of a day that is none': ('yaml', '- name: 2001-99-99'),
            'YAML without names': ('yaml', '- 1: 2'),
            'no format': ('', LINE),
        }.values(),
        ids=lambda value: value[:20] if isinstance(value, str) else value,
    )
    def test_an_import_that_cannot_be_read_is_an_error_of_the_form(self, pages: Client, kind: str, text: str):
        answer = pages.post(IMPORT, entered(text, kind))
        assert answer.status_code == 200
        assert answer.context['form'].errors
        assert not Webhook.objects.exists()

    @pytest.mark.parametrize('content', [b'\xff\xfe', f'{HEADS}\n{LINE},{"x" * 131_073}'.encode()])
    def test_a_file_that_cannot_be_read_is_one_too(self, pages: Client, content: bytes):
        for one, made in ((content, False), (f'{HEADS}\n{LINE},fine'.encode(), True)):
            form = entered('', 'csv') | {'import_method': 'upload', 'upload_file': SimpleUploadedFile('a.csv', one)}
            answer = pages.post(IMPORT, form)
            assert answer.status_code == (302 if made else 200)
            assert Webhook.objects.exists() is made

    def test_a_form_without_fields_is_refused(self, pages: Client):
        assert pages.post(IMPORT, {}).status_code == 200
        assert pages.post(IMPORT, '{}', content_type='application/json').status_code == 200

    def test_no_value_of_any_field_fails_the_server(self, db: None, pytestconfig: pytest.Config):
        """Without `--long`, fields of a kind share the values: each of them gets every tenth."""
        texts: tuple[Any, ...] = ('', '\x00', b'x', datetime.date.min)
        others: tuple[Any, ...] = (None, True, 0, 1.5, 10**30, float('nan'))
        odd = (*texts, *others, [], [[]], [{}], [None], {}, {'a': []}, {'a': datetime.date.min})
        saved, tried = 0, Counter()
        share = 1 if pytestconfig.getoption('--long') else 10
        for name in WebhookImportForm.Meta.fields:
            kind = type(WebhookImportForm.base_fields[name])
            tried[kind] += 1
            for value in odd if tried[kind] == 1 else odd[tried[kind] % share :: share]:
                form = WebhookImportForm(data=DEFINITION | {name: value}, instance=Webhook())
                if form.is_valid():
                    form.save().delete()
                    saved += 1
        assert saved > 40
