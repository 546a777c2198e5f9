"""Lets the changes of an object wait until it is quiet, and go as one.

1. A change is dispatched (dispatch/loop.py), or its conditions turn out to be met (dispatch/undecided.py). Its delivery
   rests: WINDOW says until when at most (`waits_until`), and DUE_AT when it is due, if no other change comes.
2. It is due. If a later delivery of its object rests, it rests on until that one is due, but not beyond `waits_until`
   (postpone(), in a turn of the lane's owner). So all of them wait for the last.
3. Otherwise the changes of its object become one, which goes at once: Lane.folds says so, and superseding.py does it.
4. If that is tried again, it does not rest: the newest change takes its place, and goes with it.

*Send waiting deliveries* ends the wait (engine/commands.py). All times are stored with the deliveries: a resting
delivery keeps its times if somebody switches `quiet` off, or enters other times. A backfill, *Send now*, a redelivery
or a changed config context starts no wait, but an update that a component causes does. A change set goes whole, so it
does not wait.
"""

from collections.abc import Collection
from datetime import datetime

from ...config_contexts import SOURCES
from ...constants import QUIET_MAX_FACTOR
from .. import sql

# How long a delivery of the event `e` to the webhook `w` waits (`q.pause`), and until when at most (`q.latest`): as
# long as an earlier one of its object, or else for a time that began when it was made (`s.since`). There is no row if
# it does not wait: backfills and changes of config contexts go after changes in any case, and a change set goes whole.
WINDOW = f"""
    SELECT make_interval(secs => w.quiet) AS pause, coalesce(
        (SELECT f.waits_until FROM webhooks_delivery f
         WHERE f.object_type_id = e.object_type_id AND f.object_id = e.object_id
           AND f.webhook_id = w.id AND f.status = (SELECT 'resting') AND f.due_at > now()
         ORDER BY f.sequence LIMIT 1),
        s.since + make_interval(secs => coalesce(w.quiet_max, {QUIET_MAX_FACTOR} * w.quiet))
    ) AS latest
    WHERE w.quiet IS NOT NULL AND s.change_set IS NULL AND e.transaction_id <> 0 AND e.backfill_for IS NULL
      AND e.error = ''
      AND NOT coalesce(e.caused_by ?| ARRAY[{', '.join(f"'{label}'" for label in SOURCES)}], false)"""

# When that delivery is due.
DUE_AT = "least(clock_timestamp() + coalesce(q.pause, interval '0'), q.latest)"

# From ready and resting to resting: postpone due deliveries until the latest later one of their object is due. One that
# was tried does not wait again.
POSTPONE = """
    UPDATE webhooks_delivery d SET status = 'resting', due_at = least(v.due_at, d.waits_until)
    FROM (
        SELECT f.id, max(n.due_at) AS due_at
        FROM webhooks_delivery f
        JOIN webhooks_delivery n ON n.webhook_id = f.webhook_id AND n.object_type_id = f.object_type_id
            AND n.object_id = f.object_id AND n.status IN ('resting', '') AND n.sequence > f.sequence
        WHERE f.id = ANY(%(ids)s) AND n.due_at > %(now)s
        GROUP BY f.id
    ) v
    WHERE d.id = v.id AND d.status IN ('pending', 'resting', '') AND d.attempt_count = 0 AND d.waits_until > %(now)s
    RETURNING d.id"""


def postpone(ids: Collection[int], now: datetime) -> set[int]:
    """Postpone due deliveries until later ones of their objects are due, and return the ids of the postponed ones.

    The caller owns the lanes.
    """
    return set(sql.fetch_column(POSTPONE, {'ids': list(ids), 'now': now})) if ids else set()
