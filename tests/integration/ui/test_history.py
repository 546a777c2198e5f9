import re
from datetime import UTC, datetime, timedelta

import pytest
from dcim.models import Site
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from support.builders import NOWHERE, site, subscribe
from support.engine import deliveries, expire, health, work
from support.log import delivery, event

from devstack.receiver import Receiver
from webhooks.choices import StatusChoices
from webhooks.models import Delivery, Hour, Webhook
from webhooks.services import redelivery
from webhooks.ui import history
from webhooks.ui.history import DAY, WEEK, Period, Slot

NOW = datetime(2026, 3, 11, 10, 20, tzinfo=UTC)
DELIVERED, FAILED = StatusChoices.DELIVERED, StatusChoices.FAILED


@pytest.fixture
def webhook(saves) -> Webhook:
    return subscribe(NOWHERE, Site)


def ended(webhook: Webhook, when: datetime, delivered: int = 0, failed: int = 0) -> None:
    Hour.objects.count_all({webhook.pk: {'delivered': delivered, 'failed': failed}}, when)


def shown(webhook: Webhook, period: Period = DAY, now: datetime = NOW) -> dict[str, tuple[int, int]]:
    """Return {begin of the slot in UTC: (delivered, failed)} without empty slots."""
    slots = history.read(webhook, period, now)
    return {f'{slot.since:%d %H:%M}': (slot.delivered, slot.failed) for slot in slots if slot.delivered or slot.failed}


class TestSlots:
    def test_an_hour_begins_with_its_first_minute(self, webhook):
        ended(webhook, NOW.replace(minute=0), delivered=2)
        ended(webhook, NOW, delivered=1, failed=1)
        ended(webhook, NOW.replace(hour=9, minute=59, second=59), failed=4)
        assert shown(webhook) == {'11 10:00': (3, 1), '11 09:00': (0, 4)}

    def test_a_day_is_shown_and_no_more(self, webhook):
        ended(webhook, NOW.replace(day=10, hour=11, minute=0), delivered=1)
        ended(webhook, NOW.replace(day=10, hour=10, minute=59), delivered=1)
        assert shown(webhook) == {'10 11:00': (1, 0)}

    def test_a_week_is_shown_by_quarters_of_days(self, webhook):
        ended(webhook, NOW.replace(hour=6, minute=0), delivered=1)
        ended(webhook, NOW.replace(hour=11), delivered=1)
        ended(webhook, NOW.replace(day=4, hour=12, minute=0), failed=1)
        ended(webhook, NOW.replace(day=4, hour=11, minute=59), failed=1)
        assert shown(webhook, WEEK) == {'11 06:00': (2, 0), '04 12:00': (0, 1)}

    def test_they_follow_each_other_without_a_gap(self, webhook):
        slots = history.read(webhook, WEEK, NOW)
        assert [slot.until for slot in slots[:-1]] == [slot.since for slot in slots[1:]]
        assert slots[-1].since <= NOW < slots[-1].until

    def test_nothing_of_other_webhooks_is_shown(self, webhook):
        ended(subscribe(NOWHERE, Site), NOW, delivered=1)
        assert not shown(webhook)
        ended(webhook, NOW, failed=1)
        assert shown(webhook) == {'11 10:00': (0, 1)}

    def test_they_begin_at_midnight_where_netbox_is(self, webhook):
        """Kolkata is five and a half hours ahead."""
        with timezone.override('Asia/Kolkata'):
            now = NOW.replace(minute=40)
            ended(webhook, now, delivered=1)
            assert shown(webhook, now=now) == {'11 10:30': (1, 0)}
            assert [str(slot) for slot in history.read(webhook, WEEK, NOW)[-1:]] == ['Wed 12:00 – 18:00']

    def test_they_are_read_by_one_query(self, webhook):
        ended(webhook, NOW, delivered=1)
        with CaptureQueriesContext(connection) as captured:
            history.context(webhook, WEEK, NOW)
        assert len(captured) == 1


