"""As with Slack's URLs, a path may be a password."""

import json
from typing import Any

import pytest
from core.models import ObjectChange
from dcim.models import Site
from django.core.exceptions import ValidationError
from support.admin_browser import page_of
from support.builders import site, subscribe
from support.engine import work

from devstack.receiver import Answer, Receiver
from webhooks.models import Delivery, Webhook
from webhooks.security.echoes import Echoes, of_url
from webhooks.security.masking import MASK, mask_template

API = '/api/plugins/webhooks/webhooks/'
DELIVERIES = '/api/plugins/webhooks/deliveries/'
PAGES = '/plugins/webhooks/webhooks/'
PATH = 'services/T0001/B0002/s3cr3tp4th'
URL = f'https://hooks.example.com/{PATH}'
SHOWN = f'https://hooks.example.com/{MASK}'


@pytest.fixture
def webhook(db: None) -> Webhook:
    return subscribe(URL, Site, secret_path=True, name='Chat')


def stored() -> tuple[str, bool]:
    webhook = Webhook.objects.get()
    return webhook.payload_url.reveal(), webhook.secret_path


class TestDisplay:
    def test_neither_the_log_nor_a_page_shows_it(self, committed, receiver: Receiver, api_client, admin_pages):
        """The endpoint repeats it, and redirects to it."""
        moved = {'Location': f'https://hooks.example.com/{PATH}', 'X-Path': f'/{PATH}'}
        receiver.answers(f'/{PATH}', Answer(302, f'no such hook: {PATH} (s3cr3tp4th)'.encode(), moved))
        webhook = subscribe(receiver.url(f'/{PATH}'), Site, secret_path=True, max_attempts=1)
        api_client.patch(f'{API}{webhook.pk}/', {'description': 'edited'}, format='json')
        site()
        work()
        assert [request.path for request in receiver.requests] == [f'/{PATH}']
        delivery = Delivery.objects.get()
        attempt = delivery.attempts.get()
        kept = [delivery.error, attempt.url, attempt.error, attempt.response_body, attempt.response_headers]
        kept += [change.postchange_data for change in ObjectChange.objects.all()]
        assert attempt.url == receiver.url(f'/{MASK}')
        answers = [
            *(api_client.get(address) for address in (API, f'{API}{webhook.pk}/', f'{API}{webhook.pk}/preview/')),
            api_client.get(DELIVERIES),
            api_client.post('/graphql/', {'query': '{ webhooks_webhook_list { payload_url } }'}, format='json'),
            *(admin_pages.get(address) for address in (PAGES, f'{PAGES}?export=table', webhook.get_absolute_url())),
            admin_pages.get(f'{webhook.get_absolute_url()}edit/'),
            admin_pages.get(delivery.get_absolute_url()),
            admin_pages.get(page_of(webhook)),
        ]
        assert {answer.status_code for answer in answers} == {200}
        shown = [json.dumps(kept), *(answer.content.decode() for answer in answers)]
        assert MASK in shown[0]
        assert not [text for text in shown if 's3cr3tp4th' in text]

    def test_a_query_without_the_switch_does_not_show_it(self, webhook):
        assert [str(url) for url in Webhook.objects.values_list('payload_url', flat=True)] == [SHOWN]
        assert str(Webhook.objects.only('payload_url').get().payload_url) == SHOWN
        Webhook.objects.update(secret_path=False)
        assert str(Webhook.objects.get().payload_url) == SHOWN

    @pytest.mark.parametrize(
        ('url', 'shown'),
        [
            (f'https://u:p@a.example/{PATH}?a=b', f'https://{MASK}@a.example/{MASK}?a={MASK}'),
            ('https://a.example/{{ data.name }}/s3cret', f'https://a.example/{MASK}'),
            ('https://{{ data.name }}/s3cret', f'https://{{{{ data.name }}}}/{MASK}'),
            ('{{ data.url }}/s3cret', MASK),
            ('https://a.example/', 'https://a.example/'),
        ],
    )
    def test_a_masked_url_shows_its_host_and_no_path_or_password(self, url, shown):
        assert mask_template(url, hides_path=True) == shown

    def test_an_answer_that_repeats_it_is_masked(self):
        said = f'no such hook: /{PATH}, nor s3cr3tp4th'
        assert Echoes(of_url(URL, hides_path=True)).beginning(said, 100) == f'no such hook: /{MASK}, nor {MASK}'
        assert Echoes(of_url(URL)).beginning(said, 100) == said


class TestUnmasking:
    """People who may change a webhook must enter its path again."""

    @pytest.mark.parametrize('sent', [{}, {'payload_url': SHOWN}])
    def test_the_api_asks_for_the_url(self, webhook, api_client, sent):
        address = f'{API}{webhook.pk}/'
        answer = api_client.patch(address, sent | {'secret_path': False}, format='json')
        assert (answer.status_code, list(answer.json())) == (400, ['payload_url'])
        assert stored() == (URL, True)
        answer = api_client.patch(address, {'secret_path': False, 'payload_url': URL}, format='json')
        assert (answer.status_code, answer.json()['payload_url']) == (200, URL)

    @pytest.mark.parametrize('door', ['form', 'admin', 'bulk form', 'import'])
    def test_the_pages_ask_for_the_url(self, webhook, admin_pages, door):
        if door in ('form', 'admin'):
            address = f'{webhook.get_absolute_url()}edit/' if door == 'form' else page_of(webhook)
            answer = admin_pages.get(address)
            form = answer.context['form'] if door == 'form' else answer.context['adminform'].form
            entered = {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}
            assert entered.pop('secret_path') is True
            entered['object_types_1'] = entered['object_types']
            answer = admin_pages.post(address, entered)
            form = answer.context['form'] if door == 'form' else answer.context['adminform'].form
            assert list(form.errors) == ['payload_url']
        elif door == 'bulk form':
            admin_pages.post(f'{PAGES}edit/', {'pk': [webhook.pk], '_apply': '1', 'secret_path': 'False'})
        else:
            lines = f'id,secret_path\n{webhook.pk},false'
            admin_pages.post(f'{PAGES}import/', {'data': lines, 'format': 'csv', 'csv_delimiter': ','})
        assert stored() == (URL, True)

    def test_sent_back_as_it_was_shown_it_stays(self, webhook, api_client):
        shown: dict[str, Any] = api_client.get(f'{API}{webhook.pk}/').json()
        assert (shown['payload_url'], shown['secret_path']) == (SHOWN, True)
        sent = shown | {'description': 'edited', 'ignore_users': [], 'object_types': ['dcim.site']}
        assert api_client.put(f'{API}{webhook.pk}/', sent, format='json').status_code == 200
        assert stored() == (URL, True)

    def test_it_can_be_hidden_at_any_time(self, db, api_client):
        webhook = subscribe(URL, Site)
        answer = api_client.patch(f'{API}{webhook.pk}/', {'secret_path': True}, format='json')
        assert (answer.status_code, answer.json()['payload_url']) == (200, SHOWN)
        assert stored() == (URL, True)

    def test_a_script_has_to_enter_it_too(self, webhook):
        read = Webhook.objects.get()
        read.secret_path = False
        with pytest.raises(ValidationError) as refused:
            read.full_clean()
        assert refused.value.message_dict.keys() == {'payload_url'}


def test_a_webhook_for_slack_begins_with_it(db, api_client):
    sent = {'name': 'Slack', 'preset': 'slack', 'payload_url': URL, 'object_types': ['dcim.site'], 'type_create': True}
    answer = api_client.post(API, sent, format='json')
    assert (answer.status_code, answer.json()['payload_url']) == (201, SHOWN)
