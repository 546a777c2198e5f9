"""Tries suspects alone, in a process of their own. After three deaths a suspect fails by name (rescue.py).

Tried in the sender or the dispatcher, even alone, a suspect would stop every webhook for up to a minute, three times.
"""

import logging
import socket
import time
from contextlib import closing
from datetime import datetime
from itertools import islice

from redis import RedisError

from ...default_database import pinned
from ...interruptions import INTERRUPTIONS
from ...models import Delivery, Webhook
from ...payload.http_request import Builder
from ...templating import renderer
from ...transport.client import Client
from .. import registry, sql
from ..deliver import endpoint, feed, lanes, order, queue, record
from ..deliver.build import Call
from ..dispatch import claim
from ..dispatch.loop import Dispatcher
from ..registry import Lost, Registration
from . import child

logger = logging.getLogger('webhooks.suspects')

# A suspect that takes longer has killed its process: the time to dispatch it, and the time to send it on top of its
# webhook's timeout.
DISPATCH_SECONDS = 60.0
SEND_MARGIN_SECONDS = 25.0
# After this many looks in a row that find nothing the process ends. A busy lane is mostly locked, so one is too few.
LOOKS_FOR_FREE_LANES = 10
LOOK_PAUSE_SECONDS = 0.05
# Deliveries that a look reads: it takes the first with a free lane.
SUSPECTS_PER_LOOK = 1000

# Find suspects that are due and may be sent, and whose object has no earlier delivery that waits (deliver/order.py).
FIND_SUSPECTS = f"""
    SELECT d.id, d.webhook_id FROM webhooks_delivery d
    JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN webhooks_health h ON h.webhook_id = w.id
    WHERE d.status = 'suspect' AND d.due_at <= %(now)s
      AND {lanes.MAY_SEND} AND {queue.LEADS_SET} AND NOT (w.ordered AND EXISTS ({order.FIND_EARLIER}))
    ORDER BY d.due_at, d.id LIMIT %(most)s"""

# Take a due suspect in hand: without `due_at` no other worker takes it.
TAKE_SUSPECT = """
    UPDATE webhooks_delivery SET due_at = NULL
    WHERE id = %(id)s AND status = 'suspect' AND due_at <= %(now)s RETURNING id"""

# Make a suspect in hand due again in a second.
PUT_BACK = """
    UPDATE webhooks_delivery SET due_at = now() + interval '1 second'
    WHERE id = %s AND status = 'suspect' AND due_at IS NULL"""


def are_any() -> bool:
    """Whether an event or a delivery is a suspect that can be tried now."""
    if claim.is_any_suspect():
        return True
    with sql.transaction() as now:
        return bool(_ready(now, 1))


@pinned()
def serve(name: str, _channel: socket.socket) -> None:
    """Try all suspects: the supervisor forks a process for it. At the end delete its row.

    An unexpected error ends the process, and so counts as the suspect's death. An interruption does not.
    """
    child.listen(DISPATCH_SECONDS)
    try:
        with renderer.shared():
            _work(Registration(name, registry.SUSPECTS))
    except (*INTERRUPTIONS, RedisError, Lost) as error:
        logger.warning('suspects=broken off reason="%s"', str(error).strip())


def _work(registration: Registration) -> None:
    registration.begin()
    dispatcher = Dispatcher(registration, suspects=True)
    misses = 0
    while misses < LOOKS_FOR_FREE_LANES and not child.is_stopping():
        _allow(registration, DISPATCH_SECONDS)
        if any([dispatcher.batch(), _deliver(registration)]):
            misses = 0
        else:
            misses += 1
            time.sleep(LOOK_PAUSE_SECONDS)
    registration.end()


def _allow(registration: Registration, seconds: float) -> None:
    """Let the suspect take this many seconds: then the kernel ends this process.

    The heartbeat covers a longer time. So nobody takes the work before that, even if this process was frozen meanwhile.
    """
    child.kill_after(seconds)
    registration.beat(seconds=seconds + registry.ALIVE_SECONDS)


def _deliver(registration: Registration) -> bool:
    """Send a suspect delivery, and record the outcome. Returns whether there was one."""
    taken = _take(registration)
    if not taken:
        return False
    one, *others = taken
    webhook = Webhook.objects.select_related('health').get(pk=one.webhook_id)
    _allow(registration, webhook.effective_timeout + SEND_MARGIN_SECONDS)
    call = Call(one, Builder(webhook), others)
    if call.build() and not webhook.is_feed:
        _send(call)
        call.update_token()
    _record(call, registration)
    return True


def _ready(now: datetime, most: int) -> list[tuple[int, int]]:
    """Return (id, webhook's id) of each, the oldest first."""
    return sql.fetch(FIND_SUSPECTS, {'now': now, 'most': most})


def _take(registration: Registration) -> list[Delivery]:
    """Take a suspect in hand, then the rest of its part of a change set. [] if none is ready with a free lane."""
    with sql.transaction() as now:
        ready = _ready(now, SUSPECTS_PER_LOOK)
        locked = order.try_lock_lanes({webhook_id for _pk, webhook_id in ready})
        free = (pk for pk, webhook_id in ready if webhook_id in locked)
        taken = [pk for pk in islice(free, 1) if sql.execute(TAKE_SUSPECT, {'id': pk, 'now': now})]
        pks = [*taken, *(pk for part in queue.parts_of(taken).values() for pk in part['others'])]
        found = queue.fetch(pks)
        if len(found) < len(pks):
            sql.execute(PUT_BACK, taken)
            return []
        registration.beat(deliveries=pks)
    return [found[pk] for pk in pks]


def _send(call: Call) -> None:
    # A renderer is forked by a process with one thread. So the client's threads end before the next suspect.
    with closing(Client(1)) as client:
        call.send(client.send)


def _record(call: Call, registration: Registration) -> None:
    with sql.transaction() as now:
        order.lock_lanes([call.delivery.webhook_id])
        if not call.goes_again:
            endpoint.write(record.conclude([call], now), now)
        elif call.builder.webhook.is_feed:
            endpoint.write(feed.publish(call.pks, now), now)
        else:
            sql.execute(PUT_BACK, [call.delivery.pk])
        registration.beat(deliveries=[])
