"""Makes model instances of rows as to_jsonb writes them.

It keeps booleans, numbers, JSON and arrays, and writes times as ISO 8601, other types as text.
"""

import json
import weakref
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache, singledispatch
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.fields.ranges import RangeField
from django.db import DEFAULT_DB_ALIAS, connection, models
from django.utils.dateparse import parse_duration
from psycopg.adapt import Transformer
from psycopg.postgres import types
from psycopg.pq import Format

Decoder = Callable[[Any], Any]
Row = Mapping[str, Any]


def decode(field: models.Field, value: Any) -> Any:
    """Return a column's value as Python has it, from the value that to_jsonb wrote."""
    decoder = _decoder(field)
    return decoder(value) if decoder else value


def build(model: type[models.Model], rows: Iterable[Row]) -> list[models.Model]:
    """Return an instance for each row. Columns that a row lacks, as after an upgrade, get their default."""
    names, columns = _columns(model)
    return as_peers(
        model.from_db(DEFAULT_DB_ALIAS, names, [_value(row, *column) for column in columns]) for row in rows
    )


def as_peers(instances: Iterable[models.Model]) -> list[models.Model]:
    """Return the instances as Django's peers: if one needs a relation, it is fetched for all of them."""
    instances = list(instances)
    peers = [weakref.ref(instance) for instance in instances]
    for instance in instances:
        instance._state.fetch_mode = models.FETCH_PEERS
        instance._state.peers = peers
    return instances


def default(field: models.Field) -> Any:
    """Return the value of a column that is unknown: the default; None for a nullable column without one."""
    return None if field.null and not field.has_default() else field.get_default()


@cache
def _columns(model: type[models.Model]) -> tuple[list[str], list[tuple[str, Decoder | None, models.Field]]]:
    fields = model._meta.concrete_fields
    return [field.attname for field in fields], [(field.column, _decoder(field), field) for field in fields]


def _value(row: Row, column: str, decoder: Decoder | None, field: models.Field) -> Any:
    if column not in row:
        return default(field)
    return decoder(row[column]) if decoder else row[column]


#
# Decoders. None changes nothing.
#


def _decoder(field: models.Field) -> Decoder | None:
    from_json = _null_safe(_from_json(field))
    from_db_value = None if isinstance(field, models.JSONField | ArrayField) else getattr(field, 'from_db_value', None)
    if from_db_value is None:
        return from_json
    if from_json is None:
        return lambda value: from_db_value(value, None, connection)
    return lambda value: from_db_value(from_json(value), None, connection)


def _null_safe(decoder: Decoder | None) -> Decoder | None:
    return decoder and (lambda value: None if value is None else decoder(value))


@singledispatch
def _from_json(field: models.Field) -> Decoder | None:
    return None


@_from_json.register
def _(field: models.ForeignKey) -> Decoder | None:
    return _decoder(field.target_field)


@_from_json.register
def _(field: models.GeneratedField) -> Decoder | None:
    return _decoder(field.output_field)


@_from_json.register
def _(field: models.DateTimeField) -> Decoder:
    return lambda value: datetime.fromisoformat(value).astimezone(UTC)


@_from_json.register
def _(field: models.DateField) -> Decoder:
    return date.fromisoformat


@_from_json.register
def _(field: models.TimeField) -> Decoder:
    return time.fromisoformat


@_from_json.register
def _(field: models.DurationField) -> Decoder:
    return parse_duration


@_from_json.register
def _(field: models.DecimalField) -> Decoder:
    if field.decimal_places is None:
        return lambda value: Decimal(str(value))
    # The JSON number has lost the column's scale.
    exponent = Decimal(1).scaleb(-field.decimal_places)
    return lambda value: Decimal(str(value)).quantize(exponent, context=field.context)


@_from_json.register
def _(field: models.FloatField) -> Decoder:
    return float


@_from_json.register
def _(field: models.UUIDField) -> Decoder:
    return UUID


@_from_json.register
def _(field: models.BinaryField) -> Decoder:
    return lambda value: bytes.fromhex(value.removeprefix('\\x'))


@_from_json.register
def _(field: models.JSONField) -> Decoder | None:
    if field.decoder is None:
        return None
    return lambda value: json.loads(json.dumps(value), cls=field.decoder)


@_from_json.register
def _(field: ArrayField) -> Decoder | None:
    element = _decoder(field.base_field)
    return element and (lambda values: [element(value) for value in values])


@_from_json.register
def _(field: RangeField) -> Decoder | None:
    # A type of a plugin may be unknown to psycopg. Then its values are texts for NetBox too.
    known = types.get(field.db_type(connection))
    loader = known and Transformer().get_loader(known.oid, Format.TEXT)
    return loader and (lambda text: loader.load(text.encode()))
