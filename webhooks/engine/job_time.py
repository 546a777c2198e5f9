"""The time of a job: how long it goes on, and which requests it may still begin.

The queue's other jobs get their turn after JOB_TIME seconds. So do NetBox's, where one worker does them all (--burst).
Normally nothing is begun in the last RUN_OUT of them. Before that the job begins a request if the endpoint is healthy,
or if the endpoint's usual response time still fits. In the first second of its claims it begins anything: otherwise
nobody would ever ask a slow endpoint with a long timeout.

A request that hangs keeps the job until its timeout. Meanwhile the job goes on with quick ones.
"""

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field

from ..constants import JOB_TIME

# In seconds.
RUN_OUT = 10.0
# The first part of a job: anything may be begun in it.
FIRST = 1.0
# An answer that takes longer is slow, and what waits longer for one is a straggler.
QUICK = 1.0


@dataclass(frozen=True)
class Span:
    """For how many seconds something may still be begun, and how long slow endpoints took, by id of the webhook.

    `closed` are ids of webhooks for which nothing may be begun just now.
    """

    left: float = math.inf
    slow: Mapping[int, float] = field(default_factory=dict)
    closed: Collection[int] = ()


ANY_TIME = Span()


class Pace:
    """All times are those of time.monotonic()."""

    def __init__(self, now: float) -> None:
        self._ordinary_until = now + JOB_TIME - RUN_OUT
        self._anything_until: float | None = None
        # When it was begun and until when it may last.
        self._under_way: dict[Hashable, tuple[float, float]] = {}
        self._slow: dict[int, float] = {}

    def is_over(self, now: float) -> bool:
        """Whether nothing more is begun."""
        return self._left(now) <= 0

    def prolong(self, now: float) -> None:
        """Go on for a moment with what is quick: the job cannot end yet."""
        self._ordinary_until = now + QUICK

    def span(self, now: float) -> Span:
        """Return what may be begun now. The first call begins the time in which anything may."""
        if self._anything_until is None:
            self._anything_until = now + FIRST
        return ANY_TIME if now < self._anything_until else Span(self._left(now), self._slow)

    def begin(self, request: Hashable, timeout: float, now: float) -> None:
        """A request is under way. It takes `timeout` seconds at most."""
        # Later, while the others wait for a straggler, none may become one: it would go on for ever.
        if now < self._ordinary_until:
            self._under_way[request] = now, now + timeout

    def end(self, request: Hashable, webhook_id: int, duration: float) -> None:
        """It took so many seconds, and tells whether the endpoint is slow."""
        self._under_way.pop(request, None)
        if duration > QUICK:
            self._slow[webhook_id] = duration
        else:
            self._slow.pop(webhook_id, None)

    def forget(self, request: Hashable) -> None:
        """It is under way no more, and says nothing of an endpoint."""
        self._under_way.pop(request, None)

    def _left(self, now: float) -> float:
        stragglers = [until - QUICK for begun, until in self._under_way.values() if now - begun > QUICK]
        return max((self._ordinary_until, *stragglers)) - now
