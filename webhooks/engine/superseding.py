"""Superseding: of the waiting changes of an object only the last is sent, for webhooks that ask for it.

Whoever holds the lane closes what a later waiting delivery makes needless: before it claims (claims.py), or when
somebody has asked for it once (services/waiting.py). By lives of the object, each from its creation to its deletion:

    created, updated …            created, with the last state
    updated, updated …            updated
    …, deleted                    deleted
    created, …, deleted           nothing, if the receiver cannot have heard of the creation; otherwise deleted
    …, deleted | created, …       both lives: neither a deletion nor a creation is lost

What is under way is left alone. What was attempted may have been seen by the receiver: it is closed as well, for what
supersedes it tells more; but it supersedes nothing itself, since a request that is repeated under its `webhook-id` must
say the same. Tests, job events and what could not be rendered take no part.

The delivery that stays keeps in its `span` what it tells beside its own event: that the object is new, and how it was
before the first of the skipped changes, as far as that is known. In a batch each item has its own; one that turns from
an update into a creation leaves its batch, which is of one kind.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from . import dispatch, ledger, ordering, sql
from .batching import Group

logger = logging.getLogger('webhooks.delivery')

# Objects, and changes that wait for them, that one statement looks at: it takes a second at most.
OBJECTS, MOST = 1000, 20_000

# Of pending deliveries those for an object of which another one waits, and how many events they tell of.
IN_COMPANY = f"""
    SELECT d.id, d.event_count FROM webhooks_delivery d WHERE d.id = ANY(%(ids)s) AND EXISTS (
        SELECT 1 FROM ({ordering.OPEN_MEMBERS}) m CROSS JOIN LATERAL (
            SELECT p.id FROM webhooks_delivery p
            WHERE p.webhook_id = m.webhook_id AND p.object_type_id = m.object_type_id AND p.object_id = m.object_id
              AND {sql.pending('p')} AND p.event_count = 1 AND p.id <> d.id
            UNION ALL
            SELECT p.id FROM webhooks_batchitem i JOIN webhooks_delivery p ON p.id = i.delivery_id
            WHERE i.webhook_id = m.webhook_id AND i.object_type_id = m.object_type_id AND i.object_id = m.object_id
              AND i.open AND p.status = 'pending' AND p.id <> d.id
        ) p
    )"""

# Whether the receiver may know the object from a later delivery than the first that waits, `f`: one that has gone
# before it. In the log, as far as that reaches.
IS_KNOWN = """
    EXISTS (
        SELECT 1 FROM webhooks_event e JOIN webhooks_delivery d ON d.event_id = e.id
        WHERE e.object_type_id = f.object_type_id AND e.object_id = f.object_id AND e.sequence > f.sequence
          AND d.webhook_id = f.webhook_id AND (d.attempt_count > 0 OR d.status = 'sending')
        UNION ALL
        SELECT 1 FROM webhooks_event e JOIN webhooks_batchitem i ON i.event_id = e.id
        JOIN webhooks_delivery d ON d.id = i.delivery_id
        WHERE e.object_type_id = f.object_type_id AND e.object_id = f.object_id AND e.sequence > f.sequence
          AND d.webhook_id = f.webhook_id AND (d.attempt_count > 0 OR d.status = 'sending')
    )"""

# lines    the objects of the given deliveries
# found    the first that wait of each, one row an event: a delivery, or an item of a batch
# waiting  of that, what takes part
# placed   the same by lives, with its place in it
# lives    of each life with more than one: the place of the last that was never attempted, and what is known of it
# old      what that last one makes needless, or the deletion of what was never told
# heirs    the last ones, with what each tells beside its own event; with a change among them it is no backfill's
#          Nobody may have asked for snapshots when the first was made: then it is as it was before the last one
# A batch that was parked behind what it tells no more would be found by nobody: it is looked at anew.
SUPERSEDE = f"""
    WITH lines AS MATERIALIZED (
        SELECT DISTINCT m.webhook_id, m.object_type_id, m.object_id
        FROM webhooks_delivery d CROSS JOIN LATERAL ({ordering.OPEN_MEMBERS}) m
        WHERE d.id = ANY(%(ids)s)
    ), bound AS MATERIALIZED (
        SELECT greatest(%(most)s / greatest(count(*), 1), 2) AS most FROM lines
    ), found AS MATERIALIZED (
        SELECT w.* FROM lines l CROSS JOIN LATERAL (
            (SELECT d.webhook_id, d.object_type_id, d.object_id, d.sequence, d.id, NULL::bigint AS item_id, d.event_id,
                d.span, d.due_at, d.backfill, d.attempt_count > 0 AS is_attempted,
                d.attempt_limit IS NOT NULL AS is_redelivered
             FROM webhooks_delivery d
             WHERE d.webhook_id = l.webhook_id AND d.object_type_id = l.object_type_id AND d.object_id = l.object_id
               AND {sql.pending('d')} AND d.event_count = 1
             ORDER BY d.sequence LIMIT (SELECT most FROM bound))
            UNION ALL
            (SELECT i.webhook_id, i.object_type_id, i.object_id, i.sequence, d.id, i.id, i.event_id,
                i.span, d.due_at, d.backfill, d.attempt_count > 0, d.attempt_limit IS NOT NULL
             FROM webhooks_batchitem i JOIN webhooks_delivery d ON d.id = i.delivery_id
             WHERE i.webhook_id = l.webhook_id AND i.object_type_id = l.object_type_id AND i.object_id = l.object_id
               AND i.open AND d.status = 'pending'
             ORDER BY i.sequence LIMIT (SELECT most FROM bound))
            ORDER BY sequence LIMIT (SELECT most FROM bound)
        ) w
    ), waiting AS MATERIALIZED (
        SELECT w.*, coalesce(w.span ->> 'kind', e.kind) AS kind,
            w.is_attempted OR w.is_redelivered OR coalesce((w.span ->> 'seen')::boolean, false) AS is_seen
        FROM found w JOIN webhooks_event e ON e.id = w.event_id
        WHERE {ordering.SHOWS_OBJECT}
    ), placed AS MATERIALIZED (
        SELECT *, row_number() OVER life AS place FROM (
            SELECT *, count(*) FILTER (WHERE is_first) OVER line AS life FROM (
                SELECT *, kind = 'created' OR lag(kind) OVER line IS NOT DISTINCT FROM 'deleted' AS is_first
                FROM waiting
                WINDOW line AS (PARTITION BY webhook_id, object_type_id, object_id ORDER BY sequence, id)
            ) w
            WINDOW line AS (PARTITION BY webhook_id, object_type_id, object_id ORDER BY sequence, id)
        ) w
        WINDOW life AS (PARTITION BY webhook_id, object_type_id, object_id, life ORDER BY sequence, id)
    ), lives AS MATERIALIZED (
        SELECT l.*, f.event_id, f.span, f.kind = 'created' AS is_new,
            f.kind = 'created' AND l.is_over AND NOT l.is_seen AND NOT {IS_KNOWN} AS is_nothing
        FROM (
            SELECT webhook_id, object_type_id, object_id, life, min(due_at) AS due_at, bool_and(backfill) AS backfill,
                bool_or(is_seen) AS is_seen, bool_or(kind = 'deleted') AS is_over,
                max(place) FILTER (WHERE NOT is_attempted) AS last
            FROM placed GROUP BY webhook_id, object_type_id, object_id, life HAVING count(*) > 1
        ) l JOIN placed f USING (webhook_id, object_type_id, object_id, life)
        WHERE f.place = 1
    ), old AS MATERIALIZED (
        SELECT p.id, p.item_id, p.webhook_id
        FROM placed p JOIN lives l USING (webhook_id, object_type_id, object_id, life)
        WHERE p.place < l.last OR l.is_nothing
    ), heirs AS MATERIALIZED (
        SELECT p.id, p.item_id, p.event_id, p.webhook_id, p.sequence, l.due_at, l.backfill,
            l.is_new AND p.kind = 'updated' AND p.item_id IS NOT NULL AS leaves,
            nullif(
                CASE WHEN NOT l.is_new OR p.kind = 'deleted' THEN jsonb '{{}}'
                     WHEN l.is_seen THEN '{{"kind": "created", "seen": true}}'
                     ELSE '{{"kind": "created"}}' END
                || CASE WHEN e.snapshots IS NULL THEN jsonb '{{}}'
                        WHEN l.is_new AND p.kind <> 'deleted' THEN '{{"prechange": null}}'
                        ELSE jsonb_build_object('prechange', coalesce(
                            nullif(CASE WHEN l.is_new THEN f.snapshots -> 'postchange'
                                        WHEN l.span ? 'prechange' THEN l.span -> 'prechange'
                                        ELSE f.snapshots -> 'prechange' END, 'null'),
                            nullif(p.span -> 'prechange', 'null'),
                            e.snapshots -> 'prechange'
                        )) END,
                '{{}}'
            ) AS span
        FROM placed p JOIN lives l USING (webhook_id, object_type_id, object_id, life)
        JOIN webhooks_event e ON e.id = p.event_id JOIN webhooks_event f ON f.id = l.event_id
        WHERE p.place = l.last AND p.place > 1 AND NOT l.is_nothing
    ), left_items AS MATERIALIZED (
        SELECT id, item_id, webhook_id FROM old WHERE item_id IS NOT NULL
        UNION ALL SELECT id, item_id, webhook_id FROM heirs WHERE leaves
    ), closed AS MATERIALIZED (
        SELECT id, webhook_id FROM old WHERE item_id IS NULL
        UNION ALL
        SELECT id, webhook_id FROM (SELECT id, webhook_id, count(*) FROM left_items GROUP BY id, webhook_id) l
        WHERE l.count = (SELECT count(*) FROM webhooks_batchitem i WHERE i.delivery_id = l.id AND NOT i.superseded)
    ), close AS (
        UPDATE webhooks_delivery d
        SET status = 'superseded', due_at = NULL, finished_at = now(), error = ''
        FROM closed WHERE d.id = closed.id
    ), leave AS (
        UPDATE webhooks_batchitem i SET superseded = true, open = false FROM left_items l WHERE i.id = l.item_id
    ), inherit AS (
        UPDATE webhooks_delivery d
        SET span = h.span, due_at = least(h.due_at, %(now)s), attempt_limit = NULL, backfill = h.backfill
        FROM heirs h WHERE d.id = h.id AND h.item_id IS NULL
    ), inherit_in_batch AS (
        UPDATE webhooks_batchitem i SET span = h.span FROM heirs h WHERE i.id = h.item_id AND NOT h.leaves
    ), look_anew AS (
        UPDATE webhooks_delivery d
        SET due_at = CASE WHEN b.inherits THEN least(b.due_at, %(now)s) ELSE coalesce(d.due_at, %(now)s) END,
            attempt_limit = CASE WHEN NOT b.inherits THEN d.attempt_limit END,
            backfill = d.backfill AND b.backfill
        FROM (
            SELECT id, min(due_at) AS due_at, bool_or(inherits) AS inherits, bool_and(backfill) AS backfill FROM (
                SELECT id, due_at, true AS inherits, backfill FROM heirs WHERE item_id IS NOT NULL AND NOT leaves
                UNION ALL SELECT id, NULL, false, true FROM left_items
            ) b GROUP BY id
        ) b
        WHERE d.id = b.id AND NOT d.id = ANY(ARRAY(SELECT id FROM closed))
    )
    SELECT 'closed', id, webhook_id, NULL::bigint, NULL::bigint AS sequence, NULL::jsonb FROM closed
    UNION ALL SELECT 'left', id, webhook_id, NULL, NULL, NULL FROM left_items
    UNION ALL SELECT 'leaving', id, webhook_id, event_id, sequence, span FROM heirs WHERE leaves
    UNION ALL SELECT 'cut', NULL, webhook_id, NULL, NULL, NULL FROM found
        GROUP BY webhook_id, object_type_id, object_id HAVING count(*) >= (SELECT most FROM bound)
    ORDER BY sequence"""

# What events tell in the deliveries that were made for them. They tell of a creation: that is no backfill.
SPAN = """
    WITH v AS (
        SELECT * FROM json_to_recordset(%(rows)s::json) AS v(delivery_id bigint, event_id bigint, span jsonb)
    ), apart AS (
        UPDATE webhooks_delivery d SET backfill = false, span = CASE WHEN d.event_count = 1 THEN v.span END
        FROM v WHERE d.id = v.delivery_id
    )
    UPDATE webhooks_batchitem i SET span = v.span
    FROM v WHERE i.delivery_id = v.delivery_id AND i.event_id = v.event_id"""


class Superseded(NamedTuple):
    """How many deliveries were closed, and whether there may be more to close of the same objects."""

    count: int
    more: bool


class Settled(NamedTuple):
    """Ids of deliveries with which nothing is wrong any more, and how many were closed."""

    pks: list[int]
    closed: int


def settle(ids: Collection[int], now: datetime) -> Settled:
    """Look whether other deliveries wait for the objects of pending ones, and supersede a portion of what does."""
    in_company = dict(sql.fetch(IN_COMPANY, {'ids': list(ids)}))
    alone = [pk for pk in ids if pk not in in_company]
    if not in_company:
        return Settled(alone, 0)
    portion = next(portions(in_company.items()))
    superseded = supersede(portion, now)
    return Settled(alone if superseded.more else [*alone, *portion], superseded.count)


def portions(deliveries: Iterable[tuple[int, int]], most: int = OBJECTS) -> Iterator[list[int]]:
    """Give the ids of (id, how many events) in lists of `most` events, or of one delivery."""
    portion, size = [], 0
    for pk, event_count in deliveries:
        if portion and size + event_count > most:
            yield portion
            portion, size = [], 0
        portion.append(pk)
        size += event_count
    if portion:
        yield portion


def supersede(ids: Collection[int], now: datetime) -> Superseded:
    """Close what is needless of the first that wait for the objects of these pending deliveries, a portion.

    Of any webhook: whoever calls this holds their lanes, and asks for it.
    """
    rows = sql.fetch(SUPERSEDE, {'ids': list(ids), 'now': now, 'most': MOST})
    closed = {pk: webhook_id for what, pk, webhook_id, *_ in rows if what == 'closed'}
    touched = {pk for what, pk, *_ in rows if what in ('closed', 'left')}
    _send_apart([row[1:] for row in rows if row[0] == 'leaving'])
    ordering.unpark(touched, now)
    counts = Counter(closed.values())
    ledger.note_superseded(counts, now)
    for webhook_id, count in counts.items():
        logger.debug('webhook=%s superseded=%s', webhook_id, count)
    return Superseded(len(closed), bool(touched) and any(what == 'cut' for what, *_ in rows))


def _send_apart(leaving: Sequence[tuple]) -> None:
    """Make deliveries of what left its batch, one for each batch."""
    batches = defaultdict(list)
    for pk, webhook_id, event_id, _sequence, span in leaving:
        batches[pk, webhook_id].append((event_id, span))
    groups = [Group(webhook_id, [event_id for event_id, _span in told]) for (_pk, webhook_id), told in batches.items()]
    spans = {(webhook_id, event_id): span for (_pk, webhook_id), told in batches.items() for event_id, span in told}
    rows = [
        {'delivery_id': pk, 'event_id': event_id, 'span': json.loads(spans[group.webhook_id, event_id])}
        for pk, group in dispatch.make_deliveries(groups)
        for event_id in group.event_ids
    ]
    if rows:
        sql.execute(SPAN, {'rows': json.dumps(rows)})
