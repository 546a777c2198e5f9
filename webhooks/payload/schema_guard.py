"""Finds webhooks that name keys which payloads no longer have, and compares payloads before and after an upgrade.

A webhook names keys in its conditions, in `only_if_changed`, `expand`, `fields` and `omit`, and in its templates. Its
`filters` name filters of NetBox's lists, which count as keys that begin with `?`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.conf import settings
from django.db.models import Model, Q, QuerySet
from extras.models import CustomField
from netbox.registry import registry

from .. import list_filters, object_types
from ..constants import MAX_EXPAND_LEVELS
from ..exceptions import DecryptionError
from ..models import Webhook
from ..models.fields import SEALED_MARK
from ..presentation.fields import label
from ..rendering import keys
from ..storable import nodes
from ..templating.named_keys import named_in
from ..validation.conditions import is_condition
from . import json_schema

# {key: its type, such as 'string|null'}, of one object type
Shape = dict[str, str]
# Conditions read these too. They are no keys of the object.
NO_KEYS = ('snapshots', 'changelog_message')
# Most webhooks name no key: they are not read.
MAY_NAME_KEYS = (
    Q(conditions__isnull=False)
    | Q(fields__isnull=False)
    | Q(omit__isnull=False)
    | ~Q(only_if_changed=[])
    | ~Q(expand=[])
    | ~Q(filters={})
    | ~Q(body_template='')
    | ~Q(additional_headers='')
    | Q(payload_url__contains='{')
    | Q(payload_url__contains=SEALED_MARK)
)
CUSTOM_FIELDS = 'custom_fields'
TEMPLATES = ('body_template', 'payload_url', 'additional_headers')


class Named(NamedTuple):
    """A key that a field of a webhook names. `object_type`: only for payloads of this one. None: of all."""

    webhook: Webhook
    field: str
    key: str
    object_type: str | None = None

    def __str__(self) -> str:
        return f'{self.webhook}: {label(self.field)}: {self.key}'


def has_key(model: type[Model], key: str) -> bool:
    """Return whether the model's data have the dotted key, or may have it: in free JSON, or in an expanded object."""
    name, _dot, rest = key.partition('.')
    known = keys.shown(model)
    if name not in known or not rest:
        return name in known
    if name == CUSTOM_FIELDS:
        return rest.partition('.')[0] in {one.name for one in CustomField.objects.get_for_model(model)}
    below, target = known[name], keys.targets(model).get(name)
    if below is None or target is Model:
        return True
    return has_key(target, rest) if target else rest in below


def _filters_of(model: type[Model]) -> set[str]:
    """Return the filters of the model's list, such as '?region', without lookups such as `name__ic`."""
    list_filters.load()
    filterset = registry['filtersets'].get(model._meta.label_lower)
    return {f'?{name}' for name in filterset.base_filters if '__' not in name} if filterset else set()


def _is_known(model: type[Model], key: str) -> bool:
    """Return whether the model's data have the key, or its list has the filter, if the key begins with `?`."""
    if not key.startswith('?'):
        return has_key(model, key)
    if key.startswith('?cf_'):
        return has_key(model, f'{CUSTOM_FIELDS}.{key.removeprefix("?cf_")}')
    return key in _filters_of(model)


def named_by(webhook: Webhook) -> Iterator[Named]:
    """Yield the keys that a webhook names, each once for a field."""
    asked = (one['attr'] for one in filter(is_condition, nodes(webhook.conditions)))
    for key in dict.fromkeys(str(key) for key in asked):
        if key.partition('.')[0] not in NO_KEYS:
            yield Named(webhook, 'conditions', key)
    for name in ('only_if_changed', 'expand'):
        yield from (Named(webhook, name, key) for key in getattr(webhook, name))
    for name in ('fields', 'omit'):
        for object_type, chosen in (getattr(webhook, name) or {}).items():
            yield from (Named(webhook, name, key, object_type) for key in chosen)
    for object_type, query in (webhook.filters or {}).items():
        parameters = dict.fromkeys(name.partition('__')[0] for name in list_filters.named(query))
        yield from (Named(webhook, 'filters', f'?{name}', object_type) for name in parameters)
    for name in TEMPLATES:
        yield from (Named(webhook, name, key) for key in named_in(_text(webhook, name)))


