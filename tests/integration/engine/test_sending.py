"""From a committed change to an endpoint that has got it, and what the log says of it."""

import math
import time
import uuid
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from urllib.parse import quote

import pytest
from dcim.models import Site
from django.db import transaction
from django.utils import timezone
from extras.models import JournalEntry
from support.builders import CREATED, DELETED, UPDATED, named, site, subscribe
from support.engine import (
    arrivals,
    claim,
    claim_suspect,
    deliveries,
    dispatch_all,
    expire,
    health,
    in_thread,
    pass_leases,
    pass_retry_waits,
    record,
    work,
    working,
)
from tenancy.models import Tenant

from devstack.process import wait_until
from devstack.receiver import Answer, Manner, Receiver
from webhooks.choices import StatusChoices
from webhooks.engine import claims, crew, job_time, lanes, rescue, runner
from webhooks.engine import senders as module
from webhooks.engine.claimed import prepare
from webhooks.engine.claims import is_held_by_time
from webhooks.engine.job_time import Span
from webhooks.engine.ledger import Ledger
from webhooks.engine.senders import SPARE, THREADS, Senders
from webhooks.exceptions import DefinitionError
from webhooks.models import Attempt, Delivery, Health, Webhook
from webhooks.outbox import queue, wakeup
from webhooks.payload.http_request import Builder
from webhooks.security.masking import MASK
from webhooks.services import redelivery, trial
from webhooks.templating import renderer
from webhooks.transport.client import Client
from webhooks.transport.exchange import Outcome

pytestmark = pytest.mark.usefixtures('committed')

PENDING, SENDING, DELIVERED, FAILED, SUPERSEDED = StatusChoices.values()
HOOK = '/hook'
LEASE, OTHER_LEASE = uuid.UUID(int=1), uuid.UUID(int=2)
SUCCESS = Outcome(started_at=0, duration=0.1, status=200)


@pytest.fixture
def webhook(receiver: Receiver) -> Webhook:
    return subscribe(receiver.url(HOOK), Site)


def sites(count: int) -> None:
    with transaction.atomic():
        for _ in range(count):
            site()


