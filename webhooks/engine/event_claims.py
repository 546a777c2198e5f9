"""Event claims: a dispatcher holds events by a lease while it renders them, with no lock and no open transaction.

A worker that dies or hangs keeps its events for LEASE seconds, twice as long each time. Each claim is counted, in a
transaction that is committed before the work begins: what was in hand when workers stopped is claimed alone, after all
others, and no longer rendered once that has gone wrong for MOST times. A later event of an object is never taken while
an earlier one is in other hands: so the deliveries of an object are made in the order of its events, however many
dispatch.
"""

import uuid
from collections.abc import Collection

from django.db import connection

from ..models import Event

# Seconds, and how often they double: an event may take longer to render than anybody thought.
LEASE, DOUBLINGS = 10, 5
# Claims that came to nothing after which an event is claimed alone, and after which it is given up.
SUSPECT, MOST = 1, 4
# Where more waits than fits into a batch: of how many of the newest transactions how many events are added to it, so
# that a small change passes an import.
TRANSACTIONS, OF_EACH = 16, 4

IS_FREE = '(e.lease IS NULL OR e.lease = %(lease)s OR e.lease_until < now())'
# Its worker stopped with it in hand: not where it is our own, by a transaction that PostgreSQL has broken off.
IS_SUSPECT = '(e.dispatch_count >= %(suspect)s AND e.lease IS DISTINCT FROM %(lease)s)'

OLDEST = f"""
    SELECT e.id FROM webhooks_event e
    WHERE e.dispatched_at IS NULL AND {IS_FREE} AND {IS_SUSPECT} = %(alone)s
    ORDER BY e.sequence LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED"""

# Steps from one transaction to the one before it in the index that holds one event per object and transaction.
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
        WHERE e.dispatched_at IS NULL AND {IS_FREE} AND NOT {IS_SUSPECT}
          AND e.transaction_id = step.transaction_id AND e.transaction_time = step.transaction_time
        LIMIT %(of_each)s
        FOR UPDATE SKIP LOCKED
    ) e"""

# In a statement after the one that locks, which sees what others have taken or dispatched meanwhile.
CLAIM = f"""
    UPDATE webhooks_event e
    SET lease = %(lease)s,
        dispatch_count = least(e.dispatch_count + (e.lease IS DISTINCT FROM %(lease)s)::int, 32767),
        lease_until = now() + make_interval(secs => %(seconds)s * 2 ^ least(e.dispatch_count, %(doublings)s))
    WHERE e.id = ANY(%(ids)s) AND e.dispatched_at IS NULL AND {IS_FREE}
      AND NOT EXISTS (
          SELECT 1 FROM webhooks_event p
          WHERE p.object_type_id = e.object_type_id AND p.object_id = e.object_id AND p.sequence < e.sequence
            AND p.dispatched_at IS NULL AND NOT p.id = ANY(%(ids)s)
      )
    RETURNING e.id"""

GIVE_BACK = """
    UPDATE webhooks_event SET lease = NULL, lease_until = NULL, dispatch_count = dispatch_count - 1
    WHERE id = ANY(%(ids)s) AND lease = %(lease)s AND dispatched_at IS NULL"""


def claim(lease: uuid.UUID, limit: int, *, suspect: bool = False) -> tuple[list[Event], set[int]]:
    """Hold the oldest undispatched events that are free, and some of the newest transactions where there are more.

    `suspect`: one of those that were in hand when workers stopped. Called in a transaction of its own. Returns the
    events in the order of their sequence, and the ids of those that are not among the oldest.
    """
    parameters = {
        'lease': lease, 'limit': 1 if suspect else limit, 'transactions': TRANSACTIONS, 'of_each': OF_EACH,
        'suspect': SUSPECT, 'alone': suspect, 'seconds': LEASE, 'doublings': DOUBLINGS,
    }  # fmt: skip
    oldest = {pk for (pk,) in _fetch(OLDEST, parameters)}
    if not oldest:
        return [], set()
    is_backlog = len(oldest) == limit and not suspect
    dealt = {pk for (pk,) in _fetch(DEAL, parameters)} - oldest if is_backlog else set()
    claimed = [pk for (pk,) in _fetch(CLAIM, {**parameters, 'ids': list(oldest | dealt)})]
    return list(Event.objects.filter(pk__in=claimed).order_by('sequence')), dealt


def is_given_up(event: Event) -> bool:
    return event.dispatch_count > MOST


def give_back(lease: uuid.UUID, pks: Collection[int]) -> None:
    """Let others take what was held and not dispatched."""
    if pks:
        with connection.cursor() as cursor:
            cursor.execute(GIVE_BACK, {'ids': list(pks), 'lease': lease})


def _fetch(statement: str, parameters: dict[str, object]) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()
