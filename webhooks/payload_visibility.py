"""Decides who may see the payloads of events and deliveries: all objects in one have to be visible (visibility.py).

A payload needs permission to view its objects. Expanded objects need that of their models, without constraint.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import Q

from .models import Delivery, Event
from .models.confidential import beginning
from .visibility import Reader, Reference, may_view_all, sees_everything, visible_objects

# Fields of an attempt that may show an object.
RESTRICTED_OF_ATTEMPT = ('url', 'request_headers', 'response_headers', 'response_body', 'request_body')


def restricted_attempt(error: str) -> dict[str, Any]:
    """Return an attempt's fields for a reader who may not see the payload: None, and the beginning of the error."""
    return dict.fromkeys(RESTRICTED_OF_ATTEMPT) | {'error': beginning(error)}


def visible_events(user: Reader, events: Iterable[Event]) -> set[int]:
    """Return the ids of the events whose objects the user may view now."""
    references = {event.pk: {(event.object_type_id, event.object_id)} for event in events}
    return _all_visible(user, references)


def visible_deliveries(user: Reader, deliveries: Iterable[Delivery]) -> set[int]:
    """Return the ids of the deliveries whose payloads the user may see: all objects in the request."""
    # A request has the id of its first delivery.
    requests = {one.pk: one.lead or one.pk for one in deliveries}
    told = Delivery.objects.filter(Q(pk__in=requests) | Q(lead__in=requests.values()))
    references, hidden = defaultdict(set), set()
    for pk, lead, *reference, expanded, types in told.values_list(
        'pk', 'lead', 'object_type_id', 'object_id', 'expanded', 'event__expanded_types'
    ):
        references[lead or pk].add(tuple(reference))
        if expanded and not may_see_expanded(user, types or ()):
            hidden.add(lead or pk)
    visible = _all_visible(user, references) - hidden
    return {pk for pk, request in requests.items() if request in visible}


def may_see_expanded(user: Reader, type_ids: Iterable[int]) -> bool:
    """Return whether the user may view all objects of each type. Types of removed plugins need a superuser."""
    if sees_everything(user):
        return True
    models = [ContentType.objects.get_for_id(type_id).model_class() for type_id in type_ids]
    return all(user.is_superuser if model is None else may_view_all(user, model) for model in models)


def _all_visible(user: Reader, references: Mapping[int, set[Reference]]) -> set[int]:
    visible = visible_objects(user, chain.from_iterable(references.values()))
    return {pk for pk, needed in references.items() if needed <= visible}
