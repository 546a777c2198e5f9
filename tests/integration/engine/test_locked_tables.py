"""Somebody holds a table of NetBox, as `VACUUM FULL` and `ALTER TABLE` do: what needs it waits, all else goes on."""

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from circuits.models import Provider
from dcim.models import Device, Interface, Region, Site
from django.contrib.contenttypes.models import ContentType
from django.db import InternalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from extras.models import ConfigContext, EventRule, JournalEntry
from ipam.models import ASN, RIR, VLAN
from support.builders import UPDATED, device, interface, named, site, subscribe
from support.builtin import rule
from support.engine import (
    deliveries,
    dispatch_all,
    dispatch_batch,
    dispatching,
    expire,
    health,
    open_transaction,
    pass_retry_waits,
    suspect,
    try_suspects,
    work,
)
from support.others_code import at_each
from tenancy.models import Tenant
from users.models import User

from devstack.receiver import Receiver
from webhooks.engine import commands, notifications, sql
from webhooks.engine.dispatch import put_off
from webhooks.engine.notifications import SUSPENDED
from webhooks.engine.process import inline
from webhooks.engine.registry import SUSPECT
from webhooks.engine.tidy import loop as tidy
from webhooks.models import ContextWalk, Event, Health, ListWalk, Webhook
from webhooks.services import failed_jobs, redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')

READ_LOCKED = "SELECT relation::regclass::text FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation > 16384"
BUSY, IDLE = '/busy', '/idle'


def locked(*models: type) -> AbstractContextManager[None]:
    tables = ', '.join(model._meta.db_table for model in models)

    def lock() -> None:
        with connection.cursor() as cursor:
            cursor.execute(f'LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE')

    return open_transaction(lock)


def wait_for_rows(monkeypatch: pytest.MonkeyPatch, milliseconds: int) -> None:
    """Let the engine wait so long for rows of its own. 0: without end."""
    its_own = f"set_config('lock_timeout', '{sql.ROW_LOCK_MS}'"
    assert its_own in sql.BOUNDS
    monkeypatch.setattr(sql, 'BOUNDS', sql.BOUNDS.replace(its_own, f"set_config('lock_timeout', '{milliseconds}'"))


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(**named('tenant'))


def waiting() -> list[tuple[int, str]]:
    """Return `lapses` and `error` of each event that waits."""
    return list(Event.objects.filter(dispatched_at=None).values_list('lapses', 'error'))


def unlocked(receiver: Receiver, path: str = BUSY) -> list[dict[str, Any]]:
    pass_retry_waits()
    work()
    return [request.json() for request in receiver.matching(lambda request: request.path == path)]


def test_a_change_that_needs_it_waits_unblamed_and_all_others_arrive(receiver, tenant):
    subscribe(receiver.url(BUSY), VLAN, Provider)
    with transaction.atomic():
        needs = VLAN.objects.create(vid=1, name='needs it', tenant=tenant)
        needs_it_not = VLAN.objects.create(vid=2, name='needs it not')
        provider = Provider.objects.create(**named('provider'))
    with locked(Tenant):
        for _ in range(3):
            work()
            pass_retry_waits()
        assert {one.object_id for one in deliveries('delivered')} == {needs_it_not.pk, provider.pk}
        assert waiting() == [(0, '')]
    assert unlocked(receiver)[-1]['data']['tenant']['name'] == tenant.name
    assert deliveries('delivered')[0].object_id == needs.pk
    assert not deliveries('failed')


def test_a_reader_that_was_cut_off_stops_no_upgrade(monkeypatch):
    monkeypatch.setattr(sql, 'READING_IDLE_MS', 300)
    with pytest.raises(InternalError), sql.reading():
        assert not Tenant.objects.exists()
        with locked(Tenant):
            assert not Tenant.objects.exists()
    connection.close()


