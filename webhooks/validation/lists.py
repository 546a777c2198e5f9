"""Checks subscriptions to lists. services/keys.py checks the filters themselves: NetBox decides which there are."""

from typing import Any

from django.utils.translation import gettext as _

from ..constants import MAX_QUERY_CHARS
from ..exceptions import DefinitionError
from .definition import Definition

# The receiver has to get all changes of a list, one by one and in order. So these are refused beside a filter.
NOT_BESIDE_FILTERS = (
    'conditions', 'only_if_changed', 'include_components', 'include_config_contexts', 'change_set', 'latest_only',
    'quiet',
)  # fmt: skip


def normalized_filters(filters: dict[str, Any]) -> dict[str, Any]:
    """Return filters as they are stored: without a `?` before a query, blanks around it, and line breaks in it.

    A query that is no text comes back unchanged, for `check` to refuse.
    """
    queries = {label: query for label, query in filters.items() if isinstance(query, str)}
    texts = {label: ''.join(query.splitlines()).strip().removeprefix('?') for label, query in queries.items()}
    return {**filters, **texts}


def check(definition: Definition) -> None:
    """Raise DefinitionError unless `filters` maps object types to texts, and no other field contradicts them."""
    filters = definition.filters
    if not isinstance(filters, dict) or not all(isinstance(query, str) for query in filters.values()):
        text = _('Enter a JSON object with a filter for each object type, such as {example}')
        raise DefinitionError('filters', text.format(example='{"dcim.device": "status=active"}'))
    if any(len(query) > MAX_QUERY_CHARS for query in filters.values()):
        text = _('A filter can have no more than {limit} characters.')
        raise DefinitionError('filters', text.format(limit=MAX_QUERY_CHARS))
    if not filters:
        return
    for name in NOT_BESIDE_FILTERS:
        if getattr(definition, name):
            raise DefinitionError(name, _('This does not work with filters: remove it, or the filters.'))
    if not definition.ordered:
        raise DefinitionError('ordered', _('Filters need it: an object must not leave a list before it has entered.'))
