from collections.abc import Iterator

import pytest
from dcim.models import Device, Interface, InterfaceTemplate, Location, Rack, Site
from django.core import serializers
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from extras.models import Tag
from ipam.models import ASN, RIR
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    changes,
    device,
    device_type,
    forget_events,
    named,
    recorded,
    site,
    stored,
    subscribe,
)
from tenancy.models import Tenant

from webhooks.models import Event
from webhooks.models.subscription import MAX_SUBSCRIPTIONS_READ
from webhooks.outbox import scope
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')


def row_of(event: Event) -> dict:
    return event.snapshot['row']


class TestKinds:
    def test_creating_is_recorded(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            created = site()
        assert changes() == [(CREATED, created.pk)]

    def test_updating_is_recorded(self):
        updated = site()
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            updated.save()
        assert changes() == [(UPDATED, updated.pk)]

    def test_deleting_is_recorded(self):
        deleted = site()
        pk = deleted.pk
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            deleted.delete()
        assert changes() == [(DELETED, pk)]

    def test_all_kinds_are_recorded_outside_a_transaction(self):
        subscribe(NOWHERE, Site)
        shell = site()
        pk = shell.pk
        shell.save()
        shell.delete()
        assert changes() == [(CREATED, pk), (UPDATED, pk), (DELETED, pk)]

    def test_changes_are_recorded_where_autocommit_is_off(self):
        subscribe(NOWHERE, Site)
        connection.set_autocommit(False)
        try:
            created = site()
            connection.commit()
        finally:
            connection.set_autocommit(True)
        assert changes() == [(CREATED, created.pk)]

    def test_a_save_that_changes_no_value_is_recorded(self):
        same = site()
        subscribe(NOWHERE, Site)
        Site.objects.get(pk=same.pk).save()
        assert changes() == [(UPDATED, same.pk)]

    def test_every_object_that_a_queryset_deletes_is_recorded(self):
        pks = [site().pk for _ in range(3)]
        subscribe(NOWHERE, Site)
        Site.objects.filter(pk__in=pks).delete()
        assert sorted(changes()) == [(DELETED, pk) for pk in pks]

    def test_components_that_netbox_creates_in_bulk_are_recorded(self):
        kind = device_type()
        for name in ('eth0', 'eth1'):
            InterfaceTemplate.objects.create(device_type=kind, name=name, type='other')
        subscribe(NOWHERE, Interface)
        owner = device(device_type=kind)
        assert changes() == [(CREATED, pk) for pk in owner.interfaces.order_by('pk').values_list('pk', flat=True)]
        assert [row_of(event)['name'] for event in recorded()] == ['eth0', 'eth1']

    def test_models_that_nobody_asks_for_are_left_alone(self):
        subscribe(NOWHERE, Site)
        Tenant.objects.create(name='Tenant', slug='tenant')
        wanted = site()
        assert changes() == [(CREATED, wanted.pk)]

    def test_models_that_are_not_allowed_are_left_alone(self):
        place = site()
        subscribe(NOWHERE, Site, Location)
        Location.objects.create(site=place, name='Floor', slug='floor')
        place.save()
        assert changes() == [(UPDATED, place.pk)]


class TestRow:
    """The instance in memory may differ."""

    @pytest.fixture(autouse=True)
    def webhook(self, committed: None) -> None:
        subscribe(NOWHERE, Site, Rack)

    def assert_last_event_is_the_row(self, instance) -> dict:
        last = recorded(type(instance))[-1]
        assert last.snapshot == stored(type(instance), instance.pk)
        return row_of(last)

    def test_an_ordinary_save_records_the_row(self):
        created = site(description='as saved', custom_field_data={'a': [1]})
        row = self.assert_last_event_is_the_row(created)
        assert (row['name'], row['description'], row['custom_field_data']) == (created.name, 'as saved', {'a': [1]})

    def test_a_save_of_some_fields_records_the_row(self):
        partly = site(description='stored')
        partly.name, partly.description = 'Renamed', 'never saved'
        partly.save(update_fields=['name'])
        row = self.assert_last_event_is_the_row(partly)
        assert (row['name'], row['description']) == ('Renamed', 'stored')

    def test_a_save_with_deferred_fields_records_the_row(self):
        pk = site(description='stored').pk
        partly = Site.objects.only('name').get(pk=pk)
        partly.name = 'Renamed'
        partly.save()
        row = self.assert_last_event_is_the_row(partly)
        assert (row['name'], row['description']) == ('Renamed', 'stored')

    def test_a_save_with_an_expression_records_the_row(self):
        rack = Rack.objects.create(site=site(), name='Rack', u_height=10)
        rack.u_height = F('u_height') + 1
        rack.save()
        assert self.assert_last_event_is_the_row(rack)['u_height'] == 11

    def test_a_save_with_a_value_of_another_type_records_the_row(self):
        place = site()
        place.latitude = '47.100000'
        place.save()
        assert self.assert_last_event_is_the_row(place)['latitude'] == 47.1

    def test_tags_and_other_links_are_recorded_with_the_row(self):
        linked = site()
        asn = ASN.objects.create(asn=65001, rir=RIR.objects.create(name='RIR', slug='rir'))
        tags = [Tag.objects.create(name=name, slug=name) for name in ('b', 'a')]
        linked.asns.add(asn)
        linked.tags.set(tags)
        linked.save()
        self.assert_last_event_is_the_row(linked)
        assert recorded()[-1].snapshot['m2m'] == {'asns': [asn.pk], 'tags': sorted(tag.pk for tag in tags)}

    def test_a_deletion_records_what_was_there_with_its_tags(self):
        doomed = site(description='stored')
        doomed.tags.add(Tag.objects.create(name='Tag', slug='tag'))
        before = stored(Site, doomed.pk)
        doomed.description = 'never saved'
        doomed.delete()
        snapshot = recorded(Site)[-1].snapshot
        assert snapshot.pop('shown')['display'] == doomed.name
        assert snapshot == before
        assert len(before['m2m']['tags']) == 1

    def test_tags_of_another_model_with_the_same_key_are_not_taken(self):
        place = site()
        Rack.objects.create(pk=place.pk, site=place, name='Rack').tags.add(Tag.objects.create(name='Tag', slug='tag'))
        place.save()
        assert recorded(Site)[-1].snapshot['m2m']['tags'] == []
        assert len(recorded(Rack)[-1].snapshot['m2m']['tags']) == 1


class TestRaw:
    """Fixtures and netbox-branching's merge save raw."""

    def test_loaddata_is_recorded(self, tmp_path):
        template = site()
        text = serializers.serialize('json', [template])
        template.delete()
        subscribe(NOWHERE, Site)
        fixture = tmp_path / 'sites.json'
        fixture.write_text(text)
        call_command('loaddata', str(fixture), verbosity=0)
        call_command('loaddata', str(fixture), verbosity=0)
        (loaded,) = Site.objects.all()
        assert changes() == [(CREATED, loaded.pk), (UPDATED, loaded.pk)]


class TestOtherDatabase:
    """A branch is a database of its own, and only its merge sends changes."""

    @pytest.fixture
    def branch(self, committed: None) -> Iterator[str]:
        connections.databases['branch'] = connection.settings_dict.copy()
        yield 'branch'
        connections['branch'].close()
        del connections['branch'], connections.databases['branch']

    def test_nothing_is_captured_but_the_same_on_the_default_database(self, branch: str):
        subscribe(NOWHERE, Site)
        tag = Tag.objects.create(name='Tag', slug='tag')
        for database, expected in ((branch, []), (DEFAULT_DB_ALIAS, [CREATED, UPDATED, UPDATED, DELETED])):
            place = Site(**named('site'))
            place.save(using=database)
            place.save(using=database)
            place.asns.db_manager(database).clear()
            place.tags.through._default_manager.using(database).filter(tag=tag).delete()
            place.delete(using=database)
            assert [kind for kind, _pk in changes()] == expected


class TestBulkOperation:
    """Django's bulk_create() and update() send no signal, so callers announce changes."""

    def test_objects_that_a_bulk_signal_names_are_recorded_in_pk_order(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            places = Site.objects.bulk_create([Site(name=name, slug=name) for name in 'abc'])
            # Whatever PostgreSQL's plan, neither the table's order nor the given one is that of the pks.
            Site.objects.filter(pk=places[0].pk).update(description='moved to the end of the table')
            bulk_operation.send(sender=Site, instances=list(reversed(places)), event=CREATED)
        assert changes() == [(CREATED, place.pk) for place in places]
        forget_events()
        with transaction.atomic():
            Site.objects.update(description='changed')
            bulk_operation.send(sender=Site, instances=Site.objects.all(), event=UPDATED)
        assert [row_of(event)['description'] for event in recorded()] == ['changed'] * 3
        forget_events()
        with transaction.atomic():
            bulk_operation.send(sender=Site, instances=places, event=DELETED)
            Site.objects.all()._raw_delete('default')
        assert changes() == [(DELETED, place.pk) for place in places]
        assert row_of(recorded()[0])['name'] == 'a'

    def test_it_merges_with_the_rest(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            (place,) = Site.objects.bulk_create([Site(name='a', slug='a')])
            bulk_operation.send(sender=Site, instances=[place], event=CREATED)
            place.save()
        assert changes() == [(CREATED, place.pk)]

    def test_without_a_subscription_there_is_no_event(self):
        place = site()
        bulk_operation.send(sender=Site, instances=[place], event=CREATED)
        assert changes() == []
        subscribe(NOWHERE, Site)
        bulk_operation.send(sender=Site, instances=[place], event=CREATED)
        assert changes() == [(CREATED, place.pk)]

    def test_a_branch_is_not_captured(self):
        subscribe(NOWHERE, Site)
        place = site()
        forget_events()
        bulk_operation.send(sender=Site, instances=[place], event=UPDATED, using='branch')
        assert changes() == []
        bulk_operation.send(sender=Site, instances=[place], event=UPDATED)
        assert changes() == [(UPDATED, place.pk)]

    def test_an_unknown_kind_is_an_error(self):
        with pytest.raises(ValueError, match='removed'):
            bulk_operation.send(sender=Site, instances=[], event='removed')


class TestBefore:
    """They are taken only where a webhook asks for them."""

    def test_it_is_not_recorded_without_need(self):
        changed = site()
        subscribe(NOWHERE, Site)
        changed.save()
        assert recorded()[0].prechange is None
        subscribe(NOWHERE, Site, include_snapshots=True)
        changed.save()
        assert recorded()[1].prechange

    @pytest.mark.parametrize(
        'asking', [{'include_snapshots': True}, {'conditions': {'and': [{'attr': 'name', 'value': 'x'}]}}]
    )
    def test_a_webhook_that_asks_gets_it(self, asking: dict):
        changed = site(description='before')
        subscribe(NOWHERE, Site, **asking)
        changed.description = 'after'
        changed.save()
        assert recorded()[0].prechange['row']['description'] == 'before'
        assert row_of(recorded()[0])['description'] == 'after'

    def test_it_is_that_of_the_start_of_the_transaction(self):
        changed = site(description='before')
        tag = Tag.objects.create(name='Tag', slug='tag')
        subscribe(NOWHERE, Site, include_snapshots=True)
        with transaction.atomic():
            for description in ('between', 'after'):
                changed.description = description
                changed.save()
            changed.tags.add(tag)
        (event,) = recorded()
        assert (event.prechange['row']['description'], event.prechange['m2m']['tags']) == ('before', [])
        assert (row_of(event)['description'], event.snapshot['m2m']['tags']) == ('after', [tag.pk])

    def test_a_new_object_has_none(self):
        subscribe(NOWHERE, Site, include_snapshots=True)
        with transaction.atomic():
            created = site()
            created.save()
            created.tags.add(Tag.objects.create(name='Tag', slug='tag'))
        assert recorded()[0].prechange is None
        created.save()
        assert recorded()[1].prechange

    def test_links_before_the_change_are_recorded(self):
        changed = site()
        tags = [Tag.objects.create(name=name, slug=name) for name in 'ab']
        changed.tags.add(tags[0])
        subscribe(NOWHERE, Site, include_snapshots=True)
        with transaction.atomic():
            changed.tags.set([tags[1]])
        (event,) = recorded()
        assert (event.prechange['m2m']['tags'], event.snapshot['m2m']['tags']) == ([tags[0].pk], [tags[1].pk])


class TestCost:
    def ours(self, context: CaptureQueriesContext) -> list[str]:
        return [query['sql'] for query in context.captured_queries if 'webhooks_' in query['sql']]

    def busy_transaction(self) -> None:
        tag = Tag.objects.create(name='Tag', slug='tag')
        with transaction.atomic():
            places = [site() for _ in range(3)]
            for place in places:
                place.save()
                place.tags.add(tag)
            places[0].delete()
            Device.objects.count()

    def test_unsubscribed_it_is_two_queries_a_transaction(self):
        subscribe(NOWHERE, Tenant)
        with CaptureQueriesContext(connection) as context:
            self.busy_transaction()
        assert len(self.ours(context)) == 2
        assert changes() == []

    def test_subscribed_it_is_one_statement_more_for_each_change(self):
        subscribe(NOWHERE, Site)
        place = site()
        with CaptureQueriesContext(connection) as context, transaction.atomic():
            for _ in range(5):
                place.save()
        assert len(self.ours(context)) == 1 + 5

    def test_a_thousand_webhooks_cost_as_much_as_one(self):
        for _ in range(5):
            subscribe(NOWHERE, Site, Tenant)
        forget_events()
        with CaptureQueriesContext(connection) as context, transaction.atomic():
            site()
        assert len(self.ours(context)) == 2
        assert len(recorded()) == 1

    @pytest.mark.parametrize('others', [1, MAX_SUBSCRIPTIONS_READ])
    def test_the_wishes_of_all_subscriptions_count_however_many_there_are(self, others: int):
        changed = site()
        for _ in range(others):
            subscribe(NOWHERE, Site, type_create=False, type_delete=False)
        subscribe(NOWHERE, Site, type_create=False, include_snapshots=True)
        asked = scope.current().asked(Site)
        assert asked.before
        assert asked.deletions
        changed.save()
        assert [event.prechange['row']['id'] for event in recorded()] == [changed.pk]
