"""The field `status` of a delivery, which has no column of its own: it is computed from the state."""

from collections.abc import Collection
from typing import Any

from django.db import models
from django.db.models.expressions import Col
from django.db.models.lookups import In

from ..choices import StatusChoices
from ..delivery_states import STATES_OF_STATUS, STATUS_OF_STATE

RENAMED = ' '.join(f"WHEN '{state}' THEN '{status}'" for state, status in STATUS_OF_STATE.items() if state != status)


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
        """Return the column of the state, as a status."""
        return _StatusCol(alias, self.model._meta.get_field('state'), self)


def _status_of(delivery: models.Model) -> str:
    return STATUS_OF_STATE[delivery.state]


class _StatusCol(Col):
    """The status in SQL, which all lookups of texts take."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        state, parameters = super().as_sql(compiler, connection)
        return f'CASE {state} {RENAMED} ELSE {state} END', parameters


class _InStates(In):
    """Some statuses as their states, for which there are indexes. An unknown status has none."""

    def __init__(self, lhs: Col, statuses: Collection[str]) -> None:
        known = [state for status in statuses for state in STATES_OF_STATUS.get(status, ())]
        super().__init__(Col(lhs.alias, lhs.target), known)


@StatusField.register_lookup
class StatusIn(_InStates):
    """`status__in`."""

    lookup_name = 'in'


@StatusField.register_lookup
class StatusExact(_InStates):
    """`status`."""

    lookup_name = 'exact'

    def __init__(self, lhs: Col, status: str) -> None:
        super().__init__(lhs, [status])
