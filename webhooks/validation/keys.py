"""Checks the keys of the payload that a webhook names: how many in `expand`, `fields`, `omit`, `only_if_changed`.

services/keys.py checks the keys themselves: the object types decide which there are.
"""

from collections.abc import Collection
from typing import Any

from django.utils.translation import gettext as _

from ..choices import FormatChoices
from ..constants import MAX_CHANGED_KEYS, MAX_EXPAND_KEYS, MAX_EXPAND_LEVELS, MAX_SELECTED_KEYS
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


def check_selection(definition: Definition) -> None:
    """Raise DefinitionError unless `fields` and `omit` list keys by object type, and name each type only once."""
    for name in ('fields', 'omit'):
        check_selected(name, getattr(definition, name))
    for label in (definition.fields or {}).keys() & (definition.omit or {}).keys():
        reason = _('{type}: “Fields” already says which keys are sent. Choose one of the two.')
        raise DefinitionError('omit', reason.format(type=label))


def check_selected(name: str, selected: Any) -> None:
    """Raise DefinitionError unless the value of `fields` or `omit` (`name`) lists keys by object type, or is None."""
    if selected is not None and not isinstance(selected, dict):
        raise DefinitionError(name, _('Enter a JSON object, such as {"dcim.site": ["id", "name"]}.'))
    for label, keys in (selected or {}).items():
        if not (isinstance(keys, list) and keys and all(key and isinstance(key, str) for key in keys)):
            raise DefinitionError(name, _('{type}: list one key or more, each in quotes.').format(type=label))
        if len(keys) > MAX_SELECTED_KEYS:
            reason = _('{type}: no more than {limit} keys are allowed.')
            raise DefinitionError(name, reason.format(type=label, limit=MAX_SELECTED_KEYS))


def check_thin(definition: Definition) -> None:
    """Raise DefinitionError if a webhook sends no data, but names what the data hold."""
    if definition.payload_format != FormatChoices.THIN:
        return
    for name in ('fields', 'omit', 'expand', 'include_snapshots'):
        if getattr(definition, name):
            raise DefinitionError(name, _('The format “Thin” sends no data. Choose another format, or leave this out.'))


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
