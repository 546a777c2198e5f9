"""Building: claimed deliveries get their requests, and one that is slow to build holds up no other.

What needs no template is built at once. What does is built in another thread, which waits for the renderer: a template
may take two seconds. A webhook that was slow to build has a thread apart, with all that are slow, and one delivery of
it is claimed at a time.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from django.db import connection

from ..interruptions import BROKEN_OFF
from ..models import Delivery
from ..payload.http_request import Builder
from . import lanes
from .claimed import Claimed, prepare

# Seconds after which nothing more is built at once: what is left goes back.
BUDGET = 0.1
# Seconds after which a request was slow to build, by a template or by what a plugin adds.
SLOW = 0.02


@dataclass
class Built:
    """A delivery with its request, or the reason why it has none; when it was claimed (time.monotonic())."""

    one: Claimed
    claimed_at: float


class Building:
    """What is being built. `submit` lets a function be called in another thread, that of what is `slow` or not.

    `slow`: ids of webhooks whose last request was slow to build. It is kept up to date here.
    """

    def __init__(self, submit: Callable[..., Future], slow: set[int]) -> None:
        self._submit = submit
        self._under_way: dict[Future, tuple[Delivery, float]] = {}
        self.slow = slow
        # {id: id of its webhook} of what was not begun, or cannot be waited for.
        self.left: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def deliveries(self) -> list[Delivery]:
        return [delivery for delivery, _claimed_at in self._under_way.values()]

    def begin(self, found: Sequence[Delivery], builders: Mapping[int, Builder], claimed_at: float) -> Iterator[Built]:
        """Build, and yield what is built at once, what is built soon first."""
        plain = []
        for delivery in found:
            builder = builders[delivery.webhook_id]
            if builder.is_templated:
                future = self._submit(delivery.webhook_id in self.slow, _timed, delivery, builder)
                self._under_way[future] = delivery, claimed_at
            else:
                plain.append(delivery)
        places = _places(plain)
        plain.sort(key=lambda each: (each.webhook_id in self.slow, places[each.pk]))
        end = time.monotonic() + BUDGET
        for position, delivery in enumerate(plain):
            if position and time.monotonic() > end:
                self.left |= {late.pk: late.webhook_id for late in plain[position:]}
                return
            one, took = _timed(delivery, builders[delivery.webhook_id])
            self._note(delivery.webhook_id, took)
            if one is None:
                self.left[delivery.pk] = delivery.webhook_id
            else:
                yield Built(one, claimed_at)

    def end(self, future: Future) -> Built | None:
        """Return what another thread has built, or None. Was it slow, what waits there of its webhook goes back."""
        delivery, claimed_at = self._under_way.pop(future)
        one, took = future.result()
        self._note(delivery.webhook_id, took)
        if delivery.webhook_id in self.slow:
            self._leave(delivery.webhook_id)
        if one is None:
            self.left[delivery.pk] = delivery.webhook_id
            return None
        return Built(one, claimed_at)

    def take_left(self) -> dict[int, int]:
        """Return what goes back, {id: id of its webhook}, and forget it."""
        left, self.left = self.left, {}
        return left

    def _note(self, webhook_id: int, took: float) -> None:
        if took > SLOW:
            self.slow.add(webhook_id)
        else:
            self.slow.discard(webhook_id)

    def _leave(self, webhook_id: int) -> None:
        for future, (delivery, _claimed_at) in list(self._under_way.items()):
            if delivery.webhook_id == webhook_id and future.cancel():
                del self._under_way[future]
                self.left[delivery.pk] = webhook_id


def _places(deliveries: Sequence[Delivery]) -> dict[int, int]:
    """Return {id of a delivery: its place among those of its webhook}: the first of each come before the others."""
    counts: Counter[int] = Counter()
    places = {}
    for delivery in deliveries:
        counts[delivery.webhook_id] += 1
        places[delivery.pk] = counts[delivery.webhook_id]
    return places


def _timed(delivery: Delivery, builder: Builder) -> tuple[Claimed | None, float]:
    began = time.monotonic()
    return _prepare(delivery, builder), time.monotonic() - began


def _prepare(delivery: Delivery, builder: Builder) -> Claimed | None:
    """Build the request, again if PostgreSQL has broken that off. Returns None if it is away: no job ends by that."""
    try:
        return prepare(delivery, builder, time.time())
    except BROKEN_OFF as error:
        lanes.recover(error)
    try:
        connection.ensure_connection()  # as long as that answers, the delivery is to blame
        return prepare(delivery, builder, time.time())
    except BROKEN_OFF as error:
        lanes.recover(error)
        return None
