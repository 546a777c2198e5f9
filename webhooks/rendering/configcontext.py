"""Finds the config contexts of many objects at once.

NetBox has two ways (extras/querysets.py). In Python it needs ten queries for each object. In SQL it looks at current
rows only, not at a snapshot.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cache, reduce
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Field, Model, QuerySet, Value
from extras.models import ConfigContext, TaggedItem

from .parts import find, part

ConfigContextModel = find('extras.models.configs', 'ConfigContextModel')

# {relation of a context: path from an object}. In these trees, contexts of the ancestors apply too.
TREE_LIMITS = {
    'regions': 'site.region',
    'site_groups': 'site.group',
    'locations': 'location',
    'roles': 'role',
    'platforms': 'platform',
}
# {relation of a context: path to a key of an object}. Here the key must be the very same.
EXACT_LIMITS = {
    'sites': 'site_id',
    'device_types': 'device_type_id',
    'cluster_types': 'cluster.type_id',
    'cluster_groups': 'cluster.group_id',
    'clusters': 'cluster_id',
    'tenant_groups': 'tenant.group_id',
    'tenants': 'tenant_id',
}
TAGS = 'tags'
# All relations that limit a context.
LIMITS = (*TREE_LIMITS, *EXACT_LIMITS, TAGS)

# An object's keys, in the order of LIMITS.
Scope = tuple[frozenset[Any], ...]
# [(place in LIMITS, keys)]: the context applies to an object that has one of the keys at each place.
Limits = list[tuple[int, set[Any]]]


def applies_to(model: type[Model]) -> bool:
    """Return whether objects of the model have config contexts, limited in the way that is known here."""
    with part('config contexts'):
        return issubclass(model, ConfigContextModel) and _is_as_expected(model)
    return False


def _is_as_expected(model: type[Model]) -> bool:
    limits = {field.name for field in ConfigContext._meta.many_to_many}
    if limits != set(LIMITS):
        raise ValueError(f'contexts are limited by {", ".join(sorted(limits))}')
    return callable(model.get_config_context) and bool(model._meta.get_field('_config_context_data'))


def attach(instances: Sequence[Model], tags: Sequence[Collection[Any]]) -> None:
    """Put the data of the contexts that apply on each instance, by weight.

    `tags`: for each instance, the primary keys of its tags.
    """
    contexts = _limits_by_context()
    matching = cache(lambda scope: [pk for pk, limits in contexts.items() if _matches(scope, limits)])
    matches = [matching(_scope(instance, pks)) for instance, pks in zip(instances, tags, strict=True)]
    data = _data(set().union(*matches))
    for instance, pks in zip(instances, matches, strict=True):
        instance._config_context_data = None
        instance.config_context_data = [data[pk] for pk in pks]


def data_of(model: type[Model], pks: Collection[int]) -> dict[int, Any]:
    """Return {pk: the object's config context, as GET shows it} for objects that exist, in a few queries."""
    paths = {*TREE_LIMITS.values(), *(path.rpartition('.')[0] for path in EXACT_LIMITS.values())}
    fields = {field.name for field in model._meta.fields}
    related = [path.replace('.', '__') for path in paths if path.partition('.')[0] in fields]
    found = model._base_manager.using(DEFAULT_DB_ALIAS).filter(pk__in=pks).defer('_config_context_data')
    instances = list(found.select_related(*related))
    if applies_to(model):
        attach(instances, _tags(model, pks, instances))
    else:
        for instance in instances:
            instance._config_context_data = None  # it may be out of date
    return {instance.pk: instance.get_config_context() for instance in instances}


def _tags(model: type[Model], pks: Collection[int], instances: Sequence[Model]) -> list[list[int]]:
    of_model = TaggedItem.objects.using(DEFAULT_DB_ALIAS).filter(content_type=ContentType.objects.get_for_model(model))
    tags = defaultdict(list)
    for pk, tag in of_model.filter(object_id__in=pks).values_list('object_id', 'tag_id'):
        tags[pk].append(tag)
    return [tags[instance.pk] for instance in instances]


def _limits_by_context() -> dict[int, Limits]:
    limits = defaultdict(lambda: defaultdict(set))
    first, *others = (_keys(ConfigContext._meta.get_field(name), place) for place, name in enumerate(LIMITS))
    for context, place, key in first.union(*others, all=True):
        limits[context][place].add(key)
    active = ConfigContext.objects.filter(is_active=True).order_by('weight', 'name')
    return {context: list(limits[context].items()) for context in active.values_list('pk', flat=True)}


def _keys(field: Field, place: int) -> QuerySet:
    through = field.remote_field.through
    return through._default_manager.order_by().values_list(
        f'{field.m2m_field_name()}_id', Value(place), f'{field.m2m_reverse_field_name()}_id'
    )


def _data(contexts: Collection[int]) -> dict[int, dict[str, Any]]:
    if not contexts:
        return {}
    return dict(ConfigContext.objects.filter(pk__in=contexts).values_list('pk', 'data'))


def _matches(scope: Scope, limits: Limits) -> bool:
    return all(not keys.isdisjoint(scope[place]) for place, keys in limits)


def _scope(instance: Model, tags: Collection[Any]) -> Scope:
    return (
        *(_branch(_follow(instance, path)) for path in TREE_LIMITS.values()),
        *(frozenset({_follow(instance, path)}) for path in EXACT_LIMITS.values()),
        frozenset(tags),
    )


def _follow(instance: Model, path: str) -> Any:
    return reduce(lambda value, name: getattr(value, name, None), path.split('.'), instance)


def _branch(node: Model | None) -> frozenset[int]:
    if node is None:
        return frozenset()
    return frozenset({node.pk, *map(int, filter(None, (node.path or '').split('.')))})