class TestDelivered:
    def test_the_endpoint_gets_each_change_once(self, webhook, receiver):
        place = site()
        place.save()
        pk = place.pk
        place.delete()
        assert work() == '3 delivered'
        assert [request.json()['event'] for request in receiver.requests] == [CREATED, UPDATED, DELETED]
        assert {object_id for object_id, _sequence in arrivals(receiver)} == {pk}
        assert work() == 'nothing to send'
        assert len(receiver.requests) == 3

    def test_the_log_has_request_and_answer(self, webhook, receiver):
        receiver.answers(HOOK, Answer(202, b'thank you', {'X-Seen': 'yes'}))
        site()
        work()
        (delivered,) = deliveries()
        assert (delivered.status, delivered.response_status, delivered.error) == (DELIVERED, 202, '')
        assert (delivered.attempt_count, delivered.lease, delivered.due_at) == (1, None, None)
        assert delivered.finished_at >= delivered.created
        (attempt,) = delivered.attempts.all()
        assert (attempt.number, attempt.method, attempt.url) == (1, 'POST', receiver.url(HOOK))
        assert (attempt.response_status, attempt.response_body, attempt.error) == (202, 'thank you', '')
        assert attempt.response_headers['X-Seen'] == 'yes'
        assert attempt.request_headers['webhook-id'] == str(delivered.uuid)
        assert attempt.duration > 0

    def test_the_log_has_no_signature(self, receiver):
        """Whoever reads the log could send the request once more, or guess a typed secret in peace."""
        subscribe(receiver.url(HOOK), Site, secret='swordfish')
        site()
        work()
        (request,) = receiver.requests
        logged = deliveries()[0].attempts.get().request_headers
        for name in ('webhook-signature', 'X-Hook-Signature'):
            assert request.header(name)
            assert logged[name] == MASK

    def test_health_counts_what_was_delivered(self, webhook):
        sites(3)
        work()
        found = health(webhook)
        assert (found.delivered, found.failed, found.last_status, sum(found.latency)) == (3, 0, 200, 3)
        assert found.last_success_at

    def test_each_webhook_gets_it_under_an_id_of_its_own(self, receiver):
        for path in ('/a', '/b'):
            subscribe(receiver.url(path), Site)
        site()
        assert work() == '2 delivered'
        assert {request.path for request in receiver.requests} == {'/a', '/b'}
        assert len({request.header('webhook-id') for request in receiver.requests}) == 2
        assert len({request.json()['id'] for request in receiver.requests}) == 1

    def test_method_and_content_type_are_the_webhooks(self, receiver):
        subscribe(receiver.url(HOOK), Site, http_method='PUT', http_content_type='application/vnd.test+json')
        site()
        work()
        (request,) = receiver.requests
        assert (request.method, request.header('Content-Type')) == ('PUT', 'application/vnd.test+json')

    @pytest.mark.parametrize('login', ['user:pass word', 'üser:p@ss', 'token:'])
    def test_a_login_in_the_url_is_sent_and_not_shown(self, receiver, login):
        user, password = map(quote, login.split(':'))
        subscribe(receiver.url(HOOK).replace('//', f'//{user}:{password}@'), Site)
        site()
        work()
        (request,) = receiver.wait_for(1)
        assert b64decode(request.header('Authorization').removeprefix('Basic ')).decode() == login
        assert deliveries()[0].attempts.get().request_headers['Authorization'] == MASK

    def test_a_header_of_the_webhooks_own_goes_before_it(self, receiver):
        url = receiver.url(HOOK).replace('//', '//user:password@')
        subscribe(url, Site, additional_headers='authorization: Bearer mine')
        site()
        work()
        (request,) = receiver.wait_for(1)
        assert [value for name, value in request.headers if name.lower() == 'authorization'] == ['Bearer mine']

    @pytest.mark.parametrize(
        ('own', 'sent'),
        [
            ('content-type: text/plain\nuser-agent: me', {'content-type': 'text/plain', 'user-agent': 'me'}),
            ('X-A: first\nx-a: last', {'x-a': 'last', 'content-type': 'application/json'}),
            ('X-A: {{ event }}\nx-A: {{ data.name }}', {'x-a': 'Bern'}),
        ],
    )
    def test_each_header_is_sent_once_and_the_webhooks_own_wins(self, receiver, own, sent):
        """Upper and lower case are the same to endpoints: of two values they take either, or refuse both."""
        subscribe(receiver.url(HOOK), Site, additional_headers=own)
        site(name='Bern')
        work()
        (request,) = receiver.wait_for(1)
        got = {name.lower(): value for name, value in request.headers}
        assert len(got) == len(request.headers)
        assert got | sent == got
        shown = [name.lower() for name in deliveries()[0].attempts.get().request_headers]
        assert len(shown) == len(set(shown))
        assert {*sent, 'webhook-id'} <= {*shown}

    def test_connections_are_kept(self, receiver):
        subscribe(receiver.url(HOOK), Site, concurrency=1)
        sites(20)
        work()
        assert len({request.connection for request in receiver.requests}) == 1

    def test_more_changes_than_are_dispatched_at_once_are_delivered(self, webhook, receiver):
        count = 250
        sites(count)
        assert work() == f'{count} delivered'
        assert len({request.json()['id'] for request in receiver.requests}) == count


