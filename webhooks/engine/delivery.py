"""From deliveries to attempts: claim what is due, send it, record what came of it.

A claim is a lease. Only its holder records an outcome, and one that is not recorded in time comes back by itself: a
worker that is killed loses nothing, at worst a request is sent twice.
"""

import json
import logging
import random
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection

from .. import conf
from ..choices import StatusChoices
from ..constants import LEASE_MARGIN
from ..exceptions import DefinitionError
from ..interruptions import INTERRUPTIONS
from ..models import Delivery, Webhook
from ..payload import building
from ..storable import storable
from ..transport.client import MAX_ERROR, Outcome, Request
from . import backoff, endpoint_health, locks, ordering
from .job_time import ANY_TIME, Span

logger = logging.getLogger('webhooks.delivery')

# A rate limit is a token bucket that holds a fifth of a second, so that no second sees many more than its rate.
TOKENS = """
    least(
        greatest(w.rate_limit / 5.0, 1),
        coalesce(h.tokens + w.rate_limit * extract(epoch FROM %(now)s - h.tokens_at), w.rate_limit)
    )"""

UNDER_WAY = "(SELECT count(*) FROM webhooks_delivery s WHERE s.webhook_id = w.id AND s.status = 'sending')"

# Of those that may be under way for a webhook at the same time, one while it is suspended, how many are left.
SLOTS = f'CASE WHEN h.suspended_since IS NULL THEN w.concurrency ELSE 1 END - {UNDER_WAY}'

ACTIVE = 'w.enabled AND NOT w.paused AND (h.suspended_since IS NULL OR h.probe_at <= %(now)s)'

# What pace.py says of it: %(slow)s are ids of webhooks, %(seconds)s the time that their endpoints take.
TIMED = """
    LEFT JOIN webhooks_health h ON h.webhook_id = w.id
    LEFT JOIN unnest(%(slow)s::bigint[], %(seconds)s::float[]) AS known(id, seconds) ON known.id = w.id"""
ENDS_IN_TIME = """
    coalesce(known.seconds, CASE WHEN h.unreachable > 0 THEN coalesce(w.timeout, %(timeout)s) ELSE 0 END) <= %(left)s"""

# `order_wait` is over for it, and the earlier one of its object can go now, or is under way. OFFSET 0: looked up for
# each delivery by itself, and not for all that wait.
IS_BEHIND = """
    EXISTS (
        SELECT 1 FROM webhooks_wait v
        WHERE v.delivery_id = d.id
          AND (SELECT b.status = 'sending' OR b.due_at <= %(now)s FROM webhooks_delivery b WHERE b.id = v.blocker_id)
        OFFSET 0
    )"""

# All times are those of the turn, after the wait for its lock: now() is when the transaction began.
# Whoever has least under way comes first, so that a backlog of others leaves room for one that was idle.
CLAIM = f"""
    WITH ready AS (
        SELECT w.id, w.timeout, w.rate_limit,
            least(
                {SLOTS},
                CASE WHEN w.rate_limit IS NOT NULL THEN floor({TOKENS}) END,
                CASE WHEN w.id = ANY(%(one_each)s) THEN 1 END
            ) AS room
        FROM webhooks_webhook w {TIMED}
        WHERE {ACTIVE} AND {ENDS_IN_TIME}
        ORDER BY {UNDER_WAY}, random()
    ), picked AS (
        SELECT d.id, ready.timeout, ready.rate_limit
        FROM ready CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_delivery d
            WHERE d.webhook_id = ready.id AND d.status = 'pending' AND d.due_at <= %(due)s
              AND (d.lapses > 0) = %(lapsed)s AND NOT {IS_BEHIND}
            ORDER BY d.due_at, d.id
            LIMIT greatest(ready.room, 0)
            FOR UPDATE SKIP LOCKED
        ) d
        LIMIT %(limit)s
    )
    UPDATE webhooks_delivery d
    SET status = 'sending', lease = %(lease)s,
        lease_until = %(now)s + make_interval(secs => coalesce(picked.timeout, %(timeout)s) + %(margin)s)
    FROM picked WHERE d.id = picked.id
    RETURNING d.id, d.webhook_id, picked.rate_limit IS NOT NULL"""

