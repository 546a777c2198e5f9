from django.db import connection, models


def make(model: type[models.Model], count: int, where: str = 'true', **columns: str) -> None:
    """Copy the matching row. `columns` are SQL of other values, with `n` from 1 to `count`."""
    names = [field.column for field in model._meta.concrete_fields if not field.primary_key]
    values = [columns.get(name, name) for name in names]
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO {table} ({", ".join(names)}) SELECT {", ".join(values)}'
            f' FROM {table}, generate_series(1, %s) n WHERE {where}',
            [count],
        )
        cursor.execute(f'ANALYZE {table}')