def test_a_later_change_of_the_same_object_waits_too(receiver, tenant):
    subscribe(receiver.url(BUSY), VLAN)
    vlan = VLAN.objects.create(vid=1, name='first', tenant=tenant)
    vlan.name, vlan.tenant = 'second', None
    vlan.save()
    with locked(Tenant):
        assert work() == 'nothing to send'
    assert [body['data']['name'] for body in unlocked(receiver)] == ['first', 'second']


def test_an_expanded_object_of_a_locked_table_is_whole_once_it_can_be_read(receiver, tenant):
    """The VLAN's own payload does not read the tenant of its site."""
    subscribe(receiver.url(BUSY), VLAN, expand=['site.tenant'])
    VLAN.objects.create(vid=1, name='VLAN', site=site(tenant=tenant))
    with locked(Tenant):
        assert work() == 'nothing to send'
    (body,) = unlocked(receiver)
    assert body['data']['site']['tenant']['slug'] == tenant.slug
    assert 'created' in body['data']['site']['tenant']
    assert 'partial' not in body


class TestComponents:
    @pytest.fixture
    def port(self, receiver: Receiver) -> Interface:
        port = interface(device())
        subscribe(receiver.url(BUSY), Device, include_components=True, kinds=(UPDATED,))
        subscribe(receiver.url(IDLE), Provider)
        return port

    def test_a_device_hears_of_its_component_once_it_can_be_read(self, receiver, port):
        with transaction.atomic():
            port.save()
        Provider.objects.create(**named('provider'))
        with locked(Device):
            for _ in range(3):
                work()
                pass_retry_waits()
            assert [request.path for request in receiver.requests] == [IDLE]
        assert [body['caused_by'] for body in unlocked(receiver)] == [['dcim.interface']]

    def test_a_device_hears_of_an_address_once_its_interface_can_be_read(self, receiver, port):
        port.ip_addresses.create(address='192.0.2.1/24')
        Provider.objects.create(**named('provider'))
        with locked(Interface):
            work()
            assert [request.path for request in receiver.requests] == [IDLE]
        assert [body['caused_by'] for body in unlocked(receiver)] == [['ipam.ipaddress']]

    def test_a_device_that_was_saved_unchanged_waits_with_its_address_and_nothing_else_does(self, receiver):
        """A webhook that hears of real changes only hears of that save if a component changes with it."""
        port, name = interface(device()), named('provider')
        subscribe(receiver.url(BUSY), Device, include_components=True, kinds=(UPDATED,), only_real_changes=True)
        subscribe(receiver.url('/every'), Device, kinds=(UPDATED,))
        subscribe(receiver.url(IDLE), Provider)
        with transaction.atomic():
            port.ip_addresses.create(address='192.0.2.1/24')
            Device.objects.get().save()
        Provider.objects.create(**name)
        with locked(Interface):
            for _ in range(3):
                work()
                pass_retry_waits()
            assert [request.path for request in receiver.requests] == [IDLE]
        assert [body['data']['id'] for body in unlocked(receiver)] == [port.device_id]


class TestWhileOurOwnIndexesAreMadeAgain:
    """`REINDEX TABLE webhooks_event`: the table can be read, and not written."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait for rows of its own for a shorter time."""
        wait_for_rows(monkeypatch, 100)

    def test_no_device_misses_its_component_and_nothing_is_blamed(self, receiver):
        ports = [interface(device()) for _ in range(2)]
        subscribe(receiver.url(BUSY), Device, include_components=True, kinds=(UPDATED,))
        with transaction.atomic():
            for port in ports:
                port.save()

        def lock() -> None:
            with connection.cursor() as cursor:
                cursor.execute(f'LOCK TABLE {Event._meta.db_table} IN SHARE MODE')

        with open_transaction(lock):
            for _ in range(3):
                dispatch_batch()
        assert waiting() == [(0, ''), (0, '')]
        assert not Event.objects.filter(stopped=True).exists()
        assert [body['caused_by'] for body in unlocked(receiver)] == [['dcim.interface']] * 2


