r"""Parsers end the host of http://a\@b/ differently: requests calls a, and most read b."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from dcim.models import Site
from support.admin_browser import ADD, filled
from support.builders import site, subscribe
from support.engine import work

from devstack.receiver import Receiver
from webhooks.models import Attempt, Delivery, Webhook

API = '/api/plugins/webhooks/webhooks/'
PAGES = '/plugins/webhooks/webhooks/'
HOST = 'trusted.example.com'


@pytest.mark.parametrize(
    'url',
    [
        rf'http://127.0.0.1:8425\@{HOST}/hook',
        rf'http://127.0.0.1:8425\@{HOST}/hook/{{{{ data.name }}}}',
        rf'http://127.0.0.1\.{HOST}/',
        f'http://%31%32%37.0.0.1/?{HOST}',
    ],
)
def test_no_form_takes_one(db, api_client, admin_pages, url: str):
    fields = {'name': 'One', 'payload_url': url, 'object_types': ['dcim.site'], 'type_create': True}
    answer = api_client.post(API, fields, format='json')
    assert (answer.status_code, list(answer.json())) == (400, ['payload_url'])
    answer = admin_pages.post(ADD, filled(payload_url=url))
    assert list(answer.context['adminform'].form.errors) == ['payload_url']
    lines = json.dumps([fields | {'object_types': 'dcim.site'}])
    answer = admin_pages.post(f'{PAGES}import/', {'data': lines, 'format': 'json', 'csv_delimiter': ''})
    assert answer.status_code == 200
    page = filled(payload_url=url) | {'object_types': [str(pk) for pk in filled()['object_types']]}
    assert 'payload_url' in admin_pages.post(f'{PAGES}add/', page).context['form'].errors
    assert not Webhook.objects.exists()


@pytest.fixture
def stored(committed: None, receiver: Receiver) -> Callable[[str], Webhook]:
    def store(url: str) -> Webhook:
        """As an earlier version did."""
        webhook = subscribe(receiver.url('/'), Site, max_attempts=1)
        Webhook.objects.filter(pk=webhook.pk).update(payload_url=url)
        return Webhook.objects.get()

    return store


@pytest.mark.parametrize('spelled', ['127.0.0.1', '%31%32%37.0.0.1'])
def test_a_stored_misleading_url_shows_the_host_that_is_called(
    stored: Callable[[str], Webhook], receiver: Receiver, api_client, admin_pages, spelled: str
):
    place = receiver.url('').removeprefix('http://')
    webhook = stored(rf'http://{place.replace("127.0.0.1", spelled)}\@{HOST}/hook?key=s3cret')
    site()
    work()
    assert len(receiver.requests) == 1
    shown = f'http://{place}/********?key=********'
    assert (webhook.masked_url, Attempt.objects.get().url) == (shown, shown)
    answers: list[Any] = [
        api_client.get(f'{API}{webhook.pk}/'),
        admin_pages.get(webhook.get_absolute_url()),
        admin_pages.get(PAGES),
        admin_pages.get(Delivery.objects.get().get_absolute_url()),
    ]
    for answer in answers:
        text = answer.content.decode()
        assert place in text
        assert HOST not in text


def test_a_template_that_makes_one_is_not_sent(stored: Callable[[str], Webhook], receiver: Receiver):
    place = receiver.url('').removeprefix('http://')
    stored(rf'http://{place}\@{HOST}/{{{{ data.name }}}}')
    site()
    work()
    assert Delivery.objects.get().error.startswith('not sent: payload_url: Enter a valid URL: its host contains')
    assert receiver.requests == []
