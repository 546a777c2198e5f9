import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from dcim.models import Device, Rack, Site
from django.db import IntegrityError, connection, transaction
from django.db.models import Model
from django.db.models.signals import m2m_changed, post_save
from django.dispatch import Signal
from extras.models import Tag
from ipam.models import ASN, RIR
from netbox.context_managers import event_tracking
from support.builders import CREATED, DELETED, NOWHERE, UPDATED, changes, device, named, recorded, site, subscribe
from support.engine import dispatch_all
from utilities.request import NetBoxFakeRequest

from webhooks.models import Delivery, Event

pytestmark = pytest.mark.usefixtures('committed')

NOTHING = ''
NAME = {'name': 'Bern', 'slug': 'bern'}


class RolledBack(Exception):
    """Raised to roll back."""


#
# Steps: each gets the primary key and makes one change
#


def create(pk: int) -> None:
    Site.objects.create(pk=pk, **NAME)


def update(pk: int) -> None:
    place = Site.objects.get(pk=pk)
    place.description += 'x'
    place.save()


def tag(pk: int) -> None:
    Site.objects.get(pk=pk).tags.add(Tag.objects.create(name='Tag', slug='tag'))


def delete(pk: int) -> None:
    Site.objects.get(pk=pk).delete()


def announce(pk: int) -> None:
    """NetBox saves objects that it has already announced as deleted."""
    post_save.send(Site, instance=Site(pk=pk, **NAME), created=False, using='default', raw=False, update_fields=None)


def resurrect(pk: int) -> None:
    """bulk_create() sends no signal."""
    Site.objects.bulk_create([Site(pk=pk, **NAME)])


@pytest.fixture
def webhook(committed: None):
    return subscribe(NOWHERE, Site)


class TestTable:
    @pytest.mark.parametrize(
        ('exists', 'steps', 'kind'),
        [
            # the object is new
            (False, [create], CREATED),
            (False, [create, update], CREATED),
            (False, [create, tag], CREATED),
            (False, [create, update, tag, update], CREATED),
            (False, [create, delete], NOTHING),
            (False, [create, update, delete], NOTHING),
            (False, [create, delete, create], CREATED),
            (False, [create, delete, create, delete], NOTHING),
            (False, [create, delete, announce], NOTHING),
            # the object is old
            (True, [update], UPDATED),
            (True, [update, update], UPDATED),
            (True, [update, tag], UPDATED),
            (True, [delete], DELETED),
            (True, [update, delete], DELETED),
            (True, [tag, delete], DELETED),
            (True, [delete, announce], DELETED),
            (True, [delete, resurrect, update], DELETED),
            (True, [delete, create], UPDATED),
            (True, [delete, create, update], UPDATED),
            (True, [delete, create, delete], DELETED),
            (True, [update, delete, create], UPDATED),
        ],
        ids=lambda value: '-'.join(step.__name__ for step in value) if isinstance(value, list) else None,
    )
    def test_several_changes_become_one_event_of_the_kind_they_come_to(
        self, webhook, exists: bool, steps: list[Callable], kind: str
    ):
        pk = 4711
        if exists:
            create(pk)
            Event.objects.all().delete()
        with transaction.atomic():
            for step in steps:
                step(pk)
        assert changes() == [(kind, pk)]

    def test_the_last_state_is_kept(self, webhook):
        with transaction.atomic():
            for step in (create, update, update, tag):
                step(1)
        (event,) = recorded()
        assert event.snapshot['row']['description'] == 'xx'
        assert len(event.snapshot['m2m']['tags']) == 1

    def test_a_deleted_object_stays_as_it_was_when_it_was_deleted(self, webhook):
        create(1)
        Event.objects.all().delete()
        with transaction.atomic():
            update(1)
            delete(1)
            resurrect(1)
            Site.objects.get(pk=1).save()
        assert recorded()[0].snapshot['row']['description'] == 'x'

    def test_an_object_that_is_saved_again_before_its_creation_is_announced_is_created(self):
        """When NetBox links a module's bays, an earlier receiver saves the object again."""

        def again(instance: Site, created: bool, **kwargs) -> None:
            if created:
                instance.save()

        subscribe(NOWHERE, Site, include_snapshots=True)
        post_save.connect(again, sender=Site)
        post_save.receivers.insert(0, post_save.receivers.pop())
        try:
            with transaction.atomic():
                place = site()
        finally:
            post_save.disconnect(again, sender=Site)
        assert changes() == [(CREATED, place.pk)]
        assert recorded()[0].prechange is None

    def test_the_sequence_is_drawn_anew(self, webhook):
        with transaction.atomic():
            create(1)
            (before,) = recorded()
            update(1)
            (after,) = recorded()
        assert after.sequence > before.sequence
        assert after.timestamp > before.timestamp
        assert (after.pk, after.uuid) == (before.pk, before.uuid)

    def test_the_event_says_who_did_it_last(self, webhook, netbox_user):
        request = NetBoxFakeRequest({'user': netbox_user, 'id': uuid.uuid4(), 'META': {}})
        with transaction.atomic():
            create(1)
            with event_tracking(request):
                update(1)
        (event,) = recorded()
        assert (event.username, event.request_id) == ('admin', request.id)

    def test_two_objects_are_two_events(self, webhook):
        with transaction.atomic():
            pks = [site().pk for _ in range(2)]
        assert changes() == [(CREATED, pk) for pk in pks]

    def test_two_transactions_are_two_events(self, webhook):
        for step in (create, update):
            with transaction.atomic():
                step(1)
        assert changes() == [(CREATED, 1), (UPDATED, 1)]

    def test_a_dispatched_event_is_not_merged_with_a_later_change(self, webhook):
        """After a restore, transaction ids come again."""
        create(1)
        dispatch_all()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                'UPDATE webhooks_event '
                'SET transaction_id = pg_current_xact_id()::text::bigint, transaction_time = now()'
            )
            update(1)
        assert sorted(changes()) == [(CREATED, 1), (UPDATED, 1)]

    def test_created_and_deleted_sends_nothing(self, webhook):
        with transaction.atomic():
            create(1)
            delete(1)
            create(2)
        dispatch_all()
        assert Event.objects.get().object_id == 2
        assert Delivery.objects.get().object_id == 2

    def test_kinds_are_matched_after_merging(self, committed):
        created, updated = (subscribe(NOWHERE, Site, kinds=(kind,)) for kind in (CREATED, UPDATED))
        with transaction.atomic():
            create(1)
            update(1)
        dispatch_all()
        assert list(Delivery.objects.values_list('webhook', flat=True)) == [created.pk]
        assert not updated.deliveries.exists()


