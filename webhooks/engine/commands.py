"""Lets services and event rules change deliveries that wait or were sent: the engine's door.

Most functions say whether they open a transaction of their own, or work in the caller's. Nothing in the engine imports
it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import batched, chain

from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.functions import Least, Now

from .. import conf
from .. import delivery_states as states
from ..choices import StatusChoices
from ..delivery_states import DeliveryState
from ..interruptions import Locked
from ..models import Delivery, Event, Health
from . import sql
from .deliver import endpoint, feed, order, record, superseding
from .deliver.build import Call
from .dispatch import loop, render
from .dispatch.put_off import PutOff
from .dispatch.render import Matches, Renderer, Shown
from .registry import SUSPECT
from .tidy import loop as tidy

# When events are rendered again, at most this many of a model wait for a locked table, TABLE_LOCK_MS each.
HELD_EVENTS_PER_MODEL = 10

# Read the objects that have more than one delivery of a webhook in the queue.
READ_SEVERAL = f"""
    SELECT webhook_id, object_type_id, object_id FROM webhooks_delivery
    WHERE webhook_id = %(webhook)s AND status {states.QUEUED}
    GROUP BY webhook_id, object_type_id, object_id HAVING count(*) > 1"""

# Read which deliveries the lane's owner has in hand. They are left alone.
READ_IN_HAND = """
    SELECT w.deliveries FROM webhooks_worker w JOIN webhooks_health h ON h.owner_id = w.id
    WHERE h.webhook_id = %(webhook)s"""

# From resting and retrying to ready. Doubtful ones are left out: their requests may still be under way.
SEND_NOW = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = now(), waits_until = NULL
    WHERE webhook_id = %(webhook)s AND status IN ('resting', 'retrying') AND due_at > now()"""

# From held to ready, after a pause: while a backfill is paused, the lane's owner holds its untried deliveries. These
# have no time, so an index finds them at its end.
RELEASE_BACKFILL = """
    UPDATE webhooks_delivery SET status = 'pending', due_at = %(now)s
    WHERE webhook_id = %(webhook)s AND backfill AND status = 'held' AND due_at IS NULL"""

# Delete a backfill's undispatched events. Skip rows that a dispatcher has locked: it makes no deliveries of
# them, or engine/tidy removes the deliveries.
DISCARD_UNDISPATCHED = """
    DELETE FROM webhooks_event WHERE id = ANY(ARRAY(
        SELECT id FROM webhooks_event WHERE dispatched_at IS NULL AND backfill_for = %(webhook)s AND NOT urgent
        FOR UPDATE SKIP LOCKED
    ))"""


