"""All of a worker in one process: for --burst, and for tests."""

import time

from ...constants import JOB_TIME
from ...outbox import wakeup
from .. import shutdown
from ..deliver import loop as deliver
from ..deliver.record import Tally
from ..dispatch.loop import Dispatcher
from ..registry import DISPATCH, SEND, Member
from ..tidy import loop as tidy
from .child import begin, name
from .dispatcher import Beside
from .sender import look_after_others
from .suspects import Suspects


def run(seconds: float = JOB_TIME) -> Tally:
    """Dispatch and send until nothing is due, or for so long."""
    suspects = begin('suspects', Suspects) if look_after_others() else None
    # Each forgets only its own work when it is declared dead.
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


def _turn(dispatcher: Dispatcher, sender: deliver.Sender, beside: Beside) -> bool:
    """Returns whether there is more to do."""
    dispatched = dispatcher.batch() or beside.step()
    sender.look_again()
    worked = sender.turn(0 if dispatched else deliver.LONGEST)
    return bool(dispatched or worked or sender.is_busy)
