import pytest
from dcim.models import Rack, Site
from django.db import transaction
from extras.models import Tag
from ipam.models import ASN, RIR
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, changes, recorded, site, stored, subscribe
from support.engine import work
from tenancy.models import Tenant

from devstack.receiver import Receiver
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')


class Branch(Site):
    """Scripts define a proxy after NetBox has started."""

    class Meta:
        proxy = True
        app_label = 'dcim'


class Customer(Tenant):
    class Meta:
        proxy = True
        app_label = 'tenancy'


class Label(Tag):
    class Meta:
        proxy = True
        app_label = 'extras'


class BranchOfBranches(Branch):
    class Meta:
        proxy = True
        app_label = 'dcim'


@pytest.fixture
def bern(committed: None) -> Branch:
    place = site(name='Bern')
    subscribe(NOWHERE, Site, include_snapshots=True)
    return Branch.objects.get(pk=place.pk)


class TestSaves:
    def test_creating_through_a_proxy_is_recorded(self, bern):
        place = Branch.objects.create(name='Genf', slug='genf')
        assert changes(Site) == [(CREATED, place.pk)]
        assert recorded()[0].snapshot == stored(Site, place.pk)

    def test_updating_through_a_proxy_is_recorded(self, bern):
        bern.description = 'changed'
        bern.save()
        (event,) = recorded(Site)
        assert (event.kind, event.object_id) == (UPDATED, bern.pk)
        assert (event.prechange['row']['description'], event.snapshot['row']['description']) == ('', 'changed')

    @pytest.mark.parametrize('at_once', [False, True], ids=['one', 'queryset'])
    def test_deleting_through_a_proxy_is_recorded(self, bern, at_once: bool):
        pk, before = bern.pk, stored(Site, bern.pk)
        (Branch.objects.filter(pk=pk) if at_once else bern).delete()
        assert changes(Site) == [(DELETED, pk)]
        snapshot = recorded()[0].snapshot
        assert snapshot.pop('shown')['display'] == 'Bern'
        assert snapshot == before

    def test_a_proxy_of_a_proxy_is_recorded(self, bern):
        BranchOfBranches.objects.get(pk=bern.pk).save()
        assert changes(Site) == [(UPDATED, bern.pk)]

    def test_changes_through_both_in_one_transaction_are_one(self, bern):
        with transaction.atomic():
            bern.save()
            Site.objects.get(pk=bern.pk).save()
        assert changes(Site) == [(UPDATED, bern.pk)]

    def test_a_proxy_of_a_model_that_nobody_asks_for_is_left_alone(self, bern):
        Customer.objects.create(name='Nobody', slug='nobody')
        bern.save()
        assert changes() == [(UPDATED, bern.pk)]

    def test_it_is_sent_as_the_model(self, receiver: Receiver):
        subscribe(receiver.url('/'), Site)
        Branch.objects.create(name='Genf', slug='genf')
        work()
        body = receiver.wait_for(1)[0].json()
        assert (body['model'], body['object_type'], body['data']['name']) == ('Site', 'dcim.site', 'Genf')


class TestLinks:
    def test_links_edited_from_the_near_end_are_recorded(self, bern):
        number = ASN.objects.create(asn=65001, rir=RIR.objects.create(name='RIR', slug='rir'))
        bern.asns.add(number)
        assert recorded(Site)[-1].snapshot['m2m']['asns'] == [number.pk]
        bern.asns.clear()
        assert recorded(Site)[-1].snapshot['m2m']['asns'] == []

    def test_links_edited_from_the_far_end_are_recorded(self, bern):
        number = ASN.objects.create(asn=65001, rir=RIR.objects.create(name='RIR', slug='rir'))
        number.sites.add(bern)
        assert changes(Site) == [(UPDATED, bern.pk)]

    def test_tags_of_a_proxy_are_recorded(self, bern):
        tag = Tag.objects.create(name='Tag', slug='tag')
        bern.tags.add(tag)
        assert recorded(Site)[-1].snapshot['m2m']['tags'] == [tag.pk]


class TestBulkOperation:
    @pytest.mark.parametrize('kind', [CREATED, UPDATED, DELETED])
    def test_bulk_operations_of_each_kind_are_recorded(self, bern, kind: str):
        bulk_operation.send(sender=Branch, instances=[bern], event=kind)
        assert changes(Site) == [(kind, bern.pk)]


class TestWhatFollows:
    def test_an_object_that_pointed_to_a_deleted_proxy_is_updated(self):
        label = Label.objects.create(name='Label', slug='label')
        rack = Rack.objects.create(site=site(), name='Rack')
        rack.tags.add(Tag.objects.get(pk=label.pk))
        subscribe(NOWHERE, Rack)
        label.delete()
        assert changes(Rack) == [(UPDATED, rack.pk)]
