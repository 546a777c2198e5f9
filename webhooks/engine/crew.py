"""The crew of a job: threads that send, two that build what has a template, and a process for suspects.

The job's main thread does all else (runner.py).
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db import connections

from ..models import Webhook
from ..templating import renderer
from ..transport.client import Client
from . import quarantine
from .building import Building
from .quarantine import Quarantine
from .senders import SPARE, THREADS, Senders

# Ids of webhooks whose last request was slow to build, as far as this process has seen.
_slow: set[int] = set()


@dataclass(frozen=True)
class Crew:
    senders: Senders
    building: Building
    quarantine: Quarantine

    @property
    def free(self) -> int:
        """How many requests may be begun. Where only spare threads are left, one: the next is for another webhook."""
        return min(max(self._unused, 0), 1) if self.is_full else self._unused - SPARE

    @property
    def is_full(self) -> bool:
        """Whether none but spare threads are left."""
        return self._unused <= SPARE

    @property
    def closed(self) -> Collection[int]:
        """Ids of webhooks that may begin nothing just now: spare threads are for those that have nothing in hand."""
        if not self.is_full:
            return ()
        return self.senders.webhooks.union(delivery.webhook_id for delivery in self.building.deliveries)

    @property
    def _unused(self) -> int:
        return self.senders.free - len(self.building)


@contextmanager
def opened() -> Iterator[Crew]:
    """Start all of them, and end them. To be entered while the process has one thread."""
    client = Client(THREADS)
    try:
        # Before there are threads.
        with (
            quarantine.opened() as suspects,
            renderer.kept(Webhook.any_is_templated) as asides,
            ThreadPoolExecutor(THREADS, thread_name_prefix='webhooks-send') as pool,
            ThreadPoolExecutor(1, thread_name_prefix='webhooks-build') as builder,
            ThreadPoolExecutor(1, thread_name_prefix='webhooks-build-slow') as slow_builder,
        ):
            senders = Senders(client, pool)
            builders = list(zip((builder, slow_builder), asides, strict=True))
            yield Crew(senders, Building(partial(_submit, senders, builders), _slow), suspects)
            for each, _aside in builders:
                each.submit(connections.close_all)
    finally:
        client.close()


def _submit(
    senders: Senders, builders: Sequence[tuple[ThreadPoolExecutor, Context]], is_slow: bool, *call: Any
) -> Future:
    """Let one of the two other threads do something, and whoever waits for answers hear of its end."""
    builder, aside = builders[is_slow]
    future = builder.submit(aside.run, *call)
    future.add_done_callback(lambda done: done.cancelled() or senders.tell(done))
    return future
