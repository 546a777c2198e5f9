"""Checks how many keys `expand` has, and how deep they are.

services/expandable.py checks the keys themselves: the object types decide which there are.
"""

from collections.abc import Collection

from django.utils.translation import gettext as _

from ..constants import MAX_EXPAND_KEYS, MAX_EXPAND_LEVELS
from ..exceptions import DefinitionError
from .definition import Definition


def check(definition: Definition) -> None:
    """Raise DefinitionError if the webhook expands too many keys, or too many levels."""
    check_bounds(definition.expand)


def check_bounds(keys: Collection[str]) -> None:
    """Raise DefinitionError if these are too many keys, or one has too many levels."""
    if len(keys) > MAX_EXPAND_KEYS:
        raise DefinitionError('expand', _('No more than {limit} keys are allowed.').format(limit=MAX_EXPAND_KEYS))
    for key in keys:
        if key.count('.') >= MAX_EXPAND_LEVELS:
            reason = _('{key}: no more than {limit} levels are allowed.')
            raise DefinitionError('expand', reason.format(key=key, limit=MAX_EXPAND_LEVELS))
