"""What came of requests is recorded, and the next delivery of each object becomes due.

Called by the owner of the lanes, or by who holds the lock of their rows.
"""

import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ...choices import StatusChoices
from ...interruptions import INTERRUPTIONS
from ...models import Delivery
from ...payload import http_request
from ...storable import storable
from ...transport.exchange import MAX_ERROR, Outcome
from .. import sql
from .ledger import Ledger
from .sent import Sent
from .verdict import Verdict, decide, fail

logger = logging.getLogger('webhooks.delivery')

# What the columns hold. The probes of a webhook that stays suspended are not bounded otherwise.
MOST_ATTEMPTS = 32767

# Whether it is not recorded yet: where a commit was cut off nobody knows, and it is done again.
IS_NEW = f'(d.attempt_count < v.attempt_count OR v.attempt_count = {MOST_ATTEMPTS})'

# One record a delivery, by name: what it becomes, and the attempt that says why, which is one for all of a request.
RECORD = f"""
    WITH v AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(rows)s::json) AS v(
            id bigint, status text, error text, response_status int, due_at timestamptz, attempt_count int,
            attempt_limit int, lapses int, batch bigint, started_at timestamptz, duration float, method text, url text,
            request_headers jsonb, response_headers jsonb, response_body text
        )
    ), logged AS (
        INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
            response_status, response_headers, response_body, error)
        SELECT v.id, v.attempt_count, v.started_at, v.duration, v.method, v.url, v.request_headers,
            v.response_status, v.response_headers, v.response_body, v.error
        FROM v JOIN webhooks_delivery d USING (id) WHERE v.started_at IS NOT NULL AND {IS_NEW}
    )
    UPDATE webhooks_delivery d
    SET status = v.status, error = v.error, response_status = v.response_status, due_at = v.due_at,
        attempt_count = v.attempt_count, attempt_limit = v.attempt_limit, lapses = v.lapses, batch = v.batch,
        listed = false, finished_at = CASE WHEN v.status = 'pending' THEN NULL ELSE now() END
    FROM v WHERE d.id = v.id AND d.status IN ('pending', 'sending') AND {IS_NEW}
    RETURNING d.id"""

# The next that waits for each object of these, which are closed. A suspect without a time is in hand (suspects.py).
# Several of one sequence tell of one event: it was redelivered. Each lets the next of them go.
UNPARK = """
    UPDATE webhooks_delivery SET due_at = %(now)s
    WHERE status = 'pending' AND due_at IS NULL AND lapses = 0 AND id = ANY(ARRAY(
        SELECT n.id FROM webhooks_delivery d CROSS JOIN LATERAL (
            SELECT n.id FROM webhooks_delivery n
            WHERE n.webhook_id = d.webhook_id AND n.object_type_id = d.object_type_id AND n.object_id = d.object_id
              AND n.status = 'pending' AND n.sequence >= d.sequence AND (n.sequence, n.id) > (d.sequence, d.id)
            ORDER BY n.sequence, n.id LIMIT 1
        ) n
        WHERE d.id = ANY(%(ids)s)
    ))"""

# Takes the lock of lanes, in one order.
HOLD = 'SELECT 1 FROM webhooks_health WHERE webhook_id = ANY(%(lanes)s) ORDER BY webhook_id FOR UPDATE'

# What was sent, what becomes of its deliveries, and the records that say so.
Judged = tuple[Sent, Verdict, list[dict]]
Judge = Callable[[Sent, datetime], Judged]


@dataclass
class Tally:
    """What a job did, in the words that the status page shows as its result."""

    counts: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [
            (StatusChoices.DELIVERED, 'delivered'),
            (StatusChoices.PENDING, 'to retry'),
            (StatusChoices.FAILED, 'failed'),
            (StatusChoices.SUPERSEDED, 'superseded'),
        ]
        return ', '.join(f'{self.counts[key]} {words}' for key, words in parts if self.counts[key]) or 'nothing to send'


def hold(webhook_ids: Collection[int]) -> None:
    """Lock the lanes until the open transaction ends: nothing is parked in them meanwhile."""
    sql.fetch(HOLD, {'lanes': list(webhook_ids)})