class TestFailed:
    def test_a_redirect_names_where_it_would_lead(self, receiver):
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        receiver.answers(HOOK, Answer(302, headers={'Location': receiver.url('/elsewhere')}))
        site()
        assert work() == '1 failed'
        (failed,) = deliveries()
        assert (failed.status, failed.response_status) == (FAILED, 302)
        assert receiver.url('/elsewhere') in failed.error
        assert [request.path for request in receiver.requests] == [HOOK]

    def test_an_endpoint_that_is_gone_is_not_asked_again(self, webhook, receiver):
        receiver.answers(HOOK, 410)
        sites(1)
        work()
        webhook.refresh_from_db()
        assert not webhook.enabled
        (entry,) = JournalEntry.objects.all()
        assert entry.assigned_object == webhook
        assert '410' in entry.comments
        pass_retry_waits()
        site()
        assert work() == 'nothing to send'
        assert len(receiver.requests) == 1

    def test_a_definition_that_cannot_be_used_sends_nothing_and_says_which_line(self, receiver):
        subscribe(receiver.url(HOOK), Site, body_template='{\n{{ data.name.missing.key }}\n}')
        site()
        work()
        (failed,) = deliveries()
        assert failed.status == FAILED
        assert 'body_template' in failed.error
        assert 'line 2' in failed.error
        assert not receiver.requests

    def test_a_delivery_that_cannot_be_built_holds_up_no_other(self, webhook, receiver):
        broken = subscribe(receiver.url('/broken'), Site, body_template='{{ data.name.missing.key }}')
        sites(5)
        assert work() == '5 delivered, 5 failed'
        assert {one.status for one in deliveries(webhook=broken)} == {FAILED}

    @pytest.mark.parametrize('charset', ['nonsense', 'hex', 'utf-16'])
    def test_an_answer_that_cannot_be_read_stops_nobody(self, webhook, receiver, charset):
        receiver.answers(HOOK, Answer(200, b'odd', {'Content-Type': f'text/plain; charset={charset}'}))
        sites(3)
        assert work() == '3 delivered'

    def test_the_current_definition_is_used_for_each_attempt(self, webhook, receiver):
        receiver.answers(HOOK, 500)
        site()
        work()
        webhook.payload_url = receiver.url('/moved')
        webhook.save()
        pass_retry_waits()
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert (first.path, second.path) == (HOOK, '/moved')
        assert first.header('webhook-id') == second.header('webhook-id')
        assert first.body == second.body


class TestLease:
    @pytest.fixture
    def pending(self, webhook) -> Delivery:
        site()
        dispatch_all()
        (pending,) = deliveries(PENDING)
        return pending

    def test_nobody_else_claims_what_is_claimed(self, pending):
        assert claim(LEASE) == [pending]
        assert claim(OTHER_LEASE) == []

    @pytest.mark.parametrize('timeout', [7, None])
    def test_it_lasts_for_the_timeout_and_half_a_minute(self, pending, webhook, timeout, settings):
        settings.WEBHOOK_DEFAULT_TIMEOUT = 11
        Webhook.objects.filter(pk=webhook.pk).update(timeout=timeout)
        before = timezone.now()
        (claimed,) = claim(LEASE)
        claimed.refresh_from_db()
        expected = timedelta(seconds=(timeout or 11) + 30)
        assert before + expected <= claimed.lease_until <= timezone.now() + expected

    def test_while_the_lease_lasts_the_delivery_does_not_come_back(self, pending, receiver):
        claim(LEASE)
        assert work() == 'nothing to send'
        assert not receiver.requests
        pass_leases()
        work()
        pass_retry_waits()
        work()
        assert len(receiver.requests) == 1

    def test_only_the_holder_of_the_lease_records(self, pending, webhook):
        claimed = claim(LEASE)
        pass_leases()
        rescue.rescue()
        pass_retry_waits()
        assert claim_suspect(OTHER_LEASE) == [pending]
        assert record(LEASE, claimed, SUCCESS) == 'nothing to send'
        pending.refresh_from_db()
        assert (pending.status, pending.lease) == (SENDING, OTHER_LEASE)
        assert Attempt.objects.count() == 1
        assert record(OTHER_LEASE, claimed, SUCCESS) == '1 delivered'
        assert Attempt.objects.count() == 2

    def test_a_late_answer_does_not_open_what_is_closed(self, pending, webhook):
        claimed = claim(LEASE)
        pass_leases()
        work()
        pass_retry_waits()
        work()
        assert record(LEASE, claimed, SUCCESS) == 'nothing to send'
        assert [one.attempt_count for one in deliveries(DELIVERED)] == [2]