class TestRollback:
    def test_a_rollback_of_the_transaction_leaves_nothing(self, webhook):
        with pytest.raises(RolledBack), transaction.atomic():
            create(1)
            raise RolledBack
        assert changes() == []

    def test_a_rollback_to_a_savepoint_leaves_the_rest(self, webhook):
        with transaction.atomic():
            outer = site()
            with pytest.raises(RolledBack), transaction.atomic():
                site()
                raise RolledBack
            later = site()
        assert changes() == [(CREATED, outer.pk), (CREATED, later.pk)]

    def test_a_rollback_of_the_savepoint_with_the_first_change_forgets_it(self, webhook):
        with transaction.atomic():
            with pytest.raises(RolledBack), transaction.atomic():
                site()
                raise RolledBack
            later = site()
        assert changes() == [(CREATED, later.pk)]

    def test_a_rollback_of_a_later_change_leaves_the_earlier_one(self, webhook):
        with transaction.atomic():
            create(1)
            with pytest.raises(RolledBack), transaction.atomic():
                update(1)
                tag(1)
                raise RolledBack
        (event,) = recorded()
        assert (event.kind, event.snapshot['row']['description']) == (CREATED, '')
        assert event.snapshot['m2m']['tags'] == []

    def test_a_rollback_of_a_deletion_leaves_the_change_before(self, webhook):
        create(1)
        Event.objects.all().delete()
        with transaction.atomic():
            update(1)
            with pytest.raises(RolledBack), transaction.atomic():
                delete(1)
                raise RolledBack
        assert changes() == [(UPDATED, 1)]
        assert recorded()[0].snapshot['row']['description'] == 'x'

    def test_a_rollback_to_a_savepoint_made_by_hand_is_noticed(self, webhook):
        with transaction.atomic(), connection.cursor() as cursor:
            outer = site()
            cursor.execute('SAVEPOINT by_hand')
            site()
            cursor.execute('ROLLBACK TO SAVEPOINT by_hand')
        assert changes() == [(CREATED, outer.pk)]

    def test_a_statement_that_failed_in_a_savepoint_leaves_the_rest(self, webhook):
        create(1)
        Event.objects.all().delete()
        with transaction.atomic():
            update(1)
            with pytest.raises(Exception, match='unique'), transaction.atomic():
                Site.objects.create(**NAME)
        assert changes() == [(UPDATED, 1)]


