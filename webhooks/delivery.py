"""From deliveries to attempts: claim what is due, send it, record what came of it.

A claim is a lease. Only its holder records an outcome, and one that is not recorded in time comes back by itself: a
worker that is killed loses nothing, at worst a request is sent twice.
"""

import json
import logging
import random
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction

from . import conf, health, line, locks, payloads, retry
from .choices import StatusChoices
from .constants import LEASE_MARGIN
from .exceptions import DefinitionError
from .interruptions import INTERRUPTIONS
from .models import Delivery, Webhook
from .pace import ANY_TIME, Span
from .storable import storable
from .transport import MAX_ERROR, Outcome, Request

logger = logging.getLogger('webhooks.delivery')

# A rate limit is a token bucket that holds a fifth of a second, so that no second sees many more than its rate.
TOKENS = """
    least(
        greatest(w.rate_limit / 5.0, 1),
        coalesce(h.tokens + w.rate_limit * extract(epoch FROM now() - h.tokens_at), w.rate_limit)
    )"""

# Of those that may be under way for a webhook at the same time, one while it is suspended, how many are left.
SLOTS = """
    CASE WHEN h.suspended_since IS NULL THEN w.concurrency ELSE 1 END
        - (SELECT count(*) FROM webhooks_delivery s WHERE s.webhook_id = w.id AND s.status = 'sending')"""

