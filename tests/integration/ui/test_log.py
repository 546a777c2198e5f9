import csv
from html import unescape

import pytest
from dcim.models import Rack, Site
from django.contrib.messages import get_messages
from django.db import connection
from django.test.utils import CaptureQueriesContext
from netbox.registry import registry
from support.builders import DELETED, NOWHERE, site, subscribe
from support.confirming import confirm, first_sentence
from support.engine import work
from support.log import attempt, change_set, delivery, event

from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Event, Webhook

PAGES = '/plugins/webhooks/'


def said(answer):
    return ' '.join(str(message) for message in get_messages(answer.wsgi_request))


#
# The log
#


def test_lists_and_pages_cost_the_same_however_long_the_log_is(admin_pages):
    first = delivery(event(site()))
    addresses = [
        f'{PAGES}webhooks/',
        f'{PAGES}deliveries/',
        f'{PAGES}deliveries/?sort=-last_duration&status=failed',
        f'{PAGES}events/',
        f'/dcim/sites/{first.object_id}/webhooks/',
    ]
    few = [queries(admin_pages, address) for address in addresses]
    for number in range(10):
        webhook = subscribe(NOWHERE, Site, Rack, name=f'More {number}')
        delivery(event(site()), webhook, attempts=3)
        delivery(event(Site.objects.get(pk=first.object_id)), webhook)
    assert [queries(admin_pages, address) for address in addresses] == few


def queries(client, address):
    client.get(address)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    payloads = [query for query in captured if '"webhooks_event"."data"' in query['sql']]
    assert not payloads, 'a list must not read a thousand of them'
    return len(captured)


def test_a_delivery_shows_what_was_sent_and_answered(admin_pages):
    log = delivery(event(site(name='Bern')), attempts=2)
    page = admin_pages.get(log.get_absolute_url()).content.decode()
    assert 'the answer of the receiver' in page
    assert 'http://receiver.example/hook' in page
    assert '&quot;name&quot;: &quot;Bern&quot;' in page
    assert page.count('HTTP 500') >= 2
    assert str(log.uuid) in page


def test_a_delivery_lists_the_others_of_its_change_set(admin_pages):
    first, second = change_set([event(site()), event(site())], subscribe(NOWHERE, Site))
    page = admin_pages.get(second.get_absolute_url()).content.decode()
    own = f'change_set={second.change_set}&webhook_id={second.webhook_id}'
    assert f'deliveries/?embedded=True&{own}' in unescape(page)
    assert {row.record for row in admin_pages.get(f'{PAGES}deliveries/?{own}').context['table'].rows} == {first, second}
    (alone,) = change_set([event(site())], subscribe(NOWHERE, Site))
    assert 'Deliveries of the Change Set' in page
    assert 'Deliveries of the Change Set' not in admin_pages.get(alone.get_absolute_url()).content.decode()


def test_signatures_are_masked_wherever_the_log_is_shown(committed, admin_pages, api_client, receiver):
    subscribe(receiver.url('/'), Site, secret='s3cret')
    site()
    work()
    (got,), log = receiver.wait_for(1), Delivery.objects.get()
    sent = [got.header('webhook-signature'), got.header('X-Hook-Signature')]
    query = {'query': '{ webhooks_delivery_list { attempts { request_headers } } }'}
    for answer in (
        admin_pages.get(log.get_absolute_url()),
        admin_pages.get(f'/admin/webhooks/delivery/{log.pk}/change/'),
        api_client.get(f'/api/plugins/webhooks/deliveries/{log.pk}/'),
        api_client.post('/graphql/', query, format='json'),
    ):
        assert answer.status_code == 200
        text = answer.content.decode()
        assert text.count('********') >= 2
        assert not [signature for signature in sent if signature[3:11] in text]


def test_a_page_of_an_open_delivery_renews_itself_until_it_is_closed(admin_pages):
    still_open = delivery(event(site()), status=StatusChoices.PENDING)
    closed = delivery(event(site()), subscribe(NOWHERE, Site))
    assert 'hx-trigger="every' in admin_pages.get(still_open.get_absolute_url()).content.decode()
    assert 'hx-trigger="every' not in admin_pages.get(closed.get_absolute_url()).content.decode()


def test_a_deleted_object_is_named_but_not_linked(admin_pages):
    place = site(name='Bern')
    delivery(event(place, kind=DELETED))
    page = admin_pages.get(f'{PAGES}deliveries/').content.decode()
    assert 'Bern' in page
    assert f'href="/dcim/sites/{place.pk}/"' not in page


