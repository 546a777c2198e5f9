"""Finds the events and objects that a preview can show."""

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from netbox.registry import registry
from users.models import User

from .. import object_types, payload_visibility, rendering, visibility
from ..choices import KindChoices
from ..engine.dispatch.expansions import Expander, types_of
from ..exceptions import DefinitionError
from ..interruptions import INTERRUPTIONS
from ..models import Delivery, Event, Webhook
from ..outbox import snapshots
from ..presentation.moments import moment
from ..storable import is_key, storable

logger = logging.getLogger('webhooks.preview')

# At most this many of the latest events are checked for the user's permission.
MAX_EVENTS_CHECKED = 50
# Only this many of the newest events are searched: no index finds events with a snapshot in a long log.
MAX_EVENTS_SEARCHED = 10_000
# In a list of choices: events, object types, and objects of each type.
MAX_EVENT_CHOICES = 15
MAX_TYPE_CHOICES = 5
MAX_OBJECT_CHOICES = 5
# A search looks into the objects of this many types at most. No index helps it.
MAX_TYPES_SEARCHED = 30
# The kinds of source, before its colon.
EVENT_SOURCE = 'event'
OBJECT_SOURCE = 'object'
WITHOUT_TYPES = gettext_lazy('No object types are chosen. So only event rules send something through this webhook.')


@dataclass(frozen=True)
class Draft:
    """A webhook that need not be saved, with its relations. `ignored` are names of users."""

    webhook: Webhook
    object_types: Sequence[ContentType]
    ignored: Collection[str] = ()

    @classmethod
    def of(cls, webhook: Webhook) -> 'Draft':
        """Return the draft of a saved webhook."""
        types = list(webhook.object_types.order_by('pk'))
        return cls(webhook, types, list(webhook.ignore_users.values_list('username', flat=True)))


class Choice(NamedTuple):
    """A source in a list. `value` is for `find`."""

    value: str
    label: str


def find(draft: Draft, source: str, user: User) -> Event:
    """Return the event of a source, or one that is made of an object and not saved.

    `source` is 'event:<id>' or 'object:<model>:<id>', such as 'object:dcim.site:7'. '' is the latest event of the
    webhook's types, else their newest object. Raises DefinitionError if it does not exist, or the user may not view it.
    """
    if not source:
        event = _latest_event(draft, user) or _event_of_newest(draft, user)
        if event is None:
            reason = _('There is no object to show: none exists, or you may not view it.')
            raise DefinitionError('object_types', reason if draft.object_types else WITHOUT_TYPES)
        return event
    kind, _colon, name = source.partition(':')
    event = None
    if kind == EVENT_SOURCE:
        event = _event(name, user)
    elif kind == OBJECT_SOURCE:
        event = _event_of_object(draft, name, user)
    if event is None:
        raise DefinitionError('source', _('There is no such event or object, or you may not view it.'))
    return event


def choices(draft: Draft, user: User, text: str = '') -> list[tuple[str, list[Choice]]]:
    """Return titles with sources: the latest events, and objects of the types in their present state.

    With a `text`, only sources whose names contain it: it is looked for until MAX_TYPE_CHOICES types have some.
    """
    text = storable(text)
    events = _event_choices(draft, user, text)
    types = draft.object_types[: MAX_TYPES_SEARCHED if text else MAX_TYPE_CHOICES]
    objects = ((object_types.name_of(one), _object_choices(one, user, text)) for one in types)
    found = islice(filter(itemgetter(1), objects), MAX_TYPE_CHOICES)
    return [(_('Events'), events), *found] if events else [*found]


def _event_choices(draft: Draft, user: User, text: str) -> list[Choice]:
    named = _events(draft, user).filter(object_repr__icontains=text) if text else _events(draft, user)
    shown = _visible(named, user)[:MAX_EVENT_CHOICES]
    return [Choice(f'{EVENT_SOURCE}:{event.pk}', f'{event} · {moment(event.timestamp)}') for event in shown]


def _object_choices(object_type: ContentType, user: User, text: str) -> list[Choice]:
    model = object_type.model_class()
    if model is None:
        return []
    label = object_types.label_of(object_type)
    found = visibility.viewable(user, model).order_by('-pk')
    filterset = registry['filtersets'].get(label)
    if text and not filterset:
        return []
    if text:
        found = filterset({'q': text}, found).qs
    return [Choice(f'{OBJECT_SOURCE}:{label}:{pk}', name) for pk, name in _names(found[:MAX_OBJECT_CHOICES])]


def _names(found: QuerySet) -> list[tuple[int, str]]:
    try:
        return [(one.pk, str(one)) for one in found]
    except INTERRUPTIONS:
        raise
    except Exception:
        # A plugin's model may raise anything.
        logger.exception('model=%s names failed', found.model._meta.label)
        return [(pk, f'ID {pk}') for pk in found.values_list('pk', flat=True)]


