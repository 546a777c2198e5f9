"""The ledger of an endpoint: what came of its requests is counted, and people are told of what matters."""

import logging
import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from django.db import transaction
from django.utils.timezone import localdate
from extras.choices import JournalEntryKindChoices
from extras.models import JournalEntry
from netbox.events import EventType
from psycopg.errors import LockNotAvailable

from ..choices import StatusChoices
from ..constants import GONE, LATENCY_BUCKETS
from ..interruptions import INTERRUPTIONS
from ..models import Health, Hour, Webhook
from ..transport.exchange import Outcome
from . import circuit_breaker, locks, notifications

logger = logging.getLogger('webhooks.health')

# Seconds for which counters may be behind.
FLUSH_INTERVAL = 1.0

# Not the rate limit's tokens, which the claim writes.
WRITTEN = (
    'delivered', 'failed', 'last_status', 'last_error', 'last_attempt_at', 'last_success_at', 'unreachable',
    'suspended_since', 'probe_at', 'probes', 'latency', 'latency_sum', 'failure_told_on',
)  # fmt: skip

Entry = tuple[Outcome, str]


class Ledger:
    """What came of requests, kept for a moment: a healthy endpoint's counters need not be written with every answer."""

    def __init__(self, tells_failures: bool = True) -> None:
        self._tells_failures = tells_failures
        self._entries: dict[int, tuple[Webhook, list[Entry]]] = {}
        self._written_at = time.monotonic()

    def add(self, webhook: Webhook, outcome: Outcome, status: str) -> None:
        """Note an outcome, and the status that the delivery got by it."""
        self._entries.setdefault(webhook.pk, (webhook, []))[1].append((outcome, status))

    def flush(self, now: datetime, force: bool = False) -> None:
        """Write what matters now: all of it once a second, at once what is not simply a success."""
        everything = force or time.monotonic() - self._written_at >= FLUSH_INTERVAL
        due = [pk for pk, entry in sorted(self._entries.items()) if everything or _matters(*entry)]
        # Whoever edits a webhook takes its row before its health's: here too, or it ends in a deadlock.
        held = _lock_webhooks([pk for pk in due if _is_gone(self._entries[pk][1])])
        if due:
            locks.wait_briefly()
        for health in _lock_health(due):
            pk = health.webhook_id
            self._write(health, *self._entries.pop(pk), now, may_disable=pk in held)
        if everything:
            self._written_at = time.monotonic()
        if force:
            self._entries.clear()  # of webhooks that were deleted, or are held by somebody else

    def copy(self) -> 'Ledger':
        """Return one with the same entries, to go back to where a transaction is broken off."""
        other = Ledger(self._tells_failures)
        other._entries = {pk: (webhook, list(entries)) for pk, (webhook, entries) in self._entries.items()}
        other._written_at = self._written_at
        return other

    def _write(
        self, health: Health, webhook: Webhook, entries: Sequence[Entry], now: datetime, may_disable: bool
    ) -> None:
        """If it raises, in a receiver of signals for example, only the counters are wrong: deliveries are recorded."""
        with _on_its_own(webhook.pk):
            _record(health, webhook, entries, now, self._tells_failures, may_disable)


@contextmanager
def _on_its_own(webhook_id: int) -> Iterator[None]:
    """A savepoint: whatever goes wrong inside, or waits for a row that a user holds, is logged and left out."""
    try:
        with transaction.atomic():
            yield
    except INTERRUPTIONS as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        logger.warning('webhook=%s its health is not recorded: somebody holds a row', webhook_id)
    except Exception:
        logger.exception('webhook=%s its health cannot be recorded', webhook_id)


def _matters(webhook: Webhook, entries: Sequence[Entry]) -> bool:
    return webhook.health.unreachable > 0 or any(not outcome.succeeded for outcome, _status in entries)


def _is_gone(entries: Sequence[Entry]) -> bool:
    return any(outcome.status == GONE for outcome, _status in entries)


def _lock_webhooks(pks: Sequence[int]) -> set[int]:
    """Hold the rows of webhooks that nobody edits, and return their ids. An edited one is disabled another time."""
    free = Webhook.objects.select_for_update(no_key=True, skip_locked=True).filter(pk__in=pks).order_by('pk')
    return set(free.values_list('pk', flat=True)) if pks else set()


def _lock_health(webhook_ids: Collection[int]) -> list[Health]:
    """Hold the health of webhooks, apart from what an open transaction holds: no worker waits for one of a user."""
    free = Health.objects.select_for_update(of=('self',), skip_locked=True).filter(webhook__in=webhook_ids)
    return list(free.select_related('webhook').order_by('webhook')) if webhook_ids else []


def _record(
    health: Health, webhook: Webhook, group: Sequence[Entry], now: datetime, tells_failures: bool, may_disable: bool
) -> None:
    _count_closed(health, [status for _outcome, status in group], now)
    for outcome, _status in group:
        circuit_breaker.count(health, outcome, now)
        health.latency[bisect_left(LATENCY_BUCKETS, outcome.duration)] += 1
        health.latency_sum += outcome.duration
    last = group[-1][0]
    health.last_status, health.last_error, health.last_attempt_at = last.status, last.error, now
    circuit_breaker.suspend(health, webhook, now)
    news = _news(health, group, now, tells_failures)
    health.save(update_fields=WRITTEN)
    webhook.health = health
    if may_disable and _is_gone(group) and _disable(webhook):
        news = notifications.DISABLED
    if news:
        notifications.tell(webhook, news)


def note_failed(counts: Mapping[int, int], now: datetime) -> None:
    """Count what failed without a request, or waited too long: {id of a webhook: how many deliveries}."""
    if counts:
        locks.wait_briefly()
    for health in _lock_health(counts):
        with _on_its_own(health.webhook_id):
            _count_closed(health, [StatusChoices.FAILED] * counts[health.webhook_id], now)
            is_first = _is_first_failure(health, now)
            health.save(update_fields=['failed', 'failure_told_on'])
            if is_first:
                notifications.tell(health.webhook, notifications.FAILED)


def _news(health: Health, group: Sequence[Entry], now: datetime, tells_failures: bool) -> EventType | None:
    """Return what people are to be told; of two things the worse."""
    has_failed = tells_failures and any(status == StatusChoices.FAILED for _outcome, status in group)
    is_first = has_failed and _is_first_failure(health, now)
    if health.suspended_since == now:
        return notifications.SUSPENDED
    return notifications.FAILED if is_first else None


def _is_first_failure(health: Health, now: datetime) -> bool:
    """Whether no failure of this day, in NetBox's time zone, has been told. Marks it as told."""
    told, health.failure_told_on = health.failure_told_on, localdate(now)
    return told != health.failure_told_on


def _count_closed(health: Health, statuses: Sequence[str], now: datetime) -> None:
    delivered, failed = statuses.count(StatusChoices.DELIVERED), statuses.count(StatusChoices.FAILED)
    health.delivered += delivered
    health.failed += failed
    if delivered or failed:
        Hour.objects.count(health, now, delivered, failed)


def _disable(webhook: Webhook) -> bool:
    """410 Gone (RFC 9110, 15.5.11): the endpoint asks not to be called again. Returns whether it was enabled."""
    current = Webhook.objects.filter(pk=webhook.pk).first()
    if current is None or not current.enabled:
        return False
    current.enabled = False
    current.save(update_fields=['enabled', 'last_updated'])
    JournalEntry.objects.create(
        assigned_object=current,
        kind=JournalEntryKindChoices.KIND_WARNING,
        comments='Disabled: the endpoint answered HTTP 410 Gone.',
    )
    return True
