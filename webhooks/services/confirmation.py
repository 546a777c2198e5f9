"""Asks on a page before many deliveries are sent again. NetBox's pages and the admin have a template each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.contrib import messages
from django.contrib.humanize.templatetags.humanize import intcomma
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_aware

from ..models import Delivery, Webhook
from ..presentation import states
from ..presentation.states import State
from ..storable import is_storable_time
from . import redelivery
from .actions import Action
from .redelivery import Figures
from .why_not_sent import hindrance_of

# The form's hidden field: the time of the count that the user has read. Without it nothing is sent.
COUNTED_AT = '_counted_at'
CSRF = 'csrfmiddlewaretoken'
MAX_WEBHOOKS_NAMED = 20


class Page(NamedTuple):
    """A template, and its variables beside the numbers."""

    template: str
    context: Mapping[str, object]


PAGE = Page('webhooks/redeliver.html', {})


@dataclass(frozen=True)
class Line:
    """A webhook in that page: how many deliveries go to it, and its state."""

    webhook: Webhook
    count: str
    state: State
    # Why nothing is sent now, '' if it is.
    hindrance: str


def ask_or_redeliver(
    request: HttpRequest,
    deliveries: QuerySet[Delivery],
    action: Action,
    return_url: str,
    page: Page = PAGE,
    **more: str,
) -> HttpResponse:
    """Return a page that asks with the numbers. Once the user confirms these, redeliver and go to `return_url`.

    The page is named after the action. `more` are fields that it posts back. Deliveries that are closed after the count
    are left out.
    """
    counted_at = _confirmed_at(request)
    if counted_at is None:
        shown = _context(request, redelivery.measure(deliveries), action, **more)
        return render(request, page.template, {**page.context, **shown, 'return_url': return_url})
    report(request, redelivery.redeliver(deliveries, counted_at=counted_at))
    return redirect(return_url)


def report(request: HttpRequest, count: int) -> None:
    """Show the user a message: how many deliveries are sent again, or why none is."""
    if count:
        messages.success(request, redelivery.announce(count))
    else:
        messages.warning(request, redelivery.NOTHING_CLOSED)


def _confirmed_at(request: HttpRequest) -> datetime | None:
    """Return the time of the count that the user has read and confirms. None: there is no valid one, so ask."""
    try:
        found = parse_datetime(request.POST.get(COUNTED_AT, ''))
    except ValueError:
        return None
    return found if found and is_aware(found) and is_storable_time(found) else None


def _context(request: HttpRequest, figures: Figures, action: Action, **more: str) -> dict[str, object]:
    """Return the context of webhooks/inc/redeliver.html. Its form posts the same fields again, and `more`.

    It also posts the time of the figures, for `_confirmed_at`.
    """
    left_out = {CSRF, COUNTED_AT, *more}
    kept = [(name, value) for name, values in request.POST.lists() if name not in left_out for value in values]
    return {
        'figures': figures,
        'webhooks': list(_lines(figures)),
        'others': max(len(figures.by_webhook) - MAX_WEBHOOKS_NAMED, 0),
        'action': action,
        'kept': [*kept, *more.items(), (COUNTED_AT, figures.counted_at.isoformat())],
    }


def _lines(figures: Figures) -> Iterator[Line]:
    """Yield the webhooks with most deliveries first, MAX_WEBHOOKS_NAMED at most."""
    first = sorted(figures.by_webhook.items(), key=lambda item: (-item[1], item[0]))[:MAX_WEBHOOKS_NAMED]
    found = states.with_states(Webhook.objects.select_related('health')).in_bulk([pk for pk, _count in first])
    for pk, count in first:
        if webhook := found.get(pk):
            hindrance = hindrance_of(webhook)
            yield Line(webhook, intcomma(count), states.state_of(webhook), hindrance.outlook if hindrance else '')
