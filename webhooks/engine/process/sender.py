"""The sender, in its own process, without RQ or Redis."""

import logging
import os
import socket
import threading
import time
from functools import partial

from django.db import DatabaseError

from .. import rescue, transactions
from ..deliver import loop, queue
from ..registry import SEND, Member, may_begin
from . import child, suspects

logger = logging.getLogger('webhooks.worker')

WAITS_FOR_MIGRATE = 'migrate has not ended: nothing is sent until then'

# Seconds between looks at other workers, for lanes while idle, and with lanes.
LOOK_AROUND_SECONDS, IDLE_PATIENCE_SECONDS, LANES_PATIENCE_SECONDS = 1.0, 0.5, 0.1
# Seconds of silence that mean a hang, for example in a plugin's C code; and for a build in a thread.
HANG_SECONDS = 60.0


def serve(pipe: int, name: str, channel: socket.socket) -> None:
    """A byte in the `pipe` lets it look at once."""
    child.heed(HANG_SECONDS)
    if not _may_begin():
        logger.warning(WAITS_FOR_MIGRATE)
    while not _may_begin():
        if child.is_stopping():
            return
        child.allow(HANG_SECONDS)
        time.sleep(LOOK_AROUND_SECONDS)
    member = Member(name, SEND)
    member.begin()
    with loop.opened(member) as sender:
        threading.Thread(target=_listen, args=[pipe, sender], daemon=True).start()
        try:
            _work(sender, member, channel)
        except Exception:
            # At once: open requests may hang, and nobody would send meanwhile.
            logger.exception('sender=failed (another one is started)')
            os._exit(os.EX_SOFTWARE)


def _work(sender: loop.Sender, member: Member, channel: socket.socket) -> None:
    looked_at, patience = 0.0, 0.0
    while not child.is_stopping():
        patience = (
            0.0 if sender.turn(patience) else LANES_PATIENCE_SECONDS if sender.lanes.owned else IDLE_PATIENCE_SECONDS
        )
        if time.monotonic() > looked_at + LOOK_AROUND_SECONDS:
            looked_at = time.monotonic()
            _stay(sender)
            _look_around(member, channel)
    sender.end(partial(_stay, sender))


def _stay(sender: loop.Sender) -> None:
    """Without it the kernel ends this process: it hangs, or a plugin's code hangs in a thread."""
    if time.monotonic() < sender.builds_since + HANG_SECONDS:
        child.allow(HANG_SECONDS)


def _may_begin() -> bool:
    with transactions.may_break_off(DatabaseError):
        return may_begin()
    return False


def _listen(pipe: int, sender: loop.Sender) -> None:
    while os.read(pipe, 4096):
        sender.poke()


def _look_around(member: Member, channel: socket.socket) -> None:
    with transactions.may_break_off(DatabaseError):
        if look_after_others(member.pk):
            channel.send(b'+')


def look_after_others(caller: int | None = None) -> bool:
    """Rescue dead workers' work, and make missing lanes. `caller` is the own worker's id.

    Returns whether there are suspects.
    """
    while rescue.rescue(caller=caller):
        pass
    queue.ensure_lanes()
    return suspects.are_any()