def test_the_tooltip_of_a_cut_cell_shows_its_text_without_markup(admin_pages):
    delivery(event(site(name='Bern & "Genf"')), subscribe(NOWHERE, Site, name='<b>CMDB</b>'), error='<no> answer')
    page = admin_pages.get(f'{PAGES}deliveries/').content.decode()
    for shown in ('Bern &amp; &quot;Genf&quot;', '&lt;b&gt;CMDB&lt;/b&gt;'):
        assert f'title="{shown}"' in page


def test_the_list_has_the_whole_error_beside_the_status(admin_pages):
    delivery(event(site()), error='HTTP 500')
    table = admin_pages.get(f'{PAGES}deliveries/').context['table']
    shown = [column.name for column in table.columns.iterall()]
    assert shown[shown.index('status') + 1] == 'error'
    assert 'truncate' not in str(table.columns['error'].attrs['td'])


def test_a_body_that_cannot_be_made_says_why(admin_pages):
    log = delivery(event(site()), subscribe(NOWHERE, Site, body_template='{{ 1 / 0 }}'))
    assert 'ZeroDivisionError: division by zero (line 1)' in admin_pages.get(log.get_absolute_url()).content.decode()


@pytest.mark.parametrize('template', ['', '{{ event }}'])
@pytest.mark.parametrize('together', [False, True])
def test_the_body_of_an_event_that_could_not_be_rendered_is_the_reason(admin_pages, template, together):
    webhook = subscribe(NOWHERE, Site, body_template=template, change_set=together)
    broken = event(site(), data='', error='the reason of the tests')
    log = change_set([broken, event(site())], webhook)[1] if together else delivery(broken, webhook)
    assert 'data: the reason of the tests' in admin_pages.get(log.get_absolute_url()).content.decode()


# This is JSON too deep for Python, or with half a surrogate pair.
@pytest.mark.parametrize('template', ['{{ "[" * 100000 }}{{ "]" * 100000 }}', '{{ "{" }}"a": "\\ud800"}'])
def test_a_body_that_can_hardly_be_shown_breaks_no_page(admin_pages, template):
    log = delivery(event(site()), subscribe(NOWHERE, Site, body_template=template))
    assert admin_pages.get(log.get_absolute_url()).status_code == 200


#
# Permissions
#


def test_requests_and_payloads_are_for_those_who_may_view_the_object(clerk_pages, grant):
    seen, hidden = (delivery(event(site(name=name)), subscribe(NOWHERE, Site)) for name in ('Bern', 'Genf'))
    grant(Delivery, 'view')
    grant(Event, 'view')
    grant(Site, 'view', name='Bern')
    for log, shown in ((seen, True), (hidden, False)):
        page = clerk_pages.get(log.get_absolute_url()).content.decode()
        assert ('the answer of the receiver' in page) is shown
        assert ('http://receiver.example/hook' in page) is shown
        assert ('&quot;name&quot;' in page) is shown
        assert ('&quot;name&quot;' in clerk_pages.get(log.event.get_absolute_url()).content.decode()) is shown


#
# Actions
#


def test_a_failed_delivery_is_sent_again_from_its_page(committed, admin_pages):
    log = delivery(event(site()))
    answer = admin_pages.post(f'{log.get_absolute_url()}redeliver/')
    assert answer.status_code == 302
    assert '1 delivery is being redelivered' in said(answer)
    log.refresh_from_db()
    assert log.status == StatusChoices.PENDING


def test_an_open_delivery_is_left_alone(admin_pages):
    log = delivery(event(site()), status=StatusChoices.PENDING)
    assert 'still pending' in said(admin_pages.post(f'{log.get_absolute_url()}redeliver/'))


def test_selected_deliveries_are_sent_again_and_no_others(committed, admin_pages):
    logs = [delivery(event(site()), subscribe(NOWHERE, Site)) for _ in range(3)]
    asked = admin_pages.post(f'{PAGES}deliveries/redeliver/', {'pk': [logs[0].pk, logs[2].pk, 'x']})
    answer = confirm(admin_pages, asked)
    assert '2 deliveries are being redelivered' in said(answer)
    statuses = [Delivery.objects.get(pk=log.pk).status for log in logs]
    assert statuses == ['pending', 'failed', 'pending']


def test_all_deliveries_of_the_filter_are_sent_again(committed, admin_pages):
    kept, wanted = (subscribe(NOWHERE, Site, name=name) for name in ('Kept', 'Wanted'))
    for webhook in (kept, wanted, wanted):
        delivery(event(site()), webhook)
    confirm(admin_pages, admin_pages.post(f'{PAGES}deliveries/redeliver/?webhook_id={wanted.pk}', {'_all': 'on'}))
    assert set(Delivery.objects.filter(status='pending').values_list('webhook__name', flat=True)) == {'Wanted'}
    assert Delivery.objects.filter(status='pending').count() == 2


