"""Payloads need the view permission of their objects; expanded objects need their model's, without constraint."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.contenttypes.models import ContentType
from django.db.models import Q

from .models import Delivery, Event
from .models.confidential import beginning
from .visibility import Reader, Reference, may_view_all, sees_everything, visible_objects

RESTRICTED_OF_ATTEMPT = ('url', 'request_headers', 'response_headers', 'response_body', 'request_body')


def restricted_attempt(error: str) -> dict[str, Any]:
    return dict.fromkeys(RESTRICTED_OF_ATTEMPT) | {'error': beginning(error)}


def never_exempt() -> None:
    """Undo EXEMPT_VIEW_PERMISSIONS for our models, even '*'."""
    ours = [(model._meta.app_label, model._meta.model_name) for model in apps.get_app_config('webhooks').get_models()]
    named = {'.'.join(label) for label in ours}
    settings.EXEMPT_EXCLUDE_MODELS = (*settings.EXEMPT_EXCLUDE_MODELS, *ours)
    settings.EXEMPT_VIEW_PERMISSIONS = [label for label in settings.EXEMPT_VIEW_PERMISSIONS if label not in named]


def visible_events(user: Reader, events: Iterable[Event]) -> set[int]:
    references = {event.pk: {(event.object_type_id, event.object_id)} for event in events}
    return _all_visible(user, references)


def visible_deliveries(user: Reader, deliveries: Iterable[Delivery]) -> set[int]:
    """All objects of a request must be visible."""
    # A request has the id of its first delivery.
    requests = {one.pk: one.batch or one.pk for one in deliveries}
    told = Delivery.objects.filter(Q(pk__in=requests) | Q(batch__in=requests.values()))
    references, hidden = defaultdict(set), set()
    for pk, batch, *reference, expanded, types in told.values_list(
        'pk', 'batch', 'object_type_id', 'object_id', 'expanded', 'event__expanded_types'
    ):
        references[batch or pk].add(tuple(reference))
        if expanded and not may_see_expanded(user, types or ()):
            hidden.add(batch or pk)
    visible = _all_visible(user, references) - hidden
    return {pk for pk, request in requests.items() if request in visible}


def may_see_expanded(user: Reader, type_ids: Iterable[int]) -> bool:
    if sees_everything(user):
        return True
    models = [ContentType.objects.get_for_id(type_id).model_class() for type_id in type_ids]
    return all(user.is_superuser if model is None else may_view_all(user, model) for model in models)


def _all_visible(user: Reader, references: Mapping[int, set[Reference]]) -> set[int]:
    visible = visible_objects(user, chain.from_iterable(references.values()))
    return {pk for pk, needed in references.items() if needed <= visible}
