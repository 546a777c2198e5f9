"""Claims: what is due is held under a lease, for this worker alone and for a time.

Only the holder of a lease records an outcome. One that is not recorded in time comes back by itself (rescue.py): a
worker that is killed loses nothing, at worst a request is sent twice.
"""

import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from ..constants import LEASE_MARGIN
from ..models import Delivery, Webhook
from . import rate_limit
from .job_time import ANY_TIME, Span
from .rate_limit import TOKENS

UNDER_WAY = "(SELECT count(*) FROM webhooks_delivery s WHERE s.webhook_id = w.id AND s.status = 'sending')"

# Of those that may be under way for a webhook at the same time, one while it is suspended, how many are left.
SLOTS = f'CASE WHEN h.suspended_since IS NULL THEN w.concurrency ELSE 1 END - {UNDER_WAY}'

ACTIVE = 'w.enabled AND NOT w.paused AND (h.suspended_since IS NULL OR h.probe_at <= %(now)s)'

# What job_time.py says of it: %(slow)s are ids of webhooks, %(seconds)s the time that their endpoints take.
TIMED = """
    LEFT JOIN webhooks_health h ON h.webhook_id = w.id
    LEFT JOIN unnest(%(slow)s::bigint[], %(seconds)s::float[]) AS known(id, seconds) ON known.id = w.id"""
ENDS_IN_TIME = """
    coalesce(known.seconds, CASE WHEN h.unreachable > 0 THEN coalesce(w.timeout, %(timeout)s) ELSE 0 END) <= %(left)s"""

# The delivery may go although an earlier one of its object is open (`order_wait` is over); but that one is due or under
# way, and goes first. OFFSET 0: looked up for each delivery by itself, and not for all that wait.
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
              AND d.expires_at >= %(now)s AND (d.lapses > 0) = %(lapsed)s AND NOT {IS_BEHIND}
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
    rate_limit.spend(Counter(webhook_id for _pk, webhook_id, is_limited in claimed if is_limited), now)
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


def lease_end(webhook: Webhook, now: datetime) -> datetime:
    return now + timedelta(seconds=webhook.effective_timeout + LEASE_MARGIN)
