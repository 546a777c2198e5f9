"""Keeps an endpoint's health: counts outcomes, suspends, resumes and disables webhooks, and notifies people of that."""

import json
import logging
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime, timedelta
from operator import methodcaller
from typing import NamedTuple

from django.db.models import F
from django.utils.timezone import localdate
from extras.choices import JournalEntryKindChoices
from extras.models import JournalEntry
from netbox.events import EventType

from ...choices import StatusChoices
from ...constants import LATENCY_BUCKET_SECONDS, STATUS_GONE
from ...models import Health, Hour, Webhook
from ...transport.exchange import Outcome
from .. import notifications, sql
from . import circuit_breaker, order, queue

logger = logging.getLogger('webhooks.sender')

# The columns that outcomes change, and their types in PostgreSQL.
WRITTEN_COLUMNS = {
    'delivered': 'bigint',
    'failed': 'bigint',
    'superseded': 'bigint',
    'last_status': 'int',
    'last_error': 'text',
    'last_attempt_at': 'timestamptz',
    'last_success_at': 'timestamptz',
    'unreachable': 'int',
    'refused_since': 'timestamptz',
    'suspended_since': 'timestamptz',
    'probe_at': 'timestamptz',
    'probes': 'int',
    'latency': 'bigint[]',
    'latency_sum': 'float',
    'gone_at': 'timestamptz',
    'failure_told_on': 'date',
}

# Write the health of lanes. A thousand endpoints may fail in a turn, so one statement writes all.
WRITE_HEALTH = f"""
    UPDATE webhooks_health h SET {', '.join(f'{name} = v.{name}' for name in WRITTEN_COLUMNS)}
    FROM json_to_recordset(%(rows)s::json)
        AS v(webhook_id bigint, {', '.join(f'{name} {kind}' for name, kind in WRITTEN_COLUMNS.items())})
    WHERE h.webhook_id = v.webhook_id"""

# Count the requests of a webhook that wait for their next attempt, among the first 2,000 deliveries.
COUNT_RETRIED_REQUESTS = """
    SELECT count(DISTINCT coalesce(lead, id)) FROM (
        SELECT id, lead FROM webhooks_delivery
        WHERE webhook_id = %(webhook)s AND status IN ('retrying', 'doubtful') AND due_at > now()
        LIMIT 2000
    ) d"""

# Forget the answer 410 of webhooks that somebody has enabled since. If one is disabled again, the receiver is not the
# reason. Skip lanes that somebody has locked.
FORGET_GONE = """
    UPDATE webhooks_health SET gone_at = NULL, last_status = nullif(last_status, %(gone)s)
    WHERE webhook_id = ANY(ARRAY(
        SELECT h.webhook_id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id
        WHERE w.enabled AND h.gone_at <= w.last_updated
        FOR UPDATE OF h SKIP LOCKED
    ))"""


class Entry(NamedTuple):
    """A note for a webhook's health: `count` deliveries got a status, which may be `pending` for a later attempt.

    After a request it has the `outcome`, the webhook by whose definition it was sent, and the deliveries' ids (`pks`).
    """

    webhook_id: int
    status: str
    count: int = 1
    outcome: Outcome | None = None
    webhook: Webhook | None = None
    pks: Sequence[int] = ()

    @property
    def is_urgent(self) -> bool:
        """Whether it has to be written at once: after trouble. Plain success may wait for the next entries."""
        if self.outcome is None:
            return False
        health = self.webhook.health
        is_in_trouble = health.suspended_since or health.refused_since or health.unreachable > 0
        return not self.outcome.succeeded or bool(is_in_trouble)


def entries(status: str, counts: Mapping[int, int]) -> list[Entry]:
    """Return the entries of deliveries that were closed without a request. `counts` are by the webhook's id."""
    return [Entry(pk, status, count) for pk, count in counts.items()]


def note(status: str, counts: Mapping[int, int], now: datetime) -> None:
    """Count deliveries that were closed without a request, as write() does. `counts` are by the webhook's id."""
    write(entries(status, counts), now)


