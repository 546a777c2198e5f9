import re
import uuid
from datetime import timedelta
from html import unescape

import pytest
from dcim.models import Rack, Site
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from support.admin_browser import (
    DELIVERIES,
    messages_of,
    page_of,
    press,
    queries,
    run,
)
from support.builders import NOWHERE, site, subscribe
from support.confirming import confirm, first_sentence
from support.engine import work
from support.log import change_set, delivery, event
from users.models import User

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.constants import MAX_RESPONSE_KEPT_CHARS
from webhooks.models import Delivery, Webhook
from webhooks.presentation.moments import moment

# Without `committed`, the transaction is rolled back.
pytestmark = pytest.mark.usefixtures('saves')


@pytest.fixture
def client(netbox_user: User) -> Client:
    client = Client()
    client.force_login(netbox_user)
    return client


@pytest.fixture
def webhook(saves: None) -> Webhook:
    return subscribe('https://a.example/hook?key=hidden', Site, name='Receiver', secret='a secret')


class TestDeliveryList:
    def test_objects_are_linked_unless_they_were_deleted(self, client):
        there, gone = site(), site()
        delivery(event(there))
        delivery(event(gone, kind='deleted'))
        address = gone.get_absolute_url()
        page = client.get(DELIVERIES).content.decode()
        assert f'<a href="{there.get_absolute_url()}">{there}</a>' in page
        assert address not in page
        assert str(gone) in page

    def test_it_shows_why_and_when(self, client):
        due = timezone.now() + timedelta(hours=1)
        error = 'HTTP 503 of the tests, ' + 'and more ' * 20
        delivery(event(site()), error=error, status=StatusChoices.PENDING, due_at=due)
        page = client.get(DELIVERIES).content.decode()
        assert error.strip() in page
        assert moment(due) in page

    def test_a_test_is_marked(self, client):
        delivery(event(site(), test=True))
        assert 'Site: Updated · Test' in client.get(DELIVERIES).content.decode()

    def test_filters_find_by_status_webhook_and_object_type(self, client):
        wanted = delivery(event(site()), status=StatusChoices.DELIVERED)
        rack = Rack.objects.create(name='Rack', site=site())
        delivery(event(rack), subscribe(NOWHERE, Rack))
        for parameters in (
            {'status__exact': 'delivered'},
            {'webhook__id__exact': wanted.webhook.pk},
            {'object_type': 'dcim.site'},
        ):
            assert list(client.get(DELIVERIES, parameters).context['cl'].result_list) == [wanted]

    def test_the_search_finds_by_uuid_object_and_name(self, client):
        named_so = site(name='Site of the search')
        wanted = delivery(event(named_so))
        delivery(event(site(name='Elsewhere', slug='elsewhere')))
        for term in (str(wanted.uuid), str(named_so.pk), 'of the SEARCH', f' {wanted.uuid.hex} '):
            assert list(client.get(DELIVERIES, {'q': term}).context['cl'].result_list) == [wanted]
        assert not client.get(DELIVERIES, {'q': str(uuid.uuid4())}).context['cl'].result_list

    def test_a_number_beyond_all_ids_finds_what_has_it_in_its_name(self, client):
        delivery(event(site()))
        assert not client.get(DELIVERIES, {'q': '9' * 30}).context['cl'].result_list
        wanted = delivery(event(site(name='9' * 30)))
        assert list(client.get(DELIVERIES, {'q': '9' * 30}).context['cl'].result_list) == [wanted]

    def test_queries_do_not_grow_with_the_list(self, client):
        delivery(event(site()))
        few = queries(client, DELIVERIES)
        for _ in range(8):
            delivery(event(site()), subscribe(NOWHERE, Site))
        assert queries(client, DELIVERIES) == few

    def test_the_long_columns_are_not_read(self, client):
        delivery(event(site()))
        with CaptureQueriesContext(connection) as captured:
            client.get(DELIVERIES)
        asked = ' '.join(query['sql'] for query in captured)
        assert '"webhooks_event"."object_repr"' in asked
        assert '"webhooks_event"."data"' not in asked


