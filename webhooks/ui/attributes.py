"""Rows of cards that NetBox's own kinds of rows cannot show. Each gets the object, and returns a text or HTML."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from netbox.ui import attrs
from utilities.object_types import object_type_name

from ..models import Delivery, Event, Webhook, querysets
from ..presentation.states import both_sign
from ..services.why_not_sent import hindrance_of, wait_of
from ..tables import object_url


class LinesAttr(attrs.TextAttr):
    """Shows a text with its line breaks."""

    template_name = 'webhooks/attrs/lines.html'


class Computed:
    """A mixin for rows that show no field, but the value that `show` returns for the object. Blank for None and ''."""

    def __init__(self, show: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__('pk', **kwargs)
        self._show = show

    def get_value(self, obj: Any) -> Any:
        return self._show(obj)


class ComputedText(Computed, attrs.TextAttr):
    """Shows a computed text or HTML."""


class ComputedLines(Computed, LinesAttr):
    """Shows a computed text with its line breaks."""


class ComputedTime(Computed, attrs.DateTimeAttr):
    """Shows a computed time."""


def timeout(webhook: Webhook) -> str:
    """Return the webhook's timeout in seconds, or NetBox's default, marked as one."""
    text = _('{timeout} seconds') if webhook.timeout else _('{timeout} seconds (default)')
    return text.format(timeout=webhook.effective_timeout)


def type_names(webhook: Webhook) -> str:
    """Return the names of the webhook's object types, one a line. Takes one query."""
    return '\n'.join(map(object_type_name, webhook.object_types.order_by('app_label', 'model')))


def secret(webhook: Webhook) -> str:
    """Return the masked secret. A second line says until when the previous one signs too, if it does."""
    return '\n'.join(filter(None, (str(webhook.secret), both_sign(webhook))))


def is_first(delivery: Delivery) -> bool:
    """Whether the delivery's own UUID is the webhook-id of its request."""
    return delivery.lead in (None, delivery.pk)


def request_id(delivery: Delivery) -> UUID:
    """Return the webhook-id of a delivery's request. In a change set, that is the UUID of its part's first delivery."""
    if is_first(delivery):
        return delivery.uuid
    return Delivery.objects.filter(pk=delivery.lead).values_list('uuid', flat=True).first() or delivery.uuid


def probe_at(webhook: Webhook) -> datetime | None:
    """Return when a suspended webhook is tried next. None: nothing is planned."""
    hindrance = hindrance_of(webhook)
    return hindrance.at if hindrance else None


class ChangedObjectAttr(attrs.ObjectAttribute):
    """Shows an event's object by its name at the event, with its ID.

    It is linked, unless it was deleted, or NetBox has no page for its model.
    """

    template_name = 'webhooks/attrs/object.html'

    def get_context(self, obj: Event, attr: str, value: Any, context: dict) -> dict[str, Any]:
        return {'object': obj, 'url': object_url(obj)}


class StatusAttr(attrs.ObjectAttribute):
    """Shows a delivery's status and why it waits, with a link to the delivery that goes first.

    Looks up that delivery, unless this one is closed.
    """

    template_name = 'webhooks/attrs/status.html'

    def get_context(self, obj: Delivery, attr: str, value: Any, context: dict) -> dict[str, Any]:
        wait = wait_of(obj, timezone.now(), querysets.earlier_of(obj) if obj.is_open else None)
        return {'object': obj, 'wait': wait}
