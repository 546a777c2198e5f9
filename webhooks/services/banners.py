"""Banners on a webhook's page: why it does not send, and the way out."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _

from .. import conf
from ..exceptions import DecryptionError
from ..models import Health, Webhook
from ..models.fields import Sealed
from ..outbox import redis_queue
from ..presentation import states
from ..presentation.moments import moment
from . import actions, waiting
from .actions import Action

# If the oldest change waits longer, a banner offers to send all now.
LONG_WAIT = timedelta(minutes=1)


@dataclass(frozen=True)
class Banner:
    """A banner, with a button if there is an `action`.

    `kind` is from Bootstrap: danger (changes are lost, or nothing is sent), warning, info, secondary.
    """

    kind: str
    icon: str
    title: str
    text: str
    action: Action | None = None


def of(webhook: Webhook) -> list[Banner]:
    """Return the banners for a webhook, the most important first.

    Counts its waiting deliveries, and asks Redis for workers.
    """
    return [
        *_definition(webhook),
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
    for name in ('secret', 'additional_headers'):
        if not _is_readable(getattr(webhook, name)):
            yield _undecryptable(name, way_out)
    if webhook.is_previous_secret_valid and not _is_readable(webhook.previous_secret):
        yield _undecryptable('previous_secret', _until_it_expires(webhook))


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
    health = getattr(webhook, 'health', None)
    if not webhook.enabled:
        yield _gone(health) if health and states.state_of(webhook) is states.GONE else _disabled()
    elif webhook.paused:
        yield Banner(
            'warning',
            'pause-circle-outline',
            states.PAUSED.label,
            _('Changes are recorded, not sent. Resume it before they expire.'),
        )
    elif health and health.suspended_since:
        yield _suspended(health)


def _gone(health: Health) -> Banner:
    return Banner(
        'danger',
        'link-variant-off',
        states.GONE.label,
        _(
            'The receiver answered “410 Gone” on {when}: it wants no more requests. Since then, changes are not '
            'recorded. Check the URL, then edit the webhook to enable it.'
        ).format(when=moment(health.last_attempt_at)),
    )


def _disabled() -> Banner:
    return Banner(
        'secondary',
        'information-outline',
        states.DISABLED.label,
        _('New changes are not recorded. Pending deliveries wait until they expire. Edit the webhook to enable it.'),
    )


def _suspended(health: Health) -> Banner:
    if states.refuses(health):
        since = health.refused_since
        text = _(
            'The receiver has refused everything since {since}: {error}. The next attempt is at {probe}. All waiting '
            'deliveries are sent as soon as it accepts one. To try now, send a test.'
        )
    else:
        since = health.suspended_since
        text = _(
            'The receiver has been away since {since}: {error}. The next attempt is at {probe}. All waiting '
            'deliveries are sent as soon as it answers. To try now, send a test.'
        )
    told = text.format(since=moment(since), error=health.last_error.rstrip('.'), probe=moment(health.probe_at))
    return Banner('warning', 'alert-outline', states.SUSPENDED.label, told)


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
            _(
                'Changes are not recorded, and nothing is sent. To switch the plugin on, set "enabled" (or '
                'WEBHOOKS_ENABLED) to True.'
            ),
        )
    elif webhook.enabled and not (workers := redis_queue.count_workers()):
        yield _no_redis() if workers is None else _no_worker()


def _waiting(webhook: Webhook) -> Iterator[Banner]:
    if waiting.is_held(webhook):
        return
    found = waiting.measure(webhook)
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
        _('Changes are recorded, and running workers send them. Check that Redis is running.'),
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
