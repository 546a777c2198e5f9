"""`expand`: keys that name what an object points to."""

from collections.abc import Collection, Iterator

from django.db.models import Model
from django.utils.translation import gettext as _

from .. import object_types
from ..constants import MAX_EXPAND_KEYS, MAX_EXPAND_LEVELS
from ..exceptions import DefinitionError
from ..rendering.keys import may_be_expanded, targets
from .definition import Definition


def check(definition: Definition) -> None:
    """Raise DefinitionError for too many keys or levels. Which keys there are depends on the object types."""
    _check_bounds(definition.expand)


def check_keys(keys: Collection[str], models: Collection[type[Model]]) -> None:
    """Raise DefinitionError for a key that none of the models has, or that shows what is not to be shown."""
    _check_bounds(keys)
    for key in keys:
        _check_key(key, models)


def _check_bounds(keys: Collection[str]) -> None:
    if len(keys) > MAX_EXPAND_KEYS:
        raise DefinitionError('expand', _('There are {limit} keys at most.').format(limit=MAX_EXPAND_KEYS))
    for key in keys:
        if key.count('.') >= MAX_EXPAND_LEVELS:
            reason = _('{key}: there are {limit} levels at most.')
            raise DefinitionError('expand', reason.format(key=key, limit=MAX_EXPAND_LEVELS))


def _check_key(key: str, models: Collection[type[Model]]) -> None:
    reached: set[type[Model]] = set(models)
    for position, name in enumerate(key.split('.'), 1):
        found = {targets(model)[name] for model in _each(reached) if name in targets(model)}
        part = '.'.join(key.split('.')[:position])
        if not found:
            reason = _('{key}: none of the object types has a key {part} that points to an object.')
            raise DefinitionError('expand', reason.format(key=key, part=part))
        reached = {model for model in found if model is Model or may_be_expanded(model)}
        if not reached:
            reason = _('{key}: {part} is not expanded, for it may show who is known to NetBox, or secrets.')
            raise DefinitionError('expand', reason.format(key=key, part=part))


def _each(models: Collection[type[Model]]) -> Iterator[type[Model]]:
    """Yield the models; where any is possible, all that may be expanded."""
    if Model in models:
        yield from filter(may_be_expanded, object_types.every_model())
    yield from (model for model in models if model is not Model)
