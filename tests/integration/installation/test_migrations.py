import pytest
from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.core.management import call_command
from django.db import connection
from django.db.migrations import (
    AddField,
    AlterModelOptions,
    CreateModel,
    Migration,
    RunPython,
    SeparateDatabaseAndState,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import BooleanField, Expression, Field, ManyToManyField
from django.db.models.functions import Now, Random

from webhooks.migrations._gently import BuildIndex, DropModel, Gently, Once
from webhooks.models import Attempt, Delivery, Event, Webhook
from webhooks.version import VERSION

# The first release's create the tables, so nobody saves yet.
FIRST = RELEASED = ('0001_initial', '0002_sequence')
# Each uses short transactions, no lock against saves, or no PostgreSQL.
GENTLE = (
    Gently,
    BuildIndex,
    DropModel,
    RemoveIndexConcurrently,
    RunPython,
    AlterModelOptions,
    SeparateDatabaseAndState,
)

# With a big log.
LONG = (BuildIndex, RemoveIndexConcurrently, RunPython)


def check_migrations() -> None:
    """It exits with 1 where a migration is missing."""
    call_command('makemigrations', 'webhooks', '--check', '--dry-run', verbosity=0)


def test_no_migration_is_missing_and_a_missing_one_is_noticed(db, monkeypatch):
    check_migrations()

    monkeypatch.setattr(Webhook._meta.get_field('name'), 'max_length', 7)
    with pytest.raises(SystemExit, match='1'):
        check_migrations()


def test_the_tables_of_the_log_are_vacuumed_after_a_thousand_dead_rows_however_large_they_are(db):
    options = ['autovacuum_vacuum_scale_factor=0', 'autovacuum_vacuum_threshold=1000']
    for model in (Event, Delivery, Attempt):
        with connection.cursor() as cursor:
            cursor.execute('SELECT reloptions FROM pg_class WHERE oid = %s::regclass', [model._meta.db_table])
            assert cursor.fetchone() == (options,), model


@pytest.fixture
def planned(db) -> list[Migration]:
    """All of the plugin, in the order in which they run."""
    loader = MigrationLoader(None)
    (newest,) = loader.graph.leaf_nodes('webhooks')
    return [loader.graph.nodes[key] for key in loader.graph.forwards_plan(newest) if key[0] == 'webhooks']


def without(names: tuple[str, ...], planned: list[Migration]) -> list[Migration]:
    found = [one for one in planned if one.name not in names]
    assert found
    return found


def steps(migrations: list[Migration]) -> list[Operation]:
    found = [step for migration in migrations for step in migration.operations]
    return [step for one in found for step in (one.operations if type(one) is Once else [one])]


def parts(steps: list[Operation]) -> list[Operation]:
    return [part for one in steps for part in getattr(one, 'operations', [one])]


def test_each_migration_after_the_first_release_lets_saves_go_on(planned):
    later = without(FIRST, planned)
    assert [one.name for one in later if one.atomic] == []
    assert [one for one in steps(later) if not isinstance(one, GENTLE)] == []


def fits_old_rows(field: Field) -> bool:
    """A process of the version before inserts rows without it, and PostgreSQL need not write those that are there."""
    if field.null or isinstance(field, ManyToManyField):
        return True
    default = field.db_default
    return field.has_db_default() and (not isinstance(default, Expression) or isinstance(default, Now))


def test_new_columns_are_null_or_have_a_constant_default(planned):
    added = [one for one in parts(steps(without(FIRST, planned))) if isinstance(one, AddField)]
    assert added
    assert [f'{one.model_name}.{one.name}' for one in added if not fits_old_rows(one.field)] == []


@pytest.mark.parametrize('options', [{}, {'default': True}, {'db_default': Random()}])
def test_a_column_that_old_processes_cannot_leave_out_or_that_rewrites_the_table_is_noticed(options):
    assert not fits_old_rows(BooleanField(**options))


def late_columns(migrations: list[Migration]) -> list[str]:
    """What comes after the first step that takes long."""
    found = steps(migrations)
    first_long = next((number for number, one in enumerate(found) if isinstance(one, LONG)), len(found))
    return [one.describe() for one in parts(found[first_long:]) if isinstance(one, AddField | CreateModel)]


def test_new_processes_find_all_columns_and_tables_before_what_takes_long(planned):
    """In 2.0.0 let `0004_engine` depend on a new migration, and that one on those before."""
    assert late_columns(without(RELEASED, planned)) == []


def test_a_column_behind_what_takes_long_is_noticed(planned):
    late = Migration('9999_late', 'webhooks')
    late.operations = [Gently(['event'], AddField('event', 'late', BooleanField(null=True)))]
    assert late_columns([*without(RELEASED, planned), late]) == ['Add field late to event']


def test_the_release_after_2_0_drops_what_was_kept_for_1_0_0(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regproc('webhooks_accept_old') IS NOT NULL")
        assert cursor.fetchone() == (VERSION.startswith('2.0.'),)