SPEND_TOKENS = f"""
    UPDATE webhooks_health h SET tokens_at = %(now)s, tokens = {TOKENS} - v.count
    FROM unnest(%(ids)s::bigint[], %(counts)s::int[]) AS v(id, count)
    JOIN webhooks_webhook w ON w.id = v.id AND w.rate_limit IS NOT NULL
    WHERE h.webhook_id = w.id"""

# Webhooks that something is due for which may be claimed with others.
WITH_WORK = f"""
    SELECT 1 FROM webhooks_webhook w {TIMED}
    WHERE {ACTIVE} AND EXISTS (
        SELECT 1 FROM webhooks_delivery d
        WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.due_at <= %(now)s AND d.lapses = 0 AND NOT {IS_BEHIND}
    )"""

# Without a free slot it is not the rate that holds: another worker, which uses the slots, goes on.
HELD_BY_RATE = f'SELECT EXISTS ({WITH_WORK} AND w.rate_limit IS NOT NULL AND {ENDS_IN_TIME} AND {SLOTS} > 0)'

HELD_BY_TIME = f'SELECT EXISTS ({WITH_WORK} AND NOT {ENDS_IN_TIME})'

# Claimed, and not begun in time.
GIVE_BACK = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = %(now)s, lease = NULL, lease_until = NULL
    WHERE id = ANY(%(ids)s) AND status = 'sending' AND lease = %(lease)s"""

IS_LAPSED_UNDER_WAY = "SELECT EXISTS (SELECT 1 FROM webhooks_delivery WHERE status = 'sending' AND lapses > 0)"

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = 'it expired before it could be delivered' || CASE WHEN error = '' THEN '' ELSE '; last: ' || error END
    WHERE id IN (SELECT id FROM webhooks_delivery WHERE status = 'pending' AND expires_at < now() LIMIT 1000)
    RETURNING id, webhook_id"""

RECORD = """
    WITH v AS (
        SELECT * FROM unnest(
            %s::bigint[], %s::text[], %s::text[], %s::int[], %s::timestamptz[], %s::int[], %s::int[],
            %s::timestamptz[], %s::float[], %s::text[], %s::text[], %s::jsonb[], %s::jsonb[], %s::text[], %s::boolean[]
        ) AS v(
            id, status, error, response_status, due_at, attempt_count, attempt_limit,
            started_at, duration, method, url, request_headers, response_headers, response_body, lapsed
        )
    ), ours AS (
        UPDATE webhooks_delivery d
        SET status = v.status, error = v.error, response_status = v.response_status, due_at = v.due_at,
            attempt_count = v.attempt_count, attempt_limit = v.attempt_limit, lease = NULL, lease_until = NULL,
            lapses = CASE WHEN v.lapsed THEN d.lapses + 1 ELSE 0 END, listed = false,
            finished_at = CASE WHEN v.status = 'pending' THEN NULL ELSE now() END
        FROM v WHERE d.id = v.id AND d.status = 'sending' AND d.lease = %s
        RETURNING d.id
    ), logged AS (
        INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
            response_status, response_headers, response_body, error)
        SELECT v.id, v.attempt_count, v.started_at, v.duration, v.method, v.url, v.request_headers,
            v.response_status, v.response_headers, v.response_body, v.error
        FROM v JOIN ours USING (id)
    )
    SELECT ours.id, d.event_count > 1 OR EXISTS (
        SELECT 1 FROM webhooks_wait w WHERE w.blocker_id = ours.id OR w.delivery_id = ours.id
    ) FROM ours JOIN webhooks_delivery d USING (id)"""


