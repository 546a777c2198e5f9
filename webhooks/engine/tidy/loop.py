"""Tidies a little at a time, between batches of the dispatcher: one transaction for each kind of leftover."""

from collections import Counter
from datetime import datetime

from ... import delivery_states as states
from ...choices import StatusChoices
from ...models.sequence import SEQUENCE
from .. import notifications, sql
from ..deliver import endpoint, order

# Deliveries that a transaction changes.
ROWS_PER_TRANSACTION = 500
# At most this many of them belong to the same webhook, so others have their share.
ROWS_PER_WEBHOOK = 50

# Read waiting deliveries whose time is over, of webhooks that exist. Lock their lanes, and leave out locked ones.
FIND_OVERDUE = f"""
    SELECT o.id FROM webhooks_health h JOIN webhooks_webhook w ON w.id = h.webhook_id CROSS JOIN LATERAL (
        SELECT d.id FROM webhooks_delivery d
        WHERE d.webhook_id = h.webhook_id AND d.status {states.WAITING} AND d.expires_at < %(now)s
        ORDER BY d.expires_at LIMIT %(each)s
    ) o
    WHERE h.former_until IS NULL
    LIMIT %(part)s
    FOR UPDATE OF h SKIP LOCKED"""

# Read tests whose process died, and deliveries of a worker of 1.0.0.
FIND_UNANSWERED = "SELECT id FROM webhooks_delivery WHERE status = 'sending' AND expires_at < %(now)s LIMIT %(part)s"

# From open to failed: their time is over. Not those in hand, which is known under the lanes' locks only. An undecided
# one is still to be decided if somebody redelivers it.
EXPIRE = f"""
    UPDATE webhooks_delivery SET status = 'failed', due_at = NULL, finished_at = now(), listed = false,
        span = CASE WHEN status = 'undecided' THEN '{{"undecided": true}}' ELSE span END,
        error = CASE WHEN status = 'sending' THEN 'it was cut off before an outcome was recorded'
            WHEN error = '' THEN 'it expired before it could be delivered'
            ELSE 'it expired before it could be delivered; last: ' || error END
    WHERE status {states.OPEN} AND expires_at < %(now)s AND id = ANY(%(ids)s)
      AND id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))
    RETURNING id, webhook_id, (SELECT test FROM webhooks_event e WHERE e.id = event_id)"""

# Mark the lanes of deleted webhooks as former ones. Their logs have lower sequences: the events were matched before.
MARK_DELETED = f"""
    UPDATE webhooks_health SET former_until = nextval('{SEQUENCE}') WHERE webhook_id = ANY(ARRAY(
        SELECT webhook_id FROM webhooks_health h
        WHERE former_until IS NULL AND NOT EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = h.webhook_id)
        FOR UPDATE OF h SKIP LOCKED
    ))"""

# Lock a lane with the log of a deleted webhook. Another webhook may have the id by now. Nobody adds to that log any
# more: a lane is left a second after its last answer, and no dispatcher has an earlier event in hand.
LOCK_FORMER = """
    SELECT webhook_id, former_until FROM webhooks_health h
    WHERE former_until IS NOT NULL AND owner_id IS NULL AND NOT EXISTS (
        SELECT FROM webhooks_event e
        WHERE e.id = ANY(ARRAY(SELECT unnest(events) FROM webhooks_worker)) AND e.dispatched_at IS NULL
          AND e.sequence <= h.former_until
    )
    LIMIT 1 FOR UPDATE OF h SKIP LOCKED"""

# Delete the undispatched events of a deleted webhook's backfill.
FORGET_BACKFILL = """
    DELETE FROM webhooks_event WHERE backfill_for = %(webhook)s AND dispatched_at IS NULL AND sequence <= %(until)s"""

# Delete the oldest deliveries of a deleted webhook. A new webhook with the same id keeps its own.
FORGET_LOG = """
    DELETE FROM webhooks_delivery WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_delivery WHERE webhook_id = %(webhook)s AND (
            sequence <= %(until)s OR NOT EXISTS (SELECT FROM webhooks_webhook WHERE id = %(webhook)s)
        )
        ORDER BY id LIMIT %(part)s
    ))"""

# Delete a former lane, its backfill and its lists, unless a webhook has the id. It comes last, so an interrupted
# removal goes on.
FORGET_LANE = """
    WITH gone AS (
        DELETE FROM webhooks_health h
        WHERE webhook_id = %(webhook)s AND NOT EXISTS (SELECT FROM webhooks_webhook w WHERE w.id = h.webhook_id)
        RETURNING webhook_id
    ), lists AS (
        DELETE FROM webhooks_listwalk WHERE webhook_id IN (SELECT webhook_id FROM gone)
    ), members AS (
        DELETE FROM webhooks_listmember WHERE webhook_id IN (SELECT webhook_id FROM gone)
    )
    DELETE FROM webhooks_backfill WHERE webhook_id IN (SELECT webhook_id FROM gone)"""

# Give a former lane to the webhook that has the id now: from here on its deliveries are sent.
FREE_LANE = 'UPDATE webhooks_health SET former_until = NULL WHERE webhook_id = %(webhook)s'

