"""Pace: how long a job goes on, and what may still be begun in it.

NetBox's other jobs are to have their turn after JOB_TIME seconds. So nothing is begun in the last RUN_OUT of them, and
before that only what should have ended by then: what belongs to an endpoint that is not known to be slow or out of
reach, or is so and still has the time. At the beginning of a job anything is begun, for else a slow endpoint with a
long timeout would never be asked.

A request that hangs all the same keeps the job until its timeout, so meanwhile the others need not wait for it.
"""

import math
from collections.abc import Hashable, Mapping
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
    """For how many seconds something may still be begun, and how long slow endpoints took, by id of the webhook."""

    left: float = math.inf
    slow: Mapping[int, float] = field(default_factory=dict)


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

    def span(self, now: float) -> Span:
        """Return what may be begun now. The first call begins the time in which anything may."""
        if self._anything_until is None:
            self._anything_until = now + FIRST
        return ANY_TIME if now < self._anything_until else Span(self._left(now), self._slow)

    def begin(self, request: Hashable, timeout: float, now: float) -> None:
        # Later, while the others wait for a straggler, none may become one: it would go on for ever.
        if now < self._ordinary_until:
            self._under_way[request] = now, now + timeout

    def end(self, request: Hashable, webhook_id: int, duration: float) -> None:
        self._under_way.pop(request, None)
        if duration > QUICK:
            self._slow[webhook_id] = duration
        else:
            self._slow.pop(webhook_id, None)

    def _left(self, now: float) -> float:
        stragglers = [until - QUICK for begun, until in self._under_way.values() if now - begun > QUICK]
        return max((self._ordinary_until, *stragglers)) - now
