"""Hides an event's object and user from people who may not view the object. Filters must ask for it."""

import re
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any

from django.db.models import Case, F, Model, Q, When
from django.db.models.query import ModelIterable
from utilities.querysets import RestrictedQuerySet

from .. import visibility

BLANK: dict[str, Any] = {
    'object_id': None,
    'object_repr': '',
    'username': None,
    'request_id': None,
    'partial': None,
    'caused_by': None,
}
CONFIDENTIAL = frozenset(BLANK)
EVENT = 'event__'
CHUNK = 2000
# The rest may quote an object.
BEGINNING = re.compile(r'HTTP \d+|[^:]*')


class LogQuerySet(RestrictedQuerySet):
    _reader: visibility.Reader | None = None

    @property
    def reader(self) -> visibility.Reader | None:
        """Who asked for the rows, if the query is restricted."""
        return self._reader

    def restrict(self, user: visibility.Reader, action: str = 'view') -> 'LogQuerySet':
        return super().restrict(user, action).seen_by(user)

    def seen_by(self, reader: visibility.Reader) -> 'LogQuerySet':
        """Return the same rows without what the reader may not view."""
        # All requests share the view's queryset.
        seen = self.all()
        seen._reader = reader
        return seen

    def order_by(self, *names: Any) -> 'LogQuerySet':
        return super().order_by(*map(self._as_shown, names))

    def iterator(self, chunk_size: int | None = None) -> Iterator[Any]:
        rows = super().iterator(chunk_size)
        if not self._is_confidential():
            yield from rows
            return
        for chunk in batched(rows, CHUNK):
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
        """Blanks come last."""
        if not isinstance(name, str) or self._reader is None or visibility.sees_everything(self._reader):
            return name
        bare = name.removeprefix('-')
        if bare.removeprefix(EVENT) not in {*CONFIDENTIAL, 'error'}:
            return name
        shown = Case(When(self._where_shown(self._reader, bare), then=F(bare)))
        return shown.desc(nulls_last=True) if name.startswith('-') else shown.asc(nulls_last=True)

    def _where_shown(self, reader: visibility.Reader, name: str) -> Q:
        return visibility.query(reader, EVENT if name.startswith(EVENT) else '')

    def _conceal(self, rows: Sequence[Any]) -> None:
        visible = visibility.visible_objects(self._reader, {(row.object_type_id, row.object_id) for row in rows})
        for row in rows:
            if (row.object_type_id, row.object_id) in visible:
                continue
            _blank(row)
            if event := row._state.fields_cache.get('event'):
                _blank(event)


def _blank(row: Model) -> None:
    # Else a deferred column would be read later.
    vars(row).update({name: value for name, value in BLANK.items() if _has(row, name)})
    shorten_error(row)


def shorten_error(row: Model) -> None:
    vars(row)['error'] = beginning(vars(row).get('error', ''))


def beginning(error: str) -> str:
    return BEGINNING.match(error)[0]


def _has(row: Model, name: str) -> bool:
    return any(field.attname == name for field in row._meta.concrete_fields)
