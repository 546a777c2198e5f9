"""From deliveries to attempts: claim what is due, send it, record what came of it.

A claim is a lease. Only its holder records an outcome, and one that is not recorded in time comes back by itself: a
worker that is killed loses nothing, at worst a request is sent twice.
"""

import json
import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from . import conf, dispatch, health, line, locks, payloads, retry
from .choices import StatusChoices
from .constants import LEASE_MARGIN
from .exceptions import DefinitionError
from .models import Delivery, Webhook
from .transport import Outcome, Request

logger = logging.getLogger('webhooks.delivery')

# A rate limit is a token bucket that holds a fifth of a second, so that no second sees many more than its rate.
CLAIM = """
    WITH ready AS (
        SELECT w.id, w.timeout,
            least(
                CASE WHEN h.suspended_since IS NULL THEN w.concurrency ELSE 1 END
                    - (SELECT count(*) FROM webhooks_delivery s WHERE s.webhook_id = w.id AND s.status = 'sending'),
                CASE WHEN w.rate_limit IS NOT NULL THEN floor(least(
                    greatest(w.rate_limit / 5.0, 1),
                    coalesce(h.tokens + w.rate_limit * extract(epoch FROM now() - h.tokens_at), w.rate_limit)
                )) END
            ) AS room
        FROM webhooks_webhook w
        LEFT JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE w.enabled AND NOT w.paused AND (h.suspended_since IS NULL OR h.probe_at <= now())
        ORDER BY random()
    ), picked AS (
        SELECT d.id, ready.timeout
        FROM ready CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_delivery d
            WHERE d.webhook_id = ready.id AND d.status = 'pending' AND d.due_at <= now()
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
    RETURNING d.id, d.webhook_id"""

SPEND_TOKENS = """
    UPDATE webhooks_health h
    SET tokens_at = now(), tokens = least(
        greatest(w.rate_limit / 5.0, 1),
        coalesce(h.tokens + w.rate_limit * extract(epoch FROM now() - h.tokens_at), w.rate_limit)
    ) - v.count
    FROM unnest(%s::bigint[], %s::int[]) AS v(id, count)
    JOIN webhooks_webhook w ON w.id = v.id AND w.rate_limit IS NOT NULL
    WHERE h.webhook_id = w.id"""

HELD_BY_RATE = """
    SELECT EXISTS (
        SELECT 1 FROM webhooks_webhook w LEFT JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE w.rate_limit IS NOT NULL AND w.enabled AND NOT w.paused AND h.suspended_since IS NULL
          AND EXISTS (
              SELECT 1 FROM webhooks_delivery d
              WHERE d.webhook_id = w.id AND d.status = 'pending' AND d.due_at <= now()
          )
    )"""

RETURN_LEASES = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = now(), lease = NULL, lease_until = NULL
    WHERE status = 'sending' AND lease_until < now()
    RETURNING uuid"""

EXPIRE = """
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        error = 'it expired before it could be delivered' || CASE WHEN error = '' THEN '' ELSE '; last: ' || error END
    WHERE id IN (SELECT id FROM webhooks_delivery WHERE status = 'pending' AND expires_at < now() LIMIT 1000)
    RETURNING id"""

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
    # time.monotonic() of the claim.
    began: float = field(default_factory=time.monotonic)


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
def turn() -> Iterator[None]:
    """A transaction in which `record` and `claim` may be called: short, and one at a time among all workers."""
    with transaction.atomic():
        locks.acquire(locks.LINE)
        yield


#
# Claim
#


def claim(lease: uuid.UUID, limit: int) -> list[Delivery]:
    """Return at most `limit` due deliveries with their events, held under the lease."""
    parameters = {
        'limit': limit,
        'lease': lease,
        'timeout': settings.WEBHOOK_DEFAULT_TIMEOUT,
        'margin': LEASE_MARGIN,
    }
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, parameters)
        claimed = cursor.fetchall()
        if not claimed:
            return []
        counts = Counter(webhook_id for _pk, webhook_id in claimed)
        cursor.execute(SPEND_TOKENS, [list(counts), list(counts.values())])
    return list(Delivery.objects.filter(pk__in=[pk for pk, _ in claimed]).select_related('event').order_by('pk'))


def is_held_by_rate() -> bool:
    """Whether something is due that only a rate limit holds back: it can go in a moment."""
    with connection.cursor() as cursor:
        cursor.execute(HELD_BY_RATE)
        return cursor.fetchone()[0]


def tidy() -> bool:
    """Give back what dead workers held, and fail what has expired, some at a time. Returns whether there was any."""
    with turn():
        with connection.cursor() as cursor:
            cursor.execute(RETURN_LEASES)
            returned = [row[0] for row in cursor.fetchall()]
            cursor.execute(EXPIRE)
            expired = [row[0] for row in cursor.fetchall()]
        line.close_up(expired)
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
    except dispatch.NOT_THE_EVENTS_FAULT:
        raise
    except Exception as error:
        # One delivery must not stop the others, whatever a plugin's callback or filter does.
        logger.exception('delivery=%s cannot be built', delivery.uuid)
        reason = f'{type(error).__name__}: {error}'
    return Sent(delivery, outcome=Outcome(started_at=now, duration=0, error=f'not sent: {reason}', unsendable=True))


#
# Record
#


def record(lease: uuid.UUID, sent: Sequence[Sent], ledger: health.Ledger) -> Tally:
    """Record what came of the requests, as far as the lease still holds, and let the line step up."""
    tally = Tally()
    if not sent:
        return tally
    now = timezone.now()
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
    if outcome.unreachable and health.is_suspended(delivery.webhook):
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
        url,
        json.dumps(headers),
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