class TestConcurrency:
    @pytest.mark.parametrize('concurrency', [1, 3, 16])
    def test_as_many_are_under_way_as_the_webhook_says(self, receiver, concurrency):
        subscribe(receiver.url(HOOK), Site, concurrency=concurrency)
        sites(20)
        dispatch_all()
        assert len(claim(limit=64)) == concurrency
        assert claim() == []

    def test_concurrency_counts_across_workers(self, receiver):
        subscribe(receiver.url(HOOK), Site, concurrency=5)
        sites(20)
        dispatch_all()
        assert [len(claim(limit=2)) for _ in range(4)] == [2, 2, 1, 0]

    def test_concurrency_counts_for_each_webhook_separately(self, receiver):
        for _ in range(3):
            subscribe(receiver.url(HOOK), Site, concurrency=2)
        sites(20)
        dispatch_all()
        assert len(claim(limit=64)) == 6

    def test_requests_really_overlap(self, receiver):
        """Each is answered when all have arrived: with fewer at a time they would run into the timeout."""
        subscribe(receiver.url(HOOK), Site, concurrency=4)
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        sites(4)
        with working():
            receiver.wait_for(4)
            receiver.close()


class TestAhead:
    """A worker that has a webhook to itself holds as many beyond `concurrency` as were answered since its last turn."""

    @pytest.fixture
    def webhook(self, receiver: Receiver) -> Webhook:
        webhook = subscribe(receiver.url(HOOK), Site, concurrency=2)
        sites(20)
        dispatch_all()
        return webhook

    def claimed(self, webhook: Webhook, answered: int = 5) -> int:
        with lanes.turn() as now:
            return len(claims.claim(LEASE, [webhook.pk], 64, now, answered={webhook.pk: answered}).held)

    @contextmanager
    def handed_over(self, webhook: Webhook) -> Iterator[Senders]:
        """Seven are claimed, and handed to senders at once."""
        with lanes.turn() as now:
            held = claims.claim(LEASE, [webhook.pk], 64, now, answered={webhook.pk: 5})
        builder = Builder(webhook)
        with closing(Client(4)) as client, ThreadPoolExecutor(8) as pool:
            senders = Senders(client, pool)
            for one in claims.fetch(held.pks):
                senders.begin(prepare(one, builder, time.time()), math.inf)
            yield senders

    def test_it_is_added_to_the_concurrency(self, webhook):
        assert self.claimed(webhook) == 2 + 5
        assert self.claimed(webhook) == 0
        assert claim() == []

    @pytest.mark.parametrize('others', [1, 2])
    def test_while_another_worker_holds_any_there_is_none(self, webhook, others):
        assert len(claim(limit=others)) == others
        assert self.claimed(webhook) == 2 - others

    def test_whoever_was_answered_comes_after_whoever_was_not(self, webhook, receiver):
        idle = subscribe(receiver.url('/idle'), Tenant)
        Tenant.objects.create(**named('tenant'))
        dispatch_all()
        for _ in range(10):
            with lanes.turn() as now:
                held = claims.claim(LEASE, [webhook.pk], 2, now, answered={webhook.pk: 5}).held
                transaction.set_rollback(True)
            assert idle.pk in {one.webhook_id for one in held}

    def test_for_a_suspect_there_is_room(self, webhook):
        Delivery.objects.filter(pk=deliveries()[0].pk).update(lapses=1)
        assert self.claimed(webhook) == 2 - 1

    def test_of_a_suspended_webhook_one_is_held(self, webhook):
        Health.objects.filter(webhook=webhook).update(suspended_since=timezone.now(), probe_at=timezone.now())
        assert self.claimed(webhook) == 1

    def test_a_rate_limit_is_not_exceeded_for_it(self, webhook):
        """It counts what is claimed: sent later, and together, more would go out in a second."""
        Webhook.objects.filter(pk=webhook.pk).update(rate_limit=1000)
        assert self.claimed(webhook) <= 2

    def test_no_more_requests_are_under_way_for_it(self, webhook, receiver):
        """All are handed to the senders at once. The first two hang: the others are not begun, and go back."""
        receiver.answers(HOOK, Answer(manner=Manner.HANG))
        with self.handed_over(webhook) as senders:
            receiver.wait_for(2)
            assert len(senders.withdraw(time.monotonic())) == 5
            receiver.close()
            assert wait_until(lambda: senders.free == THREADS, timeout=60)
            assert len(senders.wait(0, 0)) == 2
        assert len(receiver.requests) == 2

    def test_they_follow_one_another_on_the_same_threads(self, webhook, receiver):
        with self.handed_over(webhook) as senders:
            assert wait_until(lambda: senders.free == THREADS, timeout=60)
            assert [one.outcome.status for one in senders.wait(0, 0)] == [200] * 7
            assert not senders.under_way
        assert len({request.connection for request in receiver.requests}) <= 2


