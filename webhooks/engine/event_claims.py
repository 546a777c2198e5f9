"""Event claims: a dispatcher holds events by a lease while it renders them, with no lock and no open transaction.

A worker that dies or hangs keeps its events for LEASE seconds. Each claim is counted, in a transaction that is
committed before the work begins: what was in hand when a worker stopped is a suspect, which is claimed alone, by a
process of its own (quarantine.py). A later event of an object is never taken while an earlier one is in other hands: so
the deliveries of an object are made in the order of its events, however many dispatch.
"""

import uuid
from collections.abc import Collection

from django.db.models import Q
from django.db.models.functions import Now

from ..models import Event, querysets
from . import death, sql

# Seconds. A suspect may be rendered for two minutes (event_rendering.FIRST).
LEASE, LONG_LEASE = 10, 150
# `dispatch_count`: 0 for what nobody has claimed; CLAIMED, a suspect once its lease has run out; ALONE as soon as it is
# claimed alone, and one more for each death.
CLAIMED, ALONE = 1, 2
# Of the undispatched events, those that were in hand when a worker stopped.
SUSPECTS = Q(dispatch_count__gte=ALONE) | Q(dispatch_count=CLAIMED, lease_until__lt=Now())
# Of the undispatched events those are looked at closely whose sequence is so near to the lowest or to the highest. By
# numbers, since PostgreSQL reads all that waits to find the first of as many as it takes to be all.
NEAR = 5000
# Where more waits than fits into a batch: of how many of the newest transactions how many events are added to it, so
# that a small change passes an import.
TRANSACTIONS, OF_EACH = 16, 4

IS_FREE = '({one}.lease IS NULL OR {one}.lease = %(lease)s OR {one}.lease_until < now())'
# Its worker stopped with it in hand: not where it is our own, by a transaction that PostgreSQL has broken off.
IS_SUSPECT = '({one}.dispatch_count > 0 AND {one}.lease IS DISTINCT FROM %(lease)s)'
MAY_GO = f'{IS_FREE} AND NOT {IS_SUSPECT}'
EARLIER = """
    SELECT 1 FROM webhooks_event p
    WHERE p.object_type_id = e.object_type_id AND p.object_id = e.object_id AND p.sequence < e.sequence
      AND p.dispatched_at IS NULL"""

LOWEST, HIGHEST = (
    f'(SELECT {which}(sequence) FROM webhooks_event WHERE dispatched_at IS NULL)' for which in ('min', 'max')
)

# What others have in hand of an object, or had when they stopped, are its first: one look is enough.
IS_BLOCKED = f"""
    EXISTS (
        SELECT 1 FROM (
            SELECT p.* FROM webhooks_event p
            WHERE p.object_type_id = e.object_type_id AND p.object_id = e.object_id AND p.dispatched_at IS NULL
            ORDER BY p.sequence LIMIT 1
        ) p
        WHERE p.sequence < e.sequence AND NOT ({MAY_GO.format(one='p')})
    )"""

# What has to wait for others is left out among the oldest, or it would be all that is found. Beyond them it would take
# too long to look. By the CASE PostgreSQL takes half of what waits for free: where it takes less than the limit for
# free, it reads all that waits first.
OLDEST = f"""
    SELECT e.id FROM webhooks_event e
    WHERE e.dispatched_at IS NULL AND CASE
        WHEN NOT ({MAY_GO.format(one='e')}) THEN false
        WHEN e.sequence > {LOWEST} + %(near)s THEN true
        ELSE NOT {IS_BLOCKED} END
    ORDER BY e.sequence LIMIT %(limit)s
    FOR UPDATE OF e SKIP LOCKED"""

# Of the oldest and of the newest, as claims take them: what is between them is among the oldest in the end. An index
# that tells suspects would cost each claim more.
SUSPECT = f"""
    SELECT e.id FROM webhooks_event e
    WHERE e.id = ANY(ARRAY(
            SELECT id FROM webhooks_event
            WHERE dispatched_at IS NULL AND dispatch_count > 0 AND sequence <= {LOWEST} + %(near)s
            UNION ALL
            SELECT id FROM webhooks_event
            WHERE dispatched_at IS NULL AND dispatch_count > 0 AND sequence >= {HIGHEST} - %(near)s
        ))
        AND coalesce(e.dispatched_at, 'infinity') = 'infinity'  -- looked up by id alone
        AND {IS_FREE.format(one='e')} AND {IS_SUSPECT.format(one='e')} AND NOT EXISTS ({EARLIER})"""
