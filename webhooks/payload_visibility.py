"""Decides which users may see the payloads of events and deliveries: all objects in one have to be visible.

A payload needs permission to view its objects. Expanded objects need that of their models, without constraint.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import chain

from .models import Attempt, Delivery, Event
from .models.confidential import beginning
from .models.querysets import attempts_of
from .object_types import model_of_id
from .visibility import Reader, Reference, may_view_all, sees_everything, visible_objects

# Fields of an attempt that may show an object, beside its error.
RESTRICTED_OF_ATTEMPT = ('url', 'request_headers', 'response_headers', 'response_body', 'request_body')


def visible_events(user: Reader, events: Iterable[Event]) -> set[int]:
    """Return the ids of the events whose objects the user may view now."""
    references = {event.pk: {(event.object_type_id, event.object_id)} for event in events}
    return _all_visible(user, references)


def visible_deliveries(user: Reader, deliveries: Iterable[Delivery]) -> set[int]:
    """Return the ids of the deliveries whose payloads the user may see: all objects that a request would show now."""
    parts: defaultdict[int, set[int]] = defaultdict(set)
    leads = {one.lead for one in deliveries if one.lead}
    for lead, pk in Delivery.objects.filter(lead__in=leads).values_list('lead', 'pk') if leads else ():
        parts[lead].add(pk)
    return _where_all_are_visible(user, {one.pk: {one.pk, *parts.get(one.lead, ())} for one in deliveries})


def visible_attempts(user: Reader, deliveries: Iterable[int]) -> dict[int, list[Attempt]]:
    """Return querysets.attempts_of() for these deliveries (ids), concealed where the user may not see the values."""
    found = attempts_of(deliveries)
    conceal(user, {one.pk: one for attempts in found.values() for one in attempts}.values())
    return found


def conceal(user: Reader, attempts: Collection[Attempt]) -> None:
    """Blank values of these attempts that the user may not see, in memory only, and set `is_restricted` on each.

    A user has to see the payloads of all deliveries that an attempt sent. If one of their events was pruned, only users
    who may see everything may see the rest.
    """
    visible = _where_all_are_visible(user, {one.pk: set(one.deliveries) for one in attempts})
    for attempt in attempts:
        attempt.is_restricted = attempt.pk not in visible
        if attempt.is_restricted:
            vars(attempt).update(dict.fromkeys(RESTRICTED_OF_ATTEMPT), error=beginning(attempt.error))


def _where_all_are_visible(user: Reader, needed: Mapping[int, set[int]]) -> set[int]:
    """Return the keys of `needed` whose deliveries (ids) all exist, with payloads that the user may see."""
    if sees_everything(user):
        return set(needed)
    rows = Delivery.objects.filter(pk__in=set().union(*needed.values())).values_list(
        'pk', 'object_type_id', 'object_id', 'expanded', 'event__expanded_types'
    )
    references = {
        pk: {(type_id, object_id)}
        for pk, type_id, object_id, expanded, types in rows
        if not expanded or may_see_expanded(user, types or ())
    }
    visible = _all_visible(user, references)
    return {key for key, pks in needed.items() if pks <= visible}


def may_see_expanded(user: Reader, type_ids: Iterable[int]) -> bool:
    """Return whether the user may view all objects of each type. Types of removed plugins need a superuser."""
    return sees_everything(user) or all(may_view_all(user, model_of_id(type_id)) for type_id in type_ids)


def _all_visible(user: Reader, references: Mapping[int, set[Reference]]) -> set[int]:
    visible = visible_objects(user, chain.from_iterable(references.values()))
    return {pk for pk, needed in references.items() if needed <= visible}
