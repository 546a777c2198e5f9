"""All of a worker in one process: for one that is to end by itself (--burst), and for tests."""

import itertools
import logging
import os
import socket
import time

from ...constants import JOB_TIME
from ...outbox import wakeup
from .. import registry, shutdown
from ..deliver import loop as deliver
from ..deliver import queue
from ..deliver.record import Tally
from ..dispatch.loop import Dispatcher
from ..registry import DISPATCH, SEND, Member
from ..tidy import loop as tidy
from .beside import Beside
from .suspects import Suspects, are_any

logger = logging.getLogger('webhooks.worker')

_numbers = itertools.count(1)


def name(what: str) -> str:
    """Return a name for a process of this one that no other process has."""
    return f'{socket.gethostname()}.{os.getpid()}.{time.time_ns()}.{what}.{next(_numbers)}'


def run(seconds: float = JOB_TIME) -> Tally:
    """Dispatch and send until nothing is due, or for so long."""
    while registry.rescue():
        pass
    queue.ensure_lanes()
    suspects = _begin_suspects() if are_any() else None
    # Two, as each forgets alone what it had in hand when it was declared dead.
    dispatching, sending = Member(name('dispatch'), DISPATCH), Member(name('send'), SEND)
    dispatching.begin()
    sending.begin()
    end = time.monotonic() + seconds
    with deliver.opened(sending) as sender:
        dispatcher, beside = Dispatcher(dispatching), Beside()
        while time.monotonic() < end and not shutdown.is_requested():
            if suspects and not suspects.look():
                suspects = None
            if not _turn(dispatcher, sender, beside) and not suspects:
                break
        else:
            wakeup.wake()  # the rest goes in another job
        tidy.step()
        sender.end()
        dispatching.end()
        return Tally(sender.counts)


def _begin_suspects() -> Suspects | None:
    try:
        return Suspects(name('suspects'))
    except OSError as error:
        logger.warning('suspects=failed reason="%s" (they wait)', error)
        return None


def _turn(dispatcher: Dispatcher, sender: deliver.Sender, beside: Beside) -> bool:
    """Returns whether there is more to do."""
    dispatched = dispatcher.batch() or beside.step()
    sender.look_again()
    worked = sender.turn(0 if dispatched else deliver.LONGEST)
    return bool(dispatched or worked or sender.is_busy)
