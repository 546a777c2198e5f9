"""to_jsonb() writes columns, and decoding restores the ORM's values."""

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dcim.fields import MACAddressField, WWNField
from dcim.models import Site
from django.contrib.postgres.fields import (
    ArrayField,
    DateRangeField,
    DateTimeRangeField,
    DecimalRangeField,
    IntegerRangeField,
)
from django.db import connection, models
from django.db.backends.postgresql.psycopg_any import DateRange, DateTimeTZRange, NumericRange
from ipam.fields import IPAddressField, IPNetworkField
from netaddr import EUI, IPNetwork
from timezone_field import TimeZoneField

from webhooks.rendering.decoding import build, decode

INTEGERS = IntegerRangeField()

CASES = [
    (models.IntegerField(), '42', 42),
    (models.BigIntegerField(), '9007199254740993::bigint', 9007199254740993),
    (models.BooleanField(), 'true', True),
    (models.CharField(), "'ü \"x\"'::text", 'ü "x"'),
    (models.CharField(), 'NULL::text', None),
    (models.FloatField(), '10::float8', 10.0),
    (models.DecimalField(max_digits=8, decimal_places=6), '46.948100::numeric(8,6)', Decimal('46.948100')),
    (models.DecimalField(max_digits=15, decimal_places=2), '1234567890123.40::numeric', Decimal('1234567890123.40')),
    (models.DecimalField(max_digits=4, decimal_places=1), 'NULL::numeric', None),
    (models.DateField(), "'2024-02-29'::date", date(2024, 2, 29)),
    (models.TimeField(), "'13:14:15.000001'::time", time(13, 14, 15, 1)),
    (
        models.DateTimeField(),
        "'2025-02-28 13:14:15.000123+01'::timestamptz",
        datetime(2025, 2, 28, 12, 14, 15, 123, UTC),
    ),
    (models.DurationField(), "'3 days 04:05:06.7'::interval", timedelta(days=3, hours=4, minutes=5, seconds=6.7)),
    (models.DurationField(), "'-1 days -00:00:01'::interval", timedelta(days=-1, seconds=-1)),
    (models.UUIDField(), "'6b29fc40-ca47-1067-b31d-00dd010662da'::uuid", uuid.UUID('6b29fc40ca471067b31d00dd010662da')),
    (models.BinaryField(), "'\\x00ff10'::bytea", b'\x00\xff\x10'),
    (models.JSONField(), """'{"a": [1, null, "x"], "b": 1.50}'::jsonb""", {'a': [1, None, 'x'], 'b': 1.5}),
    (models.JSONField(), """'"text"'::jsonb""", 'text'),
    (models.GenericIPAddressField(), "'2001:db8::1'::inet", '2001:db8::1'),
    (IPAddressField(), "'10.0.0.1/24'::inet", IPNetwork('10.0.0.1/24')),
    (IPAddressField(), "'10.0.0.1'::inet", IPNetwork('10.0.0.1/32')),
    (IPNetworkField(), "'2001:db8::/32'::cidr", IPNetwork('2001:db8::/32')),
    (MACAddressField(), "'02:00:00:00:00:0a'::macaddr", EUI('02:00:00:00:00:0A')),
    (WWNField(), "'50:00:00:00:00:00:00:01'::macaddr8", EUI('50:00:00:00:00:00:00:01', version=64)),
    (TimeZoneField(), "'Europe/Zurich'::text", ZoneInfo('Europe/Zurich')),
    (TimeZoneField(), "''::text", None),
    (ArrayField(models.IntegerField()), "'{1,2}'::int[]", [1, 2]),
    (ArrayField(models.DateField()), "'{2024-02-29,NULL}'::date[]", [date(2024, 2, 29), None]),
    (ArrayField(ArrayField(models.UUIDField())), "'{}'::uuid[]", []),
    (INTEGERS, "'[1,4095)'::int4range", NumericRange(1, 4095)),
    (INTEGERS, "'(,5]'::int4range", NumericRange(None, 6, '()')),
    (INTEGERS, "'empty'::int4range", NumericRange(empty=True)),
    (ArrayField(INTEGERS), "ARRAY['[1,9)'::int4range, '[20,30)']", [NumericRange(1, 9), NumericRange(20, 30)]),
    (DecimalRangeField(), "'[1.5,2.25]'::numrange", NumericRange(Decimal('1.5'), Decimal('2.25'), '[]')),
    (DateRangeField(), "'[2024-02-28,2024-02-29]'::daterange", DateRange(date(2024, 2, 28), date(2024, 3, 1))),
    (
        DateTimeRangeField(),
        "'[2025-01-01 00:00:00+00,2025-01-01 12:30:00.5+00]'::tstzrange",
        DateTimeTZRange(datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, 12, 30, 0, 500000, UTC), '[]'),
    ),
]  # fmt: skip


def to_jsonb(expression: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT to_jsonb({expression})::text')
        text = cursor.fetchone()[0]
    return None if text is None else json.loads(text)


@pytest.mark.parametrize(('field', 'expression', 'value'), CASES)
def test_a_value_is_what_the_orm_would_have_read(db, field: models.Field, expression: str, value: Any):
    decoded = decode(field, to_jsonb(expression))
    assert decoded == value
    assert type(decoded) is type(value)


def test_the_time_zone_of_the_connection_does_not_matter(db):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'Asia/Kathmandu'")
    decoded = decode(models.DateTimeField(), to_jsonb("'2025-02-28 12:00:00+00'::timestamptz"))
    assert decoded.isoformat() == '2025-02-28T12:00:00+00:00'


def test_a_column_that_came_later_has_its_default(db):
    (site,) = build(Site, [{'id': 7, 'name': 'Bern'}])
    assert (site.pk, site.name, site.status, site.facility, site.region_id) == (7, 'Bern', 'active', '', None)
