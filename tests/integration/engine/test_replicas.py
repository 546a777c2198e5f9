"""A router lets NetBox read from a replica, which lags. A worker reads nothing there."""

from collections.abc import Iterator
from typing import Any

import pytest
from dcim.models import Device, Site
from django.db import connection, connections, router
from support.builders import device, subscribe
from support.engine import work
from support.fixtures.servers import StackDescription

from devstack.database import copy_database, drop_database
from webhooks.default_database import pinned

pytestmark = pytest.mark.usefixtures('committed')

REPLICA = 'replica'


class FromReplica:
    """As multidb-router's, outside of requests that write."""

    def db_for_read(self, model: type, **_hints: Any) -> str:
        return REPLICA

    def db_for_write(self, model: type, **_hints: Any) -> str:
        return 'default'

    def allow_relation(self, *_objects: Any, **_hints: Any) -> bool:
        return True


class OfPlugin:
    """For a plugin that keeps sites in a database of its own."""

    def db_for_read(self, model: type, **_hints: Any) -> str | None:
        return REPLICA if model is Site else None

    def allow_migrate(self, database: str, app_label: str, model_name: str | None = None, **_hints: Any) -> bool:
        return (database == REPLICA) == (model_name == 'site')


@pytest.fixture
def replica(stack: StackDescription) -> Iterator[None]:
    """It has NetBox's tables, and nothing yet of what a test does."""
    name = f'{connection.settings_dict["NAME"]}_replica'
    copy = copy_database(stack.server, stack.template, name)
    connections.settings[REPLICA] = {**connections.settings['default'], 'NAME': copy.name}
    yield
    connections[REPLICA].close()
    del connections[REPLICA], connections.settings[REPLICA]
    drop_database(stack.server, name)


def test_a_worker_sends_what_the_replica_does_not_know_yet(replica, receiver, settings):
    by_pattern = {'attr': 'name', 'op': 'regex', 'value': '.'}
    subscribe(receiver.url('/{{ data.id }}'), Device, Site, conditions=by_pattern, include_components=True)
    one = device()
    settings.DATABASE_ROUTERS = [FromReplica()]
    work()
    assert sorted(request.path for request in receiver.requests) == sorted([f'/{one.pk}', f'/{one.site_id}'])
    assert all(request.json()['data']['name'] for request in receiver.requests)


def test_models_of_another_database_are_read_there(settings):
    settings.DATABASE_ROUTERS = [OfPlugin(), FromReplica()]
    with pinned():
        assert [router.db_for_read(model) for model in (Site, Device)] == [REPLICA, 'default']
