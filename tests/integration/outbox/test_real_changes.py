"""`only_real_changes`: a save that changes nothing is no update."""

import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
from core.models import ObjectType
from dcim.api.serializers import SiteSerializer
from dcim.models import Device, Interface, Region, Site
from django.db import connection, transaction
from django.db.models import Model
from extras.models import CustomField, Tag
from ipam.models import ASN, RIR
from support.builders import (
    CREATED,
    DELETED,
    NOWHERE,
    UPDATED,
    changes,
    device,
    forget_events,
    interface,
    named,
    recorded,
    site,
    subscribe,
)  # fmt: skip
from support.builtin import request_by
from support.engine import deliveries, dispatch_all, in_thread, is_anybody_blocked, work
from tenancy.models import Tenant
from users.models import User

from devstack.process import wait_until
from webhooks import object_types
from webhooks.models import Event, Subscription, Webhook
from webhooks.outbox import redis_queue
from webhooks.rendering.keys import is_stored_whole

pytestmark = pytest.mark.usefixtures('committed')


def only_real(*models: type[Model], **fields: object) -> Webhook:
    return subscribe(NOWHERE, *models, **{'only_real_changes': True} | fields)


def save(instance: Model) -> None:
    """As a view does: read it, and save it in a transaction."""
    with transaction.atomic():
        type(instance)._default_manager.get(pk=instance.pk).save()


def sent() -> list[tuple[str, int, int]]:
    """Return (webhook, kind, object) of each delivery."""
    dispatch_all()
    return [(one.webhook_id, one.event.kind, one.object_id) for one in deliveries()]


class TestNothingIsNew:
    def test_a_save_that_changes_nothing_is_not_even_recorded(self):
        webhook = only_real(Site)
        place = site()
        forget_events()
        before = place.last_updated
        save(place)
        place.refresh_from_db()
        assert place.last_updated > before
        assert changes() == []
        place.description = 'new'
        with transaction.atomic():
            place.save()
        assert sent() == [(webhook.pk, UPDATED, place.pk)]

    def test_nobody_wakes_a_worker_for_it(self):
        only_real(Site)
        place = site()
        redis_queue.connection().flushdb()
        save(place)
        assert redis_queue.get().count == 0
        Site.objects.get(pk=place.pk).delete()
        assert redis_queue.get().count == 1

    def test_a_request_that_saves_what_is_there_sends_nothing(self, api_client):
        webhook = only_real(Site)
        place = site(status='active')
        forget_events()
        address = f'/api/dcim/sites/{place.pk}/'
        assert api_client.patch(address, {'status': 'active'}, format='json').status_code == 200
        assert changes() == []
        assert api_client.patch(address, {'status': 'planned'}, format='json').status_code == 200
        assert sent() == [(webhook.pk, UPDATED, place.pk)]

    def test_a_counter_that_netbox_keeps_is_no_change(self):
        only_real(Device)
        box = device()
        forget_events()
        with transaction.atomic():
            same = Device.objects.get(pk=box.pk)
            Device.objects.filter(pk=box.pk).update(interface_count=7)
            same.interface_count = 8
            same.save()
        assert changes(Device) == []

    def test_a_form_that_adds_an_empty_custom_field_changes_nothing(self, admin_pages):
        webhook = only_real(Site)
        place = site(name='Bern')
        field = CustomField.objects.create(name='spec', type='json')
        field.object_types.set([ObjectType.objects.get_for_model(Site)])
        forget_events()
        sent_by_form = {'name': 'Bern', 'slug': place.slug, 'status': place.status}
        for value in ('', '{"a": null}', '{"a": null}', '{}', ''):
            address = f'/dcim/sites/{place.pk}/edit/'
            assert admin_pages.post(address, sent_by_form | {'cf_spec': value}).status_code == 302
            place.refresh_from_db()
        assert place.custom_field_data == {'spec': None}
        assert sent() == [(webhook.pk, UPDATED, place.pk)] * 3

    def test_several_such_saves_and_a_real_one_are_one_event_with_the_last_state(self):
        webhook = only_real(Site)
        place = site()
        forget_events()
        with transaction.atomic():
            place.save()
            place.name = 'Other'
            place.save()
            place.save()
        (event,) = recorded()
        place.refresh_from_db()
        assert datetime.fromisoformat(event.snapshot['row']['last_updated']) == place.last_updated
        assert sent() == [(webhook.pk, UPDATED, place.pk)]

    def test_a_change_that_is_taken_back_in_its_transaction_is_not_sent(self):
        only_real(Site)
        place = site(name='Bern')
        forget_events()
        with transaction.atomic():
            for name in ('Other', 'Bern'):
                place.name = name
                place.save()
        assert sent() == []
        assert changes() == []

    def test_creations_and_deletions_are_sent_whatever_follows_or_precedes(self):
        webhook = only_real(Site)
        with transaction.atomic():
            place = site()
            place.save()
        with transaction.atomic():
            place.save()
            pk = place.pk
            place.delete()
        assert sent() == [(webhook.pk, CREATED, pk), (webhook.pk, DELETED, pk)]

    def test_after_a_rolled_back_savepoint_the_state_before_it_counts(self):
        only_real(Site)
        place = site(name='Bern')
        forget_events()
        with transaction.atomic():
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                place.name = 'Other'
                place.save()
                raise ZeroDivisionError
            place.name = 'Bern'
            place.save()
        assert changes() == []


