"""The dump that databases begin with is as NetBox's own migrations leave an empty database."""

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

pytestmark = pytest.mark.usefixtures('db')


def test_a_database_has_the_migrations_of_this_netbox_and_no_others():
    executor = MigrationExecutor(connection)
    loader = executor.loader
    replaced = {one for migration in loader.disk_migrations.values() for one in migration.replaces}
    assert set(loader.applied_migrations) - set(loader.disk_migrations) - replaced == set()
    assert executor.migration_plan(loader.graph.leaf_nodes()) == []