def test_a_webhook_with_nothing_under_way_waits_for_no_queue(receiver, monkeypatch):
    """Each of two threads takes, after an answer, what is next of the webhook with the fewest requests under way."""
    monkeypatch.setattr(module, 'THREADS', 2)
    monkeypatch.setattr(module, 'SPARE', 0)
    receiver.answers(HOOK, Answer(delay=0.2))
    busy, idle = subscribe(receiver.url(HOOK), Site), subscribe(receiver.url('/idle'), Tenant)
    sites(10)
    Tenant.objects.create(**named('tenant'))
    dispatch_all()
    claimed = claim(limit=11)
    with closing(Client(2)) as client, ThreadPoolExecutor(2) as pool:
        senders = Senders(client, pool)
        for webhook in (busy, idle):
            builder = Builder(webhook)
            for one in claimed:
                if one.webhook_id == webhook.pk:
                    senders.begin(prepare(one, builder, time.time()), math.inf)
            receiver.wait_for(2)
        paths = [request.path for request in receiver.wait_for(11, timeout=60)]
    assert paths.index('/idle') <= 3


def test_the_spare_threads_are_for_webhooks_that_have_none(receiver):
    """Of the others nothing is claimed meanwhile: it would wait here for nothing."""
    receiver.answers(HOOK, Answer(manner=Manner.HANG))
    webhook = subscribe(receiver.url(HOOK), Site, concurrency=100)
    sites(THREADS)
    dispatch_all()
    claimed, builder = claim(limit=THREADS), Builder(webhook)
    with crew.opened() as helpers:
        assert (helpers.free, helpers.is_full, set(helpers.closed)) == (THREADS - SPARE, False, set())
        for one in claimed:
            helpers.senders.begin(prepare(one, builder, time.time()), math.inf)
        receiver.wait_for(THREADS - SPARE, timeout=60)
        assert (helpers.free, helpers.is_full, set(helpers.closed)) == (1, True, {webhook.pk})
        receiver.close()


def test_the_spare_threads_are_for_webhooks_of_which_nothing_is_being_built(receiver, settings, monkeypatch, tmp_path):
    goes_on = tmp_path / 'goes on'
    settings.JINJA_FILTERS = {'wait': lambda _: wait_until(goes_on.exists, timeout=60)}
    monkeypatch.setattr(renderer, 'TIME_LIMIT', 60)
    webhook = subscribe(receiver.url(HOOK), Site, concurrency=100, body_template='{{ 1|wait }}')
    sites(THREADS - SPARE)
    dispatch_all()
    claimed = claim(limit=THREADS)
    with crew.opened() as helpers:
        assert not list(helpers.building.begin(claimed, {webhook.pk: Builder(webhook)}, 0))
        found = helpers.free, helpers.is_full, set(helpers.closed)
        goes_on.touch()
    assert found == (1, True, {webhook.pk})


