"""Conditions see what the payload shows: with `expand`, the keys of related objects too."""

import pytest
from dcim.models import Device, Interface
from django.db import transaction
from ipam.models import IPAddress
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, device, interface, named, site, subscribe
from support.engine import deliveries, dispatch_all, work
from tenancy.models import Tenant

from webhooks.models import Event

pytestmark = pytest.mark.usefixtures('committed')

OF_TENANT = {'attr': 'device.tenant.slug', 'value': 'acme'}


def sent() -> list[tuple[str, int]]:
    dispatch_all()
    return [(one.event.kind, one.object_id) for one in deliveries()]


def device_of(slug: str | None) -> Device:
    return device(tenant=Tenant.objects.create(name=slug, slug=slug) if slug else None)


def test_interfaces_of_devices_of_this_tenant_are_sent_and_no_others():
    subscribe(NOWHERE, Interface, expand=['device'], conditions=OF_TENANT)
    mine = interface(device_of('acme'))
    interface(device_of('other'))
    interface(device_of(None))
    assert sent() == [(CREATED, mine.pk)]


def test_without_expand_the_key_is_missing_and_nothing_is_sent():
    subscribe(NOWHERE, Interface, conditions=OF_TENANT)
    interface(device_of('acme'))
    assert sent() == []
    assert Event.objects.get().skipped == 1


def test_after_a_key_behind_null_nothing_is_looked_at():
    is_uplink = {'attr': 'name', 'value': 'uplink'}
    last = subscribe(NOWHERE, Interface, expand=['device'], conditions={'or': [is_uplink, OF_TENANT]})
    first = subscribe(NOWHERE, Interface, expand=['device'], conditions={'or': [OF_TENANT, is_uplink]})
    interface(device_of(None), name='uplink')
    interface(device_of('other'), name='uplink')
    dispatch_all()
    assert [one.webhook_id for one in deliveries()] == [last.pk, last.pk, first.pk]


def test_each_level_that_is_expanded_is_seen():
    subscribe(NOWHERE, Interface, expand=['device.site'], conditions={'attr': 'device.site.facility', 'value': 'B1'})
    mine = interface(device(site=site(facility='B1')))
    interface(device(site=site(facility='B2')))
    assert sent() == [(CREATED, mine.pk)]


def test_a_related_object_is_seen_as_the_payload_shows_it(receiver):
    """It has no state before: `changed` compares the object itself."""
    made = device(serial='1')
    port = interface(made)
    subscribe(
        receiver.url('/'), Interface, expand=['device'], conditions={'attr': 'device.serial', 'value': '2'},
    )  # fmt: skip
    with transaction.atomic():
        port.save()
        Device.objects.filter(pk=made.pk).update(serial='2')
    work()
    (request,) = receiver.requests
    assert request.json()['data']['device']['serial'] == '2'


def test_a_deletion_is_judged_by_what_it_was():
    subscribe(NOWHERE, Interface, kinds=(DELETED,), expand=['device'], conditions=OF_TENANT)
    mine, other = interface(device_of('acme')), interface(device_of('other'))
    pk = mine.pk
    mine.device.delete()
    other.delete()
    assert sent() == [(DELETED, pk)]


def test_lists_and_generic_relations_are_seen():
    conditions = {
        'and': [
            {'attr': 'assigned_object.device.name', 'value': 'core'},
            {'attr': 'nat_outside.dns_name', 'op': 'contains', 'value': 'example.com'},
        ]
    }
    port = interface(device(name='core'))
    inside = IPAddress.objects.create(address='192.0.2.1/24', assigned_object=port)
    IPAddress.objects.create(address='198.51.100.1/24', nat_inside=inside, dns_name='example.com')
    subscribe(NOWHERE, IPAddress, kinds=(UPDATED,), expand=['assigned_object', 'nat_outside'], conditions=conditions)
    inside.save()
    assert sent() == [(UPDATED, inside.pk)]


def test_every_webhook_sees_only_what_it_expands():
    plain = subscribe(NOWHERE, Interface, conditions={**OF_TENANT, 'negate': True})
    rich = subscribe(NOWHERE, Interface, expand=['device'], conditions=OF_TENANT)
    interface(device(tenant=Tenant.objects.create(**{**named('t'), 'slug': 'acme'})))
    dispatch_all()
    assert [one.webhook_id for one in deliveries()] == [rich.pk]
    assert plain.pk != rich.pk
