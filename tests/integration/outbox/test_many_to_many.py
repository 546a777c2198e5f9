import pytest
from circuits.models import Provider
from dcim.models import Interface, Site
from django.db import transaction
from extras.models import Tag
from ipam.forms import ASNForm
from ipam.models import ASN, RIR, VLAN, VRF, RouteTarget
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    changes,
    device,
    interface,
    named,
    recorded,
    site,
    subscribe,
)

pytestmark = pytest.mark.usefixtures('committed')


@pytest.fixture
def sites(committed: None) -> list[Site]:
    return [site() for _ in range(3)]


@pytest.fixture
def asns(committed: None) -> list[ASN]:
    rir = RIR.objects.create(**named('rir'))
    return [ASN.objects.create(asn=65000 + number, rir=rir) for number in range(3)]


@pytest.fixture
def tags(committed: None) -> list[Tag]:
    return [Tag.objects.create(**named('tag')) for _ in range(3)]


@pytest.fixture
def webhook(sites, asns, tags):
    """The objects exist before, so their creation leaves no event."""
    return subscribe(NOWHERE, Site)


def pks(objects: list) -> list[int]:
    return sorted(item.pk for item in objects)


def links(field: str) -> dict[int, list[int]]:
    """Return {object: linked ids}."""
    return {event.object_id: event.snapshot['m2m'][field] for event in recorded()}


@pytest.mark.usefixtures('webhook')
class TestForward:
    def test_adding_is_an_update_of_the_object(self, sites, asns):
        sites[0].asns.add(*asns[:2])
        assert changes() == [(UPDATED, sites[0].pk)]
        assert links('asns') == {sites[0].pk: pks(asns[:2])}

    def test_removing_is_an_update_of_the_object(self, sites, asns):
        sites[0].asns.add(*asns)
        sites[0].asns.remove(asns[1])
        assert links('asns') == {sites[0].pk: pks([asns[0], asns[2]])}
        assert len(recorded()) == 2

    def test_clearing_is_an_update_of_the_object(self, sites, asns):
        sites[0].asns.add(*asns)
        sites[0].asns.clear()
        assert [event.snapshot['m2m']['asns'] for event in recorded()] == [pks(asns), []]

    def test_setting_is_an_update_of_the_object(self, sites, asns):
        sites[0].asns.set(asns[:2])
        with transaction.atomic():
            sites[0].asns.set(asns[1:])
        assert [event.snapshot['m2m']['asns'] for event in recorded()] == [pks(asns[:2]), pks(asns[1:])]

    def test_nothing_new_is_no_change(self, sites, asns):
        sites[0].asns.add(asns[0])
        sites[0].asns.add(asns[0])
        sites[0].asns.set([asns[0]])
        assert len(recorded()) == 1


@pytest.mark.usefixtures('webhook')
class TestReverse:
    def test_adding_from_the_far_side_is_an_update_of_each_object(self, sites, asns):
        asns[0].sites.add(*sites[:2])
        assert sorted(changes()) == [(UPDATED, place.pk) for place in sites[:2]]
        assert links('asns') == {place.pk: [asns[0].pk] for place in sites[:2]}

    def test_removing_from_the_far_side_is_an_update_of_the_object(self, sites, asns):
        asns[0].sites.add(*sites)
        asns[0].sites.remove(sites[1])
        assert changes()[3:] == [(UPDATED, sites[1].pk)]
        assert links('asns')[sites[1].pk] == []

    def test_clear_records_those_that_were_linked(self, sites, asns):
        asns[0].sites.add(*sites[:2])
        asns[0].sites.clear()
        assert sorted(changes()[2:]) == [(UPDATED, place.pk) for place in sites[:2]]
        assert links('asns') == {place.pk: [] for place in sites[:2]}

    def test_setting_from_the_far_side_is_an_update_of_those_that_changed(self, sites, asns):
        asns[0].sites.set(sites[:2])
        with transaction.atomic():
            asns[0].sites.set(sites[1:])
        assert sorted(changes()[2:]) == [(UPDATED, sites[0].pk), (UPDATED, sites[2].pk)]
        assert links('asns') == {sites[0].pk: [], sites[1].pk: [asns[0].pk], sites[2].pk: [asns[0].pk]}

    def test_the_form_of_the_far_side_updates_those_that_changed(self, sites, asns):
        asns[0].sites.add(sites[0])
        form = ASNForm(
            {'asn': asns[0].asn, 'rir': asns[0].rir_id, 'sites': [sites[1].pk, sites[2].pk]}, instance=asns[0]
        )
        assert form.is_valid(), form.errors
        with transaction.atomic():
            form.save()
        assert links('asns') == {sites[0].pk: [], sites[1].pk: [asns[0].pk], sites[2].pk: [asns[0].pk]}

    def test_the_far_side_is_not_asked_for(self, sites, asns):
        provider = Provider.objects.create(**named('provider'))
        provider.asns.add(asns[0])
        asns[0].providers.clear()
        assert changes() == []
        subscribe(NOWHERE, Provider)
        asns[0].providers.add(provider)
        assert changes() == [(UPDATED, provider.pk)]


