"""Dispatches and sends in one process, for an `rqworker` that ends by itself (`--burst`), and for tests."""

import logging
import select
import signal
import time
from collections import Counter

from ...constants import JOB_SECONDS
from ...default_database import pinned
from ...outbox import wakeup
from .. import rescue, sql
from ..deliver import loop as deliver
from ..registry import DISPATCH, SEND, Registration, may_begin
from ..tidy import loop as tidy
from . import child, suspects
from .child import name
from .dispatcher import DispatcherRole
from .sender import WAITS_FOR_MIGRATE, look_after_others

logger = logging.getLogger('webhooks.worker')


@pinned()
def run(seconds: float = JOB_SECONDS) -> Counter[str]:
    """Dispatch and send until nothing is due, or for `seconds`. Returns how many deliveries got which status.

    If time runs out, a wake-up leaves the rest to another job. Suspects still have a process of their own: the one in
    hand gets its whole time. Until the tables are migrated it does nothing.
    """
    if not may_begin():
        logger.warning(WAITS_FOR_MIGRATE)
        return Counter()
    beside = child.Child('suspects', suspects.serve)
    if look_after_others():
        beside.start()
    # If one of them is declared dead, only its own work is lost. So each has a row.
    dispatching, sending = Registration(name('dispatch'), DISPATCH), Registration(name('send'), SEND)
    dispatching.begin()
    sending.begin()
    end, has_worked = time.monotonic() + seconds, False
    with deliver.opened(sending) as sender:
        dispatcher = DispatcherRole(dispatching, sender.lanes.look_again, lambda: None)
        while time.monotonic() < end and not child.is_stopping():
            _look_after(beside)
            is_idle = dispatcher.step() is None
            worked = sender.turn(deliver.MAX_GATHER_SECONDS if is_idle else 0)
            if is_idle and not worked and not sender.lanes.is_busy and not beside.is_running:
                break
            has_worked = True
        else:
            wakeup.wake()  # the rest goes in another job
        if has_worked:
            tidy.step()  # sending may have left something to tidy
        sender.end()
        dispatching.end()
        _end(beside)
        return sender.counts


def _look_after(beside: child.Child) -> None:
    """Rescue the work of the suspects' process if that has ended."""
    if beside.has_ended():
        with sql.may_break_off():  # if it fails, somebody finds the row when its time is over
            rescue.rescue(beside.name, beside.cause)


def _end(beside: child.Child) -> None:
    """Let the suspects' process end after the suspect in hand: a death together with this job would not count."""
    if beside.is_running:
        beside.signal(signal.SIGTERM)
        select.select([beside.handle], [], [])
        _look_after(beside)
