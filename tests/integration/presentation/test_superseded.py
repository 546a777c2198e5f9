from datetime import timedelta

import pytest
from dcim.models import Site
from django.utils import timezone
from extras.models import Notification, NotificationGroup
from prometheus_client import generate_latest
from support.builders import NOWHERE, site, subscribe
from support.engine import deliveries, health, work
from support.log import delivery, event
from users.models import User

from webhooks import metrics
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.deliver import endpoint
from webhooks.engine.tidy import retention
from webhooks.models import Attempt, Delivery, Event, Health, Hour, Webhook
from webhooks.services import backlog, failed_jobs, redelivery
from webhooks.ui import history

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
DELIVERIES = '/plugins/webhooks/deliveries/'
API = '/api/plugins/webhooks/'


@pytest.fixture
def webhook(receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


@pytest.fixture
def both(webhook) -> tuple[Delivery, Delivery]:
    first, second = event(site()), event(site())
    forget_undispatched()
    superseded = delivery(first, webhook, attempts=0, status=SUPERSEDED, error='', response_status=None)
    return superseded, delivery(second, webhook)


def forget_undispatched() -> None:
    Event.objects.filter(dispatched_at=None).delete()


def count(webhook: Webhook, number: int) -> None:
    with sql.transaction() as now:
        endpoint.note(SUPERSEDED, {webhook.pk: number}, now)


class TestShown:
    @pytest.mark.parametrize('status', [SUPERSEDED, FAILED])
    def test_the_lists_filter_by_it(self, admin_pages, api_client, both, status):
        wanted = both[0 if status == SUPERSEDED else 1]
        rows = admin_pages.get(f'{DELIVERIES}?status={status}').context['table'].rows
        assert [row.record for row in rows] == [wanted]
        found = api_client.get(f'{API}deliveries/?status={status}').json()['results']
        assert [(one['id'], one['status']) for one in found] == [(wanted.pk, status)]
        admin_list = admin_pages.get(f'/admin/webhooks/delivery/?status__exact={status}').context['cl']
        assert list(admin_list.result_list) == [wanted]

    def test_pages_call_it_by_its_name(self, admin_pages, both):
        for address in (both[0].get_absolute_url(), f'/admin/webhooks/delivery/{both[0].pk}/change/'):
            assert 'Replaced' in admin_pages.get(address).content.decode()

    def test_it_can_be_exported(self, admin_pages, both):
        assert b'Replaced' in admin_pages.get(f'{DELIVERIES}?export=table').content

    def test_graphql_filters_by_it(self, api_client, both):
        query = '{ webhooks_delivery_list(filters: {status: {exact: STATUS_SUPERSEDED}}) { id status } }'
        answer = api_client.post('/graphql/', {'query': query}, format='json').json()
        assert answer['data']['webhooks_delivery_list'] == [{'id': str(both[0].pk), 'status': SUPERSEDED}]

    def test_it_is_not_on_the_status_page(self, both):
        failed_jobs.publish()
        assert [one.listed for one in deliveries()] == [False, True]

    def test_it_neither_waits_nor_has_failed(self, both):
        found = backlog.measure()
        assert (found.pending, found.sending, found.failed) == (0, 0, 1)


class TestCounted:
    def test_superseded_deliveries_count_in_the_hour_in_which_they_were_closed(self, webhook):
        count(webhook, 2)
        count(webhook, 3)
        total = history.context(webhook, history.DAY, timezone.now())['total']
        assert (total.delivered, total.failed, total.superseded) == (0, 0, 5)
        assert health(webhook).superseded == sum(Hour.objects.values_list('superseded', flat=True)) == 5

    def test_superseded_deliveries_count_beside_delivered_ones(self, webhook):
        site()
        work()
        count(webhook, 2)
        total = history.context(webhook, history.DAY, timezone.now())['total']
        assert (total.delivered, total.failed, total.superseded) == (1, 0, 2)

    def test_pages_show_the_number_where_there_is_one(self, admin_pages, webhook):
        addresses = (webhook.get_absolute_url(),)
        for address in addresses:
            assert 'Replaced <strong>' not in admin_pages.get(address).content.decode()
        count(webhook, 2)
        for address in addresses:
            assert 'Replaced <strong>2</strong>' in admin_pages.get(address).content.decode()

    def test_the_apis_show_the_number_of_superseded_deliveries(self, api_client, webhook):
        count(webhook, 2)
        assert api_client.get(f'{API}webhooks/{webhook.pk}/').json()['health']['superseded'] == 2
        filters = '{health: {superseded: {filter_lookup: {exact: 2}}}}'
        query = f'{{ webhooks_webhook_list(filters: {filters}) {{ health {{ superseded }} }} }}'
        answer = api_client.post('/graphql/', {'query': query}, format='json').json()
        assert answer['data']['webhooks_webhook_list'] == [{'health': {'superseded': 2}}]

    def test_the_metrics_show_the_number_of_superseded_deliveries(self, webhook):
        count(webhook, 2)
        shown = generate_latest(metrics._registry).decode()
        labels = f'outcome="superseded",webhook="{webhook.name}"'
        assert f'webhooks_deliveries_closed_total{{{labels}}} 2.0' in shown

    def test_nobody_is_notified_of_a_superseded_delivery(self, webhook):
        on_call = NotificationGroup.objects.create(name='On call')
        on_call.users.add(User.objects.create_user('ann'))
        webhook.notification_groups.add(on_call)
        count(webhook, 2)
        assert not Notification.objects.exists()
        with sql.transaction() as now:
            endpoint.note(FAILED, {webhook.pk: 1}, now)
        assert [notification.user.username for notification in Notification.objects.all()] == ['ann']


class TestRedelivered:
    def test_it_goes_out_as_itself(self, both, receiver):
        assert redelivery.redeliver(Delivery.objects.filter(pk=both[0].pk)) == 1
        assert work() == '1 delivered'
        assert [request.header('webhook-id') for request in receiver.requests] == [str(both[0].uuid)]
        assert [one.status for one in deliveries()] == [DELIVERED, FAILED]

    def test_a_replay_leaves_it_out_unless_it_is_asked_for(self, both, webhook):
        assert redelivery.redeliver(redelivery.select(webhook)) == 1
        assert [one.status for one in deliveries()] == [SUPERSEDED, PENDING]
        assert redelivery.redeliver(redelivery.select(webhook, status=SUPERSEDED)) == 1
        assert [one.status for one in deliveries()] == [PENDING, PENDING]

    def test_a_job_of_the_status_page_says_that_its_delivery_was_superseded(self, both):
        assert redelivery.outcome(str(both[0].uuid)) == '1 replaced'


class TestPruned:
    def test_old_superseded_deliveries_are_pruned_by_age(self, both):
        Event.objects.update(timestamp=timezone.now() - timedelta(days=40))
        Delivery.objects.update(created=timezone.now() - timedelta(days=40))
        Delivery.objects.filter(pk=both[1].pk).update(state=PENDING)
        assert retention.prune_all() == 1
        assert deliveries() == [both[1]]

    def test_by_size_before_what_has_failed(self, webhook):
        failed = delivery(event(site()), webhook)
        delivery(event(site()), webhook, attempts=0, status=SUPERSEDED, error='')
        assert sum(retention.by_size(1)) == 1
        assert deliveries() == [failed]
        assert Attempt.objects.exists()


def test_a_row_of_an_older_version_counts_none(webhook):
    """Older workers do not know the column."""
    subscribe(NOWHERE, Site)
    assert set(Health.objects.values_list('superseded', flat=True)) == {0}
