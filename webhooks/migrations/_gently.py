"""Changes tables while NetBox goes on: no save waits longer than a moment, or fails with a deadlock.

An ALTER TABLE that waits for its lock keeps all who come after it waiting: every save of a subscribed model, until the
slowest transaction ends. So it waits a moment only, lets them go on, and tries again. Run again, a migration passes over
steps that are done.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import OperationalError, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AddField, CreateModel, DeleteModel, RemoveField
from django.db.migrations.operations.base import Operation
from psycopg.errors import DeadlockDetected, LockNotAvailable

# So long a step waits for a lock. It needs two at most, which is less than the second after which PostgreSQL looks for
# deadlocks: the migration gives up first, and no save dies.
STEP_LOCK_MS = 400
# Between two tries of a step.
RETRY_SECONDS = 0.5
# After this many tries, each time, a line says who is waited for.
TRIES_PER_LINE = 10

# Keep a vacuum away and stop one that is under way, which PostgreSQL does after a second. Nobody else waits for it.
LOCK_OUT_VACUUM = 'LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE'
# Read whether an index is complete. An interrupted build leaves one that is not.
IS_VALID = 'SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)'
# Read the foreign keys of a table, and the tables that they point to.
READ_FOREIGN_KEYS = (
    "SELECT conname, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f' AND conrelid = %s::regclass"
)
# Read who holds a lock of these tables, the oldest transaction first.
READ_OLDEST_HOLDER = """
    SELECT a.pid, a.state, a.xact_start::timestamptz(0) FROM pg_stat_activity a
    WHERE a.pid <> pg_backend_pid() AND EXISTS (
        SELECT 1 FROM pg_locks l WHERE l.pid = a.pid AND l.granted AND l.relation = ANY(%s::regclass[])
    )
    ORDER BY a.xact_start LIMIT 1"""

# Read a table's columns, none where there is no such table. It takes no lock.
READ_COLUMNS = 'SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND NOT attisdropped'


class Once(Operation):
    """Run operations with the models of before the first and after the last of them. Each does without the others.

    Our models have relations to users, tags and object types, and so to all of NetBox. Django would compute its 150
    models anew for each operation: twenty seconds of CPU in an installation, in which NetBox stands still.
    """

    reversible = True

    def __init__(self, *operations: Operation) -> None:
        self.operations = operations

    def state_forwards(self, app_label: str, state: Any) -> None:
        # Not computed, it is only noted what changes. The first who asks for the models has them computed.
        state.__dict__.pop('apps', None)
        for operation in self.operations:
            operation.state_forwards(app_label, state)

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        for operation in self.operations:
            operation.database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        for operation in reversed(self.operations):
            operation.database_backwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        return '; '.join(operation.describe() for operation in self.operations)


class Gently(Once):
    """Run operations in one short transaction, which locks no tables but the named ones."""

    def __init__(self, models: Sequence[str], *operations: Operation) -> None:
        super().__init__(*operations)
        self.models = models

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        # Made now: it takes a while, in which nothing is to be locked.
        _ = from_state.apps, to_state.apps
        to_do = [one for one in self.operations if not _is_done(one, app_label, schema_editor)]

        def alter() -> None:
            later = schema_editor.deferred_sql
            later.clear()  # of an interrupted try
            for operation in to_do:
                operation.database_forwards(app_label, schema_editor, from_state, to_state)
            while later:
                schema_editor.execute(later.pop(0))

        if to_do:
            insist(schema_editor, alter, tables=[f'{app_label}_{name}' for name in self.models])


class BuildIndex(AddIndexConcurrently):
    """An index that is built while saves go on. First it drops what an interrupted build has left."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(IS_VALID, [self.index.name])
            found = cursor.fetchone()
        if found == (True,):
            return
        schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS {self.index.name}')
        super().database_forwards(app_label, schema_editor, from_state, to_state)


