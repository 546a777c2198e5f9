"""Payloads need the view permission of their objects; expanded objects need their model's, without constraint.

models/confidential.py blanks other details.
"""

from collections.abc import Iterable, Mapping
from itertools import chain

from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.models import ContentType

from .models import BatchItem, Delivery, Event
from .visibility import Reader, Reference, may_view_all, sees_everything, visible_objects

# Shown with visible deliveries only.
RESTRICTED_OF_ATTEMPT = ('url', 'request_headers', 'response_headers', 'response_body')


def never_exempt() -> None:
    """Undo EXEMPT_VIEW_PERMISSIONS for our models, even '*'. Called by ready()."""
    ours = [(model._meta.app_label, model._meta.model_name) for model in apps.get_app_config('webhooks').get_models()]
    named = {'.'.join(label) for label in ours}
    settings.EXEMPT_EXCLUDE_MODELS = (*settings.EXEMPT_EXCLUDE_MODELS, *ours)
    settings.EXEMPT_VIEW_PERMISSIONS = [label for label in settings.EXEMPT_VIEW_PERMISSIONS if label not in named]


def visible_events(user: Reader, events: Iterable[Event]) -> set[int]:
    """Return the ids of events with visible payloads."""
    references = {event.pk: {(event.object_type_id, event.object_id)} for event in events}
    return _all_visible(user, references)


def visible_deliveries(user: Reader, deliveries: Iterable[Delivery]) -> set[int]:
    """Return the ids of deliveries with visible requests and responses."""
    deliveries = list(deliveries)
    references = {delivery.pk: {(delivery.object_type_id, delivery.object_id)} for delivery in deliveries}
    items = BatchItem.objects.filter(delivery__in=references)
    for delivery_id, *reference in items.values_list('delivery_id', 'object_type_id', 'object_id'):
        references[delivery_id].add(tuple(reference))
    return _all_visible(user, references) - _expanded_out_of_sight(user, deliveries)


def may_see_expanded(user: Reader, type_ids: Iterable[int]) -> bool:
    """Whether all objects of these types are visible."""
    models = [ContentType.objects.get_for_id(type_id).model_class() for type_id in type_ids]
    return all(user.is_superuser if model is None else may_view_all(user, model) for model in models)


def _expanded_out_of_sight(user: Reader, deliveries: Iterable[Delivery]) -> set[int]:
    expanded = [delivery.pk for delivery in deliveries if delivery.expanded]
    if not expanded or sees_everything(user):
        return set()
    types = Delivery.objects.filter(pk__in=expanded).values_list('pk', 'event__expanded_types')
    in_batches = BatchItem.objects.filter(delivery__in=expanded).values_list('delivery_id', 'event__expanded_types')
    return {pk for pk, type_ids in chain(types, in_batches) if not may_see_expanded(user, type_ids or ())}


def _all_visible(user: Reader, references: Mapping[int, set[Reference]]) -> set[int]:
    visible = visible_objects(user, chain.from_iterable(references.values()))
    return {pk for pk, needed in references.items() if needed <= visible}
