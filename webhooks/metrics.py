"""Exports metrics to Prometheus, from a registry of our own.

With several processes (PROMETHEUS_MULTIPROC_DIR), NetBox's own registry drops collectors.
"""

import time
from collections.abc import Iterator
from contextlib import suppress

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django_prometheus.exports import ExportToDjangoView
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import RedisError

from . import conf
from .constants import LATENCY_BUCKET_SECONDS
from .models import ContextWalk, Health
from .models.health import no_latency
from .services import backlog, database_health, feed

CACHE_KEY = 'webhooks.metrics'
# The metrics are read from the database once in this time, however often somebody asks.
CACHE_SECONDS = 15


def export(request: HttpRequest) -> HttpResponse:
    """Return NetBox's own metrics and ours: NetBox's page of metrics."""
    response = ExportToDjangoView(request)
    response.content += _ours()
    return response


def export_ours(_request: HttpRequest) -> HttpResponse:
    """Return our metrics only."""
    return HttpResponse(_ours(), content_type=CONTENT_TYPE_LATEST)


def _ours() -> bytes:
    # Anybody may ask, as often as they like. So the answer is cached.
    if known := cache.get(CACHE_KEY):
        return known
    made = generate_latest(_registry)
    with suppress(RedisError):
        cache.set(CACHE_KEY, made, CACHE_SECONDS)
    return made


class WebhooksCollector(Collector):
    """Measures events, deliveries, webhooks and workers for Prometheus."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of this moment. Reads the database, and the workers in Redis."""
        found = backlog.measure()
        age = time.time() - found.oldest.timestamp() if found.oldest else 0
        yield GaugeMetricFamily('webhooks_events_undispatched', 'Events not processed yet', found.undispatched)
        yield GaugeMetricFamily('webhooks_deliveries_open', 'Deliveries pending or sending', found.pending)
        yield GaugeMetricFamily(
            'webhooks_events_suspect',
            'Events that a worker was working on when it stopped, or that took too long',
            found.suspect_events,
        )
        yield GaugeMetricFamily(
            'webhooks_deliveries_suspect',
            'Deliveries that a worker was working on when it stopped',
            found.suspect_deliveries,
        )
        yield GaugeMetricFamily('webhooks_deliveries_failed', 'Failed deliveries in the log', found.failed)
        yield GaugeMetricFamily('webhooks_oldest_age_seconds', 'Age of the oldest event not delivered yet', age)
        yield GaugeMetricFamily('webhooks_suspended', 'Suspended webhooks', len(found.suspended))
        yield GaugeMetricFamily('webhooks_paused', 'Paused webhooks', len(found.paused))
        yield GaugeMetricFamily('webhooks_workers', 'Workers on the queue', found.workers or 0)
        yield GaugeMetricFamily(
            'webhooks_context_walks',
            'Looks at all devices for other config contexts that are not done yet',
            ContextWalk.objects.count(),
        )
        yield from _by_webhook()
        yield from _of_database()


def _by_webhook() -> Iterator[Metric]:
    outcomes = CounterMetricFamily('webhooks_deliveries_closed', 'Deliveries by outcome', labels=['webhook', 'outcome'])
    unread = GaugeMetricFamily('webhooks_feed_unread', 'Changes that the last reader has not read', labels=['webhook'])
    healths = list(Health.objects.select_related('webhook').order_by('webhook__name'))
    for health in healths:
        name = health.webhook.name
        outcomes.add_metric([name, 'delivered'], health.delivered)
        outcomes.add_metric([name, 'failed'], health.failed)
        outcomes.add_metric([name, 'superseded'], health.superseded)
    feeds = [health for health in healths if health.webhook.is_feed]
    for health, count in zip(feeds, feed.unread(feeds), strict=True):
        unread.add_metric([health.webhook.name], count)
    yield outcomes
    yield _latency(healths)
    yield unread


def _of_database() -> Iterator[Metric]:
    database = database_health.measure()
    sizes = GaugeMetricFamily('webhooks_table_bytes', 'Size of a table without its indexes', labels=['table'])
    indexes = GaugeMetricFamily('webhooks_index_bytes', 'Size of the indexes of a table', labels=['table'])
    dead = GaugeMetricFamily('webhooks_dead_rows', 'Rows that a vacuum could remove', labels=['table'])
    for table in database.tables:
        sizes.add_metric([table.name], table.table_bytes)
        indexes.add_metric([table.name], table.index_bytes)
        dead.add_metric([table.name], table.dead_rows)
    began = database.oldest_transaction
    yield sizes
    yield indexes
    yield dead
    yield GaugeMetricFamily(
        'webhooks_oldest_transaction_seconds',
        'Age of the oldest open transaction, which keeps dead rows',
        time.time() - began.timestamp() if began else 0,
    )
    yield GaugeMetricFamily(
        'webhooks_log_bytes_expected',
        'Size of the log once pruning begins, at the rate of the last day',
        database.bytes_expected,
    )
    yield GaugeMetricFamily(
        'webhooks_database_problems', 'What webhooks_status says is wrong with the database', len(database.problems)
    )


def _latency(healths: list[Health]) -> HistogramMetricFamily:
    text = 'Duration of attempts'
    if conf.get().histogram_by_webhook:
        latency = HistogramMetricFamily('webhooks_attempt_seconds', text, labels=['webhook'])
        for health in healths:
            latency.add_metric([health.webhook.name], _cumulated(health.latency), health.latency_sum)
        return latency
    counts = [sum(counts) for counts in zip(no_latency(), *(health.latency for health in healths), strict=True)]
    seconds = sum(health.latency_sum for health in healths)
    return HistogramMetricFamily('webhooks_attempt_seconds', text, buckets=_cumulated(counts), sum_value=seconds)


def _cumulated(counts: list[int]) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*map(str, LATENCY_BUCKET_SECONDS), '+Inf'), counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


_registry = CollectorRegistry()
_registry.register(WebhooksCollector())
