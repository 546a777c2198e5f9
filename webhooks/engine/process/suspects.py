"""Tries suspects alone, in a process of their own.

After three deaths a suspect fails by name. A death counts only if the parent outlives it.
"""

import logging
import os
import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import NoReturn

from django.db import DataError
from redis import RedisError

from ...interruptions import BROKEN_OFF, INTERRUPTIONS
from ...models import Delivery, Webhook
from ...payload.http_request import Builder
from ...templating import renderer
from ...transport.client import Client
from .. import registry, rescue, shutdown, sql, transactions
from ..deliver import endpoint, order, queue, record
from ..deliver.build import Sent
from ..dispatch import claim
from ..dispatch.loop import Dispatcher
from ..registry import Lost, Member
from .child import Child, say

logger = logging.getLogger('webhooks.suspects')

# Seconds to dispatch one; seconds to send one, beyond its timeout.
LONGEST, MARGIN = 150.0, 25.0
# Seconds that the parent has to outlive it: if both are killed, it may go first.
GRACE = 1.0
BEAT = 2.0
# Looks for free lanes, and seconds between two: busy lanes are mostly locked.
LOOKS, PAUSE = 10, 0.05

READY = f"""
    d.status = 'pending' AND d.lapses > 0 AND d.due_at <= %(now)s AND {queue.ACTIVE} AND {queue.IS_FIRST}
    AND NOT (w.ordered AND {order.IS_BLOCKED})"""

# No `due_at` while in hand: nobody else takes it.
TAKE = f"""
    UPDATE webhooks_delivery SET due_at = NULL WHERE id = ANY(ARRAY(
        SELECT d.id FROM webhooks_delivery d
        JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE {READY} ORDER BY d.due_at, d.id LIMIT 1
        FOR UPDATE OF d, h SKIP LOCKED
    ))
    RETURNING id"""

PUT_BACK = """
    UPDATE webhooks_delivery SET due_at = now() + interval '1 second'
    WHERE id = %(id)s AND status = 'pending' AND due_at IS NULL"""

ANY = f"""
    SELECT EXISTS (
        SELECT FROM webhooks_delivery d
        JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE {READY}
    )"""


def are_any() -> bool:
    """Whether suspects can be tried now."""
    return claim.is_any_suspect() or sql.fetch_value(ANY, {'now': sql.fetch_value('SELECT clock_timestamp()')})


class Suspects(Child):
    """The process that tries suspects."""

    def __init__(self) -> None:
        self._beaten_at = 0.0
        self._ended_at: float | None = None
        super().__init__('suspects', _live)

    @property
    def is_there(self) -> bool:
        return self._ended_at is None

    def look(self) -> bool:
        """Look after it, without waiting. Returns whether to look again."""
        try:
            return self._look(time.monotonic())
        except BROKEN_OFF as error:
            transactions.recover(error)
            return True

    def _look(self, now: float) -> bool:
        if self.is_there:
            if not self.has_ended():
                self._beat(now)
                return True
            self._ended_at = now
        if self.cause and now < self._ended_at + GRACE:
            return True
        rescue.rescue(self.name, self.cause)
        return False

    def _beat(self, now: float) -> None:
        """The parent beats for it: if both are gone, others notice within seconds."""
        if now > self._beaten_at + BEAT:
            self._beaten_at = now
            registry.keep_alive(self.name)


#
# In the process
#


def _live(name: str, channel: socket.socket) -> NoReturn:
    """Try suspects. The exit status says how that ended."""
    status = os.EX_SOFTWARE
    try:
        shutdown.listen()
        _be_the_first_to_go()
        with renderer.shared():
            _work(name, channel)
        status = os.EX_OK
    except (*INTERRUPTIONS, RedisError, Lost) as error:
        logger.warning('suspects=broken off reason="%s"', str(error).strip())
        status = os.EX_TEMPFAIL
    except Exception:
        logger.exception('suspects=failed')
    finally:
        os._exit(status)


def _be_the_first_to_go() -> None:
    """If memory runs out, the kernel should end this process, not its parent."""
    with suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('1000')


def _work(name: str, channel: socket.socket) -> None:
    member = Member(name, registry.SUSPECTS)
    member.begin()
    dispatcher = Dispatcher(member, suspects=True)
    misses = 0
    while misses < LOOKS and are_any() and not shutdown.is_requested():
        say(channel, LONGEST)
        if any([dispatcher.batch(), _deliver(member, channel)]):
            misses = 0
        else:
            misses += 1
            time.sleep(PAUSE)
    member.end()


def _deliver(member: Member, channel: socket.socket) -> bool:
    """Send one. Returns whether there was one."""
    taken = _take(member)
    if not taken:
        return False
    one, *others = taken
    webhook = Webhook.objects.select_related('health').get(pk=one.webhook_id)
    say(channel, webhook.effective_timeout + MARGIN)
    sent = Sent(one, Builder(webhook), others)
    if sent.build():
        _send(sent, member)
        sent.settle()
    if sent.outcome is None:
        _put_back(one, member)  # it waits for an access token
        return False
    try:
        _record(sent, member)
    except DataError as error:
        record.give_up(sent, error)
        _record(sent, member)
    return True


def _take(member: Member) -> list[Delivery]:
    """Take one, and after it the others of its part of a change set."""
    with transactions.short() as now:
        taken = sql.fetch_column(TAKE, {'now': now})
        pks = [*taken, *(pk for part in queue.parts_of(taken).values() for pk in part['others'])]
        member.beat(deliveries=pks)
    found = Delivery.objects.prefetch_related('event').in_bulk(pks)
    return [found[pk] for pk in pks if pk in found]


def _send(sent: Sent, member: Member) -> None:
    member.beat()
    member.confirm()
    # Its threads end here: a renderer is forked by a process with one thread.
    with closing(Client(1)) as client:
        if time.monotonic() > member.until:  # it was frozen: others may have the delivery
            raise Lost(member.name)
        sent.send(client.send)


def _put_back(one: Delivery, member: Member) -> None:
    with transactions.short():
        sql.execute(PUT_BACK, {'id': one.pk})
        member.beat(deliveries=())


def _record(sent: Sent, member: Member) -> None:
    with transactions.short() as now:
        order.hold([sent.delivery.webhook_id])
        endpoint.write(record.record([record.judge(sent, now)], now), now)
        member.beat(deliveries=())