def test_a_job_that_did_nothing_counts_nothing(webhook):
    """By that RQ's job says whether it was in vain."""
    assert runner.run().counts == {}
    site()
    assert runner.run().counts == {DELIVERED: 1}


class TestHeldBack:
    @pytest.mark.parametrize('hold', [{'paused': True}, {'enabled': False}])
    def test_nothing_is_sent_until_it_ends(self, webhook, receiver, hold):
        site()
        dispatch_all()
        self.change(webhook, **hold)
        assert work() == 'nothing to send'
        self.change(webhook, paused=False, enabled=True)
        assert work() == '1 delivered'

    def test_while_it_is_paused_changes_are_recorded(self, webhook, receiver):
        self.change(webhook, paused=True)
        site()
        work()
        self.change(webhook, paused=False)
        assert work() == '1 delivered'

    def test_while_it_is_disabled_changes_are_not_recorded(self, webhook, receiver):
        self.change(webhook, enabled=False)
        site()
        self.change(webhook, enabled=True)
        assert work() == 'nothing to send'
        site()
        assert work() == '1 delivered'

    def test_what_is_held_expires(self, webhook):
        self.change(webhook, paused=True)
        site()
        dispatch_all()
        expire()
        work()
        (expired,) = deliveries()
        assert (expired.status, expired.due_at) == (FAILED, None)
        assert expired.finished_at
        assert 'expired' in expired.error
        assert (health(webhook).failed, health(webhook).delivered) == (1, 0)

    def test_what_has_expired_is_not_sent(self, webhook, receiver):
        site()
        dispatch_all()
        expire()
        work()
        assert not receiver.requests
        site()
        work()
        assert len(receiver.wait_for(1)) == 1

    @staticmethod
    def change(webhook: Webhook, **fields: object) -> None:
        for name, value in fields.items():
            setattr(webhook, name, value)
        webhook.save()


class TestNewest:
    def test_a_change_passes_the_backlog_of_its_own_webhook(self, webhook):
        sites(60)
        dispatch_all()
        newest = Site.objects.create(name='Newest', slug='newest')
        dispatch_all()
        assert newest.pk in {one.object_id for one in claim(limit=16)}
        assert Delivery.objects.order_by('pk').first().status == SENDING


class TestDeletedWebhook:
    def test_its_log_goes_with_it(self, webhook, receiver):
        sites(3)
        work()
        assert Attempt.objects.count() == 3
        webhook.delete()
        assert not Delivery.objects.exists()
        work()
        assert not Attempt.objects.exists()
        assert not Delivery._base_manager.exists()
        assert not Health._base_manager.exists()

    def test_a_webhook_may_be_deleted_while_its_requests_are_under_way(self, receiver):
        """What the others have sent is recorded all the same, and once."""
        slow = subscribe(receiver.url('/slow'), Site)
        other = subscribe(receiver.url('/other'), Tenant)
        receiver.answers('/slow', Answer(manner=Manner.HANG))
        sites(2)
        with working():
            receiver.wait_for(2)
            slow.delete()
            Tenant.objects.create(name='Tenant', slug='tenant')
            wakeup.wake()
            receiver.wait_for(1, lambda request: request.path == '/other')
            receiver.close()
        assert [one.status for one in deliveries(webhook=other)] == [DELIVERED]

    def test_a_webhook_may_be_deleted_while_its_answers_are_recorded(self, webhook, receiver, monkeypatch):
        """Whoever deletes it does not wait for the worker that holds its lane."""
        flush = Ledger.flush

        def delete_first(ledger: Ledger, *args: object, **kwargs: object) -> None:
            if ledger.webhook_ids:
                in_thread(Webhook.objects.filter(pk=webhook.pk).delete).join(30)
                assert not Webhook.objects.filter(pk=webhook.pk).exists()
            flush(ledger, *args, **kwargs)

        monkeypatch.setattr(Ledger, 'flush', delete_first)
        receiver.answers(HOOK, 410)
        site()
        assert work() == '1 to retry'
        assert not deliveries()

    def test_a_webhook_may_be_deleted_just_after_its_answers_came(self, webhook, receiver, monkeypatch):
        """Its counters are written a moment later, when its row is gone."""
        other = subscribe(receiver.url('/other'), Site)
        flush = Ledger.flush

        def delete_first(ledger: Ledger, *args: object, **kwargs: object) -> None:
            if kwargs.get('force'):
                Webhook.objects.filter(pk=webhook.pk).delete()
            flush(ledger, *args, **kwargs)

        monkeypatch.setattr(Ledger, 'flush', delete_first)
        sites(3)
        work()
        assert health(other).delivered == 3


