import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from dcim.models import Device, Site
from django.core.cache import cache as shared
from django.db import OperationalError, connection
from django.test import RequestFactory
from ipam.models import IPAddress
from netbox.config import clear_config
from support.builders import device, site, subscribe
from support.chaos.audit import Ledger, check, finish
from support.chaos.servers import kill_redis
from support.chaos.victims import Children, toil
from support.engine import deliveries, dispatch_all, pass_alive, pass_retry_waits, suspect, work

from devstack.process import wait_until
from devstack.receiver import Answer, Receiver
from devstack.redis import RedisAddress, RedisServer
from webhooks import metrics
from webhooks.choices import StatusChoices
from webhooks.engine import sql
from webhooks.engine.registry import STOPPED, SUSPECT
from webhooks.models import Delivery, Event, Webhook

pytestmark = [
    pytest.mark.usefixtures('committed'),
    # The children do not use the receiver's threads.
    pytest.mark.filterwarnings('ignore:This process .* is multi-threaded:DeprecationWarning'),
]

PATIENCE = 60

END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    receiver.answers('/hook', Answer(delay=0.01))
    return subscribe(receiver.url('/hook'), Site)


def has_got(receiver: Receiver, ledger: Ledger) -> bool:
    return len({request.header('webhook-id') for request in receiver.matching()}) >= len(ledger.committed)


@contextmanager
def hung(address: RedisAddress) -> Iterator[None]:
    with address.client() as client:
        pid = client.info('server')['process_id']
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def full(address: RedisAddress) -> Iterator[None]:
    with address.client() as client:
        client.config_set('maxmemory', 1)
        try:
            yield
        finally:
            client.config_set('maxmemory', 0)


@contextmanager
def without_master(address: RedisAddress) -> Iterator[None]:
    """Then it takes no writes."""
    with address.client() as client:
        client.replicaof('127.0.0.1', 9)
        try:
            yield
        finally:
            client.replicaof('no', 'one')


class TestRedis:
    def test_everything_arrives_although_redis_is_killed_while_changes_are_saved(self, webhook, receiver, tasks_redis):
        if not tasks_redis.private:
            pytest.skip('this Redis is not ours to kill')
        ledger = Ledger()
        pks = [ledger.create() for _ in range(4)]
        kill_redis(tasks_redis.server.address)
        for pk in pks:
            ledger.change(pk)
        tasks_redis.start()
        for pk in pks:
            ledger.change(pk)
        finish()
        check(ledger, receiver)

    @pytest.mark.parametrize('harm', [hung, full, without_master])
    def test_a_change_is_sent_although_redis_takes_nothing(self, webhook, receiver, rqworker, tasks_redis, harm):
        if not tasks_redis.private:
            pytest.skip('this Redis is not ours to harm')
        rqworker()
        with harm(tasks_redis.server.address):
            for number in (1, 2):
                site()
                assert receiver.wait_for(number, timeout=PATIENCE)

    def test_a_change_is_sent_although_redis_is_stopped(self, webhook, receiver, rqworker, tasks_redis):
        rqworker()
        tasks_redis.stop()
        for number in (1, 2):
            site()
            assert receiver.wait_for(number, timeout=PATIENCE)

    def test_everything_arrives_although_redis_loses_its_data_again_and_again(
        self, webhook, receiver, children: Children, stack, chance
    ):
        """The log has the truth: waiting workers notice nothing."""
        ledger = Ledger()
        pks = [ledger.create() for _ in range(4)]
        worker = children.fork(toil)
        for _ in range(10):
            ledger.change_at_random(chance, pks, 3)
            with stack.tasks.client() as client:
                client.flushall()
        assert wait_until(lambda: has_got(receiver, ledger), timeout=PATIENCE)
        ledger.note_interrupted()
        children.kill(worker)
        finish()
        check(ledger, receiver)