@pytest.mark.parametrize('walk', [ContextWalk, ListWalk])
def test_a_dispatcher_goes_on_while_nobody_can_look_for_walks(receiver, walk):
    subscribe(receiver.url(IDLE), Site)
    with locked(walk), dispatching() as role:
        assert role.step() is None
        assert sql.fetch_column(READ_LOCKED) == [walk._meta.db_table]
        site()
        assert role.step() == 1
        assert [one.status for one in deliveries()] == ['pending']


def test_failures_are_listed_later(receiver, monkeypatch, caplog):
    """The dispatcher lists them. If it waited for the table, changes would wait with it."""
    wait_for_rows(monkeypatch, 100)
    subscribe(receiver.url('/{{ 1 / 0 }}'), Site)
    site()
    inline.run()
    (failed,) = deliveries('failed')
    with locked(ContentType), dispatching(failed_jobs.publish) as role:
        role.work()
    assert 'lock timeout' in caplog.text
    assert not deliveries(listed=True)
    failed_jobs.publish()
    assert deliveries(listed=True) == [failed]


class TestASiteThatWaits:
    """Its change may give its devices other config contexts. Their webhook needs no locked table."""

    @pytest.fixture
    def place(self, receiver: Receiver) -> Site:
        place = site(region=Region.objects.create(**named('region')))
        place.asns.add(ASN.objects.create(asn=65001, rir=RIR.objects.create(**named('rir'))))
        device(site=place)
        context = ConfigContext.objects.create(name='NTP', data={'ntp': 'a'})
        context.regions.add(place.region)
        subscribe(receiver.url(BUSY), Site)
        subscribe(receiver.url(IDLE), Device, include_config_contexts=True, kinds=(UPDATED,))
        work()
        place.region = None
        with transaction.atomic():
            place.save()
        return place

    def test_devices_are_sent_meanwhile_and_walked_over_once(self, receiver, place):
        with locked(ASN):
            work()
            (request,) = receiver.requests
            assert (request.path, request.json()['data']['config_context']) == (IDLE, {})
            with transaction.atomic():
                place.save()
            for _ in range(2):
                pass_retry_waits()
                dispatch_all()
                assert not ContextWalk.objects.exists()
        assert [body['data']['region'] for body in unlocked(receiver)] == [None, None]

    def test_a_change_during_the_wait_is_sent_in_the_end(self, receiver, place):
        with locked(ASN):
            work()
            receiver.clear()
            place.region = Region.objects.get()
            with transaction.atomic():
                place.save()
        unlocked(receiver)
        (request,) = receiver.matching(lambda request: request.path == IDLE)
        assert request.json()['data']['config_context'] == {'ntp': 'a'}

    def test_the_log_says_once_that_it_waits(self, place, caplog):
        with locked(ASN):
            for _ in range(3):
                work()
                pass_retry_waits()
        said = [one for one in caplog.records if one.name == 'webhooks.dispatch' and ' waits ' in one.message]
        assert [one.levelname for one in said] == ['WARNING']


def test_while_users_cannot_be_read_nothing_is_blamed_and_nothing_lost(receiver):
    subscribe(receiver.url(BUSY), Site, ignore_users=[User.objects.create_user('robot')])
    site()
    with locked(User):
        for _ in range(3):
            assert work() == 'nothing to send'
        assert waiting() == [(0, '')]
    assert len(unlocked(receiver)) == 1


def test_a_suspect_that_needs_it_is_not_blamed(receiver, tenant, monkeypatch):
    monkeypatch.setattr(put_off, 'PUT_OFF_PAUSE', timedelta(hours=1))
    subscribe(receiver.url(BUSY), VLAN)
    VLAN.objects.create(vid=1, name='VLAN', tenant=tenant)
    suspect(Event.objects.get())
    pass_retry_waits()
    with locked(Tenant):
        try_suspects()
        assert [lapses for lapses, _error in waiting()] == [SUSPECT]
    pass_retry_waits()
    try_suspects()
    assert len(deliveries('pending')) == 1


