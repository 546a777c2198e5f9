"""Event claims: a dispatcher holds events by a lease while it renders them, with no lock and no open transaction.

A worker that dies or hangs keeps its events for LEASE seconds, twice as long each time. A later event of an object is
never taken while an earlier one is in other hands: so the deliveries of an object are made in the order of its events,
however many dispatch.
"""

import uuid
from collections.abc import Collection

from django.db import connection

from ..models import Event

# Seconds, and how often they double: an event may take longer to render than anybody thought.
LEASE, DOUBLINGS = 10, 5
# Where more waits than fits into a batch: of how many of the newest transactions how many events are added to it, so
# that a small change passes an import.
TRANSACTIONS, OF_EACH = 16, 4

IS_FREE = '(e.lease IS NULL OR e.lease = %(lease)s OR e.lease_until < now())'

OLDEST = f"""
    SELECT e.id FROM webhooks_event e WHERE e.dispatched_at IS NULL AND {IS_FREE}
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
        WHERE e.dispatched_at IS NULL AND {IS_FREE}
          AND e.transaction_id = step.transaction_id AND e.transaction_time = step.transaction_time
        LIMIT %(of_each)s
        FOR UPDATE SKIP LOCKED
    ) e"""

# In a statement after the one that locks, which sees what others have taken or dispatched meanwhile.
CLAIM = f"""
    UPDATE webhooks_event e
    SET lease = %(lease)s, dispatch_count = least(e.dispatch_count + 1, 32767),
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


def claim(lease: uuid.UUID, limit: int) -> tuple[list[Event], set[int]]:
    """Hold the oldest undispatched events that are free, and some of the newest transactions where there are more.

    Called in a transaction of its own. Returns the events in the order of their sequence, and the ids of the latter.
    """
    parameters = {'lease': lease, 'limit': limit, 'transactions': TRANSACTIONS, 'of_each': OF_EACH}
    oldest = {pk for (pk,) in _fetch(OLDEST, parameters)}
    dealt = {pk for (pk,) in _fetch(DEAL, parameters)} - oldest if len(oldest) == limit else set()
    if not oldest:
        return [], dealt
    held = {'ids': list(oldest | dealt), 'seconds': LEASE, 'doublings': DOUBLINGS}
    claimed = [pk for (pk,) in _fetch(CLAIM, {**parameters, **held})]
    return list(Event.objects.filter(pk__in=claimed).order_by('sequence')), dealt


def give_back(lease: uuid.UUID, pks: Collection[int]) -> None:
    """Let others take what was held and not dispatched."""
    if pks:
        with connection.cursor() as cursor:
            cursor.execute(GIVE_BACK, {'ids': list(pks), 'lease': lease})


def _fetch(statement: str, parameters: dict[str, object]) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()
