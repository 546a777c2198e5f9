"""Checks the keys that `only_if_changed` may name: a snapshot holds them, and the payload shows them."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from django.db.models import Model
from django.utils.translation import gettext as _
from extras.models import CustomField

from ..exceptions import DefinitionError
from ..rendering import keys
from ..validation.only_if_changed import FIELD, check_bounds

CUSTOM_FIELDS = 'custom_fields'
# So many keys are named beside a wrong one.
MAX_KEYS_NAMED = 3


def check_keys(wanted: Collection[str], models: Collection[type[Model]]) -> None:
    """Check that each key is known to one of the models.

    Raises DefinitionError for a key that no model has. It names the nearest right ones.
    """
    check_bounds(wanted)
    if not wanted:
        return
    exact, free = _known(models)
    for key in wanted:
        if key not in exact and not any(key.startswith(f'{name}.') for name in free):
            raise DefinitionError(FIELD, _reason(key, sorted(exact)))


def _reason(key: str, known: list[str]) -> str:
    near = get_close_matches(key, known, MAX_KEYS_NAMED, cutoff=0.5)
    if not near:
        return _('{key}: the chosen object types store no such key.').format(key=key)
    text = _('{key}: the chosen object types store no such key. The nearest ones are: {near}.')
    return text.format(key=key, near=', '.join(near))


def _known(models: Iterable[type[Model]]) -> tuple[set[str], set[str]]:
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