class TestTidying:
    """The dispatcher does it once a second, between changes: each wait is one of all other webhooks."""

    @pytest.fixture(autouse=True)
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Wait for rows of its own without end: what waits so for a table is ended by PostgreSQL's other limit."""
        wait_for_rows(monkeypatch, 0)

    def test_a_webhook_whose_endpoint_is_gone_is_disabled_later(self, receiver, caplog):
        webhook = subscribe(receiver.url(BUSY), Site)
        Health.objects.update(gone_at=timezone.now())
        with locked(JournalEntry):
            tidy.step()
        assert 'lock timeout' in caplog.text
        assert Webhook.objects.get(pk=webhook.pk).enabled
        tidy.step()
        assert not Webhook.objects.get(pk=webhook.pk).enabled

    def test_all_else_is_tidied_meanwhile(self, receiver):
        subscribe(receiver.url(IDLE), Site, paused=True)
        site()
        work()
        expire()
        Health.objects.update(gone_at=timezone.now())
        with locked(JournalEntry):
            tidy.step()
        assert deliveries('failed')

    def test_event_rules_hear_of_trouble_later(self, receiver, caplog):
        webhook, telling = subscribe(receiver.url(BUSY), Site), subscribe(receiver.url(IDLE))
        rule(telling, Webhook, kinds=(SUSPENDED.name,), action_type='webhooks.send')
        with transaction.atomic():
            notifications.notify((webhook, SUSPENDED))
        with locked(EventRule):
            tidy.step()
        assert 'lock timeout' in caplog.text
        assert health(webhook).notices == [SUSPENDED.name]
        tidy.step()
        assert health(webhook).notices == []
        assert [one.kind for one in deliveries()] == ['suspended']


def test_a_test_says_why_it_has_no_payload(receiver, tenant):
    webhook = subscribe(receiver.url(BUSY), VLAN)
    VLAN.objects.create(vid=1, name='VLAN', tenant=tenant)
    with locked(Tenant):
        sent = trial.send_test(webhook)
    assert 'lock timeout' in sent.error
    assert not receiver.requests


def test_a_redelivery_that_needs_no_locked_table_is_rendered_anew(receiver, tenant):
    """All of the model are rendered together first, which is broken off."""
    webhook = subscribe(receiver.url(BUSY), VLAN)

    def fail(_vlan: VLAN) -> None:
        raise ValueError('a plugin is out of date')

    needing, *others = [
        VLAN.objects.create(vid=vid, name='VLAN', tenant=tenant if vid == 1 else None) for vid in (1, 2, 3)
    ]
    with at_each(VLAN, fail):
        assert work() == '3 failed'
    with locked(Tenant):
        assert redelivery.redeliver(redelivery.select(webhook)) == 3
    assert work() == '2 delivered, 1 failed'
    assert [request.json()['data']['id'] for request in receiver.requests] == [one.pk for one in others]
    (failed,) = deliveries('failed')
    assert failed.object_id == needing.pk
    assert 'lock timeout' in failed.error


def test_a_redelivery_of_many_waits_for_it_with_few(receiver, tenant):
    """Somebody waits for the page, a fifth of a second for each."""
    webhook = subscribe(receiver.url(BUSY), VLAN)

    def fail(_vlan: VLAN) -> None:
        raise ValueError('a plugin is out of date')

    count = 2 * commands.HELD_EVENTS_PER_MODEL
    for vid in range(1, count + 1):
        VLAN.objects.create(vid=vid, name='VLAN', tenant=tenant)
    with at_each(VLAN, fail):
        assert work() == f'{count} failed'
    with locked(Tenant), CaptureQueriesContext(connection) as captured:
        assert redelivery.redeliver(redelivery.select(webhook)) == count
    # All together, then some alone.
    waited = [query for query in captured if f'FROM "{Tenant._meta.db_table}"' in query['sql']]
    assert len(waited) == 1 + commands.HELD_EVENTS_PER_MODEL
    assert work() == f'{count} failed'
    assert all('lock timeout' in failed.error for failed in deliveries('failed'))
