"""Monitoring depends on these outputs and exit codes."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO

import pytest
from dcim.models import Site
from django.core.management import CommandError, call_command
from django.utils import timezone
from django_pg_utils import advisory_lock
from django_rq import get_worker
from netbox.constants import ADVISORY_LOCK_KEYS
from prometheus_client import generate_latest
from support.builders import site, subscribe
from support.engine import deliveries, die, dispatch_all, in_thread, pass_retry_waits, work
from support.log import delivery, event
from support.settings import change_settings
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Receiver
from webhooks import metrics
from webhooks.choices import BackfillStateChoices, StatusChoices
from webhooks.management.commands import webhooks_status
from webhooks.models import Backfill, Delivery, Event, Health, Webhook
from webhooks.services import database_health, redelivery, trial

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED, _UNDECIDED = StatusChoices.values()
HOOK = '/hook'
OK, WARNING, CRITICAL = 0, 1, 2
LONG_AGO = timezone.now() - timedelta(hours=1)
PAUSED = BackfillStateChoices.PAUSED


def command(name: str, *arguments: str) -> tuple[int, str]:
    """Return (exit code, output)."""
    output = StringIO()
    try:
        call_command(name, *arguments, stdout=output)
    except SystemExit as exit_:
        return exit_.code, output.getvalue()
    return OK, output.getvalue()


def status(*arguments: str) -> tuple[int, dict]:
    code, output = command('webhooks_status', '--json', *arguments)
    return code, json.loads(output)


def shown() -> str:
    return command('webhooks_status')[1]


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site, max_attempts=1)


@pytest.fixture
def worker(stack) -> Iterator[None]:
    """Imitates RQ's records of a listening worker."""
    worker = get_worker('high', 'default', 'low')
    worker.register_birth()
    yield
    worker.register_death()