OLDEST_SUSPECT = f'{SUSPECT} ORDER BY e.sequence LIMIT 1 FOR UPDATE OF e SKIP LOCKED'

# Steps from one transaction to the one before it in the index that holds one event per object and transaction. No other
# index fits what is asked here: beside a large transaction PostgreSQL would look for small ones in all that waits.
DEAL = f"""
    WITH RECURSIVE step AS (
        (SELECT transaction_id, transaction_time, 1 AS number FROM webhooks_event WHERE dispatched_at IS NULL
         ORDER BY transaction_id DESC, transaction_time DESC LIMIT 1)
        UNION ALL
        SELECT before.transaction_id, before.transaction_time, step.number + 1
        FROM step CROSS JOIN LATERAL (
            SELECT b.transaction_id, b.transaction_time FROM webhooks_event b
            WHERE b.dispatched_at IS NULL
              AND (b.transaction_id, b.transaction_time) < (step.transaction_id, step.transaction_time)
            ORDER BY b.transaction_id DESC, b.transaction_time DESC LIMIT 1
        ) before
        WHERE step.number < %(transactions)s
    )
    SELECT e.id FROM step CROSS JOIN LATERAL (
        SELECT e.id FROM webhooks_event e
        WHERE e.dispatched_at IS NULL AND {MAY_GO.format(one='e')}
          AND (e.transaction_id, e.transaction_time)
            BETWEEN (step.transaction_id, step.transaction_time) AND (step.transaction_id, step.transaction_time)
        ORDER BY e.transaction_id, e.transaction_time LIMIT %(of_each)s
        FOR UPDATE SKIP LOCKED
    ) e"""

ANY = 'SELECT 1 FROM webhooks_event WHERE dispatched_at IS NULL ORDER BY sequence LIMIT 1'
NEWEST = 'SELECT max(transaction_id) FROM webhooks_event WHERE dispatched_at IS NULL AND backfill_for IS NULL'

# In a statement after the one that locks, which sees what others have taken meanwhile. The ids are locked, so they are
# undispatched and free. One look for each object: PostgreSQL would read all that waits otherwise.
CLAIM = """
    WITH wanted AS MATERIALIZED (
        SELECT id, object_type_id, object_id, sequence FROM webhooks_event WHERE id = ANY(%(ids)s)
    ), others AS MATERIALIZED (
        SELECT o.object_type_id, o.object_id, p.sequence
        FROM (SELECT DISTINCT object_type_id, object_id FROM wanted) o CROSS JOIN LATERAL (
            SELECT p.sequence FROM webhooks_event p
            WHERE p.object_type_id = o.object_type_id AND p.object_id = o.object_id
              AND p.dispatched_at IS NULL AND NOT p.id = ANY(%(ids)s)
            ORDER BY p.sequence LIMIT 1
        ) p
    )
    UPDATE webhooks_event e
    SET lease = %(lease)s, lease_until = now() + make_interval(secs => %(seconds)s),
        dispatch_count = greatest(e.dispatch_count, %(count)s)
    FROM wanted LEFT JOIN others USING (object_type_id, object_id)
    WHERE e.id = wanted.id AND (others.sequence IS NULL OR wanted.sequence < others.sequence)
    RETURNING e.id"""

