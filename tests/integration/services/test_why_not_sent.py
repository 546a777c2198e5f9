"""Both UIs and the REST API say why a delivery waits."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from dcim.models import Site
from django.contrib import admin
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from support.admin_browser import DELIVERIES, page_of
from support.builders import NOWHERE, site, subscribe
from support.log import delivery, event

from webhooks.choices import BackfillStateChoices, StatusChoices
from webhooks.delivery_states import DeliveryState
from webhooks.django_admin.delivery import DeliveryAdmin
from webhooks.models import Backfill, Delivery, Event, Health, querysets
from webhooks.models.delivery import UNFORMED
from webhooks.presentation.moments import moment
from webhooks.services.why_not_sent import wait_of

pytestmark = pytest.mark.usefixtures('db')

NOW = timezone.now()
LATER = NOW + timedelta(days=1)
NEXT_ATTEMPT = re.compile(r'>Next attempt</th>(.*?)</tr>', re.DOTALL)
LISTS = ('/plugins/webhooks/deliveries/', DELIVERIES)
API = '/api/plugins/webhooks/deliveries/'


def pending(webhook: Any = None, place: Site | None = None, **fields: Any) -> Delivery:
    """Return a delivery that is due and untried by default."""
    untried = {'status': StatusChoices.PENDING, 'error': '', 'response_status': None, 'due_at': NOW}
    return delivery(event(place or site()), webhook, attempts=0, **untried | fields)


def disabled() -> Delivery:
    return pending(subscribe(NOWHERE, Site, enabled=False))


def paused() -> Delivery:
    return pending(subscribe(NOWHERE, Site, paused=True))


def suspended() -> Delivery:
    made = pending()
    Health.objects.filter(webhook=made.webhook).update(suspended_since=NOW, probe_at=LATER)
    return made


def held_by_its_backfill() -> Delivery:
    webhook = subscribe(NOWHERE, Site)
    state = {'state': BackfillStateChoices.PAUSED, 'object_types': [], 'total': 1, 'started_at': NOW}
    Backfill.objects.create(webhook=webhook, **state)
    held = pending(webhook, backfill=True)
    Event.objects.filter(pk=held.event_id).update(backfill_for=webhook.pk)
    held.event.refresh_from_db()
    return held


def retried() -> Delivery:
    return pending(attempt_count=2, error='HTTP 500', due_at=LATER)


def held() -> Delivery:
    webhook, place = subscribe(NOWHERE, Site), site()
    pending(webhook, place, attempt_count=1, error='HTTP 500', due_at=LATER)
    return pending(webhook, place, due_at=None)


def in_a_set_without_parts() -> Delivery:
    webhook = subscribe(NOWHERE, Site, change_set=True, ordered=False)
    return pending(webhook, due_at=None, change_set=1, part=UNFORMED)


def first_of_a_set_without_parts() -> Delivery:
    return pending(subscribe(NOWHERE, Site, change_set=True), change_set=1, part=UNFORMED)


def put_off_with_its_part() -> Delivery:
    """Another change of its part is behind an earlier one."""
    return pending(subscribe(NOWHERE, Site, change_set=True), due_at=LATER, change_set=1, part=1, parts=1)


def after_a_death(state: DeliveryState) -> Delivery:
    made = pending(attempt_count=1, due_at=LATER)
    made.state = state
    made.save()
    return made


def stopped() -> Delivery:
    return after_a_death(DeliveryState.DOUBTFUL)


def suspected() -> Delivery:
    return after_a_death(DeliveryState.SUSPECT)


def due() -> Delivery:
    return pending()


# Cause: (word in lists, sentence on the page).
REASONS = {
    disabled: ('Disabled', 'The webhook is disabled. Enable it to send this delivery, before it expires at {expires}.'),
    paused: ('Paused', 'The webhook is paused. Resume it to send this delivery, before it expires at {expires}.'),
    suspended: ('Suspended', 'The receiver is unreachable. The next attempt is at {later}.'),
    held_by_its_backfill: (
        'Paused',
        'The backfill is paused. Resume it to send this delivery, before it expires at {expires}.',
    ),
    retried: ('Retrying', 'The last attempt failed. Attempt 3 of 8 is at {later}.'),
    held: (
        'Waits for an earlier change',
        'Delivery {earlier} is sent first: it is an earlier change of the same object.',
    ),
    in_a_set_without_parts: (
        'Waits for its change set',
        'Its change set is still being collected, or waits for an earlier change of one of its objects.',
    ),
    first_of_a_set_without_parts: (
        'Waits for its change set',
        'Its change set is still being collected, or waits for an earlier change of one of its objects.',
    ),
    put_off_with_its_part: (
        'Waits for its change set',
        'An earlier change of an object in its change set is sent first.',
    ),
    stopped: ('Retrying', 'Its worker stopped during the request. It is sent again at {later}.'),
    suspected: ('Retrying', 'Two workers stopped while they were sending it. It is tried alone at {later}.'),
    due: ('', 'A worker sends it as soon as it can.'),
}


@pytest.mark.parametrize('make', REASONS)
def test_why_a_delivery_waits_is_said_wherever_it_is_shown(admin_pages, api_client, make):
    made = make()
    label, text = REASONS[make]
    earlier = querysets.earlier_of(made)
    told = text.format(expires=moment(made.expires_at), later=moment(LATER), earlier=earlier and earlier.pk)
    for address in (made.get_absolute_url(), page_of(made)):
        assert told in unescape(admin_pages.get(address).content.decode()), address
    assert api_client.get(f'{API}{made.pk}/').json()['waiting'] == told
    for address, quiet in zip(LISTS, ('text-secondary', 'wh-quiet'), strict=True):
        assert f'<span class="{quiet}">{label}</span>' in admin_pages.get(address).content.decode(), address


def test_a_waiting_deliverys_page_links_to_the_one_that_goes_first(admin_pages):
    made = held()
    earlier = querysets.earlier_of(made)
    assert f'href="{earlier.get_absolute_url()}"' in admin_pages.get(made.get_absolute_url()).content.decode()
    assert f'href="{page_of(earlier)}"' in admin_pages.get(page_of(made)).content.decode()


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        ({}, 'A worker evaluates the conditions.'),
        ({'filters': {'dcim.site': 'status=active'}}, 'A worker applies the filter of the list.'),
    ],
)
def test_an_undecided_delivery_says_what_a_worker_decides(admin_pages, fields, reason):
    made = pending(subscribe(NOWHERE, Site, **fields), status=StatusChoices.UNDECIDED)
    for page in (made.get_absolute_url(), page_of(made)):
        assert reason in unescape(admin_pages.get(page).content.decode())


def test_a_closed_delivery_waits_for_nothing(admin_pages, api_client):
    made = delivery(event(site()))
    assert wait_of(made, NOW) is None
    assert api_client.get(f'{API}{made.pk}/').json()['waiting'] == ''


def test_the_first_of_the_line_is_found():
    """Closed deliveries do not count, nor do other webhooks or objects."""
    webhook, place = subscribe(NOWHERE, Site), site()
    delivery(event(place), webhook)
    pending(subscribe(NOWHERE, Site), place)
    pending(webhook)
    first = pending(webhook, place)
    pending(webhook, place)
    made = pending(webhook, place)
    assert querysets.earlier_of(made) == first
    assert querysets.earlier_of(first) is None


def test_without_order_nothing_waits_for_an_earlier_one():
    webhook, place = subscribe(NOWHERE, Site, ordered=False), site()
    pending(webhook, place)
    made = pending(webhook, place)
    assert wait_of(made, NOW, querysets.earlier_of(made)).label == ''


def test_a_button_that_cannot_be_pressed_says_why_and_is_renewed_with_the_page(admin_pages):
    made = pending()
    page = admin_pages.get(made.get_absolute_url()).content.decode()
    assert 'title="This delivery or its redelivery is still pending.' in page
    assert 'hx-select-oob="#delivery-header"' in page
    assert page.index('id="delivery-header"') < page.index('id="button-redeliver"') < page.index('id="delivery"')
    Delivery.objects.update(state=StatusChoices.DELIVERED)
    assert 'still pending' not in admin_pages.get(made.get_absolute_url()).content.decode()


# Cause: what is planned.
PLANNED = {
    disabled: None,
    paused: None,
    suspended: LATER,
    held_by_its_backfill: None,
    retried: LATER,
    held: None,
    due: NOW,
}


@pytest.mark.parametrize('make', PLANNED)
def test_the_next_attempt_is_the_same_time_wherever_it_is_shown(admin_pages, api_client, make):
    made, planned = make(), PLANNED[make]
    told = moment(planned) if planned else ''
    page = admin_pages.get(made.get_absolute_url()).content.decode()
    row = NEXT_ATTEMPT.search(page)
    assert ' '.join(re.sub(r'<[^>]*>', ' ', row[1]).split()) == told if row else not told
    table = admin_pages.get(f'{LISTS[0]}?id={made.pk}').context['table']
    assert table.rows[0].get_cell('due_at') == (told or '—')
    (row,) = [one for one in admin_pages.get(LISTS[1]).context['cl'].result_list if one.pk == made.pk]
    assert DeliveryAdmin(Delivery, admin.site).next_attempt(row) == told
    shown = api_client.get(f'{API}{made.pk}/').json()['next_attempt_at']
    assert (parse_datetime(shown) if shown else None) == planned
    query = {'query': f'{{ webhooks_delivery(id: {made.pk}) {{ next_attempt_at }} }}'}
    shown = api_client.post('/graphql/', query, format='json').json()['data']['webhooks_delivery']['next_attempt_at']
    assert (parse_datetime(shown) if shown else None) == planned
