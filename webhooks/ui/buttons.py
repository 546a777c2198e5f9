"""The buttons of our pages beyond NetBox's own."""

from typing import Any

from netbox.object_actions import ObjectAction

from ..models import Delivery
from ..presentation import actions
from ..presentation.actions import Action


class Button(ObjectAction):
    """A button of one of our actions: a link to the page that asks, unless the template says otherwise."""

    action: Action
    template_name = 'webhooks/buttons/link.html'
    url_kwargs = ['pk']

    def __init_subclass__(cls) -> None:
        if 'action' in vars(cls):
            cls.name, cls.label, cls.permissions_required = cls.action.name, cls.action.label, {cls.action.permission}

    @classmethod
    def get_context(cls, context: Any, obj: Any) -> dict[str, Any]:
        return {'csrf_token': context.get('csrf_token'), 'icon': cls.action.icon}


class PostButton(Button):
    """A button that posts a form of its own."""

    template_name = 'webhooks/buttons/post.html'


class SendTest(PostButton):
    action = actions.TEST


class Redeliver(PostButton):
    action = actions.REDELIVER

    @classmethod
    def get_context(cls, context: Any, obj: Delivery) -> dict[str, Any]:
        return super().get_context(context, obj) | {'disabled': obj.is_open}


class Replay(Button):
    action = actions.REPLAY


class SendWaiting(Button):
    action = actions.SEND_WAITING


class Backfill(Button):
    action = actions.BACKFILL


class RotateSecret(Button):
    action = actions.ROTATE_SECRET


class BulkRedeliver(Button):
    action = actions.REDELIVER_SELECTED
    multi = True
    url_kwargs = []
    template_name = 'webhooks/buttons/bulk_redeliver.html'
