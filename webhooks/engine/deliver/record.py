"""Records outcomes: new states and attempts. The next delivery of each object becomes due."""

import json
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db import transaction

from ...choices import StatusChoices
from ...interruptions import INTERRUPTIONS
from ...models import Delivery
from ...payload import http_request, kept
from ...storable import storable
from ...transport.exchange import MAX_ERROR_CHARS, Outcome
from .. import sql
from . import order
from .build import Sent
from .endpoint import Entry
from .verdict import Verdict, decide, fail

logger = logging.getLogger('webhooks.delivery')

# Deliveries to their new states, and no row to an attempt for each request. If a delivery has as many attempts already,
# a commit was cut off after it was done: it is left out.
RECORD = """
    WITH v AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(rows)s::json) AS v(
            id bigint, status text, error text, response_status int, due_at timestamptz, attempt_count int,
            attempt_limit int, lapses int, stopped boolean, started_at timestamptz, duration float, method text,
            url text, request_headers jsonb, response_headers jsonb, response_body text, request_body text,
            made_from jsonb
        )
    ), logged AS (
        INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
            response_status, response_headers, response_body, error, request_body, made_from)
        SELECT v.id, v.attempt_count, v.started_at, v.duration, v.method, v.url, v.request_headers,
            v.response_status, v.response_headers, v.response_body, v.error, decode(v.request_body, 'base64'),
            v.made_from
        FROM v JOIN webhooks_delivery d USING (id) WHERE v.started_at IS NOT NULL AND d.attempt_count < v.attempt_count
    )
    UPDATE webhooks_delivery d
    SET status = v.status, error = v.error, response_status = v.response_status, due_at = v.due_at,
        attempt_count = v.attempt_count, attempt_limit = v.attempt_limit, lapses = v.lapses,
        stopped = v.stopped, listed = false,
        finished_at = CASE WHEN v.status = 'pending' THEN NULL ELSE now() END
    FROM v WHERE d.id = v.id AND d.status IN ('pending', 'sending') AND d.attempt_count < v.attempt_count
    RETURNING d.id"""


def conclude(sents: Sequence[Sent], now: datetime) -> list[Entry]:
    """Decide over requests that have an outcome, and record that. Returns the entries, as record().

    A request that cannot be recorded fails with the reason, and stops no other. Raises INTERRUPTIONS.
    """
    if not sents:
        return []
    try:
        with transaction.atomic():
            return record([(sent, decide(sent.delivery, sent.outcome, now, random.random())) for sent in sents], now)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        if len(sents) == 1:
            _give_up(*sents, error)
            return record([(one, fail(one.delivery)) for one in sents], now)
    return [entry for sent in sents for entry in conclude([sent], now)]


def _give_up(sent: Sent, error: Exception) -> None:
    logger.exception('delivery=%s its outcome cannot be recorded', sent.delivery.uuid)
    reason = storable(f'its outcome cannot be recorded: {type(error).__name__}: {error}')[:MAX_ERROR_CHARS]
    before, sent.request = sent.outcome, None
    sent.outcome = Outcome(started_at=before.started_at, duration=before.duration, error=reason, unsendable=True)


def record(judged: Sequence[tuple[Sent, Verdict]], now: datetime) -> list[Entry]:
    """Write the new state of requests' deliveries, and their attempts. Make the next of each object due.

    Returns the entries for endpoint.write(). Deliveries that were closed meanwhile are left, and have no entry. The
    caller owns the lanes, or has locked their rows.
    """
    rows = [row for sent, verdict in judged for row in _rows(sent, verdict)]
    if not rows:
        return []
    recorded = set(sql.fetch_column(RECORD, {'rows': json.dumps(rows)}))
    order.unpark([row['id'] for row in rows if row['status'] != StatusChoices.PENDING], now)
    mine = [(sent, verdict) for sent, verdict in judged if sent.delivery.pk in recorded]
    for sent, verdict in mine:
        _log(sent, verdict)
    return [
        Entry(
            sent.delivery.webhook_id,
            verdict.status,
            len(sent.deliveries),
            sent.outcome,
            sent.delivery.webhook,
            sent.pks,
        )
        for sent, verdict in mine
    ]


def _rows(sent: Sent, verdict: Verdict) -> list[dict[str, object]]:
    """Return the deliveries and their attempt as RECORD names them."""
    first, *others = [_delivery(one, sent, verdict) for one in sent.deliveries]
    return [first | _attempt(sent), *others]


def _delivery(one: Delivery, sent: Sent, verdict: Verdict) -> dict[str, object]:
    outcome = sent.outcome
    is_due = one.parts is None or one is sent.delivery  # its companions go with it
    return {
        'id': one.pk,
        'status': verdict.status,
        'error': outcome.error,
        'response_status': outcome.status,
        'due_at': verdict.due_at.isoformat() if verdict.due_at and is_due else None,
        'attempt_count': one.attempt_count + 1,
        'attempt_limit': verdict.attempt_limit,
        'lapses': verdict.lapses,
        'stopped': verdict.stopped,
    }


def _attempt(sent: Sent) -> dict[str, object]:
    webhook, outcome = sent.delivery.webhook, sent.outcome
    url, headers = sent.builder.mask(sent.request) if sent.request else (webhook.masked_url, {})
    return {
        'started_at': datetime.fromtimestamp(outcome.started_at, UTC).isoformat(),
        'duration': outcome.duration,
        'method': sent.request.method if sent.request else webhook.http_method,
        'url': storable(url),
        'request_headers': http_request.mask_signatures(headers),
        'response_headers': dict(outcome.headers),
        'response_body': outcome.body,
        **kept.columns(webhook, sent.deliveries, sent.request),
    }


def _log(sent: Sent, verdict: Verdict) -> None:
    logger.log(
        logging.DEBUG if verdict.status == StatusChoices.DELIVERED else logging.WARNING,
        'delivery=%s webhook=%s name=%r status=%s attempt=%s retry_at=%s error="%s"',
        sent.delivery.uuid,
        sent.delivery.webhook_id,
        sent.delivery.webhook.name,
        verdict.status,
        sent.delivery.attempt_count + 1,
        verdict.due_at.isoformat() if verdict.due_at else '-',
        sent.outcome.error,
    )
