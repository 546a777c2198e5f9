"""Applies current permissions to objects in the log. Deleted objects need unconstrained permission of their model."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from django.apps import apps
from django.contrib.auth.models import AnonymousUser
from django.contrib.contenttypes.models import ContentType
from django.db.models import AutoField, Exists, IntegerField, Model, OuterRef, Q, QuerySet
from users.models import User
from utilities.permissions import get_permission_for_model, permission_is_exempt, qs_filter_from_constraints
from utilities.querysets import RestrictedQuerySet

Reader = User | AnonymousUser
Reference = tuple[int, int]


def visible_objects(user: Reader, references: Iterable[Reference]) -> set[Reference]:
    """One query a model at most."""
    by_type: dict[int, set[int]] = defaultdict(set)
    for type_id, object_id in references:
        by_type[type_id].add(object_id)
    return {
        (type_id, object_id)
        for type_id, object_ids in by_type.items()
        for object_id in _visible_ids(user, ContentType.objects.get_for_id(type_id).model_class(), object_ids)
    }


def _visible_ids(user: Reader, model: type[Model] | None, object_ids: set[int]) -> set[int]:
    if model is None:  # of a removed plugin
        return object_ids if user.is_superuser else set()
    if may_view_all(user, model):
        return object_ids
    return set(viewable(user, model).filter(pk__in=object_ids).values_list('pk', flat=True))


def may_view_all(user: Reader, model: type[Model]) -> bool:
    permission = get_permission_for_model(model, 'view')
    if sees_everything(user) or permission_is_exempt(permission):
        return True
    granted = user.get_all_permissions()
    return permission in granted and not qs_filter_from_constraints(user._object_perm_cache[permission])


def viewable(user: Reader, model: type[Model]) -> QuerySet:
    return RestrictedQuerySet(model).restrict(user, 'view')


def sees_everything(user: Reader) -> bool:
    return user.is_active and user.is_superuser


def query(user: Reader, prefix: str = '') -> Q:
    """`prefix` leads to `object_type` and `object_id`."""
    if sees_everything(user):
        return Q()
    found = Q(**{f'{prefix}object_type__in': whole_types(user)})
    for model in _models():
        if not may_view_all(user, model) and user.has_perm(get_permission_for_model(model, 'view')):
            # EXISTS lets PostgreSQL check a filter's few rows.
            seen = Exists(viewable(user, model).order_by().filter(pk=OuterRef(f'{prefix}object_id')))
            found |= Q(seen, **{f'{prefix}object_type': ContentType.objects.get_for_model(model)})
    return found


def whole_types(user: Reader) -> list[int]:
    """The user may view all their objects."""
    whole = [model for model in _models() if may_view_all(user, model)]
    return [object_type.pk for object_type in ContentType.objects.get_for_models(*whole).values()]


def _models() -> Iterator[type[Model]]:
    for model in apps.get_models():
        if not model._meta.proxy and isinstance(model._meta.pk, AutoField | IntegerField):
            yield model