class TestPace:
    """What is begun must be over when NetBox's other jobs are to have their turn."""

    # Seconds that are left, what is known of the endpoint, whose webhook's timeout is 60, and whether it is asked.
    CASES = (
        (math.inf, {'unreachable': 1}, True),
        (19, {}, True),
        (59, {'unreachable': 1}, False),
        (60, {'unreachable': 1}, True),
        (19, {'takes': 20}, False),
        (20, {'takes': 20}, True),
        (20, {'takes': 20, 'unreachable': 1}, True),
    )

    @pytest.mark.parametrize(('left', 'known', 'begun'), CASES)
    def test_only_what_ends_in_time_is_begun(self, receiver, left, known, begun):
        webhook = subscribe(receiver.url(HOOK), Site, timeout=60)
        Health.objects.filter(webhook=webhook).update(unreachable=known.get('unreachable', 0))
        span = Span(left, {webhook.pk: known['takes']} if 'takes' in known else {})
        site()
        dispatch_all()
        assert is_held_by_time(lanes.now(), span) is not begun
        assert len(claim(LEASE, 10, span)) == begun

    def test_what_would_take_too_long_goes_out_in_the_next_job(self, receiver, monkeypatch):
        monkeypatch.setattr(job_time, 'FIRST', 0)
        webhook = subscribe(receiver.url(HOOK), Site, timeout=60)
        Health.objects.filter(webhook=webhook).update(unreachable=1)
        site()
        queue.get().empty()
        assert work() == 'nothing to send'
        assert queue.get().count == 1
        monkeypatch.undo()
        assert work() == '1 delivered'


class TestFairness:
    def test_a_slow_endpoint_holds_up_nobody(self, receiver):
        """What is saved while its requests are under way is dispatched, and sent, before they end."""
        slow = subscribe(receiver.url('/slow'), Site, timeout=60)
        subscribe(receiver.url('/fast'), Tenant)
        receiver.answers('/slow', Answer(manner=Manner.HANG))
        sites(30)
        with working():
            receiver.wait_for(16)
            for number in range(5):
                Tenant.objects.create(name=f'Tenant {number}', slug=f'tenant-{number}')
                receiver.wait_for(number + 1, lambda request: request.path == '/fast')
            assert len(deliveries(SENDING, webhook=slow)) == 16
            slow.delete()
            receiver.close()

    def test_more_webhooks_than_threads_all_get_their_turn(self, receiver):
        for number in range(80):
            subscribe(receiver.url(f'/{number}'), Site)
        site()
        assert work() == '80 delivered'

    def test_a_stretch_ends_and_goes_on_in_another_job(self, webhook, receiver, monkeypatch):
        """NetBox's other jobs get their turn in between."""
        monkeypatch.setattr(job_time, 'JOB_TIME', 0)
        sites(1)
        queue.get().empty()
        wakeup.accept()
        work()
        assert queue.get().count == 1
        assert not receiver.requests
        monkeypatch.undo()
        assert work() == '1 delivered'

    def test_two_jobs_at_once_send_everything_once(self, webhook, receiver):
        sites(60)
        threads = [in_thread(work) for _ in range(2)]
        for thread in threads:
            thread.join(60)
        assert wait_until(lambda: not deliveries(PENDING, SENDING), timeout=10)
        assert len(receiver.requests) == len({request.json()['id'] for request in receiver.requests}) == 60