ACTIVE = 'w.enabled AND NOT w.paused AND (h.suspended_since IS NULL OR h.probe_at <= now())'

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
          AND (SELECT b.status = 'sending' OR b.due_at <= now() FROM webhooks_delivery b WHERE b.id = v.blocker_id)
        OFFSET 0
    )"""

CLAIM = f"""
    WITH ready AS (
        SELECT w.id, w.timeout, w.rate_limit,
            least({SLOTS}, CASE WHEN w.rate_limit IS NOT NULL THEN floor({TOKENS}) END) AS room
        FROM webhooks_webhook w {TIMED}
        WHERE {ACTIVE} AND {ENDS_IN_TIME}
        ORDER BY random()
    ), picked AS (
        SELECT d.id, ready.timeout, ready.rate_limit
        FROM ready CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_delivery d
            WHERE d.webhook_id = ready.id AND d.status = 'pending' AND d.due_at <= now() AND NOT {IS_BEHIND}
            ORDER BY d.due_at, d.id
            LIMIT greatest(ready.room, 0)
            FOR UPDATE SKIP LOCKED
        ) d
        LIMIT %(limit)s
    )
    UPDATE webhooks_delivery d
    SET status = 'sending', lease = %(lease)s,
        lease_until = now() + make_interval(secs => coalesce(picked.timeout, %(timeout)s) + %(margin)s)
    FROM picked WHERE d.id = picked.id
    RETURNING d.id, d.webhook_id, picked.rate_limit IS NOT NULL"""

SPEND_TOKENS = f"""
    UPDATE webhooks_health h SET tokens_at = now(), tokens = {TOKENS} - v.count
    FROM unnest(%s::bigint[], %s::int[]) AS v(id, count)
    JOIN webhooks_webhook w ON w.id = v.id AND w.rate_limit IS NOT NULL
    WHERE h.webhook_id = w.id"""

# Webhooks that something is due for.
WITH_WORK = f"""
    SELECT 1 FROM webhooks_webhook w {TIMED}
    WHERE {ACTIVE} AND EXISTS (
        SELECT 1 FROM webhooks_delivery d
        WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.due_at <= now() AND NOT {IS_BEHIND}
    )"""

# Without a free slot it is not the rate that holds: another worker, which uses the slots, goes on.
HELD_BY_RATE = f'SELECT EXISTS ({WITH_WORK} AND w.rate_limit IS NOT NULL AND {ENDS_IN_TIME} AND {SLOTS} > 0)'

HELD_BY_TIME = f'SELECT EXISTS ({WITH_WORK} AND NOT {ENDS_IN_TIME})'

RETURN_LEASES = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = now(), lease = NULL, lease_until = NULL
    WHERE status = 'sending' AND lease_until < now()
    RETURNING uuid"""

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = 'it expired before it could be delivered' || CASE WHEN error = '' THEN '' ELSE '; last: ' || error END
    WHERE id IN (SELECT id FROM webhooks_delivery WHERE status = 'pending' AND expires_at < now() LIMIT 1000)
    RETURNING id, webhook_id"""

RECORD = """
    WITH v AS (
        SELECT * FROM unnest(
            %s::bigint[], %s::text[], %s::text[], %s::int[], %s::timestamptz[], %s::int[], %s::int[],
            %s::timestamptz[], %s::float[], %s::text[], %s::text[], %s::jsonb[], %s::jsonb[], %s::text[]
        ) AS v(
            id, status, error, response_status, due_at, attempt_count, attempt_limit,
            started_at, duration, method, url, request_headers, response_headers, response_body
        )
    ), ours AS (
        UPDATE webhooks_delivery d
        SET status = v.status, error = v.error, response_status = v.response_status, due_at = v.due_at,
            attempt_count = v.attempt_count, attempt_limit = v.attempt_limit, lease = NULL, lease_until = NULL,
            listed = false, finished_at = CASE WHEN v.status = 'pending' THEN NULL ELSE now() END
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

    Gives the time by PostgreSQL's clock, which all workers go by: their own may differ.
    """
    with transaction.atomic():
        yield locks.acquire(locks.LINE)


#
# Claim
#


def claim(lease: uuid.UUID, limit: int, span: Span = ANY_TIME) -> list[Delivery]:
    """Return at most `limit` due deliveries with their events, held under the lease."""
    parameters = {'limit': limit, 'lease': lease, 'margin': LEASE_MARGIN, **_of_time(span)}
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, parameters)
        claimed = cursor.fetchall()
        if not claimed:
            return []
        limited = Counter(webhook_id for _pk, webhook_id, is_limited in claimed if is_limited)
        if limited:
            cursor.execute(SPEND_TOKENS, [list(limited), list(limited.values())])
    return list(Delivery.objects.filter(pk__in=[pk for pk, *_ in claimed]).select_related('event').order_by('pk'))


def is_held_by_rate(span: Span = ANY_TIME) -> bool:
    """Whether something is due that waits for nothing but a rate limit's next token: it can go in a moment."""
    with connection.cursor() as cursor:
        cursor.execute(HELD_BY_RATE, _of_time(span))
        return cursor.fetchone()[0]


def is_held_by_time(span: Span) -> bool:
    """Whether something is due that would not end in time."""
    with connection.cursor() as cursor:
        cursor.execute(HELD_BY_TIME, _of_time(span))
        return cursor.fetchone()[0]


def _of_time(span: Span) -> dict[str, object]:
    return {
        'timeout': settings.WEBHOOK_DEFAULT_TIMEOUT,
        'left': span.left,
        'slow': list(span.slow),
        'seconds': list(span.slow.values()),
    }


def tidy() -> bool:
    """Give back what dead workers held, and fail what has expired, some at a time. Returns whether there was any."""
    with turn() as now:
        with connection.cursor() as cursor:
            cursor.execute(RETURN_LEASES)
            returned = [row[0] for row in cursor.fetchall()]
            cursor.execute(EXPIRE)
            expired = cursor.fetchall()
        line.close_up([pk for pk, _webhook_id in expired])
        health.note_failed(Counter(webhook_id for _pk, webhook_id in expired), now)
    for one in returned:
        logger.warning('delivery=%s lease=expired (its worker stopped; it is sent again)', one)
    return bool(returned or expired)


#
# Build
#


def prepare(deliveries: Sequence[Delivery], webhooks: Mapping[int, Webhook], now: float) -> list[Sent]:
    """Build the requests. Where none can be built, the outcome says why, and the delivery is not sent."""
    # A webhook may have been deleted, and its deliveries with it, since they were claimed.
    there = [delivery for delivery in deliveries if delivery.webhook_id in webhooks]
    return [_prepare(delivery, webhooks[delivery.webhook_id], now) for delivery in there]


def _prepare(delivery: Delivery, webhook: Webhook, now: float) -> Sent:
    delivery.webhook = webhook
    try:
        return Sent(delivery, request=payloads.build(delivery, now))
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


def record(lease: uuid.UUID, sent: Sequence[Sent], ledger: health.Ledger, now: datetime) -> Tally:
    """Record what came of the requests, as far as the lease still holds, and let the line step up."""
    tally = Tally()
    if not sent:
        return tally
    verdicts = {one.delivery.pk: decide(one.delivery, one.outcome, now, random.random()) for one in sent}
    recorded = _save(lease, sent, verdicts)
    mine = [one for one in sent if one.delivery.pk in recorded]
    _step(mine, verdicts, recorded)
    for one in mine:
        verdict = verdicts[one.delivery.pk]
        tally.add(verdict.status)
        ledger.add(one.delivery.webhook, one.outcome, verdict.status)
        _log(one, verdict)
    ledger.flush(now)
    return tally


def decide(delivery: Delivery, outcome: Outcome, now: datetime, chance: float) -> Verdict:
    """Return what a delivery becomes after an attempt. Pure but for its arguments; `chance` in [0, 1)."""
    tries = delivery.attempt_count + 1
    limit = delivery.attempt_limit
    if outcome.succeeded:
        return Verdict(StatusChoices.DELIVERED, tries, limit)
    if outcome.unreachable and not delivery.event.test and health.is_suspended(delivery.webhook):
        # It was a probe: it stays first in the line, and its attempt is not spent.
        return Verdict(StatusChoices.PENDING, tries, (limit or delivery.webhook.max_attempts) + 1, now)
    if outcome.unsendable or tries >= (limit or delivery.webhook.max_attempts):
        return Verdict(StatusChoices.FAILED, tries, limit)
    return Verdict(StatusChoices.PENDING, tries, limit, now + _wait(tries, outcome, now, chance))


def _wait(tries: int, outcome: Outcome, now: datetime, chance: float) -> timedelta:
    wait = retry.delay(tries, chance)
    if outcome.status in (429, 503):
        asked = retry.retry_after(outcome.headers.get('Retry-After'), now)
        return max(wait, asked) if asked is not None else wait
    return wait


def _save(lease: uuid.UUID, sent: Sequence[Sent], verdicts: Mapping[int, Verdict]) -> dict[int, bool]:
    """Write verdicts and attempts. Returns {id of a delivery that was still ours: whether it stands in a line}."""
    rows = [_row(one, verdicts[one.delivery.pk]) for one in sent]
    with connection.cursor() as cursor:
        cursor.execute(RECORD, [*(list(column) for column in zip(*rows, strict=True)), lease])
        return dict(cursor.fetchall())


def _row(one: Sent, verdict: Verdict) -> tuple:
    """Return the values of a delivery and its attempt in the order of RECORD."""
    webhook, outcome = one.delivery.webhook, one.outcome
    url, headers = payloads.mask(one.request, webhook) if one.request else (webhook.masked_url, {})
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
        json.dumps(payloads.shorten_signatures(headers)),
        json.dumps(dict(outcome.headers)),
        outcome.body,
    )


def _step(sent: Sequence[Sent], verdicts: Mapping[int, Verdict], in_line: Mapping[int, bool]) -> None:
    closed, retried = [], []
    for one in sent:
        verdict = verdicts[one.delivery.pk]
        if not in_line[one.delivery.pk]:
            continue
        if verdict.status != StatusChoices.PENDING:
            closed.append(one.delivery.pk)
        elif not one.delivery.error:
            retried.append(one.delivery.pk)
    line.step_up(closed)
    line.stop_waiting_after(retried)


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