class Retire(RemoveField):
    """Remove a field from the models, and leave its column to processes of the version before, which still write it.

    `default`: the value, as SQL, in rows of processes that do not know it.
    """

    def __init__(self, model_name: str, name: str, default: str) -> None:
        super().__init__(model_name, name)
        self.default = default

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        schema_editor.execute(f'{self._alter(app_label)} ALTER COLUMN {self.name} SET DEFAULT {self.default}')

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        schema_editor.execute(f'{self._alter(app_label)} DROP COLUMN {self.name}')
        super().database_backwards(app_label, schema_editor, from_state, to_state)

    def _alter(self, app_label: str) -> str:
        return f'ALTER TABLE {app_label}_{self.model_name_lower}'


class DropModel(DeleteModel):
    """Drop a table, after each of its foreign keys: with one of these the other table is locked as well.

    `leave`: columns of an empty table that takes its place, for statements of the version before. They have no `id`.
    """

    def __init__(self, name: str, leave: str) -> None:
        super().__init__(name)
        self.leave = leave

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        table = f'{app_label}_{self.name_lower}'
        if 'id' not in columns_of(table, schema_editor):
            return
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(READ_FOREIGN_KEYS, [table])
            found = cursor.fetchall()
        for name, other in found:
            drop = partial(schema_editor.execute, f'ALTER TABLE {table} DROP CONSTRAINT {name}')
            insist(schema_editor, drop, tables=[table, other])
        replace = partial(schema_editor.execute, f'DROP TABLE {table}; CREATE TABLE {table} ({self.leave})')
        insist(schema_editor, replace, tables=[table])

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        schema_editor.execute(f'DROP TABLE {app_label}_{self.name_lower}')
        super().database_backwards(app_label, schema_editor, from_state, to_state)


def in_parts(editor: BaseDatabaseSchemaEditor, statement: str) -> None:
    """Execute a statement again and again, each time after the id that it has returned, until it returns none."""

    def work() -> int | None:
        with editor.connection.cursor() as cursor:
            cursor.execute(statement, [last])
            return cursor.fetchone()[0]

    last: int | None = 0
    while last is not None:
        last = insist(editor, work)


def insist(editor: BaseDatabaseSchemaEditor, work: Callable[[], Any], tables: Sequence[str] = ()) -> Any:
    """Do the work in a transaction that waits a moment only for any lock, again and again until it has all of them.

    Returns what `work` returns. Tables that it alters are named: it waits for an end of their vacuums.
    """
    for tries in count(1):
        try:
            with transaction.atomic(editor.connection.alias), editor.connection.cursor() as cursor:
                for table in tables:
                    cursor.execute(LOCK_OUT_VACUUM.format(table))
                cursor.execute(f'SET LOCAL lock_timeout = {STEP_LOCK_MS}')
                return work()
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable | DeadlockDetected):
                raise
        if tries % TRIES_PER_LINE == 0:
            _tell(editor, tables)
        time.sleep(RETRY_SECONDS)
    raise AssertionError  # never reached


def _is_done(operation: Operation, app_label: str, editor: BaseDatabaseSchemaEditor) -> bool:
    """Whether an earlier run has come so far. An operation that can be done twice is not asked."""
    match operation:
        case Retire():
            return False
        case AddField():
            # The column of a foreign key ends with _id.
            found = columns_of(f'{app_label}_{operation.model_name}', editor)
            return bool(found & {operation.name, f'{operation.name}_id'})
        case RemoveField():
            return operation.name not in columns_of(f'{app_label}_{operation.model_name}', editor)
        case CreateModel():
            return bool(columns_of(f'{app_label}_{operation.name_lower}', editor))
    return False


def columns_of(table: str, editor: BaseDatabaseSchemaEditor) -> set[str]:
    """Return the names of the table's columns, none where there is no such table. Takes no lock."""
    with editor.connection.cursor() as cursor:
        cursor.execute(READ_COLUMNS, [table])
        return {name for (name,) in cursor.fetchall()}


def _tell(editor: BaseDatabaseSchemaEditor, tables: Sequence[str]) -> None:
    with editor.connection.cursor() as cursor:
        cursor.execute(READ_OLDEST_HOLDER, [list(tables)])
        for pid, state, since in cursor.fetchall():
            sys.stderr.write(f'\n    waits for the PostgreSQL session {pid} ({state}, its transaction began {since}) ')