def record(judged: Sequence[Judged], ledger: Ledger, now: datetime) -> Counter[str]:
    """Record what came of requests, and tell the ledger. Returns how many deliveries became what."""
    counts: Counter[str] = Counter()
    for sent, verdict in save(judged, now):
        counts[verdict.status] += len(sent.deliveries)
        ledger.add(sent.delivery.webhook, sent.outcome, verdict.status, len(sent.deliveries))
    return counts


def judge(sent: Sent, now: datetime) -> Judged:
    """Return what the deliveries become, and the records that say so.

    Where that raises, whatever the endpoint has answered, these fail, and the others are recorded.
    """
    try:
        verdict = decide(sent.delivery, sent.outcome, now, random.random())
        return sent, verdict, row(sent, verdict)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        logger.exception('delivery=%s its outcome cannot be recorded', sent.delivery.uuid)
        return judge_failed(error, sent, now)


def judge_failed(reason: Exception, sent: Sent, now: datetime) -> Judged:
    """Return the verdict over a request whose outcome cannot be recorded, and the records that say so."""
    error = storable(f'its outcome cannot be recorded: {type(reason).__name__}: {reason}')[:MAX_ERROR]
    outcome = Outcome(started_at=sent.outcome.started_at, duration=sent.outcome.duration, error=error)
    failed = Sent(sent.delivery, sent.builder, sent.others, outcome=outcome)
    verdict = fail(sent.delivery)
    return failed, verdict, row(failed, verdict)


def save(judged: Sequence[Judged], now: datetime) -> list[tuple[Sent, Verdict]]:
    """Write what deliveries become, and let the next of their objects go. Returns what was still open."""
    if not judged:
        return []
    rows = [each for *_, rows in judged for each in rows]
    recorded = set(sql.fetch_column(RECORD, {'rows': json.dumps(rows)}))
    unpark([one['id'] for one in rows if one['status'] != StatusChoices.PENDING], now)
    mine = [(sent, verdict) for sent, verdict, _rows in judged if sent.delivery.pk in recorded]
    for sent, verdict in mine:
        _log(sent, verdict)
    return mine


def unpark(ids: Collection[int], now: datetime) -> None:
    """These deliveries are closed: the next of their objects are due."""
    if ids:
        sql.execute(UNPARK, {'ids': list(ids), 'now': now})


def row(sent: Sent, verdict: Verdict, lapses: int = 0) -> list[dict[str, object]]:
    """Return the deliveries and their attempt as RECORD names them."""
    batch = sent.delivery.pk if sent.others else sent.delivery.batch
    first, *others = [_delivery(one, sent.outcome, verdict, lapses, batch) for one in sent.deliveries]
    return [first | _attempt(sent), *others]


def _delivery(one: Delivery, outcome: Outcome, verdict: Verdict, lapses: int, batch: int | None) -> dict[str, object]:
    return {
        'id': one.pk,
        'status': verdict.status,
        'error': outcome.error,
        'response_status': outcome.status,
        'due_at': verdict.due_at and verdict.due_at.isoformat(),
        'attempt_count': min(one.attempt_count + 1, MOST_ATTEMPTS),
        'attempt_limit': verdict.attempt_limit and min(verdict.attempt_limit, MOST_ATTEMPTS),
        'lapses': lapses,
        'batch': batch,
    }


def _attempt(sent: Sent) -> dict[str, object]:
    webhook, outcome = sent.delivery.webhook, sent.outcome
    url, headers = sent.builder.mask(sent.request) if sent.request else (webhook.masked_url, {})
    return {
        'started_at': datetime.fromtimestamp(outcome.started_at, UTC).isoformat(),
        'duration': outcome.duration,
        'method': webhook.http_method,
        'url': storable(url),
        'request_headers': http_request.mask_signatures(headers),
        'response_headers': dict(outcome.headers),
        'response_body': outcome.body,
    }


def _log(sent: Sent, verdict: Verdict) -> None:
    if verdict.status == StatusChoices.DELIVERED:
        logger.debug('delivery=%s webhook=%s status=delivered', sent.delivery.uuid, sent.delivery.webhook_id)
        return
    logger.warning(
        'delivery=%s webhook=%s status=%s attempt=%s retry_at=%s error="%s"',
        sent.delivery.uuid,
        sent.delivery.webhook_id,
        verdict.status,
        sent.delivery.attempt_count + 1,
        verdict.due_at.isoformat() if verdict.due_at else '-',
        sent.outcome.error,
    )