@pytest.mark.usefixtures('committed')
class TestCounting:
    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        return subscribe(receiver.url('/hook'), Site, max_attempts=1)

    def total(self, webhook: Webhook) -> tuple[int, int]:
        figures = history.context(webhook, DAY, timezone.now())
        return figures['total'].delivered, figures['total'].failed

    def test_the_history_counts_delivered_and_failed_deliveries(self, webhook, receiver):
        receiver.answers('/hook', 200, 500, 200)
        for _ in range(3):
            site()
        work()
        assert self.total(webhook) == (2, 1)

    def test_a_delivery_that_waits_for_a_retry_counts_neither_as_delivered_nor_as_failed(self, webhook, receiver):
        Webhook.objects.update(max_attempts=3)
        receiver.answers('/hook', 500)
        site()
        work()
        assert self.total(webhook) == (0, 0)

    def test_an_expired_delivery_counts_as_failed(self, webhook):
        Webhook.objects.update(paused=True)
        site()
        work()
        expire()
        work()
        assert [one.status for one in deliveries()] == [FAILED]
        assert self.total(webhook) == (0, 1)
        assert health(webhook).failed == 1

    def test_a_failure_stays_when_it_is_sent_again(self, webhook, receiver):
        receiver.answers('/hook', 500, 200)
        site()
        work()
        redelivery.redeliver(Delivery.objects.all())
        work()
        assert self.total(webhook) == (1, 1)


@pytest.mark.usefixtures('db')
class TestPages:
    @pytest.fixture
    def busy(self, webhook: Webhook) -> Webhook:
        now = timezone.now()
        ended(webhook, now, delivered=2, failed=1)
        ended(webhook, now - timedelta(days=3), failed=1)
        return webhook

    def test_netbox_shows_a_day_or_a_week(self, admin_pages, busy):
        address = busy.get_absolute_url()
        assert 'Last 24 hours. 2 delivered, 1 failed"' in admin_pages.get(address).content.decode()
        assert 'Last 7 days. 2 delivered, 2 failed"' in admin_pages.get(f'{address}?period=week').content.decode()
        assert 'Last 24 hours. 2 delivered, 1 failed"' in admin_pages.get(f'{address}?period=era').content.decode()

    def test_successes_and_failures_are_drawn_on_one_scale_in_the_order_of_time(self, admin_pages, webhook):
        now = timezone.now()
        ended(webhook, now - timedelta(hours=3), delivered=6, failed=2)
        ended(webhook, now, delivered=3, failed=1)
        page = admin_pages.get(webhook.get_absolute_url()).content.decode()
        bars = re.findall(r'<div class="webhooks-(good|bad)" style="height: (\d+)px">', page)
        assert bars == [('good', '90'), ('bad', '30'), ('good', '45'), ('bad', '15')]

    def test_each_bar_names_its_time_and_figures(self, admin_pages, busy):
        page = admin_pages.get(busy.get_absolute_url()).content.decode()
        assert len(re.findall(r'title="\w+ \d\d:00 – \d\d:00: 0 delivered, 0 failed"', page)) == 2 * (DAY.slots - 1)
        assert len(re.findall(r'title="[^"]*: 2 delivered, 1 failed"', page)) == 2

    def test_the_figures_are_there_as_text(self, admin_pages, busy):
        page = admin_pages.get(busy.get_absolute_url()).content.decode()
        table = re.search(r'<summary>Figures</summary>.*?</table>', page, re.DOTALL)[0]
        rows = re.findall(r'<td class="text-end">(\d+)</td>', table)
        assert len(rows) == 2 * DAY.slots
        assert [row for row in rows if row != '0'] == ['2', '1']

    def test_the_failures_lead_to_their_list(self, admin_pages, busy):
        for age, status in ((0, FAILED), (0, DELIVERED), (3, FAILED)):
            when = timezone.now() - timedelta(days=age)
            delivery(event(site()), busy, status=status, finished_at=when)
        page = admin_pages.get(busy.get_absolute_url()).content.decode()
        address = re.search(r'href="(/plugins/webhooks/deliveries/\?[^"]*failed[^"]*)"', page)[1].replace('&amp;', '&')
        found = admin_pages.get(address).context['table'].rows
        assert [row.record.status for row in found] == [FAILED]

    def test_a_user_who_may_not_view_deliveries_gets_no_link(self, clerk_pages, grant, busy):
        grant(Webhook, 'view')
        page = clerk_pages.get(busy.get_absolute_url()).content.decode()
        assert 'Last 24 hours. 2 delivered, 1 failed"' in page
        assert 'deliveries/?webhook_id' not in page

    def test_a_webhook_that_sent_nothing_says_so(self, admin_pages, webhook):
        page = admin_pages.get(webhook.get_absolute_url()).content.decode()
        assert 'No deliveries in this period.' in page
        assert 'webhooks-chart' not in page


def test_a_slot_names_its_time():
    assert str(Slot(NOW, NOW + timedelta(hours=1), 0, 0)) == 'Wed 10:20 – 11:20'