@pytest.mark.parametrize('refused', ['webhook_id=99999', 'created__gte=garbage', 'event_id=99999', 'status=bogus'])
def test_all_of_a_filter_that_is_refused_is_none(committed, admin_pages, refused):
    failed = delivery(event(site()), status='failed')
    answer = admin_pages.post(f'{PAGES}deliveries/redeliver/?{refused}', {'_all': 'on'})
    assert 'the filter is not valid' in said(answer)
    failed.refresh_from_db()
    assert failed.status == 'failed'


def test_superseded_ones_are_not_among_all_unless_they_are_asked_for(committed, admin_pages):
    webhook = subscribe(NOWHERE, Site)
    failed, superseded = (delivery(event(site()), webhook, status=status) for status in ('failed', 'superseded'))
    confirm(admin_pages, admin_pages.post(f'{PAGES}deliveries/redeliver/?webhook_id={webhook.pk}', {'_all': 'on'}))
    assert Delivery.objects.get(status='pending') == failed
    confirm(admin_pages, admin_pages.post(f'{PAGES}deliveries/redeliver/?status=superseded', {'_all': 'on'}))
    assert superseded in Delivery.objects.filter(status='pending')


def test_a_superseded_one_that_is_selected_is_redelivered(committed, admin_pages):
    superseded = delivery(event(site()), subscribe(NOWHERE, Site), status='superseded')
    confirm(admin_pages, admin_pages.post(f'{PAGES}deliveries/redeliver/', {'pk': superseded.pk}))
    assert Delivery.objects.get(status='pending') == superseded


def test_redelivery_needs_its_permission_for_each_delivery(clerk_pages, grant):
    mine, other = (delivery(event(site()), subscribe(NOWHERE, Site, name=name)) for name in ('Mine', 'Other'))
    grant(Delivery, 'view')
    assert clerk_pages.post(f'{mine.get_absolute_url()}redeliver/').status_code == 403
    assert clerk_pages.post(f'{PAGES}deliveries/redeliver/', {'pk': [mine.pk]}).status_code == 403
    assert 'redeliver/' not in clerk_pages.get(mine.get_absolute_url()).content.decode()
    grant(Delivery, 'redeliver', webhook__name='Mine')
    assert clerk_pages.post(f'{other.get_absolute_url()}redeliver/').status_code == 404
    confirm(clerk_pages, clerk_pages.post(f'{PAGES}deliveries/redeliver/', {'_all': 'on'}))
    assert Delivery.objects.get(status='pending') == mine


def test_a_test_event_shows_its_answer(committed, admin_pages, receiver):
    site()
    webhook = subscribe(receiver.url('/hook'), Site)
    answer = admin_pages.post(f'{webhook.get_absolute_url()}test/')
    assert 'answered HTTP 200' in said(answer)
    assert answer.url == Delivery.objects.get().get_absolute_url()
    assert receiver.requests


def test_a_test_leads_to_its_delivery_those_who_may_view_it(committed, clerk_pages, grant, receiver):
    site()
    webhook = subscribe(receiver.url('/hook'), Site)
    grant(Webhook, 'view', 'test')
    address = f'{webhook.get_absolute_url()}test/'
    answer = clerk_pages.post(address)
    assert (answer.url, 'answered HTTP 200' in said(answer)) == (webhook.get_absolute_url(), True)
    grant(Delivery, 'view')
    assert clerk_pages.post(address).url == Delivery.objects.latest('pk').get_absolute_url()


def test_a_test_that_fails_says_why(committed, admin_pages):
    webhook = subscribe(NOWHERE, Site)
    site()
    assert 'failed' in said(admin_pages.post(f'{webhook.get_absolute_url()}test/'))


def test_a_range_of_time_is_replayed(committed, admin_pages):
    webhook = subscribe(NOWHERE, Site)
    delivery(event(site()), webhook)
    address = f'{webhook.get_absolute_url()}replay/'
    assert admin_pages.get(address).status_code == 200
    wrong = admin_pages.post(address, {'since': '2026-02-01 00:00', 'until': '2026-01-01 00:00'})
    assert list(wrong.context['form'].errors) == ['until']
    asked = admin_pages.post(address, {'since': '2020-01-01 00:00', 'status': 'failed'})
    assert first_sentence(asked).startswith('1 delivery to 1 webhook will be sent again.')
    assert not Delivery.objects.filter(status='pending').exists()
    assert '1 delivery is being redelivered' in said(confirm(admin_pages, asked))


