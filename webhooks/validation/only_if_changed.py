"""Checks how many keys `only_if_changed` has, and that it fits the webhook.

services/comparable.py checks the keys themselves: the object types decide which there are.
"""

from collections.abc import Collection

from django.utils.translation import gettext as _

from ..constants import MAX_CHANGED_KEYS
from ..exceptions import DefinitionError
from .definition import Definition

FIELD = 'only_if_changed'


def check(definition: Definition) -> None:
    """Raise DefinitionError if the webhook names too many keys, or includes changes of components."""
    check_bounds(definition.only_if_changed)
    if definition.only_if_changed and definition.include_components:
        raise DefinitionError(
            FIELD,
            _(
                '“Include components” sends changes of components, which change none of these keys. Remove the keys, '
                'or switch it off.'
            ),
        )


def check_bounds(keys: Collection[str]) -> None:
    """Raise DefinitionError if these are too many keys."""
    if len(keys) > MAX_CHANGED_KEYS:
        raise DefinitionError(FIELD, _('No more than {limit} keys are allowed.').format(limit=MAX_CHANGED_KEYS))
