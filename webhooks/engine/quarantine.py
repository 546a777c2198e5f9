"""Quarantine: what was in hand when a worker stopped is done in a process of its own, while the rest goes on.

It is a suspect: it may have stopped the worker, or somebody has stopped the worker and it was there by chance. A job
that finds suspects forks a process before it starts threads. The process does them one after the other, each alone,
under a lease of its own. If it dies, or takes too long, what it had in hand is to blame (blame.py): the worker lives,
counts that, and fails the suspect by name after three deaths. Where the worker dies too, the process ends with it, and
nobody is blamed; nor where PostgreSQL or Redis breaks it off.
"""

import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from django.db import DataError
from redis import RedisError

from ..constants import JOB_TIME, LEASE_MARGIN
from ..interruptions import BROKEN_OFF, INTERRUPTIONS
from ..models import Delivery, Webhook
from ..payload.http_request import Builder
from ..templating import renderer
from ..templating.process import fork
from ..transport.client import Client
from . import claims, death, event_claims, lanes, outcomes, shutdown, sql
from .blame import count_death
from .claimed import Claimed, prepare
from .dispatch import dispatch
from .job_time import RUN_OUT, Pace, Span
from .ledger import Ledger
from .outcomes import Judge, Tally

logger = logging.getLogger('webhooks.quarantine')

# Seconds after which the process begins nothing more: as its job.
TIME = JOB_TIME - RUN_OUT
# Seconds before the end of a lease at which the process is killed, so that the death still counts.
MARGIN = 5.0
# Seconds for which the worker has to outlive its process: whoever kills both of them kills one first.
GRACE = 1.0
# Seconds for which the process waits where a lane is busy, or for a rate limit's next token; and between two looks.
STANDSTILL, PAUSE = 1.5, 0.05
# Seconds for which others leave the only slot of a webhook to its suspects. Not longer: the process may be busy with
# those of another webhook.
FIRST = 5.0

FIND = f"""
    SELECT EXISTS ({event_claims.SUSPECT}), clock_timestamp(), EXISTS (
        SELECT 1 FROM webhooks_delivery WHERE status = 'pending' AND lapses > 0 AND due_at <= clock_timestamp()
    )"""


def _are_any(lease: uuid.UUID) -> bool:
    """Whether there are suspects that can be tried now, in a moment at the latest."""
    ((any_event, now, any_delivery),) = sql.fetch(FIND, {'lease': lease, 'near': event_claims.NEAR})
    return any_event or (any_delivery and claims.is_claimable(now, suspect=True))


@contextmanager
def opened() -> Iterator['Quarantine']:
    """Begin with the suspects that are there. To be entered while the process has one thread."""
    quarantine = Quarantine()
    try:
        if quarantine.is_needed():
            quarantine.begin()
        yield quarantine
    finally:
        quarantine.end()


class Quarantine:
    """The job's end of it."""

    def __init__(self) -> None:
        self._lease = uuid.uuid4()
        self._handle: int | None = None
        self._heard = b''
        # When it has to be done with what it has in hand, by time.monotonic(); when and how it died.
        self._until = 0.0
        self._first_until = 0.0
        self._died_at = 0.0
        self._cause: str | None = None
        # Whether this job does not ask for another one: what is left is for the timer to find.
        self._is_done = False

    @property
    def is_there(self) -> bool:
        return self._handle is not None

    @property
    def goes_first(self) -> bool:
        """Whether others are to leave the only slot of a webhook to its suspects."""
        return self.is_there and time.monotonic() < self._first_until

    def is_needed(self) -> bool:
        """Whether there are suspects that can be tried now, and this job has not been through with them."""
        return not self._is_done and _are_any(self._lease)

    def begin(self) -> None:
        """Fork the process. Where that fails, the suspects wait for another job."""
        try:
            self._channel, self._handle = fork(partial(_live, self._lease))
        except OSError as error:
            logger.warning('quarantine=failed reason="%s" (the suspects wait)', error)
            self._is_done = True
            return
        self._channel.setblocking(False)
        self._until = time.monotonic() + event_claims.LONG_LEASE - MARGIN
        self._first_until = time.monotonic() + FIRST

    def look(self, pace: Pace, tally: Tally) -> bool:
        """Look after the process, without waiting for it. Returns whether it is still there."""
        if self._handle is None:
            return False
        if shutdown.is_requested():
            self._signal(signal.SIGTERM)
        ended = self._cause is not None or self._has_ended()
        self._listen(pace, tally)
        if ended and self._is_settled():
            pace.forget(self)
            self.end()
        return True

    def end(self) -> None:
        """Kill the process, if it is there, and wait for its end."""
        if self._handle is None:
            return
        self._signal(signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._handle, os.WEXITED)
        os.close(self._handle)
        self._channel.close()
        self._handle = None

    def _has_ended(self) -> bool:
        """Note how it ended, if it did. What takes too long is ended here."""
        try:
            ended = os.waitid(os.P_PIDFD, self._handle, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True  # somebody else has waited for it: nobody knows what it died of
        if ended is not None:
            self._cause = death.cause(ended.si_code, ended.si_status)
        elif time.monotonic() > self._until:
            self._signal(signal.SIGKILL)
            self._cause = death.TOO_SLOW
        else:
            return False
        self._died_at = time.monotonic()
        return True

    def _is_settled(self) -> bool:
        if self._cause is None:
            event_claims.put_off(self._lease)
            self._is_done = True
            return True
        return time.monotonic() > self._died_at + GRACE and count_death(self._lease, self._cause)

    def _listen(self, pace: Pace, tally: Tally) -> None:
        """Take what it says: until when it may be busy now, or what became of a delivery."""
        with suppress(BlockingIOError, ConnectionError):
            self._heard += self._channel.recv(4096)
        *words, self._heard = self._heard.split(b'\n')
        for word in words:
            if word.isdigit():
                self._until = int(word)
                pace.begin(self, self._until - time.monotonic(), time.monotonic())
            else:
                tally.add(word.decode())

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)