def make(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Make a delivery for each (webhook id, event id), due at once or held in a change set, in the open transaction.

    Returns (id, webhook id, event id) of each. A deleted webhook or event gets none. The events are dispatched.
    """
    return loop.make_deliveries(pairs)


def render_again(events: Sequence[Event], matches: Matches) -> None:
    """Render dispatched events once more, and save them: their data and errors are replaced, and `skipped` stays.

    `matches`: the webhooks of each event, by its id. An event that is put off, or takes too long, is saved with that as
    its error.
    """
    put_off = PutOff()
    for part in _render_each(events, matches, put_off):
        render.save([replace(one, skipped=one.event.skipped) for one in part])
    left = [render.failed(event, put_off.reason(event)) for event in events if event in put_off]
    render.save([replace(one, skipped=one.event.skipped) for one in left])


def _render_each(events: Sequence[Event], matches: Matches, put_off: PutOff) -> Iterator[list[Shown]]:
    """Yield slices as Renderer.render(). Events that an interrupted slice has left out follow one by one.

    A user waits for the answer. So after HELD_EVENTS_PER_MODEL events that need a locked table, the model's other
    events are put off untried.
    """
    renderer = Renderer()
    rendered: set[int] = set()
    held: defaultdict[int, list[Exception]] = defaultdict(list)
    for part in renderer.render(events, matches, put_off):
        rendered.update(one.event.pk for one in part)
        yield part
    for event in events:
        if event.pk in rendered or event in put_off:
            continue
        reasons = held[event.object_type_id]
        if len(reasons) >= HELD_EVENTS_PER_MODEL:
            put_off.add(event, reasons[-1])
            continue
        yield from renderer.render([event], matches, put_off)
        if event in put_off and isinstance(reason := put_off.reason(event), Locked):
            reasons.append(reason)


def reopen(closed: QuerySet[Delivery]) -> int:
    """Make closed deliveries ready again, in the open transaction, and return their number.

    They are due at once, and have one more attempt, under the same id. The caller keeps their events from being pruned.
    Deliveries that expired undecided become undecided again.
    """
    now = sql.now()
    undecided = Q(span__has_key='undecided')
    return closed.filter(state__in=(DeliveryState.FAILED, DeliveryState.SUPERSEDED)).update(
        state=Case(
            When(undecided, then=Value(DeliveryState.UNDECIDED)),
            When(lapses__gt=0, then=Value(DeliveryState.SUSPECT)),
            default=Value(DeliveryState.READY),
        ),
        due_at=Case(When(undecided, then=None), default=now),
        waits_until=None,
        expires_at=now + timedelta(seconds=conf.get().expire_after),
        finished_at=None,
        error='',
        attempt_limit=F('attempt_count') + 1,
        lapses=Least(F('lapses'), SUSPECT),
        backfill=False,
        listed=False,
    )


def retry_now(webhook_id: int) -> None:
    """Make a webhook's deliveries due that wait for a retry or for quiet, and its probe if it is suspended."""
    Health.objects.filter(pk=webhook_id, suspended_since__isnull=False).update(probe_at=Now())
    sql.execute(SEND_NOW, {'webhook': webhook_id})


def supersede(webhook_id: int) -> int:
    """Close the webhook's waiting deliveries that a later change of their object replaces, and return their number.

    It locks the lane, in a transaction for some objects at a time.
    """
    total = 0
    for portion in batched(sql.fetch(READ_SEVERAL, {'webhook': webhook_id}), superseding.OBJECTS_PER_READ):
        while closed := _supersede_some(webhook_id, portion):
            total += closed
    return total


@transaction.atomic
def _supersede_some(webhook_id: int, objects: Collection[superseding.Object]) -> int:
    order.lock_lanes([webhook_id])
    in_hand = chain.from_iterable(sql.fetch_column(READ_IN_HAND, {'webhook': webhook_id}))
    now = sql.now()
    closed = superseding.supersede(objects, now, list(in_hand))
    endpoint.note(StatusChoices.SUPERSEDED, closed, now)
    return closed.total()


def release(webhook_id: int, now: datetime) -> None:
    """Make deliveries ready that were held while the webhook's backfill was paused. Locks the lane until the commit."""
    order.lock_lanes([webhook_id])
    sql.execute(RELEASE_BACKFILL, {'webhook': webhook_id, 'now': now})


def take_back(webhook_id: int, now: datetime) -> list[datetime]:
    """Delete the undispatched events of the webhook's backfills, and their untried deliveries except those in hand.

    Returns when each of these deliveries was created. Locks the lane until the commit.
    """
    sql.execute(DISCARD_UNDISPATCHED, {'webhook': webhook_id})
    order.lock_lanes([webhook_id])
    return tidy.remove_untried(webhook_id, now)


def close(call: Call) -> None:
    """Record the outcome of a test, in a transaction of its own. Nobody is notified of a failure: the user sees it."""
    with sql.transaction() as now:
        endpoint.write(record.conclude([call], now), now, are_tests=True)


def publish(webhook_id: int, pk: int) -> None:
    """Publish a feed's test delivery, given by its id, in a transaction of its own. Locks the lane."""
    with sql.transaction() as now:
        order.lock_lanes([webhook_id])
        endpoint.write(feed.publish([pk], now), now, are_tests=True)