# From held to ready: deliveries of webhooks whose `ordered` was switched off. Parts of change sets stay held: each
# waits for the part before it. Held ones have no time, so an index finds them at its end.
RELEASE_UNORDERED = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = %(now)s WHERE status = 'held' AND id = ANY(ARRAY(
        SELECT d.id FROM webhooks_webhook w JOIN webhooks_health h ON h.webhook_id = w.id CROSS JOIN LATERAL (
            SELECT id FROM webhooks_delivery
            WHERE webhook_id = w.id AND NOT backfill AND status = 'held' AND due_at IS NULL AND parts IS NULL
            LIMIT %(each)s
        ) d
        WHERE NOT w.ordered LIMIT %(part)s
        FOR UPDATE OF h SKIP LOCKED
    ))"""

# The delivery `d`, with its event `e`, is an untried one of a backfill, and no worker has it in hand. Each of the two
# conditions on its state has an index: otherwise PostgreSQL would read the whole log of the webhook each second.
MAY_BE_TAKEN_BACK = f"""d.id <> ALL(ARRAY(SELECT unnest(deliveries) FROM webhooks_worker))
        AND (d.status {states.QUEUED} OR d.status = 'undecided') AND {order.IS_UNTRIED}
        AND e.backfill_for IS NOT NULL"""

# Lock these deliveries of a webhook, and read when each was made. Skip those that a dispatcher is judging: it may be
# about to note their objects as members of a list. A later call takes back what is left of them.
LOCK_UNTRIED = f"""
    SELECT d.id, d.created FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
    WHERE d.webhook_id = %s AND {MAY_BE_TAKEN_BACK} FOR UPDATE OF d SKIP LOCKED"""

# Forget the states of list members that these deliveries were to bring: so the next walk sends them. Skip members that
# a dispatcher is about to write.
FORGET_STATES = """
    UPDATE webhooks_listmember SET state = NULL WHERE id = ANY(ARRAY(
        SELECT m.id FROM webhooks_delivery d JOIN webhooks_listmember m USING (webhook_id, object_type_id, object_id)
        WHERE d.id = ANY(%s) AND m.sequence = d.sequence
        FOR UPDATE OF m SKIP LOCKED
    ))"""

# Delete deliveries that were never attempted.
REMOVE_UNTRIED = 'DELETE FROM webhooks_delivery WHERE id = ANY(%s)'

# Lock canceled backfills that left untried deliveries, which were in hand or in dispatch during the cancel. Their lanes
# are locked too, so nobody holds or starts a backfill meanwhile.
LOCK_LEFT_BEHIND = f"""
    SELECT b.webhook_id FROM webhooks_backfill b JOIN webhooks_health h USING (webhook_id)
    WHERE b.state = 'canceled' AND EXISTS (
        SELECT FROM webhooks_delivery d JOIN webhooks_event e ON e.id = d.event_id
        WHERE d.webhook_id = b.webhook_id AND {MAY_BE_TAKEN_BACK}
    )
    FOR UPDATE OF b, h SKIP LOCKED"""


def step() -> bool:
    """Do a part of all that is to be tidied. Returns whether there may be more.

    It disables webhooks whose endpoints are gone, calls each function from expire() to release_unordered() once, and
    runs event rules. If PostgreSQL interrupts it, that is logged. Raises RedisError if rules cannot be run.
    """
    with sql.may_break_off():
        endpoint.disable_gone()
        endpoint.forget_gone()
    with sql.may_break_off():
        more = any([expire(), forget_deleted(), take_back(), release_unordered()])
        return notifications.notify_rules() or more
    return False


def expire() -> bool:
    """Fail deliveries whose time is over, ROWS_PER_TRANSACTION at most. Return whether any has failed.

    The next delivery of each object becomes due. Deliveries in lanes that somebody has locked wait for a later call.
    A test that was cut off is not counted as a failure, and nobody is notified of it.
    """
    with sql.transaction() as now:
        bounds = {'now': now, 'part': ROWS_PER_TRANSACTION, 'each': ROWS_PER_WEBHOOK}
        overdue = sql.fetch_column(FIND_OVERDUE, bounds) + sql.fetch_column(FIND_UNANSWERED, bounds)
        expired = sql.fetch(EXPIRE, {'now': now, 'ids': overdue}) if overdue else []
        order.release_next([pk for pk, _webhook, _test in expired], now)
        endpoint.note(StatusChoices.FAILED, Counter(webhook for _pk, webhook, test in expired if not test), now)
    return bool(expired)


def forget_deleted() -> bool:
    """Delete a part of a deleted webhook's log, and at last its lane. Returns whether there was such a lane.

    If another webhook has the id by now, its lane stays, and may send from then on.
    """
    with sql.transaction():
        sql.execute(MARK_DELETED)
        found = sql.fetch(LOCK_FORMER)
        for webhook_id, until in found:
            bounds = {'webhook': webhook_id, 'until': until, 'part': ROWS_PER_TRANSACTION}
            sql.execute(FORGET_BACKFILL, bounds)
            if not sql.execute(FORGET_LOG, bounds):
                sql.execute(FORGET_LANE, bounds)
                sql.execute(FREE_LANE, bounds)
    return bool(found)


def take_back() -> bool:
    """Delete the untried deliveries that canceled backfills have left. Returns whether there were any."""
    with sql.transaction() as now:
        found = sql.fetch_column(LOCK_LEFT_BEHIND)
        for webhook_id in found:
            remove_untried(webhook_id, now)
    return bool(found)


def release_unordered() -> bool:
    """Make a part of the held deliveries ready whose webhooks are not `ordered` any more. Returns whether any were."""
    with sql.transaction() as now:
        bounds = {'now': now, 'part': ROWS_PER_TRANSACTION, 'each': ROWS_PER_WEBHOOK}
        return bool(sql.execute(RELEASE_UNORDERED, bounds))


def remove_untried(webhook_id: int, now: datetime) -> list[datetime]:
    """Delete the webhook's untried deliveries of backfills, except those in hand. Returns when each was created.

    The next of their objects become due. The caller has locked the lane.
    """
    found = dict(sql.fetch(LOCK_UNTRIED, [webhook_id]))
    order.release_next(list(found), now)
    sql.execute(FORGET_STATES, [list(found)])
    sql.execute(REMOVE_UNTRIED, [list(found)])
    return list(found.values())
