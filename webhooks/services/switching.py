"""Pauses and resumes webhooks, and says whether the plugin and a webhook are on."""

from django.contrib import messages
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from utilities.exceptions import PermissionsViolation

from .. import conf
from ..exceptions import DefinitionError
from ..models import Webhook
from ..presentation import states
from ..visibility import Reader, permitted

PLUGIN_OFF = gettext_lazy('Changes are not sent: the setting "enabled" (or WEBHOOKS_ENABLED) is not True.')
NOT_RECORDED = gettext_lazy(
    'Changes are not recorded, and nothing is sent. To switch the plugin on, set "enabled" (or WEBHOOKS_ENABLED) to '
    'True.'
)
NO_REDIS = gettext_lazy('Changes are recorded, and running workers send them. Check that Redis is running.')


def check_on(webhook: Webhook) -> None:
    """Raise DefinitionError if the webhook is disabled, or the plugin is off."""
    if not conf.get().enabled:
        raise DefinitionError('enabled', str(PLUGIN_OFF))
    if not webhook.enabled:
        raise DefinitionError('enabled', _('The webhook is disabled. Enable it first.'))


def check_sends(webhook: Webhook) -> None:
    """Raise DefinitionError if nothing of the webhook is sent: it is disabled or paused, or the plugin is off."""
    check_on(webhook)
    if webhook.paused:
        raise DefinitionError('paused', _('The webhook is paused. Resume it first.'))


def with_warning(text: str) -> str:
    """Return a message to the user. It says so if the plugin is off."""
    return text if conf.get().enabled else f'{text} {PLUGIN_OFF}'


@transaction.atomic
def switch(webhook: Webhook, user: Reader | None = None, *, paused: bool) -> None:
    """Pause or resume a webhook, and save it. In a request, NetBox's change log shows it.

    Raises PermissionsViolation, and saves nothing, if the user may not change the result: a permission may cover only
    webhooks that are not paused. NetBox's forms refuse such a change too.
    """
    webhook.snapshot()
    webhook.paused = paused
    webhook.save()
    if user and not permitted(Webhook.objects.all(), user, 'change').filter(pk=webhook.pk).exists():
        raise PermissionsViolation


def resumed_message(webhook: Webhook) -> tuple[int, str]:
    """Return the level (of django.contrib.messages) and the text of the message after a webhook was resumed."""
    if state := states.hindering(webhook):
        text = _('Resumed, but nothing is sent yet. State of the webhook: {state}.').format(state=state.label)
        return messages.WARNING, text
    return messages.SUCCESS, _('Resumed. Waiting deliveries are sent.')
