"""The field `status` of a delivery, which has no column of its own: it is computed from the state."""

import re
from collections.abc import Callable, Collection
from typing import Any

from django.db import DataError, models
from django.db.models.expressions import Col
from django.db.models.lookups import In

from ..choices import StatusChoices
from ..delivery_states import STATES_OF_STATUS, STATUS_OF_STATE


class StatusField(models.CharField):
    """The status that people see. Queries filter and sort by it: a filter for a status is one for its states."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, max_length=10, choices=StatusChoices, editable=False, **kwargs)

    def contribute_to_class(self, cls: type[models.Model], name: str, **_kwargs: Any) -> None:
        """Add the field as one without a column: Django neither reads nor writes it."""
        super().contribute_to_class(cls, name, private_only=True)
        setattr(cls, name, property(_status_of))

    def get_attname_column(self) -> tuple[str, None]:
        """Return its name, and that it has no column."""
        return self.get_attname(), None

    def get_col(self, alias: str, output_field: models.Field | None = None) -> Col:
        """Return the column of the state, as a status: lookups below get it."""
        return Col(alias, self.model._meta.get_field('state'), self)

    def from_db_value(self, value: str, *_others: Any) -> str:
        """Return the status of a state, for `values` and the like."""
        return STATUS_OF_STATE[value]


def _status_of(delivery: models.Model) -> str:
    return STATUS_OF_STATE[delivery.state]


class _InStates(In):
    """Some statuses as their states. An unknown status has none."""

    def __init__(self, lhs: Any, statuses: Collection[str]) -> None:
        super().__init__(lhs, [state for status in statuses for state in STATES_OF_STATUS.get(status, ())])


@StatusField.register_lookup
class StatusIn(_InStates):
    """`status__in`."""

    lookup_name = 'in'


@StatusField.register_lookup
class StatusExact(_InStates):
    """`status`."""

    lookup_name = 'exact'

    def __init__(self, lhs: Any, status: str) -> None:
        super().__init__(lhs, [status])


def _found(status: str, pattern: str) -> object:
    """Search for the pattern, and raise DataError for a wrong one, as PostgreSQL does."""
    try:
        return re.search(pattern, status)
    except re.error as error:
        raise DataError(str(error)) from None


def _register(name: str, matches: Callable[[str, str], object]) -> None:
    """Register a lookup, as NetBox's filters make them of texts: all statuses that match the text."""

    def __init__(self: _InStates, lhs: Any, text: str | None) -> None:
        _InStates.__init__(self, lhs, [status for status in STATES_OF_STATUS if text and matches(status, text)])

    # The class keeps the name `in`: by the other names Django would compare upper case.
    StatusField.register_lookup(type(f'Status_{name}', (_InStates,), {'__init__': __init__}), name)


_register('iexact', lambda status, text: status == text.lower())
_register('icontains', lambda status, text: text.lower() in status)
_register('istartswith', lambda status, text: status.startswith(text.lower()))
_register('iendswith', lambda status, text: status.endswith(text.lower()))
_register('regex', _found)
_register('iregex', _found)