@pytest.mark.parametrize('action', ['test', 'replay', 'backfill'])
def test_actions_of_a_webhook_need_their_permission(clerk_pages, grant, action):
    webhook = subscribe(NOWHERE, Site)
    address = f'{webhook.get_absolute_url()}{action}/'
    grant(Webhook, 'view', 'add', 'change', 'delete')
    assert clerk_pages.post(address).status_code == 403
    assert f'{action}/"' not in clerk_pages.get(webhook.get_absolute_url()).content.decode()
    grant(Webhook, action)
    assert clerk_pages.post(address).status_code in (200, 302)
    assert f'{action}/"' in clerk_pages.get(webhook.get_absolute_url()).content.decode()


#
# The tab on the pages of objects
#


def test_the_tab_counts_what_its_list_shows(clerk_pages, grant):
    place = site()
    for name in ('Mine', 'Mine too', 'Other'):
        delivery(event(place), subscribe(NOWHERE, Site, name=name))
    grant(Site, 'view')
    grant(Delivery, 'view', webhook__name__startswith='Mine')
    tab = f'/dcim/sites/{place.pk}/webhooks/'
    page = clerk_pages.get(tab)
    assert len(page.context['table'].rows) == 2
    assert [one['badge'] for one in page.context['tabs'] if one['label'] == 'Webhooks'] == [2]


def test_each_allowed_model_has_the_tab():
    for label in ('dcim.device', 'ipam.prefix', 'tenancy.tenant', 'circuits.circuit', 'virtualization.cluster'):
        app, model = label.split('.')
        assert 'webhooks' in [view['name'] for view in registry['views'][app][model]]
    assert 'webhooks' not in [view['name'] for view in registry['views']['extras']['tag']]


def test_the_tab_shows_the_deliveries_of_the_object(admin_pages):
    place, other = site(name='Bern'), site(name='Genf')
    mine, theirs = (delivery(event(one), subscribe(NOWHERE, Site)) for one in (place, other))
    assert f'/dcim/sites/{place.pk}/webhooks/' in admin_pages.get(place.get_absolute_url()).content.decode()
    page = admin_pages.get(f'/dcim/sites/{place.pk}/webhooks/').content.decode()
    assert mine.get_absolute_url() in page
    assert theirs.get_absolute_url() not in page


def test_a_user_who_may_not_send_an_object_has_its_tab_once_it_has_a_delivery(clerk_pages, grant):
    place = site()
    grant(Site, 'view')
    grant(Delivery, 'view')
    tab = f'/dcim/sites/{place.pk}/webhooks/'
    assert tab not in clerk_pages.get(place.get_absolute_url()).content.decode()
    delivery(event(place))
    assert tab in clerk_pages.get(place.get_absolute_url()).content.decode()


def test_a_user_who_may_send_an_object_has_its_tab_in_any_case(admin_pages):
    place = site()
    assert f'/dcim/sites/{place.pk}/webhooks/' in admin_pages.get(place.get_absolute_url()).content.decode()


def test_the_tab_is_for_those_who_may_view_deliveries(clerk_pages, grant):
    place = site()
    delivery(event(place))
    grant(Site, 'view')
    tab = f'/dcim/sites/{place.pk}/webhooks/'
    assert tab not in clerk_pages.get(place.get_absolute_url()).content.decode()
    assert clerk_pages.get(tab).status_code == 403
    grant(Delivery, 'view')
    assert tab in clerk_pages.get(place.get_absolute_url()).content.decode()
    assert clerk_pages.get(tab).status_code == 200


@pytest.mark.parametrize('export', ['export', 'export=table'])
def test_an_export_has_the_durations_of_all_pages(admin_pages, export):
    # NetBox adds up to five rows to the last page.
    for _ in range(8):
        attempt(delivery(event(site())), 1)
    answer = admin_pages.get(f'{PAGES}deliveries/?per_page=1&{export}')
    rows = csv.DictReader(b''.join(answer).decode('utf-8-sig').splitlines())
    assert [row['Duration'] for row in rows] == ['0.25'] * 8


@pytest.mark.parametrize('name', ['deliveries', 'events'])
@pytest.mark.parametrize('export', ['export', 'export=table'])
def test_an_export_is_not_sorted_by_the_column_of_actions(admin_pages, name, export):
    place = site()
    delivery(event(place))
    answer = admin_pages.get(f'/plugins/webhooks/{name}/?sort=actions&{export}')
    assert answer.status_code == 200
    assert place.name.encode() in b''.join(answer)