@contextmanager
def before_ours(signal: Signal, sender: type[Model], receiver: Callable[..., None]) -> Iterator[None]:
    """Plugins before ours in PLUGINS connect after NetBox and before us."""
    signal.connect(receiver, sender=sender, weak=False, dispatch_uid='before ours')
    last = signal.receivers.pop()
    ours = {(uid, id(sender)) for uid in (f'webhooks.{sender._meta.label_lower}', 'webhooks.linked')}
    place = next(place for place, (key, *_) in enumerate(signal.receivers) if key in ours)
    signal.receivers.insert(place, last)
    signal.sender_receivers_cache.clear()
    try:
        yield
    finally:
        signal.disconnect(sender=sender, dispatch_uid='before ours')


class TestNested:
    """Another plugin saves the object again before our receiver runs."""

    def test_a_rack_that_is_saved_again_takes_its_devices_along(self):
        rack = Rack.objects.create(site=site(), name='Rack')
        moved = device(site=rack.site, rack=rack)
        subscribe(NOWHERE, Device)

        def save_again(instance: Rack, **kwargs: Any) -> None:
            if not instance.description:
                instance.description = 'again'
                instance.save()

        rack.site = site()
        with before_ours(post_save, Rack, save_again), transaction.atomic():
            rack.save()
        assert changes() == [(UPDATED, moved.pk)]
        assert recorded()[0].snapshot['row']['site_id'] == rack.site.pk

    def test_all_that_is_added_from_the_far_side_is_updated(self, webhook):
        asn = ASN.objects.create(asn=65000, rir=RIR.objects.create(**named('rir')))
        first, second = site(), site()
        Event.objects.all().delete()

        def add_another(instance: ASN, action: str, pk_set: set, **kwargs: Any) -> None:
            if action == 'post_add' and pk_set == {first.pk}:
                instance.sites.add(second)

        with before_ours(m2m_changed, Site.asns.through, add_another), transaction.atomic():
            asn.sites.add(first)
        assert sorted(changes()) == [(UPDATED, first.pk), (UPDATED, second.pk)]

    @pytest.mark.parametrize('anew', [False, True])
    def test_the_state_before_nested_saves_is_the_one_that_the_first_save_found(self, anew: bool):
        place = site(description='before')
        subscribe(NOWHERE, Site, include_snapshots=True)

        def save_again(instance: Site, **kwargs: Any) -> None:
            if instance.description == 'between':
                again = Site.objects.get(pk=instance.pk) if anew else instance
                again.description = 'after'
                again.save()

        place.description = 'between'
        with before_ours(post_save, Site, save_again), transaction.atomic():
            place.save()
        (event,) = recorded()
        assert event.prechange['row']['description'] == 'before'
        assert event.snapshot['row']['description'] == 'after'

    def test_a_nested_save_that_fails_leaves_the_outer_one_what_it_held(self):
        rack = Rack.objects.create(site=site(), name='Rack')
        moved = device(site=rack.site, rack=rack)
        subscribe(NOWHERE, Device)

        def fail_again(instance: Rack, **kwargs: Any) -> None:
            with pytest.raises(IntegrityError), transaction.atomic():
                instance.name = None
                instance.save()

        rack.site = site()
        with before_ours(post_save, Rack, fail_again), transaction.atomic():
            rack.save()
        assert changes() == [(UPDATED, moved.pk)]

    @pytest.mark.parametrize('block', [nullcontext, transaction.atomic])
    def test_a_save_that_failed_leaves_nothing_to_the_next(self, block: Callable):
        place = site(description='first')
        subscribe(NOWHERE, Site, include_snapshots=True)
        place.name = None
        with pytest.raises(IntegrityError), block():
            place.save()
        Site.objects.filter(pk=place.pk).update(description='second')
        place.name = 'Bern'
        with block():
            place.save()
        (event,) = recorded()
        assert event.prechange['row']['description'] == 'second'
