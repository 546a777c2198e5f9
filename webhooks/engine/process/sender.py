"""The sender, in a process of its own. It needs neither RQ nor Redis."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError

from ...outbox.scope import is_migrated
from .. import registry, shutdown, transactions
from ..deliver import loop, queue
from ..registry import SEND, Member
from .suspects import are_any

logger = logging.getLogger('webhooks.worker')

# Seconds between two looks for what nobody tells of, and while it has lanes.
INTERVAL, SOON = 2.0, 0.1


def serve(pipe: int, ask: Callable[[], None], name: str) -> None:
    """Send until told to stop. A byte in the `pipe` lets it look at once. `ask`: there are suspects."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor tells
    shutdown.listen()
    while not _is_migrated() and not shutdown.is_requested():
        time.sleep(INTERVAL)
    member = Member(name, SEND)
    member.begin()
    with loop.opened(member) as sender:
        threading.Thread(target=_listen, args=[pipe, sender], daemon=True).start()
        try:
            _work(sender, ask)
        except Exception:
            # At once: requests under way may hang, and nobody would send meanwhile.
            logger.exception('sender=failed (another one is started)')
            os._exit(os.EX_SOFTWARE)


def _work(sender: loop.Sender, ask: Callable[[], None]) -> None:
    looked_at, patience = 0.0, 0.0
    while not shutdown.is_requested():
        patience = 0.0 if sender.turn(patience) else SOON if sender.has_lanes else INTERVAL
        if time.monotonic() > looked_at + INTERVAL:
            looked_at = time.monotonic()
            _look_after_others(ask)
    sender.end()


def _is_migrated() -> bool:
    try:
        return is_migrated()
    except (DatabaseError, InterfaceError) as error:
        transactions.recover(error)
        return False


def _listen(pipe: int, sender: loop.Sender) -> None:
    while os.read(pipe, 4096):
        sender.poke()


def _look_after_others(ask: Callable[[], None]) -> None:
    """Free what the dead held, and let suspects be tried."""
    try:
        while registry.rescue():
            pass
        queue.ensure_lanes()
        if are_any():
            ask()
    except (DatabaseError, InterfaceError) as error:
        transactions.recover(error)
