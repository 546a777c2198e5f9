"""Lets the changes of an object wait until it is quiet. Then superseding.py makes one of them.

A delivery is due when its object has been quiet for so long after it, and notes until when it waits at most. If a later
one of its object still waits, it takes over that one's time: so all of them wait for the last. All that is known stands
on the deliveries. Change sets wait until the webhook is quiet. Then change_sets.py makes one of them.

If somebody switches `quiet` off, or shortens it, what waits is hastened: nothing waits longer than the webhook says.
"""

from collections import Counter
from collections.abc import Collection
from datetime import datetime

from ...config_contexts import SOURCES
from ...constants import MAX_QUIET_SECONDS, QUIET_MAX_FACTOR
from .. import sql
from . import order

# Deliveries of a lane that a turn hastens. It takes a fifth of a second.
MAX_HASTENED = 10_000

# How long a delivery to the webhook `w` waits at most.
LONGEST_WAIT = f'make_interval(secs => coalesce(w.quiet_max, {QUIET_MAX_FACTOR} * w.quiet))'
# Until when the delivery `f` waits at most. It may have noted a later time, before `quiet_max` was shortened.
LATEST = f'least(f.waits_until, f.created + {LONGEST_WAIT})'

# How long a delivery of the event `e` to the webhook `w` waits (`q.pause`), and until when at most (`q.latest`): until
# then an earlier one waits, of its object or in a change set, or a time of its own began when it was made (`s.since`).
# No row: it does not wait, as backfills and changes of config contexts go after changes in any case.
WINDOW = f"""
    SELECT make_interval(secs => w.quiet) AS pause, coalesce(
        (SELECT {LATEST} FROM webhooks_delivery f
         WHERE s.change_set IS NULL AND f.object_type_id = e.object_type_id AND f.object_id = e.object_id
           AND f.webhook_id = w.id AND f.status = 'pending' AND f.attempt_count = 0
           AND f.waits_until IS NOT NULL AND f.due_at > now()
         ORDER BY f.sequence LIMIT 1),
        (SELECT {LATEST} FROM webhooks_delivery f
         WHERE s.change_set IS NOT NULL AND f.change_set IS NOT NULL AND NOT f.backfill
           AND f.webhook_id = w.id AND f.status = 'pending' AND f.attempt_count = 0
           AND f.waits_until IS NOT NULL AND f.due_at > now()
         ORDER BY f.due_at LIMIT 1),
        s.since + {LONGEST_WAIT}
    ) AS latest
    WHERE w.quiet IS NOT NULL AND e.transaction_id <> 0 AND e.backfill_for IS NULL AND e.error = ''
      AND NOT coalesce(e.caused_by ?| ARRAY[{', '.join(f"'{label}'" for label in SOURCES)}], false)"""

# When that delivery is due.
DUE_AT = "least(clock_timestamp() + coalesce(q.pause, interval '0'), q.latest)"

# Due deliveries to later ones: a change that came after them still waits. One that was tried does not wait again.
POSTPONE = f"""
    WITH due AS MATERIALIZED (
        SELECT f.id, f.webhook_id, f.object_type_id, f.object_id, f.sequence, f.change_set, {LATEST} AS latest
        FROM webhooks_delivery f JOIN webhooks_webhook w ON w.id = f.webhook_id
        WHERE f.id = ANY(%(ids)s) AND f.attempt_count = 0 AND f.waits_until > %(now)s AND {LATEST} > %(now)s
    )
    UPDATE webhooks_delivery d SET due_at = least(v.due_at, v.latest)
    FROM (
        SELECT due.id, due.latest, max(n.due_at) AS due_at FROM due
        JOIN webhooks_delivery n ON n.webhook_id = due.webhook_id AND n.object_type_id = due.object_type_id
            AND n.object_id = due.object_id AND n.status {order.IN_PENDING} AND n.sequence > due.sequence
        WHERE due.change_set IS NULL AND n.attempt_count = 0 AND n.waits_until IS NOT NULL AND n.due_at > %(now)s
        GROUP BY due.id, due.latest
        UNION ALL
        SELECT due.id, due.latest, last.due_at FROM due JOIN (
            SELECT n.webhook_id, max(n.due_at) AS due_at FROM webhooks_delivery n
            WHERE n.webhook_id IN (SELECT webhook_id FROM due WHERE change_set IS NOT NULL) AND NOT n.backfill
              AND n.status {order.IN_PENDING} AND n.change_set IS NOT NULL AND n.attempt_count = 0
              AND n.waits_until IS NOT NULL AND n.due_at > %(now)s
            GROUP BY n.webhook_id
        ) last USING (webhook_id)
        WHERE due.change_set IS NOT NULL
    ) v
    WHERE d.id = v.id AND d.status {order.IN_PENDING} AND d.attempt_count = 0 AND d.waits_until > %(now)s
    RETURNING d.id"""

# The delivery `d` waits longer than its webhook `w` says now, by the time of the statement. By the turn's, a change
# that was dispatched after the turn began would seem to wait too long.
IS_LATE = f"""d.status = 'pending' AND d.lapses = 0 AND d.attempt_count = 0 AND d.waits_until IS NOT NULL
        AND d.backfill IN (false, true)
        AND d.due_at > statement_timestamp() + make_interval(secs => coalesce(w.quiet, 0))
        AND d.due_at <= statement_timestamp() + make_interval(secs => {MAX_QUIET_SECONDS})"""

# Late deliveries of these lanes to due ones, or to ones that wait as long as the webhook says now.
HASTEN = f"""
    UPDATE webhooks_delivery d SET due_at = %(now)s + make_interval(secs => coalesce(w.quiet, 0)),
        waits_until = CASE WHEN w.quiet IS NOT NULL THEN d.waits_until END
    FROM webhooks_webhook w
    WHERE w.id = d.webhook_id AND d.status {order.IN_PENDING} AND d.id = ANY(ARRAY(
        SELECT d.id FROM webhooks_webhook w CROSS JOIN LATERAL (
            SELECT d.id FROM webhooks_delivery d WHERE d.webhook_id = w.id AND {IS_LATE}
            ORDER BY d.due_at LIMIT %(most)s
        ) d
        WHERE w.id = ANY(%(lanes)s)
    ))
    RETURNING d.webhook_id"""


def postpone(ids: Collection[int], now: datetime) -> set[int]:
    """Let due deliveries wait as long as later ones: of their objects, or change sets as others. Returns which had to.

    The caller owns the lanes.
    """
    return set(sql.fetch_column(POSTPONE, {'ids': list(ids), 'now': now})) if ids else set()


def hasten(lanes: Collection[int], now: datetime) -> set[int]:
    """Let deliveries of these lanes wait no longer than their webhooks say now. The caller has locked the lanes.

    Returns the lanes in which more of them may be left: they are for another turn.
    """
    if not lanes:
        return set()
    hastened = Counter(sql.fetch_column(HASTEN, {'lanes': list(lanes), 'most': MAX_HASTENED, 'now': now}))
    return {pk for pk, count in hastened.items() if count >= MAX_HASTENED}
