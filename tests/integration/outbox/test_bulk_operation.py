"""For code that changes rows without Django's signals."""

import pytest
from dcim.models import Location, Site
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, changes, named, recorded, site, subscribe
from support.engine import work

from devstack.receiver import Receiver
from webhooks.outbox import deletions, redis_queue
from webhooks.signals import bulk_operation

pytestmark = pytest.mark.usefixtures('committed')


def make(count: int) -> list[Site]:
    return Site.objects.bulk_create(Site(**named('bulk')) for _ in range(count))


def queries_of(count: int, event: str) -> int:
    places = make(count)
    with transaction.atomic(), CaptureQueriesContext(connection) as captured:
        bulk_operation.send(sender=Site, instances=places, event=event)
    return len(captured)


class TestKinds:
    def test_created_objects_are_recorded(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            places = make(3)
            bulk_operation.send(sender=Site, instances=places, event='created')
        assert changes() == [(CREATED, place.pk) for place in places]

    def test_updated_shows_the_rows_as_they_are(self, receiver: Receiver):
        places = make(3)
        subscribe(receiver.url('/'), Site)
        with transaction.atomic():
            Site.objects.update(description='changed')
            bulk_operation.send(sender=Site, instances=places, event='updated')
        assert changes() == [(UPDATED, place.pk) for place in places]
        work()
        assert {request.json()['data']['description'] for request in receiver.wait_for(3)} == {'changed'}

    def test_deleted_is_sent_before(self, receiver: Receiver):
        places = make(3)
        subscribe(receiver.url('/'), Site)
        pks = [place.pk for place in places]
        with transaction.atomic():
            bulk_operation.send(sender=Site, instances=places, event='deleted')
            Site.objects.filter(pk__in=pks)._raw_delete('default')
        assert changes() == [(DELETED, pk) for pk in pks]
        work()
        shown = {request.json()['data']['id']: request.json()['data']['name'] for request in receiver.wait_for(3)}
        assert shown == {place.pk: place.name for place in places}

    def test_snapshots_of_a_deletion(self, receiver: Receiver):
        (place,) = make(1)
        subscribe(receiver.url('/'), Site, include_snapshots=True)
        with transaction.atomic():
            bulk_operation.send(sender=Site, instances=[place], event='deleted')
            Site.objects.filter(pk=place.pk)._raw_delete('default')
        work()
        snapshots = receiver.wait_for(1)[0].json()['snapshots']
        assert (snapshots['prechange']['name'], snapshots['postchange']) == (place.name, None)

    def test_it_works_outside_a_transaction(self):
        subscribe(NOWHERE, Site)
        (place,) = make(1)
        bulk_operation.send(sender=Site, instances=[place], event='created')
        assert changes() == [(CREATED, place.pk)]
        assert redis_queue.get().count == 1

    def test_any_iterable_is_taken(self):
        subscribe(NOWHERE, Site)
        make(2)
        bulk_operation.send(sender=Site, instances=Site.objects.order_by('pk').iterator(), event='created')
        assert len(changes()) == 2

    @pytest.mark.parametrize('event', ['create', 'job_started', '', None, 'object_created'])
    def test_an_unknown_kind_is_an_error(self, event: str | None):
        subscribe(NOWHERE, Site)
        with pytest.raises(ValueError, match='is not one of created, updated, deleted'):
            bulk_operation.send(sender=Site, instances=make(1), event=event)
        assert changes() == []
        bulk_operation.send(sender=Site, instances=Site.objects.all(), event='created')
        assert len(changes()) == 1


class TestOneEventEach:
    def test_it_merges_with_what_the_transaction_did_before(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            place = site()
            Site.objects.update(description='changed')
            bulk_operation.send(sender=Site, instances=[place], event='updated')
        (event,) = recorded()
        assert (event.kind, event.snapshot['row']['description']) == (CREATED, 'changed')

    def test_an_object_given_twice_has_one_event(self):
        subscribe(NOWHERE, Site)
        places = make(2)
        bulk_operation.send(sender=Site, instances=places * 2, event='updated')
        assert len(changes()) == 2

    def test_an_object_that_is_not_there_has_no_event(self):
        subscribe(NOWHERE, Site)
        there, gone = make(2)
        Site.objects.filter(pk=gone.pk)._raw_delete('default')
        bulk_operation.send(sender=Site, instances=[there, gone], event='updated')
        assert changes() == [(UPDATED, there.pk)]

    def test_a_rollback_leaves_no_event(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            bulk_operation.send(sender=Site, instances=make(2), event='created')
            assert len(changes()) == 2
            transaction.set_rollback(True)
        assert changes() == []


class TestCost:
    @pytest.mark.parametrize('event', ['created', 'updated'])
    def test_the_number_of_queries_is_constant(self, event: str):
        subscribe(NOWHERE, Site)
        assert queries_of(2, event) == queries_of(300, event) < 8
        assert len(changes()) == 302

    def test_the_number_of_queries_of_a_deletion_is_constant_for_what_is_rendered_together(self, monkeypatch):
        subscribe(NOWHERE, Site)
        monkeypatch.setattr(deletions, 'FIRST_SLICE_OBJECTS', 1000)
        monkeypatch.setattr(deletions, 'LARGEST_SLICE_OBJECTS', 1000)
        queries_of(2, 'deleted')  # the first call fills caches
        assert queries_of(2, 'deleted') == queries_of(300, 'deleted') < 40
        assert len(changes()) == 304

    def test_a_worker_is_woken_once(self):
        subscribe(NOWHERE, Site)
        with transaction.atomic():
            bulk_operation.send(sender=Site, instances=make(50), event='created')
        assert redis_queue.get().count == 1

    def test_it_costs_next_to_nothing_while_nobody_is_subscribed(self):
        places = make(50)
        with transaction.atomic(), CaptureQueriesContext(connection) as captured:
            bulk_operation.send(sender=Site, instances=places, event='created')
        assert len([query for query in captured if 'SAVEPOINT' not in query['sql']]) <= 1
        assert changes() == []
        subscribe(NOWHERE, Site)
        bulk_operation.send(sender=Site, instances=places, event='created')
        assert len(changes()) == 50


class TestNotHeard:
    def test_another_model_is_not_heard(self):
        subscribe(NOWHERE, Site)
        location = Location.objects.create(site=site(), **named('location'))
        before = changes()
        bulk_operation.send(sender=Location, instances=[location], event='updated')
        assert changes() == before
        bulk_operation.send(sender=Site, instances=[location.site], event='updated')
        assert changes() == [*before, (UPDATED, location.site.pk)]

    def test_a_branch_is_not_heard(self):
        subscribe(NOWHERE, Site)
        places = make(1)
        bulk_operation.send(sender=Site, instances=places, event='created', using='schema_branch_x')
        assert changes() == []
        bulk_operation.send(sender=Site, instances=places, event='created')
        assert changes() == [(CREATED, places[0].pk)]