class TestCache:
    """NetBox's configuration is in it, which a device's address needs."""

    @pytest.fixture
    def cache(self, stack, processes) -> Iterator[RedisServer]:
        if not stack.private_redis:
            pytest.skip('this Redis is not ours to stop')
        server = RedisServer('redis-caching', stack.folder, processes, stack.caching.port)
        yield server
        if not server.answers():
            server.start()

    @pytest.fixture
    def place(self, receiver) -> Device:
        place = device()
        interface = place.interfaces.create(name='eth0', type='virtual')
        place.primary_ip4 = IPAddress.objects.create(address='192.0.2.1/24', assigned_object=interface)
        place.primary_ip6 = IPAddress.objects.create(address='2001:db8::1/64', assigned_object=interface)
        subscribe(receiver.url('/hook'), Device)
        subscribe(receiver.url('/sites'), Site)
        return place

    def test_an_object_that_needs_the_cache_is_sent_once_redis_is_back(self, place, receiver, cache):
        place.save()
        site()
        clear_config()
        cache.stop()
        work()
        assert not deliveries(StatusChoices.FAILED)
        # Not a suspect: it goes with all others.
        assert not Event.objects.filter(dispatched_at=None).exclude(lapses=0).exists()
        cache.start()
        work()
        assert {one.path for one in receiver.requests} == {'/hook', '/sites'}
        (shown,) = (one.json()['data'] for one in receiver.requests if one.path == '/hook')
        assert shown['primary_ip']['address'] == '2001:db8::1/64'
        assert len(deliveries(StatusChoices.DELIVERED)) == len(deliveries()) == 2

    @pytest.mark.parametrize('harm', [full, without_master])
    def test_feeds_and_metrics_are_shown_although_it_takes_nothing(self, cache, api_client, harm):
        feed = subscribe('', Site)
        site()
        work()
        # A former feed may have had the same id.
        shared.delete_many([metrics.CACHE_KEY, f'webhooks.feed.{feed.pk}'])
        with harm(cache.address):
            page = api_client.get(f'/api/plugins/webhooks/webhooks/{feed.pk}/feed/')
            figures = metrics.export_ours(RequestFactory().get('/metrics')).content.decode()
        assert (page.status_code, len(page.data['items'])) == (200, 1)
        assert f'webhooks_feed_unread{{webhook="{feed.name}"}} 1.0' in figures

    def test_a_suspect_that_cannot_be_shown_while_it_is_away_is_not_to_blame(self, place, receiver, cache):
        place.save()
        suspect(Event.objects.get(dispatched_at=None))
        clear_config()
        cache.stop()
        work()
        (event,) = Event.objects.filter(dispatched_at=None)
        assert (event.error, event.lapses) == (STOPPED, SUSPECT)
        cache.start()
        pass_retry_waits()
        work()
        assert len(deliveries(StatusChoices.DELIVERED)) == len(deliveries()) == 1

    def test_a_suspect_that_waits_for_it_keeps_no_other_suspect(self, place, receiver, cache):
        made = site()
        dispatch_all()
        suspect(*deliveries())
        place.save()
        suspect(Event.objects.get(dispatched_at=None))
        pass_retry_waits()
        clear_config()
        cache.stop()
        work()
        assert [one.json()['data']['id'] for one in receiver.requests] == [made.pk]
        (event,) = Event.objects.filter(dispatched_at=None)
        assert (event.error, event.lapses) == (STOPPED, SUSPECT)


def answers() -> bool:
    connection.close()
    try:
        connection.ensure_connection()
    except OperationalError:
        return False
    return True


