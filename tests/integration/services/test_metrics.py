from datetime import timedelta

import pytest
from dcim.models import Site
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client import generate_latest
from support.builders import NOWHERE, site, subscribe
from support.engine import deliveries, hold
from support.log import delivery, event
from support.settings import change_settings

from webhooks import metrics
from webhooks.choices import StatusChoices
from webhooks.constants import LATENCY_BUCKET_SECONDS
from webhooks.models import ContextWalk, Health, Webhook

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def webhook() -> Webhook:
    return subscribe(NOWHERE, Site, name='Inventory')


def figures() -> dict[str, float]:
    """Return {name and labels: value}."""
    lines = generate_latest(metrics._registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(' ') for line in lines if line[0] != '#')}


def test_metrics_show_how_much_waits_and_what_is_wrong(webhook):
    place = site()
    now = timezone.now()
    waiting = {'created': now - timedelta(hours=3), 'expires_at': now + timedelta(days=1)}
    for status, count in ((StatusChoices.PENDING, 5), (StatusChoices.FAILED, 7)):
        for _ in range(count):
            delivery(event(place), webhook, status=status, **waiting)
    hold(*deliveries(StatusChoices.PENDING)[:2])
    Health.objects.update(suspended_since=now)
    found = figures()
    assert found['webhooks_events_undispatched'] == 1
    assert found['webhooks_deliveries_open'] == 5
    assert found['webhooks_deliveries_failed'] == 7
    assert found['webhooks_suspended'] == 1
    assert found['webhooks_oldest_age_seconds'] == pytest.approx(3 * 3600, abs=60)


def test_nothing_that_waits_has_no_age(webhook):
    assert figures()['webhooks_oldest_age_seconds'] == 0


def test_they_count_the_workers(webhook, rqworker):
    assert figures()['webhooks_workers'] == 0
    rqworker('low')
    assert figures()['webhooks_workers'] == 1


def test_they_count_the_looks_at_all_devices(webhook):
    assert figures()['webhooks_context_walks'] == 0
    ContextWalk.objects.create()
    assert figures()['webhooks_context_walks'] == 1


def test_metrics_show_no_workers_if_redis_does_not_answer(webhook, tasks_redis):
    tasks_redis.stop()
    assert figures()['webhooks_workers'] == 0


def test_metrics_show_outcomes_and_durations_for_each_webhook(webhook):
    counts = list(range(1, len(LATENCY_BUCKET_SECONDS) + 2))
    Health.objects.update(delivered=4, failed=5, superseded=6, latency=counts, latency_sum=7.5)
    found = figures()
    closed = 'webhooks_deliveries_closed_total{{outcome="{}",webhook="Inventory"}}'
    assert [found[closed.format(name)] for name in ('delivered', 'failed', 'superseded')] == [4, 5, 6]
    seconds = 'webhooks_attempt_seconds_{}{{{}webhook="Inventory"}}'
    assert found[seconds.format('sum', '')] == 7.5
    assert found[seconds.format('count', '')] == sum(counts)
    bounds = (*map(str, LATENCY_BUCKET_SECONDS), '+Inf')
    buckets = [found[seconds.format('bucket', f'le="{bound}",')] for bound in bounds]
    assert buckets == [sum(counts[: number + 1]) for number in range(len(counts))]


def test_one_histogram_can_serve_for_all_webhooks(webhook, monkeypatch):
    change_settings(monkeypatch, histogram_by_webhook=False)
    subscribe(NOWHERE, Site, name='Another')
    counts = list(range(1, len(LATENCY_BUCKET_SECONDS) + 2))
    Health.objects.update(latency=counts, latency_sum=7.5)
    found = figures()
    assert found['webhooks_attempt_seconds_sum'] == 15
    assert found['webhooks_attempt_seconds_count'] == 2 * sum(counts)
    buckets = [value for name, value in found.items() if name.startswith('webhooks_attempt_seconds_bucket')]
    assert (len(buckets), buckets[-1]) == (len(counts), 2 * sum(counts))


def test_the_log_is_not_read_anew_for_each_who_asks(webhook, rf):
    cache.delete(metrics.CACHE_KEY)
    with CaptureQueriesContext(connection) as first:
        assert b'webhooks_deliveries_open 0.0' in metrics.export_ours(rf.get('/')).content
    assert any('webhooks_delivery' in query['sql'] for query in first)
    with CaptureQueriesContext(connection) as next_one:
        assert b'webhooks_deliveries_open 0.0' in metrics.export_ours(rf.get('/')).content
    assert not len(next_one)


@pytest.mark.parametrize('address', ['/metrics', '/plugins/webhooks/metrics'])
def test_metrics_have_no_address_if_netbox_shows_none(admin_pages, address):
    """installation/test_without_admin.py turns NetBox's metrics on."""
    assert admin_pages.get(address).status_code == 404
