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
    template_name = 'webhooks/buttons/post.html'


class SendTest(PostButton):
    action = actions.TEST


class Redeliver(PostButton):
    action = actions.REDELIVER

    @classmethod
    def get_context(cls, context: Any, obj: Delivery) -> dict[str, Any]:
        return super().get_context(context, obj) | {'disabled': STILL_OPEN if obj.is_open else ''}


class RedeliverFromHere(Button):
    """Leads to the form of its webhook, filled in."""

    action = actions.REDELIVER_FROM_HERE
    # Not of the delivery: `render` asks for the webhook's.
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
    action = actions.PAUSE

    @classmethod
    def render(cls, context: Any, obj: Webhook, **kwargs: Any) -> str:
        return '' if obj.paused else super().render(context, obj, **kwargs)


class Resume(PostButton):
    action = actions.RESUME

    @classmethod
    def render(cls, context: Any, obj: Webhook, **kwargs: Any) -> str:
        return super().render(context, obj, **kwargs) if obj.paused else ''


class Replay(Button):
    action = actions.REPLAY


class SendWaiting(Button):
    action = actions.SEND_WAITING


class Backfill(Button):
    action = actions.BACKFILL


class RotateSecret(Button):
    action = actions.ROTATE_SECRET


class More(ObjectAction):
    label = _('More')
    template_name = 'webhooks/buttons/menu.html'
    members = (SendWaiting, Replay, Backfill, RotateSecret)

    @classmethod
    def get_context(cls, context: Any, obj: Webhook) -> dict[str, Any]:
        user = context['request'].user
        allowed = [one for one in cls.members if user.has_perm(get_permission_for_model(obj, one.action.permission))]
        return {'entries': [(one.get_url(obj), one.action) for one in allowed]}


class BulkRedeliver(Button):
    action = actions.REDELIVER_SELECTED
    multi = True
    url_kwargs = []
    template_name = 'webhooks/buttons/bulk_redeliver.html'
