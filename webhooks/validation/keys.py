"""Checks how many keys of the payload a webhook names in `expand` and `only_if_changed`, and that they fit it.

services/keys.py checks the keys themselves: the object types decide which there are.
"""

from collections.abc import Collection

from django.utils.translation import gettext as _

from ..constants import MAX_CHANGED_KEYS, MAX_EXPAND_KEYS, MAX_EXPAND_LEVELS
from ..exceptions import DefinitionError
from .definition import Definition


def check_expand(definition: Definition) -> None:
    """Raise DefinitionError if the webhook expands too many keys, or too many levels."""
    check_expanded_keys(definition.expand)


def check_expanded_keys(keys: Collection[str]) -> None:
    """Raise DefinitionError if these are too many keys, or one has too many levels."""
    if len(keys) > MAX_EXPAND_KEYS:
        raise DefinitionError('expand', _('No more than {limit} keys are allowed.').format(limit=MAX_EXPAND_KEYS))
    for key in keys:
        if key.count('.') >= MAX_EXPAND_LEVELS:
            reason = _('{key}: no more than {limit} levels are allowed.')
            raise DefinitionError('expand', reason.format(key=key, limit=MAX_EXPAND_LEVELS))


def check_only_if_changed(definition: Definition) -> None:
    """Raise DefinitionError if the webhook names too many keys, or includes changes of other objects."""
    check_changed_keys(definition.only_if_changed)
    if definition.only_if_changed and definition.include_components:
        raise DefinitionError(
            'only_if_changed',
            _(
                '“Include components” sends changes of components, which change none of these keys. Remove the keys, '
                'or switch it off.'
            ),
        )
    if definition.only_if_changed and definition.include_config_contexts:
        raise DefinitionError(
            'only_if_changed',
            _(
                '“Include config contexts” sends changes of other objects, which change none of these keys. Remove the '
                'keys, or switch it off.'
            ),
        )


def check_changed_keys(keys: Collection[str]) -> None:
    """Raise DefinitionError if these are too many keys."""
    if len(keys) > MAX_CHANGED_KEYS:
        raise DefinitionError(
            'only_if_changed', _('No more than {limit} keys are allowed.').format(limit=MAX_CHANGED_KEYS)
        )
