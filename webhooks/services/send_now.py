"""Sends chosen objects to a webhook in their present state: a few at once, where a backfill sends all over time.

The events are a backfill's: updates for this webhook only, marked as a backfill. But they are urgent. Their deliveries
go in turn with changes, so no running, paused or canceled backfill holds them up or removes them.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.contrib.contenttypes.models import ContentType
from django.db import OperationalError, transaction
from django.utils.text import get_text_list
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import list_filters, object_types, visibility
from ..choices import KindChoices
from ..engine import sql
from ..exceptions import Busy, DefinitionError
from ..models import Event, ListMember, Webhook
from ..outbox import restating, wakeup
from ..payload_visibility import may_see_expanded
from . import backfill, matching, preview_room, preview_sources, switching

# The field of errors about the chosen objects.
IDS = 'ids'
# The conditions are evaluated for each of them, while somebody waits for the answer.
MAX_OBJECTS = 1000
# After this time the rest of the conditions is left to a worker, which evaluates them again in any case.
CHECK_SECONDS = 10.0
# A message names at most this many objects.
MAX_OBJECTS_NAMED = 10


class Excluded(NamedTuple):
    """An object that the webhook's conditions or its list exclude, and why."""

    pk: int
    name: str
    reasons: list[str]

    def __str__(self) -> str:
        return f'{self.name} ({"; ".join(self.reasons)})'


@dataclass(frozen=True)
class Choice:
    """The chosen objects, all of the same type: the ids to send, and the objects that the webhook excludes."""

    webhook: Webhook
    object_type: ContentType
    pks: list[int]
    excluded: list[Excluded]


def choose(webhook: Webhook, object_type: ContentType, pks: Collection[int], user: Any = None) -> Choice:
    """Return which of the objects the webhook would get. Sends and writes nothing.

    Without a `user`, all objects may be viewed. Raises DefinitionError if the webhook does not send, does not take the
    type, or excludes all objects, or if an object does not exist for the user. Raises Busy if others check conditions.
    """
    pks = list(dict.fromkeys(pks))
    switching.check_sends(webhook)
    _check_takes(webhook, object_type)
    _check_exist(object_type, pks, user)
    find = _excluded if webhook.conditions else _unlisted
    excluded = list(find(webhook, object_type, pks, user))
    left_out = {one.pk for one in excluded}
    going = [pk for pk in pks if pk not in left_out]
    if not going:
        raise DefinitionError(IDS, excluded_message(excluded))
    return Choice(webhook, object_type, going, excluded)


def _check_takes(webhook: Webhook, object_type: ContentType) -> None:
    try:
        backfill.chosen_types(webhook, [object_type])
    except DefinitionError as error:
        raise DefinitionError('object_type', str(error)) from None


def _check_exist(object_type: ContentType, pks: Collection[int], user: Any) -> None:
    if len(pks) > MAX_OBJECTS:
        raise DefinitionError(IDS, too_many())
    model = object_type.model_class()
    existing = visibility.viewable(user, model) if user else model._base_manager.all()
    missing = sorted(set(pks).difference(existing.filter(pk__in=pks).values_list('pk', flat=True)))
    if missing or not pks:
        text = _('These objects do not exist, or you may not view them: {ids}')
        raise DefinitionError(IDS, text.format(ids=_list(missing)))


def too_many() -> str:
    """Return the refusal of more than MAX_OBJECTS objects."""
    text = _('No more than {count} objects can be sent now. Start a backfill with a filter instead.')
    return text.format(count=MAX_OBJECTS)


def _excluded(webhook: Webhook, object_type: ContentType, pks: Collection[int], user: Any) -> Iterator[Excluded]:
    until = time.monotonic() + CHECK_SECONDS
    with preview_room.taken():
        events = preview_sources.events_of(object_type, pks, KindChoices.UPDATED)
        preview_sources.expand(events, webhook)
        for event in events:
            reasons = matching.unmet_conditions(webhook, event)
            if reasons:
                yield Excluded(event.object_id, event.object_repr, _readable(reasons, event, user))
            if time.monotonic() > until:
                return


def _unlisted(webhook: Webhook, object_type: ContentType, pks: Collection[int], _user: Any) -> Iterator[Excluded]:
    """Yield the objects that the webhook's list of this type leaves out, unless its receiver has them to remove."""
    model, query = object_type.model_class(), webhook.filters.get(object_types.label_of(object_type))
    if query is None:
        return
    members = ListMember.objects.filter(webhook_id=webhook.pk, object_type=object_type, object_id__in=pks)
    known = {*list_filters.among(model, query, pks), *members.values_list('object_id', flat=True)}
    for one in model._base_manager.filter(pk__in=set(pks) - known).order_by('pk'):
        yield Excluded(one.pk, str(one), [_('Filter: {query}').format(query=query)])


def _readable(reasons: list[str], event: Event, user: Any) -> list[str]:
    """Return the reasons without values of related objects that the user may not view."""
    is_hidden = user and not may_see_expanded(user, event.expanded_types or ())
    return [_('Hidden, because you may not view the object.')] if is_hidden else reasons


def send(choice: Choice, user: Any = None) -> int:
    """Record the present state of the objects, and return how many they are. A worker sends them within seconds.

    The events name the user. Raises Busy if somebody is changing one of the objects.
    """
    try:
        with sql.transaction() as now:
            count = restating.restate(
                choice.webhook,
                choice.object_type.model_class(),
                choice.pks,
                now,
                username=user.username if user else None,
                urgent=True,
            )
            transaction.on_commit(wakeup.wake, robust=True)
            return count
    except OperationalError as error:
        if not sql.is_lock_timeout(error):
            raise
        raise Busy(_('Somebody is changing one of these objects at the moment. Try again in a few seconds.')) from error


def announce(choice: Choice, count: int) -> str:
    """Return the message to the user after `send`: how many objects go, and which do not."""
    text = ngettext(
        '%(count)d object is being sent to %(webhook)s.', '%(count)d objects are being sent to %(webhook)s.', count
    )
    sentences = [text % {'count': count, 'webhook': choice.webhook}]
    return ' '.join([*sentences, *([excluded_message(choice.excluded)] if choice.excluded else [])])


def excluded_message(excluded: Sequence[Excluded]) -> str:
    """Return the sentence that names the objects that are not sent."""
    return _('The webhook excludes: {objects}').format(objects=_list(excluded))


def named(object_type: ContentType, pks: Collection[int]) -> str:
    """Return the names of the objects, or their number and type if there are many."""
    model = object_type.model_class()
    if len(pks) <= MAX_OBJECTS_NAMED:
        return get_text_list([str(one) for one in model._base_manager.filter(pk__in=pks).order_by('pk')], _('and'))
    return f'{len(pks)} {model._meta.verbose_name_plural}'


def _list(items: Sequence[object]) -> str:
    shown = ', '.join(map(str, items[:MAX_OBJECTS_NAMED]))
    return f'{shown}, …' if len(items) > MAX_OBJECTS_NAMED else shown