@dataclass
class Sent:
    """A claimed delivery, its request (None where none could be built) and what came of it."""

    delivery: Delivery
    request: Request | None = None
    outcome: Outcome | None = None


@dataclass
class Verdict:
    """What a delivery becomes."""

    status: str
    attempt_count: int
    attempt_limit: int | None
    due_at: datetime | None = None


# What was claimed, what becomes of it, and the row that says so, in the order of RECORD.
Judged = tuple[Sent, Verdict, tuple]


@dataclass
class Tally:
    """What a job did, in the words that the status page shows as its result."""

    counts: Counter = field(default_factory=Counter)

    def add(self, status: str) -> None:
        self.counts[status] += 1

    def __str__(self) -> str:
        parts = [
            (StatusChoices.DELIVERED, 'delivered'),
            (StatusChoices.PENDING, 'to retry'),
            (StatusChoices.FAILED, 'failed'),
        ]
        return ', '.join(f'{self.counts[key]} {words}' for key, words in parts if self.counts[key]) or 'nothing to send'


@contextmanager
def turn() -> Iterator[datetime]:
    """A transaction in which `record` and `claim` may be called: short, and one at a time among all workers.

    Gives the time by PostgreSQL's clock, which all workers go by: their own may differ. Raises OperationalError where
    PostgreSQL ends it, because it lasted longer than locks.BOUNDS.
    """
    with locks.holding(locks.LINE) as now:
        yield now


#
# Claim
#


def claim(
    lease: uuid.UUID, limit: int, now: datetime, span: Span = ANY_TIME, one_each: Collection[int] = ()
) -> list[int]:
    """Hold at most `limit` due deliveries under the lease, of the webhooks in `one_each` one. Returns their ids."""
    return _claim(lease, limit, now, span, one_each, lapsed=False)


def claim_lapsed(lease: uuid.UUID, now: datetime, span: Span = ANY_TIME, due: datetime | None = None) -> list[int]:
    """Hold one of the deliveries whose worker stopped while it held them, due at `due` (now) at the latest.

    It may be what stopped the worker: so there is none while another one is under way anywhere.
    """
    with connection.cursor() as cursor:
        cursor.execute(IS_LAPSED_UNDER_WAY)
        if cursor.fetchone()[0]:
            return []
    return _claim(lease, 1, now, span, (), lapsed=True, due=due)


def _claim(
    lease: uuid.UUID,
    limit: int,
    now: datetime,
    span: Span,
    one_each: Collection[int],
    lapsed: bool,
    due: datetime | None = None,
) -> list[int]:
    held = {'limit': limit, 'lease': lease, 'margin': LEASE_MARGIN, 'one_each': list(one_each)}
    which = {'lapsed': lapsed, 'due': due or now}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, held | which | _of_time(now, span))
        claimed = cursor.fetchall()
        limited = Counter(webhook_id for _pk, webhook_id, is_limited in claimed if is_limited)
        if limited:
            cursor.execute(SPEND_TOKENS, {'now': now, 'ids': list(limited), 'counts': list(limited.values())})
    return [pk for pk, *_ in claimed]


def fetch(pks: Sequence[int]) -> list[Delivery]:
    """Return claimed deliveries with their events. After the turn: whoever is frozen while it reads holds no lock."""
    return list(Delivery.objects.filter(pk__in=pks).select_related('event').order_by('pk')) if pks else []


def give_back(lease: uuid.UUID, pks: Sequence[int], now: datetime) -> None:
    """Let others claim what was claimed under the lease and not begun."""
    if pks:
        with connection.cursor() as cursor:
            cursor.execute(GIVE_BACK, {'ids': list(pks), 'lease': lease, 'now': now})


def is_held_by_rate(span: Span = ANY_TIME) -> bool:
    """Whether something is due that waits for nothing but a rate limit's next token: it can go in a moment."""
    return _is_held(HELD_BY_RATE, span)


