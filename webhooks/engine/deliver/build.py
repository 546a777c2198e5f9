"""Deliveries get their requests. What is slow to build, by a template or a plugin, holds up no other webhook.

What needs no template is built at once. The rest is built by two threads, one request after the other, of each webhook
in its turn. A webhook has one of them at most.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass

from django.db import connections

from ...interruptions import BROKEN_OFF
from ...models import Delivery
from ...payload.http_request import Builder
from .. import transactions
from .sent import Sent, prepare

logger = logging.getLogger('webhooks.delivery')

# Seconds after which a request was slow to build, and is built by a thread from then on.
SLOW = 0.02
# Seconds after which a template has run out of time (templating/renderer.py), and for which a webhook rests whose
# template has done so twice in a row.
ENDLESS, REST = 1.9, 60.0


@dataclass(eq=False)
class Building:
    """What goes out in one request, until that is built: `sent` is None where PostgreSQL was away."""

    webhook_id: int
    deliveries: Sequence[Delivery]
    builder: Builder
    sent: Sent | None = None
    seconds: float = 0.0

    def run(self) -> None:
        """Build it, again if PostgreSQL has broken that off."""
        began = time.monotonic()
        for _try in range(2):
            try:
                self.sent = prepare(self.deliveries, self.builder, time.time())
                break
            except BROKEN_OFF as error:
                transactions.recover(error)
        self.seconds = time.monotonic() - began


class Builders:
    """The threads. `tell` is called with each Building that is done, or with what ended a thread."""

    def __init__(self, tell: Callable[[Building | BaseException], None], contexts: Sequence[Context]) -> None:
        self._tell = tell
        self._changed = threading.Condition()
        # By webhook, in the order of their turns.
        self._queues: dict[int, deque[Building]] = {}
        self._busy: set[int] = set()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=context.run, args=[self._serve], name='webhooks-build', daemon=True)
            for context in contexts
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, building: Building) -> None:
        """Let a thread build it in the turn of its webhook."""
        with self._changed:
            self._queues.setdefault(building.webhook_id, deque()).append(building)
            self._changed.notify()

    def withdraw(self, webhook_id: int | None = None) -> list[Building]:
        """Take back what waits, of one webhook or of all."""
        with self._changed:
            wanted = list(self._queues) if webhook_id is None else [webhook_id]
            return [building for pk in wanted for building in self._queues.pop(pk, ())]

    def close(self) -> None:
        """End the threads, after what they build just now."""
        with self._changed:
            self._queues.clear()
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        try:
            while building := self._next():
                building.run()
                with self._changed:
                    self._busy.discard(building.webhook_id)
                    self._changed.notify()
                self._tell(building)
        except BaseException as error:
            self._tell(error)  # it ends the process: nobody else knows what is in hand here
        finally:
            connections.close_all()

    def _next(self) -> Building | None:
        with self._changed:
            while True:
                if self._is_closed:
                    return None
                ready = next((pk for pk in self._queues if pk not in self._busy), None)
                if ready is not None:
                    break
                self._changed.wait()
            queue = self._queues.pop(ready)
            self._busy.add(ready)
            building = queue.popleft()
            if queue:
                self._queues[ready] = queue  # behind the others
            return building
