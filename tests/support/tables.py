"""Tables with an emptied log's statistics: PostgreSQL counts rows a minute apart, and an import takes seconds.

And tables that refuse a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.db.models import Model

# Unique columns.
OWN = {'id', 'uuid', 'sequence', 'object_id'}


def copy_row(model: type[Model], times: int) -> None:
    table = model._meta.db_table
    columns = ', '.join(f'"{one.column}"' for one in model._meta.concrete_fields if one.column not in OWN)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO {table} (uuid, sequence, object_id, {columns})
            SELECT gen_random_uuid(), sequence + n, object_id + n, {columns} FROM {table}, generate_series(1, %s) n""",
            [times],
        )


def fill_and_empty(model: type[Model]) -> None:
    """Leave one row, as retention does, and let PostgreSQL count.

    Of indexes that cost the same it takes the lowest, and earlier tests have made some high.
    """
    copy_row(model, times=20_000)
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(f'DELETE FROM {table} WHERE id > (SELECT min(id) FROM {table})')
        cursor.execute(f'REINDEX TABLE {table}')
        cursor.execute(f'ANALYZE {table}')


def rows_read(model: type[Model]) -> int:
    """Count the rows read by this and by closed connections."""
    with connection.cursor() as cursor:
        cursor.execute('SELECT pg_stat_force_next_flush()')
        cursor.execute(
            'SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = %s', [model._meta.db_table]
        )
        return cursor.fetchone()[0]


@contextmanager
def refusing(change: str, condition: str = 'true', code: str = 'P0001') -> Iterator[None]:
    """PostgreSQL refuses each such row, as `refusing('INSERT ON webhooks_event')`."""
    with connection.cursor() as cursor:
        cursor.execute(
            'CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS '
            f"$$ BEGIN RAISE EXCEPTION 'it is refused' USING ERRCODE = '{code}'; END $$"
        )
        cursor.execute(
            f'CREATE TRIGGER refuse BEFORE {change} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()'
        )
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute('DROP FUNCTION refuse CASCADE')
