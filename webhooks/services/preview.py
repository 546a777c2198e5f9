"""Shows the request for the newest event that the user may view, else for the newest object."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import FieldDoesNotExist
from django.db import transaction
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from users.models import User

from .. import permissions, rendering, validation, visibility
from ..choices import KindChoices
from ..engine import sql
from ..engine.deliver import change_sets
from ..engine.dispatch.expansions import Expander, types_of
from ..exceptions import Busy, DefinitionError
from ..interruptions import INTERRUPTIONS
from ..models import Delivery, Event, Webhook
from ..outbox import snapshots
from ..payload import http_request
from ..storable import storable

logger = logging.getLogger('webhooks.preview')

# Each holds a thread of NetBox, and may fork a renderer.
MAX_PREVIEWS = 4
COUNTING = 0x7765626B
TAKE_ROOM = 'SELECT n FROM generate_series(1, %s) AS n WHERE pg_try_advisory_xact_lock(%s, n) LIMIT 1'

LATEST = 50
# No index finds events with a snapshot.
RECENT = 10_000


@dataclass(frozen=True)
class Preview:
    event: Event
    method: str
    url: str
    headers: dict[str, str]
    body: str


def show(webhook: Webhook, changes: Mapping[str, Any], user: User) -> Preview:
    """`changes` holds unsaved fields. Raises DefinitionError for a wrong field or if there is nothing to show, and
    Busy.
    """
    with _room():
        return _show(webhook, changes, user)


@contextmanager
def _room() -> Iterator[None]:
    with transaction.atomic():
        if not sql.fetch(TAKE_ROOM, [MAX_PREVIEWS, COUNTING]):
            raise Busy(_('Too many previews are open at the moment. Try again in a few seconds.'))
        yield


def _show(webhook: Webhook, changes: Mapping[str, Any], user: User) -> Preview:
    for name, value in changes.items():
        setattr(webhook, name, value)
    for name, reason in validation.errors(webhook).items():
        raise DefinitionError(name, reason)
    event = _latest_event(webhook, user) or _event_of_newest(webhook, user)
    if event is None:
        raise DefinitionError('object_types', _('There is no object to show: none exists, or you may not view it.'))
    if webhook.expand:
        _expand(event, webhook.expand, user)
    builder = http_request.Builder(webhook, is_preview=True)
    request = builder.build(Delivery(webhook=webhook, event=event, expanded=True), time.time())
    url, headers = builder.mask(request)
    body = request.body.decode(errors='replace')
    return Preview(event, request.method, url, http_request.mask_signatures(headers), body)


def _expand(event: Event, keys: Sequence[str], user: User) -> None:
    (objects,) = Expander().find([(event.payload_data or {}, keys)])
    if not permissions.may_see_expanded(user, types_of(objects)):
        raise DefinitionError('expand', _('You may not view all objects that this key adds to the body.'))
    event.expanded = json.dumps(objects, ensure_ascii=False)


def context(webhook: Webhook, user: User) -> dict[str, Any]:
    """Return a page's `preview` and `body`, or its `problem` and `field`."""
    try:
        shown = show(webhook, {}, user)
    except DefinitionError as error:
        return {'problem': str(error), 'field': _label(error.field)}
    except Busy as busy:
        return {'problem': str(busy), 'field': _('Preview')}
    return {'preview': shown, 'body': readable(shown.body)}


def _label(name: str) -> str:
    """Errors of events name no field."""
    try:
        return Webhook._meta.get_field(name).verbose_name
    except FieldDoesNotExist:
        return name


def body_of(delivery: Delivery) -> str:
    """By the webhook's present definition. Raises DefinitionError and Busy."""
    builder = http_request.Builder(delivery.webhook, is_preview=True)
    events = [one.told for one in change_sets.in_order(delivery.together())]
    with _room() if builder.is_templated else nullcontext():
        request = builder.build(delivery, time.time(), events)
    return readable(request.body.decode(errors='replace'))


def readable(body: str) -> str:
    """Leaves other text than JSON unchanged."""
    try:
        # JSON may hold half a surrogate pair, pages may not.
        return storable(json.dumps(json.loads(body), indent=4, ensure_ascii=False))
    except (ValueError, RecursionError):
        return body


#
# An event that was
#


def _latest_event(webhook: Webhook, user: User) -> Event | None:
    latest = list(_events(webhook, user).only('object_type', 'object_id')[:LATEST])
    visible = permissions.visible_events(user, latest)
    pk = next((event.pk for event in latest if event.pk in visible), None)
    return Event.objects.filter(pk=pk).first()


def _events(webhook: Webhook, user: User) -> QuerySet[Event]:
    types = list(webhook.object_types.values_list('pk', flat=True))
    viewable = Event.objects.restrict(user, 'view')
    if types:
        newest = Event.objects.values_list('pk', flat=True).first() or 0
        events = viewable.filter(pk__gt=newest - RECENT, object_type__in=types)
    else:  # event rules use it
        sent = Delivery.objects.filter(webhook=webhook).order_by('-pk').values_list('event', flat=True)
        events = viewable.filter(pk__in=list(sent[:RECENT]))
    if webhook.needs_before:
        events = events.filter(snapshots__isnull=False)
    return events.exclude(data='').filter(test=False).order_by('-pk')


#
# An event that never was
#


def _event_of_newest(webhook: Webhook, user: User) -> Event | None:
    for object_type, pk in _newest(webhook, user):
        if taken := snapshots.take(object_type.model_class(), [pk]).get(pk):
            return _rendered(webhook, object_type, pk, json.loads(taken), user)
    return None


def _newest(webhook: Webhook, user: User) -> Iterable[tuple[ContentType, int]]:
    for object_type in webhook.object_types.order_by('pk'):
        model = object_type.model_class()
        viewable = visibility.viewable(user, model) if model else Event.objects.none()
        if (pk := viewable.order_by('-pk').values_list('pk', flat=True).first()) is not None:
            yield object_type, pk


def _rendered(webhook: Webhook, object_type: ContentType, pk: int, snapshot: Any, user: Model) -> Event:
    kind = webhook.kinds[0]
    display, data, logged = _render(object_type.model_class(), snapshot)
    return Event(
        sequence=0,
        kind=kind,
        object_type=object_type,
        object_id=pk,
        object_repr=display,
        timestamp=timezone.now(),
        username=user.username,
        data=data,
        snapshots={
            'prechange': None if kind == KindChoices.CREATED else logged,
            'postchange': None if kind == KindChoices.DELETED else logged,
        },
    )


def _render(model: type[Model], snapshot: Any) -> tuple[str, str, Any]:
    """Return name, payload, and change log data."""
    try:
        with transaction.atomic():
            (shown,) = rendering.render(model, [snapshot])
            (logged,) = rendering.change_log(model, [snapshot])
            return shown.display, json.dumps(shown.data, ensure_ascii=False), logged
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # A plugin's serializer may raise anything.
        logger.exception('model=%s rendering failed', model._meta.label)
        reason = _('The payload cannot be built: {error}').format(error=f'{type(error).__name__}: {error}')
        raise DefinitionError('object_types', reason) from error
