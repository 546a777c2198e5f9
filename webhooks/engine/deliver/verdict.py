"""Decides about a delivery after an attempt: delivered, failed, or retrying until the next attempt.

It reads the delivery, its event, its webhook and the webhook's health, and changes nothing. A Retry-After counts for
some answers; backoff.py has the waits.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ...delivery_states import STATUS_OF_STATE, DeliveryState
from ...models import Delivery
from ...transport.exchange import Outcome
from . import backoff, circuit_breaker

# Answers that may ask for a wait (Retry-After).
RETRY_AFTER_STATUSES = (429, 503)
# A delivery fails after this many attempts. The column holds some more, for redeliveries.
MAX_DELIVERY_ATTEMPTS = 32_000


@dataclass
class Verdict:
    """The new state of a delivery, with one attempt more. `due_at`: when it is tried again, None if it is closed."""

    state: str
    attempt_limit: int | None
    due_at: datetime | None = None
    lapses: int = 0

    @property
    def status(self) -> str:
        """Return its status for the counts of its webhook."""
        return STATUS_OF_STATE[self.state]


def fail(delivery: Delivery) -> Verdict:
    """Return the verdict that the delivery has failed: nothing more is tried."""
    return Verdict(DeliveryState.FAILED, delivery.attempt_limit)


def try_again(delivery: Delivery, due_at: datetime) -> Verdict:
    """Return the verdict that it is tried again, with as many attempts left as before."""
    limit = (delivery.attempt_limit or delivery.webhook.max_attempts) + 1
    return Verdict(DeliveryState.RETRYING, limit, due_at)


def decide(delivery: Delivery, outcome: Outcome, now: datetime, chance: float) -> Verdict:
    """Return the verdict after an attempt with this outcome. `chance`, uniform in [0, 1), spreads the wait."""
    tries = delivery.attempt_count + 1
    limit = delivery.attempt_limit
    if outcome.succeeded:
        return Verdict(DeliveryState.DELIVERED, limit)
    if tries >= MAX_DELIVERY_ATTEMPTS:
        return fail(delivery)
    is_out = outcome.unreachable or outcome.refused
    spends_none = outcome.withheld or (is_out and delivery.webhook.health.suspended_since)
    if spends_none and not delivery.event.test:
        # A probe spends no attempt. It is not due at once: the time of the next probe may not be written yet.
        shortest = timedelta(seconds=circuit_breaker.PROBE_SECONDS[0])
        return try_again(delivery, now + max(shortest, _asked(outcome, now)))
    if outcome.unsendable or tries >= (limit or delivery.webhook.max_attempts):
        return fail(delivery)
    wait = backoff.delay(_spent(delivery) + 1, chance)
    return Verdict(DeliveryState.RETRYING, limit, now + max(wait, _asked(outcome, now)))


def _spent(delivery: Delivery) -> int:
    """Return how many attempts it has spent. A probe, and the attempt of a stopped worker, raised its limit instead.

    If somebody has changed `max_attempts` since, the number is off by the difference.
    """
    most = delivery.webhook.max_attempts
    left = (delivery.attempt_limit or most) - delivery.attempt_count
    return min(max(most - left, 0), delivery.attempt_count)


def _asked(outcome: Outcome, now: datetime) -> timedelta:
    """Return the wait that the endpoint asks for."""
    if outcome.status not in RETRY_AFTER_STATUSES:
        return timedelta()
    return backoff.retry_after(outcome.headers.get('Retry-After'), now) or timedelta()
