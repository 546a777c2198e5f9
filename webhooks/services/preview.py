"""Shows the request for an event or an object, and whether it would be sent. Nothing is sent."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.utils.translation import gettext as _
from users.models import User

from .. import object_types, payload_visibility, validation
from ..engine.deliver import change_sets
from ..exceptions import Busy, DefinitionError
from ..models import Delivery, Event, Webhook
from ..payload import http_request
from ..presentation import states
from ..presentation.json_text import readable
from . import matching, preview_room, preview_sources
from .matching import Verdict
from .preview_sources import Draft


@dataclass(frozen=True)
class Preview:
    """A request that was not sent, with masked secrets, and whether the webhook would send it.

    `warnings` name probable mistakes in the definition. `size`: of the body, in bytes.
    """

    event: Event
    method: str
    url: str
    headers: dict[str, str]
    body: str
    verdict: Verdict
    warnings: list[str]
    size: int


def show(draft: Draft, user: User, source: str = '') -> Preview:
    """Return the request for an event or an object that the user may view.

    `source`: as preview_sources.find() takes it. Raises DefinitionError for a wrong field, or if there is nothing to
    show, and Busy.
    """
    with preview_room.taken():
        for name, reason in validation.errors(draft.webhook).items():
            raise DefinitionError(name, reason)
        event = preview_sources.find(draft, source, user)
        preview_sources.expand([event], draft.webhook)
        if draft.webhook.expand and not payload_visibility.may_see_expanded(user, event.expanded_types):
            raise DefinitionError('expand', _('You may not view all objects that this key adds to the body.'))
        return _preview(draft, event)


def _preview(draft: Draft, event: Event) -> Preview:
    builder = http_request.Builder(draft.webhook, is_preview=True)
    request = builder.build(Delivery(webhook=draft.webhook, event=event, expanded=True), time.time())
    url, headers = builder.mask(request)
    body = request.body.decode(errors='replace')
    verdict = matching.judge(draft.webhook, event, draft.ignored)
    return Preview(
        event,
        request.method,
        url,
        http_request.mask_signatures(headers),
        body,
        verdict._replace(reasons=[*_not_asked_for(draft, event), *verdict.reasons]),
        warnings=[*_wrong_body(request.headers['Content-Type'], body), *verdict.warnings],
        size=len(request.body),
    )


def _not_asked_for(draft: Draft, event: Event) -> Iterator[str]:
    webhook = draft.webhook
    if not webhook.enabled:
        yield _('The webhook is disabled.')
    if not draft.object_types:  # event rules choose
        if webhook.pk is None or not states.event_rules(webhook.pk).exists():
            yield _('No object types are chosen, and no event rule uses the webhook.')
        return
    if event.object_type_id not in [one.pk for one in draft.object_types]:
        yield _('The object type is not chosen: {name}').format(name=object_types.name_of(event.object_type))
    if event.kind not in webhook.kinds:
        yield _('This kind of change is not chosen: {name}').format(name=event.get_kind_display())


def _wrong_body(content_type: str, body: str) -> Iterator[str]:
    if 'json' not in content_type.partition(';')[0].lower():
        return
    try:
        json.loads(body)
    except (ValueError, RecursionError) as error:
        yield _('The content type says JSON, but the body is not valid JSON: {error}').format(error=error)


def context(draft: Draft, user: User, source: str = '') -> dict[str, Any]:
    """Return the context of a page: its `preview` and `body`; after a DefinitionError or Busy, its `problem` and
    `field`.
    """
    try:
        shown = show(draft, user, source)
    except DefinitionError as error:
        return {'problem': str(error), 'field': _label(error.field)}
    except Busy as busy:
        return {'problem': str(busy), 'field': _('Preview')}
    return {'preview': shown, 'body': readable(shown.body)}


def _label(name: str) -> str:
    """Return the label of a field. An error about the event names none, and comes back unchanged."""
    try:
        return Webhook._meta.get_field(name).verbose_name
    except FieldDoesNotExist:
        return name


def body_of(delivery: Delivery) -> str:
    """Return the body that a delivery would send now, from the webhook's present definition, laid out for people.

    Raises DefinitionError and Busy.
    """
    builder = http_request.Builder(delivery.webhook, is_preview=True)
    events = [one.event_as_sent for one in change_sets.in_order(delivery.together())]
    with preview_room.taken() if builder.is_templated else nullcontext():
        request = builder.build(delivery, time.time(), events)
    return readable(request.body.decode(errors='replace'))