class TestLinks:
    def test_a_tag_is_a_change_from_either_end(self):
        webhook = only_real(Site)
        place, tag = site(), Tag.objects.create(**named('tag'))
        asn = ASN.objects.create(asn=65000, rir=RIR.objects.create(**named('rir')))
        forget_events()
        place.tags.add(tag)
        asn.sites.add(place)
        assert sent() == [(webhook.pk, UPDATED, place.pk)] * 2

    def test_tags_that_are_set_to_what_they_are_change_nothing(self):
        only_real(Site)
        place, tag = site(), Tag.objects.create(**named('tag'))
        place.tags.add(tag)
        forget_events()
        with transaction.atomic():
            place.save()
            place.tags.set([tag])
            place.asns.clear()
        assert sent() == []
        place.tags.clear()
        assert len(sent()) == 1


class TestNothingIsLost:
    def test_a_save_that_undoes_another_transactions_change_is_a_real_change(self):
        webhook = only_real(Site)
        place = site(status='active')
        stale = Site.objects.get(pk=place.pk)
        Site.objects.filter(pk=place.pk).update(status='planned')
        forget_events()
        with transaction.atomic():
            stale.save()
        assert sent() == [(webhook.pk, UPDATED, place.pk)]

    def test_a_save_waits_for_an_open_change_before_it_compares(self):
        only_real(Site)
        place = site(status='active')
        stale = Site.objects.get(pk=place.pk)
        forget_events()
        ready, go_on = threading.Event(), threading.Event()

        def change() -> None:
            with transaction.atomic():
                other = Site.objects.get(pk=place.pk)
                other.status = 'planned'
                other.save()
                ready.set()
                go_on.wait(60)

        def save_stale() -> None:
            with transaction.atomic():
                stale.save()

        first = in_thread(change)
        assert ready.wait(30)
        second = in_thread(save_stale)
        assert wait_until(is_anybody_blocked, timeout=60)
        go_on.set()
        first.join(60)
        second.join(60)
        assert [event.snapshot['row']['status'] for event in recorded()] == ['planned', 'active']

    def test_outside_a_transaction_nobody_knows_and_it_is_sent(self):
        webhook = only_real(Site)
        place = site()
        forget_events()
        assert not connection.in_atomic_block
        place.save()
        assert sent() == [(webhook.pk, UPDATED, place.pk)]

    def test_a_webhook_that_compares_since_the_transaction_began_gets_what_is_unknown(self):
        webhook = subscribe(NOWHERE, Site)
        place = site()
        forget_events()
        with transaction.atomic():
            place.save()
            in_thread(lambda: Webhook.objects.get(pk=webhook.pk).save()).join(60)
        Webhook.objects.filter(pk=webhook.pk).update(only_real_changes=True)
        assert sent() == [(webhook.pk, UPDATED, place.pk)]

    def test_every_model_whose_api_shows_other_rows_is_sent_at_each_save(self, db):
        others = {model._meta.label for model in object_types.every_model() if not is_stored_whole(model)}
        assert {'dcim.Cable', 'dcim.FrontPort', 'dcim.RearPort'} <= others
        defaults = {model._meta.label for model in object_types.allowed_models()}
        assert others & defaults == {'circuits.Provider'}  # its accounts


@pytest.fixture
def _anew() -> Iterator[None]:
    """Later tests learn of the models anew."""
    yield
    is_stored_whole.cache_clear()


