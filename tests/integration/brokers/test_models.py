"""Models by all drivers beside HTTP: one rendering serves them."""

from collections.abc import Callable

import pytest
from django.apps import apps
from django.db import transaction
from django.db.models import Model, ProtectedError
from support.brokers import Reader, Relay
from support.builders import subscribe
from support.engine import deliveries, disorder, work
from support.objects import MAKERS, change
from support.settings import change_settings

from devstack.brokers import BROKERS
from webhooks.choices import StatusChoices

pytestmark = pytest.mark.usefixtures('committed')

# One of each app. `--long`: all 19.
SOME = ('dcim.device', 'ipam.prefix', 'tenancy.tenant', 'circuits.circuit', 'virtualization.virtualmachine')


def remove(instance: Model) -> None:
    """Delete it after all that would forbid it."""
    try:
        with transaction.atomic():
            instance.delete()
    except ProtectedError as error:
        for other in error.protected_objects:
            remove(other)
        remove(instance)


def test_every_change_arrives_as_over_http(
    shared: Callable[[str], tuple[Reader, Relay]], receiver, monkeypatch, pytestconfig
):
    labels = MAKERS if pytestconfig.getoption('--long') else SOME
    models = [apps.get_model(label) for label in labels]
    readers = {driver: shared(driver)[0] for driver in BROKERS}
    change_settings(monkeypatch, brokers={driver: reader.broker.options for driver, reader in readers.items()})
    before = {driver: len(reader.read()) for driver, reader in readers.items()}
    subscribe(receiver.url('/'), *models)
    for driver, reader in readers.items():
        subscribe(reader.broker.url(reader.address, driver), *models)
    for label in labels:
        made = MAKERS[label]()
        change(made)
        remove(made)
    work()
    over_http = {request.json()['id']: request.json() for request in receiver.requests}
    kinds = {(one['object_type'], one['event']) for one in over_http.values()}
    assert kinds >= {(label, kind) for label in labels for kind in ('created', 'updated', 'deleted')}
    for driver, reader in readers.items():
        got = reader.wait_for(before[driver] + len(over_http))[before[driver] :]
        assert {one.json()['id']: one.json() for one in got} == over_http, driver
        shown = [one.json() for one in got]
        assert disorder([((one['object_type'], one['data']['id']), one['sequence']) for one in shown]) == [], driver
    assert {one.status for one in deliveries()} == {StatusChoices.DELIVERED}
