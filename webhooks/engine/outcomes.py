"""Outcomes: what came of requests is recorded, if their lease still holds, and the next of the object goes."""

import json
import logging
import random
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..choices import StatusChoices
from ..interruptions import INTERRUPTIONS
from ..payload import http_request
from ..storable import storable
from ..transport.exchange import MAX_ERROR, Outcome
from . import ordering, sql
from .claimed import Claimed
from .ledger import Ledger
from .verdict import Verdict, decide, fail

logger = logging.getLogger('webhooks.delivery')

# What the columns hold. The probes of a webhook that stays suspended are not bounded otherwise.
MOST_ATTEMPTS = 32767

# One record a delivery, by name: what it becomes, and the attempt that says why.
RECORD = """
    WITH v AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(rows)s::json) AS v(
            id bigint, status text, error text, response_status int, due_at timestamptz, attempt_count int,
            attempt_limit int, started_at timestamptz, duration float, method text, url text, request_headers jsonb,
            response_headers jsonb, response_body text, lapses int
        )
    ), ours AS (
        UPDATE webhooks_delivery d
        SET status = v.status, error = v.error, response_status = v.response_status, due_at = v.due_at,
            attempt_count = v.attempt_count, attempt_limit = v.attempt_limit, lease = NULL, lease_until = NULL,
            lapses = v.lapses, listed = false,
            finished_at = CASE WHEN v.status = 'pending' THEN NULL ELSE now() END
        FROM v WHERE d.id = v.id AND d.status = 'sending' AND d.lease = %(lease)s
        RETURNING d.id
    ), logged AS (
        INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
            response_status, response_headers, response_body, error)
        SELECT v.id, v.attempt_count, v.started_at, v.duration, v.method, v.url, v.request_headers,
            v.response_status, v.response_headers, v.response_body, v.error
        FROM v JOIN ours USING (id)
    )
    SELECT id FROM ours"""


# What was claimed, what becomes of it, and the record that says so.
Judged = tuple[Claimed, Verdict, dict]
Judge = Callable[[Claimed, datetime], Judged]


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
            (StatusChoices.SUPERSEDED, 'superseded'),
        ]
        return ', '.join(f'{self.counts[key]} {words}' for key, words in parts if self.counts[key]) or 'nothing to send'


def record(lease: uuid.UUID, judged: Sequence[Judged], ledger: Ledger, lanes: Collection[int], now: datetime) -> Tally:
    """Record what came of requests in lanes that the caller holds, if the lease still does, and tell the ledger."""
    tally = Tally()
    for one, verdict in save(lease, judged, now):
        tally.add(verdict.status)
        ledger.add(one.delivery.webhook, one.outcome, verdict.status)
    ledger.flush(now, lanes)
    return tally


def judge(one: Claimed, now: datetime) -> Judged:
    """Return what the delivery becomes, and the record that says so.

    Where that raises, whatever the endpoint has answered, this delivery fails, and the others are recorded.
    """
    try:
        verdict = decide(one.delivery, one.outcome, now, random.random())
        return one, verdict, row(one, verdict)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        logger.exception('delivery=%s its outcome cannot be recorded', one.delivery.uuid)
        return judge_failed(error, one, now)


def judge_failed(reason: Exception, one: Claimed, now: datetime) -> Judged:
    """Return the verdict over a delivery whose outcome cannot be recorded, and the record that says so."""
    error = storable(f'its outcome cannot be recorded: {type(reason).__name__}: {reason}')[:MAX_ERROR]
    outcome = Outcome(started_at=one.outcome.started_at, duration=one.outcome.duration, error=error)
    failed = Claimed(one.delivery, one.builder, outcome=outcome)
    verdict = fail(one.delivery)
    return failed, verdict, row(failed, verdict)


def save(lease: uuid.UUID, judged: Sequence[Judged], now: datetime) -> list[tuple[Claimed, Verdict]]:
    """Write what deliveries become, and let the next of their objects go. Returns those still held under the lease."""
    if not judged:
        return []
    recorded = set(sql.fetch_column(RECORD, {'rows': json.dumps([row for *_, row in judged]), 'lease': lease}))
    mine = [(one, verdict) for one, verdict, _row in judged if one.delivery.pk in recorded]
    closed = [one.delivery for one, verdict in mine if verdict.status != StatusChoices.PENDING]
    ordering.close_batches([delivery.pk for delivery in closed if delivery.event_count > 1])
    ordering.unpark(recorded, now)
    for one, verdict in mine:
        _log(one, verdict)
    return mine


def row(one: Claimed, verdict: Verdict, lapses: int = 0) -> dict[str, object]:
    """Return a delivery and its attempt as RECORD names them."""
    webhook, outcome = one.delivery.webhook, one.outcome
    url, headers = one.builder.mask(one.request) if one.request else (webhook.masked_url, {})
    return {
        'id': one.delivery.pk,
        'status': verdict.status,
        'error': outcome.error,
        'response_status': outcome.status,
        'due_at': verdict.due_at and verdict.due_at.isoformat(),
        'attempt_count': min(one.delivery.attempt_count + 1, MOST_ATTEMPTS),
        'attempt_limit': verdict.attempt_limit and min(verdict.attempt_limit, MOST_ATTEMPTS),
        'started_at': datetime.fromtimestamp(outcome.started_at, UTC).isoformat(),
        'duration': outcome.duration,
        'method': webhook.http_method,
        'url': storable(url),
        'request_headers': http_request.mask_signatures(headers),
        'response_headers': dict(outcome.headers),
        'response_body': outcome.body,
        'lapses': lapses,
    }


def _log(one: Claimed, verdict: Verdict) -> None:
    if verdict.status == StatusChoices.DELIVERED:
        logger.debug('delivery=%s webhook=%s status=delivered', one.delivery.uuid, one.delivery.webhook_id)
        return
    logger.warning(
        'delivery=%s webhook=%s status=%s attempt=%s retry_at=%s error="%s"',
        one.delivery.uuid,
        one.delivery.webhook_id,
        verdict.status,
        one.delivery.attempt_count + 1,
        verdict.due_at.isoformat() if verdict.due_at else '-',
        one.outcome.error,
    )
