"""Users who may change a webhook must not redirect its stored headers to their own host."""

from collections.abc import Iterator

import pytest
from dcim.models import Site
from netbox.signals import post_clean
from support.admin_browser import filled, page_of, shown
from support.builders import subscribe

from webhooks.models import Webhook
from webhooks.models.concurrent import ChangedMeanwhile
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
    @pytest.mark.parametrize('fields', [{}, {'additional_headers': KEPT}, {'additional_headers': f'X-A: b\n{KEPT}'}])
    def test_the_api_refuses_masked_headers_for_another_host(self, webhook, api_client, fields):
        answer = api_client.patch(f'{API}{webhook.pk}/', {'payload_url': ELSEWHERE, **fields}, format='json')
        assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
        assert stored() == ('https://a.example/in', STORED)

    def test_the_bulk_api_refuses(self, webhook, api_client):
        answer = api_client.patch(API, [{'id': webhook.pk, 'payload_url': ELSEWHERE}], format='json')
        assert answer.status_code == 400
        assert stored() == ('https://a.example/in', STORED)

    def test_the_admin_refuses_masked_headers_for_another_host(self, webhook, admin_pages):
        entered = shown(admin_pages, webhook) | {'payload_url': ELSEWHERE}
        answer = admin_pages.post(page_of(webhook), entered)
        assert list(answer.context['adminform'].form.errors) == ['additional_headers']
        assert stored() == ('https://a.example/in', STORED)
        admin_pages.post(page_of(webhook), entered | {'additional_headers': ENTERED})
        assert stored() == (ELSEWHERE, ENTERED)

    def test_the_form_refuses_masked_headers_for_another_host(self, webhook, admin_pages):
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

    def test_an_import_refuses_masked_headers_for_another_host(self, webhook, admin_pages):
        lines = f'id,payload_url\n{webhook.pk},{ELSEWHERE}'
        answer = admin_pages.post(f'{PAGES}import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
        assert answer.status_code == 200
        assert stored() == ('https://a.example/in', STORED)


@pytest.fixture
def meanwhile(webhook) -> Iterator[list[Webhook]]:
    """Another user saves the masked headers during an edit, which encrypts them again."""
    saved = []

    def save(**_kwargs: object) -> None:
        if not saved:
            saved.append(Webhook.objects.get())
            saved[0].additional_headers = STORED
            saved[0].save()

    post_clean.connect(save, sender=Webhook)
    yield saved
    post_clean.disconnect(save, sender=Webhook)


class TestMeanwhile:
    """Edits are compared with the version that they read."""

    @pytest.mark.parametrize('changes', [{'payload_url': ELSEWHERE}, {'ssl_verification': False}])
    @pytest.mark.parametrize('door', ['api', 'bulk api', 'bulk form', 'import'])
    def test_headers_that_others_have_entered_anew_do_not_follow(
        self, webhook, meanwhile, api_client, admin_pages, door, changes
    ):
        if door == 'api':
            answer = api_client.patch(f'{API}{webhook.pk}/', changes, format='json')
            assert (answer.status_code, list(answer.data)) == (400, ['additional_headers'])
        elif door == 'bulk api':
            assert api_client.patch(API, [{'id': webhook.pk, **changes}], format='json').status_code == 400
        elif door == 'bulk form':
            admin_pages.post(f'{PAGES}edit/', {'pk': [webhook.pk], '_apply': '1', **changes})
        else:
            lines = f'id,{",".join(changes)}\n{webhook.pk},{",".join(map(str, changes.values()))}'
            admin_pages.post(f'{PAGES}import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
        assert meanwhile
        assert stored() == ('https://a.example/in', STORED)
        assert Webhook.objects.get().ssl_verification

    def test_an_edit_of_something_else_keeps_what_others_have_saved(self, webhook, meanwhile, api_client):
        answer = api_client.patch(f'{API}{webhook.pk}/', {'description': 'edited'}, format='json')
        assert answer.status_code == 200
        kept = Webhook.objects.get()
        assert (kept.description, kept.additional_headers) == ('edited', meanwhile[0].additional_headers)

    @pytest.mark.parametrize('door', ['api', 'form', 'admin'])
    def test_the_second_of_two_edits_of_the_same_is_refused(self, webhook, meanwhile, api_client, admin_pages, door):
        changes = {'additional_headers': ENTERED, 'payload_url': ELSEWHERE}
        if door == 'api':
            answer = api_client.patch(f'{API}{webhook.pk}/', changes, format='json')
            assert answer.status_code == 409
        elif door == 'form':
            answer = admin_pages.post(f'{PAGES}{webhook.pk}/edit/', filled(**changes))
        else:
            answer = admin_pages.post(page_of(webhook), filled(**changes), follow=True)
        assert 'Someone else has just changed: additional headers.' in answer.content.decode()
        assert meanwhile
        assert stored() == ('https://a.example/in', STORED)
        assert api_client.patch(f'{API}{webhook.pk}/', changes, format='json').status_code == 200
        assert stored() == (ELSEWHERE, ENTERED)


def test_urls_that_differ_behind_the_mask_are_not_the_same(webhook):
    first, second = f'{ELSEWHERE}?token=one', f'{ELSEWHERE}?token=two'
    Webhook.objects.update(payload_url=first)
    edited, other = Webhook.objects.get(), Webhook.objects.get()
    edited.payload_url = second
    edited.save()
    assert stored() == (second, STORED)
    other.payload_url = f'{ELSEWHERE}?token=three'
    with pytest.raises(ChangedMeanwhile):
        other.save()


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
    assert status == 200 or 'additional_headers' in answer.data


def test_a_webhook_without_headers_may_move(webhook, api_client):
    """The secret only signs, so it stays."""
    Webhook.objects.update(additional_headers='')
    assert api_client.patch(f'{API}{webhook.pk}/', {'payload_url': ELSEWHERE}, format='json').status_code == 200
    assert Webhook.objects.get().secret.reveal() == 's3cret'
