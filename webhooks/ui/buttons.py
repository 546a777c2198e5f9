"""Buttons on NetBox's pages, one class for each action.

A view or template_content.py lists them, and asks for their permission before it shows them.
"""

from typing import Any

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _
from netbox.object_actions import ObjectAction
from utilities.permissions import get_permission_for_model

from ..models import Delivery, Webhook
from ..presentation import actions
from ..presentation.actions import STILL_OPEN, Action
from ..presentation.moments import moment


class Button(ObjectAction):
    """A link to the page of an action. A subclass names its `action`: name, label and permission come from that."""

    action: Action
    template_name = 'webhooks/buttons/link.html'
    url_kwargs = ['pk']

    def __init_subclass__(cls) -> None:
        if 'action' in vars(cls):
            cls.name, cls.label = cls.action.name, cls.action.label
            cls.permissions_required = vars(cls).get('permissions_required', {cls.action.permission})

    @classmethod
    def get_context(cls, context: Any, obj: Any) -> dict[str, Any]:
        return {'csrf_token': context.get('csrf_token'), 'icon': cls.action.icon, 'name': cls.action.name}


class PostButton(Button):
    """A button that posts to the action's view at once, with no page before it."""

    template_name = 'webhooks/buttons/post.html'


class SendTest(PostButton):
    """Sends a test of the webhook now."""

    action = actions.TEST


class Redeliver(PostButton):
    """Redelivers one delivery. Before it is closed, the button is disabled and says why."""

    action = actions.REDELIVER

    @classmethod
    def get_context(cls, context: Any, obj: Delivery) -> dict[str, Any]:
        return super().get_context(context, obj) | {'disabled': STILL_OPEN if obj.is_open else ''}


class RedeliverFromHere(Button):
    """Leads to the form that redelivers past events of the delivery's webhook, from the time of this event on.

    Hidden if the user may not do that with the webhook.
    """

    action = actions.REDELIVER_FROM_HERE
    # The view would ask for a permission for the delivery. Replay needs one for the webhook, so `render` asks.
    permissions_required = set()

    @classmethod
    def get_url(cls, obj: Delivery) -> str:
        url = reverse('plugins:webhooks:webhook_replay', args=[obj.webhook_id])
        return f'{url}?{urlencode({"since": moment(obj.event.timestamp)})}'

    @classmethod
    def render(cls, context: Any, obj: Delivery, **kwargs: Any) -> str:
        is_allowed = context['request'].user.has_perm('webhooks.replay_webhook', obj.webhook)
        return super().render(context, obj, **kwargs) if is_allowed else ''


class Pause(PostButton):
    """Pauses the webhook. Hidden if it is paused."""

    action = actions.PAUSE

    @classmethod
    def render(cls, context: Any, obj: Webhook, **kwargs: Any) -> str:
        return '' if obj.paused else super().render(context, obj, **kwargs)


class Resume(PostButton):
    """Resumes the webhook. Hidden if it is not paused."""

    action = actions.RESUME

    @classmethod
    def render(cls, context: Any, obj: Webhook, **kwargs: Any) -> str:
        return super().render(context, obj, **kwargs) if obj.paused else ''


class Replay(Button):
    """Leads to the form that redelivers the events of a period."""

    action = actions.REPLAY


class SendWaiting(Button):
    """Leads to the form that sends waiting deliveries now."""

    action = actions.SEND_WAITING


class Backfill(Button):
    """Leads to the form that starts a backfill."""

    action = actions.BACKFILL


class RotateSecret(Button):
    """Leads to the form that generates a new secret."""

    action = actions.ROTATE_SECRET


class More(ObjectAction):
    """A menu of the rarer actions on a webhook that the user may take. Hidden if there are none."""

    label = _('More')
    template_name = 'webhooks/buttons/menu.html'
    members = (SendWaiting, Replay, Backfill, RotateSecret)

    @classmethod
    def get_context(cls, context: Any, obj: Webhook) -> dict[str, Any]:
        user = context['request'].user
        allowed = [one for one in cls.members if user.has_perm(get_permission_for_model(obj, one.action.permission))]
        return {'entries': [(one.get_url(obj), one.action) for one in allowed]}


class BulkRedeliver(Button):
    """Posts the rows that are selected in a list. The page that follows asks before it redelivers them."""

    action = actions.REDELIVER_SELECTED
    multi = True
    url_kwargs = []
    template_name = 'webhooks/buttons/bulk_redeliver.html'
