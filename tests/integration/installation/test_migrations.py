import pytest
from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.core.management import call_command
from django.db.migrations import AddField, AlterModelOptions, CreateModel, Migration, RunPython
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

from webhooks.migrations._gently import BuildIndex, DropModel, Gently, Once
from webhooks.models import Webhook

# These of 1.0.0 create the tables, so nobody saves yet.
FIRST = ('0001_initial', '0002_sequence')
# Each uses short transactions, no lock against saves, or no PostgreSQL.
GENTLE = (Gently, BuildIndex, DropModel, RemoveIndexConcurrently, RunPython, AlterModelOptions)

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


@pytest.fixture
def later(db) -> list[Migration]:
    found = MigrationLoader(None).disk_migrations
    return [found[key] for key in sorted(found) if key[0] == 'webhooks' and key[1] not in FIRST]


def steps(migration: Migration) -> list[Operation]:
    return [step for one in migration.operations for step in (one.operations if type(one) is Once else [one])]


def test_all_that_comes_after_1_0_0_lets_saves_go_on(later):
    assert later
    for migration in later:
        assert not migration.atomic
        assert [one for one in steps(migration) if not isinstance(one, GENTLE)] == []


def test_new_processes_find_all_columns_before_what_takes_long(later):
    operations = [step for migration in later for step in steps(migration)]
    first_long = next(number for number, one in enumerate(operations) if isinstance(one, LONG))
    rest = [part for one in operations[first_long:] for part in getattr(one, 'operations', [one])]
    assert [one for one in rest if isinstance(one, AddField | CreateModel)] == []
