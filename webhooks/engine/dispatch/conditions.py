"""Are a webhook's conditions met? By NetBox's ConditionSet.

What holds a regular expression is evaluated in a renderer, which gives it up in time (templating/conditions.py). All
others take a moment only.

An expression that was given up is likely to be given up again, and everybody waits meanwhile. So after TIME_OUTS in a
row the webhook's conditions stay undecided for REST seconds: they count as not met, and nothing is evaluated. NetBox's
cache counts the time-outs, for all workers and for the webhook's page. Where the cache is away, nobody counts.
"""

import json
import logging
import time
from contextlib import suppress
from typing import Any

from django.core.cache import cache
from extras.conditions import Condition, ConditionSet
from redis import RedisError

from ...models import Webhook
from ...storable import nodes
from ...templating import renderer
from ...templating.conditions import TooSlow

logger = logging.getLogger('webhooks.dispatch')

TIME_OUTS, REST = 3, 60
ENCODER = json.JSONEncoder(ensure_ascii=False)


class Decider:
    """Decides what webhooks get, event by event. `seconds` is the time that it took for conditions."""

    def __init__(self) -> None:
        self.seconds = 0.0
        # {key of a webhook: time-outs in a row}, as far as they were looked up.
        self._time_outs: dict[str, int] = {}

    def are_met(self, webhook: Webhook, data: dict[str, Any]) -> bool:
        """Return whether the webhook's conditions are met: not while they are undecided. Raises InvalidCondition."""
        began = time.monotonic()
        try:
            return self._are_met(webhook, data)
        finally:
            self.seconds += time.monotonic() - began

    def _are_met(self, webhook: Webhook, data: dict[str, Any]) -> bool:
        key = _key(webhook)
        before = self._time_outs[key] if key in self._time_outs else _count(key)
        if before >= TIME_OUTS:
            return False
        try:
            met = are_met(webhook.conditions, data)
        except TooSlow:
            self._time_outs.pop(key, None)
            _note(webhook, before + 1)
            raise
        self._time_outs[key] = 0
        if before:
            _note(webhook, 0)
        return met


def are_undecided(webhook: Webhook) -> bool:
    """Return whether nothing is evaluated for now: too often in a row the webhook's conditions took too long."""
    return _count(_key(webhook)) >= TIME_OUTS


def are_met(conditions: dict[str, Any], data: dict[str, Any]) -> bool:
    """Raises InvalidCondition for conditions that do not fit the data, and TooSlow, which is one, if they take long."""
    if _has_pattern(conditions):
        return renderer.are_met(ENCODER.encode(conditions), ENCODER.encode(data))
    return ConditionSet(conditions).eval(data)


def _has_pattern(conditions: dict[str, Any]) -> bool:
    return any(isinstance(node, dict) and node.get('op') == Condition.REGEX for node in nodes(conditions))


def _key(webhook: Webhook) -> str:
    # Whoever edits the webhook may have mended it.
    return f'webhooks:conditions:{webhook.pk}:{webhook.last_updated}'


def _count(key: str) -> int:
    with suppress(RedisError):
        return cache.get(key, 0)
    return 0


def _note(webhook: Webhook, time_outs: int) -> None:
    with suppress(RedisError):
        cache.set(_key(webhook), time_outs, REST)
    if time_outs == TIME_OUTS:
        logger.warning('webhook=%s conditions=undecided (not met) for=%ss', webhook.pk, REST)
