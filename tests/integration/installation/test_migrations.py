"""The migrations are as the models say."""

import pytest
from django.core.management import call_command

from webhooks.models import Webhook


def check_migrations() -> None:
    """End the program with 1 where a migration is missing."""
    call_command('makemigrations', 'webhooks', '--check', '--dry-run', verbosity=0)


def test_no_migration_is_missing_and_a_missing_one_is_noticed(db, monkeypatch):
    check_migrations()

    monkeypatch.setattr(Webhook._meta.get_field('name'), 'max_length', 7)
    with pytest.raises(SystemExit, match='1'):
        check_migrations()
