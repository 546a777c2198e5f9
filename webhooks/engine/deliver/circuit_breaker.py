"""Suspends a webhook whose endpoint is away or refuses everything, and ends that after a probe: a circuit breaker.

Closed: all is sent. Open: nothing is sent until the next probe. It opens after SUSPEND_AFTER_ATTEMPTS in a row that
found no endpoint, or when each answer for REFUSED_TOO_LONG was a failure of the endpoint's own (5xx, 429) and several
requests wait for a retry, or while a secret is missing. A webhook with one attempt is never suspended. Half-open: one
delivery probes the endpoint at growing intervals, while all others wait and use up no attempt. Any other answer closes
it, once all tried deliveries are due (endpoint.py). After a save of the webhook one probe goes at once
(lanes.MAY_SEND).
A proxy's answer that the endpoint is away (502, 503, 504) counts as none.
"""

from datetime import datetime, timedelta

from ...models import Health, Webhook
from ...transport.exchange import Outcome

# Attempts in a row that found no endpoint.
SUSPEND_AFTER_ATTEMPTS = 5
# Refusals only, for this time.
REFUSED_TOO_LONG = timedelta(minutes=10)
# Waits before the first probe, the second, …; the last one repeats.
PROBE_SECONDS = (10, 30, 60, 120, 300, 600)


def count(health: Health, outcome: Outcome, now: datetime) -> None:
    """Note an outcome on the health: whether the endpoint was there, or refused. Saves nothing.

    An answer closes the circuit, but not one of refusals that have gone on too long.
    """
    if outcome.unreachable:
        health.unreachable += 1
        return
    health.refused_since = (health.refused_since or now) if outcome.refused else None
    if is_refused(health, now):
        health.unreachable = 0
        return
    close(health)
    if outcome.succeeded:
        health.last_success_at = now


def withhold(health: Health, webhook: Webhook, now: datetime) -> None:
    """Open the circuit: a secret is missing, so no request can be sent. If it is open, put off the next probe.

    Saves nothing.
    """
    health.unreachable, health.refused_since = 0, None
    suspend(health, webhook, now, now, is_outage=True)


def close(health: Health) -> None:
    """Close the circuit of this health: its webhook is no longer suspended. Saves nothing."""
    health.unreachable = health.probes = 0
    health.suspended_since = health.probe_at = None


def keep_open(health: Health, before: Health, now: datetime) -> None:
    """Open the circuit of this health again, as it was `before`, with the first probe due now. Saves nothing."""
    health.unreachable, health.refused_since = before.unreachable, before.refused_since
    health.suspended_since, health.last_error = before.suspended_since, before.last_error
    health.probe_at = now if health.suspended_since else None


def is_open(health: Health, now: datetime) -> bool:
    """Whether the webhook is suspended, or its endpoint has refused everything for long.

    It may have refused everything without being suspended: if only one request waits, the fault may be that request's.
    In both cases the first other answer makes all tried deliveries due.
    """
    return health.suspended_since is not None or is_refused(health, now)


def is_refused(health: Health, now: datetime) -> bool:
    """Whether the endpoint has refused everything for long."""
    return health.refused_since is not None and now - health.refused_since >= REFUSED_TOO_LONG


def suspend(health: Health, webhook: Webhook, began: datetime, now: datetime, *, is_outage: bool) -> None:
    """Open the circuit after SUSPEND_AFTER_ATTEMPTS, or in an outage. If it is open, put off the next probe.

    Saves nothing. A webhook with one attempt is never suspended.
    `began`: when the last attempt did. Before `probe_at` it was no probe: it was under way when the circuit opened, or
    it was a test.
    """
    if health.suspended_since is None:
        if (health.unreachable < SUSPEND_AFTER_ATTEMPTS and not is_outage) or webhook.max_attempts == 1:
            return
        health.suspended_since = now
    elif health.probe_at and began < health.probe_at:
        return
    interval = PROBE_SECONDS[min(health.probes, len(PROBE_SECONDS) - 1)]
    health.probe_at = now + timedelta(seconds=interval)
    health.probes += 1
