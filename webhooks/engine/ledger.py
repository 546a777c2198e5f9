"""The ledger of an endpoint: what came of its requests is counted, and people are told of what matters."""

import logging
import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.timezone import localdate
from netbox.events import EventType

from ..choices import StatusChoices
from ..constants import GONE, LATENCY_BUCKETS
from ..interruptions import INTERRUPTIONS
from ..models import Health, Hour, Webhook
from ..transport.exchange import Outcome
from . import circuit_breaker, notifications
from .lanes import is_row_held, wait_briefly

logger = logging.getLogger('webhooks.health')

# Seconds for which counters may be behind.
FLUSH_INTERVAL = 1.0

# Not the rate limit's tokens, which the claim writes.
WRITTEN = (
    'delivered', 'failed', 'last_status', 'last_error', 'last_attempt_at', 'last_success_at', 'unreachable',
    'suspended_since', 'probe_at', 'probes', 'latency', 'latency_sum', 'gone_at', 'failure_told_on',
)  # fmt: skip

# An outcome; the status that the delivery got by it; when the definition was saved by which it was sent.
Entry = tuple[Outcome, str, datetime]


class Ledger:
    """What came of requests, kept for a moment: a healthy endpoint's counters need not be written with every answer."""

    def __init__(self, tells_failures: bool = True) -> None:
        self._tells_failures = tells_failures
        self._entries: dict[int, tuple[Webhook, list[Entry]]] = {}
        self._written_at = time.monotonic()

    def add(self, webhook: Webhook, outcome: Outcome, status: str) -> None:
        """Note an outcome, and the status that the delivery got by it."""
        self._entries.setdefault(webhook.pk, (webhook, []))[1].append((outcome, status, webhook.last_updated))

    def flush(self, now: datetime, lanes: Collection[int], force: bool = False) -> None:
        """Write what matters in lanes that the caller holds: all of it once a second, else what is no plain success."""
        everything = force or time.monotonic() - self._written_at >= FLUSH_INTERVAL
        due = [pk for pk in sorted(self._entries.keys() & set(lanes)) if everything or _matters(*self._entries[pk])]
        if due:
            wait_briefly()
            for health in _healths(due):
                self._write(health, *self._entries.pop(health.webhook_id), now)
        if everything:
            self._written_at = time.monotonic()

    @property
    def webhook_ids(self) -> list[int]:
        """Return ids of the webhooks of which something is not written yet."""
        return list(self._entries)

    def copy(self) -> 'Ledger':
        """Return one with the same entries, to go back to where a transaction is broken off."""
        other = Ledger(self._tells_failures)
        other._entries = {pk: (webhook, list(entries)) for pk, (webhook, entries) in self._entries.items()}
        other._written_at = self._written_at
        return other

    def _write(self, health: Health, webhook: Webhook, entries: Sequence[Entry], now: datetime) -> None:
        """If it raises, in a receiver of signals for example, only the counters are wrong: deliveries are recorded."""
        with _on_its_own(webhook.pk):
            _record(health, webhook, entries, now, self._tells_failures)


@contextmanager
def _on_its_own(webhook_id: int) -> Iterator[None]:
    """A savepoint: whatever goes wrong inside, or waits for a row that a user holds, is logged and left out."""
    try:
        with transaction.atomic():
            yield
    except INTERRUPTIONS as error:
        if not is_row_held(error):
            raise
        logger.warning('webhook=%s its health is not recorded: somebody holds a row', webhook_id)
    except Exception:
        logger.exception('webhook=%s its health cannot be recorded', webhook_id)


def _matters(webhook: Webhook, entries: Sequence[Entry]) -> bool:
    return webhook.health.unreachable > 0 or any(not outcome.succeeded for outcome, *_ in entries)


def _healths(webhook_ids: Collection[int]) -> list[Health]:
    return list(Health.objects.filter(webhook__in=webhook_ids).select_related('webhook').order_by('webhook'))


def _record(health: Health, webhook: Webhook, group: Sequence[Entry], now: datetime, tells_failures: bool) -> None:
    statuses = [status for _outcome, status, _saved_at in group]
    _count_closed(health, statuses, now)
    # What was sent by a definition that was saved anew since says nothing of this one's endpoint.
    if outcomes := [outcome for outcome, _status, saved_at in group if saved_at == health.webhook.last_updated]:
        _note(health, webhook, outcomes, now)
    news = _news(health, statuses, now, tells_failures)
    health.save(update_fields=WRITTEN)
    webhook.health = health
    if news:
        notifications.tell(webhook, news)


def _note(health: Health, webhook: Webhook, outcomes: Sequence[Outcome], now: datetime) -> None:
    """Note what the outcomes say of the endpoint. Saves nothing."""
    # What could not be sent says nothing of it.
    for outcome in (sent := [outcome for outcome in outcomes if not outcome.unsendable]):
        circuit_breaker.count(health, outcome, now)
        health.latency[bisect_left(LATENCY_BUCKETS, outcome.duration)] += 1
        health.latency_sum += outcome.duration
    last = outcomes[-1]
    health.last_status, health.last_error, health.last_attempt_at = last.status, last.error, now
    if sent:
        # By PostgreSQL's clock, as the time of the probe.
        began = now - timedelta(seconds=min(outcome.duration for outcome in sent))
        circuit_breaker.suspend(health, webhook, began, now)
    if any(outcome.status == GONE for outcome in outcomes):
        health.gone_at = now


def note_failed(counts: Mapping[int, int], now: datetime) -> None:
    """Count what failed without an answer: {id of a webhook whose lane is held: how many deliveries}."""
    if counts:
        wait_briefly()
    for health in _healths(counts):
        with _on_its_own(health.webhook_id):
            _count_closed(health, [StatusChoices.FAILED] * counts[health.webhook_id], now)
            is_first = _is_first_failure(health, now)
            health.save(update_fields=['failed', 'failure_told_on'])
            if is_first:
                notifications.tell(health.webhook, notifications.FAILED)


def note_superseded(counts: Mapping[int, int], now: datetime) -> None:
    """Count what a later delivery has made needless: {id of a webhook whose lane is held: how many deliveries}."""
    for health in _healths(counts):
        with _on_its_own(health.webhook_id):
            health.superseded += counts[health.webhook_id]
            health.save(update_fields=['superseded'])
            Hour.objects.count(health, now, superseded=counts[health.webhook_id])


def _news(health: Health, statuses: Sequence[str], now: datetime, tells_failures: bool) -> EventType | None:
    """Return what people are to be told; of two things the worse."""
    has_failed = tells_failures and StatusChoices.FAILED in statuses
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
