"""Who sees what: our models are never exempt, and a payload is shown to those who may view its object now.

A batch is shown to those who may view all of its objects. An object is named by a reference, `(object type's id,
object's id)`, since it may be gone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import chain

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, QuerySet
from users.models import User
from utilities.permissions import get_permission_for_model, permission_is_exempt, qs_filter_from_constraints
from utilities.querysets import RestrictedQuerySet

from .models import BatchItem, Delivery, Event

Reference = tuple[int, int]

# What an attempt shows only of a visible delivery.
RESTRICTED_OF_ATTEMPT = ('url', 'request_headers', 'response_headers', 'response_body')


def never_exempt() -> None:
    """Take our models out of EXEMPT_VIEW_PERMISSIONS, whether it names them or says '*'. Called by ready()."""
    ours = [(model._meta.app_label, model._meta.model_name) for model in apps.get_app_config('webhooks').get_models()]
    named = {'.'.join(label) for label in ours}
    settings.EXEMPT_EXCLUDE_MODELS = (*settings.EXEMPT_EXCLUDE_MODELS, *ours)
    settings.EXEMPT_VIEW_PERMISSIONS = [label for label in settings.EXEMPT_VIEW_PERMISSIONS if label not in named]


def visible_events(user: User | AnonymousUser, events: Iterable[Event]) -> set[int]:
    """Return the ids of those of the events whose payload the user may see."""
    references = {event.pk: {(event.object_type_id, event.object_id)} for event in events}
    return _all_visible(user, references)


def visible_deliveries(user: User | AnonymousUser, deliveries: Iterable[Delivery]) -> set[int]:
    """Return the ids of those of the deliveries whose requests and responses the user may see."""
    references = {delivery.pk: {(delivery.object_type_id, delivery.object_id)} for delivery in deliveries}
    items = BatchItem.objects.filter(delivery__in=references)
    for delivery_id, *reference in items.values_list('delivery_id', 'object_type_id', 'object_id'):
        references[delivery_id].add(tuple(reference))
    return _all_visible(user, references)


def _all_visible(user: User | AnonymousUser, references: Mapping[int, set[Reference]]) -> set[int]:
    visible = visible_objects(user, chain.from_iterable(references.values()))
    return {pk for pk, needed in references.items() if needed <= visible}


def visible_objects(user: User | AnonymousUser, references: Iterable[Reference]) -> set[Reference]:
    """Return those of the references whose object the user may view; of a deleted one, whose model without constraint.

    Costs one query a model at most, however many references there are.
    """
    by_type: dict[int, set[int]] = defaultdict(set)
    for type_id, object_id in references:
        by_type[type_id].add(object_id)
    return {
        (type_id, object_id)
        for type_id, object_ids in by_type.items()
        for object_id in _visible_ids(user, ContentType.objects.get_for_id(type_id).model_class(), object_ids)
    }


def _visible_ids(user: User | AnonymousUser, model: type[Model] | None, object_ids: set[int]) -> set[int]:
    if model is None:  # of a plugin that is no longer installed
        return object_ids if user.is_superuser else set()
    if may_view_all(user, model):
        return object_ids
    return set(viewable(user, model).filter(pk__in=object_ids).values_list('pk', flat=True))


def may_view_all(user: User | AnonymousUser, model: type[Model]) -> bool:
    """Whether the user may view the model's objects without constraint."""
    permission = get_permission_for_model(model, 'view')
    if (user.is_active and user.is_superuser) or permission_is_exempt(permission):
        return True
    granted = user.get_all_permissions()
    return permission in granted and not qs_filter_from_constraints(user._object_perm_cache[permission])


def viewable(user: User | AnonymousUser, model: type[Model]) -> QuerySet:
    """Return those of the model's objects that the user may view."""
    return RestrictedQuerySet(model).restrict(user, 'view')
