"""Checks fields of a webhook whose right values depend on its object types, such as keys of the payload.

`expand`: each part of a key points to another object, and reveals no users and no secrets. `only_if_changed`: a
snapshot holds the keys, and the payload shows them.
"""

from collections.abc import Collection, Iterable, Iterator
from difflib import get_close_matches

from django.db.models import Model
from django.utils.translation import gettext as _
from extras.models import CustomField

from .. import config_contexts, object_types
from ..exceptions import DefinitionError
from ..rendering import keys
from ..validation.keys import check_changed_keys, check_expanded_keys

CUSTOM_FIELDS = 'custom_fields'
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
    exact, free = _stored(models)
    for key in wanted:
        if key not in exact and not any(key.startswith(f'{name}.') for name in free):
            raise DefinitionError('only_if_changed', _unknown(key, sorted(exact)))


def _unknown(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, MAX_KEYS_NAMED, cutoff=0.5)
    if not near:
        return _('{key}: the chosen object types store no such key.').format(key=key)
    text = _('{key}: the chosen object types store no such key. The nearest ones are: {near}.')
    return text.format(key=key, near=', '.join(near))


def _stored(models: Iterable[type[Model]]) -> tuple[set[str], set[str]]:
    """Return the keys, and those below which any key may follow."""
    exact: set[str] = set()
    free: set[str] = set()
    for model in models:
        for name, below in keys.comparable(model).items():
            exact.add(name)
            if below is None:
                free.add(name)
            exact.update(f'{name}.{one}' for one in below or ())
        if CUSTOM_FIELDS in exact:
            free.discard(CUSTOM_FIELDS)
            own = {f'{CUSTOM_FIELDS}.{one.name}' for one in CustomField.objects.get_for_model(model)}
            exact |= own
            free |= own
    return exact, free


def check_config_contexts(wanted: bool, models: Collection[type[Model]]) -> None:
    """Raise DefinitionError if config contexts are included, and no chosen model has any."""
    if wanted and not config_contexts.owners(models):
        text = _('Only devices and virtual machines have config contexts. Choose one of them as an object type.')
        raise DefinitionError('include_config_contexts', text)


# {field of a webhook: its check}
KEYS = {
    'expand': check_expand,
    'only_if_changed': check_only_if_changed,
    'include_config_contexts': check_config_contexts,
}
