"""Tries suspects alone, in a process of their own. After three deaths a suspect fails by name (rescue.py)."""

import logging
import socket
import time
from contextlib import closing

from redis import RedisError

from ...interruptions import INTERRUPTIONS
from ...models import Delivery, Webhook
from ...payload.http_request import Builder
from ...templating import renderer
from ...transport.client import Client
from .. import registry, sql, transactions
from ..deliver import endpoint, feed, order, queue, record
from ..deliver.build import Sent
from ..dispatch import claim
from ..dispatch.loop import Dispatcher
from ..registry import Lost, Member
from . import child

logger = logging.getLogger('webhooks.suspects')

# Seconds to dispatch one; seconds to send one, beyond its timeout.
LONGEST, MARGIN = 60.0, 25.0
# Looks for free lanes, and seconds between two: busy lanes are mostly locked.
LOOKS, PAUSE = 10, 0.05

READY_SUSPECTS = f"""
    SELECT d.id FROM webhooks_delivery d
    JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN webhooks_health h ON h.webhook_id = w.id
    WHERE d.status = 'pending' AND d.lapses > 0 AND d.due_at <= %(now)s AND {queue.ACTIVE} AND {queue.IS_FIRST}
      AND NOT (w.ordered AND EXISTS ({order.EARLIER}))
    ORDER BY d.due_at, d.id LIMIT 1"""

# No `due_at` while in hand: nobody else takes it.
TAKE_SUSPECT = f"""
    UPDATE webhooks_delivery SET due_at = NULL WHERE id = ANY(ARRAY({READY_SUSPECTS} FOR UPDATE OF d, h SKIP LOCKED))
    RETURNING id"""

PUT_BACK = """
    UPDATE webhooks_delivery SET due_at = now() + interval '1 second'
    WHERE id = %s AND status = 'pending' AND due_at IS NULL"""


def are_any() -> bool:
    if claim.is_any_suspect():
        return True
    with transactions.short() as now:
        return bool(sql.fetch(READY_SUSPECTS, {'now': now}))


def serve(name: str, _channel: socket.socket) -> None:
    """An error is the suspect's death."""
    child.heed()
    try:
        with renderer.shared():
            _work(Member(name, registry.SUSPECTS))
    except (*INTERRUPTIONS, RedisError, Lost) as error:
        logger.warning('suspects=broken off reason="%s"', str(error).strip())


def _work(member: Member) -> None:
    member.begin()
    dispatcher = Dispatcher(member, suspects=True)
    misses = 0
    while misses < LOOKS and not child.is_stopping():
        _allow(member, LONGEST)
        if any([dispatcher.batch(), _deliver(member)]):
            misses = 0
        else:
            misses += 1
            time.sleep(PAUSE)
    member.end()


def _allow(member: Member, seconds: float) -> None:
    """Others leave its work alone until the kernel has ended it, also if it was frozen meanwhile."""
    child.allow(seconds)
    member.beat(seconds=seconds + registry.ALIVE)


def _deliver(member: Member) -> bool:
    """Returns whether there was one."""
    taken = _take(member)
    if not taken:
        return False
    one, *others = taken
    webhook = Webhook.objects.select_related('health').get(pk=one.webhook_id)
    _allow(member, webhook.effective_timeout + MARGIN)
    sent = Sent(one, Builder(webhook), others)
    if sent.build() and not webhook.is_feed:
        _send(sent)
        sent.settle()
    _record(sent, member)
    return True


def _take(member: Member) -> list[Delivery]:
    """Take a suspect, then the rest of its part of a change set."""
    with transactions.short() as now:
        taken = sql.fetch_column(TAKE_SUSPECT, {'now': now})
        pks = [*taken, *(pk for part in queue.parts_of(taken).values() for pk in part['others'])]
        found = queue.fetch(pks)
        if len(found) < len(pks):
            sql.execute(PUT_BACK, taken)
            return []
        member.beat(deliveries=pks)
    return [found[pk] for pk in pks]


def _send(sent: Sent) -> None:
    # Its threads end here: a renderer is forked by a process with one thread.
    with closing(Client(1)) as client:
        sent.send(client.send)


def _record(sent: Sent, member: Member) -> None:
    with transactions.short() as now:
        order.hold([sent.delivery.webhook_id])
        if not sent.goes_again:
            endpoint.write(record.conclude([sent], now), now)
        elif sent.builder.webhook.is_feed:
            endpoint.write(feed.publish(sent.pks, now), now)
        else:
            sql.execute(PUT_BACK, [sent.delivery.pk])
        member.beat(deliveries=[])
