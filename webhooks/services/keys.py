"""Checks fields of a webhook whose right values depend on its object types, such as keys of the payload.

`expand`: each part of a key points to another object, and reveals no users and no secrets. `only_if_changed`: a
snapshot holds the keys, and the payload shows them. `fields` and `omit`: the payload of their object type has the keys.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from django.apps import apps
from django.db.models import Model
from django.utils.translation import gettext as _
from extras.models import CustomField
from utilities.string import title

from .. import config_contexts, list_filters, object_types, visibility
from ..exceptions import DefinitionError
from ..interruptions import Locked
from ..models import Webhook
from ..payload.schema_guard import CUSTOM_FIELDS, has_key
from ..rendering import keys
from ..validation.keys import check_changed_keys, check_expanded_keys, check_selected

# A model → {its key: keys below it, or None: any}.
BelowOf = Callable[[type[Model]], Mapping[str, Collection[str] | None]]
# At most this many keys are named beside a wrong one.
MAX_KEYS_NAMED = 3


def check_expand(wanted: Collection[str], models: Collection[type[Model]]) -> None:
    """Check that each key leads from at least one of the models to another object.

    Raises DefinitionError for a key that is unknown, or not allowed.
    """
    check_expanded_keys(wanted)
    for key in wanted:
        _check_expanded(key, models)


def _check_expanded(key: str, models: Collection[type[Model]]) -> None:
    reached: set[type[Model]] = set(models)
    for position, name in enumerate(key.split('.'), 1):
        found = {keys.targets(model)[name] for model in _each(reached) if name in keys.targets(model)}
        part = '.'.join(key.split('.')[:position])
        if not found:
            reason = _('{key}: in the chosen object types, {part} does not point to another object.')
            raise DefinitionError('expand', reason.format(key=key, part=part))
        reached = {model for model in found if model is Model or keys.may_be_expanded(model)}
        if not reached:
            reason = _('{key}: {part} cannot be expanded, because it may reveal users or secrets.')
            raise DefinitionError('expand', reason.format(key=key, part=part))


def _each(models: Collection[type[Model]]) -> Iterator[type[Model]]:
    """Yield the models, and in place of `Model` all that may be expanded: a generic relation may point to any."""
    if Model in models:
        yield from filter(keys.may_be_expanded, object_types.every_model())
    yield from (model for model in models if model is not Model)


def check_only_if_changed(wanted: Collection[str], models: Collection[type[Model]]) -> None:
    """Check that each key is known to one of the models.

    Raises DefinitionError for a key that no model has. It names the nearest right ones.
    """
    check_changed_keys(wanted)
    if not wanted:
        return
    known = Known.among(keys.comparable, models)
    for key in wanted:
        if not known.has(key):
            reason = _('{key}: the chosen object types have no such key.').format(key=key)
            raise DefinitionError('only_if_changed', f'{reason} {known.nearest(key)}'.strip())


class Known(NamedTuple):
    """Keys of models. `exact`: known keys. `free`: keys below which any key may follow."""

    exact: set[str]
    free: set[str]

    @classmethod
    def among(cls, below_of: BelowOf, models: Iterable[type[Model]]) -> 'Known':
        """Return the keys of all these models. `below_of` is `comparable` or `shown` of rendering.keys."""
        known = cls(set(), set())
        for model in models:
            for name, below in below_of(model).items():
                known._add(name, below)
            if CUSTOM_FIELDS in known.exact:
                known.free.discard(CUSTOM_FIELDS)
                for field in CustomField.objects.get_for_model(model):
                    known._add(f'{CUSTOM_FIELDS}.{field.name}', None)
        return known

    def has(self, key: str) -> bool:
        """Return whether one of the models has the dotted key."""
        return key in self.exact or any(key.startswith(f'{name}.') for name in self.free)

    def nearest(self, key: str) -> str:
        """Return a sentence that names the known keys most like an unknown one, '' if there are none."""
        near = get_close_matches(key, sorted(self.exact), MAX_KEYS_NAMED, cutoff=0.5)
        return _('Did you mean {near}?').format(near=', '.join(near)) if near else ''

    def _add(self, name: str, below: Collection[str] | None) -> None:
        self.exact.add(name)
        if below is None:
            self.free.add(name)
        self.exact.update(f'{name}.{one}' for one in below or ())


def check_selection(name: str, wanted: Mapping[str, Collection[str]] | None, models: Collection[type[Model]]) -> None:
    """Check that `fields` or `omit` (`name`) names only object types among the models, and keys of their data.

    Raises DefinitionError for a type or a key that is unknown. It names the nearest right keys.
    """
    check_selected(name, wanted)
    by_label = {model._meta.label_lower: model for model in models}
    for label, wanted_keys in (wanted or {}).items():
        if label not in by_label:
            reason = _('{type}: this webhook has no such object type.')
            raise DefinitionError(name, reason.format(type=label))
        for key in wanted_keys:
            if not has_key(by_label[label], key):
                reason = _('{type} has no key {key}.').format(type=label, key=key)
                near = Known.among(keys.shown, [by_label[label]]).nearest(key)
                raise DefinitionError(name, f'{reason} {near}'.strip())


def check_config_contexts(wanted: bool, models: Collection[type[Model]]) -> None:
    """Raise DefinitionError if config contexts are included, and no chosen model has any."""
    if wanted and not config_contexts.owners(models):
        text = _('Only devices and virtual machines have config contexts. Choose one of them as an object type.')
        raise DefinitionError('include_config_contexts', text)


def check_filters(wanted: Mapping[str, str], models: Collection[type[Model]]) -> None:
    """Try the filters, which takes four seconds for each at most.

    Raises DefinitionError for one whose object type is not chosen, and for one that NetBox's list refuses or that is
    too slow. It names the parameter.
    """
    by_label = {model._meta.label_lower: model for model in models}
    for label, query in wanted.items():
        if label not in by_label:
            text = _('{label} is not among the object types of the webhook.')
            raise DefinitionError('filters', text.format(label=label))
        try:
            with list_filters.bounded(query):
                list_filters.count(by_label[label], query)
        except (DefinitionError, Locked) as error:
            raise DefinitionError('filters', f'{label}: {error}') from None


def check_may_filter(user: Any, wanted: Mapping[str, str], known: Mapping[str, str]) -> None:
    """Raise DefinitionError if the user may not view all objects of a type whose filter is new or changed.

    An object that enters or leaves a list reveals its data.
    """
    check_may_view(
        'filters', user, [apps.get_model(label) for label, query in wanted.items() if known.get(label) != query]
    )


def check_may_view(field: str, user: Any, models: Iterable[type[Model]]) -> None:
    """Raise DefinitionError, for the field of a filter, if the user may not view all objects of these models."""
    if hidden := [model for model in models if not visibility.may_view_all(user, model)]:
        names = ', '.join(sorted(title(model._meta.verbose_name) for model in hidden))
        text = _('To use a filter, you need the permission to view all objects of these types: {names}')
        raise DefinitionError(field, text.format(names=names))


# {field of a webhook: its check}
KEYS = {
    'filters': check_filters,
    'expand': check_expand,
    'fields': partial(check_selection, 'fields'),
    'omit': partial(check_selection, 'omit'),
    'only_if_changed': check_only_if_changed,
    'include_config_contexts': check_config_contexts,
}


def find_wrong(stored: Webhook, changes: Mapping[str, Any], user: Any = None) -> dict[str, str]:
    """Return why new values of these fields are wrong, by field. `changes` are the new values of a webhook by field.

    If the object types are among them, all of these fields are checked. `user` has to be allowed to use new filters,
    unless it is None. Filters that stay as they are, with the same types, are not tried again: that may take seconds,
    and somebody may want to disable a webhook because its filter fails.
    """
    asked = [name for name in KEYS if not changes.keys().isdisjoint({name, 'object_types'})]
    if not asked:
        return {}
    own = stored.object_types.all() if stored.pk else ()
    types = own if changes.get('object_types') is None else changes['object_types']
    if {*types} == {*own} and changes.get('filters', stored.filters) == stored.filters:
        asked = [name for name in asked if name != 'filters']
    models, wrong = object_types.models_of(types), {}
    for name in asked:
        try:
            KEYS[name](changes.get(name, getattr(stored, name)), models)
            if user is not None and name == 'filters' and name in changes:
                check_may_filter(user, changes[name], stored.filters)
        except DefinitionError as error:
            wrong[name] = str(error)
    return wrong
