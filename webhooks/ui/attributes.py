"""Rows of cards that NetBox's own kinds of rows cannot show. Each gets the object, and returns a text or HTML."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from netbox.ui import attrs
from utilities.object_types import object_type_name

from ..models import Delivery, Event, Webhook, querysets
from ..presentation.states import both_sign
from ..services.why_not_sent import hindrance_of, next_attempt_at, wait_of
from ..tables import object_url, state_badge


class TimeoutAttr(attrs.TextAttr):
    """Shows the webhook's timeout in seconds, or NetBox's default, marked as one."""

    def get_value(self, obj: Any) -> str:
        if obj.timeout:
            return _('{timeout} seconds').format(timeout=obj.timeout)
        return _('{timeout} seconds (default)').format(timeout=obj.effective_timeout)


class LinesAttr(attrs.TextAttr):
    """Shows a text with its line breaks."""

    template_name = 'webhooks/attrs/lines.html'


class ListAttr(attrs.TextAttr):
    """Shows a list of texts in one line, separated by commas. Blank if it is empty or null."""

    def get_value(self, obj: Any) -> str:
        return ', '.join(super().get_value(obj) or ())


class UrlAttr(attrs.TextAttr):
    """Shows the masked URL, or the word *Feed* for a webhook without one."""

    def get_value(self, obj: Any) -> str:
        return super().get_value(obj) or _('Feed')


class ObjectTypesAttr(LinesAttr):
    """Shows the names of the webhook's object types, one a line. Takes one query."""

    def get_value(self, obj: Any) -> str:
        types = obj.object_types.order_by('app_label', 'model')
        return '\n'.join(object_type_name(object_type) for object_type in types)


class RequestIdAttr(attrs.TextAttr):
    """Shows the webhook-id of a delivery's request. In a change set, that is the UUID of its part's first delivery."""

    def get_value(self, obj: Delivery) -> UUID:
        if is_first(obj):
            return obj.uuid
        return Delivery.objects.filter(pk=obj.lead).values_list('uuid', flat=True).first() or obj.uuid


class OwnIdAttr(attrs.TextAttr):
    """Shows the UUID of a delivery that went out under another one's. Blank if its own is the webhook-id."""

    def get_value(self, obj: Delivery) -> UUID | str:
        return '' if is_first(obj) else obj.uuid


def is_first(delivery: Delivery) -> bool:
    """Whether the delivery's own UUID is the webhook-id of its request."""
    return delivery.lead in (None, delivery.pk)


class StateAttr(attrs.TextAttr):
    """Shows the webhook's state as a coloured badge."""

    def get_value(self, obj: Any) -> str:
        return state_badge(obj)


class SecretAttr(LinesAttr):
    """Shows the masked secret. A second line says until when the previous one signs too, if it does."""

    def get_value(self, obj: Any) -> str:
        return '\n'.join(filter(None, (str(super().get_value(obj)), both_sign(obj))))


class ChangedObjectAttr(attrs.TemplatedAttr):
    """Shows an event's object by its name at the event, with its ID.

    It is linked, unless it was deleted, or NetBox has no page for its model.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, template_name='webhooks/attrs/object.html', **kwargs)

    def get_context(self, obj: Event, attr: str, value: Any, context: dict) -> dict[str, Any]:
        return {**super().get_context(obj, attr, value, context), 'url': object_url(obj)}


class StatusAttr(attrs.TemplatedAttr):
    """Shows a delivery's status and why it waits, with a link to the delivery that goes first.

    Looks up that delivery, unless this one is closed.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, template_name='webhooks/attrs/status.html', **kwargs)

    def get_context(self, obj: Delivery, attr: str, value: Any, context: dict) -> dict[str, Any]:
        wait = wait_of(obj, timezone.now(), querysets.earlier_of(obj) if obj.is_open else None)
        return {**super().get_context(obj, attr, value, context), 'wait': wait}


class NextAttemptAttr(attrs.DateTimeAttr):
    """Shows when the delivery is tried next. Blank if nothing is planned."""

    def get_value(self, obj: Delivery) -> datetime | None:
        return next_attempt_at(obj)


class ExpiryAttr(attrs.DateTimeAttr):
    """Shows when an open delivery expires. Blank once it is closed."""

    def get_value(self, obj: Delivery) -> datetime | None:
        return obj.expires_at if obj.is_open else None


class ProbeAttr(attrs.DateTimeAttr):
    """Shows when a suspended webhook is tried next. Blank if nothing is planned."""

    def get_value(self, obj: Webhook) -> datetime | None:
        hindrance = hindrance_of(obj)
        return hindrance.at if hindrance else None
