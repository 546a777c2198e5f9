"""The circuit breaker of an endpoint: a webhook whose endpoint cannot be reached is suspended.

Closed: all is sent. Open, after SUSPEND_AFTER attempts in a row that found no endpoint: nothing is sent until the next
probe. Half-open: one delivery probes the endpoint at growing intervals, while the others wait and use up no attempt.
The first answer closes it, but not a proxy's that the endpoint is away (502, 503, 504).
"""

from datetime import datetime, timedelta

from ...models import Health, Webhook
from ...transport.exchange import Outcome

SUSPEND_AFTER = 5
PROBE_INTERVALS = (10, 30, 60, 120, 300, 600)


def is_suspended(webhook: Webhook) -> bool:
    """Whether the circuit is open, as its health was read: it costs a query where that was not."""
    return webhook.health.suspended_since is not None


def count(health: Health, outcome: Outcome, now: datetime) -> None:
    """Note whether the endpoint was there. Its answer closes the circuit. Saves nothing."""
    if outcome.unreachable:
        health.unreachable += 1
        return
    close(health)
    if outcome.succeeded:
        health.last_success_at = now


def close(health: Health) -> None:
    """Close the circuit. Saves nothing."""
    health.unreachable = health.probes = 0
    health.suspended_since = health.probe_at = None


def suspend(health: Health, webhook: Webhook, began: datetime, now: datetime) -> None:
    """Open the circuit where too many attempts in a row found no endpoint, or put off the next probe. Saves nothing.

    `began` is when the last of the attempts did. Before `probe_at` it was no probe: it was under way when the circuit
    opened, or it was a test. Many of these would put off the first probe by minutes.
    """
    if health.suspended_since is None:
        if health.unreachable < SUSPEND_AFTER or webhook.max_attempts == 1:
            return
        health.suspended_since = now
    elif health.probe_at and began < health.probe_at:
        return
    interval = PROBE_INTERVALS[min(health.probes, len(PROBE_INTERVALS) - 1)]
    health.probe_at = now + timedelta(seconds=interval)
    health.probes += 1
