"""The crew of a job: threads that send, a thread that builds what has a template, and a process for suspects.

The job's main thread does all else (runner.py).
"""

from collections.abc import Iterator
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
from .senders import THREADS, Senders


@dataclass(frozen=True)
class Crew:
    senders: Senders
    building: Building
    quarantine: Quarantine


@contextmanager
def opened() -> Iterator[Crew]:
    """Start all of them, and end them. To be entered while the process has one thread."""
    client = Client(THREADS)
    try:
        # Before there are threads.
        with (
            quarantine.opened() as suspects,
            renderer.kept(Webhook.any_is_templated) as aside,
            ThreadPoolExecutor(THREADS, thread_name_prefix='webhooks-send') as pool,
            ThreadPoolExecutor(1, thread_name_prefix='webhooks-build') as builder,
        ):
            senders = Senders(client, pool)
            yield Crew(senders, Building(partial(_submit, senders, builder, aside)), suspects)
            builder.submit(connections.close_all)
    finally:
        client.close()


def _submit(senders: Senders, builder: ThreadPoolExecutor, aside: Context, *call: Any) -> Future:
    """Let the other thread do something, and whoever waits for answers hear of its end."""
    future = builder.submit(aside.run, *call)
    future.add_done_callback(lambda done: done.cancelled() or senders.tell(done))
    return future
