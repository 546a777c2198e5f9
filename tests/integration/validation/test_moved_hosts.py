"""Stored header values do not follow a webhook to another host: whoever may change one may not have them sent there."""

import pytest
from dcim.models import Site
from support.admin_browser import page_of, shown
from support.builders import subscribe

from webhooks.models import Webhook
from webhooks.security.masking import MASK

ELSEWHERE = 'https://b.example/in'
STORED = 'Authorization: Bearer b3arer'
KEPT = f'Authorization: {MASK}'
ENTERED = 'Authorization: Bearer another'
API = '/api/plugins/webhooks/webhooks/'
PAGES = '/plugins/webhooks/webhooks/'

pytestmark = pytest.mark.usefixtures('db')


@pytest.fixture
def webhook(db: None) -> Webhook:
    return subscribe('https://a.example/in', Site, additional_headers=STORED, secret='s3cret', name='Receiver')


def stored() -> tuple[str, str]:
    webhook = Webhook.objects.get()
    return webhook.payload_url.reveal(), webhook.additional_headers.reveal()


class TestDoors:
    """All of them refuse, and name the field."""

    @pytest.mark.parametrize('fields', [{}, {'additional_headers': KEPT}, {'additional_headers': f'X-A: b\n{KEPT}'}])
    def test_the_api_refuses(self, webhook, api_client, fields):
        answer = api_client.patch(f'{API}{webhook.pk}/', {'payload_url': ELSEWHERE, **fields}, format='json')
        assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
        assert stored() == ('https://a.example/in', STORED)

    def test_the_bulk_api_refuses(self, webhook, api_client):
        answer = api_client.patch(API, [{'id': webhook.pk, 'payload_url': ELSEWHERE}], format='json')
        assert answer.status_code == 400
        assert stored() == ('https://a.example/in', STORED)

    def test_the_admin_refuses(self, webhook, admin_pages):
        entered = shown(admin_pages, webhook) | {'payload_url': ELSEWHERE}
        answer = admin_pages.post(page_of(webhook), entered)
        assert list(answer.context['adminform'].form.errors) == ['additional_headers']
        assert stored() == ('https://a.example/in', STORED)
        admin_pages.post(page_of(webhook), entered | {'additional_headers': ENTERED})
        assert stored() == (ELSEWHERE, ENTERED)

    def test_the_form_refuses(self, webhook, admin_pages):
        address = f'{PAGES}{webhook.pk}/edit/'
        form = admin_pages.get(address).context['form']
        entered = {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}
        entered['object_types_1'] = entered.pop('object_types')
        answer = admin_pages.post(address, entered | {'payload_url': ELSEWHERE})
        assert list(answer.context['form'].errors) == ['additional_headers']
        assert stored() == ('https://a.example/in', STORED)

    def test_the_bulk_form_refuses(self, webhook, admin_pages):
        answer = admin_pages.post(f'{PAGES}edit/', {'pk': [webhook.pk], '_apply': '1', 'payload_url': ELSEWHERE})
        assert answer.status_code == 200
        assert stored() == ('https://a.example/in', STORED)

    def test_an_import_refuses(self, webhook, admin_pages):
        lines = f'id,payload_url\n{webhook.pk},{ELSEWHERE}'
        answer = admin_pages.post(f'{PAGES}import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
        assert answer.status_code == 200
        assert stored() == ('https://a.example/in', STORED)


@pytest.mark.parametrize(
    ('fields', 'status'),
    [
        ({'payload_url': ELSEWHERE, 'additional_headers': ENTERED}, 200),
        ({'payload_url': ELSEWHERE, 'additional_headers': STORED}, 200),
        ({'payload_url': ELSEWHERE, 'additional_headers': ''}, 200),
        ({'payload_url': 'https://a.example:443/elsewhere?a=b', 'additional_headers': KEPT}, 200),
        ({'payload_url': 'https://a.example/{{ data.name }}'}, 200),
        ({'payload_url': 'http://a.example/in'}, 400),
        ({'payload_url': 'https://a.example:8443/in'}, 400),
        ({'payload_url': 'https://a.example@b.example/in'}, 400),
        ({'payload_url': r'https://b.example\@a.example/in'}, 400),
        ({'payload_url': 'https://a.example{{ data.name }}/in'}, 400),
        ({'payload_url': '{{ data.name }}'}, 400),
    ],
)
def test_only_another_host_needs_the_headers_anew(webhook, api_client, fields, status):
    answer = api_client.patch(f'{API}{webhook.pk}/', fields, format='json')
    assert answer.status_code == status, answer.data
    assert status == 200 or list(answer.data) == ['additional_headers']


def test_a_webhook_without_headers_may_move(webhook, api_client):
    """The secret stays: it only signs."""
    Webhook.objects.update(additional_headers='')
    assert api_client.patch(f'{API}{webhook.pk}/', {'payload_url': ELSEWHERE}, format='json').status_code == 200
    assert Webhook.objects.get().secret.reveal() == 's3cret'
