"""Buttons on NetBox's pages, made of the table of actions: one class for each, as NetBox wants it.

A view or template_content.py lists them, and asks for their permission before it shows them.
"""

from typing import Any

from django.db.models import Model
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _
from netbox.object_actions import ObjectAction
from utilities.views import get_action_url

from ..models import Delivery, Webhook
from ..presentation.moments import exact_moment
from ..services import actions
from ..services.actions import Action, Where


class Button(ObjectAction):
    """A link to the page of an action. A subclass names its `action`."""

    action: Action
    template_name = 'webhooks/buttons/link.html'
    url_kwargs = ['pk']

    @classmethod
    def get_context(cls, context: Any, obj: Any) -> dict[str, Any]:
        return {'csrf_token': context.get('csrf_token'), 'icon': cls.action.icon, 'name': cls.action.name}


class PostButton(Button):
    """A button that posts to the action's view at once, with no page before it.

    Hidden if the action is not offered now. Disabled, with the reason, if something is in its way.
    """

    template_name = 'webhooks/buttons/post.html'

    @classmethod
    def get_context(cls, context: Any, obj: Any) -> dict[str, Any]:
        return super().get_context(context, obj) | {'disabled': cls.action.obstacle(obj)}

    @classmethod
    def render(cls, context: Any, obj: Any, **kwargs: Any) -> str:
        return super().render(context, obj, **kwargs) if cls.action.is_offered(obj) else ''


def button(one: Action) -> type[Button]:
    """Return the button of an action: it opens the action's form, or acts at once without one."""
    own = {'action': one, 'name': one.name, 'label': one.label, 'permissions_required': {one.permission}}
    return type(one.name.title(), (Button if one.has_form else PostButton,), own)


def buttons(model: type[Model]) -> list[type[Button]]:
    """Return the buttons on the page of an object of this model, in their order."""
    return [button(one) for one in actions.of(model, Where.BUTTON)]


class RedeliverFromHere(Button):
    """Leads to the form that redelivers past events of the delivery's webhook, from the time of this event on.

    Hidden if the user may not do that with the webhook.
    """

    # The view would ask for a permission for the delivery. Replay needs one for the webhook, so `render` asks.
    action = actions.REPLAY
    label = _('Redeliver everything from here on')

    @classmethod
    def get_url(cls, obj: Delivery) -> str:
        url = reverse('plugins:webhooks:webhook_replay', args=[obj.webhook_id])
        return f'{url}?{urlencode({"since": exact_moment(obj.event.timestamp)})}'

    @classmethod
    def render(cls, context: Any, obj: Delivery, **kwargs: Any) -> str:
        is_allowed = context['request'].user.has_perm(cls.action.full_permission, obj.webhook)
        return super().render(context, obj, **kwargs) if is_allowed else ''


class More(ObjectAction):
    """A menu of the rarer actions on a webhook that the user may take. Hidden if there are none."""

    label = _('More')
    template_name = 'webhooks/buttons/menu.html'

    @classmethod
    def get_context(cls, context: Any, obj: Webhook) -> dict[str, Any]:
        user = context['request'].user
        allowed = [one for one in actions.of(Webhook, Where.MENU) if user.has_perm(one.full_permission, obj)]
        return {'entries': [(button(one).get_url(obj), one) for one in allowed]}


class SendNow(Button):
    """Leads to the form that sends an object of NetBox now. Hidden if the user may not send any."""

    # The view would ask for a permission for deliveries, so `render` asks.
    action = actions.SEND_NOW
    label = actions.SEND_NOW.label

    @classmethod
    def get_url(cls, obj: Any) -> str:
        url = reverse('plugins:webhooks:send_now', args=[obj._meta.label_lower])
        tab = get_action_url(obj, action='webhooks', kwargs={'pk': obj.pk})
        return f'{url}?{urlencode({"pk": obj.pk, "return_url": tab})}'

    @classmethod
    def render(cls, context: Any, obj: Any, **kwargs: Any) -> str:
        is_allowed = context['request'].user.has_perm(cls.action.full_permission)
        return super().render(context, obj, **kwargs) if is_allowed else ''


class BulkRedeliver(Button):
    """Posts the rows that are selected in a list. The page that follows asks before it redelivers them."""

    action = actions.REDELIVER
    name, label = 'bulk_redeliver', actions.REDELIVER.list_label
    permissions_required = {actions.REDELIVER.permission}
    multi = True
    url_kwargs = []
    template_name = 'webhooks/buttons/bulk_redeliver.html'