@pytest.mark.usefixtures('webhook')
class TestTags:
    def test_adding_removing_and_clearing_tags_is_recorded(self, sites, tags):
        sites[0].tags.add(*tags)
        sites[0].tags.remove(tags[1])
        sites[0].tags.clear()
        expected = [pks(tags), pks([tags[0], tags[2]]), []]
        assert [event.snapshot['m2m']['tags'] for event in recorded()] == expected

    def test_setting_tags_is_recorded(self, sites, tags):
        sites[0].tags.set(tags[:2])
        with transaction.atomic():
            sites[0].tags.set(tags[1:])
        assert [event.snapshot['m2m']['tags'] for event in recorded()] == [pks(tags[:2]), pks(tags[1:])]

    def test_tags_added_by_name_are_recorded(self, sites, tags):
        sites[0].tags.add(tags[0].name)
        assert links('tags') == {sites[0].pk: [tags[0].pk]}

    def test_after_creating_they_belong_to_the_creation(self, tags):
        with transaction.atomic():
            created = site()
            created.tags.add(*tags)
        assert changes() == [(CREATED, created.pk)]
        assert links('tags') == {created.pk: pks(tags)}


class TestOtherModels:
    def test_two_fields_with_the_same_target_are_told_apart(self):
        targets = [RouteTarget.objects.create(name=f'65000:{number}') for number in range(2)]
        vrf = VRF.objects.create(name='VRF')
        subscribe(NOWHERE, VRF)
        with transaction.atomic():
            vrf.import_targets.set(targets)
            vrf.export_targets.set(targets[:1])
        (event,) = recorded()
        assert event.snapshot['m2m'] == {
            'import_targets': pks(targets),
            'export_targets': pks(targets[:1]),
            'tags': [],
        }

    def test_a_link_between_two_subscribed_models_is_a_change_of_its_owner(self):
        owner = device()
        vlan = VLAN.objects.create(vid=10, name='VLAN')
        port = interface(owner)
        subscribe(NOWHERE, Interface, VLAN)
        port.tagged_vlans.add(vlan)
        vlan.interfaces_as_tagged.clear()
        assert changes() == [(UPDATED, port.pk), (UPDATED, port.pk)]
        assert [event.snapshot['m2m']['tagged_vlans'] for event in recorded()] == [[vlan.pk], []]

    def test_an_object_that_is_gone_has_no_event(self):
        doomed = site()
        ghost = Site.objects.get(pk=doomed.pk)
        subscribe(NOWHERE, Site)
        ghost.tags.clear()
        ghost.asns.clear()
        doomed.delete()
        before = changes()
        assert before == [(UPDATED, ghost.pk), (UPDATED, ghost.pk), (DELETED, ghost.pk)]
        ghost.tags.clear()
        ghost.asns.clear()
        assert changes() == before
