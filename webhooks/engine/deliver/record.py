"""Records outcomes: new states and attempts. The next delivery of each object becomes due."""

import json
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from django.db import transaction

from ... import delivery_states as states
from ...delivery_states import CLOSED_STATES, DeliveryState
from ...interruptions import INTERRUPTIONS
from ...models import Delivery
from ...payload import http_request, kept
from ...storable import storable
from ...transport.exchange import MAX_ERROR_CHARS, Outcome
from .. import sql
from . import order
from .build import Call
from .endpoint import Entry
from .verdict import Verdict, decide, fail

logger = logging.getLogger('webhooks.delivery')

# From what may be in hand to delivered, failed, retrying, doubtful, suspect or held. Each request gets an attempt. If a
# delivery has as many attempts already, a commit was cut off after it was done: it is left out.
RECORD = f"""
    WITH v AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(rows)s::json) AS v(
            id bigint, status text, error text, response_status int, due_at timestamptz, attempt_count int,
            attempt_limit int, lapses int, started_at timestamptz, duration float, method text,
            url text, request_headers jsonb, response_headers jsonb, response_body text, request_body text,
            made_from jsonb, members bigint[]
        )
    ), logged AS (
        INSERT INTO webhooks_attempt (delivery_id, number, started_at, duration, method, url, request_headers,
            response_status, response_headers, response_body, error, request_body, made_from, members)
        SELECT v.id, v.attempt_count, v.started_at, v.duration, v.method, v.url, v.request_headers,
            v.response_status, v.response_headers, v.response_body, v.error, decode(v.request_body, 'base64'),
            v.made_from, v.members
        FROM v JOIN webhooks_delivery d USING (id) WHERE v.started_at IS NOT NULL AND d.attempt_count < v.attempt_count
    )
    UPDATE webhooks_delivery d
    SET status = v.status, error = v.error, response_status = v.response_status, due_at = v.due_at,
        attempt_count = v.attempt_count, attempt_limit = v.attempt_limit, lapses = v.lapses, listed = false,
        finished_at = CASE WHEN v.status IN ('delivered', 'failed') THEN now() END
    FROM v WHERE d.id = v.id AND d.status {states.IN_HAND} AND d.attempt_count < v.attempt_count
    RETURNING d.id"""


def conclude(calls: Sequence[Call], now: datetime) -> list[Entry]:
    """Decide about requests that have an outcome, and record that. Returns the entries, as record().

    A request that cannot be recorded fails with the reason, and stops no other. Raises INTERRUPTIONS.
    """
    if not calls:
        return []
    try:
        with transaction.atomic():
            return record([(call, decide(call.delivery, call.outcome, now, random.random())) for call in calls], now)
    except INTERRUPTIONS:
        raise
    except Exception as error:
        if len(calls) == 1:
            _give_up(*calls, error)
            return record([(one, fail(one.delivery)) for one in calls], now)
    return [entry for call in calls for entry in conclude([call], now)]


def _give_up(call: Call, error: Exception) -> None:
    logger.exception('delivery=%s its outcome cannot be recorded', call.delivery.uuid)
    reason = storable(f'its outcome cannot be recorded: {type(error).__name__}: {error}')[:MAX_ERROR_CHARS]
    before, call.request = call.outcome, None
    call.outcome = Outcome(started_at=before.started_at, duration=before.duration, error=reason, unsendable=True)


def record(judged: Sequence[tuple[Call, Verdict]], now: datetime) -> list[Entry]:
    """Write the new state of requests' deliveries, and their attempts. Make the next of each object due.

    Returns the entries for endpoint.write(). Deliveries that were closed meanwhile are left, and have no entry. The
    caller owns the lanes, or has locked their rows.
    """
    rows = [row for call, verdict in judged for row in _rows(call, verdict)]
    if not rows:
        return []
    recorded = set(sql.fetch_column(RECORD, {'rows': json.dumps(rows)}))
    order.release_next([row['id'] for row in rows if row['status'] in CLOSED_STATES], now)
    mine = [(call, verdict) for call, verdict in judged if call.delivery.pk in recorded]
    for call, verdict in mine:
        _log(call, verdict)
    return [
        Entry(call.delivery.webhook_id, verdict.status, len(call.pks), call.outcome, call.delivery.webhook, call.pks)
        for call, verdict in mine
    ]


def _rows(call: Call, verdict: Verdict) -> list[dict[str, object]]:
    """Return the deliveries and their attempt as RECORD names them."""
    first, *others = [_delivery(one, call, verdict) for one in call.deliveries]
    return [first | _attempt(call), *others]


def _delivery(one: Delivery, call: Call, verdict: Verdict) -> dict[str, object]:
    outcome = call.outcome
    # The companions of a change set go with its first delivery.
    is_held = verdict.due_at and one.parts is not None and one is not call.delivery
    return {
        'id': one.pk,
        'status': DeliveryState.HELD if is_held else verdict.state,
        'error': outcome.error,
        'response_status': outcome.status,
        'due_at': verdict.due_at.isoformat() if verdict.due_at and not is_held else None,
        'attempt_count': one.attempt_count + 1,
        'attempt_limit': verdict.attempt_limit,
        'lapses': verdict.lapses,
    }


def _attempt(call: Call) -> dict[str, object]:
    webhook, outcome = call.delivery.webhook, call.outcome
    url, headers = call.builder.mask(call.request) if call.request else (webhook.masked_url, {})
    return {
        'started_at': datetime.fromtimestamp(outcome.started_at, UTC).isoformat(),
        'duration': outcome.duration,
        'method': call.request.method if call.request else webhook.http_method,
        'url': storable(url),
        'request_headers': http_request.mask_signatures(headers),
        'response_headers': dict(outcome.headers),
        'response_body': outcome.body,
        'members': call.pks if call.others else None,
        **kept.columns(webhook, call.deliveries, call.request),
    }


def _log(call: Call, verdict: Verdict) -> None:
    logger.log(
        logging.DEBUG if verdict.state == DeliveryState.DELIVERED else logging.WARNING,
        'delivery=%s webhook=%s name=%r status=%s attempt=%s retry_at=%s error="%s"',
        call.delivery.uuid,
        call.delivery.webhook_id,
        call.delivery.webhook.name,
        verdict.status,
        call.delivery.attempt_count + 1,
        verdict.due_at.isoformat() if verdict.due_at else '-',
        call.outcome.error,
    )
