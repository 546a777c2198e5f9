"""Finds which objects of the log a user may view now.

A deleted object needs permission to view its model without constraint. payload_visibility.py decides over payloads,
and services/actions.py has the permissions of actions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.db.models import AutoField, Exists, IntegerField, Model, OuterRef, Q, QuerySet
from users.models import User
from utilities.permissions import get_permission_for_model, permission_is_exempt, qs_filter_from_constraints
from utilities.querysets import RestrictedQuerySet

Reader = User | AnonymousUser
# (id of the object's type, id of the object)
Reference = tuple[int, int]


def never_exempt() -> None:
    """Change NetBox's settings, so that EXEMPT_VIEW_PERMISSIONS never applies to our models, not even with '*'."""
    ours = [(model._meta.app_label, model._meta.model_name) for model in apps.get_app_config('webhooks').get_models()]
    named = {'.'.join(label) for label in ours}
    settings.EXEMPT_EXCLUDE_MODELS = (*settings.EXEMPT_EXCLUDE_MODELS, *ours)
    settings.EXEMPT_VIEW_PERMISSIONS = [label for label in settings.EXEMPT_VIEW_PERMISSIONS if label not in named]


def visible_objects(user: Reader, references: Iterable[Reference]) -> set[Reference]:
    """Return the references whose objects the user may view, with one query for each model at most."""
    by_type: dict[int, set[int]] = defaultdict(set)
    for type_id, object_id in references:
        by_type[type_id].add(object_id)
    return {
        (type_id, object_id)
        for type_id, object_ids in by_type.items()
        for object_id in _visible_ids(user, ContentType.objects.get_for_id(type_id).model_class(), object_ids)
    }


def _visible_ids(user: Reader, model: type[Model] | None, object_ids: set[int]) -> set[int]:
    if may_view_all(user, model):
        return object_ids
    if model is None:
        return set()
    return set(viewable(user, model).filter(pk__in=object_ids).values_list('pk', flat=True))


def may_view_all(user: Reader, model: type[Model] | None) -> bool:
    """Return whether the user may view all objects of the model, without constraint.

    None stands for a model whose plugin was removed: only superusers may.
    """
    if sees_everything(user) or model is None:
        return sees_everything(user)
    permission = get_permission_for_model(model, 'view')
    if permission_is_exempt(permission):
        return True
    granted = user.get_all_permissions()
    return permission in granted and not qs_filter_from_constraints(user._object_perm_cache[permission])


def viewable(user: Reader, model: type[Model]) -> QuerySet:
    """Return the model's existing objects that the user may view."""
    return RestrictedQuerySet(model).restrict(user, 'view')


def permitted(rows: QuerySet, user: Reader, action: str) -> QuerySet:
    """Return the rows that the user may view, and may act on: `action` is one of NetBox's permissions' actions."""
    return rows.restrict(user, action).restrict(user, 'view')


def sees_everything(user: Reader) -> bool:
    """Return whether the user is an active superuser."""
    return user.is_active and user.is_superuser


def query(user: Reader, prefix: str = '') -> Q:
    """Return a filter for rows whose object the user may view; of deleted objects, those whose types are whole.

    `prefix` leads from a row to `object_type` and `object_id`, as "event__" does.
    """
    if sees_everything(user):
        return Q()
    found = Q(**{f'{prefix}object_type__in': whole_types(user)})
    for model in _models():
        if not may_view_all(user, model) and user.has_perm(get_permission_for_model(model, 'view')):
            # With EXISTS, PostgreSQL looks at the few rows that other filters leave, not at all objects.
            seen = Exists(viewable(user, model).order_by().filter(pk=OuterRef(f'{prefix}object_id')))
            found |= Q(seen, **{f'{prefix}object_type': ContentType.objects.get_for_model(model)})
    return found


def whole_types(user: Reader) -> list[int]:
    """Return the ids of the types whose objects the user may all view."""
    whole = [model for model in _models() if may_view_all(user, model)]
    return [object_type.pk for object_type in ContentType.objects.get_for_models(*whole).values()]


def _models() -> Iterator[type[Model]]:
    for model in apps.get_models():
        if not model._meta.proxy and isinstance(model._meta.pk, AutoField | IntegerField):
            yield model