class TestStatus:
    def test_all_well_is_said_with_exit_code_0(self, webhook, worker):
        site()
        work()
        code, found = status()
        assert code == found['exit_code'] == OK
        figures = ('undispatched', 'pending', 'sending', 'failed', 'suspended', 'suspect_events', 'suspect_deliveries')
        assert [found[name] for name in figures] == [0] * 7
        assert (found['workers'], found['redis'], found['oldest'], found['oldest_age']) == (1, True, None, 0)

    def test_the_status_counts_undispatched_events_and_their_age(self, webhook, worker):
        site()
        code, found = status()
        assert (code, found['undispatched']) == (OK, 1)
        assert found['oldest_age'] >= 0
        assert found['oldest']

    def test_the_status_counts_suspects_until_they_are_sent(self, webhook, worker):
        site()
        dispatch_all()
        site()
        held = [*deliveries(), *Event.objects.filter(dispatched_at=None)]
        die(*held)
        assert (status()[1]['suspect_events'], status()[1]['suspect_deliveries']) == (0, 0)
        die(*held)
        code, found = status()
        assert (code, found['suspect_events'], found['suspect_deliveries']) == (OK, 1, 1)
        shown = generate_latest(metrics._registry).decode()
        assert 'webhooks_events_suspect 1.0' in shown
        assert 'webhooks_deliveries_suspect 1.0' in shown
        pass_retry_waits()
        work()
        assert (status()[1]['suspect_events'], status()[1]['suspect_deliveries']) == (0, 0)

    def test_a_failed_delivery_is_a_warning(self, webhook, worker, receiver):
        receiver.answers(HOOK, 500)
        site()
        work()
        code, found = status()
        assert (code, found['failed']) == (WARNING, 1)

    def test_a_failed_test_is_none_since_who_tests_sees_it(self, webhook, worker, receiver):
        receiver.answers(HOOK, 500)
        assert trial.send_test(webhook).status == FAILED
        code, found = status()
        assert (code, found['failed'], found['failures']) == (OK, 0, [])
        shown = generate_latest(metrics._registry).decode()
        assert 'webhooks_deliveries_failed 0.0' in shown
        assert f'webhooks_deliveries_closed_total{{outcome="failed",webhook="{webhook.name}"}} 0.0' in shown

    def test_a_suspended_webhook_is_a_warning(self, webhook, worker):
        Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now())
        code, found = status()
        assert (code, found['suspended'], found['problems']) == (WARNING, 1, ['suspended webhooks: 1'])
        assert [one['webhook'] for one in found['suspended_webhooks']] == [webhook.name]
        assert f'  suspended: {webhook.name} (since ' in shown()

    def test_a_suspended_webhook_that_is_disabled_is_none(self, webhook, worker):
        Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now())
        Webhook.objects.update(enabled=False)
        code, found = status()
        assert (code, found['suspended']) == (OK, 0)

    def test_no_worker_is_critical(self, webhook):
        code, found = status()
        assert (code, found['workers'], found['redis']) == (CRITICAL, 0, True)

    def test_no_redis_is_critical(self, webhook, tasks_redis):
        tasks_redis.stop()
        code, found = status()
        assert (code, found['workers'], found['redis']) == (CRITICAL, None, False)

    def test_a_backlog_that_is_too_old_is_critical(self, webhook, worker):
        site()
        Event.objects.update(timestamp=timezone.now() - timedelta(seconds=1000))
        code, found = status()
        assert code == CRITICAL
        assert found['oldest_age'] > 900
        assert len(found['problems']) == 1
        assert re.search('^CRITICAL: the oldest change has been waiting for 1.*, more than 900$', shown(), re.MULTILINE)
        assert status('--max-age', '2000')[0] == OK

    def test_what_somebody_paused_is_not_late(self, webhook, worker, api_client):
        site()
        dispatch_all()
        old = timezone.now() - timedelta(seconds=1000)
        Event.objects.update(timestamp=old, dispatched_at=old)
        Delivery.objects.update(created=old)
        assert status()[0] == CRITICAL
        address = f'/api/plugins/webhooks/webhooks/{webhook.pk}/'
        assert api_client.patch(address, {'paused': True}, format='json').status_code == 200
        code, found = status()
        assert (code, found['pending'], found['oldest'], found['paused']) == (OK, 1, None, 1)
        (paused,) = found['paused_webhooks']
        assert (paused['webhook'], paused['by']) == (webhook.name, 'admin')
        assert datetime.fromisoformat(paused['since']) > old
        assert re.search(rf'^  paused: {webhook.name} \(since .*, by admin\)$', shown(), re.MULTILINE)
        assert api_client.patch(address, {'paused': False}, format='json').status_code == 200
        assert status()[0] == CRITICAL

    def test_what_somebody_disabled_is_not_late_but_what_its_receiver_disabled_is(self, webhook, worker):
        delivery(event(site(), timestamp=LONG_AGO), webhook, status=PENDING, created=LONG_AGO)
        Event.objects.filter(deliveries=None).delete()
        assert status()[0] == CRITICAL
        Webhook.objects.update(enabled=False)
        assert status()[0] == OK
        Health.objects.update(last_status=410)
        assert status()[0] == CRITICAL

    def test_a_paused_backfill_is_not_late(self, webhook, worker):
        delivery(event(site(), backfill_for=webhook.pk), webhook, status=PENDING, created=LONG_AGO, backfill=True)
        Event.objects.filter(deliveries=None).delete()
        assert status()[0] == CRITICAL
        Backfill.objects.create(webhook=webhook, state=PAUSED, object_types=[], total=1, started_at=LONG_AGO)
        assert status()[0] == OK

    def test_a_pause_from_the_shell_has_no_user_even_after_an_earlier_one(self, webhook, worker, api_client):
        address = f'/api/plugins/webhooks/webhooks/{webhook.pk}/'
        for paused in (True, False):
            assert api_client.patch(address, {'paused': paused}, format='json').status_code == 200
        Webhook.objects.update(paused=True)
        (paused,) = status()[1]['paused_webhooks']
        assert paused == {'webhook': webhook.name, 'since': None, 'by': None}

    def test_the_status_counts_the_wait_from_the_change_not_from_its_dispatch(self, webhook, worker, receiver):
        """Its dispatch is new."""
        site()
        Event.objects.update(timestamp=timezone.now() - timedelta(seconds=1000))
        Webhook.objects.update(paused=True)
        work()
        Webhook.objects.update(paused=False)
        assert status()[1]['oldest_age'] > 900

    @pytest.mark.parametrize('closed', [DELIVERED, FAILED])
    def test_the_status_counts_the_wait_of_a_redelivery_from_the_redelivery(self, webhook, worker, receiver, closed):
        """Its event may be old."""
        receiver.answers(HOOK, 200 if closed == DELIVERED else 500)
        site()
        work()
        long_ago = timezone.now() - timedelta(days=9)
        Event.objects.update(timestamp=long_ago, dispatched_at=long_ago)
        Delivery.objects.update(created=long_ago, expires_at=long_ago + timedelta(days=3))
        redelivery.redeliver(Delivery.objects.all())
        assert len(deliveries(PENDING)) == 1
        assert status()[1]['oldest_age'] < 60

    def test_without_webhooks_nothing_is_critical(self, monkeypatch):
        change_settings(monkeypatch, enabled=False)
        code, found = status()
        assert (code, found['enabled']) == (OK, False)

    def test_a_worker_that_waits_for_netboxs_lock_is_a_warning(self, webhook, worker, monkeypatch):
        assert status()[1]['blocked_workers'] == 0
        monkeypatch.setattr(
            webhooks_status, 'COUNT_BLOCKED', webhooks_status.COUNT_BLOCKED.replace('5 seconds', '0 seconds')
        )
        lock = ADVISORY_LOCK_KEYS['job-schedules']
        with advisory_lock(lock):
            waiting = in_thread(advisory_lock(lock)(int))
            assert wait_until(lambda: status()[1]['blocked_workers'] == 1, 60)
            code, found = status()
        waiting.join()
        assert (code, found['blocked_workers']) == (WARNING, 1)
        assert status()[1]['blocked_workers'] == 0

    def test_what_is_wrong_with_the_database_is_a_warning(self, webhook, worker, monkeypatch):
        monkeypatch.setattr(database_health, '_unvacuumed', lambda tables: ['Run VACUUM'])
        code, found = status()
        assert (code, found['problems']) == (WARNING, ['Run VACUUM'])
        assert 'webhooks_delivery' in [table['name'] for table in found['database']['tables']]
        assert 'webhooks_database_problems 1.0' in generate_latest(metrics._registry).decode()

    def test_the_status_is_readable_for_people(self, webhook, worker):
        site()
        code, text = command('webhooks_status')
        assert re.search(r'^webhooks_delivery +[\d.]+ KB +[\d.]+ KB ', text, re.MULTILINE)
        assert code == OK
        assert 'Events not processed yet                1' in text
        assert 'Redis reachable' in text

    def test_no_database_is_critical(self, make_netbox):
        """The process ends with the exit code."""
        answer = make_netbox("DATABASES['default']['PORT'] = 1").run('webhooks_status')
        assert answer.returncode == CRITICAL
        assert 'PostgreSQL does not answer' in answer.stderr
        assert 'Traceback' not in answer.stderr


