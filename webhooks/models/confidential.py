"""Blanks the columns of the log that its reader may not view.

A reader who may not view an object still sees that a delivery exists, but not its object and its user. Filters by such
columns have to leave the rows out themselves, with `visibility.query`: a match would reveal the blanked value.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any

from django.db.models import Case, F, Model, Q, When
from django.db.models.query import ModelIterable
from utilities.querysets import RestrictedQuerySet

from .. import visibility

# The values that are shown in place of columns that the reader may not view.
BLANK_FIELDS: dict[str, Any] = {
    'object_id': None,
    'object_repr': '',
    'username': None,
    'request_id': None,
    'partial': None,
    'caused_by': None,
}
CONFIDENTIAL_FIELDS = frozenset(BLANK_FIELDS)
# Leads from a delivery to its event's columns, in a filter.
EVENT_PREFIX = 'event__'
# `iterator` asks for permissions once for this many rows.
ROWS_PER_CHECK = 2000
# The rest of an error may quote an object.
BEGINNING = re.compile(r'HTTP \d+|[^:]*')


class LogQuerySet(RestrictedQuerySet):
    """Rows of the log, as one reader may see them: `restrict` names the reader, and columns in BLANK_FIELDS are
    blanked.

    It blanks model instances only. `values()` and aggregates show everything.
    """

    _reader: visibility.Reader | None = None

    @property
    def reader(self) -> visibility.Reader | None:
        """Return who asked for the rows, if the query is restricted."""
        return self._reader

    def restrict(self, user: visibility.Reader, action: str = 'view') -> 'LogQuerySet':
        """Return the rows on which the user may do `action`, blanked for this user."""
        return super().restrict(user, action).seen_by(user)

    def seen_by(self, reader: visibility.Reader) -> 'LogQuerySet':
        """Return all the same rows, blanked for this reader."""
        # All requests share the view's queryset. If the reader were set on it, the next request would see as this one.
        seen = self.all()
        seen._reader = reader
        return seen

    def order_by(self, *names: Any) -> 'LogQuerySet':
        """Sort the rows. Blanked values come last in either direction, so that their place does not reveal them."""
        return super().order_by(*map(self._as_shown, names))

    def iterator(self, chunk_size: int | None = None) -> Iterator[Any]:
        """Yield the rows one by one, blanked. It asks for permissions once for ROWS_PER_CHECK rows."""
        rows = super().iterator(chunk_size)
        if not self._is_confidential():
            yield from rows
            return
        for chunk in batched(rows, ROWS_PER_CHECK):
            self._conceal(chunk)
            yield from chunk

    def _clone(self) -> 'LogQuerySet':
        clone = super()._clone()
        clone._reader = self._reader
        return clone

    def _fetch_all(self) -> None:
        is_fresh = self._result_cache is None
        super()._fetch_all()
        if is_fresh and self._is_confidential():
            self._conceal(self._result_cache)

    def _is_confidential(self) -> bool:
        is_limited = self._reader is not None and not visibility.sees_everything(self._reader)
        return is_limited and issubclass(self._iterable_class, ModelIterable)

    def _as_shown(self, name: Any) -> Any:
        """Return the ordering by a confidential column's shown values. Other names come back unchanged."""
        if not isinstance(name, str) or self._reader is None or visibility.sees_everything(self._reader):
            return name
        bare = name.removeprefix('-')
        if bare.removeprefix(EVENT_PREFIX) not in {*CONFIDENTIAL_FIELDS, 'error'}:
            return name
        shown = Case(When(self._where_shown(self._reader, bare), then=F(bare)))
        return shown.desc(nulls_last=True) if name.startswith('-') else shown.asc(nulls_last=True)

    def _where_shown(self, reader: visibility.Reader, name: str) -> Q:
        return visibility.query(reader, EVENT_PREFIX if name.startswith(EVENT_PREFIX) else '')

    def _conceal(self, rows: Sequence[Any]) -> None:
        visible = visibility.visible_objects(self._reader, {(row.object_type_id, row.object_id) for row in rows})
        for row in rows:
            if (row.object_type_id, row.object_id) in visible:
                continue
            _blank(row)
            if event := row._state.fields_cache.get('event'):
                _blank(event)


def _blank(row: Model) -> None:
    # A deferred column too gets a value, or a template would read it from the row later.
    names = {field.attname for field in row._meta.concrete_fields}
    vars(row).update({name: value for name, value in BLANK_FIELDS.items() if name in names})
    shorten_error(row)


def shorten_error(row: Model) -> None:
    """Shorten the error of an event or a delivery to its beginning, in memory only: the rest may quote the object."""
    vars(row)['error'] = beginning(vars(row).get('error', ''))


def beginning(error: str) -> str:
    """Return the harmless beginning of an error: 'HTTP 500', or the text before its first colon."""
    return BEGINNING.match(error)[0]