class TestPostgres:
    def test_everything_arrives_although_postgresql_crashes_while_a_worker_sends(
        self, webhook, receiver, children: Children, postgres, chance
    ):
        """Killed soon after its look, as by an error in RQ, and replaced."""
        # The next worker waits as long for what was in hand.
        Webhook.objects.update(timeout=2)
        ledger = Ledger()
        pks = [ledger.create() for _ in range(6)]
        for _ in range(3):
            ledger.change_at_random(chance, pks, 15)
            worker = children.fork(toil)
            receiver.wait_for(len(receiver.requests) + 5, timeout=PATIENCE)
            ledger.note_interrupted()
            postgres.crash_by_its_own()
            assert wait_until(answers, timeout=PATIENCE)
            # The crash came a moment after the look.
            ledger.note_interrupted()
            children.kill(worker)
            pass_alive()
        finish()
        check(ledger, receiver)

    def test_what_was_sent_outlasts_a_crash_though_commits_of_netbox_do_not_wait_for_the_disk(
        self, webhook, receiver, postgres
    ):
        database = connection.ops.quote_name(connection.settings_dict['NAME'])
        sql.execute(f'ALTER DATABASE {database} SET synchronous_commit = off')
        try:
            connection.close()
            # Otherwise it would write them a moment later.
            writer = sql.fetch_value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
            os.kill(writer, signal.SIGSTOP)
            sent = site().pk
            work()
            site()
            postgres.crash_by_its_own()
        finally:
            connection.close()
            sql.execute(f'ALTER DATABASE {database} RESET synchronous_commit')
            connection.close()
        assert [request.json()['data']['id'] for request in receiver.requests] == [sent]
        assert list(Site.objects.values_list('pk', flat=True)) == [sent]

    def test_a_job_records_what_it_has_sent_after_a_crash_of_postgresql(
        self, webhook, receiver, children: Children, postgres
    ):
        ledger = Ledger()
        for _ in range(40):
            ledger.create()
        job = children.fork(work)
        receiver.wait_for(5, timeout=PATIENCE)
        postgres.crash_by_its_own()
        connection.close()
        assert children.ends_well(job)
        ids = [request.header('webhook-id') for request in receiver.matching()]
        assert len(ids) == len(set(ids)) > 5
        finish()
        check(ledger, receiver)

    def test_a_real_worker_outlasts_a_postgresql_that_is_down_for_a_while(self, webhook, receiver, rqworker, postgres):
        """Nobody helps its processes."""
        worker = rqworker()
        ledger = Ledger()
        pk = ledger.create()
        assert wait_until(Delivery.objects.filter(status=StatusChoices.DELIVERED).exists, timeout=PATIENCE)
        postgres.crash()
        connection.close()
        assert wait_until(lambda: 'transaction=broken off' in worker.child.log.read_text(), timeout=PATIENCE)
        postgres.start()
        for _ in range(3):
            ledger.change(pk)
        assert wait_until(lambda: has_got(receiver, ledger), timeout=PATIENCE)
        worker.stop()
        ledger.note_interrupted()
        finish()
        check(ledger, receiver)

    def test_a_real_worker_outlasts_a_database_that_is_read_only_for_a_while(self, webhook, receiver, rqworker):
        worker = rqworker()
        database = connection.ops.quote_name(connection.settings_dict['NAME'])
        sql.execute(f'ALTER DATABASE {database} SET default_transaction_read_only = on')
        try:
            sql.execute(END_OTHERS)
            assert wait_until(lambda: 'read-only transaction' in worker.child.log.read_text(), timeout=PATIENCE)
        finally:
            sql.execute(f'ALTER DATABASE {database} RESET default_transaction_read_only')
        site()
        assert receiver.wait_for(1, timeout=PATIENCE)


def test_everything_arrives_although_all_goes_wrong_at_once(webhook, receiver, children: Children, stack, chance):
    """The seed says when one of two workers is killed."""
    webhook.concurrency, webhook.max_attempts = 100, 100
    webhook.save()
    answers = [Answer(chance.choice([200, 200, 200, 500, 503]), delay=chance.random() / 50) for _ in range(200)]
    receiver.answers('/hook', *answers, 200)
    ledger = Ledger()
    pks = [ledger.create() for _ in range(8)]
    workers = [children.fork(toil) for _ in range(2)]
    for turn in itertools.count(1):
        ledger.change_at_random(chance, pks, 8)
        if turn == 12:
            break
        if chance.random() < 0.5:
            victim = workers.pop(chance.randrange(2))
            children.kill(victim)
            ledger.note_interrupted()
            workers.append(children.fork(toil))
        if chance.random() < 0.2:
            with stack.tasks.client() as client:
                client.flushall()
    for worker in workers:
        children.kill(worker)
    ledger.note_interrupted()
    finish()
    check(ledger, receiver)