@pytest.mark.usefixtures('_anew')
class TestSerializers:
    """Whether a save changes something is asked of the model's serializer, which may be a plugin's."""

    def test_one_that_cannot_be_made_breaks_no_save_and_each_save_is_sent(self, monkeypatch, caplog):
        webhook, other = only_real(Site), only_real(Tenant)
        place, tenant = site(), Tenant.objects.create(**named('tenant'))
        forget_events()

        def fail(_serializer: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute('SELECT * FROM gone')

        monkeypatch.setattr(SiteSerializer, 'get_fields', fail)
        is_stored_whole.cache_clear()
        save(place)
        assert changes() == [(UPDATED, place.pk)]
        tenant.description = 'new'
        with transaction.atomic():
            tenant.save()
        assert sent() == [(webhook.pk, UPDATED, place.pk), (other.pk, UPDATED, tenant.pk)]
        assert 'model=dcim.site its serializer cannot be made' in caplog.text

    def test_a_dispatcher_goes_on_too(self, monkeypatch):
        every, real = subscribe(NOWHERE, Site), only_real(Site)
        place = site()
        forget_events()
        save(place)
        monkeypatch.delattr(SiteSerializer, 'Meta')
        is_stored_whole.cache_clear()
        assert sent() == [(every.pk, UPDATED, place.pk), (real.pk, UPDATED, place.pk)]

    @pytest.mark.parametrize('is_link', [False, True], ids=['columns', 'links'])
    def test_it_is_made_before_the_row_is_locked(self, monkeypatch, is_link):
        """The first time it takes long: others wait for the row."""
        only_real(Site)
        place, free = site(), []
        asn = ASN.objects.create(asn=65000, rir=RIR.objects.create(**named('rir')))
        is_stored_whole.cache_clear()
        make = SiteSerializer.get_fields

        def look() -> None:
            with transaction.atomic():
                free.append(Site.objects.select_for_update(skip_locked=True).filter(pk=place.pk).exists())

        def look_and_make(serializer: SiteSerializer) -> object:
            in_thread(look).join(60)
            return make(serializer)

        monkeypatch.setattr(SiteSerializer, 'get_fields', look_and_make)
        with transaction.atomic():
            if is_link:
                place.asns.add(asn)
            else:
                place.save()
        assert free
        assert all(free)


class TestOthers:
    def test_a_webhook_that_wants_each_save_gets_it_beside_one_that_does_not(self):
        every, real = subscribe(NOWHERE, Site), only_real(Site)
        place = site()
        forget_events()
        save(place)
        place.name = 'Other'
        with transaction.atomic():
            place.save()
        assert sent() == [(every.pk, UPDATED, place.pk), *((pk, UPDATED, place.pk) for pk in (every.pk, real.pk))]

    def test_a_switch_counts_from_its_commit_on(self):
        webhook = only_real(Site)
        place = site()
        forget_events()
        webhook.only_real_changes = False
        webhook.save()
        assert set(Subscription.objects.filter(until=None).values_list('unchanged', 'before')) == {(True, False)}
        save(place)
        assert len(changes()) == 1
        webhook.only_real_changes = True
        webhook.save()
        assert set(Subscription.objects.filter(until=None).values_list('unchanged', 'before')) == {(False, True)}
        save(place)
        assert len(changes()) == 1

    def test_a_component_that_did_not_change_is_no_update_of_its_device(self):
        webhook = only_real(Device, include_components=True)
        box = device()
        port = interface(box)
        dispatch_all()
        Event.objects.all().delete()
        save(port)
        dispatch_all()
        assert changes() == []
        port.description = 'new'
        with transaction.atomic():
            port.save()
        dispatch_all()
        assert [one.event.caused_by for one in deliveries(webhook_id=webhook.pk)] == [['dcim.interface']]

    def test_a_component_that_others_want_at_each_save_is_no_update_of_its_device(self):
        subscribe(NOWHERE, Interface)
        only_real(Device, include_components=True)
        box = device()
        port = interface(box)
        dispatch_all()
        Event.objects.all().delete()
        save(port)
        dispatch_all()
        assert changes() == [(UPDATED, port.pk)]

    def test_a_tree_that_is_saved_again_is_not_sent(self):
        only_real(Site)
        region = Region.objects.create(**named('region'))
        place = site(region=region)
        forget_events()
        save(region)
        save(place)
        assert changes() == []


class TestDefault:
    def test_it_is_on_for_whoever_makes_a_webhook_and_off_for_a_stored_one(self, api_client, admin_pages):
        sent = {'name': 'New', 'payload_url': NOWHERE, 'type_update': True, 'object_types': ['dcim.site']}
        answer = api_client.post('/api/plugins/webhooks/webhooks/', sent, format='json')
        assert (answer.status_code, answer.json()['only_real_changes'], answer.json()['only_if_changed']) == (
            201, True, [],
        )  # fmt: skip
        page = admin_pages.get('/plugins/webhooks/webhooks/add/')
        assert page.context['form']['only_real_changes'].value() is True
        with connection.cursor() as cursor:
            cursor.execute(
                'SELECT column_default FROM information_schema.columns WHERE column_name = ANY(%s) ORDER BY 1',
                [['only_real_changes', 'unchanged']],
            )
            assert [row[0] for row in cursor.fetchall()] == ['false', 'true']

    def test_a_request_of_netbox_is_delivered_once_where_something_changed(self, receiver):
        subscribe(receiver.url('/'), Site, only_real_changes=True)
        place = site()
        with request_by(User.objects.create(username='ada')), transaction.atomic():
            same = Site.objects.get(pk=place.pk)
            same.snapshot()
            same.save()
        with request_by(User.objects.get(username='ada')), transaction.atomic():
            same.snapshot()
            same.facility = 'B1'
            same.save()
        work()
        assert [one.json()['event'] for one in receiver.requests] == ['created', 'updated']
