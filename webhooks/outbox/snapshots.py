"""Takes snapshots of rows in PostgreSQL: `{"row": {column: value}, "m2m": {field: [pk, …]}}`, as JSON text.

They are not made from instances, which may lack stored values (`update_fields`, F(), triggers).
"""

import functools
from collections.abc import Collection
from typing import Any

from django.contrib.contenttypes.models import ContentType
from django.db import DEFAULT_DB_ALIAS, connection, models
from django.db.models import ManyToManyField

from ..default_database import in_transaction

# SQL for a many-to-many field without links.
NO_KEYS = "'[]'::jsonb"
# A key that marks a snapshot from before a change, taken without a lock. It may be older than the last state.
UNLOCKED = 'unlocked'


@functools.cache
def expression(model: type[models.Model]) -> str:
    """Return SQL that makes the snapshot of a row of the model. The query must name the table `t`."""
    links = [f"'{field.name}', {_link(model, field)}" for field in model._meta.many_to_many]
    return f"jsonb_build_object('row', to_jsonb(t), 'm2m', jsonb_build_object({', '.join(links)}))"


def _link(model: type[models.Model], field: ManyToManyField) -> str:
    quote = connection.ops.quote_name
    table, target = quote(field.m2m_db_table()), quote(field.m2m_reverse_name())
    source, pk = quote(field.m2m_column_name()), quote(model._meta.pk.column)
    condition = f'x.{source} = t.{pk}'
    if is_generic(field):
        condition += f' AND x.content_type_id = {object_type_id(model):d}'
    return f'(SELECT coalesce(jsonb_agg(x.{target} ORDER BY x.{target}), {NO_KEYS}) FROM {table} x WHERE {condition})'


def is_generic(field: ManyToManyField) -> bool:
    """Return whether the field's rows name the type of their object, as the rows of tags do."""
    return any(f.name == 'content_type' for f in field.remote_field.through._meta.concrete_fields)


@functools.cache
def object_type_id(model: type[models.Model]) -> int:
    """Return the pk of the model's ContentType in the default database. It is read once a process."""
    return ContentType.objects.db_manager(DEFAULT_DB_ALIAS).get_for_model(model).pk


def lock_rows(model: type[models.Model], pks: Collection[Any]) -> list[Any]:
    """Lock rows until the transaction ends, in pk order, and return the pks of existing ones.

    Read the rows in another statement: this one does not see all that earlier holders of the locks committed.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT t.{_pk(model)} FROM {_table(model)} t WHERE t.{_pk(model)} = ANY(%s) '
            f'ORDER BY t.{_pk(model)} FOR NO KEY UPDATE',
            [list(pks)],
        )
        return [row[0] for row in cursor.fetchall()]


def take(model: type[models.Model], pks: Collection[Any], *, mark: str = '', lock: str = '') -> dict[Any, str]:
    """Return {pk: snapshot as JSON text} of existing rows, in the order of their pks.

    `mark` and `lock` are SQL: what is added to each snapshot, and a clause that locks the rows.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f'SELECT t.{_pk(model)}, ({expression(model)}{mark})::text FROM {_table(model)} t '
            f'WHERE t.{_pk(model)} = ANY(%s) ORDER BY t.{_pk(model)} {lock}',
            [list(pks)],
        )
        return dict(cursor.fetchall())


def take_before(model: type[models.Model], pks: Collection[Any]) -> dict[Any, str]:
    """Return {pk: snapshot as JSON text} of rows that this transaction is about to change, and lock them.

    Outside any transaction no lock holds, so the snapshots are marked: others may change the rows before this save.
    """
    if in_transaction():
        return take(model, pks, lock='FOR NO KEY UPDATE')
    return take(model, pks, mark=f' || \'{{"{UNLOCKED}": true}}\'')


def row(model: type[models.Model]) -> str:
    """Return SQL `FROM` that gives one row `t`. Its parameter is the pk."""
    return f'FROM {_table(model)} t WHERE t.{_pk(model)} = %s'


def rows(model: type[models.Model]) -> str:
    """Return SQL `FROM` that gives rows `t` with their earlier snapshots `b.before`, in the order of their pks.

    Its parameters are two arrays: pks, and snapshots as JSON text. Without an order, PostgreSQL's plan would decide
    in which one the events of a statement are numbered, and so the order of a change set.
    """
    given = 'unnest(%s::bigint[], %s::jsonb[]) AS b(pk, before)'
    return f'FROM {given} JOIN {_table(model)} t ON t.{_pk(model)} = b.pk ORDER BY b.pk'


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _pk(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.pk.column)
