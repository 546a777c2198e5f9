"""Says why a webhook or one of its deliveries is not sent, how to mend that, and when it is tried next.

Begin here to learn why a delivery waits. `banners_of` says why a webhook sends nothing, for its page; `wait_of` gives
the first reason of a delivery that applies, for its page and for lists:

1. Its conditions, or the filter of a list, are still to be evaluated, even while its webhook is paused.
2. Its webhook is disabled, paused or suspended (`hindrance_of`). A suspended one sends a single delivery at `probe_at`:
   not necessarily this one.
3. Its backfill is paused, and it is untried.
4. It is held. Or it is due, and an earlier delivery of its object waits. Or its change set has no parts yet, even as
   earlier changes of its transaction have some: these go first (queue.LEADS_SET).
5. Its state says until when it waits (delivery_states.py). READY is stored as `pending`.

A held delivery waits for an earlier one of its object, for its change set, or for the first of its part: that one has
the time of the next request (engine/deliver/change_sets.py). For a while others are held too: those of a webhook that
is no longer `ordered`, and untried ones of a canceled backfill (engine/tidy/loop.py).

Otherwise it is due, and goes in its turn. If it has waited for minutes, and `webhooks_worker` has no row with the role
`send`, or `webhooks_health.owner_id` stays NULL, the log of the workers says why. The text does not tell apart:

- a worker has it in hand (`webhooks_worker` lists it), or others of its webhook go first,
- its webhook has as many requests under way, or as many a second, as it may (Lane.room), or rests: after two builds
  that ran out of time, for want of an access token, or as this machine was short of something,
- all threads are taken, large payloads fill the memory, a turn is full, or a backfill lets changes go first
  (engine/deliver/choice.py, engine/deliver/loop.py),
- no worker has its lane yet (`owner_id`), or somebody has locked that; its receiver has just answered
  410; or the log of a deleted webhook with its id is still being removed (engine/deliver/lanes.py),
- it is in a later part of a change set that was redelivered, and an earlier part goes first,
- its transaction was committed more than two seconds after it became due: then it is found within ten seconds more
  (engine/each.py),
- it has expired, and is about to fail: 50 of a webhook at a time,
- it is a suspect, and its process tries others first (engine/process/suspects.py),
- no worker runs, or the plugin is off: the page of the webhook says that, a few minutes late if the worker was killed.
  Or `migrate` has not ended.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..choices import BackfillStateChoices
from ..delivery_states import WAITING_STATES, DeliveryState
from ..exceptions import DecryptionError
from ..models import Delivery, Health, Webhook
from ..models.fields import Sealed
from ..outbox import redis_queue
from ..presentation import states
from ..presentation.moments import moment
from ..presentation.states import State
from . import actions, send_waiting, switching
from .actions import Action

# If the oldest change waits longer, a banner offers to send all now.
LONG_WAIT = timedelta(minutes=1)

BEHIND = gettext_lazy('Waits for an earlier change')
IN_SET = gettext_lazy('Waits for its change set')
RETRYING = gettext_lazy('Retrying')
UNTIL_QUIET = gettext_lazy('Waits until it is quiet')

#
# A webhook that sends nothing
#


@dataclass(frozen=True)
class Banner:
    """A banner, with a button if there is an `action`.

    `kind` is from Bootstrap: danger (changes are lost or fail until somebody acts), warning (nothing is sent),
    secondary (it was switched off by hand), info.
    """

    kind: str
    icon: str
    title: str
    text: str
    action: Action | None = None


class Hindrance(NamedTuple):
    """Why a webhook sends none of its deliveries now.

    `label` is the reason in a word. `banner` is for the webhook's page. `of_delivery` is for the page of a delivery; it
    may contain {time}, for its expiry. `outlook` is for a user who is about to redeliver. `at` is the time of the next
    attempt, None if nothing is planned.
    """

    label: str
    banner: Banner
    of_delivery: str
    outlook: str
    at: datetime | None = None


def hindrance_of(webhook: Webhook) -> Hindrance | None:
    """Return why the webhook sends nothing, None if it sends. Takes no query if its health is loaded."""
    state = states.hindering(webhook)
    if state is states.PAUSED:
        text = _('Changes are recorded but not sent. Resume the webhook before they expire.')
        return Hindrance(
            state.label,
            Banner('warning', 'pause-circle-outline', state.label, text),
            _('The webhook is paused. Resume it to send this delivery, before it expires at {time}.'),
            _('Nothing is sent until you resume it.'),
        )
    if state is states.SUSPENDED:
        return _suspended(webhook.health)
    return _disabled(webhook, state) if state else None


def _disabled(webhook: Webhook, state: State) -> Hindrance:
    if state is states.GONE:
        text = _(
            'The receiver answered “410 Gone” on {when}: it wants no more requests. Since then, changes are not '
            'recorded. Check the URL, then edit the webhook to enable it.'
        ).format(when=moment(webhook.health.last_attempt_at))
        banner = Banner('danger', 'link-variant-off', state.label, text)
    else:
        text = _(
            'New changes are not recorded. Pending deliveries wait until they expire. Edit the webhook to enable it.'
        )
        banner = Banner('secondary', 'information-outline', state.label, text)
    return Hindrance(
        states.DISABLED.label,
        banner,
        _('The webhook is disabled. Enable it to send this delivery, before it expires at {time}.'),
        _('Nothing is sent until you enable it.'),
    )


def _suspended(health: Health) -> Hindrance:
    since = health.suspended_since
    outlook = _('The receiver is unreachable: they wait until it answers.')
    if states.refuses(health):
        since = health.refused_since
        text = _(
            'The receiver has refused everything since {since}: {error}. The next attempt is at {probe}. All waiting '
            'deliveries are sent as soon as it accepts one. To try now, send a test.'
        )
        outlook = _('The receiver refuses everything: they wait until it accepts one.')
        of_delivery = _('The receiver has refused everything since {since}. The next attempt is at {time}.')
    elif states.lacks_secret(health):
        text = _(
            'A secret has been missing since {since}: {error}. Workers look for it again at {probe}. All waiting '
            'deliveries are sent once it is available.'
        )
        outlook = _('A secret is missing: they wait until it is available.')
        of_delivery = _('A secret is missing: see the webhook. Workers look for it again at {time}.')
    else:
        text = _(
            'The receiver has been unreachable since {since}: {error}. The next attempt is at {probe}. All waiting '
            'deliveries are sent as soon as it answers. To try now, send a test.'
        )
        of_delivery = _('The receiver is unreachable. The next attempt is at {time}.')
    probe, label = moment(health.probe_at), states.SUSPENDED.label
    shown = text.format(since=moment(since), error=health.last_error.rstrip('.'), probe=probe)
    return Hindrance(
        label,
        Banner('warning', 'alert-outline', label, shown),
        of_delivery.format(since=moment(since), time=probe),
        outlook,
        health.probe_at,
    )


#
# On the page of a webhook
#


def banners_of(webhook: Webhook) -> list[Banner]:
    """Return the banners for a webhook, the most important first.

    Counts its waiting deliveries, and asks Redis for workers.
    """
    return [
        *_definition(webhook),
        *_managed(webhook),
        *_state(webhook),
        *_subscription(webhook),
        *_installation(webhook),
        *_waiting(webhook),
    ]


def _definition(webhook: Webhook) -> Iterator[Banner]:
    way_out = _(
        'The key has changed. All deliveries fail until you enter the value again, or put the old key (or the old '
        'SECRET_KEY) into the setting encryption_keys.'
    )
    for name in ('payload_url', 'secret', 'additional_headers'):
        if not _is_readable(getattr(webhook, name)):
            yield _undecryptable(name, way_out)
    if webhook.is_previous_secret_valid and not _is_readable(webhook.previous_secret):
        yield _undecryptable('previous_secret', _until_it_expires(webhook))


def _managed(webhook: Webhook) -> Iterator[Banner]:
    """Yield the banner of a webhook that a document keeps."""
    if webhook.managed_by:
        title = _('Managed by the document “{source}”').format(source=webhook.managed_by)
        yield Banner('info', 'file-document-edit', title, webhook.managed_note)


def _is_readable(sealed: Sealed) -> bool:
    try:
        sealed.reveal()
    except DecryptionError:
        return False
    return True


def _undecryptable(name: str, way_out: str) -> Banner:
    title = _('Stored value cannot be decrypted: {field}').format(field=Webhook._meta.get_field(name).verbose_name)
    return Banner('danger', 'key-alert', title, way_out)


def _until_it_expires(webhook: Webhook) -> str:
    return _(
        'The key has changed. All deliveries fail until {until}, when this value expires. To send earlier, rotate the '
        'secret, or put the old key (or the old SECRET_KEY) into the setting encryption_keys.'
    ).format(until=moment(webhook.previous_secret_expires))


def _state(webhook: Webhook) -> Iterator[Banner]:
    if hindrance := hindrance_of(webhook):
        yield hindrance.banner


def _subscription(webhook: Webhook) -> Iterator[Banner]:
    if states.is_used(webhook):
        return
    yield Banner(
        'warning',
        'help-circle-outline',
        states.UNUSED.label,
        _(
            'The webhook has no object types, and no enabled event rule uses it. Edit the webhook to choose object '
            'types, or choose it in an event rule.'
        ),
    )


def _installation(webhook: Webhook) -> Iterator[Banner]:
    if not conf.get().enabled:
        yield Banner(
            'danger',
            'power-plug-off-outline',
            _('Webhooks are off'),
            str(switching.NOT_RECORDED),
        )
    elif webhook.enabled and not (workers := redis_queue.count_workers()):
        yield _no_redis() if workers is None else _no_worker()


def _waiting(webhook: Webhook) -> Iterator[Banner]:
    if webhook.paused or not webhook.enabled:
        return
    found = send_waiting.measure(webhook)
    if found.since is None or timezone.now() - found.since < LONG_WAIT:
        return
    text = _('The oldest change has waited for {age}. You can send all now, or only the latest changes.')
    yield Banner(
        'info',
        'tray-full',
        _('Waiting: {figures}').format(figures=found),
        text.format(age=timesince(found.since)),
        actions.SEND_WAITING,
    )


def _no_redis() -> Banner:
    return Banner(
        'danger',
        'database-off-outline',
        _('Redis cannot be reached'),
        str(switching.NO_REDIS),
    )


def _no_worker() -> Banner:
    settings = conf.get()
    text = _('Changes are recorded, but not sent. Start the service {worker}, a worker for the queue “{queue}”.')
    return Banner(
        'danger',
        'account-off-outline',
        _('No worker is running'),
        text.format(queue=settings.queue, worker=settings.worker),
    )


#
# Reasons of a delivery
#


class Wait(NamedTuple):
    """Why an open delivery is not sent yet.

    `label` is the reason in a few words, '' if it is undecided or only its turn is missing; `text` says it in a
    sentence. `earlier` goes first, if it is known. `at` is the time of the next attempt, None if nothing is planned. If
    the webhook is suspended, that is its next probe, perhaps with another delivery.
    """

    label: str
    text: str
    earlier: Delivery | None = None
    at: datetime | None = None


def wait_of(delivery: Delivery, now: datetime, earlier: Delivery | None = None) -> Wait | None:
    """Return why the delivery is not sent yet at `now`. None: it is closed, or a test that is under way.

    `earlier` comes from models.querysets.earlier_of, if the caller can afford that query. It takes no query itself if
    its event is loaded, and its webhook's health and backfill.
    """
    if delivery.state == DeliveryState.UNDECIDED:
        return _undecided(delivery.webhook)
    if delivery.state not in WAITING_STATES:
        return None
    return _of_webhook(delivery) or _of_state(delivery, now, earlier)


def _undecided(webhook: Webhook) -> Wait:
    if webhook.filters:
        text = _('A worker applies the filter of the list. If that fails, the page of the webhook says why.')
    else:
        text = _('A worker evaluates the conditions. If they are met, the delivery is sent; otherwise it is removed.')
    return Wait('', text)


def next_attempt_at(delivery: Delivery) -> datetime | None:
    """Return when the delivery is tried next. A time in the past means: in its turn.

    None: nothing is planned. It is closed or undecided, it waits for another delivery, or somebody has switched off or
    paused its webhook or backfill.
    """
    wait = wait_of(delivery, timezone.now())
    return wait.at if wait else None


def _of_webhook(delivery: Delivery) -> Wait | None:
    if hindrance := hindrance_of(delivery.webhook):
        text = hindrance.of_delivery.replace('{time}', moment(delivery.expires_at))
        return Wait(str(hindrance.label), text, at=hindrance.at)
    if _is_held_by_backfill(delivery):
        text = _('The backfill is paused. Resume it to send this delivery, before it expires at {time}.')
        return Wait(str(states.PAUSED.label), text.format(time=moment(delivery.expires_at)))
    return None


def _is_held_by_backfill(delivery: Delivery) -> bool:
    """Whether its paused backfill holds it. Deliveries with an attempt are finished all the same."""
    if not delivery.backfill or delivery.attempt_count:
        return False
    backfill = getattr(delivery.webhook, 'backfill', None)
    return backfill is not None and backfill.state == BackfillStateChoices.PAUSED and delivery.event.backfill


def _of_state(delivery: Delivery, now: datetime, earlier: Delivery | None) -> Wait:
    is_due = delivery.due_at is None or delivery.due_at <= now
    earlier = earlier if delivery.webhook.ordered else None
    # One of a set without parts is due, and stands for all. So its time says nothing either.
    has_no_parts = delivery.change_set is not None and not delivery.parts
    if (earlier and is_due) or has_no_parts or delivery.state == DeliveryState.HELD:
        return _behind(delivery, earlier)
    if is_due:
        return Wait('', _('A worker sends it as soon as it can.'), at=delivery.due_at)
    return OF_STATE[delivery.state](delivery)


def _in_turn(delivery: Delivery) -> Wait:
    if delivery.parts:
        # Each second the engine looks again whether it is still behind (PUT_OFF_PARTS in engine/deliver/order.py).
        text = _('An earlier change of an object in its change set is sent first.')
        return Wait(str(IN_SET), text, at=delivery.due_at)
    return Wait('', _('It is sent at {time}.').format(time=moment(delivery.due_at)), at=delivery.due_at)


def _until_quiet(delivery: Delivery) -> Wait:
    if delivery.webhook.quiet is None:
        return _in_turn(delivery)
    text = _('It waits until its object is quiet, at the latest until {time}. Then its changes are sent as one.')
    return Wait(str(UNTIL_QUIET), text.format(time=moment(delivery.waits_until)), at=delivery.due_at)


def _until_next_attempt(delivery: Delivery) -> Wait:
    limit = delivery.attempt_limit or delivery.webhook.max_attempts
    text = _('The last attempt failed. Attempt {number} of {limit} is at {time}.')
    shown = text.format(number=delivery.attempt_count + 1, limit=limit, time=moment(delivery.due_at))
    return Wait(str(RETRYING), shown, at=delivery.due_at)


def _until_request_ended(delivery: Delivery) -> Wait:
    text = _('Its worker stopped during the request. It is sent again at {time}.')
    return Wait(str(RETRYING), text.format(time=moment(delivery.due_at)), at=delivery.due_at)


def _until_tried_alone(delivery: Delivery) -> Wait:
    text = _('Two workers stopped while they were sending it. It is tried alone at {time}.')
    return Wait(str(RETRYING), text.format(time=moment(delivery.due_at)), at=delivery.due_at)


# How to explain a delivery that is not due yet.
OF_STATE: Mapping[str, Callable[[Delivery], Wait]] = {
    DeliveryState.READY: _in_turn,
    DeliveryState.RESTING: _until_quiet,
    DeliveryState.RETRYING: _until_next_attempt,
    DeliveryState.DOUBTFUL: _until_request_ended,
    DeliveryState.SUSPECT: _until_tried_alone,
}


def _behind(delivery: Delivery, earlier: Delivery | None) -> Wait:
    if earlier:
        text = _('Delivery {id} is sent first: it is an earlier change of the same object.').format(id=earlier.pk)
    elif delivery.change_set:
        return Wait(str(IN_SET), _of_change_set(delivery))
    else:
        text = _('An earlier change of the same object is sent first.')
    return Wait(str(BEHIND), text, earlier)


def _of_change_set(delivery: Delivery) -> str:
    if not delivery.parts:
        return _('Its change set is still being collected, or waits for an earlier change of one of its objects.')
    if delivery.part > 1:
        return _('It is sent with the other changes of its part, after the earlier parts of its change set.')
    return _('It is sent with the other changes of its change set.')
