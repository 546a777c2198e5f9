"""The health of an endpoint: counters, and suspension.

A webhook whose endpoint cannot be reached several times in a row is suspended: one delivery probes it at growing
intervals while the others wait unspent, and the first success lets them go (the circuit breaker's half-open state).
"""

import time
from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta

from extras.choices import JournalEntryKindChoices
from extras.models import JournalEntry

from .choices import StatusChoices
from .constants import LATENCY_BUCKETS
from .models import Health, Webhook
from .transport import Outcome

SUSPEND_AFTER = 5
PROBE_INTERVALS = (10, 30, 60, 120, 300, 600)
GONE = 410
# Seconds for which counters may be behind.
FLUSH_INTERVAL = 1.0

# Not the rate limit's tokens, which the claim writes.
WRITTEN = (
    'delivered', 'failed', 'last_status', 'last_error', 'last_attempt_at', 'last_success_at', 'unreachable',
    'suspended_since', 'probe_at', 'probes', 'latency', 'latency_sum',
)  # fmt: skip

Entry = tuple[Outcome, str]


def is_suspended(webhook: Webhook) -> bool:
    return webhook.health.suspended_since is not None


class Ledger:
    """What came of requests, kept for a moment: a healthy endpoint's counters need not be written with every answer."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Webhook, list[Entry]]] = {}
        self._written_at = time.monotonic()

    def add(self, webhook: Webhook, outcome: Outcome, status: str) -> None:
        """Note an outcome, and the status that the delivery got by it."""
        self._entries.setdefault(webhook.pk, (webhook, []))[1].append((outcome, status))

    def flush(self, now: datetime, force: bool = False) -> None:
        """Write what matters now: all of it once a second, at once what is not simply a success."""
        everything = force or time.monotonic() - self._written_at >= FLUSH_INTERVAL
        for pk, (webhook, entries) in sorted(self._entries.items()):
            if everything or _matters(webhook, entries):
                _record(webhook, entries, now)
                del self._entries[pk]
        if everything:
            self._written_at = time.monotonic()


def _matters(webhook: Webhook, entries: Sequence[Entry]) -> bool:
    return webhook.health.unreachable > 0 or any(not outcome.succeeded for outcome, _status in entries)


def _record(webhook: Webhook, group: Sequence[Entry], now: datetime) -> None:
    health = Health.objects.select_for_update().filter(webhook=webhook).first()
    if health is None:
        return  # deleted while its requests were under way
    for outcome, status in group:
        health.delivered += status == StatusChoices.DELIVERED
        health.failed += status == StatusChoices.FAILED
        _count(health, outcome, now)
        health.latency[bisect_left(LATENCY_BUCKETS, outcome.duration)] += 1
        health.latency_sum += outcome.duration
    last = group[-1][0]
    health.last_status, health.last_error, health.last_attempt_at = last.status, last.error, now
    _suspend(health, webhook, now)
    health.save(update_fields=WRITTEN)
    webhook.health = health
    if any(outcome.status == GONE for outcome, _status in group):
        _disable(webhook)


def _count(health: Health, outcome: Outcome, now: datetime) -> None:
    if outcome.unreachable:
        health.unreachable += 1
        return
    health.unreachable = 0
    health.suspended_since = health.probe_at = None
    health.probes = 0
    if outcome.succeeded:
        health.last_success_at = now


def _suspend(health: Health, webhook: Webhook, now: datetime) -> None:
    if health.unreachable < SUSPEND_AFTER or webhook.max_attempts == 1:
        return
    if health.suspended_since is None:
        health.suspended_since = now
    interval = PROBE_INTERVALS[min(health.probes, len(PROBE_INTERVALS) - 1)]
    health.probe_at = now + timedelta(seconds=interval)
    health.probes += 1


def _disable(webhook: Webhook) -> None:
    """410 Gone (RFC 9110, 15.5.11): the endpoint asks not to be called again."""
    current = Webhook.objects.filter(pk=webhook.pk).first()
    if current is None or not current.enabled:
        return
    current.enabled = False
    current.save(update_fields=['enabled', 'last_updated'])
    JournalEntry.objects.create(
        assigned_object=current,
        kind=JournalEntryKindChoices.KIND_WARNING,
        comments='Disabled: the endpoint answered HTTP 410 Gone.',
    )
