"""Checks the keys that `expand` may name: each part points to another object, and reveals no users and no secrets."""

from collections.abc import Collection, Iterator

from django.db.models import Model
from django.utils.translation import gettext as _

from .. import object_types
from ..exceptions import DefinitionError
from ..rendering.keys import may_be_expanded, targets
from ..validation.expand import check_bounds


def check_keys(keys: Collection[str], models: Collection[type[Model]]) -> None:
    """Check that each key leads from at least one of the models to another object.

    Raises DefinitionError for a key that is unknown, or not allowed.
    """
    check_bounds(keys)
    for key in keys:
        _check_key(key, models)


def _check_key(key: str, models: Collection[type[Model]]) -> None:
    reached: set[type[Model]] = set(models)
    for position, name in enumerate(key.split('.'), 1):
        found = {targets(model)[name] for model in _each(reached) if name in targets(model)}
        part = '.'.join(key.split('.')[:position])
        if not found:
            reason = _('{key}: in the chosen object types, {part} does not point to another object.')
            raise DefinitionError('expand', reason.format(key=key, part=part))
        reached = {model for model in found if model is Model or may_be_expanded(model)}
        if not reached:
            reason = _('{key}: {part} cannot be expanded, because it may reveal users or secrets.')
            raise DefinitionError('expand', reason.format(key=key, part=part))


def _each(models: Collection[type[Model]]) -> Iterator[type[Model]]:
    """Yield the models, and in place of `Model` all that may be expanded: a generic relation may point to any."""
    if Model in models:
        yield from filter(may_be_expanded, object_types.every_model())
    yield from (model for model in models if model is not Model)