def write(noted: Sequence[Entry], now: datetime, *, are_tests: bool = False) -> list[Entry]:
    """Write entries to the healths and hourly counts, and notify people, all in the open transaction.

    If a circuit opens, a tried delivery becomes the next probe. It closes once all tried deliveries are due. The
    webhooks of the entries get their new health. Returns the entries of lanes that somebody has locked, to try again.
    If `are_tests`, a failure is neither counted nor notified: the user who sends a test sees it.
    """
    by_webhook: dict[int, list[Entry]] = defaultdict(list)
    for one in noted:
        by_webhook[one.webhook_id].append(one)
    if not by_webhook:
        return []
    rows = Health.objects.filter(webhook__in=by_webhook).select_related('webhook').order_by('webhook')
    healths = {health.pk: health for health in rows.select_for_update(of=('self',), skip_locked=True)}
    before = {pk: copy(health) for pk, health in healths.items()}
    closed = {pk: _record(health, by_webhook[pk], now, are_tests) for pk, health in healths.items()}
    _retry(before, healths, now, [pk for one in noted for pk in one.pks])
    notices = [
        (health.webhook, event_type)
        for pk, health in healths.items()
        for event_type in _events(health, before[pk].suspended_since is not None, closed[pk], now)
    ]
    _save(healths.values())
    queue.let_probe([pk for pk, health in healths.items() if health.suspended_since == now], now)
    Hour.objects.count_all(closed, now)
    notifications.notify(*notices)
    for one in noted:
        if one.webhook and one.webhook_id in healths:
            one.webhook.health = healths[one.webhook_id]  # the next verdicts need it
    # A deleted webhook's entries are dropped.
    locked = set(rows.values_list('pk', flat=True)) - healths.keys() if len(healths) < len(by_webhook) else ()
    return [one for one in noted if one.webhook_id in locked]


def _retry(
    before: Mapping[int, Health], healths: Mapping[int, Health], now: datetime, answered: Collection[int]
) -> None:
    """Make all tried deliveries due where a circuit has closed, or where this was the first attempt after a save.

    There may be more of them than a turn has time for. Then the health stays as it was `before`, and the next probe is
    due at once. After the probe, any worker goes on with the rest. After a save this holds only if the attempt
    succeeded: otherwise the deliveries that have just failed would be tried again and again.
    """
    mended = {
        pk
        for pk, health in healths.items()
        if circuit_breaker.is_open(before[pk], now) and not circuit_breaker.is_open(health, now)
    }
    # This attempt may be a test, right after the save: no sender has seen yet that the webhook was saved.
    tried_anew = {pk for pk, health in healths.items() if _is_saved(before[pk]) and not _is_saved(health)}
    left = queue.retry(mended | tried_anew, now, answered)
    for pk in left & mended:
        circuit_breaker.keep_open(healths[pk], before[pk], now)
    for pk in (pk for pk in left & tried_anew if not healths[pk].last_error):
        healths[pk].last_attempt_at = before[pk].last_attempt_at


def _is_saved(health: Health) -> bool:
    """Whether somebody has saved the webhook after its last attempt, as lanes.IS_SAVED."""
    return health.last_attempt_at is not None and health.webhook.last_updated > health.last_attempt_at


def _save(healths: Iterable[Health]) -> None:
    rows = [{'webhook_id': one.pk} | {name: getattr(one, name) for name in WRITTEN_COLUMNS} for one in healths]
    if rows:
        sql.execute(WRITE_HEALTH, {'rows': json.dumps(rows, default=methodcaller('isoformat'))})


def _record(health: Health, entries: Iterable[Entry], now: datetime, are_tests: bool) -> Counter[str]:
    """Note the entries, unsaved. Returns how many deliveries got which status, without failed tests."""
    closed: Counter[str] = Counter()
    for one in entries:
        closed[one.status] += one.count
    if are_tests:
        del closed[StatusChoices.FAILED]
    health.delivered += closed[StatusChoices.DELIVERED]
    health.failed += closed[StatusChoices.FAILED]
    health.superseded += closed[StatusChoices.SUPERSEDED]
    # If the webhook was saved since, it may have another endpoint: the outcome is not about that.
    saved_at = health.webhook.last_updated
    current = [one.outcome for one in entries if one.outcome and one.webhook.last_updated == saved_at]
    if current:
        _note_outcomes(health, current, now)
    if health.webhook.is_feed and closed[StatusChoices.DELIVERED]:
        # A feed may have had a URL, and been suspended. It is not any more.
        circuit_breaker.close(health)
        health.refused_since, health.last_error, health.last_success_at = None, '', now
    return closed