#
# In the process
#


def _live(lease: uuid.UUID, channel: socket.socket) -> NoReturn:
    """Do the suspects, and tell by the exit status how that ended."""
    status = os.EX_SOFTWARE
    try:
        shutdown.listen()
        _be_the_first_to_go()
        with renderer.shared():
            _work(lease, channel)
        status = os.EX_OK
    except (*INTERRUPTIONS, RedisError) as error:
        logger.warning('quarantine=broken off reason="%s"', str(error).strip())
        status = death.INTERRUPTED
    except Exception:
        logger.exception('quarantine=failed')
    finally:
        os._exit(status)


def _be_the_first_to_go() -> None:
    """Where memory runs out, the kernel is to end this process and not its worker."""
    with suppress(OSError):
        Path('/proc/self/oom_score_adj').write_text('1000')


def _work(lease: uuid.UUID, channel: socket.socket) -> None:
    moved_at = time.monotonic()
    end = moved_at + TIME
    took: dict[int, float] = {}
    while time.monotonic() < end and not shutdown.is_requested():
        _say_until(channel, event_claims.LONG_LEASE)
        if any([_dispatch(lease), _deliver(lease, channel, took)]):
            moved_at = time.monotonic()
        elif time.monotonic() > moved_at + STANDSTILL or not _are_any(lease):
            return
        else:
            time.sleep(PAUSE)


def _dispatch(lease: uuid.UUID) -> int:
    """Dispatch a suspect. One that is broken off is put off: the next one has its turn, and so have deliveries."""
    try:
        return dispatch(lease, suspect=True)
    except (*BROKEN_OFF, RedisError) as error:
        lanes.recover(error)
        return event_claims.put_off(lease)


def _deliver(lease: uuid.UUID, channel: socket.socket, took: dict[int, float]) -> bool:
    """Send a suspect, and note how many seconds its webhook took. Returns whether there may be more."""
    claimed_at = time.monotonic()
    with lanes.turn() as now:
        claim = claims.claim(lease, (), 1, now, Span(slow=took), suspect=True)
    for delivery in claims.fetch(claim.pks):
        webhook = Webhook.objects.select_related('health').filter(pk=delivery.webhook_id).first()
        if webhook is not None:  # it may be deleted
            _say_until(channel, webhook.effective_timeout + LEASE_MARGIN)
            began = time.monotonic()
            _send(lease, delivery, webhook, claimed_at + LEASE_MARGIN, channel)
            took[webhook.pk] = time.monotonic() - began
    return bool(claim.pks) or claim.more


def _send(lease: uuid.UUID, delivery: Delivery, webhook: Webhook, latest: float, channel: socket.socket) -> None:
    one = prepare(delivery, Builder(webhook), time.time())
    if one.request is not None:
        # A client, and its threads, for each: where a renderer is forked there is one thread.
        with closing(Client(1)) as client:
            if time.monotonic() > latest:
                return  # frozen meanwhile: others may have it
            one.outcome = client.send(one.request)
    try:
        tally = _record(lease, one, outcomes.judge)
    except DataError as error:
        logger.exception('delivery=%s its outcome cannot be recorded', delivery.uuid)
        tally = _record(lease, one, partial(outcomes.judge_failed, error))
    for word in tally.counts:
        _say(channel, word)


def _record(lease: uuid.UUID, one: Claimed, judge: Judge) -> Tally:
    ledger, webhook_id = Ledger(), one.delivery.webhook_id
    with lanes.turn(), lanes.hold(webhook_id) as now:
        tally = outcomes.record(lease, [judge(one, now)], ledger, (), now)
        ledger.flush(now, [webhook_id], force=True)
    return tally


def _say_until(channel: socket.socket, lease: float) -> None:
    """Say when a lease of so many seconds is about to end."""
    _say(channel, int(time.monotonic() + lease - MARGIN))


def _say(channel: socket.socket, word: object) -> None:
    channel.sendall(f'{word}\n'.encode())