class TestRedelivery:
    @pytest.fixture
    def failed(self, receiver: Receiver) -> Iterator[Delivery]:
        receiver.answers(HOOK, 500, 200)
        subscribe(receiver.url(HOOK), Site, max_attempts=1)
        site()
        work()
        (failed,) = deliveries(FAILED)
        return failed

    def test_what_failed_goes_out_under_the_same_id(self, failed, receiver):
        assert redelivery.redeliver(Delivery.objects.all()) == 1
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert first.header('webhook-id') == second.header('webhook-id') == str(failed.uuid)
        (delivered,) = deliveries()
        assert (delivered.status, delivered.attempt_count) == (DELIVERED, 2)

    def test_it_has_one_attempt_more(self, failed, receiver):
        receiver.answers(HOOK, 500)
        redelivery.redeliver(Delivery.objects.all())
        assert work() == '1 failed'
        (failed,) = deliveries()
        assert (failed.status, failed.attempt_count) == (FAILED, 2)

    def test_its_time_to_live_starts_anew(self, failed, receiver):
        expire()
        Delivery.objects.update(expires_at=timezone.now() - timedelta(days=1))
        redelivery.redeliver(Delivery.objects.all())
        assert work() == '1 delivered'

    def test_what_was_delivered_goes_out_under_a_new_id(self, webhook, receiver):
        site()
        work()
        assert redelivery.redeliver(Delivery.objects.all()) == 1
        assert work() == '1 delivered'
        first, second = receiver.requests
        assert first.header('webhook-id') != second.header('webhook-id')
        assert first.body == second.body
        assert len(deliveries(DELIVERED)) == 2

    def test_what_is_open_stays_as_it_is(self, webhook, receiver):
        site()
        dispatch_all()
        assert redelivery.redeliver(Delivery.objects.all()) == 0
        assert work() == '1 delivered'

    def test_a_worker_is_woken(self, failed):
        queue.get().empty()
        wakeup.accept()
        redelivery.redeliver(Delivery.objects.all())
        assert queue.get().count == 1

    def test_a_time_range_is_replayed(self, webhook, receiver):
        for _ in range(4):
            site()
        work()
        events = [one.event for one in deliveries()]
        count = redelivery.replay(webhook, since=events[1].timestamp, until=events[3].timestamp)
        assert count == 2
        receiver.clear()
        work()
        assert {sequence for _pk, sequence in arrivals(receiver)} == {events[1].sequence, events[2].sequence}

    def test_only_deliveries_of_the_status_are_replayed(self, failed, receiver):
        site()
        work()
        assert [len(deliveries(status)) for status in (DELIVERED, FAILED)] == [1, 1]
        assert redelivery.replay(failed.webhook, status=FAILED) == 1
        receiver.clear()
        work()
        assert [request.header('webhook-id') for request in receiver.requests] == [str(failed.uuid)]


class TestTestDelivery:
    def test_it_shows_the_newest_object(self, webhook, receiver):
        site()
        newest = site()
        sent = trial.send_test(webhook)
        assert (sent.status, sent.event.test) == (DELIVERED, True)
        assert receiver.requests[-1].json()['data']['id'] == newest.pk

    def test_it_is_tried_once(self, webhook, receiver):
        receiver.answers(HOOK, 503)
        site()
        assert trial.send_test(webhook).status == FAILED
        assert len(receiver.requests) == 1

    def test_an_object_that_is_deleted_meanwhile_is_not_tested_with(self, webhook, monkeypatch):
        site()
        monkeypatch.setattr(trial.snapshots, 'take', lambda *args: {})
        with pytest.raises(DefinitionError):
            trial.send_test(webhook)

    def test_there_must_be_an_object(self, webhook):
        with pytest.raises(DefinitionError):
            trial.send_test(webhook)
