"""Suspects: what was in hand when a worker stopped is tried in a process of its own, while the rest goes on.

Each may have stopped the worker, or was there by chance. First all of them go together, as ordinary work does. Where
that process dies, each of them goes alone, until it has succeeded or as many processes have died of it as
registry.GIVEN_UP says.
"""

import logging
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

from django.db import DataError
from redis import RedisError

from ...interruptions import INTERRUPTIONS
from ...models import Delivery, Webhook
from ...payload.http_request import Builder
from ...templating import renderer
from ...templating.process import fork
from ...transport.client import Client
from .. import registry, shutdown, sql, transactions
from ..deliver import endpoint, order, queue, record
from ..deliver.build import Sent
from ..dispatch import claim
from ..dispatch.loop import Dispatcher
from ..registry import COMPANY, SUSPECTS, Lost, Member

logger = logging.getLogger('webhooks.suspects')

# Seconds that it may take to dispatch what it has in hand, and beyond the timeout of a request.
LONGEST, MARGIN = 150.0, 15.0
# Seconds after which no more is sent of what it has in hand: it goes back.
PORTION = 5.0
# Seconds for which the worker has to outlive its process, or nothing is counted: whoever kills both kills one first.
GRACE = 1.0
# Deliveries that go together, and threads for as many webhooks.
MOST, THREADS = 200, 16
# The exit status of a process that PostgreSQL or Redis has broken off.
INTERRUPTED = os.EX_TEMPFAIL

READY = f"""
    d.status = 'pending' AND d.lapses > 0 AND d.due_at <= %(now)s AND {queue.ACTIVE} AND {queue.IS_FIRST}
    AND NOT (w.ordered AND {order.IS_BLOCKED})"""

# Without a time while they are in hand: nobody else takes them. None of a lane that somebody holds.
TAKE = f"""
    UPDATE webhooks_delivery SET due_at = NULL WHERE id = ANY(ARRAY(
        SELECT d.id FROM webhooks_delivery d
        JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE {READY} AND (d.lapses = {COMPANY}) = %(together)s
        ORDER BY d.due_at, d.id LIMIT %(most)s
        FOR UPDATE OF d, h SKIP LOCKED
    ))
    RETURNING id"""

ANY = f"""
    SELECT EXISTS (
        SELECT FROM webhooks_delivery d
        JOIN webhooks_webhook w ON w.id = d.webhook_id JOIN webhooks_health h ON h.webhook_id = w.id
        WHERE {READY}
    )"""

PUT_BACK = """
    UPDATE webhooks_delivery SET due_at = %(now)s + interval '1 second'
    WHERE id = ANY(%(ids)s) AND status = 'pending' AND due_at IS NULL"""


def are_any() -> bool:
    """Whether there are suspects that can be tried now."""
    return claim.is_any_suspect() or sql.fetch_value(ANY, {'now': _now()})


def _now() -> datetime:
    return sql.fetch_value('SELECT clock_timestamp()')


class Suspects:
    """The parent's end of the process."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._channel, self._handle = fork(partial(_live, name))
        self._channel.setblocking(False)
        self._until = time.monotonic() + LONGEST
        self._died_at: float | None = None
        self._cause: str | None = None

    @property
    def handle(self) -> int:
        """Of the process: readable when it has ended."""
        return self._handle

    @property
    def has_ended(self) -> bool:
        return self._died_at is not None

    def look(self) -> bool:
        """Look after the process, without waiting for it. Returns whether it is to be looked at again."""
        if self._died_at is None:
            self._listen()
            if not self._has_ended():
                return True
            self._died_at = time.monotonic()
        if self._cause and time.monotonic() < self._died_at + GRACE:
            return True
        registry.rescue(self._name, self._cause)
        os.close(self._handle)
        self._channel.close()
        return False

    def signal(self, number: int) -> None:
        """Tell the process to stop, or kill it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def _listen(self) -> None:
        with suppress(BlockingIOError, ConnectionError):
            for word in self._channel.recv(4096).split():
                self._until = float(word)

    def _has_ended(self) -> bool:
        ended = os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG)
        if ended is not None:
            self._cause = _cause(ended.si_code, ended.si_status)
            return True
        if time.monotonic() < self._until:
            return False
        self.signal(signal.SIGKILL)
        os.waitid(os.P_PIDFD, self._handle, os.WEXITED)
        self._cause = 'it took too long'
        return True


def _cause(code: int, status: int) -> str | None:
    """Return what the process died of, None where what it had in hand is not to blame. As os.waitid() tells."""
    if code == os.CLD_EXITED:
        return None if status in (os.EX_OK, INTERRUPTED) else f'exit status {status}'
    return None if status in (signal.SIGINT, signal.SIGTERM) else f'signal {status}'


