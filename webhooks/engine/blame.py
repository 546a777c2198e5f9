"""Blame: a suspect's process has died, and what it had in hand is tried again after a while, or fails by name.

Called by the worker that has forked the process, and lives (quarantine.py). One that dies too counts nothing.
"""

import logging
import random
import uuid
from datetime import datetime, timedelta

from django.db.models import F

from ..choices import StatusChoices
from ..models import Delivery, Event
from ..models.querysets import LONG_COLUMNS
from . import backoff, death, event_claims, lanes, rescue
from .outcomes import Judged
from .rescue import SUSPECT
from .verdict import fail, try_again

logger = logging.getLogger('webhooks.quarantine')


def count_death(lease: uuid.UUID, cause: str) -> bool:
    """Count the death for what is held under the lease. Returns False where its lane is busy: to be called again.

    If the lease has run out, it was the worker that did not go on, and nothing is counted.
    """
    with lanes.turn() as now:
        in_hand = {'lease': lease, 'lease_until__gt': now}
        sending = Delivery.objects.filter(status=StatusChoices.SENDING, **in_hand)
        webhook_ids = set(sending.values_list('webhook_id', flat=True))
        if lanes.take(webhook_ids) < webhook_ids:
            return False
        for event in Event.objects.filter(dispatched_at=None, **in_hand).defer(*LONG_COLUMNS):
            _count_for_event(event, cause, now)
        held = rescue.fetch(sending.values_list('pk', flat=True))
        rescue.save(lease, [_judge(one, cause, now) for one in held], now)
    return True


def _count_for_event(event: Event, cause: str, now: datetime) -> None:
    deaths = event_claims.deaths(event) + 1
    error = death.sentence(deaths, cause)
    # Whoever claims it after the last one does not render it.
    wait = timedelta() if death.is_last(deaths) else backoff.delay(deaths, random.random())
    counted = {'dispatch_count': F('dispatch_count') + 1, 'lease_until': now + wait, 'error': error}
    Event.objects.filter(pk=event.pk).update(**counted)
    logger.error('event=%s error="%s"', event.uuid, error)


def _judge(one: Delivery, cause: str, now: datetime) -> Judged:
    lapses = one.lapses + 1
    deaths = lapses - SUSPECT
    verdict = fail(one) if death.is_last(deaths) else try_again(one, now + backoff.delay(deaths, random.random()))
    return rescue.judge(one, death.sentence(deaths, cause), lapses, verdict, now)
