"""Texts and HTML that several admin pages show."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.urls import NoReverseMatch
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models import Delivery, Event, Webhook
from ..presentation import states
from ..presentation.moments import moment

# By (id of the content type, id).
Objects = Mapping[tuple[int, int], Model]


def last_call(webhook: Webhook) -> str:
    """Return how the webhook's last request went: its error, else its time, else that it made none yet.

    Nothing is told of a feed without requests: it makes none."""
    health = getattr(webhook, 'health', None)
    if health is None or health.last_attempt_at is None:
        return '' if webhook.is_feed else _('no request yet')
    return states.reason_of(webhook) or _('last request {when}').format(when=moment(health.last_attempt_at))


def word(text: str, color: str, title: str = '') -> SafeString:
    """Return a coloured label. `color` is one of NetBox's, `title` a tooltip."""
    return format_html('<span class="wh-word wh-{}" title="{}">{}</span>', color, title, text)


def reason_word(text: str) -> SafeString:
    """Return an error as a red label that may have several lines."""
    return format_html('<span class="wh-word wh-reason wh-red">{}</span>', text)


def block(text: str) -> SafeString | str:
    """Return a text as a block that keeps its lines, '' if there is no text."""
    return format_html('<pre class="wh-block" tabindex="0">{}</pre>', text) if text else ''


def headers_block(headers: Mapping[str, str]) -> SafeString | str:
    """Return headers by name, one a line, as a block. '' if there is no header."""
    return block('\n'.join(f'{name}: {value}' for name, value in sorted(headers.items())))


def existing_objects(rows: Iterable[Delivery | Event]) -> Objects:
    """Return the objects that still exist, by (id of the content type, id). Takes one query a model."""
    by_type: dict[int, set[int]] = defaultdict(set)
    for row in rows:
        by_type[row.object_type_id].add(row.object_id)
    return {
        (type_id, pk): instance
        for type_id, pks in by_type.items()
        if (model := ContentType.objects.get_for_id(type_id).model_class())
        for pk, instance in model._default_manager.in_bulk(pks).items()
    }


def object_link(row: Delivery | Event, objects: Objects) -> SafeString | str:
    """Return the object's name at the event. It is a link if the object is among `objects` and has a page."""
    event = row.event if isinstance(row, Delivery) else row
    text = event.object_repr or str(row.object_id)
    instance = objects.get((row.object_type_id, row.object_id))
    try:
        return format_html('<a href="{}">{}</a>', instance.get_absolute_url(), text) if instance else text
    except (AttributeError, NoReverseMatch):  # a plugin's model may have no page
        return text