#
# In the process
#


def _live(name: str, channel: socket.socket) -> NoReturn:
    """Do the suspects, and tell by the exit status how that ended."""
    status = os.EX_SOFTWARE
    try:
        shutdown.listen()
        _be_the_first_to_go()
        with renderer.shared():
            _work(name, channel)
        status = os.EX_OK
    except (*INTERRUPTIONS, RedisError, Lost) as error:
        logger.warning('suspects=broken off reason="%s"', str(error).strip())
        status = INTERRUPTED
    except Exception:
        logger.exception('suspects=failed')
    finally:
        os._exit(status)


def _be_the_first_to_go() -> None:
    """Where memory runs out, the kernel is to end this process and not its worker."""
    with suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('1000')


def _work(name: str, channel: socket.socket) -> None:
    member = Member(name, SUSPECTS)
    member.begin()
    dispatcher = Dispatcher(member, suspects=True)
    may_take = partial(_may_take, channel, member)
    while not shutdown.is_requested():
        may_take(LONGEST)
        if not any([dispatcher.batch(), _deliver(member, may_take)]):
            break
    member.end()


def _may_take(channel: socket.socket, member: Member, seconds: float) -> None:
    """Say how long it may be busy now."""
    member.beat(seconds=seconds + MARGIN)
    channel.sendall(f'{time.monotonic() + seconds}\n'.encode())


def _deliver(member: Member, may_take: Callable[[float], None]) -> int:
    """Send suspects, and return how many."""
    taken = _take(member)
    if not taken:
        return 0
    webhooks = Webhook.objects.select_related('health').in_bulk({one.webhook_id for one, *_others in taken})
    may_take(PORTION + max((webhook.effective_timeout for webhook in webhooks.values()), default=0) + MARGIN)
    built = [
        Sent(one, Builder(webhooks[one.webhook_id]), others) for one, *others in taken if one.webhook_id in webhooks
    ]
    for sent in built:
        sent.build()
    by_webhook: dict[int, list[Sent]] = defaultdict(list)
    for sent in built:
        by_webhook[sent.delivery.webhook_id].append(sent)
    # A client, and its threads, for each time: where a renderer is forked there is one thread.
    with closing(Client(1)) as client, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(_send, client, time.monotonic() + PORTION), by_webhook.values()))
    _record([sent for sent in built if sent.outcome])
    left = {one.pk for one, *_others in taken} - {sent.delivery.pk for sent in built if sent.outcome}
    with transactions.short() as now:
        sql.execute(PUT_BACK, {'ids': list(left), 'now': now})
        member.beat(deliveries=())
    return len(taken)


def _take(member: Member) -> list[list[Delivery]]:
    """Take suspects, each with those that go in the same request."""
    with transactions.short() as now:
        taken: list[int] = []
        for together, most in ((True, MOST), (False, 1)):
            taken = taken or sql.fetch_column(TAKE, {'now': now, 'together': together, 'most': most})
        parts = {pk: part.pks for pk, part in queue.parts_of(taken).items()}
        together = {pk: [pk, *(other for other in parts.get(pk, ()) if other != pk)] for pk in taken}
        pks = [pk for group in together.values() for pk in group]
        member.beat(deliveries=pks)
    found = Delivery.objects.filter(pk__in=pks).prefetch_related('event').in_bulk()
    groups = [[found[pk] for pk in group if pk in found] for group in together.values()]
    return sorted(filter(None, groups), key=lambda group: group[0].sequence)


def _send(client: Client, latest: float, sents: Sequence[Sent]) -> None:
    """Send what goes to one webhook, until its endpoint cannot be reached or the time is over."""
    for sent in sents:
        if sent.request is None:
            continue
        if time.monotonic() > latest or shutdown.is_requested():
            return
        sent.send(client.send)
        if sent.outcome.unreachable:
            return


def _record(sents: Collection[Sent]) -> None:
    try:
        _record_together(sents)
    except DataError:
        for sent in sents:
            try:
                _record_together([sent])
            except DataError as error:
                record.give_up(sent, error)
                _record_together([sent])


def _record_together(sents: Collection[Sent]) -> None:
    """Those whose lanes somebody holds come last: it may wait for these in vain."""
    with transactions.short() as now:
        lanes = order.lock({sent.delivery.webhook_id for sent in sents})
        _write([sent for sent in sents if sent.delivery.webhook_id in lanes], now)
    if late := [sent for sent in sents if sent.delivery.webhook_id not in lanes]:
        with transactions.short() as now:
            order.hold({sent.delivery.webhook_id for sent in late})
            _write(late, now)


def _write(sents: Collection[Sent], now: datetime) -> None:
    endpoint.write(record.record([record.judge(sent, now) for sent in sents], now), now)