def _note_outcomes(health: Health, outcomes: Sequence[Outcome], now: datetime) -> None:
    # A request that was not sent says nothing of the endpoint.
    for outcome in (sent := [one for one in outcomes if not (one.unsendable or one.starved or one.withheld)]):
        circuit_breaker.count(health, outcome, now)
        health.latency[bisect_left(LATENCY_BUCKET_SECONDS, outcome.duration)] += 1
        health.latency_sum += outcome.duration
    last = outcomes[-1]
    health.last_status, health.last_error, health.last_attempt_at = last.status, last.error, now
    if sent:
        # `probe_at` is by PostgreSQL's clock. So this is too.
        began = now - timedelta(seconds=min(outcome.duration for outcome in sent))
        is_outage = not health.suspended_since and circuit_breaker.is_refused(health, now)
        # If only one request waits for a retry, the endpoint may be unable to digest that one.
        is_outage = is_outage and sql.fetch_value(COUNT_RETRIED_REQUESTS, {'webhook': health.pk}) > 1
        circuit_breaker.suspend(health, health.webhook, began, now, is_outage=is_outage)
    if last.withheld:
        circuit_breaker.withhold(health, health.webhook, now)
    if any(outcome.status == STATUS_GONE for outcome in outcomes):
        health.gone_at = now


def _events(health: Health, was_suspended: bool, closed: Counter[str], now: datetime) -> Iterator[EventType]:
    """Yield the events to notify of, the worst last: NetBox keeps the last one. Failures are notified once a day."""
    if was_suspended and not health.suspended_since:
        yield notifications.RESUMED
    if closed[StatusChoices.FAILED] and health.failure_told_on != localdate(now):
        health.failure_told_on = localdate(now)
        yield notifications.FAILED
    if health.suspended_since == now:
        yield notifications.SUSPENDED


def forget_gone() -> None:
    """Forget the answers 410 of webhooks that were enabled again, in a transaction of its own."""
    with sql.transaction():
        sql.execute(FORGET_GONE, {'gone': STATUS_GONE})


def disable_gone() -> None:
    """Disable webhooks whose endpoints answered 410 Gone (RFC 9110, 15.5.11): they ask not to be called again.

    The answer was noted on the health while the lane was locked. The webhook is disabled later, as a user may hold its
    row: each in a transaction, with a journal entry and a notification.

    If a webhook or its lane is locked, or a plugin refuses the save, that waits for another call. Raises BROKEN_OFF.
    """
    gone = Webhook.objects.filter(enabled=True, health__gone_at__gt=F('last_updated')).order_by('pk')
    for pk, name in gone.values_list('pk', 'name'):
        session = sql.session()
        try:
            with sql.transaction():
                sql.set_lock_timeout(sql.TABLE_LOCK_MS)
                locked = order.try_lock_lanes([pk])  # its notice is written to the lane
                free = gone.filter(pk__in=locked).select_for_update(of=('self',), no_key=True, skip_locked=True)
                for webhook in free:
                    _disable(webhook)
        except Exception as error:
            # If a table is locked, it would wait for it with each webhook. So it ends with the first.
            if sql.is_broken_off(error, session):
                raise
            logger.exception('webhook=%s name=%r it cannot be disabled', pk, name)


def _disable(webhook: Webhook) -> None:
    webhook.enabled = False
    webhook.save(update_fields=['enabled', 'last_updated'])
    JournalEntry.objects.create(
        assigned_object=webhook,
        kind=JournalEntryKindChoices.KIND_WARNING,
        comments='Disabled: the endpoint answered HTTP 410 Gone.',
    )
    notifications.notify((webhook, notifications.DISABLED))