class TestDeliveryPage:
    def test_it_shows_request_response_and_attempts(self, client, webhook):
        of = delivery(event(site(name='Site of the page')), webhook, attempts=3)
        page = client.get(page_of(of))
        text = page.content.decode()
        assert 'Site of the page' in text
        assert 'POST http://receiver.example/hook' in text
        assert f'webhook-id: {of.uuid}' in text
        assert 'the answer of the receiver' in text
        assert len(page.context['inline_admin_formsets'][0].formset.forms) == 3

    def test_its_title_says_webhook_object_and_state(self, client, webhook):
        of = delivery(event(site(name='Berlin')), webhook)
        title = re.search(r'<div class="titles">(.*?)</div>', client.get(page_of(of)).content.decode(), re.DOTALL)[1]
        assert 'Receiver · Berlin updated · failed: HTTP 500' in title

    def test_it_leaves_out_what_is_blank(self, client):
        waiting = delivery(event(site()), attempts=0, status=StatusChoices.PENDING, error='', response_status=None)
        failed = delivery(event(site(), username='ada'))
        for of, told, untold in ((waiting, 'waits', 'error'), (failed, 'error', 'waits')):
            page = client.get(page_of(of)).content.decode()
            assert f'field-{told}"' in page
            assert f'field-{untold}"' not in page

    def test_a_receivers_answer_is_shown_as_text_not_as_html(self, client):
        of = delivery(event(site()))
        of.attempts.update(response_body='<script>alert(1)</script>')
        page = client.get(page_of(of)).content.decode()
        assert '&lt;script&gt;alert(1)' in page
        assert '<script>alert(1)' not in page

    def test_each_answer_is_laid_out_and_says_when_it_is_cut_off(self, client):
        of = delivery(event(site()))
        of.attempts.update(response_body='{"reason":{"code":7}}')
        page = unescape(client.get(page_of(of)).content.decode())
        assert page.count('"reason": {\n        "code": 7') == 1
        assert 'Cut off' not in page
        of.attempts.update(response_body='a' * MAX_RESPONSE_KEPT_CHARS)
        page = client.get(page_of(of)).content.decode()
        assert page.count('Cut off: only the first 4 KiB of an answer are kept.') == 1

    def test_a_body_that_cannot_be_built_says_why(self, client, webhook):
        Webhook.objects.filter(pk=webhook.pk).update(body_template='{{ 1 / 0 }}')
        assert 'division by zero' in client.get(page_of(delivery(event(site()), webhook))).content.decode()

    def test_an_answer_that_holds_half_a_character_is_shown(self, client):
        of = delivery(event(site()))
        of.attempts.update(response_body='{"a": "\\ud800"}')
        assert client.get(page_of(of)).status_code == 200

    def test_an_event_that_could_not_be_rendered_says_why(self, client):
        broken = event(site(), data='', error='the reason of the tests')
        assert 'the reason of the tests' in client.get(page_of(delivery(broken))).content.decode()

    @pytest.mark.parametrize('template', ['', '{{ changes[0].data.name }}'])
    def test_a_change_set_with_an_event_that_could_not_be_rendered_says_why(self, client, template):
        broken = event(site(), data='', error='the reason of the tests')
        webhook = subscribe(NOWHERE, Site, change_set=True, body_template=template)
        _first, last = change_set([broken, event(site())], webhook)
        assert 'the reason of the tests' in client.get(page_of(last)).content.decode()

    def test_a_delivery_without_an_attempt_has_its_page(self, client):
        of = delivery(event(site()), attempts=0, status=StatusChoices.PENDING, error='', response_status=None)
        assert client.get(page_of(of)).status_code == 200

    def test_each_time_is_shown_in_the_same_form(self, client):
        of = delivery(event(site()), attempts=2, finished_at=timezone.now())
        for address, count in ((DELIVERIES, 1), (page_of(of), 4)):
            page = client.get(address).content.decode()
            assert len(re.findall(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', page)) == count
            assert not re.search(r'[ap]\.m\.|midnight|noon', page)

    def test_nothing_can_be_changed(self, client):
        of = delivery(event(site()))
        assert client.get(f'{DELIVERIES}add/').status_code == 403
        assert client.post(page_of(of), {'status': 'delivered'}).status_code == 403
        assert client.post(page_of(of, 'delete'), {'post': 'yes'}).status_code == 403
        run(client, DELIVERIES, 'delete_selected', of, post='yes')
        of.refresh_from_db()
        assert of.status == StatusChoices.FAILED


class TestRedelivering:
    def test_only_the_selected_deliveries_are_redelivered(self, client):
        chosen, other = delivery(event(site())), delivery(event(site()))
        asked = run(client, DELIVERIES, 'redeliver', chosen)
        assert messages_of(confirm(client, asked, follow=True)) == ['1 delivery is being redelivered.']
        for one, status in ((chosen, StatusChoices.PENDING), (other, StatusChoices.FAILED)):
            one.refresh_from_db()
            assert one.status == status

    def test_superseded_ones_are_not_among_all_unless_they_are_asked_for(self, client):
        webhook = subscribe(NOWHERE, Site)
        failed, superseded = (delivery(event(site()), webhook, status=status) for status in ('failed', 'superseded'))
        confirm(client, run(client, DELIVERIES, 'redeliver', failed, select_across='1'))
        assert Delivery.objects.get(status='pending') == failed
        page = f'{DELIVERIES}?status__exact=superseded'
        confirm(client, run(client, page, 'redeliver', superseded, select_across='1'))
        assert Delivery.objects.filter(status='pending').count() == 2

    def test_by_the_button_on_its_page(self, client):
        of = delivery(event(site()))
        assert messages_of(press(client, of, 'redeliver')) == ['1 delivery is being redelivered.']
        of.refresh_from_db()
        assert of.status == StatusChoices.PENDING

    def test_an_open_delivery_is_left_alone(self, client):
        of = delivery(event(site()), status=StatusChoices.SENDING)
        assert first_sentence(run(client, DELIVERIES, 'redeliver', of)).startswith('Nothing to redeliver')
        assert 'Nothing to redeliver' in messages_of(press(client, of, 'redeliver'))[0]


class TestTogether:
    def test_each_member_of_a_change_set_shows_the_attempts_of_its_request(self, committed, client, receiver: Receiver):
        subscribe(receiver.url('/'), Site, change_set=True)
        with transaction.atomic():
            for _ in range(2):
                site()
        work()
        assert Delivery.objects.count() == 2
        for one in Delivery.objects.all():
            page = client.get(page_of(one)).content.decode()
            assert 'HTTP 200' in page
            assert 'This is what was sent.' in page
