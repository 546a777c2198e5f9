"""The ledger of endpoints: what came of their requests is counted, and people are told of what matters.

What is plain success is written once a second, for all webhooks together: counters need not follow each answer.
"""

import logging
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils.timezone import localdate
from netbox.events import EventType

from ...choices import StatusChoices
from ...constants import GONE, LATENCY_BUCKETS
from ...models import Health, Hour, Webhook
from ...transport.exchange import Outcome
from .. import notifications
from . import circuit_breaker
from .sent import Sent
from .verdict import Verdict

logger = logging.getLogger('webhooks.health')

# Seconds for which counters may be behind.
INTERVAL = 1.0

WRITTEN = (
    'delivered', 'failed', 'superseded', 'last_status', 'last_error', 'last_attempt_at', 'last_success_at',
    'unreachable', 'suspended_since', 'probe_at', 'probes', 'latency', 'latency_sum', 'gone_at', 'failure_told_on',
)  # fmt: skip


class Entry(NamedTuple):
    """What so many deliveries became by an outcome, None where there was no request."""

    status: str
    count: int = 1
    outcome: Outcome | None = None
    # When the definition was saved by which it was sent.
    saved_at: datetime | None = None


class Ledger:
    """What came of requests, until it is written."""

    def __init__(self, *, tells_failures: bool = True) -> None:
        self._tells_failures = tells_failures
        self._entries: dict[int, list[Entry]] = defaultdict(list)
        self._is_urgent = False
        self._written_at = time.monotonic()

    def add(self, webhook: Webhook, outcome: Outcome, status: str, count: int = 1) -> None:
        """Note an outcome, and the status that so many deliveries got by it."""
        self._entries[webhook.pk].append(Entry(status, count, outcome, webhook.last_updated))
        self._is_urgent |= not outcome.succeeded or webhook.health.unreachable > 0

    def flush(self, now: datetime, *, force: bool = False) -> dict[int, Health]:
        """Write it, if it is time. Returns the health of each webhook that was written, by the webhook's id."""
        if not self._entries or not (force or self._is_urgent or time.monotonic() >= self._written_at + INTERVAL):
            return {}
        written = write(self._entries, now, tells_failures=self._tells_failures)
        left = {pk: entries for pk, entries in self._entries.items() if pk not in written}
        self.clear()
        self._entries.update(left)
        return written

    def clear(self) -> None:
        """Forget what was noted."""
        self._entries.clear()
        self._is_urgent = False
        self._written_at = time.monotonic()

    def copy(self) -> 'Ledger':
        """Return one with the same entries, to go back to where a transaction is broken off."""
        other = Ledger(tells_failures=self._tells_failures)
        other._entries.update({pk: list(entries) for pk, entries in self._entries.items()})
        other._is_urgent, other._written_at = self._is_urgent, self._written_at
        return other


def note(status: str, counts: Mapping[int, int], now: datetime) -> None:
    """Count what was closed without a request: {id of a webhook: how many deliveries}."""
    if counts:
        write({pk: [Entry(status, count)] for pk, count in counts.items()}, now)


def note_failed(recorded: Iterable[tuple[Sent, Verdict]], now: datetime) -> None:
    """Count what failed without an answer."""
    failed = Counter(sent.delivery.webhook_id for sent, verdict in recorded if verdict.status == StatusChoices.FAILED)
    note(StatusChoices.FAILED, failed, now)


def write(entries: Mapping[int, Collection[Entry]], now: datetime, *, tells_failures: bool = True) -> dict[int, Health]:
    """Write entries of webhooks, given by id, and tell people. Returns the health of each that nobody has locked."""
    rows = Health.objects.filter(webhook__in=entries).select_related('webhook').order_by('webhook')
    healths = list(rows.select_for_update(of=('self',), skip_locked=True))
    closed = {health.pk: _record(health, entries[health.pk], now) for health in healths}
    news = [(health, told) for health in healths if (told := _news(health, closed[health.pk], now, tells_failures))]
    Health.objects.bulk_update(healths, WRITTEN)
    Hour.objects.count_all(closed, now)
    for health, told in news:
        notifications.tell(health.webhook, told)
    return {health.pk: health for health in healths}


def _record(health: Health, entries: Iterable[Entry], now: datetime) -> Counter[str]:
    """Note what happened. Saves nothing. Returns how many deliveries got which status."""
    closed: Counter[str] = Counter()
    for entry in entries:
        closed[entry.status] += entry.count
    health.delivered += closed[StatusChoices.DELIVERED]
    health.failed += closed[StatusChoices.FAILED]
    health.superseded += closed[StatusChoices.SUPERSEDED]
    # What was sent by a definition that was saved anew since says nothing of this one's endpoint.
    current = [entry.outcome for entry in entries if entry.outcome and entry.saved_at == health.webhook.last_updated]
    if current:
        _note_outcomes(health, current, now)
    return closed


def _note_outcomes(health: Health, outcomes: list[Outcome], now: datetime) -> None:
    # What could not be sent says nothing of the endpoint.
    for outcome in (sent := [outcome for outcome in outcomes if not outcome.unsendable]):
        circuit_breaker.count(health, outcome, now)
        health.latency[bisect_left(LATENCY_BUCKETS, outcome.duration)] += 1
        health.latency_sum += outcome.duration
    last = outcomes[-1]
    health.last_status, health.last_error, health.last_attempt_at = last.status, last.error, now
    if sent:
        # By PostgreSQL's clock, as the time of the probe.
        began = now - timedelta(seconds=min(outcome.duration for outcome in sent))
        circuit_breaker.suspend(health, health.webhook, began, now)
    if any(outcome.status == GONE for outcome in outcomes):
        health.gone_at = now


def _news(health: Health, closed: Counter[str], now: datetime, tells_failures: bool) -> EventType | None:
    """Return what people are to be told; of two things the worse."""
    is_first = tells_failures and closed[StatusChoices.FAILED] > 0 and _is_first_failure(health, now)
    if health.suspended_since == now:
        return notifications.SUSPENDED
    return notifications.FAILED if is_first else None


def _is_first_failure(health: Health, now: datetime) -> bool:
    """Whether no failure of this day, in NetBox's time zone, has been told. Marks it as told."""
    told, health.failure_told_on = health.failure_told_on, localdate(now)
    return told != health.failure_told_on
