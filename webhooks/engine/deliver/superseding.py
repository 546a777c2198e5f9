"""Closes waiting deliveries that others of their object make needless.

For webhooks with `latest_only` or `quiet`, and for others when somebody asks for it once (engine/commands.py). fold.py
says which need not be sent. A restatement of an object replaces no change of it. Deliveries in hand are left alone, and
count as seen. Suspects, tests, job events and failed events take no part. For every webhook, a later delivery replaces
an untried one of a backfill.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import batched, groupby
from operator import itemgetter, methodcaller

from ... import delivery_states as states
from .. import sql
from . import order
from .fold import Folded, Waiting, fold

# Objects whose deliveries are read together.
OBJECTS_PER_READ = 1000
# Deliveries that are read for them together, and for each. With many objects it is fewer for each, but two at least.
DELIVERIES_PER_READ = 20_000
DELIVERIES_PER_OBJECT = 1000

# The ids of webhook, model and object.
Object = tuple[int, int, int]

# Find objects with several waiting deliveries. Leave out an object with a delivery that is undecided or in a change
# set, or that a stopped worker had in hand: its request may still be under way, and a later one must not overtake it.
FIND_SEVERAL = f"""
    SELECT o.* FROM unnest(%(webhooks)s::bigint[], %(types)s::bigint[], %(objects)s::bigint[])
        AS o(webhook_id, object_type_id, object_id)
    WHERE (
        SELECT count(*) FROM (
            SELECT FROM webhooks_delivery d
            WHERE d.webhook_id = o.webhook_id AND d.object_type_id = o.object_type_id AND d.object_id = o.object_id
              AND d.status {states.QUEUED_BY_ID} AND d.id <> ALL(%(in_hand)s)
            LIMIT 2
        ) d
    ) = 2 AND NOT EXISTS (
        SELECT FROM webhooks_delivery s
        WHERE s.webhook_id = o.webhook_id AND s.object_type_id = o.object_type_id AND s.object_id = o.object_id
          AND s.status {states.WAITING_BY_ID}
          AND (s.change_set IS NOT NULL OR s.status = 'undecided' OR s.status = 'doubtful' AND s.due_at > %(now)s)
    )"""

# Read the first waiting deliveries of each object, if their events show it. One restates the object if its event does,
# or if an earlier delivery of its event has gone to the webhook: somebody redelivers it. But not if the object enters
# or leaves a list with it. A receiver may know of a creation by a later delivery that went before.
READ_LINES = f"""
    SELECT d.webhook_id, d.object_type_id, d.object_id, d.id, coalesce(d.span ->> 'kind', e.kind), d.due_at, d.backfill,
        (d.span ? 'membership') IS NOT TRUE AND (
            e.backfill_for IS NOT NULL OR e.caused_by IS NOT NULL OR EXISTS (
                SELECT FROM webhooks_delivery o
                WHERE o.event_id = d.event_id AND o.webhook_id = d.webhook_id AND o.id < d.id
            )
        ),
        d.attempt_count > 0,
        d.attempt_count > 0 OR d.attempt_limit IS NOT NULL OR (d.span ? 'seen') IS TRUE
        OR coalesce(d.span ->> 'kind', e.kind) = 'created' AND EXISTS (
            SELECT FROM webhooks_delivery g
            WHERE g.webhook_id = d.webhook_id AND g.object_type_id = d.object_type_id AND g.object_id = d.object_id
              AND g.sequence > d.sequence AND (g.attempt_count > 0 OR g.id = ANY(%(in_hand)s))
        ),
        d.span ->> 'membership'
    FROM unnest(%(webhooks)s::bigint[], %(types)s::bigint[], %(objects)s::bigint[])
        AS o(webhook_id, object_type_id, object_id)
    CROSS JOIN LATERAL (
        SELECT * FROM webhooks_delivery d
        WHERE d.webhook_id = o.webhook_id AND d.object_type_id = o.object_type_id AND d.object_id = o.object_id
          AND d.status {states.QUEUED_BY_ID} AND d.id <> ALL(%(in_hand)s)
        ORDER BY d.sequence, d.id LIMIT %(most)s
    ) d JOIN webhooks_event e ON e.id = d.event_id
    WHERE e.transaction_id <> 0 AND e.error = ''
    ORDER BY d.webhook_id, d.object_type_id, d.object_id, d.sequence, d.id"""

# Find restatements that show the same as a change before them.
READ_REPEATED = """
    SELECT r.id FROM unnest(%(restatements)s::bigint[], %(changes)s::bigint[]) AS v(restatement, change)
    JOIN webhooks_delivery r ON r.id = v.restatement JOIN webhooks_event re ON re.id = r.event_id
    JOIN webhooks_delivery c ON c.id = v.change JOIN webhooks_event ce ON ce.id = c.event_id
    WHERE re.data = ce.data AND (NOT r.expanded OR re.expanded IS NOT DISTINCT FROM ce.expanded)"""

# From the queue to superseded: needless deliveries.
SUPERSEDE = f"""
    UPDATE webhooks_delivery d SET status = 'superseded', due_at = NULL, finished_at = %(now)s, error = ''
    FROM unnest(%(ids)s::bigint[]) v(id) WHERE d.id = v.id AND d.status {states.QUEUED_BY_ID} RETURNING d.webhook_id"""

# From the queue to ready: heirs get their new state. The next turn holds those that have to wait. They show the object
# before the first delivery `f`: as that one shows it, or its event, or as the heir had it so far.
INHERIT = f"""
    UPDATE webhooks_delivery d
    SET status = 'pending', due_at = least(h.due_at, %(now)s), waits_until = NULL, attempt_limit = NULL,
        backfill = h.backfill,
        span = nullif(
            coalesce(d.span, '{{}}') - 'seen' || h.span
            || CASE WHEN h.before IS NULL THEN '{{}}' ELSE jsonb_build_object(h.key, h.before) END, '{{}}')
    FROM (
        SELECT h.*, coalesce(
            nullif(f.span -> 'prechange', 'null'),
            CASE WHEN f.attempt_count = 0 THEN nullif(f.span -> 'seen', 'true') END,
            nullif(e.snapshots -> h.side, 'null')) AS before
        FROM json_to_recordset(%(heirs)s::json)
            AS h(pk bigint, span jsonb, due_at timestamptz, backfill boolean, first bigint, side text, key text)
        LEFT JOIN webhooks_delivery f ON f.id = h.first LEFT JOIN webhooks_event e ON e.id = f.event_id
    ) h
    WHERE d.id = h.pk AND d.status {states.QUEUED_BY_ID}"""

# Read whether a backfill has untried deliveries.
IS_ANY_UNTRIED = f"""
    SELECT EXISTS (
        SELECT FROM webhooks_delivery d
        WHERE d.webhook_id = ANY(%(webhooks)s) AND d.id <> ALL(%(in_hand)s)
          AND d.status {states.QUEUED} AND {order.IS_UNTRIED}
    )"""

# From ready and held to superseded: untried deliveries of backfills, if a later one waits that shows the object.
REPLACE_BACKFILLS = f"""
    UPDATE webhooks_delivery d SET status = 'superseded', due_at = NULL, finished_at = %(now)s
    WHERE webhook_id = ANY(%(webhooks)s) AND id <> ALL(%(in_hand)s)
      AND d.status IN ('pending', 'held') AND {order.IS_UNTRIED}
      AND EXISTS (
          SELECT FROM webhooks_delivery p JOIN webhooks_event e ON e.id = p.event_id
          WHERE p.webhook_id = d.webhook_id AND p.object_type_id = d.object_type_id AND p.object_id = d.object_id
            AND p.status {states.QUEUED_BY_ID} AND p.sequence > d.sequence AND e.transaction_id <> 0 AND e.error = ''
      )
    RETURNING d.id, d.webhook_id"""


def supersede(objects: Iterable[Object], now: datetime, in_hand: Collection[int]) -> Counter[int]:
    """Supersede needless deliveries among the first waiting ones of each object.

    Returns how many, by the webhook's id. A delivery that stays covers the closed changes too, and the first one left
    of each object is due. Those `in_hand` (ids) stay, and count as seen by the receiver. The caller knows which
    webhooks ask for it, and has locked their lanes.
    """
    objects = set(objects)
    parameters = {'now': now, 'in_hand': list(in_hand)}
    several = sql.fetch(FIND_SEVERAL, {**_columns(objects), **parameters}) if objects else []
    return Counter(pk for portion in batched(several, OBJECTS_PER_READ) for pk in _supersede(portion, now, in_hand))


def replace_backfills(webhook_ids: Collection[int], now: datetime, in_hand: Collection[int]) -> Counter[int]:
    """Supersede untried deliveries of backfills that a later delivery of their object makes needless.

    Returns how many, by the webhook's id. Those `in_hand` (ids) stay. The caller has locked the lanes.
    """
    parameters = {'webhooks': list(webhook_ids), 'in_hand': list(in_hand), 'now': now}
    if not webhook_ids or not sql.fetch_value(IS_ANY_UNTRIED, parameters):
        return Counter()
    closed = sql.fetch(REPLACE_BACKFILLS, parameters)
    order.release_next([pk for pk, _webhook_id in closed], now)
    return Counter(webhook_id for _pk, webhook_id in closed)


def _supersede(objects: Sequence[Object], now: datetime, in_hand: Collection[int]) -> list[int]:
    """Return the id of the webhook of each closed delivery."""
    most = max(min(DELIVERIES_PER_READ // len(objects), DELIVERIES_PER_OBJECT), 2)
    rows = sql.fetch(READ_LINES, {**_columns(objects), 'in_hand': list(in_hand), 'most': most})
    lines = groupby(rows, key=itemgetter(0, 1, 2))
    folded = [fold([Waiting(*row[3:]) for row in line]) for _object, line in lines]
    needless = [pk for one in folded for pk in one.closed] + _repeated(folded)
    if not needless:
        return []
    closed = sql.fetch_column(SUPERSEDE, {'ids': needless, 'now': now})
    _inherit(folded, now)
    # The first that is left of an object may go.
    order.release_next(needless, now)
    return closed


def _repeated(folded: Iterable[Folded]) -> list[int]:
    """Return the ids of restatements that show the same as the last change before them."""
    maybe_repeated = [one.maybe_repeated for one in folded if one.maybe_repeated]
    if not maybe_repeated:
        return []
    restatements, changes = map(list, zip(*maybe_repeated, strict=True))
    return sql.fetch_column(READ_REPEATED, {'restatements': restatements, 'changes': changes})


def _inherit(folded: Iterable[Folded], now: datetime) -> None:
    if heirs := [heir._asdict() for one in folded for heir in one.heirs]:
        sql.execute(INHERIT, {'heirs': json.dumps(heirs, default=methodcaller('isoformat')), 'now': now})


def _columns(objects: Collection[Object]) -> dict[str, list[int]]:
    webhooks, types, ids = zip(*objects, strict=True)
    return {'webhooks': list(webhooks), 'types': list(types), 'objects': list(ids)}
