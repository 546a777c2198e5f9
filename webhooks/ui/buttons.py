"""The buttons of our pages beyond NetBox's own."""

from typing import Any

from django.utils.translation import gettext_lazy as _
from netbox.object_actions import ObjectAction

from ..models import Delivery


class PostAction(ObjectAction):
    """A button that posts a form of its own."""

    url_kwargs = ['pk']
    template_name = 'webhooks/buttons/post.html'
    icon = ''

    @classmethod
    def get_context(cls, context: Any, obj: Any) -> dict[str, Any]:
        return {'csrf_token': context.get('csrf_token'), 'icon': cls.icon}


class SendTest(PostAction):
    name = 'test'
    label = _('Send Test')
    icon = 'send-check'
    permissions_required = {'test'}


class Redeliver(PostAction):
    name = 'redeliver'
    label = _('Redeliver')
    icon = 'send'
    permissions_required = {'redeliver'}

    @classmethod
    def get_context(cls, context: Any, obj: Delivery) -> dict[str, Any]:
        return super().get_context(context, obj) | {'disabled': obj.is_open}


class Replay(ObjectAction):
    name = 'replay'
    label = _('Replay')
    url_kwargs = ['pk']
    permissions_required = {'replay'}
    template_name = 'webhooks/buttons/replay.html'


class RotateSecret(ObjectAction):
    name = 'rotate_secret'
    label = _('Rotate Secret')
    url_kwargs = ['pk']
    permissions_required = {'change'}
    template_name = 'webhooks/buttons/rotate_secret.html'


class BulkRedeliver(ObjectAction):
    name = 'bulk_redeliver'
    label = _('Redeliver Selected')
    multi = True
    permissions_required = {'redeliver'}
    template_name = 'webhooks/buttons/bulk_redeliver.html'