def is_held_by_time(span: Span) -> bool:
    """Whether something is due that would not end in time."""
    return _is_held(HELD_BY_TIME, span)


def _is_held(statement: str, span: Span) -> bool:
    with connection.cursor() as cursor:
        cursor.execute('SELECT now()')
        cursor.execute(statement, _of_time(cursor.fetchone()[0], span))
        return cursor.fetchone()[0]


def _of_time(now: datetime, span: Span) -> dict[str, object]:
    return {
        'now': now,
        'timeout': settings.WEBHOOK_DEFAULT_TIMEOUT,
        'left': span.left,
        'slow': list(span.slow),
        'seconds': list(span.slow.values()),
    }


def expire() -> bool:
    """Fail what has expired, some at a time. Returns whether there was any."""
    with turn() as now:
        with connection.cursor() as cursor:
            cursor.execute(EXPIRE)
            expired = cursor.fetchall()
        ordering.close_up([pk for pk, _webhook_id in expired])
        endpoint_health.note_failed(Counter(webhook_id for _pk, webhook_id in expired), now)
    return bool(expired)


#
# Build
#


def prepare(delivery: Delivery, webhook: Webhook, now: float) -> Sent:
    """Build the request. Where none can be built, the outcome says why, and the delivery is not sent."""
    delivery.webhook = webhook
    try:
        return Sent(delivery, request=building.build(delivery, now))
    except DefinitionError as error:
        reason = f'{error.field}: {error}'
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # One delivery must not stop the others, whatever a plugin's callback or filter does.
        logger.exception('delivery=%s cannot be built', delivery.uuid)
        reason = f'{type(error).__name__}: {error}'
    error = storable(f'not sent: {reason}')[:MAX_ERROR]
    return Sent(delivery, outcome=Outcome(started_at=now, duration=0, error=error, unsendable=True))


#
# Record
#


def record(lease: uuid.UUID, sent: Sequence[Sent], ledger: endpoint_health.Ledger, now: datetime) -> Tally:
    """Record what came of the requests, as far as the lease still holds, and let the line step up."""
    return record_judged(lease, [_judge(one, now) for one in sent], ledger, now)


def record_judged(lease: uuid.UUID, judged: Sequence[Judged], ledger: endpoint_health.Ledger, now: datetime) -> Tally:
    tally = Tally()
    for one, verdict in save(lease, judged):
        tally.add(verdict.status)
        ledger.add(one.delivery.webhook, one.outcome, verdict.status)
    ledger.flush(now)
    return tally


def _judge(one: Sent, now: datetime) -> Judged:
    """Return what the delivery becomes, and the row that says so.

    Where that raises, whatever the endpoint has answered, this delivery fails, and the others are recorded.
    """
    try:
        verdict = decide(one.delivery, one.outcome, now, random.random())
        return one, verdict, row(one, verdict)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        logger.exception('delivery=%s its outcome cannot be recorded', one.delivery.uuid)
        return fail(one, error)


def fail(one: Sent, reason: Exception) -> Judged:
    """Return the verdict over a delivery whose outcome cannot be recorded, and the row that says so."""
    error = storable(f'its outcome cannot be recorded: {type(reason).__name__}: {reason}')[:MAX_ERROR]
    outcome = Outcome(started_at=one.outcome.started_at, duration=one.outcome.duration, error=error)
    failed = Sent(one.delivery, outcome=outcome)
    verdict = Verdict(StatusChoices.FAILED, one.delivery.attempt_count + 1, one.delivery.attempt_limit)
    return failed, verdict, row(failed, verdict)


