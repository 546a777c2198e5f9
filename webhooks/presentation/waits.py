"""Why a delivery is not sent yet, and when it is tried."""

from datetime import datetime
from typing import NamedTuple

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..choices import BackfillStateChoices, StatusChoices
from ..models import Delivery
from . import states
from .moments import moment


class Wait(NamedTuple):
    """Why an open delivery is not sent yet.

    `label` is the reason in a word or two, '' if only its turn is missing; `text` says it in a sentence. `earlier` goes
    first, if it is known. `at` is the time of the next attempt, None if nothing is planned.
    """

    label: str
    text: str
    earlier: Delivery | None = None
    at: datetime | None = None


BEHIND = gettext_lazy('Waits for an earlier change')
RETRYING = gettext_lazy('Retrying')
UNTIL_QUIET = gettext_lazy('Waits until it is quiet')


def wait_of(delivery: Delivery, now: datetime, earlier: Delivery | None = None) -> Wait | None:
    """Return why the delivery is not sent yet at `now`. None: it is closed, or a test that is under way.

    `earlier` comes from models.querysets.earlier_of, if the caller can afford that query. It takes no query itself if
    the webhook's health and backfill are loaded.
    """
    if delivery.status == StatusChoices.UNDECIDED:
        return Wait('', _('A worker evaluates the regular expressions in the conditions. Then it is sent, or goes.'))
    if delivery.status != StatusChoices.PENDING:
        return None
    return _of_webhook(delivery) or _of_delivery(delivery, now, earlier)


def next_attempt_at(delivery: Delivery) -> datetime | None:
    """Return when the delivery is tried next. A time in the past means: at once.

    None: nothing is planned. It is closed, held, or behind another delivery.
    """
    wait = wait_of(delivery, timezone.now())
    return wait.at if wait else None


def _of_webhook(delivery: Delivery) -> Wait | None:
    webhook, health = delivery.webhook, getattr(delivery.webhook, 'health', None)
    if not webhook.enabled:
        text = _('The webhook is disabled. Enable it to send this delivery, before it expires at {time}.')
        return Wait(str(states.DISABLED.label), text.format(time=moment(delivery.expires_at)))
    if webhook.paused:
        text = _('The webhook is paused. Resume it to send this delivery, before it expires at {time}.')
        return Wait(str(states.PAUSED.label), text.format(time=moment(delivery.expires_at)))
    if _is_held_by_backfill(delivery):
        text = _('The backfill is paused. Resume it to send this delivery, before it expires at {time}.')
        return Wait(str(states.PAUSED.label), text.format(time=moment(delivery.expires_at)))
    if health and health.suspended_since:
        if states.refuses(health):
            text = _('The receiver has refused everything since {since}. The next attempt is at {time}.')
        else:
            text = _('The receiver is away. The next attempt is at {time}.')
        told = text.format(since=moment(health.refused_since), time=moment(health.probe_at))
        return Wait(str(states.SUSPENDED.label), told, at=health.probe_at)
    return None


def _is_held_by_backfill(delivery: Delivery) -> bool:
    """Whether its paused backfill holds it. Deliveries with an attempt are finished all the same."""
    if not delivery.backfill or delivery.attempt_count or delivery.attempt_limit or delivery.lapses:
        return False
    backfill = getattr(delivery.webhook, 'backfill', None)
    return backfill is not None and backfill.state == BackfillStateChoices.PAUSED


def _of_delivery(delivery: Delivery, now: datetime, earlier: Delivery | None) -> Wait:
    due = delivery.due_at
    if _is_until_quiet(delivery, now) and not (earlier and earlier.attempt_count):
        return _until_quiet(delivery)
    if delivery.webhook.ordered and (due is None or (earlier and due <= now)):
        return _behind(delivery, earlier)
    if due is None or due <= now:
        return Wait('', _('A worker sends it as soon as it can.'), at=due)
    if not delivery.attempt_count:
        return Wait('', _('It is sent at {time}.').format(time=moment(due)), at=due)
    limit = delivery.attempt_limit or delivery.webhook.max_attempts
    text = _('The last attempt failed. Attempt {number} of {limit} is at {time}.')
    told = text.format(number=delivery.attempt_count + 1, limit=limit, time=moment(due))
    return Wait(str(RETRYING), told, at=due)


def _until_quiet(delivery: Delivery) -> Wait:
    if delivery.change_set:
        text = _('It waits until no more changes come, at the latest until {time}. Then all are sent as one set.')
    else:
        text = _('It waits until its object is quiet, at the latest until {time}. Then its changes are sent as one.')
    return Wait(str(UNTIL_QUIET), text.format(time=moment(delivery.waits_until)), at=delivery.due_at)


def _is_until_quiet(delivery: Delivery, now: datetime) -> bool:
    until, due = delivery.waits_until, delivery.due_at
    return until is not None and until > now and not delivery.attempt_count and (due is None or due > now)


def _behind(delivery: Delivery, earlier: Delivery | None) -> Wait:
    if earlier:
        text = _('Delivery {id} is sent first: it is an earlier change of the same object.').format(id=earlier.pk)
    elif delivery.parts:
        text = _('It is sent with the other changes of its change set.')
    elif delivery.change_set:
        text = _('An earlier change of an object in its change set is sent first.')
    else:
        text = _('An earlier change of the same object is sent first.')
    return Wait(str(BEHIND), text, earlier)
