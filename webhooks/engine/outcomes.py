"""Outcomes: what came of requests is recorded, if their lease still holds, and the next in line steps up."""

import json
import logging
import random
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from django.db import connection

from ..choices import StatusChoices
from ..interruptions import INTERRUPTIONS
from ..models import Delivery
from ..payload import http_request
from ..storable import storable
from ..transport.exchange import MAX_ERROR, Outcome
from . import ordering
from .claimed import Claimed
from .ledger import Ledger
from .verdict import Verdict, decide

logger = logging.getLogger('webhooks.delivery')

# What the columns hold. The probes of a webhook that stays suspended are not bounded otherwise.
MOST_ATTEMPTS = 32767

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


# What was claimed, what becomes of it, and the row that says so, in the order of RECORD.
Judged = tuple[Claimed, Verdict, tuple]


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


def record(lease: uuid.UUID, claimed: Sequence[Claimed], ledger: Ledger, now: datetime) -> Tally:
    """Record what came of the requests, if the lease still holds, and let the line step up."""
    return record_judged(lease, [_judge(one, now) for one in claimed], ledger, now)


def record_judged(lease: uuid.UUID, judged: Sequence[Judged], ledger: Ledger, now: datetime) -> Tally:
    tally = Tally()
    if not judged:
        return tally
    for one, verdict in save(lease, judged):
        tally.add(verdict.status)
        ledger.add(one.delivery.webhook, one.outcome, verdict.status)
    ledger.flush(now)
    return tally


def _judge(one: Claimed, now: datetime) -> Judged:
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


def fail(one: Claimed, reason: Exception) -> Judged:
    """Return the verdict over a delivery whose outcome cannot be recorded, and the row that says so."""
    error = storable(f'its outcome cannot be recorded: {type(reason).__name__}: {reason}')[:MAX_ERROR]
    outcome = Outcome(started_at=one.outcome.started_at, duration=one.outcome.duration, error=error)
    failed = Claimed(one.delivery, outcome=outcome)
    verdict = Verdict(StatusChoices.FAILED, one.delivery.attempt_count + 1, one.delivery.attempt_limit)
    return failed, verdict, row(failed, verdict)


def save(lease: uuid.UUID, judged: Sequence[Judged]) -> list[tuple[Claimed, Verdict]]:
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


def row(one: Claimed, verdict: Verdict, lapsed: bool = False) -> tuple:
    """Return the values of a delivery and its attempt in the order of RECORD."""
    webhook, outcome = one.delivery.webhook, one.outcome
    url, headers = http_request.mask(one.request, webhook) if one.request else (webhook.masked_url, {})
    return (
        one.delivery.pk,
        verdict.status,
        outcome.error,
        outcome.status,
        verdict.due_at,
        min(verdict.attempt_count, MOST_ATTEMPTS),
        verdict.attempt_limit and min(verdict.attempt_limit, MOST_ATTEMPTS),
        datetime.fromtimestamp(outcome.started_at, UTC),
        outcome.duration,
        webhook.http_method,
        storable(url),
        json.dumps(http_request.shorten_signatures(headers)),
        json.dumps(dict(outcome.headers)),
        outcome.body,
        lapsed,
    )


def _step(in_line: Sequence[tuple[Delivery, Verdict]]) -> None:
    ordering.step_up([delivery.pk for delivery, verdict in in_line if verdict.status != StatusChoices.PENDING])
    # Those that go to their first retry.
    retried = [(delivery, verdict) for delivery, verdict in in_line if verdict.status == StatusChoices.PENDING]
    ordering.limit_wait_behind([delivery.pk for delivery, _verdict in retried if not delivery.error])


def _log(one: Claimed, verdict: Verdict) -> None:
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