def decide(delivery: Delivery, outcome: Outcome, now: datetime, chance: float) -> Verdict:
    """Return what a delivery becomes after an attempt. Pure but for its arguments; `chance` in [0, 1)."""
    tries = delivery.attempt_count + 1
    limit = delivery.attempt_limit
    if outcome.succeeded:
        return Verdict(StatusChoices.DELIVERED, tries, limit)
    if outcome.unreachable and not delivery.event.test and endpoint_health.is_suspended(delivery.webhook):
        # It was a probe: it stays first in the line, and its attempt is not spent.
        return Verdict(StatusChoices.PENDING, tries, (limit or delivery.webhook.max_attempts) + 1, now)
    if outcome.unsendable or tries >= (limit or delivery.webhook.max_attempts):
        return Verdict(StatusChoices.FAILED, tries, limit)
    return Verdict(StatusChoices.PENDING, tries, limit, now + _wait(tries, outcome, now, chance))


def _wait(tries: int, outcome: Outcome, now: datetime, chance: float) -> timedelta:
    wait = backoff.delay(tries, chance)
    if outcome.status in (429, 503):
        asked = backoff.retry_after(outcome.headers.get('Retry-After'), now)
        return max(wait, asked) if asked is not None else wait
    return wait


def save(lease: uuid.UUID, judged: Sequence[Judged]) -> list[tuple[Sent, Verdict]]:
    """Write what deliveries become, and let the line step up. Returns those that were still held under the lease."""
    if not judged:
        return []
    with connection.cursor() as cursor:
        cursor.execute(RECORD, [*(list(column) for column in zip(*(row for *_, row in judged), strict=True)), lease])
        # {id of a delivery that was still ours: whether it stands in a line}
        recorded = dict(cursor.fetchall())
    mine = [(one, verdict) for one, verdict, _row in judged if one.delivery.pk in recorded]
    _step([(one.delivery, verdict) for one, verdict in mine if recorded[one.delivery.pk]])
    for one, verdict in mine:
        _log(one, verdict)
    return mine


def row(one: Sent, verdict: Verdict, lapsed: bool = False) -> tuple:
    """Return the values of a delivery and its attempt in the order of RECORD."""
    webhook, outcome = one.delivery.webhook, one.outcome
    url, headers = building.mask(one.request, webhook) if one.request else (webhook.masked_url, {})
    return (
        one.delivery.pk,
        verdict.status,
        outcome.error,
        outcome.status,
        verdict.due_at,
        verdict.attempt_count,
        verdict.attempt_limit,
        datetime.fromtimestamp(outcome.started_at, UTC),
        outcome.duration,
        webhook.http_method,
        storable(url),
        json.dumps(building.shorten_signatures(headers)),
        json.dumps(dict(outcome.headers)),
        outcome.body,
        lapsed,
    )


def _step(in_line: Sequence[tuple[Delivery, Verdict]]) -> None:
    ordering.step_up([delivery.pk for delivery, verdict in in_line if verdict.status != StatusChoices.PENDING])
    # Those that go to their first retry.
    retried = [(delivery, verdict) for delivery, verdict in in_line if verdict.status == StatusChoices.PENDING]
    ordering.stop_waiting_after([delivery.pk for delivery, _verdict in retried if not delivery.error])


def _log(one: Sent, verdict: Verdict) -> None:
    if verdict.status == StatusChoices.DELIVERED:
        logger.debug('delivery=%s webhook=%s status=delivered', one.delivery.uuid, one.delivery.webhook_id)
        return
    logger.warning(
        'delivery=%s webhook=%s status=%s attempt=%s retry_at=%s error="%s"',
        one.delivery.uuid,
        one.delivery.webhook_id,
        verdict.status,
        verdict.attempt_count,
        verdict.due_at.isoformat() if verdict.due_at else '-',
        one.outcome.error,
    )


def lease_end(webhook: Webhook, now: datetime) -> datetime:
    return now + timedelta(seconds=webhook.effective_timeout + LEASE_MARGIN)


def expiry(now: datetime) -> datetime:
    """Return when a delivery that is made or sent again now expires."""
    return now + timedelta(seconds=conf.get().expire_after)
