"""During a save, our queries name their database, so no router can redirect them.

NetBox's own tests have such a router.
"""

import sys
from typing import Any

import pytest
from dcim.models import Device, Location, Rack, Site
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import Model
from extras.models import Tag
from ipam.models import ASN, RIR, IPAddress
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    changes,
    device,
    forget_events,
    interface,
    site,
    subscribe,
)
from support.kinds import ALWAYS
from support.objects import MAKERS, change
from tenancy.models import Tenant, TenantGroup
from utilities.testing.utils import PinnedConnectionRouter, UnpinnedQuery
from virtualization.models import Cluster, ClusterType, VirtualDisk, VirtualMachine

from webhooks.constants import DEFAULT_MODELS
from webhooks.object_types import allowed
from webhooks.outbox import snapshots
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')


class RouterOfOurQueries(PinnedConnectionRouter):
    def _check(self, model: type[Model], **hints: Any) -> None:
        frame = sys._getframe(1)
        # Our query sets run on behalf of their caller.
        while frame.f_globals['__name__'].startswith((__name__, 'django.', 'webhooks.models.confidential')):
            frame = frame.f_back
        if frame.f_globals['__name__'].startswith('webhooks.'):
            raise UnpinnedQuery(f'{model.__name__} query of {frame.f_globals["__name__"]} was routed')

    db_for_read = _check
    db_for_write = _check


@pytest.fixture
def strict(committed: None, settings: Any) -> None:
    subscribe(NOWHERE, *(object_type.model_class() for object_type in allowed()), include_snapshots=True)
    # Cached answers would hide the queries.
    for remembered in (snapshots.object_type_id, snapshots.expression):
        remembered.cache_clear()
    ContentType.objects.clear_cache()
    settings.DATABASE_ROUTERS = [RouterOfOurQueries()]


def asn() -> ASN:
    return ASN.objects.create(asn=65001, rir=RIR.objects.create(name='RIR', slug='rir'))


def tag() -> Tag:
    return Tag.objects.create(name='Tag', slug='tag')


class TestRouter:
    def test_it_refuses_what_our_package_does_not_pin(self, strict):
        with pytest.raises(UnpinnedQuery, match='Site query of webhooks'):
            exec('Site.objects.first()', {'Site': Site, '__name__': 'webhooks.x'})

    def test_it_refuses_what_our_package_has_django_look_up(self, strict):
        with pytest.raises(UnpinnedQuery, match='ContentType'):
            exec('get(Site)', {'get': ContentType.objects.get_for_model, 'Site': Site, '__name__': 'webhooks.x'})

    def test_it_leaves_others_alone(self, strict):
        made = Site.objects.create(name='Bern', slug='bern')
        assert list(Site.objects.all()) == [made]


class TestSaves:
    def test_saves_of_each_model_are_pinned(self, strict, pytestconfig):
        """`--long`: all models."""
        for label in DEFAULT_MODELS if pytestconfig.getoption('--long') else ALWAYS:
            with transaction.atomic():
                made = MAKERS[label]()
            forget_events()
            change(made).save()
            assert (UPDATED, made.pk) in changes(type(made)), label

    def test_deletions_are_pinned(self, strict):
        for make in (site, device, MAKERS['ipam.ipaddress'], MAKERS['circuits.circuit'], MAKERS['ipam.prefix']):
            made = make()
            pk = made.pk
            made.delete()
            assert (DELETED, pk) in changes(type(made)), make

    def test_the_deletion_of_a_query_is_pinned(self, strict):
        pk = site().pk
        Site.objects.filter(pk=pk).delete()
        assert (DELETED, pk) in changes(Site)

    def test_saves_outside_a_transaction_are_pinned(self, strict):
        place = site()
        assert changes() == [(CREATED, place.pk)]


class TestLinks:
    @pytest.mark.parametrize('alter', ['add', 'remove', 'set', 'clear'])
    @pytest.mark.parametrize('far', [False, True], ids=['near', 'far'])
    def test_links_edited_from_either_end_are_pinned(self, strict, alter: str, far: bool):
        place, number = site(), asn()
        if alter != 'add':
            place.asns.add(number)
        forget_events()
        end, other = (number.sites, place) if far else (place.asns, number)
        arguments = {'set': [[]], 'clear': []}.get(alter, [other])
        getattr(end, alter)(*arguments)
        assert changes() == [(UPDATED, place.pk)]

    def test_tags_are_pinned(self, strict):
        place = site()
        forget_events()
        place.tags.add(tag())
        place.tags.clear()
        assert changes() == [(UPDATED, place.pk)] * 2


class TestWhatFollows:
    def test_updates_of_objects_that_pointed_to_a_deleted_one_use_the_default_database(self, strict):
        place, number, label, group = site(), asn(), tag(), TenantGroup.objects.create(name='G', slug='g')
        customer = Tenant.objects.create(name='T', slug='t', group=group)
        place.asns.add(number)
        place.tags.add(label)
        for pointed, left in ((group, customer), (number, place), (label, place)):
            forget_events()
            pointed.delete()
            assert (UPDATED, left.pk) in changes(type(left))

    def test_a_device_with_its_primary_address_is_pinned(self, strict):
        owner = device()
        address = IPAddress.objects.create(address='10.0.0.1/8', assigned_object=interface(owner))
        owner.primary_ip4 = address
        owner.save()
        forget_events()
        pk = owner.pk
        Device.objects.get(pk=pk).delete()
        assert (DELETED, pk) in changes(Device)

    def test_updates_of_objects_in_a_moved_location_or_rack_use_the_default_database(self, strict):
        place, other = site(), site()
        attic = Location.objects.create(site=place, name='Attic', slug='attic')
        rack = Rack.objects.create(site=place, location=attic, name='Rack')
        housed = device(site=place, location=attic, rack=rack)
        forget_events()
        attic.site = other
        attic.save()
        assert sorted(changes(Rack, Device)) == sorted([(UPDATED, rack.pk), (UPDATED, housed.pk)])
        forget_events()
        rack.refresh_from_db()
        rack.site, rack.location = place, None
        rack.save()
        assert (UPDATED, housed.pk) in changes(Device)

    def test_virtual_machines_of_a_cluster_and_with_a_disk_are_pinned(self, strict):
        cluster = Cluster.objects.create(name='C', type=ClusterType.objects.create(name='T', slug='t'))
        machine = VirtualMachine.objects.create(name='VM', cluster=cluster)
        forget_events()
        disk = VirtualDisk.objects.create(virtual_machine=machine, name='sda', size=10)
        assert (UPDATED, machine.pk) in changes(VirtualMachine)
        forget_events()
        disk.delete()
        assert (UPDATED, machine.pk) in changes(VirtualMachine)
        forget_events()
        cluster.scope = site()
        cluster.save()
        assert (UPDATED, machine.pk) in changes(VirtualMachine)


class TestBulkOperation:
    @pytest.mark.parametrize('kind', [CREATED, UPDATED, DELETED])
    def test_bulk_operations_of_each_kind_are_pinned(self, strict, kind: str):
        place = site()
        forget_events()
        bulk_operation.send(sender=Site, instances=[place], event=kind)
        assert changes() == [(kind, place.pk)]