# Locks what is still held, and leaves out what has an earlier event of its object in other hands by now.
IN_TURN = """
    WITH held AS MATERIALIZED (
        SELECT id, object_type_id, object_id, sequence FROM webhooks_event
        WHERE id = ANY(%(ids)s) AND lease = %(lease)s
        FOR NO KEY UPDATE
    ), others AS MATERIALIZED (
        SELECT o.object_type_id, o.object_id, p.sequence
        FROM (SELECT DISTINCT object_type_id, object_id FROM held) o CROSS JOIN LATERAL (
            SELECT p.sequence FROM webhooks_event p
            WHERE p.object_type_id = o.object_type_id AND p.object_id = o.object_id
              AND p.dispatched_at IS NULL AND p.id NOT IN (SELECT id FROM held)
            ORDER BY p.sequence LIMIT 1
        ) p
    )
    SELECT held.id FROM held LEFT JOIN others USING (object_type_id, object_id)
    WHERE others.sequence IS NULL OR held.sequence < others.sequence"""

GIVE_BACK = """
    UPDATE webhooks_event SET lease = NULL, lease_until = NULL, dispatch_count = dispatch_count - 1
    WHERE id = ANY(%(ids)s) AND lease = %(lease)s"""

# Under a lease of nobody's: what dies of the next suspect is no matter of theirs.
PUT_OFF = """
    UPDATE webhooks_event SET lease = gen_random_uuid(), lease_until = now() + make_interval(secs => %(seconds)s)
    WHERE dispatched_at IS NULL AND lease = %(lease)s"""


def claim(lease: uuid.UUID, limit: int) -> tuple[list[Event], set[int]]:
    """Hold the oldest undispatched events that are free, and some of the newest transactions where there are more.

    Called in a transaction of its own. Returns the events in the order of their sequence, without their long columns,
    and the ids of those that are not among the oldest.
    """
    parameters = {'lease': lease, 'limit': limit, 'near': NEAR, 'transactions': TRANSACTIONS, 'of_each': OF_EACH}
    oldest = set(sql.fetch_column(OLDEST, parameters))
    dealt = set(sql.fetch_column(DEAL, parameters)) - oldest if len(oldest) == limit else set()
    claimed = _hold(oldest | dealt, {'lease': lease, 'seconds': LEASE, 'count': CLAIMED})
    return list(querysets.events().filter(pk__in=claimed).order_by('sequence')), dealt


def claim_suspect(lease: uuid.UUID) -> list[Event]:
    """Hold one of the events that were in hand when a worker stopped, if there is any."""
    oldest = sql.fetch_column(OLDEST_SUSPECT, {'lease': lease, 'near': NEAR})
    claimed = _hold(oldest, {'lease': lease, 'seconds': LONG_LEASE, 'count': ALONE})
    return list(querysets.events().filter(pk__in=claimed))


def _hold(pks: Collection[int], parameters: dict[str, object]) -> list[int]:
    return sql.fetch_column(CLAIM, {**parameters, 'ids': list(pks)}) if pks else []


def deaths(event: Event) -> int:
    """Return how many processes have died with this suspect in hand."""
    return event.dispatch_count - ALONE


def is_given_up(event: Event) -> bool:
    """Whether so many have died that it fails."""
    return death.is_last(deaths(event))


def keep(lease: uuid.UUID, pks: Collection[int]) -> set[int]:
    """Lock what may be dispatched of what was claimed, return it, and give the rest back.

    A lease may have run out meanwhile: of an object of which somebody else has an event now, no later one goes before.
    """
    kept = set(sql.fetch_column(IN_TURN, {'ids': list(pks), 'lease': lease})) if pks else set()
    give_back(lease, set(pks) - kept)
    return kept


def is_any_waiting() -> bool:
    return bool(sql.fetch(ANY))


def is_another_waiting(events: Collection[Event]) -> bool:
    """Whether a newer transaction than those of the events waits to be dispatched. A backfill can wait longer."""
    newest = sql.fetch_value(NEWEST)
    return newest is not None and newest > max(event.transaction_id for event in events)


def give_back(lease: uuid.UUID, pks: Collection[int]) -> None:
    """Let others take what was held and not dispatched."""
    if pks:
        sql.execute(GIVE_BACK, {'ids': list(pks), 'lease': lease})


def put_off(lease: uuid.UUID) -> int:
    """Let others take the suspects that are held under the lease, after a while, in which the next have their turn.

    Their holder was broken off, and they are not to blame. Returns how many there are.
    """
    return sql.execute(PUT_OFF, {'lease': lease, 'seconds': LEASE})