class TestPrune:
    def test_pruning_by_days_deletes_only_older_events(self, webhook):
        site()
        work()
        moment = timezone.now() - timedelta(days=3)
        Event.objects.update(timestamp=moment)
        Delivery.objects.update(created=moment)
        assert command('webhooks_prune', '--days', '5') == (OK, '0 events deleted\n')
        assert command('webhooks_prune', '--days', '2') == (OK, '1 event deleted\n')
        assert not Delivery.objects.exists()

    def test_without_days_the_setting_counts(self, webhook, monkeypatch):
        change_settings(monkeypatch, retention_days=1)
        site()
        work()
        moment = timezone.now() - timedelta(days=2)
        Event.objects.update(timestamp=moment)
        Delivery.objects.update(created=moment)
        assert command('webhooks_prune')[1] == '1 event deleted\n'

    @pytest.mark.parametrize('days', ['-1', '999999'])
    def test_days_that_are_no_time_are_refused(self, days):
        with pytest.raises(CommandError, match='--days'):
            call_command('webhooks_prune', '--days', days)
        assert command('webhooks_prune', '--days', '36500') == (OK, '0 events deleted\n')


class TestReplay:
    @pytest.fixture
    def closed(self, webhook, receiver) -> list[Delivery]:
        subscribe(receiver.url('/tenants'), Tenant, name='Tenants')
        receiver.answers(HOOK, 200, 200, 200, 500, 200)
        for _ in range(4):
            site()
            work()
        Tenant.objects.create(name='Tenant', slug='tenant')
        work()
        receiver.clear()
        return deliveries()

    @pytest.fixture
    def replayed(self, closed, receiver) -> Callable[..., list[str]]:
        def run(*arguments: str) -> list[str]:
            code, output = command('webhooks_replay', *arguments)
            work()
            assert code == OK
            assert output == f'{redelivery.announce(len(receiver.requests))}\n'
            return sorted(request.path for request in receiver.requests)

        return run

    def test_one_status_webhook_model_or_time_range_is_replayed_or_everything(self, replayed, closed, receiver):
        assert replayed('--status', 'failed') == [HOOK]
        assert receiver.requests[0].header('webhook-id') == str(closed[3].uuid)
        since, until = (closed[number].event.timestamp.isoformat() for number in (1, 3))
        for arguments, paths in (
            (('--webhook', 'Tenants'), ['/tenants']),
            (('--model', 'tenancy.Tenant'), ['/tenants']),
            (('--since', since, '--until', until), [HOOK] * 2),
            ((), [HOOK] * 4 + ['/tenants']),
        ):
            receiver.clear()
            assert replayed(*arguments) == paths, arguments

    def test_replay_keeps_the_order(self, replayed, receiver):
        replayed('--webhook', Webhook.objects.exclude(name='Tenants').get().name)
        assert len({request.json()['sequence'] for request in receiver.requests}) == 4

    def test_a_dry_run_sends_nothing(self, closed, receiver):
        code, said = command('webhooks_replay', '--dry-run')
        assert (code, said.partition(' will be ')[0]) == (OK, '5 deliveries to 2 webhooks')
        assert work() == 'nothing to send'

    @pytest.mark.parametrize(('typed', 'pending'), [('yes', 5), ('no', 0), ('', 0)])
    def test_a_replay_on_a_terminal_shows_the_number_and_asks(self, closed, monkeypatch, typed, pending):
        monkeypatch.setattr('sys.stdin', Terminal(f'{typed}\n'))
        code, said = command('webhooks_replay')
        assert (code, said.partition(' will be ')[0]) == (OK, '5 deliveries to 2 webhooks')
        assert ('5 deliveries are being redelivered.' in said) == bool(pending)
        assert Delivery.objects.filter(status=PENDING).count() == pending

    @pytest.mark.parametrize('option', ['--yes', '--no-input'])
    def test_on_a_terminal_it_does_not_ask_if_that_was_said_before(self, closed, monkeypatch, option):
        monkeypatch.setattr('sys.stdin', Terminal())
        assert command('webhooks_replay', option) == (OK, '5 deliveries are being redelivered.\n')

    @pytest.mark.parametrize(
        'arguments',
        [
            ('--webhook', 'nobody'),
            ('--model', 'dcim.nothing'),
            ('--model', 'site'),
            ('--status', 'pending'),
            ('--since', 'yesterday'),
            ('--since', '2026-13-45'),
        ],
    )
    def test_bad_arguments_are_named(self, arguments):
        with pytest.raises(CommandError, match=arguments[0]):
            call_command('webhooks_replay', *arguments)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class TestBackfill:
    @pytest.fixture
    def places(self) -> list[int]:
        made = [site(name=name).pk for name in ('Bern', 'Basel')]
        Event.objects.all().delete()
        return made

    def test_everything_is_sent(self, webhook, places, receiver):
        assert command('webhooks_backfill', webhook.name) == (OK, '2 objects will be sent\n')
        work()
        assert sorted(request.json()['data']['id'] for request in receiver.requests) == places

    def test_a_dry_run_sends_none(self, webhook, places):
        options = ('--model', 'dcim.Site', '--filter', 'name=Bern')
        assert command('webhooks_backfill', webhook.name, *options, '--dry-run') == (OK, '1 object would be sent\n')
        assert not Backfill.objects.exists()

    def test_on_a_terminal_it_waits_for_the_end(self, webhook, places, receiver):
        worker = in_thread(lambda: wait_until(Backfill.objects.exists, 60) and work())
        call_command('webhooks_backfill', webhook.name, stdout=Terminal())
        worker.join(60)
        assert len(receiver.requests) == 2
        assert Backfill.objects.get().state == BackfillStateChoices.COMPLETED

    @pytest.mark.parametrize(
        ('arguments', 'reason'),
        [
            (('Nobody',), "there is no webhook with the name 'Nobody'"),
            (('{webhook}', '--model', 'dcim.planet'), '--model'),
            (('{webhook}', '--model', 'dcim.rack'), '--model'),
            (('{webhook}', '--filter', 'colour=red'), '--filter'),
        ],
    )
    def test_a_backfill_by_command_names_the_webhook_or_model_that_does_not_exist(self, webhook, arguments, reason):
        with pytest.raises(CommandError, match=reason):
            call_command('webhooks_backfill', *(one.format(webhook=webhook.name) for one in arguments))

    def test_a_disabled_webhook_is_refused(self, webhook):
        Webhook.objects.update(enabled=False)
        with pytest.raises(CommandError, match='disabled'):
            call_command('webhooks_backfill', webhook.name)
