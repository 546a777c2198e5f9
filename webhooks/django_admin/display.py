"""Texts and HTML that several admin pages show."""

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..models import Delivery, Webhook
from ..presentation import states
from ..presentation.moments import moment
from ..services.why_not_sent import wait_of


def column(title: str, show: Callable[[Any], Any], **options: Any) -> Callable:
    """Return a column of a list, or a field of a page: `show` gets the row. Options are those of `admin.display`."""

    @admin.display(description=title, **options)
    def shown(_admin: Any, row: Model) -> Any:
        return show(row)

    return shown


def last_call(webhook: Webhook) -> str:
    """Return how the webhook's last request went: its error, else its time, else that it made none yet.

    '' for a feed without requests: it makes none.
    """
    health = getattr(webhook, 'health', None)
    if health is None or health.last_attempt_at is None:
        return '' if webhook.is_feed else _('no request yet')
    return states.reason_of(webhook) or _('last request {when}').format(when=moment(health.last_attempt_at))


def word(text: str, color: str, title: str = '') -> SafeString:
    """Return a coloured label. `color` is one of NetBox's, `title` a tooltip."""
    return format_html('<span class="wh-word wh-{}" title="{}">{}</span>', color, title, text)


def delivery_status(delivery: Delivery) -> SafeString:
    """Return the delivery's status, and in a word or two why it waits. A tooltip says it in a sentence."""
    wait = wait_of(delivery, timezone.now())
    shown = word(delivery.get_status_display(), delivery.get_status_color(), wait.text if wait else '')
    return format_html('{} <span class="wh-quiet">{}</span>', shown, wait.label) if wait else shown


def reason_word(text: str) -> SafeString:
    """Return an error as a red label that may have several lines."""
    return format_html('<span class="wh-word wh-reason wh-red">{}</span>', text)


def block(text: str) -> SafeString | str:
    """Return a text as a block that keeps its lines, '' if there is no text."""
    return format_html('<pre class="wh-block" tabindex="0">{}</pre>', text) if text else ''


def headers_block(headers: Mapping[str, str]) -> SafeString | str:
    """Return headers by name, one a line, as a block. '' if there is no header."""
    return block('\n'.join(f'{name}: {value}' for name, value in sorted(headers.items())))