def _text(webhook: Webhook, name: str) -> str:
    """Return the text of a template. It is empty if no key decrypts it: its deliveries fail in any case."""
    if name not in ('payload_url', 'additional_headers'):
        return getattr(webhook, name)
    try:
        return getattr(webhook, name).reveal()
    except DecryptionError:
        return ''


def unknown(webhooks: QuerySet[Webhook]) -> Iterator[Named]:
    """Yield keys that these webhooks name, and no payload of their object types has. Reads webhooks, custom fields."""
    for webhook in webhooks.filter(MAY_NAME_KEYS).prefetch_related('object_types').order_by('name'):
        models = {one._meta.label_lower: one for one in object_types.models_of(webhook.object_types.all())}
        for named in named_by(webhook) if models else ():
            asked = models.values() if named.object_type is None else filter(None, [models.get(named.object_type)])
            if not any(_is_known(model, named.key) for model in asked):
                yield named


# Before and after an upgrade.


@dataclass
class Difference:
    """The changes to the keys of an object type. `changed`: {key: (type before, type now)}."""

    came: list[str] = field(default_factory=list)
    went: list[str] = field(default_factory=list)
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.came or self.went or self.changed)


def take() -> dict[str, Any]:
    """Return the keys of all payloads that webhooks may send, and the filters, with NetBox's version. To be saved."""
    shapes: dict[str, Shape] = {}
    for model in sorted(_shown_models(), key=lambda one: one._meta.label_lower):
        try:
            shapes[model._meta.label_lower] = json_schema.keys_of(model) | dict.fromkeys(_filters_of(model), 'filter')
        except json_schema.NoSchema:
            continue
    return {'netbox': settings.RELEASE.full_version, 'object_types': shapes}


def _shown_models() -> set[type[Model]]:
    """Return the models whose objects payloads show in full: those that webhooks may send, and expanded ones."""
    found = level = set(object_types.allowed_models())
    for _level in range(MAX_EXPAND_LEVELS):
        reached = {target for model in level for target in keys.targets(model).values() if target is not Model}
        level = set(filter(keys.may_be_expanded, reached.intersection(object_types.every_model()) - found))
        found = found | level
    return found


def compare(before: Mapping[str, Shape], now: Mapping[str, Shape]) -> dict[str, Difference]:
    """Return {object type: difference} of the types that differ. A key stands for all below it."""
    found = {name: _difference(before.get(name, {}), now.get(name, {})) for name in sorted({*before, *now})}
    return {name: difference for name, difference in found.items() if difference}


def _difference(before: Shape, now: Shape) -> Difference:
    return Difference(
        came=_topmost(now.keys() - before.keys()),
        went=_topmost(before.keys() - now.keys()),
        changed={key: (before[key], now[key]) for key in sorted(before.keys() & now.keys()) if before[key] != now[key]},
    )


def _topmost(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for key in sorted(names):
        if not any(_is_in(key, above) for above in found):
            found.append(key)
    return found


def concerned(differences: Mapping[str, Difference]) -> Iterator[Named]:
    """Yield keys that webhooks name, and that went from one of their object types. Reads all webhooks."""
    for webhook in Webhook.objects.filter(MAY_NAME_KEYS).prefetch_related('object_types').order_by('name'):
        types = {object_types.label_of(one): one.model_class() for one in webhook.object_types.all()}
        for named in named_by(webhook):
            asked = types.items() if named.object_type is None else [(named.object_type, types.get(named.object_type))]
            if any(_has_gone(differences, label, model, named.key) for label, model in asked):
                yield named


def _has_gone(differences: Mapping[str, Difference], label: str, model: type[Model] | None, key: str) -> bool:
    """Return whether the key went from the data of this object type, or from those of the object that it leads to.

    The model is None if its plugin was removed.
    """
    if label in differences and any(_is_in(key, gone) for gone in differences[label].went):
        return True
    name, _dot, rest = key.partition('.')
    target = keys.targets(model).get(name) if model and rest else None
    return target not in (None, Model) and _has_gone(differences, target._meta.label_lower, target, rest)


def _is_in(key: str, above: str) -> bool:
    return key == above or key.startswith(f'{above}.')