def _event(pk: str, user: User) -> Event | None:
    event = Event.objects.restrict(user, 'view').filter(pk=pk).exclude(data='').first() if is_key(pk) else None
    return event if event and payload_visibility.visible_events(user, [event]) else None


def _event_of_object(draft: Draft, name: str, user: User) -> Event | None:
    label, _colon, pk = name.partition(':')
    object_type = object_types.by_label().get(label)
    model = object_type.model_class() if object_type else None
    if model is None or not is_key(pk) or not visibility.viewable(user, model).filter(pk=pk).exists():
        return None
    return _event_of(draft, object_type, int(pk), user)


# Events of the log
#


def _latest_event(draft: Draft, user: User) -> Event | None:
    visible = _visible(_events(draft, user), user)
    return Event.objects.filter(pk=visible[0].pk).first() if visible else None


def _visible(events: QuerySet[Event], user: User) -> list[Event]:
    """Return the events whose objects the user may view, in brief, among the first MAX_EVENTS_CHECKED."""
    latest = list(events.only('object_type', 'object_id', 'object_repr', 'kind', 'timestamp')[:MAX_EVENTS_CHECKED])
    visible = payload_visibility.visible_events(user, latest)
    return [event for event in latest if event.pk in visible]


def _events(draft: Draft, user: User) -> QuerySet[Event]:
    types = [one.pk for one in draft.object_types]
    viewable = Event.objects.restrict(user, 'view')
    if types:
        newest = Event.objects.values_list('pk', flat=True).first() or 0
        events = viewable.filter(pk__gt=newest - MAX_EVENTS_SEARCHED, object_type__in=types)
    else:  # event rules use it
        sent = Delivery.objects.filter(webhook=draft.webhook.pk).order_by('-pk').values_list('event', flat=True)
        events = viewable.filter(pk__in=list(sent[:MAX_EVENTS_SEARCHED]))
    events = events.exclude(data='').filter(test=False).order_by('-pk')
    if not draft.webhook.needs_before:
        return events
    # Conditions are tried on changes whose state before was kept, if there are any.
    with_before = events.filter(snapshots__isnull=False)
    return with_before if draft.webhook.shows_before or with_before.exists() else events


# Unsaved events of objects
#


def _event_of_newest(draft: Draft, user: User) -> Event | None:
    found = (_event_of(draft, object_type, pk, user) for object_type, pk in _newest(draft, user))
    return next(filter(None, found), None)


def _event_of(draft: Draft, object_type: ContentType, pk: int, user: User) -> Event | None:
    kind = next(iter(draft.webhook.kinds), KindChoices.UPDATED)
    return next(iter(events_of(object_type, [pk], kind, user.username)), None)


def events_of(object_type: ContentType, pks: Collection[int], kind: str, username: str | None = None) -> list[Event]:
    """Return an unsaved event for each of the objects that exist, as if it had this change now.

    Raises DefinitionError if NetBox cannot show the objects.
    """
    model = object_type.model_class()
    taken = {pk: json.loads(snapshot) for pk, snapshot in snapshots.take(model, pks).items()}
    return [
        Event(
            sequence=0,
            kind=kind,
            object_type=object_type,
            object_id=pk,
            object_repr=display,
            timestamp=timezone.now(),
            username=username,
            data=data,
            snapshots={
                'prechange': None if kind == KindChoices.CREATED else logged,
                'postchange': None if kind == KindChoices.DELETED else logged,
            },
        )
        for pk, (display, data, logged) in zip(taken, _render(model, list(taken.values())), strict=True)
    ]


def expand(events: Sequence[Event], webhook: Webhook) -> None:
    """Add to unsaved events the current state of the related objects that the webhook expands."""
    if not webhook.expand:
        return
    found = Expander().find([(event.payload_data or {}, webhook.expand) for event in events])
    for event, objects in zip(events, found, strict=True):
        event.expanded = json.dumps(objects, ensure_ascii=False)
        event.expanded_types = types_of(objects)


def _newest(draft: Draft, user: User) -> Iterator[tuple[ContentType, int]]:
    for object_type in draft.object_types:
        model = object_type.model_class()
        viewable = visibility.viewable(user, model) if model else Event.objects.none()
        if (pk := viewable.order_by('-pk').values_list('pk', flat=True).first()) is not None:
            yield object_type, pk


def _render(model: type[Model], taken: Sequence[Any]) -> list[tuple[str, str, Any]]:
    """Return name, payload, and change log data of each snapshot."""
    try:
        with transaction.atomic():
            shown = rendering.render(model, taken)
            logged = rendering.change_log(model, taken)
            return [
                (one.display, json.dumps(one.data, ensure_ascii=False), log)
                for one, log in zip(shown, logged, strict=True)
            ]
    except INTERRUPTIONS:
        raise
    except Exception as error:
        # A plugin's serializer may raise anything.
        logger.exception('model=%s rendering failed', model._meta.label)
        reason = _('The payload cannot be built: {error}').format(error=f'{type(error).__name__}: {error}')
        raise DefinitionError('object_types', reason) from error
