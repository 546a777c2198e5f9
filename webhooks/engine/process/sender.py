"""Runs the sender, in its own process, without RQ or Redis. It also looks after dead workers."""

import logging
import os
import socket
import threading
import time
from functools import partial

from django.db import DatabaseError

from ...default_database import pinned
from .. import rescue, sql
from ..deliver import lanes, loop
from ..registry import SEND, Registration, may_begin
from . import child, suspects

logger = logging.getLogger('webhooks.worker')

WAITS_FOR_MIGRATE = 'migrate has not ended: nothing is sent until then'

# Between two looks at other workers.
LOOK_AROUND_SECONDS = 1.0
# A turn with nothing to do waits this long for an answer: without lanes, and with some.
IDLE_PATIENCE_SECONDS = 0.5
LANES_PATIENCE_SECONDS = 0.1
# Without progress for this time it hangs, for example in a plugin's C code, in the main thread or in one that builds.
HANG_SECONDS = 60.0


@pinned()
def serve(pipe: int, name: str, channel: socket.socket) -> None:
    """Run the sender until a signal stops it: the supervisor forks a process for it. At the end delete its row.

    A byte in the `pipe` makes it look for deliveries at once. Through the `channel` it reports suspects to the
    supervisor. After an unexpected error the process ends at once, and the supervisor starts a new one.
    """
    child.listen(HANG_SECONDS)
    if not _may_begin():
        logger.warning(WAITS_FOR_MIGRATE)
    while not _may_begin():
        if child.is_stopping():
            return
        child.kill_after(HANG_SECONDS)
        time.sleep(LOOK_AROUND_SECONDS)
    registration = Registration(name, SEND)
    registration.begin()
    with loop.opened(registration) as sender:
        threading.Thread(target=_listen, args=[pipe, sender], daemon=True).start()
        try:
            _work(sender, registration, channel)
        except Exception:
            # Open requests may hang, and nobody would send meanwhile. So it does not wait for its threads.
            logger.exception('sender=failed (another one is started)')
            os._exit(os.EX_SOFTWARE)


def _work(sender: loop.Sender, registration: Registration, channel: socket.socket) -> None:
    looked_at, patience = 0.0, 0.0
    while not child.is_stopping():
        patience = (
            0.0 if sender.turn(patience) else LANES_PATIENCE_SECONDS if sender.lanes.owned else IDLE_PATIENCE_SECONDS
        )
        if time.monotonic() > looked_at + LOOK_AROUND_SECONDS:
            looked_at = time.monotonic()
            _keep_alive(sender)
            _look_around(registration, channel)
    sender.end(partial(_keep_alive, sender))


def _keep_alive(sender: loop.Sender) -> None:
    """Postpone the kernel's timer, unless a build hangs in a thread: then the kernel ends this process."""
    if time.monotonic() < sender.builds_since + HANG_SECONDS:
        child.kill_after(HANG_SECONDS)


def _may_begin() -> bool:
    with sql.may_break_off(DatabaseError):
        return may_begin()
    return False


def _listen(pipe: int, sender: loop.Sender) -> None:
    while os.read(pipe, 4096):
        sender.poke()


def _look_around(registration: Registration, channel: socket.socket) -> None:
    with sql.may_break_off(DatabaseError):
        if look_after_others(registration.pk):
            channel.send(b'+')


def look_after_others(caller: int | None = None) -> bool:
    """Rescue the work of all dead workers, and make missing lanes. Returns whether there are suspects.

    `caller`: the id of this process's own worker, which is alive. Raises DatabaseError.
    """
    while rescue.rescue(caller=caller):
        pass
    lanes.ensure_lanes()
    return suspects.are_any()
